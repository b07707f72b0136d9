//! A machine towards a service manager, played by a socket.

use std::fs;
use std::time::Duration;

use crate::common::FakeServer;
use hongbao_sim::ntp_responder;
use hongbao_testing::service::Manager;
use nix::sys::signal::Signal;

const BINARY: &str = env!("CARGO_BIN_EXE_hongbao-sim");

// The server and the clock that the machine needs go on while the test waits for its messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_reports_ready_pings_and_reports_its_stop() {
    let server = FakeServer::start().await;
    let ntp = ntp_responder::start().await.unwrap();
    let manager = Manager::new();
    let users = ["machine", "--users", "1..5", "--total", "5", "--clock-budget", "500ms", "--ntp", &ntp];
    let mut machine = manager.start(BINARY, &[users.as_slice(), &["--server", &server.address.to_string()]].concat());

    manager.until("READY=1\n");
    let said = manager.until("running; 5 of 5 users on-line");
    assert!(said.contains("WATCHDOG=1\n"), "{said}");

    machine.signal(Signal::SIGSTOP);
    manager.catch_up();
    // Three pings would come meanwhile.
    assert_eq!(manager.during(Duration::from_millis(3_200)), Vec::<String>::new());
    machine.signal(Signal::SIGCONT);
    manager.until("WATCHDOG=1\n");

    machine.signal(Signal::SIGTERM);
    manager.until("STOPPING=1\n");
    assert!(machine.end().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_of_a_fleet_do_not_notify_their_parents_manager() {
    let server = FakeServer::start().await;
    let manager = Manager::new();
    let users = ["fleet", "--machines", "1", "--users", "5", "--phases", "5x1s", "--settle", "0s"];
    let more = ["--clock-budget", "500ms", "--journal-dir", "journals", "--server", &server.address.to_string()];
    let mut fleet = manager.start(BINARY, &[users.as_slice(), &more].concat());
    // On a busy host it may judge its seconds as missed; here it matters only that it ran to its
    // end.
    let code = fleet.end().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    assert_eq!(manager.hear(Duration::ZERO), None);
    assert_eq!(fs::read_dir(manager.home.path().join("journals")).unwrap().count(), 1, "its machine ran");
}
