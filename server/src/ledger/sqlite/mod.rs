//! The embedded ledger: one SQLite file, written by one caller.
//!
//! Write-ahead log with `synchronous=FULL`: a commit has reached the disk when it returns. What
//! becomes of a posting is decided by [`Books`] beside the file, which are as of the last commit
//! and never ahead of it: where a batch cannot be written, they undo it.

mod deadline;
mod file;
mod rows;

use std::path::Path;
use std::time::{Duration, Instant};

use hongbao_proto::{CampaignId, EnvelopeId, OrderId, Serial, UserId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use rustc_hash::FxHashMap;

pub(super) use self::deadline::Deadline;
pub(super) use self::file::{LOCK_SUFFIX, at, examine, with_suffix};
pub(super) use self::rows::{Rows, corrupt};
use super::{Answer, EnvelopeView, Ledger, LedgerError, Page, Posting, PostingResult, Question, Totals, schema};
use crate::clock::UnixMs;
use crate::ledger::books::{
    About, Batch, Books, CampaignState, CheckpointRange, Kind, OrdersOf, Restored, Store, Unacknowledged, order_id,
    win_of,
};
use crate::ledger::sqlite::file::{FileLock, create};
use crate::ledger::sqlite::rows::{
    account as read_account, campaign_id, entry as read_entry, order, order_columns, sql, unsigned, user_id,
    words_to_bytes,
};
use crate::market::campaign::{Campaign, CampaignTerms};
use crate::market::order::Order;

/// Pages kept in memory, KiB.
const CACHE_KIB: i64 = 64 * 1024;

/// How long a foreign reader (an audit, a shell) may hold up a commit.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// What [`Ledger::probe`] writes, bytes: enough that success means room for a batch, not for a
/// stray byte.
const PROBE_BYTES: u32 = 256 * 1024;

/// Entries in whose course the rows of all accounts that are behind are written about once: a
/// sweep. The longer it takes, the more of neighbouring accounts are written together, and the more
/// entries there are to add up again after a crash: those of two sweeps, of which the first ones,
/// with few accounts behind, are slower; four times this at most. (A sweep that outran the entries
/// would write each account by itself, in random order.)
const SWEEP_ENTRIES: usize = 512 * 1024;

/// Accounts' rows that a checkpoint writes in one transaction: some 50 ms between two looks at the
/// clock.
const CHECKPOINT_STEP: usize = 32 * 1024;

/// The write-ahead log is cut to this when it begins anew, bytes: a reader elsewhere keeps it
/// growing while it reads.
const LOG_BYTES_KEPT: i64 = 16 * 1024 * 1024;

pub struct SqliteLedger {
    // Closed before the lock below is let go: fields are dropped in order.
    connection: Connection,
    books: Books,
    sweep_entries: usize,
    _lock: Option<FileLock>,
}

impl SqliteLedger {
    /// Opens the ledger at `path`, creating it if there is no file. A second server on the same
    /// file is refused.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        let path = path.as_ref();
        let lock = FileLock::take(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| at(path, error))?;
        Self::from_connection(connection, path, Some(lock))
    }

    /// A ledger that is gone when it is dropped: for tests.
    pub fn open_in_memory() -> Result<Self, LedgerError> {
        Self::from_connection(Connection::open_in_memory()?, Path::new(":memory:"), None)
    }

    /// Lets the file grow to so many pages at most: how tests fill a disk.
    #[doc(hidden)]
    pub fn limit_pages(&mut self, pages: u32) -> Result<(), LedgerError> {
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        Ok(())
    }

    /// Another pace than [`SWEEP_ENTRIES`]: how tests see many sweeps.
    #[doc(hidden)]
    pub fn sweep_in(&mut self, entries: usize) {
        self.sweep_entries = entries.max(1);
    }

    fn from_connection(mut connection: Connection, path: &Path, lock: Option<FileLock>) -> Result<Self, LedgerError> {
        connection.busy_timeout(BUSY_PATIENCE)?;
        connection.set_prepared_statement_cache_capacity(64);
        // Nothing is written before we know that the file is ours.
        let empty = examine(&connection, path)?;
        if empty {
            connection.pragma_update(None, "page_size", schema::PAGE_BYTES).map_err(|error| at(path, error))?;
        }
        connection.pragma_update(None, "journal_mode", "WAL").map_err(|error| at(path, error))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        if empty {
            create(&mut connection).map_err(|error| at(path, error))?;
        }
        let books = restore(&Rows(&connection))?;
        Ok(Self { connection, books, sweep_entries: SWEEP_ENTRIES, _lock: lock })
    }

    /// Runs one transaction: what `act` decides is durable once this returns `Ok`, and has not
    /// happened otherwise.
    fn transact<R>(
        &mut self,
        now: UnixMs,
        act: impl FnOnce(&mut Batch<'_, Rows<'_>>) -> Result<R, LedgerError>,
    ) -> Result<R, LedgerError> {
        let (books, sweep_entries) = (&mut self.books, self.sweep_entries);
        let attempt = || -> Result<(R, CheckpointRange), LedgerError> {
            // Dropping the transaction on the way out of an error rolls it back.
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut rows = Rows(&transaction);
            let result = act(&mut Batch { books, store: &mut rows, now })?;
            let range = close(books, &rows, sweep_entries)?;
            transaction.commit()?;
            Ok((result, range))
        };
        match attempt() {
            Ok((result, range)) => {
                self.books.accounts_written(&range);
                self.books.keep();
                Ok(result)
            }
            Err(error) => {
                self.books.undo();
                Err(error)
            }
        }
    }

    /// Writes rows of accounts that are behind, at most `max`. Whether that ends a sweep.
    fn write_accounts_behind(&mut self, max: usize) -> Result<bool, LedgerError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let range = self.books.accounts_to_write(max);
        write_accounts(&Rows(&transaction), &range)?;
        transaction.commit()?;
        self.books.accounts_written(&range);
        Ok(range.complete_from.is_some())
    }

    /// Moves the write-ahead log into the file. Whether there was time for it by `until`; a reader
    /// elsewhere may hold part of it up, which loses nothing.
    fn fold_log(&self, until: Option<Instant>) -> Result<bool, LedgerError> {
        let left = until.map_or(BUSY_PATIENCE, |until| until.saturating_duration_since(Instant::now()));
        self.connection.busy_timeout(left.min(BUSY_PATIENCE))?;
        let deadline = Deadline::arm(&self.connection, until);
        let folded = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(true));
        let is_over = deadline.is_over();
        drop(deadline);
        self.connection.busy_timeout(BUSY_PATIENCE)?;
        match folded {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) && is_over => Ok(false),
            folded => Ok(folded?),
        }
    }

    fn known(&self, id: CampaignId) -> Result<&CampaignState, LedgerError> {
        self.books.campaigns().get(&id).ok_or(LedgerError::NoSuchCampaign(id))
    }
}

impl Ledger for SqliteLedger {
    fn post(&mut self, postings: &[Posting], now: UnixMs) -> Result<Vec<PostingResult>, LedgerError> {
        if postings.is_empty() {
            return Ok(Vec::new());
        }
        self.transact(now, |batch| postings.iter().map(|posting| batch.post(posting)).collect())
    }

    fn ask(&mut self, user: UserId, question: &Question) -> Result<Answer, LedgerError> {
        self.books.ask(user, *question, &Rows(&self.connection))
    }

    fn create_campaign(&mut self, terms: CampaignTerms, now: UnixMs) -> Result<Campaign, LedgerError> {
        let state = self.transact(now, |batch| batch.create_campaign(terms))?;
        self.books.install(state.clone());
        Ok(state.campaign)
    }

    fn stop_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        let mut state = self.known(id)?.clone();
        if state.campaign.stopped_at.is_none() {
            let stop = "UPDATE campaigns SET stopped_at = ?2 WHERE id = ?1";
            Rows(&self.connection).write(stop, params![id.get(), sql(now)?])?;
            state.campaign.stopped_at = Some(now);
            self.books.install(state.clone());
        }
        Ok(state.campaign)
    }

    fn settle_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        let mut state = self.known(id)?.clone();
        if state.campaign.settlement.is_none() {
            let settlement = self.transact(now, |batch| batch.settle_campaign(id))?;
            state.campaign.settlement = Some(settlement);
            self.books.install(state.clone());
        }
        Ok(state.campaign)
    }

    fn campaigns(&mut self) -> Result<Vec<Campaign>, LedgerError> {
        Ok(self.books.campaigns().values().map(|state| state.campaign.clone()).collect())
    }

    fn claimed_serials(&mut self, id: CampaignId) -> Result<Vec<Serial>, LedgerError> {
        Ok(self.known(id)?.units.taken().collect())
    }

    fn next_due(&mut self) -> Option<UnixMs> {
        self.books.next_due()
    }

    fn envelope(&mut self, id: EnvelopeId) -> Result<Option<EnvelopeView>, LedgerError> {
        Ok(self.books.find_envelope(id, &Rows(&self.connection))?.map(|envelope| envelope.view()))
    }

    fn orders_of(&mut self, id: CampaignId, before: Option<OrderId>, limit: u32) -> Result<Page<Order>, LedgerError> {
        self.known(id)?;
        Rows(&self.connection).orders(OrdersOf::Campaign(id), before, limit)
    }

    fn totals(&mut self) -> Result<Totals, LedgerError> {
        Ok(self.books.totals())
    }

    fn probe(&mut self, now: UnixMs) -> Result<(), LedgerError> {
        Rows(&self.connection).write(
            "INSERT INTO probes (id, at_ms, ballast) VALUES (1, ?1, zeroblob(?2))
             ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms, ballast = excluded.ballast",
            params![sql(now)?, PROBE_BYTES],
        )
    }

    fn checkpoint(&mut self, until: Option<Instant>) -> Result<bool, LedgerError> {
        let is_over = || until.is_some_and(|until| Instant::now() >= until);
        // A sweep may have begun long ago: the second one begins now.
        let mut sweeps = 0;
        while sweeps < 2 && !is_over() {
            sweeps += usize::from(self.write_accounts_behind(CHECKPOINT_STEP)?);
        }
        let is_whole = sweeps == 2 && !is_over() && self.fold_log(until)?;
        if !is_whole {
            // Closing would fold the log, however long that takes; the next start reads it.
            self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        }
        Ok(is_whole)
    }
}

/// Writes the rows that a batch touches once, at its end, and a range of the accounts that are
/// behind.
fn close(books: &Books, rows: &Rows<'_>, sweep_entries: usize) -> Result<CheckpointRange, LedgerError> {
    let dirty = books.dirty();
    for id in &dirty.campaigns {
        let Some(state) = books.campaigns().get(id) else { continue };
        let Campaign { won, paid, reserved, .. } = state.campaign;
        rows.write(
            "UPDATE campaigns SET won = ?2, paid = ?3, reserved = ?4 WHERE id = ?1",
            params![id.get(), sql(won)?, sql(paid.0)?, sql(reserved)?],
        )?;
    }
    for (id, chunk) in &dirty.chunks {
        let Some(state) = books.campaigns().get(id) else { continue };
        rows.write(
            "INSERT INTO units (campaign, chunk, bits) VALUES (?1, ?2, ?3)
             ON CONFLICT (campaign, chunk) DO UPDATE SET bits = excluded.bits",
            params![id.get(), sql(*chunk)?, state.units.chunk(*chunk)],
        )?;
    }
    for id in &dirty.acknowledged {
        // One that was closed by the same batch has no bits any more.
        let Some(envelope) = books.envelope(*id).filter(|envelope| envelope.closed.is_none()) else { continue };
        let bits = words_to_bytes(&envelope.acknowledged);
        rows.write("UPDATE open_envelopes SET told = ?2 WHERE envelope = ?1", params![sql(id.get())?, bits])?;
    }
    let posted = usize::try_from(books.entries_posted()).unwrap_or(0);
    let due = (posted * books.accounts_behind()).div_ceil(sweep_entries);
    let range = books.accounts_to_write(due.max(1));
    write_accounts(rows, &range)?;
    Ok(range)
}

fn write_accounts(rows: &Rows<'_>, range: &CheckpointRange) -> Result<(), LedgerError> {
    let mut statement = rows.0.prepare_cached(
        "INSERT INTO accounts (id, balance, last_entry, last_claim) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE SET balance = excluded.balance, last_entry = excluded.last_entry,
         last_claim = excluded.last_claim",
    )?;
    for (id, account) in &range.accounts {
        statement.execute([id.0, account.balance, account.last_entry, sql(account.last_claim)?])?;
    }
    match range.complete_from {
        Some(from) => rows.write("UPDATE progress SET accounts_from = ?1 WHERE id = 1", [from]),
        None => Ok(()),
    }
}

/// Reads the books from the rows, and adds up the entries that accounts do not contain yet.
fn restore(rows: &Rows<'_>) -> Result<Books, LedgerError> {
    let highest = |table: &str| -> Result<i64, LedgerError> {
        Ok(rows.0.query_row(&format!("SELECT ifnull(max(id), 0) FROM {table}"), [], |row| row.get(0))?)
    };
    // What was archived is not there any more; its numbers are never used again.
    let archived = "SELECT archived_through, archived_orders, archived_envelopes FROM progress";
    let (last_entry, last_order, last_envelope): (i64, i64, i64) =
        rows.0.query_row(archived, [], |row| row.try_into())?;
    let mut restored = Restored {
        last_entry: highest("entries")?.max(last_entry),
        last_order: unsigned(highest("orders")?.max(last_order))?,
        last_envelope: unsigned(highest("envelopes")?.max(last_envelope))?,
        campaigns: rows.campaigns()?.into_iter().map(|state| (state.campaign.id, state)).collect(),
        envelopes: rows.open_envelopes()?,
        orders: rows.all(concat!("SELECT ", order_columns!(), " FROM orders WHERE state = 1"), order)?,
        opened: rows.opened()?,
        ..Restored::default()
    };
    rows.each("SELECT campaign, chunk, bits FROM units", |row| {
        let (campaign, chunk) = (campaign_id(row.get(0)?)?, unsigned(row.get(1)?)?);
        let state = restored.campaigns.get_mut(&campaign).ok_or_else(|| corrupt("units of no campaign"))?;
        let bits = row.get_ref(2)?.as_blob().map_err(|error| corrupt(error.to_string()))?;
        let within = chunk <= crate::limits::CAMPAIGN_TOTAL_MAX / crate::ledger::books::CHUNK_SERIALS;
        if within && state.units.load(chunk, bits) { Ok(()) } else { Err(corrupt(format!("chunk {chunk} of units"))) }
    })?;
    let accounts: i64 = rows.0.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0))?;
    restored.accounts = FxHashMap::with_capacity_and_hasher(usize::try_from(accounts).unwrap_or(0), Default::default());
    rows.each("SELECT id, balance, last_entry, last_claim FROM accounts", |row| {
        let (id, account) = read_account(row)?;
        restored.accounts.insert(id, account);
        Ok(())
    })?;
    // One statement for all: there may be millions.
    rows.each(
        "SELECT entry, at_ms, kind, debit, credit, amount_fen, item, request, previous, id
         FROM notices LEFT JOIN entries ON entries.id = entry ORDER BY entry",
        |row| {
            let id: i64 = row.get(0)?;
            if row.get::<_, Option<i64>>(9)?.is_none() {
                return Err(corrupt(format!("a notice of entry {id}, which is not there")));
            }
            let entry = read_entry(row)?;
            let about = match entry.kind {
                Kind::Win => About::Win(win_of(&entry).ok_or_else(|| corrupt(format!("entry {id} is no win")))?),
                _ => About::Order(order_id(entry.item)?),
            };
            let user = match (entry.user_account(), about) {
                (Some(account), _) => user_id(account.0)?,
                // Paid from outside: the entry names no user.
                (None, About::Order(order)) => {
                    rows.order(order)?.ok_or_else(|| corrupt(format!("order {order} is missing")))?.user
                }
                (None, About::Win(_)) => return Err(corrupt(format!("entry {id} is nobody's"))),
            };
            restored.notices.entry(user).or_default().push(Unacknowledged { entry: id, about });
            Ok(())
        },
    )?;
    let mut books = Books::restore(restored);
    rows.each(
        "SELECT id, at_ms, kind, debit, credit, amount_fen, item, request, previous FROM entries
         WHERE id >= (SELECT accounts_from FROM progress) ORDER BY id",
        |row| {
            books.replay(&read_entry(row)?);
            Ok(())
        },
    )?;
    Ok(books)
}
