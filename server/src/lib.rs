//! hongbao-server: persistent connections, prizes, and the ledger that remembers them.

pub mod campaign;
pub mod ledger;
pub mod limits;
