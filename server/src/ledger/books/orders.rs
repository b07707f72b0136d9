//! Orders after the grab: paid, cancelled, expired.

use hongbao_proto::{Fen, OrderId, UserId};

use super::{About, AccountId, Books, Due, Kind, Store, Unacknowledged};
use crate::clock::UnixMs;
use crate::ledger::{CancelResult, Expired, LedgerError, Means, PayResult};
use crate::limits;
use crate::market::order::{Order, Step, Stuck};

impl Books {
    pub(super) fn pay(
        &mut self,
        user: UserId,
        id: OrderId,
        means: Means,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<PayResult, LedgerError> {
        let Some(order) = self.order_of(user, id, store)? else { return Ok(PayResult::NoSuchOrder) };
        let paid = match order.step(Step::Pay, now) {
            Ok(paid) => paid,
            Err(Stuck::TooLate(at)) => return Ok(PayResult::TooLate { at }),
            Err(Stuck::AlreadyThere | Stuck::Paid) => return Ok(PayResult::Paid(order)),
            Err(Stuck::TooEarly) => return Err(LedgerError::Corrupt(format!("order {id} can be paid too early"))),
        };
        let till = AccountId::campaign(order.campaign);
        let (kind, from) = match means {
            Means::Wallet => {
                let wallet = AccountId::user(user);
                if self.balance(wallet) < order.price {
                    return Ok(PayResult::InsufficientFunds);
                }
                (Kind::Pay, wallet)
            }
            Means::Outside => {
                if !self.treasury_can_give(order.price.0.into()) {
                    return Ok(PayResult::TooMuch);
                }
                (Kind::PayOutside, AccountId::TREASURY)
            }
        };
        let item = item_of(id)?;
        let entry = self.move_money(kind, (from, till), order.price, item, None, now, store)?;
        self.decide(&paid, store)?;
        self.notify(user, Unacknowledged { entry, about: About::Order(id) }, store)?;
        self.sum_up(order.campaign, |campaign| {
            campaign.reserved -= 1;
            campaign.won += 1;
            campaign.paid.0 += order.price.0;
        });
        let totals = &mut self.counters.totals;
        totals.reserved -= 1;
        totals.sold += 1;
        totals.earned.0 += order.price.0;
        Ok(PayResult::Paid(paid))
    }

    pub(super) fn cancel(
        &mut self,
        user: UserId,
        id: OrderId,
        now: UnixMs,
        store: &mut impl Store,
    ) -> Result<CancelResult, LedgerError> {
        let Some(order) = self.order_of(user, id, store)? else { return Ok(CancelResult::NoSuchOrder) };
        match order.step(Step::Cancel, now) {
            Ok(cancelled) => {
                self.release(&cancelled, now, store)?;
                // Its user has just said so, and hears the answer; nothing else is to be told of
                // it.
                self.forget_notices_of(user, id, store)?;
                Ok(CancelResult::Cancelled(cancelled))
            }
            Err(Stuck::Paid) => Ok(CancelResult::Paid),
            Err(Stuck::AlreadyThere | Stuck::TooLate(_) | Stuck::TooEarly) => Ok(CancelResult::Over(order)),
        }
    }

    pub(super) fn expire(&mut self, now: UnixMs, store: &mut impl Store) -> Result<Expired, LedgerError> {
        let mut expired = Expired::default();
        for _ in 0..limits::EXPIRE_STEP {
            let Some((_, what)) = self.due.first().copied().filter(|(at, _)| *at <= now) else { break };
            match what {
                Due::Order(id) => {
                    let order = self.known_order(id, store)?;
                    let Ok(over) = order.step(Step::Expire, now) else {
                        return Err(LedgerError::Corrupt(format!("order {id} is due and cannot expire")));
                    };
                    let entry = self.release(&over, now, store)?;
                    self.notify(over.user, Unacknowledged { entry, about: About::Order(id) }, store)?;
                    expired.orders.push(over);
                }
                Due::Envelope(id) => expired.envelopes.extend(self.close_expired(id, now, store)?),
            }
        }
        expired.next_due = self.next_due();
        Ok(expired)
    }

    /// The unit is for sale again.
    fn release(&mut self, order: &Order, now: UnixMs, store: &mut impl Store) -> Result<i64, LedgerError> {
        let ends = (AccountId::user(order.user), AccountId::campaign(order.campaign));
        let entry = self.move_money(Kind::Release, ends, Fen::ZERO, item_of(order.id)?, None, now, store)?;
        self.decide(order, store)?;
        self.set_unit(order.campaign, order.serial, false);
        self.hold(order.campaign, order.user, |held| held.saturating_sub(1));
        self.sum_up(order.campaign, |campaign| campaign.reserved -= 1);
        self.counters.totals.reserved -= 1;
        Ok(entry)
    }

    /// An order waits no more.
    fn decide(&mut self, order: &Order, store: &mut impl Store) -> Result<(), LedgerError> {
        store.put_order(order)?;
        self.set_waiting(order.id, None);
        self.no_longer_due(order.pay_by, Due::Order(order.id));
        Ok(())
    }

    fn order_of(&self, user: UserId, id: OrderId, store: &impl Store) -> Result<Option<Order>, LedgerError> {
        let order = match self.orders.get(&id) {
            Some(order) => Some(*order),
            None if id.get() < self.counters.next_order => store.order(id)?,
            None => None,
        };
        Ok(order.filter(|order| order.user == user))
    }

    /// What is in an account that never falls below 0.
    pub(super) fn balance(&self, account: AccountId) -> Fen {
        Fen(self.accounts.get(&account).map_or(0, |account| u64::try_from(account.balance).unwrap_or(0)))
    }
}

fn item_of(order: OrderId) -> Result<i64, LedgerError> {
    i64::try_from(order.get()).map_err(|_| LedgerError::Corrupt(format!("order {order}")))
}
