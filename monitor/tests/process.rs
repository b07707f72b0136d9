//! The binary as a person or a script meets it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use hongbao_monitor::recording::read::Reader;
use hongbao_telemetry::report::names::{self, role};
use hongbao_telemetry::report::{Reporter, Sample};
use hongbao_testing::reporter::report_token;
use hongbao_testing::{PATIENCE, Running, SECRET, root, soon};
use nix::sys::signal::Signal;

const BINARY: &str = env!("CARGO_BIN_EXE_hongbao-monitor");

fn command(directory: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(directory).env_clear().env("HONGBAO_SECRET", SECRET);
    command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command
}

fn start(command: &mut Command, directory: &Path) -> Running {
    Running::start(command, directory.join("log"))
}

/// Its exit code, and all that it wrote.
fn terminate(process: &mut Running, signal: Signal) -> (Option<i32>, String) {
    process.signal(signal);
    (process.end().code(), process.log())
}

/// Ends with code 2 and exactly one line, which holds every part.
fn refused(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn an_inherited_listening_socket_takes_the_place_of_http() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ready.json");
    let mut handing = Command::new("python3");
    handing.arg(root().join("scripts/lib/listening.py")).arg(BINARY);
    handing.current_dir(directory.path()).env_clear().env("PATH", "/usr/bin:/bin").env("HONGBAO_SECRET", SECRET);
    // An address for documentation, which no host has.
    handing.args(["--listen", "127.0.0.1:0", "--http", "192.0.2.1:80", "--view", "none", "--ready-file"]).arg(&file);
    let mut process = start(&mut handing, directory.path());
    let ready = process.ready(&file);
    let mut stream = std::net::TcpStream::connect(ready["http"].as_str().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(terminate(&mut process, Signal::SIGTERM).0, Some(0));
}

#[test]
fn bad_settings_are_one_line_and_code_2_and_touch_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let with = |arguments: &[&str]| command(directory.path()).args(arguments).output().unwrap();
    refused(&with(&["--stragglers", "1h"]), &["--stragglers", "1h", "30s"]);
    refused(&with(&["--colour"]), &["--colour"]);
    refused(&with(&["--view", "table"]), &["table", "lines", "none"]);
    refused(&with(&["report", "."]), &["report", "--listen"]);
    let report = Command::new(BINARY).arg("report").output().unwrap();
    refused(&report, &["RECORDING"]);
    let listen = Command::new(BINARY).args(["--listen", "here"]).output().unwrap();
    refused(&listen, &["--listen", "here"]);
    refused(&command(directory.path()).env_remove("HONGBAO_SECRET").output().unwrap(), &["hongbao-server secret"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn an_unwritable_recording_is_refused_before_anything_is_bound() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let ready = directory.path().join("ready");
    for place in ["file/recording", "/proc/recording", "file"] {
        let output = command(directory.path()).args(["--record", place, "--ready-file"]).arg(&ready).output().unwrap();
        refused(&output, &[place, "--record"]);
    }
    assert!(!ready.exists());
}

#[test]
fn a_recording_is_never_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let mut first =
        start(command(directory.path()).args(["--record", "run", "--ready-file"]).arg(&ready), directory.path());
    first.ready(&ready);
    terminate(&mut first, Signal::SIGTERM);
    refused(
        &command(directory.path()).args(["--record", "run"]).output().unwrap(),
        &["already holds a recording", "run"],
    );
}

#[test]
fn a_port_in_use_is_named_and_leaves_no_recording() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let taken_again = TcpListener::bind(taken).unwrap();
    let mut command = Command::new(BINARY);
    command.current_dir(directory.path()).env("HONGBAO_SECRET", SECRET);
    command.args(["--http", "127.0.0.1:0", "--record", "run", "--listen", &taken.to_string()]);
    refused(&command.output().unwrap(), &["--listen", &taken.to_string()]);
    assert!(!directory.path().join("run").exists());
    drop(taken_again);
}

#[test]
fn it_says_where_it_listens_and_ends_in_order_when_told() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = tempfile::tempdir().unwrap();
        let ready = directory.path().join("ready");
        let mut process =
            start(command(directory.path()).args(["--expect-balanced", "--ready-file"]).arg(&ready), directory.path());
        let bound = process.ready(&ready);
        let (code, text) = terminate(&mut process, signal);
        assert_eq!(code, Some(0), "{text}");
        for address in ["ingest", "http"] {
            assert!(text.contains(bound[address].as_str().unwrap()), "{text}");
        }
        assert!(text.contains("residual") && text.contains("the books agree"), "{text}");
        let record = directory.path().join(bound["record"].as_str().unwrap());
        let files: Vec<_> = std::fs::read_dir(&record).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["run.sqlite"]);
        // The host as it was before anybody reported.
        let hosts = Reader::open(&record).unwrap().hosts().unwrap();
        let bytes = hosts[0].memory_available_bytes.unwrap();
        assert!(bytes > 0);
    }
}

/// Reports prizes received that no server paid, until two reports were taken.
#[tokio::test]
async fn books_that_disagree_are_a_failure_where_that_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let ready = directory.path().join("ready");
    let mut process =
        start(command(directory.path()).args(["--expect-balanced", "--ready-file"]).arg(&ready), directory.path());
    let bound = process.ready(&ready);
    let monitor = bound["ingest"].as_str().unwrap().parse().unwrap();
    let reporter = Reporter::new(monitor, report_token(), role::MACHINE, "m1");
    let (sampled, is_sampled) = tokio::sync::oneshot::channel();
    let mut sampled = Some(sampled);
    let leave = async move { is_sampled.await.unwrap() };
    let reported = reporter.run_until(leave, move |_| {
        if let Some(sampled) = sampled.take() {
            sampled.send(()).unwrap();
        }
        Sample { counters: vec![(names::PRIZES_RECEIVED, 1), (names::RECEIVED_FEN, 88)], ..Sample::default() }
    });
    soon("two reports", reported).await;
    let (code, text) = terminate(&mut process, Signal::SIGTERM);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("DO NOT agree") && text.contains("-0.88"), "{text}");
}

#[test]
fn a_secret_file_that_others_can_read_is_warned_about() {
    let directory = tempfile::tempdir().unwrap();
    let (ready, secret) = (directory.path().join("ready"), directory.path().join("secret"));
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut process = start(
        command(directory.path()).arg("--secret-file").arg(&secret).arg("--ready-file").arg(&ready),
        directory.path(),
    );
    process.ready(&ready);
    let (_, log) = terminate(&mut process, Signal::SIGTERM);
    assert!(log.contains("chmod 600"), "{log}");
}
