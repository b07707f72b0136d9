//! The disk under the ledger fills up, or takes no writes: no win is acknowledged, no prize is
//! lost, and nobody has to restart anything when there is room again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use serde_json::{Value, json};

use crate::BINARY;
use hongbao_testing::client::{code, grab, next_id};
use hongbao_testing::{Server, Setup, command, until, user_token};

/// A small file system of its own. Only root can make one: others see the test pass over it, with a
/// line that says so.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted =
            command("mount").args(["-t", "tmpfs", "-o", "size=8m", "hongbao-test"]).arg(directory.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { directory }),
            other => {
                println!("passed over: no tmpfs can be mounted here, which takes root: {other:?}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut ballast = fs::File::create(self.path("ballast")).unwrap();
        for size in [64 * 1024, 4096, 1] {
            let block = vec![7; size];
            while ballast.write_all(&block).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.path("ballast")).unwrap();
    }

    fn server(&self) -> Server {
        Server::set_up(Setup { ledger: Some(self.path("ledger")), ..Setup::default() })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = command("umount").arg("--lazy").arg(self.directory.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.directory.path().display());
    }
}

#[test]
fn a_full_disk_acknowledges_no_win_and_with_room_it_is_won() {
    let Some(disk) = Disk::mount() else { return };
    let server = disk.server();
    let mut user = server.login(1);
    let campaign = server.rain(2, 1_000, &Value::Null);
    let (_, first) = user.win(campaign);
    until("the second prize to lie ready", || server.stats()["prizes"]["in_sets"] == 1);
    let mut bystander = server.login(2);
    assert_eq!(server.readyz(), 200);

    disk.fill();
    let id = next_id();
    for _ in 0..6 {
        assert_eq!(code(&user.ask_as(id, grab(campaign))), ErrorCode::LedgerUnavailable);
    }
    assert_eq!(server.readyz(), 503);
    let ledger = server.stats()["ledger"].clone();
    assert_eq!((&ledger["healthy"], &ledger["won"]), (&json!(false), &json!(1)), "{ledger}");
    assert!(ledger["last_error"].as_str().unwrap().contains("full"), "{ledger}");
    assert_eq!(server.metric("ledger_healthy"), 0);
    assert_eq!(server.errors("ledger_unavailable"), 6);
    // Who wins nothing is served, and nothing is written for a login.
    server.login(3).ping();
    bystander.ping();
    server.check_books();

    disk.make_room();
    until("the server to be ready again", || server.readyz() == 200);
    let Event::Won(second) = user.ask_as(id, grab(campaign)) else { panic!("the same request wins now") };
    assert_eq!((second.won_by_request_id, second.serial), (id, 1 - first.serial));
    until("both to be counted", || server.stats()["ledger"]["won"] == 2);
    server.check_books();
}

#[test]
fn a_server_killed_on_a_full_disk_has_lost_nothing() {
    let Some(disk) = Disk::mount() else { return };
    let mut server = disk.server();
    let mut user = server.login(1);
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    let mut told = vec![user.win(campaign).1, user.win(campaign).1];
    disk.fill();
    until("the disk to be felt", || match user.grab(campaign) {
        Event::Won(won) => {
            told.push(won);
            false
        }
        Event::Error(error) => error.code() == ErrorCode::LedgerUnavailable,
        _ => false,
    });
    server.kill();
    disk.make_room();
    server.start_again();
    let mut user = server.connect();
    assert_eq!(user.login(&user_token(1)).unacknowledged as usize, told.len());
    let prizes: Vec<_> = told.iter().map(|won| (won.campaign_id, won.serial)).collect();
    let count = u32::try_from(told.len()).unwrap();
    assert_eq!(user.acknowledge(&prizes), Event::Acknowledged(v1::Acknowledged { count }));
    user.win(campaign);
    server.check_books();
}

#[test]
fn a_stop_on_a_full_disk_is_in_order_and_loses_nothing() {
    let Some(disk) = Disk::mount() else { return };
    let mut server = disk.server();
    let mut user = server.login(1);
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    let (id, won) = user.win(campaign);
    disk.fill();
    // It rains a prize each millisecond, on all SETs in turn: there may be none here right now.
    let refused = loop {
        match user.ask_as(next_id(), grab(campaign)) {
            Event::NoneNow(_) => {}
            answer => break answer,
        }
    };
    assert_eq!(code(&refused), ErrorCode::LedgerUnavailable);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(user.ending().goodbye, Some(Reason::Draining));
    drop(user);
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    disk.make_room();
    server.start_again();
    assert_eq!(server.login(1).ask_as(id, grab(campaign)), Event::Won(won));
    server.check_books();
}

#[test]
fn a_start_on_a_full_disk_may_be_tried_again() {
    let Some(disk) = Disk::mount() else { return };
    let server = Server::start();
    disk.fill();
    let start = || {
        let mut start = command(BINARY);
        start.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger"]).arg(disk.path("ledger"));
        start.arg("--secret-file").arg(server.path("secret")).output().unwrap()
    };
    let output = start();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
}

#[test]
fn a_ledger_on_a_read_only_disk_is_refused_and_left_as_it_is() {
    let Some(disk) = Disk::mount() else { return };
    let mut server = disk.server();
    server.kill();
    let remount = |how: &str| {
        let status = command("mount").args(["-o", how]).arg(disk.directory.path()).status().unwrap();
        assert!(status.success(), "mount -o {how}");
    };
    remount("remount,ro");
    let output = command(BINARY)
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger"])
        .arg(disk.path("ledger"))
        .arg("--secret-file")
        .arg(server.path("secret"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.lines().count() == 1 && said.contains(&*disk.path("ledger").to_string_lossy()), "{said}");
    remount("remount,rw");
    server.start_again();
    server.login(1).ping();
    assert!(Path::new(&disk.path("ledger")).exists());
}
