//! The audit: every invariant of a ledger file, checked from its rows, offline.
//!
//! It shares neither counters nor conclusions with the code that writes the books: balances are added up again from the
//! transfers, amounts drawn again from the seeds, uniqueness found by sorting rather than by trusting an index. It reads one
//! snapshot, also of the file that a killed server left behind with its log, and changes neither.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use hongbao_proto::{CampaignId, RequestId, Serial, UserId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use serde::Serialize;

use super::schema::{self, kind};
use super::{LedgerError, sqlite};
use crate::campaign::Campaign;
use crate::limits::AUDIT_FINDINGS_MAX;

/// The header of a client's journal.
pub const JOURNAL_HEADER: &str = "user,request,campaign,serial,amount_fen,at_ms";

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which invariant is broken: a short fixed name.
    pub check: &'static str,
    /// Where, by ids: `account 7`, `win 1/42` (campaign/serial), `transfer 9`, `a.csv:3`.
    pub place: String,
    /// What is there and what should be.
    pub detail: String,
}

/// What an audit saw. Money in fen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// The ledger's file.
    pub ledger: String,
    /// The first findings, at most [`AUDIT_FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// All findings, kept or not.
    pub findings_total: u64,
    /// Campaigns checked.
    pub campaigns: u64,
    /// Accounts checked.
    pub accounts: u64,
    /// Transfers checked.
    pub transfers: u64,
    /// Wins checked.
    pub wins: u64,
    /// Wins their users have seen.
    pub acknowledged: u64,
    /// What the treasury has put into campaigns.
    pub funded_fen: i128,
    /// What users have won.
    pub paid_fen: i128,
    /// What settled campaigns have given back.
    pub refunded_fen: i128,
    /// The sum over all balances: 0 in good books.
    pub residual_fen: i128,
    /// What the clients' journals said, if any were given.
    pub journals: Option<JournalSums>,
}

/// What the clients' journals said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JournalSums {
    /// Journals read.
    pub files: u64,
    /// Different wins in them.
    pub wins: u64,
    /// Their money, fen.
    pub received_fen: i128,
    /// Rows that say the same as an earlier one: a win told again after a reconnect. Not an imbalance.
    pub repeats: u64,
    /// Journals whose last line was cut off by the end of their writer; that line is not counted.
    pub torn: u64,
    /// Wins of the ledger that no journal holds: acknowledged to nobody before a crash. Not an imbalance.
    pub unheard: u64,
}

impl AuditReport {
    /// Nothing was found.
    pub fn is_balanced(&self) -> bool {
        self.findings_total == 0
    }

    fn find(&mut self, check: &'static str, place: impl fmt::Display, detail: impl fmt::Display) {
        self.findings_total += 1;
        if self.findings.len() < AUDIT_FINDINGS_MAX {
            self.findings.push(Finding { check, place: place.to_string(), detail: detail.to_string() });
        }
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_balanced() { "balanced" } else { "NOT BALANCED" };
        writeln!(
            f,
            "audit of {}: {verdict}: {} campaigns, {} accounts, {} transfers, {} wins ({} acknowledged)",
            self.ledger, self.campaigns, self.accounts, self.transfers, self.wins, self.acknowledged,
        )?;
        write!(
            f,
            "money (fen): funded {}, paid {}, refunded {}, residual {}",
            self.funded_fen, self.paid_fen, self.refunded_fen, self.residual_fen
        )?;
        if let Some(journals) = &self.journals {
            write!(
                f,
                "\njournals: {} files, {} wins, {} fen received, {} told again, {} cut off, {} wins nobody has heard of",
                journals.files, journals.wins, journals.received_fen, journals.repeats, journals.torn, journals.unheard,
            )?;
        }
        for finding in &self.findings {
            write!(f, "\n  [{}] {}: {}", finding.check, finding.place, finding.detail)?;
        }
        let kept = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
        if self.findings_total > kept {
            write!(f, "\n  and {} more", self.findings_total - kept)?;
        }
        Ok(())
    }
}

/// Checks every invariant of the ledger at `path`. `Err` only where it cannot be read as a ledger at all; what is wrong
/// inside it is in the report.
pub fn audit(path: &Path) -> Result<AuditReport, LedgerError> {
    audit_journals(path, &[])
}

/// As [`audit`]; besides, every win in the clients' `journals` (CSV with [`JOURNAL_HEADER`]) must be in the ledger, with the
/// same user, request, prize and amount.
pub fn audit_journals(path: &Path, journals: &[PathBuf]) -> Result<AuditReport, LedgerError> {
    let connection = open_read_only(path)?;
    connection.execute_batch("BEGIN").map_err(|error| sqlite::at(path, error))?;
    let mut audit = Audit {
        report: AuditReport { ledger: path.display().to_string(), ..AuditReport::default() },
        campaigns: BTreeMap::new(),
        balances: HashMap::new(),
        sold: BTreeMap::new(),
        connection: &connection,
    };
    audit.run("integrity", Audit::integrity);
    audit.run("schema", Audit::schema);
    audit.run("campaign", Audit::read_campaigns);
    audit.run("transfer", Audit::transfers);
    audit.run("account", Audit::accounts);
    audit.run("win", Audit::wins);
    audit.run("unique", Audit::uniqueness);
    audit.run("limit", Audit::limits);
    audit.run("campaign", Audit::campaign_sums);
    if !journals.is_empty() {
        audit.journals(journals)?;
    }
    Ok(audit.report)
}

fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    if !path.is_file() {
        return Err(LedgerError::Unavailable(format!("{}: no such file", path.display())));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| sqlite::at(path, error))?;
    // Leave the log of a killed server as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if sqlite::examine(&connection, path)? {
        return Err(LedgerError::Foreign { path: path.display().to_string(), why: "it is empty".to_owned() });
    }
    Ok(connection)
}

/// A row of `transfers`.
struct Transfer {
    id: i64,
    debit: i64,
    credit: i64,
    amount: i64,
    kind: i64,
    serial: Option<i64>,
    request: Option<i64>,
}

/// A row of `wins`.
struct WinRow {
    campaign: i64,
    serial: i64,
    user: i64,
    request: i64,
    amount: i64,
    acknowledged: i64,
    transfer: i64,
}

#[derive(Default)]
struct Sold {
    won: u64,
    paid: i128,
}

struct Audit<'a> {
    report: AuditReport,
    connection: &'a Connection,
    campaigns: BTreeMap<CampaignId, Campaign>,
    /// By account: what its transfers add up to.
    balances: HashMap<i64, i128>,
    /// By campaign: what its wins add up to.
    sold: BTreeMap<i64, Sold>,
}

type Checked = Result<(), LedgerError>;

impl Audit<'_> {
    /// A check that cannot be run is a finding too.
    fn run(&mut self, check: &'static str, f: fn(&mut Self) -> Checked) {
        if let Err(error) = f(self) {
            self.report.find(check, "ledger", format_args!("the check could not be run: {error}"));
        }
    }

    fn integrity(&mut self) -> Checked {
        let mut statement = self.connection.prepare("PRAGMA integrity_check(100)")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            if text != "ok" {
                self.report.find("integrity", "file", text);
            }
        }
        let mut statement = self.connection.prepare("PRAGMA foreign_key_check")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (table, rowid, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let place = rowid.map_or_else(|| table.clone(), |rowid| format!("{table} {rowid}"));
            self.report.find("reference", place, format_args!("refers to a row of {parent} that does not exist"));
        }
        Ok(())
    }

    /// The unique keys must be there, or the next repeat is paid twice.
    fn schema(&mut self) -> Checked {
        let expected = Connection::open_in_memory()?;
        expected.execute_batch(schema::TABLES)?;
        let (expected, found) = (read_schema(&expected)?, read_schema(self.connection)?);
        for (name, sql) in &expected {
            if found.get(name) != Some(sql) {
                self.report.find("schema", name, "missing, or not as this version makes it");
            }
        }
        for name in found.keys().filter(|name| !expected.contains_key(*name)) {
            self.report.find("schema", name, "not made by this program");
        }
        Ok(())
    }

    fn read_campaigns(&mut self) -> Checked {
        self.campaigns = sqlite::read_campaigns(self.connection)?;
        self.report.campaigns = count(self.campaigns.len());
        for (id, campaign) in &self.campaigns {
            if let Err(refusal) = campaign.terms.check() {
                self.report.find("terms", format_args!("campaign {id}"), refusal);
            }
        }
        Ok(())
    }

    /// Each transfer by itself, and the sums by account.
    fn transfers(&mut self) -> Checked {
        let mut statement = self
            .connection
            .prepare("SELECT id, debit, credit, amount_fen, kind, serial, request FROM transfers NOT INDEXED")?;
        let mut rows = statement.query([])?;
        let mut seen = HashSet::new();
        while let Some(row) = rows.next()? {
            let transfer = transfer(row)?;
            self.report.transfers += 1;
            *self.balances.entry(transfer.credit).or_default() += i128::from(transfer.amount);
            *self.balances.entry(transfer.debit).or_default() -= i128::from(transfer.amount);
            let amount = i128::from(transfer.amount);
            let place = format_args!("transfer {}", transfer.id);
            let ends = (account_kind(transfer.debit), account_kind(transfer.credit));
            let (once, expected) = match transfer.kind {
                kind::FUND => {
                    self.report.funded_fen += amount;
                    (Some(transfer.credit), (Some(kind::TREASURY), Some(kind::CAMPAIGN)))
                }
                kind::REFUND => {
                    self.report.refunded_fen += amount;
                    (Some(transfer.debit), (Some(kind::CAMPAIGN), Some(kind::REFUNDS)))
                }
                kind::WIN => {
                    self.report.paid_fen += amount;
                    (None, (Some(kind::CAMPAIGN), Some(kind::USER)))
                }
                other => {
                    self.report.find("transfer", place, format_args!("unknown kind {other}"));
                    continue;
                }
            };
            if ends != expected {
                let (debit, credit) = (transfer.debit, transfer.credit);
                self.report.find(
                    "transfer",
                    place,
                    format_args!("of a kind that does not go from account {debit} to {credit}"),
                );
            }
            if transfer.amount <= 0 {
                self.report.find("transfer", place, format_args!("moves {amount} fen"));
            }
            if let Some(account) = once
                && !seen.insert((transfer.kind, account))
            {
                self.report.find("transfer", place, format_args!("account {account} has another of this kind"));
            }
        }
        Ok(())
    }

    /// Stored balances against the transfers', in both directions.
    fn accounts(&mut self) -> Checked {
        let mut statement = self.connection.prepare("SELECT id, kind, balance FROM accounts NOT INDEXED")?;
        let mut rows = statement.query([])?;
        let mut left = self.balances.clone();
        let mut seen = HashSet::new();
        while let Some(row) = rows.next()? {
            let (id, kind, balance): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            self.report.accounts += 1;
            self.report.residual_fen += i128::from(balance);
            let place = format_args!("account {id}");
            if !seen.insert(id) {
                self.report.find("unique", place, "is there more than once");
            }
            let moved = left.remove(&id).unwrap_or(0);
            if i128::from(balance) != moved {
                self.report.find(
                    "balance",
                    place,
                    format_args!("holds {balance} fen; its transfers add up to {moved}"),
                );
            }
            if balance < 0 && id != schema::TREASURY {
                self.report.find("negative", place, format_args!("holds {balance} fen"));
            }
            if account_kind(id) != Some(kind) {
                self.report.find("account", place, format_args!("kind {kind} does not go with this id"));
            }
        }
        for (id, moved) in left {
            self.report.find(
                "balance",
                format_args!("account {id}"),
                format_args!("does not exist; its transfers add up to {moved} fen"),
            );
        }
        if self.report.residual_fen != 0 {
            let residual = self.report.residual_fen;
            self.report.find("residual", "ledger", format_args!("all balances add up to {residual} fen, not 0"));
        }
        Ok(())
    }

    /// Each win by itself, and beside its transfer. Both sides are sorted here (the `+` keeps an index from being believed) and
    /// merged, so that memory does not grow with them.
    fn wins(&mut self) -> Checked {
        let mut wins = self.connection.prepare(
            "SELECT campaign, serial, user, request, amount_fen, acknowledged, transfer FROM wins NOT INDEXED
             ORDER BY +campaign, +serial, +transfer",
        )?;
        let mut transfers = self.connection.prepare(
            "SELECT id, debit, credit, amount_fen, kind, serial, request FROM transfers NOT INDEXED
             WHERE kind = ?1 ORDER BY -debit, +serial, +id",
        )?;
        let (mut wins, mut transfers) = (wins.query([])?, transfers.query([kind::WIN])?);
        let mut win = next_win(&mut wins)?;
        let mut transfer = next_transfer(&mut transfers)?;
        let mut previous = None;
        loop {
            let win_key = win.as_ref().map(|win| (win.campaign, win.serial));
            let transfer_key =
                transfer.as_ref().map(|transfer| (transfer.debit.wrapping_neg(), transfer.serial.unwrap_or(-1)));
            let (has_win, has_transfer) = match (win_key, transfer_key) {
                (None, None) => break,
                (Some(win), Some(transfer)) => (win <= transfer, transfer <= win),
                (win, transfer) => (win.is_some(), transfer.is_some()),
            };
            let this_win = if has_win { std::mem::replace(&mut win, next_win(&mut wins)?) } else { None };
            let this_transfer =
                if has_transfer { std::mem::replace(&mut transfer, next_transfer(&mut transfers)?) } else { None };
            if let Some(win) = &this_win {
                if previous.replace((win.campaign, win.serial)) == Some((win.campaign, win.serial)) {
                    self.report.find("unique", place(win), "is somebody's more than once");
                }
                self.win(win);
            }
            match (this_win, this_transfer) {
                (Some(win), Some(transfer)) => self.pair(&win, &transfer),
                (Some(win), None) => self.report.find("pair", place(&win), "has no transfer"),
                (None, Some(transfer)) => {
                    self.report.find(
                        "pair",
                        format_args!("transfer {}", transfer.id),
                        "pays for a win that is not there",
                    );
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn win(&mut self, win: &WinRow) {
        self.report.wins += 1;
        match win.acknowledged {
            0 => {}
            1 => self.report.acknowledged += 1,
            other => self.report.find("win", place(win), format_args!("acknowledged is {other}")),
        }
        let sold = self.sold.entry(win.campaign).or_default();
        sold.won += 1;
        sold.paid += i128::from(win.amount);
        if checked(win.user, UserId::new).is_none() || checked(win.request, RequestId::new).is_none() {
            self.report.find("win", place(win), format_args!("user {} or request {} cannot be", win.user, win.request));
        }
        let Some(campaign) = checked(win.campaign, CampaignId::new).and_then(|id| self.campaigns.get(&id)) else {
            self.report.find("serial", place(win), "of a campaign that does not exist");
            return;
        };
        let Some(serial) = u64::try_from(win.serial).ok().filter(|serial| *serial < campaign.terms.total) else {
            let total = campaign.terms.total;
            self.report.find("serial", place(win), format_args!("the campaign has {total} prizes"));
            return;
        };
        let drawn = campaign.terms.amount(Serial(serial)).0;
        if u64::try_from(win.amount) != Ok(drawn) {
            self.report.find("amount", place(win), format_args!("{} fen; the seed says {drawn}", win.amount));
        }
    }

    fn pair(&mut self, win: &WinRow, transfer: &Transfer) {
        let same = [
            ("transfer id", win.transfer, transfer.id),
            ("amount", win.amount, transfer.amount),
            ("user", win.user, transfer.credit),
            ("request", win.request, transfer.request.unwrap_or(-1)),
        ];
        for (what, won, moved) in same {
            if won != moved {
                self.report.find("pair", place(win), format_args!("{what} is {won}; its transfer says {moved}"));
            }
        }
    }

    fn uniqueness(&mut self) -> Checked {
        let mut statement = self.connection.prepare(
            "SELECT user, request, count(*) FROM wins NOT INDEXED GROUP BY +user, +request HAVING count(*) > 1",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (user, request, count): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            self.report.find(
                "unique",
                format_args!("user {user} request {request}"),
                format_args!("has won {count} prizes"),
            );
        }
        Ok(())
    }

    fn limits(&mut self) -> Checked {
        let mut statement = self.connection.prepare(
            "SELECT campaign, user, count(*), per_user_limit FROM wins NOT INDEXED JOIN campaigns ON id = +campaign
             WHERE per_user_limit IS NOT NULL GROUP BY +campaign, +user HAVING count(*) > per_user_limit",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (campaign, user, held, limit): (i64, i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let place = format_args!("user {user} in campaign {campaign}");
            self.report.find("limit", place, format_args!("holds {held} prizes, {limit} allowed"));
        }
        Ok(())
    }

    fn campaign_sums(&mut self) -> Checked {
        let mut statement =
            self.connection.prepare("SELECT id, total_amount, settled_at, refunded, won, paid FROM campaigns")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, stored_total, settled_at): (i64, i64, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (refunded, won, paid): (i64, i64, i64) = (row.get(3)?, row.get(4)?, row.get(5)?);
            let place = format_args!("campaign {id}");
            let sold = self.sold.remove(&id).unwrap_or_default();
            if u64::try_from(won) != Ok(sold.won) || i128::from(paid) != sold.paid {
                let (rows, fen) = (sold.won, sold.paid);
                self.report.find(
                    "sums",
                    place,
                    format_args!("says {won} won, {paid} fen; its wins are {rows}, {fen} fen"),
                );
            }
            let drawn = checked(id, CampaignId::new)
                .and_then(|id| self.campaigns.get(&id))
                .map_or(0, |campaign| i128::from(campaign.terms.total_amount().0));
            if i128::from(stored_total) != drawn {
                self.report.find(
                    "fund",
                    place,
                    format_args!("says its prizes are worth {stored_total} fen; they are {drawn}"),
                );
            }
            let fund = self.balances.get(&id.wrapping_neg()).copied().unwrap_or(0);
            let left = drawn - i128::from(paid) - i128::from(refunded);
            if fund != left {
                self.report.find(
                    "fund",
                    place,
                    format_args!(
                        "its fund holds {fund} fen; {drawn} less {paid} paid less {refunded} refunded is {left}"
                    ),
                );
            }
            match settled_at {
                Some(_) if fund != 0 => self.report.find("fund", place, format_args!("settled with {fund} fen left")),
                None if refunded != 0 => self.report.find("fund", place, "refunded, but not settled"),
                _ => {}
            }
        }
        Ok(())
    }

    fn journals(&mut self, paths: &[PathBuf]) -> Checked {
        let mut sums = JournalSums { files: count(paths.len()), ..JournalSums::default() };
        let mut heard = HashSet::new();
        for path in paths {
            let failed = |error: io::Error| LedgerError::Unavailable(format!("{}: {error}", path.display()));
            let mut reader = BufReader::new(fs::File::open(path).map_err(failed)?);
            let mut line = String::new();
            let mut number = 0u64;
            loop {
                line.clear();
                if reader.read_line(&mut line).map_err(failed)? == 0 {
                    break;
                }
                number += 1;
                if !line.ends_with('\n') {
                    sums.torn += 1;
                    break;
                }
                let text = line.trim_end();
                let place = format_args!("{}:{number}", path.display());
                if number == 1 {
                    if text != JOURNAL_HEADER {
                        self.report.find("journal", place, format_args!("header is {text:?}, not {JOURNAL_HEADER:?}"));
                        break;
                    }
                    continue;
                }
                self.journal_row(text, place, &mut heard, &mut sums)?;
            }
        }
        sums.wins = count(heard.len());
        sums.unheard = self.report.wins.saturating_sub(sums.wins);
        self.report.journals = Some(sums);
        Ok(())
    }

    fn journal_row(
        &mut self,
        text: &str,
        place: fmt::Arguments<'_>,
        heard: &mut HashSet<[i64; 5]>,
        sums: &mut JournalSums,
    ) -> Checked {
        let numbers: Option<Vec<i64>> = text.split(',').map(|field| field.parse().ok()).collect();
        let Some(&[user, request, campaign, serial, amount, _at]) = numbers.as_deref() else {
            self.report.find("journal", place, format_args!("cannot be read: {text:?}"));
            return Ok(());
        };
        let row = [user, request, campaign, serial, amount];
        if !heard.insert(row) {
            sums.repeats += 1;
            return Ok(());
        }
        sums.received_fen += i128::from(amount);
        let said = format!("user {user} request {request} was told of prize {campaign}/{serial}, {amount} fen");
        let kept: Option<(i64, i64, i64)> = self
            .connection
            .prepare_cached("SELECT campaign, serial, amount_fen FROM wins WHERE user = ?1 AND request = ?2")?
            .query_row([user, request], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        match kept {
            Some(kept) if kept == (campaign, serial, amount) => {}
            Some((campaign, serial, amount)) => {
                self.report.find(
                    "journal",
                    place,
                    format_args!("{said}; the ledger says {campaign}/{serial}, {amount} fen"),
                );
            }
            None => self.report.find("journal", place, format_args!("{said}; the ledger has no such win")),
        }
        Ok(())
    }
}

fn place(win: &WinRow) -> String {
    format!("win {}/{}", win.campaign, win.serial)
}

fn checked<V, E>(value: i64, new: fn(u64) -> Result<V, E>) -> Option<V> {
    u64::try_from(value).ok().and_then(|value| new(value).ok())
}

fn account_kind(id: i64) -> Option<i64> {
    match id {
        schema::TREASURY => Some(kind::TREASURY),
        schema::REFUNDS => Some(kind::REFUNDS),
        1.. => checked(id, UserId::new).map(|_| kind::USER),
        ..0 => id.checked_neg().and_then(|id| checked(id, CampaignId::new)).map(|_| kind::CAMPAIGN),
    }
}

fn transfer(row: &Row<'_>) -> rusqlite::Result<Transfer> {
    Ok(Transfer {
        id: row.get(0)?,
        debit: row.get(1)?,
        credit: row.get(2)?,
        amount: row.get(3)?,
        kind: row.get(4)?,
        serial: row.get(5)?,
        request: row.get(6)?,
    })
}

fn next_transfer(rows: &mut rusqlite::Rows<'_>) -> rusqlite::Result<Option<Transfer>> {
    rows.next()?.map(transfer).transpose()
}

fn next_win(rows: &mut rusqlite::Rows<'_>) -> rusqlite::Result<Option<WinRow>> {
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(WinRow {
        campaign: row.get(0)?,
        serial: row.get(1)?,
        user: row.get(2)?,
        request: row.get(3)?,
        amount: row.get(4)?,
        acknowledged: row.get(5)?,
        transfer: row.get(6)?,
    }))
}

fn read_schema(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
