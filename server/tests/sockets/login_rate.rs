//! More logins at once than the server takes: each is told its moment, and the crowd becomes a
//! queue.

use std::time::{Duration, Instant};

use hongbao_proto::v1::server_frame::Event;

use hongbao_testing::client::{grab, login, next_id};
use hongbao_testing::{Client, Server, user_token};

#[test]
fn a_crowd_comes_in_one_by_one_at_the_moments_that_it_was_told() {
    const CROWD: u64 = 200;
    const RATE: u64 = 50;
    let server =
        Server::with(&["--login-rate", &RATE.to_string(), "--max-connection-qps", "1000000", "--login-timeout", "2s"]);
    let mut bystander = server.login(9_999);
    // One who is in is served all the while.
    let mut shake = || {
        let answer = bystander.ask(grab(0));
        assert!(matches!(answer, Event::NoneNow(_)), "{answer:?}");
    };
    let mut crowd: Vec<(u64, Client)> = (1..=CROWD).map(|user| (user, server.connect())).collect();
    let began = Instant::now();
    let ids: Vec<u64> = crowd
        .iter_mut()
        .map(|(user, client)| {
            let id = next_id();
            client.send(id, login(&user_token(*user)));
            id
        })
        .collect();
    let mut waiting = Vec::new();
    let mut online = Vec::new();
    for ((user, mut client), id) in crowd.into_iter().zip(ids) {
        match client.answer(id) {
            Event::Welcome(_) => online.push(client),
            Event::Overloaded(overloaded) => {
                assert!(overloaded.retry_after_ms > 0);
                let moment = Instant::now() + Duration::from_millis(overloaded.retry_after_ms.into());
                waiting.push((moment, user, client));
            }
            other => panic!("{other:?}"),
        }
        shake();
    }
    let mut refused = waiting.len() as u64;
    assert!(refused > CROWD / 2, "{refused} of {CROWD} refused");
    waiting.sort_by_key(|(moment, ..)| *moment);
    for (mut moment, user, mut client) in waiting {
        loop {
            while Instant::now() < moment {
                shake();
            }
            match client.ask(login(&user_token(user))) {
                Event::Welcome(_) => break,
                // Only this test itself, held up by a busy machine, can have come too late.
                Event::Overloaded(overloaded) if moment.elapsed() > Duration::from_millis(900) => {
                    refused += 1;
                    moment = Instant::now() + Duration::from_millis(overloaded.retry_after_ms.into());
                }
                other => panic!("at its moment a login was answered {other:?}"),
            }
        }
        online.push(client);
    }
    let took = began.elapsed();
    // A tenth of a second's logins pass at once; the bystander was one of them.
    let least = Duration::from_millis((CROWD - RATE / 10) * 1_000 / RATE) - Duration::from_millis(100);
    assert!(took >= least, "{CROWD} logins at {RATE}/s in {took:?}");
    online.iter_mut().for_each(Client::ping);
    assert_eq!(server.metric("logins_deferred_total"), refused);
    assert_eq!(server.answers("overloaded"), refused);
    assert_eq!(server.stats()["users_online"], CROWD + 1);
    assert_eq!(server.ended("login_timeout"), 0);
    server.check_books();
}
