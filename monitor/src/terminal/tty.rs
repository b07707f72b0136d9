//! The terminal, taken and given back on every way out: an orderly end, an error, a panic, a
//! signal, an output that is closed.

use std::io::{self, IsTerminal, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{cursor, execute};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio::sync::mpsc;

/// Between two looks whether the reading of keys is still wanted.
const KEY_PERIOD: Duration = Duration::from_millis(100);

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A terminal that is ours as long as this lives.
#[derive(Debug)]
pub struct Screen(pub Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    /// Takes it. Both ends must be a terminal.
    pub fn take() -> io::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(io::Error::other(
                "standard input and output must be a terminal; /api/v1/stream and `--view lines` tell programs",
            ));
        }
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
        }));
        TAKEN.store(true, Ordering::SeqCst);
        let begun = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, cursor::Hide))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        begun.map(Self).inspect_err(|_| give_back())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once. Where its output is closed the mode of its input is still
/// restored.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Whoever could be told of a failure here is the terminal itself.
        execute!(io::stdout(), LeaveAlternateScreen, cursor::Show).ok();
        disable_raw_mode().ok();
    }
}

/// Keys and changes of the size, from a thread that ends when nobody wants them, or the terminal
/// has gone.
pub fn events() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, events) = mpsc::channel(64);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while !sender.is_closed() {
            let next = match event::poll(KEY_PERIOD) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let ended = next.is_err();
            if sender.blocking_send(next).is_err() || ended {
                return;
            }
        }
    })?;
    Ok(events)
}
