//! What a person sees meanwhile: one bar where there is a terminal, else a line every few seconds,
//! on standard error.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hongbao_telemetry::logs;
use indicatif::{ProgressBar, ProgressStyle};

use crate::histogram::Micros;
use crate::results::Status;
use crate::sum::Sum as _;

/// Between two lines where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Progress {
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    last_line: Option<Instant>,
}

impl Default for Progress {
    /// A bar if standard error is a terminal.
    fn default() -> Self {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
        let bar = ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, last_line: None }
    }
}

impl Progress {
    /// Something that a person should read.
    pub fn print(&self, line: &str) {
        if self.bar.is_hidden() {
            logs::print_line(line);
        } else {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    /// A new stretch of `length` steps.
    pub fn begin(&mut self, length: u64) {
        self.last_line = None;
        self.bar.reset();
        self.bar.set_length(length);
    }

    /// `position` of `length` steps are done; `line` says what of.
    pub fn show(&mut self, position: u64, length: u64, line: &str) {
        self.bar.set_position(position);
        if !self.bar.is_hidden() {
            self.bar.set_message(line.to_owned());
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_PERIOD) {
            self.last_line = Some(Instant::now());
            logs::print_line(&format!("{position}/{length} {line}"));
        }
    }

    /// The fleet's connecting: so many of all users are logged in.
    pub fn show_connecting(&mut self, online: u64, users: u64, statuses: &[Status]) {
        let failures: u64 = statuses.iter().map(|status| status.totals.connect_failures).sum();
        let (now, average) = (self.bar.per_sec(), online as f64 / self.bar.elapsed().as_secs_f64().max(f64::EPSILON));
        let left = if now > 0.0 { format!(" · {} s left", self.bar.eta().as_secs()) } else { String::new() };
        let megabytes = megabytes(statuses);
        let line = format!(
            "logged in · {now:.0}/s now, {average:.0}/s on average{left} · fleet {megabytes} MB · {failures} connects failed"
        );
        self.show(online, users, &line);
    }

    /// Nothing more to show.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Resident memory of all machines.
fn megabytes(statuses: &[Status]) -> u64 {
    statuses.iter().map(|status| status.process.rss_bytes).sum::<u64>() / 1_000_000
}

/// The fleet's last second that every machine has behind it, in a line; `left`: seconds of the
/// phase to come.
pub fn running(statuses: &[Status], phase: &str, left: u64) -> String {
    let mut latency = Micros::default();
    let mut seconds: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
    for status in statuses {
        latency.add(&status.last_second_latency);
        if let Some(row) = &status.last_second {
            let (planned, sent, answered) = seconds.entry(row.second).or_default();
            *planned += row.planned;
            *sent += row.sent;
            *answered += row.answered;
        }
    }
    let (_, (planned, sent, answered)) = seconds.pop_first().unwrap_or_default();
    let sum = |of: fn(&Status) -> u64| statuses.iter().map(of).sum::<u64>();
    let errors = sum(|status| status.totals.errors.values().chain(status.totals.violations.values()).sum());
    let away = sum(|status| status.storms.iter().map(|storm| storm.cut - storm.back).sum());
    let storm = if away > 0 { format!(" · {away} cut by a storm") } else { String::new() };
    format!(
        "s of {phase}, {left} s left · {} online{storm} · {sent}/{planned} sent, {answered} answered/s · p50 {} p99 {} µs · {} wins · {errors} errors",
        sum(|status| status.online),
        latency.quantile(0.5),
        latency.quantile(0.99),
        sum(|status| status.totals.prizes),
    )
}
