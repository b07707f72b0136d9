//! Bytes and addresses: what carries frames between a peer and a SET, and knows neither.

pub mod descriptors;
pub mod listener;
pub mod stream;
pub mod wire;
