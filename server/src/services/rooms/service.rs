//! The task around a room shard: serves requests one after the other, and hands messages out a slice of
//! members at a time.
//!
//! While a message of a room is being handed out, whatever else is wanted of that room waits behind
//! it, and other rooms take turns with it. So the members do not change under a message, each SET
//! gets a room's messages in order, and a RoomState goes its way after every message that it counts
//! as past and before every later one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use hongbao_proto::v1::{self, ErrorCode, server_frame::Event};
use hongbao_proto::{RoomId, UserId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::clock::UnixMs;
use crate::limits;
use crate::market::envelope::NewEnvelope;
use crate::services::rooms::room::bytes_of;
use crate::services::rooms::room_shard::{Bounds, RoomShard, RoomsBoard};
use crate::set::Shared;
use crate::set::delivery::{self, Count, Delivered, Delivery};
use crate::set::directory::ConnectionKey;
use crate::set::message::{Reply, ReplyPermit};
use crate::set::room_messages::{RoomAction, RoomRequest, RoomState, Seen};
use crate::set::room_requests::QueuedRoomRequest;

/// Where the epochs of new rooms come from: no two alike, in this process or another.
pub type Epochs = Box<dyn FnMut() -> NonZeroU64 + Send>;

/// Numbers hashed with random keys.
pub fn random_epochs() -> Epochs {
    let (keys, mut made) = (RandomState::new(), 0u64);
    Box::new(move || {
        made += 1;
        NonZeroU64::new(keys.hash_one(made)).unwrap_or(NonZeroU64::MIN)
    })
}

/// See the module.
pub struct Service {
    shared: Arc<Shared>,
    shard: RoomShard,
    /// Rooms with a message that is being handed out, or with requests that waited for one.
    busy: HashMap<RoomId, Busy>,
    turns: VecDeque<RoomId>,
    waiting: usize,
    /// A permit for each message on its way, from its offset to its receipt.
    messages: Arc<Semaphore>,
    /// A permit for each byte of history on its way.
    recovery: Arc<Semaphore>,
    epochs: Epochs,
}

#[derive(Debug, Default)]
struct Busy {
    fanout: Option<Fanout>,
    waiting: VecDeque<QueuedRoomRequest>,
}

/// A message being handed out: first its room's members are looked up, then it goes to their SETs.
#[derive(Debug)]
struct Fanout {
    from: UserId,
    frame: Bytes,
    count: Arc<Count>,
    /// Members before have been looked up.
    next: usize,
    offline: u32,
    keys: BTreeMap<u32, Vec<ConnectionKey>>,
}

impl Service {
    /// Holds `shared`, which holds its queue: to be aborted once the SETs have stopped.
    pub fn new(shared: Arc<Shared>, board: Arc<RoomsBoard>, bounds: Bounds, epochs: Epochs) -> Self {
        Self {
            shared,
            shard: RoomShard::new(board, bounds),
            busy: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            messages: Arc::new(Semaphore::new(limits::ROOM_SHARD_MESSAGES_MAX)),
            recovery: Arc::new(Semaphore::new(limits::ROOM_SHARD_RECOVERY_BYTES_MAX)),
            epochs,
        }
    }

    /// Serves until the queue is closed, and lets the thread's other tasks run after every
    /// [`limits::ROOM_SHARD_STEP`] of work.
    pub async fn run(mut self, mut queue: mpsc::Receiver<QueuedRoomRequest>) {
        let mut spent = 0;
        loop {
            let request = if self.is_busy() { queue.try_recv().ok() } else { queue.recv().await };
            if request.is_none() && !self.is_busy() {
                return;
            }
            spent += self.step(request);
            if spent >= limits::ROOM_SHARD_STEP {
                spent = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes a request and gives a busy room its turn; returns what that was worth in members
    /// looked up.
    pub fn step(&mut self, request: Option<QueuedRoomRequest>) -> usize {
        request.map_or(0, |request| self.take(request)) + self.turn()
    }

    /// Whether a room waits for its turn.
    pub fn is_busy(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Serves a request, or has it wait for a message of its room.
    pub(super) fn take(&mut self, request: QueuedRoomRequest) -> usize {
        let room = request.wanted.room;
        if let Some(busy) = self.busy.get_mut(&room) {
            // Beyond the bound it is dropped, and answered by its way back.
            if self.waiting < limits::ROOM_SHARD_WAITING_MAX {
                self.waiting += 1;
                busy.waiting.push_back(request);
            }
            return limits::ROOM_SHARD_REQUEST_WEIGHT;
        }
        let (spent, fanout) = self.serve(request);
        if fanout.is_some() {
            self.busy.insert(room, Busy { fanout, waiting: VecDeque::new() });
            self.turns.push_back(room);
        }
        spent
    }

    /// One slice of a message, or one request that waited for it.
    fn turn(&mut self) -> usize {
        let Some(room) = self.turns.pop_front() else { return 0 };
        let Some(mut busy) = self.busy.remove(&room) else { return 0 };
        let mut spent = 0;
        if let Some(fanout) = busy.fanout.take() {
            (spent, busy.fanout) = self.fan_out(room, fanout);
        } else if let Some(request) = busy.waiting.pop_front() {
            self.waiting -= 1;
            (spent, busy.fanout) = self.serve(request);
        }
        if busy.fanout.is_some() || !busy.waiting.is_empty() {
            self.busy.insert(room, busy);
            self.turns.push_back(room);
        }
        spent
    }

    /// Answers a request, or begins to hand out its message.
    fn serve(&mut self, request: QueuedRoomRequest) -> (usize, Option<Fanout>) {
        let QueuedRoomRequest { user, wanted: RoomRequest { room, action }, at, permit } = request;
        let replied = match action {
            RoomAction::Say(text) => {
                return (limits::ROOM_SHARD_REQUEST_WEIGHT, self.send(user, room, text, at, permit));
            }
            RoomAction::Join(seen) => self.join(user, room, seen),
            RoomAction::Leave => self.shard.leave(user, room).map(|state| (state_reply(state, None), 0)),
            RoomAction::Look => self.shard.look(user, room).map(|state| (state_reply(state, None), 0)),
            RoomAction::Enclose(new) => self.enclose(user, room, new),
        };
        let (reply, spent) = replied.unwrap_or_else(|code| (Reply::Refused(code), 0));
        permit.send(reply);
        (limits::ROOM_SHARD_REQUEST_WEIGHT + spent, None)
    }

    /// With how many messages are sent again.
    fn join(&mut self, user: UserId, room: RoomId, seen: Option<Seen>) -> Result<(Reply, usize), ErrorCode> {
        let missed = self.shard.rooms.get(&room).map(|room| room.missed(seen).0.map(bytes_of).sum());
        let bytes = u32::try_from(missed.unwrap_or(0)).unwrap_or(u32::MAX);
        // Where too much is on its way already, nothing has changed.
        let Ok(held) = Arc::clone(&self.recovery).try_acquire_many_owned(bytes) else {
            return Ok((Reply::Overloaded, 0));
        };
        let mut state = self.shard.join(user, room, &mut self.epochs)?;
        if let Some(room) = self.shard.rooms.get(&room) {
            let (missed, recovered) = room.missed(seen);
            (state.missed, state.recovered) = (missed.cloned().collect(), recovered);
        }
        let sent = state.missed.len();
        Ok((state_reply(state, Some(held)), sent))
    }

    /// Fills in whom an envelope is for; with how many they are.
    fn enclose(&self, user: UserId, room: RoomId, mut new: Box<NewEnvelope>) -> Result<(Reply, usize), ErrorCode> {
        self.shard.look(user, room)?;
        let mut members = self.shard.members(room).to_vec();
        members.sort_unstable();
        let count = members.len();
        new.recipients = members.into();
        Ok((Reply::Enclosed(new), count))
    }

    fn send(&mut self, from: UserId, room: RoomId, text: Box<str>, at: UnixMs, permit: ReplyPermit) -> Option<Fanout> {
        // Without a permit the way back says `Overloaded`, and nothing was said.
        let under_way = Arc::clone(&self.messages).try_acquire_owned().ok()?;
        match self.shard.append(from, room, at, text) {
            Err(code) => {
                permit.send(Reply::Refused(code));
                None
            }
            Ok(message) => Some(Fanout {
                from,
                count: Count::new(move |delivered| {
                    permit.send(Reply::Receipt { delivered, offset: message.offset });
                    drop(under_way);
                }),
                frame: delivery::encode(Event::ChatMessage(message)),
                next: 0,
                offline: 0,
                keys: BTreeMap::new(),
            }),
        }
    }

    /// Looks some more members up, or hands it to some SETs. The sender does not get it: the receipt
    /// has the message's offset.
    fn fan_out(&self, room: RoomId, mut fanout: Fanout) -> (usize, Option<Fanout>) {
        let members = self.shard.members(room);
        let until = (fanout.next + limits::FANOUT_STEP).min(members.len());
        let mut spent = until - fanout.next;
        for &member in members[fanout.next..until].iter().filter(|member| **member != fanout.from) {
            match self.shared.directory.find(member) {
                Some(address) => fanout.keys.entry(address.set).or_default().push(address.key),
                None => fanout.offline += 1,
            }
        }
        fanout.next = until;
        if until == members.len() {
            while spent < limits::FANOUT_STEP
                && let Some((set, keys)) = fanout.keys.pop_first()
            {
                spent += limits::ROOM_SHARD_REQUEST_WEIGHT;
                let delivery = Delivery::new(keys, fanout.frame.clone(), Arc::clone(&fanout.count));
                // Where there is no room, members find the message in the history.
                self.shared.sets[set as usize].deliver(delivery);
            }
            if fanout.keys.is_empty() {
                fanout.count.add(Delivered { offline: fanout.offline, ..Delivered::default() });
                return (spent, None);
            }
        }
        (spent, Some(fanout))
    }
}

fn state_reply(state: v1::RoomState, held: Option<OwnedSemaphorePermit>) -> Reply {
    Reply::Room(Box::new(RoomState { state, held }))
}
