//! Grabs that found a unit, campaigns' lives, and what users acknowledge.

use hongbao_proto::{CampaignId, Fen, OrderId, UserId};

use super::orders::item_of;
use super::undo::replace;
use super::{About, AccountId, Batch, Books, CampaignState, Due, Kind, Store, Unacknowledged, Undo, Units};
use crate::ledger::{Acknowledged, Claim, ClaimResult, LedgerError, Seen, Win};
use crate::market::campaign::{Campaign, CampaignTerms, Settlement};
use crate::market::order::{Order, OrderState};

impl<S: Store> Batch<'_, S> {
    pub(super) fn claim(&mut self, claim: &Claim) -> Result<ClaimResult, LedgerError> {
        let Claim { user, request, campaign, serial, amount } = *claim;
        if self.books.account(AccountId::user(user)).last_claim >= request.get() {
            return Ok(match self.books.first_answer(user, request, self.store)? {
                Some(award) => ClaimResult::Repeated(award),
                None => ClaimResult::OutOfOrder,
            });
        }
        let Some(state) = self.books.campaigns.get(&campaign) else {
            return Ok(ClaimResult::NoSuchCampaign);
        };
        let terms = &state.campaign.terms;
        if state.campaign.settlement.is_some() {
            return Ok(ClaimResult::Settled);
        }
        if serial.0 >= terms.total {
            return Ok(ClaimResult::NoSuchSerial);
        }
        if amount != terms.amount(serial) {
            return Ok(ClaimResult::WrongAmount);
        }
        if state.units.is_taken(serial) {
            return Ok(ClaimResult::Taken);
        }
        let (limit, sale) = (terms.per_user_limit, terms.sale().copied());
        if let Some(limit) = limit
            && self.held(campaign, user)? >= limit
        {
            return Ok(ClaimResult::LimitReached { limit });
        }
        self.books.set_unit(campaign, serial, true);
        self.books.hold(campaign, user, |held| held + 1);
        let ends = (AccountId::campaign(campaign), AccountId::user(user));
        let Some(sale) = sale else {
            let item = i64::try_from(serial.0).map_err(|_| LedgerError::Corrupt("serial".to_owned()))?;
            let entry = self.move_money(Kind::Win, ends, amount, item, Some(request))?;
            let win = Win { campaign, serial, amount, request };
            self.notify(user, Unacknowledged { entry, about: About::Win(win) })?;
            self.books.sum_up(campaign, |campaign| {
                campaign.won += 1;
                campaign.paid.0 += amount.0;
            });
            self.books.counters.totals.won += 1;
            self.books.counters.totals.paid.0 += amount.0;
            return Ok(ClaimResult::Won(win));
        };
        let next = self.books.counters.next_order;
        let id = OrderId::new(next).map_err(|error| LedgerError::Corrupt(error.to_string()))?;
        self.books.counters.next_order += 1;
        let order = Order::grabbed(id, (user, request), (campaign, serial), &sale, self.now);
        self.store.put_order(&order)?;
        let entry = self.move_money(Kind::Reserve, ends, Fen::ZERO, item_of(id)?, Some(request))?;
        self.notify(user, Unacknowledged { entry, about: About::Order(id) })?;
        if order.state == OrderState::Reserved {
            self.books.set_waiting(id, Some(order));
            self.books.await_due(order.pay_by, Due::Order(id));
            self.books.sum_up(campaign, |campaign| campaign.reserved += 1);
            self.books.counters.totals.reserved += 1;
        } else {
            self.books.sum_up(campaign, |campaign| campaign.won += 1);
            self.books.counters.totals.sold += 1;
        }
        Ok(ClaimResult::Ordered(order))
    }

    /// Units that a user holds of a campaign with a limit. Counted from the user's chain where
    /// nobody has asked since the start.
    fn held(&mut self, campaign: CampaignId, user: UserId) -> Result<u32, LedgerError> {
        if let Some(held) = self.books.held.get(&(campaign, user)) {
            return Ok(*held);
        }
        let first_entry = self.books.campaigns.get(&campaign).map_or(0, |state| state.first_entry);
        let account = AccountId::campaign(campaign);
        let mut held = 0u32;
        let mut released = 0;
        for entry in self.books.chain(user, self.store) {
            let entry = entry?;
            if entry.id < first_entry {
                break;
            }
            match entry.kind {
                Kind::Win | Kind::Reserve if entry.debit == account => held += 1,
                Kind::Release if entry.credit == account => released += 1,
                _ => {}
            }
        }
        let held = held.saturating_sub(released);
        self.books.undo.push(Undo::Held(campaign, user, None));
        self.books.held.insert((campaign, user), held);
        Ok(held)
    }

    pub(super) fn acknowledge(&mut self, user: UserId, seen: &Seen) -> Result<Acknowledged, LedgerError> {
        let is_seen = |notice: &Unacknowledged| match notice.about {
            About::Win(win) => seen.prizes.contains(&(win.campaign, win.serial)),
            About::Order(order) => seen.orders.contains(&order),
        };
        let mut count = self.forget_notices(user, is_seen)?;
        for id in &seen.envelopes {
            let open = self.books.envelopes.get_mut(id).filter(|envelope| envelope.closed.is_none());
            let Some(envelope) = open else { continue };
            let position = envelope.position(user).filter(|position| !envelope.has_acknowledged(*position));
            let Some(position) = position else { continue };
            envelope.set_acknowledged(position, true);
            self.books.undo.push(Undo::Acknowledged(*id, position));
            self.books.dirty.acknowledged.insert(*id);
            self.books.withdraw_offer(user, *id);
            count += 1;
        }
        Ok(Acknowledged { count })
    }

    // ---- Campaigns: one at a time, each in a batch of its own

    /// Opens a campaign, and moves what its prizes add up to into its fund.
    pub fn create_campaign(&mut self, terms: CampaignTerms) -> Result<CampaignState, LedgerError> {
        terms.check().map_err(LedgerError::BadTerms)?;
        let fund = terms.total_amount();
        let number = self.books.campaigns.last_key_value().map_or(0, |(id, _)| id.get()).checked_add(1);
        let id = number.and_then(|number| CampaignId::new(number.into()).ok());
        let id = id.ok_or_else(|| LedgerError::BadTerms("there are no campaign numbers left".to_owned()))?;
        if !self.books.treasury_can_give(fund.0.into()) {
            return Err(LedgerError::BadTerms("all campaigns together exceed what the books can hold".to_owned()));
        }
        let first_entry = self.books.counters.next_entry;
        if fund > Fen::ZERO {
            let ends = (AccountId::TREASURY, AccountId::campaign(id));
            self.move_money(Kind::Fund, ends, fund, 0, None)?;
        }
        let campaign = Campaign {
            id,
            created_at: self.now,
            terms,
            stopped_at: None,
            settlement: None,
            won: 0,
            paid: Fen::ZERO,
            reserved: 0,
        };
        let state = CampaignState { campaign, first_entry, units: Units::default() };
        self.store.put_campaign(&state, fund)?;
        Ok(state)
    }

    /// Empties the account of a campaign: returns its settlement.
    pub fn settle_campaign(&mut self, id: CampaignId) -> Result<Settlement, LedgerError> {
        let Campaign { terms, reserved, .. } =
            &self.books.campaigns.get(&id).ok_or(LedgerError::NoSuchCampaign(id))?.campaign;
        if *reserved > 0 {
            return Err(LedgerError::BadTerms(format!("{reserved} orders of campaign {id} wait for their payment")));
        }
        let is_sale = terms.sale().is_some();
        let account = AccountId::campaign(id);
        let left = self.books.account(account).balance;
        let left = Fen(u64::try_from(left).map_err(|_| LedgerError::Corrupt(format!("campaign {id} is in debt")))?);
        let (kind, to) = if is_sale { (Kind::Bank, AccountId::PROCEEDS) } else { (Kind::Refund, AccountId::REFUNDS) };
        if left > Fen::ZERO {
            self.move_money(kind, (account, to), left, 0, None)?;
        }
        let settlement = Settlement { settled_at: self.now, refunded: left };
        self.store.settle_campaign(id, settlement)?;
        Ok(settlement)
    }
}

impl Books {
    /// Changes how many units a user holds, where anybody counts.
    pub(super) fn hold(&mut self, campaign: CampaignId, user: UserId, change: impl FnOnce(u32) -> u32) {
        if let Some(held) = self.held.get_mut(&(campaign, user)) {
            self.undo.push(Undo::Held(campaign, user, Some(*held)));
            *held = change(*held);
        }
    }

    pub(super) fn set_unit(&mut self, id: CampaignId, serial: hongbao_proto::Serial, taken: bool) {
        if let Some(state) = self.campaigns.get_mut(&id) {
            state.units.set(serial, taken);
            self.undo.push(Undo::Unit(id, serial, !taken));
            self.dirty.chunks.insert((id, Units::chunk_of(serial)));
        }
    }

    pub(super) fn set_waiting(&mut self, id: OrderId, order: Option<Order>) {
        let before = replace(&mut self.orders, id, order);
        self.undo.push(Undo::Order(id, before));
    }

    pub(super) fn sum_up(&mut self, id: CampaignId, change: impl FnOnce(&mut Campaign)) {
        if let Some(state) = self.campaigns.get_mut(&id) {
            let Campaign { won, paid, reserved, .. } = state.campaign;
            self.undo.push(Undo::Sums(id, won, paid, reserved));
            change(&mut state.campaign);
            self.dirty.campaigns.insert(id);
        }
    }

    /// A campaign is durable as it is given here: new, stopped or settled.
    pub fn install(&mut self, mut state: CampaignState) {
        let id = state.campaign.id;
        if state.campaign.settlement.is_some() {
            state.units = Units::default();
            self.held.retain(|(campaign, _), _| *campaign != id);
        }
        self.campaigns.insert(id, state);
    }
}
