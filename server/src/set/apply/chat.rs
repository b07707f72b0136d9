//! Messages from user to user, and the way to the rooms and back.

use hongbao_proto::v1;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::{RequestId, UserId};

use crate::clock::Now;
use crate::limits;
use crate::set::Set;
use crate::set::delivery::{Count, Delivered, Delivery};
use crate::set::directory::ConnectionKey;
use crate::set::message::{PendingRequest, Reply, ReplyPermit};
use crate::set::room_messages::{Chat, Recipient, RoomAction, RoomRequest, RoomState, message_frame};
use crate::set::room_requests::QueuedRoomRequest;
use crate::set::tally::AnswerKind;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(super) fn on_chat(&mut self, key: ConnectionKey, request: RequestId, Chat { to, text }: Chat, now: &Now) {
        match to {
            Recipient::User(to) => self.send_to_user(key, request, to, &text, now),
            Recipient::Room(room) => {
                self.send_room_request(key, request, RoomRequest { room, action: RoomAction::Say(text) }, now)
            }
        }
    }

    /// Has the receiver's SET write the message; its report comes back through our own queue.
    fn send_to_user(&mut self, key: ConnectionKey, request: RequestId, to: UserId, text: &str, now: &Now) {
        let Some(from) = self.sessions[key.slot as usize].user else { return };
        let Some(address) = self.shared.directory.find(to) else {
            let delivered = Delivered { offline: 1, ..Delivered::default() };
            return self.receipt(key, request, delivered, 0);
        };
        let Some(permit) = self.chat_permit(key, request) else { return self.overloaded(key, request.get()) };
        let count = Count::new(move |delivered| permit.send(Reply::Receipt { delivered, offset: 0 }));
        let frame = message_frame(from, None, 0, now.wall, text);
        self.shared.sets[address.set as usize].deliver(Delivery::new([address.key], frame, count));
    }

    /// Asks the shard that looks after the room.
    pub(super) fn send_room_request(&mut self, key: ConnectionKey, request: RequestId, wanted: RoomRequest, now: &Now) {
        let Some(user) = self.sessions[key.slot as usize].user else { return };
        match self.chat_permit(key, request) {
            Some(permit) => self.shared.room_shards.send(QueuedRoomRequest { user, wanted, at: now.wall, permit }),
            None => self.overloaded(key, request.get()),
        }
    }

    /// A permit, if another request of this kind may be under way.
    fn chat_permit(&mut self, key: ConnectionKey, request: RequestId) -> Option<ReplyPermit> {
        if self.chats >= limits::CHATS_UNDER_WAY_MAX {
            return None;
        }
        let permit = self.permit(key, PendingRequest::Chat { request })?;
        self.chats += 1;
        Some(permit)
    }

    pub(super) fn end_chat(&mut self) {
        self.owed -= 1;
        self.chats -= 1;
    }

    /// Answers with a room's state, behind what was handed in before.
    pub(super) fn send_state(&mut self, key: ConnectionKey, request: RequestId, state: Box<RoomState>) {
        if self.deliveries.is_empty() {
            self.answer_state(key, request, *state);
        } else {
            self.deliveries.push_state(key, request, state);
        }
    }

    pub(super) fn answer_state(&mut self, key: ConnectionKey, request: RequestId, state: RoomState) {
        self.end_chat();
        self.answer(key, request.get(), AnswerKind::Room, Event::RoomState(state.state));
    }

    /// The one place where a message's fate is counted and sent.
    pub(in crate::set) fn receipt(&mut self, key: ConnectionKey, request: RequestId, became: Delivered, offset: u64) {
        let Delivered { delivered, offline, dropped } = became;
        self.tally.chat_delivered.add(delivered.into());
        self.tally.chat_offline.add(offline.into());
        self.tally.chat_dropped.add(dropped.into());
        let receipt = v1::Receipt { delivered, offline, dropped, offset };
        self.answer(key, request.get(), AnswerKind::Receipt, Event::Receipt(receipt));
    }
}
