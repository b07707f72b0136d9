//! A ledger's file: whether it is ours, made where there is none, and kept from other servers.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::ledger::{LedgerError, schema};

/// Whether the file is an empty one that we may make a ledger of. A ledger of this version: no.
/// Anything else: an error.
pub fn examine(connection: &Connection, path: &Path) -> Result<bool, LedgerError> {
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
    let path = || path.display().to_string();
    match version {
        schema::VERSION => Ok(false),
        found if found > schema::VERSION => Err(LedgerError::TooNew { path: path(), found, known: schema::VERSION }),
        found => Err(LedgerError::TooOld { path: path(), found }),
    }
}

/// All or nothing: a crash in the middle leaves an empty file, which the next start takes for new.
pub fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", schema::VERSION)?;
    transaction.execute_batch(schema::TABLES)?;
    transaction.commit()
}

/// The error with the path that it is about.
pub fn at(path: &Path, error: rusqlite::Error) -> LedgerError {
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

/// What the name of a ledger's lock has more than the ledger's.
pub const LOCK_SUFFIX: &str = ".lock";

/// Keeps other servers out. A file of its own beside the ledger: closing any descriptor of the
/// ledger itself would drop the locks that SQLite holds on it. The kernel lets go of it when the
/// process ends, however it ends.
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes it, or says who is in the way.
    pub fn take(ledger: &Path) -> Result<Self, LedgerError> {
        let path = with_suffix(ledger, LOCK_SUFFIX);
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
        // Said aloud: another thread's descriptor table may hold a copy of this descriptor, and
        // with it the lock.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(event = "ledger_lock_stuck", %error, "the ledger's lock could not be released; it ends with the process");
        }
    }
}

/// A file beside this one, by what its name has more.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
