//! A run on disk: one SQLite file, written a transaction a second, read by query.
//!
//! This is the only place that knows what a recording looks like. Seconds have one named column for
//! each figure, so that any SQLite client reads them; what a second has of each process and of each
//! SET is JSON deflated by zlib, because a million users' hour of it has to fit on a disk.

pub mod read;
pub mod rotation;
pub mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::run::books::Balance;
use crate::run::column::Column;
use crate::run::host::{HostFacts, HostSecond};
use crate::run::merge::MergeCounts;
use crate::run::second::Headline;

/// The recording, in its run's directory.
pub const FILE: &str = "run.sqlite";

/// What a recording was before there was [`FILE`].
const OLD_FILE: &str = "headline.csv";

/// "HBrn": says whose SQLite file it is.
const APPLICATION_ID: i64 = 0x4842_726e;

const VERSION: i64 = 1;

/// What precedes the columns of `hosts` in a series.
const HOST_PREFIX: &str = "host_";

/// The tables. `seconds` and `hosts` have the columns of [`Headline`] and [`HostSecond`].
static TABLES: LazyLock<String> = LazyLock::new(|| {
    let columns = |names: Vec<&'static str>| names[1..].join(", ");
    format!(
        "CREATE TABLE run (id INTEGER PRIMARY KEY CHECK (id = 1), version TEXT NOT NULL,
             started_at_ms INTEGER NOT NULL, ended_at_ms INTEGER, status TEXT NOT NULL, sources TEXT NOT NULL);
         CREATE TABLE seconds (second INTEGER PRIMARY KEY, {}, reasons TEXT NOT NULL, heat TEXT NOT NULL);
         CREATE TABLE hosts (second INTEGER PRIMARY KEY, {});
         CREATE TABLE sources (second INTEGER PRIMARY KEY, reported BLOB NOT NULL);
         CREATE TABLE sets (second INTEGER PRIMARY KEY, servers BLOB NOT NULL);
         CREATE TABLE marks (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,
             source TEXT NOT NULL, text TEXT NOT NULL);
         CREATE TABLE latency (second INTEGER NOT NULL, name TEXT NOT NULL, histogram BLOB NOT NULL,
             PRIMARY KEY (second, name)) WITHOUT ROWID;",
        columns(headline_columns()),
        columns(host_columns()),
    )
});

/// What a recording says of its run, and `/api/v1/run` too.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunStatus {
    pub version: String,
    /// When the run began, Unix milliseconds.
    pub started_at_ms: u64,
    pub ended_at_ms: Option<u64>,
    /// How long a second waits for its reports, milliseconds.
    pub straggler_ms: u64,
    pub seconds: u64,
    pub seconds_complete: u64,
    /// Where the recording lies.
    pub record: PathBuf,
    pub host: HostFacts,
    /// Seconds that could not be recorded.
    pub record_failures: u64,
    /// Whether some process was older than the run.
    pub joined_late: bool,
    /// The books at the last closed second.
    pub books: Balance,
    /// Reports out of the ordinary.
    pub reports: MergeCounts,
    /// Connections to the ingest port that have ended, by reason.
    pub connections_ended: BTreeMap<String, u64>,
}

fn headline_columns() -> Vec<&'static str> {
    Headline::COLUMNS.iter().map(|column| column.name).collect()
}

fn host_columns() -> Vec<&'static str> {
    HostSecond::COLUMNS.iter().map(plain_name).collect()
}

/// A column's name without the prefix that those of the host have in a series.
pub fn plain_name(column: &Column) -> &'static str {
    column.name.strip_prefix(HOST_PREFIX).unwrap_or(column.name)
}
