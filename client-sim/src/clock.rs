//! The time that the schedule runs on: the machine's monotonic clock, set once from its wall clock
//! and corrected by the offset that an NTP server (SNTP, RFC 4330) tells. Machines whose clocks
//! disagree would bend the fleet's schedule, so each knows a bound on its error and refuses to
//! measure with a worse one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rsntp::{AsyncSntpClient, Config};

/// A second in nanoseconds, the unit of every moment of a schedule.
pub const SECOND: u64 = 1_000_000_000;

/// A millisecond in nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;

/// Exchanges of one measurement; the one with the shortest round trip decides.
const EXCHANGES: usize = 8;

/// For one answer of the NTP server.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(2);

/// What one exchange with the server told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Server's clock minus ours, nanoseconds.
    pub offset: i64,
    /// Time on the way, both directions, nanoseconds.
    pub round_trip: u64,
}

/// How far our wall clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// To be added to our wall clock, nanoseconds.
    pub nanos: i64,
    /// The true offset lies within this of `nanos`, as far as the server is right.
    pub error: u64,
}

/// Why there is no offset.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    #[error("NTP server {server} cannot be used: {reason}")]
    Unusable { server: String, reason: String },
    #[error("clock offset is known to ±{error_us} µs only; the budget is ±{budget_us} µs (--clock-budget)")]
    OverBudget { error_us: u64, budget_us: u64 },
}

/// The offset that several exchanges support.
///
/// The exchange with the shortest round trip gives the offset, and half that round trip bounds its
/// error: the reply was written at some moment between. Every other exchange bounds the true offset
/// in the same way; where one contradicts the best (a clock was stepped, or one direction is
/// slower), the error grows until they agree. The server's own distance from true time (root delay
/// and dispersion) is not part of it: machines of a fleet share their server.
pub fn combine(exchanges: &[Exchange]) -> Option<Offset> {
    let best = exchanges.iter().min_by_key(|exchange| exchange.round_trip)?;
    let half = |exchange: &Exchange| exchange.round_trip.div_ceil(2);
    let contradiction =
        exchanges.iter().map(|other| other.offset.abs_diff(best.offset).saturating_sub(half(other))).max().unwrap_or(0);
    Some(Offset { nanos: best.offset, error: half(best).max(contradiction).max(1) })
}

/// Asks the server (`HOST:PORT`) several times.
pub async fn measure(server: &str) -> Result<Offset, ClockError> {
    let client = AsyncSntpClient::with_config(Config::default().timeout(EXCHANGE_DEADLINE));
    let (mut exchanges, mut reason) = (Vec::with_capacity(EXCHANGES), String::new());
    for _ in 0..EXCHANGES {
        match client.synchronize(server).await {
            Ok(result) => exchanges.push(Exchange {
                offset: nanos(result.clock_offset().as_secs_f64()),
                // A clock that was stepped in between can make it negative; 0 then lets the other
                // exchanges object.
                round_trip: nanos(result.round_trip_delay().as_secs_f64()).max(0).unsigned_abs(),
            }),
            Err(error) => {
                reason = error.to_string();
                if exchanges.is_empty() {
                    break;
                }
            }
        }
    }
    combine(&exchanges).ok_or_else(|| ClockError::Unusable { server: server.to_owned(), reason })
}

/// Clocks may be decades apart and still fit.
#[allow(clippy::cast_possible_truncation)]
fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

/// Corrected wall-clock time that never jumps.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    anchor_unix: u64,
    /// The correction in use.
    pub(crate) offset: Offset,
}

impl Clock {
    /// A clock that runs from now on with a measured offset.
    pub fn new(offset: Offset) -> Self {
        let (anchor, unix) = (Instant::now(), saturate(wall().as_nanos()));
        Self { anchor, anchor_unix: unix.saturating_add_signed(offset.nanos), offset }
    }

    /// A clock that takes the machine's wall clock as true; for the process that other machines
    /// take their time from.
    pub fn own() -> Self {
        Self::new(Offset { nanos: 0, error: 1 })
    }

    /// Unix nanoseconds.
    pub fn now(&self) -> u64 {
        self.anchor_unix + saturate(self.anchor.elapsed().as_nanos())
    }

    /// The monotonic instant of a moment; moments before the clock was made are the moment of its
    /// making.
    pub fn instant(&self, unix: u64) -> Instant {
        self.anchor + Duration::from_nanos(unix.saturating_sub(self.anchor_unix))
    }

    /// Refuses an error above `budget`.
    pub fn check_budget(&self, budget: Duration) -> Result<(), ClockError> {
        let (error, budget) = (self.offset.error, saturate(budget.as_nanos()));
        if error > budget {
            return Err(ClockError::OverBudget { error_us: error / 1_000, budget_us: budget / 1_000 });
        }
        Ok(())
    }
}

/// The wall clock since 1970, uncorrected.
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn saturate(nanos: u128) -> u64 {
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shortest_round_trip_decides_and_half_of_it_is_the_error() {
        let exchanges = [
            Exchange { offset: 900, round_trip: 2_000 },
            Exchange { offset: 1_000, round_trip: 101 },
            Exchange { offset: 1_400, round_trip: 1_000 },
        ];
        assert_eq!(combine(&exchanges), Some(Offset { nanos: 1_000, error: 51 }));
        assert_eq!(combine(&[]), None);
    }

    #[test]
    fn exchanges_that_contradict_each_other_widen_the_error() {
        let exchanges = [Exchange { offset: 0, round_trip: 100 }, Exchange { offset: 50_000, round_trip: 200 }];
        assert_eq!(combine(&exchanges).unwrap().error, 49_900);
    }

    #[test]
    fn a_clock_with_too_large_an_error_is_refused() {
        let clock = Clock::new(Offset { nanos: 0, error: 60_000_000 });
        assert!(matches!(
            clock.check_budget(Duration::from_millis(50)),
            Err(ClockError::OverBudget { error_us: 60_000, budget_us: 50_000 })
        ));
        assert!(clock.check_budget(Duration::from_millis(60)).is_ok());
    }

    proptest! {
        /// Any delays on the way out and back, around any true offset.
        #[test]
        fn the_true_offset_lies_within_the_error(truth in -1_000_000_000i64..1_000_000_000,
                                                 ways in prop::collection::vec((0u32..10_000_000, 0u32..10_000_000), 1..10)) {
            let exchanges: Vec<_> = ways.iter().map(|&(out, back)| Exchange {
                offset: truth + (i64::from(out) - i64::from(back)) / 2,
                round_trip: u64::from(out) + u64::from(back),
            }).collect();
            let offset = combine(&exchanges).unwrap();
            prop_assert!(offset.nanos.abs_diff(truth) <= offset.error + 1);
        }
    }
}
