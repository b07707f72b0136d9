//! Campaigns as values: what is given away, when, and how much each prize is worth.

use std::fmt;

use hongbao_proto::{CampaignId, Fen, Serial};
use serde::{Deserialize, Serialize};

/// Wall-clock time, Unix milliseconds.
pub type UnixMs = u64;

/// What the amounts of a campaign are drawn with. Secret until no more can be won.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// How the amounts of prizes are drawn; both bounds are possible amounts. A fixed amount is `min == max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// The smallest prize.
    pub min: Fen,
    /// The largest prize.
    pub max: Fen,
}

/// What kind of giveaway or sale a campaign is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignKind {
    /// Prizes appear at a steady rate; users shake for them.
    Rain,
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignTerms {
    /// For people.
    pub title: String,
    /// What it is.
    pub kind: CampaignKind,
    /// How many prizes; serials run from 0 to `total - 1`.
    pub total: u64,
    /// Prizes issued per second, evenly inside the second.
    pub rate_per_second: u32,
    /// What a prize is worth.
    pub amounts: Amounts,
    /// Drawn at creation.
    pub seed: Seed,
    /// No prize before this.
    pub starts_at: UnixMs,
    /// No prize at or after this, if set.
    pub ends_at: Option<UnixMs>,
    /// Prizes that one user may win, if limited.
    pub per_user_limit: Option<u32>,
}

impl CampaignTerms {
    /// What the prize `serial` is worth: a pure function of seed and serial (see [`amount_of`]).
    pub fn amount(&self, serial: Serial) -> Fen {
        amount_of(&self.seed, self.amounts, serial)
    }
}

/// How a campaign ended for good: nothing can be won any more and the rest of its fund has been given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// When.
    pub settled_at: UnixMs,
    /// What was left in its fund.
    pub refunded: Fen,
}

/// A campaign as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Its name in requests.
    pub id: CampaignId,
    /// When it was created.
    pub created_at: UnixMs,
    /// What was asked for.
    pub terms: CampaignTerms,
    /// Stopped by an operator before its end.
    pub stopped_at: Option<UnixMs>,
    /// Ended for good.
    pub settlement: Option<Settlement>,
    /// Prizes won so far, durable.
    pub won: u64,
    /// Their money.
    pub paid: Fen,
}

/// The amount of one prize. Placeholder to be replaced.
pub fn amount_of(_seed: &Seed, amounts: Amounts, _serial: Serial) -> Fen {
    amounts.min
}
