//! A server, a monitor, and a fleet of two machines, as processes that know each other.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use reqwest::blocking;
use serde_json::Value;
use tempfile::TempDir;

use hongbao_testing::{Fleet, Monitor, Server, command, until};

/// Grabs a second, and for so many seconds: enough for rates, no load for a host that is busy.
pub const QPS: u64 = 100;
pub const SECONDS: u64 = 20;
pub const USERS: u64 = 60;

/// A tool of the host that no test goes without.
pub fn tool(name: &str) -> Command {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).stdout(Stdio::null()).status().unwrap();
    assert!(found.success(), "{name} is missing: apt-get install prometheus man-db systemd");
    command(name)
}

pub struct Family {
    pub fleet: Fleet,
    pub monitor: Monitor,
    pub server: Server,
    /// Of whoever looks at them.
    pub home: TempDir,
}

impl Family {
    /// All of them run, and the machines have said where they can be scraped.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-family-").tempdir().unwrap();
        fs::create_dir(home.path().join("targets")).unwrap();
        let monitor = Monitor::start();
        let server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
        let targets = home.path().join("targets/fleet.json");
        let (users, phases) = (USERS.to_string(), format!("{QPS}x{SECONDS}s"));
        let flags = ["--users", &users, "--settle", "0s", "--phases", &phases, "--rain", "20:1-200", "--targets-file"];
        let fleet = Fleet::start(&server, Some(&monitor), &[flags.as_slice(), &[targets.to_str().unwrap()]].concat());
        let family = Self { fleet, monitor, server, home };
        until("the machines to be ready", || family.machines().len() == 2);
        family
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `host:port` of each machine that is there to be scraped.
    pub fn machines(&self) -> Vec<String> {
        let targets = fs::read_to_string(self.path("targets/fleet.json")).unwrap_or_else(|_| "[]".to_owned());
        let targets: Value = serde_json::from_str(&targets).unwrap();
        targets.as_array().unwrap().iter().map(|one| one["targets"][0].as_str().unwrap().to_owned()).collect()
    }

    /// `/metrics` of all kinds of process: server, monitor, machine.
    pub fn scrapes(&self) -> [String; 3] {
        let machine = self.machines().swap_remove(0);
        [self.server.admin.to_string(), self.monitor.http.to_string(), machine].map(|address| scrape(&address))
    }
}

/// In the classic format.
pub fn scrape(address: &str) -> String {
    let response = blocking::get(format!("http://{address}/metrics")).expect("metrics are served");
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().unwrap()
}
