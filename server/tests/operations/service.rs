//! The server towards a service manager, played by a socket: when it says that it serves, and that
//! it does not say it is alive when it is not.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::BINARY;
use hongbao_testing::{PATIENCE, Running, SECRET, command, eventually, program};

/// What the manager says it bears. The server pings at a quarter of it, and takes a part for stuck
/// after as long, at least two seconds.
const WATCHDOG: Duration = Duration::from_secs(4);

/// Of a process that is well there are several pings in this time.
const LONG: Duration = Duration::from_millis(3_500);

/// The manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
    home: TempDir,
}

impl Manager {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
        fs::write(home.path().join("secret"), SECRET).unwrap();
        Self { socket, home }
    }

    fn start(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Running {
        let path = |name: &str| self.home.path().join(name);
        let mut command = command(program);
        command.args(arguments).arg("--secret-file").arg(path("secret")).arg("--ready-file").arg(path("ready"));
        command.current_dir(self.home.path()).env("NOTIFY_SOCKET", path("notify"));
        command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        Running::start(&mut command, path("log"))
    }

    fn server(&self) -> Running {
        self.start(BINARY, &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2", "--sets", "4"])
    }

    /// The next message that comes within `patience`.
    fn hear(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Hears until a message has `line`, and returns that message.
    fn until(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(said) = self.hear(left) else {
                panic!("not within {PATIENCE:?}: {line}\n{}", fs::read_to_string(self.home.path().join("log")).unwrap())
            };
            if said.lines().any(|one| one == line) {
                return said;
            }
        }
    }

    /// What comes within `duration`.
    fn during(&self, duration: Duration) -> Vec<String> {
        let end = Instant::now() + duration;
        let next = || self.hear(end.saturating_duration_since(Instant::now()));
        std::iter::from_fn(next).take_while(|_| Instant::now() < end).collect()
    }

    /// Forgets what was said up to now.
    fn catch_up(&self) {
        while self.hear(Duration::ZERO).is_some() {}
    }

    fn ready(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.home.path().join("ready")).expect("it is written by now"))
            .unwrap()
    }
}

fn pings(said: &[String]) -> usize {
    said.iter().filter(|message| message.lines().any(|line| line == "WATCHDOG=1")).count()
}

/// One thread of a process that stands still until dropped, while the others go on.
struct Frozen(Pid);

impl Frozen {
    fn thread(process: &Running, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", process.pid());
        let named = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        let task = eventually(&format!("a thread {name}"), || {
            fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path()).find(|task| named(task))
        });
        let thread = Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        ptrace::seize(thread, ptrace::Options::empty()).expect("a test may trace its own child");
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The process may be gone by now.
        ptrace::detach(self.0, None).ok();
    }
}

#[test]
fn the_server_reports_ready_pings_and_reports_its_stop() {
    let manager = Manager::new();
    let mut server = manager.server();
    let said = manager.until("READY=1");
    assert!(said.contains("STATUS=0 users on-line, 0 connections; the ledger works"), "{said}");
    // No waiting here: what was said must be true.
    let ready = manager.ready();
    TcpStream::connect(ready["listen"].as_str().unwrap()).unwrap();
    let readyz = reqwest::blocking::get(format!("http://{}/readyz", ready["admin"].as_str().unwrap())).unwrap();
    assert_eq!(readyz.status(), 200);
    manager.until("WATCHDOG=1");
    manager.until("WATCHDOG=1");

    server.signal(Signal::SIGSTOP);
    manager.catch_up();
    assert_eq!(pings(&manager.during(LONG)), 0, "a process that stands still is not alive");
    server.signal(Signal::SIGCONT);
    manager.until("WATCHDOG=1");

    server.signal(Signal::SIGTERM);
    let said = manager.until("STOPPING=1");
    assert!(said.contains("STATUS=stopping"), "{said}");
    assert_eq!(server.end().code(), Some(0));
    assert_eq!(pings(&manager.during(Duration::from_millis(100))), 0, "nobody pings who has stopped");
}

#[test]
fn a_server_whose_ledger_or_shard_hangs_does_not_ping() {
    let manager = Manager::new();
    let server = manager.server();
    manager.until("WATCHDOG=1");
    for (thread, named) in [("ledger", "the ledger"), ("shard-1", "shard-1")] {
        let frozen = Frozen::thread(&server, thread);
        manager.until(&format!("STATUS=does not answer: {named}"));
        let said = manager.during(LONG);
        assert!(!said.is_empty(), "the main thread goes on and says what is wrong");
        assert_eq!(pings(&said), 0, "{said:?}");
        drop(frozen);
        manager.until("WATCHDOG=1");
    }
}

#[test]
fn the_monitor_reports_ready_pings_and_reports_its_stop() {
    let manager = Manager::new();
    let arguments = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--view", "none", "--record", "recording"];
    let mut monitor = manager.start(program("hongbao-monitor"), &arguments);
    manager.until("READY=1");
    let ready = manager.ready();
    TcpStream::connect(ready["ingest"].as_str().unwrap()).unwrap();
    TcpStream::connect(ready["http"].as_str().unwrap()).unwrap();
    let said = manager.until("WATCHDOG=1");
    assert!(said.contains("the books agree"), "{said}");
    monitor.signal(Signal::SIGSTOP);
    manager.catch_up();
    assert_eq!(pings(&manager.during(LONG)), 0);
    monitor.signal(Signal::SIGCONT);
    manager.until("WATCHDOG=1");
    monitor.signal(Signal::SIGTERM);
    manager.until("STOPPING=1");
    assert_eq!(monitor.end().code(), Some(0));
}
