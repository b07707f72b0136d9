//! One room: its members, and the last of what was said. A value without clock, queue or lock.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use hongbao_proto::{RoomId, UserId, v1};
use rustc_hash::FxHashMap;

use crate::limits::{HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX, HISTORY_OVERHEAD_BYTES};
use crate::set::room_messages::Seen;

#[derive(Debug)]
pub struct Room {
    /// Tells its offsets from those of an earlier room of this id.
    epoch: NonZeroU64,
    /// Whoever leaves is replaced by the last; whoever joins comes last.
    pub(super) members: Vec<UserId>,
    /// Where each is in `members`.
    places: FxHashMap<UserId, u32>,
    /// Of the newest message; 0: none yet.
    offset: u64,
    /// The newest messages, oldest first, without gaps.
    history: VecDeque<v1::ChatMessage>,
    /// As counted against the bounds.
    pub(super) history_bytes: usize,
}

/// What a message counts against the bounds: what it takes on the wire at most.
pub(super) fn bytes_of(message: &v1::ChatMessage) -> usize {
    message.text.len() + HISTORY_OVERHEAD_BYTES
}

impl Room {
    /// A room of nobody, where nothing has been said.
    pub fn new(epoch: NonZeroU64) -> Self {
        Self {
            epoch,
            members: Vec::new(),
            places: FxHashMap::default(),
            offset: 0,
            history: VecDeque::new(),
            history_bytes: 0,
        }
    }

    /// As its members see it, without any messages.
    pub(super) fn state(&self, id: RoomId) -> v1::RoomState {
        v1::RoomState {
            room_id: id.get(),
            epoch: self.epoch.get(),
            offset: self.offset,
            members: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
            recovered: false,
            missed: Vec::new(),
        }
    }

    pub fn has(&self, user: UserId) -> bool {
        self.places.contains_key(&user)
    }

    /// Takes the user in, who is not in it yet.
    pub fn join(&mut self, user: UserId) {
        // Bounded by the members that a room may have.
        let place = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let before = self.places.insert(user, place);
        debug_assert!(before.is_none(), "joined twice");
        self.members.push(user);
    }

    pub fn leave(&mut self, user: UserId) -> bool {
        let Some(place) = self.places.remove(&user) else { return false };
        self.members.swap_remove(place as usize);
        if let Some(moved) = self.members.get(place as usize) {
            self.places.insert(*moved, place);
        }
        true
    }

    /// Gives the message the next offset and appends it to the history, which forgets its oldest
    /// beyond its bounds.
    pub fn append(&mut self, message: &mut v1::ChatMessage) {
        self.offset += 1;
        message.offset = self.offset;
        self.history_bytes += bytes_of(message);
        self.history.push_back(message.clone());
        while self.history.len() > HISTORY_MESSAGES_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            self.forget_oldest();
        }
    }

    /// Forgets the oldest message that is kept; `false`: none is.
    pub fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.history.pop_front() else { return false };
        self.history_bytes -= bytes_of(&oldest);
        true
    }

    /// What is kept of what came after `seen`, oldest first, and whether that is all of it. After
    /// another epoch, or an offset that this one has not reached, that is everything.
    pub fn missed(&self, seen: Option<Seen>) -> (impl ExactSizeIterator<Item = &v1::ChatMessage>, bool) {
        // The offset of the oldest message kept, or of the next if none is.
        let first = self.offset + 1 - self.history.len() as u64;
        let (next, recovered) = match seen {
            None => (self.offset + 1, false),
            Some(Seen { epoch, offset }) if epoch != self.epoch.get() || offset > self.offset => (first, false),
            Some(Seen { offset, .. }) => (offset + 1, offset + 1 >= first),
        };
        // The history is short.
        let from = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        (self.history.range(from..), recovered)
    }
}
