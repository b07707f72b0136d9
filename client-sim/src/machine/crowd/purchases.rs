//! Envelopes, orders and statements: what users are told of them is held against what they know,
//! journaled, and acted on.

use hongbao_proto::v1::order::State;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode, Offer, Opened};
use rustc_hash::FxHashMap;

use super::Crowd;
use super::answers::Unacknowledged;
use crate::backoff::scramble;
use crate::clock::MILLISECOND;
use crate::limits::{LAPSE_MS, REOPEN_ONE_IN};
use crate::machine::envelopes::Share;
use crate::machine::labels::Violation;
use crate::machine::orders::Intent;
use crate::machine::prizes::Recorded;
use crate::machine::reactions::Act;
use crate::machine::statements::Item;
use crate::machine::user::State as UserState;
use hongbao_telemetry::journal::Row;

impl Crowd {
    // ---- Envelopes

    pub(super) fn offered(&mut self, user: u32, offers: &[Offer], now: u64) {
        for offer in offers {
            if self.envelopes.offer(user, offer.envelope_id) && self.react {
                self.plan_soon(user, Act::Open(offer.envelope_id), now);
            }
        }
    }

    /// The answer to an Open, of a turn or of the user's own accord.
    pub(super) fn open_answered(&mut self, user: u32, request_id: u64, envelope: u64, event: &Event, now: u64) {
        match event {
            Event::Opened(opened) => self.opened(user, request_id, envelope, opened, now),
            Event::EnvelopeEmpty(_) => {
                self.envelopes.counts.empty += 1;
                self.is_over(user, envelope);
            }
            Event::TooLate(_) => {
                self.envelopes.counts.expired += 1;
                self.is_over(user, envelope);
            }
            Event::Error(error) if error.code() != ErrorCode::LedgerUnavailable => {}
            // Not looked at: it waits again.
            _ => {
                self.envelopes.put_back(user, envelope);
                if self.react {
                    self.plan_soon(user, Act::Open(envelope), now);
                }
            }
        }
    }

    fn opened(&mut self, user: u32, request_id: u64, asked: u64, opened: &Opened, now: u64) {
        let Opened { envelope_id: envelope, share: number, amount_fen: amount } = *opened;
        let counters = &mut self.tally.counters;
        if envelope != asked {
            let offered = self.envelopes.was_offered(user, envelope);
            return counters.violation(if offered { Violation::WrongKind } else { Violation::OpenedUnoffered });
        }
        if amount == 0 {
            counters.violation(Violation::AmountZero);
        }
        let share = Share { envelope, number, amount };
        match self.envelopes.record(user, share) {
            Recorded::New => {
                self.journal.append(self.user_id(user), request_id, Row::Share(share), now / MILLISECOND);
                if self.react && scramble(envelope ^ self.user_id(user)).is_multiple_of(REOPEN_ONE_IN) {
                    self.plan_soon(user, Act::Open(envelope), now);
                }
            }
            Recorded::Again => {}
            Recorded::Changed => self.tally.counters.violation(Violation::ShareChanged),
            Recorded::ToAnother => self.tally.counters.violation(Violation::ShareToldToTwo),
        }
    }

    /// Nothing is to be had from an envelope.
    fn is_over(&mut self, user: u32, envelope: u64) {
        if self.envelopes.record_empty(user, envelope) {
            self.acknowledge_later(user, Unacknowledged::Envelope(envelope));
        } else {
            self.tally.counters.violation(Violation::ShareChanged);
        }
    }

    // ---- Orders

    pub(super) fn ticket_answered(&mut self, user: u32, request_id: u64, campaign: u32, event: &Event, now: u64) {
        match event {
            Event::Order(order) if (order.campaign_id, order.grabbed_by_request_id) == (campaign, request_id) => {
                self.record_order(user, request_id, order, now);
            }
            Event::Order(_) => self.tally.counters.violation(Violation::OrderChanged),
            Event::LimitReached(limit) if self.orders.held(user, campaign) < limit.limit => {
                self.tally.counters.violation(Violation::LimitUntrue);
            }
            _ => {}
        }
    }

    /// `user` was told of an order, in the answer to request `request_id`; 0: in a Reminder.
    pub(super) fn record_order(&mut self, user: u32, request_id: u64, order: &v1::Order, now: u64) {
        let update = match self.orders.record(user, order) {
            Ok(update) => update,
            Err(violation) => return self.tally.counters.violation(violation),
        };
        self.acknowledge_later(user, Unacknowledged::Order(order.order_id));
        if !update.has_moved {
            return;
        }
        let (id, at_ms, known) = (self.user_id(user), now / MILLISECOND, update.known);
        let (order, price) = (order.order_id, known.price);
        if update.is_new {
            let row = Row::Order { order, campaign: known.campaign, serial: known.serial, price };
            self.journal.append(id, known.request, row, at_ms);
        }
        match known.state {
            State::Reserved => match Intent::of(order) {
                Intent::Pay => self.reactions.plan(user, Act::Pay(order), now),
                Intent::Cancel => self.reactions.plan(user, Act::Cancel(order), now),
                Intent::Lapse => {
                    let at = known.pay_by_ms.saturating_add(LAPSE_MS).saturating_mul(MILLISECOND);
                    self.reactions.plan(user, Act::Look(order), at.max(now));
                }
            },
            State::Paid => {
                if price > 0 {
                    self.journal.append(id, request_id, Row::Paid { order, price }, at_ms);
                }
                let limit = self.sale.filter(|sale| sale.campaign == known.campaign).and_then(|sale| sale.limit);
                if limit.is_some_and(|limit| self.orders.kept(user, known.campaign) > limit) {
                    self.tally.counters.violation(Violation::LimitExceeded);
                }
            }
            State::Cancelled => self.journal.append(id, request_id, Row::Cancelled { order }, at_ms),
            State::Expired | State::Unspecified => {}
        }
    }

    // ---- Statements

    /// So many users, evenly spread over all, read their statements, which must hold all that they
    /// know of.
    pub fn read_statements(&mut self, users: u32, now: u64) {
        let step = self.user_count().div_ceil(users.max(1)).max(1);
        let readers = (0..self.user_count()).step_by(step as usize);
        let online = readers.filter(|&user| users > 0 && self.users[user as usize].state == UserState::Online);
        let mut known: FxHashMap<u32, FxHashMap<Item, i128>> =
            online.map(|user| (user, FxHashMap::default())).collect();
        if known.is_empty() {
            return;
        }
        let mut add = |user: u32, item, amount| {
            if let Some(items) = known.get_mut(&user) {
                items.insert(item, amount);
            }
        };
        for (user, prize) in self.prizes.prizes() {
            add(user, Item::Win(prize.campaign, prize.serial), i128::from(prize.amount));
        }
        for (user, envelope, amount) in self.envelopes.shares() {
            add(user, Item::Share(envelope), i128::from(amount));
        }
        for (user, order, price) in self.orders.paid() {
            add(user, Item::Paid(order), -i128::from(price));
        }
        for (user, items) in known {
            self.statements.begin(user, items);
            self.reactions.plan(user, Act::Statement(0), now);
        }
    }
}
