//! The rooms of one room shard, and the bounds that they share. Plain functions over values, driven by
//! tests without a runtime.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};

use hongbao_proto::v1::ErrorCode;
use hongbao_proto::{RoomId, UserId};
use rustc_hash::FxHashMap;

use crate::limits;
use crate::services::rooms::room::{Kept, Missed, Room};
use crate::set::room_messages::Seen;

/// How many rooms each user is in: the one thing that all room shards share. They run on one thread and
/// hold the lock for one look-up.
#[derive(Debug, Default)]
pub struct Places(Mutex<FxHashMap<UserId, u8>>);

impl Places {
    /// `false`: the user is in as many rooms as one may be.
    #[must_use]
    fn take(&self, user: UserId) -> bool {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(user).or_insert(0);
        let is_free = *taken < limits::USER_ROOMS_MAX;
        *taken += u8::from(is_free);
        is_free
    }

    fn give_back(&self, user: UserId) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&user) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&user);
            }
        }
    }
}

/// The bounds of a room shard; smaller in tests.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub members: usize,
    pub rooms: usize,
    pub memberships: usize,
    pub history_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            members: limits::ROOM_MEMBERS_MAX,
            rooms: limits::ROOM_SHARD_ROOMS_MAX,
            memberships: limits::ROOM_SHARD_MEMBERSHIPS_MAX,
            history_bytes: limits::ROOM_SHARD_HISTORY_BYTES_MAX,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outline {
    /// See [`Room::epoch`].
    pub epoch: u64,
    /// See [`Room::offset`].
    pub offset: u64,
    pub members: u32,
}

impl From<&Room> for Outline {
    fn from(room: &Room) -> Self {
        let members = u32::try_from(room.members().len()).unwrap_or(u32::MAX);
        Self { epoch: room.epoch().get(), offset: room.offset(), members }
    }
}

/// See the module.
#[derive(Debug)]
pub struct RoomShard {
    /// Hashed with random keys: users choose these ids, and could choose such as collide.
    rooms: HashMap<RoomId, Room>,
    memberships: usize,
    history_bytes: usize,
    places: Arc<Places>,
    bounds: Bounds,
}

impl RoomShard {
    pub fn new(places: Arc<Places>, bounds: Bounds) -> Self {
        Self { rooms: HashMap::new(), memberships: 0, history_bytes: 0, places, bounds }
    }

    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    pub fn memberships(&self) -> usize {
        self.memberships
    }

    /// Bytes of all histories.
    pub fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    pub fn members(&self, id: RoomId) -> &[UserId] {
        self.rooms.get(&id).map_or(&[], Room::members)
    }

    /// Makes the user a member, who may be one already; an unknown room is made, with a `fresh`
    /// epoch.
    pub fn join(&mut self, user: UserId, id: RoomId, fresh: impl FnOnce() -> NonZeroU64) -> Result<Outline, ErrorCode> {
        let (is_member, members) = match self.rooms.get(&id) {
            Some(room) if room.has(user) => (true, 0),
            Some(room) => (false, room.members().len()),
            None if self.rooms.len() >= self.bounds.rooms => return Err(ErrorCode::RoomFull),
            None => (false, 0),
        };
        if !is_member {
            if members >= self.bounds.members || self.memberships >= self.bounds.memberships || !self.places.take(user)
            {
                return Err(ErrorCode::RoomFull);
            }
            self.memberships += 1;
            self.rooms.entry(id).or_insert_with(|| Room::new(fresh())).join(user);
        }
        self.look(user, id)
    }

    /// How the room is after the user has left it. A room of nobody is forgotten.
    pub fn leave(&mut self, user: UserId, id: RoomId) -> Result<Outline, ErrorCode> {
        let room = self.rooms.get_mut(&id).ok_or(ErrorCode::NoSuchRoom)?;
        if !room.leave(user) {
            return Err(ErrorCode::NoSuchRoom);
        }
        self.places.give_back(user);
        self.memberships -= 1;
        let outline = Outline::from(&*room);
        if outline.members == 0 {
            self.history_bytes -= room.history_bytes();
            self.rooms.remove(&id);
        }
        Ok(outline)
    }

    pub fn look(&self, user: UserId, id: RoomId) -> Result<Outline, ErrorCode> {
        self.rooms.get(&id).filter(|room| room.has(user)).map(Outline::from).ok_or(ErrorCode::NoSuchRoom)
    }

    /// What is kept of what came after `seen`; `None`: there is no such room.
    pub fn missed(&self, id: RoomId, seen: Option<Seen>) -> Option<Missed<'_>> {
        Some(self.rooms.get(&id)?.missed(seen))
    }

    /// A member says something; returns its offset. Where the shard's histories would take too much,
    /// this room's is cut short.
    pub fn say(&mut self, id: RoomId, message: Kept) -> Result<u64, ErrorCode> {
        let room = self.rooms.get_mut(&id).filter(|room| room.has(message.from)).ok_or(ErrorCode::NoSuchRoom)?;
        let others = self.history_bytes - room.history_bytes();
        let offset = room.say(message);
        while others + room.history_bytes() > self.bounds.history_bytes && room.forget_oldest() {}
        self.history_bytes = others + room.history_bytes();
        Ok(offset)
    }
}
