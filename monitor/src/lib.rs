//! Reporting and the dashboard that merges the reports.
//!
//! The reporting half ([`report`], [`metrics`], [`http`], [`credentials`], [`journal`], [`logs`]) is embedded in every server and fleet
//! machine, and so is what a program says of itself: its [`build`], its [`manual`], and its state towards a [`service`] manager. The dashboard
//! half is what `hongbao-monitor` runs. Both speak `hongbao.report.v1`.

#![forbid(unsafe_code)]

pub mod build;
pub mod credentials;
pub mod dashboard;
pub mod disk;
pub mod http;
pub mod journal;
pub mod logs;
pub mod manual;
pub mod metrics;
pub mod process;
pub mod report;
pub mod service;
pub mod sse;
pub mod top;
