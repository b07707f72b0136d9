//! What the monitor writes to standard output: one line a second, and the final books.
//!
//! Whoever reads may be slow, paused or gone; so writing has a thread of its own that gets the
//! newest frame when it is free for one, and the run never waits for it.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use hongbao_telemetry::table::aligned;

use crate::recording::RunStatus;
use crate::run::books::{Balance, Book, Sides, Trade};
use crate::run::second::Headline;
use crate::words::{plain_yuan, thousands};

/// For the last line to be taken when the run is over.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// What to show while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ViewMode {
    /// One line per second.
    Lines,
    /// Nothing.
    None,
}

#[derive(Debug)]
pub struct Frame {
    /// The second's figures.
    pub headline: Headline,
    pub books: Balance,
}

/// The way to its thread, and what that says when it has ended.
#[derive(Debug)]
pub struct View(Option<(SyncSender<Frame>, Receiver<()>)>);

impl View {
    pub fn start(mode: ViewMode) -> io::Result<Self> {
        if mode == ViewMode::None {
            return Ok(Self(None));
        }
        let (frames, inbox) = sync_channel::<Frame>(1);
        let (finished, done) = sync_channel(1);
        std::thread::Builder::new().name("view".into()).spawn(move || {
            let written = inbox.iter().try_for_each(|frame| writeln!(io::stdout(), "{}", line(&frame)));
            if let Err(error) = written {
                tracing::warn!(event = "view_failed", %error, "nothing more is shown: standard output failed");
            }
            if finished.send(()).is_err() {
                tracing::debug!(event = "view_abandoned", "the view was given up before it ended");
            }
        })?;
        Ok(Self(Some((frames, done))))
    }

    /// Shows a frame if the last one has been drawn; else this one is skipped.
    pub fn show(&self, frame: impl FnOnce() -> Frame) {
        if let Some((frames, _)) = &self.0
            && frames.try_send(frame()).is_err()
        {
            tracing::trace!(event = "frame_skipped", "frame skipped: the terminal is slow or gone");
        }
    }

    /// Stops showing. False if standard output takes nothing: whoever writes to it next hangs.
    #[must_use]
    pub fn close(&mut self) -> bool {
        let Some((frames, done)) = self.0.take() else { return true };
        drop(frames);
        done.recv_timeout(CLOSE_DEADLINE).is_ok()
    }
}

/// One compact line: the second, who reported, the rates, the latency, the residual.
fn line(frame: &Frame) -> String {
    let figures = &frame.headline;
    let incomplete = if figures.complete { "" } else { " INCOMPLETE" };
    format!(
        "{} sources {}/{} online {} planned {} sent {} received {} answered {} issued {} won {} \
         p50 {} p99 {} max {} lag-p99 {} residual {} prizes {} fen ({} s){incomplete}",
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(figures.second)),
        figures.sources_reported,
        figures.sources_expected,
        figures.users_online,
        figures.planned,
        figures.sent,
        figures.received,
        figures.answered,
        figures.issued,
        figures.won,
        milliseconds(figures.latency_p50_us),
        milliseconds(figures.latency_p99_us),
        milliseconds(figures.latency_max_us),
        milliseconds(figures.send_lag_p99_us),
        frame.books.residual_prizes,
        frame.books.residual_fen,
        frame.books.unbalanced_seconds,
    )
}

/// Microseconds as milliseconds, to three places, without a float.
fn milliseconds(us: u64) -> String {
    format!("{}.{:03}ms", us / 1000, us % 1000)
}

fn books(books: &Balance) -> String {
    let row = |name: &str, count: i64, fen: i64| vec![name.to_owned(), thousands(count), plain_yuan(fen)];
    let mut rows = vec![vec!["issued".to_owned(), thousands(books.claims.issued), String::new()]];
    let residual = match books.unbalanced_seconds {
        0 => "residual".to_owned(),
        seconds => format!("residual, for {seconds} s"),
    };
    // What one book has too much must not hide what another lacks: each that does not balance has
    // its row.
    let mut residuals = vec![row(&residual, books.residual_prizes, books.residual_fen)];
    let verbs = [("paid", "received"), ("sold", "bought"), ("opened", "opened")];
    for (Trade { book, sides, residual_count, residual_fen }, (gave, got)) in
        books.claims.trades().into_iter().zip(verbs)
    {
        let is_rain = book == Book::Rain.name();
        if is_rain || sides != Sides::default() {
            rows.push(row(&format!("servers say {gave}"), sides.servers_count, sides.servers_fen));
            rows.push(row(&format!("users say {got}"), sides.users_count, sides.users_fen));
        }
        if !is_rain && !sides.balanced() {
            residuals.push(row(&format!("residual of {book}"), residual_count, residual_fen));
        }
    }
    rows.extend(residuals);
    aligned(&["books", "prizes", "yuan"], &rows)
}

/// The final books, for people.
pub fn summary(run: &RunStatus, processes: usize) -> String {
    let verdict = if run.books.balanced() { "agree" } else { "DO NOT agree" };
    let mut text = format!(
        "{}\n{} seconds, {} of them complete, from {processes} processes; the books {verdict}\n",
        books(&run.books),
        run.seconds,
        run.seconds_complete,
    );
    if run.joined_late {
        text.push_str(
            "some processes were running before this monitor: what was in flight then stays in the residual\n",
        );
    }
    if run.record_failures > 0 {
        text.push_str(&format!("{} writes to the recording FAILED\n", run.record_failures));
    }
    text.push_str(&format!("recording: {}\n", run.record.display()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            headline: Headline { second: 1_700_000_000, sent: 5_000, latency_p99_us: 1_234, ..Headline::default() },
            books: Balance { residual_prizes: 2, residual_fen: -205, unbalanced_seconds: 3, ..Balance::default() },
        }
    }

    #[test]
    fn a_line_holds_the_figures_and_marks_an_incomplete_second() {
        let line = line(&frame());
        for part in
            ["2023-11-14T22:13:20Z", "sent 5000", "p99 1.234ms", "residual 2 prizes -205 fen (3 s)", "INCOMPLETE"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains('\n'));
    }

    #[test]
    fn the_books_are_in_yuan_and_say_how_long_they_have_differed() {
        let books = books(&frame().books);
        for part in ["residual, for 3 s", "-2.05"] {
            assert!(books.contains(part), "{part} in {books}");
        }
    }
}
