//! Orders as values: one unit of a sale in a user's hands, from the grab to its end.
//!
//! ```text
//! (grab) ── price 0 ───────────────────────────► paid
//!    └───── price ──► reserved ── pay in time ──► paid
//!                        ├─────── cancel ───────► cancelled ─┐
//!                        └─────── hold over ────► expired   ─┴─ the unit is for sale again
//! ```

use std::fmt;

use hongbao_proto::{CampaignId, Fen, OrderId, RequestId, Serial, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::UnixMs;
use crate::market::campaign::Sale;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Held for the user until its payment is due.
    Reserved,
    /// The user's for good.
    Paid,
    /// Given back by the user.
    Cancelled,
    /// Not paid in time.
    Expired,
}

/// As in JSON.
impl fmt::Display for OrderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One unit of a sale in a user's hands; as operators see it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Order {
    #[schema(value_type = u64)]
    pub id: OrderId,
    #[schema(value_type = u64)]
    pub user: UserId,
    #[schema(value_type = u32)]
    pub campaign: CampaignId,
    #[schema(value_type = u64)]
    pub serial: Serial,
    /// The Grab that got it.
    #[schema(value_type = u64)]
    pub request: RequestId,
    #[serde(rename = "price_fen")]
    #[schema(value_type = u64)]
    pub price: Fen,
    /// `reserved`, `paid`, `cancelled` or `expired`.
    #[schema(value_type = String)]
    pub state: OrderState,
    #[serde(rename = "reserved_at_ms")]
    pub reserved_at: UnixMs,
    /// It is held until then.
    #[serde(rename = "pay_by_ms")]
    pub pay_by: UnixMs,
    /// When it came into its final state.
    #[serde(rename = "decided_at_ms")]
    pub decided_at: Option<UnixMs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The price has been found.
    Pay,
    /// The user wants it no more.
    Cancel,
    /// Time passes.
    Expire,
}

/// Why a step leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// The order already is what the step would make it: nothing moves.
    AlreadyThere,
    /// Paid for good: it can no longer be given back.
    Paid,
    /// It was given back, or its hold is over since then.
    TooLate(UnixMs),
    /// Its hold is not over yet.
    TooEarly,
}

impl Order {
    /// The order of a fresh grab.
    pub fn grabbed(
        id: OrderId,
        (user, request): (UserId, RequestId),
        (campaign, serial): (CampaignId, Serial),
        sale: &Sale,
        now: UnixMs,
    ) -> Self {
        let free = sale.price == Fen::ZERO;
        Self {
            id,
            user,
            campaign,
            serial,
            request,
            price: sale.price,
            state: if free { OrderState::Paid } else { OrderState::Reserved },
            reserved_at: now,
            pay_by: if free { now } else { now.saturating_add(sale.hold_ms) },
            decided_at: free.then_some(now),
        }
    }

    /// The order after a step at `now`, or why there is none. At the very moment `pay_by` the hold
    /// is over.
    pub fn step(&self, step: Step, now: UnixMs) -> Result<Order, Stuck> {
        let decided = self.decided_at.unwrap_or(self.pay_by);
        let state = match (self.state, step) {
            (OrderState::Reserved, Step::Pay) if now >= self.pay_by => return Err(Stuck::TooLate(self.pay_by)),
            (OrderState::Reserved, Step::Pay) => OrderState::Paid,
            // Whatever the clock says: the user wants to be rid of it.
            (OrderState::Reserved, Step::Cancel) => OrderState::Cancelled,
            (OrderState::Reserved, Step::Expire) if now < self.pay_by => return Err(Stuck::TooEarly),
            (OrderState::Reserved, Step::Expire) => OrderState::Expired,
            (OrderState::Paid, Step::Pay)
            | (OrderState::Cancelled | OrderState::Expired, Step::Cancel | Step::Expire) => {
                return Err(Stuck::AlreadyThere);
            }
            (OrderState::Paid, Step::Cancel | Step::Expire) => return Err(Stuck::Paid),
            (OrderState::Cancelled | OrderState::Expired, Step::Pay) => return Err(Stuck::TooLate(decided)),
        };
        Ok(Order { state, decided_at: Some(now), ..*self })
    }

    /// Whether its unit is neither held nor sold.
    pub fn is_released(&self) -> bool {
        matches!(self.state, OrderState::Cancelled | OrderState::Expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::campaign::CampaignKind;

    fn sale(price: u64) -> Sale {
        Sale {
            kind: CampaignKind::Ticket,
            price: Fen(price),
            face_value: Fen::ZERO,
            hold_ms: 5_000,
            valid_from: None,
            valid_until: None,
            fair_window_ms: 0,
        }
    }

    fn order(price: u64) -> Order {
        let (user, request) = (UserId::new(7).unwrap(), RequestId::new(9).unwrap());
        let unit = (CampaignId::new(1).unwrap(), Serial(3));
        Order::grabbed(OrderId::new(1).unwrap(), (user, request), unit, &sale(price), 1_000)
    }

    #[test]
    fn what_costs_nothing_is_the_users_at_once() {
        let free = order(0);
        assert_eq!((free.state, free.decided_at), (OrderState::Paid, Some(1_000)));
        assert_eq!((order(5).state, order(5).pay_by, order(5).decided_at), (OrderState::Reserved, 6_000, None));
    }

    /// Every sequence of up to four steps at every side of the deadline: an order is decided once,
    /// a unit is released once, and nothing but time or its user releases it.
    #[test]
    fn every_short_history_decides_an_order_at_most_once() {
        let steps = [Step::Pay, Step::Cancel, Step::Expire];
        let times = [1_000, 5_999, 6_000, 9_000];
        let mut states = vec![(order(5), 0)];
        let mut seen = 0;
        for _ in 0..4 {
            let mut next = Vec::new();
            for (order, decisions) in &states {
                for step in steps {
                    for now in times {
                        seen += 1;
                        match order.step(step, now) {
                            Ok(after) => {
                                assert_eq!(*decisions, 0, "{order:?} decided twice by {step:?}");
                                assert_eq!(after.decided_at, Some(now));
                                assert_eq!(after.state == OrderState::Paid, step == Step::Pay);
                                assert!(step != Step::Pay || now < order.pay_by);
                                assert!(step != Step::Expire || now >= order.pay_by);
                                next.push((after, decisions + 1));
                            }
                            Err(Stuck::TooEarly) => assert!(step == Step::Expire && now < order.pay_by),
                            Err(Stuck::AlreadyThere) => assert_eq!(order.is_released(), step != Step::Pay),
                            Err(Stuck::Paid) => assert!(order.state == OrderState::Paid && step != Step::Pay),
                            Err(Stuck::TooLate(at)) => {
                                assert_eq!(step, Step::Pay);
                                assert_eq!(at, order.decided_at.unwrap_or(order.pay_by));
                            }
                        }
                    }
                }
            }
            states.extend(next);
        }
        assert!(seen > 300, "{seen}");
    }
}
