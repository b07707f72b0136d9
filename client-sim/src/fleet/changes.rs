//! Changes of QPS that somebody else ordered while the plan was carried out: an operator, at the
//! dashboard. From such a change to the plan's next stretch the fleet does what it was told, which
//! says nothing about the plan: those seconds are not judged, and are counted and named.

use std::collections::BTreeMap;

use hongbao_telemetry::summary::Change;

use crate::fleet::plan::Plan;
use crate::results::Results;

/// What machines did that the plan did not say; `first_second`: Unix second of the first stretch.
pub fn of(plan: &Plan, first_second: u64, results: &[Results]) -> Vec<Change> {
    // By (from, until, QPS): how many machines.
    let mut found: BTreeMap<(u64, u64, u32), usize> = BTreeMap::new();
    let mut begin = first_second;
    for phase in plan.stretches() {
        let end = begin + phase.seconds;
        for result in results {
            let mut inside = result.segments.iter().filter(|segment| (begin..end).contains(&segment.from)).peekable();
            while let Some(segment) = inside.next() {
                let until = inside.peek().map_or(end, |next| next.from);
                if (segment.from, segment.qps) != (begin, phase.qps) {
                    *found.entry((segment.from, until, segment.qps)).or_default() += 1;
                }
            }
        }
        begin = end;
    }
    found.into_iter().map(|((from, until, qps), machines)| Change { from, until, qps, machines }).collect()
}

/// Whether somebody else's QPS held in this second.
pub fn cover(changes: &[Change], second: u64) -> bool {
    changes.iter().any(|change| (change.from..change.until).contains(&second))
}
