//! Grabs that found a unit, campaigns' lives, and what users acknowledge.

use hongbao_proto::{CampaignId, Fen, OrderId, UserId};

use super::{About, AccountId, Books, CampaignState, Due, Kind, Store, Unacknowledged, Undo, Units};
use crate::clock::UnixMs;
use crate::ledger::{Acknowledged, Claim, ClaimResult, LedgerError, Seen, Win};
use crate::market::campaign::{Campaign, CampaignTerms, Settlement};
use crate::market::order::{Order, OrderState};

impl Books {
    pub(super) fn claim(
        &mut self,
        claim: &Claim,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<ClaimResult, LedgerError> {
        let account = self.accounts.get(&AccountId::user(claim.user));
        if account.is_some_and(|account| account.last_claim >= claim.request.get()) {
            return Ok(match self.first_answer(claim.user, claim.request, store)? {
                Some(award) => ClaimResult::Repeated(award),
                None => ClaimResult::OutOfOrder,
            });
        }
        let Some(state) = self.campaigns.get(&claim.campaign) else {
            return Ok(ClaimResult::NoSuchCampaign);
        };
        let terms = &state.campaign.terms;
        if state.campaign.settlement.is_some() {
            return Ok(ClaimResult::Settled);
        }
        if claim.serial.0 >= terms.total {
            return Ok(ClaimResult::NoSuchSerial);
        }
        if claim.amount != terms.amount(claim.serial) {
            return Ok(ClaimResult::WrongAmount);
        }
        if state.units.is_taken(claim.serial) {
            return Ok(ClaimResult::Taken);
        }
        let (limit, sale) = (terms.per_user_limit, terms.sale().copied());
        if let Some(limit) = limit
            && self.held(claim.campaign, claim.user, store)? >= limit
        {
            return Ok(ClaimResult::LimitReached { limit });
        }
        self.set_unit(claim.campaign, claim.serial, true);
        self.hold(claim.campaign, claim.user, |held| held + 1);
        let fund = AccountId::campaign(claim.campaign);
        let ends = (fund, AccountId::user(claim.user));
        let Some(sale) = sale else {
            let item = i64::try_from(claim.serial.0).map_err(|_| LedgerError::Corrupt("serial".to_owned()))?;
            let entry = self.move_money(Kind::Win, ends, claim.amount, item, Some(claim.request), now, store)?;
            let win =
                Win { campaign: claim.campaign, serial: claim.serial, amount: claim.amount, request: claim.request };
            self.notify(claim.user, Unacknowledged { entry, about: About::Win(win) }, store)?;
            self.sum_up(claim.campaign, |campaign| {
                campaign.won += 1;
                campaign.paid.0 += claim.amount.0;
            });
            self.counters.totals.won += 1;
            self.counters.totals.paid.0 += claim.amount.0;
            return Ok(ClaimResult::Won(win));
        };
        let id = OrderId::new(self.counters.next_order).map_err(|error| LedgerError::Corrupt(error.to_string()))?;
        self.counters.next_order += 1;
        let unit = (claim.campaign, claim.serial);
        let order = Order::grabbed(id, (claim.user, claim.request), unit, &sale, now);
        store.put_order(&order)?;
        let item = i64::try_from(id.get()).map_err(|_| LedgerError::Corrupt("order".to_owned()))?;
        let entry = self.move_money(Kind::Reserve, ends, Fen::ZERO, item, Some(claim.request), now, store)?;
        self.notify(claim.user, Unacknowledged { entry, about: About::Order(id) }, store)?;
        if order.state == OrderState::Reserved {
            self.set_waiting(id, Some(order));
            self.await_due(order.pay_by, Due::Order(id));
            self.sum_up(claim.campaign, |campaign| campaign.reserved += 1);
            self.counters.totals.reserved += 1;
        } else {
            self.sum_up(claim.campaign, |campaign| campaign.won += 1);
            self.counters.totals.sold += 1;
        }
        Ok(ClaimResult::Ordered(order))
    }

    /// Units that a user holds of a campaign with a limit. Counted from the user's chain where
    /// nobody has asked since the start.
    fn held(&mut self, campaign: CampaignId, user: UserId, store: &impl Store) -> Result<u32, LedgerError> {
        if let Some(held) = self.held.get(&(campaign, user)) {
            return Ok(*held);
        }
        let first_entry = self.campaigns.get(&campaign).map_or(0, |state| state.first_entry);
        let account = AccountId::campaign(campaign);
        let mut held = 0u32;
        let mut released = 0;
        for entry in self.chain(user, store) {
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
        self.undo.push(Undo::Held(campaign, user, None));
        self.held.insert((campaign, user), held);
        Ok(held)
    }

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
        let before = match order {
            Some(order) => self.orders.insert(id, order),
            None => self.orders.remove(&id),
        };
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

    pub(super) fn acknowledge(
        &mut self,
        user: UserId,
        seen: &Seen,
        store: &mut impl Store,
    ) -> Result<Acknowledged, LedgerError> {
        let mut count = 0;
        let is_seen = |notice: &Unacknowledged| match notice.about {
            About::Win(win) => seen.prizes.contains(&(win.campaign, win.serial)),
            About::Order(order) => seen.orders.contains(&order),
        };
        count += self.forget_notices(user, is_seen, store)?;
        for id in &seen.envelopes {
            let Some(envelope) = self.envelopes.get_mut(id).filter(|envelope| envelope.closed.is_none()) else {
                continue;
            };
            let Some(position) = envelope.position(user).filter(|position| !envelope.has_acknowledged(*position))
            else {
                continue;
            };
            envelope.set_acknowledged(position, true);
            self.undo.push(Undo::Told(*id, position));
            self.dirty.acknowledged.insert(*id);
            self.withdraw_offer(user, *id);
            count += 1;
        }
        Ok(Acknowledged { count })
    }

    // ---- Campaigns: one at a time, each in a batch of its own

    /// Opens a campaign whose prizes add up to `fund`.
    pub fn create_campaign(
        &mut self,
        id: CampaignId,
        terms: CampaignTerms,
        fund: Fen,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<CampaignState, LedgerError> {
        if !self.treasury_can_give(fund.0.into()) {
            return Err(LedgerError::BadTerms("all campaigns together exceed what the books can hold".to_owned()));
        }
        let first_entry = self.counters.next_entry;
        let ends = (AccountId::TREASURY, AccountId::campaign(id));
        if fund > Fen::ZERO {
            self.move_money(Kind::Fund, ends, fund, 0, None, now, store)?;
        }
        let campaign = Campaign {
            id,
            created_at: now,
            terms,
            stopped_at: None,
            settlement: None,
            won: 0,
            paid: Fen::ZERO,
            reserved: 0,
        };
        Ok(CampaignState { campaign, first_entry, units: Units::default() })
    }

    /// Empties the account of a campaign: returns its settlement.
    pub fn settle_campaign(
        &mut self,
        id: CampaignId,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<Settlement, LedgerError> {
        let state = self.campaigns.get(&id).ok_or(LedgerError::NoSuchCampaign(id))?;
        if state.campaign.reserved > 0 {
            return Err(LedgerError::BadTerms(format!(
                "{} orders of campaign {id} wait for their payment",
                state.campaign.reserved
            )));
        }
        let is_sale = state.campaign.terms.sale().is_some();
        let account = AccountId::campaign(id);
        let left = self.accounts.get(&account).map_or(0, |account| account.balance);
        let left = Fen(u64::try_from(left).map_err(|_| LedgerError::Corrupt(format!("campaign {id} is in debt")))?);
        let (kind, to) = if is_sale { (Kind::Bank, AccountId::PROCEEDS) } else { (Kind::Refund, AccountId::REFUNDS) };
        if left > Fen::ZERO {
            self.move_money(kind, (account, to), left, 0, None, now, store)?;
        }
        Ok(Settlement { settled_at: now, refunded: left })
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
