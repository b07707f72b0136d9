//! What users say to each other, made so that whoever hears it can tell whether it is right: a
//! message names its sender and its request and carries a number that follows from both. To whom it
//! goes is a pure function of the request as well, so that no machine needs to know what the others
//! say.

use std::collections::VecDeque;

use hongbao_proto::v1::{self, Receipt};
use rustc_hash::FxHashMap;

use crate::backoff::scramble;
use crate::machine::labels::Violation;
use crate::results::ChatTotals;

/// Places of messages that one user skipped and may still hear.
const SKIPPED_MAX: usize = 64;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circle {
    /// Users of the fleet; their ids are 1 to this.
    pub total: u64,
    /// Rooms, with ids 1 to this; 0: users talk to each other alone.
    pub rooms: u64,
}

/// To whom a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    User(u64),
    Room(u64),
}

impl Circle {
    /// The room of the user with this id, where there are rooms.
    pub fn room_of(self, user: u64) -> Option<u64> {
        user.checked_rem(self.rooms).map(|room| room + 1)
    }

    /// To whom the message goes that user `from` sends with request `request`.
    pub fn to(self, from: u64, request: u64) -> To {
        if let Some(room) = self.room_of(from) {
            return To::Room(room);
        }
        // Anybody but the sender, where there is anybody else.
        let step = if self.total > 1 { 1 + scramble(request) % (self.total - 1) } else { 0 };
        To::User((from - 1 + step) % self.total + 1)
    }

    /// The message's words.
    pub fn text(from: u64, request: u64) -> String {
        format!("{from} {request} {:016x}", scramble(from ^ scramble(request)))
    }

    pub fn chat(self, from: u64, request: u64) -> v1::Chat {
        let text = Self::text(from, request);
        match self.to(from, request) {
            To::User(user_id) => v1::Chat { user_id, room_id: 0, text },
            To::Room(room_id) => v1::Chat { user_id: 0, room_id, text },
        }
    }

    /// Whether this message is one that its sender says to the user with id `to`.
    fn is_right(self, to: u64, message: &v1::ChatMessage) -> bool {
        let from = message.from_user_id;
        let mut words = message.text.split(' ');
        let (Some(_), Some(request), Some(_), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return false;
        };
        let Ok(request) = request.parse() else { return false };
        if !(1..=self.total).contains(&from) || message.text != Self::text(from, request) {
            return false;
        }
        match self.to(from, request) {
            To::User(user) => user == to && message.room_id == 0 && message.offset == 0,
            To::Room(room) => room == message.room_id && self.room_of(to) == Some(room) && message.offset > 0,
        }
    }
}

pub fn receipt_is_right(to: To, receipt: &Receipt) -> bool {
    let recipients = u64::from(receipt.delivered) + u64::from(receipt.offline) + u64::from(receipt.dropped);
    match to {
        To::User(_) => recipients == 1 && receipt.offset == 0,
        To::Room(_) => receipt.offset > 0,
    }
}

/// How far a user has followed its room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomPosition {
    /// Of the room's history; 0: not known yet.
    pub epoch: u64,
    pub offset: u64,
}

/// How far a user has followed its room, and what of that it did not hear.
#[derive(Debug, Default)]
struct RoomProgress {
    to: RoomPosition,
    /// Places of messages that were skipped: of others, or its own, whose receipt is still to come.
    /// The oldest give way.
    skipped: VecDeque<u64>,
}

impl RoomProgress {
    /// Goes on to message `offset`, of which the user now knows. Returns whether it did not before.
    fn advance(&mut self, offset: u64, missed: &mut u64) -> bool {
        if offset > self.to.offset {
            // Before the first answer to a Join one does not know where the room stands.
            if self.to.epoch != 0 {
                let gap = self.to.offset + 1..offset;
                *missed += gap.end - gap.start;
                self.skipped.extend(gap.rev().take(SKIPPED_MAX).collect::<Vec<_>>().into_iter().rev());
                let over = self.skipped.len().saturating_sub(SKIPPED_MAX);
                self.skipped.drain(..over);
            }
            self.to.offset = offset;
            return true;
        }
        match self.skipped.iter().position(|&skipped| skipped == offset) {
            Some(place) => {
                self.skipped.remove(place);
                *missed -= 1;
                true
            }
            None => false,
        }
    }
}

/// What users of a machine have heard. Users without a room take no room here.
#[derive(Debug)]
pub struct Chats {
    pub circle: Circle,
    followed: FxHashMap<u32, RoomProgress>,
    pub counts: ChatTotals,
}

impl Chats {
    /// Nothing was said yet.
    pub fn new(circle: Circle) -> Self {
        Self { circle, followed: FxHashMap::default(), counts: ChatTotals::default() }
    }

    /// How far `user` has followed its room.
    pub fn followed(&self, user: u32) -> RoomPosition {
        self.followed.get(&user).map(|following| following.to).unwrap_or_default()
    }

    /// From where on `user` is to be caught up: as far as it has followed its room without a gap.
    pub fn resume(&self, user: u32) -> RoomPosition {
        let Some(following) = self.followed.get(&user) else { return RoomPosition::default() };
        let before_gap = following.skipped.front().map_or(following.to.offset, |skipped| skipped - 1);
        RoomPosition { offset: before_gap, ..following.to }
    }

    /// `user`, whose id is `id`, was told a message.
    pub fn receive(&mut self, user: u32, id: u64, message: &v1::ChatMessage) -> Result<(), Violation> {
        if !self.circle.is_right(id, message) {
            return Err(Violation::ChatUntrue);
        }
        if message.room_id != 0
            && !self.followed.entry(user).or_default().advance(message.offset, &mut self.counts.missed)
        {
            return Err(Violation::ChatRepeated);
        }
        self.counts.received += 1;
        Ok(())
    }

    /// A message of `user` itself has this place in its room's history; it is not told its own
    /// messages.
    pub fn record_own(&mut self, user: u32, offset: u64) {
        let following = self.followed.entry(user).or_default();
        // One that was sent twice has two places; only one receipt came for both.
        following.advance(offset, &mut self.counts.missed);
    }

    /// `user`, whose id is `id`, was told the state of its room, which it had asked to join.
    pub fn joined(&mut self, user: u32, id: u64, state: &v1::RoomState) -> Result<(), Violation> {
        if self.circle.room_of(id) != Some(state.room_id) || state.epoch == 0 {
            return Err(Violation::ChatUntrue);
        }
        let before = self.followed(user);
        let same = before.epoch == state.epoch;
        for message in state.missed.iter().filter(|_| same) {
            if !self.circle.is_right(id, message) {
                return Err(Violation::ChatUntrue);
            }
            // Some of it may have been pushed before this answer, and one's own words are there,
            // too.
            let following = self.followed.entry(user).or_default();
            if following.advance(message.offset, &mut self.counts.missed) && message.from_user_id != id {
                self.counts.received += 1;
                self.counts.recovered += 1;
            }
        }
        let following = self.followed.entry(user).or_default();
        if same && !state.recovered && before.offset > 0 {
            self.counts.missed += state.offset.saturating_sub(following.to.offset);
        }
        if !same {
            following.skipped.clear();
        }
        let offset = if same { following.to.offset.max(state.offset) } else { state.offset };
        following.to = RoomPosition { epoch: state.epoch, offset };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMS: Circle = Circle { total: 10, rooms: 4 };

    fn message_of(circle: Circle, from: u64, request: u64, offset: u64) -> v1::ChatMessage {
        let v1::Chat { room_id, text, .. } = circle.chat(from, request);
        v1::ChatMessage { from_user_id: from, room_id, offset, at_ms: 0, text }
    }

    #[test]
    fn a_room_is_followed_without_repeats_and_gaps_are_counted() {
        let mut chats = Chats::new(ROOMS);
        // User 2 and user 6 are in room 3.
        let state = v1::RoomState { room_id: 3, epoch: 9, offset: 5, ..Default::default() };
        assert_eq!(chats.joined(0, 2, &state), Ok(()));
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 50, 6)), Ok(()));
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 50, 6)), Err(Violation::ChatRepeated));
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 51, 9)), Ok(()));
        assert_eq!(chats.counts, ChatTotals { received: 2, missed: 2, ..ChatTotals::default() });
        assert_eq!(chats.resume(0), RoomPosition { epoch: 9, offset: 6 });
        // Back again: one that was skipped, one that is known, a new one, its own, and one that was
        // pushed before this answer.
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 54, 12)), Ok(()));
        assert_eq!(chats.counts.missed, 4);
        let missed = [(6, 49, 8), (6, 51, 9), (6, 52, 10), (2, 53, 11), (6, 54, 12)];
        let missed = missed.map(|(from, request, offset)| message_of(ROOMS, from, request, offset)).to_vec();
        let back = v1::RoomState { offset: 12, recovered: true, missed, ..state };
        assert_eq!(chats.joined(0, 2, &back), Ok(()));
        assert_eq!(chats.counts, ChatTotals { received: 5, missed: 1, recovered: 2, ..ChatTotals::default() });
        let lost = v1::RoomState { offset: 20, recovered: false, missed: Vec::new(), ..back.clone() };
        assert_eq!((chats.joined(0, 2, &lost), chats.counts.missed), (Ok(()), 9));
        let anew = v1::RoomState { epoch: 10, offset: 1, ..lost };
        assert_eq!((chats.joined(0, 2, &anew), chats.followed(0)), (Ok(()), RoomPosition { epoch: 10, offset: 1 }));
        assert_eq!(chats.joined(0, 3, &back), Err(Violation::ChatUntrue), "not the room of user 3");
    }

    #[test]
    fn ones_own_messages_are_known_by_their_receipts_early_or_late() {
        let mut chats = Chats::new(ROOMS);
        let state = v1::RoomState { room_id: 3, epoch: 9, offset: 0, ..Default::default() };
        assert_eq!(chats.joined(0, 2, &state), Ok(()));
        chats.record_own(0, 1);
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 50, 2)), Ok(()));
        // The receipt of the third comes behind the fourth.
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 51, 4)), Ok(()));
        assert_eq!(chats.counts.missed, 1);
        chats.record_own(0, 3);
        assert_eq!(chats.counts, ChatTotals { received: 2, ..ChatTotals::default() });
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 51, 4)), Err(Violation::ChatRepeated));
        // A gap of any size takes a bounded room.
        assert_eq!(chats.receive(0, 2, &message_of(ROOMS, 6, 52, 1_000_000)), Ok(()));
        assert_eq!((chats.followed[&0].skipped.len(), chats.counts.missed), (SKIPPED_MAX, 999_995));
    }

    #[test]
    fn receipts_add_up() {
        let receipt = |delivered, offline, offset| Receipt { delivered, offline, dropped: 0, offset };
        assert!(receipt_is_right(To::User(1), &receipt(0, 1, 0)));
        assert!(!receipt_is_right(To::User(1), &receipt(1, 1, 0)));
        assert!(!receipt_is_right(To::User(1), &receipt(0, 0, 0)));
        assert!(receipt_is_right(To::Room(1), &receipt(7, 1, 3)) && !receipt_is_right(To::Room(1), &receipt(7, 1, 0)));
    }

    proptest! {
        #[test]
        fn exactly_those_whom_it_is_for_find_a_message_right(
            total in 1u64..50, rooms in 0u64..7, from in 0u64..50, request in any::<u32>(), other in 0u64..50,
        ) {
            let circle = Circle { total, rooms };
            let (from, other) = (from % total + 1, other % total + 1);
            let message = message_of(circle, from, request.into(), u64::from(rooms > 0));
            let meant = match circle.to(from, request.into()) {
                To::User(user) => {
                    prop_assert!((1..=total).contains(&user) && (user != from || total == 1));
                    user == other
                }
                To::Room(room) => circle.room_of(other) == Some(room),
            };
            prop_assert_eq!(circle.is_right(other, &message), meant);
            for wrong in [
                v1::ChatMessage { from_user_id: from + 1, ..message.clone() },
                v1::ChatMessage { room_id: message.room_id + 1, ..message.clone() },
                v1::ChatMessage { text: format!("{}0", message.text), ..message.clone() },
                v1::ChatMessage { text: String::new(), ..message },
            ] {
                prop_assert!(!circle.is_right(other, &wrong));
            }
        }
    }
}
