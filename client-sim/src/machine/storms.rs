//! What storms do to the users of a machine: whom they cut, who is back, and how the requests of
//! both kinds of users fare. The requests of those who were cut wait for their return, which says
//! nothing of the schedule; so they are told apart.

use rustc_hash::FxHashMap;

use crate::clock::SECOND;
use crate::histogram::Micros;
use crate::limits::STORM_WATCH_SECONDS_MAX;
use crate::results::{StormOrder, StormResult, StormSecond, StormView};

/// Why a storm is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StormError {
    #[error("a storm at {at} s was announced at {now} s: too late")]
    Past { at: u64, now: u64 },
    #[error("a storm at {at} s overlaps the one that is watched from {other} s until {until} s")]
    Overlap { at: u64, other: u64, until: u64 },
    #[error("watch_seconds {0}: 1 to {STORM_WATCH_SECONDS_MAX}")]
    Watch(u32),
}

#[derive(Debug)]
struct Storm {
    order: StormOrder,
    /// Users it has cut, and when they were logged in again, Unix nanoseconds; 0: not yet.
    cut: FxHashMap<u32, u64>,
    /// Nobody is cut any more.
    spent: bool,
    back: u64,
    /// Unix nanoseconds.
    last_back: u64,
    /// Latencies of the requests of all other users, microseconds, by the second of the storm for
    /// which they were planned. Numbers, not histograms: which seconds count is known only when the
    /// last user of the last machine is back.
    others: Vec<Vec<u32>>,
    /// Latencies of requests that the storm held back.
    held: Micros,
}

impl Storm {
    fn begins(&self) -> u64 {
        self.order.at.saturating_mul(SECOND)
    }

    fn view(&self) -> StormView {
        let cut = self.cut.len() as u64;
        let over = self.spent && self.back == cut;
        let since = self.last_back.saturating_sub(self.begins()) / 1_000;
        StormView { storm: self.order, cut, back: self.back, over, last_back_us: (self.back > 0).then_some(since) }
    }
}

/// The storms of a run, in order.
#[derive(Debug, Default)]
pub struct Storms {
    storms: Vec<Storm>,
    begun: usize,
}

impl Storms {
    /// A storm is to come; `now`: Unix nanoseconds.
    pub fn announce(&mut self, order: StormOrder, now: u64) -> Result<(), StormError> {
        let (at, now) = (order.at, now / SECOND);
        if !(1..=STORM_WATCH_SECONDS_MAX).contains(&order.watch_seconds) {
            return Err(StormError::Watch(order.watch_seconds));
        }
        if at <= now {
            return Err(StormError::Past { at, now });
        }
        let until = |order: StormOrder| order.at + u64::from(order.watch_seconds);
        let index = self.storms.partition_point(|storm| storm.order.at <= at);
        let neighbours = [index.checked_sub(1).and_then(|before| self.storms.get(before)), self.storms.get(index)];
        for other in neighbours.into_iter().flatten().map(|storm| storm.order) {
            if at < until(other) && other.at < until(order) {
                return Err(StormError::Overlap { at, other: other.at, until: until(other) });
            }
        }
        let storm = Storm {
            order,
            cut: FxHashMap::default(),
            spent: false,
            back: 0,
            last_back: 0,
            others: Vec::new(),
            held: Micros::default(),
        };
        // All that have begun are before it: it is still to come.
        self.storms.insert(index, storm);
        Ok(())
    }

    pub fn begin(&mut self) {
        self.begun += 1;
    }

    /// The storm that has begun cuts a user.
    pub fn cut(&mut self, user: u32) {
        if let Some(storm) = self.current() {
            storm.cut.insert(user, 0);
        }
    }

    /// The storm that has begun cuts nobody any more.
    pub fn spend(&mut self) {
        if let Some(storm) = self.current() {
            storm.spent = true;
        }
    }

    /// A user was logged in. Returns whether it comes back from a storm.
    pub fn came_back(&mut self, user: u32, now: u64) -> bool {
        let Some(storm) = self.current() else { return false };
        let Some(back) = storm.cut.get_mut(&user).filter(|back| **back == 0) else { return false };
        *back = now;
        storm.back += 1;
        storm.last_back = now;
        true
    }

    /// The answer to a request planned for `due` came to `user` at `now`. Returns whether a storm
    /// held the request back: its user was cut and not back when it was due, or was cut before its
    /// answer came.
    pub fn answered(&mut self, user: u32, due: u64, now: u64) -> bool {
        let Some(storm) = self.current() else { return false };
        let latency = now.saturating_sub(due) / 1_000;
        if let Some(&back) = storm.cut.get(&user) {
            let held = due < back;
            if held {
                storm.held.record(latency);
            }
            return held;
        }
        let Some(since) = due.checked_sub(storm.begins()) else { return false };
        let second = usize::try_from(since / SECOND).unwrap_or(usize::MAX);
        if second < storm.order.watch_seconds as usize {
            if second >= storm.others.len() {
                storm.others.resize(second + 1, Vec::new());
            }
            storm.others[second].push(u32::try_from(latency).unwrap_or(u32::MAX));
        }
        false
    }

    pub fn views(&self) -> Vec<StormView> {
        self.storms.iter().map(Storm::view).collect()
    }

    pub fn results(&self) -> Vec<StormResult> {
        let second = |(second, latencies): (usize, &Vec<u32>)| {
            let mut latency = Micros::empty();
            latencies.iter().for_each(|&one| latency.record(one.into()));
            StormSecond { second: second as u64, latency: latency.into() }
        };
        let result = |storm: &Storm| StormResult {
            view: storm.view(),
            others: storm.others.iter().enumerate().map(second).collect(),
            held: storm.held.clone(),
        };
        self.storms.iter().map(result).collect()
    }

    fn current(&mut self) -> Option<&mut Storm> {
        self.begun.checked_sub(1).and_then(|index| self.storms.get_mut(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;

    const AT: u64 = 1_800_000_000;

    fn order(at: u64) -> StormOrder {
        StormOrder { share: "30%".parse().unwrap(), at, watch_seconds: 10 }
    }

    #[test]
    fn a_storm_in_the_past_or_while_another_is_watched_is_refused() {
        let (mut storms, now) = (Storms::default(), (AT - 5) * SECOND);
        assert_eq!(storms.announce(order(AT - 5), now), Err(StormError::Past { at: AT - 5, now: AT - 5 }));
        storms.announce(order(AT), now).unwrap();
        let overlap = |at| Err(StormError::Overlap { at, other: AT, until: AT + 10 });
        assert_eq!(storms.announce(order(AT + 9), now), overlap(AT + 9));
        assert_eq!(storms.announce(order(AT - 4), now), overlap(AT - 4));
        storms.announce(order(AT + 10), now).unwrap();
        for watch_seconds in [0, STORM_WATCH_SECONDS_MAX + 1] {
            let order = StormOrder { watch_seconds, ..order(AT + 100) };
            assert_eq!(storms.announce(order, now), Err(StormError::Watch(watch_seconds)));
        }
    }

    #[test]
    fn a_storm_may_be_announced_before_an_earlier_announced_one() {
        let mut storms = Storms::default();
        storms.announce(order(AT + 30), AT * SECOND).unwrap();
        storms.announce(order(AT + 5), AT * SECOND).unwrap();
        assert_eq!(storms.views().iter().map(|view| view.storm.at).collect::<Vec<_>>(), [AT + 5, AT + 30]);
        storms.begin();
        storms.cut(1);
        assert_eq!(storms.views().iter().map(|view| view.cut).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn requests_of_the_cut_are_kept_apart_until_their_return() {
        let (mut storms, begin) = (Storms::default(), AT * SECOND);
        storms.announce(order(AT), 0).unwrap();
        assert!(!storms.answered(1, begin + 1, begin + MILLISECOND), "it has not begun");
        storms.begin();
        storms.cut(1);
        storms.cut(2);
        assert!(!storms.views()[0].over);
        storms.spend();

        assert!(!storms.answered(7, begin + 2 * SECOND, begin + 2 * SECOND + 5 * MILLISECOND));
        assert!(storms.came_back(1, begin + SECOND));
        assert!(!storms.came_back(1, begin + SECOND), "it is back already");
        assert!(!storms.came_back(7, begin + SECOND), "it was not cut");
        assert!(storms.answered(1, begin - MILLISECOND, begin + SECOND + MILLISECOND), "under way when it was cut");
        assert!(storms.answered(1, begin + SECOND - 1, begin + SECOND + MILLISECOND));
        assert!(!storms.answered(1, begin + SECOND, begin + SECOND + MILLISECOND));
        assert!(!storms.views()[0].over);
        assert!(storms.came_back(2, begin + 3 * SECOND));
        let view = storms.views()[0];
        assert_eq!((view.cut, view.back, view.over, view.last_back_us), (2, 2, true, Some(3_000_000)));

        // Only those planned while it is watched are looked at.
        assert!(!storms.answered(7, begin - 1, begin + SECOND));
        assert!(!storms.answered(7, begin + 10 * SECOND, begin + 11 * SECOND));
        let result = &storms.results()[0];
        let count = |second: &StormSecond| Micros::try_from(second.latency.clone()).unwrap().len();
        assert_eq!(result.others.iter().map(count).collect::<Vec<_>>(), [0, 0, 1]);
        assert_eq!(result.held.len(), 2);
    }
}
