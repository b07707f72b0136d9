//! What a person sees meanwhile: one bar where there is a terminal, else a line every few seconds, on standard error.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::histogram;
use crate::results::Status;

/// Between two lines where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Where progress goes.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Progress {
    /// A bar if standard error is a terminal.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} · {eta} left");
            ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last_line: None }
    }

    /// Something that a person should read.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// A new stretch of `length` steps.
    pub fn begin(&mut self, length: u64) {
        self.last_line = None;
        if let Some(bar) = &self.bar {
            bar.reset();
            bar.set_length(length);
        }
    }

    /// `position` of `length` steps are done; `line` says what of.
    pub fn show(&mut self, position: u64, length: u64, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(line.to_owned());
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_PERIOD) {
            self.last_line = Some(Instant::now());
            eprintln!("{position}/{length} {line}");
        }
    }

    /// Nothing more to show.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// The fleet's connecting in a line.
pub fn connecting(statuses: &[Status], seconds: u64) -> String {
    let online: u64 = statuses.iter().map(|status| status.online).sum();
    let failures: u64 = statuses.iter().map(|status| status.totals.connect_failures).sum();
    format!("logged in, {}/s, {failures} connects failed", online / seconds.max(1))
}

/// The fleet's last second that every machine has behind it, in a line.
pub fn running(statuses: &[Status], phase: &str) -> String {
    let mut latency = histogram::empty();
    let mut seconds: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
    for status in statuses {
        // One that has none yet, or cannot be read, is left out of a line that will be another in a second.
        histogram::add_base64(&mut latency, &status.last_second_latency).ok();
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
    format!(
        "s of {phase} · {} online · {sent}/{planned} sent, {answered} answered/s · p50 {} p99 {} µs · {} wins · {errors} errors",
        sum(|status| status.online),
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        sum(|status| status.totals.prizes),
    )
}
