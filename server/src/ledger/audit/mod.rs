//! The audit: every invariant of a ledger file, checked from its rows, offline.
//!
//! It shares neither counters nor conclusions with the code that writes the books, only the
//! numbering of accounts and of kinds of entries: balances are added up again, amounts drawn and
//! envelopes split again from their seeds, one at a time and in the order of the entries. It reads
//! one snapshot, also of the file that a killed server left behind with its log, and changes
//! neither.
//!
//! Memory grows with accounts and with units of campaigns (a bit each), never with entries: those
//! stream by, once in their own order (`entries`), and once each sorted by order (`orders`) and by
//! envelope (`envelopes`).
//!
//! Where history was moved into an archive, what is left is checked as strictly as before; of what
//! had begun before the cut only the later part can be.

mod accounts;
mod campaigns;
mod entries;
mod envelopes;
mod journals;
mod orders;
mod stream;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::{LedgerError, schema, sqlite};
use crate::ledger::audit::accounts::Account;
use crate::ledger::audit::campaigns::Campaign;
use crate::ledger::sqlite::{Deadline, Rows};
use crate::limits::AUDIT_FINDINGS_MAX;

pub use crate::ledger::audit::journals::{JOURNAL_HEADER, JOURNAL_HEADER_OF_WINS, JournalSums};

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which invariant is broken: a short fixed name.
    pub check: &'static str,
    /// Where, by ids: `account 7`, `entry 9`, `order 3`, `envelope 5`, `campaign 1`, `a.csv:3`.
    pub place: String,
    pub detail: String,
}

/// What an audit saw. Money in fen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    pub ledger: String,
    /// The first findings, at most [`AUDIT_FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    pub findings_total: u64,
    pub campaigns: u64,
    pub accounts: u64,
    /// Entries checked.
    pub transfers: u64,
    /// The entries below were moved into an archive: 0 where none was.
    pub archived_through: u64,
    /// Prizes won in rains.
    pub wins: u64,
    /// Of them, those that their users have seen.
    pub acknowledged: u64,
    pub orders: u64,
    /// Of them, units that are somebody's for good.
    pub sold: u64,
    pub envelopes: u64,
    pub opened: u64,
    pub deposits: u64,
    /// What the treasury has put into campaigns.
    pub funded_fen: i128,
    /// What users have won.
    pub paid_fen: i128,
    /// What settled rains have given back.
    pub refunded_fen: i128,
    /// What was paid for orders.
    pub earned_fen: i128,
    /// What was put into envelopes.
    pub sent_fen: i128,
    pub opened_fen: i128,
    /// What operators have put into wallets.
    pub deposited_fen: i128,
    /// The sum over all balances as of the last entry: 0 in good books.
    pub residual_fen: i128,
    /// What the clients' journals said, if any were given.
    pub journals: Option<JournalSums>,
    /// What the deadline has left unread, if it came first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<Unread>,
}

/// What an audit with a deadline has not read. It has no opinion on that: the next one has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Checks that were not begun, or not finished.
    pub checks: Vec<&'static str>,
    /// Entries that none of them has seen.
    pub entries: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct AuditOptions<'a> {
    /// Clients' journals, CSV with [`JOURNAL_HEADER`] or [`JOURNAL_HEADER_OF_WINS`]: everything in
    /// them must be in the ledger, with the same user and amount.
    pub journals: &'a [PathBuf],
    /// Ends by then, give or take some milliseconds, with what it has read.
    pub until: Option<Instant>,
}

impl AuditReport {
    /// Nothing was found in what was read; whether that is all says [`AuditReport::unread`].
    pub fn is_balanced(&self) -> bool {
        self.findings_total == 0
    }

    fn find(&mut self, check: &'static str, place: impl fmt::Display, detail: impl fmt::Display) {
        self.findings_total += 1;
        if self.findings.len() < AUDIT_FINDINGS_MAX {
            self.findings.push(Finding { check, place: place.to_string(), detail: detail.to_string() });
        }
    }

    /// A finding unless `holds`.
    fn expect<D: fmt::Display>(
        &mut self,
        holds: bool,
        check: &'static str,
        place: impl fmt::Display,
        detail: impl FnOnce() -> D,
    ) {
        if !holds {
            self.find(check, place, detail());
        }
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ledger, campaigns, accounts, transfers, wins, acknowledged, .. } = self;
        let Self { orders, sold, envelopes, opened, deposits, archived_through, residual_fen, .. } = self;
        let Self { funded_fen, paid_fen, refunded_fen, earned_fen, sent_fen, opened_fen, deposited_fen, .. } = self;
        let verdict = match (self.is_balanced(), &self.unread) {
            (true, None) => "balanced",
            (true, Some(_)) => "balanced as far as it was read",
            (false, _) => "NOT BALANCED",
        };
        write!(
            f,
            "audit of {ledger}: {verdict}: {campaigns} campaigns, {accounts} accounts, {transfers} entries, {wins} wins \
             ({acknowledged} acknowledged)\n{orders} orders ({sold} sold), {envelopes} envelopes ({opened} shares opened), \
             {deposits} deposits\nmoney (fen): funded {funded_fen}, paid {paid_fen}, refunded {refunded_fen}; \
             earned {earned_fen}; sent {sent_fen}, opened {opened_fen}; deposited {deposited_fen}; residual {residual_fen}",
        )?;
        if *archived_through > 0 {
            write!(f, "\nentries through {archived_through} are in an archive and were not looked at")?;
        }
        if let Some(journals) = &self.journals {
            write!(f, "\n{journals}")?;
        }
        if let Some(Unread { checks, entries }) = &self.unread {
            let (checks, total) = (checks.join(", "), transfers.saturating_add(*entries));
            write!(
                f,
                "\nnot read by the deadline: {entries} of {total} entries, and the checks {checks}; `hongbao-server audit` reads all"
            )?;
        }
        for Finding { check, place, detail } in &self.findings {
            write!(f, "\n  [{check}] {place}: {detail}")?;
        }
        match self.findings_total.saturating_sub(self.findings.len() as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Checks every invariant of the ledger at `path`. `Err` only where it cannot be read as a ledger
/// at all; what is wrong inside it is in the report.
pub fn audit(path: &Path) -> Result<AuditReport, LedgerError> {
    audit_with(path, &AuditOptions::default())
}

/// As [`audit`], with journals to compare, or a deadline.
pub fn audit_with(path: &Path, options: &AuditOptions<'_>) -> Result<AuditReport, LedgerError> {
    let connection = open_read_only(path)?;
    connection.execute_batch("BEGIN").map_err(|error| sqlite::at(path, error))?;
    let mut audit = Audit {
        report: AuditReport { ledger: path.display().to_string(), ..AuditReport::default() },
        connection: &connection,
        deadline: Deadline::arm(&connection, options.until),
        entries_total: 0,
        unread: Vec::new(),
        progress: Progress::default(),
        campaigns: BTreeMap::new(),
        accounts: HashMap::new(),
        once: HashSet::new(),
    };
    audit.run("progress", Audit::read_progress);
    audit.run("integrity", Audit::integrity);
    audit.run("schema", Audit::schema);
    audit.run("campaign", Audit::read_campaigns);
    audit.run("account", Audit::read_accounts);
    audit.run("entry", Audit::entries);
    audit.run("account", Audit::check_accounts);
    audit.run("campaign", Audit::check_campaigns);
    audit.run("order", Audit::orders);
    audit.run("envelope", Audit::envelopes);
    audit.run("notice", Audit::notices);
    if !options.journals.is_empty() {
        audit.within_deadline("journal", |audit| audit.journals(options.journals))?;
    }
    Ok(audit.finish())
}

pub(super) fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
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

/// The row of `progress`.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    accounts_from: i64,
    archived_through: i64,
    archived_orders: i64,
    archived_envelopes: i64,
}

struct Audit<'a> {
    report: AuditReport,
    connection: &'a Connection,
    deadline: Deadline,
    /// As `progress` and the last number say.
    entries_total: u64,
    /// Checks that the deadline has cut short.
    unread: Vec<&'static str>,
    progress: Progress,
    campaigns: BTreeMap<i64, Campaign>,
    accounts: HashMap<i64, Account>,
    /// Kinds of entries that an account has at most one of, by code and account.
    once: HashSet<(i64, i64)>,
}

type Checked = Result<(), LedgerError>;

impl Audit<'_> {
    /// A check that cannot be run is a finding too.
    fn run(&mut self, check: &'static str, f: fn(&mut Self) -> Checked) {
        if let Err(error) = self.within_deadline(check, f) {
            self.report.find(check, "ledger", format_args!("the check could not be run: {error}"));
        }
    }

    /// Runs a check as far as the deadline lets it.
    fn within_deadline(&mut self, check: &'static str, f: impl FnOnce(&mut Self) -> Checked) -> Checked {
        let checked = if self.deadline.is_over() { Err(Self::late()) } else { f(self) };
        match checked {
            Err(LedgerError::Unavailable(_)) if self.deadline.is_over() => {
                self.unread.push(check);
                Ok(())
            }
            checked => checked,
        }
    }

    fn late() -> LedgerError {
        LedgerError::Unavailable("the deadline is over".to_owned())
    }

    /// For what takes long without the database: an error once the deadline is over.
    fn on_time(&self) -> Checked {
        if self.deadline.is_over() { Err(Self::late()) } else { Ok(()) }
    }

    fn finish(mut self) -> AuditReport {
        if !self.unread.is_empty() {
            let entries = self.entries_total.saturating_sub(self.report.transfers);
            self.report.unread = Some(Unread { checks: self.unread, entries });
        }
        self.report
    }

    fn integrity(&mut self) -> Checked {
        Rows(self.connection).each("PRAGMA integrity_check(100)", |row| {
            let text: String = row.get(0)?;
            self.report.expect(text == "ok", "integrity", "file", || &text);
            Ok(())
        })?;
        Rows(self.connection).each("PRAGMA foreign_key_check", |row| {
            let (table, rowid, parent): (String, Option<i64>, String) = row.try_into()?;
            let place = rowid.map_or_else(|| table.clone(), |rowid| format!("{table} {rowid}"));
            self.report.find("reference", place, format_args!("refers to a row of {parent} that does not exist"));
            Ok(())
        })
    }

    /// The unique keys must be there, or the next repeat is paid twice.
    fn schema(&mut self) -> Checked {
        let expected = Connection::open_in_memory()?;
        expected.execute_batch(schema::TABLES)?;
        let (expected, found) = (read_schema(&expected)?, read_schema(self.connection)?);
        for (name, sql) in &expected {
            self.report.expect(
                found.get(name) == Some(sql),
                "schema",
                name,
                || "missing, or not as this version makes it",
            );
        }
        for name in found.keys().filter(|name| !expected.contains_key(*name)) {
            self.report.find("schema", name, "not made by this program");
        }
        Ok(())
    }

    fn read_progress(&mut self) -> Checked {
        let (accounts_from, archived_through, archived_orders, archived_envelopes) = self.connection.query_row(
            "SELECT accounts_from, archived_through, archived_orders, archived_envelopes FROM progress",
            [],
            |row| row.try_into(),
        )?;
        self.progress = Progress { accounts_from, archived_through, archived_orders, archived_envelopes };
        self.report.archived_through = u64::try_from(self.progress.archived_through).unwrap_or(0);
        let last: i64 = self.connection.query_row("SELECT ifnull(max(id), 0) FROM entries", [], |row| row.get(0))?;
        self.entries_total = u64::try_from(last - self.progress.archived_through).unwrap_or(0);
        Ok(())
    }

    /// What nobody has acknowledged must be something to tell. (`orders` has looked at those of
    /// orders.)
    fn notices(&mut self) -> Checked {
        let mut wins = 0;
        let notices = "SELECT notices.entry, entries.kind FROM notices LEFT JOIN entries ON entries.id = notices.entry
                       ORDER BY 1";
        Rows(self.connection).each(notices, |row| {
            let (entry, kind): (i64, Option<i64>) = row.try_into()?;
            let place = format_args!("entry {entry}");
            match kind {
                Some(2) => wins += 1,
                Some(4..=7) => {}
                Some(kind) => self.report.find("notice", place, format_args!("kind {kind} is told to nobody")),
                None => self.report.find("notice", place, "is to be told and does not exist"),
            }
            Ok(())
        })?;
        self.report.acknowledged = self.report.wins.saturating_sub(wins);
        Ok(())
    }
}

fn read_schema(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
    let rows = statement.query_map([], |row| row.try_into())?;
    rows.collect()
}
