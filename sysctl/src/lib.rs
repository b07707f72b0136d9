//! What a host carries: the limits of its kernel, its control group and its memory, held against what is wanted of it.
//!
//! A program that runs into a limit of its host fails late, at its fullest, with an error that names something else. So the
//! limits are read beforehand ([`facts`]), judged by a pure function ([`judge`]), and raised where that is possible ([`mend`]).
//!
//! This crate knows none of ours: what the judge needs of a program's own limits is handed to it as values ([`Wanted`]).

pub mod cores;
pub mod facts;
pub mod judge;
pub mod mend;
pub mod report;
pub mod tables;

pub use facts::HostFacts;
pub use judge::{Finding, Shards, Wanted, judge};
pub use mend::{Change, mend};
pub use report::Verdict;
pub use tables::Tables;
