//! A Grab: from the shelf to the ledger, or to why not.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{CampaignId, RequestId, UserId};

use crate::clock::Now;
use crate::ledger::writer::WriterRequest;
use crate::ledger::{Claim, Posting, Question};
use crate::limits;
use crate::market::stock::Taken;
use crate::set::Set;
use crate::set::directory::ConnectionKey;
use crate::set::message::{PendingRequest, StockReport};
use crate::set::tally::AnswerKind;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(in crate::set) fn grab(
        &mut self,
        key: ConnectionKey,
        request: RequestId,
        wanted: Option<CampaignId>,
        now: &Now,
    ) {
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

    /// Takes a unit off the shelf and claims it, or answers why not.
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
                self.request_stock(campaign);
            }
            other => {
                if let (Taken::NoneNow, Some(campaign)) = (other, wanted) {
                    self.request_stock(campaign);
                }
                self.not_taken(key, request, other);
            }
        }
    }

    /// Claims a unit that was just taken. `false`: no room; the unit is back
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

    pub(in crate::set) fn limit_reached(&mut self, key: ConnectionKey, request: RequestId, limit: u32) {
        let event = Event::LimitReached(v1::LimitReached { limit });
        self.answer(key, request.get(), AnswerKind::LimitReached, event);
    }

    /// Nothing was decided of a Grab that was with the ledger: the same id may be sent again.
    pub(super) fn undecided(&mut self, key: ConnectionKey, request: RequestId) {
        if let Some(session) = self.session(key)
            && session.last_grab == request.get()
        {
            session.last_grab -= 1;
        }
    }

    /// Asks the generator for more when the shelf of a sale runs out here.
    fn request_stock(&mut self, campaign: CampaignId) {
        if self.stock.wants(campaign)
            && self.shared.generator.try_send(StockReport::Wanted { set: self.index, campaign }).is_err()
        {
            self.stock.still_wants(campaign);
        }
    }

    pub(super) fn not_taken(&mut self, key: ConnectionKey, request: RequestId, taken: Taken) {
        let (kind, event) = match taken {
            Taken::SoldOut => (AnswerKind::SoldOut, Event::SoldOut(v1::SoldOut {})),
            Taken::TooEarly { starts_at } => {
                (AnswerKind::TooEarly, Event::TooEarly(v1::TooEarly { starts_at_ms: starts_at }))
            }
            Taken::TooLate { ended_at } => (AnswerKind::TooLate, Event::TooLate(v1::TooLate { ended_at_ms: ended_at })),
            Taken::NoSuchCampaign => return self.error(key, request.get(), ErrorCode::NoSuchCampaign),
            Taken::NoneNow | Taken::Prize { .. } => (AnswerKind::NoneNow, Event::NoneNow(v1::NoneNow {})),
        };
        self.answer(key, request.get(), kind, event);
    }

    /// A Grab with an old id: what it won is in the ledger, or nowhere.
    fn first_answer(&mut self, key: ConnectionKey, user: UserId, request: RequestId, campaign: Option<CampaignId>) {
        self.ask(key, PendingRequest::FirstAnswer { request, campaign }, user, Question::FirstAnswer(request));
    }
}
