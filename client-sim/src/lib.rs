//! The simulated fleet. [`machine`] is one client host with its users; [`fleet`] starts several,
//! gives them one schedule and judges what they saw. What they share lies below: the schedule, the
//! clock, the shapes of their conversation.

#![forbid(unsafe_code)]

pub mod arguments;
pub mod backoff;
pub mod check;
pub mod clock;
pub mod descriptors;
pub mod fleet;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod ntp_responder;
pub mod results;
pub mod schedule;
pub mod source;
pub mod storm;
pub mod sum;
