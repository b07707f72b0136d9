//! The real fleet with a guest among its users and an operator who interferes: its verdict is still
//! about its plan, and its books still agree.

use std::fs;

use hongbao_proto::token::Audience;
use hongbao_proto::v1::Grab;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::guest::{Guest, audit};
use super::monitor::Monitor;
use hongbao_testing::{Server, command, eventually, program, sign};

#[test]
fn a_run_with_a_guest_and_an_operators_qps_passes_and_says_so() {
    let program = program("hongbao-sim");
    let monitor = Monitor::start();
    let mut server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    monitor.hears_of_a_server();
    let (journals, summary) = (server.path("journals"), server.path("summary.json"));
    let mut fleet = command(program);
    fleet.args(["fleet", "--machines", "2", "--users", "100", "--server", &server.listen.to_string()]);
    fleet.args(["--admin", &format!("http://{}", server.admin), "--monitor", &monitor.ingest.to_string()]);
    fleet.args(["--phases", "40x12s~99%,60x3s~99%", "--rain", "20", "--settle", "0s", "--answer-timeout", "20s"]);
    fleet.arg("--secret-file").arg(server.path("secret")).arg("--summary").arg(&summary);
    fleet.arg("--journal-dir").arg(&journals).arg("--guest-journal").arg(monitor.guest_journal());
    let log = fs::File::create(server.path("fleet.log")).unwrap();
    let mut fleet = fleet.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();

    monitor.get_until("/api/v1/latest", |latest| latest["headline"]["planned"].as_i64() > Some(0));
    let ordered = reqwest::blocking::Client::new()
        .post(format!("http://{}/api/v1/control/qps", monitor.http))
        .bearer_auth(sign("mei", Audience::Admin))
        .json(&json!({ "qps": 90, "in_seconds": 2 }))
        .send()
        .unwrap();
    assert_eq!(ordered.status().as_u16(), 200);
    let outcomes: Value = ordered.json().unwrap();
    assert_eq!(outcomes["outcomes"].as_array().unwrap().len(), 2, "{outcomes}");
    let mut guest = Guest::come(&monitor);
    let mut ids = 10..;
    eventually("a win", || {
        let id = ids.next().unwrap();
        std::thread::park_timeout(std::time::Duration::from_millis(60));
        matches!(guest.ask(id, Request::Grab(Grab { campaign_id: 0 })), Event::Won(_)).then_some(())
    });
    drop(guest);

    let status = eventually("the fleet to end", || fleet.try_wait().unwrap());
    let said = fs::read_to_string(server.path("fleet.log")).unwrap();
    assert!(status.success(), "{said}");
    let summary: Value = serde_json::from_str(&fs::read_to_string(summary).unwrap()).unwrap();
    assert_eq!((&summary["passed"], &summary["books"]["residual_fen"]), (&json!(true), &json!(0)), "{said}");
    assert_eq!(summary["books"]["guest_prizes"], 1, "{said}");
    let change = &summary["changes"][0];
    assert_eq!((&change["qps"], &change["machines"]), (&json!(90), &json!(2)), "{said}");
    assert!(summary["phases"][0]["changed_seconds"].as_u64() >= Some(1), "{said}");
    assert_eq!(summary["phases"][1]["changed_seconds"], 0, "the plan's next phase is the plan's: {said}");
    assert!(said.contains("ordered otherwise, and not judged: 90 requests a second"), "{said}");

    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    let all = [journals.join("machine-01.csv"), journals.join("machine-02.csv"), monitor.guest_journal()];
    audit(&server.ledger(), &all.each_ref().map(|path| path.as_path()));
    let (outcome, _home) = monitor.stop();
    assert!(outcome.run.books.balanced(), "{:?}", outcome.run.books);
}
