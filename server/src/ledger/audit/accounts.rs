//! Accounts: what their rows say, and what their entries add up to.

use super::{Audit, Checked};
use crate::ledger::books::{AccountId, Owner};
use crate::ledger::sqlite::Rows;

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
        let accounts = "SELECT id, balance, last_entry, last_claim, archived FROM accounts NOT INDEXED";
        Rows(self.connection).each(accounts, |row| {
            let (id, balance, last_entry, last_claim, archived): (i64, _, _, _, i64) = row.try_into()?;
            let place = format_args!("account {id}");
            let stored = Some(Stored { balance, last_entry, last_claim, archived });
            let account = Account { stored, balance: archived.into(), ..Account::default() };
            self.report.expect(
                self.accounts.insert(id, account).is_none(),
                "unique",
                place,
                || "is there more than once",
            );
            let can_be = archived == 0 || self.progress.archived_through > 0;
            self.report.expect(can_be, "archive", place, || format!("{archived} fen archived, but nothing was"));
            Ok(())
        })
    }

    pub(super) fn check_accounts(&mut self) -> Checked {
        let mut ids: Vec<i64> = self.accounts.keys().copied().collect();
        ids.sort_unstable();
        self.report.accounts = ids.len() as u64;
        let mut archived_sum = 0i128;
        for (n, id) in ids.into_iter().enumerate() {
            if n % 16_384 == 0 {
                self.on_time()?;
            }
            let account = self.accounts[&id];
            let place = format_args!("account {id}");
            self.check_owner(id);
            let from = self.progress.accounts_from;
            if let Some(missing) = account.missing.filter(|missing| *missing < from) {
                let detail = format_args!("does not contain entry {missing}; all below {from} should be");
                self.report.find("behind", place, detail);
            }
            let Some(Stored { balance, last_entry, last_claim, archived }) = account.stored else {
                self.report.residual_fen += account.balance;
                continue;
            };
            archived_sum += i128::from(archived);
            // Its last entry may have been archived, or be none at all.
            let is_before = (0..=self.progress.archived_through).contains(&last_entry);
            let own = account.then.or_else(|| is_before.then_some((archived.into(), last_claim)));
            let Some((sum, highest_claim)) = own else {
                let detail = format_args!("says that entry {last_entry} is its last one, which is not its own");
                self.report.find("account", place, detail);
                continue;
            };
            self.report.residual_fen += i128::from(balance) + account.balance - sum;
            self.report.expect(i128::from(balance) == sum, "balance", place, || {
                format!("holds {balance} fen; its entries through {last_entry} add up to {sum}")
            });
            self.report.expect(balance >= 0 || id == AccountId::TREASURY.0, "negative", place, || {
                format!("holds {balance} fen")
            });
            // The archive may hold the claim that it means.
            let is_archived = highest_claim == 0 && self.progress.archived_through > 0 && last_claim > 0;
            self.report.expect(last_claim == highest_claim || is_archived, "claim", place, || {
                format!("says that its last claim was {last_claim}; it was {highest_claim}")
            });
        }
        let residual = self.report.residual_fen;
        self.report
            .expect(residual == 0, "residual", "ledger", || format!("all balances add up to {residual} fen, not 0"));
        self.report.expect(archived_sum == 0, "archive", "ledger", || {
            format!("what was archived adds up to {archived_sum} fen, not 0")
        });
        Ok(())
    }

    fn check_owner(&mut self, id: i64) {
        let known = match AccountId(id).owner() {
            Owner::Nobody => false,
            Owner::Campaign(campaign) => self.campaigns.contains_key(&campaign.get().into()),
            Owner::Treasury | Owner::Refunds | Owner::Proceeds | Owner::User(_) | Owner::Envelope(_) => true,
        };
        self.report.expect(known, "account", format_args!("account {id}"), || "is nobody's");
    }
}
