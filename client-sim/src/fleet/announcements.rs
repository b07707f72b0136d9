//! Announcements to everybody, and the books over them: each user who is online is to be told each
//! of them once.

use std::time::Duration;

use serde::Serialize;

use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::fleet::admin::{Admin, Broadcast};
use crate::fleet::plan::Plan;
use crate::results::{Announced, Results};

/// One announcement that the server has taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// Tells it from all others.
    pub text: String,
    /// The server's id, where it gives one.
    pub id: Option<u64>,
    /// When it was posted, Unix nanoseconds.
    pub at: u64,
    /// What the server says of it at the end, where it says anything.
    pub server: Option<Broadcast>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnnouncementSummary {
    pub text: String,
    pub id: Option<u64>,
    /// Unix milliseconds.
    pub posted_at_ms: u64,
    /// Users who were told, each counted once.
    pub delivered: u64,
    /// Users of the fleet who were not.
    pub shortfall: u64,
    /// Deliveries to users who had been told already.
    pub repeated: u64,
    /// From its posting; absent: nobody was told.
    pub first_ms: Option<f64>,
    pub last_ms: Option<f64>,
    /// What the server says of it, where it says anything.
    pub server: Option<Broadcast>,
}

/// Posts the plan's announcements at their moments; `first_second`: Unix second of the first
/// stretch. Returns those that the server took, and a line for each that it did not.
pub async fn post(plan: &Plan, clock: &Clock, first_second: u64, admin: Option<&Admin>) -> (Vec<Posted>, Vec<String>) {
    let (mut posted, mut troubles) = (Vec::new(), Vec::new());
    let (Some(planned), Some(admin)) = (plan.announce, admin) else { return (posted, troubles) };
    let begin = plan.phases_begin(first_second);
    for number in 0..planned.count {
        let offset = Duration::from_secs(planned.at_second) + planned.every * number;
        let at = begin * SECOND + u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX);
        tokio::time::sleep_until(clock.instant(at).into()).await;
        let text = format!("fleet run {begin}: announcement {} of {}", number + 1, planned.count);
        let at = clock.now();
        match admin.announce(&text).await {
            Ok(id) => posted.push(Posted { text, id, at, server: None }),
            Err(error) => troubles.push(format!("announcement {}: {error}", number + 1)),
        }
    }
    (posted, troubles)
}

/// Asks what the server says of each.
pub async fn ask(posted: &mut [Posted], admin: &Admin) {
    for one in posted {
        if let Some(id) = one.id {
            // A server that keeps no books of broadcasts is no trouble: ours are complete without.
            one.server = admin.broadcast(id).await.ok();
        }
    }
}

/// Compares what was posted with what users were told. Who reconnected may have missed one, or have
/// been told twice; without any reconnect either is a failure.
pub fn judge(
    users: u64,
    posted: &[Posted],
    results: &[Results],
    failures: &mut Vec<String>,
) -> Vec<AnnouncementSummary> {
    let excused = results.iter().any(|result| result.totals.reconnects > 0);
    let summarize = |one: &Posted| {
        let parts = results.iter().flat_map(|result| &result.announced).filter(|part| part.text == one.text);
        let parts: Vec<&Announced> = parts.collect();
        let since = |micros: u64| (micros as f64 - (one.at / 1_000) as f64) / 1_000.0;
        let delivered = parts.iter().map(|part| part.users).sum();
        AnnouncementSummary {
            text: one.text.clone(),
            id: one.id,
            posted_at_ms: one.at / MILLISECOND,
            delivered,
            shortfall: users.saturating_sub(delivered),
            repeated: parts.iter().map(|part| part.repeated).sum(),
            first_ms: parts.iter().map(|part| part.first_us).min().map(since),
            last_ms: parts.iter().map(|part| part.last_us).max().map(since),
            server: one.server.clone(),
        }
    };
    let summaries: Vec<_> = posted.iter().map(summarize).collect();
    for one in summaries.iter().filter(|_| !excused) {
        if one.shortfall > 0 || one.repeated > 0 {
            failures.push(format!(
                "`{}` was not heard by {} of {users} users, and heard {} times too often, though nobody reconnected",
                one.text, one.shortfall, one.repeated,
            ));
        }
    }
    summaries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Totals;

    fn results(users: u64, repeated: u64, reconnects: u64) -> Results {
        let announced = Announced { text: "a".into(), users, repeated, first_us: 2_000, last_us: 9_000 };
        let totals = Totals { reconnects, ..Totals::default() };
        Results { totals, announced: vec![announced], ..Results::default() }
    }

    fn judge_two(one: Results, two: Results) -> (AnnouncementSummary, Vec<String>) {
        let (posted, mut failures) = ([Posted { text: "a".into(), id: None, at: 1_000_000, server: None }], Vec::new());
        let mut summaries = judge(10, &posted, &[one, two], &mut failures);
        (summaries.remove(0), failures)
    }

    #[test]
    fn an_announcement_that_every_user_heard_once_passes() {
        let (summary, failures) = judge_two(results(4, 0, 0), results(6, 0, 0));
        assert_eq!((summary.delivered, summary.shortfall, summary.repeated), (10, 0, 0));
        assert_eq!((summary.first_ms, summary.last_ms), (Some(1.0), Some(8.0)));
        assert!(failures.is_empty(), "{failures:?}");
    }

    #[test]
    fn a_missed_or_repeated_one_fails_unless_somebody_reconnected() {
        assert_eq!(judge_two(results(4, 0, 0), results(5, 0, 0)).1.len(), 1);
        assert_eq!(judge_two(results(4, 0, 0), results(6, 1, 0)).1.len(), 1);
        let (summary, failures) = judge_two(results(4, 0, 1), results(5, 0, 0));
        assert_eq!((summary.shortfall, failures.len()), (1, 0));
    }
}
