//! How what a posting did to the books in memory is undone when its rows could not be written.

use std::hash::Hash;

use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, Serial, UserId};
use rustc_hash::FxHashMap;

use super::{Account, AccountId, Books, Due, Unacknowledged};
use crate::clock::UnixMs;
use crate::market::order::Order;

/// The opposite of one change.
#[derive(Debug)]
pub(super) enum Undo {
    /// As it was; `None`: it was never used.
    Account(AccountId, Option<Account>),
    /// A campaign's `won`, `paid` and `reserved`.
    Sums(CampaignId, u64, Fen, u64),
    /// A unit was taken, or released.
    Unit(CampaignId, Serial, bool),
    /// How many a user held; `None`: not counted yet.
    Held(CampaignId, UserId, Option<u32>),
    /// An order that waits; `None`: it did not.
    Order(OrderId, Option<Order>),
    /// What a user was to be told, before some of it was dropped.
    Notices(UserId, Vec<Unacknowledged>),
    /// A user is to be told one thing more.
    Notified(UserId),
    Offered(UserId, EnvelopeId),
    Withdrawn(UserId, EnvelopeId),
    /// Something became due.
    Awaited(UnixMs, Due),
    /// Something is due no more.
    NoLongerDue(UnixMs, Due),
    Sent(EnvelopeId),
    /// A share was opened by the recipient at this position, who had or had not acknowledged the
    /// offer.
    Opened(EnvelopeId, usize, bool),
    /// A recipient acknowledged the offer.
    Acknowledged(EnvelopeId, usize),
    /// So many of a user's envelopes could be opened; `None`: none.
    OpenOf(UserId, Option<u32>),
    /// An envelope can be opened no more.
    Closed(EnvelopeId),
}

/// Sets what a map has of a key, `None`: nothing. Returns what it was.
pub(super) fn replace<K: Eq + Hash, V>(map: &mut FxHashMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

impl Books {
    pub(super) fn revert(&mut self, step: Undo) {
        match step {
            Undo::Account(id, before) => {
                replace(&mut self.accounts, id, before);
                if before.is_none() {
                    self.write_behind.dirty.remove(&id);
                }
            }
            Undo::Sums(id, won, paid, reserved) => {
                if let Some(state) = self.campaigns.get_mut(&id) {
                    state.campaign.won = won;
                    state.campaign.paid = paid;
                    state.campaign.reserved = reserved;
                }
            }
            Undo::Unit(id, serial, taken) => {
                if let Some(state) = self.campaigns.get_mut(&id) {
                    state.units.set(serial, taken);
                }
            }
            Undo::Held(campaign, user, before) => _ = replace(&mut self.held, (campaign, user), before),
            Undo::Order(id, before) => _ = replace(&mut self.orders, id, before),
            Undo::OpenOf(sender, before) => _ = replace(&mut self.open_of, sender, before),
            Undo::Notices(user, notices) => _ = self.notices.insert(user, notices),
            Undo::Notified(user) => {
                if let Some(notices) = self.notices.get_mut(&user) {
                    notices.pop();
                    if notices.is_empty() {
                        self.notices.remove(&user);
                    }
                }
            }
            Undo::Offered(user, envelope) => {
                if let Some(offers) = self.offers.get_mut(&user) {
                    offers.retain(|offered| *offered != envelope);
                    if offers.is_empty() {
                        self.offers.remove(&user);
                    }
                }
            }
            Undo::Withdrawn(user, envelope) => {
                let offers = self.offers.entry(user).or_default();
                let position = offers.partition_point(|offered| *offered < envelope);
                offers.insert(position, envelope);
            }
            Undo::Awaited(at, what) => _ = self.due.remove(&(at, what)),
            Undo::NoLongerDue(at, what) => _ = self.due.insert((at, what)),
            Undo::Sent(id) => _ = self.envelopes.remove(&id),
            Undo::Opened(id, position, had_acknowledged) => {
                if let Some(envelope) = self.envelopes.get_mut(&id)
                    && let Some(opening) = envelope.opened.pop()
                {
                    envelope.left.0 += opening.amount.0;
                    envelope.set_acknowledged(position, had_acknowledged);
                }
            }
            Undo::Acknowledged(id, position) => {
                if let Some(envelope) = self.envelopes.get_mut(&id) {
                    envelope.set_acknowledged(position, false);
                }
            }
            Undo::Closed(id) => {
                let recipients = self.envelopes.get_mut(&id).map_or(0, |envelope| {
                    envelope.closed = None;
                    envelope.recipients.len()
                });
                if self.emptied.back() == Some(&id) {
                    self.emptied.pop_back();
                    self.emptied_recipients -= recipients;
                }
            }
        }
    }
}
