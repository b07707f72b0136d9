//! What a machine measures: totals, wall-clock seconds and segments of the schedule. Sends count in
//! the second of their sending, answers in the second of their coming; both count in the segment in
//! which the request was planned.

use std::mem;

use hdrhistogram::Histogram;

use crate::clock::SECOND;
use crate::histogram::{self, Micros};
use crate::machine::labels::{EndReason, Outcome, Violation};
use crate::machine::reactions::Act;
use crate::results::{Counts, OperationResult, SecondRow, SegmentResult, Totals};
use crate::schedule::mix::Operation;

/// Error codes of the protocol; unknown ones count as the first, which is unspecified.
const ERROR_CODES: usize = hongbao_proto::v1::ErrorCode::RoomFull as usize + 1;

/// Kinds of what users do of their own accord.
const ACTS: usize = Act::LABELS.len();

/// Counts in one wall-clock second.
#[derive(Debug, Clone, Copy, Default)]
struct SecondTally {
    planned: u32,
    sent: u32,
    answered: u32,
    outcomes: [u32; Outcome::COUNT],
    p50_us: u32,
    p99_us: u32,
    max_us: u32,
}

/// Measures of one operation of the schedule, or of one kind of what users do of their own accord.
#[derive(Debug, Default)]
struct OperationTally {
    planned: u64,
    sent: u64,
    answered: u64,
    outcomes: [u64; Outcome::COUNT],
    latency: Micros,
}

impl OperationTally {
    fn answered(&mut self, outcome: Outcome, latency: Option<u64>) {
        self.answered += 1;
        self.outcomes[outcome as usize] += 1;
        if let Some(latency) = latency {
            self.latency.record(latency);
        }
    }

    fn result(&self) -> OperationResult {
        OperationResult {
            planned: self.planned,
            sent: self.sent,
            answered: self.answered,
            outcomes: counts(Outcome::labelled(self.outcomes)),
            latency: self.latency.clone(),
        }
    }
}

/// Plain counters, since the machine started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Those that are plain sums. What the parts of a machine count themselves is added by the view.
    pub totals: Totals,
    pub logins: u64,
    pub outcomes: [u64; Outcome::COUNT],
    errors: [u64; ERROR_CODES],
    pub violations: [u64; Violation::COUNT],
    /// Ends of connections.
    pub ends: [u64; EndReason::COUNT],
}

impl Counters {
    /// A rule was broken.
    pub fn violation(&mut self, violation: Violation) {
        self.violations[violation as usize] += 1;
    }

    /// Counts the rule that was broken, if one was.
    pub fn check(&mut self, kept: Result<(), Violation>) {
        if let Err(violation) = kept {
            self.violation(violation);
        }
    }

    pub fn end(&mut self, end: EndReason) {
        self.ends[end as usize] += 1;
    }

    /// An error came, of a `v1::ErrorCode`.
    pub fn error(&mut self, code: i32) {
        let known = usize::try_from(code).ok().filter(|code| *code < ERROR_CODES);
        self.errors[known.unwrap_or(0)] += 1;
    }

    pub fn errors(&self) -> Counts {
        let label = |(code, &count): (usize, &u64)| {
            let code = i32::try_from(code).ok().and_then(|code| hongbao_proto::v1::ErrorCode::try_from(code).ok());
            let name = code.map_or("unknown", |code| code.as_str_name().trim_start_matches("ERROR_CODE_"));
            (name.to_ascii_lowercase(), count)
        };
        self.errors.iter().enumerate().map(label).filter(|(_, count)| *count > 0).collect()
    }
}

/// All measures of a machine.
#[derive(Debug)]
pub struct Tally {
    pub counters: Counters,
    /// Unix second of the first row; 0 before the first segment.
    base: u64,
    seconds: Vec<SecondTally>,
    pub segments: Vec<SegmentResult>,
    /// Kept once there is more than grabs: until then what all requests add up to is what the grabs
    /// do.
    operations: Option<Box<[OperationTally; Operation::COUNT]>>,
    reactions: [OperationTally; ACTS],
    /// Of the second that runs.
    current: u64,
    latency: Histogram<u64>,
    send_lag: Histogram<u64>,
    /// Of the last second that is over.
    last_latency: Histogram<u64>,
    /// Of the seconds since the last report.
    unreported: (Histogram<u64>, Histogram<u64>),
}

impl Default for Tally {
    fn default() -> Self {
        let empty = histogram::of_a_second;
        Self {
            counters: Counters::default(),
            base: 0,
            seconds: Vec::new(),
            segments: Vec::new(),
            operations: None,
            reactions: Default::default(),
            current: 0,
            latency: empty(),
            send_lag: empty(),
            last_latency: empty(),
            unreported: (empty(), empty()),
        }
    }
}

impl Tally {
    /// The schedule has got another segment, at this index; `from`: Unix nanoseconds.
    pub fn add_segment(&mut self, index: usize, from: u64, qps: u32) {
        // A second before the first so far: no second has been counted yet.
        if self.seconds.is_empty() && (self.segments.is_empty() || index == 0) {
            self.base = from / SECOND;
            self.current = self.base;
        }
        let (latency, send_lag) = (Micros::empty(), Micros::empty());
        let segment = SegmentResult { from: from / SECOND, qps, latency, send_lag, ..SegmentResult::default() };
        self.segments.insert(index, segment);
    }

    /// From now on operations are told apart.
    pub fn separate_operations(&mut self) {
        if self.operations.is_some() {
            return;
        }
        let mut operations: Box<[OperationTally; Operation::COUNT]> = Box::default();
        let counters = &self.counters;
        let grabs = &mut operations[Operation::Grab as usize];
        (grabs.planned, grabs.sent, grabs.answered) =
            (counters.totals.planned, counters.totals.sent, counters.totals.answered);
        grabs.outcomes = counters.outcomes;
        self.operations = Some(operations);
    }

    fn operation(&mut self, operation: Operation) -> Option<&mut OperationTally> {
        self.operations.as_mut().map(|operations| &mut operations[operation as usize])
    }

    /// A request of segment `segment` was due at `due`.
    pub fn planned(&mut self, segment: usize, due: u64, operation: Operation) {
        self.counters.totals.planned += 1;
        self.segments[segment].planned += 1;
        self.second(due).planned += 1;
        if let Some(measured) = self.operation(operation) {
            measured.planned += 1;
        }
    }

    /// A request planned for `due` was written at `now`. When a storm held it back until then, its
    /// time counts in the second but not in the segment.
    pub fn sent(&mut self, segment: usize, due: u64, now: u64, operation: Operation, held_by_storm: bool) {
        let lag = now.saturating_sub(due) / 1_000;
        self.roll(now);
        self.counters.totals.sent += 1;
        self.send_lag.saturating_record(lag);
        self.second(now).sent += 1;
        let segment = &mut self.segments[segment];
        segment.sent += 1;
        if !held_by_storm {
            segment.send_lag.record(lag);
        }
        if let Some(measured) = self.operation(operation) {
            measured.sent += 1;
        }
    }

    /// The answer to a request planned for `due` came at `now`; `held_by_storm` as with its
    /// sending.
    pub fn answered(
        &mut self,
        segment: usize,
        (due, now): (u64, u64),
        operation: Operation,
        outcome: Outcome,
        held_by_storm: bool,
    ) {
        let latency = now.saturating_sub(due) / 1_000;
        self.roll(now);
        self.counters.totals.answered += 1;
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
            segment.latency.record(latency);
        }
        if let Some(measured) = self.operation(operation) {
            measured.answered(outcome, (!held_by_storm).then_some(latency));
        }
    }

    /// Something that a user does of its own accord was written, not only because its first writing
    /// may be lost.
    pub fn reacted(&mut self, act: Act) {
        let measured = &mut self.reactions[act.kind()];
        measured.planned += 1;
        measured.sent += 1;
    }

    /// It was written at `sent`, and its answer came at `now`.
    pub fn reaction_answered(&mut self, act: Act, (sent, now): (u64, u64), outcome: Outcome) {
        let latency = now.saturating_sub(sent) / 1_000;
        self.reactions[act.kind()].answered(outcome, Some(latency));
    }

    /// Operations of the schedule that came up, where they are told apart.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, OperationResult)> {
        let measured = Operation::labelled(self.operations.iter().flat_map(|operations| operations.iter()));
        measured.filter(|(_, one)| one.planned > 0).map(|(label, one)| (label, one.result()))
    }

    /// Of the Grabs of rain and sale alike: due, written, answered.
    pub fn grabs(&self) -> (u64, u64, u64) {
        let counters = &self.counters;
        let all = (counters.totals.planned, counters.totals.sent, counters.totals.answered);
        self.operations.as_ref().map_or(all, |operations| {
            let grabs = [Operation::Grab, Operation::Ticket].map(|operation| &operations[operation as usize]);
            let sum = |of: fn(&OperationTally) -> u64| grabs.iter().map(|one| of(one)).sum();
            (sum(|one| one.planned), sum(|one| one.sent), sum(|one| one.answered))
        })
    }

    /// Of all requests of the schedule, up to and with second `last`: planned as they came up, sent,
    /// answered.
    pub fn scheduled(&self, last: u64) -> (u64, u64, u64) {
        let later = usize::try_from(last.saturating_add(1).saturating_sub(self.base)).unwrap_or(usize::MAX);
        let later = self.seconds.get(later..).unwrap_or_default();
        let less =
            |total: u64, of: fn(&SecondTally) -> u32| later.iter().fold(total, |sum, one| sum - u64::from(of(one)));
        let totals = &self.counters.totals;
        (
            less(totals.planned, |one| one.planned),
            less(totals.sent, |one| one.sent),
            less(totals.answered, |one| one.answered),
        )
    }

    /// What users did of their own accord, by kind.
    pub fn reactions(&self) -> impl Iterator<Item = (&'static str, OperationResult)> {
        let measured = Act::LABELS.iter().copied().zip(&self.reactions);
        measured.filter(|(_, one)| one.sent > 0).map(|(label, one)| (label, one.result()))
    }

    /// How often users did something of their own accord, by kind.
    pub fn reactions_sent(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Act::LABELS.iter().copied().zip(self.reactions.iter().map(|one| one.sent))
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
    pub fn take_unreported(&mut self) -> (Histogram<u64>, Histogram<u64>) {
        mem::replace(&mut self.unreported, (histogram::of_a_second(), histogram::of_a_second()))
    }

    /// The last second that is over, and its latencies.
    pub fn last_second(&self) -> Option<(SecondRow, &Histogram<u64>)> {
        let index = self.current.checked_sub(self.base + 1)?;
        let second = usize::try_from(index).ok().and_then(|index| self.seconds.get(index)).copied().unwrap_or_default();
        Some((row(self.base + index, &second), &self.last_latency))
    }

    pub fn seconds(&self) -> Vec<SecondRow> {
        self.seconds.iter().zip(self.base..).map(|(second, unix)| row(unix, second)).collect()
    }

    fn second(&mut self, at: u64) -> &mut SecondTally {
        let index = usize::try_from((at / SECOND).saturating_sub(self.base)).unwrap_or(usize::MAX);
        if index >= self.seconds.len() {
            self.seconds.resize(index + 1, SecondTally::default());
        }
        &mut self.seconds[index]
    }
}

/// Counts with their labels, without zeros.
pub fn counts<'a>(pairs: impl Iterator<Item = (&'a str, u64)>) -> Counts {
    pairs.filter(|(_, count)| *count > 0).map(|(label, count)| (label.to_owned(), count)).collect()
}

fn row(unix: u64, second: &SecondTally) -> SecondRow {
    SecondRow {
        second: unix,
        planned: second.planned.into(),
        sent: second.sent.into(),
        answered: second.answered.into(),
        outcomes: counts(Outcome::labelled(second.outcomes.map(u64::from))),
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
    fn an_answer_counts_in_its_second_and_its_plans_segment() {
        let mut tally = Tally::default();
        tally.add_segment(0, EPOCH, 1);
        tally.add_segment(1, EPOCH + SECOND, 1);
        let due = EPOCH + SECOND - 1_000_000;
        tally.planned(0, due, Operation::Grab);
        tally.sent(0, due, due + 250_000, Operation::Grab, false);
        tally.answered(0, (due, due + 2_000_000), Operation::Grab, Outcome::NoneNow, false);
        tally.roll(EPOCH + 2 * SECOND);

        let seconds = tally.seconds();
        assert_eq!((seconds[0].planned, seconds[0].sent, seconds[0].answered), (1, 1, 0));
        assert_eq!((seconds[1].answered, seconds[1].outcomes["none_now"]), (1, 1));
        let first = EPOCH / SECOND;
        assert_eq!([first - 1, first, first + 1].map(|last| tally.scheduled(last)), [(0, 0, 0), (1, 1, 0), (1, 1, 1)]);
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
        assert_eq!(counters.errors(), Counts::from([("no_such_campaign".into(), 1), ("unspecified".into(), 1)]));
    }

    #[test]
    fn operations_are_kept_apart_once_there_are_several() {
        let mut tally = Tally::default();
        tally.add_segment(0, EPOCH, 1);
        let pass = |tally: &mut Tally, operation, outcome, micros: u64| {
            tally.planned(0, EPOCH, operation);
            tally.sent(0, EPOCH, EPOCH, operation, false);
            tally.answered(0, (EPOCH, EPOCH + micros * 1_000), operation, outcome, false);
        };
        pass(&mut tally, Operation::Grab, Outcome::Won, 10);
        assert_eq!((tally.operations().count(), tally.grabs()), (0, (1, 1, 1)));
        tally.separate_operations();
        tally.separate_operations();
        pass(&mut tally, Operation::Grab, Outcome::NoneNow, 20);
        pass(&mut tally, Operation::Open, Outcome::Opened, 30);
        pass(&mut tally, Operation::Ticket, Outcome::Order, 40);
        assert_eq!((tally.grabs(), tally.counters.totals.answered), ((3, 3, 3), 4));
        let operations: Vec<_> = tally.operations().collect();
        let seen: Vec<_> = operations.iter().map(|(label, one)| (*label, one.answered, one.outcomes.len())).collect();
        assert_eq!(seen, [("grab", 2, 2), ("open", 1, 1), ("ticket", 1, 1)]);
        tally.reacted(Act::Pay(7));
        tally.reaction_answered(Act::Pay(7), (EPOCH, EPOCH + 5_000), Outcome::Order);
        let latency = tally.reactions().next().unwrap().1.latency;
        assert_eq!((latency.quantile(1.0), counts(tally.reactions_sent())), (5, Counts::from([("pay".into(), 1)])));
    }
}
