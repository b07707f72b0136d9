//! Guests over real WebSockets, with a server whose every word is the test's.

use axum::http::StatusCode;
use futures_util::{SinkExt, StreamExt};
use hongbao_monitor::limits::{GUEST_FRAMES_BURST, GUEST_FRAMES_INTERVAL_MS, GUEST_OWED_MAX, NEW_GUESTS_BURST};
use hongbao_proto::limits::CLIENT_FRAME_BYTES_MAX;
use hongbao_proto::token::Audience;
use hongbao_proto::v1::client_frame::Request as Ask;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{
    Announcement, Chat, ClientFrame, Goodbye, Grab, Login, NoneNow, Open, Opened, Ping, Pong, Reminder, Room,
    SendEnvelope, ServerFrame, Won, goodbye,
};
use hongbao_telemetry::report::names::role;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::support::{Running, Users, hear, say, soon, token};

type Browser = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(running: &Running, headers: &[(&'static str, &str)]) -> Result<Browser, Error> {
    let mut request = running.url("/api/v1/shake").replace("http", "ws").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    tokio_tungstenite::connect_async(request).await.map(|(browser, _)| browser)
}

async fn send(browser: &mut Browser, request_id: u64, request: Ask) {
    let frame = ClientFrame { request_id, request: Some(request) };
    browser.send(Message::binary(frame.encode_to_vec())).await.unwrap();
}

async fn told(browser: &mut Browser) -> ServerFrame {
    match soon("the guest to be told", browser.next()).await.unwrap().unwrap() {
        Message::Binary(bytes) => ServerFrame::decode(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Code and reason with which the bridge closes, whatever it says before.
async fn closed(browser: &mut Browser) -> (u16, String) {
    loop {
        match soon("the bridge to close", browser.next()).await {
            Some(Ok(Message::Close(Some(close)))) => return (close.code.into(), close.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn mint(running: &Running) -> (u64, String) {
    let minted = running.client.post(running.url("/api/v1/guests")).json(&json!({})).send().await.unwrap();
    assert_eq!(minted.status(), 200);
    let minted: serde_json::Value = minted.json().await.unwrap();
    (minted["user"].as_u64().unwrap(), minted["token"].as_str().unwrap().to_owned())
}

fn login(token: &str) -> Ask {
    Ask::Login(Login { token: token.to_owned() })
}

/// A monitor whose guests play on the test's server.
async fn monitor(users: &Users, flags: &[&str]) -> Running {
    let server = users.address.to_string();
    Running::with(&[&["--guest-server", &server], flags].concat()).await
}

/// A guest who is logged in: browser and server's side.
async fn guest(running: &Running, users: &Users) -> (Browser, super::support::User, u64) {
    let (user, token) = mint(running).await;
    let mut browser = open(running, &[]).await.unwrap();
    send(&mut browser, 1, login(&token)).await;
    let (server, who) = users.welcome().await;
    assert_eq!(who, user);
    assert!(matches!(told(&mut browser).await.event, Some(Event::Welcome(_))));
    (browser, server, user)
}

fn won(serial: u64, amount_fen: u64, request: u64) -> Won {
    Won { campaign_id: 1, serial, amount_fen, won_by_request_id: request }
}

#[tokio::test]
async fn a_guests_win_is_booked_once_and_journaled_before_it_is_sent() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let server = running.reports(role::SERVER, "server-1", None, None).await;
    let (mut browser, mut side, user) = guest(&running, &users).await;
    send(&mut browser, 7, Ask::Grab(Grab { campaign_id: 0 })).await;
    assert!(matches!(hear(&mut side).await, (7, Ask::Grab(_))));
    *server.totals.lock().unwrap() = (1, 250);
    say(&mut side, 7, Event::Won(won(3, 250, 7))).await;
    let heard = told(&mut browser).await;
    assert!(matches!(heard.event, Some(Event::Won(Won { amount_fen: 250, .. }))));
    let journal = std::fs::read_to_string(running.record.join("journals/guests.csv")).unwrap();
    assert!(journal.contains(&format!("win,{user},7,1/3,250,")), "{journal}");
    // Told again, as after any login: no new prize.
    say(&mut side, 0, Event::Reminder(Reminder { wins: vec![won(3, 250, 7)], orders: Vec::new() })).await;
    assert!(matches!(told(&mut browser).await.event, Some(Event::Reminder(_))));

    let books = running.get_until("/api/v1/books", |books| books["prizes_received"] == 1).await;
    assert_eq!((&books["received_fen"], &books["residual_fen"]), (&json!(250), &json!(0)), "{books}");
    browser.close(None).await.unwrap();
    server.leave().await;
    let (outcome, _, folder) = running.stop().await;
    assert!(outcome.run.books.balanced());
    assert_eq!(outcome.run.books.claims.prizes_received, 1);
    let journal = std::fs::read_to_string(folder.path().join("recordings/the-run/journals/guests.csv")).unwrap();
    assert_eq!(journal.lines().count(), 2, "{journal}");
}

#[tokio::test]
async fn a_win_on_its_way_to_a_guest_who_has_just_left_is_in_the_book() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let (mut browser, mut side, _) = guest(&running, &users).await;
    send(&mut browser, 7, Ask::Grab(Grab { campaign_id: 0 })).await;
    assert!(matches!(hear(&mut side).await, (7, Ask::Grab(_))));
    browser.close(None).await.unwrap();
    soon("the bridge to let go", async { while browser.next().await.is_some() {} }).await;
    say(&mut side, 7, Event::Won(won(3, 250, 7))).await;
    assert!(soon("the connection to end", side.next()).await.is_none());
    running.get_until("/api/v1/books", |books| books["received_fen"] == 250).await;
}

#[tokio::test]
async fn an_answer_lost_with_the_server_is_asked_for_again() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let (mut browser, mut side, user) = guest(&running, &users).await;
    send(&mut browser, 7, Ask::Grab(Grab { campaign_id: 0 })).await;
    send(&mut browser, 8, Ask::Open(Open { envelope_id: 5 })).await;
    assert!(matches!(hear(&mut side).await, (7, Ask::Grab(_))));
    assert!(matches!(hear(&mut side).await, (8, Ask::Open(_))));
    drop(side);
    assert_eq!(closed(&mut browser).await, (1012, "server_ended".to_owned()));
    let (mut side, who) = users.welcome().await;
    assert_eq!(who, user);
    for _ in 0..2 {
        match hear(&mut side).await {
            (7, Ask::Grab(_)) => say(&mut side, 7, Event::Won(won(3, 250, 7))).await,
            (8, Ask::Open(_)) => {
                let opened = Opened { envelope_id: 5, share: 0, amount_fen: 30 };
                say(&mut side, 8, Event::Opened(opened)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(soon("the connection to end", side.next()).await.is_none());
    running.get_until("/api/v1/books", |books| books["received_fen"] == 250).await;
    let journal = std::fs::read_to_string(running.record.join("journals/guests.csv")).unwrap();
    assert!(journal.contains(&format!("share,{user},8,5/0,30,")), "{journal}");
}

#[tokio::test]
async fn a_guest_who_comes_back_takes_over_what_it_is_owed() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let (user, token) = mint(&running).await;
    let mut browser = open(&running, &[]).await.unwrap();
    send(&mut browser, 1, login(&token)).await;
    let (mut side, _) = users.welcome().await;
    assert!(matches!(told(&mut browser).await.event, Some(Event::Welcome(_))));
    send(&mut browser, 7, Ask::Grab(Grab { campaign_id: 0 })).await;
    hear(&mut side).await;
    drop(side);
    closed(&mut browser).await;
    let mut browser = open(&running, &[]).await.unwrap();
    send(&mut browser, 2, login(&token)).await;
    let (mut side, who) = users.welcome().await;
    assert_eq!(who, user);
    assert!(matches!(hear(&mut side).await, (7, Ask::Grab(_))));
    say(&mut side, 7, Event::NoneNow(NoneNow {})).await;
    assert!(matches!(told(&mut browser).await.event, Some(Event::Welcome(_))));
    assert_eq!(told(&mut browser).await.request_id, 7);
}

#[tokio::test]
async fn each_hostile_message_ends_its_connection_with_its_own_code() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let frame = |request: Ask| Message::binary(ClientFrame { request_id: 5, request: Some(request) }.encode_to_vec());
    let unnumbered = ClientFrame { request_id: 0, request: Some(Ask::Ping(Ping {})) };
    let chat = Chat { user_id: 1, text: "hi".into(), ..Chat::default() };
    for (message, code, reason) in [
        (Message::text("{}"), 1003, "text"),
        (Message::binary(vec![0xff; 40]), 1007, "malformed"),
        (Message::binary(Vec::new()), 1007, "malformed"),
        (Message::binary(unnumbered.encode_to_vec()), 1007, "malformed"),
        (frame(login("again")), 1007, "malformed"),
        (Message::binary(vec![0; CLIENT_FRAME_BYTES_MAX + 1]), 1009, "too_long"),
        (frame(Ask::Chat(chat)), 1008, "forbidden"),
        (frame(Ask::Room(Room { room_id: 1, ..Room::default() })), 1008, "forbidden"),
        (frame(Ask::SendEnvelope(SendEnvelope { total_fen: 5, ..SendEnvelope::default() })), 1008, "forbidden"),
    ] {
        let (mut browser, mut side, _) = guest(&running, &users).await;
        browser.send(message).await.unwrap();
        assert_eq!(closed(&mut browser).await, (code, reason.to_owned()));
        assert!(soon("the server's side to end", side.next()).await.is_none(), "nothing of it reached the server");
    }
    assert_eq!((running.ended("malformed").await, running.ended("forbidden").await), (4, 3));
}

#[tokio::test]
async fn only_a_guests_login_opens_the_bridge() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let admin = token("1", Audience::Admin, 60);
    let user = token("1", Audience::User, 60);
    for first in [Ask::Ping(Ping {}), login(""), login(&admin), login(&user)] {
        let mut browser = open(&running, &[]).await.unwrap();
        send(&mut browser, 1, first).await;
        assert_eq!(closed(&mut browser).await, (1008, "stranger".to_owned()));
    }
    assert_eq!(running.ended("stranger").await, 4);
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_open_the_bridge() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let own = format!("http://127.0.0.1:{}", running.http.port());
    for headers in [[("origin", "http://evil.example")], [("origin", "null")], [("sec-fetch-site", "cross-site")]] {
        let Err(Error::Http(refused)) = open(&running, &headers).await else { panic!("{headers:?} was let in") };
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
    let Err(Error::Http(refused)) = open(&running, &[("host", "evil.example")]).await else { panic!("was let in") };
    assert_eq!(refused.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(open(&running, &[("origin", &own), ("sec-fetch-site", "same-origin")]).await.is_ok());
}

#[tokio::test]
async fn one_guest_too_many_is_told_so_and_let_in_when_another_leaves() {
    let users = Users::open().await;
    let running = monitor(&users, &["--guests", "1"]).await;
    let (mut browser, side, _) = guest(&running, &users).await;
    let mut second = open(&running, &[]).await.unwrap();
    assert_eq!(closed(&mut second).await, (1013, "full".to_owned()));
    let controls = running.good("/api/v1/controls").await;
    assert_eq!(controls["guests"], json!({ "max": 1, "now": 1 }));
    assert_eq!(controls["machines"], json!([]), "guests are no machine to be ordered about");
    browser.close(None).await.unwrap();
    drop(side);
    running.get_until("/api/v1/controls", |controls| controls["guests"]["now"] == 0).await;
    guest(&running, &users).await;
}

#[tokio::test]
async fn new_guests_from_one_address_are_rate_limited() {
    let running = Running::start().await;
    for _ in 0..NEW_GUESTS_BURST {
        mint(&running).await;
    }
    let refused = running.client.post(running.url("/api/v1/guests")).json(&json!({})).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
}

#[tokio::test]
async fn without_a_server_a_guest_is_told_to_wait_for_one() {
    let users = Users::open().await;
    let running = Running::start().await;
    let (_, token) = mint(&running).await;
    let mut browser = open(&running, &[]).await.unwrap();
    send(&mut browser, 1, login(&token)).await;
    assert_eq!(closed(&mut browser).await, (1013, "no_server".to_owned()));
    // Then one reports where its users connect.
    let _server = running.reports(role::SERVER, "server-1", None, Some(users.address)).await;
    guest(&running, &users).await;
}

#[tokio::test]
async fn a_reporter_cannot_send_guests_to_an_address_of_its_choosing() {
    let users = Users::open().await;
    let running = Running::start().await;
    let elsewhere = std::net::SocketAddr::from(([127, 0, 0, 2], users.address.port()));
    let _server = running.reports(role::SERVER, "server-1", None, Some(elsewhere)).await;
    let (_, token) = mint(&running).await;
    let mut browser = open(&running, &[]).await.unwrap();
    send(&mut browser, 1, login(&token)).await;
    assert_eq!(closed(&mut browser).await, (1013, "no_server".to_owned()));
}

#[tokio::test]
async fn frames_faster_than_a_hand_end_the_connection() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let (mut browser, mut side, _) = guest(&running, &users).await;
    let reading = tokio::spawn(async move {
        let mut pings = 0;
        while let Some(Ok(_)) = side.next().await {
            pings += 1;
        }
        pings
    });
    for id in 0..3 * GUEST_FRAMES_BURST {
        let ping = ClientFrame { request_id: id + 2, request: Some(Ask::Ping(Ping {})) };
        if browser.send(Message::binary(ping.encode_to_vec())).await.is_err() {
            break;
        }
    }
    assert_eq!(closed(&mut browser).await, (1008, "too_fast".to_owned()));
    let pings = soon("the server's side to end", reading).await.unwrap();
    assert!((GUEST_FRAMES_BURST..2 * GUEST_FRAMES_BURST).contains(&pings), "{pings}");
}

#[tokio::test]
async fn a_slow_browser_costs_only_itself() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let (slow, mut flooding, _) = guest(&running, &users).await;
    let (mut quick, mut side, _) = guest(&running, &users).await;
    // It never reads. The sockets' buffers take some megabytes, then the outbox is full.
    let flood = tokio::spawn(async move {
        let text = "x".repeat(32 * 1024);
        let announcement = ServerFrame { request_id: 0, event: Some(Event::Announcement(Announcement { text })) };
        while flooding.send(&announcement).await.is_ok() {}
    });
    // As often as a guest may say something.
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(60));
    soon("the slow guest to be cut off", async {
        while running.ended("slow").await == 0 {
            send(&mut quick, 5, Ask::Ping(Ping {})).await;
            assert!(matches!(hear(&mut side).await, (5, Ask::Ping(_))));
            say(&mut side, 5, Event::Pong(Pong { server_time_ms: 1 })).await;
            assert!(matches!(told(&mut quick).await.event, Some(Event::Pong(_))));
            pace.tick().await;
        }
    })
    .await;
    soon("the server to be rid of it", flood).await.unwrap();
    drop(slow);
}

#[tokio::test]
async fn a_connections_end_brings_its_goodbye_and_so_does_a_stop() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let (mut browser, mut side, _) = guest(&running, &users).await;
    let goodbye = Goodbye { reason: goodbye::Reason::Draining.into(), return_after_ms: Some(900) };
    say(&mut side, 0, Event::Goodbye(goodbye)).await;
    drop(side);
    assert!(matches!(told(&mut browser).await.event, Some(Event::Goodbye(_))));
    assert_eq!(closed(&mut browser).await, (1012, "server_ended".to_owned()));

    let (mut browser, _side, _) = guest(&running, &users).await;
    let stopped = tokio::spawn(running.stop());
    assert_eq!(closed(&mut browser).await, (1001, "stopping".to_owned()));
    soon("the monitor to stop", stopped).await.unwrap();
}

#[tokio::test]
async fn the_protocol_is_there_to_be_read() {
    let running = Running::start().await;
    let text = running.client.get(running.url("/client.proto")).send().await.unwrap().text().await.unwrap();
    assert_eq!(text, hongbao_proto::CLIENT_PROTO);
}

#[tokio::test]
async fn a_guest_may_know_its_odds() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let server = running.reports(role::SERVER, "server-1", None, None).await;
    *server.totals.lock().unwrap() = (5, 500);
    let odds = running.get_until("/api/v1/odds", |odds| odds["wins"] == 5).await;
    assert_eq!((&odds["shakes"], &odds["guests"], &odds["guests_max"]), (&json!(0), &json!(0), &json!(32)));
}

#[tokio::test]
async fn no_more_shakes_are_under_way_than_the_bound() {
    let users = Users::open().await;
    let running = monitor(&users, &[]).await;
    let (mut browser, _side, _) = guest(&running, &users).await;
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(GUEST_FRAMES_INTERVAL_MS));
    for id in 0..=GUEST_OWED_MAX as u64 {
        // Not faster than they may say anything.
        pace.tick().await;
        send(&mut browser, 10 + id, Ask::Grab(Grab { campaign_id: 0 })).await;
    }
    assert_eq!(closed(&mut browser).await, (1008, "too_fast".to_owned()));
}

#[tokio::test]
async fn a_browser_that_says_nothing_does_not_keep_its_place() {
    let running = Running::with(&["--guests", "1"]).await;
    let mut silent = open(&running, &[]).await.unwrap();
    assert_eq!(closed(&mut silent).await, (1008, "stranger".to_owned()));
    running.get_until("/api/v1/controls", |controls| controls["guests"]["now"] == 0).await;
}
