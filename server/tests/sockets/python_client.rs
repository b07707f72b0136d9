//! Any language's stock library can speak to us: a client in Python, with the `protobuf` package
//! and nothing of ours, over a real socket.
//!
//! The package lives in a virtual environment under the target directory, made at the first run.
//! There is no protoc: the client gets the protocol as a set of descriptors, which is what `protoc
//! --descriptor_set_out` writes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use prost::Message;
use serde_json::{Value, json};

use hongbao_testing::{Server, user_token};

const NEEDS: &str = "this test needs python3 with venv and access to PyPI (Debian: apt-get install python3-venv); scripts/test installs them";

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {NEEDS}"));
    assert!(output.status.success(), "{command:?}: {}; {NEEDS}", String::from_utf8_lossy(&output.stderr));
}

/// An interpreter that has the stock `protobuf` package.
fn python() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-client");
    let python = environment.join("bin/python");
    let has_package = Command::new(&python).args(["-c", "import google.protobuf.proto"]).output();
    if !has_package.is_ok_and(|output| output.status.success()) {
        succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment));
        succeeds(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "protobuf>=6.30",
        ]));
    }
    python
}

#[test]
fn a_python_client_with_stock_protobuf_wins_and_reads_pushes() {
    let python = python();
    let server = Server::start();
    let campaign = server.rain(10, 100, &json!({"min_fen": 888}));
    let descriptors = server.path("descriptors");
    let protocol =
        protox::compile(["hongbao/v1/client.proto"], [concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/proto")]).unwrap();
    std::fs::write(&descriptors, protocol.encode_to_vec()).unwrap();

    let mut client = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/client.py"))
        .arg(descriptors)
        .args([server.listen.ip().to_string(), server.listen.port().to_string(), user_token(7), campaign.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("the client has ended early; what it says is above").unwrap();
        serde_json::from_str(&line).unwrap()
    };

    let welcome = next();
    assert_eq!((&welcome["request_id"], &welcome["welcome"]["user_id"]), (&json!("1"), &json!("7")), "{welcome}");
    assert_eq!(welcome["welcome"]["unacknowledged"], 0);
    let pong = next();
    assert!(pong["pong"]["server_time_ms"].as_str().unwrap().parse::<u64>().unwrap() > 1_700_000_000_000, "{pong}");
    let won = next()["won"].clone();
    assert_eq!((&won["campaign_id"], &won["amount_fen"]), (&json!(campaign), &json!("888")), "{won}");

    assert_eq!(next()["welcome"]["unacknowledged"], 1);
    let reminder = next();
    assert_eq!((&reminder["request_id"], &reminder["reminder"]["wins"]), (&json!("0"), &json!([won])));
    server.announce("恭喜发财");
    let announcement = next();
    assert_eq!((&announcement["request_id"], &announcement["announcement"]["text"]), (&json!("0"), &json!("恭喜发财")));
    assert_eq!(next()["acknowledged"]["count"], 1);
    assert_eq!(next()["error"]["code"], "ERROR_CODE_ALREADY_LOGGED_IN");

    assert!(client.wait().unwrap().success());
    assert_eq!(server.stats()["ledger"]["won"], 1);
    assert_eq!(server.connect().login(&user_token(7)).unacknowledged, 0);
    server.check_books();
}
