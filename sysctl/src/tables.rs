//! How many connections descriptor tables hold. RLIMIT_NOFILE bounds a table, and each shard of a
//! server may have its own.

/// How full tables may get on average, in sixteenths: the kernel spreads peers over the shards'
/// listeners by a hash, and none should have to close its listener while others have room.
const FILL: u64 = 15;

/// What a server's descriptor tables hold besides connections, and how many of them there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// Descriptors of a table that are no connections, however many shards there are.
    pub fixed: u64,
    /// Descriptors of every table for each shard.
    pub per_shard: u64,
    /// Shards at most.
    pub shards_max: u32,
}

impl Tables {
    /// Connections that one table of `limit` descriptors has room for.
    pub const fn room(self, limit: u64, shards: u32) -> u64 {
        limit.saturating_sub(self.besides(shards))
    }

    /// Descriptors of one table that are no connections.
    pub const fn besides(self, shards: u32) -> u64 {
        self.fixed + self.per_shard * shards as u64
    }

    /// The fewest shards, from `cores` up to `most`, whose private tables of `limit` descriptors
    /// carry `connections`.
    pub fn shards_for(self, connections: u64, limit: u64, cores: u32, most: u32) -> Option<u32> {
        (cores..=most).find(|shards| self.room(limit, *shards) * u64::from(*shards) / 16 * FILL >= connections)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLES: Tables = Tables { fixed: 64, per_shard: 6, shards_max: 1_024 };

    proptest! {
        #[test]
        fn the_chosen_shards_carry_the_connections_one_fewer_would_not(connections in 0u64..2_000_000, limit in 256u64..1_100_000, cores in 1u32..64) {
            let carried = |shards: u32| TABLES.room(limit, shards) * u64::from(shards) / 16 * FILL;
            match TABLES.shards_for(connections, limit, cores, 1_024) {
                Some(shards) => {
                    prop_assert!(carried(shards) >= connections);
                    prop_assert!(shards == cores || carried(shards - 1) < connections);
                }
                None => prop_assert!((cores..=1_024).all(|shards| carried(shards) < connections)),
            }
        }
    }
}
