//! What users do outside of the schedule: they open what they are offered, pay, cancel, ask. Each
//! such request is entered once, when it is planned, and leaves with its one answer. Users who do
//! nothing of the kind take no room here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::ids;
use crate::limits::EXPIRED_MAX;

macro_rules! acts {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)*) => {
        /// What a user wants.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Act { $($(#[$doc])* $variant(u64),)* }

        impl Act {
            /// The names of all kinds, in the order of [`Act::kind`].
            pub const LABELS: &'static [&'static str] = &[$($label,)*];

            /// The name in JSON and tables.
            pub const fn label(self) -> &'static str {
                match self { $(Act::$variant(_) => $label,)* }
            }

            /// The envelope, order, room or movement.
            pub const fn item(self) -> u64 {
                match self { $(Act::$variant(item) => item,)* }
            }
        }
    };
}

acts! {
    Open = "open",
    Pay = "pay",
    /// To give this order back.
    Cancel = "cancel",
    /// To know what has become of this order.
    Look = "orders",
    Join = "join",
    /// To see its statement before this movement; 0: from the newest on.
    Statement = "statement",
}

impl Act {
    /// Which of [`Act::LABELS`].
    pub fn kind(self) -> usize {
        Self::LABELS.iter().position(|label| *label == self.label()).unwrap_or(0)
    }
}

/// One of a user's own requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaction {
    pub id: u64,
    pub act: Act,
    /// When it is to be written, Unix nanoseconds.
    pub at: u64,
    /// When it was written last, likewise; 0: not yet.
    pub sent: u64,
    /// How often it was refused for lack of capacity.
    pub refused: u8,
}

/// The users' own requests that are planned or under way.
#[derive(Debug, Default)]
pub struct Reactions {
    of_user: FxHashMap<u32, Vec<Reaction>>,
    /// (Unix nanoseconds, id, user). What was written at a login meanwhile is still in here.
    planned: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// Ids that were given out.
    given_out: u64,
    /// Planned or under way.
    pub count: u64,
    given_up: FxHashMap<u64, (u32, Reaction)>,
    /// Given up and not answered since.
    pub given_up_count: u64,
}

impl Reactions {
    /// Written and not answered.
    pub fn under_way(&self) -> usize {
        self.of_user.values().flatten().filter(|one| one.sent > 0).count()
    }

    /// Whether `user` is to do, or has asked for, something of this kind.
    pub fn wants(&self, user: u32, is: impl Fn(Act) -> bool) -> bool {
        self.of_user.get(&user).is_some_and(|all| all.iter().any(|one| is(one.act)))
    }

    /// `user` is to do this at Unix nanosecond `at`.
    pub fn plan(&mut self, user: u32, act: Act, at: u64) {
        let id = ids::REACTIONS + self.given_out;
        self.given_out += 1;
        self.enter(user, Reaction { id, act, at, sent: 0, refused: 0 });
    }

    /// What was refused is tried again at `at`, under the same id.
    pub fn try_again(&mut self, user: u32, reaction: Reaction, at: u64) {
        self.enter(user, Reaction { at, sent: 0, refused: reaction.refused + 1, ..reaction });
    }

    fn enter(&mut self, user: u32, reaction: Reaction) {
        self.of_user.entry(user).or_default().push(reaction);
        self.planned.push(Reverse((reaction.at, reaction.id, user)));
        self.count += 1;
    }

    /// The next request that is due by `now`: whose, and which. It counts as not written.
    pub fn take_due(&mut self, now: u64) -> Option<(u32, Reaction)> {
        while let Some(&Reverse((_, id, user))) = self.planned.peek().filter(|Reverse((at, _, _))| *at <= now) {
            self.planned.pop();
            let found = self.of_user.get(&user).and_then(|all| all.iter().find(|one| one.id == id));
            if let Some(due) = found.filter(|one| one.sent == 0) {
                return Some((user, *due));
            }
        }
        None
    }

    /// The request was written at `now`.
    pub fn written(&mut self, user: u32, id: u64, now: u64) {
        if let Some(one) = self.of_user.get_mut(&user).and_then(|all| all.iter_mut().find(|one| one.id == id)) {
            one.sent = now;
        }
    }

    /// All requests of `user` that are due by `now`, in the order of their ids.
    pub fn to_write_again(&self, user: u32, now: u64) -> Vec<Reaction> {
        let all = self.of_user.get(&user).into_iter().flatten();
        let mut due: Vec<_> = all.filter(|one| one.at <= now).copied().collect();
        due.sort_unstable_by_key(|one| one.id);
        due
    }

    /// What `user` asked for under this id and was not told yet.
    pub fn asked(&self, user: u32, id: u64) -> Option<Act> {
        let under_way = self.of_user.get(&user).and_then(|all| all.iter().find(|one| one.id == id));
        let given_up = || self.given_up.get(&id).filter(|(owner, _)| *owner == user).map(|(_, one)| one);
        under_way.filter(|one| one.sent > 0).or_else(given_up).map(|one| one.act)
    }

    /// Whether this id was given out, to a user other than `user` if it still is under way.
    pub fn was_answered(&self, id: u64) -> bool {
        (ids::REACTIONS..ids::REACTIONS + self.given_out).contains(&id)
            && !self.given_up.contains_key(&id)
            && !self.of_user.values().flatten().any(|one| one.id == id)
    }

    /// An answer under this id came to `user`: to a request under way, or one given up.
    pub fn settle(&mut self, user: u32, id: u64) -> Option<Reaction> {
        self.remove(user, id).or_else(|| {
            let (_, reaction) = self.given_up.remove(&id)?;
            self.given_up_count -= 1;
            Some(reaction)
        })
    }

    /// Gives up those requests of `user` that were due before `overdue`, Unix nanoseconds.
    pub fn expire(&mut self, user: u32, overdue: u64) {
        let all = self.of_user.get(&user).into_iter().flatten();
        let late: Vec<u64> = all.filter(|one| one.at.max(one.sent) < overdue).map(|one| one.id).collect();
        for id in late {
            let Some(reaction) = self.remove(user, id) else { continue };
            self.given_up_count += 1;
            if self.given_up.len() < EXPIRED_MAX {
                self.given_up.insert(id, (user, reaction));
            }
        }
    }

    /// `user` does not want that any more.
    pub fn remove(&mut self, user: u32, id: u64) -> Option<Reaction> {
        let all = self.of_user.get_mut(&user)?;
        let place = all.iter().position(|one| one.id == id)?;
        let reaction = all.swap_remove(place);
        if all.is_empty() {
            self.of_user.remove(&user);
        }
        self.count -= 1;
        Some(reaction)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_is_due_at_its_moment_and_answered_once() {
        let mut reactions = Reactions::default();
        reactions.plan(3, Act::Pay(7), 500);
        reactions.plan(3, Act::Open(9), 200);
        assert_eq!(reactions.take_due(199), None);
        let (user, due) = reactions.take_due(200).unwrap();
        assert_eq!((user, due.act, reactions.take_due(499)), (3, Act::Open(9), None));
        assert_eq!(reactions.asked(3, due.id), None, "not written yet");
        reactions.written(3, due.id, 210);
        assert_eq!((reactions.asked(3, due.id), reactions.asked(4, due.id)), (Some(Act::Open(9)), None));
        assert!(!reactions.was_answered(due.id));
        assert!(matches!(reactions.settle(3, due.id), Some(Reaction { sent: 210, .. })));
        assert_eq!((reactions.settle(3, due.id), reactions.count), (None, 1));
        assert!(reactions.was_answered(due.id) && !reactions.was_answered(due.id + 1));
    }

    #[test]
    fn a_returning_user_repeats_what_was_due_and_nothing_early() {
        let mut reactions = Reactions::default();
        [(Act::Pay(1), 100), (Act::Pay(2), 900), (Act::Pay(3), 50)]
            .into_iter()
            .for_each(|(act, at)| reactions.plan(5, act, at));
        let again: Vec<_> = reactions.to_write_again(5, 500).into_iter().map(|one| one.act).collect();
        assert_eq!(again, [Act::Pay(1), Act::Pay(3)]);
        reactions.to_write_again(5, 500).iter().for_each(|one| reactions.written(5, one.id, 500));
        assert_eq!(reactions.take_due(500), None, "written at the login");
        assert_eq!(reactions.take_due(900).unwrap().1.act, Act::Pay(2));
    }

    #[test]
    fn what_nobody_answers_is_given_up_and_may_be_answered_late() {
        let mut reactions = Reactions::default();
        reactions.plan(1, Act::Look(7), 100);
        let (_, due) = reactions.take_due(100).unwrap();
        reactions.written(1, due.id, 150);
        reactions.expire(1, 150);
        assert_eq!((reactions.count, reactions.given_up_count), (1, 0));
        reactions.expire(1, 151);
        assert_eq!((reactions.count, reactions.given_up_count), (0, 1));
        assert_eq!(reactions.asked(1, due.id), Some(Act::Look(7)));
        assert!(reactions.settle(1, due.id).is_some());
        assert_eq!((reactions.settle(1, due.id), reactions.given_up_count), (None, 0));
    }

    #[test]
    fn every_kind_has_its_own_name() {
        let acts = [Act::Open(1), Act::Pay(1), Act::Cancel(1), Act::Look(1), Act::Join(1), Act::Statement(1)];
        let kinds: Vec<_> = acts.into_iter().map(Act::kind).collect();
        assert_eq!((kinds, Act::LABELS.len()), ((0..acts.len()).collect(), acts.len()));
    }

    proptest! {
        #[test]
        fn what_is_planned_is_either_open_or_settled_once(steps in prop::collection::vec((0u32..3, 0u64..100, 0u8..3), 0..100)) {
            let (mut reactions, mut planned, mut settled, mut now) = (Reactions::default(), 0u64, 0u64, 0);
            for (user, number, step) in steps {
                now += 1;
                match step {
                    0 => {
                        reactions.plan(user, Act::Open(number), now + number);
                        planned += 1;
                    }
                    1 => while let Some((user, due)) = reactions.take_due(now) {
                        reactions.written(user, due.id, now);
                    },
                    _ => settled += u64::from(reactions.settle(user, ids::REACTIONS + number).is_some()),
                }
                prop_assert_eq!(reactions.count, planned - settled);
            }
        }
    }
}
