//! The users of a machine and all that changes them: one owner, plain functions, the time passed in. Tasks around it only
//! wait (for bytes, for the next turn, for commands) and then call in; none holds a borrow across an await.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Shutdown;

use hongbao_proto::UserId;
use hongbao_proto::token::Signer;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{Acknowledge, Goodbye, Login, Ping, PrizeId, Reminder, ServerFrame, Won};
use prost::Message;
use rustc_hash::FxHashMap;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use crate::backoff;
use crate::ids::{self, RunTag};
use crate::limits::{LOGIN_DEADLINE_MS, OUTBOX_BYTES_MAX, SWEEP_ROUNDS};
use crate::machine::config::MachineConfig;
use crate::machine::journal::Journal;
use crate::machine::labels::{End, Outcome, Violation};
use crate::machine::owed::{Owed, Settled};
use crate::machine::prizes::{Prize, PrizeBook, Told};
use crate::machine::tally::Tally;
use crate::machine::user::{State, User};
use crate::machine::wire::{self, GrabTemplate};
use crate::schedule::{SECOND, Schedule, Spread, Turn, Turns};

/// Why a change of QPS is refused.
#[derive(Debug, thiserror::Error)]
pub enum QpsError {
    /// The schedule cannot take it.
    #[error(transparent)]
    Change(#[from] crate::schedule::ChangeError),
    /// The first second of the run cannot be part of a request id.
    #[error(transparent)]
    Epoch(#[from] ids::EpochError),
}

/// How many users are where.
#[derive(Debug, Clone, Copy, Default)]
pub struct Census {
    /// With a connection.
    pub connected: u32,
    /// Logged in.
    pub online: u32,
    /// Told not to come back.
    pub retired: u32,
}

/// All state of a machine.
#[derive(Debug)]
pub struct Crowd {
    /// Measures.
    pub tally: Tally,
    /// Prizes that users were told of.
    pub prizes: PrizeBook,
    /// Answers owed.
    pub owed: Owed,
    /// What is due when.
    pub schedule: Schedule,
    /// Users by state.
    pub census: Census,
    /// Acknowledges on the way, or about to be sent.
    pub acknowledges_under_way: u64,
    users: Box<[User]>,
    /// Index of our first user in the whole fleet, and its id, which is one more.
    first: u32,
    turns: Turns,
    tag: Option<RunTag>,
    journal: Journal,
    signer: Signer,
    token_ttl_seconds: u64,
    grab: GrabTemplate,
    answer_timeout_ms: u32,
    /// Set by the first Welcome.
    ping_after_ms: u32,
    /// The machine's start, Unix nanoseconds.
    started: u64,
    /// Users before this one have been connected at least once.
    newcomers: u32,
    /// (milliseconds since start, user), of users who come back or log in again then.
    comebacks: BinaryHeap<Reverse<(u64, u32)>>,
    /// Bytes that sockets refused.
    refused: FxHashMap<u32, Vec<u8>>,
    /// Why connections that are ending end, and when their users come back, in milliseconds from the end.
    farewells: FxHashMap<u32, (End, Option<u64>)>,
    /// Wins in the journal, to be acknowledged.
    unacknowledged: Vec<(u32, PrizeId)>,
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
            tally: Tally::new(),
            prizes: PrizeBook::default(),
            owed: Owed::new(count),
            schedule: Schedule::new(),
            census: Census::default(),
            acknowledges_under_way: 0,
            users: (0..count).map(|_| User::new()).collect(),
            first,
            turns: Turns::new(Spread::new(config.total), first, first + count - 1),
            tag: None,
            journal,
            signer: Signer::new(&config.secret),
            token_ttl_seconds: config.token_ttl.as_secs(),
            grab: GrabTemplate::new(config.campaign),
            answer_timeout_ms: u32::try_from(config.answer_timeout.as_millis()).unwrap_or(u32::MAX),
            ping_after_ms: u32::MAX,
            started,
            newcomers: 0,
            comebacks: BinaryHeap::new(),
            refused: FxHashMap::default(),
            farewells: FxHashMap::default(),
            unacknowledged: Vec::new(),
            swept: 0,
            halted: false,
            closing: false,
        }
    }

    /// Users of this machine.
    pub fn len(&self) -> u32 {
        u32::try_from(self.users.len()).unwrap_or(u32::MAX)
    }

    /// A machine has users; this is never true.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    // ---- The schedule

    /// From Unix nanosecond `at` on the fleet sends `qps` requests a second.
    pub fn announce(&mut self, at: u64, qps: u32, now: u64) -> Result<(), QpsError> {
        let tag = match self.tag {
            Some(tag) => tag,
            None => RunTag::new(at / SECOND)?,
        };
        self.schedule.announce(at, qps, now)?;
        self.tag = Some(tag);
        self.tally.add_segment(at);
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
        self.tally.planned(segment, due);
        let online = self.users[user as usize].state == State::Online;
        self.owed.enter(user, request, online);
        if online {
            self.grab(user, request, now);
            self.tally.sent(segment, due, now);
        } else {
            self.tally.counters.held_back += 1;
        }
        true
    }

    fn grab(&mut self, user: u32, request: u64, now: u64) {
        let Some(tag) = self.tag else { return };
        let frame = self.grab.frame(tag.request_id(request));
        self.write(user, frame.as_ref(), now);
    }

    // ---- Connections

    /// The next user who should open a connection now. Users who only have to log in again do so on the way.
    pub fn next_to_connect(&mut self, now: u64) -> Option<u32> {
        if self.closing {
            return None;
        }
        let now_ms = self.millis(now);
        while let Some(&Reverse((at, user))) = self.comebacks.peek().filter(|Reverse((at, _))| *at <= now_ms.into()) {
            self.comebacks.pop();
            match self.users[user as usize].state {
                State::Away => return Some(self.connecting(user, now_ms)),
                State::Waiting => self.log_in(user, now),
                // A comeback that something else has overtaken.
                _ => tracing::trace!(user, at, "comeback dropped"),
            }
        }
        let user = (self.newcomers < self.len()).then_some(self.newcomers)?;
        self.newcomers += 1;
        Some(self.connecting(user, now_ms))
    }

    fn connecting(&mut self, user: u32, now_ms: u32) -> u32 {
        self.enter(user, State::Connecting, now_ms);
        user
    }

    /// There are users who never had a connection.
    pub fn has_newcomers(&self) -> bool {
        !self.closing && self.newcomers < self.len()
    }

    /// A connection could not be opened.
    pub fn connect_failed(&mut self, user: u32, now: u64) {
        self.tally.counters.connect_failures += 1;
        self.enter(user, State::Away, self.millis(now));
        self.come_back_after_a_pause(user, now);
    }

    /// A connection is open: the user logs in.
    pub fn connected(&mut self, user: u32, socket: OwnedWriteHalf, now: u64) {
        self.users[user as usize].socket = Some(socket);
        self.census.connected += 1;
        if self.closing {
            self.leave(user, End::Ours, None, now);
        } else {
            self.log_in(user, now);
        }
    }

    fn log_in(&mut self, user: u32, now: u64) {
        self.enter(user, State::LoggingIn, self.millis(now));
        let token = UserId::new(self.user_id(user)).map_err(|error| error.to_string()).and_then(|id| {
            self.signer.sign_user(id, now / SECOND, self.token_ttl_seconds).map_err(|error| error.to_string())
        });
        match token {
            Ok(token) => self.write(user, &wire::frame(ids::LOGIN, Request::Login(Login { token })), now),
            // Ids and secret were checked at the start.
            Err(error) => tracing::error!(user, error, "no token"),
        }
    }

    /// The connection's reader has met its end; `found` is what it saw itself.
    pub fn ended(&mut self, user: u32, found: End, now: u64) {
        let (end, back_after_ms) = match self.farewells.remove(&user) {
            Some((end, back)) => (end, Some(back)),
            None => (found, None),
        };
        self.tally.counters.end(end);
        self.refused.remove(&user);
        let state = self.users[user as usize].state;
        self.census.connected -= 1;
        let one = &mut self.users[user as usize];
        one.socket = None;
        one.pinged = false;
        self.acknowledges_under_way -= u64::from(std::mem::take(&mut one.acknowledges));
        if state == State::Online {
            self.census.online -= 1;
        }
        self.enter(user, State::Away, self.millis(now));
        match back_after_ms {
            _ if self.closing => {}
            None => self.come_back_after_a_pause(user, now),
            Some(Some(after)) => self.come_back(user, u64::from(self.millis(now)) + after),
            Some(None) => {
                self.enter(user, State::Retired, self.millis(now));
                self.census.retired += 1;
            }
        }
    }

    fn come_back_after_a_pause(&mut self, user: u32, now: u64) {
        let one = &mut self.users[user as usize];
        let delay = backoff::delay_ms(self.first + user, one.attempts);
        one.attempts = one.attempts.saturating_add(1);
        self.come_back(user, u64::from(self.millis(now)) + delay);
    }

    fn come_back(&mut self, user: u32, at_ms: u64) {
        if !self.closing {
            self.comebacks.push(Reverse((at_ms, user)));
        }
    }

    /// Ends a connection from our side. Its reader will find the end and report it.
    fn leave(&mut self, user: u32, end: End, back_after_ms: Option<u64>, now: u64) {
        self.farewells.entry(user).or_insert((end, back_after_ms));
        self.set_leaving(user, now);
        self.shut(user, Shutdown::Both);
    }

    fn set_leaving(&mut self, user: u32, now: u64) {
        if self.users[user as usize].state == State::Online {
            self.census.online -= 1;
        }
        self.enter(user, State::Leaving, self.millis(now));
    }

    fn shut(&self, user: u32, how: Shutdown) {
        if let Some(socket) = &self.users[user as usize].socket {
            // A socket that the server has reset cannot be shut down again, and need not be.
            SockRef::from(AsRef::<TcpStream>::as_ref(socket)).shutdown(how).ok();
        }
    }

    /// No user connects, or comes back, from now on.
    pub fn begin_closing(&mut self) {
        self.closing = true;
        self.comebacks.clear();
    }

    /// Closes our side of the connections of users `from..to`; with `force`, both sides.
    pub fn close(&mut self, from: u32, to: u32, force: bool, now: u64) {
        for user in from..to.min(self.len()) {
            if self.users[user as usize].socket.is_none() {
                continue;
            }
            self.farewells.entry(user).or_insert((End::Ours, None));
            if self.users[user as usize].state != State::Leaving {
                self.set_leaving(user, now);
            }
            self.shut(user, if force { Shutdown::Both } else { Shutdown::Write });
        }
    }

    // ---- What comes from the server

    /// One frame came for `user`.
    pub fn frame(&mut self, user: u32, payload: &[u8], now: u64) {
        if self.users[user as usize].state == State::Leaving {
            return;
        }
        let Ok(ServerFrame { request_id, event: Some(event) }) = ServerFrame::decode(payload) else {
            return self.broken_stream(user, now);
        };
        match request_id {
            0 => self.push(user, event, now),
            ids::LOGIN => self.login_answered(user, event, now),
            ids::PING => self.ping_answered(user, &event),
            ids::ACKNOWLEDGE => self.acknowledge_answered(user, &event),
            _ => self.grab_answered(user, request_id, event, now),
        }
    }

    /// The stream of `user` cannot be read on.
    pub fn broken_stream(&mut self, user: u32, now: u64) {
        self.tally.counters.violation(Violation::Malformed);
        let pause = backoff::delay_ms(self.first + user, self.users[user as usize].attempts);
        self.leave(user, End::Protocol, Some(pause), now);
    }

    fn grab_answered(&mut self, user: u32, request_id: u64, event: Event, now: u64) {
        let counters = &mut self.tally.counters;
        let Some((request, due)) = self
            .tag
            .and_then(|tag| tag.request_of(request_id))
            .and_then(|request| Some((request, self.schedule.due(request)?)))
        else {
            return counters.violation(Violation::UnknownRequest);
        };
        let outcome = match &event {
            Event::Won(_) => Outcome::Won,
            Event::NoneNow(_) => Outcome::NoneNow,
            Event::SoldOut(_) => Outcome::SoldOut,
            Event::Overloaded(_) => Outcome::Overloaded,
            Event::LimitReached(_) => Outcome::LimitReached,
            Event::TooEarly(_) => Outcome::TooEarly,
            Event::TooLate(_) => Outcome::TooLate,
            Event::Error(error) => {
                counters.error(error.code);
                Outcome::Error
            }
            _ => return counters.violation(Violation::WrongKind),
        };
        match self.owed.settle(user, request) {
            Settled::InTime => {}
            Settled::Late => counters.answered_late += 1,
            Settled::Nothing => {
                // Ours, and sent by now: then it was answered before.
                let spread = self.turns.spread();
                let asked = due <= now && spread.user_of(request).checked_sub(self.first) == Some(user);
                counters.violation(if asked { Violation::DuplicateAnswer } else { Violation::UnknownRequest });
                return;
            }
        }
        let Some(segment) = self.schedule.segment_of(request) else { return };
        self.tally.answered(segment, due, now, outcome);
        if let Event::Won(won) = event {
            self.told(user, request_id, &won, now);
        }
    }

    fn push(&mut self, user: u32, event: Event, now: u64) {
        match event {
            Event::Goodbye(goodbye) => self.goodbye(user, &goodbye, now),
            Event::Reminder(Reminder { wins }) => {
                for won in wins {
                    self.told(user, won.won_by_request_id, &won, now);
                }
            }
            // What we did wrong in the server's eyes; a Goodbye follows.
            Event::Error(error) => self.tally.counters.error(error.code),
            Event::CampaignNotice(_) | Event::Announcement(_) => {}
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    fn goodbye(&mut self, user: u32, goodbye: &Goodbye, now: u64) {
        let end = End::from(goodbye.reason());
        self.leave(user, end, goodbye.return_after_ms.map(u64::from), now);
    }

    fn login_answered(&mut self, user: u32, event: Event, now: u64) {
        if self.users[user as usize].state != State::LoggingIn {
            return self.tally.counters.violation(Violation::WrongKind);
        }
        match event {
            Event::Welcome(welcome) => {
                if welcome.idle_timeout_ms > 0 {
                    self.ping_after_ms = self.ping_after_ms.min(welcome.idle_timeout_ms / 2);
                }
                self.welcome(user, now);
            }
            Event::Overloaded(overloaded) => {
                self.enter(user, State::Waiting, self.millis(now));
                let spread = backoff::delay_ms(self.first + user, 0);
                self.come_back(user, u64::from(self.millis(now)) + u64::from(overloaded.retry_after_ms) + spread);
            }
            // A Goodbye follows and decides.
            Event::Error(error) => self.tally.counters.error(error.code),
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    fn welcome(&mut self, user: u32, now: u64) {
        self.enter(user, State::Online, self.millis(now));
        self.census.online += 1;
        let one = &mut self.users[user as usize];
        one.attempts = 0;
        self.tally.counters.logins += 1;
        if std::mem::replace(&mut one.known, true) {
            self.tally.counters.reconnects += 1;
        }
        for unsettled in self.owed.write_again(user) {
            self.grab(user, unsettled.request, now);
            if unsettled.written {
                self.tally.counters.resent += 1;
            } else if let (Some(segment), Some(due)) =
                (self.schedule.segment_of(unsettled.request), self.schedule.due(unsettled.request))
            {
                self.tally.sent(segment, due, now);
            }
        }
    }

    fn ping_answered(&mut self, user: u32, event: &Event) {
        let asked = std::mem::replace(&mut self.users[user as usize].pinged, false);
        match event {
            Event::Pong(_) | Event::Overloaded(_) if asked => {}
            Event::Error(error) if asked => self.tally.counters.error(error.code),
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    fn acknowledge_answered(&mut self, user: u32, event: &Event) {
        let one = &mut self.users[user as usize];
        if one.acknowledges == 0 {
            return self.tally.counters.violation(Violation::DuplicateAnswer);
        }
        one.acknowledges -= 1;
        self.acknowledges_under_way -= 1;
        match event {
            // One that the server did not take is told again at the next login.
            Event::Acknowledged(_) | Event::Overloaded(_) => {}
            Event::Error(error) => self.tally.counters.error(error.code),
            _ => self.tally.counters.violation(Violation::WrongKind),
        }
    }

    // ---- Wins

    fn told(&mut self, user: u32, request_id: u64, won: &Won, now: u64) {
        let prize = Prize { campaign: won.campaign_id, serial: won.serial, amount: won.amount_fen };
        match self.prizes.tell(user, prize) {
            Told::New => self.journal.append(self.user_id(user), request_id, prize, now / 1_000_000),
            Told::Again => {}
            Told::ToAnother => return self.tally.counters.violation(Violation::PrizeToldToTwo),
            Told::Changed => return self.tally.counters.violation(Violation::PrizeChanged),
        }
        self.acknowledges_under_way += 1;
        self.unacknowledged.push((user, PrizeId { campaign_id: won.campaign_id, serial: won.serial }));
    }

    /// Writes the journal out, and only then acknowledges what it holds.
    fn acknowledge(&mut self, now: u64) -> std::io::Result<()> {
        self.journal.flush()?;
        for (user, prize) in std::mem::take(&mut self.unacknowledged) {
            let one = &mut self.users[user as usize];
            let room = one.acknowledges < u16::MAX && one.state == State::Online;
            if !room {
                // It will be told again at the next login.
                self.acknowledges_under_way -= 1;
                continue;
            }
            one.acknowledges += 1;
            self.tally.counters.acknowledges += 1;
            let request = Request::Acknowledge(Acknowledge { prizes: vec![prize] });
            self.write(user, &wire::frame(ids::ACKNOWLEDGE, request), now);
        }
        Ok(())
    }

    /// Writes out what the journal still holds.
    pub fn flush_journal(&mut self) -> std::io::Result<()> {
        self.journal.flush()
    }

    // ---- The keeper's rounds

    /// Journal, acknowledges, and a slice of the users: pings, logins and answers that do not come.
    pub fn keep(&mut self, now: u64) -> std::io::Result<()> {
        self.tally.roll(now);
        let kept = self.acknowledge(now);
        let step = self.users.len().div_ceil(SWEEP_ROUNDS);
        for _ in 0..step {
            self.look_after(self.swept, now);
            self.swept = (self.swept + 1) % self.len();
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
                self.leave(user, End::LoginTimeout, Some(pause), now);
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
                    let overdue = now.saturating_sub(timeout * 1_000_000);
                    self.owed.expire(user, |request| schedule.due(request).is_some_and(|due| due < overdue));
                }
            }
            // A retired user asks nobody any more.
            State::Retired => self.owed.expire(user, |_| true),
            _ => {}
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
            let Some(socket) = &users[user as usize].socket else { return false };
            match socket.try_write(bytes) {
                Ok(written) => {
                    bytes.drain(..written);
                    !bytes.is_empty()
                }
                // On any other error the reader finds the end.
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        });
    }

    fn write(&mut self, user: u32, bytes: &[u8], now: u64) {
        let now_ms = self.millis(now);
        let one = &mut self.users[user as usize];
        one.sent_ms = now_ms;
        let Some(socket) = &one.socket else { return };
        if !self.refused.is_empty()
            && let Some(refused) = self.refused.get_mut(&user)
        {
            if refused.len() + bytes.len() > OUTBOX_BYTES_MAX {
                let pause = backoff::delay_ms(self.first + user, 0);
                return self.leave(user, End::Stuck, Some(pause), now);
            }
            refused.extend_from_slice(bytes);
            self.tally.counters.held_back += 1;
            return;
        }
        let written = match socket.try_write(bytes) {
            Ok(written) if written == bytes.len() => return,
            Ok(written) => written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            // The reader finds the end; what was not written is written again on the next connection.
            Err(_) => return,
        };
        self.tally.counters.held_back += 1;
        self.refused.insert(user, bytes[written..].to_vec());
    }

    // ---- Small change

    fn enter(&mut self, user: u32, state: State, now_ms: u32) {
        let one = &mut self.users[user as usize];
        one.state = state;
        one.since_ms = now_ms;
    }

    fn millis(&self, now: u64) -> u32 {
        u32::try_from(now.saturating_sub(self.started) / 1_000_000).unwrap_or(u32::MAX)
    }

    fn user_id(&self, user: u32) -> u64 {
        u64::from(self.first) + u64::from(user) + 1
    }
}
