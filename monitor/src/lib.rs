//! The dashboard: merges the reports of servers and machines by second, keeps the books of both
//! sides, records the run.
//!
//! Reporters' connections ([`ingest`]), the [`sampler`] of the host and HTTP handlers ([`http`])
//! hold no state; they send to the one owner ([`owner`]), which applies the pure [`run`], writes
//! the [`recording`] and shows the run on the [`terminal`]. What a recording came to is told by the
//! [`report`], and past [`runs`] are read back from their recordings.

#![forbid(unsafe_code)]

pub mod access;
pub mod app;
pub mod config;
pub mod guests;
pub mod heartbeat;
pub mod http;
pub mod ingest;
pub mod limits;
pub mod owner;
pub mod page;
pub mod recording;
pub mod report;
pub mod run;
pub mod runs;
pub mod sampler;
pub mod terminal;
pub mod words;
