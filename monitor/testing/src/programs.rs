//! The programs of the family, and what every one of them is given.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use hongbao_proto::token::{Audience, Secret, Signer};
use hongbao_telemetry::clock::unix_seconds;

/// The secret that the programs of a test share.
pub const SECRET: &str = "a secret of 32 bytes, for tests only";

/// A token of any audience and subject, signed by [`SECRET`], good for an hour.
pub fn sign(subject: &str, audience: Audience) -> String {
    Signer::new(&Secret::from_text(SECRET).unwrap()).sign(subject, audience, unix_seconds(), 3_600).unwrap()
}

pub fn user_token(user: u64) -> String {
    sign(&user.to_string(), Audience::User)
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

/// A program of the workspace, where these tests were built. Cargo builds a package's own program
/// with its tests. Those of other packages are built here, all in one go and as for the tests
/// themselves: where all tests are run there is nothing left to build, and no program is replaced
/// under one that starts it.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    if env::var("CARGO_PKG_NAME").as_deref() != Ok(name) {
        BUILT.get_or_init(|| {
            let built = command(env!("CARGO")).args(["test", "--quiet", "--workspace", "--no-run"]).status().unwrap();
            assert!(built.success(), "the workspace does not build");
        });
    }
    // Of target/debug/deps/TEST.
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).expect("tests lie where cargo puts them").join(name)
}
