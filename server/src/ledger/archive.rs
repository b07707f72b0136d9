//! Retention: moves settled history out of a ledger into a file of its own, offline.
//!
//! **What goes** is a prefix of the entries: all below the first one that has to stay. An entry has
//! to stay if it is not older than the time asked for, if its campaign is not settled, its order
//! not decided or its envelope not closed, or if its user has not acknowledged it (unless that is
//! waived). Orders and envelopes go with the last of their entries, so what straddles the cut stays
//! whole as a row; campaigns and deposits stay for good, being few and their names unique. What the
//! entries had added to each account is kept in `accounts.archived`, so that balances remain sums.
//!
//! **What is lost** is what only those rows could tell: a statement ends at the cut, a Grab that is
//! repeated from before it is answered as one that came too late, an order or envelope from before
//! it is unknown. A repeated SendEnvelope from before it would be taken for a new one: hence
//! [`ARCHIVE_AGE_MIN_MS`].
//!
//! **A crash** loses nothing: the archive is whole and on disk under its name before the ledger
//! gives anything away, which it does in one transaction, and only what the archive holds. The same
//! command again finishes what was interrupted.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Ledger, LedgerError};
use crate::clock::UnixMs;
use crate::ledger::books::{AccountId, Kind, Owner};
use crate::ledger::sqlite::{Rows, SqliteLedger, at, corrupt, with_suffix};
use crate::limits::ARCHIVE_AGE_MIN_MS;

/// `PRAGMA application_id` of an archive: "HBar".
pub const APPLICATION_ID: i64 = 0x4842_6172;

/// `PRAGMA user_version` of an archive.
const VERSION: i64 = 1;

/// The tables that are moved, as the ledger has them; `campaigns` and `accounts_added` are there to
/// make the file readable alone.
const TABLES: &str = "
CREATE TABLE archive (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    made_at INTEGER NOT NULL,
    first_entry INTEGER NOT NULL,
    last_entry INTEGER NOT NULL,
    orders_through INTEGER NOT NULL,
    envelopes_through INTEGER NOT NULL
) STRICT;
CREATE TABLE campaigns (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    kind INTEGER NOT NULL,
    total INTEGER NOT NULL,
    seed BLOB NOT NULL,
    settled_at INTEGER
) STRICT;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    debit INTEGER NOT NULL,
    credit INTEGER NOT NULL,
    amount_fen INTEGER NOT NULL,
    item INTEGER NOT NULL,
    request INTEGER,
    previous INTEGER NOT NULL
) STRICT;
CREATE TABLE accounts_added (
    id INTEGER PRIMARY KEY,
    fen INTEGER NOT NULL
) STRICT;
CREATE TABLE notices (entry INTEGER PRIMARY KEY) STRICT;
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL,
    campaign INTEGER NOT NULL,
    serial INTEGER NOT NULL,
    request INTEGER NOT NULL,
    price INTEGER NOT NULL,
    state INTEGER NOT NULL,
    reserved_at INTEGER NOT NULL,
    pay_by INTEGER NOT NULL,
    decided_at INTEGER
) STRICT;
CREATE TABLE envelopes (
    id INTEGER PRIMARY KEY,
    sent_at INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    request INTEGER NOT NULL,
    room INTEGER,
    total INTEGER NOT NULL,
    shares INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    seed BLOB NOT NULL,
    greeting TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    recipients BLOB NOT NULL
) STRICT;
CREATE TABLE closings (envelope INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, refunded INTEGER NOT NULL) STRICT;
CREATE TABLE openings (
    envelope INTEGER NOT NULL,
    share INTEGER NOT NULL,
    user INTEGER NOT NULL,
    amount_fen INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (envelope, share)
) STRICT, WITHOUT ROWID;
";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Only what is older.
    pub before: UnixMs,
    /// Also what its user has not acknowledged, and will not be told any more.
    pub unacknowledged_too: bool,
    /// Gives the room in the ledger's file back to the file system.
    pub vacuum: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archived {
    /// The first entry that was moved, and the last; nothing where none could be.
    pub entries: Option<(i64, i64)>,
    pub orders: u64,
    pub envelopes: u64,
    /// An earlier attempt had written the archive: this one has only finished it.
    pub finished: bool,
    /// Why the next entry has to stay, if there is one.
    pub stays: Option<String>,
}

impl fmt::Display for Archived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entries {
            None => write!(f, "nothing to move")?,
            Some((first, last)) => {
                let how = if self.finished { "finished an earlier archive: " } else { "moved " };
                write!(
                    f,
                    "{how}entries {first} to {last} ({} of them), {} orders, {} envelopes",
                    last - first + 1,
                    self.orders,
                    self.envelopes
                )?;
            }
        }
        match &self.stays {
            Some(why) => write!(f, "; {why}"),
            None => Ok(()),
        }
    }
}

/// Moves what `wanted` says out of the ledger at `ledger` into a new file `to`. Refused while a
/// server has the ledger open.
pub fn archive(ledger: &Path, to: &Path, wanted: &Wanted, now: UnixMs) -> Result<Archived, LedgerError> {
    if !ledger.is_file() {
        return Err(refused(format!("{}: no such file", ledger.display())));
    }
    if wanted.before > now.saturating_sub(ARCHIVE_AGE_MIN_MS) {
        return Err(refused("what is archived must be at least a day old: users may still repeat their requests"));
    }
    // Takes the ledger's lock until the end. Nobody but us writes, and every account's row is
    // brought up to the last entry.
    let mut lock = SqliteLedger::open(ledger)?;
    lock.checkpoint(None)?;
    let mut connection = Connection::open_with_flags(ledger, flags(false)).map_err(|error| at(ledger, error))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mut report = Archived::default();
    if to.exists() {
        report.finished = true;
    } else {
        let Some(plan) = plan(&connection, wanted, &mut report)? else { return Ok(report) };
        write(&connection, ledger, to, &plan, now)?;
    }
    prune(&mut connection, to, &mut report)?;
    if wanted.vacuum {
        connection.execute_batch("VACUUM").map_err(|error| at(ledger, error))?;
    }
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    drop(connection);
    drop(lock);
    Ok(report)
}

fn flags(create: bool) -> OpenFlags {
    let create = if create { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create
}

fn refused(why: impl Into<String>) -> LedgerError {
    LedgerError::Refused(why.into())
}

struct Plan {
    first: i64,
    last: i64,
    /// The highest order and envelope whose first entry is before the cut.
    orders_through: i64,
    envelopes_through: i64,
}

/// Goes through the entries up to the first one that has to stay.
fn plan(connection: &Connection, wanted: &Wanted, report: &mut Archived) -> Result<Option<Plan>, LedgerError> {
    let rows = Rows(connection);
    let ids = |statement: &str| -> Result<HashSet<i64>, LedgerError> {
        Ok(rows.all(statement, |row| Ok(row.get(0)?))?.into_iter().collect())
    };
    let settled = ids("SELECT id FROM campaigns WHERE settled_at NOTNULL")?;
    let waiting = ids("SELECT id FROM orders WHERE decided_at ISNULL")?;
    let open = ids("SELECT envelope FROM open_envelopes")?;
    let untold = if wanted.unacknowledged_too { HashSet::new() } else { ids("SELECT entry FROM notices")? };
    let (first, orders_through, envelopes_through) = connection.query_row(
        "SELECT archived_through + 1, archived_orders, archived_envelopes FROM progress",
        [],
        |row| row.try_into(),
    )?;
    let mut plan = Plan { first, last: first - 1, orders_through, envelopes_through };
    let before = i64::try_from(wanted.before).unwrap_or(i64::MAX);
    let mut statement = connection.prepare("SELECT id, at_ms, kind, debit, credit, item FROM entries ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, at_ms, kind, debit, credit, item): (i64, i64, i64, i64, i64, i64) = row.try_into()?;
        let is_of_order = [Kind::Reserve, Kind::Release, Kind::Pay, Kind::PayOutside].map(Kind::code).contains(&kind);
        let mut why = None;
        for account in [debit, credit] {
            match AccountId(account).owner() {
                Owner::Campaign(campaign) if !settled.contains(&campaign.get().into()) => {
                    why = Some(format!("is of campaign {campaign}, which is not settled"));
                }
                Owner::Envelope(envelope) => {
                    let number = i64::try_from(envelope.get()).unwrap_or(i64::MAX);
                    if open.contains(&number) {
                        why = Some(format!("is of envelope {envelope}, which can still be opened"));
                    } else if kind == Kind::Send.code() && why.is_none() {
                        plan.envelopes_through = plan.envelopes_through.max(number);
                    }
                }
                Owner::Nobody => return Err(corrupt(format!("entry {id} is of account {account}"))),
                Owner::Campaign(_) | Owner::Treasury | Owner::Refunds | Owner::Proceeds | Owner::User(_) => {}
            }
        }
        if at_ms >= before {
            why = Some("is not old enough".to_owned());
        } else if is_of_order && waiting.contains(&item) {
            why = Some(format!("is of order {item}, which is not decided"));
        } else if untold.contains(&id) {
            why = Some("has not been acknowledged by its user".to_owned());
        }
        if let Some(why) = why {
            report.stays = Some(format!("entry {id} stays and all after it: it {why}"));
            break;
        }
        if kind == Kind::Reserve.code() {
            plan.orders_through = plan.orders_through.max(item);
        }
        plan.last = id;
    }
    Ok((plan.last >= plan.first).then_some(plan))
}

/// Writes the archive, whole and on disk before it has its name.
fn write(ledger: &Connection, path: &Path, to: &Path, plan: &Plan, now: UnixMs) -> Result<(), LedgerError> {
    let partial = with_suffix(to, ".partial");
    let failed = |error: io::Error| refused(format!("{}: {error}", partial.display()));
    for leftover in [partial.clone(), with_suffix(&partial, "-journal")] {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    let mut archive = Connection::open_with_flags(&partial, flags(true)).map_err(|error| at(&partial, error))?;
    archive.execute("ATTACH ?1 AS ledger", [path.to_string_lossy()])?;
    archive.execute_batch("CREATE TEMP TABLE staying_orders (id INTEGER PRIMARY KEY); CREATE TEMP TABLE staying_envelopes (id INTEGER PRIMARY KEY)")?;
    let transaction = archive.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(Some("main"), "application_id", APPLICATION_ID)?;
    transaction.pragma_update(Some("main"), "user_version", VERSION)?;
    transaction.execute_batch(TABLES)?;
    // What straddles the cut: its later entries stay, and so does its row.
    let mut statement =
        ledger.prepare("SELECT kind, debit, item FROM entries WHERE id > ?1 AND kind IN (5, 6, 7, 9, 10)")?;
    let mut rows = statement.query([plan.last])?;
    while let Some(row) = rows.next()? {
        let (kind, debit, item): (i64, i64, i64) = row.try_into()?;
        if kind <= Kind::PayOutside.code() {
            transaction.prepare_cached("INSERT OR IGNORE INTO staying_orders VALUES (?1)")?.execute([item])?;
        } else if let Owner::Envelope(envelope) = AccountId(debit).owner() {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO staying_envelopes VALUES (?1)")?
                .execute([i64::try_from(envelope.get()).unwrap_or(i64::MAX)])?;
        }
    }
    drop(rows);
    transaction.execute(
        "INSERT INTO archive VALUES (1, ?1, ?2, ?3, ?4, ?5)",
        [i64::try_from(now).unwrap_or(i64::MAX), plan.first, plan.last, plan.orders_through, plan.envelopes_through],
    )?;
    transaction.execute(
        "INSERT INTO campaigns SELECT id, title, kind, total, seed, settled_at FROM ledger.campaigns WHERE settled_at NOTNULL",
        [],
    )?;
    transaction
        .execute("INSERT INTO main.entries SELECT * FROM ledger.entries WHERE id <= ?1 ORDER BY id", [plan.last])?;
    transaction.execute(
        "INSERT INTO accounts_added SELECT account, sum(fen) FROM
         (SELECT credit AS account, amount_fen AS fen FROM main.entries UNION ALL SELECT debit, -amount_fen FROM main.entries)
         GROUP BY account",
        [],
    )?;
    transaction.execute("INSERT INTO main.notices SELECT entry FROM ledger.notices WHERE entry <= ?1", [plan.last])?;
    transaction.execute(
        "INSERT INTO main.orders SELECT * FROM ledger.orders
         WHERE id <= ?1 AND id NOT IN (SELECT id FROM staying_orders) ORDER BY id",
        [plan.orders_through],
    )?;
    transaction.execute(
        "INSERT INTO main.envelopes SELECT * FROM ledger.envelopes
         WHERE id <= ?1 AND id NOT IN (SELECT id FROM staying_envelopes) ORDER BY id",
        [plan.envelopes_through],
    )?;
    for table in ["closings", "openings"] {
        transaction.execute(
            &format!(
                "INSERT INTO main.{table} SELECT * FROM ledger.{table} WHERE envelope IN (SELECT id FROM main.envelopes)"
            ),
            [],
        )?;
    }
    transaction.commit().map_err(|error| at(&partial, error))?;
    archive.close().map_err(|(_, error)| at(&partial, error))?;
    File::open(&partial).and_then(|file| file.sync_all()).map_err(failed)?;
    if to.exists() {
        return Err(refused(format!("{} exists: an archive is never overwritten", to.display())));
    }
    fs::rename(&partial, to).map_err(failed)?;
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Takes out of the ledger what the archive at `to` holds of it, in one transaction.
fn prune(connection: &mut Connection, to: &Path, report: &mut Archived) -> Result<(), LedgerError> {
    {
        // As it is, or not at all: what is no archive is left alone.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let archive = Connection::open_with_flags(to, flags).map_err(|error| at(to, error))?;
        let read = |pragma| archive.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let is_ours = matches!((read("application_id"), read("user_version")), (Ok(APPLICATION_ID), Ok(VERSION)));
        if !is_ours {
            return Err(refused(format!("{} exists and is no archive of this version", to.display())));
        }
    }
    connection.execute("ATTACH ?1 AS archive", [to.to_string_lossy()]).map_err(|error| at(to, error))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number =
        |statement: &str| -> Result<i64, LedgerError> { Ok(transaction.query_row(statement, [], |row| row.get(0))?) };
    let first = number("SELECT first_entry FROM archive.archive")?;
    let last = number("SELECT last_entry FROM archive.archive")?;
    let archived = number("SELECT archived_through FROM main.progress")?;
    if first != archived + 1 {
        return Err(refused(format!(
            "{} exists and holds entries {first} to {last}; the next to be archived is {}: name another file",
            to.display(),
            archived + 1
        )));
    }
    if number("SELECT accounts_from FROM main.progress")? <= last {
        return Err(corrupt("accounts are behind what is archived"));
    }
    // The archive must be what the ledger says, to the last column.
    for table in ["entries", "orders", "envelopes", "closings", "openings"] {
        let strange =
            number(&format!("SELECT count(*) FROM (SELECT * FROM archive.{table} EXCEPT SELECT * FROM main.{table})"))?;
        if strange > 0 {
            return Err(refused(format!("{}: {strange} {table} are not as the ledger has them", to.display())));
        }
    }
    let held = number("SELECT count(*) FROM archive.entries")?;
    let there = number("SELECT count(*) FROM main.entries WHERE id <= (SELECT last_entry FROM archive.archive)")?;
    if (held, there) != (last - first + 1, last - first + 1) {
        return Err(refused(format!(
            "{} holds {held} entries from {first} to {last}; the ledger has {there} of them",
            to.display()
        )));
    }
    let accounts = number("SELECT count(*) FROM archive.accounts_added")?;
    let updated = transaction.execute(
        "UPDATE main.accounts SET archived = archived + added.fen FROM archive.accounts_added AS added
         WHERE added.id = accounts.id",
        [],
    )?;
    if i64::try_from(updated) != Ok(accounts) {
        return Err(corrupt(format!("{updated} of {accounts} archived accounts are there")));
    }
    // Envelopes are many, and their numbers are never used again: their empty accounts go with
    // them.
    transaction.execute(
        "DELETE FROM main.accounts WHERE balance = 0 AND archived = 0 AND id IN (SELECT ?1 - id FROM archive.envelopes)",
        [AccountId::ENVELOPES],
    )?;
    report.entries = Some((first, last));
    report.orders = number("SELECT count(*) FROM archive.orders")?.unsigned_abs();
    report.envelopes = number("SELECT count(*) FROM archive.envelopes")?.unsigned_abs();
    transaction.execute_batch(
        "DELETE FROM main.notices WHERE entry <= (SELECT last_entry FROM archive.archive);
         DELETE FROM main.entries WHERE id <= (SELECT last_entry FROM archive.archive);
         DELETE FROM main.orders WHERE id IN (SELECT id FROM archive.orders);
         DELETE FROM main.openings WHERE envelope IN (SELECT id FROM archive.envelopes);
         DELETE FROM main.closings WHERE envelope IN (SELECT id FROM archive.envelopes);
         DELETE FROM main.envelopes WHERE id IN (SELECT id FROM archive.envelopes);
         UPDATE main.progress SET archived_through = (SELECT last_entry FROM archive.archive),
             archived_orders = (SELECT orders_through FROM archive.archive),
             archived_envelopes = (SELECT envelopes_through FROM archive.archive);",
    )?;
    transaction.commit()?;
    connection.execute_batch("DETACH archive")?;
    Ok(())
}
