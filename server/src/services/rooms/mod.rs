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
pub mod service;
#[cfg(test)]
mod tests;
