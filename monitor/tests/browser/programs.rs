//! The real programs, each in a home of its own, which goes away with it.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::PATIENCE;

const MONITOR: &str = env!("CARGO_BIN_EXE_hongbao-monitor");

/// The secret that the programs of a test share.
pub const SECRET: &str = "a secret of 32 bytes, for tests only";

/// Builds a program of the workspace where these tests were built.
async fn built(package: &str) -> PathBuf {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let build = async {
        // As for the tests themselves: where all are run there is nothing left to build, and no
        // program is replaced while it is used.
        let arguments = ["test", "--quiet", "--workspace", "--no-run"];
        let status = Command::new(env!("CARGO")).args(arguments).status().await.unwrap();
        assert!(status.success(), "the workspace does not build");
    };
    BUILT.get_or_init(|| build).await;
    Path::new(MONITOR).with_file_name(package)
}

/// A program with no setting inherited from whoever runs the tests; what it says goes to `log`.
fn command(program: &Path, home: &TempDir, log: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HONGBAO_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    let log = fs::File::create(home.path().join(log)).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .current_dir(home.path());
    let secret = home.path().join("secret");
    fs::write(&secret, SECRET).unwrap();
    command.env("HONGBAO_SECRET_FILE", secret);
    command
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().expect("it runs").cast_signed()), signal).unwrap();
}

/// What a program writes once it serves; looked for whenever something has changed in its home.
async fn ready(home: &TempDir, child: &mut Child, log: &str) -> Value {
    let changes = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    changes.add_watch(home.path(), AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO).unwrap();
    // Read as a pipe is; unchecked, because it is none.
    let changes = Receiver::from_owned_fd_unchecked(changes.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let mut events = [0; 4096];
    let written = async {
        loop {
            if let Ok(text) = fs::read_to_string(home.path().join("ready")) {
                return text;
            }
            tokio::select! {
                changed = changes.readable() => changed.unwrap(),
                status = child.wait() => {
                    panic!("ended with {}: {}", status.unwrap(), fs::read_to_string(home.path().join(log)).unwrap())
                }
            }
            while changes.try_read(&mut events).is_ok() {}
        }
    };
    serde_json::from_str(&tokio::time::timeout(PATIENCE, written).await.expect("ready in time")).unwrap()
}

pub struct Monitor {
    child: Child,
    pub ingest: String,
    pub http: String,
    pub record: PathBuf,
    _home: TempDir,
}

impl Monitor {
    /// A monitor whose HTTP is on `http`, with its recording in a folder of recordings.
    pub async fn start(http: &str) -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-monitor-").tempdir().unwrap();
        let record = home.path().join("recordings").join(format!("run-{}", std::process::id()));
        let mut command = command(Path::new(MONITOR), &home, "log");
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--http",
            http,
            "--view",
            "none",
            "--ready-file",
            "ready",
            "--record",
        ]);
        let mut child = command.arg(&record).spawn().unwrap();
        let ready = ready(&home, &mut child, "log").await;
        let field = |name: &str| ready[name].as_str().unwrap().to_owned();
        Self { ingest: field("ingest"), http: field("http"), record, child, _home: home }
    }

    /// A page of it, as seen from this machine.
    pub fn url(&self, path: &str) -> String {
        let port = self.http.parse::<SocketAddr>().unwrap().port();
        format!("http://127.0.0.1:{port}{path}")
    }

    pub fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub async fn ended(&mut self) {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the monitor ends").unwrap();
    }
}

pub struct Server {
    child: Child,
    listen: String,
    admin: String,
    _home: TempDir,
}

impl Server {
    pub async fn start(monitor: &Monitor) -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-server-").tempdir().unwrap();
        let program = built("hongbao-server").await;
        let mut command = command(&program, &home, "log");
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--ready-file",
            "ready",
            "--ledger",
            "ledger",
        ]);
        let mut child =
            command.args(["--shards", "2", "--connections", "1000", "--monitor", &monitor.ingest]).spawn().unwrap();
        let ready = ready(&home, &mut child, "log").await;
        let field = |name: &str| ready[name].as_str().unwrap().to_owned();
        Self { listen: field("listen"), admin: field("admin"), child, _home: home }
    }

    pub fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    pub async fn ended(&mut self) {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the server ends").unwrap();
    }
}

pub struct Fleet {
    child: Child,
    _home: TempDir,
}

impl Fleet {
    /// Users on two machines, under a rain.
    pub fn start(monitor: &Monitor, server: &Server, users: u32, phases: &str) -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-fleet-").tempdir().unwrap();
        let program = Path::new(MONITOR).with_file_name("hongbao-sim");
        let mut command = command(&program, &home, "log");
        command.args(["fleet", "--machines", "2", "--users", &users.to_string(), "--server", &server.listen]);
        command.args(["--admin", &format!("http://{}", server.admin), "--monitor", &monitor.ingest]);
        command.args(["--phases", phases, "--rain", "20:1-200"]);
        Self { child: command.spawn().unwrap(), _home: home }
    }

    pub fn signal(&self, which: Signal) {
        signal(&self.child, which);
    }

    pub async fn ended(&mut self) {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("the fleet ends").unwrap();
    }
}
