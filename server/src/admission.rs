//! How many requests are looked at: the generic cell rate algorithm (ITU-T I.371), whose whole state is the theoretical arrival
//! time of the next request. [`Meter`] watches one connection in 8 bytes; [`Gate`] is shared by all SETs of the node, one
//! atomic step for each batch.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds since the process started.
pub type Nanos = u64;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

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
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let (granted, next) = self.rate.grant(arrival, now, wanted);
            match self.arrival.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return granted,
                Err(current) => arrival = current,
            }
        }
    }
}

#[cfg(test)]
mod tests {
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

    proptest! {
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
                // An interval is rounded down to whole nanoseconds: at 100,000/s by at most 1 in 10,000.
                prop_assert!(u128::from(passed) <= allowed + allowed / 10_000 + u128::from(burst) + 1);
            }
        }
    }
}
