//! Why a process, or its report, is not taken. The process is told, and its connection ends.

use crate::limits::{CONTROL_BYTES_MAX, NAME_BYTES_MAX, SOURCES_MAX};
use crate::run::histogram::HistogramError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("unknown role {0:?}; there are \"server\" and \"machine\"")]
    Role(String),
    #[error("{what} must be 1 to {max} of {allowed}")]
    Name { what: &'static str, max: usize, allowed: &'static str },
    /// A newer instance of the same role and name is connected.
    #[error("a newer instance of {0} is connected")]
    Older(String),
    #[error("an address has at most {CONTROL_BYTES_MAX} bytes")]
    Address,
    #[error("this monitor already knows {SOURCES_MAX} sources")]
    Full,
    #[error("{of} has {count} {what}; at most {max} are allowed")]
    TooMany { of: &'static str, count: usize, what: &'static str, max: usize },
    /// A value beyond what sums, or JSON, can hold.
    #[error("{0} is out of range")]
    Range(String),
    #[error("the lists of a server's SETs must be equally long")]
    Uneven,
    #[error("histogram {name}: {problem}")]
    Histogram { name: String, problem: HistogramError },
}

impl Rejection {
    /// At most as much of a peer's text as goes into a message.
    pub fn role(name: &str) -> Self {
        Self::Role(name.chars().take(NAME_BYTES_MAX).collect())
    }
}

pub fn at_most(of: &'static str, count: usize, what: &'static str, max: usize) -> Result<(), Rejection> {
    if count > max { Err(Rejection::TooMany { of, count, what, max }) } else { Ok(()) }
}

/// Checks a text of 1 to `max` bytes that `is_allowed`, which `allowed` says in words.
pub fn check_name(
    what: &'static str,
    text: &str,
    max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(u8) -> bool,
) -> Result<(), Rejection> {
    let good = !text.is_empty() && text.len() <= max && text.bytes().all(is_allowed);
    if good { Ok(()) } else { Err(Rejection::Name { what, max, allowed }) }
}
