//! What users ask for: each request goes to whoever decides it.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{OrderId, RequestId, UserId};

use crate::clock::Now;
use crate::ends::End;
use crate::ledger::writer::WriterRequest;
use crate::ledger::{Posting, Question};
use crate::limits;
use crate::set::Set;
use crate::set::directory::ConnectionKey;
use crate::set::message::{ClientRequest, LedgerRequest, PendingRequest};
use crate::set::room_messages::{RoomAction, RoomRequest};
use crate::set::session::SessionState;
use crate::set::tally::AnswerKind;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(in crate::set) fn on_request(&mut self, key: ConnectionKey, request: ClientRequest, now: &Now) {
        if let ClientRequest::Gone(end) = request {
            return self.on_reader_end(key, end, now);
        }
        let partial = matches!(request, ClientRequest::Partial);
        let rate = self.shared.connection_rate;
        if self.watched.any() && self.live(key).is_some() {
            self.trace_request(key, &request);
        }
        let Some(session) = self.live(key) else { return self.tally.stale.add(1) };
        if partial {
            // Second 0 means "none"; the process is older than that when its first frame arrives in
            // pieces.
            session.partial_since = now.seconds().max(1);
            return self.partial.push(now.seconds() + limits::FRAME_SECONDS_MAX, key);
        }
        session.receive(now);
        session.partial_since = 0;
        if let ClientRequest::Violation { request, code, end, hint } = request {
            self.tally.received.add(1);
            self.error(key, request, code);
            self.retire(key, end, hint);
            return self.end(key, end, None, now);
        }
        let phase = session.state;
        let within_rate = session.meter.admit(&rate, now.at);
        self.tally.received.add(1);
        match request {
            ClientRequest::Login { request, .. } if phase != SessionState::Fresh => {
                self.error(key, request.get(), ErrorCode::AlreadyLoggedIn)
            }
            ClientRequest::Login { request, user, expires_at } => self.login(key, request, user, expires_at, now),
            _ if phase == SessionState::Fresh => {
                self.error(key, request.request_id(), ErrorCode::NotLoggedIn);
                self.end(key, End::Protocol, None, now);
            }
            _ if !within_rate => self.overloaded(key, request.request_id()),
            request if phase == SessionState::LoggingIn => self.defer(key, request),
            request => self.decide(key, request, now),
        }
    }

    /// Keeps what came behind a Login until that is answered.
    fn defer(&mut self, key: ConnectionKey, request: ClientRequest) {
        let early = self.early.entry(key).or_default();
        if early.len() < limits::EARLY_REQUESTS_MAX && self.early_count < limits::SET_EARLY_REQUESTS_MAX {
            early.push(request);
            self.early_count += 1;
            self.owed += 1;
        } else {
            self.overloaded(key, request.request_id());
        }
    }

    /// What came behind a Login, no longer owed but to be answered now.
    pub(super) fn take_early(&mut self, key: ConnectionKey) -> Vec<ClientRequest> {
        let early = self.early.remove(&key).unwrap_or_default();
        self.early_count -= early.len();
        self.owed -= early.len() as u64;
        early
    }

    /// Sends a request of a user who is on-line to whoever decides it.
    pub(super) fn decide(&mut self, key: ConnectionKey, request: ClientRequest, now: &Now) {
        match request {
            ClientRequest::Grab { request, campaign } => self.grab(key, request, campaign, now),
            ClientRequest::Ping { request } => {
                self.answer(key, request.get(), AnswerKind::Pong, Event::Pong(v1::Pong { server_time_ms: now.wall }))
            }
            ClientRequest::Ledger { request, wanted } => self.on_ledger_request(key, request, wanted, now),
            ClientRequest::Chat { request, chat } => self.on_chat(key, request, *chat, now),
            ClientRequest::Room { request, wanted } => self.send_room_request(key, request, *wanted, now),
            ClientRequest::Mistake { request, code } => self.error(key, request, code),
            ClientRequest::Login { .. }
            | ClientRequest::Partial
            | ClientRequest::Violation { .. }
            | ClientRequest::Gone(_) => unreachable!("handled before"),
        }
    }

    #[cold]
    fn trace_request(&mut self, key: ConnectionKey, request: &ClientRequest) {
        let user = match request {
            ClientRequest::Login { user, .. } => Some(*user).filter(|user| self.watched.has(*user)),
            _ => self.followed(key),
        };
        if let Some(user) = user {
            self.watched.asked(self.index, key, user, request);
        }
    }

    /// Hands over to the ledger, or to whoever collects payments, what concerns the user alone.
    fn on_ledger_request(&mut self, key: ConnectionKey, request: RequestId, wanted: LedgerRequest, now: &Now) {
        let Some(user) = self.sessions[key.slot as usize].user else {
            return self.error(key, request.get(), ErrorCode::NotLoggedIn);
        };
        let posting = match wanted {
            LedgerRequest::Acknowledge(seen) => Posting::Acknowledge { user, seen },
            LedgerRequest::Open(envelope) => Posting::Open { user, envelope },
            LedgerRequest::Cancel(order) => Posting::Cancel { user, order },
            LedgerRequest::Send(mut new) => {
                new.sender = Some(user);
                if let Some(room) = new.room {
                    // The room's shard knows whom it is for.
                    return self.send_room_request(
                        key,
                        request,
                        RoomRequest { room, action: RoomAction::Enclose(new) },
                        now,
                    );
                }
                Posting::Send(new)
            }
            LedgerRequest::Pay(order) => return self.pay(key, request, user, order),
            LedgerRequest::Ask(question) => {
                return self.ask(key, PendingRequest::Simple { request }, user, *question);
            }
        };
        self.post(key, request, posting);
    }

    /// Hands over to the ledger what is answered by its outcome alone.
    pub(in crate::set) fn post(&mut self, key: ConnectionKey, request: RequestId, posting: Posting) {
        if !self.send(key, PendingRequest::Simple { request }, |reply_to| WriterRequest::Post { posting, reply_to }) {
            self.overloaded(key, request.get());
        }
    }

    /// Asks the ledger what is answered by its answer alone.
    pub(in crate::set) fn ask(
        &mut self,
        key: ConnectionKey,
        pending: PendingRequest,
        user: UserId,
        question: Question,
    ) {
        if !self.send(key, pending, |reply_to| WriterRequest::Ask { user, question, reply_to }) {
            self.overloaded(key, pending.request().get());
        }
    }

    fn pay(&mut self, key: ConnectionKey, request: RequestId, user: UserId, order: OrderId) {
        match self.permit(key, PendingRequest::Simple { request }) {
            Some(permit) => self.shared.payments.collect(user, order, permit),
            None => self.overloaded(key, request.get()),
        }
    }
}
