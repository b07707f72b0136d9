//! Orders as users of this machine were told of them. An order moves in one direction only:
//!
//! ```text
//! reserved ──► paid, cancelled or expired          (free: paid from the beginning)
//! ```

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use hongbao_proto::v1::{self, order::State};
use rustc_hash::FxHashMap;

use crate::backoff::scramble;
use crate::machine::labels::Violation;
use crate::results::{OrderTotals, SaleResult};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub user: u32,
    pub campaign: u32,
    pub serial: u64,
    /// What it costs, fen.
    pub price: u64,
    /// Held until then, Unix milliseconds.
    pub pay_by_ms: u64,
    /// The Grab that got it.
    pub request: u64,
    /// Where it is, as far as its user was told.
    pub state: State,
}

/// What telling an order adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderUpdate {
    pub is_new: bool,
    /// Its state was not known.
    pub has_moved: bool,
    pub known: Known,
}

/// What a user does with an order that waits for its payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Pay,
    /// Gives it back.
    Cancel,
    /// Lets its time pass, and then asks what has become of it.
    Lapse,
}

impl Intent {
    /// Of every 100 orders 80 are paid, 10 given back, and 10 left to expire: a pure function of
    /// the order's id.
    pub fn of(order: u64) -> Self {
        match scramble(order) % 100 {
            0..80 => Intent::Pay,
            80..90 => Intent::Cancel,
            _ => Intent::Lapse,
        }
    }
}

/// All orders that users of a machine were told of.
#[derive(Debug, Default)]
pub struct OrderBook {
    orders: FxHashMap<u64, Known>,
    /// By (campaign, serial): the order under which it is somebody's for good.
    sold: FxHashMap<(u32, u64), u64>,
    /// By (user, campaign): orders that are neither cancelled nor expired, as far as the user was
    /// told, and those of them that are paid.
    held_and_kept: FxHashMap<(u32, u32), (u32, u32)>,
    pub counts: OrderTotals,
}

impl OrderBook {
    /// `user` was told of an order. What contradicts what is known changes nothing.
    pub fn record(&mut self, user: u32, order: &v1::Order) -> Result<OrderUpdate, Violation> {
        let state = order.state();
        if state == State::Unspecified || (order.price_fen == 0) && state == State::Reserved {
            return Err(Violation::OrderBackwards);
        }
        let new = Known {
            user,
            campaign: order.campaign_id,
            serial: order.serial,
            price: order.price_fen,
            pay_by_ms: order.pay_by_ms,
            request: order.grabbed_by_request_id,
            state,
        };
        let before = match self.orders.get(&order.order_id) {
            None => None,
            Some(known) if known.user != user => return Err(Violation::OrderToldToTwo),
            Some(known) if (Known { state, ..*known }) != new => return Err(Violation::OrderChanged),
            Some(known) if known.state != State::Reserved && known.state != state => {
                return Err(Violation::OrderBackwards);
            }
            Some(known) => Some(known.state),
        };
        if state == State::Expired && order.decided_at_ms < order.pay_by_ms {
            return Err(Violation::OrderExpiredEarly);
        }
        if state == State::Paid && before != Some(State::Paid) {
            match self.sold.entry((new.campaign, new.serial)) {
                Entry::Occupied(_) => return Err(Violation::SerialPaidTwice),
                Entry::Vacant(free) => {
                    free.insert(order.order_id);
                }
            }
        }
        self.orders.insert(order.order_id, new);
        if before != Some(state) {
            self.count(before, &new);
        }
        Ok(OrderUpdate { is_new: before.is_none(), has_moved: before != Some(state), known: new })
    }

    /// An order of `user` could not be paid because it was given back, or its hold was over, at
    /// this time. Unix milliseconds.
    pub fn record_too_late(&mut self, user: u32, order: u64, ended_at_ms: u64) -> Result<(), Violation> {
        let Some(known) = self.orders.get(&order).copied().filter(|known| known.user == user) else { return Ok(()) };
        match known.state {
            State::Reserved if ended_at_ms < known.pay_by_ms => Err(Violation::OrderExpiredEarly),
            State::Reserved => {
                let known = Known { state: State::Expired, ..known };
                self.orders.insert(order, known);
                self.count(Some(State::Reserved), &known);
                Ok(())
            }
            State::Cancelled | State::Expired => Ok(()),
            State::Paid | State::Unspecified => Err(Violation::OrderBackwards),
        }
    }

    fn count(&mut self, before: Option<State>, now: &Known) {
        let counts = &mut self.counts;
        let (held, kept) = self.held_and_kept.entry((now.user, now.campaign)).or_default();
        if before.is_none() {
            let kind = if now.price == 0 { &mut counts.free } else { &mut counts.reserved };
            *kind += 1;
            *held += 1;
        }
        if before == Some(State::Reserved) {
            counts.waiting -= 1;
        }
        match now.state {
            State::Reserved | State::Unspecified => counts.waiting += 1,
            State::Paid => {
                counts.paid += 1;
                counts.paid_fen += now.price;
                *kept += 1;
            }
            State::Cancelled => {
                counts.cancelled += 1;
                *held -= 1;
            }
            State::Expired => {
                counts.expired += 1;
                *held -= 1;
            }
        }
    }

    pub fn get(&self, order: u64) -> Option<&Known> {
        self.orders.get(&order)
    }

    /// Units of a sale that `user` holds at most: those of which it was not told that they are
    /// gone.
    pub fn held(&self, user: u32, campaign: u32) -> u32 {
        self.held_and_kept.get(&(user, campaign)).map_or(0, |(held, _)| *held)
    }

    /// Units of a sale that are `user`'s for good.
    pub fn kept(&self, user: u32, campaign: u32) -> u32 {
        self.held_and_kept.get(&(user, campaign)).map_or(0, |(_, kept)| *kept)
    }

    /// Every order that was paid, and cost something: its user, its id, its price.
    pub fn paid(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        let paid = self.orders.iter().filter(|(_, known)| known.state == State::Paid && known.price > 0);
        paid.map(|(&order, known)| (known.user, order, known.price))
    }

    pub fn sales(&self) -> Vec<SaleResult> {
        let mut sales = BTreeMap::new();
        for known in self.orders.values() {
            let none = SaleResult { campaign: known.campaign, paid: 0, paid_fen: 0, waiting: 0 };
            let sale = sales.entry(known.campaign).or_insert(none);
            match known.state {
                State::Paid => {
                    sale.paid += 1;
                    sale.paid_fen += known.price;
                }
                State::Reserved => sale.waiting += 1,
                State::Cancelled | State::Expired | State::Unspecified => {}
            }
        }
        sales.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(order_id: u64, serial: u64, state: State) -> v1::Order {
        v1::Order {
            order_id,
            campaign_id: 3,
            serial,
            state: state.into(),
            price_fen: 500,
            reserved_at_ms: 1_000,
            pay_by_ms: 6_000,
            decided_at_ms: if state == State::Reserved { 0 } else { 6_000 },
            grabbed_by_request_id: 99,
            ..v1::Order::default()
        }
    }

    #[test]
    fn an_order_is_reserved_and_then_decided_once() {
        let mut book = OrderBook::default();
        let update = book.record(1, &order(7, 0, State::Reserved)).unwrap();
        assert!(update.is_new && update.has_moved);
        let again = book.record(1, &order(7, 0, State::Reserved)).unwrap();
        assert!(!again.is_new && !again.has_moved);
        assert!(book.record(1, &order(7, 0, State::Paid)).unwrap().has_moved);
        for state in [State::Reserved, State::Cancelled, State::Expired] {
            assert_eq!(book.record(1, &order(7, 0, state)), Err(Violation::OrderBackwards));
        }
        assert_eq!((book.held(1, 3), book.kept(1, 3)), (1, 1));
        let counts = OrderTotals { reserved: 1, paid: 1, paid_fen: 500, ..OrderTotals::default() };
        assert_eq!((book.counts, book.paid().collect::<Vec<_>>()), (counts, vec![(1, 7, 500)]));
        assert_eq!(book.sales(), [SaleResult { campaign: 3, paid: 1, paid_fen: 500, waiting: 0 }]);
    }

    #[test]
    fn no_contradiction_passes() {
        let mut book = OrderBook::default();
        book.record(1, &order(7, 0, State::Reserved)).unwrap();
        let with = |change: fn(&mut v1::Order)| {
            let mut one = order(7, 0, State::Paid);
            change(&mut one);
            one
        };
        assert_eq!(book.record(2, &order(7, 0, State::Paid)), Err(Violation::OrderToldToTwo));
        for change in [|one: &mut v1::Order| one.price_fen = 501, |one: &mut v1::Order| one.serial = 1] {
            assert_eq!(book.record(1, &with(change)), Err(Violation::OrderChanged));
        }
        assert_eq!(book.record(1, &with(|one| one.state = 0)), Err(Violation::OrderBackwards));
        let mut early = order(7, 0, State::Expired);
        early.decided_at_ms = 5_999;
        assert_eq!(book.record(1, &early), Err(Violation::OrderExpiredEarly));
        book.record(1, &order(7, 0, State::Paid)).unwrap();
        assert_eq!(book.record(2, &order(8, 0, State::Paid)), Err(Violation::SerialPaidTwice));
        assert_eq!(book.record_too_late(1, 7, 9_000), Err(Violation::OrderBackwards));
    }

    #[test]
    fn a_unit_that_was_given_back_may_be_anothers() {
        let mut book = OrderBook::default();
        book.record(1, &order(7, 0, State::Reserved)).unwrap();
        book.record(1, &order(7, 0, State::Cancelled)).unwrap();
        assert!(book.record(2, &order(8, 0, State::Paid)).unwrap().is_new);
        book.record(1, &order(9, 1, State::Reserved)).unwrap();
        assert_eq!(book.record_too_late(1, 9, 5_999), Err(Violation::OrderExpiredEarly));
        assert_eq!((book.record_too_late(1, 9, 6_000), book.held(1, 3)), (Ok(()), 0));
        assert_eq!((book.counts.expired, book.counts.waiting), (1, 0));
    }

    #[test]
    fn most_orders_are_paid_and_some_of_each_hundred_are_not() {
        let count = |intent| (1..=10_000).filter(|&order| Intent::of(order) == intent).count();
        assert!((7_800..8_200).contains(&count(Intent::Pay)));
        assert!((900..1_100).contains(&count(Intent::Cancel)));
    }

    proptest! {
        /// Any words in any order: a state never leaves paid, cancelled or expired, and the counts
        /// are those of the states.
        #[test]
        fn what_was_decided_stays_decided(steps in prop::collection::vec((0u32..2, 1u64..6, 1i32..5), 0..60)) {
            let (mut book, mut decided) = (OrderBook::default(), std::collections::BTreeMap::new());
            for (user, id, state) in steps {
                let state = State::try_from(state).unwrap();
                if let Ok(update) = book.record(user, &order(id, id % 3, state)) {
                    prop_assert_eq!(update.known.state, state);
                    let before = decided.insert(id, (user, state));
                    prop_assert!(before.is_none_or(|(owner, was)| owner == user && (was == state || was == State::Reserved)));
                }
            }
            let count = |state| decided.values().filter(|(_, one)| *one == state).count() as u64;
            let counts = book.counts;
            prop_assert_eq!((counts.waiting, counts.paid), (count(State::Reserved), count(State::Paid)));
            prop_assert_eq!((counts.cancelled, counts.expired), (count(State::Cancelled), count(State::Expired)));
            for user in 0..2 {
                let held = decided.values().filter(|(owner, one)| *owner == user && matches!(one, State::Reserved | State::Paid));
                prop_assert_eq!(book.held(user, 3) as usize, held.count());
            }
        }
    }
}
