//! A user's turn: what it asks for, and the answer to it. Nearly all turns are Grabs of a rain, of
//! which nothing is kept but the request's number; whatever else was asked for is kept aside until
//! its answer comes.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{Open, client_frame::Request};

use super::Crowd;
use crate::limits::EXPIRED_MAX;
use crate::machine::chat::{self, To};
use crate::machine::labels::{Outcome, Violation};
use crate::machine::outstanding::Settled;
use crate::machine::wire::{self, GrabTemplate};
use crate::results::ChatTotals;
use crate::schedule::mix::Operation;

/// What a request under way asks for, where it is no Grab of a rain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Open(u64),
    /// That somebody hears this.
    Chat(To),
    /// A unit of this sale.
    Ticket(u32),
}

fn operation_of(asked: Option<Asked>) -> Operation {
    match asked {
        None => Operation::Grab,
        Some(Asked::Open(_)) => Operation::Open,
        Some(Asked::Chat(_)) => Operation::Chat,
        Some(Asked::Ticket(_)) => Operation::Ticket,
    }
}

/// What an event is as the answer to an operation; `None`: it is none.
fn outcome(operation: Operation, event: &Event) -> Option<Outcome> {
    let grab = matches!(operation, Operation::Grab | Operation::Ticket);
    Some(match event {
        Event::Overloaded(_) => Outcome::Overloaded,
        Event::Error(_) => Outcome::Error,
        Event::Won(_) if operation == Operation::Grab => Outcome::Won,
        Event::Order(_) if operation == Operation::Ticket => Outcome::Order,
        Event::NoneNow(_) if grab => Outcome::NoneNow,
        Event::SoldOut(_) if grab => Outcome::SoldOut,
        Event::LimitReached(_) if grab => Outcome::LimitReached,
        Event::TooEarly(_) if grab => Outcome::TooEarly,
        Event::TooLate(_) if grab || operation == Operation::Open => Outcome::TooLate,
        Event::Opened(_) if operation == Operation::Open => Outcome::Opened,
        Event::EnvelopeEmpty(_) if operation == Operation::Open => Outcome::EnvelopeEmpty,
        Event::Receipt(_) if operation == Operation::Chat => Outcome::Receipt,
        _ => return None,
    })
}

impl Crowd {
    /// Decides what a request is whose turn has come. A user who cannot do what the mix says shakes
    /// instead, so that the schedule keeps its QPS.
    pub(super) fn begin_request(&mut self, segment: usize, user: u32, request: u64) -> Operation {
        let wanted = self.mixes[segment].of(request);
        let asked = match wanted {
            Operation::Grab => return wanted,
            _ if self.asked.len() >= EXPIRED_MAX => None,
            Operation::Open => self.envelopes.take_oldest(user).map(Asked::Open),
            Operation::Chat => Some(Asked::Chat(self.chats.circle.to(self.user_id(user), request))),
            Operation::Ticket => self.sale.map(|sale| Asked::Ticket(sale.campaign)),
        };
        match asked {
            Some(asked) => {
                self.asked.insert(request, asked);
                wanted
            }
            None => {
                self.tally.counters.totals.stand_ins += 1;
                Operation::Grab
            }
        }
    }

    /// The operation of a request under way.
    pub(super) fn operation(&self, request: u64) -> Operation {
        operation_of(self.asked.get(&request).copied())
    }

    /// Writes a request, for the first time or again.
    pub(super) fn ask(&mut self, user: u32, request: u64, now: u64) {
        let Some(tag) = self.tag else { return };
        let id = tag.request_id(request);
        match self.asked.get(&request).copied() {
            None => {
                let frame = self.grab.frame(id);
                self.write(user, frame.as_ref(), now);
            }
            Some(Asked::Ticket(campaign)) => self.write(user, GrabTemplate::new(campaign).frame(id).as_ref(), now),
            Some(Asked::Open(envelope_id)) => {
                self.write(user, &wire::frame(id, Request::Open(Open { envelope_id })), now);
            }
            Some(Asked::Chat(_)) => {
                let chat = self.chats.circle.chat(self.user_id(user), request);
                self.write(user, &wire::frame(id, Request::Chat(chat)), now);
            }
        }
    }

    pub(super) fn request_answered(&mut self, user: u32, request_id: u64, event: Event, now: u64) {
        let Some((request, due)) = self
            .tag
            .and_then(|tag| tag.request_of(request_id))
            .and_then(|request| Some((request, self.schedule.due(request)?)))
        else {
            return self.tally.counters.violation(Violation::UnknownRequest);
        };
        let asked = self.asked.get(&request).copied();
        let operation = operation_of(asked);
        let Some(outcome) = outcome(operation, &event) else {
            return self.misfit(user, request, due, &event, now);
        };
        match self.outstanding.settle(user, request) {
            Settled::InTime => {}
            Settled::Late => self.tally.counters.totals.answered_late += 1,
            Settled::Nothing => return self.unexpected_answer(user, request, due, now),
        }
        if asked.is_some() {
            self.asked.remove(&request);
        }
        if let Event::Error(error) = &event {
            self.tally.counters.error(error.code);
        }
        let Some(segment) = self.schedule.segment_of(request) else { return };
        let held = self.storms.answered(user, due, now);
        self.tally.answered(segment, (due, now), operation, outcome, held);
        match (asked, event) {
            (None, Event::Won(won)) => self.record_win(user, request_id, &won, now),
            (None, _) => {}
            (Some(Asked::Ticket(campaign)), event) => self.ticket_answered(user, request_id, campaign, &event, now),
            (Some(Asked::Open(envelope)), event) => self.open_answered(user, request_id, envelope, &event, now),
            (Some(Asked::Chat(to)), Event::Receipt(receipt)) => {
                if !chat::receipt_is_right(to, &receipt) {
                    self.tally.counters.violation(Violation::ReceiptUntrue);
                } else if receipt.offset > 0 {
                    self.chats.record_own(user, receipt.offset);
                }
                let ChatTotals { delivered, offline, dropped, .. } = &mut self.chats.counts;
                *delivered += u64::from(receipt.delivered);
                *offline += u64::from(receipt.offline);
                *dropped += u64::from(receipt.dropped);
            }
            (Some(Asked::Chat(_)), _) => {}
        }
    }

    /// An answer of a kind that does not fit what is under way: either its request was another and
    /// has its answer already, or it is of the wrong kind.
    fn misfit(&mut self, user: u32, request: u64, due: u64, event: &Event, now: u64) {
        let planned =
            self.schedule.segment_of(request).map_or(Operation::Grab, |segment| self.mixes[segment].of(request));
        if planned != Operation::Grab && outcome(planned, event).is_some() && !self.outstanding.awaits(user, request) {
            return self.unexpected_answer(user, request, due, now);
        }
        self.tally.counters.violation(Violation::WrongKind);
    }

    /// An answer that nobody waits for.
    fn unexpected_answer(&mut self, user: u32, request: u64, due: u64, now: u64) {
        // Ours, and sent by now: then it was answered before.
        let asked = due <= now && self.turns.spread.user_of(request).checked_sub(self.first) == Some(user);
        let violation = if asked { Violation::DuplicateAnswer } else { Violation::UnknownRequest };
        self.tally.counters.violation(violation);
    }
}
