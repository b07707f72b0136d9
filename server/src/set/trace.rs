//! Following one user live: what the user asks, what the ledger decides, what is answered and
//! pushed, and how connections end.
//!
//! A few tracers at a time, each with a bounded queue; one who is slow loses events, which are
//! counted and reported. A SET keeps a copy of the list of tracers and looks once a batch whether it is
//! still right: while nobody is followed, that is all there is to it. What is followed costs a
//! lookup among the few and a reading of the clock, on the shard's thread.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hongbao_proto::UserId;
use hongbao_proto::v1::ServerFrame;
use hongbao_proto::v1::server_frame::Event;
use prost::Message as _;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::clock::wall_us;
use crate::ends::{End, Fault};
use crate::ledger::Answer;
use crate::ledger::user_event::{Decision, Details};
use crate::ledger::writer::{Reply, Unavailable};
use crate::limits::{TRACE_ASKED_MAX, TRACE_QUEUE_MAX, TRACERS_MAX};
use crate::set::directory::ConnectionKey;
use crate::set::message::{ClientRequest, LedgerRequest};

/// As many are followed already as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{TRACERS_MAX} tracers follow users already: end one of them first")]
pub struct TooManyTracers;

/// Something that happened to a followed user.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Unix microseconds.
    pub at_us: u64,
    pub set: u32,
    pub slot: u32,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The SET took up a request.
    Request {
        request: u64,
        /// Which kind: `login`, `grab`, …
        kind: &'static str,
        #[serde(flatten)]
        of: Details,
    },
    /// The ledger has decided or answered; a decision is durable.
    Ledger {
        request: u64,
        /// What: `won`, `limit_reached`, …
        decision: &'static str,
        #[serde(flatten)]
        of: Details,
    },
    Answer {
        request: u64,
        /// Which kind, as in `/metrics`; `gone`: the connection had ended.
        kind: &'static str,
        /// From when the SET took the request up until its answer was ready, microseconds; absent
        /// where that was not seen.
        latency_us: Option<u64>,
        #[serde(flatten)]
        of: Details,
    },
    /// Something is pushed that was not asked for.
    Push {
        /// Which kind: `announcement`, `offers`, …
        kind: &'static str,
        #[serde(flatten)]
        of: Details,
    },
    End {
        /// Why, as in `/metrics`.
        reason: &'static str,
        fault: Fault,
    },
}

/// One who follows a user, as the SETs see it.
#[derive(Debug)]
pub struct Tracer {
    user: UserId,
    steps: mpsc::Sender<Step>,
    lost: AtomicU64,
}

impl Tracer {
    fn send(&self, step: Step) {
        if self.steps.try_send(step).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All who follow users of this node.
#[derive(Debug, Default)]
pub struct Traces {
    /// Changes with the list below.
    version: AtomicU32,
    tracers: Mutex<Vec<Arc<Tracer>>>,
}

/// What a tracer reads. Whoever drops it stops following.
#[derive(Debug)]
pub struct Follower {
    traces: Arc<Traces>,
    tracer: Arc<Tracer>,
    steps: mpsc::Receiver<Step>,
    lost: u64,
}

/// What a follower gets next.
#[derive(Debug, Clone, PartialEq)]
pub enum TraceItem {
    /// Something happened.
    Step(Step),
    /// So many steps before the next one were lost, because the follower was slow.
    Lost(u64),
}

impl Traces {
    pub fn follow(self: &Arc<Self>, user: UserId) -> Result<Follower, TooManyTracers> {
        let (sender, steps) = mpsc::channel(TRACE_QUEUE_MAX);
        let tracer = Arc::new(Tracer { user, steps: sender, lost: AtomicU64::new(0) });
        let mut tracers = self.list();
        if tracers.len() >= TRACERS_MAX {
            return Err(TooManyTracers);
        }
        tracers.push(Arc::clone(&tracer));
        self.version.fetch_add(1, Ordering::Relaxed);
        let now = tracers.len();
        // SETs may want the list; nobody waits for the log.
        drop(tracers);
        tracing::info!(event = "tracer_joined", user = user.get(), tracers = now, "a user is followed");
        Ok(Follower { traces: Arc::clone(self), tracer, steps, lost: 0 })
    }

    fn list(&self) -> MutexGuard<'_, Vec<Arc<Tracer>>> {
        self.tracers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// The next step, or how many were lost before it. Never ends.
    pub async fn next(&mut self) -> TraceItem {
        // What is queued happened before what was lost.
        if self.steps.is_empty() {
            let lost = self.tracer.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                self.lost += lost;
                return TraceItem::Lost(lost);
            }
        }
        match self.steps.recv().await {
            Some(step) => TraceItem::Step(step),
            // The list holds a sender as long as this lives.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut tracers = self.traces.list();
        tracers.retain(|tracer| !Arc::ptr_eq(tracer, &self.tracer));
        self.traces.version.fetch_add(1, Ordering::Relaxed);
        let left = tracers.len();
        // SETs may want the list; nobody waits for the log.
        drop(tracers);
        let lost = self.lost + self.tracer.lost.load(Ordering::Relaxed);
        let user = self.tracer.user.get();
        tracing::info!(event = "tracer_left", user, tracers = left, lost, "a user is not followed any more");
    }
}

/// A SET's own copy of the list, and what the followed have asked and got no answer to.
#[derive(Debug, Default)]
pub struct Watched {
    version: u32,
    tracers: Vec<Arc<Tracer>>,
    asked: VecDeque<Asked>,
}

#[derive(Debug)]
struct Asked {
    key: ConnectionKey,
    user: UserId,
    request: u64,
    at: Instant,
}

impl Watched {
    /// Once a batch: one relaxed load, while nobody comes or goes.
    pub fn refresh(&mut self, traces: &Traces) {
        let version = traces.version.load(Ordering::Relaxed);
        if version != self.version {
            let list = traces.list();
            // The list may have changed once more since.
            self.version = traces.version.load(Ordering::Relaxed);
            self.tracers.clone_from(&list);
            if list.is_empty() {
                self.asked = VecDeque::new();
            }
        }
    }

    /// Whether anybody is followed.
    pub fn any(&self) -> bool {
        !self.tracers.is_empty()
    }

    pub fn has(&self, user: UserId) -> bool {
        self.tracers.iter().any(|tracer| tracer.user == user)
    }

    /// Who has asked this and has gone since, if it is known.
    pub fn who_asked(&self, key: ConnectionKey) -> Option<UserId> {
        self.asked.iter().find(|asked| asked.key == key).map(|asked| asked.user)
    }

    /// The SET took up a request.
    pub fn asked(&mut self, set: u32, key: ConnectionKey, user: UserId, request: &ClientRequest) {
        let Some((kind, of)) = describe(request) else { return };
        let request = request.request_id();
        if self.asked.len() == TRACE_ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(Asked { key, user, request, at: Instant::now() });
        self.send(set, key, user, What::Request { request, kind, of });
    }

    /// A request is answered. `event`: what with, unless the connection has gone.
    pub fn answered(
        &mut self,
        set: u32,
        key: ConnectionKey,
        user: UserId,
        request: u64,
        kind: &'static str,
        event: Option<&Event>,
    ) {
        let asked = self.asked.iter().position(|asked| asked.key == key && asked.request == request);
        let latency = asked.and_then(|index| self.asked.remove(index)).map(|asked| asked.at.elapsed());
        let latency_us = latency.map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        let of = event.map(|event| name(event).1).unwrap_or_default();
        self.send(set, key, user, What::Answer { request, kind, latency_us, of });
    }

    pub fn replied(&self, set: u32, key: ConnectionKey, user: UserId, request: u64, reply: &Reply) {
        let (decision, of) = decision(reply);
        self.send(set, key, user, What::Ledger { request, decision, of });
    }

    pub fn pushed(&self, set: u32, key: ConnectionKey, user: UserId, event: &Event) {
        let (kind, of) = name(event);
        self.send(set, key, user, What::Push { kind, of });
    }

    /// Frames are pushed that were encoded for many.
    pub fn pushed_encoded(&self, set: u32, key: ConnectionKey, user: UserId, mut frames: &[u8]) {
        while !frames.is_empty() {
            let Ok(ServerFrame { event: Some(event), .. }) = ServerFrame::decode_length_delimited(&mut frames) else {
                return;
            };
            self.pushed(set, key, user, &event);
        }
    }

    pub fn ended(&self, set: u32, key: ConnectionKey, user: UserId, end: End) {
        self.send(set, key, user, What::End { reason: end.label(), fault: end.fault() });
    }

    fn send(&self, set: u32, key: ConnectionKey, user: UserId, what: What) {
        let at_us = wall_us();
        for tracer in self.tracers.iter().filter(|tracer| tracer.user == user) {
            tracer.send(Step { at_us, set, slot: key.slot, what: what.clone() });
        }
    }
}

/// The kind and contents of a request; tokens and texts are not among them.
fn describe(request: &ClientRequest) -> Option<(&'static str, Details)> {
    let nothing = Details::default();
    Some(match request {
        ClientRequest::Grab { campaign, .. } => {
            ("grab", Details { campaign: campaign.map(|campaign| campaign.get().into()), ..nothing })
        }
        ClientRequest::Login { .. } => ("login", nothing),
        ClientRequest::Ledger { wanted, .. } => match wanted {
            LedgerRequest::Acknowledge(seen) => {
                let count = seen.prizes.len() + seen.envelopes.len() + seen.orders.len();
                ("acknowledge", Details::count(count as u64))
            }
            LedgerRequest::Open(envelope) => ("open", Details { envelope: Some(envelope.get()), ..nothing }),
            LedgerRequest::Send(new) => ("send_envelope", Details { amount_fen: Some(new.total.0), ..nothing }),
            LedgerRequest::Pay(order) => ("pay", Details { order: Some(order.get()), ..nothing }),
            LedgerRequest::Cancel(order) => ("cancel", Details { order: Some(order.get()), ..nothing }),
            LedgerRequest::Ask(_) => ("ask", nothing),
        },
        ClientRequest::Chat { .. } => ("chat", nothing),
        ClientRequest::Room { .. } => ("room", nothing),
        ClientRequest::Ping { .. } => ("ping", nothing),
        ClientRequest::Mistake { .. } => ("mistake", nothing),
        ClientRequest::Violation { .. } => ("violation", nothing),
        ClientRequest::Partial | ClientRequest::Gone(_) => return None,
    })
}

fn decision(reply: &Reply) -> (&'static str, Details) {
    let nothing = Details::default();
    match reply {
        Reply::Posted(Err(Unavailable)) | Reply::Answered(Err(Unavailable)) => ("unavailable", nothing),
        Reply::Posted(Ok(result)) => match Decision::of(result) {
            Decision::Made(event) => (event.names().decision, event.details()),
            Decision::Unmoved(name, about) => (name, about),
        },
        Reply::Answered(Ok(answer)) => match answer {
            Answer::Recall(recall) => {
                let count = recall.unacknowledged.len() + recall.offers.len();
                ("recalled", Details::count(count as u64))
            }
            Answer::FirstAnswer(Some(first)) => ("first_answer", Details::of(first)),
            Answer::FirstAnswer(None) => ("no_first_answer", nothing),
            Answer::Orders(page) => ("orders", Details::count(page.items.len() as u64)),
            Answer::Statement(_) => ("statement", nothing),
            Answer::Envelope(_) => ("envelope", nothing),
        },
    }
}

/// What a frame is called, and what it is about. Texts stay with their users.
fn name(event: &Event) -> (&'static str, Details) {
    let nothing = Details::default();
    let count = |count: usize| Details::count(count as u64);
    match event {
        Event::Welcome(welcome) => ("welcome", count(welcome.unacknowledged as usize)),
        Event::Pong(_) => ("pong", nothing),
        Event::Won(won) => {
            let campaign = Some(won.campaign_id.into());
            ("won", Details { campaign, serial: Some(won.serial), amount_fen: Some(won.amount_fen), ..nothing })
        }
        Event::NoneNow(_) => ("none_now", nothing),
        Event::SoldOut(_) => ("sold_out", nothing),
        Event::Overloaded(_) => ("overloaded", nothing),
        Event::LimitReached(reached) => ("limit_reached", count(reached.limit as usize)),
        Event::TooEarly(_) => ("too_early", nothing),
        Event::TooLate(_) => ("too_late", nothing),
        Event::Acknowledged(acknowledged) => ("acknowledged", count(acknowledged.count as usize)),
        Event::Error(error) => {
            let code =
                crate::set::tally::ERRORS.iter().find(|(code, _)| *code == error.code()).map(|(_, label)| *label);
            ("error", Details { code, ..nothing })
        }
        Event::Opened(opened) => {
            let (envelope, share) = (Some(opened.envelope_id), Some(opened.share));
            ("opened", Details { envelope, share, amount_fen: Some(opened.amount_fen), ..nothing })
        }
        Event::EnvelopeEmpty(empty) => ("envelope_empty", Details { envelope: Some(empty.envelope_id), ..nothing }),
        Event::Order(order) => {
            let (campaign, serial) = (Some(order.campaign_id.into()), Some(order.serial));
            let (order, amount_fen) = (Some(order.order_id), Some(order.price_fen));
            ("order", Details { campaign, serial, order, amount_fen, ..nothing })
        }
        Event::EnvelopeSent(sent) => ("envelope_sent", Details { envelope: Some(sent.envelope_id), ..nothing }),
        Event::EnvelopeView(_) => ("envelope_view", nothing),
        Event::Receipt(receipt) => ("receipt", count(receipt.delivered as usize)),
        Event::RoomState(_) => ("room_state", nothing),
        Event::OrderList(list) => ("order_list", count(list.orders.len())),
        Event::StatementPage(page) => ("statement_page", count(page.movements.len())),
        Event::Goodbye(_) => ("goodbye", nothing),
        Event::Reminder(reminder) => ("reminder", count(reminder.wins.len() + reminder.orders.len())),
        Event::CampaignNotice(notice) => {
            ("campaign_notice", Details { campaign: Some(notice.campaign_id.into()), ..nothing })
        }
        Event::Announcement(_) => ("announcement", nothing),
        Event::Offers(offers) => match offers.offers.as_slice() {
            [one] => ("offers", Details { envelope: Some(one.envelope_id), count: Some(1), ..nothing }),
            several => ("offers", count(several.len())),
        },
        Event::ChatMessage(_) => ("chat_message", nothing),
    }
}

#[cfg(test)]
mod tests {
    use hongbao_proto::RequestId;

    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    const KEY: ConnectionKey = ConnectionKey { slot: 3, generation: 1 };

    fn ping(watched: &mut Watched, of: u64, request: u64) {
        watched.asked(0, KEY, user(of), &ClientRequest::Ping { request: RequestId::new(request).unwrap() });
    }

    #[tokio::test]
    async fn at_most_so_many_follow_and_whoever_leaves_makes_room() {
        let traces = Arc::new(Traces::default());
        let mut followers: Vec<_> = (0..TRACERS_MAX).map(|_| traces.follow(user(7)).unwrap()).collect();
        assert_eq!(traces.follow(user(8)).unwrap_err(), TooManyTracers);
        let mut watched = Watched::default();
        watched.refresh(&traces);
        ping(&mut watched, 7, 1);
        for follower in &mut followers {
            assert!(matches!(follower.next().await, TraceItem::Step(_)));
        }
        drop(followers.pop());
        assert!(traces.follow(user(8)).is_ok());
        drop(followers);
        watched.refresh(&traces);
        assert!(!watched.any());
    }

    #[tokio::test]
    async fn a_slow_follower_loses_steps_and_learns_how_many_and_where() {
        let traces = Arc::new(Traces::default());
        let mut follower = traces.follow(user(7)).unwrap();
        let mut watched = Watched::default();
        watched.refresh(&traces);
        let sent = TRACE_QUEUE_MAX as u64 + 5;
        (1..=sent).for_each(|request| ping(&mut watched, 7, request));
        for expected in 1..=TRACE_QUEUE_MAX as u64 {
            match follower.next().await {
                TraceItem::Step(Step { what: What::Request { request, .. }, .. }) => assert_eq!(request, expected),
                other @ (TraceItem::Step(_) | TraceItem::Lost(_)) => panic!("{other:?}"),
            }
        }
        assert_eq!(follower.next().await, TraceItem::Lost(5));
        ping(&mut watched, 7, sent + 1);
        assert!(matches!(follower.next().await, TraceItem::Step(_)));
        assert!(watched.asked.len() <= TRACE_ASKED_MAX);
    }

    #[test]
    fn others_are_not_traced_and_an_unchanged_list_not_reread() {
        let traces = Arc::new(Traces::default());
        let mut watched = Watched::default();
        watched.refresh(&traces);
        assert!(!watched.any());
        let mut follower = traces.follow(user(7)).unwrap();
        watched.refresh(&traces);
        assert!(watched.any() && watched.has(user(7)) && !watched.has(user(8)));
        ping(&mut watched, 8, 1);
        assert!(follower.steps.try_recv().is_err());
        // Held here, the list cannot be read: nothing tries to.
        let _list = traces.list();
        watched.refresh(&traces);
    }
}
