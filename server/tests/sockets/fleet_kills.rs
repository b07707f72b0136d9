//! `kill -9` under the real fleet: its machines' journals, which hold what every user was told,
//! agree with the ledger.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::json;

use hongbao_testing::{Fleet, Server, free_address, until};

const KILLS: u64 = 10;
/// Long enough for ten kills, ten starts, and some load between them.
const SECONDS: u64 = 20;
const QPS: u64 = 1_500;

#[test]
fn every_journaled_win_is_in_the_ledger_once_after_ten_kills() {
    let (listen, admin) = (free_address().to_string(), free_address().to_string());
    let mut server = Server::with(&["--listen", &listen, "--admin", &admin]);
    let phases = format!("{QPS}x{SECONDS}s");
    let flags = ["--users", "400", "--phases", &phases, "--rain", "300:1-1000", "--answer-timeout", "20s"];
    let mut fleet = Fleet::start(&server, None, &flags);

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
    let (_, fleet_log, told) = fleet.end();
    assert_eq!((&told["violations"], &told["unanswered"]), (&json!({}), &json!(0)), "{fleet_log}");
    assert_eq!(told["phases"][0]["answered"], QPS * SECONDS, "{fleet_log}");
    assert_eq!(told["books"]["residual_fen"], 0, "{fleet_log}");
    assert!(told["books"]["won"].as_u64() > Some(won_before), "{fleet_log}");
    server.check_books();

    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    let said = server.audit(&fleet.journals());
    assert!(said.contains("journals: 2 files"), "{said}");
}
