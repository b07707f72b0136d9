//! Accounts: what their rows say, and what their entries add up to.

use super::{Audit, Checked};
use crate::ledger::books::{AccountId, Owner};

#[derive(Debug, Clone, Copy)]
struct Stored {
    balance: i64,
    last_entry: i64,
    last_claim: i64,
    archived: i64,
}

/// An account as its entries say, beside its row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    stored: Option<Stored>,
    /// What is in it after the entries so far.
    pub balance: i128,
    pub last_entry: i64,
    /// The highest request of its claims so far.
    pub last_claim: i64,
    /// What was in it, and the two above, when its row says.
    then: Option<(i128, i64)>,
    /// The first of its entries that its row does not contain.
    missing: Option<i64>,
}

impl Account {
    /// Takes the entry in: the next one in the order of entries.
    pub fn take(&mut self, entry: i64, amount: i128, request: Option<i64>) {
        self.balance += amount;
        self.last_entry = entry;
        if let Some(request) = request {
            self.last_claim = self.last_claim.max(request);
        }
        match self.stored {
            Some(stored) if entry < stored.last_entry => {}
            Some(stored) if entry == stored.last_entry => self.then = Some((self.balance, self.last_claim)),
            _ => self.missing = self.missing.or(Some(entry)),
        }
    }
}

impl Audit<'_> {
    pub(super) fn read_accounts(&mut self) -> Checked {
        let mut statement = self
            .connection
            .prepare("SELECT id, balance, last_entry, last_claim, archived FROM accounts NOT INDEXED")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let stored = Stored {
                balance: row.get(1)?,
                last_entry: row.get(2)?,
                last_claim: row.get(3)?,
                archived: row.get(4)?,
            };
            let place = format_args!("account {id}");
            let account = Account { stored: Some(stored), balance: stored.archived.into(), ..Account::default() };
            if self.accounts.insert(id, account).is_some() {
                self.report.find("unique", place, "is there more than once");
            }
            if stored.archived != 0 && self.progress.archived_through == 0 {
                self.report.find("archive", place, format_args!("{} fen archived, but nothing was", stored.archived));
            }
        }
        Ok(())
    }

    pub(super) fn check_accounts(&mut self) -> Checked {
        let mut ids: Vec<i64> = self.accounts.keys().copied().collect();
        ids.sort_unstable();
        self.report.accounts = ids.len() as u64;
        let mut archived = 0i128;
        for (n, id) in ids.into_iter().enumerate() {
            if n % 16_384 == 0 {
                self.on_time()?;
            }
            let account = self.accounts[&id];
            let place = format_args!("account {id}");
            self.check_owner(id);
            if let Some(missing) = account.missing.filter(|missing| *missing < self.progress.accounts_from) {
                let from = self.progress.accounts_from;
                self.report.find(
                    "behind",
                    place,
                    format_args!("does not contain entry {missing}; all below {from} should be"),
                );
            }
            let Some(stored) = account.stored else {
                self.report.residual_fen += account.balance;
                continue;
            };
            archived += i128::from(stored.archived);
            let own = account.then.or_else(|| {
                // Its last entry may have been archived, or be none at all.
                (0..=self.progress.archived_through)
                    .contains(&stored.last_entry)
                    .then_some((stored.archived.into(), stored.last_claim))
            });
            let Some((balance, last_claim)) = own else {
                self.report.find(
                    "account",
                    place,
                    format_args!("says that entry {} is its last one, which is not its own", stored.last_entry),
                );
                continue;
            };
            let later = account.balance - balance;
            self.report.residual_fen += i128::from(stored.balance) + later;
            if i128::from(stored.balance) != balance {
                self.report.find(
                    "balance",
                    place,
                    format_args!(
                        "holds {} fen; its entries through {} add up to {balance}",
                        stored.balance, stored.last_entry
                    ),
                );
            }
            if stored.balance < 0 && id != AccountId::TREASURY.0 {
                self.report.find("negative", place, format_args!("holds {} fen", stored.balance));
            }
            // The archive may hold the claim that it means.
            let is_archived = last_claim == 0 && self.progress.archived_through > 0 && stored.last_claim > 0;
            if stored.last_claim != last_claim && !is_archived {
                self.report.find(
                    "claim",
                    place,
                    format_args!("says that its last claim was {}; it was {last_claim}", stored.last_claim),
                );
            }
        }
        if self.report.residual_fen != 0 {
            let residual = self.report.residual_fen;
            self.report.find("residual", "ledger", format_args!("all balances add up to {residual} fen, not 0"));
        }
        if archived != 0 {
            self.report.find("archive", "ledger", format_args!("what was archived adds up to {archived} fen, not 0"));
        }
        Ok(())
    }

    fn check_owner(&mut self, id: i64) {
        let known = match AccountId(id).owner() {
            Owner::Nobody => false,
            Owner::Campaign(campaign) => self.campaigns.contains_key(&campaign.get().into()),
            Owner::Treasury | Owner::Refunds | Owner::Proceeds | Owner::User(_) | Owner::Envelope(_) => true,
        };
        if !known {
            self.report.find("account", format_args!("account {id}"), "is nobody's");
        }
    }
}
