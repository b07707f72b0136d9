//! Chat and rooms as values: what users ask for, checked, and what they get.

use bytes::Bytes;
use hongbao_proto::limits::CHAT_BYTES_MAX;
use hongbao_proto::v1;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::{RoomId, UserId};
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::UnixMs;
use crate::market::envelope::NewEnvelope;
use crate::set::delivery;

/// A checked message of a user.
#[derive(Debug, PartialEq, Eq)]
pub struct Chat {
    pub to: Recipient,
    /// 1 ..= [`CHAT_BYTES_MAX`] bytes.
    pub text: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient {
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

#[derive(Debug, PartialEq, Eq)]
pub enum RoomAction {
    /// Become a member, or catch up as one.
    Join(Option<Seen>),
    Leave,
    Look,
    /// Send its members a message.
    Say(Box<str>),
    /// Send them this envelope: its recipients are not filled in yet.
    Enclose(Box<NewEnvelope>),
}

/// How far a user has followed a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// From a RoomState; not 0.
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
    delivery::encode(Event::ChatMessage(v1::ChatMessage {
        from_user_id: from.get(),
        room_id: room.map_or(0, RoomId::get),
        offset,
        at_ms: at,
        text: text.to_owned(),
    }))
}

/// A room's state on its way to a user.
#[derive(Debug)]
pub struct RoomState {
    pub state: v1::RoomState,
    /// Holds the bytes of `state.missed` against the room shard's bound until the answer is encoded.
    pub held: Option<OwnedSemaphorePermit>,
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
    fn a_room_request_has_a_room_and_a_known_action() {
        let check = |room_id, action, epoch| RoomRequest::check(&v1::Room { room_id, action, epoch, offset: 9 });
        let room = RoomId::new(5).unwrap();
        assert_eq!(check(5, 1, 0), Some(RoomRequest { room, action: RoomAction::Join(None) }));
        let seen = Seen { epoch: 7, offset: 9 };
        assert_eq!(check(5, 1, 7), Some(RoomRequest { room, action: RoomAction::Join(Some(seen)) }));
        assert_eq!(check(5, 2, 7), Some(RoomRequest { room, action: RoomAction::Leave }));
        assert_eq!(check(5, 3, 0), Some(RoomRequest { room, action: RoomAction::Look }));
        for (room_id, action) in [(0, 1), (RoomId::MAX + 1, 1), (5, 0), (5, 4), (5, -1)] {
            assert_eq!(check(room_id, action, 0), None, "{room_id} {action}");
        }
    }
}
