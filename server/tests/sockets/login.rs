//! Who may come in, and how.

use std::collections::HashMap;

use hongbao_proto::token::{Audience, Secret, Signer};
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_telemetry::clock::unix_seconds;

use hongbao_server::limits::EARLY_REQUESTS_MAX;
use hongbao_testing::client::{acknowledge, code, framed, grab, login, next_id};
use hongbao_testing::{Ending, SECRET, Server, sign, until, user_token};
use reqwest::Method;
use serde_json::json;

/// A login with `token` is answered with `code` and a goodbye; another user, meanwhile, is served.
fn is_refused(token: &str, code: ErrorCode, label: &str) {
    let server = Server::start();
    let mut bystander = server.login(1);
    let (mut peer, id) = (server.connect(), next_id());
    peer.send(id, login(token));
    assert_eq!(peer.ending(), Ending::with(id, code, Reason::Authentication));
    bystander.ping();
    assert_eq!((server.errors(label), server.ended("authentication")), (1, 1));
    assert_eq!(server.stats()["users_online"], 1);
    server.check_books();
}

#[test]
fn anything_before_login_is_refused_and_ends_the_connection() {
    let server = Server::start();
    let mut bystander = server.login(1);
    let requests = [Request::Ping(v1::Ping {}), grab(0), acknowledge(&[(1, 1)]), acknowledge(&[])];
    let count = requests.len() as u64;
    for request in requests {
        let (mut peer, id) = (server.connect(), next_id());
        peer.send(id, request);
        assert_eq!(peer.ending(), Ending::with(id, ErrorCode::NotLoggedIn, Reason::Protocol));
    }
    bystander.ping();
    assert_eq!((server.errors("not_logged_in"), server.ended("protocol")), (count, count));
    server.check_books();
}

#[test]
fn a_second_login_is_refused_and_the_connection_goes_on() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    for other in [2, 3] {
        assert_eq!(code(&user.ask(login(&user_token(other)))), ErrorCode::AlreadyLoggedIn);
    }
    user.ping();
    bystander.ping();
    assert_eq!(server.errors("already_logged_in"), 2);
    assert_eq!(server.stats()["users_online"], 2);
    server.check_books();
}

#[test]
fn a_login_and_a_grab_in_one_packet_are_both_answered() {
    let server = Server::start();
    let (mut peer, first, second) = (server.connect(), next_id(), next_id());
    let mut bytes = framed(first, login(&user_token(1)));
    bytes.extend_from_slice(&framed(second, grab(0)));
    peer.send_raw(&bytes);
    assert!(matches!(peer.answer(first), Event::Welcome(_)));
    assert_eq!(peer.answer(second), Event::NoneNow(v1::NoneNow {}));
    peer.ping();
    server.check_books();
}

#[test]
fn so_much_may_come_behind_a_login_and_the_rest_later() {
    let server = Server::start();
    let (mut peer, first) = (server.connect(), next_id());
    let ids: Vec<u64> = (0..2 * EARLY_REQUESTS_MAX).map(|_| next_id()).collect();
    let mut bytes = framed(first, login(&user_token(1)));
    ids.iter().for_each(|id| bytes.extend_from_slice(&framed(*id, Request::Ping(v1::Ping {}))));
    peer.send_raw(&bytes);
    let mut events: HashMap<u64, Event> =
        (0..=ids.len()).map(|_| peer.frame()).map(|frame| (frame.request_id, frame.event.unwrap())).collect();
    assert!(matches!(events.remove(&first), Some(Event::Welcome(_))));
    for (place, id) in ids.iter().enumerate() {
        let event = events.remove(id).unwrap();
        let early = matches!(event, Event::Pong(_));
        assert!(early || matches!(event, Event::Overloaded(_)), "{event:?}");
        assert!(early || place >= EARLY_REQUESTS_MAX, "{place}");
    }
    peer.ping();
    server.check_books();
}

#[test]
fn what_came_before_a_half_close_is_answered() {
    let server = Server::start();
    let rain = server.rain(100_000, 10_000, &json!({}));
    server.login(1).win(rain);
    for user in 2..22 {
        let mut peer = server.login(user);
        let (grabbed, pinged) = (next_id(), next_id());
        let mut bytes = framed(grabbed, grab(rain));
        bytes.extend_from_slice(&framed(pinged, Request::Ping(v1::Ping {})));
        peer.send_raw(&bytes);
        peer.close_write();
        let mut answered: Vec<u64> = [peer.frame(), peer.frame()].iter().map(|frame| frame.request_id).collect();
        answered.sort_unstable();
        assert_eq!(answered, [grabbed, pinged]);
        assert_eq!(peer.ending(), Ending::default());
    }
    // Nothing that came with the login either.
    let (mut peer, first, second) = (server.connect(), next_id(), next_id());
    let mut bytes = framed(first, login(&user_token(30)));
    bytes.extend_from_slice(&framed(second, grab(rain)));
    peer.send_raw(&bytes);
    peer.close_write();
    assert!(matches!(peer.answer(first), Event::Welcome(_)));
    peer.answer(second);
    assert_eq!(peer.ending(), Ending::default());
    until("all of them to be gone", || server.stats()["connections"] == 0);
    server.check_books();
}

#[test]
fn a_connection_ends_when_its_token_expires() {
    let server = Server::with(&["--token-leeway", "0s"]);
    let signer = Signer::new(&Secret::from_text(SECRET).unwrap());
    let (mut lasting, mut passing) = (server.login(1), server.connect());
    passing.login(&signer.sign("2", Audience::User, unix_seconds(), 2).unwrap());
    assert_eq!(passing.ending(), Ending::goodbye(Reason::Authentication));
    assert_eq!(server.ended("token_expired"), 1);
    lasting.ping();

    let server = Server::with(&["--token-leeway", "0s", "--end-at-expiry", "false"]);
    let mut passing = server.connect();
    let until_second = unix_seconds() + 2;
    passing.login(&signer.sign("2", Audience::User, until_second - 2, 2).unwrap());
    until("the token to expire", || unix_seconds() > until_second + 1);
    passing.ping();
}

#[test]
fn a_user_who_is_kicked_for_a_time_stays_out() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let out = |path: &str| server.call(Method::DELETE, path, None).status().as_u16();
    assert_eq!(out("/v1/sessions/2?for=1h"), 202);
    let ending = user.ending();
    assert_eq!(ending.goodbye, Some(Reason::Kicked));
    assert!((3_500_000..=3_600_000).contains(&ending.return_after_ms.unwrap()), "{ending:?}");
    // Somebody who is not here is kept out as well.
    assert_eq!(out("/v1/sessions/3?for=1h"), 202);
    for user in [2, 3] {
        let (mut peer, id) = (server.connect(), next_id());
        peer.send(id, login(&user_token(user)));
        let ending = peer.ending();
        assert_eq!(ending.errors, [(id, ErrorCode::UserBarred)]);
        assert_eq!(ending.goodbye, Some(Reason::Kicked));
        assert!(ending.return_after_ms.unwrap() <= 3_600_000);
    }
    for bad in ["0s", "31days", "x", ""] {
        assert_eq!(out(&format!("/v1/sessions/4?for={bad}")), 400, "{bad:?}");
    }
    assert_eq!(out("/v1/sessions/1?for=1ms"), 202);
    bystander.ending();
    until("the time to be over", || matches!(server.connect().ask(login(&user_token(1))), Event::Welcome(_)));
    server.check_books();
}

#[test]
fn the_welcome_names_limits_and_the_highest_grab() {
    let server = Server::with(&["--max-connection-qps", "77", "--login-timeout", "9s"]);
    let rain = server.rain(100_000, 10_000, &json!({}));
    let (highest, _) = server.login(1).win(rain);
    let welcome = server.connect().login(&user_token(1));
    assert_eq!(welcome.highest_grab_id, highest);
    assert_eq!((welcome.requests_per_second, welcome.login_timeout_ms), (77, 9_000));
    assert!(welcome.frame_timeout_ms > 0 && !welcome.version.is_empty());
    assert_eq!(server.connect().login(&user_token(2)).highest_grab_id, 0);
}

#[test]
fn a_refused_token_is_logged_with_its_claim() {
    let server = Server::start();
    let signer = Signer::new(&Secret::from_text(SECRET).unwrap());
    let (mut peer, id) = (server.connect(), next_id());
    peer.send(id, login(&signer.sign("007", Audience::User, unix_seconds(), 60).unwrap()));
    assert_eq!(peer.ending(), Ending::with(id, ErrorCode::TokenInvalid, Reason::Authentication));
    until("the line", || server.log().contains("the token's sub is not a user's id"));
}

#[test]
fn a_wrongly_signed_token_is_refused() {
    let stranger = Signer::new(&Secret::from_text("some other secret of at least 32 bytes").unwrap());
    let token = stranger.sign("2", Audience::User, unix_seconds(), 3_600).unwrap();
    is_refused(&token, ErrorCode::TokenInvalid, "token_invalid");
}

#[test]
fn an_unsigned_token_is_refused() {
    // {"alg":"none"}, and the claims of a token that is taken where it is signed.
    let good = user_token(2);
    Server::start().connect().login(&good);
    let token = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    is_refused(&token, ErrorCode::TokenInvalid, "token_invalid");
}

#[test]
fn an_empty_token_is_refused() {
    is_refused("", ErrorCode::TokenInvalid, "token_invalid");
}

#[test]
fn a_token_that_fills_the_largest_frame_is_refused() {
    // 4,096 bytes less the request id, and the tags and lengths around the token.
    is_refused(&"x".repeat(4_080), ErrorCode::TokenInvalid, "token_invalid");
}

#[test]
fn an_expired_token_is_refused() {
    let signer = Signer::new(&Secret::from_text(SECRET).unwrap());
    let token = signer.sign("2", Audience::User, unix_seconds() - 60, 50).unwrap();
    is_refused(&token, ErrorCode::TokenExpired, "token_expired");
}

#[test]
fn a_token_for_another_use_is_refused() {
    is_refused(&sign("2", Audience::Admin), ErrorCode::TokenForeign, "token_foreign");
}

#[test]
fn tokens_of_subjects_that_are_no_user_ids_are_refused() {
    let server = Server::start();
    let mut bystander = server.login(1);
    let subjects = ["0", "-1", "9007199254740992", "18446744073709551617", "1e3", " 1", "somebody"];
    for subject in subjects {
        let (mut peer, id) = (server.connect(), next_id());
        peer.send(id, login(&sign(subject, Audience::User)));
        assert_eq!(peer.ending(), Ending::with(id, ErrorCode::TokenInvalid, Reason::Authentication), "{subject:?}");
    }
    bystander.ping();
    assert_eq!(server.errors("token_invalid"), subjects.len() as u64);
    server.check_books();
}

#[test]
fn the_largest_user_id_is_served() {
    Server::start().login((1 << 53) - 1).ping();
}

#[test]
fn with_a_public_key_users_come_by_eddsa_operators_by_secret() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/tests");
    let server = Server::with(&["--user-key", &format!("{keys}/ed25519-public.pem")]);
    let private = std::fs::read(format!("{keys}/ed25519-private.pem")).unwrap();
    let claims = serde_json::json!({"sub": "7", "aud": "hongbao-user", "iat": 0, "exp": unix_seconds() + 60});
    let key = jsonwebtoken::EncodingKey::from_ed_pem(&private).unwrap();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
    let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
    let mut user = server.connect();
    assert_eq!(user.login(&token).user_id, 7);

    let (mut peer, id) = (server.connect(), next_id());
    peer.send(id, login(&user_token(8)));
    assert_eq!(peer.ending(), Ending::with(id, ErrorCode::TokenInvalid, Reason::Authentication));
    user.ping();
    server.check_books();
}
