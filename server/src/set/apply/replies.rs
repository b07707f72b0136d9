//! What services reply.

use hongbao_proto::v1::ErrorCode;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::{CampaignId, RequestId, Serial};

use crate::clock::Now;
use crate::ledger::writer::{Reply, Unavailable};
use crate::ledger::{Answer, Award, Outcome, Posting, Refusal};
use crate::limits;
use crate::market::stock::Taken;
use crate::set::Set;
use crate::set::directory::{ConnectionAddress, ConnectionKey};
use crate::set::events;
use crate::set::message::{self, Offering, PendingRequest, StockReport};
use crate::set::session::SessionState;
use crate::set::tally::AnswerKind as Kind;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(super) fn on_ledger_reply(&mut self, key: ConnectionKey, pending: PendingRequest, reply: Reply, now: &Now) {
        self.owed -= 1;
        if let Some(user) = self.followed(key) {
            self.watched.replied(self.index, key, user, pending.request().get(), &reply);
        }
        match (pending, reply) {
            (PendingRequest::Claim { request, campaign, serial, passed }, Reply::Posted(result)) => {
                match &result {
                    Ok(Outcome::Won(_) | Outcome::Ordered(_)) => self.stock.claimed(campaign),
                    Ok(Outcome::Repeated(_) | Outcome::LimitReached { .. } | Outcome::Refused(Refusal::OutOfOrder))
                    | Err(Unavailable) => self.stock.put_back(campaign, serial),
                    Ok(_) => self.void(campaign, serial, &result),
                }
                match (result, passed) {
                    (Ok(Outcome::LimitReached { limit }), Some(passed)) => {
                        self.try_another_rain(key, request, campaign, passed, limit, now);
                    }
                    (result, _) => self.claimed(key, request, result),
                }
            }
            (PendingRequest::FirstAnswer { request, .. }, Reply::Answered(Ok(Answer::FirstAnswer(Some(award))))) => {
                self.awarded(key, request, &award);
            }
            (PendingRequest::FirstAnswer { request, campaign }, Reply::Answered(Ok(Answer::FirstAnswer(None)))) => {
                let taken = self.stock.closed(campaign, now.wall).unwrap_or(Taken::NoneNow);
                self.not_taken(key, request, taken);
            }
            (PendingRequest::Simple { request }, Reply::Posted(Ok(outcome))) => self.done(key, request, outcome),
            (PendingRequest::Simple { request }, Reply::Answered(Ok(answer))) => {
                let told = events::answer(&answer, |order| self.stock.terms(order.campaign));
                self.tell(key, request, told);
            }
            (PendingRequest::Recall { request }, Reply::Answered(Ok(Answer::Recall(recall)))) => match self.live(key) {
                Some(_) => self.welcome(key, request, &recall, now),
                None => self.answer_gone_as(Kind::Welcome),
            },
            (PendingRequest::Recall { request }, _) => {
                let user = self.live(key).and_then(|session| {
                    session.state = SessionState::Fresh;
                    session.user.take()
                });
                if let Some(user) = user {
                    self.shared.directory.leave(user, ConnectionAddress { set: self.index, key });
                    self.unwelcome.push(now.seconds() + self.shared.login_seconds, key);
                }
                self.error(key, request.get(), ErrorCode::LedgerUnavailable);
            }
            (
                PendingRequest::FirstAnswer { request, .. }
                | PendingRequest::Chat { request }
                | PendingRequest::Simple { request }
                | PendingRequest::Claim { request, .. },
                _,
            ) => {
                self.error(key, request.get(), ErrorCode::LedgerUnavailable);
            }
        }
    }

    fn claimed(&mut self, key: ConnectionKey, request: RequestId, result: Result<Outcome, Unavailable>) {
        match result {
            Ok(Outcome::Won(win)) => self.awarded(key, request, &Award::Win(win)),
            Ok(Outcome::Ordered(order)) => self.awarded(key, request, &Award::Order(order)),
            Ok(Outcome::Repeated(award)) => self.awarded(key, request, &award),
            Ok(Outcome::LimitReached { limit }) => self.limit_reached(key, request, limit),
            Ok(_) => self.not_taken(key, request, Taken::NoneNow),
            Err(Unavailable) => {
                self.undecided(key, request);
                self.error(key, request.get(), ErrorCode::LedgerUnavailable);
            }
        }
    }

    fn awarded(&mut self, key: ConnectionKey, request: RequestId, award: &Award) {
        let terms = match award {
            Award::Win(_) => None,
            Award::Order(order) => self.stock.terms(order.campaign),
        };
        let (kind, event) = events::award(award, terms);
        self.answer(key, request.get(), kind, event);
    }

    /// Answers a deed that is durable, and passes on what follows from it.
    fn done(&mut self, key: ConnectionKey, request: RequestId, outcome: Outcome) {
        if matches!(outcome, Outcome::TooManyEnvelopes) {
            return self.overloaded(key, request.get());
        }
        let terms = events::order_in(&outcome).and_then(|order| self.stock.terms(order.campaign));
        let told = events::outcome(&outcome, terms);
        self.tell(key, request, told);
        match outcome {
            Outcome::Released(order) => {
                self.released.push((order.campaign, order.serial));
                self.pass_on();
            }
            Outcome::Sent { offer, to, .. } if !to.is_empty() => {
                if self.unoffered.len() < limits::SET_UNSENT_MAX {
                    self.unoffered.push_back(Offering { offer, to });
                } else {
                    self.tally.offers_dropped.add(1);
                }
                self.pass_on();
            }
            _ => {}
        }
    }

    fn tell(&mut self, key: ConnectionKey, request: RequestId, told: Result<(Kind, Event), ErrorCode>) {
        match told {
            Ok((kind, event)) => self.answer(key, request.get(), kind, event),
            Err(code) => self.error(key, request.get(), code),
        }
    }

    /// Hands released units to the generator, and envelopes to whoever offers them. What finds no
    /// room is tried again each second.
    pub(super) fn pass_on(&mut self) {
        while let Some((campaign, serial)) = self.released.pop() {
            if self.shared.generator.try_send(StockReport::Released { campaign, serials: vec![serial] }).is_err() {
                self.released.push((campaign, serial));
                break;
            }
        }
        while let Some(offering) = self.unoffered.pop_front() {
            if let Err(refused) = self.shared.offerings.try_send(offering) {
                self.unoffered.push_front(refused.into_inner());
                break;
            }
        }
    }

    /// The ledger would not have it: the stock keeper has erred, and the serial must not be offered
    /// again.
    fn void(&mut self, campaign: CampaignId, serial: Serial, result: &Result<Outcome, Unavailable>) {
        tracing::error!(event = "prize_void", set = self.index, %campaign, %serial, ?result, "the ledger refused a prize of ours; dropped");
        self.stock.void(campaign);
    }

    pub(in crate::set) fn on_reply(
        &mut self,
        key: ConnectionKey,
        pending: PendingRequest,
        reply: message::Reply,
        now: &Now,
    ) {
        let request = pending.request();
        match reply {
            message::Reply::Ledger(reply) => self.on_ledger_reply(key, pending, *reply, now),
            message::Reply::Receipt { delivered, offset } => {
                self.end_chat();
                self.receipt(key, request, delivered, offset);
            }
            message::Reply::Room(state) => self.send_state(key, request, state),
            message::Reply::Enclosed(new) => {
                self.end_chat();
                self.post(key, request, Posting::Send(new));
            }
            message::Reply::Refused(code) => {
                self.end_chat();
                self.error(key, request.get(), code);
            }
            message::Reply::Overloaded => self.on_overload(key, pending, now),
        }
    }

    /// A service had no room for a request after all: nothing was done, and nothing will be.
    fn on_overload(&mut self, key: ConnectionKey, pending: PendingRequest, now: &Now) {
        self.owed -= 1;
        match pending {
            PendingRequest::Chat { .. } => self.chats -= 1,
            PendingRequest::Claim { request, campaign, serial, .. } => {
                self.stock.put_back(campaign, serial);
                self.undecided(key, request);
            }
            PendingRequest::Recall { .. } => self.undo_login(key, now),
            PendingRequest::FirstAnswer { .. } | PendingRequest::Simple { .. } => {}
        }
        self.overloaded(key, pending.request().get());
    }
}
