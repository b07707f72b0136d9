//! A monitor and a fleet, each a process in a home of its own, which goes away with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use reqwest::blocking;
use serde_json::Value;
use tempfile::TempDir;

use crate::programs::write_secret;
use crate::{Running, SECRET, Server, command, eventually, program};

pub struct Monitor {
    pub process: Running,
    pub ingest: SocketAddr,
    pub http: SocketAddr,
    home: TempDir,
}

impl Monitor {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(flags: &[&str]) -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-monitor-").tempdir().unwrap();
        write_secret(home.path().join("secret"), SECRET);
        let mut monitor = command(program("hongbao-monitor"));
        monitor.current_dir(home.path()).args(["--view", "none", "--secret-file", "secret", "--ready-file", "ready"]);
        for (flag, usual) in [("--listen", "127.0.0.1:0"), ("--http", "127.0.0.1:0"), ("--record", "recordings/run")] {
            if !flags.contains(&flag) {
                monitor.args([flag, usual]);
            }
        }
        let mut process = Running::start(monitor.args(flags), home.path().join("log"));
        let ready = process.ready(&home.path().join("ready"));
        let address = |key: &str| ready[key].as_str().unwrap().parse().unwrap();
        Self { process, ingest: address("ingest"), http: address("http"), home }
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where it records.
    pub fn record(&self) -> PathBuf {
        self.home.path().join("recordings/run")
    }

    pub fn guest_journal(&self) -> PathBuf {
        self.record().join("journals/guests.csv")
    }

    /// A page of it, as seen from this machine.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http.port())
    }

    pub fn get(&self, path: &str) -> Value {
        blocking::get(self.url(path)).unwrap().json().unwrap()
    }

    pub fn get_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(path, || Some(self.get(path)).filter(|answer| wanted(answer)))
    }

    /// Waits for a server's first report, from which on its wins are in the books.
    pub fn knows_a_server(&self) {
        let reported = |source: &Value| source["role"] == "server" && source["reports"].as_u64() >= Some(1);
        self.get_until("/api/v1/sources", |answer| answer["sources"].as_array().unwrap().iter().any(reported));
    }
}

/// A fleet of two machines.
pub struct Fleet {
    pub process: Running,
    home: TempDir,
}

impl Fleet {
    pub fn start(server: &Server, monitor: Option<&Monitor>, flags: &[&str]) -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-fleet-").tempdir().unwrap();
        write_secret(home.path().join("secret"), SECRET);
        let mut fleet = command(program("hongbao-sim"));
        fleet.current_dir(home.path()).args(["fleet", "--machines", "2", "--secret-file", "secret"]);
        fleet.args(["--server", &server.listen.to_string(), "--admin", &format!("http://{}", server.admin)]);
        fleet.args(["--journal-dir", "journals", "--summary", "summary.json"]);
        if let Some(monitor) = monitor {
            fleet.args(["--monitor", &monitor.ingest.to_string()]);
        }
        let process = Running::start(fleet.args(flags), home.path().join("log"));
        Self { process, home }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// What each machine wrote down of what its users won.
    pub fn journals(&self) -> Vec<PathBuf> {
        self.path("journals").read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits for its end. Its log and its summary.
    pub fn end(&mut self) -> (bool, String, Value) {
        let passed = self.process.end().success();
        let log = self.process.log();
        let summary =
            std::fs::read_to_string(self.path("summary.json")).unwrap_or_else(|error| panic!("{error}\n{log}"));
        (passed, log, serde_json::from_str(&summary).unwrap())
    }
}
