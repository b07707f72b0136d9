//! More peers than there is room for.

use std::time::{Duration, Instant};

use hongbao_proto::v1::goodbye::Reason;
use serde_json::Value;

use hongbao_testing::{Client, Ending, Heard, Server, Setup, eventually, throughout, until, user_token};

#[test]
fn two_thousand_silent_connections_end_and_free_descriptors() {
    const STRANGERS: usize = 2_000;
    let server = Server::with(&["--login-timeout", "2s"]);
    let mut user = server.login(1);
    let descriptors = server.open_descriptors();
    let mut strangers: Vec<_> = (0..STRANGERS).map(|_| server.connect()).collect();
    user.ping();
    until("all to be taken in", || server.stats()["connections"] == STRANGERS + 1);
    assert!(server.open_descriptors() >= descriptors + STRANGERS);
    for stranger in &mut strangers {
        assert_eq!(stranger.ending(), Ending::goodbye(Reason::LoginTimeout));
    }
    user.ping();
    drop(strangers);
    until("their descriptors to come back", || server.stats()["connections"] == 1);
    // One or two of an operator's connections come and go.
    until("their descriptors to be closed", || server.open_descriptors() <= descriptors + 2);
    assert_eq!(server.ended("login_timeout"), STRANGERS as u64);
    server.check_books();
}

#[test]
fn strangers_that_ignore_their_goodbye_are_torn_down() {
    let server = Server::with(&["--login-timeout", "1s"]);
    let mut user = server.login(1);
    let strangers: Vec<_> = (0..50).map(|_| server.connect()).collect();
    until("all to be told", || server.ended("login_timeout") == 50);
    until("all to be gone", || server.stats()["connections"] == 1);
    user.ping();
    drop(strangers);
    server.check_books();
}

#[test]
fn a_silent_user_is_ended_as_idle_and_one_that_pings_is_not() {
    let server = Server::with(&["--login-timeout", "1s", "--idle-timeout", "3s"]);
    let mut client = server.connect();
    assert_eq!(client.login(&user_token(1)).idle_timeout_ms, 3_000);
    let mut silent = server.login(2);
    until("the silent one to be ended", || {
        client.ping();
        server.ended("idle") == 1
    });
    assert_eq!(silent.ending(), Ending::goodbye(Reason::Idle));
    client.ping();
    server.check_books();
}

#[test]
fn without_descriptors_peers_are_put_off_and_users_are_served() {
    let server = Server::set_up(Setup { descriptors: Some(120), ..Setup::default() });
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    let mut user = server.login(1);
    user.win(campaign);
    let mut peers: Vec<_> = (0..150).map(|_| server.connect()).collect();
    until("the descriptors to run out", || server.open_descriptors() >= 119);

    // One of those beyond the limit, sooner or later, is told so.
    let told = eventually("a goodbye", || {
        peers.iter_mut().find_map(|peer| match peer.hear(Duration::from_millis(1)) {
            Heard::Frame(frame) => frame.event,
            _ => None,
        })
    });
    let hongbao_proto::v1::server_frame::Event::Goodbye(goodbye) = told else { panic!("{told:?}") };
    assert_eq!(goodbye.reason(), Reason::Full);
    assert!(goodbye.return_after_ms.unwrap() > 0);

    // Meanwhile nothing spins, and who is in is served, prizes included.
    let tries = || server.metric("accepts_without_descriptor_total");
    let (began, before) = (Instant::now(), tries());
    throughout(Duration::from_secs(2), || user.ping());
    // Each of the two shards tries once, and then waits for a tenth of a second.
    let most = 2 * (u64::try_from(began.elapsed().as_millis()).unwrap() / 100 + 1);
    let tried = tries() - before;
    assert!(tried <= most, "{tried} tries, at most {most} were due");
    user.win(campaign);

    drop(peers);
    until("room to be found again", || {
        let mut peer = server.connect();
        peer.send(1, hongbao_testing::client::login(&user_token(2)));
        matches!(peer.hear(Duration::from_secs(1)), Heard::Frame(frame) if frame.request_id == 1)
    });
    assert!(server.metric("accepts_without_descriptor_total") > 0);
    user.ping();
    server.check_books();
}

#[test]
fn a_full_server_stops_listening_until_there_is_room() {
    let server = Server::with(&["--shards", "1", "--sets", "1", "--set-capacity", "10"]);
    let mut users: Vec<_> = (1..=10).map(|user| server.login(user)).collect();
    until("the listener to be closed", || server.metric("listeners_closed_full_total") == 1);
    until("the kernel to refuse peers", || Client::try_connect(server.listen).is_err());
    for user in &mut users {
        user.ping();
    }
    drop(users.pop());
    let mut late = eventually("the listener to be opened again", || Client::try_connect(server.listen).ok());
    late.login(&user_token(11));
    late.ping();
    users[0].ping();
    until("the listener to be closed again", || server.metric("listeners_closed_full_total") == 2);
    server.check_books();
}
