//! The programs of the family, and what every one of them is given.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use hongbao_proto::token::{Audience, Secret, Signer};
use hongbao_telemetry::clock::unix_seconds;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::eventually;

/// The secret that the programs of a test share.
pub const SECRET: &str = "a secret of 32 bytes, for tests only";

pub fn secret() -> Secret {
    Secret::from_text(SECRET).unwrap()
}

/// A token of any audience and subject, signed by [`SECRET`], good for an hour.
pub fn sign(subject: &str, audience: Audience) -> String {
    Signer::new(&secret()).sign(subject, audience, unix_seconds(), 3_600).unwrap()
}

pub fn user_token(user: u64) -> String {
    sign(&user.to_string(), Audience::User)
}

/// A file that nobody else can read: of any other the programs warn.
pub fn write_secret(path: impl AsRef<Path>, secret: impl AsRef<[u8]>) {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(secret.as_ref()).unwrap();
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// A program with no setting inherited from whoever runs the tests.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("HONGBAO_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs it to its end: whether it was content, and what it wrote on either output.
pub fn output(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// A program of the workspace, where these tests were built. Cargo builds a package's own program
/// with its tests. Those of other packages are built here, all in one go and as for the tests
/// themselves: where all tests are run there is nothing left to build, and no program is replaced
/// under one that starts it.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    if env::var("CARGO_PKG_NAME").as_deref() != Ok(name) {
        BUILT.get_or_init(|| {
            let built = command(env!("CARGO")).args(["test", "--workspace", "--no-run"]).status().unwrap();
            assert!(built.success(), "the workspace does not build");
        });
    }
    // Of target/debug/deps/TEST.
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).expect("tests lie where cargo puts them").join(name)
}

/// A program that was started; it ends with whoever started it.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// What it writes, on either output, is added to `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        Self::spawn(command.stdout(file.try_clone().unwrap()).stderr(file), log)
    }

    /// Its outputs are as the command has them; whatever of them is in `log` is shown if a test
    /// fails.
    pub fn spawn(command: &mut Command, log: PathBuf) -> Self {
        Self { child: command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")), log }
    }

    /// What it says in its `--ready-file` once it serves.
    pub fn ready(&mut self, file: &Path) -> Value {
        eventually("a program to be ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("ended with {status}:\n{}", self.log());
            }
            serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
        })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself.
    pub fn end(&mut self) -> ExitStatus {
        eventually("a program to end", || self.child.try_wait().unwrap())
    }

    /// Asks it to stop, and waits for it.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), fs::read_to_string(&self.log).unwrap_or_default());
        }
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
