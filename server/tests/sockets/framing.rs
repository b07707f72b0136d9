//! Bytes that are no frames, and frames that are no requests.

use bytes::BytesMut;
use hongbao_proto::limits::CLIENT_FRAME_BYTES_MAX;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use prost::encoding::encode_varint;

use hongbao_testing::client::{acknowledge, code, framed, grab, next_id};
use hongbao_testing::{Ending, Server, until};

/// Says `bytes` once as a stranger and once as a user: both are told why they are dismissed, and
/// nobody else notices.
fn is_malformed(bytes: &[u8]) {
    let server = Server::start();
    let mut bystander = server.login(1);
    let mut stranger = server.connect();
    stranger.send_raw(bytes);
    let told = Ending::with(0, ErrorCode::Malformed, Reason::Protocol);
    assert_eq!(stranger.ending(), told);
    bystander.ping();
    let mut user = server.login(2);
    user.send_raw(bytes);
    assert_eq!(user.ending(), told);
    bystander.ping();
    assert_eq!((server.errors("malformed"), server.ended("protocol")), (2, 2));
    server.check_books();
}

fn prefixed(length: u64, payload: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode_varint(length, &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

#[test]
fn garbage_is_refused_as_malformed() {
    // A length of 23, then what no protobuf starts with.
    is_malformed(b"\x17\xff\xfe\xfd this is no protobuf \x00\x01\x02");
}

#[test]
fn an_http_request_on_the_users_port_is_refused_as_malformed() {
    is_malformed(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:7400\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\nConnection: close\r\n\r\n");
}

#[test]
fn other_protocols_are_refused_at_once_and_named_in_the_log() {
    let server = Server::start();
    let openings: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 7400\r\n", "PROXY"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "PROXY"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
    ];
    for (bytes, protocol) in openings {
        let mut peer = server.connect();
        peer.send_raw(bytes);
        assert_eq!(peer.ending(), Ending::with(0, ErrorCode::Malformed, Reason::Protocol), "{protocol}");
        // Lines of one kind are limited to some a second.
        until(protocol, || {
            let mut peer = server.connect();
            peer.send_raw(bytes);
            peer.ending();
            server.log().lines().any(|line| line.contains("peer_refused") && line.contains(protocol))
        });
    }
    server.check_books();
}

#[test]
fn a_padded_length_is_read() {
    let server = Server::start();
    let mut user = server.login(1);
    let id = next_id();
    let ping = framed(id, Request::Ping(v1::Ping {}));
    let mut padded = vec![ping[0] | 0x80, 0x80, 0x80, 0x80, 0];
    padded.extend_from_slice(&ping[1..]);
    user.send_raw(&padded);
    assert!(matches!(user.answer(id), Event::Pong(_)));
    server.check_books();
}

#[test]
fn a_length_of_0_is_refused_as_malformed() {
    is_malformed(&[0]);
}

#[test]
fn a_length_of_2_gib_is_refused_as_malformed() {
    is_malformed(&prefixed(1 << 31, b"and a few bytes of it"));
}

#[test]
fn an_endless_length_is_refused_as_malformed() {
    is_malformed(&[0xff; 1000]);
}

#[test]
fn a_frame_one_byte_too_long_is_refused_as_malformed() {
    is_malformed(&prefixed(CLIENT_FRAME_BYTES_MAX as u64 + 1, &[0; CLIENT_FRAME_BYTES_MAX + 1]));
}

#[test]
fn a_known_request_of_the_wrong_wire_type_is_malformed() {
    // request_id 1, then field 4 (Grab) as a varint.
    is_malformed(&prefixed(4, &[0x08, 0x01, 0x20, 0x01]));
}

#[test]
fn what_follows_a_malformed_frame_is_not_listened_to() {
    let server = Server::start();
    let mut user = server.login(1);
    let received = server.stats()["requests"]["received"].as_u64().unwrap();
    let mut bytes = BytesMut::from(&[0][..]);
    for _ in 0..100 {
        bytes.extend_from_slice(&framed(next_id(), Request::Ping(v1::Ping {})));
    }
    user.send_raw(&bytes);
    assert_eq!(user.ending(), Ending::with(0, ErrorCode::Malformed, Reason::Protocol));
    assert_eq!(server.stats()["requests"]["received"].as_u64().unwrap(), received + 1);
    server.check_books();
}

#[test]
fn a_frame_in_two_halves_is_answered() {
    let server = Server::start();
    let mut user = server.login(1);
    let id = next_id();
    let frame = framed(id, Request::Ping(v1::Ping {}));
    let (first, second) = frame.split_at(2);
    let read = server.metric("received_bytes_total");
    user.send_raw(first);
    until("the first half to be read", || server.metric("received_bytes_total") == read + 2);
    user.send_raw(second);
    assert!(matches!(user.answer(id), Event::Pong(_)));
    server.check_books();
}

#[test]
fn an_unknown_kind_of_request_is_refused_and_the_peer_goes_on() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    // request_id 7 and an empty message as field 50; then request_id 8 alone.
    for (id, payload) in [(7, &[0x08, 7, 0x92, 0x03, 0x00][..]), (8, &[0x08, 8][..])] {
        user.send_raw(&prefixed(payload.len() as u64, payload));
        assert_eq!(code(&user.answer(id)), ErrorCode::UnknownRequest);
    }
    user.ping();
    bystander.ping();
    assert_eq!(server.errors("unknown_request"), 2);
    server.check_books();
}

#[test]
fn request_ids_out_of_range_are_refused_and_the_peer_goes_on() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    for id in [0, 1 << 63, u64::MAX] {
        user.send(id, grab(0));
        let frame = user.frame();
        assert_eq!(frame.request_id, id);
        assert_eq!(code(&frame.event.unwrap()), ErrorCode::OutOfRange);
    }
    user.ping();
    bystander.ping();
    assert_eq!(server.errors("out_of_range"), 3);
    server.check_books();
}

#[test]
fn an_acknowledgement_out_of_range_is_refused_without_an_end() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let none: &[(u32, u64)] = &[];
    let too_many: Vec<(u32, u64)> = (0..65).map(|serial| (1, serial)).collect();
    let refused = [none, &too_many, &[(0, 1)], &[(1, u64::MAX)], &[(1, 1), (1, 10_000_000)]];
    for prizes in refused {
        assert_eq!(code(&user.ask(acknowledge(prizes))), ErrorCode::OutOfRange, "{prizes:?}");
    }
    // As many as may be, of a campaign that does not exist: nobody's.
    assert_eq!(user.acknowledge(&too_many[..64]), Event::Acknowledged(v1::Acknowledged { count: 0 }));
    bystander.ping();
    assert_eq!(server.errors("out_of_range"), refused.len() as u64);
    server.check_books();
}

#[test]
fn a_campaign_id_out_of_range_is_no_such_campaign() {
    let server = Server::start();
    let mut user = server.login(1);
    assert_eq!(code(&user.grab(u32::MAX)), ErrorCode::NoSuchCampaign);
    // 2^64 - 1 in a field of 32 bits is, as protobuf has it, 2^32 - 1.
    let mut payload = BytesMut::from(&[0x08, 0x7f, 0x22, 11, 0x08][..]);
    encode_varint(u64::MAX, &mut payload);
    user.send_raw(&prefixed(payload.len() as u64, &payload));
    assert_eq!(code(&user.answer(0x7f)), ErrorCode::NoSuchCampaign);
    assert_eq!(server.errors("no_such_campaign"), 2);
    server.check_books();
}
