//! How users come and go: connecting, logging in, losing the connection, coming back or staying
//! away. Every connection ends in [`Crowd::ended`], whoever ended it.

use std::cmp::Reverse;
use std::net::{Shutdown, TcpStream};

use hongbao_proto::UserId;
use hongbao_proto::v1::Login;
use hongbao_proto::v1::client_frame::Request;

use super::Crowd;
use crate::backoff;
use crate::clock::{MILLISECOND, SECOND};
use crate::ids;
use crate::machine::labels::EndReason;
use crate::machine::user::State;
use crate::machine::wire;

impl Crowd {
    /// The next user who should open a connection now.
    pub fn next_to_connect(&mut self, now: u64) -> Option<u32> {
        if self.closing {
            return None;
        }
        let now_ms = self.millis(now);
        while let Some(&Reverse((at, user))) = self.comebacks.peek().filter(|Reverse((at, _))| *at <= now_ms) {
            self.comebacks.pop();
            if self.users[user as usize].state == State::Away {
                return Some(self.connecting(user, now_ms));
            }
            tracing::trace!(event = "comeback_dropped", user, at, "comeback dropped: something else has overtaken it");
        }
        let user = (self.newcomers < self.user_count()).then_some(self.newcomers)?;
        self.newcomers += 1;
        Some(self.connecting(user, now_ms))
    }

    pub(super) fn connecting(&mut self, user: u32, now_ms: u32) -> u32 {
        self.enter(user, State::Connecting, now_ms);
        user
    }

    /// When the next user is to connect or to log in, Unix nanoseconds; absent: none is.
    pub fn next_arrival(&self) -> Option<u64> {
        if !self.closing && self.newcomers < self.user_count() {
            return Some(self.started);
        }
        let comeback = self.comebacks.peek().map(|Reverse((at, _))| *at);
        let appointment = self.appointments.peek().map(|Reverse((at, _, _))| *at);
        let at_ms = comeback.into_iter().chain(appointment).min()?;
        Some(self.started + u64::from(at_ms) * MILLISECOND)
    }

    /// The server had no capacity for a user's Login and has told when it will have: the user waits
    /// with its connection.
    pub(super) fn wait(&mut self, user: u32, retry_after_ms: u32, now: u64) {
        let now_ms = self.millis(now);
        self.enter(user, State::Waiting, now_ms);
        if !self.closing {
            self.appointments.push(Reverse((self.millis_after(now, retry_after_ms.into()), user, now_ms)));
        }
    }

    /// Those whose moment has come log in. The server has spread these moments itself: no pace of
    /// ours delays them.
    pub fn keep_appointments(&mut self, now: u64) {
        let now_ms = self.millis(now);
        while let Some(&Reverse((_, user, since_ms))) =
            self.appointments.peek().filter(|Reverse((at, _, _))| *at <= now_ms)
        {
            self.appointments.pop();
            let one = &self.users[user as usize];
            // Else the connection has ended meanwhile, and the user may even wait on another.
            if one.state == State::Waiting && one.since_ms == since_ms {
                self.log_in(user, now);
            }
        }
    }

    /// A connection could not be opened.
    pub fn connect_failed(&mut self, user: u32, now: u64) {
        self.tally.counters.totals.connect_failures += 1;
        self.enter(user, State::Away, self.millis(now));
        self.come_back_after_a_pause(user, now);
    }

    /// A connection is open: the user logs in.
    pub fn connected(&mut self, user: u32, socket: TcpStream, now: u64) {
        self.users[user as usize].socket = Some(socket);
        self.census.connected += 1;
        if self.closing {
            self.leave(user, EndReason::Ours, None, now);
        } else {
            self.log_in(user, now);
        }
    }

    pub(super) fn log_in(&mut self, user: u32, now: u64) {
        self.enter(user, State::LoggingIn, self.millis(now));
        let token = UserId::new(self.user_id(user)).map_err(|error| error.to_string()).and_then(|id| {
            self.signer.sign_user(id, now / SECOND, self.token_ttl_seconds).map_err(|error| error.to_string())
        });
        match token {
            Ok(token) => self.write(user, &wire::frame(ids::LOGIN, Request::Login(Login { token })), now),
            // Ids and secret were checked at the start.
            Err(error) => tracing::error!(event = "user_token_failed", user, error, "no token"),
        }
    }

    /// The connection of `user`, if it has one.
    pub fn socket(&self, user: u32) -> Option<&TcpStream> {
        self.users[user as usize].socket.as_ref()
    }

    /// The connection has met its end; `found`: what its socket says. It is closed here.
    pub fn ended(&mut self, user: u32, found: EndReason, now: u64) {
        let (end, back_after_ms) = match self.farewells.remove(&user) {
            Some((end, back)) => (end, Some(back)),
            None => (found, None),
        };
        self.tally.counters.end(end);
        self.refused.remove(&user);
        self.partial_frames.remove(&user);
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
            Some(Some(after)) => self.come_back(user, after, now),
            Some(None) => {
                self.enter(user, State::Retired, self.millis(now));
                self.census.retired += 1;
            }
        }
    }

    pub(super) fn come_back_after_a_pause(&mut self, user: u32, now: u64) {
        let one = &mut self.users[user as usize];
        let delay = backoff::delay_ms(self.first + user, one.attempts);
        one.attempts = one.attempts.saturating_add(1);
        self.come_back(user, delay, now);
    }

    pub(super) fn come_back(&mut self, user: u32, after_ms: u64, now: u64) {
        if !self.closing {
            self.comebacks.push(Reverse((self.millis_after(now, after_ms), user)));
        }
    }

    /// Ends a connection from our side. An event will tell of the end.
    pub(super) fn leave(&mut self, user: u32, end: EndReason, back_after_ms: Option<u64>, now: u64) {
        self.farewells.entry(user).or_insert((end, back_after_ms));
        self.set_leaving(user, now);
        self.shut(user, Shutdown::Both);
    }

    pub(super) fn set_leaving(&mut self, user: u32, now: u64) {
        if self.users[user as usize].state == State::Online {
            self.census.online -= 1;
        }
        self.enter(user, State::Leaving, self.millis(now));
    }

    pub(super) fn shut(&self, user: u32, how: Shutdown) {
        if let Some(socket) = &self.users[user as usize].socket {
            // A socket that the server has reset cannot be shut down again, and need not be.
            socket.shutdown(how).ok();
        }
    }

    /// No user connects, or comes back, from now on.
    pub fn begin_closing(&mut self) {
        self.closing = true;
        self.comebacks.clear();
        self.appointments.clear();
    }

    /// Closes our side of the connections of users `from..to`; with `force`, both sides.
    pub fn close(&mut self, from: u32, to: u32, force: bool, now: u64) {
        for user in from..to.min(self.user_count()) {
            if self.users[user as usize].socket.is_none() {
                continue;
            }
            self.farewells.entry(user).or_insert((EndReason::Ours, None));
            if self.users[user as usize].state != State::Leaving {
                self.set_leaving(user, now);
            }
            self.shut(user, if force { Shutdown::Both } else { Shutdown::Write });
        }
    }
}
