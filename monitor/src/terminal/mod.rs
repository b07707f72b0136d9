//! `hongbao-monitor top`: the run on a terminal, for an ssh session.
//!
//! [`feed`] brings what a monitor's HTTP interface says, [`state`] keeps it, [`screen`] draws it,
//! [`tty`] takes the terminal and gives it back. The picture changes at most once a second,
//! and with keys: a slow link carries it.

pub mod feed;
pub mod lines;
pub mod screen;
pub mod state;
pub mod tty;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use hongbao_proto::token::{Audience, Signer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::terminal::feed::Monitor;
use crate::terminal::screen::{Choice, View, draw};
use crate::terminal::state::State;
use crate::terminal::tty::Screen;
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::credentials;

/// Between two pictures, unless a key asks for one.
const FRAME_PERIOD: Duration = Duration::from_secs(1);

/// Lifetime of the token that is made of the secret, seconds: longer than anybody watches.
const TOKEN_SECONDS: u64 = 7 * 86_400;

/// Bytes of a token's file.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

/// Updates that wait to be taken in.
const UPDATES_MAX: usize = 256;

/// Arguments of `hongbao-monitor top`.
#[derive(Debug, Clone, Args)]
pub struct TopArguments {
    /// The monitor's HTTP interface
    #[arg(long, env = "HONGBAO_MONITOR_URL", value_name = "URL", default_value = "http://127.0.0.1:7404")]
    monitor: String,
    /// File with an administrator's token, for a monitor that is not on loopback
    #[arg(long, env = "HONGBAO_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the family's secret, of which a token is made
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    secret_file: Option<PathBuf>,
}

/// Why it does not run, or stopped. One line.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// An argument cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The terminal cannot be used any more.
    #[error("terminal: {0}")]
    Terminal(#[from] io::Error),
}

impl TopError {
    pub fn exit_code(&self) -> u8 {
        match self {
            TopError::Usage(_) => 2,
            TopError::Terminal(_) => 1,
        }
    }
}

impl TopArguments {
    /// Checks them. The secret of the environment is used where there is one, since a monitor on
    /// loopback wants none.
    fn checked(&self) -> Result<Monitor, TopError> {
        let url = self.monitor.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") {
            return Err(TopError::Usage(format!("--monitor {url}: give http://HOST:PORT")));
        }
        let token = match &self.token_file {
            Some(path) => Some(
                read_token(path).map_err(|why| TopError::Usage(format!("--token-file {}: {why}", path.display())))?,
            ),
            None => match credentials::load_secret(self.secret_file.as_deref()) {
                Ok(secret) => {
                    let token = Signer::new(&secret).sign("top", Audience::Admin, unix_seconds(), TOKEN_SECONDS);
                    Some(token.map_err(|error| TopError::Usage(error.to_string()))?)
                }
                Err(credentials::CredentialError::Missing) => None,
                Err(error) => return Err(TopError::Usage(error.to_string())),
            },
        };
        Ok(Monitor { url, token })
    }
}

fn read_token(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > TOKEN_BYTES_MAX {
        return Err(format!("{length} bytes are too many for a token"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it does not hold one token; `hongbao-server token --for admin NAME` prints one".to_owned());
    }
    Ok(token.to_owned())
}

/// Shows the run until a key or a signal ends it.
pub async fn run(arguments: &TopArguments) -> Result<(), TopError> {
    let monitor = arguments.checked()?;
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(terminate), Ok(interrupt), Ok(hangup)] = &mut ends else {
        return Err(io::Error::other("signals cannot be received").into());
    };
    let colours = std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let mut screen = Screen::take()?;
    let mut keys = tty::events()?;
    let (sender, mut updates) = mpsc::channel(UPDATES_MAX);
    let mut feed = JoinSet::new();
    feed.spawn(feed::run(monitor, sender));
    let mut show = Show { choice: Choice { colours, ..Choice::default() }, ..Show::default() };
    let mut frames = interval(FRAME_PERIOD);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_new = true;
    let mut drawn_at: Option<Instant> = None;
    loop {
        // The first word of the monitor is shown at once; then once a second will do.
        if is_new && drawn_at.is_none_or(|at| at.elapsed() >= FRAME_PERIOD || show.state.rows.len() < 2) {
            show.draw(&mut screen)?;
            (is_new, drawn_at) = (false, Some(Instant::now()));
        }
        tokio::select! {
            update = updates.recv() => {
                show.state.apply(update.ok_or_else(|| io::Error::other("the monitor is not followed any more"))?);
                is_new = true;
            }
            event = keys.recv() => match event.transpose()? {
                Some(event) if !show.press(&event) => (is_new, drawn_at) = (true, None),
                _ => return Ok(()),
            },
            _ = frames.tick() => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}

/// What is shown, and what the keys have made of it.
#[derive(Debug, Default)]
struct Show {
    state: State,
    /// What was shown when the picture was stopped.
    paused: Option<Box<State>>,
    choice: Choice,
    /// How far the list can be scrolled.
    scrollable: usize,
}

impl Show {
    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        let state = self.paused.as_deref().unwrap_or(&self.state);
        let (choice, scrollable) = (self.choice, &mut self.scrollable);
        screen.0.draw(|frame| *scrollable = draw(frame, state, &choice, unix_seconds()))?;
        self.choice.scroll = self.choice.scroll.min(self.scrollable);
        Ok(())
    }

    /// Follows a key; true: it is over.
    fn press(&mut self, event: &Event) -> bool {
        let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press | KeyEventKind::Repeat, .. }) = event
        else {
            return false;
        };
        let choice = &mut self.choice;
        match code {
            KeyCode::Char('c' | 'd') if modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Esc if choice.help => choice.help = false,
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('p' | ' ') => {
                choice.paused = !choice.paused;
                self.paused = choice.paused.then(|| Box::new(self.state.clone()));
            }
            KeyCode::Char('?' | 'h') => choice.help = !choice.help,
            KeyCode::Tab => (choice.view, choice.scroll) = (choice.view.next(), 0),
            KeyCode::Char(digit @ '1'..='4') => {
                let index = digit.to_digit(10).unwrap_or(1) as usize - 1;
                (choice.view, choice.scroll) = (View::ALL[index], 0);
            }
            KeyCode::Down | KeyCode::Char('j') => choice.scroll = (choice.scroll + 1).min(self.scrollable),
            KeyCode::Up | KeyCode::Char('k') => choice.scroll = choice.scroll.saturating_sub(1),
            KeyCode::PageDown => choice.scroll = (choice.scroll + 10).min(self.scrollable),
            KeyCode::PageUp => choice.scroll = choice.scroll.saturating_sub(10),
            KeyCode::Home => choice.scroll = 0,
            KeyCode::End => choice.scroll = self.scrollable,
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(show: &mut Show, code: KeyCode) -> bool {
        show.press(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    #[test]
    fn keys_choose_what_is_shown_and_stop_the_picture_and_quit() {
        let mut show = Show { scrollable: 3, ..Show::default() };
        assert!(!press(&mut show, KeyCode::Tab));
        assert_eq!(show.choice.view, View::Machines);
        (0..9).for_each(|_| assert!(!press(&mut show, KeyCode::Down)));
        assert_eq!(show.choice.scroll, 3);
        press(&mut show, KeyCode::Char('4'));
        assert_eq!((show.choice.view, show.choice.scroll), (View::Events, 0));
        press(&mut show, KeyCode::Char('p'));
        show.state.run = "later".to_owned();
        assert_eq!(show.paused.as_ref().map(|state| state.run.as_str()), Some(""));
        press(&mut show, KeyCode::Char('p'));
        assert!(show.paused.is_none());
        press(&mut show, KeyCode::Char('?'));
        assert!(!press(&mut show, KeyCode::Esc), "the first Esc closes the help");
        assert!(press(&mut show, KeyCode::Esc));
        assert!(press(&mut show, KeyCode::Char('q')));
        let control_c = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(show.press(&control_c));
    }

    #[test]
    fn a_file_without_a_token_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for text in ["", "two words", "x\u{1b}y"] {
            std::fs::write(&path, text).unwrap();
            assert!(read_token(&path).unwrap_err().contains("hongbao-server token"), "{text:?}");
        }
        std::fs::write(&path, "abc.def\n").unwrap();
        assert_eq!(read_token(&path), Ok("abc.def".to_owned()));
    }
}
