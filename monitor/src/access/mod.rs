//! Who may do what: operators' sessions, how often, and whom the monitor believes.

pub mod operator;
pub mod rate_limit;
pub mod trust;
