//! hongbao-server: persistent connections, prizes, and the ledger that remembers them.
//!
//! A request's way, downwards: `shard::reader` → `shard::set` → `stock` → `ledger::writer` → `ledger::sqlite`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod admission;
pub mod campaign;
pub mod clerk;
pub mod config;
pub mod descriptors;
pub mod ends;
pub mod envelope;
pub mod find;
pub mod generator;
pub mod host;
pub mod house;
pub mod ledger;
pub mod limits;
pub mod lot;
pub mod node;
pub mod order;
pub mod rooms;
pub mod shard;
pub mod stock;
pub mod telemetry;
pub mod trace;
pub mod watchdog;
