//! A peer that does not read costs only itself.

use hongbao_proto::v1;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;

use hongbao_testing::client::{framed, next_id};
use hongbao_testing::{Client, Server, until, user_token};

const BYTES: usize = 1_000;

fn announcement(number: usize) -> String {
    format!("{number:0BYTES$}")
}

#[test]
fn a_peer_that_never_reads_is_cut_alone_and_others_read_all() {
    let server = Server::start();
    let mut readers: Vec<_> = (1..=4).map(|user| server.login(user)).collect();
    let mut stuck = Client::connect_narrow(server.listen);
    stuck.login(&user_token(99));
    let before = server.stats()["process"]["rss_bytes"].as_u64().unwrap();
    let mut announced = 0;
    until("the stuck peer to be cut", || {
        // Answers pile up, too.
        for _ in 0..5 {
            stuck.send_raw(&framed(next_id(), Request::Ping(v1::Ping {})));
        }
        let text = announcement(announced);
        server.announce(&text);
        announced += 1;
        for reader in &mut readers {
            let heard = reader.push(|event| match event {
                Event::Announcement(announcement) => Some(announcement.text.clone()),
                _ => None,
            });
            assert_eq!(heard, text);
        }
        announced % 20 == 0 && server.ended("slow") == 1
    });
    // Two buffers in the kernel and the outbox, and no more, stood between the peer and its end.
    assert!((100..2_000).contains(&announced), "cut after {announced} announcements");
    let grown = server.stats()["process"]["rss_bytes"].as_u64().unwrap().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    for reader in &mut readers {
        reader.ping();
    }
    until("the peer's session to be gone", || server.stats()["connections"] == 4);
    assert_eq!(server.metric("announcements_dropped_total"), 0);
    // What it finds when it reads at last is an end, after whole frames.
    stuck.ending();
    server.login(99).ping();
    server.check_books();
}

#[test]
fn a_peer_that_is_merely_late_reads_everything_in_order() {
    let server = Server::start();
    let mut late = Client::connect_narrow(server.listen);
    late.login(&user_token(1));
    // More than its kernel and ours hold for it, less than its outbox has room for besides.
    const COUNT: usize = 200;
    for number in 0..COUNT {
        server.announce(&announcement(number));
    }
    until("the announcements to be on their way", || server.metric("announcements_delivered_total") == COUNT as u64);
    for number in 0..COUNT {
        let heard = late.push(|event| match event {
            Event::Announcement(announcement) => Some(announcement.text.clone()),
            _ => None,
        });
        assert_eq!(heard, announcement(number));
    }
    late.ping();
    assert_eq!(server.ended("slow"), 0);
    server.check_books();
}
