//! The clock offset, measured against real NTP servers on loopback.

use std::io::Write;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hongbao_sim::clock::{self, Clock, ClockError};
use hongbao_sim::ntp_responder::Responder;

const CHRONYD: &str = "/usr/sbin/chronyd";

#[tokio::test]
async fn the_fleets_own_responder_agrees_with_the_clock_that_it_shows() {
    let responder = Responder::bind().await.unwrap();
    let address = responder.address().unwrap().to_string();
    let serving = tokio::spawn(responder.run());
    let offset = clock::measure(&address).await.unwrap();
    assert!(offset.nanos.unsigned_abs() <= offset.error + 1_000, "{offset:?}");
    assert!(Clock::new(offset).check_budget(Duration::from_millis(50)).is_ok(), "{offset:?}");
    serving.abort();
}

#[tokio::test]
async fn a_server_that_does_not_exist_is_named_in_the_error() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = clock::measure(&free).await.unwrap_err();
    assert!(matches!(&error, ClockError::Unusable { server, .. } if *server == free));
    assert!(error.to_string().contains(&free));
}

/// Ends with the test.
struct Chronyd(Child);

impl Drop for Chronyd {
    fn drop(&mut self) {
        self.0.kill().expect("chronyd is ours to kill");
        self.0.wait().expect("chronyd is ours to reap");
    }
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
    let child = Command::new(CHRONYD)
        .args(["-x", "-d", "-u", "root", "-f"])
        .arg(&path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _chronyd = Chronyd(child);
    let deadline = Instant::now() + Duration::from_secs(20);
    let server = format!("127.0.0.1:{port}");
    let offset = loop {
        match clock::measure(&server).await {
            Ok(offset) => break offset,
            Err(error) => assert!(Instant::now() < deadline, "chronyd did not answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(offset.nanos.unsigned_abs() <= offset.error + 1_000_000, "{offset:?}");
    assert!(offset.error < 50_000_000, "{offset:?}");
}
