//! RoomShards against a model that keeps everything naively, and their task against SETs that only
//! collect what they are handed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hongbao_proto::limits::{CHAT_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{RequestId, RoomId, UserId};
use proptest::prelude::*;
use prost::Message as _;
use tokio::sync::mpsc;

use crate::admission::Rate;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::writer;
use crate::limits;
use crate::services::rooms::room::{Room, bytes_of};
use crate::services::rooms::room_shard::{Bounds, RoomShard, RoomsBoard};
use crate::services::rooms::service::{Service, random_epochs};
use crate::set::delivery::{Delivered, Delivery};
use crate::set::directory::{ConnectionAddress, ConnectionKey, Directory};
use crate::set::message::{Control, Message, PendingRequest, Reply, ReplyPermit};
use crate::set::payments::Wallets;
use crate::set::room_messages::{RoomAction, RoomRequest, Seen};
use crate::set::room_requests::{QueuedRoomRequest, RoomShards};
use crate::set::{SetHandle, Shared};

fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

fn room(id: u64) -> RoomId {
    RoomId::new(id).unwrap()
}

fn epoch(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

fn message(from: u64, room_id: u64, offset: u64, bytes: usize) -> v1::ChatMessage {
    v1::ChatMessage { from_user_id: from, room_id, offset, at_ms: 5_000, text: "x".repeat(bytes) }
}

fn append(shard: &mut RoomShard, from: u64, to: u64, bytes: usize) -> Result<v1::ChatMessage, ErrorCode> {
    shard.append(user(from), room(to), 5_000, "x".repeat(bytes).into())
}

// ---- The shard

#[derive(Debug, Clone)]
enum Act {
    /// As one who has seen all but so many; `None`: as one who asks for nothing.
    Join(u64, u64, Option<u64>),
    /// As one who knows another epoch.
    JoinAfterRestart(u64, u64),
    Leave(u64, u64),
    Look(u64, u64),
    /// So many messages of so many bytes.
    Say(u64, u64, usize, usize),
}

fn act() -> impl Strategy<Value = Act> {
    let (users, rooms) = (1u64..7, 1u64..5);
    let at = (users, rooms);
    prop_oneof![
        6 => (at.clone(), prop::option::of(0u64..400)).prop_map(|((user, room), seen)| Act::Join(user, room, seen)),
        1 => at.clone().prop_map(|(user, room)| Act::JoinAfterRestart(user, room)),
        2 => at.clone().prop_map(|(user, room)| Act::Leave(user, room)),
        1 => at.clone().prop_map(|(user, room)| Act::Look(user, room)),
        6 => (at, 1usize..120, 1usize..=CHAT_BYTES_MAX).prop_map(|((user, room), count, bytes)| Act::Say(user, room, count, bytes)),
    ]
}

/// A room as the model knows it: everything ever said, and how much of it is forgotten.
#[derive(Debug)]
struct ModelRoom {
    epoch: u64,
    members: BTreeSet<u64>,
    said: Vec<v1::ChatMessage>,
    forgotten: usize,
}

impl ModelRoom {
    fn bytes(&self) -> usize {
        self.said[self.forgotten..].iter().map(|kept| kept.text.len() + limits::HISTORY_OVERHEAD_BYTES).sum()
    }

    fn is_too_long(&self) -> bool {
        self.said.len() - self.forgotten > limits::HISTORY_MESSAGES_MAX || self.bytes() > limits::HISTORY_BYTES_MAX
    }
}

const SMALL: Bounds = Bounds { members: 4, rooms: 3, memberships: 8, history_bytes: 100 * 1024 };

fn outcome(result: Result<v1::RoomState, ErrorCode>) -> Result<(u64, u64, u32), ErrorCode> {
    result.map(|state| (state.epoch, state.offset, state.members))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_shard_does_as_its_model(acts in prop::collection::vec(act(), 1..80)) {
        let mut shard = RoomShard::new(Arc::default(), SMALL);
        let mut model: BTreeMap<u64, ModelRoom> = BTreeMap::new();
        let mut epochs = 0;
        for act in acts {
            match act {
                Act::Join(who, at, _) | Act::JoinAfterRestart(who, at) => {
                    let seen = match (&act, model.get(&at)) {
                        (Act::Join(_, _, Some(behind)), Some(known)) => {
                            Some(Seen { epoch: known.epoch, offset: (known.said.len() as u64).saturating_sub(*behind) })
                        }
                        (Act::JoinAfterRestart(..), _) => Some(Seen { epoch: u64::MAX, offset: 1 }),
                        _ => None,
                    };
                    let total: usize = model.values().map(|room| room.members.len()).sum();
                    let rooms = model.len();
                    let expected = match model.get_mut(&at) {
                        Some(known) if known.members.contains(&who) => Ok(known),
                        Some(known) if known.members.len() < SMALL.members && total < SMALL.memberships => {
                            known.members.insert(who);
                            Ok(known)
                        }
                        None if rooms < SMALL.rooms && total < SMALL.memberships => {
                            let members = BTreeSet::from([who]);
                            let new = ModelRoom { epoch: epochs + 1, members, said: Vec::new(), forgotten: 0 };
                            Ok(model.entry(at).or_insert(new))
                        }
                        _ => Err(ErrorCode::RoomFull),
                    };
                    let result = shard.join(user(who), room(at), || {
                        epochs += 1;
                        epoch(epochs)
                    });
                    let known = match expected {
                        Ok(known) => known,
                        Err(code) => {
                            prop_assert_eq!(result, Err(code));
                            continue;
                        }
                    };
                    let members = u32::try_from(known.members.len()).unwrap();
                    prop_assert_eq!(outcome(result), Ok((known.epoch, known.said.len() as u64, members)));
                    let (missed, is_all) = shard.rooms[&room(at)].missed(seen);
                    let still_kept = known.said[known.forgotten..].iter();
                    let (recovered, from) = match seen {
                        None => (false, u64::MAX),
                        Some(seen) if seen.epoch != known.epoch => (false, 0),
                        Some(seen) => (seen.offset >= known.forgotten as u64, seen.offset),
                    };
                    prop_assert_eq!(is_all, recovered);
                    prop_assert!(missed.eq(still_kept.filter(|message| message.offset > from)));
                }
                Act::Leave(who, at) => {
                    let result = outcome(shard.leave(user(who), room(at)));
                    let was_member = model.get_mut(&at).is_some_and(|known| known.members.remove(&who));
                    match model.get(&at) {
                        Some(known) if was_member => {
                            let members = u32::try_from(known.members.len()).unwrap();
                            prop_assert_eq!(result, Ok((known.epoch, known.said.len() as u64, members)));
                            if members == 0 {
                                model.remove(&at);
                            }
                        }
                        _ => prop_assert_eq!(result, Err(ErrorCode::NoSuchRoom)),
                    }
                }
                Act::Look(who, at) => {
                    let expected = model.get(&at).filter(|known| known.members.contains(&who)).map(|known| {
                        (known.epoch, known.said.len() as u64, u32::try_from(known.members.len()).unwrap())
                    });
                    prop_assert_eq!(outcome(shard.look(user(who), room(at))), expected.ok_or(ErrorCode::NoSuchRoom));
                }
                Act::Say(who, at, count, bytes) => {
                    for _ in 0..count {
                        let result = append(&mut shard, who, at, bytes);
                        let others: usize = model.iter().filter(|(id, _)| **id != at).map(|(_, room)| room.bytes()).sum();
                        match model.get_mut(&at).filter(|known| known.members.contains(&who)) {
                            None => prop_assert_eq!(result, Err(ErrorCode::NoSuchRoom)),
                            Some(known) => {
                                known.said.push(message(who, at, known.said.len() as u64 + 1, bytes));
                                while known.is_too_long() || others + known.bytes() > SMALL.history_bytes {
                                    known.forgotten += 1;
                                }
                                prop_assert_eq!(result.as_ref(), Ok(&known.said[known.said.len() - 1]));
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(shard.rooms.len(), model.len());
            prop_assert_eq!(shard.memberships, model.values().map(|room| room.members.len()).sum::<usize>());
            prop_assert_eq!(shard.history_bytes, model.values().map(ModelRoom::bytes).sum::<usize>());
            prop_assert!(shard.history_bytes <= SMALL.history_bytes);
            for (id, known) in &model {
                let members: BTreeSet<u64> = shard.members(room(*id)).iter().map(|user| user.get()).collect();
                prop_assert_eq!(&members, &known.members);
            }
        }
    }
}

#[test]
fn a_full_room_takes_the_next_member_when_one_has_left() {
    let mut shard = RoomShard::new(Arc::default(), Bounds::default());
    let members = limits::ROOM_MEMBERS_MAX as u64;
    for id in 1..=members {
        shard.join(user(id), room(1), || epoch(7)).unwrap();
    }
    assert_eq!(shard.join(user(members + 1), room(1), || epoch(8)), Err(ErrorCode::RoomFull));
    // Whoever is in it may join again, and others may join other rooms.
    assert_eq!(u64::from(shard.join(user(3), room(1), || epoch(8)).unwrap().members), members);
    shard.join(user(members + 1), room(2), || epoch(8)).unwrap();
    shard.leave(user(3), room(1)).unwrap();
    let outline = shard.join(user(members + 1), room(1), || epoch(9)).unwrap();
    assert_eq!((outline.epoch, u64::from(outline.members)), (7, members));
}

#[test]
fn a_user_may_be_in_so_many_rooms_of_all_shards_together() {
    let board = Arc::<RoomsBoard>::default();
    let mut shards = [(); 2].map(|()| RoomShard::new(Arc::clone(&board), Bounds::default()));
    for id in 1..=u64::from(limits::USER_ROOMS_MAX) {
        shards[(id % 2) as usize].join(user(1), room(id), || epoch(7)).unwrap();
    }
    for shard in &mut shards {
        assert_eq!(shard.join(user(1), room(1_000), || epoch(7)), Err(ErrorCode::RoomFull));
        assert_eq!((shard.rooms.len(), shard.memberships), (32, 32), "the room is not made");
    }
    shards[0].join(user(2), room(1_000), || epoch(7)).unwrap();
    shards[1].leave(user(1), room(1)).unwrap();
    shards[0].join(user(1), room(1_000), || epoch(7)).unwrap();
}

#[test]
fn a_shard_has_so_many_rooms_and_forgets_those_of_nobody() {
    let mut shard = RoomShard::new(Arc::default(), Bounds::default());
    let rooms = limits::ROOM_SHARD_ROOMS_MAX as u64;
    for id in 1..=rooms {
        shard.join(user(id), room(id), || epoch(7)).unwrap();
    }
    assert_eq!(shard.join(user(1), room(rooms + 1), || epoch(7)), Err(ErrorCode::RoomFull));
    shard.join(user(1), room(2), || epoch(7)).unwrap();
    append(&mut shard, 5, 5, 100).unwrap();
    shard.leave(user(5), room(5)).unwrap();
    assert_eq!((shard.rooms.len() as u64, shard.history_bytes), (rooms - 1, 0));
    // What was said is forgotten with it, and offsets begin anew.
    let outline = shard.join(user(1), room(5), || epoch(8)).unwrap();
    assert_eq!((outline.epoch, outline.offset, outline.members), (8, 0, 1));
}

#[test]
fn a_shard_of_full_memory_cuts_short_the_room_that_talks() {
    let bounds = Bounds { history_bytes: 10_000, ..Bounds::default() };
    let mut shard = RoomShard::new(Arc::default(), bounds);
    let message = 1_000 - limits::HISTORY_OVERHEAD_BYTES;
    shard.join(user(1), room(1), || epoch(7)).unwrap();
    shard.join(user(1), room(2), || epoch(8)).unwrap();
    for _ in 0..7 {
        append(&mut shard, 1, 1, message).unwrap();
    }
    for _ in 0..5 {
        append(&mut shard, 1, 2, message).unwrap();
    }
    assert_eq!(shard.history_bytes, 10_000);
    let kept = |shard: &RoomShard, id, epoch| {
        let (missed, recovered) = shard.rooms[&room(id)].missed(Some(Seen { epoch, offset: 0 }));
        (recovered, missed.map(|message| message.offset).collect::<Vec<_>>())
    };
    assert_eq!(kept(&shard, 1, 7), (true, (1..=7).collect()));
    assert_eq!(kept(&shard, 2, 8), (false, vec![3, 4, 5]));
}

#[test]
fn the_longest_history_fits_one_frame() {
    for bytes in [1, 128, CHAT_BYTES_MAX] {
        let mut full = Room::new(NonZeroU64::MAX);
        for _ in 0..2 * limits::HISTORY_MESSAGES_MAX {
            full.append(&mut message(UserId::MAX, RoomId::MAX, 0, bytes));
        }
        let (missed, recovered) = full.missed(Some(Seen { epoch: 1, offset: 0 }));
        assert!(!recovered);
        let widest = |kept: &v1::ChatMessage| v1::ChatMessage { offset: u64::MAX, at_ms: u64::MAX, ..kept.clone() };
        let missed: Vec<_> = missed.map(widest).collect();
        assert_eq!(missed.iter().map(bytes_of).sum::<usize>(), full.history_bytes);
        let state = v1::RoomState {
            room_id: RoomId::MAX,
            epoch: u64::MAX,
            offset: u64::MAX,
            members: u32::MAX,
            recovered: true,
            missed,
        };
        assert!(state.missed.len() == limits::HISTORY_MESSAGES_MAX || bytes > 1);
        let frame = v1::ServerFrame { request_id: u64::MAX, event: Some(Event::RoomState(state)) };
        assert!(frame.encoded_len() <= SERVER_FRAME_BYTES_MAX, "{} bytes of {bytes}", frame.encoded_len());
    }
}

// ---- The task

struct Rig {
    shared: Arc<Shared>,
    inboxes: Vec<mpsc::Receiver<Message>>,
    service: Service,
    board: Arc<RoomsBoard>,
    requests: u64,
}

impl Rig {
    fn new(sets: usize) -> Self {
        let (ledger, _, _) = writer::spawn(Box::new(SqliteLedger::open_in_memory().unwrap()), || 0);
        let (handles, inboxes): (Vec<_>, Vec<_>) = (0..sets)
            .map(|_| {
                let (inbox, queue) = mpsc::channel(limits::SET_QUEUE_MAX);
                (SetHandle { inbox, tally: Arc::default() }, queue)
            })
            .unzip();
        let (offerings, _) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            traces: Arc::default(),
            directory: Directory::default(),
            gate: None,
            logins: None,
            connection_rate: Rate::new(100, 100),
            payments: Box::new(Wallets(ledger.clone())),
            offerings,
            ledger,
            generator: mpsc::channel(1).0,
            room_shards: RoomShards::open(0).0,
            sets: handles.into(),
            login_seconds: 10,
            idle_seconds: 600,
            end_at_expiry: true,
            barred: Default::default(),
        });
        let board = Arc::<RoomsBoard>::default();
        let service = Service::new(Arc::clone(&shared), Arc::clone(&board), Bounds::default(), random_epochs());
        Self { shared, inboxes, service, board, requests: 0 }
    }

    /// Rooms, and members of all.
    fn counted(&self) -> (u64, u64) {
        (self.board.rooms.load(Ordering::Relaxed), self.board.members.load(Ordering::Relaxed))
    }

    /// The user is on-line in this SET, in the slot of its id.
    fn place(&self, id: u64, set: u32) {
        let key = ConnectionKey { slot: u32::try_from(id).unwrap(), generation: 0 };
        self.shared.directory.enter(user(id), ConnectionAddress { set, key });
    }

    /// A request of a user in SET 0, whose answer comes into that SET's queue.
    fn request(&mut self, id: u64, at: u64, action: RoomAction) -> QueuedRoomRequest {
        self.requests += 1;
        let permit = self.shared.sets[0].inbox.clone().try_reserve_owned().unwrap();
        let key = ConnectionKey { slot: u32::try_from(id).unwrap(), generation: 0 };
        let request = RequestId::new(self.requests).unwrap();
        let permit = ReplyPermit::new(permit, key, PendingRequest::Chat { request });
        QueuedRoomRequest { user: user(id), wanted: RoomRequest { room: room(at), action }, at: 5_000, permit }
    }

    /// Takes a request, and nothing but it.
    fn ask(&mut self, id: u64, at: u64, action: RoomAction) {
        let request = self.request(id, at, action);
        self.service.step(Some(request));
    }

    fn work_off(&mut self) {
        while self.service.is_busy() {
            self.service.step(None);
        }
    }

    /// What lies in a SET's queue.
    fn queued(&mut self, set: usize) -> Vec<Message> {
        std::iter::from_fn(|| self.inboxes[set].try_recv().ok()).collect()
    }

    /// Works everything off; returns the answers that have come, with whose they are.
    fn answers(&mut self) -> Vec<(u64, Reply)> {
        self.work_off();
        let mut answers = Vec::new();
        // Deliveries that are dropped let receipts go.
        loop {
            let batch: Vec<_> = (0..self.inboxes.len()).flat_map(|set| self.queued(set)).collect();
            if batch.is_empty() {
                return answers;
            }
            for message in batch {
                match message {
                    Message::Reply { key, reply, .. } => answers.push((key.slot.into(), reply)),
                    Message::Control(Control::Deliver(delivery)) => write(delivery, |_, _| {}),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn answer(&mut self) -> Reply {
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0).1
    }
}

/// Does as a SET where everybody is on-line and reads.
fn write(mut delivery: Delivery, mut each: impl FnMut(ConnectionKey, &v1::ChatMessage)) {
    let frame = v1::ServerFrame::decode_length_delimited(&delivery.frame()[..]).unwrap();
    let Some(Event::ChatMessage(message)) = frame.event else { panic!("{frame:?}") };
    while let Some(key) = delivery.take() {
        delivery.count().add(Delivered { delivered: 1, ..Delivered::default() });
        each(key, &message);
    }
}

fn say(text: &str) -> RoomAction {
    RoomAction::Say(text.into())
}

fn standing(reply: Reply) -> v1::RoomState {
    match reply {
        Reply::Room(standing) => standing.state,
        other => panic!("{other:?}"),
    }
}

fn receipt(reply: &Reply) -> (u32, u32, u32, u64) {
    match reply {
        Reply::Receipt { delivered: Delivered { delivered, offline, dropped }, offset } => {
            (*delivered, *offline, *dropped, *offset)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_reaches_every_other_member_and_is_counted() {
    let mut rig = Rig::new(3);
    for id in 1..=7 {
        rig.ask(id, 9, RoomAction::Join(None));
    }
    let states: Vec<_> = rig.answers().into_iter().map(|(_, reply)| standing(reply)).collect();
    assert!(states.iter().all(|state| state.epoch == states[0].epoch && state.epoch != 0));
    assert_eq!(states.iter().map(|state| state.members).collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
    assert_eq!(rig.counted(), (1, 7));
    for id in 1..=5 {
        rig.place(id, (id % 3) as u32);
    }
    rig.ask(2, 9, say("hello"));
    rig.work_off();
    let mut told = BTreeSet::new();
    let mut answers = Vec::new();
    for set in [1, 2, 0] {
        for message in rig.queued(set) {
            match message {
                Message::Control(Control::Deliver(delivery)) => write(delivery, |key, message| {
                    assert_eq!(u64::from(key.slot % 3), set as u64);
                    assert_eq!(
                        (message.from_user_id, message.room_id, message.offset, message.at_ms),
                        (2, 9, 1, 5_000)
                    );
                    assert_eq!(message.text, "hello");
                    told.insert(key.slot);
                }),
                Message::Reply { reply, .. } => answers.push(reply),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(told, BTreeSet::from([1, 3, 4, 5]));
    assert!(answers.is_empty(), "no receipt before the last SET has written");
    assert_eq!(receipt(&rig.answer()), (4, 2, 0, 1));
}

#[test]
fn only_members_may_say_something_or_look_or_leave() {
    let mut rig = Rig::new(1);
    rig.ask(1, 9, RoomAction::Join(None));
    standing(rig.answer());
    for action in [say("let me in"), RoomAction::Look, RoomAction::Leave] {
        rig.ask(2, 9, action);
        assert!(matches!(rig.answer(), Reply::Refused(ErrorCode::NoSuchRoom)));
    }
    // One's own word is nobody else's.
    rig.ask(1, 9, say("anybody?"));
    assert_eq!(receipt(&rig.answer()), (0, 0, 0, 1));
    rig.ask(1, 9, RoomAction::Look);
    let state = standing(rig.answer());
    assert_eq!((state.offset, state.members, state.recovered, state.missed.len()), (1, 1, false, 0));
    rig.ask(1, 9, RoomAction::Leave);
    assert_eq!(standing(rig.answer()).members, 0);
    assert_eq!(rig.counted(), (0, 0));
    rig.ask(1, 9, say("gone"));
    assert!(matches!(rig.answer(), Reply::Refused(ErrorCode::NoSuchRoom)));
}

#[test]
fn a_returning_member_gets_what_it_missed_or_learns_of_the_loss() {
    let mut rig = Rig::new(1);
    rig.ask(1, 9, RoomAction::Join(None));
    let epoch = standing(rig.answer()).epoch;
    for number in 1..=5 {
        rig.ask(1, 9, say(&number.to_string()));
        rig.answers();
    }
    let mut join = |epoch, offset| {
        rig.ask(1, 9, RoomAction::Join(Some(Seen { epoch, offset })));
        let state = standing(rig.answer());
        assert_eq!(state.offset, 5);
        (state.recovered, state.missed.iter().map(|message| message.offset).collect::<Vec<_>>())
    };
    assert_eq!(join(epoch, 3), (true, vec![4, 5]));
    assert_eq!(join(epoch, 5), (true, vec![]));
    assert_eq!(join(epoch, 0), (true, vec![1, 2, 3, 4, 5]));
    // What has never been cannot have been seen.
    assert_eq!(join(epoch, 6), (false, vec![1, 2, 3, 4, 5]));
    assert_eq!(join(epoch ^ 1, 3), (false, vec![1, 2, 3, 4, 5]));
    for _ in 0..limits::HISTORY_MESSAGES_MAX {
        rig.ask(1, 9, say("and on"));
        rig.answers();
    }
    let last = 5 + limits::HISTORY_MESSAGES_MAX as u64;
    for (offset, recovered) in [(4, false), (5, true)] {
        rig.ask(1, 9, RoomAction::Join(Some(Seen { epoch, offset })));
        let state = standing(rig.answer());
        assert_eq!((state.recovered, state.offset), (recovered, last));
        assert_eq!(state.missed.len(), limits::HISTORY_MESSAGES_MAX);
        assert_eq!((state.missed[0].offset, state.missed[0].text.as_str()), (6, "and on"));
    }
}

#[test]
fn a_large_room_is_served_by_slices_between_other_rooms() {
    let mut rig = Rig::new(4);
    for id in 1..=10_000 {
        rig.ask(id, 1, RoomAction::Join(None));
        rig.answers();
        rig.place(id, (id % 4) as u32);
    }
    rig.ask(1, 2, RoomAction::Join(None));
    rig.answers();
    rig.ask(1, 1, say("to all"));
    rig.ask(2, 1, RoomAction::Leave);
    rig.ask(3, 1, say("to one less"));
    let mut steps = 0;
    while rig.service.is_busy() {
        // Another room's message is done within two of the large one's slices.
        let before = rig.inboxes[0].len();
        rig.ask(1, 2, say("quick"));
        rig.service.step(None);
        rig.service.step(None);
        assert!(rig.inboxes[0].len() > before, "step {steps}");
        steps += 1;
        assert!(steps < 200);
    }
    assert!(steps >= 2 * 10_000 / limits::FANOUT_STEP / 3, "{steps} steps for two messages");
    let of_room_1: Vec<_> = rig.answers().into_iter().filter(|(id, _)| *id != 1).collect();
    let [(2, left), (3, second)] = of_room_1.as_slice() else { panic!("{of_room_1:?}") };
    let Reply::Room(left) = left else { panic!("{left:?}") };
    assert_eq!((left.state.members, left.state.offset), (9_999, 1), "it left after the first message");
    assert_eq!(receipt(second), (9_998, 0, 0, 2));
}

#[test]
fn a_full_or_stopped_set_drops_its_share_and_it_is_receipted() {
    let mut rig = Rig::new(4);
    for id in 1..=9 {
        rig.ask(id, 1, RoomAction::Join(None));
        rig.place(id, (id % 3) as u32);
    }
    rig.answers();
    while rig.shared.sets[1].inbox.try_send(Message::Control(Control::Tick)).is_ok() {}
    // SET 2 takes the message, and stops before it has come to it.
    rig.ask(9, 1, say("hello"));
    rig.work_off();
    drop(rig.inboxes.remove(2));
    while rig.inboxes[1].try_recv().is_ok() {}
    assert_eq!(receipt(&rig.answer()), (2, 0, 6, 1));
    // By now it takes nothing any more.
    rig.ask(9, 1, say("hello?"));
    assert_eq!(receipt(&rig.answer()), (5, 0, 3, 2));
}

#[test]
fn beyond_a_bound_a_request_is_overloaded_and_changes_nothing() {
    let mut rig = Rig::new(2);
    for id in 1..=2 {
        rig.ask(id, 1, RoomAction::Join(None));
        rig.place(id, 1);
    }
    let epoch = standing(rig.answers().remove(0).1).epoch;
    let overloaded =
        |answers: &[(u64, Reply)]| answers.iter().filter(|(_, reply)| matches!(reply, Reply::Overloaded)).count();
    // Messages on their way: SET 1 holds them.
    for _ in 0..limits::ROOM_SHARD_MESSAGES_MAX + 3 {
        rig.ask(1, 1, say("x"));
        rig.work_off();
    }
    let refused: Vec<_> = rig.queued(0);
    assert!(
        refused.len() == 3
            && refused.iter().all(|message| matches!(message, Message::Reply { reply: Reply::Overloaded, .. }))
    );
    assert_eq!(rig.answers().len(), limits::ROOM_SHARD_MESSAGES_MAX);
    rig.ask(1, 1, say("x"));
    assert_eq!(receipt(&rig.answer()).3, limits::ROOM_SHARD_MESSAGES_MAX as u64 + 1);

    // Requests that wait for a message to their room: it is in the first of its two slices.
    for id in 3..=2 + limits::FANOUT_STEP as u64 {
        rig.ask(id, 1, RoomAction::Join(None));
        rig.answers();
    }
    rig.ask(1, 1, say("x"));
    for _ in 0..limits::ROOM_SHARD_WAITING_MAX + 5 {
        let request = rig.request(2, 1, RoomAction::Look);
        // Without giving anybody a turn.
        rig.service.take(request);
    }
    let answers = rig.answers();
    assert_eq!((overloaded(&answers), answers.len()), (5, limits::ROOM_SHARD_WAITING_MAX + 6));

    // History on its way: as long as the answers lie in the SET's queue.
    for _ in 0..limits::HISTORY_MESSAGES_MAX {
        rig.ask(1, 1, say(&"x".repeat(CHAT_BYTES_MAX)));
        rig.answers();
    }
    let each = limits::HISTORY_BYTES_MAX / (CHAT_BYTES_MAX + limits::HISTORY_OVERHEAD_BYTES)
        * (CHAT_BYTES_MAX + limits::HISTORY_OVERHEAD_BYTES);
    let fit = limits::ROOM_SHARD_RECOVERY_BYTES_MAX / each;
    for _ in 0..fit + 2 {
        rig.ask(2, 1, RoomAction::Join(Some(Seen { epoch, offset: 0 })));
    }
    // A newcomer whom we cannot tell is no member, either.
    rig.ask(9_999, 1, RoomAction::Join(Some(Seen { epoch, offset: 0 })));
    // Whoever asks for no history is served.
    rig.ask(2, 1, RoomAction::Look);
    let members = rig.counted().1;
    let answers = rig.answers();
    assert_eq!((overloaded(&answers), answers.len(), members), (3, fit + 4, 2 + limits::FANOUT_STEP as u64));
    drop(answers);
    rig.ask(9_999, 1, RoomAction::Join(Some(Seen { epoch, offset: 0 })));
    assert!(!standing(rig.answer()).missed.is_empty());
}

#[test]
fn what_a_shard_holds_when_it_ends_is_answered() {
    let mut rig = Rig::new(1);
    for id in 1..=1_000 {
        rig.ask(id, 1, RoomAction::Join(None));
        rig.place(id, 0);
    }
    rig.answers();
    rig.ask(1, 1, say("x"));
    rig.ask(2, 1, RoomAction::Look);
    let Rig { service, mut inboxes, .. } = rig;
    drop(service);
    let answers: Vec<_> = std::iter::from_fn(|| inboxes[0].try_recv().ok()).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Join(u64, u64),
    Look(u64, u64),
    Leave(u64, u64),
    Say(u64, u64),
    Work,
}

fn step() -> impl Strategy<Value = Step> {
    let at = (1u64..400, 1u64..3);
    prop_oneof![
        4 => at.clone().prop_map(|(user, room)| Step::Join(user, room)),
        3 => at.clone().prop_map(|(user, room)| Step::Look(user, room)),
        1 => at.clone().prop_map(|(user, room)| Step::Leave(user, room)),
        4 => at.prop_map(|(user, room)| Step::Say(user, room)),
        4 => Just(Step::Work),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// In whatever order rooms are joined, left and talked in while messages are being handed out:
    /// what a user is pushed after a RoomState are exactly the messages of others with higher
    /// offsets, each once and in order, as long as it stays where it is.
    #[test]
    fn only_what_follows_a_states_offset_is_pushed_and_once(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut rig = Rig::new(1);
        // So many that a message takes several slices.
        for id in 1..400 {
            rig.place(id, 0);
            for at in [1, 2] {
                if id % 4 > 0 {
                    rig.ask(id, at, RoomAction::Join(None));
                    rig.work_off();
                }
            }
        }
        let mut own_words: HashMap<(u64, u64), BTreeSet<u64>> = HashMap::new();
        let mut leaves = BTreeSet::new();
        for step in steps {
            match step {
                Step::Join(id, at) => rig.ask(id, at, RoomAction::Join(None)),
                Step::Look(id, at) => rig.ask(id, at, RoomAction::Look),
                Step::Leave(id, at) => {
                    rig.ask(id, at, RoomAction::Leave);
                    leaves.insert(rig.requests);
                }
                Step::Say(id, at) => rig.ask(id, at, say(&format!("{id}"))),
                Step::Work => {
                    rig.service.step(None);
                }
            }
        }
        rig.work_off();
        // Read in the order in which the SET would.
        let mut seen: HashMap<(u64, u64), u64> = HashMap::new();
        let mut wrong = Vec::new();
        loop {
            let batch = rig.queued(0);
            if batch.is_empty() {
                break;
            }
            for message in batch {
                match message {
                    Message::Reply { key, pending, reply: Reply::Room(standing) } => {
                        let state = standing.state;
                        let place = (u64::from(key.slot), state.room_id);
                        if leaves.contains(&pending.request().get()) {
                            seen.remove(&place);
                        } else {
                            seen.insert(place, state.offset);
                        }
                    }
                    Message::Reply { .. } => {}
                    Message::Control(Control::Deliver(delivery)) => write(delivery, |key, message| {
                        let place = (u64::from(key.slot), message.room_id);
                        let own = own_words.entry((message.from_user_id, message.room_id)).or_default();
                        own.insert(message.offset);
                        let mine = own_words.get(&place);
                        match seen.get_mut(&place) {
                            None => wrong.push((place, 0, message.offset)),
                            Some(last) => {
                                let mut next = *last + 1;
                                while mine.is_some_and(|mine| mine.contains(&next)) {
                                    next += 1;
                                }
                                if message.offset != next {
                                    wrong.push((place, *last, message.offset));
                                }
                                *last = message.offset;
                            }
                        }
                    }),
                    other => panic!("{other:?}"),
                }
            }
        }
        prop_assert!(wrong.is_empty(), "{:?}", wrong);
    }
}
