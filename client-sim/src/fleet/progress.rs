//! What a person sees meanwhile: one bar where there is a terminal, else a line every few seconds,
//! on standard error.

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use hongbao_telemetry::logs;
use indicatif::{ProgressBar, ProgressStyle};

use crate::histogram;
use crate::results::Status;

/// Between two lines where there is no terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Over how long a rate is taken.
const RATE_SPAN: Duration = Duration::from_secs(4);

/// How fast a count grows at the moment, and has grown from the beginning.
#[derive(Debug, Default)]
pub struct Rate {
    /// (since the beginning, count), the last [`RATE_SPAN`] of them and one before.
    readings: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// A reading, later than all before.
    pub fn add(&mut self, at: Duration, count: u64) {
        self.readings.push_back((at, count));
        while self.readings.get(1).is_some_and(|(second, _)| at.saturating_sub(*second) >= RATE_SPAN) {
            self.readings.pop_front();
        }
    }

    /// A second, lately.
    pub fn now(&self) -> f64 {
        self.readings.front().map_or(0.0, |&from| self.since(from))
    }

    /// A second, from the beginning.
    pub fn average(&self) -> f64 {
        self.since((Duration::ZERO, 0))
    }

    /// Seconds until the count is `goal`, if it grows as it does.
    pub fn seconds_to(&self, goal: u64) -> Option<f64> {
        let &(_, count) = self.readings.back()?;
        let rate = self.now();
        (rate > 0.0).then(|| goal.saturating_sub(count) as f64 / rate)
    }

    fn since(&self, (from, before): (Duration, u64)) -> f64 {
        let Some(&(to, count)) = self.readings.back() else { return 0.0 };
        let elapsed = to.saturating_sub(from).as_secs_f64();
        if elapsed > 0.0 { count.saturating_sub(before) as f64 / elapsed } else { 0.0 }
    }
}

#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Progress {
    /// A bar if standard error is a terminal.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
            ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, last_line: None }
    }

    /// Something that a person should read.
    pub fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => logs::print_line(line),
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
            logs::print_line(&format!("{position}/{length} {line}"));
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

/// The fleet's connecting towards `goal` users in a line.
pub fn connecting(statuses: &[Status], rate: &Rate, goal: u64) -> String {
    let failures: u64 = statuses.iter().map(|status| status.totals.connect_failures).sum();
    let left = rate.seconds_to(goal).map_or_else(String::new, |seconds| format!(" · {seconds:.0} s left"));
    format!(
        "logged in · {:.0}/s now, {:.0}/s on average{left} · fleet {} MB · {failures} connects failed",
        rate.now(),
        rate.average(),
        megabytes(statuses),
    )
}

/// Resident memory of all machines.
fn megabytes(statuses: &[Status]) -> u64 {
    statuses.iter().map(|status| status.process.rss_bytes).sum::<u64>() / 1_000_000
}

/// The fleet's last second that every machine has behind it, in a line; `left`: seconds of the
/// phase to come.
pub fn running(statuses: &[Status], phase: &str, left: u64) -> String {
    let mut latency = histogram::empty();
    let mut seconds: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
    for status in statuses {
        // One that has none yet, or cannot be read, is left out of a line that will be another in a
        // second.
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
    let away = sum(|status| status.storms.iter().map(|storm| storm.cut - storm.back).sum());
    let storm = if away > 0 { format!(" · {away} cut by a storm") } else { String::new() };
    format!(
        "s of {phase}, {left} s left · {} online{storm} · {sent}/{planned} sent, {answered} answered/s · p50 {} p99 {} µs · {} wins · {errors} errors",
        sum(|status| status.online),
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        sum(|status| status.totals.prizes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_last_seconds_and_says_when_all_are_there() {
        let mut rate = Rate::default();
        assert_eq!(rate.seconds_to(10), None);
        for tenth in 0..100 {
            // 100 a second for 5 s, then 300 a second.
            rate.add(Duration::from_millis(100 * tenth), 10 * tenth + 20 * tenth.saturating_sub(50));
        }
        assert!((rate.now() - 300.0).abs() < 0.1, "{}", rate.now());
        assert!((rate.average() - 200.0).abs() < 2.0, "{}", rate.average());
        assert!((rate.seconds_to(1_970 + 600).unwrap() - 2.0).abs() < 0.1);
        assert_eq!(rate.seconds_to(7), Some(0.0));
    }
}
