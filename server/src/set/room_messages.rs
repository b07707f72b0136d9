//! What readers, SETs and the rooms' desks say to each other about chat.
//!
//! Rooms are kept by a service that knows SETs; SETs know of it only these messages, and the queues
//! that they go into.

use bytes::Bytes;
use hongbao_proto::limits::CHAT_BYTES_MAX;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{RequestId, RoomId, UserId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, OwnedPermit};

use crate::clock::UnixMs;
use crate::limits;
use crate::market::envelope::NewEnvelope;
use crate::set::deliver::{self, Delivered};
use crate::set::directory::ConnectionKey;
use crate::set::message::Message;

/// A checked message of a user.
#[derive(Debug, PartialEq, Eq)]
pub struct Chat {
    pub to: Recipient,
    /// 1 ..= [`CHAT_BYTES_MAX`] bytes.
    pub text: Box<str>,
}

/// To whom a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
    /// One user, who may be the sender.
    User(UserId),
    /// The members of a room, of whom the sender is one.
    Room(RoomId),
}

impl Chat {
    /// `None`: a field is out of its range.
    pub fn check(chat: v1::Chat) -> Option<Self> {
        let to = match (chat.user_id, chat.room_id) {
            (user, 0) => Recipient::User(UserId::new(user).ok()?),
            (0, room) => Recipient::Room(RoomId::new(room).ok()?),
            _ => return None,
        };
        (1..=CHAT_BYTES_MAX).contains(&chat.text.len()).then(|| Self { to, text: chat.text.into() })
    }
}

/// What a user wants of a room, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct RoomRequest {
    pub room: RoomId,
    pub action: RoomAction,
}

/// What can be wanted of a room.
#[derive(Debug, PartialEq, Eq)]
pub enum RoomAction {
    /// Become a member, or catch up as one.
    Join(Option<Seen>),
    /// Cease to be one.
    Leave,
    Look,
    /// Tell its members.
    Say(Box<str>),
    /// Send them this envelope: its recipients are not filled in yet.
    Enclose(Box<NewEnvelope>),
}

/// How far a user has followed a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// As told in a RoomState; not 0.
    pub epoch: u64,
    /// The last offset seen, 0 for none.
    pub offset: u64,
}

impl RoomRequest {
    /// `None`: a field is out of its range.
    pub fn check(room: &v1::Room) -> Option<Self> {
        let action = match room.action() {
            v1::room::Action::Join => {
                RoomAction::Join((room.epoch != 0).then_some(Seen { epoch: room.epoch, offset: room.offset }))
            }
            v1::room::Action::Leave => RoomAction::Leave,
            v1::room::Action::Look => RoomAction::Look,
            v1::room::Action::Unspecified => return None,
        };
        Some(Self { room: RoomId::new(room.room_id).ok()?, action })
    }
}

/// A frame that brings somebody a message.
pub fn message_frame(from: UserId, room: Option<RoomId>, offset: u64, at: UnixMs, text: &str) -> Bytes {
    deliver::encode(Event::ChatMessage(v1::ChatMessage {
        from_user_id: from.get(),
        room_id: room.map_or(0, RoomId::get),
        offset,
        at_ms: at,
        text: text.to_owned(),
    }))
}

/// What came of a request. It answers the request of the [`RoomReplyPermit`] that it went.
#[derive(Debug)]
pub enum Reply {
    /// A message went out.
    Receipt {
        /// To how many.
        delivered: Delivered,
        /// Its place in the room's history; 0: not to a room.
        offset: u64,
    },
    /// How a room is.
    Room(Box<RoomState>),
    /// An envelope whose recipients are filled in: the room's members at that moment. Now it is the
    /// ledger's.
    Enclosed(Box<NewEnvelope>),
    Refused(ErrorCode),
    /// No room for it.
    Overloaded,
}

/// A room's state on its way to a user.
#[derive(Debug)]
pub struct RoomState {
    pub state: v1::RoomState,
    /// Holds the bytes of `state.missed` against the desk's bound until the answer is encoded.
    pub held: Option<OwnedSemaphorePermit>,
}

/// The way back to who has asked: a place in its SET's queue, reserved before the request set out.
/// Dropped without an answer, it answers `Overloaded` itself.
#[derive(Debug)]
pub struct RoomReplyPermit {
    permit: Option<OwnedPermit<Message>>,
    key: ConnectionKey,
    request: RequestId,
}

impl RoomReplyPermit {
    /// For the answer to `request` of `key`.
    pub fn new(permit: OwnedPermit<Message>, key: ConnectionKey, request: RequestId) -> Self {
        Self { permit: Some(permit), key, request }
    }

    /// Answers.
    pub fn answer(mut self, reply: Reply) {
        self.send(reply);
    }

    fn send(&mut self, reply: Reply) {
        if let Some(permit) = self.permit.take() {
            permit.send(Message::Chat { key: self.key, request: self.request, reply });
        }
    }
}

impl Drop for RoomReplyPermit {
    fn drop(&mut self) {
        self.send(Reply::Overloaded);
    }
}

/// A user's wish, on its way to the room's desk.
#[derive(Debug)]
pub struct QueuedRoomRequest {
    pub user: UserId,
    /// Of which room what.
    pub wanted: RoomRequest,
    /// When the SET read it, wall clock.
    pub at: UnixMs,
    pub permit: RoomReplyPermit,
}

/// The desks' queues. A room is always looked after by the same desk.
#[derive(Debug)]
pub struct RoomShards(Box<[mpsc::Sender<QueuedRoomRequest>]>);

impl RoomShards {
    /// `count` queues. With none, every request is answered `Overloaded`.
    pub fn open(count: usize) -> (Self, Vec<mpsc::Receiver<QueuedRoomRequest>>) {
        let (senders, receivers): (Vec<_>, _) = (0..count).map(|_| mpsc::channel(limits::ROOM_SHARD_QUEUE_MAX)).unzip();
        (Self(senders.into()), receivers)
    }

    /// Hands a request to its room's desk. Where that has no room for it, it is answered
    /// `Overloaded` by its way back.
    pub fn ask(&self, request: QueuedRoomRequest) {
        if let Some(desk) = self.0.get(room_shard_of(request.wanted.room, self.0.len()))
            && let Err(refused) = desk.try_send(request)
        {
            drop(refused);
        }
    }
}

/// Which of `desks` desks looks after this room. Multiplicative hashing spreads neighbours.
pub fn room_shard_of(room: RoomId, desks: usize) -> usize {
    let spread = (room.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u128 * desks as u128;
    usize::try_from(spread >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(user_id: u64, room_id: u64, text: &str) -> Option<Chat> {
        Chat::check(v1::Chat { user_id, room_id, text: text.to_owned() })
    }

    #[test]
    fn a_message_is_for_a_user_or_a_room_and_neither_empty_nor_long() {
        let longest = "x".repeat(CHAT_BYTES_MAX);
        let user = Recipient::User(UserId::new(3).unwrap());
        assert_eq!(chat(3, 0, &longest), Some(Chat { to: user, text: longest.clone().into() }));
        assert_eq!(chat(0, 4, "x").map(|chat| chat.to), Some(Recipient::Room(RoomId::new(4).unwrap())));
        let too_long = longest + "x";
        // Counted in bytes: this has a third as many characters.
        let wide = "红".repeat(CHAT_BYTES_MAX / 3 + 1);
        for (user, room, text) in [
            (0, 0, "x"),
            (3, 4, "x"),
            (UserId::MAX + 1, 0, "x"),
            (0, RoomId::MAX + 1, "x"),
            (3, 0, ""),
            (3, 0, &too_long),
            (0, 4, &wide),
        ] {
            assert_eq!(chat(user, room, text), None, "{user} {room} {}", text.len());
        }
    }

    #[test]
    fn a_visit_has_a_room_and_a_known_action() {
        let wanted = |room_id, action, epoch| RoomRequest::check(&v1::Room { room_id, action, epoch, offset: 9 });
        let room = RoomId::new(5).unwrap();
        assert_eq!(wanted(5, 1, 0), Some(RoomRequest { room, action: RoomAction::Join(None) }));
        let seen = Seen { epoch: 7, offset: 9 };
        assert_eq!(wanted(5, 1, 7), Some(RoomRequest { room, action: RoomAction::Join(Some(seen)) }));
        assert_eq!(wanted(5, 2, 7), Some(RoomRequest { room, action: RoomAction::Leave }));
        assert_eq!(wanted(5, 3, 0), Some(RoomRequest { room, action: RoomAction::Look }));
        for (room_id, action) in [(0, 1), (RoomId::MAX + 1, 1), (5, 0), (5, 4), (5, -1)] {
            assert_eq!(wanted(room_id, action, 0), None, "{room_id} {action}");
        }
    }

    #[test]
    fn neighbouring_rooms_are_spread_over_the_desks() {
        let mut rooms = [0; 4];
        for room in 1..=1_000 {
            rooms[room_shard_of(RoomId::new(room).unwrap(), 4)] += 1;
        }
        assert!(rooms.iter().all(|rooms| (200..300).contains(rooms)), "{rooms:?}");
    }
}
