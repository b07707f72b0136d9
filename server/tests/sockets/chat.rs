//! Users talk to each other, and in rooms.

use hongbao_proto::limits::CHAT_BYTES_MAX;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::room::Action;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};

use super::flood;
use hongbao_testing::client::{code, framed, next_id};
use hongbao_testing::{Client, Server, Setup, eventually, until, user_token};

/// Members of the large room, each with a connection.
const CROWD: u64 = 10_000;

fn to_user(user_id: u64, text: &str) -> Request {
    Request::Chat(v1::Chat { user_id, room_id: 0, text: text.to_owned() })
}

fn to_room(room_id: u64, text: &str) -> Request {
    Request::Chat(v1::Chat { user_id: 0, room_id, text: text.to_owned() })
}

fn visit(room_id: u64, action: Action) -> Request {
    Request::Room(v1::Room { room_id, action: action.into(), epoch: 0, offset: 0 })
}

fn receipt(event: Event) -> v1::Receipt {
    match event {
        Event::Receipt(receipt) => receipt,
        other => panic!("instead of a receipt: {other:?}"),
    }
}

fn state(event: Event) -> v1::RoomState {
    match event {
        Event::RoomState(state) => state,
        other => panic!("instead of a room's state: {other:?}"),
    }
}

fn offsets(messages: &[v1::ChatMessage]) -> Vec<u64> {
    messages.iter().map(|message| message.offset).collect()
}

trait Talks {
    fn tell(&mut self, user: u64, text: &str) -> v1::Receipt;
    fn say(&mut self, room: u64, text: &str) -> v1::Receipt;
    fn join(&mut self, room: u64) -> v1::RoomState;
    fn join_again(&mut self, room: u64, epoch: u64, offset: u64) -> v1::RoomState;
    fn hear_chat(&mut self) -> v1::ChatMessage;
}

impl Talks for Client {
    fn tell(&mut self, user: u64, text: &str) -> v1::Receipt {
        receipt(self.ask(to_user(user, text)))
    }

    fn say(&mut self, room: u64, text: &str) -> v1::Receipt {
        receipt(self.ask(to_room(room, text)))
    }

    fn join(&mut self, room: u64) -> v1::RoomState {
        state(self.ask(visit(room, Action::Join)))
    }

    fn join_again(&mut self, room_id: u64, epoch: u64, offset: u64) -> v1::RoomState {
        state(self.ask(Request::Room(v1::Room { room_id, action: Action::Join.into(), epoch, offset })))
    }

    fn hear_chat(&mut self) -> v1::ChatMessage {
        self.push(|event| match event {
            Event::ChatMessage(message) => Some(message.clone()),
            _ => None,
        })
    }
}

fn became(delivered: u32, offline: u32, dropped: u32, offset: u64) -> v1::Receipt {
    v1::Receipt { delivered, offline, dropped, offset }
}

#[test]
fn a_message_reaches_the_user_it_is_for_and_nobody_else() {
    let server = Server::start();
    let mut users: Vec<_> = (1..=8).map(|user| server.login(user)).collect();
    for to in 2..=8 {
        assert_eq!(users[0].tell(to, &format!("to {to}")), became(1, 0, 0, 0));
    }
    for (to, user) in (2..).zip(&mut users[1..]) {
        let heard = user.hear_chat();
        assert_eq!((heard.from_user_id, heard.room_id, heard.offset), (1, 0, 0));
        assert_eq!(heard.text, format!("to {to}"));
        assert!(heard.at_ms > 1_700_000_000_000);
        user.ping();
        assert!(user.pushes.is_empty(), "{:?}", user.pushes);
    }
    assert_eq!(users[3].tell(4, "note to self"), became(1, 0, 0, 0));
    assert_eq!(users[3].hear_chat().text, "note to self");
    assert_eq!(server.metric("chat_delivered_total"), 8);
    server.check_books();
}

#[test]
fn messages_between_two_users_arrive_in_order() {
    let server = Server::start();
    let (mut from, mut to) = (server.login(1), server.login(2));
    let ids: Vec<u64> = (0..200).map(|_| next_id()).collect();
    let frames: Vec<u8> = ids.iter().flat_map(|&id| framed(id, to_user(2, &id.to_string())).to_vec()).collect();
    from.send_raw(&frames);
    for &id in &ids {
        assert_eq!(to.hear_chat().text, id.to_string());
    }
    for &id in &ids {
        assert_eq!(receipt(from.answer(id)), became(1, 0, 0, 0));
    }
    server.check_books();
}

#[test]
fn a_message_to_a_user_who_is_not_there_is_told_as_offline() {
    let server = Server::start();
    let mut user = server.login(1);
    assert_eq!(user.tell(2, "anybody?"), became(0, 1, 0, 0));
    let other = server.login(2);
    assert_eq!(user.tell(2, "there you are"), became(1, 0, 0, 0));
    drop(other);
    eventually("the other to be gone", || (user.tell(2, "still there?") == became(0, 1, 0, 0)).then_some(()));
    assert!(server.metric("chat_offline_total") >= 2);
    server.check_books();
}

#[test]
fn messages_to_a_peer_that_never_reads_are_dropped_then_offline() {
    let server = Server::with(&["--max-connection-qps", "100000"]);
    let (mut user, mut reader) = (server.login(1), server.login(3));
    let mut stuck = Client::connect_narrow(server.listen);
    stuck.login(&user_token(2));
    let text = "x".repeat(CHAT_BYTES_MAX);
    let mut delivered = 0;
    let last = eventually("the stuck peer to be cut", || {
        let told = user.tell(2, &text);
        assert_eq!(user.tell(3, &text), became(1, 0, 0, 0));
        assert_eq!(reader.hear_chat().text, text);
        delivered += told.delivered;
        (told.delivered == 0).then_some(told)
    });
    assert_eq!(last, became(0, 0, 1, 0));
    assert!((100..2_000).contains(&delivered), "{delivered} messages before the cut");
    assert_eq!(user.tell(2, &text), became(0, 1, 0, 0));
    assert_eq!((server.ended("slow"), server.metric("chat_dropped_total")), (1, 1));
    server.check_books();
}

#[test]
fn a_room_is_joined_looked_at_and_left_and_counts_its_members() {
    let server = Server::start();
    let (mut first, mut second, mut stranger) = (server.login(1), server.login(2), server.login(3));
    let made = first.join(7);
    assert_eq!((made.room_id, made.offset, made.members, made.recovered), (7, 0, 1, false));
    assert_ne!(made.epoch, 0);
    assert_eq!(second.join(7).members, 2);
    assert_eq!(second.join(7).members, 2, "joined already");
    assert_eq!(state(first.ask(visit(7, Action::Look))), v1::RoomState { members: 2, ..made.clone() });
    assert_eq!((server.metric("rooms"), server.metric("room_members")), (1, 2));

    assert_eq!(first.say(7, "hello"), became(1, 0, 0, 1));
    let heard = second.hear_chat();
    assert_eq!((heard.from_user_id, heard.room_id, heard.offset, heard.text.as_str()), (1, 7, 1, "hello"));
    assert_eq!(second.say(7, "hello yourself"), became(1, 0, 0, 2));
    assert_eq!(first.hear_chat().offset, 2);

    // Who is no member is told as little as if there were no such room.
    for request in [visit(7, Action::Look), visit(7, Action::Leave), to_room(7, "let me in"), to_room(8, "hello?")] {
        assert_eq!(code(&stranger.ask(request)), ErrorCode::NoSuchRoom);
    }
    let left = state(second.ask(visit(7, Action::Leave)));
    assert_eq!((left.members, left.offset), (1, 2));
    assert_eq!(code(&second.ask(to_room(7, "once more"))), ErrorCode::NoSuchRoom);
    assert_eq!(first.say(7, "alone"), became(0, 0, 0, 3));
    for user in [&mut first, &mut second, &mut stranger] {
        user.ping();
        assert!(user.pushes.is_empty(), "{:?}", user.pushes);
    }
    // A room of nobody is forgotten.
    assert_eq!(state(first.ask(visit(7, Action::Leave))).members, 0);
    assert_eq!((server.metric("rooms"), server.metric("room_members")), (0, 0));
    let again = second.join(7);
    assert_eq!((again.offset, again.members), (0, 1));
    assert_ne!(again.epoch, made.epoch);
    assert_eq!(server.errors("no_such_room"), 5);
    server.check_books();
}

#[test]
fn a_user_in_too_many_rooms_is_refused_until_it_leaves_one() {
    let server = Server::start();
    let mut user = server.login(1);
    for room in 1..=64 {
        assert_eq!(user.join(room).members, 1);
    }
    assert_eq!(code(&user.ask(visit(65, Action::Join))), ErrorCode::RoomFull);
    assert_eq!(server.login(2).join(65).members, 1);
    user.ask(visit(9, Action::Leave));
    assert_eq!(user.join(65).members, 2);
    assert_eq!((server.errors("room_full"), server.metric("room_members")), (1, 65));
    server.check_books();
}

#[test]
fn a_returning_member_recovers_what_it_missed_and_nothing_twice() {
    let server = Server::start();
    let (mut user, mut away) = (server.login(1), server.login(2));
    user.join(7);
    let epoch = away.join(7).epoch;
    assert_eq!(user.say(7, "1"), became(1, 0, 0, 1));
    assert_eq!(away.hear_chat().offset, 1);
    drop(away);
    // It is a member still.
    eventually("the other to be gone", || (user.say(7, "missed").offline == 1).then_some(()));
    let said = user.say(7, "missed, too").offset;

    let mut back = server.login(2);
    let told = back.join_again(7, epoch, 1);
    assert_eq!((told.epoch, told.offset, told.members, told.recovered), (epoch, said, 2, true));
    assert_eq!(offsets(&told.missed), (2..=said).collect::<Vec<_>>());
    let last = told.missed.last().unwrap();
    assert_eq!((last.from_user_id, last.room_id, last.text.as_str()), (1, 7, "missed, too"));
    assert_eq!(user.say(7, "welcome back"), became(1, 0, 0, said + 1));
    assert_eq!(back.hear_chat().offset, said + 1);
    // Up to date.
    let told = back.join_again(7, epoch, said + 1);
    assert_eq!((told.recovered, told.missed.len()), (true, 0));
    // A member need not join again to be told.
    let mut elsewhere = server.login(2);
    assert_eq!(user.say(7, "and here?"), became(1, 0, 0, said + 2));
    assert_eq!(elsewhere.hear_chat().offset, said + 2);
    server.check_books();
}

#[test]
fn a_gap_longer_than_the_history_is_said_with_what_is_left() {
    let server = Server::with(&["--max-connection-qps", "100000"]);
    let (mut user, mut away) = (server.login(1), server.login(2));
    user.join(7);
    let epoch = away.join(7).epoch;
    drop(away);
    eventually("the other to be gone", || (user.say(7, "gone?").offline == 1).then_some(()));
    let mut last = 0;
    for _ in 0..300 {
        last = user.say(7, "x").offset;
    }
    let mut back = server.login(2);
    for (offset, recovered) in [(1, false), (last - 257, false), (last - 256, true)] {
        let told = back.join_again(7, epoch, offset);
        assert_eq!((told.recovered, told.offset), (recovered, last));
        assert_eq!(offsets(&told.missed), (last - 255..=last).collect::<Vec<_>>());
    }
    // Bounded by bytes as well; and the longest history fits one frame.
    let text = "x".repeat(CHAT_BYTES_MAX);
    for _ in 0..60 {
        last = user.say(7, &text).offset;
    }
    let told = back.join_again(7, epoch, 1);
    assert!(!told.recovered && told.offset == last);
    assert_eq!(offsets(&told.missed), (last - 44..=last).collect::<Vec<_>>());
    server.check_books();
}

#[test]
fn after_a_restart_rooms_are_new_and_losses_are_not_denied() {
    let mut server = Server::start();
    let (mut first, mut second) = (server.login(1), server.login(2));
    let epoch = first.join(7).epoch;
    second.join(7);
    first.say(7, "before");
    server.kill();
    server.start_again();
    let (mut first, mut second) = (server.login(1), server.login(2));
    // Membership is not remembered, either.
    assert_eq!(code(&first.ask(to_room(7, "after"))), ErrorCode::NoSuchRoom);
    second.join(7);
    second.say(7, "after");
    let told = first.join_again(7, epoch, 1);
    assert_ne!(told.epoch, epoch);
    assert_eq!((told.offset, told.members, told.recovered), (1, 2, false));
    // What is there is new to whoever comes from another epoch.
    assert_eq!(told.missed[0].text, "after");
    server.check_books();
}

#[test]
fn who_joins_mid_talk_hears_all_after_its_state_in_order() {
    const TALKERS: u64 = 4;
    const JOINERS: u64 = 40;
    let server = Server::with(&["--max-connection-qps", "100000"]);
    let mut talkers: Vec<_> = (1..=TALKERS).map(|user| server.login(user)).collect();
    for talker in &mut talkers {
        talker.join(7);
    }
    let joined = std::sync::atomic::AtomicU64::new(0);
    let joiners: Vec<_> = std::thread::scope(|scope| {
        let talking: Vec<_> = talkers
            .iter_mut()
            .map(|talker| {
                let joined = &joined;
                scope.spawn(move || {
                    while joined.load(std::sync::atomic::Ordering::Relaxed) < JOINERS {
                        talker.say(7, "and so on");
                        talker.pushes.clear();
                    }
                })
            })
            .collect();
        let joiners = (100..100 + JOINERS)
            .map(|user| {
                let mut joiner = server.login(user);
                let state = joiner.join(7);
                assert!(joiner.pushes.is_empty(), "told before it was a member");
                joined.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                (joiner, state.offset)
            })
            .collect();
        for talking in talking {
            talking.join().unwrap();
        }
        joiners
    });
    let end = talkers[0].say(7, "the end").offset;
    assert!(end > 20, "{end}");
    for (mut joiner, offset) in joiners {
        for expected in offset + 1..=end {
            assert_eq!(joiner.hear_chat().offset, expected);
        }
    }
    server.check_books();
}

#[test]
fn a_room_of_ten_thousand_is_served_while_another_talks() {
    const DESCRIPTORS: u64 = 2 * CROWD;
    // A member's two ends are in two processes.
    let server = Server::set_up(Setup {
        flags: ["--max-connection-qps", "100000"].map(str::to_owned).to_vec(),
        descriptors: Some(u32::try_from(DESCRIPTORS).unwrap()),
        ..Setup::default()
    });
    rlimit_to(DESCRIPTORS);
    let mut members: Vec<Client> = (1..=CROWD).map(|user| server.login(user)).collect();
    for (user, member) in (1..).zip(&mut members) {
        assert_eq!(u64::from(member.join(7).members), user);
    }
    assert_eq!(server.metric("room_members"), CROWD);
    let (mut one, mut other) = (server.login(CROWD + 1), server.login(CROWD + 2));
    one.join(8);
    other.join(8);
    let others = u32::try_from(CROWD - 1).unwrap();
    for round in 1..=3 {
        let text = format!("{round}{}", "x".repeat(CHAT_BYTES_MAX - 1));
        let id = next_id();
        members[0].send(id, to_room(7, &text));
        assert_eq!(one.say(8, "meanwhile"), became(1, 0, 0, round));
        assert_eq!(other.hear_chat().offset, round);
        assert_eq!(receipt(members[0].answer(id)), became(others, 0, 0, round));
        for member in &mut members[1..] {
            let heard = member.hear_chat();
            assert_eq!((heard.offset, heard.from_user_id), (round, 1));
            assert_eq!(heard.text, text);
        }
    }
    // A tenth of them goes: the message finds the rest, and the receipt says so.
    members.truncate(usize::try_from(CROWD - CROWD / 10).unwrap());
    until("a tenth to be gone", || server.stats()["users_online"] == CROWD - CROWD / 10 + 2);
    let gone = u32::try_from(CROWD / 10).unwrap();
    assert_eq!(members[0].say(7, "fewer"), became(others - gone, gone, 0, 4));
    assert_eq!(server.metric("chat_offline_total"), u64::from(gone));
    server.check_books();
}

/// As many descriptors as the test's own process may have.
fn rlimit_to(descriptors: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= CROWD + 200, "this test needs more descriptors than the {hard} that it may have");
    setrlimit(Resource::RLIMIT_NOFILE, descriptors.min(hard), hard).unwrap();
}

#[test]
fn a_member_that_never_reads_is_cut_and_the_room_goes_on() {
    let server = Server::with(&["--max-connection-qps", "100000"]);
    let (mut user, mut reader) = (server.login(1), server.login(3));
    let mut stuck = Client::connect_narrow(server.listen);
    stuck.login(&user_token(2));
    for member in [&mut user, &mut reader, &mut stuck] {
        member.join(7);
    }
    let text = "x".repeat(CHAT_BYTES_MAX);
    let last = eventually("the stuck member to be cut", || {
        let told = user.say(7, &text);
        assert_eq!(reader.hear_chat().offset, told.offset);
        (told.delivered < 2).then_some(told)
    });
    assert_eq!((last.delivered, last.offline, last.dropped), (1, 0, 1));
    let next = user.say(7, &text);
    assert_eq!((next.delivered, next.offline, next.dropped), (1, 1, 0));
    // It was cut at a frame's end; what it did not read it finds in the history.
    stuck.ending();
    let mut back = server.login(2);
    let epoch = user.join(7).epoch;
    let told = back.join_again(7, epoch, last.offset - 1);
    assert!(told.recovered);
    assert_eq!(offsets(&told.missed), [last.offset, last.offset + 1]);
    server.check_books();
}

#[test]
fn chat_out_of_range_is_answered_so_and_the_connection_goes_on() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let chat = |user_id, room_id, text: &str| Request::Chat(v1::Chat { user_id, room_id, text: text.to_owned() });
    let room = |room_id, action| Request::Room(v1::Room { room_id, action, epoch: 0, offset: 0 });
    let longest = "x".repeat(CHAT_BYTES_MAX);
    let refused = [
        chat(0, 0, "x"),
        chat(1, 1, "x"),
        chat(1, 0, ""),
        chat(1, 0, &format!("{longest}x")),
        chat(1 << 53, 0, "x"),
        chat(0, 1 << 53, "x"),
        chat(u64::MAX, 0, "x"),
        room(0, 1),
        room(1 << 53, 1),
        room(u64::MAX, 2),
        room(1, 0),
        room(1, 4),
        room(1, -1),
        room(1, i32::MAX),
    ];
    let count = refused.len() as u64;
    for request in refused {
        let said = format!("{request:?}");
        assert_eq!(code(&user.ask(request)), ErrorCode::OutOfRange, "{said}");
    }
    assert_eq!(user.tell(1, &longest), became(1, 0, 0, 0));
    assert_eq!(bystander.hear_chat().text, longest);
    assert_eq!(server.errors("out_of_range"), count);
    // An epoch and an offset that never were are nobody's mistake; they find nothing.
    user.join((1 << 53) - 1);
    let told = user.join_again((1 << 53) - 1, u64::MAX, u64::MAX);
    assert_eq!((told.recovered, told.missed.len()), (false, 0));
    // A text that is no UTF-8 is no message.
    user.send_raw(&[0x0b, 0x08, 0x01, 0x42, 0x07, 0x08, 0x01, 0x1a, 0x03, 0xff, 0xfe, 0xfd]);
    assert_eq!(user.ending().errors, [(0, ErrorCode::Malformed)]);
    bystander.ping();
    server.check_books();
}

#[test]
fn a_flood_of_chat_is_answered_in_full_and_only_to_members() {
    let server = Server::with(&["--max-connection-qps", "1000000"]);
    let request = |number: u64| match number % 5 {
        0 => visit(number % 7 + 1, Action::Join),
        1 => visit(number % 3 + 1, Action::Leave),
        2 => to_user(number % 8 + 1, "x"),
        _ => to_room(number % 7 + 1, "y"),
    };
    assert_eq!(flood(&server, 8, 2_000, 100, request), 16_000);
    server.check_books();
}
