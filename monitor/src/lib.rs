//! Reporting and the dashboard that merges the reports.
//!
//! The reporting half ([`report`], [`http`], [`credentials`], [`journal`]) is embedded in every server and fleet machine. The dashboard
//! half is what `hongbao-monitor` runs. Both speak `hongbao.report.v1`.

#![forbid(unsafe_code)]

pub mod credentials;
pub mod dashboard;
pub mod http;
pub mod journal;
pub mod logs;
pub mod process;
pub mod report;
pub mod sse;
pub mod top;
