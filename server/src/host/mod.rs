//! What this host carries: the limits of its kernel, its control group and its memory, held against the connections wanted.
//!
//! A server that runs into a limit of its host fails late, at its fullest, with an error that names something else. So the
//! limits are read beforehand ([`facts`]), judged by a pure function ([`judge`]), and raised where that is possible ([`mend`]).

pub mod facts;
pub mod judge;
pub mod mend;
pub mod report;

pub use facts::HostFacts;
pub use judge::{Finding, Shards, Wanted, judge};
pub use mend::{Change, mend};
pub use report::Verdict;

/// Where users connect unless configured otherwise.
pub const PORT: u16 = 7400;

/// Connections to check for unless told otherwise.
pub const CONNECTIONS: u64 = 1_000_000;
