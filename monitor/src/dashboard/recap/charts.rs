//! Which charts there are and what is in them. Plain data: how they are drawn is decided in `draw`.
//!
//! A second that was not recorded, or not whole, is a gap. Nothing is interpolated.

use std::ops::Range;

use serde_json::Value;

use super::figures::KINDS;
use super::load::{CPU, LOGINS, RESIDENT, Recording};
use super::words;
use crate::dashboard::host::HostSecond;
use crate::dashboard::second::{Headline, Role};

/// Colours by what they stand for, the same in every chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// What was planned.
    Plan,
    /// The server.
    Server,
    /// The fleet.
    Fleet,
    /// The kernel.
    Kernel,
    /// Envelopes, and whatever is worst.
    Red,
    /// Envelopes on their way.
    Gold,
    /// A second part of the kernel.
    Violet,
    /// What is left over.
    Idle,
}

/// One line, or one layer of a stack.
#[derive(Debug, Clone)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// Its colour.
    pub tone: Tone,
    /// One for each second from the run's start; `None` is a gap.
    pub values: Vec<Option<f64>>,
}

/// How a panel's series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A line each.
    Lines,
    /// A line each, on a logarithmic axis.
    Logarithmic,
    /// One upon the other.
    Stacked,
}

/// One field with its own vertical axis.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What the vertical axis counts, with its unit.
    pub axis: String,
    /// How it is drawn.
    pub style: Style,
    /// From the lowest layer up.
    pub series: Vec<Series>,
    /// The axis reaches so far at least.
    pub at_least: f64,
    /// Its part of the chart's height.
    pub weight: u32,
}

/// Something at a second of the run.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Since the run's start.
    pub second: u64,
    /// What it is.
    pub kind: MarkKind,
}

/// What a mark stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkKind {
    /// A phase begins, or the last one ends: a line with this beside it.
    Phase(String),
    /// A phase ends and nothing follows at once: a line.
    End,
    /// A storm or an announcement: a small arrow. The phase says which, and a table says more.
    Event,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Its file's name, without an ending.
    pub file: &'static str,
    /// Above it.
    pub title: &'static str,
    /// From the top down; at least one.
    pub panels: Vec<Panel>,
    /// Phases and what else happened.
    pub marks: Vec<Mark>,
    /// Seconds of the run.
    pub seconds: u64,
}

/// All charts that there is something to draw for.
pub fn all(recording: &Recording) -> Vec<Chart> {
    let mut charts = vec![
        requests(recording, "1-sent", "Requests sent by the clients", vec![sent(recording)]),
        requests(recording, "2-handled", "Requests handled by the server", vec![handled(recording)]),
        requests(
            recording,
            "3-plan-sent-handled",
            "Requests planned, sent and handled",
            vec![planned(recording), sent(recording), handled(recording)],
        ),
        envelopes(recording, "4-issued", "Envelopes issued by the server", Tone::Gold, |second| second.issued),
        envelopes(recording, "5-won", "Envelopes won by users", Tone::Red, |second| second.won),
        latency(recording),
        users(recording),
        memory(recording),
        processor_by_part(recording),
        processor_by_kind(recording),
    ];
    for chart in &mut charts {
        chart.panels.retain(|panel| panel.series.iter().any(|series| series.values.iter().any(Option::is_some)));
    }
    charts.retain(|chart| !chart.panels.is_empty());
    charts
}

fn seconds(recording: &Recording) -> Range<u64> {
    recording.start()..recording.end()
}

fn chart(recording: &Recording, file: &'static str, title: &'static str, panels: Vec<Panel>) -> Chart {
    let seconds = recording.end() - recording.start();
    Chart { file, title, panels, marks: marks(recording), seconds }
}

fn lines(axis: &str, series: Vec<Series>) -> Panel {
    Panel { axis: axis.into(), style: Style::Lines, series, at_least: 1.0, weight: 1 }
}

fn marks(recording: &Recording) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut end = None;
    for phase in recording.phases() {
        // A pause between two phases is seen, too.
        if let Some(end) = end.filter(|&end| end != phase.from) {
            marks.push(Mark { second: end, kind: MarkKind::End });
        }
        marks.push(Mark { second: phase.from, kind: MarkKind::Phase(words::phase(&phase.name)) });
        end = Some(phase.from + phase.seconds);
    }
    marks.extend(end.map(|second| Mark { second, kind: MarkKind::Phase("end".into()) }));
    let others = recording.summary.iter().flat_map(|summary| summary.others.values());
    for event in others.filter_map(Value::as_array).flatten() {
        // A storm says when it began, an announcement when it was posted.
        let posted = event.get("posted_at_ms").and_then(Value::as_u64).map(|ms| ms / 1_000);
        let second = event.get("at").and_then(Value::as_u64).or(posted);
        marks.extend(second.map(|second| Mark { second, kind: MarkKind::Event }));
    }
    marks.sort_by_key(|mark| mark.second);
    let range = seconds(recording);
    marks.retain(|mark| range.contains(&mark.second));
    for mark in &mut marks {
        mark.second -= range.start;
    }
    marks
}

#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn of_headline(recording: &Recording, name: &str, tone: Tone, of: fn(&Headline) -> i64) -> Series {
    let values =
        seconds(recording).map(|second| recording.complete(second).map(|headline| of(headline) as f64)).collect();
    Series { name: name.into(), tone, values }
}

fn sent(recording: &Recording) -> Series {
    of_headline(recording, "sent by the clients", Tone::Fleet, |second| second.sent)
}

fn handled(recording: &Recording) -> Series {
    of_headline(recording, "handled by the server", Tone::Server, |second| second.received)
}

/// By the phases where they are known; else by what the machines had due.
#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn planned(recording: &Recording) -> Series {
    let phases = recording.phases();
    if phases.is_empty() {
        return of_headline(recording, "planned", Tone::Plan, |second| second.planned);
    }
    let at = |second| {
        let phase = phases.iter().find(|phase| (phase.from..phase.from + phase.seconds).contains(&second));
        phase.map(|phase| phase.qps_target as f64)
    };
    Series { name: "planned".into(), tone: Tone::Plan, values: seconds(recording).map(at).collect() }
}

fn requests(recording: &Recording, file: &'static str, title: &'static str, series: Vec<Series>) -> Chart {
    chart(recording, file, title, vec![lines("requests a second", series)])
}

fn envelopes(
    recording: &Recording,
    file: &'static str,
    title: &'static str,
    tone: Tone,
    of: fn(&Headline) -> i64,
) -> Chart {
    let name = if tone == Tone::Red { "won" } else { "issued" };
    chart(recording, file, title, vec![lines("envelopes a second", vec![of_headline(recording, name, tone, of)])])
}

fn latency(recording: &Recording) -> Chart {
    let quantile = |name: &str, tone, of: fn(&Headline) -> u64| {
        #[allow(clippy::cast_precision_loss, reason = "for a chart")]
        let at = |second| recording.complete(second).map(of).filter(|&us| us > 0).map(|us| us as f64 / 1_000.0);
        Series { name: name.into(), tone, values: seconds(recording).map(at).collect() }
    };
    let series = vec![
        quantile("p99.9", Tone::Red, |second| second.latency_p999_us),
        quantile("p99", Tone::Fleet, |second| second.latency_p99_us),
        quantile("p50", Tone::Server, |second| second.latency_p50_us),
    ];
    let panel = Panel { axis: "milliseconds".into(), style: Style::Logarithmic, series, at_least: 0.0, weight: 1 };
    chart(recording, "6-latency", "Latency from the planned send time to the answer", vec![panel])
}

fn users(recording: &Recording) -> Chart {
    let online = of_headline(recording, "users online", Tone::Server, |second| second.users_online);
    #[allow(clippy::cast_precision_loss, reason = "for a chart")]
    let logins = |second| recording.value(Role::Server, LOGINS, second).map(|logins| logins as f64);
    let logins = Series { name: "logins".into(), tone: Tone::Fleet, values: seconds(recording).map(logins).collect() };
    let panels = vec![
        Panel { weight: 3, ..lines("users online", vec![online]) },
        Panel { weight: 2, ..lines("logins a second", vec![logins]) },
    ];
    chart(recording, "7-users", "Users online, and how fast they log in", panels)
}

const GIBIBYTE: f64 = (1u64 << 30) as f64;

#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn memory(recording: &Recording) -> Chart {
    let resident = |role, second| recording.value(role, RESIDENT, second).map(|bytes| bytes as f64 / GIBIBYTE);
    let before = recording.host.values().next().and_then(|row| row.memory_available_bytes);
    let kernel = |second| {
        let available = recording.host.get(&second)?.memory_available_bytes?;
        let all = before?.saturating_sub(available) as f64 / GIBIBYTE;
        // The machines come and go before and after the run; then they have no memory, and that is known.
        let parts = resident(Role::Server, second)? + resident(Role::Machine, second).unwrap_or(0.0);
        Some((all - parts).max(0.0))
    };
    let series = |name: &str, tone, at: &dyn Fn(u64) -> Option<f64>| Series {
        name: name.into(),
        tone,
        values: seconds(recording).map(at).collect(),
    };
    let mut layers = vec![
        series("server", Tone::Server, &|second| resident(Role::Server, second)),
        series("fleet", Tone::Fleet, &|second| {
            resident(Role::Server, second).map(|_| resident(Role::Machine, second).unwrap_or(0.0))
        }),
    ];
    if before.is_some() {
        layers.push(series("all else: kernel, other programs", Tone::Kernel, &kernel));
    }
    let panel = Panel { axis: "GiB".into(), style: Style::Stacked, series: layers, at_least: 0.1, weight: 1 };
    chart(recording, "8-memory", "Memory that the run takes of the host", vec![panel])
}

fn by_second(row: &HostSecond, value: Option<f64>) -> Option<f64> {
    Some(value? / row.span_seconds?)
}

/// Server and fleet as they report themselves, the rest as the kernel counts it.
fn processor_by_part(recording: &Recording) -> Chart {
    #[allow(clippy::cast_precision_loss, reason = "for a chart")]
    let own = |role, second| recording.value(role, CPU, second).map(|us| us as f64 / 1e6);
    let fleet = |second| own(Role::Server, second).map(|_| own(Role::Machine, second).unwrap_or(0.0));
    let host = |index: usize, second| recording.host_second(second).and_then(|row| by_second(row, KINDS[index].1(row)));
    let busy = |second| Some(host(0, second)? + host(1, second)? + host(2, second)?);
    // Ticks of 10 ms make the parts exceed the whole now and then by one.
    let rest = |second| Some((busy(second)? - own(Role::Server, second)? - fleet(second)?).max(0.0));
    let series = |name: &str, tone, at: &dyn Fn(u64) -> Option<f64>| Series {
        name: name.into(),
        tone,
        values: seconds(recording).map(at).collect(),
    };
    let mut layers = vec![
        series("server, with the kernel's work for it", Tone::Server, &|second| own(Role::Server, second)),
        series("fleet, likewise", Tone::Fleet, &fleet),
    ];
    if !recording.host.is_empty() {
        layers.push(series("all else: interrupts, other programs", Tone::Kernel, &rest));
        layers.push(series("steal", Tone::Red, &|second| host(3, second)));
        layers.push(series("idle", Tone::Idle, &|second| host(4, second)));
    }
    let panel = Panel {
        axis: "processors".into(),
        style: Style::Stacked,
        series: layers,
        at_least: cpus(recording),
        weight: 1,
    };
    chart(recording, "9-processors-by-part", "Processors, by who used them", vec![panel])
}

/// The whole host as the kernel counts it.
fn processor_by_kind(recording: &Recording) -> Chart {
    const TONES: [Tone; 5] = [Tone::Gold, Tone::Kernel, Tone::Violet, Tone::Red, Tone::Idle];
    const NAMES: [&str; 5] = ["programs", "kernel, for programs", "kernel, interrupts", "steal", "idle"];
    let layer = |index: usize| {
        let at = |second| recording.host_second(second).and_then(|row| by_second(row, KINDS[index].1(row)));
        Series { name: NAMES[index].into(), tone: TONES[index], values: seconds(recording).map(at).collect() }
    };
    let panel = Panel {
        axis: "processors".into(),
        style: Style::Stacked,
        series: (0..KINDS.len()).map(layer).collect(),
        at_least: cpus(recording),
        weight: 1,
    };
    chart(recording, "10-processors-by-kind", "Processors, by kind of work on the whole host", vec![panel])
}

#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn cpus(recording: &Recording) -> f64 {
    recording.run.host.cpus.unwrap_or(1) as f64
}
