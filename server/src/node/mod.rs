//! Puts a server together from its parts, runs it, and stops it in order.
//!
//! A start is three types, each made of the one before: [`Bound`] has the addresses, [`Opened`] the
//! ledger besides, [`Running`] serves. Nobody listens before a login can be answered: until then a
//! peer is refused, and so it is where the start fails. [`Stopping`] goes six numbered steps under
//! one deadline.

mod start;
mod stop;

pub use self::start::{Bound, Opened, StartError};
pub use self::stop::{Running, Stopped, Stopping};
