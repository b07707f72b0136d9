//! Proves to a service manager that the whole server turns, not only the thread that says so.
//!
//! The watch runs on the main thread, so that a word from it shows that the main loop turns. Each
//! shard counts a beat once a second, from the timer that it has anyway. The ledger's thread, which
//! waits for work, is sent a question between its batches; while it has no room for one, its
//! commits are the answer. Nothing of this lies on the way of a request.

use std::sync::Arc;
use std::time::Instant;

use hongbao_telemetry::program::service::Service;
use tokio::time::MissedTickBehavior;

use crate::ledger::task::LedgerTask;
use crate::ledger::writer::{LedgerCounts, LedgerHandle, WriterRequest};
use crate::set::message::ReplyPermit;
use crate::set::tally::Tally;
use crate::telemetry::Telemetry;

/// What is watched, and where it is said.
pub struct Watchdog {
    service: Service,
    shards: Vec<(String, Arc<Tally>)>,
    ledger: LedgerHandle<ReplyPermit>,
    telemetry: Telemetry,
}

impl Watchdog {
    /// Over the shards, whose beats come in their order, and the ledger.
    pub fn new(
        service: Service,
        shards: Vec<Arc<Tally>>,
        ledger: LedgerHandle<ReplyPermit>,
        telemetry: Telemetry,
    ) -> Self {
        let shards = shards.into_iter().enumerate().map(|(index, beat)| (format!("shard-{index}"), beat)).collect();
        Self { service, shards, ledger, telemetry }
    }

    /// Says that the server serves, then how it is, until dropped.
    pub async fn run(self) {
        self.service.ready(&self.status());
        let started = Instant::now();
        let mut parts: Vec<_> = self.counts().map(|(_, count)| Part::new(count, started)).collect();
        let mut asked_at = None;
        let mut said = String::new();
        let mut pace = tokio::time::interval(self.service.pace());
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            // One question at a time: a ledger that hangs must not find a heap of them.
            let tasks = self.telemetry.ledger.counts().tasks;
            if asked_at != Some(tasks) && self.ledger.try_send(WriterRequest::Task(LedgerTask::Ping)).is_ok() {
                asked_at = Some(tasks);
            }
            let now = Instant::now();
            let mut silent: Vec<&str> = Vec::new();
            for (part, (name, count)) in parts.iter_mut().zip(self.counts()) {
                part.seen(count, now);
                if part.silent_since.is_some_and(|since| now - since > self.service.patience()) {
                    silent.push(name);
                }
            }
            let silent = silent.join(", ");
            if silent.is_empty() {
                self.service.alive(&self.status());
            } else {
                self.service.ill(&format!("does not answer: {silent}"));
            }
            if silent != said {
                // Once for each change: a disk that stalls for a minute is one event.
                match silent.as_str() {
                    "" => tracing::info!(event = "parts_answer", "every part of the server answers again"),
                    _ => {
                        tracing::error!(event = "part_silent", silent, patience = ?self.service.patience(), "a part of the server does not answer")
                    }
                }
                said = silent;
            }
        }
    }

    /// What each part has counted. That of the ledger grows with whatever its thread does.
    fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        let LedgerCounts { batches, failed_batches, tasks, .. } = self.telemetry.ledger.counts();
        let done = tasks + batches + failed_batches;
        self.shards.iter().map(|(name, beat)| (name.as_str(), beat.get())).chain([("the ledger", done)])
    }

    fn status(&self) -> String {
        let (online, connections) = (self.telemetry.sum(|set| &set.online), self.telemetry.sum(|set| &set.connections));
        let ledger = if self.telemetry.ledger.healthy() { "the ledger works" } else { "THE LEDGER CANNOT BE WRITTEN" };
        format!("{online} users on-line, {connections} connections; {ledger}")
    }
}

/// One thing that counts as long as it lives.
struct Part {
    count: u64,
    /// When its count was found standing still first; none while it grows.
    silent_since: Option<Instant>,
}

impl Part {
    fn new(count: u64, now: Instant) -> Self {
        Self { count, silent_since: Some(now) }
    }

    fn seen(&mut self, count: u64, now: Instant) {
        if count == self.count {
            self.silent_since.get_or_insert(now);
        } else {
            (self.count, self.silent_since) = (count, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_part_is_silent_from_the_first_look_at_which_it_stood_still() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut part = Part::new(5, start);
        part.seen(6, at(1));
        assert_eq!(part.silent_since, None);
        part.seen(6, at(2));
        part.seen(6, at(3));
        assert_eq!(part.silent_since, Some(at(2)));
        part.seen(7, at(4));
        assert_eq!(part.silent_since, None);
    }

    #[test]
    fn a_part_that_never_moves_is_silent_from_the_start() {
        let start = Instant::now();
        let mut part = Part::new(0, start);
        part.seen(0, start + Duration::from_secs(9));
        assert_eq!(part.silent_since, Some(start));
    }
}
