//! Golden bytes of the client protocol, one vector at least for each kind of message in either
//! direction.
//!
//! They were written by another implementation (Python's `protobuf`), so that what they pin down is
//! the protocol and not our idea of it. A change that breaks one of them breaks every client out
//! there.

use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use hongbao_proto::frame::{self, Split, split};
use hongbao_proto::limits::{
    CHAT_BYTES_MAX, CLIENT_FRAME_BYTES_MAX, ENVELOPE_SHARES_MAX, ENVELOPE_USERS_MAX, GREETING_BYTES_MAX,
    ITEMS_PER_FRAME_MAX, SERVER_FRAME_BYTES_MAX,
};
use hongbao_proto::v1::campaign_notice::State;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::movement::Kind;
use hongbao_proto::v1::room::Action;
use hongbao_proto::v1::send_envelope::Mode;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ClientFrame, ServerFrame, order};
use hongbao_proto::{RoomId, UserId};
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

/// A ticket, held.
fn held() -> v1::Order {
    v1::Order {
        order_id: 9,
        campaign_id: 7,
        serial: 0,
        state: order::State::Reserved.into(),
        price_fen: 12_800,
        reserved_at_ms: TIME,
        pay_by_ms: TIME + 900_000,
        grabbed_by_request_id: 300,
        ..Default::default()
    }
}

/// A coupon, paid: every field of an order is there.
fn paid() -> v1::Order {
    v1::Order {
        order_id: 300,
        campaign_id: 8,
        serial: 1_234,
        state: order::State::Paid.into(),
        price_fen: 1,
        reserved_at_ms: TIME,
        pay_by_ms: TIME + 900_000,
        decided_at_ms: TIME + 1,
        grabbed_by_request_id: 301,
        face_value_fen: 5_000,
        valid_from_ms: TIME,
        valid_until_ms: TIME + 86_400_000,
    }
}

fn offer_to_users() -> v1::Offer {
    v1::Offer {
        envelope_id: 9,
        sender_id: 300,
        room_id: 0,
        shares: 10,
        mode: Mode::Random.into(),
        greeting: "恭喜发财".to_owned(),
        expires_at_ms: TIME + 86_400_000,
    }
}

fn offer_to_room() -> v1::Offer {
    v1::Offer {
        envelope_id: 10,
        sender_id: 1,
        room_id: 42,
        shares: 500,
        mode: Mode::Equal.into(),
        greeting: String::new(),
        expires_at_ms: TIME,
    }
}

fn said(offset: u64, text: &str) -> v1::ChatMessage {
    v1::ChatMessage { from_user_id: 300, room_id: 42, offset, at_ms: TIME, text: text.to_owned() }
}

fn movement(entry_id: u64, kind: Kind, amount_fen: i64) -> v1::Movement {
    v1::Movement { entry_id, at_ms: TIME, kind: kind.into(), amount_fen, ..Default::default() }
}

fn room(action: Action) -> v1::Room {
    v1::Room { room_id: 42, action: action.into(), ..Default::default() }
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
        (
            "1108052a0d120701ffffffffff1f1a02ac02",
            client(
                5,
                Request::Acknowledge(v1::Acknowledge {
                    prizes: Vec::new(),
                    envelope_ids: vec![1, (1 << 40) - 1],
                    order_ids: vec![300],
                }),
            ),
        ),
        ("0b0806320708ffffffffff1f", client(6, Request::Open(v1::Open { envelope_id: (1 << 40) - 1 }))),
        (
            "2608073a2208b845100a1801220ce681ade5969ce58f91e8b4a22a0b01ac02ffffffffffffff0f",
            client(
                7,
                Request::SendEnvelope(v1::SendEnvelope {
                    total_fen: 8_888,
                    shares: 10,
                    mode: Mode::Random.into(),
                    greeting: "恭喜发财".to_owned(),
                    user_ids: vec![1, 300, (1 << 53) - 1],
                    room_id: 0,
                    lifetime_seconds: 0,
                }),
            ),
        ),
        (
            "1208083a0e08f40310f4031802302a3880f524",
            client(
                8,
                Request::SendEnvelope(v1::SendEnvelope {
                    total_fen: 500,
                    shares: 500,
                    mode: Mode::Equal.into(),
                    greeting: String::new(),
                    user_ids: Vec::new(),
                    room_id: 42,
                    lifetime_seconds: 604_800,
                }),
            ),
        ),
        (
            "0f0809420b08ac021a06e4bda0e5a5bd",
            client(9, Request::Chat(v1::Chat { user_id: 300, room_id: 0, text: "你好".to_owned() })),
        ),
        (
            "11080a420d10ffffffffffffff0f1a026869",
            client(10, Request::Chat(v1::Chat { user_id: 0, room_id: (1 << 53) - 1, text: "hi".to_owned() })),
        ),
        (
            "16080b4a12082a100118ffffffffffffffffff0120ac02",
            client(11, Request::Room(v1::Room { epoch: u64::MAX, offset: 300, ..room(Action::Join) })),
        ),
        ("08080c4a04082a1002", client(12, Request::Room(room(Action::Leave)))),
        ("08080d4a04082a1003", client(13, Request::Room(room(Action::Look)))),
        ("09080e520508ac021040", client(14, Request::Orders(v1::Orders { before_order_id: 300, limit: 64 }))),
        ("04080f5200", client(15, Request::Orders(v1::Orders { before_order_id: 0, limit: 0 }))),
        ("0708105a0308ac02", client(16, Request::Pay(v1::Pay { order_id: 300 }))),
        ("070811620308ac02", client(17, Request::Cancel(v1::Cancel { order_id: 300 }))),
        ("0908126a0508ac02100a", client(18, Request::Statement(v1::Statement { before_entry_id: 300, limit: 10 }))),
        ("06081372020809", client(19, Request::InspectEnvelope(v1::InspectEnvelope { envelope_id: 9 }))),
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
                    ..Default::default()
                }),
            ),
        ),
        (
            "1908011215080728e80730f40338904e40904e4a05302e312e30",
            server(
                1,
                Event::Welcome(v1::Welcome {
                    user_id: 7,
                    highest_grab_id: 1_000,
                    requests_per_second: 500,
                    login_timeout_ms: 10_000,
                    frame_timeout_ms: 10_000,
                    version: "0.1.0".into(),
                    ..Default::default()
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
        (
            "0b080c6a070809100318f806",
            server(12, Event::Opened(v1::Opened { envelope_id: 9, share: 3, amount_fen: 888 })),
        ),
        ("08080c6a0408091801", server(12, Event::Opened(v1::Opened { envelope_id: 9, share: 0, amount_fen: 1 }))),
        ("06080d72020809", server(13, Event::EnvelopeEmpty(v1::EnvelopeEmpty { envelope_id: 9 }))),
        ("1e080e7a1a08091007200128806430809d91adaa3338a094c8adaa3348ac02", server(14, Event::Order(held()))),
        (
            "39080e7a3508ac02100818d2092002280130809d91adaa3338a094c8adaa3340819d91adaa3348ad0250882758809d91adaa336080d5aad6aa33",
            server(14, Event::Order(paid())),
        ),
        (
            "0d080fa2010808091003189f8d06",
            server(15, Event::EnvelopeSent(v1::EnvelopeSent { envelope_id: 9, recipients: 3, balance_fen: 99_999 })),
        ),
        (
            "490810aa01440a1e080910ac02200a2801320ce681ade5969ce58f91e8b4a23880d5aad6aa3310b8451a0c080110c03e18809d91adaa331a0c08ac02105818819d91adaa33200028a006",
            server(
                16,
                Event::EnvelopeView(v1::EnvelopeView {
                    offer: Some(offer_to_users()),
                    total_fen: 8_888,
                    opened: vec![
                        v1::OpenedShare { user_id: 1, amount_fen: 8_000, at_ms: TIME },
                        v1::OpenedShare { user_id: 300, amount_fen: 88, at_ms: TIME + 1 },
                    ],
                    luckiest: Some(0),
                    refunded_fen: Some(800),
                }),
            ),
        ),
        (
            "1c0810aa01170a12080a1001182a20f403280238809d91adaa3310f403",
            server(
                16,
                Event::EnvelopeView(v1::EnvelopeView {
                    offer: Some(offer_to_room()),
                    total_fen: 500,
                    ..Default::default()
                }),
            ),
        ),
        (
            "0f0811b2010a088e4e1001180220ac02",
            server(17, Event::Receipt(v1::Receipt { delivered: 9_998, offline: 1, dropped: 2, offset: 300 })),
        ),
        (
            "070811b201021001",
            server(17, Event::Receipt(v1::Receipt { delivered: 0, offline: 1, dropped: 0, offset: 0 })),
        ),
        (
            "470812ba0142082a10ffffffffffffffffff0118ad0220904e2801321208ac02102a18ac0220809d91adaa332a0161321708ac02102a18ad0220809d91adaa332a06e4bda0e5a5bd",
            server(
                18,
                Event::RoomState(v1::RoomState {
                    room_id: 42,
                    epoch: u64::MAX,
                    offset: 301,
                    members: 10_000,
                    recovered: true,
                    missed: vec![said(300, "a"), said(301, "你好")],
                }),
            ),
        ),
        (
            "0b0812ba0106082a10012001",
            server(18, Event::RoomState(v1::RoomState { room_id: 42, epoch: 1, members: 1, ..Default::default() })),
        ),
        (
            "5a0813c201550a3508ac02100818d2092002280130809d91adaa3338a094c8adaa3340819d91adaa3348ad0250882758809d91adaa336080d5aad6aa330a1a08091007200128806430809d91adaa3338a094c8adaa3348ac021001",
            server(19, Event::OrderList(v1::OrderList { orders: vec![paid(), held()], more: true })),
        ),
        ("050813c20100", server(19, Event::OrderList(v1::OrderList { orders: Vec::new(), more: false }))),
        (
            "490814ca0144089f8d06121408ad0210809d91adaa33180120f00d280730d209121208ac0210809d91adaa33180320ef8a013809121208ab0210809d91adaa33180520ffc70140091801",
            server(
                20,
                Event::StatementPage(v1::StatementPage {
                    balance_fen: 99_999,
                    movements: vec![
                        v1::Movement { campaign_id: 7, serial: 1_234, ..movement(301, Kind::Win, 888) },
                        v1::Movement { envelope_id: 9, ..movement(300, Kind::Send, -8_888) },
                        v1::Movement { order_id: 9, ..movement(299, Kind::Pay, -12_800) },
                    ],
                    more: true,
                }),
            ),
        ),
        (
            "2c8a01290a0b080710d20918f80620ac02121a08091007200128806430809d91adaa3338a094c8adaa3348ac02",
            server(0, Event::Reminder(v1::Reminder { wins: vec![won(1_234)], orders: vec![held()] })),
        ),
        (
            "378202340a1e080910ac02200a2801320ce681ade5969ce58f91e8b4a23880d5aad6aa330a12080a1001182a20f403280238809d91adaa33",
            server(0, Event::Offers(v1::Offers { offers: vec![offer_to_users(), offer_to_room()] })),
        ),
        ("1a8a021708ac02102a18ac0220809d91adaa332a06e4bda0e5a5bd", server(0, Event::ChatMessage(said(300, "你好")))),
        (
            "118a020e08ac0220809d91adaa332a026869",
            server(0, Event::ChatMessage(v1::ChatMessage { room_id: 0, offset: 0, ..said(0, "hi") })),
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
fn every_client_frame_is_written_and_read_as_its_golden_bytes() {
    let golden = from_client();
    for (hex, message) in &golden {
        is_the_same_both_ways(hex, message, CLIENT_FRAME_BYTES_MAX);
    }
    // Every number that the .proto gives to a request.
    assert_eq!(kinds(golden.iter().map(|(_, frame)| (frame, frame.request_id))), (2..=14).collect());
}

#[test]
fn every_server_frame_is_written_and_read_as_its_golden_bytes() {
    let golden = from_server();
    for (hex, message) in &golden {
        is_the_same_both_ways(hex, message, SERVER_FRAME_BYTES_MAX);
    }
    // Every number that the .proto gives to an answer or a push.
    assert_eq!(kinds(golden.iter().map(|(_, frame)| (frame, frame.request_id))), (2..=25).chain(32..=33).collect());
}

#[test]
fn unknown_fields_are_skipped_and_an_unknown_request_is_none() {
    // Grab with a field 15 that a later version may bring; and a request of number 2047, which this
    // version does not know.
    let later = bytes_of("0801220408077801");
    assert_eq!(ClientFrame::decode(&later[..]), Ok(client(1, Request::Grab(v1::Grab { campaign_id: 7 }))));
    let unknown = bytes_of("0801fa7f00");
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
    let envelope = client(
        u64::MAX,
        Request::SendEnvelope(v1::SendEnvelope {
            total_fen: u64::MAX,
            shares: ENVELOPE_SHARES_MAX,
            mode: Mode::Equal.into(),
            greeting: "x".repeat(GREETING_BYTES_MAX),
            user_ids: vec![UserId::MAX; ENVELOPE_USERS_MAX],
            room_id: RoomId::MAX,
            lifetime_seconds: u32::MAX,
        }),
    );
    assert!(envelope.encoded_len() <= CLIENT_FRAME_BYTES_MAX);
    let text = "x".repeat(CHAT_BYTES_MAX);
    let chat = client(u64::MAX, Request::Chat(v1::Chat { user_id: u64::MAX, room_id: u64::MAX, text }));
    assert!(chat.encoded_len() <= CLIENT_FRAME_BYTES_MAX);
}
