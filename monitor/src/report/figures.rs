//! Every figure that the report tells, computed once from the recording: tables show these,
//! `report.json` holds these.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::report::load::Recording;
use crate::run::books::{Balance, Book, Sides, Trade};
use crate::run::histogram::Quantiles;
use crate::run::host::{HostFacts, HostSecond};
use crate::run::mark::Mark;
use crate::run::second::Headline;
use crate::words;
use hongbao_telemetry::summary::{Books, Change, Phase, Summary, Tolerance};

/// Deviations from the plan that a second is held against, percent.
const DEVIATIONS: [u64; 3] = [1, 2, 3];

/// What `report.json` holds.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// The recording's directory, as given.
    pub recording: String,
    pub verdict: Verdict,
    pub run: RunFigures,
    pub host: HostFacts,
    /// How users connected; absent without the fleet's summary.
    pub connect: Option<Connect>,
    /// By phase; empty without the fleet's summary.
    pub phases: Vec<PhaseFigures>,
    pub memory: Memory,
    /// By stretch of the run; empty where neither host nor processes told.
    pub processor: Vec<Processor>,
    pub books: BothBooks,
    /// The same by what is traded, as far as it was recorded.
    pub trades: Vec<Trade>,
    /// Milliseconds are since the run's first second.
    pub timeline: Vec<Mark>,
    /// What servers turned away and who left them, by reason.
    pub turned_away: BTreeMap<String, i64>,
    /// Times over the whole run, microseconds.
    pub distributions: BTreeMap<String, Quantiles>,
    /// What TCP lost and refused over the whole run, by the kernel's counts; empty where it was not
    /// recorded.
    pub tcp: BTreeMap<&'static str, u64>,
    pub answers: Answers,
    /// What an operator ordered meanwhile: its seconds are judged nowhere.
    pub changes: Vec<Change>,
    /// Whatever else the fleet's summary says, storms and announcements among it, as it says it.
    pub others: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The fleet's judgement; absent without its summary.
    pub passed: Option<bool>,
    /// Whether the monitor's two books agree.
    pub books_balanced: bool,
    pub failures: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RunFigures {
    pub version: String,
    /// RFC 3339.
    pub started_at: String,
    /// Unix second from which seconds are counted.
    pub start: u64,
    pub seconds: u64,
    pub seconds_complete: u64,
    /// Users, where the fleet's summary tells.
    pub users: Option<u64>,
    pub machines: Option<u64>,
    /// The largest bound of a machine's clock error, likewise; microseconds.
    pub clock_error_us_max: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Connect {
    pub users: u64,
    pub connected: u64,
    pub seconds: f64,
    pub per_second: f64,
    /// Logins in the busiest second that is complete.
    pub per_second_max: Option<i64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct PhaseFigures {
    /// Since the run's start.
    pub from_second: u64,
    pub qps_planned: u64,
    /// Seconds in which both what was sent and what was answered were this near to the plan, by
    /// percent.
    pub seconds_within_percent: BTreeMap<u64, u64>,
    /// As the fleet tells it, without its seconds.
    #[serde(flatten)]
    pub phase: Phase,
}

/// Where the memory of idle users is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Memory {
    /// The second, since the run's start, in which all users were logged in and none had shaken
    /// yet.
    pub idle_second: Option<u64>,
    pub users: Option<u64>,
    pub server_bytes: Option<u64>,
    /// What a user added to it, as the fleet measured.
    pub server_bytes_per_user: Option<u64>,
    /// Resident, of the machines.
    pub fleet_bytes: Option<u64>,
    /// What a user added to it, as the fleet measured.
    pub fleet_bytes_per_user: Option<u64>,
    /// Of the whole host: what was available before the first process of the run, less what was
    /// available then.
    pub host_bytes: Option<u64>,
    pub host_bytes_per_user: Option<u64>,
    /// Of the host's, what is resident in neither.
    pub kernel_bytes: Option<u64>,
    pub kernel_bytes_per_user: Option<u64>,
    /// Of the kernel's, what its slab allocator has added: sockets, descriptors, epoll items.
    pub slab_bytes: Option<u64>,
    pub available_before_bytes: Option<u64>,
    pub available_idle_bytes: Option<u64>,
    pub available_least_bytes: Option<u64>,
}

/// Who used the processors in a stretch of the run. All in processors: 1 is one of them, the whole
/// time.
#[derive(Debug, Clone, Serialize)]
pub struct Processor {
    pub stretch: String,
    /// Seconds that could be measured.
    pub seconds: u64,
    pub cpus: Option<u64>,
    /// Of the server's process, in its own code and in the kernel for it.
    pub server: Option<f64>,
    pub fleet: Option<f64>,
    /// Of the whole host, in programs.
    pub user: Option<f64>,
    /// Of the whole host, in the kernel for programs.
    pub system: Option<f64>,
    /// Of the whole host, in the kernel for devices and the network.
    pub interrupts: Option<f64>,
    pub steal: Option<f64>,
    pub idle: Option<f64>,
    /// Of the time that this host worked, the part in the kernel: system and interrupts.
    pub kernel_share: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct BothBooks {
    /// By the reports of all processes.
    pub monitor: Balance,
    /// By the server's campaign and the machines' journals.
    pub fleet: Option<Books>,
}

/// As the machines counted them, by kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Answers {
    pub outcomes: BTreeMap<String, u64>,
    pub errors: BTreeMap<String, u64>,
    pub violations: BTreeMap<String, u64>,
    pub unanswered: Option<u64>,
    pub reconnects: Option<u64>,
    pub connect_failures: Option<u64>,
}

impl Figures {
    pub fn of(recording: &Recording) -> Self {
        let summary = recording.summary.as_ref();
        let start = recording.start();
        Self {
            recording: recording.directory.display().to_string(),
            verdict: verdict(recording),
            run: run(recording),
            host: recording.run.host.clone(),
            connect: summary.map(|summary| connect(recording, summary)),
            phases: recording.phases().iter().map(|phase| phase_figures(phase, start)).collect(),
            memory: memory(recording),
            processor: processor(recording),
            books: BothBooks { monitor: recording.run.books, fleet: summary.map(|summary| summary.books.clone()) },
            trades: trades(recording),
            timeline: timeline(recording),
            turned_away: turned_away(recording),
            distributions: recording.histograms.iter().map(|(name, sum)| (name.clone(), Quantiles::of(sum))).collect(),
            tcp: tcp(recording),
            answers: summary.map(answers).unwrap_or_default(),
            changes: summary.map(|summary| summary.changes.clone()).unwrap_or_default(),
            others: summary.map(others).unwrap_or_default(),
        }
    }
}

fn verdict(recording: &Recording) -> Verdict {
    let books_balanced = recording.run.books.balanced();
    let summary = recording.summary.as_ref();
    let mut failures = summary.map(|summary| summary.failures.clone()).unwrap_or_default();
    for Trade { book, sides, residual_count, residual_fen } in recording.run.books.claims.trades() {
        if !sides.balanced() {
            failures.push(format!(
                "the two sides of the book of {book} differ by {residual_count} and by {residual_fen} fen"
            ));
        }
    }
    if recording.run.record_failures > 0 {
        failures.push(format!("{} writes to the recording failed", recording.run.record_failures));
    }
    if recording.run.ended_at_ms.is_none() {
        failures.push("the monitor did not end the recording: it was killed, or still runs".into());
    }
    let passed = summary.and_then(|summary| summary.passed).map(|passed| passed && books_balanced);
    Verdict { passed, books_balanced, failures }
}

fn run(recording: &Recording) -> RunFigures {
    let summary = recording.summary.as_ref();
    let started_at = UNIX_EPOCH + Duration::from_secs(recording.start());
    RunFigures {
        version: recording.run.version.clone(),
        started_at: humantime::format_rfc3339_seconds(started_at).to_string(),
        start: recording.start(),
        seconds: recording.headline.len() as u64,
        seconds_complete: recording.headline.values().filter(|second| second.complete).count() as u64,
        users: summary.map(|summary| summary.users),
        machines: summary.map(|summary| summary.machines),
        clock_error_us_max: summary.and_then(|summary| summary.clocks.values().map(|clock| clock.error_us).max()),
    }
}

fn connect(recording: &Recording, summary: &Summary) -> Connect {
    let first_phase = summary.phases.first().map_or(recording.end(), |phase| phase.from);
    let logins = (recording.start()..first_phase).filter_map(|second| recording.logins(second));
    Connect {
        users: summary.users,
        connected: summary.connected,
        seconds: summary.connect_seconds,
        per_second: if summary.connect_seconds > 0.0 {
            summary.connected as f64 / summary.connect_seconds
        } else {
            0.0
        },
        per_second_max: logins.max_by(f64::total_cmp).map(whole),
    }
}

fn phase_figures(phase: &Phase, start: u64) -> PhaseFigures {
    PhaseFigures {
        from_second: phase.from.saturating_sub(start),
        qps_planned: phase.qps_target,
        seconds_within_percent: DEVIATIONS.map(|percent| (percent, phase.within(Tolerance::percent(percent)))).into(),
        phase: Phase { per_second: Vec::new(), ..phase.clone() },
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// The last complete second before the first phase, with everybody online and nothing sent. Without
/// phases: the last with the most users.
fn idle_second(recording: &Recording) -> Option<u64> {
    let first_phase = recording.phases().iter().map(|phase| phase.from).min().unwrap_or_else(|| recording.end());
    let quiet = || {
        recording.headline.range(..first_phase).map(|(_, second)| second).filter(|one| one.complete && one.sent == 0)
    };
    let most = quiet().map(|second| second.users_online).max().filter(|&most| most > 0)?;
    quiet().filter(|second| second.users_online == most).map(|second| second.second).next_back()
}

fn memory(recording: &Recording) -> Memory {
    let Some(second) = idle_second(recording) else { return Memory::default() };
    let headline = recording.complete(second);
    let users = headline.map(|headline| unsigned(headline.users_online));
    let measured = recording.summary.as_ref().map(|summary| summary.memory).unwrap_or_default();
    let [before, idle] = [recording.host.values().next(), recording.host.get(&second)];
    let [available_before_bytes, available_idle_bytes] = [before, idle].map(|row| row?.memory_available_bytes);
    // Other programs that ended meanwhile have given memory back; where that is more than the run
    // took, nothing is known of it.
    let less = |all: Option<u64>, part: Option<u64>| all.zip(part).and_then(|(all, part)| all.checked_sub(part));
    let host_bytes = less(available_before_bytes, available_idle_bytes).filter(|&bytes| bytes > 0);
    let server_bytes = headline.and_then(|headline| headline.server_resident_bytes).map(unsigned);
    let fleet_bytes = headline.and_then(|headline| headline.fleet_resident_bytes).map(unsigned);
    let kernel_bytes = less(less(host_bytes, server_bytes), fleet_bytes);
    let each = |bytes: Option<u64>| bytes.zip(users).and_then(|(bytes, users)| bytes.checked_div(users));
    let [slab_before, slab_idle] = [before, idle].map(|row| row?.slab_bytes);
    Memory {
        idle_second: Some(second - recording.start()),
        users,
        server_bytes,
        server_bytes_per_user: measured.server_rss_bytes_per_connection,
        fleet_bytes,
        fleet_bytes_per_user: measured.fleet_rss_bytes_per_user,
        host_bytes,
        host_bytes_per_user: each(host_bytes),
        kernel_bytes,
        kernel_bytes_per_user: each(kernel_bytes),
        slab_bytes: less(slab_idle, slab_before),
        available_before_bytes,
        available_idle_bytes,
        available_least_bytes: recording.host.values().filter_map(|row| row.memory_available_bytes).min(),
    }
}

/// Connecting, idling, and each phase.
fn stretches(recording: &Recording) -> Vec<(String, Range<u64>)> {
    let mut stretches = Vec::new();
    if let Some(idle) = idle_second(recording) {
        let most = recording.complete(idle).map_or(0, |headline| headline.users_online);
        let mut seconds = recording.headline.values();
        let all_online = seconds.find(|second| second.users_online >= most).map_or(idle, |one| one.second);
        stretches.push(("connecting".to_owned(), recording.start()..all_online));
        stretches.push(("idle".to_owned(), all_online + 1..idle + 1));
    }
    let phases = recording.phases().iter();
    stretches.extend(phases.map(|phase| (phase.name.clone(), phase.from..phase.from + phase.seconds)));
    stretches
}

fn processor(recording: &Recording) -> Vec<Processor> {
    let measured = |(stretch, seconds)| processor_of(recording, stretch, seconds);
    stretches(recording).into_iter().map(measured).filter(|stretch| stretch.seconds > 0).collect()
}

fn processor_of(recording: &Recording, stretch: String, seconds: Range<u64>) -> Processor {
    let mean = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let complete: Vec<&Headline> = seconds.clone().filter_map(|second| recording.complete(second)).collect();
    let rows: Vec<&HostSecond> = seconds.filter_map(|second| recording.host_second(second)).collect();
    let part = |of: fn(&Headline) -> Option<i64>| {
        mean(complete.iter().filter_map(|headline| Some(of(headline)? as f64 / 1e6)).collect())
    };
    let kind = |of: Kind| mean(rows.iter().filter_map(|row| Some(of(row)? / row.span_seconds?)).collect());
    let [user, system, interrupts, steal, idle] = KINDS.map(|(_, of)| kind(of));
    let kernel = system.zip(interrupts).map(|(system, interrupts)| system + interrupts);
    let worked = kernel.zip(user).map(|(kernel, user)| kernel + user).filter(|&worked| worked > 0.0);
    Processor {
        stretch,
        seconds: rows.len().max(complete.len()) as u64,
        cpus: recording.run.host.cpus,
        server: part(|second| second.server_cpu_us),
        fleet: part(|second| second.fleet_cpu_us),
        user,
        system,
        interrupts,
        steal,
        idle,
        kernel_share: kernel.zip(worked).map(|(kernel, worked)| kernel / worked),
    }
}

/// A part of the kernel's count of processor time.
pub type Kind = fn(&HostSecond) -> Option<f64>;

/// The kinds of processor time that are told apart.
pub const KINDS: [(&str, Kind); 5] = [
    ("programs", |row| Some(row.cpu_user_seconds? + row.cpu_nice_seconds?)),
    ("kernel, for programs", |row| row.cpu_system_seconds),
    ("kernel, interrupts", |row| Some(row.cpu_irq_seconds? + row.cpu_softirq_seconds?)),
    ("steal", |row| row.cpu_steal_seconds),
    ("idle", |row| Some(row.cpu_idle_seconds? + row.cpu_iowait_seconds?)),
];

fn tcp(recording: &Recording) -> BTreeMap<&'static str, u64> {
    type Count = fn(&HostSecond) -> Option<u64>;
    let counts: [(&'static str, Count); 10] = [
        ("listen_overflows", |row| row.listen_overflows),
        ("listen_drops", |row| row.listen_drops),
        ("retransmits", |row| row.tcp_retransmits),
        ("syn_retransmits", |row| row.tcp_syn_retransmits),
        ("memory_pressures", |row| row.tcp_memory_pressures),
        ("aborts_on_memory", |row| row.tcp_aborts_on_memory),
        ("backlog_drops", |row| row.tcp_backlog_drops),
        ("queue_full_drops", |row| row.tcp_queue_full_drops),
        ("attempt_fails", |row| row.tcp_attempt_fails),
        ("resets_received", |row| row.tcp_resets_received),
    ];
    let sum = |of: Count| recording.host.values().filter_map(of).reduce(|sum, one| sum + one);
    counts.into_iter().filter_map(|(name, of)| Some((name, sum(of)?))).collect()
}

fn trades(recording: &Recording) -> Vec<Trade> {
    let moved = |trade: &Trade| trade.book == Book::Rain.name() || trade.sides != Sides::default();
    recording.run.books.claims.trades().into_iter().filter(moved).collect()
}

/// What happened when: the recorded marks, or where there are none, what the fleet's summary lets
/// know.
pub fn timeline(recording: &Recording) -> Vec<Mark> {
    let (start, end) = (recording.start() * 1_000, recording.end() * 1_000);
    let mut timeline = recording.marks.clone();
    if let Some(summary) = recording.summary.as_ref().filter(|_| timeline.is_empty()) {
        let mark = |at_ms: u64, kind: &str, text: &str| Mark {
            at_ms,
            kind: kind.into(),
            source: "fleet".into(),
            text: text.into(),
        };
        let phases = summary.phases.iter();
        timeline.extend(phases.map(|phase| mark(phase.from * 1_000, "phase", &words::phase(&phase.name))));
        for (name, events) in &summary.parts {
            for event in events.as_array().into_iter().flatten() {
                // A storm says when it began, an announcement when it was posted.
                let began = event.get("at").and_then(Value::as_u64).map(|second| second * 1_000);
                let Some(at_ms) = event.get("posted_at_ms").and_then(Value::as_u64).or(began) else { continue };
                let text = ["text", "share"].into_iter().find_map(|name| event.get(name)?.as_str());
                timeline.push(mark(at_ms, name.strip_suffix('s').unwrap_or(name), text.unwrap_or_default()));
            }
        }
        timeline.sort_by_key(|mark| mark.at_ms);
    }
    timeline.retain(|mark| (start..=end).contains(&mark.at_ms));
    timeline.iter_mut().for_each(|mark| mark.at_ms -= start);
    timeline
}

#[allow(clippy::cast_possible_truncation, reason = "a sum of counts, far from 2^53")]
fn whole(count: f64) -> i64 {
    count as i64
}

fn turned_away(recording: &Recording) -> BTreeMap<String, i64> {
    let ended = ("connection ended", recording.sums(|reasons| &reasons.ended));
    let errors = ("error", recording.sums(|reasons| &reasons.errors));
    let kinds = [ended, errors].into_iter().flat_map(|(what, kinds)| {
        kinds.into_iter().map(move |(kind, count)| (format!("{what}: {kind}"), whole(count)))
    });
    let mut counts: BTreeMap<String, i64> = kinds.collect();
    let sum = |of: fn(&Headline) -> Option<i64>| recording.headline.values().filter_map(of).sum();
    counts.insert("answered Overloaded".into(), sum(|second| second.overloaded));
    counts.insert("turned away".into(), sum(|second| second.refused));
    counts.retain(|_, count| *count != 0);
    counts
}

fn answers(summary: &Summary) -> Answers {
    Answers {
        outcomes: summary.outcomes.clone(),
        errors: summary.errors.clone(),
        violations: summary.violations.clone(),
        unanswered: Some(summary.unanswered),
        reconnects: Some(summary.reconnects),
        connect_failures: summary.parts.get("totals").and_then(|totals| totals.get("connect_failures")?.as_u64()),
    }
}

fn others(summary: &Summary) -> BTreeMap<String, Value> {
    let mut parts = summary.parts.clone();
    // What is worth telling of the totals is among the answers.
    parts.remove("totals");
    parts
}
