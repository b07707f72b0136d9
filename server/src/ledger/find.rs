//! The entries of one user, read from a ledger's file beside the server that may be writing it: one
//! snapshot, and nothing changed.
//!
//! They are found along the user's chain (see `books::entry`), not by an index, which the ledger
//! does without. The row of an account may lag behind its entries; those that it does not contain
//! yet are looked through first.

use std::path::Path;

use hongbao_proto::UserId;
use rusqlite::OptionalExtension;
use serde::Serialize;

use super::{Award, LedgerError};
use crate::ledger::audit::open_read_only;
use crate::ledger::books::{AccountId, Entry, Kind, Owner, Store, order_id};
use crate::ledger::sqlite::{LOCK_SUFFIX, Rows, with_suffix};
use crate::ledger::user_event::Details;
use crate::limits::FIND_WALK_MAX;

/// One entry of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its number in the ledger.
    pub entry: i64,
    /// When it was decided, Unix milliseconds by the server's clock.
    pub at_ms: u64,
    pub kind: Kind,
    /// The request that caused it, where the ledger knows.
    pub request: Option<u64>,
    /// Fen; below 0: out of the wallet.
    pub amount_fen: i64,
    #[serde(flatten)]
    pub about: Details,
    /// Whether the user has seen it, where there is something to be seen.
    pub acknowledged: Option<bool>,
}

/// A user's part of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersRows {
    /// All entries, the latest first, at most [`FIND_WALK_MAX`].
    pub rows: Vec<Row>,
    /// Entries up to this one lie in an archive; 0: none.
    pub archived_through: i64,
    /// Whether there are older ones that were not looked at.
    pub cut: bool,
}

/// Reads the entries of `user`.
pub fn rows_of(ledger: &Path, user: UserId) -> Result<UsersRows, LedgerError> {
    let mut connection = open_read_only(ledger)?;
    // All of it is read from the same commit.
    let snapshot = connection.transaction()?;
    let (accounts_from, archived_through): (i64, i64) =
        snapshot.query_row("SELECT accounts_from, archived_through FROM progress", [], |row| row.try_into())?;
    let account = AccountId::user(user).0;
    let behind: Option<i64> = snapshot
        .query_row(
            "SELECT id FROM entries WHERE id >= ?1 AND (debit = ?2 OR credit = ?2) ORDER BY id DESC LIMIT 1",
            [accounts_from, account],
            |row| row.get(0),
        )
        .optional()?;
    let written =
        snapshot.query_row("SELECT last_entry FROM accounts WHERE id = ?1", [account], |row| row.get(0)).optional()?;
    let mut next: i64 = behind.max(written).unwrap_or(0);
    let (mut rows, store) = (Vec::new(), Rows(&snapshot));
    while next > archived_through && rows.len() < FIND_WALK_MAX {
        let missing = || LedgerError::Corrupt(format!("entry {next} of a user's chain is missing"));
        let entry = store.entry(next)?.ok_or_else(missing)?;
        next = entry.previous;
        rows.push(row(&store, &entry)?);
    }
    Ok(UsersRows { cut: next > archived_through, rows, archived_through })
}

fn row(store: &Rows<'_>, entry: &Entry) -> Result<Row, LedgerError> {
    let (item, nothing) = (u64::try_from(entry.item).ok(), Details::default());
    let about = match (entry.kind, entry.debit.owner(), entry.credit.owner()) {
        (Kind::Win, Owner::Campaign(campaign), _) => {
            Details { campaign: Some(campaign.get().into()), serial: item, ..nothing }
        }
        (Kind::Open, Owner::Envelope(envelope), _) => {
            Details { share: item.and_then(|item| u32::try_from(item).ok()), ..Details::envelope(envelope) }
        }
        (Kind::Send, _, Owner::Envelope(envelope)) | (Kind::Return, Owner::Envelope(envelope), _) => {
            Details::envelope(envelope)
        }
        (Kind::Reserve | Kind::Release | Kind::Pay, ..) => match store.order(order_id(entry.item)?)? {
            Some(order) => Details { amount_fen: None, state: Some(order.state), ..Details::of(&Award::Order(order)) },
            None => Details { order: item, ..nothing },
        },
        _ => nothing,
    };
    let unseen: bool = store
        .0
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM notices WHERE entry = ?1)")?
        .query_row([entry.id], |row| row.get(0))?;
    Ok(Row {
        entry: entry.id,
        at_ms: entry.at,
        kind: entry.kind,
        request: entry.request.map(|request| request.get()),
        amount_fen: if entry.debit.is_user() { -entry.amount } else { entry.amount },
        about,
        acknowledged: matches!(entry.kind, Kind::Win | Kind::Reserve | Kind::Pay | Kind::Release).then_some(!unseen),
    })
}

/// The process that has this ledger open, if the kernel's list of locks tells. Looking does not
/// take the lock, which would keep a server from starting just then.
pub fn open_by(ledger: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let lock = std::fs::metadata(with_suffix(ledger, LOCK_SUFFIX)).ok()?;
    let device = (nix::sys::stat::major(lock.dev()), nix::sys::stat::minor(lock.dev()));
    let file = format!("{:02x}:{:02x}:{}", device.0, device.1, lock.ino());
    // `1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF`
    std::fs::read_to_string("/proc/locks").ok()?.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, _, process, locked, ..] if *locked == file => process.parse().ok(),
            _ => None,
        }
    })
}
