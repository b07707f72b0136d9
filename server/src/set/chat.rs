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
    pub(super) fn chat(&mut self, seat: ConnectionKey, request: RequestId, Chat { to, text }: Chat, now: &Now) {
        match to {
            Recipient::User(to) => self.tell_user(seat, request, to, &text, now),
            Recipient::Room(room) => {
                self.visit_room(seat, request, RoomRequest { room, wish: RoomAction::Say(text) }, now)
            }
        }
    }

    /// Has the receiver's SET write the message; its report comes back through our own queue.
    fn tell_user(&mut self, seat: ConnectionKey, request: RequestId, to: UserId, text: &str, now: &Now) {
        let Some(from) = self.sessions[seat.slot as usize].user else { return };
        let Some(address) = self.shared.directory.find(to) else {
            let delivered = Delivered { offline: 1, ..Delivered::default() };
            return self.receipt(seat, request, delivered, 0);
        };
        let Some(way_back) = self.way_back(seat, request) else { return self.overloaded(seat, request.get()) };
        let count = Count::new(move |delivered| way_back.answer(Reply::Receipt { delivered, offset: 0 }));
        let frame = room_messages::message_frame(from, None, 0, now.wall, text);
        let delivery = Control::Deliver(Delivery::new([address.seat], frame, count));
        if let Err(refused) = self.shared.sets[address.set as usize].inbox.try_send(Message::Control(delivery)) {
            // No room there: it counts as dropped, and the sender hears so.
            drop(refused);
        }
    }

    /// Asks the desk that looks after the room.
    pub(super) fn visit_room(&mut self, seat: ConnectionKey, request: RequestId, visit: RoomRequest, now: &Now) {
        let Some(user) = self.sessions[seat.slot as usize].user else { return };
        match self.way_back(seat, request) {
            Some(way_back) => self.shared.desks.ask(QueuedRoomRequest { user, visit, at: now.wall, way_back }),
            None => self.overloaded(seat, request.get()),
        }
    }

    /// A reserved way back, if another request of this kind may be under way. From here on the
    /// answer is certain to come, and owed.
    fn way_back(&mut self, seat: ConnectionKey, request: RequestId) -> Option<RoomReplyPermit> {
        if self.chats >= limits::CHATS_UNDER_WAY_MAX {
            return None;
        }
        let permit = self.reserve()?;
        self.chats += 1;
        self.owed += 1;
        Some(RoomReplyPermit::new(permit, seat, request))
    }

    /// What a way back has brought.
    pub(super) fn chat_reply(&mut self, seat: ConnectionKey, request: RequestId, reply: Reply) {
        match reply {
            Reply::Room(standing) => self.tell_state(seat, request, standing),
            reply => self.settle_chat(seat, request, reply),
        }
    }

    /// Answers what was under way.
    pub(super) fn settle_chat(&mut self, seat: ConnectionKey, request: RequestId, reply: Reply) {
        self.owed -= 1;
        self.chats -= 1;
        match reply {
            Reply::Receipt { delivered, offset } => self.receipt(seat, request, delivered, offset),
            Reply::Room(standing) => {
                self.answer(seat, request.get(), Answer::Room, Event::RoomState(standing.state));
            }
            Reply::Enclosed(new) => self.post(seat, request, Posting::Send(new)),
            Reply::Refused(code) => self.error(seat, request.get(), code),
            Reply::Overloaded => self.overloaded(seat, request.get()),
        }
    }

    /// The one place where a message's fate is counted and told.
    fn receipt(&mut self, seat: ConnectionKey, request: RequestId, became: Delivered, offset: u64) {
        let Delivered { delivered, offline, dropped } = became;
        self.tally.chat_delivered.add(delivered.into());
        self.tally.chat_offline.add(offline.into());
        self.tally.chat_dropped.add(dropped.into());
        let receipt = v1::Receipt { delivered, offline, dropped, offset };
        self.answer(seat, request.get(), Answer::Receipt, Event::Receipt(receipt));
    }
}
