//! What a run came to: the one shape that the fleet writes to `summary.json`, and that the report,
//! the dashboard and `compare` read, with the rule by which a second of a phase is kept.
//!
//! A second is kept when both what was *sent* in it and the answers that *came* in it are within
//! the tolerance of its phase's QPS. Seconds of a storm are not judged: requests of users whom it
//! has cut come when these are back. Nor are seconds in which an operator's QPS held: they say
//! nothing about the plan. Both are counted and named.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::percent;

/// Where the scripts have the fleet put it, in a run's directory.
pub const SUMMARY_FILE: &str = "summary.json";

/// A count for each of some names.
pub type Counts = BTreeMap<String, u64>;

/// A run. `Parts` is what only its writer knows by type: storms, announcements, deals and totals.
/// Fields that are missing in a file are empty, so that summaries of older fleets can be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "Parts: Deserialize<'de> + Default"))]
pub struct Summary<Parts = BTreeMap<String, Value>> {
    /// Absent: nobody judged it.
    pub passed: Option<bool>,
    /// A line for each condition that does not hold.
    pub failures: Vec<String>,
    pub users: u64,
    pub machines: u64,
    pub connected: u64,
    pub connect_seconds: f64,
    pub tolerance: String,
    pub phases: Vec<Phase>,
    /// What an operator ordered meanwhile.
    pub changes: Vec<Change>,
    pub books: Books,
    pub memory: Memory,
    pub outcomes: Counts,
    pub errors: Counts,
    pub violations: Counts,
    pub reconnects: u64,
    pub unanswered: u64,
    pub clocks: BTreeMap<String, Clock>,
    #[serde(flatten)]
    pub parts: Parts,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phase {
    pub name: String,
    /// A warm-up is not.
    #[serde(default = "always")]
    pub judged: bool,
    pub from: u64,
    pub qps_target: u64,
    pub seconds: u64,
    pub tolerance: String,
    pub seconds_within_tolerance: u64,
    /// Not judged, and in none of the counts of seconds that are within something.
    pub storm_seconds: u64,
    /// Likewise, of those without a storm: an operator's QPS held.
    pub changed_seconds: u64,
    pub seconds_within_1_percent: u64,
    pub seconds_within_2_percent: u64,
    pub seconds_within_3_percent: u64,
    /// Of those judged, the farthest from its plan.
    pub worst_second: Option<Second>,
    pub worst_deviation_percent: f64,
    pub planned: u64,
    pub sent: u64,
    pub answered: u64,
    /// Answered requests that waited for a user whom a storm had cut. Their times are in the
    /// storm's figures, not here.
    pub held_by_storm: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    pub send_lag_p50_ms: f64,
    pub send_lag_p99_ms: f64,
    pub send_lag_p999_ms: f64,
    pub send_lag_max_ms: f64,
    pub server_cpu_us_per_request: Option<f64>,
    pub fleet_cpu_us_per_request: Option<f64>,
    pub per_second: Vec<Second>,
}

const fn always() -> bool {
    true
}

impl Phase {
    /// Seconds that the plan says something about: those that can be kept.
    pub fn seconds_judged(&self) -> u64 {
        self.seconds.saturating_sub(self.storm_seconds).saturating_sub(self.changed_seconds)
    }

    pub fn within(&self, tolerance: Tolerance) -> u64 {
        let allowed = tolerance.allowed(self.qps_target);
        self.judged_per_second().filter(|second| second.deviation(self.qps_target) <= allowed).count() as u64
    }

    /// Counts the seconds of `per_second` by the rule.
    pub fn judge(&mut self, tolerance: Tolerance) {
        let count = |of: fn(&Second) -> bool| self.per_second.iter().filter(|second| of(second)).count() as u64;
        (self.storm_seconds, self.changed_seconds) =
            (count(|second| second.storm), count(|second| second.changed && !second.storm));
        self.tolerance = tolerance.to_string();
        self.seconds_within_tolerance = self.within(tolerance);
        self.seconds_within_1_percent = self.within(Tolerance::percent(1));
        self.seconds_within_2_percent = self.within(Tolerance::percent(2));
        self.seconds_within_3_percent = self.within(Tolerance::percent(3));
        let target = self.qps_target;
        self.worst_second = self.judged_per_second().max_by_key(|second| second.deviation(target)).copied();
        self.worst_deviation_percent =
            self.worst_second.map_or(0.0, |worst| 100.0 * worst.deviation(target) as f64 / target as f64);
    }

    fn judged_per_second(&self) -> impl Iterator<Item = &Second> {
        self.per_second.iter().filter(|second| !second.storm && !second.changed)
    }
}

/// One second of a phase, over the whole fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Second {
    pub second: u64,
    pub planned: u64,
    pub sent: u64,
    pub answered: u64,
    /// Users were cut and not all back.
    pub storm: bool,
    /// An operator's QPS held in it.
    pub changed: bool,
}

impl Second {
    /// How far sent or answered, whichever is farther, is from `target`.
    fn deviation(&self, target: u64) -> u64 {
        self.sent.abs_diff(target).max(self.answered.abs_diff(target))
    }
}

/// A QPS that an operator ordered while the plan was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// Unix time.
    pub from: u64,
    /// Until the plan's next stretch, or another change.
    pub until: u64,
    pub qps: u32,
    /// Machines that took it; where they are not all, requests were sent twice or not at all
    /// meanwhile.
    pub machines: usize,
}

/// Both sides' books at the end, by the server's campaign and the machines' journals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Books {
    /// The rain of this run; absent without one.
    pub campaign: Option<u32>,
    /// Prizes that the server issued.
    pub issued: Option<u64>,
    /// Prizes that the server says were won.
    pub won: Option<u64>,
    /// Fen that the server says it paid.
    pub paid_fen: Option<u64>,
    /// Prizes that users were told of, of this campaign or, without one, of any.
    pub received: u64,
    pub received_fen: u64,
    pub journal_prizes: u64,
    pub journal_fen: u64,
    /// Of these, prizes of guests, by their journal alone; older fleets do not count them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_prizes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_fen: Option<u64>,
    /// Paid minus received; must be 0.
    pub residual_fen: Option<i128>,
}

/// Memory of idle, logged-in connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    pub server_rss_bytes_per_connection: Option<u64>,
    pub fleet_rss_bytes_per_user: Option<u64>,
}

/// A machine's clock against its NTP server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clock {
    /// Added to the local clock, microseconds.
    pub offset_us: i64,
    /// Bound on the error of the offset, microseconds.
    pub error_us: u64,
}

/// An accepted deviation, in thousandths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance(u64);

impl Tolerance {
    const WHOLE: u64 = 100_000;
    const DECIMALS: usize = 3;

    /// Of so many hundredths, below 100.
    pub const fn percent(hundredths: u64) -> Self {
        Self(hundredths * 1_000)
    }

    /// How far a count may be from `planned`: the part, rounded up, and 1 at least.
    pub fn allowed(self, planned: u64) -> u64 {
        planned.saturating_mul(self.0).div_ceil(Self::WHOLE).max(1)
    }
}

impl FromStr for Tolerance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a percentage below 100, as in 2% or 0.5%");
        let parts = percent::parse(text.trim().trim_end_matches('%'), Self::DECIMALS);
        parts.filter(|&parts| parts < Self::WHOLE).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent::write(f, self.0, Self::DECIMALS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tolerance_is_a_part_rounded_up_and_one_at_least() {
        let tolerance = |text: &str| text.parse::<Tolerance>().unwrap();
        assert_eq!((tolerance("2%").allowed(5_000), tolerance("2%").allowed(5_001)), (100, 101));
        assert_eq!((tolerance("0.5%").allowed(5_000), tolerance("0").allowed(5_000)), (25, 1));
        assert_eq!((tolerance("2%").to_string(), tolerance("0.125%").to_string()), ("2%".into(), "0.125%".into()));
        for wrong in ["", "%", "100%", "-1%", "2.x%", "0.1234%"] {
            assert!(wrong.parse::<Tolerance>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_of_storms_and_operators_are_excluded_and_counted() {
        let second = |sent, storm, changed| Second { sent, answered: 100, storm, changed, ..Second::default() };
        let per_second = vec![
            second(98, false, false),
            second(97, false, false),
            second(0, true, false),
            second(300, false, true),
            second(300, true, true),
        ];
        let mut phase = Phase { qps_target: 100, seconds: 5, per_second, ..Phase::default() };
        phase.judge("2%".parse().unwrap());
        assert_eq!((phase.storm_seconds, phase.changed_seconds, phase.seconds_judged()), (2, 1, 2));
        assert_eq!((phase.seconds_within_tolerance, phase.seconds_within_3_percent), (1, 2));
        assert_eq!(phase.worst_second.map(|worst| worst.sent), Some(97));
    }

    #[test]
    fn summaries_of_newer_and_of_older_fleets_can_be_read() {
        let text = r#"{"users":3,"phases":[{"name":"a"}],"books":{"residual_fen":0},"news":{"of":1}}"#;
        let summary: Summary = serde_json::from_str(text).unwrap();
        assert_eq!((summary.passed, summary.users, summary.phases[0].judged), (None, 3, true));
        assert_eq!(summary.parts.keys().collect::<Vec<_>>(), ["news"]);
        let again: Summary = serde_json::from_str(&serde_json::to_string(&summary).unwrap()).unwrap();
        assert_eq!(again, summary);
    }
}
