//! Which answers the users of a machine are owed. Each Grab is entered once, when it is due, and
//! leaves with its one answer; so a second answer, or one to a question never asked, has nothing to
//! settle and is found out.
//!
//! Nearly every user has at most one Grab under way: one 8-byte slot each, and a map for the few
//! who have more.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::limits::EXPIRED_MAX;

/// Set in an entry whose request was not written yet.
const UNWRITTEN: u64 = 1 << 63;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// A request under way.
    InTime,
    /// A request that had been given up.
    Late,
    Nothing,
}

/// A request that is to be written, or written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    pub request: u64,
    /// It was on the wire before.
    pub written: bool,
}

/// The answers owed to users `0..users` of a machine.
#[derive(Debug, Default)]
pub struct Outstanding {
    /// Number of the request plus 1, with [`UNWRITTEN`]; 0: none.
    slots: Box<[u64]>,
    /// Further ones, of users whose slot is taken.
    more: FxHashMap<u32, Vec<u64>>,
    /// Given up, not answered since.
    expired: FxHashSet<u64>,
    /// Requests under way.
    pub count: u64,
    /// Requests given up and not answered since.
    pub expired_count: u64,
}

impl Outstanding {
    /// Nothing owed to anybody.
    pub fn new(users: u32) -> Self {
        Self { slots: vec![0; users as usize].into(), ..Self::default() }
    }

    /// Whether `user` awaits the answer to this request, given up or not.
    pub fn awaits(&self, user: u32, request: u64) -> bool {
        let entries = self.more.get(&user).into_iter().flatten().chain(std::iter::once(&self.slots[user as usize]));
        entries.into_iter().any(|entry| entry & !UNWRITTEN == request + 1) || self.expired.contains(&request)
    }

    /// A request was written, or is to be written once its user has a connection.
    pub fn enter(&mut self, user: u32, request: u64, written: bool) {
        let entry = (request + 1) | if written { 0 } else { UNWRITTEN };
        let slot = &mut self.slots[user as usize];
        if *slot == 0 {
            *slot = entry;
        } else {
            self.more.entry(user).or_default().push(entry);
        }
        self.count += 1;
    }

    /// An answer to `request` came to `user`.
    pub fn settle(&mut self, user: u32, request: u64) -> Settled {
        if self.remove(user, request) {
            return Settled::InTime;
        }
        if self.expired_count > 0 && self.expired.remove(&request) {
            self.expired_count -= 1;
            return Settled::Late;
        }
        Settled::Nothing
    }

    /// All requests of `user` under way, in the order of their numbers, from now on written.
    pub fn write_again(&mut self, user: u32) -> Vec<Unsettled> {
        let slot = std::iter::once(&mut self.slots[user as usize]);
        let mut unsettled: Vec<_> = slot
            .chain(self.more.get_mut(&user).into_iter().flatten())
            .filter(|entry| **entry != 0)
            .map(|entry| {
                let written = *entry & UNWRITTEN == 0;
                *entry &= !UNWRITTEN;
                Unsettled { request: *entry - 1, written }
            })
            .collect();
        unsettled.sort_unstable_by_key(|unsettled| unsettled.request);
        unsettled
    }

    /// Gives up those requests of `user` that `overdue` says are.
    pub fn expire(&mut self, user: u32, overdue: impl Fn(u64) -> bool) {
        let slot = self.slots[user as usize];
        if slot == 0 && self.more.is_empty() {
            return;
        }
        let more = self.more.get(&user).into_iter().flatten().copied();
        let entries: Vec<u64> = std::iter::once(slot).chain(more).filter(|&entry| entry != 0).collect();
        for request in entries.into_iter().map(|entry| (entry & !UNWRITTEN) - 1).filter(|&request| overdue(request)) {
            self.remove(user, request);
            self.expired_count += 1;
            if self.expired.len() < EXPIRED_MAX {
                self.expired.insert(request);
            }
        }
    }

    fn remove(&mut self, user: u32, request: u64) -> bool {
        let wanted = |entry: u64| entry & !UNWRITTEN == request + 1;
        let slot = &mut self.slots[user as usize];
        if wanted(*slot) {
            *slot = 0;
        } else {
            let Some(more) = self.more.get_mut(&user) else { return false };
            let Some(index) = more.iter().position(|&entry| wanted(entry)) else { return false };
            more.swap_remove(index);
            if more.is_empty() {
                self.more.remove(&user);
            }
        }
        self.count -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_second_answer_to_a_request_settles_nothing() {
        let mut outstanding = Outstanding::new(2);
        outstanding.enter(1, 7, true);
        assert_eq!(outstanding.settle(0, 7), Settled::Nothing);
        assert_eq!(outstanding.settle(1, 7), Settled::InTime);
        assert_eq!((outstanding.settle(1, 7), outstanding.count), (Settled::Nothing, 0));
    }

    #[test]
    fn an_answer_after_the_timeout_is_late_and_counts_once() {
        let mut outstanding = Outstanding::new(1);
        outstanding.enter(0, 0, true);
        outstanding.enter(0, 1, true);
        outstanding.expire(0, |request| request == 0);
        assert_eq!((outstanding.count, outstanding.expired_count), (1, 1));
        assert_eq!((outstanding.settle(0, 0), outstanding.settle(0, 0)), (Settled::Late, Settled::Nothing));
        assert_eq!((outstanding.settle(0, 1), outstanding.expired_count), (Settled::InTime, 0));
    }

    #[test]
    fn unanswered_requests_are_bounded_in_memory_and_all_counted() {
        let mut outstanding = Outstanding::new(1);
        let requests = EXPIRED_MAX as u64 + 1;
        for request in 0..requests {
            outstanding.enter(0, request, true);
            outstanding.expire(0, |_| true);
        }
        assert_eq!((outstanding.expired_count, outstanding.expired.len()), (requests, EXPIRED_MAX));
        assert_eq!((outstanding.settle(0, 0), outstanding.settle(0, requests - 1)), (Settled::Late, Settled::Nothing));
    }

    #[test]
    fn what_is_written_again_comes_in_order_and_tells_what_is_new() {
        let mut outstanding = Outstanding::new(1);
        for (request, written) in [(5, true), (9, false), (7, true)] {
            outstanding.enter(0, request, written);
        }
        let expected = [(5, true), (7, true), (9, false)].map(|(request, written)| Unsettled { request, written });
        assert_eq!(outstanding.write_again(0), expected);
        assert!(outstanding.write_again(0).iter().all(|unsettled| unsettled.written));
    }

    proptest! {
        #[test]
        fn the_books_agree_with_a_plain_map(steps in prop::collection::vec((0u32..4, 0u64..12, any::<bool>()), 0..200)) {
            let (mut outstanding, mut model, mut used) = (Outstanding::new(4), BTreeMap::new(), std::collections::BTreeSet::new());
            for (user, request, enter) in steps {
                if enter {
                    if used.insert(request) {
                        outstanding.enter(user, request, request % 2 == 0);
                        model.insert(request, user);
                    }
                } else {
                    let expected = if model.get(&request) == Some(&user) { Settled::InTime } else { Settled::Nothing };
                    prop_assert_eq!(outstanding.settle(user, request), expected);
                    if expected == Settled::InTime {
                        model.remove(&request);
                    }
                }
                prop_assert_eq!(outstanding.count, model.len() as u64);
            }
            for user in 0..4 {
                let of_user: Vec<_> = model.iter().filter(|&(_, &owner)| owner == user).map(|(&request, _)| request).collect();
                prop_assert_eq!(outstanding.write_again(user).iter().map(|one| one.request).collect::<Vec<_>>(), of_user);
            }
        }
    }
}
