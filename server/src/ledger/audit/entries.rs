//! The entries in their own order: each by itself, the chains of users, and what every campaign and
//! account had at every moment.

use hongbao_proto::{RequestId, Serial};
use rusqlite::{OptionalExtension, Row};

use super::{Audit, Checked};
use crate::ledger::LedgerError;
use crate::ledger::audit::campaigns::Campaign;
use crate::ledger::books::{AccountId, Kind, Owner};
use crate::ledger::sqlite::Rows;

#[derive(Debug, Clone, Copy)]
pub struct EntryRow {
    pub id: i64,
    pub at: i64,
    pub kind: i64,
    pub debit: i64,
    pub credit: i64,
    pub amount: i64,
    pub item: i64,
    pub request: Option<i64>,
    pub previous: i64,
}

/// The columns, in the order in which [`EntryRow::read`] has them.
pub const COLUMNS: &str = "id, at_ms, kind, debit, credit, amount_fen, item, request, previous";

impl EntryRow {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (id, at, kind, debit, credit, amount, item, request, previous) = row.try_into()?;
        Ok(Self { id, at, kind, debit, credit, amount, item, request, previous })
    }

    fn owners(&self) -> (Owner, Owner) {
        (AccountId(self.debit).owner(), AccountId(self.credit).owner())
    }
}

/// A row of `deposits`, by the number of its first entry.
#[derive(Debug, Clone)]
struct Deposit {
    key: String,
    first_entry: i64,
    at: i64,
    first_user: i64,
    users: i64,
    amount: i64,
}

impl Deposit {
    /// The number after that of its last entry.
    fn end(&self) -> i64 {
        self.first_entry.saturating_add(self.users)
    }
}

impl Audit<'_> {
    pub(super) fn entries(&mut self) -> Checked {
        let mut deposits = self.deposits()?.into_iter().peekable();
        let mut current: Option<Deposit> = None;
        let mut statement =
            self.connection.prepare(&format!("SELECT {COLUMNS} FROM entries NOT INDEXED ORDER BY id"))?;
        let mut rows = statement.query([])?;
        let mut expected = self.progress.archived_through + 1;
        while let Some(row) = rows.next()? {
            let entry = EntryRow::read(row)?;
            self.report.transfers += 1;
            let place = format_args!("entry {}", entry.id);
            self.report.expect(entry.id <= expected, "entry", place, || {
                format!("entries {expected} to {} before it are missing", entry.id - 1)
            });
            self.report.expect(entry.id >= expected, "entry", place, || format!("{expected} was expected"));
            expected = entry.id + 1;
            if current.as_ref().is_none_or(|deposit| entry.id >= deposit.end()) {
                let archived = self.progress.archived_through;
                current = deposits.next_if(|deposit| {
                    deposit.first_entry == entry.id || (deposit.first_entry <= archived && entry.id < deposit.end())
                });
            }
            let kind = Kind::from_code(entry.kind);
            if kind == Some(Kind::Deposit) || current.is_some() {
                self.deposit_entry(&entry, current.as_ref());
            }
            match kind {
                None => self.report.find("entry", place, format_args!("of the unknown kind {}", entry.kind)),
                Some(kind) => self.entry(kind, &entry)?,
            }
            self.bring_in(&entry);
        }
        let cut_off = current.filter(|deposit| deposit.end() > expected);
        for deposit in cut_off.into_iter().chain(deposits.filter(|deposit| deposit.users > 0)) {
            let (first, end) = (deposit.first_entry, deposit.end());
            let place = format!("deposit {:?}", deposit.key);
            self.report.find("deposit", place, format_args!("not all entries from {first} to below {end} are of it"));
        }
        Ok(())
    }

    /// Those with entries that are here, in their order.
    fn deposits(&mut self) -> Result<Vec<Deposit>, LedgerError> {
        let mut deposits = Vec::new();
        let statement =
            "SELECT key, first_entry, at_ms, first_user, users, amount_fen FROM deposits ORDER BY first_entry, users";
        Rows(self.connection).each(statement, |row| {
            let (key, first_entry, at, first_user, users, amount) = row.try_into()?;
            let deposit = Deposit { key, first_entry, at, first_user, users, amount };
            self.report.deposits += 1;
            if deposit.end() > self.progress.archived_through + 1 {
                deposits.push(deposit);
            }
            Ok(())
        })?;
        Ok(deposits)
    }

    fn deposit_entry(&mut self, entry: &EntryRow, deposit: Option<&Deposit>) {
        let place = format_args!("entry {}", entry.id);
        let Some(deposit) = deposit else {
            self.report.find("deposit", place, "belongs to no deposit");
            return;
        };
        let user = deposit.first_user + (entry.id - deposit.first_entry);
        let is = (entry.kind, entry.credit, entry.amount, entry.at);
        self.report.expect(is == (Kind::Deposit.code(), user, deposit.amount, deposit.at), "deposit", place, || {
            let Deposit { key, amount, at, .. } = deposit;
            format!(
                "kind {}, {} fen to {} at {}; deposit {key:?} says {amount} fen to {user} at {at}",
                entry.kind, entry.amount, entry.credit, entry.at
            )
        });
    }

    /// An entry of a known kind, by itself and for its campaign.
    fn entry(&mut self, kind: Kind, entry: &EntryRow) -> Checked {
        let place = format_args!("entry {}", entry.id);
        let amount = i128::from(entry.amount);
        let (debit, credit) = entry.owners();
        let campaign = match (debit, credit) {
            (Owner::Campaign(id), _) | (_, Owner::Campaign(id)) => Some(i64::from(id.get())),
            _ => None,
        };
        let is_sale = campaign.and_then(|id| self.campaigns.get(&id)).map(Campaign::is_sale);
        let is_of_campaign = match kind {
            Kind::Fund | Kind::Win | Kind::Refund => is_sale != Some(true),
            Kind::Reserve | Kind::Release | Kind::Pay | Kind::PayOutside | Kind::Bank => is_sale != Some(false),
            Kind::Send | Kind::Open | Kind::Return | Kind::Deposit => true,
        };
        let ends = match kind {
            Kind::Fund | Kind::PayOutside => matches!((debit, credit), (Owner::Treasury, Owner::Campaign(_))),
            Kind::Win | Kind::Reserve => matches!((debit, credit), (Owner::Campaign(_), Owner::User(_))),
            Kind::Release | Kind::Pay => matches!((debit, credit), (Owner::User(_), Owner::Campaign(_))),
            Kind::Refund => matches!((debit, credit), (Owner::Campaign(_), Owner::Refunds)),
            Kind::Bank => matches!((debit, credit), (Owner::Campaign(_), Owner::Proceeds)),
            Kind::Send => matches!((debit, credit), (Owner::User(_) | Owner::Treasury, Owner::Envelope(_))),
            Kind::Open => matches!((debit, credit), (Owner::Envelope(_), Owner::User(_))),
            Kind::Return => matches!((debit, credit), (Owner::Envelope(_), Owner::User(_) | Owner::Refunds)),
            Kind::Deposit => matches!((debit, credit), (Owner::Treasury, Owner::User(_))),
        };
        self.report.expect(ends && is_of_campaign, "entry", place, || {
            format!("{kind:?} does not go from account {} to {}", entry.debit, entry.credit)
        });
        let moves_money = !matches!(kind, Kind::Reserve | Kind::Release);
        self.report.expect(entry.amount >= 0 && (entry.amount > 0) == moves_money, "entry", place, || {
            format!("{kind:?} of {amount} fen")
        });
        let from_user = matches!(debit, Owner::User(_));
        let has_request = matches!(kind, Kind::Win | Kind::Reserve) || (kind == Kind::Send && from_user);
        let is_request = |request| u64::try_from(request).is_ok_and(|request| RequestId::new(request).is_ok());
        self.report.expect(entry.request.map(is_request) == has_request.then_some(true), "entry", place, || {
            format!("{kind:?} of request {:?}", entry.request)
        });
        let item = match kind {
            Kind::Reserve | Kind::Release | Kind::Pay | Kind::PayOutside => entry.item > 0,
            Kind::Win | Kind::Open => entry.item >= 0,
            Kind::Fund | Kind::Refund | Kind::Send | Kind::Return | Kind::Deposit | Kind::Bank => entry.item == 0,
        };
        self.report.expect(item && entry.at >= 0, "entry", place, || {
            format!("{kind:?} of item {} at {}", entry.item, entry.at)
        });
        let once = match kind {
            Kind::Fund => Some(entry.credit),
            Kind::Refund | Kind::Bank => Some(entry.debit),
            _ => None,
        };
        if let Some(account) = once {
            self.report.expect(self.once.insert((entry.kind, account)), "entry", place, || {
                format!("account {account} has another {kind:?}")
            });
        }
        match kind {
            Kind::Fund => self.report.funded_fen += amount,
            Kind::Win => {
                self.report.wins += 1;
                self.report.paid_fen += amount;
            }
            Kind::Refund => self.report.refunded_fen += amount,
            Kind::Pay | Kind::PayOutside => self.report.earned_fen += amount,
            Kind::Send => self.report.sent_fen += amount,
            Kind::Open => {
                self.report.opened += 1;
                self.report.opened_fen += amount;
            }
            Kind::Deposit => self.report.deposited_fen += amount,
            Kind::Reserve | Kind::Release | Kind::Return | Kind::Bank => {}
        }
        match campaign {
            Some(id) => self.campaign_entry(id, kind, entry),
            None => Ok(()),
        }
    }

    /// What an entry does to its campaign, at this moment of its history.
    fn campaign_entry(&mut self, id: i64, kind: Kind, entry: &EntryRow) -> Checked {
        let place = format_args!("entry {}", entry.id);
        let Some(campaign) = self.campaigns.get_mut(&id) else {
            self.report.find("campaign", place, format_args!("of campaign {id}, which does not exist"));
            return Ok(());
        };
        campaign.first_seen.get_or_insert((entry.id, kind));
        self.report.expect(!campaign.is_closed, "campaign", place, || format!("comes after the end of campaign {id}"));
        let user = entry.debit.max(entry.credit);
        let amount = i128::from(entry.amount);
        let mut unit = None;
        match kind {
            Kind::Fund => campaign.funded += amount,
            Kind::Refund | Kind::Bank => {
                campaign.given_back += amount;
                campaign.is_closed = true;
                campaign.closed_at = Some(entry.at);
            }
            Kind::Win => {
                campaign.won += 1;
                campaign.paid += amount;
                unit = Some((entry.item, true));
                if let Some(serial) = campaign.serial(entry.item) {
                    let drawn = campaign.worth(Serial(serial));
                    self.report.expect(u64::try_from(entry.amount) == Ok(drawn), "amount", place, || {
                        format!("prize {id}/{serial} of {amount} fen; the seed says {drawn}")
                    });
                }
            }
            Kind::Reserve | Kind::Release => {
                let taken = kind == Kind::Reserve;
                match (taken, campaign.is_free()) {
                    (true, true) => campaign.won += 1,
                    (true, false) => campaign.reserved += 1,
                    (false, _) => campaign.reserved -= 1,
                }
                let serial: Option<i64> = self
                    .connection
                    .prepare_cached("SELECT serial FROM orders WHERE id = ?1")?
                    .query_row([entry.item], |row| row.get(0))
                    .optional()?;
                unit = serial.map(|serial| (serial, taken));
            }
            Kind::Pay | Kind::PayOutside => {
                campaign.won += 1;
                campaign.reserved -= 1;
                campaign.paid += amount;
                let price = campaign.price;
                self.report.expect(entry.amount == price, "amount", place, || {
                    format!("pays {amount} fen; the price is {price}")
                });
            }
            Kind::Send | Kind::Open | Kind::Return | Kind::Deposit => {}
        }
        let Some((serial, taken)) = unit else { return Ok(()) };
        let Some(serial) = campaign.serial(serial) else {
            let total = campaign.total;
            self.report.find("serial", place, format_args!("unit {id}/{serial}; the campaign has {total}"));
            return Ok(());
        };
        let was_taken = campaign.set(serial, taken);
        self.report
            .expect(!(taken && was_taken), "unique", place, || format!("unit {id}/{serial} was somebody's already"));
        // What held it may have been archived.
        let is_archived = campaign.first_entry <= self.progress.archived_through;
        self.report
            .expect(taken || was_taken || is_archived, "unique", place, || format!("unit {id}/{serial} was nobody's"));
        if let Some((held, limit)) = campaign.hold(user, taken).filter(|_| taken) {
            let detail = format_args!("user {user} holds {held} units of campaign {id} after it, {limit} are allowed");
            self.report.find("limit", place, detail);
        }
        Ok(())
    }

    /// Both accounts, and the chain of the user's.
    fn bring_in(&mut self, entry: &EntryRow) {
        let place = format_args!("entry {}", entry.id);
        let is_claim = [Kind::Win, Kind::Reserve].map(Kind::code).contains(&entry.kind);
        for (id, sign) in [(entry.debit, -1), (entry.credit, 1)] {
            let account = self.accounts.entry(id).or_default();
            let request = entry.request.filter(|_| is_claim && sign > 0);
            if id > 0 {
                let last = account.last_entry;
                let is_archived = last == 0 && (0..=self.progress.archived_through).contains(&entry.previous);
                self.report.expect(is_archived || (last != 0 && entry.previous == last), "chain", place, || {
                    format!("says that user {id}'s entry before it is {}; it is {last}", entry.previous)
                });
                if let Some(request) = request {
                    let last = account.last_claim;
                    self.report.expect(request > last, "chain", place, || {
                        format!("request {request} of user {id} comes after its request {last}")
                    });
                }
            }
            account.take(entry.id, i128::from(entry.amount) * sign, request);
            let balance = account.balance;
            self.report.expect(balance >= 0 || id == AccountId::TREASURY.0 || sign > 0, "negative", place, || {
                format!("leaves account {id} at {balance} fen")
            });
        }
        let has_user = entry.debit > 0 || entry.credit > 0;
        self.report.expect(has_user || entry.previous == 0, "chain", place, || {
            format!("is in no user's chain and names {}", entry.previous)
        });
    }
}
