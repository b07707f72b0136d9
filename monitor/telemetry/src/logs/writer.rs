//! From an event to a line that is written: a bounded queue, and one thread that writes.
//!
//! Whoever logs serves users, so nobody waits for the log's reader, who may be a pipe that nobody
//! empties. A line that finds no room is dropped and counted; how many were is said in one line
//! once the reader reads again, and at `/metrics`. Half of the queue is for lines that are about
//! money, and only those wait for room. They wait no longer than [`PATIENCE`] altogether until the
//! reader has caught up: the ledger has what they say, and a server must not stop for its log.
//!
//! Not tracing-appender: its lines are bounded by number only, none can be preferred, those that a
//! write error loses are not counted, and at the end it prints to standard output, which may be
//! that same pipe.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::clock::unix_seconds;
use crate::logs::events;
use crate::logs::limit::Limiter;
use crate::logs::line::{self, Fields, Style};

/// Bytes of lines that wait to be written; as many are being written beside them.
pub const QUEUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What is not about money waits up to here only.
const ORDINARY_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;

/// How long lines about money wait for room, all of them together, from one moment at which all was
/// written to the next.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// For what is queued to be written when a process ends.
pub const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// How long withheld lines wait until their number is said.
const WITHHELD_PERIOD: Duration = Duration::from_secs(1);

/// Between two attempts to write to a descriptor that does not block.
const RETRY: Duration = Duration::from_millis(10);

static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Lines of this process that nobody will read.
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

/// The layer that turns events into lines.
#[derive(Clone)]
pub struct Log(Arc<Shared>);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

struct Shared {
    style: Style,
    state: Mutex<State>,
    /// There is something to write, or to wait for.
    queued: Condvar,
    /// The queue has room, or all is written.
    taken: Condvar,
}

struct State {
    limiter: Limiter,
    /// When it is said how many lines were withheld.
    withheld_due: Option<Instant>,
    /// Whole lines.
    pending: Vec<u8>,
    is_writing: bool,
    /// Lines that were dropped and not told of yet.
    lost: u64,
    patience: Duration,
}

impl State {
    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        LINES_LOST.fetch_add(lines, Ordering::Relaxed);
    }

    fn queue_withheld(&mut self, style: Style) {
        self.withheld_due = None;
        for (kind, level, count) in self.limiter.take_withheld() {
            self.pending.extend(line::withheld(style, SystemTime::now(), level, &kind, count).bytes());
        }
    }
}

impl Log {
    /// Lines of this style, at most `lines_per_second` of each kind that is limited.
    pub fn new(style: Style, lines_per_second: u32) -> Self {
        let state = State {
            limiter: Limiter::new(lines_per_second),
            withheld_due: None,
            pending: Vec::new(),
            is_writing: false,
            lost: 0,
            patience: PATIENCE,
        };
        Self(Arc::new(Shared { style, state: Mutex::new(state), queued: Condvar::new(), taken: Condvar::new() }))
    }

    /// Queues a line, with its end, or drops and counts it.
    pub(super) fn push(&self, line: &str, is_vital: bool) {
        let max = if is_vital { QUEUE_BYTES_MAX } else { ORDINARY_BYTES_MAX };
        let mut state = self.state();
        while is_vital && state.pending.len() + line.len() > max && !state.patience.is_zero() {
            let (patience, begun) = (state.patience, Instant::now());
            state = self.0.taken.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
            state.patience = state.patience.saturating_sub(begun.elapsed());
        }
        if state.pending.len() + line.len() > max {
            state.lose(1);
        } else {
            state.pending.extend_from_slice(line.as_bytes());
            drop(state);
            self.0.queued.notify_one();
        }
    }

    /// Waits until all is written, for at most [`FLUSH_DEADLINE`].
    pub fn flush(&self) {
        let mut state = self.state();
        state.queue_withheld(self.0.style);
        self.0.queued.notify_one();
        let is_busy = |state: &mut State| state.is_writing || !state.pending.is_empty();
        drop(self.0.taken.wait_timeout_while(state, FLUSH_DEADLINE, is_busy));
    }

    /// Writes what is queued, for ever.
    pub fn write_to(&self, mut to: impl Write) {
        let mut batch = Vec::new();
        loop {
            let told = self.take(&mut batch);
            let lines_before = batch.len();
            if told > 0 {
                batch.extend(line::lost(self.0.style, SystemTime::now(), told).bytes());
            }
            let written = write_all(&mut to, &batch);
            let mut state = self.state();
            state.is_writing = false;
            if written == batch.len() {
                state.lost -= told;
            } else {
                // Nobody is left to be told of the error itself.
                let unwritten = batch.get(written..lines_before).unwrap_or_default();
                state.lose(unwritten.iter().filter(|byte| **byte == b'\n').count() as u64);
            }
            drop(state);
            batch.clear();
        }
    }

    /// Waits for lines and takes all; returns how many were dropped that nobody was told of.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.state();
        loop {
            let left = state.withheld_due.map(|due| due.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                state.queue_withheld(self.0.style);
            }
            if !state.pending.is_empty() {
                std::mem::swap(&mut state.pending, batch);
                state.is_writing = true;
                self.0.taken.notify_all();
                return state.lost;
            }
            state.patience = PATIENCE;
            self.0.taken.notify_all();
            state = match state.withheld_due {
                None => self.0.queued.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    self.0.queued.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// What is behind the lock is whole at every moment, whoever panicked.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> String {
        let mut state = self.state();
        state.queue_withheld(self.0.style);
        String::from_utf8(state.pending.clone()).unwrap()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let fields = Fields::of(event);
        let (kind, level) = (fields.kind(), *event.metadata().level());
        let is_limited = events::is_limited(kind);
        if is_limited {
            let mut state = self.state();
            if !state.limiter.admit(kind, level, unix_seconds()) {
                if state.withheld_due.is_none() {
                    state.withheld_due = Some(Instant::now() + WITHHELD_PERIOD);
                    self.0.queued.notify_one();
                }
                return;
            }
        }
        self.push(&line::render(self.0.style, SystemTime::now(), level, &fields), !is_limited);
    }
}

/// Writes as much as can be written; returns how many bytes.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody else has the descriptor so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(_) => break,
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, pipe};

    use serde_json::Value;

    use super::*;
    use crate::logs::Format;

    fn log() -> Log {
        Log::new(Style { format: Format::Json, colours: false }, 10)
    }

    fn lost(log: &Log) -> u64 {
        log.state().lost
    }

    fn line() -> String {
        format!("{:1023}\n", "")
    }

    fn kib(bytes: usize) -> usize {
        bytes / 1024
    }

    #[test]
    fn half_of_the_queue_is_kept_for_what_is_about_money() {
        let (log, line) = (log(), line());
        (0..kib(ORDINARY_BYTES_MAX) + 5).for_each(|_| log.push(&line, false));
        assert_eq!(lost(&log), 5);
        (0..kib(QUEUE_BYTES_MAX - ORDINARY_BYTES_MAX)).for_each(|_| log.push(&line, true));
        assert_eq!((lost(&log), log.state().patience), (5, PATIENCE), "nobody has waited");
        assert_eq!(log.queued().len(), QUEUE_BYTES_MAX);
    }

    #[test]
    fn lines_about_money_wait_once_and_not_for_ever() {
        let (log, line) = (log(), line());
        (0..kib(QUEUE_BYTES_MAX)).for_each(|_| log.push(&line, true));
        let begun = Instant::now();
        log.push(&line, true);
        assert!(begun.elapsed() >= PATIENCE);
        (0..1_000).for_each(|_| log.push(&line, true));
        assert_eq!((lost(&log), log.state().patience), (1_001, Duration::ZERO));
    }

    #[test]
    fn an_unread_pipe_stops_nobody_and_what_is_missing_is_said() {
        let (reader, writer) = pipe().unwrap();
        let (log, line) = (log(), line());
        let thread = log.clone();
        std::thread::spawn(move || thread.write_to(writer));
        let pushed = 4 * kib(QUEUE_BYTES_MAX);
        (0..pushed).for_each(|_| log.push(&line, false));
        assert!(lost(&log) > 0);
        let (mut reader, mut whole, mut missing) = (BufReader::new(reader), 0, 0);
        while whole + missing < pushed as u64 {
            let mut text = String::new();
            reader.read_line(&mut text).unwrap();
            match serde_json::from_str::<Value>(&text) {
                Ok(notice) => {
                    assert_eq!(notice["event"], "log_lines_lost");
                    missing += notice["count"].as_u64().unwrap();
                }
                Err(_) => whole += u64::from(text == line),
            }
        }
        assert!(whole >= kib(ORDINARY_BYTES_MAX) as u64 && whole + missing == pushed as u64);
        // All is written: there is patience again.
        log.push(&line, true);
        reader.read_exact(&mut [0; 1024]).unwrap();
        log.flush();
        assert_eq!((lost(&log), log.state().patience), (0, PATIENCE));
    }

    #[test]
    fn what_cannot_be_written_counts_as_lost() {
        let log = log();
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let thread = log.clone();
        std::thread::spawn(move || thread.write_to(writer));
        (0..3).for_each(|_| log.push("line\n", true));
        log.flush();
        assert_eq!(lost(&log), 3);
    }
}
