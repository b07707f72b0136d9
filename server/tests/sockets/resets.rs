//! Peers that break off at the worst moment.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, client_frame::Request};
use serde_json::Value;

use hongbao_testing::client::{framed, grab, next_id};
use hongbao_testing::{Server, until, user_token};

#[test]
fn a_reset_in_the_middle_of_a_frame_is_counted_and_harms_nobody() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    user.send_raw(&framed(next_id(), Request::Ping(v1::Ping {}))[..3]);
    user.reset();
    until("the reset to be noticed", || server.ended("reset") == 1);
    until("the session to be gone", || server.stats()["connections"] == 1);
    bystander.ping();
    server.login(2).ping();
    server.check_books();
}

#[test]
fn a_win_of_a_gone_user_is_repeated_until_acknowledged() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let campaign = server.rain(50, 1_000, &Value::Null);
    until("prizes to lie on the shelves of both SETs", || server.stats()["prizes"]["in_sets"] == 50);
    let id = next_id();
    user.send(id, grab(campaign));
    user.reset();
    until("the prize to be won", || server.stats()["ledger"]["won"] == 1);
    until("the reset to be noticed", || server.ended("reset") == 1);
    bystander.ping();

    for _ in 0..2 {
        let mut again = server.connect();
        assert_eq!(again.login(&user_token(2)).unacknowledged, 1);
        let reminder = again.push(|event| match event {
            Event::Reminder(reminder) => Some(reminder.clone()),
            _ => None,
        });
        assert_eq!(reminder.wins.len(), 1);
        let won = reminder.wins[0];
        assert_eq!((won.campaign_id, won.won_by_request_id, won.amount_fen), (campaign, id, 100));
        // The Grab itself, sent again, says the same.
        assert_eq!(again.ask_as(id, grab(campaign)), Event::Won(won));
    }
    let mut last = server.connect();
    last.login(&user_token(2));
    let won = last.push(|event| match event {
        Event::Reminder(reminder) => Some(reminder.wins[0]),
        _ => None,
    });
    let acknowledged = last.acknowledge(&[(campaign, won.serial)]);
    assert_eq!(acknowledged, Event::Acknowledged(v1::Acknowledged { count: 1 }));
    assert_eq!(server.connect().login(&user_token(2)).unacknowledged, 0);
    assert_eq!(server.stats()["ledger"]["won"], 1);
    server.check_books();
}

#[test]
fn two_hundred_resets_between_grab_and_answer_lose_nothing() {
    const PEERS: u64 = 200;
    let server = Server::start();
    let mut bystander = server.login(9_999);
    let campaign = server.rain(100_000, 100_000, &Value::Null);
    bystander.win(campaign);
    for user in 1..=PEERS {
        let mut peer = server.login(user);
        for _ in 0..5 {
            peer.send(next_id(), grab(campaign));
        }
        peer.reset();
    }
    // The kernel says "reset" once: where a write hears of it first, the reader finds a plain end.
    until("every peer's end to be noticed", || server.ended("reset") + server.ended("closed") == PEERS);
    bystander.ping();
    server.check_books();
    let mut told = 1;
    for user in 1..=PEERS {
        told += u64::from(server.connect().login(&user_token(user)).unacknowledged);
    }
    assert_eq!(server.stats()["ledger"]["won"], told);
    server.check_books();
}
