//! The log of every program of the family: to standard error, one line for each fact, for people or
//! for programs.
//!
//! Each event names its kind (`event`), and all kinds are in one table ([`events`]). Of each kind
//! so many lines a second are let through ([`limit`]); once a second it is said how many were
//! withheld, so that no peer can fill a disk, and nothing goes unsaid. What a line looks like is in
//! [`line`]; a reader who does not read it stops nobody ([`writer`]).

pub mod events;
pub mod limit;
pub mod line;
pub mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::thread;

use clap::{Args, ValueEnum};
use nix::sys::signal::{SigSet, SigmaskHow};
use serde::Deserialize;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::logs::limit::LINES_PER_SECOND;
use crate::logs::line::Style;
use crate::logs::writer::Log;

/// Environment of [`LogArgs::filter`].
pub const FILTER_VARIABLE: &str = "HONGBAO_LOG";

/// Environment of [`LogArgs::format`].
pub const FORMAT_VARIABLE: &str = "HONGBAO_LOG_FORMAT";

/// What is looked at where neither a flag nor [`FILTER_VARIABLE`] says what to log.
pub const CUSTOMARY_VARIABLE: &str = "RUST_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object per line: ts, level, event, msg, and the fields of the event.
    Json,
}

impl Format {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Pretty => "pretty",
            Format::Json => "json",
        }
    }
}

/// What any of the programs can be told about its log.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// What to log to standard error: a level, or directives such as info,facts=debug; else
    /// RUST_LOG says so
    #[arg(id = "log_filter", long = "log", env = FILTER_VARIABLE, value_name = "FILTER")]
    pub filter: Option<String>,
    /// How log lines look [default: pretty]
    #[arg(long = "log-format", env = FORMAT_VARIABLE, value_enum)]
    pub format: Option<Format>,
}

/// A filter that cannot be read. One line.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log {filter:?}: {problem}; give a level (error, warn, info, debug, trace), or directives such as info,facts=debug"
)]
pub struct FilterError {
    filter: String,
    problem: String,
}

/// A log that was checked and not begun yet.
#[derive(Debug)]
pub struct LogConfig {
    filter: EnvFilter,
    format: Format,
}

impl LogArgs {
    /// Checks what was given. Without it [`CUSTOMARY_VARIABLE`] counts, where it can be read: it is
    /// often meant for others. `default`: a level.
    pub fn checked(&self, default: &str) -> Result<LogConfig, FilterError> {
        let format = self.format.unwrap_or_default();
        let filter = match self.filter.as_deref().filter(|filter| !filter.trim().is_empty()) {
            Some(filter) => EnvFilter::try_new(filter)
                .map_err(|error| FilterError { filter: filter.to_owned(), problem: error.to_string() })?,
            None => std::env::var(CUSTOMARY_VARIABLE)
                .ok()
                .filter(|filter| !filter.trim().is_empty())
                .and_then(|filter| EnvFilter::try_new(filter).ok())
                .unwrap_or_else(|| EnvFilter::new(default)),
        };
        Ok(LogConfig { filter, format })
    }
}

impl LogConfig {
    /// Logs to standard error from here on, until the process ends. Keep what is returned until the
    /// end of `main`.
    ///
    /// # Errors
    /// If no thread can be had, or the process logs already.
    pub fn begin(self) -> io::Result<LogGuard> {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let log = Log::new(Style { format: self.format, colours }, LINES_PER_SECOND);
        let writer = log.clone();
        // Begun here and not when it is needed: a thread inherits the descriptors and the core of
        // the one that starts it. And it takes no signal: those are handled where their descriptors
        // are, which may be in another table than this thread's.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_to(io::stderr()));
        if let Ok(mask) = mask {
            // It was the mask a moment ago.
            mask.thread_set_mask().ok();
        }
        thread?;
        Registry::default().with(self.filter).with(log.clone()).try_init().map_err(io::Error::other)?;
        LOG.set(log).ok();
        panic::set_hook(Box::new(log_panic));
        Ok(LogGuard(()))
    }
}

/// The one log of this process, once it has begun.
static LOG: OnceLock<Log> = OnceLock::new();

/// Writes what is queued when it is dropped, see [`flush`].
#[derive(Debug)]
#[must_use]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        flush();
    }
}

/// Waits until all that was logged is written, for at most [`writer::FLUSH_DEADLINE`]: before the
/// process ends.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// A line for people among those of the log, bounded and lossy as they are.
pub fn print_line(line: &str) {
    match LOG.get() {
        Some(log) => log.push(&format!("{line}\n"), false),
        None => eprintln!("{line}"),
    }
}

/// A panic may end the process: it is written, and all that was logged before it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(event = "panicked", thread = thread.name(), place, "{message}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        print_line(&backtrace.to_string());
    }
    flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(format: Format, per_second: u32, act: impl FnOnce()) -> Vec<String> {
        let log = Log::new(Style { format, colours: false }, per_second);
        let subscriber = Registry::default().with(EnvFilter::new("trace")).with(log.clone());
        tracing::subscriber::with_default(subscriber, act);
        log.queued().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_of_json_has_stable_names_first_then_the_events_own() {
        let lines = logged(Format::Json, 10, || {
            let user = 42u64;
            tracing::info!(event = "peer_refused", user, who = %"a\"b\n", ok = true, "said \u{1b}[31mred");
        });
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(lines.len(), 1);
        let begin = lines[0].find("\"level\"").unwrap();
        assert!(lines[0][begin..].starts_with(r#""level":"info","event":"peer_refused","msg":"said "#), "{}", lines[0]);
        assert_eq!((&value["user"], &value["ok"], &value["who"]), (&42.into(), &true.into(), &"a\"b\n".into()));
        let ts = value["ts"].as_str().unwrap();
        assert!(ts.ends_with('Z') && ts.len() == "2026-11-21T20:38:40.123456Z".len(), "{ts}");
        assert!(humantime::parse_rfc3339(ts).is_ok());
    }

    #[test]
    fn no_field_of_a_stranger_can_forge_a_line_or_colour_a_terminal() {
        let lines = logged(Format::Pretty, 10, || {
            let peer = "x\n2026 ERROR forged\u{1b}[31m\u{9b}31m\u{2028}";
            tracing::info!(event = "peer_refused", peer, "{peer}");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(!lines[0].chars().any(|c| c.is_control() || c == '\u{2028}'), "{lines:?}");
    }

    #[test]
    fn a_flood_leaves_few_lines_and_the_right_count() {
        let lines = logged(Format::Json, 10, || {
            for peer in 0..1_000u64 {
                tracing::info!(event = "peer_refused", peer, "refused");
            }
        });
        let (mut said, mut withheld) = (0, 0);
        for line in &lines {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            if value["event"] == "withheld" {
                assert_eq!((&value["of"], &value["level"]), (&"peer_refused".into(), &"info".into()));
                withheld += value["count"].as_u64().unwrap();
            } else {
                said += 1;
            }
        }
        // The flood may lie across the end of a second.
        assert!((10..=20).contains(&said) && said + withheld == 1_000, "{said} said, {withheld} withheld");
    }

    #[test]
    fn what_is_about_money_is_never_withheld() {
        let lines = logged(Format::Json, 1, || {
            for residual in 0..50u64 {
                tracing::error!(event = "prizes_unaccounted", residual, "prizes are unaccounted for");
                tracing::debug!(target: "facts", event = "win", residual, "won");
            }
        });
        assert_eq!(lines.len(), 100);
    }

    #[test]
    fn a_field_without_end_is_cut_and_says_so() {
        let lines = logged(Format::Json, 10, || {
            tracing::info!(event = "peer_refused", who = "é".repeat(1 << 20), "refused");
        });
        assert!(lines[0].len() < 3 * line::FIELD_BYTES_MAX, "{} bytes", lines[0].len());
        let value: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert!(value["who"].as_str().unwrap().ends_with('…'));
    }

    #[test]
    fn what_a_library_says_is_told_apart_by_its_target() {
        let lines = logged(Format::Json, 10, || tracing::warn!(target: "hyper::proto", "odd"));
        assert!(lines[0].contains(r#""event":"foreign","msg":"odd","target":"hyper::proto""#), "{}", lines[0]);
    }

    #[test]
    fn an_unreadable_filter_is_refused_in_one_line_with_the_remedy() {
        let args = LogArgs { filter: Some("a=b=c".to_owned()), format: None };
        let said = args.checked("info").unwrap_err().to_string();
        assert!(said.contains("--log \"a=b=c\"") && said.contains("give a level") && !said.contains('\n'), "{said}");
    }
}
