//! How many requests are looked at: the generic cell rate algorithm (ITU-T I.371), whose whole
//! state is the theoretical arrival time of the next request. [`Meter`] watches one connection in 8
//! bytes; [`Gate`] is shared by all SETs of the node, one atomic step for each batch. [`LoginQueue`]
//! refuses nobody for good: whoever it cannot let in now gets a retry slot.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{NANOS_PER_SECOND, Nanos};
use crate::limits;

/// A rate with the burst that it forgives.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Time between two requests at exactly the rate.
    interval: Nanos,
    /// How far ahead of the rate a burst may run.
    tolerance: Nanos,
}

impl Rate {
    /// `per_second` requests a second (1 ..= 10^9), in bursts of at most `burst`.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = NANOS_PER_SECOND / u64::from(per_second.clamp(1, 1_000_000_000));
        Self { interval, tolerance: interval * u64::from(burst.max(1)) }
    }

    pub fn per_second(&self) -> u32 {
        u32::try_from(NANOS_PER_SECOND / self.interval).unwrap_or(u32::MAX)
    }

    /// How many of `wanted` requests pass at `now`, and the theoretical arrival time after them.
    fn grant(&self, arrival: Nanos, now: Nanos, wanted: u64) -> (u64, Nanos) {
        let arrival = arrival.max(now);
        let room = (now + self.tolerance).saturating_sub(arrival) / self.interval;
        let granted = wanted.min(room);
        (granted, arrival + granted * self.interval)
    }
}

/// One connection's use of its rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter(Nanos);

impl Meter {
    /// Whether one request more passes at `now`.
    pub fn admit(&mut self, rate: &Rate, now: Nanos) -> bool {
        let (granted, arrival) = rate.grant(self.0, now, 1);
        self.0 = arrival;
        granted == 1
    }
}

/// The node's use of its rate.
#[derive(Debug)]
pub struct Gate {
    rate: Rate,
    arrival: AtomicU64,
}

impl Gate {
    /// A gate that nothing has passed yet.
    pub fn new(rate: Rate) -> Self {
        Self { rate, arrival: AtomicU64::new(0) }
    }

    /// How many of `wanted` requests pass at `now`.
    pub fn admit(&self, wanted: u64, now: Nanos) -> u64 {
        let grant = |arrival| self.rate.grant(arrival, now, wanted);
        grant(self.arrival.update(Ordering::Relaxed, Ordering::Relaxed, |arrival| grant(arrival).1)).0
    }
}

/// When to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySlot(NonZeroU64);

impl RetrySlot {
    /// `promised`: this moment is the holder's. Otherwise it is only a hint when to ask again.
    fn new(at: Nanos, promised: bool) -> Self {
        // The lowest bit keeps it from 0; 2^62 ns are 146 years.
        Self(NonZeroU64::MIN | (at << 2 | u64::from(promised) << 1))
    }

    pub fn at(self) -> Nanos {
        self.0.get() >> 2
    }

    fn is_promised(self) -> bool {
        self.0.get() & 2 != 0
    }

    /// Whole seconds since the process started, rounded up.
    #[allow(clippy::cast_possible_truncation)] // 136 years
    pub fn second(self) -> u32 {
        self.at().div_ceil(NANOS_PER_SECOND) as u32
    }

    /// How long to wait, rounded up: whoever waits so long is not early.
    pub fn wait_ms(self, now: Nanos) -> u32 {
        u32::try_from(self.at().saturating_sub(now).div_ceil(1_000_000)).unwrap_or(u32::MAX)
    }

    /// As a number that is never 0.
    pub fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// From [`RetrySlot::to_bits`]; 0: none.
    pub fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }
}

/// What a [`LoginQueue`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Now,
    /// Come back then.
    Later(RetrySlot),
}

/// A crowd made into a queue: who cannot pass at the rate takes the next free moment, which moves
/// the theoretical arrival time on as passing would. So the refused come back evenly, one an
/// interval, in the order in which they came, and newcomers queue up behind them. Who keeps a
/// slot takes nothing from the rate again.
///
/// In any window of `t` seconds at most `rate * (t + grace) + burst` pass, whatever peers do; `rate
/// * t + burst`, where all who hold a slot come at their moment.
#[derive(Debug)]
pub struct LoginQueue {
    rate: Rate,
    /// Lateness that does not forfeit a retry slot.
    grace: Nanos,
    /// No retry slot is further away.
    horizon: Nanos,
    arrival: AtomicU64,
    /// Peers that came when all moments up to the horizon were taken.
    turned_away: AtomicU64,
}

impl LoginQueue {
    /// The line of a node that takes `per_second` logins.
    pub fn of_logins(per_second: u32) -> Self {
        let burst = (u64::from(per_second) * limits::LOGIN_BURST_MS).div_ceil(1_000);
        let rate = Rate::new(per_second, u32::try_from(burst).unwrap_or(u32::MAX));
        Self::new(rate, limits::LOGIN_GRACE_MS * 1_000_000, limits::LOGIN_HORIZON_SECONDS * NANOS_PER_SECOND)
    }

    /// An empty line.
    pub fn new(rate: Rate, grace: Nanos, horizon: Nanos) -> Self {
        Self { rate, grace, horizon, arrival: AtomicU64::new(0), turned_away: AtomicU64::new(0) }
    }

    /// Somebody asks to be let in at `now`, and got `held` before. Early: the same again. More
    /// than the grace late: as if it had never come.
    pub fn admit(&self, held: Option<RetrySlot>, now: Nanos) -> Admission {
        match held {
            Some(held) if now < held.at() => Admission::Later(held),
            Some(held) if held.is_promised() && now <= held.at() + self.grace => Admission::Now,
            _ => self.join(now),
        }
    }

    fn join(&self, now: Nanos) -> Admission {
        let after = |arrival: Nanos| arrival.max(now) + self.rate.interval;
        // The first moment at which a request with this theoretical arrival time passes.
        let moment = |arrival: Nanos| arrival.saturating_sub(self.rate.tolerance);
        let join = |before| Some(after(before)).filter(|arrival| moment(*arrival) <= now + self.horizon);
        match self.arrival.try_update(Ordering::Relaxed, Ordering::Relaxed, join) {
            Err(_) => Admission::Later(RetrySlot::new(self.beyond(now), false)),
            Ok(before) if moment(after(before)) <= now => Admission::Now,
            Ok(before) => Admission::Later(RetrySlot::new(moment(after(before)), true)),
        }
    }

    /// When to ask again, where nothing can be promised: dealt out at the rate over the second half
    /// of the horizon, round and round.
    fn beyond(&self, now: Nanos) -> Nanos {
        let half = (self.horizon / 2).max(1);
        let count = self.turned_away.fetch_add(1, Ordering::Relaxed);
        now + half + count.wrapping_mul(self.rate.interval) % half
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_burst_passes_and_the_next_request_waits_its_interval() {
        let (rate, mut meter) = (Rate::new(10, 5), Meter::default());
        let now = 7 * NANOS_PER_SECOND;
        assert_eq!((0..9).filter(|_| meter.admit(&rate, now)).count(), 5);
        assert!(!meter.admit(&rate, now + NANOS_PER_SECOND / 10 - 1));
        assert!(meter.admit(&rate, now + NANOS_PER_SECOND / 10));
    }

    #[test]
    fn a_retry_slot_is_repeated_to_the_early_lost_by_the_late() {
        let queue = LoginQueue::new(Rate::new(10, 1), NANOS_PER_SECOND, 60 * NANOS_PER_SECOND);
        let now = 7 * NANOS_PER_SECOND;
        assert_eq!(queue.admit(None, now), Admission::Now);
        let Admission::Later(first) = queue.admit(None, now) else { panic!() };
        let Admission::Later(second) = queue.admit(None, now) else { panic!() };
        assert_eq!((first.wait_ms(now), second.wait_ms(now)), (100, 200));
        for _ in 0..100 {
            assert_eq!(queue.admit(Some(second), now), Admission::Later(second));
        }
        assert_eq!(queue.admit(Some(first), first.at() - 1), Admission::Later(first));
        assert_eq!(queue.admit(Some(first), first.at()), Admission::Now);
        // Whoever comes meanwhile queues up behind.
        let Admission::Later(third) = queue.admit(None, second.at() - 1) else { panic!() };
        assert_eq!(third.at() - second.at(), NANOS_PER_SECOND / 10);
        let late = second.at() + NANOS_PER_SECOND;
        assert_eq!(queue.admit(Some(second), late), Admission::Now);
        assert_eq!(queue.admit(Some(second), late + 1), Admission::Now, "nobody else is there: no need to wait");
        assert!(matches!(queue.admit(Some(second), late + 1), Admission::Later(again) if again.at() > late));
    }

    #[test]
    fn beyond_the_horizon_the_crowd_is_spread_over_its_second_half() {
        let (horizon, now) = (10 * NANOS_PER_SECOND, 3 * NANOS_PER_SECOND);
        let queue = LoginQueue::new(Rate::new(10, 1), NANOS_PER_SECOND, horizon);
        let told: Vec<_> = (0..301)
            .filter_map(|_| match queue.admit(None, now) {
                Admission::Now => None,
                Admission::Later(retry_slot) => Some(retry_slot),
            })
            .collect();
        let (promised, hinted): (Vec<_>, Vec<_>) = told.into_iter().partition(|retry_slot| retry_slot.is_promised());
        assert_eq!((promised.len(), hinted.len()), (100, 200));
        assert!(hinted.iter().all(|hint| (now + horizon / 2..now + horizon).contains(&hint.at())));
        // Four rounds of fifty: ten in each second.
        for second in 5..10 {
            let from = now + second * NANOS_PER_SECOND;
            let within = hinted.iter().filter(|hint| (from..from + NANOS_PER_SECOND).contains(&hint.at())).count();
            assert_eq!(within, 40);
        }
        // Who was only told when to ask again has no place.
        let hint = hinted[0];
        assert!(
            matches!(queue.admit(Some(hint), hint.at()), Admission::Later(later) if later.is_promised() && later.at() > hint.at())
        );
    }

    proptest! {
        /// Peers that come in a crowd, and come back when they are told to, or late.
        #[test]
        fn who_returns_on_time_gets_in_and_no_window_lets_in_too_many(
            per_second in 1u32..20_000, burst in 1u32..50, horizon_ms in 50u64..5_000, grace_ms in 0u64..200,
            crowd in prop::collection::vec((0u64..300_000_000, 0u64..300_000_000), 1..300),
        ) {
            let rate = Rate::new(per_second, burst);
            let (interval, grace) = (rate.interval, grace_ms * 1_000_000);
            let queue = LoginQueue::new(rate, grace, horizon_ms * 1_000_000);
            let mut asking: BinaryHeap<_> =
                crowd.iter().map(|&(arrival, lateness)| Reverse((NANOS_PER_SECOND + arrival, lateness, 0, 0))).collect();
            let (mut passed, mut on_time, mut booked) = (Vec::new(), true, Vec::new());
            while let Some(Reverse((now, lateness, held, refusals))) = asking.pop() {
                let held = RetrySlot::from_bits(held);
                match queue.admit(held, now) {
                    Admission::Now => passed.push(now),
                    Admission::Later(told) => {
                        let kept = held.is_none_or(|held| !held.is_promised() || now > held.at() + grace);
                        prop_assert!(kept, "refused although it came at its moment");
                        prop_assert!(told.at() > now && told.wait_ms(now) > 0);
                        prop_assert!(told.at() <= now + horizon_ms * 1_000_000);
                        if told.is_promised() {
                            booked.push(told.at());
                        }
                        // Late once; then it has learnt.
                        let lateness = if refusals == 0 { lateness } else { 0 };
                        on_time &= lateness == 0;
                        asking.push(Reverse((told.at() + lateness, lateness, told.to_bits(), refusals + 1)));
                    }
                }
            }
            prop_assert_eq!(passed.len(), crowd.len());
            prop_assert!(booked.is_sorted_by(|a, b| a + interval <= *b), "retry slots are an interval apart");
            let forgiven = u64::from(burst) * interval + if on_time { 0 } else { grace };
            for (i, from) in passed.iter().enumerate() {
                for (j, until) in passed.iter().enumerate().skip(i) {
                    prop_assert!((j - i + 1) as u64 * interval <= until - from + forgiven, "{} in {} ns", j - i + 1, until - from);
                }
            }
        }

        #[test]
        fn no_window_lets_more_pass_than_rate_and_burst_allow(
            per_second in 1u32..100_000, burst in 1u32..1_000,
            arrivals in prop::collection::vec((0u64..50_000_000, 1u64..200), 1..100),
        ) {
            let gate = Gate::new(Rate::new(per_second, burst));
            let (mut now, mut passed) = (0, 0);
            for (pause, wanted) in arrivals {
                now += pause;
                let granted = gate.admit(wanted, now);
                prop_assert!(granted <= wanted);
                passed += granted;
                let allowed = u128::from(now) * u128::from(per_second) / u128::from(NANOS_PER_SECOND);
                // An interval is rounded down to whole nanoseconds: at 100,000/s by at most 1 in
                // 10,000.
                prop_assert!(u128::from(passed) <= allowed + allowed / 10_000 + u128::from(burst) + 1);
            }
        }
    }
}
