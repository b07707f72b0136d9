//! Two runs side by side: the figures that both have, and how the second's relate to the first's.

use hongbao_telemetry::table::aligned;
use serde::Serialize;

use crate::report::figures::{Figures, PhaseFigures};
use crate::words;

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Count,
    /// Microseconds.
    Us,
    /// Bytes.
    Bytes,
    Fen,
    /// Processors: 1 is one of them, the whole time.
    Cores,
    /// Part of 1.
    Share,
    Seconds,
}

/// One figure of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which part of the run it is of: `run`, or a phase's name.
    pub group: String,
    pub name: &'static str,
    /// For people: the group and what it is.
    pub title: String,
    pub unit: Unit,
    pub a: Option<f64>,
    /// The second's.
    pub b: Option<f64>,
    /// The second's over the first's.
    pub ratio: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// Its id, or its directory.
    pub run: String,
    /// RFC 3339.
    pub started_at: String,
    /// The fleet's judgement; absent without its summary.
    pub passed: Option<bool>,
    /// Whether all books agree.
    pub balanced: bool,
}

/// Two runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub a: Side,
    /// The second.
    pub b: Side,
    /// What both, or one of them, came to.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Of two runs with their names.
    pub fn of((a_name, a): (&str, &Figures), (b_name, b): (&str, &Figures)) -> Self {
        let side = |name: &str, figures: &Figures| Side {
            run: name.to_owned(),
            started_at: figures.run.started_at.clone(),
            passed: figures.verdict.passed,
            balanced: figures.verdict.books_balanced,
        };
        let mut rows = Vec::new();
        of_run(a, b, &mut rows);
        for (one, other) in matched(&a.phases, &b.phases) {
            of_phase(one, other, &mut rows);
        }
        rows.retain(|row| row.a.is_some() || row.b.is_some());
        Self { a: side(a_name, a), b: side(b_name, b), rows }
    }

    pub fn table(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let cell = |value: Option<f64>| words::or_dash(value, |value| shown(row.unit, value));
            let ratio = words::or_dash(row.ratio, |ratio| words::decimals(ratio, 2));
            vec![row.title.clone(), cell(row.a), cell(row.b), ratio]
        });
        aligned(&["figure", &self.a.run, &self.b.run, "ratio"], &rows.collect::<Vec<_>>())
    }
}

fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Count | Unit::Seconds if value.fract().abs() < 1e-9 => words::decimals(value, 0),
        Unit::Count | Unit::Seconds | Unit::Cores => words::figures(value),
        Unit::Us if value.abs() >= 1_000.0 => format!("{} ms", words::figures(value / 1_000.0)),
        Unit::Us => format!("{} µs", words::figures(value)),
        Unit::Bytes => words::bytes(value),
        #[allow(clippy::cast_possible_truncation, reason = "whole, for people")]
        Unit::Fen => words::yuan(value as i64),
        Unit::Share => words::percent(value),
    }
}

/// Phases of one name belong together, in order; what is left belongs together by its place, or
/// stands alone.
fn matched<'a>(
    a: &'a [PhaseFigures],
    b: &'a [PhaseFigures],
) -> Vec<(Option<&'a PhaseFigures>, Option<&'a PhaseFigures>)> {
    let mut partners: Vec<Option<usize>> = vec![None; a.len()];
    let mut taken = vec![false; b.len()];
    let mut pair = |partners: &mut Vec<Option<usize>>, fits: &dyn Fn(usize, usize) -> bool| {
        for (one, partner) in partners.iter_mut().enumerate().filter(|(_, partner)| partner.is_none()) {
            if let Some(other) = (0..b.len()).find(|&other| !taken[other] && fits(one, other)) {
                taken[other] = true;
                *partner = Some(other);
            }
        }
    };
    pair(&mut partners, &|one, other| a[one].phase.name == b[other].phase.name);
    pair(&mut partners, &|one, other| one == other);
    let mut pairs: Vec<_> =
        a.iter().zip(&partners).map(|(one, partner)| (Some(one), partner.map(|other| &b[other]))).collect();
    pairs.extend(b.iter().zip(&taken).filter(|(_, taken)| !**taken).map(|(other, _)| (None, Some(other))));
    pairs
}

fn row(group: &str, name: &'static str, what: &str, unit: Unit, a: Option<f64>, b: Option<f64>) -> Row {
    let ratio = a.zip(b).filter(|(a, _)| *a != 0.0).map(|(a, b)| b / a);
    let title = if group == RUN { what.to_owned() } else { format!("{group}: {what}") };
    Row { group: group.into(), name, title, unit, a, b, ratio }
}

/// The group of what is not of a phase.
const RUN: &str = "run";

type Of<T> = fn(&T) -> Option<f64>;

#[allow(clippy::cast_precision_loss, reason = "for a comparison")]
fn of_run(a: &Figures, b: &Figures, rows: &mut Vec<Row>) {
    let times =
        |figures: &Figures, name: &str| figures.distributions.get(name).copied().filter(|times| times.count > 0);
    let figures: [(&'static str, &str, Unit, Of<Figures>); 15] = [
        ("users", "users", Unit::Count, |f| Some(f.run.users? as f64)),
        ("seconds", "seconds recorded", Unit::Count, |f| Some(f.run.seconds as f64)),
        ("seconds_complete", "of these complete", Unit::Count, |f| Some(f.run.seconds_complete as f64)),
        ("connect_seconds", "seconds until all were connected", Unit::Seconds, |f| Some(f.connect.as_ref()?.seconds)),
        ("server_bytes_per_user", "server's memory for a user", Unit::Bytes, |f| {
            Some(f.memory.server_bytes_per_user? as f64)
        }),
        ("fleet_bytes_per_user", "fleet's memory for a user", Unit::Bytes, |f| {
            Some(f.memory.fleet_bytes_per_user? as f64)
        }),
        ("host_bytes_per_user", "whole machine's memory for a user", Unit::Bytes, |f| {
            Some(f.memory.host_bytes_per_user? as f64)
        }),
        ("won", "envelopes won", Unit::Count, |f| Some(f.books.monitor.claims.won as f64)),
        ("paid_fen", "paid", Unit::Fen, |f| Some(f.books.monitor.claims.paid_fen as f64)),
        ("residual_fen", "rain: residual", Unit::Fen, |f| Some(f.books.monitor.residual_fen as f64)),
        ("residual_sale_fen", "sales: residual", Unit::Fen, |f| residual(f, "sales")),
        ("residual_share_fen", "envelopes: residual", Unit::Fen, |f| residual(f, "envelopes")),
        ("overloaded", "answered Overloaded", Unit::Count, |f| {
            turned_away(f, |reason| reason == "answered Overloaded")
        }),
        ("disconnects", "connections ended", Unit::Count, |f| {
            turned_away(f, |reason| reason.starts_with("connection ended"))
        }),
        ("retransmits", "TCP segments sent again", Unit::Count, |f| Some(*f.tcp.get("retransmits")? as f64)),
    ];
    rows.extend(figures.into_iter().map(|(name, what, unit, of)| row(RUN, name, what, unit, of(a), of(b))));
    for (name, what, p) in [
        ("latency_p50_us", "latency p50", 0),
        ("latency_p99_us", "latency p99", 1),
        ("latency_p999_us", "latency p99.9", 2),
        ("send_lag_p99_us", "send lag p99", 1),
        ("ledger_commit_p99_us", "ledger commit p99", 1),
    ] {
        let source = match name {
            "send_lag_p99_us" => "machine.send_lag_us",
            "ledger_commit_p99_us" => "server.ledger_commit_us",
            _ => "machine.latency_us",
        };
        let of = |figures| times(figures, source).map(|times| [times.p50, times.p99, times.p999][p] as f64);
        rows.push(row(RUN, name, &format!("whole run: {what}"), Unit::Us, of(a), of(b)));
    }
}

#[allow(clippy::cast_precision_loss, reason = "for a comparison")]
fn residual(figures: &Figures, book: &str) -> Option<f64> {
    figures.trades.iter().find(|trade| trade.book == book).map(|trade| trade.residual_fen as f64)
}

#[allow(clippy::cast_precision_loss, reason = "for a comparison")]
fn turned_away(figures: &Figures, counts: fn(&str) -> bool) -> Option<f64> {
    let counted = figures.turned_away.iter().filter(|(reason, _)| counts(reason));
    Some(counted.map(|(_, count)| *count).sum::<i64>() as f64)
}

#[allow(clippy::cast_precision_loss, reason = "for a comparison")]
fn of_phase(a: Option<&PhaseFigures>, b: Option<&PhaseFigures>, rows: &mut Vec<Row>) {
    let name = |phase: Option<&PhaseFigures>| phase.map(|phase| words::phase(&phase.phase.name));
    let group = match (name(a), name(b)) {
        (Some(a), Some(b)) if a != b => format!("{a} | {b}"),
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => return,
    };
    let figures: [(&'static str, &str, Unit, Of<PhaseFigures>); 11] = [
        ("qps_planned", "requests planned a second", Unit::Count, |p| Some(p.qps_planned as f64)),
        ("qps_answered", "answered a second, mean", Unit::Count, |p| {
            (p.phase.seconds > 0).then(|| p.phase.answered as f64 / p.phase.seconds as f64)
        }),
        ("seconds_kept", "seconds kept", Unit::Share, |p| {
            let judged = p.phase.seconds_judged();
            (p.phase.judged && judged > 0).then(|| p.phase.seconds_within_tolerance as f64 / judged as f64)
        }),
        ("latency_p50_us", "latency p50", Unit::Us, |p| Some(p.phase.p50_ms * 1_000.0)),
        ("latency_p99_us", "latency p99", Unit::Us, |p| Some(p.phase.p99_ms * 1_000.0)),
        ("latency_p999_us", "latency p99.9", Unit::Us, |p| Some(p.phase.p999_ms * 1_000.0)),
        ("latency_max_us", "latency, greatest", Unit::Us, |p| Some(p.phase.max_ms * 1_000.0)),
        ("send_lag_p99_us", "send lag p99", Unit::Us, |p| Some(p.phase.send_lag_p99_ms * 1_000.0)),
        ("send_lag_max_us", "send lag, greatest", Unit::Us, |p| Some(p.phase.send_lag_max_ms * 1_000.0)),
        ("server_cpu_us_per_request", "server's processor time for a request", Unit::Us, |p| {
            p.phase.server_cpu_us_per_request
        }),
        ("fleet_cpu_us_per_request", "fleet's processor time for a request", Unit::Us, |p| {
            p.phase.fleet_cpu_us_per_request
        }),
    ];
    for (name, what, unit, of) in figures {
        rows.push(row(&group, name, what, unit, a.and_then(of), b.and_then(of)));
    }
}
