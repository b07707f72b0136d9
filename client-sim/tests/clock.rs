//! The clock offset, measured against real NTP servers on loopback.

use std::io::Write;
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::Duration;

use hongbao_sim::clock::{self, Clock, ClockError};
use hongbao_sim::ntp_responder;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const CHRONYD: &str = "/usr/sbin/chronyd";

/// What it says last before it opens its port to clients.
const READY: &str = "Running with root privileges";

#[tokio::test]
async fn the_fleets_own_responder_agrees_with_the_clock_that_it_shows() {
    let address = ntp_responder::start().await.unwrap();
    let offset = clock::measure(&address).await.unwrap();
    assert!(offset.nanos.unsigned_abs() <= offset.error + 1_000, "{offset:?}");
    assert!(Clock::new(offset).check_budget(Duration::from_millis(50)).is_ok(), "{offset:?}");
}

#[tokio::test]
async fn a_server_that_does_not_exist_is_named_in_the_error() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = clock::measure(&free).await.unwrap_err();
    assert!(matches!(&error, ClockError::Unusable { server, .. } if *server == free));
    assert!(error.to_string().contains(&free));
}

#[tokio::test]
async fn chrony_and_this_machine_agree_on_the_clock_that_they_share() {
    if !std::path::Path::new(CHRONYD).exists() {
        eprintln!("skipped: no {CHRONYD}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = directory.path().join("chrony.conf");
    let mut conf = std::fs::File::create(&path).unwrap();
    let pid = directory.path().join("pid");
    write!(
        conf,
        "local stratum 5\nport {port}\ncmdport 0\nbindaddress 127.0.0.1\nbindcmdaddress /\nallow 127/8\npidfile {}\n",
        pid.display()
    )
    .unwrap();
    let mut chronyd = Command::new(CHRONYD)
        .args(["-x", "-d", "-u", "root", "-f"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(chronyd.stderr.take().unwrap()).lines();
    let ready = async {
        while let Some(line) = said.next_line().await.unwrap() {
            if line.contains(READY) {
                return;
            }
        }
        panic!("chronyd ended: {:?}", chronyd.wait().await);
    };
    let server = format!("127.0.0.1:{port}");
    let measured = async {
        ready.await;
        // A port that is not open yet refuses at once.
        loop {
            if let Ok(offset) = clock::measure(&server).await {
                break offset;
            }
            tokio::task::yield_now().await;
        }
    };
    let offset = tokio::time::timeout(Duration::from_secs(20), measured).await.expect("chronyd answers");
    assert!(offset.nanos.unsigned_abs() <= offset.error + 1_000_000, "{offset:?}");
    assert!(offset.error < 50_000_000, "{offset:?}");
}
