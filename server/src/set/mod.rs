//! A SET: an independent partition of connections with all that is theirs — sessions, write sides,
//! stock — and one owner.
//!
//! [`Set::apply`] takes one message at a time and never waits: no await, no clock, no lock that a
//! Grab could meet. What must be written is gathered and goes out once per batch ([`Set::flush`]).
//! The loop around it, and the sockets, are in `worker`.
//!
//! Here are the state, the batch and the answers; what each kind of message does is below, in a
//! file for each.

mod apply;
pub mod barred;
pub mod broadcast;
pub mod delivery;
pub mod directory;
pub mod events;
pub mod message;
pub mod output;
pub mod parse;
pub mod payments;
pub mod room_messages;
pub mod room_requests;
pub mod session;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod trace;

use std::collections::VecDeque;
use std::sync::Arc;

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{CampaignId, Serial, UserId};
use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::mpsc;

use crate::admission::{Gate, LoginQueue, Meter, Rate};
use crate::clock::Now;
use crate::ends::End;
use crate::ledger::writer::{LedgerHandle, WriterRequest};
use crate::limits;
use crate::market::stock::Stock;
use crate::set::apply::deliveries::Deliveries;
use crate::set::apply::lottery::Lottery;
use crate::set::apply::sweeps::Sweep;
use crate::set::barred::Barred;
use crate::set::broadcast::Receipt;
use crate::set::delivery::Delivery;
use crate::set::directory::{ConnectionKey, Directory};
use crate::set::message::{
    ClientRequest, Control, DisplacedBy, Message, Offering, PendingRequest, ReplyPermit, StockReport,
};
use crate::set::output::Output;
use crate::set::payments::PaymentProvider;
use crate::set::room_requests::RoomShards;
use crate::set::session::{Session, SessionState};
use crate::set::tally::{AnswerKind, SetTally};
use crate::set::trace::{Traces, Watched};
use crate::transport::wire::{Wire, Written};

/// How to reach a SET from anywhere.
#[derive(Debug, Clone)]
pub struct SetHandle {
    pub inbox: mpsc::Sender<Message>,
    pub tally: Arc<SetTally>,
}

impl SetHandle {
    /// Has the SET write a frame. Where its queue is full the delivery goes, and counts its
    /// connections as dropped.
    pub fn deliver(&self, delivery: Delivery) {
        drop(self.inbox.try_send(Message::Control(Control::Deliver(delivery))));
    }
}

/// What all SETs of a node share.
pub struct Shared {
    /// Who follows which users.
    pub traces: Arc<Traces>,
    pub directory: Directory,
    /// The node's request rate, where it is limited.
    pub gate: Option<Gate>,
    /// The node's line of logins, where their rate is limited.
    pub logins: Option<LoginQueue>,
    /// Each connection's request rate.
    pub connection_rate: Rate,
    pub ledger: LedgerHandle<ReplyPermit>,
    pub generator: mpsc::Sender<StockReport>,
    pub payments: Box<dyn PaymentProvider>,
    /// The queue of whoever offers envelopes to those on-line.
    pub offerings: mpsc::Sender<Offering>,
    /// The queues of those who look after rooms.
    pub room_shards: RoomShards,
    /// Every SET, by index.
    pub sets: Box<[SetHandle]>,
    pub login_seconds: u32,
    /// Silence that ends a connection, seconds.
    pub idle_seconds: u32,
    /// Whether a connection ends when the token expires that its user logged in with.
    pub end_at_expiry: bool,
    /// Users whom an operator keeps out.
    pub barred: Barred,
}

/// Something to be looked at again at a certain second. All deadlines of one kind are equally long:
/// a queue keeps them sorted.
#[derive(Debug, Default)]
struct Deadlines(VecDeque<(u32, ConnectionKey)>);

impl Deadlines {
    fn push(&mut self, second: u32, key: ConnectionKey) {
        self.0.push_back((second, key));
    }

    fn pop_due(&mut self, second: u32) -> Option<ConnectionKey> {
        self.0.pop_front_if(|(due, _)| *due <= second).map(|(_, key)| key)
    }
}

/// A login that waits for an older connection of its user to end.
#[derive(Debug)]
struct PendingLogin {
    user: UserId,
    /// An even newer login, which has ended this one and waits for the same.
    heir: Option<DisplacedBy>,
}

/// See the module.
pub struct Set<W> {
    index: u32,
    shared: Arc<Shared>,
    tally: Arc<SetTally>,
    sessions: Slab<Session<W>>,
    next_generation: u32,
    stock: Stock,
    /// Grabs that wait for the draw of a sale's opening window.
    lotteries: FxHashMap<CampaignId, Lottery>,
    /// Units of cancelled orders that the generator has had no room for.
    released: Vec<(CampaignId, Serial)>,
    /// Envelopes that nobody has had room for to offer.
    unoffered: VecDeque<Offering>,
    output: Output,
    /// Answers owed: requests that somebody else decides.
    owed: u64,
    /// Chat and Room requests among them.
    chats: usize,
    /// Frames pushed to connections of ours by others.
    deliveries: Deliveries,
    /// Requests that the node's gate has let pass, and that have not come up yet.
    admitted: u64,
    /// Logins that wait for an older connection of their user, in another SET, to end.
    pending_logins: FxHashMap<ConnectionKey, PendingLogin>,
    unwelcome: Deadlines,
    partial: Deadlines,
    slow: Deadlines,
    leaving: Deadlines,
    closing: Deadlines,
    idle_cursor: usize,
    sweeps: VecDeque<Sweep>,
    /// Announcements that every connection has had by the end of this batch.
    swept: Vec<Receipt>,
    /// Write sides to be closed once this batch is written.
    finishing: Vec<ConnectionKey>,
    /// Connections whose peer has closed its side, to be closed once they are owed nothing.
    half_closed: Vec<ConnectionKey>,
    /// What came behind a Login that is not answered yet.
    early: FxHashMap<ConnectionKey, Vec<ClientRequest>>,
    /// How many that are of all connections.
    early_count: usize,
    /// Connections that have ended, to be closed.
    ended: Vec<W>,
    /// Users who are followed.
    watched: Watched,
    stopped: bool,
}

impl<W: Wire> Set<W> {
    /// An empty SET. `shared.sets[index]` must be its own handle.
    pub fn new(index: u32, shared: Arc<Shared>) -> Self {
        let tally = Arc::clone(&shared.sets[index as usize].tally);
        Self {
            index,
            shared,
            tally,
            sessions: Slab::new(),
            next_generation: 0,
            stock: Stock::default(),
            lotteries: FxHashMap::default(),
            released: Vec::new(),
            unoffered: VecDeque::new(),
            output: Output::default(),
            owed: 0,
            chats: 0,
            deliveries: Deliveries::default(),
            admitted: 0,
            pending_logins: FxHashMap::default(),
            unwelcome: Deadlines::default(),
            partial: Deadlines::default(),
            slow: Deadlines::default(),
            leaving: Deadlines::default(),
            closing: Deadlines::default(),
            idle_cursor: 0,
            sweeps: VecDeque::new(),
            swept: Vec::new(),
            finishing: Vec::new(),
            half_closed: Vec::new(),
            early: FxHashMap::default(),
            early_count: 0,
            ended: Vec::new(),
            watched: Watched::default(),
            stopped: false,
        }
    }

    /// Takes a new connection in.
    pub fn attach(&mut self, wire: W, now: &Now) -> ConnectionKey {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let slot = self.sessions.insert(Session {
            wire,
            generation,
            state: SessionState::Fresh,
            half_closed: false,
            owed: 0,
            heard_at: now.seconds(),
            partial_since: 0,
            slow_since: 0,
            expires_at: u32::MAX,
            user: None,
            last_grab: 0,
            meter: Meter::default(),
        });
        // A slab grows one by one, and the acceptor stops at the SET's capacity.
        let key = ConnectionKey { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation };
        self.unwelcome.push(now.seconds() + self.shared.login_seconds, key);
        self.tally.accepted.add(1);
        self.count_connections();
        key
    }

    /// Begins a batch: looks who is followed, and asks the node's gate once for all its Grabs.
    pub fn admit(&mut self, batch: &[Message], now: &Now) {
        self.watched.refresh(&self.shared.traces);
        let Some(gate) = &self.shared.gate else { return };
        let grabs = batch
            .iter()
            .filter(|message| matches!(message, Message::Peer { request: ClientRequest::Grab { .. }, .. }))
            .count() as u64;
        self.admitted = if grabs > 0 { gate.admit(grabs, now.at) } else { 0 };
    }

    pub fn apply(&mut self, message: Message, now: &Now) {
        match message {
            Message::Peer { key, request } => self.on_request(key, request, now),
            Message::Reply { key, pending, reply } => self.on_reply(key, pending, reply, now),
            Message::Displaced { key, request } => {
                self.owed -= 1;
                self.displaced(key, request, now);
            }
            Message::Control(control) => self.control(control, now),
            Message::Connected(_) => debug_assert!(false, "the worker attaches connections before applying messages"),
        }
        if self.output.len() > limits::SET_OUTPUT_BYTES_MAX {
            self.flush(now);
        }
    }

    /// Answers a request that met a full queue.
    pub fn refuse(&mut self, key: ConnectionKey, request_id: u64, now: &Now) {
        match self.live(key) {
            Some(session) => session.receive(now),
            None => return self.tally.stale.add(1),
        }
        self.tally.received.add(1);
        self.overloaded(key, request_id);
    }

    /// Ends a batch: writes what it produced, closes what it finished, checks the equations.
    pub fn flush(&mut self, now: &Now) {
        let (sessions, tally) = (&mut self.sessions, &self.tally);
        let mut overflowed = Vec::new();
        let mut offered = 0;
        self.output.drain(|key, frames| {
            let Some(session) =
                sessions.get_mut(key.slot as usize).filter(|session| session.generation == key.generation)
            else {
                return;
            };
            offered += frames.len() as u64;
            match session.wire.write(frames) {
                Written::Sent => {}
                Written::Queued { newly } => {
                    tally.refused_writes.add(1);
                    if newly {
                        session.slow_since = now.seconds();
                        self.slow.push(now.seconds() + limits::SLOW_SECONDS_MAX, key);
                    }
                }
                Written::Overflow => overflowed.push(key),
            }
        });
        self.tally.bytes_out.add(offered);
        self.report_handed(&overflowed);
        for key in overflowed {
            self.end(key, End::Slow, None, now);
        }
        while let Some(key) = self.finishing.pop() {
            if let Some(session) = self.session(key) {
                session.wire.finish();
            }
        }
        self.close_half_closed(now);
        self.report_swept();
        self.check();
    }

    /// Whether [`Control::Stop`] was applied.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    // ---- Answers

    /// The one place where a request is answered: counted, and written where the connection still
    /// lives.
    fn answer(&mut self, key: ConnectionKey, request_id: u64, kind: AnswerKind, event: Event) {
        let is_live = match self.live(key) {
            Some(session) => {
                session.owed = session.owed.saturating_sub(1);
                if session.half_closed {
                    self.half_closed.push(key);
                }
                true
            }
            None => false,
        };
        if self.watched.any() {
            self.trace_answer(key, request_id, kind, is_live.then_some(&event));
        }
        if !is_live {
            return self.answer_gone_as(kind);
        }
        self.tally.answers[kind as usize].add(1);
        self.output.push(key, request_id, event);
    }

    /// Pushes what nobody asked for.
    fn push(&mut self, key: ConnectionKey, event: Event) {
        if let Some(user) = self.followed(key) {
            self.watched.pushed(self.index, key, user, &event);
        }
        self.output.push(key, 0, event);
    }

    #[cold]
    fn trace_answer(&mut self, key: ConnectionKey, request_id: u64, kind: AnswerKind, event: Option<&Event>) {
        if let Some(user) = self.followed(key) {
            let kind = if event.is_some() { kind.label() } else { "gone" };
            self.watched.answered(self.index, key, user, request_id, kind, event);
        }
    }

    /// The user of a connection, where somebody follows it; also of one that has gone and is owed
    /// an answer.
    fn followed(&mut self, key: ConnectionKey) -> Option<UserId> {
        if !self.watched.any() {
            return None;
        }
        let user = match self.session(key) {
            Some(session) => session.user,
            None => self.watched.who_asked(key),
        };
        user.filter(|user| self.watched.has(*user))
    }

    fn answer_gone_as(&mut self, kind: AnswerKind) {
        self.tally.answers[kind as usize].add(1);
        self.tally.undelivered.add(1);
    }

    fn overloaded(&mut self, key: ConnectionKey, request_id: u64) {
        self.overloaded_until(key, request_id, limits::RETRY_AFTER_MS);
    }

    fn overloaded_until(&mut self, key: ConnectionKey, request_id: u64, retry_after_ms: u32) {
        let event = Event::Overloaded(v1::Overloaded { retry_after_ms });
        self.answer(key, request_id, AnswerKind::Overloaded, event);
    }

    fn error(&mut self, key: ConnectionKey, request_id: u64, code: ErrorCode) {
        self.tally.error(code);
        let message = explain(code).to_owned();
        self.answer(key, request_id, AnswerKind::Error, Event::Error(v1::Error { code: code.into(), message }));
    }

    // ---- Small things

    /// Sends the ledger a request. `false`: no room here or there; nothing was sent.
    #[must_use = "what was not sent leaves its request unanswered"]
    fn send(
        &mut self,
        key: ConnectionKey,
        pending: PendingRequest,
        request: impl FnOnce(ReplyPermit) -> WriterRequest<ReplyPermit>,
    ) -> bool {
        let Some(reply) = self.reserve() else { return false };
        let Some(place) = self.shared.ledger.try_reserve() else { return false };
        place.send(request(ReplyPermit::new(reply, key, pending)));
        self.owed += 1;
        true
    }

    /// Permits a service to reply, if there is room for it: from here on the answer is certain to
    /// come, and owed.
    fn permit(&mut self, key: ConnectionKey, pending: PendingRequest) -> Option<ReplyPermit> {
        let place = self.reserve()?;
        self.owed += 1;
        Some(ReplyPermit::new(place, key, pending))
    }

    /// A place in our own queue.
    fn reserve(&self) -> Option<mpsc::OwnedPermit<Message>> {
        self.shared.sets[self.index as usize].inbox.clone().try_reserve_owned().ok()
    }

    fn session(&mut self, key: ConnectionKey) -> Option<&mut Session<W>> {
        self.sessions.get_mut(key.slot as usize).filter(|session| session.generation == key.generation)
    }

    /// The session, unless it has been dismissed.
    fn live(&mut self, key: ConnectionKey) -> Option<&mut Session<W>> {
        self.session(key).filter(|session| session.state != SessionState::Leaving)
    }

    fn key_at(&self, slot: usize) -> Option<ConnectionKey> {
        let session = self.sessions.get(slot)?;
        Some(ConnectionKey { slot: u32::try_from(slot).ok()?, generation: session.generation })
    }

    /// Slots ever used at once; all occupied ones are below.
    fn slots(&self) -> usize {
        self.sessions.capacity().min(limits::SET_CAPACITY_MAX)
    }

    /// The equations that hold between any two batches. Checked in release builds: three additions
    /// and a comparison.
    fn check(&self) {
        self.tally.owed.set(self.owed);
        self.tally.stock.set(self.stock.on_shelves());
        let (received, answered) = (self.tally.received.get(), self.tally.answered());
        if received != answered + self.owed || self.stock.imbalance() != 0 {
            self.tally.broken_equations.add(1);
            tracing::error!(
                event = "equation_broken",
                set = self.index,
                received,
                answered,
                owed = self.owed,
                "an equation of this SET does not hold"
            );
        }
    }
}

fn explain(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unspecified => "unspecified",
        ErrorCode::Malformed => "the frame cannot be read",
        ErrorCode::UnknownRequest => "this server knows no such request",
        ErrorCode::OutOfRange => "a field is out of its range",
        ErrorCode::NotLoggedIn => "log in first",
        ErrorCode::AlreadyLoggedIn => "this connection is logged in already",
        ErrorCode::TokenInvalid => "the token is malformed or wrongly signed",
        ErrorCode::TokenExpired => "the token has expired",
        ErrorCode::TokenForeign => "the token is not meant for logging in here",
        ErrorCode::NoSuchCampaign => "no such campaign",
        ErrorCode::LedgerUnavailable => {
            "wins cannot be recorded at the moment; nothing was won and nothing lost; try again"
        }
        ErrorCode::NoSuchEnvelope => "no such envelope, or it is not for this user",
        ErrorCode::NoSuchOrder => "no such order of this user",
        ErrorCode::InsufficientFunds => "the wallet holds less than this takes; nothing moved",
        ErrorCode::OrderPaid => "the order is paid and can no longer be cancelled",
        ErrorCode::NoSuchRoom => "no such room, or not a member of it",
        ErrorCode::UserBarred => "an operator keeps this user out for a time",
        ErrorCode::RoomFull => "the room has as many members, or the user is in as many rooms, as may be",
    }
}
