//! Golden bytes of the client protocol, one vector at least for each kind of message in either direction.
//!
//! They were written by another implementation (Python's `protobuf`), so that what they pin down is the protocol and not our idea
//! of it. A change that breaks one of them breaks every client out there.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use hongbao_proto::frame::{self, Split, split};
use hongbao_proto::limits::{CLIENT_FRAME_BYTES_MAX, ITEMS_PER_FRAME_MAX, SERVER_FRAME_BYTES_MAX};
use hongbao_proto::v1::campaign_notice::State;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ClientFrame, ServerFrame};
use prost::Message;

/// 2025-11-21 09:00:00 UTC.
const TIME: u64 = 1_763_715_600_000;

fn client(request_id: u64, request: Request) -> ClientFrame {
    ClientFrame { request_id, request: Some(request) }
}

fn server(request_id: u64, event: Event) -> ServerFrame {
    ServerFrame { request_id, event: Some(event) }
}

fn prize(campaign_id: u32, serial: u64) -> v1::PrizeId {
    v1::PrizeId { campaign_id, serial }
}

fn won(serial: u64) -> v1::Won {
    v1::Won { campaign_id: 7, serial, amount_fen: 888, won_by_request_id: 300 }
}

fn from_client() -> Vec<(&'static str, ClientFrame)> {
    vec![
        (
            "1d080112190a176865616465722e636c61696d732e7369676e6174757265",
            client(1, Request::Login(v1::Login { token: "header.claims.signature".to_owned() })),
        ),
        ("0408021a00", client(2, Request::Ping(v1::Ping {}))),
        ("0708ac0222020807", client(300, Request::Grab(v1::Grab { campaign_id: 7 }))),
        ("0c08ffffffffffffffff7f2200", client(i64::MAX.cast_unsigned(), Request::Grab(v1::Grab { campaign_id: 0 }))),
        (
            "1508052a110a0208070a0b08ffffffff0f10fface204",
            client(
                5,
                Request::Acknowledge(v1::Acknowledge {
                    prizes: vec![prize(7, 0), prize(u32::MAX, 9_999_999)],
                    ..Default::default()
                }),
            ),
        ),
    ]
}

fn from_server() -> Vec<(&'static str, ServerFrame)> {
    vec![
        (
            "1a0801121608ffffffffffffff0f10809d91adaa3318c0cf242002",
            server(
                1,
                Event::Welcome(v1::Welcome {
                    user_id: (1 << 53) - 1,
                    server_time_ms: TIME,
                    idle_timeout_ms: 600_000,
                    unacknowledged: 2,
                }),
            ),
        ),
        ("0b08021a0708809d91adaa33", server(2, Event::Pong(v1::Pong { server_time_ms: TIME }))),
        ("1008ac02220b080710d20918f80620ac02", server(300, Event::Won(won(1_234)))),
        ("0408042a00", server(4, Event::NoneNow(v1::NoneNow {}))),
        ("0408053200", server(5, Event::SoldOut(v1::SoldOut {}))),
        ("0708063a0308e807", server(6, Event::Overloaded(v1::Overloaded { retry_after_ms: 1_000 }))),
        ("06080742020803", server(7, Event::LimitReached(v1::LimitReached { limit: 3 }))),
        ("0b08084a0708809d91adaa33", server(8, Event::TooEarly(v1::TooEarly { starts_at_ms: TIME }))),
        ("0b0809520708809d91adaa33", server(9, Event::TooLate(v1::TooLate { ended_at_ms: TIME }))),
        ("06080a5a020840", server(10, Event::Acknowledged(v1::Acknowledged { count: 64 }))),
        (
            "11080b620d080a120974727920616761696e",
            server(
                11,
                Event::Error(v1::Error {
                    code: v1::ErrorCode::LedgerUnavailable.into(),
                    message: "try again".to_owned(),
                }),
            ),
        ),
        (
            "08820105080210cc3a",
            server(0, Event::Goodbye(v1::Goodbye { reason: Reason::Draining.into(), return_after_ms: Some(7_500) })),
        ),
        (
            "058201020808",
            server(0, Event::Goodbye(v1::Goodbye { reason: Reason::Kicked.into(), return_after_ms: None })),
        ),
        (
            "0782010408091000",
            server(0, Event::Goodbye(v1::Goodbye { reason: Reason::Full.into(), return_after_ms: Some(0) })),
        ),
        (
            "1d8a011a0a0b080710d20918f80620ac020a0b080710d30918f80620ac02",
            server(0, Event::Reminder(v1::Reminder { wins: vec![won(1_234), won(1_235)], orders: Vec::new() })),
        ),
        (
            "29920126080710021a200101010101010101010101010101010101010101010101010101010101010101",
            server(
                0,
                Event::CampaignNotice(v1::CampaignNotice {
                    campaign_id: 7,
                    state: State::Open.into(),
                    seed_sha256: vec![1; 32].into(),
                    seed: Bytes::new(),
                }),
            ),
        ),
        (
            "4b920148080710031a20010101010101010101010101010101010101010101010101010101010101010122200202020202020202020202020202020202020202020202020202020202020202",
            server(
                0,
                Event::CampaignNotice(v1::CampaignNotice {
                    campaign_id: 7,
                    state: State::SoldOut.into(),
                    seed_sha256: vec![1; 32].into(),
                    seed: vec![2; 32].into(),
                }),
            ),
        ),
        (
            "119a010e0a0ce681ade5969ce58f91e8b4a2",
            server(0, Event::Announcement(v1::Announcement { text: "恭喜发财".to_owned() })),
        ),
    ]
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn is_the_same_both_ways<M: Message + Default + PartialEq + Debug>(hex: &str, message: &M, max: usize) {
    let golden = bytes_of(hex);
    let mut written = BytesMut::new();
    frame::append(message, &mut written);
    assert_eq!(written, golden, "{message:?}");
    let Ok(Split::Frame { payload, consumed }) = split(&golden, max) else { panic!("{hex} is no frame") };
    assert_eq!(consumed, golden.len());
    assert_eq!(M::decode(payload).as_ref(), Ok(message));
}

/// The field number of the frame's kind: the tag that follows the request id.
fn kinds<'a, M: Message + 'a>(frames: impl Iterator<Item = (&'a M, u64)>) -> BTreeSet<u32> {
    let numbers = frames.map(|(frame, request_id)| {
        let bytes = frame.encode_to_vec();
        let id_bytes =
            if request_id == 0 { 0 } else { 1 + prost::length_delimiter_len(usize::try_from(request_id).unwrap()) };
        let (number, _) = prost::encoding::decode_key(&mut &bytes[id_bytes..]).unwrap();
        number
    });
    numbers.collect()
}

#[test]
fn every_frame_of_a_client_is_written_and_read_as_its_golden_bytes() {
    let golden = from_client();
    for (hex, message) in &golden {
        is_the_same_both_ways(hex, message, CLIENT_FRAME_BYTES_MAX);
    }
    // Every number that the .proto gives to a request.
    assert_eq!(kinds(golden.iter().map(|(_, frame)| (frame, frame.request_id))), (2..=5).collect());
}

#[test]
fn every_frame_of_the_server_is_written_and_read_as_its_golden_bytes() {
    let golden = from_server();
    for (hex, message) in &golden {
        is_the_same_both_ways(hex, message, SERVER_FRAME_BYTES_MAX);
    }
    // Every number that the .proto gives to an answer or a push.
    assert_eq!(kinds(golden.iter().map(|(_, frame)| (frame, frame.request_id))), (2..=12).chain(16..=19).collect());
}

#[test]
fn unknown_fields_are_passed_over_and_an_unknown_request_is_none() {
    // Grab with a field 15 that a later version may bring; and a request of number 6, which this version does not know.
    let later = bytes_of("0801220408077801");
    assert_eq!(ClientFrame::decode(&later[..]), Ok(client(1, Request::Grab(v1::Grab { campaign_id: 7 }))));
    let unknown = bytes_of("08013200");
    assert_eq!(ClientFrame::decode(&unknown[..]), Ok(ClientFrame { request_id: 1, request: None }));
}

#[test]
fn the_largest_messages_fit_their_frames() {
    let prizes = vec![prize(u32::MAX, u64::MAX); ITEMS_PER_FRAME_MAX];
    let acknowledge = client(u64::MAX, Request::Acknowledge(v1::Acknowledge { prizes, ..Default::default() }));
    assert!(acknowledge.encoded_len() <= CLIENT_FRAME_BYTES_MAX);
    let win = v1::Won { campaign_id: u32::MAX, serial: u64::MAX, amount_fen: u64::MAX, won_by_request_id: u64::MAX };
    let reminder =
        server(0, Event::Reminder(v1::Reminder { wins: vec![win; ITEMS_PER_FRAME_MAX], orders: Vec::new() }));
    assert!(reminder.encoded_len() <= SERVER_FRAME_BYTES_MAX);
}
