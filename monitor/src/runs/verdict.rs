//! Whether a run kept its plan: what the fleet's summary says, or else what the recording itself
//! shows, by the same rule.

use crate::recording::read::{ReadError, Reader};
use crate::run::mark::Mark;
use hongbao_telemetry::report::names::event;
use hongbao_telemetry::summary::{Phase, Second, Summary, Tolerance};
use serde::Serialize;

/// The fleet's own tolerance, where nobody set another.
const TOLERANCE: Tolerance = Tolerance::percent(2);

/// What a list and a past run say first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Absent: nothing was planned that could be judged.
    pub passed: Option<bool>,
    /// Judged here, from the recording: the fleet left no summary beside it.
    pub by_recording: bool,
    pub failures: Vec<String>,
    /// Without their seconds.
    pub phases: Vec<Phase>,
}

impl Verdict {
    pub fn of_summary(summary: &Summary) -> Self {
        let phases = summary.phases.iter().map(|phase| Phase { per_second: Vec::new(), ..phase.clone() }).collect();
        Self { passed: summary.passed, by_recording: false, failures: summary.failures.clone(), phases }
    }

    /// By the marks of the phases and the seconds that were recorded whole.
    ///
    /// # Errors
    /// The recording is damaged.
    pub fn of_recording(reader: &Reader, balanced: bool) -> Result<Self, ReadError> {
        let marks = reader.marks()?;
        let mut phases = phases(&marks);
        let storms: Vec<u64> = marks.iter().filter(|mark| mark.kind == event::STORM).map(second_of).collect();
        let mut cut = false;
        reader.load(|second, missing| {
            // Users are counted a moment after the second's end, when those of the next are cut already.
            cut = missing && (cut || storms.iter().any(|&at| at.abs_diff(second.second) <= 1));
            if let Some(phase) = phases.iter_mut().rfind(|phase| phase.from <= second.second) {
                phase.per_second.push(Second { storm: cut, changed: !phase.judged, ..second });
            }
        })?;
        phases.retain(|phase| phase.qps_target > 0 && phase.judged && !phase.per_second.is_empty());
        let mut failures = Vec::new();
        for phase in &mut phases {
            phase.seconds = phase.per_second.len() as u64;
            phase.judge(TOLERANCE);
            phase.per_second.clear();
            let (kept, judged) = (phase.seconds_within_tolerance, phase.seconds_judged());
            if kept < judged {
                failures.push(format!("{}: {kept} of {judged} seconds within {TOLERANCE}", phase.name));
            }
        }
        if !balanced {
            failures.push("the books do not agree".into());
        }
        let passed = (!phases.is_empty()).then_some(failures.is_empty());
        Ok(Self { passed, by_recording: true, failures, phases })
    }
}

fn second_of(mark: &Mark) -> u64 {
    mark.at_ms / 1_000
}

/// Stretches of one QPS, in order; those that an operator ordered are not the plan's.
fn phases(marks: &[Mark]) -> Vec<Phase> {
    let mut phases: Vec<Phase> = Vec::new();
    for mark in marks.iter().filter(|mark| [event::PHASE, event::QPS].contains(&mark.kind.as_str())) {
        // "no more requests" has no number.
        let qps = mark.text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let (from, judged) = (second_of(mark), mark.kind == event::PHASE);
        phases.retain(|phase| phase.from < from);
        phases.push(Phase { name: format!("{qps}/s"), from, qps_target: qps, judged, ..Phase::default() });
    }
    phases
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::recording::FILE;

    /// The fixture with marks of its phases, which it has not: 200 for 6 s, 400 for 6 s, 200 for 12 s with a storm.
    fn judged(change: &str, balanced: bool) -> Verdict {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recording");
        std::fs::copy(fixture.join(FILE), directory.path().join(FILE)).unwrap();
        let marks = "INSERT INTO marks (at_ms, kind, source, text) VALUES
            (1795264108000, 'phase', '2 machines', '200 requests a second'),
            (1795264114000, 'phase', '2 machines', '400 requests a second'),
            (1795264120000, 'phase', '2 machines', '200 requests a second'),
            (1795264122000, 'storm', '2 machines', '3% of the users are cut'),
            (1795264132000, 'phase', '2 machines', 'no more requests');
            UPDATE seconds SET users_goal = 2000;";
        let recording = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
        recording.execute_batch(&format!("{marks}{change}")).unwrap();
        Verdict::of_recording(&Reader::open(directory.path()).unwrap(), balanced).unwrap()
    }

    fn told(verdict: &Verdict) -> Vec<(u64, u64, u64)> {
        let of = |phase: &Phase| (phase.qps_target, phase.seconds_within_tolerance, phase.seconds_judged());
        verdict.phases.iter().map(of).collect()
    }

    #[test]
    fn a_run_without_a_summary_is_judged_by_its_recording() {
        let verdict = judged("UPDATE seconds SET answered = sent", true);
        assert_eq!((verdict.passed, verdict.by_recording), (Some(true), true));
        assert_eq!(told(&verdict), [(200, 6, 6), (400, 6, 6), (200, 11, 11)]);
    }

    #[test]
    fn a_second_off_its_plan_fails_the_run_and_is_named() {
        let verdict =
            judged("UPDATE seconds SET answered = sent; UPDATE seconds SET sent = 380 WHERE second = 1795264116", true);
        assert_eq!(
            (verdict.passed, verdict.failures),
            (Some(false), vec!["400/s: 5 of 6 seconds within 2%".to_owned()])
        );
        let verdict = judged("UPDATE seconds SET answered = sent", false);
        assert_eq!((verdict.passed, verdict.failures), (Some(false), vec!["the books do not agree".to_owned()]));
    }

    #[test]
    fn an_operators_load_and_an_incomplete_second_are_not_judged() {
        let change =
            "UPDATE seconds SET answered = sent; UPDATE seconds SET sent = 0, complete = 0 WHERE second = 1795264109;
            UPDATE marks SET kind = 'qps' WHERE at_ms = 1795264114000";
        assert_eq!(told(&judged(change, true)), [(200, 5, 5), (200, 11, 11)]);
    }

    #[test]
    fn where_nothing_was_planned_there_is_no_verdict() {
        assert_eq!(judged("DELETE FROM marks", true).passed, None);
    }
}
