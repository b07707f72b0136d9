//! Changes of QPS that somebody else ordered while the plan was carried out: an operator, at the
//! dashboard. From such a change to the plan's next stretch the fleet does what it was told, which
//! says nothing about the plan: those seconds are not judged, and are counted and named.

use std::collections::BTreeSet;
use std::ops::Range;

use hongbao_telemetry::summary::Change;

use crate::fleet::plan::Plan;
use crate::results::Results;

#[derive(Debug, Default)]
pub struct Changes {
    pub summaries: Vec<Change>,
}

impl Changes {
    /// What machines did that the plan did not say; `first_second`: Unix second of the first
    /// stretch.
    pub fn of(plan: &Plan, first_second: u64, results: &[Results]) -> Self {
        let mut found: BTreeSet<(u64, u64, u32)> = BTreeSet::new();
        let of_machine = |result: &Results| {
            let mut begin = first_second;
            let mut all = Vec::new();
            for phase in plan.stretches() {
                let end = begin + phase.seconds;
                let inside: Vec<_> =
                    result.segments.iter().filter(|segment| (begin..end).contains(&segment.from)).collect();
                for (index, segment) in inside.iter().enumerate() {
                    if (segment.from, segment.qps) != (begin, phase.qps) {
                        let until = inside.get(index + 1).map_or(end, |next| next.from);
                        all.push((segment.from, until, segment.qps));
                    }
                }
                begin = end;
            }
            all
        };
        let machines: Vec<Vec<_>> = results.iter().map(of_machine).collect();
        found.extend(machines.iter().flatten());
        let summary = |(from, until, qps)| {
            let machines = machines.iter().filter(|changes| changes.contains(&(from, until, qps))).count();
            Change { from, until, qps, machines }
        };
        Self { summaries: found.into_iter().map(summary).collect() }
    }

    /// Whether somebody else's QPS held in this second.
    pub fn cover(&self, second: u64) -> bool {
        self.windows().any(|window| window.contains(&second))
    }

    pub fn touch(&self, seconds: &Range<u64>) -> bool {
        self.windows().any(|window| window.start < seconds.end && seconds.start < window.end)
    }

    fn windows(&self) -> impl Iterator<Item = Range<u64>> {
        self.summaries.iter().map(|change| change.from..change.until)
    }
}
