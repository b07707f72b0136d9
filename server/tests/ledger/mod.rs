//! The ledger, from outside: what it answers, what its writer promises, what the audit finds, and
//! what survives faults.

mod archive;
mod audit;
mod decided;
mod faults;
mod histories;
mod posting;
mod stopping;
pub mod support;
mod writer;
