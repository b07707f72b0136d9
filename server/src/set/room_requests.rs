//! The queues from the SETs to those who look after rooms. Rooms are kept by a service that knows
//! SETs; SETs know of it only these.

use hongbao_proto::{RoomId, UserId};
use tokio::sync::mpsc;

use crate::clock::UnixMs;
use crate::limits;
use crate::set::message::ReplyPermit;
use crate::set::room_messages::RoomRequest;

/// A user's request on its way to the room's shard.
#[derive(Debug)]
pub struct QueuedRoomRequest {
    pub user: UserId,
    pub wanted: RoomRequest,
    /// When the SET read it.
    pub at: UnixMs,
    pub permit: ReplyPermit,
}

/// The room shards' queues. A room is always looked after by the same shard.
#[derive(Debug)]
pub struct RoomShards(Box<[mpsc::Sender<QueuedRoomRequest>]>);

impl RoomShards {
    /// `count` queues. With none, every request is answered `Overloaded`.
    pub fn open(count: usize) -> (Self, Vec<mpsc::Receiver<QueuedRoomRequest>>) {
        let (senders, receivers): (Vec<_>, _) = (0..count).map(|_| mpsc::channel(limits::ROOM_SHARD_QUEUE_MAX)).unzip();
        (Self(senders.into()), receivers)
    }

    /// Hands a request to its room's shard. Where that has no room for it, its permit answers
    /// `Overloaded`.
    pub fn send(&self, request: QueuedRoomRequest) {
        if let Some(shard) = self.0.get(room_shard_of(request.wanted.room, self.0.len())) {
            drop(shard.try_send(request));
        }
    }
}

/// Which of `shards` room shards looks after this room. Multiplicative hashing spreads neighbours.
pub fn room_shard_of(room: RoomId, shards: usize) -> usize {
    let spread = (room.get().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u128 * shards as u128;
    usize::try_from(spread >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_rooms_are_spread_over_the_shards() {
        let mut rooms = [0; 4];
        for room in 1..=1_000 {
            rooms[room_shard_of(RoomId::new(room).unwrap(), 4)] += 1;
        }
        assert!(rooms.iter().all(|rooms| (200..300).contains(rooms)), "{rooms:?}");
    }
}
