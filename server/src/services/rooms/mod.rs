//! Chat rooms: who is in them, what was said last, and who must be told.
//!
//! Rooms are spread over a few room shards by their id; each is one task of the main thread and owns
//! its rooms. A SET hands it what a user wants
//! ([`QueuedRoomRequest`](crate::set::room_requests::QueuedRoomRequest)), and it hands the users' SETs what to
//! write ([`Delivery`](crate::set::delivery::Delivery)); the answer goes the reserved way back.
//! [`room`] and [`room_shard`] are plain values under test by themselves, [`service`] is the task around
//! them.
//!
//! Membership is the user's and outlives its connections; it ends when the user leaves. Rooms live
//! in memory only: after a restart there are none, and whoever joins again is told another epoch
//! and `recovered: false`.

pub mod room;
pub mod room_shard;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::services::rooms::room_shard::{Bounds, Places};
pub use crate::services::rooms::service::{Epochs, Service, random_epochs};
use crate::set::Shared;
use crate::set::room_requests::QueuedRoomRequest;
use crate::set::tally::Tally;

/// What the room shards count.
#[derive(Debug, Default)]
pub struct RoomsBoard {
    shards: Box<[RoomShardTally]>,
}

#[derive(Debug, Default)]
struct RoomShardTally {
    rooms: Tally,
    members: Tally,
}

impl RoomsBoard {
    pub fn rooms(&self) -> u64 {
        self.shards.iter().map(|shard| shard.rooms.get()).sum()
    }

    pub fn members(&self) -> u64 {
        self.shards.iter().map(|shard| shard.members.get()).sum()
    }
}

/// Starts a room shard for each queue. They hold `shared`, which holds their queues: to be aborted once
/// the SETs have stopped.
pub fn spawn(
    shared: &Arc<Shared>,
    queues: Vec<mpsc::Receiver<QueuedRoomRequest>>,
    tasks: &mut JoinSet<()>,
) -> Arc<RoomsBoard> {
    let (services, board) = open(shared, queues.len(), Bounds::default(), random_epochs);
    for (service, queue) in services.into_iter().zip(queues) {
        tasks.spawn(service.run(queue));
    }
    board
}

/// So many room shards of one node.
pub fn open(
    shared: &Arc<Shared>,
    shards: usize,
    bounds: Bounds,
    mut epochs: impl FnMut() -> Epochs,
) -> (Vec<Service>, Arc<RoomsBoard>) {
    let places = Arc::<Places>::default();
    let board = Arc::new(RoomsBoard { shards: (0..shards).map(|_| RoomShardTally::default()).collect() });
    let service =
        |index| Service::new(Arc::clone(shared), Arc::clone(&places), bounds, epochs(), Arc::clone(&board), index);
    ((0..shards).map(service).collect(), board)
}
