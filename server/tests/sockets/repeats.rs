//! A repeated request gets its first answer, and is paid once.

use hongbao_proto::v1::server_frame::Event;
use serde_json::Value;

use hongbao_testing::client::{grab, next_id};
use hongbao_testing::{Server, user_token};

fn paid_once(server: &Server, won: &hongbao_proto::v1::Won) {
    let ledger = server.stats()["ledger"].clone();
    assert_eq!((&ledger["won"], &ledger["paid_fen"]), (&1.into(), &won.amount_fen.into()), "{ledger}");
    server.check_books();
}

#[test]
fn a_repeat_on_the_same_connection_gets_its_first_answer() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let campaign = server.rain(100, 1_000, &Value::Null);
    let (id, won) = user.win(campaign);
    for _ in 0..3 {
        assert_eq!(user.ask_as(id, grab(campaign)), Event::Won(won));
    }
    // Whatever it asks for now, it is the same request.
    assert_eq!(user.ask_as(id, grab(0)), Event::Won(won));
    bystander.ping();
    paid_once(&server, &won);
}

#[test]
fn a_hundred_copies_of_one_grab_in_one_packet_win_one_prize() {
    let server = Server::start();
    let mut user = server.login(1);
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    // The shelf is full: each copy could win a prize of its own.
    hongbao_testing::until("the shelves to be full", || server.stats()["prizes"]["in_sets"] == 1_000);
    let id = next_id();
    let one = hongbao_testing::client::framed(id, grab(campaign));
    user.send_raw(&one.repeat(100));
    let answers: Vec<_> = (0..100).map(|_| user.answer(id)).collect();
    let Event::Won(won) = answers[0] else { panic!("{:?}", answers[0]) };
    assert!(answers.iter().all(|answer| *answer == Event::Won(won)), "{answers:?}");
    paid_once(&server, &won);
}

#[test]
fn a_repeat_on_a_new_connection_gets_its_first_answer() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let campaign = server.rain(100, 1_000, &Value::Null);
    let (id, won) = user.win(campaign);
    drop(user);
    let mut user = server.login(2);
    assert_eq!(user.ask_as(id, grab(campaign)), Event::Won(won));
    bystander.ping();
    paid_once(&server, &won);
}

#[test]
fn a_repeat_after_the_server_was_killed_gets_its_first_answer() {
    let mut server = Server::start();
    let mut user = server.login(2);
    let campaign = server.rain(100, 1_000, &Value::Null);
    let (id, won) = user.win(campaign);
    server.kill();
    server.start_again();
    let mut user = server.connect();
    assert_eq!(user.login(&user_token(2)).unacknowledged, 1);
    assert_eq!(user.ask_as(id, grab(campaign)), Event::Won(won));
    paid_once(&server, &won);
    // Serials that the first run had issued and nobody won are issued again.
    let mut others: Vec<u64> = (1..100).map(|_| user.win(campaign).1.serial).collect();
    others.push(won.serial);
    others.sort_unstable();
    assert_eq!(others, (0..100).collect::<Vec<_>>());
    server.check_books();
}

#[test]
fn somebody_elses_request_id_is_not_a_repeat() {
    let server = Server::start();
    let (mut first, mut second) = (server.login(1), server.login(2));
    let campaign = server.rain(100, 1_000, &Value::Null);
    let (id, won) = first.win(campaign);
    hongbao_testing::until("the second user to win under the same id", || match second.ask_as(id, grab(campaign)) {
        Event::Won(other) => {
            assert_ne!(other.serial, won.serial);
            true
        }
        // That answer is final: the same id would get it again, another user's id does not.
        Event::NoneNow(_) => {
            drop(std::mem::replace(&mut second, server.login(2)));
            false
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(server.stats()["ledger"]["won"], 2);
    server.check_books();
}

#[test]
fn somebody_elses_prizes_cannot_be_acknowledged() {
    let server = Server::start();
    let (mut winner, mut thief) = (server.login(1), server.login(2));
    let campaign = server.rain(100, 1_000, &Value::Null);
    let (_, won) = winner.win(campaign);
    let count = |event| match event {
        Event::Acknowledged(acknowledged) => acknowledged.count,
        other => panic!("{other:?}"),
    };
    assert_eq!(count(thief.acknowledge(&[(campaign, won.serial)])), 0);
    drop(winner);
    let mut winner = server.connect();
    assert_eq!(winner.login(&user_token(1)).unacknowledged, 1);
    assert_eq!(count(winner.acknowledge(&[(campaign, won.serial), (campaign, won.serial)])), 1);
    assert_eq!(server.connect().login(&user_token(1)).unacknowledged, 0);
    server.check_books();
}
