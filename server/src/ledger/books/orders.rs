//! Orders after the grab: paid, cancelled, expired.

use hongbao_proto::{Fen, OrderId, UserId};

use super::{About, AccountId, Batch, Due, Kind, Store, Unacknowledged};
use crate::ledger::{CancelResult, Expired, LedgerError, Means, PayResult};
use crate::limits;
use crate::market::order::{Order, Step, Stuck};

impl<S: Store> Batch<'_, S> {
    pub(super) fn pay(&mut self, user: UserId, id: OrderId, means: Means) -> Result<PayResult, LedgerError> {
        let Some(order) = self.order_of(user, id)? else { return Ok(PayResult::NoSuchOrder) };
        let paid = match order.step(Step::Pay, self.now) {
            Ok(paid) => paid,
            Err(Stuck::TooLate(at)) => return Ok(PayResult::TooLate { at }),
            Err(Stuck::AlreadyThere | Stuck::Paid) => return Ok(PayResult::Paid(order)),
            Err(Stuck::TooEarly) => return Err(LedgerError::Corrupt(format!("order {id} can be paid too early"))),
        };
        let till = AccountId::campaign(order.campaign);
        let (kind, from) = match means {
            Means::Wallet => {
                let wallet = AccountId::user(user);
                if self.books.balance(wallet) < order.price {
                    return Ok(PayResult::InsufficientFunds);
                }
                (Kind::Pay, wallet)
            }
            Means::Outside => {
                if !self.books.treasury_can_give(order.price.0.into()) {
                    return Ok(PayResult::TooMuch);
                }
                (Kind::PayOutside, AccountId::TREASURY)
            }
        };
        let entry = self.move_money(kind, (from, till), order.price, item_of(id)?, None)?;
        self.decide(&paid)?;
        self.notify(user, Unacknowledged { entry, about: About::Order(id) })?;
        self.books.sum_up(order.campaign, |campaign| {
            campaign.reserved -= 1;
            campaign.won += 1;
            campaign.paid.0 += order.price.0;
        });
        let totals = &mut self.books.counters.totals;
        totals.reserved -= 1;
        totals.sold += 1;
        totals.earned.0 += order.price.0;
        Ok(PayResult::Paid(paid))
    }

    pub(super) fn cancel(&mut self, user: UserId, id: OrderId) -> Result<CancelResult, LedgerError> {
        let Some(order) = self.order_of(user, id)? else { return Ok(CancelResult::NoSuchOrder) };
        match order.step(Step::Cancel, self.now) {
            Ok(cancelled) => {
                self.release(&cancelled)?;
                // Its user has just asked for it, and gets the answer: no notice of it is due.
                self.forget_notices_of(user, id)?;
                Ok(CancelResult::Cancelled(cancelled))
            }
            Err(Stuck::Paid) => Ok(CancelResult::Paid),
            Err(Stuck::AlreadyThere | Stuck::TooLate(_) | Stuck::TooEarly) => Ok(CancelResult::Over(order)),
        }
    }

    pub(super) fn expire(&mut self) -> Result<Expired, LedgerError> {
        let mut expired = Expired::default();
        for _ in 0..limits::EXPIRE_STEP {
            let Some((_, what)) = self.books.due.first().copied().filter(|(at, _)| *at <= self.now) else { break };
            match what {
                Due::Order(id) => {
                    let order = self.books.known_order(id, self.store)?;
                    let Ok(over) = order.step(Step::Expire, self.now) else {
                        return Err(LedgerError::Corrupt(format!("order {id} is due and cannot expire")));
                    };
                    let entry = self.release(&over)?;
                    self.notify(over.user, Unacknowledged { entry, about: About::Order(id) })?;
                    expired.orders.push(over);
                }
                Due::Envelope(id) => expired.envelopes.push(self.close_expired(id)?),
            }
        }
        expired.next_due = self.books.next_due();
        Ok(expired)
    }

    /// The unit is for sale again.
    fn release(&mut self, order: &Order) -> Result<i64, LedgerError> {
        let ends = (AccountId::user(order.user), AccountId::campaign(order.campaign));
        let entry = self.move_money(Kind::Release, ends, Fen::ZERO, item_of(order.id)?, None)?;
        self.decide(order)?;
        self.books.set_unit(order.campaign, order.serial, false);
        self.books.hold(order.campaign, order.user, |held| held.saturating_sub(1));
        self.books.sum_up(order.campaign, |campaign| campaign.reserved -= 1);
        self.books.counters.totals.reserved -= 1;
        Ok(entry)
    }

    /// An order waits no more.
    fn decide(&mut self, order: &Order) -> Result<(), LedgerError> {
        self.store.put_order(order)?;
        self.books.set_waiting(order.id, None);
        self.books.no_longer_due(order.pay_by, Due::Order(order.id));
        Ok(())
    }

    fn order_of(&self, user: UserId, id: OrderId) -> Result<Option<Order>, LedgerError> {
        Ok(self.books.find_order(id, self.store)?.filter(|order| order.user == user))
    }
}

pub(super) fn item_of(order: OrderId) -> Result<i64, LedgerError> {
    i64::try_from(order.get()).map_err(|_| LedgerError::Corrupt(format!("order {order}")))
}
