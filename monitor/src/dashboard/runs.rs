//! Past runs.

pub mod catalog;
pub mod replay;
