//! What services reply.

#![deny(clippy::wildcard_enum_match_arm)]

use std::fmt::Debug;

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{CampaignId, RequestId, Serial};

use crate::clock::Now;
use crate::ledger::writer::{NoResult, Reply, Unavailable, log_mismatch};
use crate::ledger::{
    Acknowledged, Award, CancelResult, ClaimResult, OpenResult, PayResult, Posting, PostingResult, SendResult,
};
use crate::limits;
use crate::market::stock::Taken;
use crate::set::Set;
use crate::set::directory::ConnectionKey;
use crate::set::events;
use crate::set::message::{self, Offering, PendingRequest, StockReport};
use crate::set::tally::AnswerKind as Kind;
use crate::transport::wire::Wire;

impl<W: Wire> Set<W> {
    pub(super) fn on_ledger_reply(&mut self, key: ConnectionKey, pending: PendingRequest, reply: Reply, now: &Now) {
        self.owed -= 1;
        if let Some(user) = self.followed(key) {
            self.watched.replied(self.index, key, user, pending.request().get(), &reply);
        }
        match pending {
            PendingRequest::Claim { request, campaign, serial, passed } => match reply.posted() {
                Ok(result) => self.claimed(key, (request, passed), (campaign, serial), result, now),
                Err(NoResult::Unavailable) => {
                    self.stock.put_back(campaign, serial);
                    self.undecided(key, request);
                    self.error(key, request.get(), ErrorCode::LedgerUnavailable);
                }
                Err(NoResult::Mismatched) => {
                    self.void(campaign, serial, &NoResult::Mismatched);
                    self.error(key, request.get(), ErrorCode::LedgerUnavailable);
                }
            },
            PendingRequest::FirstAnswer { request, campaign } => match reply.answered::<Option<Award>>() {
                Ok(Some(award)) => self.awarded(key, request, &award),
                Ok(None) => {
                    let taken = self.stock.closed(campaign, now.wall).unwrap_or(Taken::NoneNow);
                    self.not_taken(key, request, taken);
                }
                Err(NoResult::Unavailable | NoResult::Mismatched) => {
                    self.error(key, request.get(), ErrorCode::LedgerUnavailable);
                }
            },
            PendingRequest::Simple { request } => match reply {
                Reply::Posted(Ok(result)) => self.done(key, request, result),
                Reply::Answered(Ok(answer)) => {
                    match events::answer(&answer, |order| self.stock.terms(order.campaign)) {
                        Ok((kind, event)) => self.answer(key, request.get(), kind, event),
                        Err(code) => self.error(key, request.get(), code),
                    }
                }
                Reply::Posted(Err(Unavailable)) | Reply::Answered(Err(Unavailable)) => {
                    self.error(key, request.get(), ErrorCode::LedgerUnavailable);
                }
            },
            PendingRequest::Recall { request } => match reply.answered() {
                Ok(recall) => match self.live(key) {
                    Some(_) => self.welcome(key, request, &recall, now),
                    None => self.answer_gone_as(Kind::Welcome),
                },
                Err(NoResult::Unavailable | NoResult::Mismatched) => {
                    self.undo_login(key, now);
                    self.error(key, request.get(), ErrorCode::LedgerUnavailable);
                }
            },
            PendingRequest::Chat { request } => {
                log_mismatch("nothing: a Chat is not the ledger's");
                self.error(key, request.get(), ErrorCode::LedgerUnavailable);
            }
        }
    }

    /// Settles the unit that was claimed, and answers the Grab.
    fn claimed(
        &mut self,
        key: ConnectionKey,
        (request, passed): (RequestId, Option<u16>),
        (campaign, serial): (CampaignId, Serial),
        result: ClaimResult,
        now: &Now,
    ) {
        match result {
            ClaimResult::Won(win) => {
                self.stock.claimed(campaign);
                self.awarded(key, request, &Award::Win(win));
            }
            ClaimResult::Ordered(order) => {
                self.stock.claimed(campaign);
                self.awarded(key, request, &Award::Order(order));
            }
            ClaimResult::Repeated(award) => {
                self.stock.put_back(campaign, serial);
                self.awarded(key, request, &award);
            }
            ClaimResult::LimitReached { limit } => {
                self.stock.put_back(campaign, serial);
                match passed {
                    Some(passed) => self.try_another_rain(key, request, campaign, passed, limit, now),
                    None => self.limit_reached(key, request, limit),
                }
            }
            ClaimResult::OutOfOrder => {
                self.stock.put_back(campaign, serial);
                self.not_taken(key, request, Taken::NoneNow);
            }
            ClaimResult::Taken
            | ClaimResult::NoSuchCampaign
            | ClaimResult::Settled
            | ClaimResult::NoSuchSerial
            | ClaimResult::WrongAmount => {
                self.void(campaign, serial, &result);
                self.not_taken(key, request, Taken::NoneNow);
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

    /// Answers a request that is durable, and passes on what follows from it.
    fn done(&mut self, key: ConnectionKey, request: RequestId, result: PostingResult) {
        let id = request.get();
        match result {
            PostingResult::Acknowledge(Acknowledged { count }) => {
                self.answer(key, id, Kind::Acknowledged, Event::Acknowledged(v1::Acknowledged { count }));
            }
            PostingResult::Pay(result) => match result {
                PayResult::Paid(order) => self.awarded(key, request, &Award::Order(order)),
                PayResult::TooLate { at } => self.not_taken(key, request, Taken::TooLate { ended_at: at }),
                PayResult::InsufficientFunds => self.error(key, id, ErrorCode::InsufficientFunds),
                PayResult::NoSuchOrder => self.error(key, id, ErrorCode::NoSuchOrder),
                PayResult::TooMuch => self.error(key, id, ErrorCode::LedgerUnavailable),
            },
            PostingResult::Cancel(result) => match result {
                CancelResult::Cancelled(order) => {
                    self.awarded(key, request, &Award::Order(order));
                    self.released.push((order.campaign, order.serial));
                    self.pass_on();
                }
                CancelResult::Over(order) => self.awarded(key, request, &Award::Order(order)),
                CancelResult::Paid => self.error(key, id, ErrorCode::OrderPaid),
                CancelResult::NoSuchOrder => self.error(key, id, ErrorCode::NoSuchOrder),
            },
            PostingResult::Send(result) => match result {
                SendResult::Sent { offer, to, recipients, balance } => {
                    let envelope_id = offer.envelope.get();
                    let sent = v1::EnvelopeSent { envelope_id, recipients, balance_fen: balance.0 };
                    self.answer(key, id, Kind::EnvelopeSent, Event::EnvelopeSent(sent));
                    if !to.is_empty() {
                        self.offer(Offering { offer, to });
                    }
                }
                SendResult::InsufficientFunds => self.error(key, id, ErrorCode::InsufficientFunds),
                SendResult::TooManyEnvelopes => self.overloaded(key, id),
                SendResult::TooMuch => self.error(key, id, ErrorCode::LedgerUnavailable),
            },
            PostingResult::Open(result) => match result {
                OpenResult::Opened { envelope, share, amount } => {
                    let opened = v1::Opened { envelope_id: envelope.get(), share, amount_fen: amount.0 };
                    self.answer(key, id, Kind::Opened, Event::Opened(opened));
                }
                OpenResult::Empty { envelope } => {
                    let empty = v1::EnvelopeEmpty { envelope_id: envelope.get() };
                    self.answer(key, id, Kind::EnvelopeEmpty, Event::EnvelopeEmpty(empty));
                }
                OpenResult::TooLate { at } => self.not_taken(key, request, Taken::TooLate { ended_at: at }),
                OpenResult::NoSuchEnvelope => self.error(key, id, ErrorCode::NoSuchEnvelope),
            },
            // Of a Grab, and of the house.
            PostingResult::Claim(_) | PostingResult::Expire(_) | PostingResult::Deposit(_) => {
                log_mismatch("the result of a request of one's own affairs");
                self.error(key, id, ErrorCode::LedgerUnavailable);
            }
        }
    }

    /// An envelope is for those on-line too.
    fn offer(&mut self, offering: Offering) {
        if self.unoffered.len() < limits::SET_UNSENT_MAX {
            self.unoffered.push_back(offering);
        } else {
            self.tally.offers_dropped.add(1);
        }
        self.pass_on();
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
    fn void(&mut self, campaign: CampaignId, serial: Serial, result: &impl Debug) {
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
