//! A server, a monitor, and a fleet of two machines, as processes that know each other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use reqwest::blocking;
use serde_json::Value;
use tempfile::TempDir;

use hongbao_testing::{SECRET, Server, command, eventually, program};

/// Grabs a second, and for so many seconds: enough for rates, no load for a host that is busy.
pub const QPS: u64 = 100;
pub const SECONDS: u64 = 20;
pub const USERS: u64 = 60;

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A tool of the host that no test goes without.
pub fn tool(name: &str) -> Command {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).stdout(Stdio::null()).status().unwrap();
    assert!(found.success(), "{name} is missing: apt-get install prometheus man-db systemd");
    command(name)
}

/// Runs it to its end: what it said, on either output, and whether it was content.
pub fn said(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// Ends with whoever started it.
pub struct Process(pub Child);

impl Process {
    pub fn end(&mut self) -> ExitStatus {
        eventually("a process to end", || self.0.try_wait().unwrap())
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub struct Family {
    pub fleet: Process,
    pub monitor: Process,
    pub server: Server,
    /// `host:port` of the monitor's HTTP.
    pub monitor_http: String,
    pub home: TempDir,
}

impl Family {
    /// All of them run, and the machines have said where they can be scraped.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-family-").tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::write(path("secret"), SECRET).unwrap();
        fs::create_dir(path("targets")).unwrap();

        let mut monitor = command(program("hongbao-monitor"));
        monitor.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--view", "none"]).arg("--record");
        monitor.arg(path("recording")).arg("--ready-file").arg(path("monitor-ready"));
        let monitor = spawn(monitor.arg("--secret-file").arg(path("secret")), &path("monitor.log"));
        let ready = eventually("the monitor to be ready", || {
            serde_json::from_str::<Value>(&fs::read_to_string(path("monitor-ready")).ok()?).ok()
        });
        let (ingest, monitor_http) = (ready["ingest"].as_str().unwrap(), ready["http"].as_str().unwrap().to_owned());

        let server = Server::with(&["--monitor", ingest]);
        let mut fleet = command(program("hongbao-sim"));
        fleet.args(["fleet", "--machines", "2", "--users", &USERS.to_string(), "--settle", "0s"]);
        fleet.args(["--server", &server.listen.to_string(), "--admin", &format!("http://{}", server.admin)]);
        fleet.args(["--monitor", ingest, "--phases", &format!("{QPS}x{SECONDS}s"), "--rain", "20:1-200"]);
        fleet.arg("--secret-file").arg(path("secret")).arg("--targets-file").arg(path("targets/fleet.json"));
        fleet.arg("--journal-dir").arg(path("journals")).arg("--summary").arg(path("summary.json"));
        let fleet = spawn(&mut fleet, &path("fleet.log"));
        let family = Self { fleet, monitor, server, monitor_http, home };
        eventually("the machines to be ready", || (family.machines().len() == 2).then_some(()));
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
        [self.server.admin.to_string(), self.monitor_http.clone(), machine].map(|address| scrape(&address))
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

pub fn spawn(command: &mut Command, log: &Path) -> Process {
    let log = File::create(log).unwrap();
    Process(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("the program can be started"))
}

/// In the classic format.
pub fn scrape(address: &str) -> String {
    let response = blocking::get(format!("http://{address}/metrics")).expect("metrics are served");
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().unwrap()
}
