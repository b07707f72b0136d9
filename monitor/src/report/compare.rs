//! Two runs side by side: the figures that both have, and how the second's relate to the first's.

use hongbao_telemetry::table::aligned;
use serde::Serialize;

use crate::report::figures::{Figures, PhaseFigures};
use crate::run::books::Book;
use crate::run::column::Figure;
use crate::run::histogram::Quantiles;
use crate::words;
use Unit::{Bytes, Count, Fen, Seconds, Share, Us};

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Count,
    /// Microseconds.
    Us,
    Bytes,
    Fen,
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

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub a: Side,
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
        let mut rows = rows(RUN, &OF_RUN, Some(a), Some(b));
        for (one, other) in matched(&a.phases, &b.phases) {
            let [first, second] = [one, other].map(|phase| phase.map(|phase| words::phase(&phase.phase.name)));
            let group = match (first, second) {
                (Some(first), Some(second)) if first != second => format!("{first} | {second}"),
                (first, second) => first.or(second).unwrap_or_default(),
            };
            rows.extend(self::rows(&group, &OF_PHASE, one, other));
        }
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
        Unit::Count | Unit::Seconds => words::figures(value),
        Unit::Us if value.abs() >= 1_000.0 => format!("{} ms", words::figures(value / 1_000.0)),
        Unit::Us => format!("{} µs", words::figures(value)),
        Unit::Bytes => words::bytes(value),
        #[allow(clippy::cast_possible_truncation, reason = "whole, for people")]
        Unit::Fen => words::yuan(value as i64),
        Unit::Share => words::percent(value),
    }
}

type Pair<'a> = (Option<&'a PhaseFigures>, Option<&'a PhaseFigures>);

/// Phases of one name belong together, in order; what is left belongs together by its place, or
/// stands alone.
fn matched<'a>(a: &'a [PhaseFigures], b: &'a [PhaseFigures]) -> Vec<Pair<'a>> {
    let mut left: Vec<Option<&PhaseFigures>> = b.iter().map(Some).collect();
    let mut named = |one: &'a PhaseFigures| {
        let same = |other: &&mut Option<&PhaseFigures>| other.is_some_and(|other| other.phase.name == one.phase.name);
        (Some(one), left.iter_mut().find(same).and_then(Option::take))
    };
    let mut pairs: Vec<Pair<'a>> = a.iter().map(&mut named).collect();
    for ((_, partner), other) in pairs.iter_mut().zip(&mut left) {
        *partner = partner.or_else(|| other.take());
    }
    pairs.extend(left.into_iter().flatten().map(|other| (None, Some(other))));
    pairs
}

/// A figure's name, what it is for people, its unit, and where it is found.
type Definition<T> = (&'static str, &'static str, Unit, fn(&T) -> Option<f64>);

/// The figures that at least one side has.
fn rows<T>(group: &str, definitions: &[Definition<T>], a: Option<&T>, b: Option<&T>) -> Vec<Row> {
    let row = |&(name, what, unit, of): &Definition<T>| {
        let (a, b) = (a.and_then(of), b.and_then(of));
        a.or(b)?;
        let ratio = a.zip(b).filter(|(a, _)| *a != 0.0).map(|(a, b)| b / a);
        let title = if group == RUN { what.to_owned() } else { format!("{group}: {what}") };
        Some(Row { group: group.into(), name, title, unit, a, b, ratio })
    };
    definitions.iter().filter_map(row).collect()
}

/// The group of what is not of a phase.
const RUN: &str = "run";

const OF_RUN: [Definition<Figures>; 20] = [
    ("users", "users", Count, |f| f.run.users.figure()),
    ("seconds", "seconds recorded", Count, |f| f.run.seconds.figure()),
    ("seconds_complete", "of these complete", Count, |f| f.run.seconds_complete.figure()),
    ("connect_seconds", "seconds until all were connected", Seconds, |f| Some(f.connect.as_ref()?.seconds)),
    ("server_bytes_per_user", "server's memory for a user", Bytes, |f| f.memory.server_bytes_per_user.figure()),
    ("fleet_bytes_per_user", "fleet's memory for a user", Bytes, |f| f.memory.fleet_bytes_per_user.figure()),
    ("host_bytes_per_user", "whole machine's memory for a user", Bytes, |f| f.memory.host_bytes_per_user.figure()),
    ("won", "envelopes won", Count, |f| f.books.monitor.claims.won.figure()),
    ("paid_fen", "paid", Fen, |f| f.books.monitor.claims.paid_fen.figure()),
    ("residual_fen", "rain: residual", Fen, |f| f.books.monitor.residual_fen.figure()),
    ("residual_sale_fen", "sales: residual", Fen, |f| residual(f, Book::Sales)),
    ("residual_share_fen", "envelopes: residual", Fen, |f| residual(f, Book::Envelopes)),
    ("overloaded", "answered Overloaded", Count, |f| turned_away(f, "answered Overloaded")),
    ("disconnects", "connections ended", Count, |f| turned_away(f, "connection ended")),
    ("retransmits", "TCP segments sent again", Count, |f| f.tcp.get("retransmits")?.figure()),
    ("latency_p50_us", "whole run: latency p50", Us, |f| times(f, "machine.latency_us")?.p50.figure()),
    ("latency_p99_us", "whole run: latency p99", Us, |f| times(f, "machine.latency_us")?.p99.figure()),
    ("latency_p999_us", "whole run: latency p99.9", Us, |f| times(f, "machine.latency_us")?.p999.figure()),
    ("send_lag_p99_us", "whole run: send lag p99", Us, |f| times(f, "machine.send_lag_us")?.p99.figure()),
    ("ledger_commit_p99_us", "whole run: ledger commit p99", Us, |f| times(f, "server.ledger_commit_us")?.p99.figure()),
];

const OF_PHASE: [Definition<PhaseFigures>; 11] = [
    ("qps_planned", "requests planned a second", Count, |p| p.qps_planned.figure()),
    ("qps_answered", "answered a second, mean", Count, |p| share(p.phase.answered, p.phase.seconds)),
    ("seconds_kept", "seconds kept", Share, |p| {
        share(p.phase.seconds_within_tolerance, p.phase.seconds_judged()).filter(|_| p.phase.judged)
    }),
    ("latency_p50_us", "latency p50", Us, |p| Some(p.phase.p50_ms * 1_000.0)),
    ("latency_p99_us", "latency p99", Us, |p| Some(p.phase.p99_ms * 1_000.0)),
    ("latency_p999_us", "latency p99.9", Us, |p| Some(p.phase.p999_ms * 1_000.0)),
    ("latency_max_us", "latency, greatest", Us, |p| Some(p.phase.max_ms * 1_000.0)),
    ("send_lag_p99_us", "send lag p99", Us, |p| Some(p.phase.send_lag_p99_ms * 1_000.0)),
    ("send_lag_max_us", "send lag, greatest", Us, |p| Some(p.phase.send_lag_max_ms * 1_000.0)),
    ("server_cpu_us_per_request", "server's processor time for a request", Us, |p| p.phase.server_cpu_us_per_request),
    ("fleet_cpu_us_per_request", "fleet's processor time for a request", Us, |p| p.phase.fleet_cpu_us_per_request),
];

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn times<'a>(figures: &'a Figures, name: &str) -> Option<&'a Quantiles> {
    figures.distributions.get(name).filter(|times| times.count > 0)
}

fn residual(figures: &Figures, book: Book) -> Option<f64> {
    figures.trades.iter().find(|trade| trade.book == book.name())?.residual_fen.figure()
}

/// Of all reasons that begin so.
fn turned_away(figures: &Figures, reason: &str) -> Option<f64> {
    let counts = figures.turned_away.iter().filter(|(name, _)| name.starts_with(reason)).map(|(_, count)| *count);
    counts.sum::<i64>().figure()
}
