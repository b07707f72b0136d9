//! The users of a machine at the bounds of their sockets, with the time passed in.

mod common;

use std::time::Duration;

use common::{Ask, config};
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ServerFrame};
use hongbao_sim::ids;
use hongbao_sim::limits::{LOGIN_DEADLINE_MS, OUTBOX_BYTES_MAX};
use hongbao_sim::machine::config::UserRange;
use hongbao_sim::machine::crowd::Crowd;
use hongbao_sim::machine::journal::Journal;
use hongbao_sim::machine::labels::End;
use hongbao_sim::machine::tally::counts;
use hongbao_sim::schedule::SECOND;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

const START: u64 = 1_800_000_000 * SECOND;

struct Pair {
    ours: TcpStream,
    peer: TcpStream,
}

async fn pair() -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    Pair { ours, peer: listener.accept().await.unwrap().0 }
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
async fn a_server_that_does_not_read_is_cut_at_the_outboxs_bound_and_its_grabs_are_kept() {
    let (mut crowd, Pair { ours, peer }) = (crowd(), pair().await);
    // Fill what the kernel buffers, before the user writes anything.
    while ours.try_write(&[0; 65_536]).is_ok() {}
    let (mut read, write) = ours.into_split();
    crowd.connected(0, write, START);
    assert!(crowd.has_refused());
    welcome(&mut crowd, START);
    crowd.announce(START + SECOND, 1_000, START).unwrap();
    let mut now = START + SECOND;
    while crowd.census.online == 1 {
        assert!(now < START + 2 * SECOND, "never cut");
        assert!(crowd.send_due(now));
        now += SECOND / 1_000;
    }
    let kept = crowd.owed.count();
    assert!(kept > 1 && kept < OUTBOX_BYTES_MAX as u64 / 12, "{kept}");

    // The reader finds the end; the user comes back and asks again for everything.
    drop(peer);
    let mut rest = [0; 16];
    assert!(!matches!(read.read(&mut rest).await, Ok(1..)));
    crowd.ended(0, End::Closed, now);
    assert_eq!(counts(crowd.tally.counters.ends()).get("stuck"), Some(&1));
    assert!(!crowd.has_refused());
    assert_eq!(crowd.next_to_connect(now + SECOND), Some(0));
    let Pair { ours, peer: _peer } = pair().await;
    crowd.connected(0, ours.into_split().1, now + SECOND);
    welcome(&mut crowd, now + SECOND);
    assert_eq!((crowd.tally.counters.resent, crowd.owed.count()), (kept, kept));
}

#[tokio::test]
async fn bytes_that_a_socket_refused_go_out_when_it_takes_them_again() {
    let (mut crowd, Pair { ours, mut peer }) = (crowd(), pair().await);
    let mut filled = 0;
    while let Ok(written) = ours.try_write(&[0; 65_536]) {
        filled += written;
    }
    let (_read, write) = ours.into_split();
    crowd.connected(0, write, START);
    assert!(crowd.has_refused());
    let mut buffer = vec![0; 65_536];
    let mut received = 0;
    while crowd.has_refused() || received <= filled {
        received += tokio::time::timeout(common::DEADLINE, peer.read(&mut buffer)).await.expect("bytes").unwrap();
        tokio::task::yield_now().await;
        crowd.write_refused();
    }
}

#[tokio::test]
async fn a_login_without_an_answer_is_given_up_and_tried_again() {
    let (mut crowd, Pair { ours, mut peer }) = (crowd(), pair().await);
    crowd.connected(0, ours.into_split().1, START);
    crowd.keep(START + u64::from(LOGIN_DEADLINE_MS) * 1_000_000).unwrap();
    assert_eq!(crowd.census.connected, 1);
    let late = START + u64::from(LOGIN_DEADLINE_MS + 1) * 1_000_000;
    crowd.keep(late).unwrap();
    let mut login = Vec::new();
    peer.read_to_end(&mut login).await.unwrap();
    crowd.ended(0, End::Closed, late);
    assert_eq!(counts(crowd.tally.counters.ends()).get("login_timeout"), Some(&1));
    assert_eq!(crowd.next_to_connect(late + 11 * SECOND), Some(0));
}
