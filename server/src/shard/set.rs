//! A SET: an independent partition of connections with all that is theirs — sessions, write sides, stock — and one owner.
//!
//! [`Set::apply`] takes one message at a time and never waits: no await, no clock, no lock that a Grab could meet. What must be
//! written is gathered and goes out once per batch ([`Set::flush`]). The loop around it, and the sockets, are in `worker`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hongbao_proto::limits::PRIZES_PER_FRAME_MAX;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{CampaignId, RequestId, Serial, UserId};
use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::mpsc;

use super::directory::{Address, Directory, Seat};
use super::message::{
    Control, DisplacedBy, Errand, Message, Now, ReturnWindow, Said, SessionInfo, StockReport, Ticket,
};
use super::output::Output;
use super::session::{Phase, Session};
use super::tally::{Answer, SetTally};
use super::wire::{Wire, Written};
use crate::admission::{Gate, Meter, Rate};
use crate::ends::End;
use crate::ledger::writer::{LedgerHandle, Reply, Request, Unavailable};
use crate::ledger::{Claim, Outcome, Posting, Recall, Win};
use crate::limits;
use crate::stock::{Stock, Taken};

/// How to reach a SET from anywhere.
#[derive(Debug, Clone)]
pub struct SetHandle {
    /// Its queue.
    pub inbox: mpsc::Sender<Message>,
    /// Its counters.
    pub tally: Arc<SetTally>,
}

/// What all SETs of a node share.
pub struct Shared {
    /// Where each user is.
    pub directory: Directory,
    /// The node's request rate, where it is limited.
    pub gate: Option<Gate>,
    /// Each connection's request rate.
    pub connection_rate: Rate,
    /// The ledger's queue.
    pub ledger: LedgerHandle<Ticket>,
    /// The generator's queue.
    pub generator: mpsc::Sender<StockReport>,
    /// Every SET, by index.
    pub sets: Box<[SetHandle]>,
    /// From accept to Login, seconds.
    pub login_seconds: u32,
    /// Silence that ends a connection, seconds.
    pub idle_seconds: u32,
}

/// Something to be looked at again at a certain second. All deadlines of one kind are equally long: a queue keeps them sorted.
#[derive(Debug, Default)]
struct Deadlines(VecDeque<(u32, Seat)>);

impl Deadlines {
    fn push(&mut self, second: u32, seat: Seat) {
        self.0.push_back((second, seat));
    }

    fn pop_due(&mut self, second: u32) -> Option<Seat> {
        self.0.pop_front_if(|(due, _)| *due <= second).map(|(_, seat)| seat)
    }
}

/// A login that waits for an older connection of its user to end.
#[derive(Debug)]
struct Waiting {
    user: UserId,
    /// An even newer login, which has ended this one and waits for the same.
    heir: Option<DisplacedBy>,
}

/// Something that goes to every connection, a few at a time.
#[derive(Debug)]
struct Sweep {
    next_slot: usize,
    what: Swept,
}

#[derive(Debug)]
enum Swept {
    Announcement(Bytes),
    Farewell(ReturnWindow),
}

/// See the module.
pub struct Set<W> {
    index: u32,
    shared: Arc<Shared>,
    tally: Arc<SetTally>,
    sessions: Slab<Session<W>>,
    next_generation: u32,
    stock: Stock,
    output: Output,
    /// Answers owed: errands under way for requests.
    owed: u64,
    /// Requests that the node's gate has let pass, and that have not come up yet.
    admitted: u64,
    /// Logins that wait for an older connection of their user, in another SET, to end.
    waiting: FxHashMap<Seat, Waiting>,
    unwelcome: Deadlines,
    partial: Deadlines,
    slow: Deadlines,
    leaving: Deadlines,
    idle_cursor: usize,
    sweeps: VecDeque<Sweep>,
    /// Write sides to be closed once this batch is written.
    finishing: Vec<Seat>,
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
            output: Output::default(),
            owed: 0,
            admitted: 0,
            waiting: FxHashMap::default(),
            unwelcome: Deadlines::default(),
            partial: Deadlines::default(),
            slow: Deadlines::default(),
            leaving: Deadlines::default(),
            idle_cursor: 0,
            sweeps: VecDeque::new(),
            finishing: Vec::new(),
            stopped: false,
        }
    }

    /// Takes a new connection in.
    pub fn attach(&mut self, wire: W, now: &Now) -> Seat {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let slot = self.sessions.insert(Session {
            wire,
            generation,
            phase: Phase::Fresh,
            heard_at: now.seconds(),
            partial_since: 0,
            slow_since: 0,
            user: None,
            last_grab: 0,
            meter: Meter::default(),
        });
        // A slab grows one by one, and the acceptor stops at the SET's capacity.
        let seat = Seat { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation };
        self.unwelcome.push(now.seconds() + self.shared.login_seconds, seat);
        self.tally.accepted.add(1);
        self.tally.connections.set(self.sessions.len() as u64);
        seat
    }

    /// Begins a batch: asks the node's gate once for all its Grabs.
    pub fn admit(&mut self, batch: &[Message], now: &Now) {
        let Some(gate) = &self.shared.gate else { return };
        let grabs =
            batch.iter().filter(|message| matches!(message, Message::Peer { said: Said::Grab { .. }, .. })).count()
                as u64;
        self.admitted = if grabs > 0 { gate.admit(grabs, now.at) } else { 0 };
    }

    /// Applies one message.
    pub fn apply(&mut self, message: Message, now: &Now) {
        match message {
            Message::Peer { seat, said } => self.hear(seat, said, now),
            Message::Reply { seat, errand, reply } => self.reply(seat, errand, reply, now),
            Message::Displaced { seat, request } => {
                self.owed -= 1;
                self.displaced(seat, request, now);
            }
            Message::Control(control) => self.control(control, now),
            Message::Connected(_) => debug_assert!(false, "the worker attaches connections before applying messages"),
        }
        if self.output.len() > limits::SET_OUTPUT_BYTES_MAX {
            self.flush(now);
        }
    }

    /// Answers a request that met a full queue.
    pub fn refuse(&mut self, seat: Seat, request_id: u64, now: &Now) {
        match self.live(seat) {
            Some(session) => session.heard_at = now.seconds(),
            None => return self.tally.stale.add(1),
        }
        self.tally.received.add(1);
        self.overloaded(seat, request_id);
    }

    /// Ends a batch: writes what it produced, closes what it finished, checks the equations.
    pub fn flush(&mut self, now: &Now) {
        let (sessions, tally) = (&mut self.sessions, &self.tally);
        let mut overflowed = Vec::new();
        let mut offered = 0;
        self.output.drain(|seat, frames| {
            let Some(session) =
                sessions.get_mut(seat.slot as usize).filter(|session| session.generation == seat.generation)
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
                        self.slow.push(now.seconds() + limits::SLOW_SECONDS_MAX, seat);
                    }
                }
                Written::Overflow => overflowed.push(seat),
            }
        });
        self.tally.bytes_out.add(offered);
        for seat in overflowed {
            self.end(seat, End::Slow, None, now);
        }
        while let Some(seat) = self.finishing.pop() {
            if let Some(session) = self.session(seat) {
                session.wire.finish();
            }
        }
        self.check();
    }

    /// Whether something waits to be swept over the connections.
    pub fn is_sweeping(&self) -> bool {
        !self.sweeps.is_empty()
    }

    /// Takes the oldest sweep a few connections further.
    pub fn sweep(&mut self, now: &Now) {
        let Some(mut sweep) = self.sweeps.pop_front() else { return };
        let until = sweep.next_slot + limits::SWEEP_STEP;
        for slot in sweep.next_slot..until.min(self.slots()) {
            let Some(seat) = self.seat_at(slot) else { continue };
            match &sweep.what {
                Swept::Announcement(frame) => self.announce(seat, frame, now),
                Swept::Farewell(window) => self.dismiss(seat, End::Draining, Some(window.moment(slot)), now),
            }
        }
        sweep.next_slot = until;
        if until < self.slots() {
            self.sweeps.push_front(sweep);
        }
    }

    /// Whether [`Control::Stop`] was applied.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    // ---- What peers say

    fn hear(&mut self, seat: Seat, said: Said, now: &Now) {
        if let Said::Gone(end) = said {
            return self.gone(seat, end);
        }
        let partial = matches!(said, Said::Partial);
        let rate = self.shared.connection_rate;
        let Some(session) = self.live(seat) else { return self.tally.stale.add(1) };
        if partial {
            // Second 0 means "none"; the process is older than that when its first frame arrives in pieces.
            session.partial_since = now.seconds().max(1);
            return self.partial.push(now.seconds() + limits::FRAME_SECONDS_MAX, seat);
        }
        session.heard_at = now.seconds();
        session.partial_since = 0;
        if let Said::Violation { request, code, end } = said {
            self.tally.received.add(1);
            self.error(seat, request, code);
            return self.end(seat, end, None, now);
        }
        let phase = session.phase;
        let within_rate = session.meter.admit(&rate, now.at);
        self.tally.received.add(1);
        match said {
            Said::Login { request, .. } if phase != Phase::Fresh => {
                self.error(seat, request.get(), ErrorCode::AlreadyLoggedIn)
            }
            Said::Login { request, user } => self.login(seat, request, user, now),
            _ if phase != Phase::Online => {
                self.error(seat, said.request_id(), ErrorCode::NotLoggedIn);
                if phase == Phase::Fresh {
                    self.end(seat, End::Protocol, None, now);
                }
            }
            _ if !within_rate => self.overloaded(seat, said.request_id()),
            Said::Grab { request, campaign } => self.grab(seat, request, campaign, now),
            Said::Ping { request } => {
                self.answer(seat, request.get(), Answer::Pong, Event::Pong(v1::Pong { server_time_ms: now.wall }))
            }
            Said::Acknowledge { request, prizes } => self.acknowledge(seat, request, prizes),
            Said::Mistake { request, code } => self.error(seat, request, code),
            Said::Partial | Said::Violation { .. } | Said::Gone(_) => unreachable!("handled above"),
        }
    }

    fn grab(&mut self, seat: Seat, request: RequestId, wanted: Option<CampaignId>, now: &Now) {
        self.tally.grabs.add(1);
        if self.shared.gate.is_some() {
            match self.admitted.checked_sub(1) {
                Some(left) => self.admitted = left,
                None => return self.overloaded(seat, request.get()),
            }
        }
        let session = &mut self.sessions[seat.slot as usize];
        let Some(user) = session.user else { return self.error(seat, request.get(), ErrorCode::NotLoggedIn) };
        if request.get() <= session.last_grab {
            return self.first_answer(seat, user, request, wanted);
        }
        let before = std::mem::replace(&mut session.last_grab, request.get());
        match self.stock.take(wanted, now.wall) {
            Taken::Prize { campaign, serial, amount } => {
                let posting = Posting::Claim(Claim { user, request, campaign, serial, amount });
                let errand = Errand::Claim { request, campaign, serial };
                if !self.send(seat, errand, |reply_to| Request::Post { posting, reply_to }) {
                    self.stock.put_back(campaign, serial);
                    self.sessions[seat.slot as usize].last_grab = before;
                    self.overloaded(seat, request.get());
                }
            }
            other => self.not_taken(seat, request, other),
        }
    }

    fn not_taken(&mut self, seat: Seat, request: RequestId, taken: Taken) {
        let (kind, event) = match taken {
            Taken::SoldOut => (Answer::SoldOut, Event::SoldOut(v1::SoldOut {})),
            Taken::TooEarly { starts_at } => {
                (Answer::TooEarly, Event::TooEarly(v1::TooEarly { starts_at_ms: starts_at }))
            }
            Taken::TooLate { ended_at } => (Answer::TooLate, Event::TooLate(v1::TooLate { ended_at_ms: ended_at })),
            Taken::NoSuchCampaign => return self.error(seat, request.get(), ErrorCode::NoSuchCampaign),
            Taken::NoneNow | Taken::Prize { .. } => (Answer::NoneNow, Event::NoneNow(v1::NoneNow {})),
        };
        self.answer(seat, request.get(), kind, event);
    }

    /// A Grab whose id is not new: what it won is in the ledger, or nowhere.
    fn first_answer(&mut self, seat: Seat, user: UserId, request: RequestId, campaign: Option<CampaignId>) {
        if !self.send(seat, Errand::FirstAnswer { request, campaign }, |reply_to| Request::FirstAnswer {
            user,
            request,
            reply_to,
        }) {
            self.overloaded(seat, request.get());
        }
    }

    fn acknowledge(&mut self, seat: Seat, request: RequestId, prizes: Box<[(CampaignId, Serial)]>) {
        let Some(user) = self.sessions[seat.slot as usize].user else { return };
        let posting = Posting::Acknowledge { user, prizes };
        if !self.send(seat, Errand::Acknowledge { request }, |reply_to| Request::Post { posting, reply_to }) {
            self.overloaded(seat, request.get());
        }
    }

    // ---- Login

    /// Takes the user's place in the directory. An older connection ends first, so that what it had still queued can no
    /// longer win, and all it has won is ahead of our question in the ledger's queue.
    fn login(&mut self, seat: Seat, request: RequestId, user: UserId, now: &Now) {
        let session = &mut self.sessions[seat.slot as usize];
        session.phase = Phase::LoggingIn;
        session.user = Some(user);
        let here = Address { set: self.index, seat };
        match self.shared.directory.enter(user, here) {
            None => self.recall(seat, request, now),
            Some(older) if older.set == self.index => {
                self.dismiss(older.seat, End::Replaced, None, now);
                if !self.waiting.contains_key(&older.seat) {
                    return self.recall(seat, request, now);
                }
                match self.reserve() {
                    Some(permit) => {
                        self.wait(seat, user);
                        self.succeed(older.seat, DisplacedBy { permit, seat, request });
                    }
                    None => {
                        self.shared.directory.enter(user, older);
                        self.login_again_later(seat, request, now);
                    }
                }
            }
            Some(older) => {
                let told = self.reserve().is_some_and(|permit| {
                    let newer = DisplacedBy { permit, seat, request };
                    let displace = Message::Control(Control::Displace { seat: older.seat, newer });
                    self.shared.sets[older.set as usize].inbox.try_send(displace).is_ok()
                });
                if told {
                    self.wait(seat, user);
                } else {
                    // As if the newer login had not been: the older connection keeps its place.
                    self.shared.directory.enter(user, older);
                    self.login_again_later(seat, request, now);
                }
            }
        }
    }

    /// A login that must wait until the user's older connection has ended.
    fn wait(&mut self, seat: Seat, user: UserId) {
        self.owed += 1;
        self.waiting.insert(seat, Waiting { user, heir: None });
    }

    /// The connection of `seat` has ended for a newer one: which may go on now, or, where `seat` itself was still waiting for
    /// an even older one, once that has ended too.
    fn succeed(&mut self, seat: Seat, newer: DisplacedBy) {
        match self.waiting.get_mut(&seat) {
            Some(waiting) => waiting.heir = Some(newer),
            None => newer.let_in(),
        }
    }

    /// What this login waited for has happened.
    fn displaced(&mut self, seat: Seat, request: RequestId, now: &Now) {
        let Some(Waiting { user, heir }) = self.waiting.remove(&seat) else { return };
        match (self.live(seat).is_some(), heir) {
            (true, _) => return self.recall(seat, request, now),
            (false, Some(newer)) => newer.let_in(),
            // It went while it waited, and kept its place until now so that nobody else could come in between.
            (false, None) => self.shared.directory.leave(user, Address { set: self.index, seat }),
        }
        self.answer_gone_as(Answer::Welcome);
    }

    /// Asks the ledger what the user must be told.
    fn recall(&mut self, seat: Seat, request: RequestId, now: &Now) {
        let Some(user) = self.session(seat).and_then(|session| session.user) else { return };
        if !self.send(seat, Errand::Recall { request }, |reply_to| Request::Recall { user, reply_to }) {
            self.shared.directory.leave(user, Address { set: self.index, seat });
            self.login_again_later(seat, request, now);
        }
    }

    fn login_again_later(&mut self, seat: Seat, request: RequestId, now: &Now) {
        if let Some(session) = self.session(seat) {
            session.phase = Phase::Fresh;
            session.user = None;
            self.unwelcome.push(now.seconds() + self.shared.login_seconds, seat);
        }
        self.overloaded(seat, request.get());
    }

    fn welcome(&mut self, seat: Seat, request: RequestId, recall: &Recall, now: &Now) {
        let idle_timeout_ms = self.shared.idle_seconds.saturating_mul(1_000);
        let Some(session) = self.session(seat) else { return };
        let Some(user) = session.user else { return };
        session.phase = Phase::Online;
        session.last_grab = recall.last_request.map_or(0, RequestId::get);
        self.tally.online.add(1);
        let welcome = v1::Welcome {
            user_id: user.get(),
            server_time_ms: now.wall,
            idle_timeout_ms,
            unacknowledged: u32::try_from(recall.unacknowledged.len()).unwrap_or(u32::MAX),
        };
        self.answer(seat, request.get(), Answer::Welcome, Event::Welcome(welcome));
        for wins in recall.unacknowledged.chunks(PRIZES_PER_FRAME_MAX) {
            let wins = wins.iter().copied().map(won).collect();
            self.output.push(seat, 0, Event::Reminder(v1::Reminder { wins }));
        }
    }

    // ---- What services reply

    fn reply(&mut self, seat: Seat, errand: Errand, reply: Reply, now: &Now) {
        self.owed -= 1;
        match (errand, reply) {
            (Errand::Claim { request, campaign, serial }, Reply::Posted(result)) => {
                match result {
                    Ok(Outcome::Won(_)) => self.stock.claimed(campaign),
                    Ok(Outcome::Taken | Outcome::Refused(_)) => self.void(campaign, serial, &result),
                    Ok(_) | Err(_) => self.stock.put_back(campaign, serial),
                }
                match result {
                    Ok(Outcome::Won(win) | Outcome::Repeated(win)) => {
                        self.answer(seat, request.get(), Answer::Won, Event::Won(won(win)))
                    }
                    Ok(Outcome::LimitReached { limit }) => {
                        self.answer(
                            seat,
                            request.get(),
                            Answer::LimitReached,
                            Event::LimitReached(v1::LimitReached { limit }),
                        );
                    }
                    Ok(Outcome::Taken | Outcome::Refused(_) | Outcome::Acknowledged { .. }) => {
                        self.not_taken(seat, request, Taken::NoneNow)
                    }
                    Err(_) => {
                        // Nothing was decided: the same id may be sent again.
                        if let Some(session) = self.session(seat)
                            && session.last_grab == request.get()
                        {
                            session.last_grab -= 1;
                        }
                        self.error(seat, request.get(), ErrorCode::LedgerUnavailable);
                    }
                }
            }
            (Errand::FirstAnswer { request, .. }, Reply::FirstAnswer(Ok(Some(win)))) => {
                self.answer(seat, request.get(), Answer::Won, Event::Won(won(win)));
            }
            (Errand::FirstAnswer { request, campaign }, Reply::FirstAnswer(Ok(None))) => {
                let taken = self.stock.closed(campaign, now.wall).unwrap_or(Taken::NoneNow);
                self.not_taken(seat, request, taken);
            }
            (Errand::Acknowledge { request }, Reply::Posted(Ok(Outcome::Acknowledged { count }))) => {
                self.answer(seat, request.get(), Answer::Acknowledged, Event::Acknowledged(v1::Acknowledged { count }));
            }
            (Errand::Recall { request }, Reply::Recalled(Ok(recall))) => match self.live(seat) {
                Some(_) => self.welcome(seat, request, &recall, now),
                None => self.answer_gone_as(Answer::Welcome),
            },
            (Errand::Recall { request }, _) => {
                let user = self.live(seat).and_then(|session| {
                    session.phase = Phase::Fresh;
                    session.user.take()
                });
                if let Some(user) = user {
                    self.shared.directory.leave(user, Address { set: self.index, seat });
                    self.unwelcome.push(now.seconds() + self.shared.login_seconds, seat);
                }
                self.error(seat, request.get(), ErrorCode::LedgerUnavailable);
            }
            (
                Errand::FirstAnswer { request, .. } | Errand::Acknowledge { request } | Errand::Claim { request, .. },
                _,
            ) => {
                self.error(seat, request.get(), ErrorCode::LedgerUnavailable);
            }
        }
    }

    /// The ledger would not have it: the stock keeper has erred, and the serial must not be offered again.
    fn void(&mut self, campaign: CampaignId, serial: Serial, result: &Result<Outcome, Unavailable>) {
        tracing::error!(set = self.index, %campaign, %serial, ?result, "the ledger refused a prize of ours; dropped");
        self.stock.void(campaign);
    }

    // ---- What the generator, operators and the clock say

    fn control(&mut self, control: Control, now: &Now) {
        match control {
            Control::Supply { campaign, serials } => {
                let shelved = self.stock.supply(campaign, &serials);
                // The generator announces a campaign before it supplies it, in the same queue.
                debug_assert!(shelved, "supply of an unannounced campaign");
            }
            Control::Phase { campaign, terms, phase } => {
                self.stock.set_phase(campaign, &terms, phase);
                self.return_stock();
            }
            Control::GiveBack { campaign } => self.give_back(campaign),
            Control::Report { round } => {
                self.return_stock();
                let report = StockReport::Books { set: self.index, round, books: self.stock.books().collect() };
                // A full queue: the generator asks again in a second.
                self.shared.generator.try_send(report).ok();
            }
            Control::Displace { seat, newer } => {
                self.dismiss(seat, End::Replaced, None, now);
                self.succeed(seat, newer);
            }
            Control::Kick { seat, user } => {
                if self.live(seat).is_some_and(|session| session.user == Some(user)) {
                    self.dismiss(seat, End::Kicked, None, now);
                }
            }
            Control::Announce(frame) => {
                if self.sweeps.len() < limits::ANNOUNCEMENTS_PENDING_MAX {
                    self.sweeps.push_back(Sweep { next_slot: 0, what: Swept::Announcement(frame) });
                } else {
                    self.tally.announcements_dropped.add(1);
                }
            }
            Control::Farewell(window) => self.sweeps.push_back(Sweep { next_slot: 0, what: Swept::Farewell(window) }),
            Control::List { from_slot, limit, reply } => {
                // The asker may have given up.
                reply.send(self.list(from_slot as usize, limit, now)).ok();
            }
            Control::Tick => self.tick(now),
            Control::Stop => self.stopped = true,
        }
    }

    fn tick(&mut self, now: &Now) {
        let second = now.seconds();
        while let Some(seat) = self.unwelcome.pop_due(second) {
            if self.live(seat).is_some_and(|session| session.phase == Phase::Fresh) {
                self.dismiss(seat, End::LoginTimeout, None, now);
            }
        }
        while let Some(seat) = self.partial.pop_due(second) {
            let began = second.saturating_sub(limits::FRAME_SECONDS_MAX);
            if self
                .live(seat)
                .is_some_and(|session| session.partial_since != 0 && session.partial_since <= began.max(1))
            {
                self.dismiss(seat, End::Stalled, None, now);
            }
        }
        while let Some(seat) = self.slow.pop_due(second) {
            let became = second.saturating_sub(limits::SLOW_SECONDS_MAX);
            if self.session(seat).is_some_and(|session| session.slow_since <= became && session.wire.backlog() > 0) {
                self.end(seat, End::Slow, None, now);
            }
        }
        while let Some(seat) = self.leaving.pop_due(second) {
            if let Some(session) = self.session(seat) {
                session.wire.cut();
            }
        }
        self.sweep_idle(now);
        self.return_stock();
    }

    fn sweep_idle(&mut self, now: &Now) {
        let slots = self.slots();
        for _ in 0..limits::IDLE_SWEEP_STEP.min(slots) {
            self.idle_cursor = (self.idle_cursor + 1) % slots;
            let Some(session) = self.sessions.get(self.idle_cursor) else { continue };
            let silent = now.seconds().saturating_sub(session.heard_at);
            if session.phase == Phase::Online && silent >= self.shared.idle_seconds {
                let slot = u32::try_from(self.idle_cursor).unwrap_or(u32::MAX);
                self.dismiss(Seat { slot, generation: session.generation }, End::Idle, None, now);
            }
        }
    }

    /// Gives stock that nobody here can take back to the generator.
    fn return_stock(&mut self) {
        let deserted = self.tally.online.get() == 0;
        let campaigns: Vec<_> = self.stock.withdrawable(deserted).collect();
        for campaign in campaigns {
            self.give_back(campaign);
        }
    }

    /// Empties a shelf. What the generator has no room for stays.
    fn give_back(&mut self, campaign: CampaignId) {
        loop {
            let serials = self.stock.withdraw(campaign, limits::RETURN_BATCH_MAX);
            if serials.is_empty() {
                return;
            }
            let returned = StockReport::Returned { set: self.index, campaign, serials };
            if let Err(refused) = self.shared.generator.try_send(returned) {
                if let StockReport::Returned { serials, .. } = refused.into_inner() {
                    self.stock.undo_withdraw(campaign, serials);
                }
                return;
            }
        }
    }

    fn list(&mut self, from_slot: usize, limit: usize, now: &Now) -> Vec<SessionInfo> {
        (from_slot..self.slots())
            .filter_map(|slot| {
                let session = self.sessions.get_mut(slot)?;
                Some(SessionInfo {
                    set: self.index,
                    slot: u32::try_from(slot).unwrap_or(u32::MAX),
                    user: session.user.map(UserId::get),
                    state: session.phase.label(),
                    peer: session.wire.peer(),
                    silent_seconds: now.seconds().saturating_sub(session.heard_at),
                    outbox_bytes: session.wire.backlog(),
                })
            })
            .take(limit)
            .collect()
    }

    fn announce(&mut self, seat: Seat, frame: &[u8], now: &Now) {
        let Some(session) = self.live(seat) else { return };
        if session.phase != Phase::Online {
            return;
        }
        match session.wire.write(frame) {
            Written::Sent => {}
            Written::Queued { newly } => {
                if newly {
                    session.slow_since = now.seconds();
                    self.slow.push(now.seconds() + limits::SLOW_SECONDS_MAX, seat);
                }
            }
            Written::Overflow => return self.end(seat, End::Slow, None, now),
        }
        self.tally.announced.add(1);
        self.tally.bytes_out.add(frame.len() as u64);
    }

    // ---- Ends

    /// Ends a connection of ours, where it has not ended yet.
    fn dismiss(&mut self, seat: Seat, end: End, return_after_ms: Option<u32>, now: &Now) {
        if self.live(seat).is_some() {
            self.end(seat, end, return_after_ms, now);
        }
    }

    /// The one place where a connection that we end is ended: counted, told, forgotten by the directory.
    fn end(&mut self, seat: Seat, end: End, return_after_ms: Option<u32>, now: &Now) {
        self.retire(seat, end);
        match end.goodbye() {
            Some(reason) => {
                self.output.push(seat, 0, Event::Goodbye(v1::Goodbye { reason: reason.into(), return_after_ms }));
                self.finishing.push(seat);
                self.leaving.push(now.seconds() + limits::LINGER_SECONDS, seat);
            }
            None => {
                if let Some(session) = self.session(seat) {
                    session.wire.cut();
                }
            }
        }
    }

    /// The reader has ended: nothing more will come, and nothing more can be told.
    fn gone(&mut self, seat: Seat, end: End) {
        self.retire(seat, end);
        if self.session(seat).is_some() {
            self.sessions.remove(seat.slot as usize);
            self.tally.connections.set(self.sessions.len() as u64);
        }
    }

    /// Counts the end of a connection, once.
    fn retire(&mut self, seat: Seat, end: End) {
        let Some(session) = self.live(seat) else { return };
        let (was_online, user) = (session.phase == Phase::Online, session.user);
        session.phase = Phase::Leaving;
        if let Some(user) = user
            && !self.waiting.contains_key(&seat)
        {
            self.shared.directory.leave(user, Address { set: self.index, seat });
        }
        if was_online {
            self.tally.online.set(self.tally.online.get() - 1);
        }
        self.tally.ends[end as usize].add(1);
    }

    // ---- Answers

    /// The one place where a request is answered: counted, and written where the connection still lives.
    fn answer(&mut self, seat: Seat, request_id: u64, kind: Answer, event: Event) {
        if self.live(seat).is_none() {
            return self.answer_gone_as(kind);
        }
        self.tally.answers[kind as usize].add(1);
        self.output.push(seat, request_id, event);
    }

    fn answer_gone_as(&mut self, kind: Answer) {
        self.tally.answers[kind as usize].add(1);
        self.tally.undelivered.add(1);
    }

    fn overloaded(&mut self, seat: Seat, request_id: u64) {
        let event = Event::Overloaded(v1::Overloaded { retry_after_ms: limits::RETRY_AFTER_MS });
        self.answer(seat, request_id, Answer::Overloaded, event);
    }

    fn error(&mut self, seat: Seat, request_id: u64, code: ErrorCode) {
        self.tally.error(code);
        let message = explain(code).to_owned();
        self.answer(seat, request_id, Answer::Error, Event::Error(v1::Error { code: code.into(), message }));
    }

    // ---- Small things

    /// Sends an errand with its way back reserved. `false`: no room here or there; nothing was sent.
    #[must_use = "an errand that was not sent leaves its request unanswered"]
    fn send(&mut self, seat: Seat, errand: Errand, request: impl FnOnce(Ticket) -> Request<Ticket>) -> bool {
        let Some(permit) = self.reserve() else { return false };
        if self.shared.ledger.try_send(request(Ticket { permit, seat, errand })).is_err() {
            return false;
        }
        self.owed += 1;
        true
    }

    /// A place in our own queue.
    fn reserve(&self) -> Option<mpsc::OwnedPermit<Message>> {
        self.shared.sets[self.index as usize].inbox.clone().try_reserve_owned().ok()
    }

    fn session(&mut self, seat: Seat) -> Option<&mut Session<W>> {
        self.sessions.get_mut(seat.slot as usize).filter(|session| session.generation == seat.generation)
    }

    /// The session, unless it has been dismissed.
    fn live(&mut self, seat: Seat) -> Option<&mut Session<W>> {
        self.session(seat).filter(|session| session.phase != Phase::Leaving)
    }

    fn seat_at(&self, slot: usize) -> Option<Seat> {
        let session = self.sessions.get(slot)?;
        Some(Seat { slot: u32::try_from(slot).ok()?, generation: session.generation })
    }

    /// Slots ever used at once; all occupied ones are below.
    fn slots(&self) -> usize {
        self.sessions.capacity().min(limits::SET_CAPACITY_MAX)
    }

    /// The equations that hold between any two batches. Checked in release builds: three additions and a comparison.
    fn check(&self) {
        self.tally.owed.set(self.owed);
        let (received, answered) = (self.tally.received.get(), self.tally.answered());
        if received != answered + self.owed || self.stock.imbalance() != 0 {
            self.tally.broken_equations.add(1);
            tracing::error!(
                set = self.index,
                received,
                answered,
                owed = self.owed,
                "an equation of this SET does not hold"
            );
        }
    }
}

impl Said {
    /// The id to echo.
    fn request_id(&self) -> u64 {
        match self {
            Said::Grab { request, .. }
            | Said::Login { request, .. }
            | Said::Acknowledge { request, .. }
            | Said::Ping { request } => request.get(),
            Said::Mistake { request, .. } | Said::Violation { request, .. } => *request,
            Said::Partial | Said::Gone(_) => 0,
        }
    }
}

impl ReturnWindow {
    /// A moment inside the window for the connection in `slot`: multiplicative hashing spreads neighbours.
    fn moment(&self, slot: usize) -> u32 {
        let span = u64::from(self.until_ms.saturating_sub(self.from_ms)) + 1;
        let spread = (slot as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.from_ms + u32::try_from((spread * span) >> 32).unwrap_or(0)
    }
}

fn won(win: Win) -> v1::Won {
    v1::Won {
        campaign_id: win.campaign.get(),
        serial: win.serial.0,
        amount_fen: win.amount.0,
        won_by_request_id: win.request.get(),
    }
}

fn explain(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unspecified => "unspecified",
        ErrorCode::Malformed => "the frame cannot be read",
        ErrorCode::UnknownRequest => "this server knows no such request",
        ErrorCode::OutOfRange => "a field is out of its range",
        ErrorCode::NotLoggedIn => "log in first, and wait for the welcome",
        ErrorCode::AlreadyLoggedIn => "this connection is logged in already",
        ErrorCode::TokenInvalid => "the token is malformed or wrongly signed",
        ErrorCode::TokenExpired => "the token has expired",
        ErrorCode::TokenForeign => "the token is not meant for logging in here",
        ErrorCode::NoSuchCampaign => "no such campaign",
        ErrorCode::LedgerUnavailable => {
            "wins cannot be recorded at the moment; nothing was won and nothing lost; try again"
        }
    }
}
