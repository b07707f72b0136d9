//! A campaign as the generator keeps it: what it has left, and what it has given to each SET.

use std::sync::Arc;

use hongbao_proto::{CampaignId, Serial};

use crate::clock::UnixMs;
use crate::generator::conservation::{CampaignStatus, Conservation};
use crate::generator::draw::{Draw, Round};
use crate::generator::sale::SaleAllocator;
use crate::generator::source::{Pacer, Source};
use crate::market::campaign::{Campaign, CampaignTerms, Goods};
use crate::market::stock::{SalePhase, ShelfBooks};
use crate::set::SetHandle;
use crate::set::message::{Control, Message};

/// One SET's side of a campaign, as the generator sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SetStock {
    pub(super) phase_sent: Option<SalePhase>,
    pub(super) issued: u64,
    /// `issued` when the SET was asked last.
    pub(super) issued_when_asked: u64,
    pub(super) returned: u64,
    pub(super) books: ShelfBooks,
    /// `books.claimed` a question earlier.
    pub(super) claimed_before: u64,
    /// The round of `books`.
    pub(super) round: u64,
    pub(super) residual: u64,
}

/// Whether a SET's users shake.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    /// Grabs ever, as of the last question.
    pub(super) grabs: u64,
    /// Whether there were any between the last two questions.
    pub(super) shaking: bool,
}

/// What decides when units are handed out, and where.
#[derive(Debug)]
pub(super) enum Supply {
    Rain(Pacer),
    Sale(SaleAllocator),
}

impl Supply {
    /// These SETs want stock, if it is a sale.
    pub(super) fn request(&mut self, sets: impl Iterator<Item = usize>) {
        if let Supply::Sale(sale) = self {
            sets.for_each(|set| sale.request(set));
        }
    }
}

#[derive(Debug)]
pub(super) struct ActiveCampaign {
    pub(super) terms: Arc<CampaignTerms>,
    pub(super) won_before: u64,
    pub(super) phase: SalePhase,
    /// The round in which every SET will know of the end.
    pub(super) ended_in_round: u64,
    pub(super) settling: bool,
    pub(super) settled: bool,
    pub(super) supply: Supply,
    /// The draw of its opening window, where it has one that is not over.
    pub(super) draw: Option<Draw>,
    pub(super) source: Source,
    /// The SET, of those that are supplied, that had a prize of this rain last. Each rain has its
    /// turns to itself: with common ones, two rains of which the last prizes wander may keep each
    /// other from ever coming to the SET where they are wanted.
    pub(super) turn: usize,
    pub(super) issued_first: u64,
    pub(super) in_sets: Vec<SetStock>,
}

impl ActiveCampaign {
    /// A campaign as the ledger has it, with its `claimed` serials, before any of `sets` SETs knows
    /// of it.
    pub(super) fn new(campaign: &Campaign, claimed: &[Serial], sets: usize, round: u64, now: UnixMs) -> Self {
        let terms = Arc::new(campaign.terms.clone());
        let phase = match (campaign.settlement, campaign.stopped_at) {
            _ if campaign.won == terms.total => SalePhase::SoldOut,
            (_, Some(at)) => SalePhase::Ended { at },
            (Some(settlement), None) => SalePhase::Ended { at: terms.ends_at.unwrap_or(settlement.settled_at) },
            (None, None) => SalePhase::Scheduled,
        };
        Self {
            won_before: campaign.won + campaign.reserved,
            phase,
            ended_in_round: round,
            settling: false,
            settled: campaign.settlement.is_some(),
            supply: match &terms.goods {
                Goods::Rain { rate_per_second, .. } => {
                    Supply::Rain(Pacer::new(*rate_per_second, terms.starts_at.max(now)))
                }
                Goods::Sale(_) => Supply::Sale(SaleAllocator::new(campaign.won, campaign.reserved)),
            },
            draw: terms.sale().filter(|sale| sale.fair_window_ms > 0).map(|sale| Draw {
                at: terms.starts_at.saturating_add(sale.fair_window_ms.into()),
                rounds: (0..sets).map(|_| Round::ToAsk).collect(),
            }),
            source: Source::recover(terms.total, claimed),
            // Not all at the same SET.
            turn: campaign.id.get() as usize,
            issued_first: 0,
            in_sets: vec![SetStock::default(); sets],
            terms,
        }
    }

    pub(super) fn conservation(&self) -> Conservation {
        let of_set = |stock: &SetStock| Conservation {
            issued: stock.issued,
            issued_first: 0,
            claimed: stock.books.claimed,
            in_sets: stock.books.on_shelf,
            in_flight: stock.books.in_flight,
            returned: stock.books.returned,
            in_transit: stock.issued.saturating_sub(stock.books.supplied),
            void: stock.books.void,
            residual: stock.residual,
        };
        Conservation { issued_first: self.issued_first, ..self.in_sets.iter().map(of_set).sum() }
    }

    pub(super) fn status(&self) -> CampaignStatus {
        CampaignStatus {
            state: label(self.phase),
            settled: self.settled,
            won_before: self.won_before,
            unissued: self.source.remaining(),
            conservation: self.conservation(),
        }
    }

    /// Hands so many units to a SET. How many of them for the first time; `None`, and nothing done,
    /// where its queue had no room.
    pub(super) fn hand_out(&mut self, campaign: CampaignId, index: usize, count: u64, set: &SetHandle) -> Option<u64> {
        let parcel: Vec<(Serial, bool)> = (0..count).map_while(|_| self.source.take()).collect();
        let serials: Box<[Serial]> = parcel.iter().map(|(serial, _)| *serial).collect();
        let supply = Message::Control(Control::Supply { campaign, serials });
        let stock = &mut self.in_sets[index];
        if stock.phase_sent != Some(SalePhase::Open) || set.inbox.try_send(supply).is_err() {
            self.source.put_back(parcel);
            return None;
        }
        stock.issued += parcel.len() as u64;
        let first = parcel.iter().filter(|(_, first)| *first).count() as u64;
        self.issued_first += first;
        Some(first)
    }

    /// Whether every unit is durably somebody's. Those that wait for their payment may come back.
    pub(super) fn is_sold_out(&self) -> bool {
        match &self.supply {
            Supply::Rain(_) => self.won_before + self.conservation().claimed >= self.terms.total,
            Supply::Sale(sale) => sale.sold >= self.terms.total,
        }
    }

    /// The phase that it comes to at `now`, if that is another one.
    pub(super) fn next_phase(&self, now: UnixMs) -> Option<SalePhase> {
        match (self.phase, self.terms.ends_at.filter(|end| now >= *end)) {
            (SalePhase::Scheduled | SalePhase::Open, Some(at)) => Some(SalePhase::Ended { at }),
            (SalePhase::Scheduled, None) => (now >= self.terms.starts_at).then_some(SalePhase::Open),
            (SalePhase::Open, None) => self.is_sold_out().then_some(SalePhase::SoldOut),
            (SalePhase::SoldOut | SalePhase::Ended { .. }, _) => None,
        }
    }

    /// Whether it has ended, nothing waits for its payment, and no SET holds anything any more, as
    /// reported once all of them knew of the end.
    pub(super) fn can_be_settled(&self) -> bool {
        let is_over = matches!(self.phase, SalePhase::SoldOut | SalePhase::Ended { .. });
        let is_unpaid = matches!(&self.supply, Supply::Sale(sale) if sale.reserved > 0);
        let is_empty = |stock: &SetStock| {
            stock.round > self.ended_in_round
                && stock.books.on_shelf == 0
                && stock.books.in_flight == 0
                && stock.residual == 0
        };
        is_over && !is_unpaid && !self.settled && !self.settling && self.in_sets.iter().all(is_empty)
    }
}

fn label(phase: SalePhase) -> &'static str {
    match phase {
        SalePhase::Scheduled => "scheduled",
        SalePhase::Open => "open",
        SalePhase::SoldOut => "sold_out",
        SalePhase::Ended { .. } => "ended",
    }
}
