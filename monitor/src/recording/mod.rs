//! A run on disk: written second by second, read back whole.

pub mod read;
pub mod replay;
pub mod write;
