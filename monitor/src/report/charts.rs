//! Which charts there are and what is in them. Plain data: how they are drawn is decided in `draw`.
//!
//! A second that was not recorded, or not whole, is a gap. Nothing is interpolated.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::report::figures::{self, KINDS};
use crate::report::load::{CPU, LOGINS, RECEIVED_BYTES, RESIDENT, Recording, SENT_BYTES};
use crate::report::words;
use crate::run::host::HostSecond;
use crate::run::second::{Headline, Role};

/// Colours by what they stand for, the same in every chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plan,
    Server,
    Fleet,
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
    pub tone: Tone,
    /// One for each second from the run's start; `None` is a gap.
    pub values: Vec<Option<f64>>,
}

/// How a panel's series are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Lines,
    /// A line each, on a logarithmic axis.
    Logarithmic,
    /// One upon the other.
    Stacked,
    /// Cells, the darker the more was counted: [`Panel::heat`].
    Heat,
    /// What happened, a row for each kind: [`Panel::lanes`].
    Lanes,
}

/// What happened of one kind.
#[derive(Debug, Clone)]
pub struct Lane {
    pub name: String,
    pub tone: Tone,
    /// Seconds since the run's start, and what it was, in the order of time.
    pub marks: Vec<(f64, String)>,
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
    /// One for each second from the run's start: counts by
    /// [`HEAT_BOUNDS_US`](crate::run::series::HEAT_BOUNDS_US).
    pub heat: Vec<Option<Vec<u64>>>,
    /// From the top down.
    pub lanes: Vec<Lane>,
}

impl Panel {
    fn of(axis: &str, style: Style) -> Self {
        Self {
            axis: axis.into(),
            style,
            series: Vec::new(),
            at_least: 0.0,
            weight: 1,
            heat: Vec::new(),
            lanes: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        let seen = |series: &Series| series.values.iter().any(Option::is_some);
        !self.series.iter().any(seen) && !self.heat.iter().any(Option::is_some) && self.lanes.is_empty()
    }
}

/// Something at a second of the run.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Since the run's start.
    pub second: u64,
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
        heat(recording),
        books(recording),
        refusals(recording),
        network(recording),
    ];
    charts.insert(0, timeline(recording));
    for chart in &mut charts {
        chart.panels.retain(|panel| !panel.is_empty());
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
    Panel { series, at_least: 1.0, ..Panel::of(axis, Style::Lines) }
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
    let known = !recording.phases().is_empty();
    for moment in figures::timeline(recording) {
        // What is known of phases is better than what was said of them.
        let kind = match moment.kind.as_str() {
            "phase" | "qps" | "resolved" if known => continue,
            "resolved" => continue,
            "phase" | "qps" => MarkKind::Phase(shortened(&moment.text)),
            _ => MarkKind::Event,
        };
        let Ok(second) = u64::try_from(moment.at_ms / 1_000) else { continue };
        marks.push(Mark { second: recording.start() + second, kind });
    }
    marks.sort_by_key(|mark| mark.second);
    let range = seconds(recording);
    marks.retain(|mark| range.contains(&mark.second));
    for mark in &mut marks {
        mark.second -= range.start;
    }
    marks
}

/// A mark's text beside a line of a chart.
fn shortened(text: &str) -> String {
    const LETTERS: usize = 18;
    if text.chars().count() <= LETTERS {
        return text.to_owned();
    }
    text.chars().take(LETTERS - 1).chain(['…']).collect()
}

/// What happened when: a row for each kind, those that tell of trouble last.
fn timeline(recording: &Recording) -> Chart {
    const TONES: [(&str, Tone); 9] = [
        ("phase", Tone::Server),
        ("qps", Tone::Server),
        ("campaign", Tone::Gold),
        ("envelopes", Tone::Gold),
        ("announcement", Tone::Kernel),
        ("storm", Tone::Red),
        ("drain", Tone::Violet),
        ("alert", Tone::Red),
        ("resolved", Tone::Kernel),
    ];
    let place = |kind: &str| TONES.iter().position(|(known, _)| *known == kind).unwrap_or(TONES.len());
    let mut lanes: BTreeMap<(usize, String), Vec<(f64, String)>> = BTreeMap::new();
    #[allow(clippy::cast_precision_loss, reason = "for a chart")]
    for moment in figures::timeline(recording) {
        let kind = (place(&moment.kind), moment.kind);
        lanes.entry(kind).or_default().push((moment.at_ms as f64 / 1_000.0, moment.text));
    }
    let lane = |((place, name), marks): ((usize, String), Vec<_>)| Lane {
        name,
        tone: TONES.get(place).map_or(Tone::Fleet, |(_, tone)| *tone),
        marks,
    };
    let panel = Panel { lanes: lanes.into_iter().map(lane).collect(), ..Panel::of("", Style::Lanes) };
    let mut drawn = chart(recording, "0-timeline", "What happened when", vec![panel]);
    // They are told in full here; lines and arrows would tell them again.
    drawn.marks.clear();
    drawn
}

fn heat(recording: &Recording) -> Chart {
    let cells = |second| recording.complete(second).and_then(|_| recording.heat.get(&second).cloned());
    let panel = Panel { heat: seconds(recording).map(cells).collect(), ..Panel::of("milliseconds", Style::Heat) };
    chart(recording, "11-latency-heat", "Latency: how many answers took how long", vec![panel])
}

fn of_column(recording: &Recording, column: &'static str, scale: f64, name: &str, tone: Tone) -> Series {
    let column = recording.columns.get(column);
    let at = |second| {
        recording.complete(second)?;
        column?.get(&second).map(|figure| figure * scale)
    };
    Series { name: name.into(), tone, values: seconds(recording).map(at).collect() }
}

/// What each of the three books moved, and how far its two sides were apart.
#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn books(recording: &Recording) -> Chart {
    const YUAN: f64 = 0.01;
    let yuan = |name: &str, tone, of: fn(&Headline) -> i64| {
        let mut series = of_headline(recording, name, tone, of);
        series.values.iter_mut().flatten().for_each(|fen| *fen *= YUAN);
        series
    };
    let moved = [
        yuan("rain: paid", Tone::Red, |second| second.paid_fen),
        of_column(recording, "earned_fen", YUAN, "sales: taken in", Tone::Server),
        of_column(recording, "opened_fen", YUAN, "envelopes: opened", Tone::Gold),
    ];
    let residuals = [
        yuan("rain", Tone::Red, |second| second.residual_fen),
        of_column(recording, "residual_sale_fen", YUAN, "sales", Tone::Server),
        of_column(recording, "residual_share_fen", YUAN, "envelopes", Tone::Gold),
    ];
    // A book that nothing is in needs no line.
    let (moved, residuals): (Vec<_>, Vec<_>) = moved
        .into_iter()
        .zip(residuals)
        .filter(|(moved, residual)| {
            moved.values.iter().chain(&residual.values).flatten().any(|yuan| yuan.abs() > f64::EPSILON)
        })
        .unzip();
    let residuals = residuals.into_iter().map(|series| Series { name: String::new(), ..series }).collect();
    let panels = vec![
        Panel { weight: 3, ..lines("yuan a second", moved) },
        Panel { weight: 2, ..lines("residual, yuan", residuals) },
    ];
    chart(recording, "12-books", "The books: what servers moved, and what users were not told of", panels)
}

/// What servers turned away and who left them.
#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn refusals(recording: &Recording) -> Chart {
    const REASONS: usize = 5;
    const TONES: [Tone; REASONS + 1] = [Tone::Server, Tone::Red, Tone::Gold, Tone::Violet, Tone::Kernel, Tone::Plan];
    let [ended, answers, ..] = &recording.reasons;
    let counted = |counts: Option<&BTreeMap<u64, i64>>, name: &str, tone| {
        let at =
            |second| recording.complete(second).map(|_| counts?.get(&second).copied()).map(Option::unwrap_or_default);
        Series {
            name: name.into(),
            tone,
            values: seconds(recording).map(|second| at(second).map(|n| n as f64)).collect(),
        }
    };
    let mut refused: Vec<Series> = vec![counted(answers.get("overloaded"), "answered Overloaded", Tone::Fleet)];
    if recording.columns.contains_key("refused") {
        refused.push(of_column(recording, "refused", 1.0, "turned away", Tone::Violet));
    }
    let mut reasons: Vec<(&String, i64)> = ended.iter().map(|(name, counts)| (name, counts.values().sum())).collect();
    reasons.sort_by_key(|(_, count)| -count);
    let mut gone: Vec<Series> = Vec::new();
    for ((name, _), tone) in reasons.iter().zip(TONES).take(REASONS) {
        gone.push(counted(ended.get(*name), &format!("ended: {}", words::plain(name)), tone));
    }
    let mut rest: BTreeMap<u64, i64> = BTreeMap::new();
    for (name, _) in reasons.iter().skip(REASONS) {
        for (second, count) in ended.get(*name).into_iter().flatten() {
            *rest.entry(*second).or_default() += count;
        }
    }
    if !rest.is_empty() {
        gone.push(counted(Some(&rest), "ended: others", TONES[REASONS]));
    }
    if gone.is_empty() {
        gone.push(counted(None, "connections ended", Tone::Server));
    }
    // Of a run without a server nobody knows.
    if recording.values_of(Role::Server).next().is_none() {
        refused.clear();
        gone.clear();
    }
    let panels = vec![lines("requests a second", refused), lines("connections a second", gone)];
    chart(recording, "13-refusals", "Overloads, refusals and disconnects", panels)
}

const MEBIBYTE: f64 = (1u64 << 20) as f64;

/// What went through the network: by the kernel's count of its devices where it was recorded, else
/// by the servers' of their sockets.
#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn network(recording: &Recording) -> Chart {
    let device = |column: &'static str, scale: f64, name: &str, tone| {
        let figures = recording.columns.get(column);
        let at = |second| by_second(recording.host_second(second)?, figures?.get(&second).copied()).map(|n| n * scale);
        Series { name: name.into(), tone, values: seconds(recording).map(at).collect() }
    };
    let own = |value, name: &str, tone| {
        let at = |second| recording.value(Role::Server, value, second).map(|bytes| bytes as f64 / MEBIBYTE);
        Series { name: name.into(), tone, values: seconds(recording).map(at).collect() }
    };
    let lost = |name: &str, tone, of: fn(&HostSecond) -> Option<u64>| {
        let at = |second| recording.host.get(&second).and_then(of).map(|count| count as f64);
        Series { name: name.into(), tone, values: seconds(recording).map(at).collect() }
    };
    let bytes = vec![
        own(SENT_BYTES, "servers to users", Tone::Server),
        own(RECEIVED_BYTES, "users to servers", Tone::Fleet),
        device("net_sent_bytes", 1.0 / MEBIBYTE, "all devices, sent", Tone::Kernel),
        device("net_received_bytes", 1.0 / MEBIBYTE, "received", Tone::Violet),
    ];
    let packets =
        vec![device("net_sent_packets", 1.0, "", Tone::Kernel), device("net_received_packets", 1.0, "", Tone::Violet)];
    let losses = vec![
        lost("retransmits", Tone::Red, |row| row.tcp_retransmits),
        lost("listen overflows", Tone::Gold, |row| row.listen_overflows),
    ];
    let mut panels =
        vec![lines("MiB a second", bytes), lines("packets a second", packets), lines("TCP's losses", losses)];
    for panel in &mut panels {
        panel.series.retain(|series| series.values.iter().any(Option::is_some));
    }
    chart(recording, "14-network", "The network, and what TCP lost", panels)
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
    let panel = Panel { series, ..Panel::of("milliseconds", Style::Logarithmic) };
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
        // The machines come and go before and after the run; then they have no memory, and that is
        // known.
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
    let panel = Panel { series: layers, at_least: 0.1, ..Panel::of("GiB", Style::Stacked) };
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
    let panel = Panel { series: layers, at_least: cpus(recording), ..Panel::of("processors", Style::Stacked) };
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
    let series = (0..KINDS.len()).map(layer).collect();
    let panel = Panel { series, at_least: cpus(recording), ..Panel::of("processors", Style::Stacked) };
    chart(recording, "10-processors-by-kind", "Processors, by kind of work on the whole host", vec![panel])
}

#[allow(clippy::cast_precision_loss, reason = "for a chart")]
fn cpus(recording: &Recording) -> f64 {
    recording.run.host.cpus.unwrap_or(1) as f64
}
