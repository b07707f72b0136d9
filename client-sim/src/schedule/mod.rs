//! When each request of the fleet is due, and whose it is: a pure function that every machine
//! computes for itself, so that machines hold one schedule together without ever talking to each
//! other.
//!
//! Request `k` (from 0) of a run is due at the start of its segment plus `(k - first) / qps`, and
//! belongs to the user at position `k mod total` of the [`Spread`]. A change of QPS is a new
//! [`Segment`]; requests keep their numbers, so a change loses and repeats nobody.
//!
//! Instants are nanoseconds since the Unix epoch in a `u64`, which lasts until the year 2554;
//! products are taken in `u128`.

pub mod mix;

use crate::clock::SECOND;
use crate::ids::REQUESTS_MAX;

/// 2^64 / φ, rounded: the golden ratio as a 64-bit fraction.
const GOLDEN_FRACTION: u128 = 11_400_714_819_323_198_485;

/// The bijection between positions of a cycle and users: position `i` is user `i * stride mod
/// total`.
///
/// The stride is the number nearest to `total / φ` that has no divisor in common with `total`:
/// multiples of the golden ratio fill the circle more evenly than those of any other number, so any
/// run of consecutive requests meets each machine's contiguous users nearly in proportion
/// ([`Spread::share_bound`] says how nearly).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    total: u32,
    stride: u32,
    inverse: u32,
}

impl Spread {
    /// The bijection over users `0..total`; `total` is at least 1.
    pub fn new(total: u32) -> Self {
        assert!(total > 0, "a fleet has at least one user");
        let ideal = narrow((u128::from(total) * GOLDEN_FRACTION) >> 64);
        let stride = (0..total)
            .flat_map(|distance| [ideal.checked_sub(distance), ideal.checked_add(distance)])
            .flatten()
            .find(|&stride| (1..=total).contains(&stride) && gcd(stride, total) == 1)
            .unwrap_or(1);
        Self { total, stride, inverse: inverse(stride, total) }
    }

    /// Users of the fleet.
    pub const fn total(self) -> u32 {
        self.total
    }

    /// π: the user at a position, both in `0..total`.
    pub fn user_at(self, position: u32) -> u32 {
        times(position, self.stride, self.total)
    }

    /// π⁻¹: the position of a user, both in `0..total`.
    pub fn position_of(self, user: u32) -> u32 {
        times(user, self.inverse, self.total)
    }

    /// The user of a request, `0..total`.
    pub fn user_of(self, request: u64) -> u32 {
        // Below `total`.
        #[allow(clippy::cast_possible_truncation)]
        let position = (request % u64::from(self.total)) as u32;
        self.user_at(position)
    }

    /// In any window of consecutive requests, the requests of any contiguous range of users differ
    /// from the range's proportional share by less than this.
    ///
    /// Twice the sum of the partial quotients of `stride / total`. For a convergent p/q of it, q
    /// consecutive requests fall one into each of q equal arcs, so any range holds its share of
    /// them to within 2; and any window is cut into such groups (Ostrowski's numeration), at most
    /// as many of each size as its quotient says.
    pub fn share_bound(self) -> u64 {
        let (mut high, mut low, mut quotients) = (self.total, self.stride, 0);
        while low != 0 {
            quotients += u64::from(high / low);
            (high, low) = (low, high % low);
        }
        2 * quotients
    }
}

/// `a * b mod total`.
fn times(a: u32, b: u32, total: u32) -> u32 {
    // The remainder is below `total`.
    #[allow(clippy::cast_possible_truncation)]
    let product = (u64::from(a) * u64::from(b) % u64::from(total)) as u32;
    product
}

/// For values known to be below 2^32.
fn narrow(value: u128) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The number whose product with `stride` is 1 modulo `total`, by Euclid's extended algorithm.
fn inverse(stride: u32, total: u32) -> u32 {
    let modulus = i64::from(total);
    let (mut remainders, mut factors) = ((modulus, i64::from(stride)), (0i64, 1i64));
    while remainders.1 != 0 {
        let quotient = remainders.0 / remainders.1;
        remainders = (remainders.1, remainders.0 - quotient * remainders.1);
        factors = (factors.1, factors.0 - quotient * factors.1);
    }
    u32::try_from(factors.0.rem_euclid(modulus)).unwrap_or(0)
}

/// A stretch of constant QPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// When it begins, Unix nanoseconds; its first request is due then.
    pub from: u64,
    /// Number of its first request.
    pub first: u64,
    /// Requests a second over the whole fleet; 0 is a pause.
    pub qps: u32,
}

impl Segment {
    fn due(&self, request: u64) -> u64 {
        let number = request - self.first;
        let qps = u64::from(self.qps);
        let after = match number.checked_mul(SECOND) {
            Some(product) => product / qps,
            None => u64::try_from(u128::from(number) * u128::from(SECOND) / u128::from(qps)).unwrap_or(u64::MAX),
        };
        self.from.saturating_add(after)
    }

    /// The first request that is not due before `at`.
    fn first_from(&self, at: u64) -> u64 {
        let elapsed = u128::from(at.saturating_sub(self.from));
        let number = (elapsed * u128::from(self.qps)).div_ceil(u128::from(SECOND));
        // A request's due time is rounded down to the nanosecond, so the one before may still reach
        // over the edge.
        let candidate = self.first + u64::try_from(number).unwrap_or(u64::MAX / 2);
        match self.qps {
            0 => self.first,
            _ if self.due(candidate) < at => candidate + 1,
            _ => candidate,
        }
    }
}

/// Why a change of QPS is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("a change at {at} ns was announced at {now} ns: too late, some machine may have passed it")]
    Past { at: u64, now: u64 },
}

/// What a change of QPS has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleChange {
    /// A segment of its own, at this index; those that were there and behind it have moved up.
    Added(usize),
    /// The segment at this index, which begins at the same moment, has another QPS.
    Replaced(usize),
}

/// The segments of a run so far, in order; nothing is due without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    pub(crate) segments: Vec<Segment>,
}

impl Schedule {
    /// From `at` on the fleet sends `qps` requests a second: what is due before `at` stays as it
    /// was, and the next request is due at `at` exactly. A change before ones that are already
    /// announced holds until the next of these: their requests get other numbers, which none of
    /// them has used yet. Machines that are told the same changes, in whatever order, have the same
    /// schedule.
    pub fn announce(&mut self, at: u64, qps: u32, now: u64) -> Result<ScheduleChange, ChangeError> {
        if at <= now {
            return Err(ChangeError::Past { at, now });
        }
        let index = self.segments.partition_point(|segment| segment.from < at);
        let change = if self.segments.get(index).is_some_and(|segment| segment.from == at) {
            self.segments[index].qps = qps;
            ScheduleChange::Replaced(index)
        } else {
            self.segments.insert(index, Segment { from: at, first: 0, qps });
            ScheduleChange::Added(index)
        };
        for later in index..self.segments.len() {
            let from = self.segments[later].from;
            self.segments[later].first = match later.checked_sub(1) {
                Some(before) => self.segments[before].first_from(from),
                None => 0,
            };
        }
        Ok(change)
    }

    /// Index of the segment that a request belongs to.
    pub fn segment_of(&self, request: u64) -> Option<usize> {
        // Where a pause and its successor begin with the same request, the request belongs to the
        // later one.
        self.segments.partition_point(|segment| segment.first <= request).checked_sub(1)
    }

    /// When a request is due, Unix nanoseconds; `None` while the schedule pauses before it.
    pub fn due(&self, request: u64) -> Option<u64> {
        let segment = &self.segments[self.segment_of(request)?];
        (segment.qps > 0 && request < REQUESTS_MAX).then(|| segment.due(request))
    }
}

/// One request that a machine has to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// When, Unix nanoseconds.
    pub due: u64,
    /// Number of the request in the run, from 0.
    pub request: u64,
    /// Whose, `0..total`.
    pub user: u32,
}

/// Walks the turns of one machine's users in order. Four bytes a user; a turn costs the same
/// however many machines there are.
#[derive(Debug, Clone)]
pub struct Turns {
    pub(crate) spread: Spread,
    /// Positions of this machine's users, ascending.
    positions: Box<[u32]>,
    next: usize,
    /// Number of the request at position 0 of the current cycle.
    cycle: u64,
}

impl Turns {
    /// The turns of users `first..=last`, both in `0..total`.
    pub fn new(spread: Spread, first: u32, last: u32) -> Self {
        assert!(first <= last && last < spread.total, "users {first}..={last} of {}", spread.total);
        let mut positions: Box<[u32]> = (first..=last).map(|user| spread.position_of(user)).collect();
        positions.sort_unstable();
        Self { spread, positions, next: 0, cycle: 0 }
    }

    /// The next turn, if the schedule has one so far.
    pub fn peek(&self, schedule: &Schedule) -> Option<Turn> {
        let position = self.positions[self.next];
        let request = self.cycle + u64::from(position);
        schedule.due(request).map(|due| Turn { due, request, user: self.spread.user_at(position) })
    }

    /// The number of the request that is taken after `ahead` others.
    pub fn request_ahead(&self, ahead: u64) -> u64 {
        let (len, index) = (self.positions.len() as u64, self.next as u64 + ahead);
        #[allow(clippy::cast_possible_truncation, reason = "below the length of a slice")]
        let position = self.positions[(index % len) as usize];
        self.cycle + index / len * u64::from(self.spread.total) + u64::from(position)
    }

    /// How many turns are due by `now` and not taken yet.
    pub fn overdue(&self, schedule: &Schedule, now: u64) -> u64 {
        let is_due = |ahead| schedule.due(self.request_ahead(ahead)).is_some_and(|due| due <= now);
        // Twice as far until one is not due, then by halves: turns are due in the order in which
        // they are taken.
        let (mut due, mut bound) = (0, 1);
        while is_due(bound - 1) {
            (due, bound) = (bound, 2 * bound);
        }
        while due < bound - 1 {
            let middle = due + (bound - due) / 2;
            if is_due(middle - 1) {
                due = middle;
            } else {
                bound = middle;
            }
        }
        due
    }

    /// Takes the next turn, if the schedule has one so far.
    pub fn take(&mut self, schedule: &Schedule) -> Option<Turn> {
        let turn = self.peek(schedule)?;
        self.next += 1;
        if self.next == self.positions.len() {
            self.next = 0;
            self.cycle += u64::from(self.spread.total);
        }
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: u64 = 1_800_000_000 * SECOND;

    fn schedule_of(changes: &[(u64, u32)]) -> Schedule {
        let mut schedule = Schedule::default();
        for &(second, qps) in changes {
            schedule.announce(EPOCH + second * SECOND, qps, EPOCH - 1).unwrap();
        }
        schedule
    }

    /// Every turn of `machines` machines that is due before `end`, in the order of requests.
    fn turns_of_fleet(total: u32, machines: u32, schedule: &Schedule, end: u64) -> Vec<(Turn, u32)> {
        let spread = Spread::new(total);
        let mut all = Vec::new();
        for machine in 0..machines {
            let edge = |index: u32| narrow(u128::from(total) * u128::from(index) / u128::from(machines));
            if edge(machine) == edge(machine + 1) {
                continue;
            }
            let mut turns = Turns::new(spread, edge(machine), edge(machine + 1) - 1);
            while let Some(turn) = turns.peek(schedule).filter(|turn| turn.due < end) {
                assert_eq!(turns.take(schedule), Some(turn));
                all.push((turn, machine));
            }
        }
        all.sort_unstable_by_key(|(turn, _)| turn.request);
        all
    }

    #[test]
    fn the_smallest_fleets_have_a_bijection_too() {
        for total in 1..200 {
            let spread = Spread::new(total);
            let mut seen = vec![false; total as usize];
            for position in 0..total {
                let user = spread.user_at(position);
                assert_eq!(spread.position_of(user), position);
                assert!(!std::mem::replace(&mut seen[user as usize], true));
            }
        }
    }

    #[test]
    fn a_change_in_the_past_is_refused() {
        let mut schedule = schedule_of(&[(0, 10), (5, 20)]);
        let now = EPOCH + 4 * SECOND;
        assert_eq!(schedule.announce(now, 30, now), Err(ChangeError::Past { at: now, now }));
        assert_eq!(schedule.segments.len(), 2);
    }

    #[test]
    fn a_change_before_an_announced_one_holds_until_then() {
        let mut schedule = schedule_of(&[(0, 10), (5, 20), (9, 0)]);
        let now = EPOCH + SECOND;
        assert_eq!(schedule.announce(EPOCH + 3 * SECOND, 100, now), Ok(ScheduleChange::Added(1)));
        let segments: Vec<_> = schedule.segments.iter().map(|segment| (segment.first, segment.qps)).collect();
        assert_eq!(segments, [(0, 10), (30, 100), (230, 20), (310, 0)]);
        assert_eq!(schedule.due(230), Some(EPOCH + 5 * SECOND));
        assert_eq!(schedule.announce(EPOCH + 3 * SECOND, 50, now), Ok(ScheduleChange::Replaced(1)));
        assert_eq!((schedule.segments.len(), schedule.segments[2].first), (4, 130));
    }

    #[test]
    fn nothing_is_due_in_a_pause_and_the_next_request_follows_it() {
        let mut schedule = schedule_of(&[(0, 10), (2, 0)]);
        assert_eq!((schedule.due(19), schedule.due(20)), (Some(EPOCH + 1_900_000_000), None));
        schedule.announce(EPOCH + 7 * SECOND, 4, EPOCH).unwrap();
        assert_eq!(schedule.due(20), Some(EPOCH + 7 * SECOND));
        assert_eq!(schedule.due(21), Some(EPOCH + 7 * SECOND + SECOND / 4));
        assert_eq!(schedule.segment_of(20), Some(2));
    }

    #[test]
    fn the_last_request_number_ends_the_schedule_without_overflow() {
        let schedule = schedule_of(&[(0, 1_000)]);
        let last = u128::from(REQUESTS_MAX - 1) * u128::from(SECOND) / 1_000 + u128::from(EPOCH);
        assert_eq!(schedule.due(REQUESTS_MAX - 1).map(u128::from), Some(last));
        assert_eq!(schedule.due(REQUESTS_MAX), None);
    }

    proptest! {
        #[test]
        fn the_spread_is_a_bijection_for_any_total(total in 1u32.., probes in prop::collection::vec(any::<u32>(), 1..50)) {
            let spread = Spread::new(total);
            prop_assert_eq!(gcd(spread.stride, total), 1);
            for user in probes {
                prop_assert_eq!(spread.user_at(spread.position_of(user % total)), user % total);
            }
        }

        #[test]
        fn each_second_holds_qps_requests_and_machines_send_each_once(
            total in 1u32..3_000, qps in 1u32..5_000, machines in 1u32..9, seconds in 1usize..4,
        ) {
            let schedule = schedule_of(&[(0, qps)]);
            let turns = turns_of_fleet(total, machines, &schedule, EPOCH + seconds as u64 * SECOND);
            let mut per_second = vec![0u64; seconds];
            for (number, (turn, _)) in turns.iter().enumerate() {
                prop_assert_eq!(turn.request, number as u64);
                per_second[usize::try_from((turn.due - EPOCH) / SECOND).unwrap()] += 1;
            }
            prop_assert!(per_second.iter().all(|&count| count == u64::from(qps)), "{:?}", per_second);
        }

        #[test]
        fn what_is_overdue_is_what_would_be_taken(
            total in 1u32..500, qps in 1u32..2_000, machines in 1u32..5, taken in 0usize..50, late in 0u64..3 * SECOND,
        ) {
            let schedule = schedule_of(&[(0, qps), (1, 0), (2, qps)]);
            let last = (total - 1) / machines;
            let mut turns = Turns::new(Spread::new(total), 0, last);
            for _ in 0..taken {
                turns.take(&schedule);
            }
            let counted = turns.overdue(&schedule, EPOCH + late);
            let mut walked = 0;
            while turns.peek(&schedule).is_some_and(|turn| turn.due <= EPOCH + late) {
                prop_assert_eq!(turns.request_ahead(0), turns.take(&schedule).unwrap().request);
                walked += 1;
            }
            prop_assert_eq!(counted, walked);
        }

        #[test]
        fn any_second_wherever_it_begins_holds_qps_requests_within_one(qps in 1u32..2_000, shift in 0u64..SECOND) {
            let schedule = schedule_of(&[(0, qps)]);
            let (from, to) = (EPOCH + shift, EPOCH + shift + SECOND);
            let held = (0..3 * u64::from(qps)).filter(|&k| (from..to).contains(&schedule.due(k).unwrap())).count();
            prop_assert!(held.abs_diff(qps as usize) <= 1);
        }

        #[test]
        fn the_turns_of_each_user_are_evenly_spaced(total in 1u32..500, qps in 1u32..2_000, user in any::<u32>()) {
            let (user, schedule) = (user % total, schedule_of(&[(0, qps)]));
            let mut turns = Turns::new(Spread::new(total), user, user);
            let spacing = u128::from(total) * u128::from(SECOND) / u128::from(qps);
            let first = turns.take(&schedule).unwrap();
            for turn in 1..20u128 {
                let next = turns.take(&schedule).unwrap();
                let exact = u128::from(first.due) + turn * u128::from(total) * u128::from(SECOND) / u128::from(qps);
                // Two roundings of a nanosecond each, and no drift however many turns.
                prop_assert!(u128::from(next.due).abs_diff(exact) <= 1, "spacing {}", spacing);
                prop_assert_eq!(u128::from(next.request - first.request), turn * u128::from(total));
            }
        }

        #[test]
        fn a_machines_share_of_any_window_is_proportional_within_bounds(
            total in 2u32..5_000, range in (any::<u32>(), any::<u32>()), start in any::<u32>(), length in 1u32..20_000,
        ) {
            let spread = Spread::new(total);
            let (a, b) = (range.0 % total, range.1 % total);
            let users = a.min(b)..=a.max(b);
            let size = i128::from(a.max(b) - a.min(b) + 1);
            let mut hits = 0i128;
            for k in u64::from(start)..u64::from(start) + u64::from(length) {
                hits += i128::from(users.contains(&spread.user_of(k)));
            }
            let skew = (hits * i128::from(total) - i128::from(length) * size).unsigned_abs();
            prop_assert!(skew < u128::from(spread.share_bound()) * u128::from(total));
        }

        #[test]
        fn changes_of_qps_lose_and_repeat_nobody(
            total in 1u32..1_000, machines in 1u32..5,
            changes in prop::collection::vec((1u64..4, 0u32..800), 1..6),
        ) {
            let mut at = 0;
            let announced: Vec<_> = changes.iter().map(|&(seconds, qps)| { at += seconds; (at, qps) }).collect();
            let schedule = schedule_of(&announced);
            let turns = turns_of_fleet(total, machines, &schedule, EPOCH + (at + 3) * SECOND);
            let mut last = 0;
            for (number, (turn, _)) in turns.iter().enumerate() {
                prop_assert_eq!(turn.request, number as u64);
                prop_assert!(turn.due >= last);
                last = turn.due;
            }
            // Whole seconds hold the QPS announced for them, so their sum is the number of
            // requests.
            let planned: u64 = announced.iter().zip(announced.iter().skip(1).map(|&(next, _)| next).chain([at + 3]))
                .map(|(&(from, qps), to)| (to - from) * u64::from(qps)).sum();
            prop_assert_eq!(turns.len() as u64, planned);
            for (segment, &(second, _)) in schedule.segments.iter().zip(&announced) {
                if segment.qps > 0 {
                    prop_assert_eq!(schedule.due(segment.first), Some(EPOCH + second * SECOND));
                }
            }
        }

        #[test]
        fn the_same_orders_in_any_order_make_the_same_schedule(
            changes in prop::collection::btree_map(1u64..60, 0u32..5_000, 1..8), turn in any::<usize>()
        ) {
            let mut changes: Vec<_> = changes.into_iter().collect();
            let in_order = schedule_of(&changes);
            let by = turn % changes.len();
            changes.rotate_left(by);
            prop_assert_eq!(schedule_of(&changes), in_order);
        }

        #[test]
        fn a_change_leaves_what_was_due_before_it_untouched(qps in 1u32..100_000, at in 1u64..60_000_000_000, then in 1u32..100_000) {
            let before = schedule_of(&[(0, qps)]);
            let mut after = before.clone();
            after.announce(EPOCH + at, then, EPOCH).unwrap();
            let first = after.segments[1].first;
            prop_assert_eq!(after.due(first), Some(EPOCH + at));
            prop_assert!(before.due(first).unwrap() >= EPOCH + at);
            if let Some(last) = first.checked_sub(1) {
                prop_assert_eq!(before.due(last), after.due(last));
                prop_assert!(after.due(last).unwrap() < EPOCH + at);
            }
        }
    }
}
