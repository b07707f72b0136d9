//! Who may come in, and how.

use hongbao_proto::token::{Audience, Secret, Signer};
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_telemetry::clock::unix_seconds;

use hongbao_testing::client::{acknowledge, code, framed, grab, login, next_id};
use hongbao_testing::{Ending, SECRET, Server, sign, user_token};

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
    let mut answers: Vec<_> =
        [peer.frame(), peer.frame()].into_iter().map(|frame| (frame.request_id, frame.event.unwrap())).collect();
    answers.sort_by_key(|(id, _)| *id);
    assert!(matches!(answers[0], (id, Event::Welcome(_)) if id == first), "{answers:?}");
    // Impatience is refused, not punished.
    assert!(answers[1].0 == second && code(&answers[1].1) == ErrorCode::NotLoggedIn, "{answers:?}");
    peer.ping();
    server.check_books();
}

#[test]
fn a_wrongly_signed_token_is_refused() {
    let stranger = Signer::new(&Secret::from_text("some other secret of at least 32 bytes").unwrap());
    let token = stranger.sign("2", Audience::User, unix_seconds(), 3_600).unwrap();
    is_refused(&token, ErrorCode::TokenInvalid, "token_invalid");
}

#[test]
fn an_unsigned_token_is_refused() {
    // {"alg":"none"} . {"sub":"1","aud":"hongbao-user","exp":9999999999} . no signature
    let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIiwiYXVkIjoiaG9uZ2Jhby11c2VyIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    is_refused(token, ErrorCode::TokenInvalid, "token_invalid");
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
    let token = signer.sign("2", Audience::User, unix_seconds() - 60, 59).unwrap();
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
        assert_eq!(peer.ending(), Ending::with(id, ErrorCode::TokenForeign, Reason::Authentication), "{subject:?}");
    }
    bystander.ping();
    assert_eq!(server.errors("token_foreign"), subjects.len() as u64);
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
