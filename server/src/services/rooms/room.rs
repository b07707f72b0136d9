//! One room: its members, and the last of what was said. A value without clock, queue or lock.

use std::collections::VecDeque;
use std::num::NonZeroU64;

use hongbao_proto::UserId;
use rustc_hash::FxHashMap;

use crate::clock::UnixMs;
use crate::limits::{HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX, HISTORY_OVERHEAD_BYTES};
use crate::set::room_messages::Seen;

#[derive(Debug)]
pub struct Room {
    epoch: NonZeroU64,
    members: Vec<UserId>,
    /// Where each is in `members`.
    places: FxHashMap<UserId, u32>,
    /// Of the newest message.
    offset: u64,
    history: VecDeque<Kept>,
    history_bytes: usize,
}

/// A message in the history. Its offset follows from its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub from: UserId,
    /// When, wall clock.
    pub at: UnixMs,
    pub text: Box<str>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.text.len() + HISTORY_OVERHEAD_BYTES
    }
}

/// What somebody who comes back has missed.
#[derive(Debug)]
pub struct Missed<'a> {
    room: &'a Room,
    /// Position in the history of the first message.
    from: usize,
    /// Whether this is all that came after what one had seen.
    pub recovered: bool,
}

impl<'a> Missed<'a> {
    /// With their offsets, oldest first.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = (u64, &'a Kept)> + use<'a> {
        let first = self.room.first_kept();
        let skipped = self.from;
        self.room.history.iter().enumerate().skip(skipped).map(move |(index, kept)| (first + index as u64, kept))
    }

    /// Their bytes as counted against the bounds: what they take on the wire at most.
    pub fn bytes(&self) -> usize {
        self.room.history.range(self.from..).map(Kept::bytes).sum()
    }
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

    /// Tells its offsets from those of an earlier room of this id.
    pub fn epoch(&self) -> NonZeroU64 {
        self.epoch
    }

    /// Of the newest message; 0: none yet.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Everybody in it. Whoever leaves is replaced by the last; whoever joins comes last.
    pub fn members(&self) -> &[UserId] {
        &self.members
    }

    /// Its history, as counted against the bounds.
    pub fn history_bytes(&self) -> usize {
        self.history_bytes
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

    /// Appends to the history, which forgets its oldest beyond its bounds; returns the new offset.
    pub fn say(&mut self, message: Kept) -> u64 {
        self.offset += 1;
        self.history_bytes += message.bytes();
        self.history.push_back(message);
        while self.history.len() > HISTORY_MESSAGES_MAX || self.history_bytes > HISTORY_BYTES_MAX {
            self.forget_oldest();
        }
        self.offset
    }

    /// Forgets the oldest message that is kept; `false`: none is.
    pub fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.history.pop_front() else { return false };
        self.history_bytes -= oldest.bytes();
        true
    }

    /// What is kept of what came after `seen`. After another epoch, or an offset that this one has
    /// not reached, that is everything.
    pub fn missed(&self, seen: Option<Seen>) -> Missed<'_> {
        let Some(seen) = seen else { return Missed { room: self, from: self.history.len(), recovered: false } };
        if seen.epoch != self.epoch.get() || seen.offset > self.offset {
            return Missed { room: self, from: 0, recovered: false };
        }
        let next = seen.offset + 1;
        let first = self.first_kept();
        // The history is short.
        let from = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        Missed { room: self, from, recovered: next >= first }
    }

    /// The offset of the oldest message kept, or of the next if none is.
    fn first_kept(&self) -> u64 {
        self.offset + 1 - self.history.len() as u64
    }
}
