//! How a sale's stock comes to where it is wanted. Plain functions over values.
//!
//! A SET asks for more when half of what it got last is gone. It gets a share of what is left:
//! large while there is plenty, so that asking costs nothing, and a single unit at the end, so that
//! none lies where nobody buys. When nothing is left here and a SET still asks, what lies on the
//! others' shelves is called back: also from those that ask for more themselves, whose users may
//! all hold as many units as one may.

use std::collections::BTreeSet;

use crate::clock::UnixMs;

/// Units handed to a SET at once at most.
const PARCEL_MAX: u64 = 256;

/// From one call for what lies elsewhere to the next, milliseconds.
const RECALL_INTERVAL_MS: u64 = 50;

/// Which SETs want stock of one sale.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaleAllocator {
    /// Those that have asked and got nothing since.
    waiting: BTreeSet<usize>,
    /// Who is served next, of those that wait.
    next: usize,
    recalled_at: UnixMs,
    /// Units that are paid, as of the ledger's last word.
    pub sold: u64,
    /// Units that wait for their payment, as of the ledger's last word.
    pub reserved: u64,
}

impl SaleAllocator {
    /// An allocator for a sale of which so many units are paid, and so many wait for their payment.
    pub fn new(sold: u64, reserved: u64) -> Self {
        Self { sold, reserved, ..Self::default() }
    }

    /// A SET wants more.
    pub fn request(&mut self, set: usize) {
        self.waiting.insert(set);
    }

    /// Who is to be handed how many, while `remaining` units are here and `inhabited` SETs have
    /// users: each waiting SET once, in turn.
    pub fn parcels(&mut self, mut remaining: u64, inhabited: usize) -> Vec<(usize, u64)> {
        let sets = u64::try_from(inhabited.max(self.waiting.len()).max(1)).unwrap_or(u64::MAX);
        let turn = self.waiting.range(self.next..).chain(self.waiting.range(..self.next));
        let mut parcels = Vec::new();
        for set in turn {
            let parcel = (remaining / (2 * sets)).clamp(1, PARCEL_MAX).min(remaining);
            if parcel == 0 {
                break;
            }
            remaining -= parcel;
            parcels.push((*set, parcel));
        }
        if let Some((last, _)) = parcels.last() {
            self.next = last + 1;
        }
        parcels
    }

    /// A SET has got its parcel.
    pub fn served(&mut self, set: usize) {
        self.waiting.remove(&set);
    }

    /// Whether what lies on the shelves of SETs should be called back now, where
    /// [`Self::may_spare`].
    pub fn recalls(&mut self, remaining: u64, now: UnixMs) -> bool {
        let due = remaining == 0 && !self.waiting.is_empty() && now >= self.recalled_at + RECALL_INTERVAL_MS;
        if due {
            self.recalled_at = now;
        }
        due
    }

    /// Whether somebody else waits for what may lie with this SET.
    pub fn may_spare(&self, set: usize) -> bool {
        self.waiting.iter().any(|waiting| *waiting != set)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parcels_shrink_to_single_units_as_stock_runs_out() {
        let mut allocator = SaleAllocator::default();
        (0..4).for_each(|set| allocator.request(set));
        assert_eq!(allocator.parcels(10_000, 4), [(0, 256), (1, 256), (2, 256), (3, 256)]);
        assert_eq!(allocator.parcels(80, 4), [(0, 10), (1, 8), (2, 7), (3, 6)]);
        assert_eq!(allocator.parcels(3, 4), [(0, 1), (1, 1), (2, 1)]);
        // The one that went without comes first.
        assert_eq!(allocator.parcels(2, 4), [(3, 1), (0, 1)]);
    }

    #[test]
    fn stock_elsewhere_is_recalled_only_for_somebody_who_waits() {
        let mut allocator = SaleAllocator::default();
        assert!(!allocator.recalls(0, 1_000));
        allocator.request(2);
        assert!(!allocator.recalls(1, 1_000));
        assert!(allocator.recalls(0, 1_000));
        assert!(!allocator.recalls(0, 1_049));
        assert!(allocator.recalls(0, 1_050));
        allocator.served(2);
        assert!(!allocator.recalls(0, 9_000));
    }

    /// It asked when half of its parcel was gone, and nobody there may have the rest.
    #[test]
    fn stock_of_a_set_that_waits_itself_is_recalled_for_another() {
        let mut allocator = SaleAllocator::default();
        allocator.request(0);
        assert!(!allocator.may_spare(0), "nobody else wants it");
        allocator.request(1);
        assert!(allocator.may_spare(0) && allocator.may_spare(1) && allocator.may_spare(2));
    }

    proptest! {
        /// SETs whose users take at random: in the end each unit has been taken, however they are
        /// spread, and a SET with buyers is never left waiting while units lie elsewhere.
        #[test]
        fn every_unit_is_sold_however_demand_is_spread(total in 1u64..2_000, demand in prop::collection::vec(0u64..100, 1..9)) {
            prop_assume!(demand.iter().sum::<u64>() > 0);
            let (mut allocator, mut here) = (SaleAllocator::default(), total);
            let mut shelves = vec![0u64; demand.len()];
            let (mut sold, mut now) = (0, 0);
            // Stock is first laid out everywhere, as if all had asked.
            (0..shelves.len()).for_each(|set| allocator.request(set));
            for _ in 0..100_000 {
                if sold == total {
                    break;
                }
                now += RECALL_INTERVAL_MS;
                for (set, parcel) in allocator.parcels(here, shelves.len()) {
                    here -= parcel;
                    shelves[set] += parcel;
                    allocator.served(set);
                }
                for (set, wanted) in demand.iter().enumerate() {
                    let taken = shelves[set].min(*wanted);
                    shelves[set] -= taken;
                    sold += taken;
                    if taken < *wanted {
                        allocator.request(set);
                    }
                }
                if allocator.recalls(here, now) {
                    for (set, shelf) in shelves.iter_mut().enumerate() {
                        if allocator.may_spare(set) {
                            here += std::mem::take(shelf);
                        }
                    }
                }
                prop_assert_eq!(here + sold + shelves.iter().sum::<u64>(), total);
            }
            prop_assert_eq!(sold, total);
        }
    }
}
