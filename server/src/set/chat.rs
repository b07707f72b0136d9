//! Messages from user to user, and the way to the rooms' desks and back.

use hongbao_proto::v1;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::{RequestId, UserId};

use crate::clock::Now;
use crate::ledger::Posting;
use crate::limits;
use crate::set::Set;
use crate::set::deliver::{Count, Delivered, Delivery};
use crate::set::directory::ConnectionKey;
use crate::set::message::{Control, Message};
use crate::set::room_messages::{
    self, Chat, QueuedRoomRequest, Recipient, Reply, RoomAction, RoomReplyPermit, RoomRequest,
};
use crate::set::tally::Answer;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(super) fn chat(&mut self, key: ConnectionKey, request: RequestId, Chat { to, text }: Chat, now: &Now) {
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
        let Some(permit) = self.permit(key, request) else { return self.overloaded(key, request.get()) };
        let count = Count::new(move |delivered| permit.answer(Reply::Receipt { delivered, offset: 0 }));
        let frame = room_messages::message_frame(from, None, 0, now.wall, text);
        let delivery = Control::Deliver(Delivery::new([address.key], frame, count));
        if let Err(refused) = self.shared.sets[address.set as usize].inbox.try_send(Message::Control(delivery)) {
            // No room there: it counts as dropped, and the sender hears so.
            drop(refused);
        }
    }

    /// Asks the desk that looks after the room.
    pub(super) fn send_room_request(&mut self, key: ConnectionKey, request: RequestId, wanted: RoomRequest, now: &Now) {
        let Some(user) = self.sessions[key.slot as usize].user else { return };
        match self.permit(key, request) {
            Some(permit) => self.shared.room_shards.ask(QueuedRoomRequest { user, wanted, at: now.wall, permit }),
            None => self.overloaded(key, request.get()),
        }
    }

    /// A reserved way back, if another request of this kind may be under way. From here on the
    /// answer is certain to come, and owed.
    fn permit(&mut self, key: ConnectionKey, request: RequestId) -> Option<RoomReplyPermit> {
        if self.chats >= limits::CHATS_UNDER_WAY_MAX {
            return None;
        }
        let permit = self.reserve()?;
        self.chats += 1;
        self.owed += 1;
        Some(RoomReplyPermit::new(permit, key, request))
    }

    /// What a way back has brought.
    pub(super) fn chat_reply(&mut self, key: ConnectionKey, request: RequestId, reply: Reply) {
        match reply {
            Reply::Room(state) => self.send_state(key, request, state),
            reply => self.answer_chat(key, request, reply),
        }
    }

    /// Answers what was under way.
    pub(super) fn answer_chat(&mut self, key: ConnectionKey, request: RequestId, reply: Reply) {
        self.owed -= 1;
        self.chats -= 1;
        match reply {
            Reply::Receipt { delivered, offset } => self.receipt(key, request, delivered, offset),
            Reply::Room(state) => {
                self.answer(key, request.get(), Answer::Room, Event::RoomState(state.state));
            }
            Reply::Enclosed(new) => self.post(key, request, Posting::Send(new)),
            Reply::Refused(code) => self.error(key, request.get(), code),
            Reply::Overloaded => self.overloaded(key, request.get()),
        }
    }

    /// The one place where a message's fate is counted and told.
    fn receipt(&mut self, key: ConnectionKey, request: RequestId, became: Delivered, offset: u64) {
        let Delivered { delivered, offline, dropped } = became;
        self.tally.chat_delivered.add(delivered.into());
        self.tally.chat_offline.add(offline.into());
        self.tally.chat_dropped.add(dropped.into());
        let receipt = v1::Receipt { delivered, offline, dropped, offset };
        self.answer(key, request.get(), Answer::Receipt, Event::Receipt(receipt));
    }
}
