//! What every program of the family embeds: its [`report`]s and [`metrics`], its [`logs`], the
//! [`credentials`] and [`http`] surface that operators reach it by, the [`journal`] of what users
//! were told, the [`summary`] of a run, and what a [`program`] says of itself.
//!
//! It knows the wire (`hongbao.report.v1`) and nothing of the dashboard that merges the reports.

#![forbid(unsafe_code)]

pub mod clock;
pub mod credentials;
pub mod disk;
pub mod http;
pub mod journal;
mod labels;
pub mod lock;
pub mod logs;
pub mod metrics;
pub mod percent;
pub mod process;
pub mod program;
pub mod report;
pub mod sse;
pub mod summary;
pub mod table;
