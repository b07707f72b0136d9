//! What a host carries: the limits of its kernel, its control group and its memory, held against
//! what is wanted of it.
//!
//! A program that runs into a limit of its host fails late, at its fullest, with an error that
//! names something else. So the limits are read beforehand ([`facts`]), judged by pure functions
//! ([`judge`]), and raised where that is possible ([`mend`]).
//!
//! The settings themselves are the files beside `src/`; [`files`] reads them, so that a finding can
//! name the line that mends it. This crate knows none of ours: what the judge needs of a program's
//! own limits is handed to it as values ([`Wanted`]).

pub mod cores;
pub mod facts;
pub mod files;
pub mod finding;
pub mod judge;
pub mod mend;
pub mod report;
mod sys;
pub mod tables;

pub use facts::HostFacts;
pub use judge::fleet::FleetWanted;
pub use judge::server::{Shards, Wanted};
pub use mend::Change;
pub use report::{Check, Verdict};
pub use sys::Clock;
pub use tables::Tables;
