//! How a user comes in: one connection of a user at a time, and the newest one wins.

use hongbao_proto::limits::ITEMS_PER_FRAME_MAX;
use hongbao_proto::v1;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::{RequestId, UserId};

use super::{Set, Waiting};
use crate::admission::Admission;
use crate::clock::Now;
use crate::ends::End;
use crate::ledger::writer::Request;
use crate::ledger::{Award, Question, Recall};
use crate::set::directory::{ConnectionAddress, ConnectionKey};
use crate::set::events as wire;
use crate::set::message::{Control, DisplacedBy, Message, PendingRequest};
use crate::set::session::Phase;
use crate::set::tally::Answer;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    /// Takes the user's place in the directory. An older connection ends first, so that what it had
    /// still queued can no longer win, and all it has won is ahead of our question in the ledger's
    /// queue.
    pub(super) fn login(&mut self, seat: ConnectionKey, request: RequestId, user: UserId, now: &Now) {
        let session = &mut self.sessions[seat.slot as usize];
        if let Some(line) = &self.shared.logins {
            match line.ask(session.appointment(), now.at) {
                Admission::Now => session.book(None),
                Admission::Later(appointment) => {
                    session.book(Some(appointment));
                    self.tally.logins_deferred.add(1);
                    return self.overloaded_until(seat, request.get(), appointment.wait_ms(now.at));
                }
            }
        }
        session.phase = Phase::LoggingIn;
        session.user = Some(user);
        let here = ConnectionAddress { set: self.index, seat };
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
    fn wait(&mut self, seat: ConnectionKey, user: UserId) {
        self.owed += 1;
        self.waiting.insert(seat, Waiting { user, heir: None });
    }

    /// The connection of `seat` has ended for a newer one: which may go on now, or, where `seat`
    /// itself was still waiting for an even older one, once that has ended too.
    pub(super) fn succeed(&mut self, seat: ConnectionKey, newer: DisplacedBy) {
        match self.waiting.get_mut(&seat) {
            Some(waiting) => waiting.heir = Some(newer),
            None => newer.let_in(),
        }
    }

    /// What this login waited for has happened.
    pub(super) fn displaced(&mut self, seat: ConnectionKey, request: RequestId, now: &Now) {
        let Some(Waiting { user, heir }) = self.waiting.remove(&seat) else { return };
        match (self.live(seat).is_some(), heir) {
            (true, _) => return self.recall(seat, request, now),
            (false, Some(newer)) => newer.let_in(),
            // It went while it waited, and kept its place until now so that nobody else could come
            // in between.
            (false, None) => self.shared.directory.leave(user, ConnectionAddress { set: self.index, seat }),
        }
        self.answer_gone_as(Answer::Welcome);
    }

    /// Asks the ledger what the user must be told.
    fn recall(&mut self, seat: ConnectionKey, request: RequestId, now: &Now) {
        let Some(user) = self.session(seat).and_then(|session| session.user) else { return };
        if !self.send(seat, PendingRequest::Recall { request }, |reply_to| Request::Ask {
            user,
            question: Question::Recall,
            reply_to,
        }) {
            self.shared.directory.leave(user, ConnectionAddress { set: self.index, seat });
            self.login_again_later(seat, request, now);
        }
    }

    fn login_again_later(&mut self, seat: ConnectionKey, request: RequestId, now: &Now) {
        if let Some(session) = self.session(seat) {
            session.phase = Phase::Fresh;
            session.user = None;
            self.unwelcome.push(now.seconds() + self.shared.login_seconds, seat);
        }
        self.overloaded(seat, request.get());
    }

    pub(super) fn welcome(&mut self, seat: ConnectionKey, request: RequestId, recall: &Recall, now: &Now) {
        let idle_timeout_ms = self.shared.idle_seconds.saturating_mul(1_000);
        let Some(session) = self.session(seat) else { return };
        let Some(user) = session.user else { return };
        session.phase = Phase::Online;
        session.last_grab = recall.last_request.map_or(0, RequestId::get);
        self.tally.online.add(1);
        let waiting = recall.unacknowledged.len() + recall.offers.len();
        let welcome = v1::Welcome {
            user_id: user.get(),
            server_time_ms: now.wall,
            idle_timeout_ms,
            unacknowledged: u32::try_from(waiting).unwrap_or(u32::MAX),
        };
        self.answer(seat, request.get(), Answer::Welcome, Event::Welcome(welcome));
        for awards in recall.unacknowledged.chunks(ITEMS_PER_FRAME_MAX) {
            let reminder = self.reminder(awards);
            self.push(seat, Event::Reminder(reminder));
        }
        for offers in recall.offers.chunks(ITEMS_PER_FRAME_MAX) {
            let offers = offers.iter().map(|offer| wire::offer(offer)).collect();
            self.push(seat, Event::Offers(v1::Offers { offers }));
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
