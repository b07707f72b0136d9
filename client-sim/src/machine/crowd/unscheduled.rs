//! What users do of their own accord, outside of the schedule: planned for a moment, written then
//! if the user is online, else when it is back, tried again where the server has no capacity.

use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::room::Action;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{Cancel, ErrorCode, Open, Orders, Pay, Room, Statement, order};

use super::Crowd;
use crate::backoff::scramble;
use crate::clock::MILLISECOND;
use crate::limits::{LAPSE_MS, REACTION_JITTER_MS, REACTION_TRIES_MAX};
use crate::machine::chat::RoomPosition;
use crate::machine::labels::{Outcome, Violation};
use crate::machine::reactions::{Act, Reaction};
use crate::machine::statements::Read;
use crate::machine::user::State;
use crate::machine::wire;

/// What an event is as the answer to an act; `None`: it is none.
fn outcome(act: Act, event: &Event) -> Option<Outcome> {
    Some(match (act, event) {
        (_, Event::Overloaded(_)) => Outcome::Overloaded,
        (_, Event::Error(_)) => Outcome::Error,
        (Act::Open(_), Event::Opened(_)) => Outcome::Opened,
        (Act::Open(_), Event::EnvelopeEmpty(_)) => Outcome::EnvelopeEmpty,
        (Act::Open(_) | Act::Pay(_), Event::TooLate(_)) => Outcome::TooLate,
        (Act::Pay(asked) | Act::Cancel(asked), Event::Order(order)) if order.order_id == asked => Outcome::Order,
        (Act::Look(_), Event::OrderList(_))
        | (Act::Join(_), Event::RoomState(_))
        | (Act::Statement(_), Event::StatementPage(_)) => Outcome::Told,
        _ => return None,
    })
}

impl Crowd {
    /// `user` does this within a second or so, that not all do it at once.
    pub(super) fn plan_soon(&mut self, user: u32, act: Act, now: u64) {
        let jitter = scramble(scramble(act.item()) ^ u64::from(self.first + user)) % (REACTION_JITTER_MS * MILLISECOND);
        self.reactions.plan(user, act, now + jitter);
    }

    /// Writes what is due. Users who are away do it when they are back.
    pub(super) fn act_as_planned(&mut self, now: u64) {
        if self.halted {
            return;
        }
        while let Some((user, reaction)) = self.reactions.take_due(now) {
            if self.users[user as usize].state == State::Online {
                self.act(user, reaction, now);
            }
        }
    }

    /// A user who is back does what was due, and asks again for what was not answered.
    pub(super) fn act_again(&mut self, user: u32, now: u64) {
        if let Some(room) = self.chats.circle.room_of(self.user_id(user))
            && !self.reactions.wants(user, |act| matches!(act, Act::Join(_)))
        {
            // Who comes back is to be caught up before it hears much else.
            let known = self.chats.followed(user).epoch != 0;
            if known {
                self.reactions.plan(user, Act::Join(room), now);
            } else {
                self.plan_soon(user, Act::Join(room), now);
            }
        }
        if self.reactions.count > 0 && !self.halted {
            for reaction in self.reactions.to_write_again(user, now) {
                self.act(user, reaction, now);
            }
        }
    }

    fn act(&mut self, user: u32, reaction: Reaction, now: u64) {
        let Reaction { id, act, .. } = reaction;
        if reaction.sent == 0 {
            if !self.is_still_wanted(user, act) {
                self.reactions.remove(user, id);
                return;
            }
            self.tally.reacted(act);
        }
        let request = match act {
            Act::Open(envelope_id) => Request::Open(Open { envelope_id }),
            Act::Pay(order_id) => Request::Pay(Pay { order_id }),
            Act::Cancel(order_id) => Request::Cancel(Cancel { order_id }),
            Act::Look(_) => Request::Orders(Orders { before_order_id: 0, limit: 0 }),
            Act::Join(room_id) => {
                let RoomPosition { epoch, offset } = self.chats.resume(user);
                Request::Room(Room { room_id, action: Action::Join.into(), epoch, offset })
            }
            Act::Statement(before_entry_id) => Request::Statement(Statement { before_entry_id, limit: 0 }),
        };
        self.reactions.written(user, id, now);
        self.write(user, &wire::frame(id, request), now);
    }

    /// Whether something that has not been asked for yet is still to be had.
    fn is_still_wanted(&mut self, user: u32, act: Act) -> bool {
        match act {
            Act::Open(envelope) => {
                self.envelopes.take(user, envelope) || self.envelopes.amount(user, envelope).is_some()
            }
            Act::Pay(order) | Act::Cancel(order) | Act::Look(order) => {
                self.orders.get(order).is_some_and(|known| known.state == order::State::Reserved)
            }
            Act::Join(_) | Act::Statement(_) => true,
        }
    }

    pub(super) fn act_answered(&mut self, user: u32, id: u64, event: Event, now: u64) {
        let Some(act) = self.reactions.asked(user, id) else {
            let answered = self.reactions.was_answered(id);
            let violation = if answered { Violation::DuplicateAnswer } else { Violation::UnknownRequest };
            return self.tally.counters.violation(violation);
        };
        let Some(outcome) = outcome(act, &event) else {
            return self.tally.counters.violation(Violation::WrongKind);
        };
        let Some(reaction) = self.reactions.settle(user, id) else {
            return self.tally.counters.violation(Violation::DuplicateAnswer);
        };
        self.tally.reaction_answered(act, (reaction.sent, now), outcome);
        match (act, event) {
            (_, Event::Overloaded(overloaded)) => self.refused(user, reaction, overloaded.retry_after_ms.into(), now),
            (_, Event::Error(error)) => {
                self.tally.counters.error(error.code);
                match (act, error.code()) {
                    (_, ErrorCode::LedgerUnavailable) => self.refused(user, reaction, LAPSE_MS, now),
                    // Somebody else may have it.
                    (Act::Pay(order), ErrorCode::InsufficientFunds) => {
                        self.reactions.plan(user, Act::Cancel(order), now);
                    }
                    _ => {}
                }
            }
            (Act::Open(envelope), event) => self.open_answered(user, id, envelope, &event, now),
            (Act::Pay(order), Event::TooLate(late)) => {
                self.tally.counters.check(self.orders.record_too_late(user, order, late.ended_at_ms));
            }
            (Act::Pay(_) | Act::Cancel(_), Event::Order(order)) => match (act, order.state()) {
                (Act::Pay(_), order::State::Paid)
                | (Act::Cancel(_), order::State::Cancelled | order::State::Expired) => {
                    self.record_order(user, id, &order, now);
                }
                _ => self.tally.counters.violation(Violation::WrongKind),
            },
            (Act::Look(_), Event::OrderList(list)) => {
                // Those of earlier runs are not ours to judge.
                let known = list.orders.iter().filter(|order| self.orders.get(order.order_id).is_some());
                for order in known.cloned().collect::<Vec<_>>() {
                    self.record_order(user, id, &order, now);
                }
                // Overdue, and not yet taken back.
                if self.is_still_wanted(user, act) && reaction.refused < REACTION_TRIES_MAX {
                    self.reactions.try_again(user, reaction, now + LAPSE_MS * MILLISECOND);
                }
            }
            (Act::Join(_), Event::RoomState(state)) => {
                self.tally.counters.check(self.chats.joined(user, self.user_id(user), &state));
            }
            (Act::Statement(_), Event::StatementPage(page)) => match self.statements.page(user, &page) {
                Read::More(before) => self.reactions.plan(user, Act::Statement(before), now),
                Read::Wrong(violation) => self.tally.counters.violation(violation),
                Read::Right | Read::TooLong => {}
            },
            // There are no other pairs: see `outcome`.
            _ => {}
        }
    }

    /// The server had no capacity: the same once more, later.
    fn refused(&mut self, user: u32, reaction: Reaction, after_ms: u64, now: u64) {
        if let Act::Open(envelope) = reaction.act {
            self.envelopes.put_back(user, envelope);
        }
        if reaction.refused < REACTION_TRIES_MAX {
            let jitter = scramble(reaction.id) % (after_ms / 2 + 1);
            self.reactions.try_again(user, reaction, now + (after_ms + jitter) * MILLISECOND);
        }
    }
}
