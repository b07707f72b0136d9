//! A run on disk: one SQLite file, written a transaction a second, read by query.
//!
//! This is the only place that knows what a recording looks like. Seconds have one named column for
//! each figure, so that any SQLite client reads them; what a second has of each process and of each
//! SET is JSON deflated by zlib, because a million users' hour of it has to fit on a disk.

pub mod read;
pub mod rotation;
pub mod write;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::run::column::Column;
use crate::run::host::HostSecond;
use crate::run::merge::Figures;
use crate::run::second::Headline;
use hongbao_telemetry::report::names;

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

/// What the processes of one role reported in a second: in each list one value for each of
/// `sources`, null where that process told none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    pub sources: Vec<String>,
    /// What the second added.
    pub counters: BTreeMap<String, Vec<Option<i64>>>,
    /// As reported.
    pub gauges: BTreeMap<String, Vec<Option<i64>>>,
}

impl Reported {
    /// What a process said of itself; none where it reported nothing.
    pub fn figures(&self, source: &str) -> Option<Figures> {
        let place = self.sources.iter().position(|name| name == source)?;
        let mut figures = Figures::default();
        for (name, values) in &self.gauges {
            if let Some(&Some(value)) = values.get(place) {
                figures.gauge(name, value);
            }
        }
        figures.cpu_us = self.counters.get(names::CPU.name).and_then(|values| *values.get(place)?);
        Some(figures)
    }
}

/// A row of `sources`, by role.
pub type ReportedByRole = BTreeMap<String, Reported>;
