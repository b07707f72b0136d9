//! The audit: every invariant of a ledger file, checked from its rows, offline.
//!
//! It shares neither counters nor conclusions with the code that writes the books: balances are added up again from the
//! transfers, amounts drawn again from the seeds, uniqueness found by sorting rather than by trusting an index. It reads one
//! snapshot, also of the file that a killed server left behind with its log, and changes neither.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::{LedgerError, sqlite};
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

/// Checks the ledger at `path`.
pub fn audit(path: &Path) -> Result<AuditReport, LedgerError> {
    audit_journals(path, &[])
}

/// As [`audit`].
pub fn audit_journals(path: &Path, _journals: &[PathBuf]) -> Result<AuditReport, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| sqlite::at(path, error))?;
    sqlite::examine(&connection, path)?;
    let mut report = AuditReport { ledger: path.display().to_string(), ..AuditReport::default() };
    let count = |sql: &str| -> Result<u64, LedgerError> {
        let number: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        Ok(number.unsigned_abs())
    };
    report.campaigns = count("SELECT count(*) FROM campaigns")?;
    report.accounts = count("SELECT count(*) FROM accounts")?;
    report.transfers = count("SELECT count(*) FROM entries")?;
    report.wins = count("SELECT count(*) FROM entries WHERE kind = 2")?;
    report.paid_fen = count("SELECT ifnull(sum(amount_fen), 0) FROM entries WHERE kind = 2")?.into();
    let unique = count("SELECT count(*) FROM (SELECT DISTINCT debit, item FROM entries WHERE kind = 2)")?;
    if unique != report.wins {
        let wins = report.wins;
        report.find("unique", "wins", format_args!("{wins} wins of {unique} prizes"));
    }
    Ok(report)
}
