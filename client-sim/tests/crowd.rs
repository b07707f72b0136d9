//! The users of a machine at the bounds of their sockets, with the time passed in.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::common::{Ask, config};
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ServerFrame};
use hongbao_sim::clock::SECOND;
use hongbao_sim::ids;
use hongbao_sim::limits::{LOGIN_DEADLINE_MS, OUTBOX_BYTES_MAX};
use hongbao_sim::machine::config::UserRange;
use hongbao_sim::machine::crowd::Crowd;
use hongbao_sim::machine::labels::EndReason;
use hongbao_sim::machine::tally::counts;
use hongbao_sim::results::StormOrder;
use hongbao_telemetry::journal::Journal;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

const START: u64 = 1_800_000_000 * SECOND;

struct Pair {
    ours: std::net::TcpStream,
    peer: TcpStream,
}

async fn pair() -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    Pair { ours: ours.into_std().unwrap(), peer: listener.accept().await.unwrap().0 }
}

/// One user, about to connect.
fn crowd() -> Crowd {
    let ask = Ask { users: UserRange { first: 1, last: 1 }, total: 1, answer_timeout: Duration::from_secs(10) };
    let config = config("127.0.0.1:1".parse().unwrap(), ask, String::new(), None);
    let mut crowd = Crowd::new(&config, Journal::create(None).unwrap(), START);
    assert_eq!(crowd.next_to_connect(START), Some(0));
    crowd
}

fn welcome(crowd: &mut Crowd, now: u64) {
    let event = Some(Event::Welcome(v1::Welcome { user_id: 1, idle_timeout_ms: 60_000, ..Default::default() }));
    crowd.frame(0, &ServerFrame { request_id: ids::LOGIN, event }.encode_to_vec(), now);
}

#[tokio::test]
async fn a_server_that_does_not_read_is_cut_and_its_grabs_are_kept() {
    let (mut crowd, Pair { mut ours, peer }) = (crowd(), pair().await);
    // Fill what the kernel buffers, before the user writes anything.
    while ours.write(&[0; 65_536]).is_ok() {}
    crowd.connected(0, ours, START);
    assert!(crowd.has_refused());
    welcome(&mut crowd, START);
    crowd.announce(START + SECOND, 1_000, None, START).unwrap();
    let mut now = START + SECOND;
    while crowd.census.online == 1 {
        assert!(now < START + 2 * SECOND, "never cut");
        assert!(crowd.send_due(now));
        now += SECOND / 1_000;
    }
    let kept = crowd.outstanding.count;
    assert!(kept > 1 && kept < OUTBOX_BYTES_MAX as u64 / 12, "{kept}");

    // The end is found; the user comes back and asks again for everything.
    drop(peer);
    assert!(!matches!(crowd.socket(0).unwrap().read(&mut [0; 16]), Ok(1..)));
    crowd.ended(0, EndReason::Closed, now);
    assert_eq!(counts(EndReason::labelled(crowd.tally.counters.ends)).get("stuck"), Some(&1));
    assert!(!crowd.has_refused());
    assert_eq!(crowd.next_to_connect(now + SECOND), Some(0));
    let Pair { ours, peer: _peer } = pair().await;
    crowd.connected(0, ours, now + SECOND);
    welcome(&mut crowd, now + SECOND);
    assert_eq!((crowd.tally.counters.totals.resent, crowd.outstanding.count), (kept, kept));
}

#[tokio::test]
async fn bytes_that_a_socket_refused_go_out_when_it_takes_them_again() {
    let (mut crowd, Pair { mut ours, mut peer }) = (crowd(), pair().await);
    let mut filled = 0;
    while let Ok(written) = ours.write(&[0; 65_536]) {
        filled += written;
    }
    crowd.connected(0, ours, START);
    assert!(crowd.has_refused());
    let mut buffer = vec![0; 65_536];
    let mut received = 0;
    while crowd.has_refused() || received <= filled {
        received +=
            tokio::time::timeout(crate::common::DEADLINE, peer.read(&mut buffer)).await.expect("bytes").unwrap();
        tokio::task::yield_now().await;
        crowd.write_refused();
    }
}

#[tokio::test]
async fn a_user_put_off_comes_at_its_appointment_and_not_before() {
    let (mut crowd, Pair { ours, peer }) = (crowd(), pair().await);
    let ms = |after: u64| START + after * 1_000_000;
    let mut buffer = [0; 4_096];
    crowd.connected(0, ours, START);
    peer.readable().await.unwrap();
    let login = peer.try_read(&mut buffer).unwrap();
    assert!(login > 0);
    let event = Some(Event::Overloaded(v1::Overloaded { retry_after_ms: 5_000 }));
    crowd.frame(0, &ServerFrame { request_id: ids::LOGIN, event }.encode_to_vec(), ms(100));
    assert_eq!(crowd.next_arrival(), Some(ms(5_101)));
    // Neither the sweep nor the pace of connecting hurries it, or delays it.
    crowd.keep(ms(5_100)).unwrap();
    assert_eq!(crowd.next_to_connect(ms(5_100)), None);
    crowd.keep_appointments(ms(5_100));
    assert_eq!(peer.try_read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    crowd.keep_appointments(ms(5_101));
    peer.readable().await.unwrap();
    assert_eq!(peer.try_read(&mut buffer).unwrap(), login);
    assert_eq!(crowd.next_arrival(), None);
    welcome(&mut crowd, ms(5_102));
    assert_eq!(crowd.census.online, 1);
}

#[tokio::test]
async fn an_appointment_ends_with_its_connection() {
    let (mut crowd, Pair { ours, peer }) = (crowd(), pair().await);
    let put_off = |crowd: &mut Crowd, retry_after_ms, now| {
        let event = Some(Event::Overloaded(v1::Overloaded { retry_after_ms }));
        crowd.frame(0, &ServerFrame { request_id: ids::LOGIN, event }.encode_to_vec(), now);
    };
    crowd.connected(0, ours, START);
    put_off(&mut crowd, 5_000, START);
    drop(peer);
    crowd.ended(0, EndReason::Closed, START + SECOND);
    assert_eq!(crowd.next_to_connect(START + 2 * SECOND), Some(0));
    let Pair { ours, peer } = pair().await;
    crowd.connected(0, ours, START + 2 * SECOND);
    put_off(&mut crowd, 5_000, START + 2 * SECOND);
    peer.readable().await.unwrap();
    assert!(peer.try_read(&mut [0; 4_096]).unwrap() > 0);
    crowd.keep_appointments(START + 6 * SECOND);
    assert_eq!(peer.try_read(&mut [0; 4_096]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    crowd.keep_appointments(START + 7 * SECOND + 1_000_000);
    peer.readable().await.unwrap();
    assert!(peer.try_read(&mut [0; 4_096]).unwrap() > 0);
}

#[tokio::test]
async fn a_user_whom_a_storm_cuts_leaves_with_a_reset() {
    let (mut crowd, Pair { ours, mut peer }) = (crowd(), pair().await);
    crowd.connected(0, ours, START);
    welcome(&mut crowd, START);
    let mut login = [0; 4_096];
    assert!(peer.read(&mut login).await.unwrap() > 0);
    let at = START / SECOND + 5;
    let order = StormOrder { share: "100%".parse().unwrap(), at, watch_seconds: 10 };
    crowd.storms.announce(order, START).unwrap();
    let hit = crowd.storm_begins(order);
    assert_eq!(hit, [0]);
    crowd.cut(&hit, at * SECOND);
    assert_eq!((crowd.census.online, crowd.census.connected), (0, 0));
    let broken = peer.read(&mut login).await.unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(counts(EndReason::labelled(crowd.tally.counters.ends)).get("storm"), Some(&1));
    assert_eq!(crowd.next_to_connect(at * SECOND), None);
    assert_eq!(crowd.next_to_connect((at + 1) * SECOND), Some(0));
}

#[tokio::test]
async fn a_login_without_an_answer_is_given_up_and_tried_again() {
    let (mut crowd, Pair { ours, mut peer }) = (crowd(), pair().await);
    crowd.connected(0, ours, START);
    crowd.keep(START + u64::from(LOGIN_DEADLINE_MS) * 1_000_000).unwrap();
    assert_eq!(crowd.census.connected, 1);
    let late = START + u64::from(LOGIN_DEADLINE_MS + 1) * 1_000_000;
    crowd.keep(late).unwrap();
    let mut login = Vec::new();
    peer.read_to_end(&mut login).await.unwrap();
    crowd.ended(0, EndReason::Closed, late);
    assert_eq!(counts(EndReason::labelled(crowd.tally.counters.ends)).get("login_timeout"), Some(&1));
    assert_eq!(crowd.next_to_connect(late + 11 * SECOND), Some(0));
}
