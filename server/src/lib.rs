//! hongbao-server: persistent connections, prizes, and the ledger that remembers them.
//!
//! A request's way, downwards: `shard::reader` → `set` → `market::stock` → `ledger::writer` →
//! `ledger::sqlite`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod admission;
pub mod clock;
pub mod config;
pub mod ends;
pub mod generator;
pub mod ledger;
pub mod limits;
pub mod market;
pub mod node;
pub mod services;
pub mod set;
pub mod shard;
pub mod telemetry;
pub mod tools;
pub mod transport;
pub mod watchdog;
