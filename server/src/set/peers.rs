//! What peers say.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{CampaignId, OrderId, RequestId, UserId};

use crate::clock::Now;
use crate::ends::End;
use crate::ledger::writer::WriterRequest;
use crate::ledger::{Claim, Posting, Question};
use crate::limits;
use crate::market::stock::Taken;
use crate::set::Set;
use crate::set::directory::ConnectionKey;
use crate::set::message::{ClientRequest, LedgerRequest, PendingRequest, ReplyPermit, StockReport};
use crate::set::room_messages::{RoomAction, RoomRequest};
use crate::set::session::SessionState;
use crate::set::tally::Answer;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(super) fn on_request(&mut self, key: ConnectionKey, request: ClientRequest, now: &Now) {
        if let ClientRequest::Gone(end) = request {
            return self.gone(key, end);
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
        session.heard_at = now.seconds();
        session.partial_since = 0;
        if let ClientRequest::Violation { request, code, end } = request {
            self.tally.received.add(1);
            self.error(key, request, code);
            return self.end(key, end, None, now);
        }
        let phase = session.state;
        let within_rate = session.meter.admit(&rate, now.at);
        self.tally.received.add(1);
        match request {
            ClientRequest::Login { request, .. } if phase != SessionState::Fresh => {
                self.error(key, request.get(), ErrorCode::AlreadyLoggedIn)
            }
            ClientRequest::Login { request, user } => self.login(key, request, user, now),
            _ if phase != SessionState::Online => {
                self.error(key, request.request_id(), ErrorCode::NotLoggedIn);
                if phase == SessionState::Fresh {
                    self.end(key, End::Protocol, None, now);
                }
            }
            _ if !within_rate => self.overloaded(key, request.request_id()),
            ClientRequest::Grab { request, campaign } => self.grab(key, request, campaign, now),
            ClientRequest::Ping { request } => {
                self.answer(key, request.get(), Answer::Pong, Event::Pong(v1::Pong { server_time_ms: now.wall }))
            }
            ClientRequest::Ledger { request, wanted } => self.on_ledger_request(key, request, wanted, now),
            ClientRequest::Chat { request, chat } => self.chat(key, request, *chat, now),
            ClientRequest::Room { request, wanted } => self.send_room_request(key, request, *wanted, now),
            ClientRequest::Mistake { request, code } => self.error(key, request, code),
            ClientRequest::Partial | ClientRequest::Violation { .. } | ClientRequest::Gone(_) => {
                unreachable!("handled above")
            }
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

    fn grab(&mut self, key: ConnectionKey, request: RequestId, wanted: Option<CampaignId>, now: &Now) {
        self.tally.grabs.add(1);
        if self.shared.gate.is_some() {
            match self.admitted.checked_sub(1) {
                Some(left) => self.admitted = left,
                None => return self.overloaded(key, request.get()),
            }
        }
        let session = &mut self.sessions[key.slot as usize];
        let Some(user) = session.user else { return self.error(key, request.get(), ErrorCode::NotLoggedIn) };
        if request.get() <= session.last_grab {
            return self.first_answer(key, user, request, wanted);
        }
        if let Some(campaign) = wanted
            && self.stock.holds_lottery(campaign, now.wall)
        {
            session.last_grab = request.get();
            return self.enter_lottery(key, user, request, campaign);
        }
        self.take_and_claim(key, user, request, wanted, now);
    }

    /// Takes a unit off the shelf and has the ledger say whose it is, or answers why not.
    pub(super) fn take_and_claim(
        &mut self,
        key: ConnectionKey,
        user: UserId,
        request: RequestId,
        wanted: Option<CampaignId>,
        now: &Now,
    ) {
        let before = self.session(key).map(|session| {
            let before = session.last_grab;
            // A Grab that waited for a draw may have been overtaken by a later one.
            session.last_grab = before.max(request.get());
            before
        });
        match self.stock.take(wanted, now.wall) {
            Taken::Prize { campaign, serial, amount } => {
                let claim = Claim { user, request, campaign, serial, amount };
                if !self.send_claim(key, claim, wanted.is_none().then_some(0)) {
                    if let (Some(session), Some(before)) = (self.session(key), before)
                        && session.last_grab == request.get()
                    {
                        session.last_grab = before.min(request.get() - 1);
                    }
                    self.overloaded(key, request.get());
                }
                self.ask_for_more(campaign);
            }
            other => {
                if let (Taken::NoneNow, Some(campaign)) = (other, wanted) {
                    self.ask_for_more(campaign);
                }
                self.not_taken(key, request, other);
            }
        }
    }

    /// Has the ledger say whose a unit is that was just taken. `false`: no room; the unit is back
    /// on its shelf.
    #[must_use = "a claim that was not sent leaves its request unanswered"]
    fn send_claim(&mut self, key: ConnectionKey, claim: Claim, passed: Option<u16>) -> bool {
        let Claim { request, campaign, serial, .. } = claim;
        let pending = PendingRequest::Claim { request, campaign, serial, passed };
        let posting = Posting::Claim(claim);
        let sent = self.send(key, pending, |reply_to| WriterRequest::Post { posting, reply_to });
        if !sent {
            self.stock.put_back(campaign, serial);
        }
        sent
    }

    /// A Grab for any rain was offered one that may give its user no more: another may. Answers, or
    /// asks the ledger again.
    pub(super) fn try_another_rain(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        refused: CampaignId,
        passed: u16,
        limit: u32,
        now: &Now,
    ) {
        let passed = passed + 1;
        let user = self.live(key).and_then(|session| session.user);
        let Some(user) = user.filter(|_| passed < limits::RAINS_PER_GRAB_MAX) else {
            return self.not_taken(key, request, Taken::NoneNow);
        };
        match self.stock.take_beyond(refused, now.wall) {
            Some((campaign, serial, amount)) => {
                let claim = Claim { user, request, campaign, serial, amount };
                if !self.send_claim(key, claim, Some(passed)) {
                    self.undecided(key, request);
                    self.overloaded(key, request.get());
                }
            }
            None if self.stock.open_rains(now.wall) > passed.into() => {
                self.not_taken(key, request, Taken::NoneNow);
            }
            None => self.limit_reached(key, request, limit),
        }
    }

    pub(super) fn limit_reached(&mut self, key: ConnectionKey, request: RequestId, limit: u32) {
        let event = Event::LimitReached(v1::LimitReached { limit });
        self.answer(key, request.get(), Answer::LimitReached, event);
    }

    /// Nothing was decided of a Grab that was with the ledger: the same id may be sent again.
    pub(super) fn undecided(&mut self, key: ConnectionKey, request: RequestId) {
        if let Some(session) = self.session(key)
            && session.last_grab == request.get()
        {
            session.last_grab -= 1;
        }
    }

    /// Tells the generator when the shelf of a sale runs out here.
    fn ask_for_more(&mut self, campaign: CampaignId) {
        if self.stock.wants(campaign)
            && self.shared.generator.try_send(StockReport::Wanted { set: self.index, campaign }).is_err()
        {
            self.stock.still_wants(campaign);
        }
    }

    pub(super) fn not_taken(&mut self, key: ConnectionKey, request: RequestId, taken: Taken) {
        let (kind, event) = match taken {
            Taken::SoldOut => (Answer::SoldOut, Event::SoldOut(v1::SoldOut {})),
            Taken::TooEarly { starts_at } => {
                (Answer::TooEarly, Event::TooEarly(v1::TooEarly { starts_at_ms: starts_at }))
            }
            Taken::TooLate { ended_at } => (Answer::TooLate, Event::TooLate(v1::TooLate { ended_at_ms: ended_at })),
            Taken::NoSuchCampaign => return self.error(key, request.get(), ErrorCode::NoSuchCampaign),
            Taken::NoneNow | Taken::Prize { .. } => (Answer::NoneNow, Event::NoneNow(v1::NoneNow {})),
        };
        self.answer(key, request.get(), kind, event);
    }

    /// A Grab whose id is not new: what it won is in the ledger, or nowhere.
    fn first_answer(&mut self, key: ConnectionKey, user: UserId, request: RequestId, campaign: Option<CampaignId>) {
        if !self.send(key, PendingRequest::FirstAnswer { request, campaign }, |reply_to| WriterRequest::Ask {
            user,
            question: Question::FirstAnswer(request),
            reply_to,
        }) {
            self.overloaded(key, request.get());
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
                    // The room's desk knows whom it is for.
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
                let question = *question;
                if !self.send(key, PendingRequest::Simple { request }, |reply_to| WriterRequest::Ask {
                    user,
                    question,
                    reply_to,
                }) {
                    self.overloaded(key, request.get());
                }
                return;
            }
        };
        self.post(key, request, posting);
    }

    /// Hands over to the ledger what is answered by its outcome alone.
    pub(super) fn post(&mut self, key: ConnectionKey, request: RequestId, posting: Posting) {
        if !self.send(key, PendingRequest::Simple { request }, |reply_to| WriterRequest::Post { posting, reply_to }) {
            self.overloaded(key, request.get());
        }
    }

    fn pay(&mut self, key: ConnectionKey, request: RequestId, user: UserId, order: OrderId) {
        let permit =
            self.reserve().map(|permit| ReplyPermit { permit, key, pending: PendingRequest::Simple { request } });
        let collecting = permit.is_some_and(|permit| self.shared.payments.collect(user, order, permit).is_ok());
        if collecting {
            self.owed += 1;
        } else {
            self.overloaded(key, request.get());
        }
    }
}

impl ClientRequest {
    /// The id to echo.
    fn request_id(&self) -> u64 {
        match self {
            ClientRequest::Grab { request, .. }
            | ClientRequest::Login { request, .. }
            | ClientRequest::Ledger { request, .. }
            | ClientRequest::Chat { request, .. }
            | ClientRequest::Room { request, .. }
            | ClientRequest::Ping { request } => request.get(),
            ClientRequest::Mistake { request, .. } | ClientRequest::Violation { request, .. } => *request,
            ClientRequest::Partial | ClientRequest::Gone(_) => 0,
        }
    }
}
