//! What a server asks of its host: our limits, as the values that [`hongbao_sysctl`] judges by.

use hongbao_sysctl::{Shards, Wanted};

use crate::limits;
use crate::transport::descriptors;

/// Where users connect unless configured otherwise.
pub const PORT: u16 = 7400;

/// Connections to check for unless told otherwise.
pub const CONNECTIONS: u64 = 1_000_000;

/// So many connections from other hosts, to a server that chooses its shards itself.
pub fn wanted(connections: u64) -> Wanted {
    Wanted {
        connections,
        fleet_here: false,
        port: PORT,
        shards: Shards::Chosen,
        tables: descriptors::TABLES,
        backlog: u64::from(limits::LISTEN_BACKLOG.unsigned_abs()),
    }
}
