//! The embedded ledger: one SQLite file, written by one caller.
//!
//! Write-ahead log with `synchronous=FULL`: a commit has reached the disk when it returns. What the hot path asks often is
//! kept in memory beside the file, as of the last commit and never ahead of it: the campaigns, the sums, and the set of users
//! who ever won.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hongbao_proto::{CampaignId, Fen, RequestId, Serial, UserId};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use rustc_hash::{FxHashMap, FxHashSet};

use super::schema::{self, kind};
use super::{Claim, Ledger, LedgerError, Outcome, Posting, Recall, Refusal, Totals, Win};
use crate::campaign::{Amounts, Campaign, CampaignKind, CampaignTerms, Seed, Settlement, UnixMs};
use crate::limits::RECALLED_WINS_MAX;

/// Pages kept in memory, KiB. Holds the two trees in random order for about a million users and wins.
const CACHE_KIB: i64 = 64 * 1024;

/// How long a foreign reader (an audit, a shell) may hold up a commit.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);

/// What [`Ledger::probe`] writes, bytes: enough that success means room for a batch, not for a stray byte.
const PROBE_BYTES: u32 = 256 * 1024;

/// The ledger in one SQLite file.
pub struct SqliteLedger {
    // Closed before the lock below is let go: fields are dropped in order.
    connection: Connection,
    /// As of the last commit, as all that follows.
    campaigns: BTreeMap<CampaignId, Campaign>,
    /// Users who ever won. Most who log in never did: this answers them in 20 ns, without a system call (the index takes
    /// 14 µs at a million wins). 9 to 18 bytes for each winner.
    winners: FxHashSet<UserId>,
    totals: Totals,
    next_transfer: i64,
    _lock: Option<FileLock>,
}

impl SqliteLedger {
    /// Opens the ledger at `path`, creating it if there is no file. A second server on the same file is refused.
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
        connection.pragma_update(None, "foreign_keys", false)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        if empty {
            create(&mut connection).map_err(|error| at(path, error))?;
        }

        let campaigns = read_campaigns(&connection)?;
        let mut totals = Totals::default();
        for campaign in campaigns.values() {
            totals.won += campaign.won;
            totals.paid = totals.paid.checked_add(campaign.paid).ok_or_else(|| corrupt("sums overflow"))?;
        }
        let mut winners = FxHashSet::default();
        let mut statement = connection.prepare("SELECT id FROM accounts WHERE id > 0")?;
        for id in statement.query_map([], |row| row.get(0))? {
            winners.insert(user_id(id?)?);
        }
        drop(statement);
        let next_transfer =
            connection.query_row("SELECT ifnull(max(id), 0) + 1 FROM transfers", [], |row| row.get(0))?;
        Ok(Self { connection, campaigns, winners, totals, next_transfer, _lock: lock })
    }

    fn known(&self, id: CampaignId) -> Result<&Campaign, LedgerError> {
        self.campaigns.get(&id).ok_or(LedgerError::NoSuchCampaign(id))
    }

    fn known_mut(&mut self, id: CampaignId) -> Result<&mut Campaign, LedgerError> {
        self.campaigns.get_mut(&id).ok_or(LedgerError::NoSuchCampaign(id))
    }

    fn begin(&mut self) -> Result<Transaction<'_>, LedgerError> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

impl Ledger for SqliteLedger {
    fn post(&mut self, postings: &[Posting], now: UnixMs) -> Result<Vec<Outcome>, LedgerError> {
        if postings.is_empty() {
            return Ok(Vec::new());
        }
        // Dropping the transaction on the way out of an error rolls it back.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch {
            transaction: &transaction,
            campaigns: &self.campaigns,
            winners: &self.winners,
            now: sql(now)?,
            next_transfer: self.next_transfer,
            new_winners: FxHashSet::default(),
            credits: FxHashMap::default(),
            sold: BTreeMap::new(),
        };
        let mut outcomes = Vec::with_capacity(postings.len());
        for posting in postings {
            outcomes.push(match posting {
                Posting::Claim(claim) => batch.claim(claim)?,
                Posting::Acknowledge { user, prizes } => batch.acknowledge(*user, prizes)?,
            });
        }
        batch.close()?;
        let Batch { next_transfer, new_winners, sold, .. } = batch;
        transaction.commit()?;

        self.next_transfer = next_transfer;
        self.winners.extend(new_winners);
        for (id, Sold { won, paid }) in sold {
            if let Some(campaign) = self.campaigns.get_mut(&id) {
                campaign.won += won;
                campaign.paid.0 += paid;
                self.totals.won += won;
                self.totals.paid.0 += paid;
            }
        }
        Ok(outcomes)
    }

    fn first_answer(&mut self, user: UserId, request: RequestId) -> Result<Option<Win>, LedgerError> {
        if !self.winners.contains(&user) {
            return Ok(None);
        }
        first_answer(&self.connection, user, request)
    }

    fn recall(&mut self, user: UserId) -> Result<Recall, LedgerError> {
        if !self.winners.contains(&user) {
            return Ok(Recall::default());
        }
        let account = account(user)?;
        let last_request: Option<i64> = self
            .connection
            .prepare_cached("SELECT max(request) FROM wins WHERE user = ?1")?
            .query_row([account], |row| row.get(0))?;
        let mut statement = self.connection.prepare_cached(
            "SELECT campaign, serial, amount_fen, request FROM wins
             WHERE user = ?1 AND acknowledged = 0 ORDER BY transfer LIMIT ?2",
        )?;
        let limit = i64::try_from(RECALLED_WINS_MAX).map_err(|_| corrupt("limit"))?;
        let mut rows = statement.query([account, limit])?;
        let mut unacknowledged = Vec::new();
        while let Some(row) = rows.next()? {
            unacknowledged.push(win(row)?);
        }
        Ok(Recall { unacknowledged, last_request: last_request.map(request_id).transpose()? })
    }

    fn create_campaign(&mut self, terms: CampaignTerms, now: UnixMs) -> Result<Campaign, LedgerError> {
        terms.check().map_err(LedgerError::BadTerms)?;
        let total_amount = sql(terms.total_amount().0)?;
        let number = self.campaigns.last_key_value().map_or(0, |(id, _)| id.get()).checked_add(1);
        let id = number
            .and_then(|number| CampaignId::new(number.into()).ok())
            .ok_or_else(|| LedgerError::BadTerms("there are no campaign numbers left".to_owned()))?;
        let transfer = self.next_transfer;

        let transaction = self.begin()?;
        let treasury = balance(&transaction, schema::TREASURY)?;
        if treasury.checked_sub(total_amount).is_none() {
            return Err(LedgerError::BadTerms("all campaigns together exceed what the books can hold".to_owned()));
        }
        transaction
            .prepare_cached(
                "INSERT INTO campaigns (id, created_at, title, kind, total, rate_per_second, amount_min, amount_max, seed,
                 starts_at, ends_at, per_user_limit, total_amount) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
            )?
            .execute(params![
                id.get(),
                sql(now)?,
                terms.title,
                match terms.kind {
                    CampaignKind::Rain => kind::RAIN,
                },
                sql(terms.total)?,
                terms.rate_per_second,
                sql(terms.amounts.min.0)?,
                sql(terms.amounts.max.0)?,
                terms.seed.0,
                sql(terms.starts_at)?,
                terms.ends_at.map(sql).transpose()?,
                terms.per_user_limit,
                total_amount,
            ])?;
        let fund = schema::campaign_account(id);
        transaction
            .prepare_cached("INSERT INTO accounts (id, kind, balance) VALUES (?1, ?2, 0)")?
            .execute([fund, kind::CAMPAIGN])?;
        move_money(&transaction, transfer, now, (schema::TREASURY, fund), total_amount, kind::FUND)?;
        transaction.commit()?;

        self.next_transfer = transfer + 1;
        let campaign =
            Campaign { id, created_at: now, terms, stopped_at: None, settlement: None, won: 0, paid: Fen::ZERO };
        self.campaigns.insert(id, campaign.clone());
        Ok(campaign)
    }

    fn stop_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        let campaign = self.known(id)?;
        if campaign.stopped_at.is_some() {
            return Ok(campaign.clone());
        }
        let stopped_at = sql(now)?;
        let updated = self
            .connection
            .prepare_cached("UPDATE campaigns SET stopped_at = ?2 WHERE id = ?1")?
            .execute(params![id.get(), stopped_at])?;
        one_row(updated, "stopped campaign")?;
        let campaign = self.known_mut(id)?;
        campaign.stopped_at = Some(now);
        Ok(campaign.clone())
    }

    fn settle_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        let campaign = self.known(id)?;
        if campaign.settlement.is_some() {
            return Ok(campaign.clone());
        }
        let transfer = self.next_transfer;
        let fund = schema::campaign_account(id);
        let transaction = self.begin()?;
        let left = balance(&transaction, fund)?;
        let refunded = Fen(unsigned(left)?);
        if left > 0 {
            move_money(&transaction, transfer, now, (fund, schema::REFUNDS), left, kind::REFUND)?;
        }
        let updated = transaction
            .prepare_cached("UPDATE campaigns SET settled_at = ?2, refunded = ?3 WHERE id = ?1")?
            .execute(params![id.get(), sql(now)?, left])?;
        one_row(updated, "settled campaign")?;
        transaction.commit()?;

        self.next_transfer = transfer + 1;
        let campaign = self.known_mut(id)?;
        campaign.settlement = Some(Settlement { settled_at: now, refunded });
        Ok(campaign.clone())
    }

    fn campaigns(&mut self) -> Result<Vec<Campaign>, LedgerError> {
        Ok(self.campaigns.values().cloned().collect())
    }

    fn claimed_serials(&mut self, id: CampaignId) -> Result<Vec<Serial>, LedgerError> {
        self.known(id)?;
        let mut statement =
            self.connection.prepare_cached("SELECT serial FROM wins WHERE campaign = ?1 ORDER BY serial")?;
        let mut rows = statement.query([id.get()])?;
        let mut serials = Vec::new();
        while let Some(row) = rows.next()? {
            serials.push(Serial(unsigned(row.get(0)?)?));
        }
        Ok(serials)
    }

    fn totals(&mut self) -> Result<Totals, LedgerError> {
        Ok(self.totals)
    }

    fn probe(&mut self, now: UnixMs) -> Result<(), LedgerError> {
        self.connection
            .prepare_cached(
                "INSERT INTO probes (id, at_ms, ballast) VALUES (1, ?1, zeroblob(?2))
                 ON CONFLICT (id) DO UPDATE SET at_ms = excluded.at_ms, ballast = excluded.ballast",
            )?
            .execute(params![sql(now)?, PROBE_BYTES])?;
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), LedgerError> {
        // (busy, pages in the log, pages folded into the file): a reader elsewhere makes it busy, which loses nothing.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }
}

/// What a batch has won of one campaign.
#[derive(Default)]
struct Sold {
    won: u64,
    paid: u64,
}

/// One transaction of postings. Each is applied before the next, so that what a batch says twice meets itself in the tables;
/// only balances and sums, which no posting reads, are gathered and written once per account at the end.
struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    campaigns: &'a BTreeMap<CampaignId, Campaign>,
    winners: &'a FxHashSet<UserId>,
    now: i64,
    next_transfer: i64,
    new_winners: FxHashSet<UserId>,
    /// By account: what the batch's winners get.
    credits: FxHashMap<i64, i64>,
    sold: BTreeMap<CampaignId, Sold>,
}

impl Batch<'_> {
    fn claim(&mut self, claim: &Claim) -> Result<Outcome, LedgerError> {
        if let Err(refusal) = self.check(claim) {
            // Even then, a repeat gets its first answer.
            return Ok(self.first_answer(claim)?.map_or(Outcome::Refused(refusal), Outcome::Repeated));
        }
        if let Some(limit) = self.limit_reached(claim)? {
            // "Unclaimed" must be true of the serial, or it would be issued again.
            return Ok(match self.first_answer(claim)? {
                Some(win) => Outcome::Repeated(win),
                None if self.taken(claim)? => Outcome::Taken,
                None => Outcome::LimitReached { limit },
            });
        }
        let user = account(claim.user)?;
        let (serial, amount, request) = (sql(claim.serial.0)?, sql(claim.amount.0)?, sql(claim.request.get())?);
        // The insert is the question: a conflict on either unique key changes nothing.
        let inserted = self
            .transaction
            .prepare_cached(
                "INSERT INTO wins (campaign, serial, user, request, amount_fen, transfer) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![claim.campaign.get(), serial, user, request, amount, self.next_transfer])?;
        if inserted == 0 {
            return Ok(self.first_answer(claim)?.map_or(Outcome::Taken, Outcome::Repeated));
        }
        self.transaction
            .prepare_cached(
                "INSERT INTO transfers (id, at_ms, debit, credit, amount_fen, kind, serial, request)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute([
                self.next_transfer,
                self.now,
                schema::campaign_account(claim.campaign),
                user,
                amount,
                kind::WIN,
                serial,
                request,
            ])?;
        self.next_transfer += 1;
        let credit = self.credits.entry(user).or_default();
        *credit = credit.checked_add(amount).ok_or_else(|| corrupt("a user's wins overflow"))?;
        let sold = self.sold.entry(claim.campaign).or_default();
        sold.won += 1;
        sold.paid = sold.paid.checked_add(claim.amount.0).ok_or_else(|| corrupt("a campaign's wins overflow"))?;
        if !self.winners.contains(&claim.user) {
            self.new_winners.insert(claim.user);
        }
        Ok(Outcome::Won(win_of(claim)))
    }

    fn check(&self, claim: &Claim) -> Result<(), Refusal> {
        let campaign = self.campaigns.get(&claim.campaign).ok_or(Refusal::NoSuchCampaign)?;
        if campaign.settlement.is_some() {
            Err(Refusal::Settled)
        } else if claim.serial.0 >= campaign.terms.total {
            Err(Refusal::NoSuchSerial)
        } else if claim.amount != campaign.terms.amount(claim.serial) {
            Err(Refusal::WrongAmount)
        } else {
            Ok(())
        }
    }

    /// The limit, if the user already holds as many prizes of the campaign.
    fn limit_reached(&self, claim: &Claim) -> Result<Option<u32>, LedgerError> {
        let Some(limit) = self.campaigns.get(&claim.campaign).and_then(|campaign| campaign.terms.per_user_limit) else {
            return Ok(None);
        };
        if !self.has_won(claim.user) {
            return Ok(None);
        }
        let held: i64 = self
            .transaction
            .prepare_cached("SELECT count(*) FROM wins INDEXED BY wins_by_request WHERE user = ?1 AND campaign = ?2")?
            .query_row(params![account(claim.user)?, claim.campaign.get()], |row| row.get(0))?;
        Ok((held >= i64::from(limit)).then_some(limit))
    }

    fn has_won(&self, user: UserId) -> bool {
        self.winners.contains(&user) || self.new_winners.contains(&user)
    }

    fn first_answer(&self, claim: &Claim) -> Result<Option<Win>, LedgerError> {
        if !self.has_won(claim.user) {
            return Ok(None);
        }
        first_answer(self.transaction, claim.user, claim.request)
    }

    fn taken(&self, claim: &Claim) -> Result<bool, LedgerError> {
        Ok(self
            .transaction
            .prepare_cached("SELECT 1 FROM wins WHERE campaign = ?1 AND serial = ?2")?
            .exists(params![claim.campaign.get(), sql(claim.serial.0)?])?)
    }

    fn acknowledge(&mut self, user: UserId, prizes: &[(CampaignId, Serial)]) -> Result<Outcome, LedgerError> {
        if !self.has_won(user) {
            return Ok(Outcome::Acknowledged { count: 0 });
        }
        let user = account(user)?;
        let mut prizes = prizes.to_vec();
        prizes.sort_unstable();
        prizes.dedup();
        let mut count = 0;
        for (campaign, serial) in prizes {
            // A serial beyond SQL's integers is nobody's.
            let Ok(serial) = sql(serial.0) else { continue };
            let key = params![campaign.get(), serial, user];
            let acknowledged: Option<bool> = self
                .transaction
                .prepare_cached("SELECT acknowledged FROM wins WHERE campaign = ?1 AND serial = ?2 AND user = ?3")?
                .query_row(key, |row| row.get(0))
                .optional()?;
            match acknowledged {
                None => continue,
                Some(true) => {}
                Some(false) => {
                    let updated = self
                        .transaction
                        .prepare_cached(
                            "UPDATE wins SET acknowledged = 1 WHERE campaign = ?1 AND serial = ?2 AND user = ?3",
                        )?
                        .execute(key)?;
                    one_row(updated, "acknowledged win")?;
                }
            }
            count += 1;
        }
        Ok(Outcome::Acknowledged { count })
    }

    /// Writes the balances and sums: once per account and batch.
    fn close(&mut self) -> Result<(), LedgerError> {
        let mut credits: Vec<(i64, i64)> = self.credits.drain().collect();
        // Neighbours share pages, which then are found hot.
        credits.sort_unstable();
        let mut statement = self.transaction.prepare_cached(
            "INSERT INTO accounts (id, kind, balance) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE SET balance = balance + excluded.balance",
        )?;
        for (account, amount) in credits {
            statement.execute([account, kind::USER, amount])?;
        }
        for (id, Sold { won, paid }) in &self.sold {
            let (won, paid) = (sql(*won)?, sql(*paid)?);
            let updated = self
                .transaction
                .prepare_cached("UPDATE campaigns SET won = won + ?2, paid = paid + ?3 WHERE id = ?1")?
                .execute(params![id.get(), won, paid])?;
            one_row(updated, "campaign")?;
            add_to_balance(self.transaction, schema::campaign_account(*id), -paid)?;
        }
        Ok(())
    }
}

fn win_of(claim: &Claim) -> Win {
    Win { campaign: claim.campaign, serial: claim.serial, amount: claim.amount, request: claim.request }
}

fn first_answer(connection: &Connection, user: UserId, request: RequestId) -> Result<Option<Win>, LedgerError> {
    let mut statement = connection
        .prepare_cached("SELECT campaign, serial, amount_fen, request FROM wins WHERE user = ?1 AND request = ?2")?;
    let mut rows = statement.query([account(user)?, sql(request.get())?])?;
    rows.next()?.map(win).transpose()
}

/// A row of (campaign, serial, amount_fen, request).
fn win(row: &Row<'_>) -> Result<Win, LedgerError> {
    Ok(Win {
        campaign: campaign_id(row.get(0)?)?,
        serial: Serial(unsigned(row.get(1)?)?),
        amount: Fen(unsigned(row.get(2)?)?),
        request: request_id(row.get(3)?)?,
    })
}

fn balance(transaction: &Transaction<'_>, account: i64) -> Result<i64, LedgerError> {
    transaction
        .prepare_cached("SELECT balance FROM accounts WHERE id = ?1")?
        .query_row([account], |row| row.get(0))
        .optional()?
        .ok_or_else(|| corrupt(format!("account {account} is missing")))
}

fn add_to_balance(transaction: &Transaction<'_>, account: i64, amount: i64) -> Result<(), LedgerError> {
    let updated = transaction
        .prepare_cached("UPDATE accounts SET balance = balance + ?2 WHERE id = ?1")?
        .execute([account, amount])?;
    one_row(updated, "account")
}

/// One transfer with both balances, outside of batches.
fn move_money(
    transaction: &Transaction<'_>,
    id: i64,
    now: UnixMs,
    (debit, credit): (i64, i64),
    amount: i64,
    kind: i64,
) -> Result<(), LedgerError> {
    transaction
        .prepare_cached(
            "INSERT INTO transfers (id, at_ms, debit, credit, amount_fen, kind) VALUES (?1,?2,?3,?4,?5,?6)",
        )?
        .execute([id, sql(now)?, debit, credit, amount, kind])?;
    add_to_balance(transaction, debit, -amount)?;
    add_to_balance(transaction, credit, amount)
}

fn one_row(updated: usize, what: &str) -> Result<(), LedgerError> {
    if updated == 1 { Ok(()) } else { Err(corrupt(format!("{updated} rows where one {what} was expected"))) }
}

/// Whether the file is an empty one that we may make a ledger of. A ledger of this version: no. Anything else: an error.
pub(super) fn examine(connection: &Connection, path: &Path) -> Result<bool, LedgerError> {
    let foreign = |why: String| LedgerError::Foreign { path: path.display().to_string(), why };
    let read = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let application_id = match read("application_id") {
        Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::NotADatabase => {
            return Err(foreign("it is not an SQLite file".to_owned()));
        }
        other => other.map_err(|error| at(path, error))?,
    };
    let version = read("user_version")?;
    if application_id != schema::APPLICATION_ID {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        return if (application_id, version, tables) == (0, 0, 0) {
            Ok(true)
        } else {
            Err(foreign(format!("its application id is {application_id}, a ledger's is {}", schema::APPLICATION_ID)))
        };
    }
    if version > schema::VERSION {
        return Err(LedgerError::TooNew { path: path.display().to_string(), found: version, known: schema::VERSION });
    }
    if version < schema::VERSION {
        return Err(corrupt(format!("schema version {version} was never released")));
    }
    Ok(false)
}

/// All or nothing: a crash in the middle leaves an empty file, which the next start takes for new.
fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", schema::VERSION)?;
    transaction.execute_batch(schema::TABLES)?;
    for [id, kind] in [[schema::TREASURY, kind::TREASURY], [schema::REFUNDS, kind::REFUNDS]] {
        transaction.execute("INSERT INTO accounts (id, kind, balance) VALUES (?1, ?2, 0)", [id, kind])?;
    }
    transaction.commit()
}

pub(super) fn read_campaigns(connection: &Connection) -> Result<BTreeMap<CampaignId, Campaign>, LedgerError> {
    let mut statement = connection.prepare(
        "SELECT id, created_at, title, kind, total, rate_per_second, amount_min, amount_max, seed, starts_at, ends_at,
         per_user_limit, stopped_at, settled_at, refunded, won, paid FROM campaigns",
    )?;
    let mut rows = statement.query([])?;
    let mut campaigns = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let campaign = campaign(row)?;
        campaigns.insert(campaign.id, campaign);
    }
    Ok(campaigns)
}

fn campaign(row: &Row<'_>) -> Result<Campaign, LedgerError> {
    let number = |column: &str| -> Result<u64, LedgerError> { unsigned(row.get(column)?) };
    let optional = |column: &str| -> Result<Option<u64>, LedgerError> {
        row.get::<_, Option<i64>>(column)?.map(unsigned).transpose()
    };
    let kind = match row.get("kind")? {
        kind::RAIN => CampaignKind::Rain,
        other => return Err(corrupt(format!("unknown kind of campaign {other}"))),
    };
    let refunded = Fen(number("refunded")?);
    Ok(Campaign {
        id: campaign_id(row.get("id")?)?,
        created_at: number("created_at")?,
        terms: CampaignTerms {
            title: row.get("title")?,
            kind,
            total: number("total")?,
            rate_per_second: row.get("rate_per_second")?,
            amounts: Amounts { min: Fen(number("amount_min")?), max: Fen(number("amount_max")?) },
            seed: Seed(row.get("seed")?),
            starts_at: number("starts_at")?,
            ends_at: optional("ends_at")?,
            per_user_limit: row.get("per_user_limit")?,
        },
        stopped_at: optional("stopped_at")?,
        settlement: optional("settled_at")?.map(|settled_at| Settlement { settled_at, refunded }),
        won: number("won")?,
        paid: Fen(number("paid")?),
    })
}

fn corrupt(what: impl Into<String>) -> LedgerError {
    LedgerError::Corrupt(what.into())
}

fn sql(value: u64) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| corrupt(format!("{value} is beyond SQL's integers")))
}

fn unsigned(value: i64) -> Result<u64, LedgerError> {
    u64::try_from(value).map_err(|_| corrupt(format!("{value} where no negative number can be")))
}

fn account(user: UserId) -> Result<i64, LedgerError> {
    schema::user_account(user).ok_or_else(|| corrupt(format!("user {user} is beyond SQL's integers")))
}

fn user_id(value: i64) -> Result<UserId, LedgerError> {
    UserId::new(unsigned(value)?).map_err(|error| corrupt(error.to_string()))
}

fn campaign_id(value: i64) -> Result<CampaignId, LedgerError> {
    CampaignId::new(unsigned(value)?).map_err(|error| corrupt(error.to_string()))
}

fn request_id(value: i64) -> Result<RequestId, LedgerError> {
    RequestId::new(unsigned(value)?).map_err(|error| corrupt(error.to_string()))
}

pub(super) fn at(path: &Path, error: rusqlite::Error) -> LedgerError {
    match LedgerError::from(error) {
        LedgerError::Unavailable(why) => LedgerError::Unavailable(format!("{}: {why}", path.display())),
        other => other,
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows,
        };
        match &error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch => LedgerError::Corrupt(error.to_string()),
                _ => LedgerError::Unavailable(error.to_string()),
            },
            FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
            | InvalidColumnType(..)
            | QueryReturnedNoRows => LedgerError::Corrupt(error.to_string()),
            _ => LedgerError::Unavailable(error.to_string()),
        }
    }
}

/// Keeps other servers out. A file of its own beside the ledger: closing any descriptor of the ledger itself would drop the
/// locks that SQLite holds on it. The kernel lets go of it when the process ends, however it ends.
struct FileLock {
    file: File,
}

impl FileLock {
    fn take(ledger: &Path) -> Result<Self, LedgerError> {
        let path = lock_path(ledger);
        let unavailable = |error: io::Error| LedgerError::Unavailable(format!("{}: {error}", path.display()));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path: ledger.display().to_string() }),
            Err(TryLockError::Error(error)) => Err(unavailable(error)),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Said aloud: another thread's descriptor table may hold a copy of this descriptor, and with it the lock.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the ledger's lock could not be released; it ends with the process");
        }
    }
}

fn lock_path(ledger: &Path) -> PathBuf {
    let mut path = ledger.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}
