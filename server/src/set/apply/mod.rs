//! What each message does to its SET: a file for each kind. Everything here is called by
//! [`Set::apply`](super::Set::apply) or between two batches, and never waits.

mod chat;
mod control;
pub(super) mod deliveries;
mod ends;
mod grab;
mod login;
pub(super) mod lottery;
mod replies;
mod requests;
pub(super) mod sweeps;
