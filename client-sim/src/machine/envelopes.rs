//! Envelopes: what users of this machine were offered, what of that they still have to open, and
//! the shares that they were told. Users who were never offered anything take no room here.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::limits::OFFERS_PER_USER_MAX;
use crate::machine::prizes::Recorded;
use crate::results::EnvelopeTotals;

pub use hongbao_telemetry::journal::Share;

/// What is known of one user and one envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    Waiting,
    Asked,
    /// It gave this user this share, of so many fen.
    Opened(u32, u64),
    Over,
}

/// Offers and shares of all users of a machine.
#[derive(Debug, Default)]
pub struct Envelopes {
    offered: FxHashMap<(u32, u64), Offered>,
    /// Oldest first.
    waiting: FxHashMap<u32, VecDeque<u64>>,
    shares: FxHashMap<(u64, u32), u32>,
    pub counts: EnvelopeTotals,
}

impl Envelopes {
    /// `user` was offered an envelope. Returns whether it is one more for it to open.
    pub fn offer(&mut self, user: u32, envelope: u64) -> bool {
        let Entry::Vacant(new) = self.offered.entry((user, envelope)) else { return false };
        self.counts.offered += 1;
        let waiting = self.waiting.entry(user).or_default();
        if waiting.len() == OFFERS_PER_USER_MAX {
            self.counts.forgotten += 1;
            return false;
        }
        waiting.push_back(envelope);
        new.insert(Offered::Waiting);
        true
    }

    /// The envelope that has waited longest for `user`, who asks for it now.
    pub fn take_oldest(&mut self, user: u32) -> Option<u64> {
        let oldest = *self.waiting.get(&user)?.front()?;
        self.take(user, oldest).then_some(oldest)
    }

    /// `user` asks for this envelope now, if it still waits.
    pub fn take(&mut self, user: u32, envelope: u64) -> bool {
        let Some(waiting) = self.waiting.get_mut(&user) else { return false };
        let Some(place) = waiting.iter().position(|&one| one == envelope) else { return false };
        waiting.remove(place);
        if waiting.is_empty() {
            self.waiting.remove(&user);
        }
        self.offered.insert((user, envelope), Offered::Asked);
        true
    }

    /// What was asked for could not be looked at: it waits again, before all others.
    pub fn put_back(&mut self, user: u32, envelope: u64) {
        if let Some(known) = self.offered.get_mut(&(user, envelope)).filter(|known| **known == Offered::Asked) {
            *known = Offered::Waiting;
            self.waiting.entry(user).or_default().push_front(envelope);
        }
    }

    /// Whether `user` was offered this envelope.
    pub fn was_offered(&self, user: u32, envelope: u64) -> bool {
        self.offered.contains_key(&(user, envelope))
    }

    /// `user` was told of a share.
    pub fn record(&mut self, user: u32, share: Share) -> Recorded {
        let Share { envelope, number, amount } = share;
        match self.offered.get(&(user, envelope)) {
            Some(&Offered::Opened(known, before)) if (known, before) == (number, amount) => return Recorded::Again,
            Some(Offered::Opened(..) | Offered::Over) => return Recorded::Changed,
            Some(Offered::Waiting | Offered::Asked) | None => {}
        }
        if *self.shares.entry((envelope, number)).or_insert(user) != user {
            return Recorded::ToAnother;
        }
        self.offered.insert((user, envelope), Offered::Opened(number, amount));
        self.counts.opened += 1;
        self.counts.opened_fen += amount;
        Recorded::New
    }

    /// `user` was told that nothing is to be had from an envelope. Returns whether that can be: it
    /// had no share.
    pub fn record_empty(&mut self, user: u32, envelope: u64) -> bool {
        match self.offered.get_mut(&(user, envelope)) {
            Some(Offered::Opened(..)) => false,
            Some(known @ (Offered::Waiting | Offered::Asked | Offered::Over)) => {
                *known = Offered::Over;
                true
            }
            None => true,
        }
    }

    /// The fen that an envelope gave to `user`, where it gave any.
    pub fn amount(&self, user: u32, envelope: u64) -> Option<u64> {
        match self.offered.get(&(user, envelope)) {
            Some(Offered::Opened(_, amount)) => Some(*amount),
            Some(Offered::Waiting | Offered::Asked | Offered::Over) | None => None,
        }
    }

    /// Every share: its user, its envelope, its fen.
    pub fn shares(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        self.offered.iter().filter_map(|(&(user, envelope), known)| match known {
            Offered::Opened(_, amount) => Some((user, envelope, *amount)),
            Offered::Waiting | Offered::Asked | Offered::Over => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHARE: Share = Share { envelope: 7, number: 0, amount: 50 };

    #[test]
    fn an_offer_waits_once_and_the_oldest_comes_first() {
        let mut book = Envelopes::default();
        assert!(book.offer(1, 7) && book.offer(1, 8) && book.offer(2, 7));
        assert!(!book.offer(1, 7), "offered again, at a login");
        assert_eq!(book.take_oldest(1), Some(7));
        assert!(!book.offer(1, 7), "asked for already");
        book.put_back(1, 7);
        assert_eq!((book.take_oldest(1), book.take_oldest(1), book.take_oldest(1)), (Some(7), Some(8), None));
        assert!(book.take(2, 7) && !book.take(2, 7));
        assert_eq!(book.counts.offered, 3);
    }

    #[test]
    fn a_share_counts_once_and_no_contradiction_passes() {
        let mut book = Envelopes::default();
        [1, 2].iter().for_each(|&user| assert!(book.offer(user, 7)));
        assert_eq!((book.record(1, SHARE), book.record(1, SHARE)), (Recorded::New, Recorded::Again));
        assert_eq!(book.record(1, Share { amount: 51, ..SHARE }), Recorded::Changed);
        assert_eq!(book.record(1, Share { number: 1, ..SHARE }), Recorded::Changed);
        assert_eq!(book.record(2, SHARE), Recorded::ToAnother);
        assert_eq!(book.record(2, Share { number: 1, amount: 3, ..SHARE }), Recorded::New);
        assert_eq!(
            (book.counts.opened, book.counts.opened_fen, book.amount(1, 7), book.amount(1, 8)),
            (2, 53, Some(50), None)
        );
        assert!(!book.record_empty(1, 7), "it has a share");
        assert!(book.record_empty(3, 7));
    }

    #[test]
    fn no_more_offers_wait_for_a_user_than_the_bound() {
        let mut book = Envelopes::default();
        let offers = OFFERS_PER_USER_MAX as u64 + 3;
        assert_eq!((0..offers).filter(|&envelope| book.offer(1, envelope)).count(), OFFERS_PER_USER_MAX);
        assert_eq!((book.counts.offered, book.counts.forgotten), (offers, 3));
        assert_eq!(std::iter::from_fn(|| book.take_oldest(1)).count(), OFFERS_PER_USER_MAX);
    }

    proptest! {
        #[test]
        fn each_share_has_one_owner_and_each_user_one_share(
            steps in prop::collection::vec((0u32..4, 0u64..3, 0u32..3, 1u64..4), 0..100),
        ) {
            let (mut book, mut fen, mut shares) = (Envelopes::default(), 0, Vec::new());
            for (user, envelope, number, amount) in steps {
                book.offer(user, envelope);
                if book.record(user, Share { envelope, number, amount }) == Recorded::New {
                    prop_assert!(!shares.iter().any(|&(_, e, n)| (e, n) == (envelope, number)));
                    prop_assert!(!shares.iter().any(|&(u, e, _)| (u, e) == (user, envelope)));
                    shares.push((user, envelope, number));
                    fen += amount;
                }
            }
            prop_assert_eq!((book.counts.opened, book.counts.opened_fen), (shares.len() as u64, fen));
            prop_assert_eq!(book.shares().map(|(_, _, amount)| amount).sum::<u64>(), fen);
        }
    }
}
