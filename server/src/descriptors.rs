//! File descriptors: how many one table may hold, and a private table for each shard where one is not enough.
//!
//! RLIMIT_NOFILE bounds a table, and threads of a process share one table unless they say otherwise. A shard that has unshared
//! its table (`unshare(CLONE_FILES)`) has a limit of its own, so that one process carries more connections than one table
//! holds. What makes this correct:
//! - every runtime is built before any thread unshares (a barrier in `shard`): a wake-up across threads is a write to a number
//!   in the *waker's* table, so epoll instances and wake-up descriptors must have the same number in every table;
//! - what is opened afterwards is used and closed only by the thread that opened it: listeners and sockets never leave their
//!   shard, ledger and admin surface never leave the main side;
//! - shards block all signals, so that handlers run on the main side only.

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use serde::Deserialize;

/// Descriptors of a table that are no connections, whatever the number of shards: standard streams, ledger, admin surface,
/// reports, listener, a spare one.
const FIXED: u64 = 64;

/// Descriptors of every table for each shard: its runtime's epoll, wake-up and signal descriptors, and the copies of what was
/// open when the table was unshared.
const PER_SHARD: u64 = 6;

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

/// What the kernel lets one table hold at most, RLIMIT_NOFILE's hard limit; 1024, the least any host allows, if unknown.
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

/// Connections that a table of `limit` descriptors has room for.
pub fn room(limit: u64, shards: u32) -> u64 {
    limit.saturating_sub(FIXED + PER_SHARD * u64::from(shards))
}

/// How full tables may get on average, in sixteenths: the kernel spreads peers over the shards' listeners by a hash, and none
/// should have to close its listener while others have room.
const FILL: u64 = 15;

/// The fewest shards, from `cores` up to `most`, whose private tables of `limit` descriptors carry `connections`.
pub fn shards_for(connections: u64, limit: u64, cores: u32, most: u32) -> Option<u32> {
    (cores..=most).find(|shards| room(limit, *shards) * u64::from(*shards) / 16 * FILL >= connections)
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_chosen_shards_carry_the_connections_and_one_fewer_would_not(connections in 0u64..2_000_000, limit in 256u64..1_100_000, cores in 1u32..64) {
            let carried = |shards: u32| room(limit, shards) * u64::from(shards) / 16 * FILL;
            match shards_for(connections, limit, cores, 1_024) {
                Some(shards) => {
                    prop_assert!(carried(shards) >= connections);
                    prop_assert!(shards == cores || carried(shards - 1) < connections);
                }
                None => prop_assert!((cores..=1_024).all(|shards| carried(shards) < connections)),
            }
        }
    }

    #[test]
    fn a_million_connections_need_55_tables_of_20000() {
        assert_eq!(shards_for(1_000_000, 20_000, 2, 1_024), Some(55));
    }
}
