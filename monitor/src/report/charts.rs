//! Which charts there are and what is in them. Plain data: how they are drawn is decided in `draw`.
//!
//! A second that was not recorded, or not whole, is a gap. Nothing is interpolated.

use std::collections::BTreeMap;

use crate::report::figures::{self, KINDS};
use crate::report::load::Recording;
use crate::run::column::Figure;
use crate::run::host::HostSecond;
use crate::run::mark::{ALERT, RESOLVED};
use crate::run::second::Headline;
use crate::run::series::HeatCounts;
use crate::words;

/// A colour in light surroundings, and the one that stands in its place in dark ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tone(pub &'static str, pub &'static str);

/// By what they stand for, the same in every chart.
impl Tone {
    pub const PLAN: Self = Self("#B4BEC7", "#75828D");
    pub const SERVER: Self = Self("#2B6CB0", "#5FA3E6");
    pub const FLEET: Self = Self("#DD842A", "#EBA04F");
    pub const KERNEL: Self = Self("#3A968C", "#4FB8AC");
    /// Envelopes, and whatever is worst.
    pub const RED: Self = Self("#C0392B", "#E8675A");
    /// Envelopes on their way.
    pub const GOLD: Self = Self("#C79A1E", "#DCB540");
    /// A second part of the kernel.
    pub const VIOLET: Self = Self("#7D62A8", "#A48BD0");
    /// What is left over.
    pub const IDLE: Self = Self("#DCE2E7", "#28313A");
}

/// One line, or one layer of a stack.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub tone: Tone,
    /// One for each second from the run's start; `None` is a gap.
    pub values: Vec<Option<f64>>,
}

impl Series {
    fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }
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
        self.series.iter().all(Series::is_empty) && self.heat.iter().all(Option::is_none) && self.lanes.is_empty()
    }
}

/// Something at a second of the run.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Since the run's start.
    pub second: u64,
    /// A phase begins or ends: a line with this beside it, if anything. None: a storm or an
    /// announcement, a small arrow. The phase says which, and a table says more.
    pub phase: Option<String>,
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
    let sent = || of_headline(run, "sent by the clients", Tone::FLEET, |second| second.sent);
    let handled = || of_headline(run, "handled by the server", Tone::SERVER, |second| second.received);
    let issued = of_headline(run, "issued", Tone::GOLD, |second| second.issued);
    let won = of_headline(run, "won", Tone::RED, |second| second.won);
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

/// A layer without a value is left out.
fn stack(axis: &'static str, at_least: f64, mut series: Vec<Series>) -> Panel {
    series.retain(|series| !series.is_empty());
    Panel { series, at_least, ..Panel::of(axis, Style::Stacked) }
}

/// A value for each second of the run.
fn series(run: &Recording, name: &str, tone: Tone, at: impl Fn(u64) -> Option<f64>) -> Series {
    Series { name: name.into(), tone, values: (run.start()..run.end()).map(at).collect() }
}

fn of_headline<F: Figure>(run: &Recording, name: &str, tone: Tone, of: impl Fn(&Headline) -> F) -> Series {
    series(run, name, tone, |second| of(run.complete(second)?).figure())
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
        return of_headline(run, "planned", Tone::PLAN, |second| second.planned);
    }
    series(run, "planned", Tone::PLAN, |second| {
        let phase = phases.iter().find(|phase| (phase.from..phase.from + phase.seconds).contains(&second));
        phase.map(|phase| phase.qps_target as f64)
    })
}

fn latency(run: &Recording) -> Panel {
    let quantile = |name, tone, of: fn(&Headline) -> u64| {
        of_headline(run, name, tone, |second| Some(of(second)).filter(|&us| us > 0).map(|us| us as f64 / 1_000.0))
    };
    let series = vec![
        quantile("p99.9", Tone::RED, |second| second.latency_p999_us),
        quantile("p99", Tone::FLEET, |second| second.latency_p99_us),
        quantile("p50", Tone::SERVER, |second| second.latency_p50_us),
    ];
    Panel { series, ..Panel::of("milliseconds", Style::Logarithmic) }
}

fn heat(run: &Recording) -> Panel {
    let cells = |second| run.complete(second).and_then(|_| run.heat.get(&second)?.latency);
    Panel { heat: (run.start()..run.end()).map(cells).collect(), ..Panel::of("milliseconds", Style::Heat) }
}

fn users(run: &Recording) -> Vec<Panel> {
    let online = of_headline(run, "users online", Tone::SERVER, |second| second.users_online);
    let logins = series(run, "logins", Tone::FLEET, |second| run.logins(second));
    vec![
        Panel { weight: 3.0, ..lines("users online", vec![online]) },
        Panel { weight: 2.0, ..lines("logins a second", vec![logins]) },
    ]
}

/// What is the server's, what is the fleet's, and what of the whole is neither's.
fn parts(
    run: &Recording,
    names: [&str; 3],
    unit: f64,
    own: fn(&Headline) -> [Option<i64>; 2],
    whole: impl Fn(u64) -> Option<f64>,
) -> Vec<Series> {
    let server = |second: &Headline| own(second)[0].map(|value| value as f64 / unit);
    // The machines come and go before and after the run; then they have nothing, and that is known.
    let fleet = |second: &Headline| server(second).map(|_| own(second)[1].unwrap_or_default() as f64 / unit);
    let rest = |second| {
        let of = run.complete(second)?;
        // Ticks of 10 ms make the parts exceed the whole now and then by one.
        Some((whole(second)? - server(of)? - fleet(of)?).max(0.0))
    };
    vec![
        of_headline(run, names[0], Tone::SERVER, server),
        of_headline(run, names[1], Tone::FLEET, fleet),
        series(run, names[2], Tone::KERNEL, rest),
    ]
}

fn memory(run: &Recording) -> Panel {
    let names = ["server", "fleet", "all else: kernel, other programs"];
    let available = |row: &HostSecond| row.memory_available_bytes;
    let before = run.host.values().next().and_then(available);
    let taken = |second| Some(before?.saturating_sub(available(run.host.get(&second)?)?) as f64 / GIBIBYTE);
    let own = |second: &Headline| [second.server_resident_bytes, second.fleet_resident_bytes];
    stack("GiB", 0.1, parts(run, names, GIBIBYTE, own, taken))
}

/// Server and fleet as they report themselves, the rest as the kernel counts it.
fn processor_by_part(run: &Recording) -> Panel {
    let names = ["server, with the kernel's work for it", "fleet, likewise", "all else: interrupts, other programs"];
    let busy = |second| {
        let row = run.host_second(second)?;
        Some((KINDS[0].1(row)? + KINDS[1].1(row)? + KINDS[2].1(row)?) / row.span_seconds?)
    };
    let mut layers = parts(run, names, 1e6, |second| [second.server_cpu_us, second.fleet_cpu_us], busy);
    layers.push(of_host(run, "steal", Tone::RED, KINDS[3].1));
    layers.push(of_host(run, "idle", Tone::IDLE, KINDS[4].1));
    stack("processors", cpus(run), layers)
}

/// The whole host as the kernel counts it.
fn processor_by_kind(run: &Recording) -> Panel {
    const TONES: [Tone; 5] = [Tone::GOLD, Tone::KERNEL, Tone::VIOLET, Tone::RED, Tone::IDLE];
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
        ("rain: paid", Tone::RED, |second| Some(second.paid_fen), |second| Some(second.residual_fen)),
        ("sales: taken in", Tone::SERVER, |second| second.earned_fen, |second| second.residual_sale_fen),
        ("envelopes: opened", Tone::GOLD, |second| second.opened_fen, |second| second.residual_share_fen),
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
    const TONES: [Tone; 5] = [Tone::SERVER, Tone::RED, Tone::GOLD, Tone::VIOLET, Tone::KERNEL];
    if run.headline.values().all(|second| second.server_cpu_us.is_none()) {
        return Vec::new();
    }
    let refused = vec![
        of_headline(run, "answered Overloaded", Tone::FLEET, |second| second.overloaded.unwrap_or(0)),
        of_headline(run, "turned away", Tone::VIOLET, |second| second.refused),
    ];
    let mut kinds: Vec<(String, f64)> = run.sums(|reasons| &reasons.ended).into_iter().collect();
    kinds.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let others = kinds.split_off(kinds.len().min(TONES.len()));
    let ended = |name: &str, tone, kinds: &[(String, f64)]| {
        series(run, name, tone, |second| {
            run.complete(second)?;
            let counts = run.reasons.get(&second);
            Some(kinds.iter().filter_map(|(kind, _)| counts?.ended.get(kind)).sum())
        })
    };
    let named =
        |(kind, tone): (&[(String, f64)], _)| ended(&format!("ended: {}", words::plain(&kind[0].0)), tone, kind);
    let mut gone: Vec<Series> = kinds.chunks(1).zip(TONES).map(named).collect();
    if !others.is_empty() {
        gone.push(ended("ended: others", Tone::PLAN, &others));
    }
    if gone.is_empty() {
        gone.push(ended("connections ended", Tone::SERVER, &[]));
    }
    vec![lines("requests a second", refused), lines("connections a second", gone)]
}

/// What went through the network: by the servers' count of their sockets, and by the kernel's of
/// its devices.
fn network(run: &Recording) -> Vec<Panel> {
    let own = |name, tone, side: usize| {
        series(run, name, tone, |second| {
            run.complete(second)?;
            Some(run.traffic.get(&second)?[side]? as f64 / MEBIBYTE)
        })
    };
    let device = |name, tone, unit, of: fn(&HostSecond) -> Option<u64>| {
        of_host(run, name, tone, move |row| of(row).map(|count| count as f64 / unit))
    };
    let lost = |name, tone, of: fn(&HostSecond) -> Option<u64>| {
        series(run, name, tone, |second| of(run.host.get(&second)?).figure())
    };
    let bytes = vec![
        own("servers to users", Tone::SERVER, 1),
        own("users to servers", Tone::FLEET, 0),
        device("all devices, sent", Tone::KERNEL, MEBIBYTE, |row| row.net_sent_bytes),
        device("received", Tone::VIOLET, MEBIBYTE, |row| row.net_received_bytes),
    ];
    let packets = vec![
        device("", Tone::KERNEL, 1.0, |row| row.net_sent_packets),
        device("", Tone::VIOLET, 1.0, |row| row.net_received_packets),
    ];
    let losses = vec![
        lost("retransmits", Tone::RED, |row| row.tcp_retransmits),
        lost("listen overflows", Tone::GOLD, |row| row.listen_overflows),
    ];
    let panel = |(axis, series): (_, Vec<Series>)| {
        lines(axis, series.into_iter().filter(|series| !series.is_empty()).collect())
    };
    [("MiB a second", bytes), ("packets a second", packets), ("TCP's losses", losses)].map(panel).into()
}

fn marks(run: &Recording) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut add = |second: u64, phase: Option<String>| {
        if (run.start()..run.end()).contains(&second) {
            marks.push(Mark { second: second - run.start(), phase });
        }
    };
    let phases = run.phases();
    for (index, phase) in phases.iter().enumerate() {
        add(phase.from, Some(words::phase(&phase.name)));
        let end = phase.from + phase.seconds;
        match phases.get(index + 1) {
            // A pause between two phases is seen, too.
            Some(next) if next.from != end => add(end, Some(String::new())),
            Some(_) => {}
            None => add(end, Some("end".into())),
        }
    }
    for moment in figures::timeline(run) {
        let phase = match moment.kind.as_str() {
            RESOLVED => continue,
            // What is known of phases is better than what was said of them.
            "phase" | "qps" if !phases.is_empty() => continue,
            "phase" | "qps" => Some(shortened(&moment.text)),
            _ => None,
        };
        add(run.start() + moment.at_ms / 1_000, phase);
    }
    marks.sort_by_key(|mark| mark.second);
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
        ("phase", Tone::SERVER),
        ("qps", Tone::SERVER),
        ("campaign", Tone::GOLD),
        ("envelopes", Tone::GOLD),
        ("announcement", Tone::KERNEL),
        ("storm", Tone::RED),
        ("drain", Tone::VIOLET),
        (ALERT, Tone::RED),
        (RESOLVED, Tone::KERNEL),
    ];
    let mut lanes: BTreeMap<(usize, String), Vec<(f64, String)>> = BTreeMap::new();
    for moment in figures::timeline(run) {
        let place = TONES.iter().position(|(known, _)| *known == moment.kind).unwrap_or(TONES.len());
        lanes.entry((place, moment.kind)).or_default().push((moment.at_ms as f64 / 1_000.0, moment.text));
    }
    let lane = |((place, name), marks): ((usize, String), Vec<_>)| {
        let tone = TONES.get(place).map_or(Tone::FLEET, |(_, tone)| *tone);
        Lane { name, tone, marks }
    };
    Panel { lanes: lanes.into_iter().map(lane).collect(), ..Panel::of("", Style::Lanes) }
}
