//! Which charts there are and what is in them. Plain data: how they are drawn is decided in `draw`.
//!
//! A second that was not recorded, or not whole, is a gap. Nothing is interpolated.

use std::collections::BTreeMap;

use crate::report::figures::{self, KINDS};
use crate::report::load::Recording;
use crate::run::column::Figure;
use crate::run::host::HostSecond;
use crate::run::second::Headline;
use crate::run::series::{HeatCounts, Kinds};
use crate::words;

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
    pub axis: &'static str,
    pub style: Style,
    /// From the lowest layer up.
    pub series: Vec<Series>,
    /// The axis reaches so far at least.
    pub at_least: f64,
    /// Its part of the chart's height.
    pub weight: f64,
    /// One for each second from the run's start.
    pub heat: Vec<Option<HeatCounts>>,
    /// From the top down.
    pub lanes: Vec<Lane>,
}

impl Panel {
    /// Of nothing yet.
    pub fn of(axis: &'static str, style: Style) -> Self {
        Self { axis, style, series: Vec::new(), at_least: 0.0, weight: 1.0, heat: Vec::new(), lanes: Vec::new() }
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkKind {
    /// A phase begins, or the last one ends: a line with this beside it.
    Phase(String),
    /// A phase ends and nothing follows at once: a line.
    End,
    /// A storm or an announcement: a small arrow. The phase says which, and a table says more.
    Event,
}

#[derive(Debug, Clone)]
pub struct Chart {
    /// Its file's name, without an ending.
    pub file: &'static str,
    pub title: &'static str,
    /// From the top down; at least one.
    pub panels: Vec<Panel>,
    /// Phases and what else happened.
    pub marks: Vec<Mark>,
    pub seconds: u64,
}

const MEBIBYTE: f64 = (1u64 << 20) as f64;
const GIBIBYTE: f64 = (1u64 << 30) as f64;
const YUAN: f64 = 100.0;

/// All charts that there is something to draw for.
pub fn all(run: &Recording) -> Vec<Chart> {
    let marks = marks(run);
    let chart = |(file, title, mut panels): (&'static str, &'static str, Vec<Panel>)| {
        panels.retain(|panel| !panel.is_empty());
        // What happened is told in full where it is the chart; lines and arrows would tell it again.
        let marks = if panels.iter().any(|panel| panel.style == Style::Lanes) { Vec::new() } else { marks.clone() };
        (!panels.is_empty()).then_some(Chart { file, title, panels, marks, seconds: run.end() - run.start() })
    };
    let sent = || of_headline(run, "sent by the clients", Tone::Fleet, |second| second.sent.figure());
    let handled = || of_headline(run, "handled by the server", Tone::Server, |second| second.received.figure());
    let issued = of_headline(run, "issued", Tone::Gold, |second| second.issued.figure());
    let won = of_headline(run, "won", Tone::Red, |second| second.won.figure());
    let requests = |series| vec![lines("requests a second", series)];
    let envelopes = |series| vec![lines("envelopes a second", vec![series])];
    let charts = [
        ("0-timeline", "What happened when", vec![timeline(run)]),
        ("1-sent", "Requests sent by the clients", requests(vec![sent()])),
        ("2-handled", "Requests handled by the server", requests(vec![handled()])),
        ("3-plan-sent-handled", "Requests planned, sent and handled", requests(vec![planned(run), sent(), handled()])),
        ("4-issued", "Envelopes issued by the server", envelopes(issued)),
        ("5-won", "Envelopes won by users", envelopes(won)),
        ("6-latency", "Latency from the planned send time to the answer", vec![latency(run)]),
        ("7-users", "Users online, and how fast they log in", users(run)),
        ("8-memory", "Memory that the run takes of the host", vec![memory(run)]),
        ("9-processors-by-part", "Processors, by who used them", vec![processor_by_part(run)]),
        ("10-processors-by-kind", "Processors, by kind of work on the whole host", vec![processor_by_kind(run)]),
        ("11-latency-heat", "Latency: how many answers took how long", vec![heat(run)]),
        ("12-books", "The books: what servers moved, and what users were not told of", books(run)),
        ("13-refusals", "Overloads, refusals and disconnects", refusals(run)),
        ("14-network", "The network, and what TCP lost", network(run)),
    ];
    charts.into_iter().filter_map(chart).collect()
}

fn lines(axis: &'static str, series: Vec<Series>) -> Panel {
    Panel { series, at_least: 1.0, ..Panel::of(axis, Style::Lines) }
}

fn stack(axis: &'static str, at_least: f64, series: Vec<Series>) -> Panel {
    Panel { series, at_least, ..Panel::of(axis, Style::Stacked) }
}

/// A value for each second of the run.
fn series(run: &Recording, name: &str, tone: Tone, at: impl Fn(u64) -> Option<f64>) -> Series {
    Series { name: name.into(), tone, values: (run.start()..run.end()).map(at).collect() }
}

fn of_headline(run: &Recording, name: &str, tone: Tone, of: impl Fn(&Headline) -> Option<f64>) -> Series {
    series(run, name, tone, |second| of(run.complete(second)?))
}

/// What the host counted in a second.
fn of_host(run: &Recording, name: &str, tone: Tone, of: impl Fn(&HostSecond) -> Option<f64>) -> Series {
    series(run, name, tone, |second| {
        let row = run.host_second(second)?;
        Some(of(row)? / row.span_seconds?)
    })
}

/// By the phases where they are known; else by what the machines had due.
fn planned(run: &Recording) -> Series {
    let phases = run.phases();
    if phases.is_empty() {
        return of_headline(run, "planned", Tone::Plan, |second| second.planned.figure());
    }
    series(run, "planned", Tone::Plan, |second| {
        let phase = phases.iter().find(|phase| (phase.from..phase.from + phase.seconds).contains(&second));
        phase.map(|phase| phase.qps_target as f64)
    })
}

fn latency(run: &Recording) -> Panel {
    let quantile = |name, tone, of: fn(&Headline) -> u64| {
        of_headline(run, name, tone, |second| Some(of(second)).filter(|&us| us > 0).map(|us| us as f64 / 1_000.0))
    };
    let series = vec![
        quantile("p99.9", Tone::Red, |second| second.latency_p999_us),
        quantile("p99", Tone::Fleet, |second| second.latency_p99_us),
        quantile("p50", Tone::Server, |second| second.latency_p50_us),
    ];
    Panel { series, ..Panel::of("milliseconds", Style::Logarithmic) }
}

fn heat(run: &Recording) -> Panel {
    let cells = |second| run.complete(second).and_then(|_| run.heat.get(&second)?.latency);
    Panel { heat: (run.start()..run.end()).map(cells).collect(), ..Panel::of("milliseconds", Style::Heat) }
}

fn users(run: &Recording) -> Vec<Panel> {
    let online = of_headline(run, "users online", Tone::Server, |second| second.users_online.figure());
    let logins = series(run, "logins", Tone::Fleet, |second| run.logins(second));
    vec![
        Panel { weight: 3.0, ..lines("users online", vec![online]) },
        Panel { weight: 2.0, ..lines("logins a second", vec![logins]) },
    ]
}

fn memory(run: &Recording) -> Panel {
    let server = |second: &Headline| second.server_resident_bytes.map(|bytes| bytes as f64 / GIBIBYTE);
    // The machines come and go before and after the run; then they have no memory, and that is
    // known.
    let fleet =
        |second: &Headline| server(second).map(|_| second.fleet_resident_bytes.unwrap_or_default() as f64 / GIBIBYTE);
    let before = run.host.values().next().and_then(|row| row.memory_available_bytes);
    let mut layers =
        vec![of_headline(run, "server", Tone::Server, server), of_headline(run, "fleet", Tone::Fleet, fleet)];
    if before.is_some() {
        layers.push(series(run, "all else: kernel, other programs", Tone::Kernel, |second| {
            let available = run.host.get(&second)?.memory_available_bytes?;
            let (all, of) = (before?.saturating_sub(available) as f64 / GIBIBYTE, run.complete(second)?);
            Some((all - server(of)? - fleet(of)?).max(0.0))
        }));
    }
    stack("GiB", 0.1, layers)
}

/// Server and fleet as they report themselves, the rest as the kernel counts it.
fn processor_by_part(run: &Recording) -> Panel {
    let server = |second: &Headline| second.server_cpu_us.map(|us| us as f64 / 1e6);
    let fleet = |second: &Headline| server(second).map(|_| second.fleet_cpu_us.unwrap_or_default() as f64 / 1e6);
    let mut layers = vec![
        of_headline(run, "server, with the kernel's work for it", Tone::Server, server),
        of_headline(run, "fleet, likewise", Tone::Fleet, fleet),
    ];
    if !run.host.is_empty() {
        layers.push(series(run, "all else: interrupts, other programs", Tone::Kernel, |second| {
            let (row, of) = (run.host_second(second)?, run.complete(second)?);
            let busy = KINDS[0].1(row)? + KINDS[1].1(row)? + KINDS[2].1(row)?;
            // Ticks of 10 ms make the parts exceed the whole now and then by one.
            Some((busy / row.span_seconds? - server(of)? - fleet(of)?).max(0.0))
        }));
        layers.push(of_host(run, "steal", Tone::Red, KINDS[3].1));
        layers.push(of_host(run, "idle", Tone::Idle, KINDS[4].1));
    }
    stack("processors", cpus(run), layers)
}

/// The whole host as the kernel counts it.
fn processor_by_kind(run: &Recording) -> Panel {
    const TONES: [Tone; 5] = [Tone::Gold, Tone::Kernel, Tone::Violet, Tone::Red, Tone::Idle];
    let layers = KINDS.iter().zip(TONES).map(|((name, of), tone)| of_host(run, name, tone, of));
    stack("processors", cpus(run), layers.collect())
}

fn cpus(run: &Recording) -> f64 {
    run.run.host.cpus.unwrap_or(1) as f64
}

/// What each of the three books moved, and how far its two sides were apart.
fn books(run: &Recording) -> Vec<Panel> {
    type Of = fn(&Headline) -> Option<i64>;
    let books: [(&str, Tone, Of, Of); 3] = [
        ("rain: paid", Tone::Red, |second| Some(second.paid_fen), |second| Some(second.residual_fen)),
        ("sales: taken in", Tone::Server, |second| second.earned_fen, |second| second.residual_sale_fen),
        ("envelopes: opened", Tone::Gold, |second| second.opened_fen, |second| second.residual_share_fen),
    ];
    let (mut moved, mut residuals) = (Vec::new(), Vec::new());
    for (name, tone, flow, residual) in books {
        let yuan = |name, of: Of| of_headline(run, name, tone, |second| of(second).map(|fen| fen as f64 / YUAN));
        let both = [yuan(name, flow), yuan("", residual)];
        // A book that nothing is in needs no line.
        if both.iter().flat_map(|series| series.values.iter().flatten()).any(|yuan| yuan.abs() > f64::EPSILON) {
            let [flow, residual] = both;
            moved.push(flow);
            residuals.push(residual);
        }
    }
    vec![
        Panel { weight: 3.0, ..lines("yuan a second", moved) },
        Panel { weight: 2.0, ..lines("residual, yuan", residuals) },
    ]
}

/// What servers turned away and who left them; of a run without a server nobody knows.
fn refusals(run: &Recording) -> Vec<Panel> {
    const TONES: [Tone; 5] = [Tone::Server, Tone::Red, Tone::Gold, Tone::Violet, Tone::Kernel];
    if run.headline.values().all(|second| second.server_cpu_us.is_none()) {
        return Vec::new();
    }
    let refused = vec![
        of_headline(run, "answered Overloaded", Tone::Fleet, |second| Some(second.overloaded.unwrap_or(0) as f64)),
        of_headline(run, "turned away", Tone::Violet, |second| second.refused.figure()),
    ];
    let mut totals: Vec<(String, f64)> = run.sums(|reasons| &reasons.ended).into_iter().collect();
    totals.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let told: Vec<String> = totals.iter().take(TONES.len()).map(|(name, _)| name.clone()).collect();
    let ended = |name: &str, tone, counted: &dyn Fn(&Kinds) -> f64| {
        series(run, name, tone, |second| {
            run.complete(second).map(|_| run.reasons.get(&second).map_or(0.0, |reasons| counted(&reasons.ended)))
        })
    };
    let mut gone: Vec<Series> = told
        .iter()
        .zip(TONES)
        .map(|(kind, tone)| {
            ended(&format!("ended: {}", words::plain(kind)), tone, &|kinds| kinds.get(kind).copied().unwrap_or(0.0))
        })
        .collect();
    if totals.len() > told.len() {
        let rest = |kinds: &Kinds| kinds.iter().filter(|(kind, _)| !told.contains(kind)).map(|(_, count)| count).sum();
        gone.push(ended("ended: others", Tone::Plan, &rest));
    }
    if gone.is_empty() {
        gone.push(ended("connections ended", Tone::Server, &|_| 0.0));
    }
    vec![lines("requests a second", refused), lines("connections a second", gone)]
}

/// What went through the network: by the servers' count of their sockets, and by the kernel's of
/// its devices.
fn network(run: &Recording) -> Vec<Panel> {
    let own = |name, tone, side: usize| {
        series(run, name, tone, |second| {
            run.complete(second).and_then(|_| Some(run.traffic.get(&second)?[side]? as f64 / MEBIBYTE))
        })
    };
    let device = |name, tone, unit, of: fn(&HostSecond) -> Option<u64>| {
        of_host(run, name, tone, move |row| of(row).map(|count| count as f64 / unit))
    };
    let lost = |name, tone, of: fn(&HostSecond) -> Option<u64>| {
        series(run, name, tone, |second| run.host.get(&second).and_then(of).map(|count| count as f64))
    };
    let mut panels = vec![
        lines(
            "MiB a second",
            vec![
                own("servers to users", Tone::Server, 1),
                own("users to servers", Tone::Fleet, 0),
                device("all devices, sent", Tone::Kernel, MEBIBYTE, |row| row.net_sent_bytes),
                device("received", Tone::Violet, MEBIBYTE, |row| row.net_received_bytes),
            ],
        ),
        lines(
            "packets a second",
            vec![
                device("", Tone::Kernel, 1.0, |row| row.net_sent_packets),
                device("", Tone::Violet, 1.0, |row| row.net_received_packets),
            ],
        ),
        lines(
            "TCP's losses",
            vec![
                lost("retransmits", Tone::Red, |row| row.tcp_retransmits),
                lost("listen overflows", Tone::Gold, |row| row.listen_overflows),
            ],
        ),
    ];
    for panel in &mut panels {
        panel.series.retain(|series| series.values.iter().any(Option::is_some));
    }
    panels
}

fn marks(run: &Recording) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut end = None;
    for phase in run.phases() {
        // A pause between two phases is seen, too.
        if let Some(end) = end.filter(|&end| end != phase.from) {
            marks.push(Mark { second: end, kind: MarkKind::End });
        }
        marks.push(Mark { second: phase.from, kind: MarkKind::Phase(words::phase(&phase.name)) });
        end = Some(phase.from + phase.seconds);
    }
    marks.extend(end.map(|second| Mark { second, kind: MarkKind::Phase("end".into()) }));
    let known = !run.phases().is_empty();
    for moment in figures::timeline(run) {
        // What is known of phases is better than what was said of them.
        let kind = match moment.kind.as_str() {
            "phase" | "qps" | "resolved" if known => continue,
            "resolved" => continue,
            "phase" | "qps" => MarkKind::Phase(shortened(&moment.text)),
            _ => MarkKind::Event,
        };
        marks.push(Mark { second: run.start() + moment.at_ms / 1_000, kind });
    }
    marks.sort_by_key(|mark| mark.second);
    marks.retain(|mark| (run.start()..run.end()).contains(&mark.second));
    marks.iter_mut().for_each(|mark| mark.second -= run.start());
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
fn timeline(run: &Recording) -> Panel {
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
    for moment in figures::timeline(run) {
        let kind = (place(&moment.kind), moment.kind);
        lanes.entry(kind).or_default().push((moment.at_ms as f64 / 1_000.0, moment.text));
    }
    let lane = |((place, name), marks): ((usize, String), Vec<_>)| {
        let tone = TONES.get(place).map_or(Tone::Fleet, |(_, tone)| *tone);
        Lane { name, tone, marks }
    };
    Panel { lanes: lanes.into_iter().map(lane).collect(), ..Panel::of("", Style::Lanes) }
}
