//! What others see of a machine: status and results in JSON, the sample for the monitor and for `/metrics`.

use hongbao_monitor::process;
use hongbao_monitor::report::{Key, Sample, names};

use crate::histogram;
use crate::machine::shared::Shared;
use crate::machine::tally::counts;
use crate::results::{ClockView, ProcessView, QpsChange, Results, Status, Totals};
use crate::schedule::SECOND;

/// Everything counted so far.
fn totals(shared: &Shared) -> Totals {
    let crowd = shared.crowd.borrow();
    let counters = &crowd.tally.counters;
    let (prizes, fen) = crowd.prizes.totals();
    Totals {
        planned: counters.planned,
        sent: counters.sent,
        answered: counters.answered,
        answered_late: counters.answered_late,
        unanswered: crowd.owed.expired_count(),
        resent: counters.resent,
        held_back: counters.held_back,
        outcomes: counts(counters.outcomes()),
        errors: counters.errors(),
        violations: counts(counters.violations()),
        prizes,
        fen,
        reconnects: counters.reconnects,
        connect_failures: counters.connect_failures,
        ends: counts(counters.ends()),
        acknowledges: counters.acknowledges,
        announcements: crowd.heard.total(),
    }
}

fn clock(shared: &Shared) -> ClockView {
    let offset = shared.clock.offset();
    ClockView { offset_us: offset.nanos / 1_000, error_us: offset.error.div_ceil(1_000) }
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
    let begun = crowd.schedule.segments().iter().rfind(|segment| segment.from <= now);
    Status {
        name: shared.config.name.clone(),
        state: shared.stage.get().label().to_owned(),
        users: crowd.len().into(),
        connected: crowd.census.connected.into(),
        online: crowd.census.online.into(),
        retired: crowd.census.retired.into(),
        outstanding: crowd.owed.count(),
        acknowledges_outstanding: crowd.acknowledges_under_way,
        phase: begun.map(|segment| QpsChange { qps: segment.qps, at: segment.from / SECOND }),
        last_second_latency: last.as_ref().map_or_else(String::new, |(_, latency)| histogram::to_base64(latency)),
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
        outstanding: crowd.owed.count(),
        segments: crowd.tally.segments(&crowd.schedule),
        seconds: crowd.tally.seconds(),
        storms: crowd.storms.results(),
        announced: crowd.heard.texts(),
        campaigns: crowd.prizes.campaigns(),
        clock: clock(shared),
        process: process(shared),
    }
}

const ANSWERS_HELP: &str = "Answers to Grabs, by kind";
const ENDED_HELP: &str = "Connections that ended, by reason";
const VIOLATIONS_HELP: &str = "What no server may do, by kind";

const RECONNECTS: Key = Key::new("reconnects", "Logins of users who had been logged in before");
const CONNECT_FAILURES: Key = Key::new("connect_failures", "Connections that could not be opened");
const ANNOUNCEMENTS: Key = Key::new("announcements", "Announcements that users were told");
const UNANSWERED: Key = Key::new("grabs_unanswered", "Grabs given up at the answer timeout and not answered since");
const OUTSTANDING: Key = Key::new("grabs_outstanding", "Grabs whose answer is awaited");
const RESIDENT_BYTES: Key = Key::new("resident_bytes", "Resident memory of the process");
const CPU_MICROS: Key = Key::new("cpu_us", "Processor time of the process, in microseconds");

/// Counters and gauges as they are now.
pub fn sample(shared: &Shared) -> Sample {
    let crowd = shared.crowd.borrow();
    let counters = &crowd.tally.counters;
    let (prizes, fen) = crowd.prizes.totals();
    let mut totals = vec![
        (names::GRABS_PLANNED, counters.planned),
        (names::GRABS_SENT, counters.sent),
        (names::GRABS_ANSWERED, counters.answered),
        (names::PRIZES_RECEIVED, prizes),
        (names::RECEIVED_FEN, fen),
        (RECONNECTS, counters.reconnects),
        (CONNECT_FAILURES, counters.connect_failures),
        (ANNOUNCEMENTS, crowd.heard.total()),
        (CPU_MICROS, process::cpu_micros()),
    ];
    let labelled = |name, label, value, help| Key::labelled(name, label, value, help);
    totals.extend(counters.outcomes().map(|(kind, count)| (labelled("answers", "kind", kind, ANSWERS_HELP), count)));
    totals.extend(counters.ends().map(|(reason, count)| (labelled("ended", "reason", reason, ENDED_HELP), count)));
    totals.extend(
        counters.violations().map(|(kind, count)| (labelled("violations", "kind", kind, VIOLATIONS_HELP), count)),
    );
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let clock = clock(shared);
    let gauges = vec![
        (names::USERS_ONLINE, i64::from(crowd.census.online)),
        (names::CLOCK_OFFSET, clock.offset_us),
        (names::CLOCK_ERROR, signed(clock.error_us)),
        // It falls again when an answer comes after all.
        (UNANSWERED, signed(crowd.owed.expired_count())),
        (OUTSTANDING, signed(crowd.owed.count())),
        (RESIDENT_BYTES, signed(process::resident_bytes())),
    ];
    Sample { counters: totals, gauges, histograms: Vec::new() }
}

/// The same with the latencies of the seconds since the last call, which then count at `/metrics` too.
pub fn sample_of_seconds(shared: &Shared) -> Sample {
    let mut sample = sample(shared);
    let now = shared.clock.now();
    let mut crowd = shared.crowd.borrow_mut();
    crowd.tally.roll(now);
    let (latency, send_lag) = crowd.tally.take_unreported();
    sample.histograms = vec![(names::LATENCY, latency), (names::SEND_LAG, send_lag)];
    shared.cumulative.borrow_mut().add(&sample);
    sample
}
