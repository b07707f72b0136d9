//! The real fleet with a guest among its users and an operator who interferes: its verdict is still
//! about its plan, and its books still agree.

use hongbao_proto::token::Audience;
use hongbao_proto::v1::Grab;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::guest::{Guest, runtime};
use hongbao_testing::{Fleet, Monitor, Server, eventually, sign};

#[test]
fn a_run_with_a_guest_and_an_operators_qps_passes_and_says_so() {
    let (mut monitor, runtime) = (Monitor::with(&["--expect-balanced"]), runtime());
    let mut server = Server::with(&["--monitor", &monitor.ingest.to_string()]);
    monitor.knows_a_server();
    let guests = monitor.guest_journal();
    let flags = ["--users", "100", "--phases", "40x12s~99%,60x3s~99%", "--rain", "20", "--settle", "0s"];
    let more = ["--answer-timeout", "20s", "--guest-journal", guests.to_str().unwrap()];
    let mut fleet = Fleet::start(&server, Some(&monitor), &[flags.as_slice(), &more].concat());

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
    let mut guest = Guest::come(&monitor, &runtime);
    let mut ids = 10..;
    eventually("a win", || {
        let id = ids.next().unwrap();
        std::thread::park_timeout(std::time::Duration::from_millis(60));
        matches!(guest.ask(id, Request::Grab(Grab { campaign_id: 0 })), Event::Won(_)).then_some(())
    });
    drop(guest);

    let (passed, said, summary) = fleet.end();
    assert!(passed, "{said}");
    assert_eq!((&summary["passed"], &summary["books"]["residual_fen"]), (&json!(true), &json!(0)), "{said}");
    assert_eq!(summary["books"]["guest_prizes"], 1, "{said}");
    let change = &summary["changes"][0];
    assert_eq!((&change["qps"], &change["machines"]), (&json!(90), &json!(2)), "{said}");
    assert!(summary["phases"][0]["changed_seconds"].as_u64() >= Some(1), "{said}");
    assert_eq!(summary["phases"][1]["changed_seconds"], 0, "the plan's next phase is the plan's: {said}");
    assert!(said.contains("ordered otherwise, and not judged: 90 requests a second"), "{said}");

    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    server.audit(&[fleet.journals(), vec![guests]].concat());
    assert!(monitor.process.stop().success(), "{}", monitor.process.log());
}
