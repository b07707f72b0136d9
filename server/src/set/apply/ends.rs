//! How connections end.

use hongbao_proto::UserId;
use hongbao_proto::v1;
use hongbao_proto::v1::server_frame::Event;

use crate::clock::Now;
use crate::ends::{End, Fault, Hint};
use crate::limits;
use crate::set::Set;
use crate::set::directory::{ConnectionAddress, ConnectionKey};
use crate::set::session::SessionState;
use crate::set::tally::AnswerKind;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    /// Ends a connection of ours, where it has not ended yet.
    pub(super) fn dismiss(&mut self, key: ConnectionKey, end: End, return_after_ms: Option<u32>, now: &Now) {
        if self.live(key).is_some() {
            self.end(key, end, return_after_ms, now);
        }
    }

    /// The one place where a connection that we end is ended: counted, sent a goodbye, forgotten by the
    /// directory.
    pub(in crate::set) fn end(&mut self, key: ConnectionKey, end: End, return_after_ms: Option<u32>, now: &Now) {
        self.retire(key, end, None);
        // Its reader has ended, and nobody else would close it.
        if self.session(key).is_some_and(|session| session.half_closed) {
            self.half_closed.push(key);
        }
        match end.goodbye() {
            Some(reason) => {
                self.push(key, Event::Goodbye(v1::Goodbye { reason: reason.into(), return_after_ms }));
                self.finishing.push(key);
                self.leaving.push(now.seconds() + limits::LINGER_SECONDS, key);
            }
            None => {
                if let Some(session) = self.session(key) {
                    session.wire.cut();
                }
            }
        }
    }

    /// The reader has ended. A peer that has closed its side in order gets what it asked for before.
    pub(in crate::set) fn on_reader_end(&mut self, key: ConnectionKey, end: End, now: &Now) {
        match self.live(key) {
            Some(session) if end == End::Closed => {
                session.half_closed = true;
                let is_owed = session.owed > 0;
                self.half_closed.push(key);
                if is_owed {
                    self.closing.push(now.seconds() + limits::HALF_CLOSED_SECONDS_MAX, key);
                }
            }
            _ => self.gone(key, end),
        }
    }

    /// Closes those whose peer has closed its side, where nothing is owed to them any more. What
    /// this batch produced for them has been written.
    pub(in crate::set) fn close_half_closed(&mut self, now: &Now) {
        while let Some(key) = self.half_closed.pop() {
            let Some(session) = self.session(key) else { continue };
            if session.state == SessionState::Leaving {
                self.gone(key, End::Closed);
            } else if session.owed == 0 {
                if session.wire.backlog() == 0 {
                    self.gone(key, End::Closed);
                } else {
                    self.closing.push(now.seconds() + limits::HALF_CLOSED_SECONDS_MAX, key);
                }
            }
        }
    }

    /// Nothing more will come, and nothing more can be sent.
    pub(in crate::set) fn gone(&mut self, key: ConnectionKey, end: End) {
        self.retire(key, end, None);
        if self.session(key).is_some() {
            let session = self.sessions.remove(key.slot as usize);
            // Its socket is closed with the last reference to it, which costs more than all that
            // came before.
            self.ended.push(session.wire);
        }
    }

    /// Those that are yet to be closed count: each still has a descriptor.
    pub(in crate::set) fn count_connections(&self) {
        self.tally.connections.set((self.sessions.len() + self.ended.len()) as u64);
    }

    /// Counts and logs the end of a connection, once. What it is owed beyond that goes to nobody.
    pub(in crate::set) fn retire(&mut self, key: ConnectionKey, end: End, hint: Option<Hint>) {
        let Some(session) = self.live(key) else { return };
        let (was_online, user) = (session.state == SessionState::Online, session.user);
        session.state = SessionState::Leaving;
        if let Some(user) = user
            && !self.pending_logins.contains_key(&key)
        {
            self.shared.directory.leave(user, ConnectionAddress { set: self.index, key });
        }
        if was_online {
            self.tally.online.set(self.tally.online.get() - 1);
        }
        self.tally.ends[end as usize].add(1);
        for _ in self.take_early(key) {
            self.answer_gone_as(AnswerKind::Error);
        }
        if let Some(user) = self.followed(key) {
            self.watched.ended(self.index, key, user, end);
        }
        self.log_end(key, user, end, hint);
    }

    /// How loud an end is follows from whose doing it is; a peer's never is a warning of ours.
    fn log_end(&mut self, key: ConnectionKey, user: Option<UserId>, end: End, hint: Option<Hint>) {
        let (set, reason, user) = (self.index, end.label(), user.map(UserId::get));
        match (end.fault(), end) {
            (Fault::Peer, _) => {
                let hint = hint.map(tracing::field::display);
                let peer = self.session(key).and_then(|session| session.wire.peer());
                tracing::info!(event = "peer_refused", set, reason, user, peer, hint, "a peer broke a rule");
            }
            (Fault::Limit, _) => {
                tracing::info!(event = "connection_limited", set, reason, user, "a connection reached a limit");
            }
            (_, End::Kicked) => {
                tracing::info!(event = "connection_kicked", set, user, "an operator ended a connection");
            }
            _ => tracing::debug!(event = "connection_ended", set, reason, user, "a connection ended"),
        }
    }
}
