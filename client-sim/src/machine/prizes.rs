//! The users' side of the books: every prize that some user of this machine was told of, once,
//! however often it is told.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::results::CampaignResult;

pub use hongbao_telemetry::journal::Prize;

/// What telling a prize adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A prize not known so far.
    New,
    /// The same user, the same prize.
    Again,
    /// A prize that another user was told of.
    ToAnother,
    /// A prize that had another amount.
    Changed,
}

/// Prizes by (campaign, serial).
#[derive(Debug, Default)]
pub struct PrizeBook {
    told: FxHashMap<(u32, u64), (u32, u64)>,
    campaigns: BTreeMap<u32, (u64, u64)>,
}

impl PrizeBook {
    /// `user` was told of a prize.
    pub fn tell(&mut self, user: u32, prize: Prize) -> Told {
        match self.told.entry((prize.campaign, prize.serial)) {
            Entry::Vacant(vacant) => {
                vacant.insert((user, prize.amount));
                let (prizes, fen) = self.campaigns.entry(prize.campaign).or_default();
                *prizes += 1;
                *fen += prize.amount;
                Told::New
            }
            Entry::Occupied(known) => match *known.get() {
                (owner, _) if owner != user => Told::ToAnother,
                (_, amount) if amount != prize.amount => Told::Changed,
                _ => Told::Again,
            },
        }
    }

    /// Every prize, and whose it is.
    pub fn prizes(&self) -> impl Iterator<Item = (u32, Prize)> {
        self.told.iter().map(|(&(campaign, serial), &(user, amount))| (user, Prize { campaign, serial, amount }))
    }

    /// Distinct prizes, and their fen.
    pub fn totals(&self) -> (u64, u64) {
        self.campaigns.values().fold((0, 0), |(prizes, fen), campaign| (prizes + campaign.0, fen + campaign.1))
    }

    /// Campaign by campaign.
    pub fn campaigns(&self) -> Vec<CampaignResult> {
        let result = |(&campaign, &(prizes, fen)): (&u32, &(u64, u64))| CampaignResult { campaign, prizes, fen };
        self.campaigns.iter().map(result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prize_counts_once_and_no_contradiction_passes() {
        let mut book = PrizeBook::default();
        let prize = Prize { campaign: 1, serial: 0, amount: 50 };
        assert_eq!(book.tell(3, prize), Told::New);
        assert_eq!(book.tell(3, prize), Told::Again);
        assert_eq!(book.tell(4, prize), Told::ToAnother);
        assert_eq!(book.tell(3, Prize { amount: 51, ..prize }), Told::Changed);
        assert_eq!(book.tell(4, Prize { campaign: 2, ..prize }), Told::New);
        assert_eq!(book.totals(), (2, 100));
        assert_eq!(book.campaigns()[1], CampaignResult { campaign: 2, prizes: 1, fen: 50 });
    }
}
