//! Which serials of a campaign may be issued next, and how many are due. Plain functions over
//! values.

use std::collections::VecDeque;
use std::ops::Range;

use hongbao_proto::Serial;

use crate::clock::UnixMs;

/// The serials of one campaign that are with the generator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Came back from SETs, or never reached one (`true`: still a first issue); next in turn.
    returned: VecDeque<(Serial, bool)>,
    /// Issued by an earlier run of the server and never claimed, ascending.
    gaps: VecDeque<Range<u64>>,
    next: u64,
    total: u64,
}

impl Source {
    /// All serials below `total` but the claimed ones (ascending).
    pub fn recover(total: u64, claimed: &[Serial]) -> Self {
        let mut gaps = VecDeque::new();
        let mut next = 0;
        for serial in claimed {
            if next < serial.0 {
                gaps.push_back(next..serial.0);
            }
            next = serial.0 + 1;
        }
        Self { returned: VecDeque::new(), gaps, next, total }
    }

    /// How many can be issued.
    pub fn remaining(&self) -> u64 {
        let gaps: u64 = self.gaps.iter().map(|gap| gap.end - gap.start).sum();
        self.returned.len() as u64 + gaps + (self.total - self.next)
    }

    /// Takes the next serial; `true` with it where this run issues it for the first time.
    pub fn take(&mut self) -> Option<(Serial, bool)> {
        if let Some(returned) = self.returned.pop_front() {
            return Some(returned);
        }
        if let Some(gap) = self.gaps.front_mut() {
            let serial = gap.start;
            gap.start += 1;
            if gap.is_empty() {
                self.gaps.pop_front();
            }
            return Some((Serial(serial), true));
        }
        (self.next < self.total).then(|| {
            self.next += 1;
            (Serial(self.next - 1), true)
        })
    }

    /// Takes back serials: those that a SET returned (`false`), or no SET had room for, as
    /// [`Self::take`] gave them.
    pub fn put_back(&mut self, serials: impl IntoIterator<Item = (Serial, bool)>) {
        self.returned.extend(serials);
    }
}

/// When prizes of a rain are due: the first at its start, the others evenly after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacer {
    rate: u64,
    anchor: UnixMs,
    issued: u64,
}

impl Pacer {
    /// `rate` prizes a second from `start` on.
    pub fn new(rate: u32, start: UnixMs) -> Self {
        Self { rate: rate.into(), anchor: start, issued: 0 }
    }

    /// How many are due at `now` and not issued yet.
    pub fn due(&self, now: UnixMs) -> u64 {
        let Some(elapsed) = now.checked_sub(self.anchor) else { return 0 };
        (elapsed * self.rate / 1_000 + 1).saturating_sub(self.issued)
    }

    /// `count` of the due ones were issued.
    pub fn issue(&mut self, count: u64) {
        self.issued += count;
    }

    /// What could not be issued is made up for, but for at most a second's worth: nobody was there
    /// to shake for more.
    pub fn cap_backlog(&mut self, now: UnixMs) {
        if self.due(now) > self.rate {
            *self = Self { rate: self.rate, anchor: now.saturating_sub(999), issued: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn recovery_issues_exactly_what_was_not_claimed(total in 1u64..300, claimed in prop::collection::btree_set(0u64..300, 0..200)) {
            let claimed: Vec<_> = claimed.into_iter().filter(|serial| *serial < total).map(Serial).collect();
            let mut source = Source::recover(total, &claimed);
            prop_assert_eq!(source.remaining(), total - claimed.len() as u64);
            let mut issued = BTreeSet::new();
            while let Some((serial, first)) = source.take() {
                prop_assert!(first && serial.0 < total && issued.insert(serial));
            }
            prop_assert!(claimed.iter().all(|serial| issued.insert(*serial)));
            prop_assert_eq!(issued.len() as u64, total);
        }

        #[test]
        fn every_second_of_a_rain_has_its_rate(rate in 1u32..5_000, start in 0u64..10_000, mut polls in prop::collection::vec(0u64..1_000, 1..50)) {
            polls.sort_unstable();
            let mut rain = Pacer::new(rate, start);
            let mut total = 0;
            for second in 0..5u64 {
                for poll in polls.iter().chain([&999]) {
                    let due = rain.due(start + second * 1_000 + poll);
                    rain.issue(due);
                    total += due;
                }
                // The last one of a second may be due inside its last millisecond.
                let expected = u64::from(rate) * (second + 1);
                prop_assert!(total <= expected && total + u64::from(rate) / 1_000 + 1 >= expected, "{} of {}", total, expected);
            }
        }
    }

    #[test]
    fn returned_serials_come_first_and_are_no_first_issues() {
        let mut source = Source::recover(3, &[]);
        assert_eq!(source.take(), Some((Serial(0), true)));
        source.put_back([(Serial(0), false)]);
        assert_eq!(source.remaining(), 3);
        assert_eq!(source.take(), Some((Serial(0), false)));
    }

    #[test]
    fn nothing_is_due_before_the_start_and_a_long_absence_is_capped() {
        let mut rain = Pacer::new(200, 10_000);
        assert_eq!(rain.due(9_999), 0);
        assert_eq!(rain.due(10_000), 1);
        rain.cap_backlog(70_000);
        assert_eq!(rain.due(70_000), 200);
        rain.issue(200);
        assert_eq!(rain.due(71_000), 200);
    }
}
