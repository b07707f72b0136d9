//! A service manager, played by a socket.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::programs::write_secret;
use crate::{PATIENCE, Running, SECRET, command};

/// What the manager says it bears. The server pings at a quarter of it, and takes a part for stuck
/// after as long, at least two seconds.
const WATCHDOG: Duration = Duration::from_secs(4);

/// The manager's end of the socket.
pub struct Manager {
    socket: UnixDatagram,
    pub home: TempDir,
}

impl Manager {
    #[allow(clippy::new_without_default, reason = "it makes a folder and a socket")]
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
        write_secret(home.path().join("secret"), SECRET);
        Self { socket, home }
    }

    pub fn start(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Running {
        let path = |name: &str| self.home.path().join(name);
        let mut command = command(program);
        command.args(arguments).args(["--secret-file", "secret"]);
        command.current_dir(self.home.path()).env("NOTIFY_SOCKET", path("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        Running::start(&mut command, path("log"))
    }

    /// The next message that comes within `patience`.
    pub fn hear(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Hears until a message says `part`, and returns that message.
    pub fn until(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(said) = self.hear(left) else {
                panic!("not within {PATIENCE:?}: {part}\n{}", fs::read_to_string(self.home.path().join("log")).unwrap())
            };
            if said.contains(part) {
                return said;
            }
        }
    }

    /// What comes within `duration`.
    pub fn during(&self, duration: Duration) -> Vec<String> {
        let end = Instant::now() + duration;
        let next = || self.hear(end.saturating_duration_since(Instant::now()));
        std::iter::from_fn(next).take_while(|_| Instant::now() < end).collect()
    }

    /// Forgets what was said up to now.
    pub fn catch_up(&self) {
        while self.hear(Duration::ZERO).is_some() {}
    }

    pub fn ready(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.home.path().join("ready")).expect("it is written by now"))
            .unwrap()
    }
}
