//! `kill -9` under the real fleet: its machines' journals, which hold what every user was told,
//! agree with the ledger.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::BINARY;
use hongbao_testing::{Server, command, eventually, program, until};

const KILLS: u64 = 10;
/// Long enough for ten kills, ten starts, and some load between them.
const SECONDS: u64 = 20;
const QPS: u64 = 1_500;

/// An address that is free now, for a server that must come back to it.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn every_journaled_win_is_in_the_ledger_once_after_ten_kills() {
    let program = program("hongbao-sim");
    let (listen, admin) = (free_address().to_string(), free_address().to_string());
    let mut server = Server::with(&["--listen", &listen, "--admin", &admin]);
    let (journals, summary) = (server.path("journals"), server.path("summary.json"));
    let mut fleet = command(program);
    fleet.args([
        "fleet",
        "--machines",
        "2",
        "--users",
        "400",
        "--server",
        &listen,
        "--admin",
        &format!("http://{admin}"),
    ]);
    fleet.args(["--phases", &format!("{QPS}x{SECONDS}s"), "--rain", "300:1-1000", "--answer-timeout", "20s"]);
    fleet
        .arg("--secret-file")
        .arg(server.path("secret"))
        .arg("--summary")
        .arg(&summary)
        .arg("--journal-dir")
        .arg(&journals);
    let log = fs::File::create(server.path("fleet.log")).unwrap();
    let mut fleet = fleet.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();

    let mut won_before = 0;
    for _ in 0..KILLS {
        // Some wins into the next stretch; how many is left to the clock.
        let nanos = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
        let moment = won_before + 250 + nanos / 1_000 % 250;
        until("the moment to kill the server", || {
            won_before = server.stats()["ledger"]["won"].as_u64().unwrap();
            won_before >= moment
        });
        server.kill();
        server.start_again();
    }
    // Seconds are missed while the server is down, so the run is not judged a success; what counts
    // is what was told.
    eventually("the fleet to end", || fleet.try_wait().unwrap());
    let fleet_log = fs::read_to_string(server.path("fleet.log")).unwrap();
    let told: Value = serde_json::from_str(&fs::read_to_string(&summary).expect(&fleet_log)).unwrap();
    assert_eq!((&told["violations"], &told["unanswered"]), (&json!({}), &json!(0)), "{fleet_log}");
    assert_eq!(told["phases"][0]["answered"], QPS * SECONDS, "{fleet_log}");
    assert_eq!(told["books"]["residual_fen"], 0, "{fleet_log}");
    assert!(told["books"]["won"].as_u64() > Some(won_before), "{fleet_log}");
    server.check_books();

    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    let mut audit = command(BINARY);
    audit.arg("audit").arg("--ledger").arg(server.ledger()).stdout(Stdio::piped());
    for journal in fs::read_dir(&journals).unwrap() {
        audit.arg("--journal").arg(journal.unwrap().path());
    }
    let audit = audit.output().unwrap();
    let said = String::from_utf8_lossy(&audit.stdout);
    assert!(audit.status.success() && said.contains("journals: 2 files"), "{said}");
}
