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
