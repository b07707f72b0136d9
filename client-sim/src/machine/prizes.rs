//! The users' side of the books: every prize that some user of this machine was told of, once,
//! however often it is told.

use std::collections::BTreeMap;
use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::results::CampaignResult;

pub use hongbao_telemetry::journal::Prize;

/// What one more telling adds to a book of prizes or shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    New,
    /// The same user, the same amount.
    Again,
    ToAnother,
    /// Its amount, or the share's number, was another.
    Changed,
}

/// Prizes by (campaign, serial).
#[derive(Debug, Default)]
pub struct PrizeBook {
    prizes: FxHashMap<(u32, u64), (u32, u64)>,
    campaigns: BTreeMap<u32, CampaignResult>,
}

impl PrizeBook {
    /// `user` was told of a prize.
    pub fn record(&mut self, user: u32, prize: Prize) -> Recorded {
        match self.prizes.entry((prize.campaign, prize.serial)) {
            Entry::Vacant(vacant) => {
                vacant.insert((user, prize.amount));
                let none = CampaignResult { campaign: prize.campaign, prizes: 0, fen: 0 };
                let sum = self.campaigns.entry(prize.campaign).or_insert(none);
                sum.prizes += 1;
                sum.fen += prize.amount;
                Recorded::New
            }
            Entry::Occupied(known) => match *known.get() {
                (owner, _) if owner != user => Recorded::ToAnother,
                (_, amount) if amount != prize.amount => Recorded::Changed,
                _ => Recorded::Again,
            },
        }
    }

    pub fn prizes(&self) -> impl Iterator<Item = (u32, Prize)> {
        self.prizes.iter().map(|(&(campaign, serial), &(user, amount))| (user, Prize { campaign, serial, amount }))
    }

    /// Distinct prizes, and their fen.
    pub fn totals(&self) -> (u64, u64) {
        self.campaigns.values().fold((0, 0), |(prizes, fen), one| (prizes + one.prizes, fen + one.fen))
    }

    pub fn campaigns(&self) -> Vec<CampaignResult> {
        self.campaigns.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prize_counts_once_and_no_contradiction_passes() {
        let mut book = PrizeBook::default();
        let prize = Prize { campaign: 1, serial: 0, amount: 50 };
        assert_eq!(book.record(3, prize), Recorded::New);
        assert_eq!(book.record(3, prize), Recorded::Again);
        assert_eq!(book.record(4, prize), Recorded::ToAnother);
        assert_eq!(book.record(3, Prize { amount: 51, ..prize }), Recorded::Changed);
        assert_eq!(book.record(4, Prize { campaign: 2, ..prize }), Recorded::New);
        assert_eq!(book.totals(), (2, 100));
        assert_eq!(book.campaigns()[1], CampaignResult { campaign: 2, prizes: 1, fen: 50 });
    }
}
