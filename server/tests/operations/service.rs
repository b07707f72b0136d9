//! The server towards a service manager, played by a socket: when it says that it serves, and that
//! it does not say it is alive when it is not.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::BINARY;
use hongbao_testing::service::Manager;
use hongbao_testing::{Running, eventually, program};

/// Of a process that is well there are several pings in this time.
const LONG: Duration = Duration::from_millis(3_500);

fn server(manager: &Manager) -> Running {
    let arguments = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "2", "--sets", "4"];
    manager.start(BINARY, &[arguments.as_slice(), &["--ready-file", "ready"]].concat())
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
    let mut server = server(&manager);
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
    let server = server(&manager);
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
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--view",
        "none",
        "--record",
        "recording",
        "--ready-file",
        "ready",
    ];
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
