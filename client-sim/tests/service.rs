//! A machine towards a service manager, played by a socket.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{DEADLINE, FakeServer};
use hongbao_sim::ntp_responder::Responder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::time::timeout;

/// The next message within `patience`.
async fn hear(socket: &UnixDatagram, patience: Duration) -> Option<String> {
    let mut buffer = [0; 4096];
    let length = timeout(patience, socket.recv(&mut buffer)).await.ok()?.unwrap();
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

async fn until(socket: &UnixDatagram, part: &str) -> String {
    let heard = async {
        loop {
            match hear(socket, DEADLINE).await {
                Some(said) if said.contains(part) => return said,
                Some(_) => {}
                None => panic!("nobody says {part}"),
            }
        }
    };
    timeout(DEADLINE, heard).await.expect(part)
}

#[tokio::test]
async fn a_machine_reports_ready_pings_and_reports_its_stop() {
    let server = FakeServer::start().await;
    let responder = Responder::bind().await.unwrap();
    let ntp = responder.address().unwrap().to_string();
    tokio::spawn(responder.run());
    let home = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
    fs::write(home.path().join("secret"), "0123456789abcdef0123456789abcdef").unwrap();
    let mut machine = Command::new(env!("CARGO_BIN_EXE_hongbao-sim"));
    machine.args(["machine", "--users", "1..5", "--total", "5", "--ntp", &ntp, "--clock-budget", "500ms"]);
    machine.args(["--server", &server.address.to_string(), "--secret-file"]).arg(home.path().join("secret"));
    machine.env("NOTIFY_SOCKET", home.path().join("notify")).env("WATCHDOG_USEC", "2000000");
    let mut machine = machine.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let signal = |machine: &tokio::process::Child, signal| {
        kill(Pid::from_raw(machine.id().unwrap().cast_signed()), signal).unwrap();
    };

    until(&socket, "READY=1\n").await;
    let said = until(&socket, "running; 5 of 5 users on-line").await;
    assert!(said.contains("WATCHDOG=1\n"), "{said}");

    signal(&machine, Signal::SIGSTOP);
    while hear(&socket, Duration::ZERO).await.is_some() {}
    // Three pings would come meanwhile.
    assert_eq!(hear(&socket, Duration::from_millis(1_600)).await, None);
    signal(&machine, Signal::SIGCONT);
    until(&socket, "WATCHDOG=1\n").await;

    signal(&machine, Signal::SIGTERM);
    until(&socket, "STOPPING=1\n").await;
    assert!(timeout(DEADLINE, machine.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn machines_of_a_fleet_do_not_notify_their_parents_manager() {
    let server = FakeServer::start().await;
    let home = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(home.path().join("notify")).unwrap();
    fs::write(home.path().join("secret"), "0123456789abcdef0123456789abcdef").unwrap();
    let mut fleet = Command::new(env!("CARGO_BIN_EXE_hongbao-sim"));
    fleet.args([
        "fleet",
        "--machines",
        "1",
        "--users",
        "5",
        "--phases",
        "5x1s",
        "--settle",
        "0s",
        "--clock-budget",
        "500ms",
    ]);
    fleet.args(["--server", &server.address.to_string(), "--secret-file"]).arg(home.path().join("secret"));
    fleet.arg("--journal-dir").arg(home.path().join("journals")).env("NOTIFY_SOCKET", home.path().join("notify"));
    let mut fleet = fleet.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    // On a busy host it may judge its seconds as missed; here it matters only that it ran to its
    // end.
    let code = timeout(2 * DEADLINE, fleet.wait()).await.unwrap().unwrap().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
    assert_eq!(hear(&socket, Duration::ZERO).await, None);
    assert_eq!(fs::read_dir(home.path().join("journals")).unwrap().count(), 1, "its machine ran");
}
