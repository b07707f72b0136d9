//! What others see of a machine: status and results in JSON, the sample for the monitor and for
//! `/metrics`.

use hongbao_telemetry::process;
use hongbao_telemetry::report::{Key, Sample, names};
use hongbao_telemetry::summary::Clock;

use crate::clock::SECOND;
use crate::histogram::Micros;
use crate::machine::labels::{EndReason, Outcome, Violation};
use crate::machine::shared::Shared;
use crate::machine::tally::counts;
use crate::results::{ProcessView, QpsChange, Results, Status, Totals};

/// Everything counted so far.
fn totals(shared: &Shared) -> Totals {
    let crowd = shared.crowd.borrow();
    let counters = &crowd.tally.counters;
    let (prizes, fen) = crowd.prizes.totals();
    Totals {
        unanswered: crowd.outstanding.expired_count,
        outcomes: counts(Outcome::labelled(counters.outcomes)),
        errors: counters.errors(),
        violations: counts(Violation::labelled(counters.violations)),
        prizes,
        fen,
        ends: counts(EndReason::labelled(counters.ends)),
        announcements: crowd.announcements.total,
        reactions: counts(crowd.tally.reactions_sent()),
        reactions_unanswered: crowd.reactions.given_up_count,
        envelopes: crowd.envelopes.counts,
        orders: crowd.orders.counts,
        chat: crowd.chats.counts,
        statements: crowd.statements.right,
        ..counters.totals.clone()
    }
}

fn clock(shared: &Shared) -> Clock {
    let offset = shared.clock.offset;
    Clock { offset_us: offset.nanos / 1_000, error_us: offset.error.div_ceil(1_000) }
}

fn process(shared: &Shared) -> ProcessView {
    ProcessView {
        rss_bytes: process::resident_bytes(),
        rss_bytes_before_users: shared.rss_bytes_before_users,
        cpu_micros: process::cpu_micros(),
    }
}

/// `GET /v1/status`.
pub fn status(shared: &Shared) -> Status {
    let now = shared.clock.now();
    shared.crowd.borrow_mut().tally.roll(now);
    let crowd = shared.crowd.borrow();
    let last = crowd.tally.last_second();
    let begun = crowd.schedule.segments.iter().rfind(|segment| segment.from <= now);
    Status {
        name: shared.config.name.clone(),
        state: shared.stage.get().label().to_owned(),
        users: crowd.user_count().into(),
        connected: crowd.census.connected.into(),
        online: crowd.census.online.into(),
        retired: crowd.census.retired.into(),
        outstanding: crowd.outstanding.count,
        acknowledges_outstanding: crowd.acknowledges_under_way,
        reactions_outstanding: crowd.reactions.count,
        phase: begun.map(|segment| QpsChange {
            qps: segment.qps,
            at: segment.from / SECOND,
            mix: None,
            planned: false,
        }),
        last_second_latency: last.as_ref().map_or_else(Micros::default, |&(_, latency)| latency.clone().into()),
        last_second: last.map(|(row, _)| row),
        storms: crowd.storms.views(),
        totals: totals(shared),
        clock: clock(shared),
        process: process(shared),
    }
}

/// `GET /v1/results`.
pub fn results(shared: &Shared) -> Results {
    let now = shared.clock.now();
    shared.crowd.borrow_mut().tally.roll(now);
    let crowd = shared.crowd.borrow();
    Results {
        name: shared.config.name.clone(),
        totals: totals(shared),
        outstanding: crowd.outstanding.count,
        reactions_outstanding: crowd.reactions.count,
        segments: crowd.tally.segments.clone(),
        operations: crowd.tally.operations().map(|(label, one)| (label.to_owned(), one)).collect(),
        reactions: crowd.tally.reactions().map(|(label, one)| (label.to_owned(), one)).collect(),
        seconds: crowd.tally.seconds(),
        storms: crowd.storms.results(),
        announced: crowd.announcements.texts(),
        campaigns: crowd.prizes.campaigns(),
        sales: crowd.orders.sales(),
        clock: clock(shared),
        process: process(shared),
    }
}

const ANSWERS_HELP: &str = "Answers to requests of the schedule, by kind";
const ENDED_HELP: &str = "Connections that ended, by reason";
const VIOLATIONS_HELP: &str = "What no server may do, by kind";

const RECONNECTS: Key = Key::new("reconnects", "Logins of users who had been logged in before");
const CONNECT_FAILURES: Key = Key::new("connect_failures", "Connections that could not be opened");
const ANNOUNCEMENTS: Key = Key::new("announcements", "Announcements that users were told");
const UNANSWERED: Key = Key::new("grabs_unanswered", "Requests given up at the answer timeout and not answered since");
const OUTSTANDING: Key = Key::new("grabs_outstanding", "Requests whose answer is awaited");
const REACTIONS_HELP: &str = "What users did outside of the schedule, by kind";
const MESSAGES_HEARD: Key = Key::new("messages_heard", "Chat messages that users heard");
const CLOCK_BUDGET: Key =
    Key::new("clock_budget_us", "Largest error of the clock offset that this machine bears, in microseconds");

/// Descriptors of this machine. A list of all of them would take the kernel longer than the
/// second's requests.
fn open_descriptors(shared: &Shared, connected: u64) -> u64 {
    shared.descriptors_before_users + connected + shared.sockets.opening() as u64
}

/// Counters and gauges as they are now; what the schedule asked for and what came of it, up to and
/// with second `last`.
pub fn sample(shared: &Shared, last: u64) -> Sample {
    let crowd = shared.crowd.borrow();
    let counters = &crowd.tally.counters;
    let (prizes, fen) = crowd.prizes.totals();
    let (sent_by_plan, sent, answered) = crowd.tally.grabs();
    // A machine that falls behind does not plan less for it.
    let planned = sent_by_plan + crowd.overdue_grabs(shared.clock.now());
    let (due, due_sent, due_answered) = crowd.scheduled(last, shared.clock.now());
    let (envelopes, orders) = (crowd.envelopes.counts, crowd.orders.counts);
    let mut totals = vec![
        (names::GRABS_PLANNED, planned),
        (names::GRABS_SENT, sent),
        (names::GRABS_ANSWERED, answered),
        (names::SCHEDULED_DUE, due),
        (names::SCHEDULED_SENT, due_sent),
        (names::SCHEDULED_ANSWERED, due_answered),
        (names::PRIZES_RECEIVED, prizes),
        (names::RECEIVED_FEN, fen),
        (RECONNECTS, counters.totals.reconnects),
        (CONNECT_FAILURES, counters.totals.connect_failures),
        (ANNOUNCEMENTS, crowd.announcements.total),
        (names::SHARES_TOLD, envelopes.opened),
        (names::SHARES_TOLD_FEN, envelopes.opened_fen),
        (names::ORDERS_PAID, orders.paid),
        (names::SPENT_FEN, orders.paid_fen),
        (MESSAGES_HEARD, crowd.chats.counts.received),
        (names::EVENTS_FORGOTTEN, shared.events.forgotten()),
        (names::CPU, process::cpu_micros()),
    ];
    let answers = Outcome::labelled(counters.outcomes).map(|one| ("answers", "kind", ANSWERS_HELP, one));
    let reactions = crowd.tally.reactions_sent().map(|one| ("reactions", "kind", REACTIONS_HELP, one));
    let ends = EndReason::labelled(counters.ends).map(|one| ("ended", "reason", ENDED_HELP, one));
    let violations = Violation::labelled(counters.violations).map(|one| ("violations", "kind", VIOLATIONS_HELP, one));
    let labelled = answers.chain(reactions).chain(ends).chain(violations);
    totals.extend(labelled.map(|(name, label, help, (value, count))| (Key::labelled(name, label, value, help), count)));
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let clock = clock(shared);
    let gauges = vec![
        (names::USERS_ONLINE, i64::from(crowd.census.online)),
        (names::USERS, i64::from(crowd.user_count())),
        (names::OPEN_DESCRIPTORS, signed(open_descriptors(shared, crowd.census.connected.into()))),
        (names::DESCRIPTORS_LIMIT, signed(shared.descriptors_limit)),
        (names::CLOCK_OFFSET, clock.offset_us),
        (names::CLOCK_ERROR, signed(clock.error_us)),
        (CLOCK_BUDGET, signed(u64::try_from(shared.config.common.clock_budget.as_micros()).unwrap_or(u64::MAX))),
        // It falls again when an answer comes after all.
        (UNANSWERED, signed(crowd.outstanding.expired_count)),
        (OUTSTANDING, signed(crowd.outstanding.count)),
        (names::RESIDENT_BYTES, signed(process::resident_bytes())),
    ];
    Sample { counters: totals, gauges, ..Sample::default() }
}

/// The same with the latencies of the seconds since the last call, which then count at `/metrics`
/// too.
pub fn sample_of_seconds(shared: &Shared, last: u64) -> Sample {
    let mut sample = sample(shared, last);
    let now = shared.clock.now();
    let mut crowd = shared.crowd.borrow_mut();
    crowd.tally.roll(now);
    let (latency, send_lag) = crowd.tally.take_unreported();
    sample.histograms = vec![(names::LATENCY, latency), (names::SEND_LAG, send_lag)];
    shared.cumulative.borrow_mut().add(&sample);
    sample
}
