//! What a process measured, named once for every outlet.

use hdrhistogram::Histogram;
use hongbao_proto::report_v1::Sets;

/// The name of a measured value. Plain data: names are compared as text, never by position or
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Snake case, with its unit as suffix where it has one, without prefix or `_total`:
    /// `requests`, `paid_fen`.
    pub name: &'static str,
    /// One low-cardinality label, `("reason", "idle")`; never a connection, a user or a request.
    pub label: Option<(&'static str, &'static str)>,
    /// One sentence for people; the HELP line of the Prometheus metric.
    pub help: &'static str,
}

impl Key {
    /// A key without a label.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, label: None, help }
    }

    /// A key that is one of a family told apart by a label.
    pub const fn labelled(name: &'static str, label: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, label: Some((label, value)), help }
    }

    /// The name on the wire and in recordings: `ended` with `reason="idle"` is `ended_idle`.
    pub fn column(&self) -> String {
        match self.label {
            Some((_, value)) => format!("{}_{value}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// Everything that a process reports for one second.
#[derive(Debug, Default)]
pub struct Sample {
    /// Totals since the process started; they never fall.
    pub counters: Vec<(Key, u64)>,
    /// Values as they are now.
    pub gauges: Vec<(Key, i64)>,
    /// What this second alone added; microseconds.
    pub histograms: Vec<(Key, Histogram<u64>)>,
    /// Of a server: each of its SETs as it is now.
    pub sets: Option<Sets>,
}
