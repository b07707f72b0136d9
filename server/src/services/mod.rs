//! What runs on the main thread beside the generator: rooms, offers of envelopes, expiry, and
//! runs of envelopes.

pub mod envelope_runs;
pub mod expiry;
pub mod offers;
pub mod rooms;
