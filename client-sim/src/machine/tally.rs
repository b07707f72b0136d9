//! What a machine measures: totals, wall-clock seconds and segments of the schedule. Sends count in the second of their
//! sending, answers in the second of their coming; both count in the segment in which the request was planned.

use std::mem;

use crate::histogram::{self, Micros};
use crate::machine::labels::{End, Outcome, Violation};
use crate::results::{Counts, SecondRow, SegmentResult};
use crate::schedule::{SECOND, Schedule};

/// Error codes of the protocol, 0 to 10; later ones count as the last.
const ERROR_CODES: usize = hongbao_proto::v1::ErrorCode::LedgerUnavailable as usize + 1;

/// Counts in one wall-clock second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    planned: u32,
    sent: u32,
    answered: u32,
    outcomes: [u32; Outcome::COUNT],
    p50_us: u32,
    p99_us: u32,
    max_us: u32,
}

/// Measures of one segment.
#[derive(Debug)]
struct Segment {
    planned: u64,
    sent: u64,
    answered: u64,
    held_by_storm: u64,
    latency: Micros,
    send_lag: Micros,
}

/// Plain counters, since the machine started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Grabs due.
    pub planned: u64,
    /// Grabs written, once each.
    pub sent: u64,
    /// Grabs answered, in time or late.
    pub answered: u64,
    /// Of these, late.
    pub answered_late: u64,
    /// Grabs written again.
    pub resent: u64,
    /// Grabs that could not be written when due.
    pub held_back: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Logins of users who had been logged in before.
    pub reconnects: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// Acknowledges written.
    pub acknowledges: u64,
    outcomes: [u64; Outcome::COUNT],
    errors: [u64; ERROR_CODES],
    violations: [u64; Violation::COUNT],
    ends: [u64; End::COUNT],
}

impl Counters {
    /// A rule was broken.
    pub fn violation(&mut self, violation: Violation) {
        self.violations[violation as usize] += 1;
    }

    /// A connection ended.
    pub fn end(&mut self, end: End) {
        self.ends[end as usize] += 1;
    }

    /// An error came, of a `v1::ErrorCode`.
    pub fn error(&mut self, code: i32) {
        let index = usize::try_from(code).unwrap_or(0).min(ERROR_CODES - 1);
        self.errors[index] += 1;
    }

    /// Answers by kind.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::ALL.iter().map(|outcome| outcome.label()).zip(self.outcomes)
    }

    /// Errors by code.
    pub fn errors(&self) -> Counts {
        let label = |(code, &count): (usize, &u64)| {
            let code = i32::try_from(code).ok().and_then(|code| hongbao_proto::v1::ErrorCode::try_from(code).ok());
            let name = code.map_or("unknown", |code| code.as_str_name().trim_start_matches("ERROR_CODE_"));
            (name.to_ascii_lowercase(), count)
        };
        self.errors.iter().enumerate().map(label).filter(|(_, count)| *count > 0).collect()
    }

    /// Violations by kind.
    pub fn violations(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Violation::ALL.iter().map(|violation| violation.label()).zip(self.violations)
    }

    /// Ends of connections by reason.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        End::ALL.iter().map(|end| end.label()).zip(self.ends)
    }
}

/// All measures of a machine.
#[derive(Debug)]
pub struct Tally {
    /// Totals.
    pub counters: Counters,
    /// Unix second of the first row; 0 before the first segment.
    base: u64,
    seconds: Vec<Second>,
    segments: Vec<Segment>,
    /// Of the second that runs.
    current: u64,
    latency: Micros,
    send_lag: Micros,
    /// Of the last second that is over.
    last_latency: Micros,
    /// Of the seconds since the last report.
    unreported: (Micros, Micros),
}

impl Tally {
    /// Nothing measured yet.
    pub fn new() -> Self {
        let empty = histogram::of_a_second;
        Self {
            counters: Counters::default(),
            base: 0,
            seconds: Vec::new(),
            segments: Vec::new(),
            current: 0,
            latency: empty(),
            send_lag: empty(),
            last_latency: empty(),
            unreported: (empty(), empty()),
        }
    }

    /// The schedule has got another segment; `from`: Unix nanoseconds.
    pub fn add_segment(&mut self, from: u64) {
        if self.segments.is_empty() {
            self.base = from / SECOND;
            self.current = self.base;
        }
        let (latency, send_lag) = (histogram::empty(), histogram::empty());
        self.segments.push(Segment { planned: 0, sent: 0, answered: 0, held_by_storm: 0, latency, send_lag });
    }

    /// A Grab of segment `segment` was due at `due`.
    pub fn planned(&mut self, segment: usize, due: u64) {
        self.counters.planned += 1;
        self.segments[segment].planned += 1;
        self.second(due).planned += 1;
    }

    /// A Grab planned for `due` was written at `now`. When a storm held it back until then, its time counts in the second but
    /// not in the segment.
    pub fn sent(&mut self, segment: usize, due: u64, now: u64, held_by_storm: bool) {
        let lag = now.saturating_sub(due) / 1_000;
        self.roll(now);
        self.counters.sent += 1;
        self.send_lag.saturating_record(lag);
        self.second(now).sent += 1;
        let segment = &mut self.segments[segment];
        segment.sent += 1;
        if !held_by_storm {
            segment.send_lag.saturating_record(lag);
        }
    }

    /// The answer to a Grab planned for `due` came at `now`; `held_by_storm` as with its sending.
    pub fn answered(&mut self, segment: usize, due: u64, now: u64, outcome: Outcome, held_by_storm: bool) {
        let latency = now.saturating_sub(due) / 1_000;
        self.roll(now);
        self.counters.answered += 1;
        self.counters.outcomes[outcome as usize] += 1;
        self.latency.saturating_record(latency);
        let second = self.second(now);
        second.answered += 1;
        second.outcomes[outcome as usize] += 1;
        let segment = &mut self.segments[segment];
        segment.answered += 1;
        if held_by_storm {
            segment.held_by_storm += 1;
        } else {
            segment.latency.saturating_record(latency);
        }
    }

    /// Closes the books of seconds that are over at `now`.
    pub fn roll(&mut self, now: u64) {
        let second = now / SECOND;
        if second <= self.current || self.segments.is_empty() {
            return;
        }
        let quantile = |q| u32::try_from(self.latency.value_at_quantile(q)).unwrap_or(u32::MAX);
        let (p50_us, p99_us, max_us) = (quantile(0.5), quantile(0.99), quantile(1.0));
        let row = self.second(self.current * SECOND);
        (row.p50_us, row.p99_us, row.max_us) = (p50_us, p99_us, max_us);
        let (latency, send_lag) = &mut self.unreported;
        latency.add(&self.latency).expect("one shape");
        send_lag.add(&self.send_lag).expect("one shape");
        mem::swap(&mut self.latency, &mut self.last_latency);
        self.latency.reset();
        self.send_lag.reset();
        self.current = second;
    }

    /// Latencies and send lags of the seconds that ended since the last call.
    pub fn take_unreported(&mut self) -> (Micros, Micros) {
        mem::replace(&mut self.unreported, (histogram::of_a_second(), histogram::of_a_second()))
    }

    /// The last second that is over, and its latencies.
    pub fn last_second(&self) -> Option<(SecondRow, &Micros)> {
        let index = self.current.checked_sub(self.base + 1)?;
        let second = usize::try_from(index).ok().and_then(|index| self.seconds.get(index)).copied().unwrap_or_default();
        Some((row(self.base + index, &second), &self.last_latency))
    }

    /// All seconds so far.
    pub fn seconds(&self) -> Vec<SecondRow> {
        self.seconds.iter().zip(self.base..).map(|(second, unix)| row(unix, second)).collect()
    }

    /// All segments so far.
    pub fn segments(&self, schedule: &Schedule) -> Vec<SegmentResult> {
        let result = |(planned, measured): (&crate::schedule::Segment, &Segment)| SegmentResult {
            from: planned.from / SECOND,
            qps: planned.qps,
            planned: measured.planned,
            sent: measured.sent,
            answered: measured.answered,
            held_by_storm: measured.held_by_storm,
            latency: histogram::to_base64(&measured.latency),
            send_lag: histogram::to_base64(&measured.send_lag),
        };
        schedule.segments().iter().zip(&self.segments).map(result).collect()
    }

    fn second(&mut self, at: u64) -> &mut Second {
        let index = usize::try_from((at / SECOND).saturating_sub(self.base)).unwrap_or(usize::MAX);
        if index >= self.seconds.len() {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts with their labels, without zeros.
pub fn counts<'a>(pairs: impl Iterator<Item = (&'a str, u64)>) -> Counts {
    pairs.filter(|(_, count)| *count > 0).map(|(label, count)| (label.to_owned(), count)).collect()
}

fn row(unix: u64, second: &Second) -> SecondRow {
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.label()).zip(second.outcomes.map(u64::from));
    SecondRow {
        second: unix,
        planned: second.planned.into(),
        sent: second.sent.into(),
        answered: second.answered.into(),
        outcomes: counts(outcomes),
        p50_us: second.p50_us.into(),
        p99_us: second.p99_us.into(),
        max_us: second.max_us.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 1_800_000_000 * SECOND;

    #[test]
    fn an_answer_counts_in_its_own_second_and_in_the_segment_of_its_plan() {
        let mut tally = Tally::new();
        tally.add_segment(EPOCH);
        tally.add_segment(EPOCH + SECOND);
        let due = EPOCH + SECOND - 1_000_000;
        tally.planned(0, due);
        tally.sent(0, due, due + 250_000, false);
        tally.answered(0, due, due + 2_000_000, Outcome::NoneNow, false);
        tally.roll(EPOCH + 2 * SECOND);

        let seconds = tally.seconds();
        assert_eq!((seconds[0].planned, seconds[0].sent, seconds[0].answered), (1, 1, 0));
        assert_eq!((seconds[1].answered, seconds[1].outcomes["none_now"]), (1, 1));
        assert!((2_000..2_020).contains(&seconds[1].max_us), "two digits");
        assert_eq!((tally.segments[0].answered, tally.segments[1].answered), (1, 0));
        let (last, latencies) = tally.last_second().unwrap();
        assert_eq!((last.second, latencies.len()), (EPOCH / SECOND + 1, 1));
        let (latency, send_lag) = tally.take_unreported();
        assert_eq!((latency.len(), send_lag.len(), tally.take_unreported().0.len()), (1, 1, 0));
    }

    #[test]
    fn errors_are_counted_by_the_name_of_their_code() {
        let mut counters = Counters::default();
        counters.error(hongbao_proto::v1::ErrorCode::NoSuchCampaign as i32);
        counters.error(99);
        assert_eq!(counters.errors(), Counts::from([("no_such_campaign".into(), 1), ("ledger_unavailable".into(), 1)]));
    }
}
