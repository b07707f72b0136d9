//! Runs of envelopes on the operator's account: sent at a steady rate, each to distinct users drawn from a
//! range.
//!
//! A run lives as long as the process; its envelopes are in the ledger and outlive it. Each is
//! followed until it is empty or has expired.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hongbao_proto::{EnvelopeId, Fen, RequestId, Serial, UserId};
use hongbao_telemetry::report::{Events, names::event};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clock::UnixMs;
use crate::generator::source::Pacer;
use crate::ledger::task::LedgerTask;
use crate::ledger::{LedgerError, Posting, SendResult};
use crate::market::campaign::{Amounts, Seed, amount_of};
use crate::market::envelope::{Mode, NewEnvelope};
use crate::set::Shared;
use crate::set::message::Offering;

/// From one look at what is due to the next.
const SEND_INTERVAL: Duration = Duration::from_millis(10);

/// Envelopes sent in one transaction.
const SEND_STEP_MAX: u64 = 1_024;

/// From one look at what became of the envelopes to the next.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Envelopes looked at in one go: the ledger does nothing else meanwhile.
const FOLLOW_STEP: usize = 2_048;

/// Runs of which operators can still ask what became of them.
const RUNS_KEPT: usize = 64;

pub const COUNT_MAX: u64 = 1_000_000;

/// What an operator asks for, checked.
#[derive(Debug, Clone)]
pub struct Terms {
    pub count: u64,
    /// How many a second, evenly inside the second.
    pub rate_per_second: u32,
    /// To how many users each.
    pub recipients: u32,
    /// Into how many shares each falls.
    pub shares: u32,
    pub mode: Mode,
    /// The first of the users.
    pub first_user: UserId,
    /// How many they are: at least `recipients`.
    pub users: u64,
    /// What an envelope holds, drawn for each.
    pub totals: Amounts,
    /// For how long it can be opened, milliseconds.
    pub lifetime_ms: u64,
    pub greeting: Box<str>,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, Serialize, utoipa::ToSchema)]
pub struct Progress {
    /// Counted from 1 since the process started.
    pub id: u64,
    /// Envelopes asked for.
    pub count: u64,
    /// Envelopes sent.
    pub sent: u64,
    /// What was put into them, fen.
    pub sent_fen: u64,
    /// Of these, envelopes that can still be opened.
    pub open: u64,
    /// Shares opened, of envelopes that cannot be opened any more.
    pub opened_shares: u64,
    /// Their worth, fen.
    pub opened_fen: u64,
    /// What expired unopened, fen.
    pub refunded_fen: u64,
    /// Whether it was stopped before all were sent.
    pub stopped: bool,
    /// Whether all were sent, or it was stopped, and none can be opened any more.
    pub finished: bool,
}

/// The runs of this process: the last [`RUNS_KEPT`], by id.
#[derive(Debug, Default)]
pub struct Runs {
    kept: Mutex<BTreeMap<u64, Progress>>,
    /// The moment after which the request ids of the latest run are named.
    latest: AtomicU64,
    /// Where their beginnings and ends are reported.
    events: Events,
    tasks: Mutex<JoinSet<()>>,
}

impl Runs {
    pub fn reporting_to(events: Events) -> Self {
        Self { events, ..Self::default() }
    }

    /// How far a run has come, if it is still kept.
    pub fn find(&self, id: u64) -> Option<Progress> {
        self.lock().get(&id).copied()
    }

    pub fn all(&self) -> Vec<Progress> {
        self.lock().values().copied().collect()
    }

    /// Stops sending.
    pub fn stop(&self, id: u64) {
        self.update(id, |progress| progress.stopped = true);
    }

    /// Lets a run begin: its number. Must be called inside a runtime.
    pub fn start(&self, run: Run) -> u64 {
        let Run { id, terms: Terms { count, rate_per_second, recipients, .. }, .. } = &run;
        let text = format!(
            "envelope run {id} begins: {count} envelopes, {rate_per_second} a second, to {recipients} users each"
        );
        self.events.push((run.clock)(), event::ENVELOPES, text);
        let (mut tasks, id) = (self.tasks(), run.id);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(run.run());
        id
    }

    /// Ends all that are on their way, as the process would: the server stops, and each holds a way
    /// to the ledger.
    pub fn end_all(&self) {
        self.tasks().abort_all();
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, count: u64) -> u64 {
        let mut runs = self.lock();
        let id = runs.last_key_value().map_or(1, |(last, _)| last + 1);
        runs.insert(id, Progress { id, count, ..Progress::default() });
        if runs.len() > RUNS_KEPT {
            let finished = runs.iter().find(|(_, run)| run.finished).map(|(id, _)| *id);
            finished.map(|oldest| runs.remove(&oldest));
        }
        id
    }

    fn update(&self, id: u64, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.lock().get_mut(&id) {
            change(progress);
        }
    }

    /// The first of [`COUNT_MAX`] request ids that no other run has, of earlier processes neither:
    /// a moment of its own, in milliseconds, with room for as many envelopes.
    fn first_request(&self, now: UnixMs) -> u64 {
        let latest = self.latest.update(Ordering::Relaxed, Ordering::Relaxed, |latest| now.max(latest + 1));
        now.max(latest + 1) * COUNT_MAX
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Progress>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Run {
    id: u64,
    terms: Terms,
    seed: Seed,
    pacer: Pacer,
    first_request: u64,
    runs: Arc<Runs>,
    shared: Arc<Shared>,
    clock: fn() -> UnixMs,
    sent: u64,
    /// Envelopes that could be opened when last looked at.
    followed: VecDeque<EnvelopeId>,
    /// It has finished, or the server is stopping.
    pub is_over: bool,
}

impl Run {
    /// A run that has sent nothing yet.
    pub fn begin(terms: Terms, seed: Seed, runs: &Arc<Runs>, shared: &Arc<Shared>, clock: fn() -> UnixMs) -> Self {
        Self {
            id: runs.begin(terms.count),
            pacer: Pacer::new(terms.rate_per_second, clock()),
            first_request: runs.first_request(clock()),
            terms,
            seed,
            runs: Arc::clone(runs),
            shared: Arc::clone(shared),
            clock,
            sent: 0,
            followed: VecDeque::new(),
            is_over: false,
        }
    }

    async fn run(mut self) {
        while !self.is_over {
            self.step().await;
            sleep(if self.is_sending() { SEND_INTERVAL } else { FOLLOW_INTERVAL }).await;
        }
    }

    /// Whether there are some to be sent, and nobody has stopped it.
    fn is_sending(&self) -> bool {
        self.sent < self.terms.count && self.runs.find(self.id).is_some_and(|progress| !progress.stopped)
    }

    /// Sends what is due; once all is sent, sees what became of it. Harmless at any time.
    pub async fn step(&mut self) {
        if self.is_over {
            return;
        }
        if self.is_sending() {
            let due = self.pacer.due((self.clock)()).min(SEND_STEP_MAX).min(self.terms.count - self.sent);
            self.is_over = due > 0 && !self.send(due).await;
            return;
        }
        let is_stopping = !self.follow().await;
        self.is_over = is_stopping || self.followed.is_empty();
        if self.is_over && !is_stopping {
            self.runs.update(self.id, |progress| progress.finished = true);
            self.report_end();
        }
    }

    fn report_end(&self) {
        if let Some(Progress { id, sent, opened_shares, refunded_fen, .. }) = self.runs.find(self.id) {
            let text = format!(
                "envelope run {id} is over: {sent} envelopes sent, {opened_shares} shares opened, {refunded_fen} fen given back"
            );
            self.runs.events.push((self.clock)(), event::ENVELOPES, text);
        }
    }

    /// Sends the next ones, all or none. `false`: the server is stopping.
    async fn send(&mut self, count: u64) -> bool {
        let now = (self.clock)();
        let postings: Vec<Posting> =
            (self.sent..self.sent + count).map(|number| Posting::Send(Box::new(self.envelope(number)))).collect();
        let results = match self.shared.ledger.post::<SendResult>(postings, now).await {
            Ok(results) => results,
            Err(LedgerError::Stopped) => return false,
            // The ledger's to report. What was due is due again.
            Err(_) => return true,
        };
        let (mut sent, mut fen) = (0, 0);
        for (number, result) in (self.sent..).zip(results) {
            match result {
                SendResult::Sent { offer, to, .. } => {
                    sent += 1;
                    fen += self.total(number).0;
                    self.followed.push_back(offer.envelope);
                    if self.shared.offerings.send(Offering { offer, to }).await.is_err() {
                        return false;
                    }
                }
                other @ (SendResult::InsufficientFunds | SendResult::TooManyEnvelopes | SendResult::TooMuch) => {
                    tracing::warn!(
                        event = "house_run_stopped",
                        run = self.id,
                        ?other,
                        "an envelope of the house could not be sent; the run is stopped"
                    );
                    self.runs.stop(self.id);
                }
            }
        }
        self.sent += count;
        self.pacer.issue(count);
        let open = self.followed.len() as u64;
        self.runs.update(self.id, |progress| {
            progress.sent += sent;
            progress.sent_fen += fen;
            progress.open = open;
        });
        true
    }

    /// Looks at what became of the envelopes. `false`: the server is stopping.
    async fn follow(&mut self) -> bool {
        for _ in 0..self.followed.len().div_ceil(FOLLOW_STEP) {
            let step: Vec<EnvelopeId> = self.followed.drain(..FOLLOW_STEP.min(self.followed.len())).collect();
            let ids = step.clone();
            let views = match self.shared.ledger.run(|reply| LedgerTask::Envelopes { ids, reply }).await {
                Ok(views) => views,
                Err(LedgerError::Stopped) => return false,
                Err(_) => {
                    self.followed.extend(step);
                    continue;
                }
            };
            self.runs.update(self.id, |progress| {
                for (id, view) in step.into_iter().zip(views) {
                    match view.filter(|view| view.is_over) {
                        Some(view) => {
                            progress.opened_shares += view.opened.len() as u64;
                            progress.opened_fen += view.opened.iter().map(|(_, amount, _)| amount.0).sum::<u64>();
                            progress.refunded_fen += view.refunded.unwrap_or_default().0;
                        }
                        None => self.followed.push_back(id),
                    }
                }
            });
        }
        let open = self.followed.len() as u64;
        self.runs.update(self.id, |progress| progress.open = open);
        true
    }

    fn total(&self, number: u64) -> Fen {
        amount_of(&self.seed, self.terms.totals, Serial(number))
    }

    fn envelope(&self, number: u64) -> NewEnvelope {
        // A seed for each: shares must not tell of those of the next envelope.
        let seed = Seed(sha2_of(&self.seed, number));
        NewEnvelope {
            sender: None,
            request: RequestId::new(self.first_request + number).unwrap_or(RequestId::new(1).expect("valid")),
            total: self.total(number),
            shares: self.terms.shares,
            mode: self.terms.mode,
            seed,
            greeting: self.terms.greeting.clone(),
            recipients: draw(&seed, self.terms.first_user, self.terms.users, self.terms.recipients),
            room: None,
            lifetime_ms: self.terms.lifetime_ms,
        }
    }
}

fn sha2_of(seed: &Seed, number: u64) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::new_with_prefix(seed.0).chain_update(b"envelope").chain_update(number.to_be_bytes()).finalize().into()
}

/// `count` distinct users of a range of `users`, ascending; each set of so many is as likely as any
/// other (Floyd's algorithm). Requires `count <= users`, and all of the range to be user ids.
fn draw(seed: &Seed, first: UserId, users: u64, count: u32) -> Arc<[UserId]> {
    let mut drawn = BTreeSet::new();
    for (turn, last) in (0u64..).zip(users - u64::from(count)..users) {
        // Lots of the shares are drawn from the same seed with serials below 500.
        let lot = amount_of(seed, Amounts { min: Fen(0), max: Fen(last) }, Serial(1 << 32 | turn)).0;
        if !drawn.insert(lot) {
            drawn.insert(last);
        }
    }
    drawn.into_iter().filter_map(|offset| UserId::new(first.get() + offset).ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn recipients_are_distinct_users_of_the_range(seed: [u8; 32], first in 1u64..1_000_000, count in 1u32..=500, more in 0u64..5_000) {
            let users = u64::from(count) + more;
            let drawn = draw(&Seed(seed), UserId::new(first).unwrap(), users, count);
            prop_assert_eq!(drawn.len(), count as usize);
            prop_assert!(drawn.is_sorted_by(|a, b| a < b));
            prop_assert!(drawn.iter().all(|user| (first..first + users).contains(&user.get())));
        }
    }

    #[test]
    fn no_two_runs_share_a_request_id() {
        let runs = Runs::default();
        let firsts: Vec<u64> = [5, 5, 5, 9, 9].map(|now| runs.first_request(now)).to_vec();
        assert!(firsts.is_sorted_by(|a, b| a + COUNT_MAX <= *b), "{firsts:?}");
        assert_eq!((firsts[0], firsts[3]), (5 * COUNT_MAX, 9 * COUNT_MAX));
    }

    #[test]
    fn every_user_of_the_range_is_drawn_about_equally_often() {
        let mut seen = [0u32; 20];
        for number in 0..4_000 {
            let seed = Seed(sha2_of(&Seed([5; 32]), number));
            for user in draw(&seed, UserId::new(1).unwrap(), 20, 5).iter() {
                seen[usize::try_from(user.get()).unwrap() - 1] += 1;
            }
        }
        // 1,000 are expected of each, with a standard deviation of 27.
        assert!(seen.iter().all(|count| (850..1_150).contains(count)), "{seen:?}");
    }
}
