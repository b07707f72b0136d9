//! Who may do what: operators' sessions, how often, and whom the monitor believes.

pub mod allowance;
pub mod operator;
pub mod trust;
