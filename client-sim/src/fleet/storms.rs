//! The judgement over storms: how many were cut, when all were back, and how the requests of users
//! who were spared fared until then. The seconds of a storm are not held against the schedule, and
//! are counted.

use std::ops::Range;

use serde::Serialize;

use crate::fleet::plan::{Plan, PlannedStorm};
use crate::histogram::Micros;
use crate::limits::STORM_OTHERS_P99_MS_MAX;
use crate::results::{Results, StormResult};
use crate::sum::Sum as _;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StormSummary {
    pub share: String,
    /// Since the first phase's beginning.
    pub at_second: u64,
    /// Unix time.
    pub at: u64,
    pub cut: u64,
    pub back: u64,
    /// Absent: not all came back.
    pub seconds_until_all_back: Option<f64>,
    /// Requests of users who were not cut, planned in one of the storm's seconds and answered.
    pub others_requests: u64,
    pub others_p50_ms: f64,
    pub others_p99_ms: f64,
    pub others_p999_ms: f64,
    pub others_max_ms: f64,
    /// Requests that waited for the return of their user, and were then answered.
    pub held_requests: u64,
    pub held_p50_ms: f64,
    pub held_p99_ms: f64,
    pub held_max_ms: f64,
}

/// What storms were, and the Unix seconds that they lasted, the last begun one included.
#[derive(Debug, Default)]
pub struct Storms {
    pub summaries: Vec<StormSummary>,
    windows: Vec<Range<u64>>,
}

impl Storms {
    /// Whether a storm lasted in this second.
    pub fn cover(&self, second: u64) -> bool {
        self.windows.iter().any(|window| window.contains(&second))
    }
}

/// Judges all storms of a plan; `first_second`: Unix second of the first stretch. One that somebody
/// else ordered is not judged, and its seconds are not held against the schedule either.
pub fn judge(plan: &Plan, first_second: u64, results: &[Results], failures: &mut Vec<String>) -> Storms {
    let mut storms = Storms::default();
    for planned in &plan.storm {
        let at = plan.storm_at(first_second, planned);
        let (summary, window) = judge_one(plan, planned, at, results, failures);
        storms.summaries.push(summary);
        storms.windows.push(window);
    }
    let planned = |at| plan.storm.iter().any(|storm| plan.storm_at(first_second, storm) == at);
    for storm in results.iter().flat_map(|result| &result.storms).filter(|storm| !planned(storm.view.storm.at)) {
        let view = &storm.view;
        let lasted = match view.last_back_us {
            Some(last_back_us) if view.over => last_back_us.div_ceil(1_000_000).max(1),
            // On this machine it hit nobody.
            None if view.over => 1,
            _ => view.storm.watch_seconds.into(),
        };
        storms.windows.push(view.storm.at..view.storm.at + lasted);
    }
    storms
}

fn judge_one(
    plan: &Plan,
    planned: &PlannedStorm,
    at: u64,
    results: &[Results],
    failures: &mut Vec<String>,
) -> (StormSummary, Range<u64>) {
    let PlannedStorm { share, at_second } = *planned;
    let mut fail = |line: String| failures.push(format!("storm of {share} at {at_second} s: {line}"));
    let deadline = plan.storm_deadline.as_secs();
    let mut parts: Vec<&StormResult> = Vec::with_capacity(results.len());
    for result in results {
        match result.storms.iter().find(|storm| storm.view.storm.at == at) {
            Some(part) => parts.push(part),
            None => fail(format!("it is missing from the results of {}", result.name)),
        }
    }
    let (cut, back) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.view.cut, sum.1 + part.view.back));
    let over = parts.iter().all(|part| part.view.over);
    let last_back_us = parts.iter().filter_map(|part| part.view.last_back_us).max().unwrap_or(0);
    if !over {
        fail(format!("{back} of {cut} users came back"));
    } else if last_back_us > deadline * 1_000_000 {
        fail(format!("all were back after {:.1} s only; the deadline is {deadline} s", seconds(last_back_us)));
    }
    let lasted = if over { last_back_us.div_ceil(1_000_000).max(1) } else { deadline };

    let (mut others, mut held) = (Micros::default(), Micros::default());
    for part in parts {
        held.add(&part.held);
        for second in part.others.iter().filter(|second| second.second < lasted) {
            match Micros::try_from(second.latency.clone()) {
                Ok(latency) => others.add(&latency),
                Err(error) => fail(error),
            }
        }
    }
    let p99 = others.quantile_ms(0.99);
    if p99 > STORM_OTHERS_P99_MS_MAX {
        fail(format!("p99 of the requests of others was {p99:.0} ms, more than {STORM_OTHERS_P99_MS_MAX:.0} ms"));
    }
    let summary = StormSummary {
        share: share.to_string(),
        at_second,
        at,
        cut,
        back,
        seconds_until_all_back: over.then(|| seconds(last_back_us)),
        others_requests: others.len(),
        others_p50_ms: others.quantile_ms(0.5),
        others_p99_ms: p99,
        others_p999_ms: others.quantile_ms(0.999),
        others_max_ms: others.quantile_ms(1.0),
        held_requests: held.len(),
        held_p50_ms: held.quantile_ms(0.5),
        held_p99_ms: held.quantile_ms(0.99),
        held_max_ms: held.quantile_ms(1.0),
    };
    (summary, at..at + lasted)
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
