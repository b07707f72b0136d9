//! The rooms of one room shard, and the bounds that they share. Plain functions over values, driven by
//! tests without a runtime.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{RoomId, UserId};
use rustc_hash::FxHashMap;

use crate::clock::UnixMs;
use crate::limits;
use crate::services::rooms::room::Room;

/// What all room shards of a node share: how many rooms each user is in, and the sums for metrics.
#[derive(Debug, Default)]
pub struct RoomsBoard {
    /// Held for one look-up, by tasks of one thread.
    places: Mutex<FxHashMap<UserId, u8>>,
    pub rooms: AtomicU64,
    pub members: AtomicU64,
}

impl RoomsBoard {
    /// `false`: the user is in as many rooms as one may be.
    #[must_use]
    fn take(&self, user: UserId) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = places.entry(user).or_insert(0);
        let is_free = *taken < limits::USER_ROOMS_MAX;
        *taken += u8::from(is_free);
        self.members.fetch_add(u64::from(is_free), Ordering::Relaxed);
        is_free
    }

    fn give_back(&self, user: UserId) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&user) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&user);
            }
        }
        self.members.fetch_sub(1, Ordering::Relaxed);
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

/// See the module.
#[derive(Debug)]
pub struct RoomShard {
    /// Hashed with random keys: users choose these ids, and could choose such as collide.
    pub(super) rooms: HashMap<RoomId, Room>,
    pub(super) memberships: usize,
    /// Of all histories.
    pub(super) history_bytes: usize,
    board: Arc<RoomsBoard>,
    bounds: Bounds,
}

impl RoomShard {
    pub fn new(board: Arc<RoomsBoard>, bounds: Bounds) -> Self {
        Self { rooms: HashMap::new(), memberships: 0, history_bytes: 0, board, bounds }
    }

    pub fn members(&self, id: RoomId) -> &[UserId] {
        self.rooms.get(&id).map_or(&[], |room| &room.members)
    }

    /// Makes the user a member, who may be one already; an unknown room is made, with a `fresh`
    /// epoch.
    pub fn join(
        &mut self,
        user: UserId,
        id: RoomId,
        fresh: impl FnOnce() -> NonZeroU64,
    ) -> Result<v1::RoomState, ErrorCode> {
        let known = self.rooms.get(&id);
        if !known.is_some_and(|room| room.has(user)) {
            if known.map_or(self.rooms.len() >= self.bounds.rooms, |room| room.members.len() >= self.bounds.members)
                || self.memberships >= self.bounds.memberships
                || !self.board.take(user)
            {
                return Err(ErrorCode::RoomFull);
            }
            self.memberships += 1;
            self.board.rooms.fetch_add(u64::from(known.is_none()), Ordering::Relaxed);
            self.rooms.entry(id).or_insert_with(|| Room::new(fresh())).join(user);
        }
        self.look(user, id)
    }

    /// How the room is after the user has left it. A room of nobody is forgotten.
    pub fn leave(&mut self, user: UserId, id: RoomId) -> Result<v1::RoomState, ErrorCode> {
        let room = self.rooms.get_mut(&id).ok_or(ErrorCode::NoSuchRoom)?;
        if !room.leave(user) {
            return Err(ErrorCode::NoSuchRoom);
        }
        self.board.give_back(user);
        self.memberships -= 1;
        let state = room.state(id);
        if state.members == 0 {
            self.history_bytes -= room.history_bytes;
            self.rooms.remove(&id);
            self.board.rooms.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(state)
    }

    pub fn look(&self, user: UserId, id: RoomId) -> Result<v1::RoomState, ErrorCode> {
        self.rooms.get(&id).filter(|room| room.has(user)).map(|room| room.state(id)).ok_or(ErrorCode::NoSuchRoom)
    }

    /// A message of a member, with its offset. Where the shard's histories would take too much, this
    /// room's is cut short.
    pub fn append(
        &mut self,
        from: UserId,
        id: RoomId,
        at: UnixMs,
        text: Box<str>,
    ) -> Result<v1::ChatMessage, ErrorCode> {
        let room = self.rooms.get_mut(&id).filter(|room| room.has(from)).ok_or(ErrorCode::NoSuchRoom)?;
        let others = self.history_bytes - room.history_bytes;
        let mut message =
            v1::ChatMessage { from_user_id: from.get(), room_id: id.get(), offset: 0, at_ms: at, text: text.into() };
        room.append(&mut message);
        while others + room.history_bytes > self.bounds.history_bytes && room.forget_oldest() {}
        self.history_bytes = others + room.history_bytes;
        Ok(message)
    }
}
