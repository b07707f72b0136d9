//! The users of a machine and all that changes them: one owner, plain functions, the time passed
//! in. Tasks around it only wait (for bytes, for the next turn, for commands) and then call in;
//! none holds a borrow across an await.
//!
//! Here: the schedule, housekeeping, writing. In `turns`: what a turn is, and the answers to turns.
//! In `connections`: how users come and go. In `answers`: what else comes from the server, wins and
//! acknowledges. In `unscheduled`: what users do of their own accord. In `purchases`: envelopes,
//! orders, statements. In `storm`: connections cut on command.

mod answers;
mod connections;
mod purchases;
mod storm;
mod turns;
mod unscheduled;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write as _;
use std::net::Shutdown;

use hongbao_proto::token::Signer;
use hongbao_proto::v1::Ping;
use hongbao_proto::v1::client_frame::Request;
use rustc_hash::FxHashMap;

use crate::backoff;
use crate::clock::{MILLISECOND, SECOND};
use crate::ids::{self, RunTag};
use crate::limits::{LOGIN_DEADLINE_MS, OUTBOX_BYTES_MAX, SWEEP_ROUNDS};
use crate::machine::announcements::Announcements;
use crate::machine::chat::{Chats, Circle};
use crate::machine::config::MachineConfig;
use crate::machine::envelopes::Envelopes;
use crate::machine::labels::EndReason;
use crate::machine::orders::OrderBook;
use crate::machine::outstanding::Outstanding;
use crate::machine::prizes::PrizeBook;
use crate::machine::reactions::Reactions;
use crate::machine::statements::Statements;
use crate::machine::storms::Storms;
use crate::machine::tally::Tally;
use crate::machine::user::{State, User};
use crate::machine::wire::{self, GrabTemplate};
use crate::results::SaleOrder;
use crate::schedule::mix::{Mix, Operation};
use crate::schedule::{Schedule, ScheduleChange, Spread, Turn, Turns};
use answers::Unacknowledged;
use hongbao_telemetry::journal::Journal;
use turns::Asked;

/// Why a change of QPS is refused.
#[derive(Debug, thiserror::Error)]
pub enum QpsError {
    #[error(transparent)]
    Change(#[from] crate::schedule::ChangeError),
    #[error(transparent)]
    Epoch(#[from] ids::EpochError),
}

/// How many users are where.
#[derive(Debug, Clone, Copy, Default)]
pub struct Census {
    pub connected: u32,
    pub online: u32,
    /// Told not to come back.
    pub retired: u32,
}

/// All state of a machine.
#[derive(Debug)]
pub struct Crowd {
    pub tally: Tally,
    pub prizes: PrizeBook,
    pub announcements: Announcements,
    /// Answers owed.
    pub outstanding: Outstanding,
    /// Storms, past and to come.
    pub storms: Storms,
    pub schedule: Schedule,
    pub census: Census,
    /// Acknowledges on the way, and what is about to be acknowledged.
    pub acknowledges_under_way: u64,
    /// What users do of their own accord.
    pub reactions: Reactions,
    pub envelopes: Envelopes,
    pub orders: OrderBook,
    pub chats: Chats,
    pub statements: Statements,
    users: Box<[User]>,
    /// Index of our first user in the whole fleet, and its id, which is one more.
    first: u32,
    turns: Turns,
    tag: Option<RunTag>,
    journal: Journal,
    signer: Signer,
    token_ttl_seconds: u64,
    grab: GrabTemplate,
    /// What requests are where nothing else is said.
    mix: Mix,
    /// What requests are, by segment of the schedule.
    mixes: Vec<Mix>,
    /// Requests under way that are no Grabs of a rain, and those given up.
    asked: FxHashMap<u64, Asked>,
    /// What ticket turns grab from.
    pub sale: Option<SaleOrder>,
    /// Users open what they are offered at once.
    react: bool,
    answer_timeout_ms: u32,
    /// Set by the first Welcome.
    ping_after_ms: u32,
    /// The machine's start, Unix nanoseconds.
    started: u64,
    /// Users before this one have been connected at least once.
    newcomers: u32,
    /// (milliseconds since start, user), of users without a connection who come back then.
    comebacks: BinaryHeap<Reverse<(u32, u32)>>,
    /// (milliseconds since start, user, since when it waits), of users who log in again then on the
    /// connection that they have.
    appointments: BinaryHeap<Reverse<(u32, u32, u32)>>,
    /// The beginnings of frames whose rest has not come yet. Nearly every user has none.
    partial_frames: FxHashMap<u32, Vec<u8>>,
    /// Bytes that sockets refused.
    refused: FxHashMap<u32, Vec<u8>>,
    /// Why connections that are ending end, and when their users come back, in milliseconds from
    /// the end.
    farewells: FxHashMap<u32, (EndReason, Option<u64>)>,
    /// In the journal, to be acknowledged.
    unacknowledged: Vec<(u32, Unacknowledged)>,
    swept: u32,
    halted: bool,
    closing: bool,
}

impl Crowd {
    /// Users without connections, at Unix nanosecond `started`.
    pub fn new(config: &MachineConfig, journal: Journal, started: u64) -> Self {
        let count = config.user_count();
        let first = config.first_index();
        Self {
            tally: Tally::default(),
            prizes: PrizeBook::default(),
            announcements: Announcements::new(count),
            outstanding: Outstanding::new(count),
            storms: Storms::default(),
            schedule: Schedule::default(),
            census: Census::default(),
            acknowledges_under_way: 0,
            reactions: Reactions::default(),
            envelopes: Envelopes::default(),
            orders: OrderBook::default(),
            chats: Chats::new(Circle { total: config.total.into(), rooms: config.common.rooms.into() }),
            statements: Statements::default(),
            users: (0..count).map(|_| User::default()).collect(),
            first,
            turns: Turns::new(Spread::new(config.total), first, first + count - 1),
            tag: None,
            journal,
            signer: Signer::new(&config.secret),
            token_ttl_seconds: config.token_ttl.as_secs(),
            grab: GrabTemplate::new(config.campaign),
            mix: config.common.mix,
            mixes: Vec::new(),
            asked: FxHashMap::default(),
            sale: config.sale.map(|campaign| SaleOrder { campaign, limit: None }),
            react: config.react,
            answer_timeout_ms: u32::try_from(config.common.answer_timeout.as_millis()).unwrap_or(u32::MAX),
            ping_after_ms: u32::MAX,
            started,
            newcomers: 0,
            comebacks: BinaryHeap::new(),
            appointments: BinaryHeap::new(),
            partial_frames: FxHashMap::default(),
            refused: FxHashMap::default(),
            farewells: FxHashMap::default(),
            unacknowledged: Vec::new(),
            swept: 0,
            halted: false,
            closing: false,
        }
    }

    pub fn user_count(&self) -> u32 {
        u32::try_from(self.users.len()).unwrap_or(u32::MAX)
    }

    // ---- The schedule

    /// From Unix nanosecond `at` on the fleet sends `qps` requests a second.
    /// `mix`: what the requests are, if not what the machine was started with, or, of a change
    /// before ones that are already announced, what they were.
    pub fn announce(&mut self, at: u64, qps: u32, mix: Option<Mix>, now: u64) -> Result<(), QpsError> {
        let tag = match self.tag {
            Some(tag) => tag,
            None => RunTag::new(at / SECOND)?,
        };
        let change = self.schedule.announce(at, qps, now)?;
        self.tag = Some(tag);
        let is_last = |index| index + 1 == self.schedule.segments.len();
        let mix = mix.unwrap_or(match change {
            ScheduleChange::Added(index) if index > 0 && !is_last(index) => self.mixes[index - 1],
            ScheduleChange::Replaced(index) => self.mixes[index],
            ScheduleChange::Added(_) => self.mix,
        });
        if !mix.is_grabs() {
            self.tally.separate_operations();
        }
        match change {
            ScheduleChange::Added(index) => {
                self.tally.add_segment(index, at, qps);
                self.mixes.insert(index, mix);
            }
            ScheduleChange::Replaced(index) => {
                self.tally.segments[index].qps = qps;
                self.mixes[index] = mix;
            }
        }
        Ok(())
    }

    /// Nothing is due any more, whatever the schedule says.
    pub fn halt(&mut self) {
        self.halted = true;
    }

    /// When the next turn of this machine is due.
    pub fn next_due(&self) -> Option<u64> {
        self.next_turn().map(|turn| turn.due)
    }

    /// Grabs of rain and sale that the schedule has due by `now`, those among them that this
    /// machine has not come round to.
    pub fn overdue_grabs(&self, now: u64) -> u64 {
        let overdue = self.turns.overdue(&self.schedule, now);
        if self.mixes.iter().all(Mix::is_grabs) {
            return overdue;
        }
        let is_grab = |ahead: &u64| {
            let request = self.turns.request_ahead(*ahead);
            let operation = self.schedule.segment_of(request).map(|segment| self.mixes[segment].of(request));
            matches!(operation, Some(Operation::Grab | Operation::Ticket))
        };
        (0..overdue).filter(is_grab).count() as u64
    }

    /// Requests of the schedule up to and with second `last`, of every kind: due, sent, answered. Each
    /// is its second's, whenever that is asked; a machine that falls behind does not plan less.
    pub fn scheduled(&self, last: u64, now: u64) -> (u64, u64, u64) {
        let end = last.saturating_add(1).saturating_mul(SECOND) - 1;
        let (came_up, sent, answered) = self.tally.scheduled(last);
        (came_up + self.turns.overdue(&self.schedule, end.min(now)), sent, answered)
    }

    fn next_turn(&self) -> Option<Turn> {
        if self.halted { None } else { self.turns.peek(&self.schedule) }
    }

    /// Sends the next request if it is due. Returns whether it was.
    pub fn send_due(&mut self, now: u64) -> bool {
        let Some(Turn { due, request, user }) = self.next_turn().filter(|turn| turn.due <= now) else {
            return false;
        };
        self.turns.take(&self.schedule);
        let user = user - self.first;
        let Some(segment) = self.schedule.segment_of(request) else { return false };
        let operation = self.begin_request(segment, user, request);
        self.tally.planned(segment, due, operation);
        let online = self.users[user as usize].state == State::Online;
        self.outstanding.enter(user, request, online);
        if online {
            self.ask(user, request, now);
            self.tally.sent(segment, due, now, operation, false);
        } else {
            self.tally.counters.totals.held_back += 1;
        }
        true
    }

    // ---- The housekeeping

    /// Journal, acknowledges, what users do of their own accord, and a slice of the users: pings,
    /// logins and answers that do not come.
    pub fn keep(&mut self, now: u64) -> std::io::Result<()> {
        self.tally.roll(now);
        let kept = self.acknowledge(now);
        self.act_as_planned(now);
        let step = self.users.len().div_ceil(SWEEP_ROUNDS);
        for _ in 0..step {
            self.look_after(self.swept, now);
            self.swept = (self.swept + 1) % self.user_count();
        }
        kept
    }

    fn look_after(&mut self, user: u32, now: u64) {
        let now_ms = self.millis(now);
        let one = &self.users[user as usize];
        let (since, silent) = (now_ms.saturating_sub(one.since_ms), now_ms.saturating_sub(one.sent_ms));
        match one.state {
            State::LoggingIn if since > LOGIN_DEADLINE_MS => {
                let pause = backoff::delay_ms(self.first + user, one.attempts);
                self.leave(user, EndReason::LoginTimeout, Some(pause), now);
            }
            State::Leaving if since > LOGIN_DEADLINE_MS => self.shut(user, Shutdown::Both),
            State::Online => {
                if silent > self.ping_after_ms && !one.pinged {
                    self.users[user as usize].pinged = true;
                    self.write(user, &wire::frame(ids::PING, Request::Ping(Ping {})), now);
                }
                // A user who has just come back has just asked again.
                let (timeout, schedule) = (u64::from(self.answer_timeout_ms), &self.schedule);
                if u64::from(since) > timeout {
                    let overdue = now.saturating_sub(timeout * MILLISECOND);
                    self.outstanding.expire(user, |request| schedule.due(request).is_some_and(|due| due < overdue));
                    if self.reactions.count > 0 {
                        self.reactions.expire(user, overdue);
                    }
                }
            }
            // A retired user asks nobody any more.
            State::Retired => {
                self.outstanding.expire(user, |_| true);
                self.reactions.expire(user, u64::MAX);
            }
            State::Away | State::Connecting | State::LoggingIn | State::Waiting | State::Leaving => {}
        }
    }

    // ---- Writing

    /// Whether some sockets have refused bytes.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Tries again what sockets have refused.
    pub fn write_refused(&mut self) {
        let users = &self.users;
        self.refused.retain(|&user, bytes| {
            let Some(mut socket) = users[user as usize].socket.as_ref() else { return false };
            match socket.write(bytes) {
                Ok(written) => {
                    bytes.drain(..written);
                    !bytes.is_empty()
                }
                // On any other error there is an event for the end.
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
    }

    fn write(&mut self, user: u32, bytes: &[u8], now: u64) {
        let now_ms = self.millis(now);
        let one = &mut self.users[user as usize];
        one.sent_ms = now_ms;
        let Some(mut socket) = one.socket.as_ref() else { return };
        if !self.refused.is_empty()
            && let Some(refused) = self.refused.get_mut(&user)
        {
            if refused.len() + bytes.len() > OUTBOX_BYTES_MAX {
                let pause = backoff::delay_ms(self.first + user, 0);
                return self.leave(user, EndReason::Stuck, Some(pause), now);
            }
            refused.extend_from_slice(bytes);
            self.tally.counters.totals.held_back += 1;
            return;
        }
        let written = match socket.write(bytes) {
            Ok(written) if written == bytes.len() => return,
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            // There is an event for the end; what was not written is written again on the next
            // connection.
            Err(_) => return,
        };
        self.tally.counters.totals.held_back += 1;
        self.refused.insert(user, bytes[written..].to_vec());
    }

    // ---- Small change

    fn enter(&mut self, user: u32, state: State, now_ms: u32) {
        let one = &mut self.users[user as usize];
        one.state = state;
        one.since_ms = now_ms;
    }

    fn millis(&self, now: u64) -> u32 {
        u32::try_from(now.saturating_sub(self.started) / MILLISECOND).unwrap_or(u32::MAX)
    }

    /// Milliseconds since the start of a moment `after_ms` from now, rounded up: nobody comes
    /// before it.
    fn millis_after(&self, now: u64, after_ms: u64) -> u32 {
        u32::try_from(u64::from(self.millis(now)).saturating_add(after_ms).saturating_add(1)).unwrap_or(u32::MAX)
    }

    fn user_id(&self, user: u32) -> u64 {
        u64::from(self.first) + u64::from(user) + 1
    }
}
