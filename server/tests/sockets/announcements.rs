//! To everybody at once: in order, once, and with a receipt.

use hongbao_proto::v1::server_frame::Event;
use serde_json::{Value, json};

use hongbao_testing::{Client, Server, eventually};

/// What became of an announcement, once every SET is done with it.
fn finished(server: &Server, id: u64) -> Value {
    eventually("an announcement to be everywhere", || {
        let view = server.get(&format!("/v1/announcements/{id}"));
        view["finished_at_ms"].is_u64().then_some(view)
    })
}

fn heard(client: &mut Client) -> String {
    client.push(|event| match event {
        Event::Announcement(announcement) => Some(announcement.text.clone()),
        _ => None,
    })
}

#[test]
fn everybody_logged_in_hears_each_announcement_once_in_order() {
    const USERS: u64 = 60;
    const ANNOUNCEMENTS: u64 = 30;
    let server = Server::start();
    let mut users: Vec<_> = (1..=USERS).map(|user| server.login(user)).collect();
    let _stranger = server.connect();
    let ids: Vec<u64> = (0..ANNOUNCEMENTS).map(|number| server.announce(&format!("number {number}"))).collect();
    assert_eq!(ids, (1..=ANNOUNCEMENTS).collect::<Vec<_>>());
    for id in ids {
        let view = finished(&server, id);
        assert_eq!((&view["id"], &view["reached"], &view["dropped"]), (&json!(id), &json!(USERS), &json!(0)), "{view}");
        assert_eq!((&view["sets"], &view["sets_dropped"]), (&json!(4), &json!(0)), "{view}");
        let took = view["finished_at_ms"].as_u64().unwrap() - view["started_at_ms"].as_u64().unwrap();
        let seconds = view["seconds"].as_f64().unwrap();
        #[allow(clippy::cast_precision_loss)] // milliseconds
        let difference = (seconds - took as f64 / 1e3).abs();
        assert!(seconds > 0.0 && difference < 0.002, "{view}");
    }
    for user in &mut users {
        for number in 0..ANNOUNCEMENTS {
            assert_eq!(heard(user), format!("number {number}"));
        }
        user.ping();
        assert!(user.pushes.is_empty(), "{:?}", user.pushes);
    }
    assert_eq!(server.metric("announcements_delivered_total"), USERS * ANNOUNCEMENTS);
    assert_eq!(server.metric("announcements_dropped_total"), 0);
    server.check_books();
}

#[test]
fn users_who_shake_during_announcements_get_everything() {
    const ROUNDS: usize = 100;
    let server = Server::with(&["--max-connection-qps", "1000000"]);
    let mut users: Vec<_> = (1..=8).map(|user| server.login(user)).collect();
    let last = std::thread::scope(|scope| {
        let announcing = scope.spawn(|| (0..ROUNDS).fold(0, |_, number| server.announce(&number.to_string())));
        while !announcing.is_finished() {
            for user in &mut users {
                assert!(matches!(user.grab(0), Event::NoneNow(_)));
            }
        }
        announcing.join().unwrap()
    });
    assert_eq!(finished(&server, last)["reached"], 8);
    for user in &mut users {
        for number in 0..ROUNDS {
            assert_eq!(heard(user), number.to_string());
        }
    }
    server.check_books();
}

#[test]
fn with_nobody_there_an_announcement_is_done_at_once() {
    let server = Server::start();
    let view = finished(&server, server.announce("anybody?"));
    assert_eq!((&view["reached"], &view["dropped"]), (&json!(0), &json!(0)));
}
