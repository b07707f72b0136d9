//! The monitor, in this process, on a thread and a runtime of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use clap::Parser;
use hongbao_monitor::app;
use hongbao_monitor::config::{Arguments, Config};
use hongbao_monitor::owner::Outcome;
use hongbao_telemetry::clock::unix_seconds;
use reqwest::blocking;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use hongbao_testing::{PATIENCE, SECRET, eventually};

pub struct Monitor {
    pub ingest: SocketAddr,
    pub http: SocketAddr,
    pub runtime: Runtime,
    stop: CancellationToken,
    thread: JoinHandle<Outcome>,
    home: TempDir,
}

impl Monitor {
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-monitor-").tempdir().unwrap();
        std::fs::write(home.path().join("secret"), SECRET).unwrap();
        let flag = |name: &str| home.path().join(name).display().to_string();
        let (record, secret) = (flag("recording"), flag("secret"));
        let arguments = ["hongbao-monitor", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--view", "none"];
        let arguments = arguments.into_iter().chain(["--record", &record, "--secret-file", &secret]);
        let config = Config::checked(Arguments::try_parse_from(arguments).unwrap(), unix_seconds()).unwrap();
        let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let (stopping, (bound, binding)) = (stop.clone(), mpsc::channel());
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let monitor = app::Monitor::bind(&config).await.unwrap();
                bound.send((monitor.ingest, monitor.http)).unwrap();
                monitor.run(stopping).await.unwrap()
            })
        });
        let (ingest, http) = binding.recv_timeout(PATIENCE).expect("the monitor binds its addresses");
        Self { ingest, http, runtime: runtime(), stop, thread, home }
    }

    pub fn get(&self, path: &str) -> Value {
        blocking::get(format!("http://{}{path}", self.http)).unwrap().json().unwrap()
    }

    pub fn get_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(path, || Some(self.get(path)).filter(|answer| wanted(answer)))
    }

    /// Waits for a server's first report, from which on its wins are in the books.
    pub fn hears_of_a_server(&self) {
        let reported = |source: &Value| source["role"] == "server" && source["reports"].as_u64() >= Some(1);
        self.get_until("/api/v1/sources", |answer| answer["sources"].as_array().unwrap().iter().any(reported));
    }

    pub fn guest_journal(&self) -> PathBuf {
        self.home.path().join("recording/journals/guests.csv")
    }

    /// A folder that goes away with the monitor.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn stop(self) -> (Outcome, TempDir) {
        self.stop.cancel();
        eventually("the monitor to stop", || self.thread.is_finished().then_some(()));
        (self.thread.join().unwrap(), self.home)
    }
}
