//! Too many requests: an answer to each, and the same request may be sent again.

use std::time::Instant;

use hongbao_proto::v1;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use serde_json::Value;

use super::flood;
use hongbao_testing::client::{framed, grab, next_id};
use hongbao_testing::{Server, eventually, until};

#[test]
fn grabs_above_the_limit_are_overloaded_and_served_later() {
    let server = Server::with(&["--max-qps", "2"]);
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    until("prizes to lie ready", || server.stats()["prizes"]["in_sets"] == 1_000);
    let (id, retry_after_ms) = eventually("a refusal", || {
        let id = next_id();
        match user.ask_as(id, grab(campaign)) {
            Event::Overloaded(overloaded) => Some((id, overloaded.retry_after_ms)),
            _ => None,
        }
    });
    assert!(retry_after_ms > 0);
    // Only Grabs are limited.
    for _ in 0..20 {
        bystander.ping();
    }
    let won = eventually("the same request to be served", || match user.ask_as(id, grab(campaign)) {
        Event::Won(won) => Some(won),
        Event::Overloaded(_) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(won.won_by_request_id, id);
    assert!(server.answers("overloaded") >= 1);
    server.check_books();
}

#[test]
fn the_limit_holds_for_the_whole_server_and_all_are_answered() {
    const GRABS: usize = 400;
    let server = Server::with(&["--max-qps", "20"]);
    let mut users: Vec<_> = (1..=4).map(|user| server.login(user)).collect();
    let began = Instant::now();
    let ids: Vec<u64> = (0..GRABS).map(|_| next_id()).collect();
    for (user, ids) in users.iter_mut().zip(ids.chunks(GRABS / 4)) {
        let frames: Vec<u8> = ids.iter().flat_map(|&id| framed(id, grab(0)).to_vec()).collect();
        user.send_raw(&frames);
    }
    let mut served = 0;
    for (user, ids) in users.iter_mut().zip(ids.chunks(GRABS / 4)) {
        for &id in ids {
            match user.answer(id) {
                Event::NoneNow(_) => served += 1,
                Event::Overloaded(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // A tenth of a second's worth at once, then the rate.
    let allowed = 2 + 20 * (began.elapsed().as_secs() + 1);
    assert!((1..=allowed).contains(&served), "{served} of {GRABS} served in {:?}", began.elapsed());
    assert_eq!(server.answers("overloaded"), GRABS as u64 - served);
    server.check_books();
}

#[test]
fn one_connection_that_asks_too_much_is_limited_alone() {
    let server = Server::with(&["--max-connection-qps", "10"]);
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let ids: Vec<u64> = (0..100).map(|_| next_id()).collect();
    let frames: Vec<u8> = ids.iter().flat_map(|&id| framed(id, Request::Ping(v1::Ping {})).to_vec()).collect();
    user.send_raw(&frames);
    let overloaded = ids.iter().filter(|&&id| matches!(user.answer(id), Event::Overloaded(_))).count();
    // Two seconds' worth are forgiven, and the login was one of them.
    assert!((60..=81).contains(&overloaded), "{overloaded} of 100 were refused");
    bystander.ping();
    until("the user to be served again", || matches!(user.ask(Request::Ping(v1::Ping {})), Event::Pong(_)));
    assert!(server.answers("overloaded") >= 60);
    server.check_books();
}

#[test]
fn a_flood_of_a_hundred_thousand_requests_is_answered_in_full() {
    let server = Server::with(&["--max-connection-qps", "1000000"]);
    let campaign = server.rain(500, 100_000, &Value::Null);
    assert_eq!(flood(&server, 20, 5_000, 500, |_| grab(campaign)), 100_000);
    until("every prize to be won or withdrawn", || server.stats()["prizes"]["in_flight"] == 0);
    server.check_books();
}
