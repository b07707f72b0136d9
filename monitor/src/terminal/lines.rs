//! What a person sees: a table that refreshes in place, or one line per second.
//!
//! A terminal may be slow, paused or gone; so drawing has a thread of its own that gets the newest
//! frame when it is free for one, and the run never waits for it. The terminal is given back on
//! every way out.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};

use crate::recording::write::RunStatus;
use crate::run::books::{Balance, Book, Sides};
use crate::run::merge::{Presence, SourceStatus};
use crate::run::second::Headline;

/// For the drawing thread to give the terminal back when the run is over.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// What to show while running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ViewMode {
    /// A table on a terminal, lines elsewhere.
    Auto,
    /// A table that refreshes in place; needs a terminal.
    Table,
    /// One line per second.
    Lines,
    /// Nothing.
    None,
}

impl ViewMode {
    /// Decides `Auto`.
    #[must_use]
    pub fn resolved(self) -> Self {
        match self {
            ViewMode::Auto if io::stdout().is_terminal() => ViewMode::Table,
            ViewMode::Auto => ViewMode::Lines,
            other => other,
        }
    }
}

/// Everything that one refresh shows.
#[derive(Debug)]
pub struct Frame {
    /// The second's figures.
    pub headline: Headline,
    /// The books at its end.
    pub books: Balance,
    /// Some who did not report.
    pub missing: Vec<String>,
    /// Everybody.
    pub sources: Vec<SourceStatus>,
    /// Where the recording lies.
    pub record: PathBuf,
    /// Writes to it that failed.
    pub record_failures: u64,
}

/// The running view.
#[derive(Debug)]
pub struct View(Option<Drawing>);

#[derive(Debug)]
struct Drawing {
    frames: SyncSender<Frame>,
    done: Receiver<()>,
}

impl View {
    /// Starts showing. `banner` is repeated at the top of a table.
    pub fn start(mode: ViewMode, banner: String) -> io::Result<Self> {
        let draw: fn(&str, &Receiver<Frame>) -> io::Result<()> = match mode.resolved() {
            ViewMode::Table => tables,
            ViewMode::Lines => lines,
            ViewMode::None | ViewMode::Auto => return Ok(Self(None)),
        };
        let (frames, inbox) = sync_channel(1);
        let (finished, done) = sync_channel(1);
        std::thread::Builder::new().name("view".into()).spawn(move || {
            if let Err(error) = draw(&banner, &inbox) {
                tracing::warn!(event = "view_failed", %error, "nothing more is shown: standard output failed");
            }
            if finished.send(()).is_err() {
                tracing::debug!(event = "view_abandoned", "the view was given up before it ended");
            }
        })?;
        Ok(Self(Some(Drawing { frames, done })))
    }

    /// Shows a frame if the last one has been drawn; else this one is skipped.
    pub fn show(&self, frame: impl FnOnce() -> Frame) {
        if let Some(drawing) = &self.0
            && drawing.frames.try_send(frame()).is_err()
        {
            tracing::trace!(event = "frame_skipped", "frame skipped: the terminal is slow or gone");
        }
    }

    /// Stops showing and gives the terminal back. False if standard output takes nothing: whoever
    /// writes to it next hangs.
    #[must_use]
    pub fn close(&mut self) -> bool {
        let Some(Drawing { frames, done }) = self.0.take() else { return true };
        drop(frames);
        done.recv_timeout(CLOSE_DEADLINE).is_ok()
    }
}

/// Leaves the table's screen, from anywhere; harmless where there is none.
pub fn restore_terminal() {
    let mut stdout = io::stdout();
    if stdout.is_terminal()
        && let Err(error) = execute!(stdout, LeaveAlternateScreen, cursor::Show)
    {
        tracing::warn!(event = "terminal_stuck", %error, "the terminal cannot be given back");
    }
}

fn lines(_banner: &str, frames: &Receiver<Frame>) -> io::Result<()> {
    for frame in frames {
        writeln!(io::stdout(), "{}", line(&frame))?;
    }
    Ok(())
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

/// Fen as yuan, without a float.
fn yuan(fen: i64) -> String {
    let sign = if fen < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", fen.unsigned_abs() / 100, fen.unsigned_abs() % 100)
}

struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore_terminal();
    }
}

fn tables(banner: &str, frames: &Receiver<Frame>) -> io::Result<()> {
    let screen = Screen::enter()?;
    draw(&format!("{banner}\nwaiting for the first report"))?;
    for frame in frames {
        draw(&page(banner, &frame))?;
    }
    drop(screen);
    Ok(())
}

fn draw(text: &str) -> io::Result<()> {
    let (columns, rows) = crossterm::terminal::size()?;
    let mut stdout = io::stdout().lock();
    queue!(stdout, cursor::MoveTo(0, 0))?;
    // The last row stays free: writing to its end would scroll.
    for (row, line) in (0..rows.saturating_sub(1)).zip(text.lines()) {
        let cut: String = line.chars().take(columns.into()).collect();
        queue!(stdout, cursor::MoveTo(0, row))?;
        write!(stdout, "{cut}")?;
        queue!(stdout, Clear(ClearType::UntilNewLine))?;
    }
    let drawn = u16::try_from(text.lines().count()).unwrap_or(rows).min(rows.saturating_sub(1));
    queue!(stdout, cursor::MoveTo(0, drawn), Clear(ClearType::FromCursorDown))?;
    stdout.flush()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header.iter().copied());
    table
}

fn right_aligned(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn page(banner: &str, frame: &Frame) -> String {
    let figures = &frame.headline;
    let time = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(figures.second));
    let state = if figures.complete {
        "complete".to_owned()
    } else if frame.missing.is_empty() {
        "INCOMPLETE: holds what belongs to another second".to_owned()
    } else {
        format!("INCOMPLETE: without {}", frame.missing.join(", "))
    };
    let mut rates = table(&["users", "planned/s", "sent/s", "received/s", "answered/s", "issued/s", "won/s"]);
    rates.add_row(
        [
            figures.users_online,
            figures.planned,
            figures.sent,
            figures.received,
            figures.answered,
            figures.issued,
            figures.won,
        ]
        .map(|value| value.to_string()),
    );
    right_aligned(&mut rates, 0);
    let mut latency = table(&["latency p50", "p99", "p99.9", "max", "send lag p99"]);
    latency.add_row(
        [
            figures.latency_p50_us,
            figures.latency_p99_us,
            figures.latency_p999_us,
            figures.latency_max_us,
            figures.send_lag_p99_us,
        ]
        .map(milliseconds),
    );
    right_aligned(&mut latency, 0);
    let mut sources = table(&["source", "state", "last second", "reports", "instances"]);
    for source in &frame.sources {
        sources.add_row([
            format!("{}/{}", source.role, source.name),
            match source.presence {
                Presence::Reporting => "reporting",
                Presence::Left => "left",
                Presence::Lost => "LOST",
            }
            .to_owned(),
            source.last_second.map_or_else(String::new, |second| second.to_string()),
            source.reports.to_string(),
            source.instances.to_string(),
        ]);
    }
    right_aligned(&mut sources, 2);
    let failing =
        if frame.record_failures > 0 { format!(" ({} writes FAILED)", frame.record_failures) } else { String::new() };
    format!(
        "{banner}\n{time}  {state}\n{rates}\n{latency}\n{}\n{sources}\nrecording: {}{failing}\n",
        books(&frame.books),
        frame.record.display(),
    )
}

fn books(books: &Balance) -> Table {
    let mut table = table(&["books", "prizes", "yuan"]);
    let claims = &books.claims;
    table.add_row(["issued".to_owned(), claims.issued.to_string(), String::new()]);
    table.add_row(["servers say paid".to_owned(), claims.won.to_string(), yuan(claims.paid_fen)]);
    table.add_row(["users say received".to_owned(), claims.prizes_received.to_string(), yuan(claims.received_fen)]);
    for (book, servers, users) in [
        (Book::Sales, "servers say sold", "users say bought"),
        (Book::Envelopes, "servers say opened", "users say opened"),
    ] {
        let sides = claims.sides(book);
        if sides != Sides::default() {
            table.add_row([servers.to_owned(), sides.servers_count.to_string(), yuan(sides.servers_fen)]);
            table.add_row([users.to_owned(), sides.users_count.to_string(), yuan(sides.users_fen)]);
        }
    }
    let residual = match books.unbalanced_seconds {
        0 => "residual".to_owned(),
        seconds => format!("residual, for {seconds} s"),
    };
    // Of all books: what one has too much must not hide what another lacks, so each that does not
    // balance has its row.
    table.add_row([residual, books.residual_prizes.to_string(), yuan(books.residual_fen)]);
    for book in [Book::Sales, Book::Envelopes] {
        let sides = claims.sides(book);
        if !sides.balanced() {
            let name = format!("residual of {}", book.name());
            table.add_row([name, sides.residual_count().to_string(), yuan(sides.residual_fen())]);
        }
    }
    right_aligned(&mut table, 1);
    table
}

/// The final books, for people.
pub fn summary(run: &RunStatus, processes: usize) -> String {
    let mut text = format!("{}\n", books(&run.books));
    text.push_str(&format!(
        "{} seconds, {} of them complete, from {} processes; the books {}\n",
        run.seconds,
        run.seconds_complete,
        processes,
        if run.books.balanced() { "agree" } else { "DO NOT agree" },
    ));
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
            missing: vec!["machine/m2".into()],
            sources: vec![],
            record: "recordings/x".into(),
            record_failures: 0,
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
    fn a_page_names_who_is_missing_and_shows_the_books_in_yuan() {
        let page = page("banner", &frame());
        for part in ["banner", "without machine/m2", "residual, for 3 s", "-2.05", "recordings/x"] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
