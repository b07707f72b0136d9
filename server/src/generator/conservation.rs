//! Where the units of every campaign are, for anyone to read.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hongbao_proto::CampaignId;
use serde::Serialize;

/// Where a campaign's serials are, summed over the SETs at the moments at which each was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Conservation {
    /// Handed to SETs by this run of the server, again after a return included.
    pub issued: u64,
    /// Handed out for the first time by this run.
    pub issued_first: u64,
    /// Durably somebody's, through this run.
    pub claimed: u64,
    /// On the SETs' shelves.
    pub in_sets: u64,
    /// With the ledger.
    pub in_flight: u64,
    /// Given back by SETs.
    pub returned: u64,
    /// Issued since the SETs were asked.
    pub in_transit: u64,
    /// Refused by the ledger as somebody else's. Reads 0.
    pub void: u64,
    /// Serials unaccounted for. Reads 0.
    pub residual: u64,
}

impl Sum for Conservation {
    fn sum<I: Iterator<Item = Self>>(some: I) -> Self {
        some.fold(Self::default(), |sum, one| Self {
            issued: sum.issued + one.issued,
            issued_first: sum.issued_first + one.issued_first,
            claimed: sum.claimed + one.claimed,
            in_sets: sum.in_sets + one.in_sets,
            in_flight: sum.in_flight + one.in_flight,
            returned: sum.returned + one.returned,
            in_transit: sum.in_transit + one.in_transit,
            void: sum.void + one.void,
            residual: sum.residual + one.residual,
        })
    }
}

/// The generator's view of a campaign.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct CampaignStatus {
    /// `scheduled`, `open`, `sold_out` or `ended`.
    pub state: &'static str,
    /// Whether what was left has been given back, and the seed published.
    pub settled: bool,
    /// Units that were somebody's, for good or until paid, when this run of the server began.
    pub won_before: u64,
    /// Not with any SET, not claimed.
    pub unissued: u64,
    /// Where the others are.
    pub conservation: Conservation,
}

/// The generator's latest word on every campaign, for anyone to read.
#[derive(Debug, Default)]
pub struct StockBoard {
    /// As of the last question to the SETs.
    statuses: Mutex<BTreeMap<CampaignId, CampaignStatus>>,
    /// Prizes of rains handed out for the first time by this run, up to this moment.
    pub issued_first: AtomicU64,
}

impl StockBoard {
    pub(super) fn publish(&self, statuses: BTreeMap<CampaignId, CampaignStatus>) {
        *self.lock() = statuses;
    }

    pub fn get(&self, id: CampaignId) -> Option<CampaignStatus> {
        self.lock().get(&id).cloned()
    }

    /// Sums over all campaigns.
    pub fn total(&self) -> Conservation {
        self.lock().values().map(|status| status.conservation).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CampaignId, CampaignStatus>> {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
