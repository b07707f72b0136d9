//! What peers say.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{CampaignId, OrderId, RequestId, UserId};

use crate::clock::Now;
use crate::ends::End;
use crate::ledger::writer::Request;
use crate::ledger::{Claim, Posting, Question};
use crate::limits;
use crate::market::stock::Taken;
use crate::set::Set;
use crate::set::directory::ConnectionKey;
use crate::set::message::{ClientRequest, LedgerRequest, PendingRequest, ReplyPermit, StockReport};
use crate::set::room_messages::{RoomAction, RoomRequest};
use crate::set::session::Phase;
use crate::set::tally::Answer;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(super) fn hear(&mut self, seat: ConnectionKey, said: ClientRequest, now: &Now) {
        if let ClientRequest::Gone(end) = said {
            return self.gone(seat, end);
        }
        let partial = matches!(said, ClientRequest::Partial);
        let rate = self.shared.connection_rate;
        if self.watched.any() && self.live(seat).is_some() {
            self.trace_request(seat, &said);
        }
        let Some(session) = self.live(seat) else { return self.tally.stale.add(1) };
        if partial {
            // Second 0 means "none"; the process is older than that when its first frame arrives in
            // pieces.
            session.partial_since = now.seconds().max(1);
            return self.partial.push(now.seconds() + limits::FRAME_SECONDS_MAX, seat);
        }
        session.heard_at = now.seconds();
        session.partial_since = 0;
        if let ClientRequest::Violation { request, code, end } = said {
            self.tally.received.add(1);
            self.error(seat, request, code);
            return self.end(seat, end, None, now);
        }
        let phase = session.phase;
        let within_rate = session.meter.admit(&rate, now.at);
        self.tally.received.add(1);
        match said {
            ClientRequest::Login { request, .. } if phase != Phase::Fresh => {
                self.error(seat, request.get(), ErrorCode::AlreadyLoggedIn)
            }
            ClientRequest::Login { request, user } => self.login(seat, request, user, now),
            _ if phase != Phase::Online => {
                self.error(seat, said.request_id(), ErrorCode::NotLoggedIn);
                if phase == Phase::Fresh {
                    self.end(seat, End::Protocol, None, now);
                }
            }
            _ if !within_rate => self.overloaded(seat, said.request_id()),
            ClientRequest::Grab { request, campaign } => self.grab(seat, request, campaign, now),
            ClientRequest::Ping { request } => {
                self.answer(seat, request.get(), Answer::Pong, Event::Pong(v1::Pong { server_time_ms: now.wall }))
            }
            ClientRequest::Do { request, deed } => self.deed(seat, request, deed, now),
            ClientRequest::Chat { request, chat } => self.chat(seat, request, *chat, now),
            ClientRequest::Room { request, visit } => self.visit_room(seat, request, *visit, now),
            ClientRequest::Mistake { request, code } => self.error(seat, request, code),
            ClientRequest::Partial | ClientRequest::Violation { .. } | ClientRequest::Gone(_) => {
                unreachable!("handled above")
            }
        }
    }

    #[cold]
    fn trace_request(&mut self, seat: ConnectionKey, said: &ClientRequest) {
        let user = match said {
            ClientRequest::Login { user, .. } => Some(*user).filter(|user| self.watched.has(*user)),
            _ => self.followed(seat),
        };
        if let Some(user) = user {
            self.watched.asked(self.index, seat, user, said);
        }
    }

    fn grab(&mut self, seat: ConnectionKey, request: RequestId, wanted: Option<CampaignId>, now: &Now) {
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
        if let Some(campaign) = wanted
            && self.stock.draws_lots(campaign, now.wall)
        {
            session.last_grab = request.get();
            return self.enter_lot(seat, user, request, campaign);
        }
        self.take_and_claim(seat, user, request, wanted, now);
    }

    /// Takes a unit off the shelf and has the ledger say whose it is, or answers why not.
    pub(super) fn take_and_claim(
        &mut self,
        seat: ConnectionKey,
        user: UserId,
        request: RequestId,
        wanted: Option<CampaignId>,
        now: &Now,
    ) {
        let before = self.session(seat).map(|session| {
            let before = session.last_grab;
            // A Grab that waited for a draw may have been overtaken by a later one.
            session.last_grab = before.max(request.get());
            before
        });
        match self.stock.take(wanted, now.wall) {
            Taken::Prize { campaign, serial, amount } => {
                let claim = Claim { user, request, campaign, serial, amount };
                if !self.send_claim(seat, claim, wanted.is_none().then_some(0)) {
                    if let (Some(session), Some(before)) = (self.session(seat), before)
                        && session.last_grab == request.get()
                    {
                        session.last_grab = before.min(request.get() - 1);
                    }
                    self.overloaded(seat, request.get());
                }
                self.ask_for_more(campaign);
            }
            other => {
                if let (Taken::NoneNow, Some(campaign)) = (other, wanted) {
                    self.ask_for_more(campaign);
                }
                self.not_taken(seat, request, other);
            }
        }
    }

    /// Has the ledger say whose a unit is that was just taken. `false`: no room; the unit is back
    /// on its shelf.
    #[must_use = "a claim that was not sent leaves its request unanswered"]
    fn send_claim(&mut self, seat: ConnectionKey, claim: Claim, passed: Option<u16>) -> bool {
        let Claim { request, campaign, serial, .. } = claim;
        let errand = PendingRequest::Claim { request, campaign, serial, passed };
        let posting = Posting::Claim(claim);
        let sent = self.send(seat, errand, |reply_to| Request::Post { posting, reply_to });
        if !sent {
            self.stock.put_back(campaign, serial);
        }
        sent
    }

    /// A Grab for any rain was offered one that may give its user no more: another may. Answers, or
    /// asks the ledger again.
    pub(super) fn try_another_rain(
        &mut self,
        seat: ConnectionKey,
        request: RequestId,
        refused: CampaignId,
        passed: u16,
        limit: u32,
        now: &Now,
    ) {
        let passed = passed + 1;
        let user = self.live(seat).and_then(|session| session.user);
        let Some(user) = user.filter(|_| passed < limits::RAINS_PER_GRAB_MAX) else {
            return self.not_taken(seat, request, Taken::NoneNow);
        };
        match self.stock.take_beyond(refused, now.wall) {
            Some((campaign, serial, amount)) => {
                let claim = Claim { user, request, campaign, serial, amount };
                if !self.send_claim(seat, claim, Some(passed)) {
                    self.undecided(seat, request);
                    self.overloaded(seat, request.get());
                }
            }
            None if self.stock.open_rains(now.wall) > passed.into() => {
                self.not_taken(seat, request, Taken::NoneNow);
            }
            None => self.limit_reached(seat, request, limit),
        }
    }

    pub(super) fn limit_reached(&mut self, seat: ConnectionKey, request: RequestId, limit: u32) {
        let event = Event::LimitReached(v1::LimitReached { limit });
        self.answer(seat, request.get(), Answer::LimitReached, event);
    }

    /// Nothing was decided of a Grab that was with the ledger: the same id may be sent again.
    pub(super) fn undecided(&mut self, seat: ConnectionKey, request: RequestId) {
        if let Some(session) = self.session(seat)
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

    pub(super) fn not_taken(&mut self, seat: ConnectionKey, request: RequestId, taken: Taken) {
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
    fn first_answer(&mut self, seat: ConnectionKey, user: UserId, request: RequestId, campaign: Option<CampaignId>) {
        if !self.send(seat, PendingRequest::FirstAnswer { request, campaign }, |reply_to| Request::Ask {
            user,
            question: Question::FirstAnswer(request),
            reply_to,
        }) {
            self.overloaded(seat, request.get());
        }
    }

    /// Hands over to the ledger, or to whoever collects payments, what concerns the user alone.
    fn deed(&mut self, seat: ConnectionKey, request: RequestId, deed: LedgerRequest, now: &Now) {
        let Some(user) = self.sessions[seat.slot as usize].user else {
            return self.error(seat, request.get(), ErrorCode::NotLoggedIn);
        };
        let posting = match deed {
            LedgerRequest::Acknowledge(seen) => Posting::Acknowledge { user, seen },
            LedgerRequest::Open(envelope) => Posting::Open { user, envelope },
            LedgerRequest::Cancel(order) => Posting::Cancel { user, order },
            LedgerRequest::Send(mut new) => {
                new.sender = Some(user);
                if let Some(room) = new.room {
                    // The room's desk knows whom it is for.
                    return self.visit_room(seat, request, RoomRequest { room, wish: RoomAction::Enclose(new) }, now);
                }
                Posting::Send(new)
            }
            LedgerRequest::Pay(order) => return self.pay(seat, request, user, order),
            LedgerRequest::Ask(question) => {
                let question = *question;
                if !self.send(seat, PendingRequest::Do { request }, |reply_to| Request::Ask {
                    user,
                    question,
                    reply_to,
                }) {
                    self.overloaded(seat, request.get());
                }
                return;
            }
        };
        self.post(seat, request, posting);
    }

    /// Hands over to the ledger what is answered by its outcome alone.
    pub(super) fn post(&mut self, seat: ConnectionKey, request: RequestId, posting: Posting) {
        if !self.send(seat, PendingRequest::Do { request }, |reply_to| Request::Post { posting, reply_to }) {
            self.overloaded(seat, request.get());
        }
    }

    fn pay(&mut self, seat: ConnectionKey, request: RequestId, user: UserId, order: OrderId) {
        let ticket = self.reserve().map(|permit| ReplyPermit { permit, seat, errand: PendingRequest::Do { request } });
        let collecting = ticket.is_some_and(|ticket| self.shared.payments.collect(user, order, ticket).is_ok());
        if collecting {
            self.owed += 1;
        } else {
            self.overloaded(seat, request.get());
        }
    }
}

impl ClientRequest {
    /// The id to echo.
    fn request_id(&self) -> u64 {
        match self {
            ClientRequest::Grab { request, .. }
            | ClientRequest::Login { request, .. }
            | ClientRequest::Do { request, .. }
            | ClientRequest::Chat { request, .. }
            | ClientRequest::Room { request, .. }
            | ClientRequest::Ping { request } => request.get(),
            ClientRequest::Mistake { request, .. } | ClientRequest::Violation { request, .. } => *request,
            ClientRequest::Partial | ClientRequest::Gone(_) => 0,
        }
    }
}
