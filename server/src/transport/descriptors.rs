//! File descriptors: how many one table may hold, and a private table for each shard where one is
//! not enough.
//!
//! RLIMIT_NOFILE bounds a table, and threads of a process share one table unless they say
//! otherwise. A shard that has unshared its table (`unshare(CLONE_FILES)`) has a limit of its own,
//! so that one process carries more connections than one table holds. What makes this correct:
//! - every runtime is built before any thread unshares (a barrier in `shard`): a wake-up across
//!   threads is a write to a number in the *waker's* table, so epoll instances and wake-up
//!   descriptors must have the same number in every table;
//! - what is opened afterwards is used and closed only by the thread that opened it: listeners and
//!   sockets never leave their shard, ledger and admin surface never leave the main side;
//! - shards block all signals, so that handlers run on the main side only.

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use serde::Deserialize;

use crate::limits;

/// What a table holds besides connections.
pub const TABLES: hongbao_sysctl::Tables = hongbao_sysctl::Tables {
    // Standard streams, ledger, admin surface, reports, listener, a spare one.
    fixed: 64,
    // A shard's epoll, wake-up and signal descriptors, and the copies of what was open when the
    // table was unshared.
    per_shard: 6,
    // A shard has at least one SET.
    shards_max: limits::SETS_MAX,
};

/// Whether shards share the process's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tables {
    /// Private ones where --connections exceeds what one table may hold
    Auto,
    /// One for the process
    Shared,
    /// One for each shard
    Private,
}

/// What the kernel lets one table hold at most, RLIMIT_NOFILE's hard limit; 1024, the least any
/// host allows, if unknown.
pub fn hard_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(_, hard)| hard)
}

/// Raises the soft limit to the hard one; returns what holds now.
pub fn raise_limit() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() => hard,
        Ok((soft, _)) => soft,
        Err(_) => 1_024,
    }
}

/// Gives the calling thread a table of its own, a copy of the one it shared.
pub fn unshare_table() -> std::io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_FILES)?)
}

/// Leaves signals to other threads.
pub fn block_signals() -> std::io::Result<()> {
    Ok(SigSet::all().thread_block()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_connections_need_55_tables_of_20000() {
        assert_eq!(TABLES.shards_for(1_000_000, 20_000, 2, 1_024), Some(55));
    }
}
