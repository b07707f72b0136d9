//! How a user comes in: one connection of a user at a time, and the newest one wins.

use hongbao_proto::limits::ITEMS_PER_FRAME_MAX;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{RequestId, UserId};

use crate::admission::Admission;
use crate::clock::Now;
use crate::ends::End;
use crate::ledger::writer::WriterRequest;
use crate::ledger::{Award, Question, Recall};
use crate::limits;
use crate::set::directory::{ConnectionAddress, ConnectionKey};
use crate::set::events as wire;
use crate::set::message::{ClientRequest, Control, DisplacedBy, Message, PendingRequest};
use crate::set::session::SessionState;
use crate::set::tally::AnswerKind;
use crate::set::{PendingLogin, Set};
use crate::transport::wire::Wire;
use hongbao_telemetry::program::build::VERSION;

impl<W: Wire> Set<W> {
    /// Takes the user's place in the directory. An older connection ends first, so that what it had
    /// still queued can no longer win, and all it has won is ahead of our question in the ledger's
    /// queue.
    pub(in crate::set) fn login(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        user: UserId,
        expires_at: u64,
        now: &Now,
    ) {
        if let Some(wait_ms) = self.shared.barred.wait_ms(user, now.at) {
            self.error(key, request.get(), ErrorCode::UserBarred);
            return self.end(key, End::Kicked, Some(wait_ms), now);
        }
        let session = &mut self.sessions[key.slot as usize];
        if let Some(queue) = &self.shared.logins {
            match queue.admit(session.retry_slot(), now.at) {
                Admission::Now => session.book(None),
                Admission::Later(retry_slot) => {
                    session.book(Some(retry_slot));
                    self.tally.logins_deferred.add(1);
                    return self.overloaded_until(key, request.get(), retry_slot.wait_ms(now.at));
                }
            }
        }
        session.state = SessionState::LoggingIn;
        if self.shared.end_at_expiry {
            // Counted down from here by the clock that is never set.
            let lasts = u32::try_from(expires_at.saturating_sub(now.wall / 1_000)).unwrap_or(u32::MAX);
            session.expires_at = now.seconds().saturating_add(lasts);
        }
        session.user = Some(user);
        let here = ConnectionAddress { set: self.index, key };
        match self.shared.directory.enter(user, here) {
            None => self.recall(key, request, now),
            Some(older) if older.set == self.index => {
                self.dismiss(older.key, End::Replaced, None, now);
                if !self.pending_logins.contains_key(&older.key) {
                    return self.recall(key, request, now);
                }
                match self.reserve() {
                    Some(permit) => {
                        self.wait(key, user);
                        self.succeed(older.key, DisplacedBy { permit, key, request });
                    }
                    None => {
                        self.shared.directory.enter(user, older);
                        self.login_again_later(key, request, now);
                    }
                }
            }
            Some(older) => {
                let sent = self.reserve().is_some_and(|permit| {
                    let newer = DisplacedBy { permit, key, request };
                    let displace = Message::Control(Control::Displace { key: older.key, newer });
                    self.shared.sets[older.set as usize].inbox.try_send(displace).is_ok()
                });
                if sent {
                    self.wait(key, user);
                } else {
                    // As if the newer login had not been: the older connection keeps its place.
                    self.shared.directory.enter(user, older);
                    self.login_again_later(key, request, now);
                }
            }
        }
    }

    /// A login that must wait until the user's older connection has ended.
    fn wait(&mut self, key: ConnectionKey, user: UserId) {
        self.owed += 1;
        self.pending_logins.insert(key, PendingLogin { user, heir: None });
    }

    /// The connection of `key` has ended for a newer one: which may go on now, or, where `key`
    /// itself was still waiting for an even older one, once that has ended too.
    pub(super) fn succeed(&mut self, key: ConnectionKey, newer: DisplacedBy) {
        match self.pending_logins.get_mut(&key) {
            Some(waiting) => waiting.heir = Some(newer),
            None => newer.let_in(),
        }
    }

    /// What this login waited for has happened.
    pub(in crate::set) fn displaced(&mut self, key: ConnectionKey, request: RequestId, now: &Now) {
        let Some(PendingLogin { user, heir }) = self.pending_logins.remove(&key) else { return };
        match (self.live(key).is_some(), heir) {
            (true, _) => return self.recall(key, request, now),
            (false, Some(newer)) => newer.let_in(),
            // It went while it waited, and kept its place until now so that nobody else could come
            // in between.
            (false, None) => self.shared.directory.leave(user, ConnectionAddress { set: self.index, key }),
        }
        self.answer_gone_as(AnswerKind::Welcome);
    }

    /// Asks the ledger what the user has missed.
    fn recall(&mut self, key: ConnectionKey, request: RequestId, now: &Now) {
        let Some(user) = self.session(key).and_then(|session| session.user) else { return };
        if !self.send(key, PendingRequest::Recall { request }, |reply_to| WriterRequest::Ask {
            user,
            question: Question::Recall,
            reply_to,
        }) {
            self.login_again_later(key, request, now);
        }
    }

    fn login_again_later(&mut self, key: ConnectionKey, request: RequestId, now: &Now) {
        self.undo_login(key, now);
        self.overloaded(key, request.get());
    }

    /// As if the connection had not asked for a login.
    pub(super) fn undo_login(&mut self, key: ConnectionKey, now: &Now) {
        let Some(session) = self.live(key) else { return };
        session.state = SessionState::Fresh;
        if let Some(user) = session.user.take() {
            self.shared.directory.leave(user, ConnectionAddress { set: self.index, key });
        }
        for request in self.take_early(key) {
            self.overloaded(key, request.request_id());
        }
        self.unwelcome.push(now.seconds() + self.shared.login_seconds, key);
    }

    pub(in crate::set) fn welcome(&mut self, key: ConnectionKey, request: RequestId, recall: &Recall, now: &Now) {
        let idle_timeout_ms = self.shared.idle_seconds.saturating_mul(1_000);
        let Some(session) = self.session(key) else { return };
        let Some(user) = session.user else { return };
        session.state = SessionState::Online;
        session.last_grab = recall.last_request.map_or(0, RequestId::get);
        let highest_grab_id = session.last_grab;
        self.tally.online.add(1);
        let waiting = recall.unacknowledged.len() + recall.offers.len();
        let welcome = v1::Welcome {
            user_id: user.get(),
            server_time_ms: now.wall,
            idle_timeout_ms,
            unacknowledged: u32::try_from(waiting).unwrap_or(u32::MAX),
            highest_grab_id,
            requests_per_second: self.shared.connection_rate.per_second(),
            login_timeout_ms: self.shared.login_seconds.saturating_mul(1_000),
            frame_timeout_ms: limits::FRAME_SECONDS_MAX * 1_000,
            version: VERSION.to_owned(),
        };
        self.answer(key, request.get(), AnswerKind::Welcome, Event::Welcome(welcome));
        for awards in recall.unacknowledged.chunks(ITEMS_PER_FRAME_MAX) {
            let reminder = self.reminder(awards);
            self.push(key, Event::Reminder(reminder));
        }
        for offers in recall.offers.chunks(ITEMS_PER_FRAME_MAX) {
            let offers = offers.iter().map(|offer| wire::offer(offer)).collect();
            self.push(key, Event::Offers(v1::Offers { offers }));
        }
        for request in self.take_early(key) {
            if let (ClientRequest::Grab { .. }, Some(gate)) = (&request, &self.shared.gate) {
                self.admitted += gate.admit(1, now.at);
            }
            self.decide(key, request, now);
        }
    }

    fn reminder(&mut self, awards: &[Award]) -> v1::Reminder {
        let mut reminder = v1::Reminder::default();
        for award in awards {
            match award {
                Award::Win(win) => reminder.wins.push(wire::won(win)),
                Award::Order(order) => reminder.orders.push(wire::order(order, self.stock.terms(order.campaign))),
            }
        }
        reminder
    }
}
