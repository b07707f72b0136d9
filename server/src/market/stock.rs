//! A SET's own stock: one shelf per campaign, from which a Grab takes without asking anyone.
//!
//! Plain functions over values, the time passed in. A serial that came in by [`Stock::supply`] is
//! at every moment in exactly one place: on the shelf, in flight to the ledger, claimed, or
//! returned to the generator. [`ShelfBooks::balance`] says so, and the SET checks it after every
//! batch.

use std::collections::VecDeque;
use std::sync::Arc;

use hongbao_proto::{CampaignId, Fen, Serial};

use crate::clock::UnixMs;
use crate::market::campaign::CampaignTerms;

/// What a campaign lets a SET do. The generator decides and announces it to every SET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SalePhase {
    /// Before its start.
    Scheduled,
    /// Prizes may be taken.
    Open,
    /// Every prize is durably somebody's.
    SoldOut,
    /// Nothing can be won any more.
    Ended {
        /// Since when.
        at: UnixMs,
    },
}

/// What a Grab finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// A prize, now in flight: it must land by [`Stock::claimed`], [`Stock::put_back`] or
    /// [`Stock::void`].
    Prize {
        campaign: CampaignId,
        serial: Serial,
        amount: Fen,
    },
    /// Nothing on the shelf now.
    NoneNow,
    /// Nothing any more.
    SoldOut,
    TooEarly {
        starts_at: UnixMs,
    },
    TooLate {
        /// Since when.
        ended_at: UnixMs,
    },
    /// There is none, or it ended long ago.
    NoSuchCampaign,
}

/// Where a campaign's serials of one SET are. All but the first add up to the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShelfBooks {
    /// Ever supplied; a serial that was returned and supplied again counts twice.
    pub supplied: u64,
    /// Ready to be taken.
    pub on_shelf: u64,
    /// Taken, and not yet decided by the ledger.
    pub in_flight: u64,
    /// Durably somebody's, through this SET.
    pub claimed: u64,
    /// Given back to the generator.
    pub returned: u64,
    /// Refused by the ledger because somebody else has them. Reads 0 unless a serial was issued
    /// twice.
    pub void: u64,
}

impl ShelfBooks {
    /// Supplied less everything accounted for; anything but 0 is a bug.
    pub fn balance(&self) -> i128 {
        i128::from(self.supplied)
            - [self.on_shelf, self.in_flight, self.claimed, self.returned, self.void]
                .into_iter()
                .map(i128::from)
                .sum::<i128>()
    }
}

#[derive(Debug)]
struct Shelf {
    campaign: CampaignId,
    terms: Arc<CampaignTerms>,
    phase: SalePhase,
    serials: VecDeque<Serial>,
    /// But for what lies on the shelf: that is counted by looking.
    counted: ShelfBooks,
    /// Units that came in last: when half of them are gone, more are wanted.
    last_supply: usize,
    /// Whether the draw of its opening window is over, where it has one.
    drawn: bool,
    /// Whether the generator was asked for more, and none have come since.
    wanted: bool,
}

impl Shelf {
    fn books(&self) -> ShelfBooks {
        ShelfBooks { on_shelf: self.serials.len() as u64, ..self.counted }
    }

    /// The answer that stands without looking at the serials, if there is one.
    fn closed(&self, now: UnixMs) -> Option<Taken> {
        match (self.phase, self.terms.ends_at) {
            (SalePhase::Scheduled, _) => Some(Taken::TooEarly { starts_at: self.terms.starts_at }),
            (SalePhase::SoldOut, _) => Some(Taken::SoldOut),
            (SalePhase::Ended { at }, _) => Some(Taken::TooLate { ended_at: at }),
            // The generator's word may be a few milliseconds behind the clock.
            (SalePhase::Open, Some(end)) if now >= end => Some(Taken::TooLate { ended_at: end }),
            (SalePhase::Open, _) => None,
        }
    }

    fn is_open_rain(&self, now: UnixMs) -> bool {
        self.terms.sale().is_none() && self.closed(now).is_none()
    }

    fn take(&mut self) -> Option<Taken> {
        let serial = self.serials.pop_front()?;
        self.counted.in_flight += 1;
        Some(Taken::Prize { campaign: self.campaign, serial, amount: self.terms.amount(serial) })
    }
}

/// All shelves of a SET, by campaign id.
#[derive(Debug, Default)]
pub struct Stock {
    shelves: Vec<Shelf>,
}

impl Stock {
    /// Takes a unit of `wanted`, or of any open rain where it is `None`.
    pub fn take(&mut self, wanted: Option<CampaignId>, now: UnixMs) -> Taken {
        let Some(campaign) = wanted else {
            return self
                .shelves
                .iter_mut()
                .filter(|shelf| shelf.is_open_rain(now))
                .find_map(Shelf::take)
                .unwrap_or(Taken::NoneNow);
        };
        match self.shelf(campaign) {
            None => Taken::NoSuchCampaign,
            Some(shelf) => shelf.closed(now).or_else(|| shelf.take()).unwrap_or(Taken::NoneNow),
        }
    }

    /// Takes a unit of the next open rain behind `passed`, by id, that has one.
    pub fn take_beyond(&mut self, passed: CampaignId, now: UnixMs) -> Option<(CampaignId, Serial, Fen)> {
        let beyond = self.shelves.partition_point(|shelf| shelf.campaign <= passed);
        let mut rains = self.shelves[beyond..].iter_mut().filter(|shelf| shelf.is_open_rain(now));
        match rains.find_map(Shelf::take)? {
            Taken::Prize { campaign, serial, amount } => Some((campaign, serial, amount)),
            _ => None,
        }
    }

    /// Rains from which something may be won now, whatever lies on their shelves.
    pub fn open_rains(&self, now: UnixMs) -> usize {
        self.shelves.iter().filter(|shelf| shelf.is_open_rain(now)).count()
    }

    /// The answer of a campaign from which nothing can be taken now, whatever lies on its shelf.
    pub fn closed(&mut self, wanted: Option<CampaignId>, now: UnixMs) -> Option<Taken> {
        match self.shelf(wanted?) {
            None => Some(Taken::NoSuchCampaign),
            Some(shelf) => shelf.closed(now),
        }
    }

    /// Opens a shelf, or moves an open one to another phase. Once ended or sold out, a campaign
    /// stays so.
    pub fn set_phase(&mut self, campaign: CampaignId, terms: &Arc<CampaignTerms>, phase: SalePhase) {
        match self.position(campaign) {
            Ok(index) => self.shelves[index].phase = phase,
            Err(index) => self.shelves.insert(
                index,
                Shelf {
                    campaign,
                    terms: Arc::clone(terms),
                    phase,
                    serials: VecDeque::new(),
                    counted: ShelfBooks::default(),
                    last_supply: 0,
                    drawn: false,
                    wanted: false,
                },
            ),
        }
    }

    /// Puts new serials on the shelf. `false`, and nothing done, where there is no such shelf.
    #[must_use = "serials that found no shelf are still the caller's"]
    pub fn supply(&mut self, campaign: CampaignId, serials: &[Serial]) -> bool {
        let Some(shelf) = self.shelf(campaign) else { return false };
        shelf.counted.supplied += serials.len() as u64;
        shelf.serials.extend(serials);
        shelf.last_supply = shelf.serials.len();
        shelf.wanted = false;
        true
    }

    /// Whether a Grab of this sale waits for a draw now.
    pub fn holds_lottery(&mut self, campaign: CampaignId, now: UnixMs) -> bool {
        let Some(shelf) = self.shelf(campaign) else { return false };
        let has_window = shelf.terms.sale().is_some_and(|sale| sale.fair_window_ms > 0);
        has_window && !shelf.drawn && shelf.closed(now).is_none()
    }

    /// The opening window of a sale is over.
    pub fn end_lottery(&mut self, campaign: CampaignId) {
        if let Some(shelf) = self.shelf(campaign) {
            shelf.drawn = true;
        }
    }

    /// Whether to ask the generator for more units of this sale: once until they come.
    pub fn wants(&mut self, campaign: CampaignId) -> bool {
        let Some(shelf) = self.shelf(campaign) else { return false };
        let runs_out = shelf.phase == SalePhase::Open && shelf.serials.len() * 2 <= shelf.last_supply;
        runs_out && shelf.terms.sale().is_some() && !std::mem::replace(&mut shelf.wanted, true)
    }

    /// The generator had no room for the question: to be asked again.
    pub fn still_wants(&mut self, campaign: CampaignId) {
        if let Some(shelf) = self.shelf(campaign) {
            shelf.wanted = false;
        }
    }

    /// The ledger has the claim: the prize is the user's.
    pub fn claimed(&mut self, campaign: CampaignId) {
        self.land(campaign, |shelf| shelf.counted.claimed += 1);
    }

    /// The ledger did not take the claim: the prize is the next one to be taken.
    pub fn put_back(&mut self, campaign: CampaignId, serial: Serial) {
        self.land(campaign, |shelf| shelf.serials.push_front(serial));
    }

    /// The ledger says that the prize is somebody else's already.
    pub fn void(&mut self, campaign: CampaignId) {
        self.land(campaign, |shelf| shelf.counted.void += 1);
    }

    fn land(&mut self, campaign: CampaignId, to: impl FnOnce(&mut Shelf)) {
        // A serial in flight was taken from a shelf, and shelves are never removed.
        if let Some(shelf) = self.shelf(campaign) {
            shelf.counted.in_flight -= 1;
            to(shelf);
        }
    }

    /// Empties the shelf for the generator: at most `max` serials at a time.
    pub fn withdraw(&mut self, campaign: CampaignId, max: usize) -> Vec<Serial> {
        let Some(shelf) = self.shelf(campaign) else { return Vec::new() };
        let count = shelf.serials.len().min(max);
        shelf.counted.returned += count as u64;
        shelf.serials.drain(..count).collect()
    }

    /// Takes back serials whose return found no room at the generator.
    pub fn undo_withdraw(&mut self, campaign: CampaignId, serials: Vec<Serial>) {
        if let Some(shelf) = self.shelf(campaign) {
            shelf.counted.returned -= serials.len() as u64;
            for serial in serials.into_iter().rev() {
                shelf.serials.push_front(serial);
            }
        }
    }

    /// Campaigns with serials on the shelf that nobody can take any more, or, where `deserted`
    /// (nobody is logged in), with any.
    pub fn withdrawable(&self, deserted: bool) -> impl Iterator<Item = CampaignId> + '_ {
        self.shelves
            .iter()
            .filter(move |shelf| !shelf.serials.is_empty() && (deserted || shelf.phase != SalePhase::Open))
            .map(|shelf| shelf.campaign)
    }

    pub fn books(&self) -> impl Iterator<Item = (CampaignId, ShelfBooks)> + '_ {
        self.shelves.iter().map(|shelf| (shelf.campaign, shelf.books()))
    }

    /// The sum of all shelves' balances; 0, always.
    pub fn imbalance(&self) -> i128 {
        self.shelves.iter().map(|shelf| shelf.books().balance().abs()).sum()
    }

    /// Units that lie on all shelves.
    pub fn on_shelves(&self) -> u64 {
        self.shelves.iter().map(|shelf| shelf.serials.len() as u64).sum()
    }

    /// The terms of a campaign that has a shelf here.
    pub fn terms(&self, campaign: CampaignId) -> Option<&CampaignTerms> {
        Some(&self.shelves[self.position(campaign).ok()?].terms)
    }

    fn shelf(&mut self, campaign: CampaignId) -> Option<&mut Shelf> {
        let index = self.position(campaign).ok()?;
        Some(&mut self.shelves[index])
    }

    /// Where its shelf is, or would be.
    fn position(&self, campaign: CampaignId) -> Result<usize, usize> {
        self.shelves.binary_search_by_key(&campaign, |shelf| shelf.campaign)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn terms() -> Arc<CampaignTerms> {
        Arc::new(CampaignTerms::example())
    }

    fn id(value: u64) -> CampaignId {
        CampaignId::new(value).unwrap()
    }

    #[test]
    fn each_phase_has_its_answer() {
        let (mut stock, terms) = (Stock::default(), terms());
        assert_eq!(stock.take(Some(id(1)), 1_500), Taken::NoSuchCampaign);
        assert_eq!(stock.take(None, 1_500), Taken::NoneNow);
        let mut answer = |phase, now| {
            stock.set_phase(id(1), &terms, phase);
            stock.take(Some(id(1)), now)
        };
        assert_eq!(answer(SalePhase::Scheduled, 500), Taken::TooEarly { starts_at: 1_000 });
        assert_eq!(answer(SalePhase::Open, 1_500), Taken::NoneNow);
        assert_eq!(answer(SalePhase::Open, 2_000), Taken::TooLate { ended_at: 2_000 });
        assert_eq!(answer(SalePhase::SoldOut, 1_500), Taken::SoldOut);
        assert_eq!(answer(SalePhase::Ended { at: 1_400 }, 1_500), Taken::TooLate { ended_at: 1_400 });
    }

    #[test]
    fn a_grab_for_any_rain_passes_over_closed_and_empty_shelves() {
        let (mut stock, terms) = (Stock::default(), terms());
        for (campaign, phase) in [(1, SalePhase::SoldOut), (2, SalePhase::Open), (3, SalePhase::Open)] {
            stock.set_phase(id(campaign), &terms, phase);
        }
        assert!(stock.supply(id(1), &[Serial(1)]));
        assert!(stock.supply(id(3), &[Serial(5)]));
        let prize = stock.take(None, 1_500);
        assert_eq!(prize, Taken::Prize { campaign: id(3), serial: Serial(5), amount: terms.amount(Serial(5)) });
        assert_eq!(stock.take(None, 1_500), Taken::NoneNow);
    }

    #[test]
    fn serials_without_a_shelf_stay_with_the_caller() {
        assert!(!Stock::default().supply(id(9), &[Serial(1)]));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Supply(u8),
        Take,
        Claim,
        PutBack,
        Void,
        Withdraw(u8),
        UndoWithdraw(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u8..9).prop_map(Step::Supply),
            Just(Step::Take),
            Just(Step::Take),
            Just(Step::Claim),
            Just(Step::PutBack),
            Just(Step::Void),
            (0u8..9).prop_map(Step::Withdraw),
            (0u8..9).prop_map(Step::UndoWithdraw),
        ]
    }

    proptest! {
        /// Against a model that knows each serial's place by name.
        #[test]
        fn every_serial_is_in_exactly_one_place(steps in prop::collection::vec(step(), 0..200)) {
            let (mut stock, terms) = (Stock::default(), terms());
            stock.set_phase(id(1), &terms, SalePhase::Open);
            let (mut next, mut flying) = (0u64, Vec::new());
            let (mut shelf, mut gone) = (BTreeSet::new(), 0u64);
            for step in steps {
                match step {
                    Step::Supply(count) => {
                        let serials: Vec<_> = (next..next + u64::from(count)).map(Serial).collect();
                        next += u64::from(count);
                        prop_assert!(stock.supply(id(1), &serials));
                        shelf.extend(serials);
                    }
                    Step::Take => match stock.take(Some(id(1)), 1_500) {
                        Taken::Prize { serial, amount, .. } => {
                            prop_assert!(shelf.remove(&serial), "{} was not on the shelf", serial);
                            prop_assert_eq!(amount, terms.amount(serial));
                            flying.push(serial);
                        }
                        other => prop_assert!(other == Taken::NoneNow && shelf.is_empty()),
                    },
                    Step::Claim => if flying.pop().is_some() {
                        stock.claimed(id(1));
                        gone += 1;
                    },
                    Step::PutBack => if let Some(serial) = flying.pop() {
                        stock.put_back(id(1), serial);
                        shelf.insert(serial);
                    },
                    Step::Void => if flying.pop().is_some() {
                        stock.void(id(1));
                        gone += 1;
                    },
                    Step::Withdraw(max) => for serial in stock.withdraw(id(1), max.into()) {
                        prop_assert!(shelf.remove(&serial));
                        gone += 1;
                    },
                    Step::UndoWithdraw(max) => {
                        let serials = stock.withdraw(id(1), max.into());
                        stock.undo_withdraw(id(1), serials);
                    }
                }
                let (_, books) = stock.books().next().unwrap();
                prop_assert_eq!(stock.imbalance(), 0);
                prop_assert_eq!(books.on_shelf, shelf.len() as u64);
                prop_assert_eq!(books.in_flight, flying.len() as u64);
                prop_assert_eq!(books.claimed + books.void + books.returned, gone);
            }
        }
    }
}
