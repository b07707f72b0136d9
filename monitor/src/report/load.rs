//! A recording as it was written, read back into types. Whatever is not a recording is refused with
//! a line that says what to do.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::limits::{REASONS_MAX, RUN_SECONDS_MAX};
use crate::recording::read::{self, FileError, GROUPS, Grid, GridRow, Times, Values};
use crate::recording::write::{HEADLINE_FILE, HISTOGRAM_FILE, HOST_FILE, MARKS_FILE, RUN_FILE, SECONDS_FILE};
use crate::run::books::Balance;
use crate::run::host::{HostFacts, HostSecond};
use crate::run::mark::Mark;
use crate::run::second::{Headline, Role};
use crate::run::series::heat_of;
use hongbao_telemetry::report::names;
use hongbao_telemetry::summary::{Phase, SUMMARY_FILE, Summary};

/// Significant digits of histograms over the whole run.
const DIGITS: u8 = 3;

/// Different histograms of a recording: each is some hundred kilobytes of memory.
const HISTOGRAMS_MAX: usize = 64;

/// Why there is no report. One line.
#[derive(Debug, thiserror::Error)]
pub enum RecapError {
    /// The directory holds no recording.
    #[error("{directory} holds no recording: {file} is missing; name a directory that hongbao-monitor has recorded to")]
    Foreign {
        directory: PathBuf,
        /// What every recording has.
        file: &'static str,
    },
    /// A file cannot be read, or is not what a monitor writes.
    #[error(transparent)]
    File(#[from] FileError),
    /// A run of no second, or of too many.
    #[error("{directory}: {problem}")]
    Extent { directory: PathBuf, problem: String },
    /// A part of the report cannot be drawn.
    #[error("cannot draw {what}: {problem}")]
    Undrawn {
        /// The chart or document.
        what: String,
        /// What the library says.
        problem: String,
    },
    /// The report cannot be written.
    #[error("cannot write {path}: {problem}; choose another directory with --out")]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
}

/// What of `run.json` is told again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Run {
    pub version: String,
    pub started_at_ms: u64,
    pub ended_at_ms: Option<u64>,
    pub seconds: u64,
    pub seconds_complete: u64,
    pub joined_late: bool,
    pub record_failures: u64,
    pub host: HostFacts,
    pub books: Balance,
}

/// A recording, by second where something was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// What was asked for.
    pub directory: PathBuf,
    pub run: Run,
    /// Of each second that was closed.
    pub headline: BTreeMap<u64, Headline>,
    /// Of each second in which the host was sampled; empty for a recording from before there was
    /// such a file.
    pub host: BTreeMap<u64, HostSecond>,
    /// Further figures of headline.csv and host.csv, by column: of those that are drawn, where the
    /// recording has them.
    pub columns: BTreeMap<&'static str, BTreeMap<u64, f64>>,
    /// Some values of [`KEPT`], summed over the processes of a role.
    values: HashMap<(Role, &'static str), BTreeMap<u64, i64>>,
    /// By group of [`GROUPS`] and reason: the seconds in which something was counted.
    pub reasons: [BTreeMap<String, BTreeMap<u64, i64>>; GROUPS.len()],
    /// The machines' latencies of each second, counted by
    /// [`HEAT_BOUNDS_US`](crate::run::series::HEAT_BOUNDS_US).
    pub heat: BTreeMap<u64, Vec<u64>>,
    /// The timeline; empty for a recording from before there was such a file.
    pub marks: Vec<Mark>,
    /// Of the whole run, by `role.name`, microseconds.
    pub histograms: BTreeMap<String, Histogram<u64>>,
    /// The fleet's summary, where there is one.
    pub summary: Option<Summary>,
}

/// Processor time in a second, microseconds.
pub const CPU: &str = "cpu_us";
/// Resident memory at a second's end.
pub const RESIDENT: &str = "resident_bytes";
/// Logins that the server answered in a second.
pub const LOGINS: &str = "answers_welcome";
/// Bytes that a server read from its users' sockets in a second.
pub const RECEIVED_BYTES: &str = "received_bytes";
/// Bytes that it wrote.
pub const SENT_BYTES: &str = "sent_bytes";

const KEPT: [&str; 11] = [
    CPU,
    RESIDENT,
    LOGINS,
    RECEIVED_BYTES,
    SENT_BYTES,
    "units_sold",
    "earned_fen",
    "orders_paid",
    "spent_fen",
    "shares_opened",
    "opened_fen",
];

/// What headline.csv tells of sales and envelopes, and which counters of servers and machines it
/// comes from.
const TRADES: [(&str, &str, &str, &str); 4] = [
    ("units_sold", "residual_units", "units_sold", "orders_paid"),
    ("earned_fen", "residual_sale_fen", "earned_fen", "spent_fen"),
    ("shares_opened", "residual_shares", "shares_opened", "shares_opened"),
    ("opened_fen", "residual_share_fen", "opened_fen", "opened_fen"),
];

/// Further columns of headline.csv that are drawn.
const HEADLINE_KEPT: [&str; 11] = [
    "units_sold",
    "earned_fen",
    "residual_units",
    "residual_sale_fen",
    "shares_opened",
    "opened_fen",
    "residual_shares",
    "residual_share_fen",
    "overloaded",
    "refused",
    "disconnects",
];

/// Further columns of host.csv that are drawn.
const HOST_KEPT: [&str; 4] = ["net_received_packets", "net_received_bytes", "net_sent_packets", "net_sent_bytes"];

impl Recording {
    /// Reads a recording; the fleet's summary from `summary` if given, else from the recording if
    /// it is there.
    pub fn load(directory: &Path, summary: Option<&Path>) -> Result<Self, RecapError> {
        let run_file = directory.join(RUN_FILE);
        for file in [RUN_FILE, HEADLINE_FILE, SECONDS_FILE] {
            if !directory.join(file).is_file() {
                return Err(RecapError::Foreign { directory: directory.into(), file });
            }
        }
        #[derive(Deserialize)]
        struct RunFile {
            run: Run,
        }
        let run = read::json::<RunFile>(&run_file)?.run;
        let optional = |path: PathBuf| path.is_file().then_some(path);
        let summary = match summary.map(Path::to_path_buf).or_else(|| optional(directory.join(SUMMARY_FILE))) {
            Some(path) => Some(read::json(&path)?),
            None => None,
        };
        let mut recording = Self { directory: directory.into(), run, summary, ..Self::default() };
        recording.load_headline(&directory.join(HEADLINE_FILE))?;
        recording.check_extent()?;
        if let Some(path) = optional(directory.join(HOST_FILE)) {
            recording.load_host(&path)?;
        }
        recording.load_values(&directory.join(SECONDS_FILE))?;
        if let Some(path) = optional(directory.join(HISTOGRAM_FILE)) {
            recording.load_histograms(&path)?;
        }
        recording.complete_trades();
        recording.marks = read::marks(&directory.join(MARKS_FILE))?;
        Ok(recording)
    }

    fn load_headline(&mut self, path: &Path) -> Result<(), RecapError> {
        let (mut rows, mut columns) = (BTreeMap::new(), BTreeMap::new());
        self.load_grid(path, &HEADLINE_KEPT, &mut columns, |row: Headline| rows.insert(row.second, row).is_none())?;
        (self.headline, self.columns) = (rows, columns);
        Ok(())
    }

    fn load_host(&mut self, path: &Path) -> Result<(), RecapError> {
        let (mut rows, mut columns) = (BTreeMap::new(), BTreeMap::new());
        self.load_grid(path, &HOST_KEPT, &mut columns, |row: HostSecond| rows.insert(row.second, row).is_none())?;
        self.host = rows;
        self.columns.append(&mut columns);
        Ok(())
    }

    /// Rows of a file of one row a second: typed, and further columns by their names.
    fn load_grid<T: DeserializeOwned>(
        &self,
        path: &Path,
        kept: &[&'static str],
        columns: &mut BTreeMap<&'static str, BTreeMap<u64, f64>>,
        mut take: impl FnMut(T) -> bool,
    ) -> Result<(), RecapError> {
        let (mut grid, mut row, mut rows) = (Grid::open(path)?, GridRow::default(), 0);
        let header = csv::StringRecord::from(grid.columns());
        let place = |&name: &&'static str| Some((name, grid.columns().iter().position(|column| column == name)?));
        let places: Vec<(&'static str, usize)> = kept.iter().filter_map(place).collect();
        while grid.next_row(&mut row)? {
            let record = csv::StringRecord::from(row.cells.as_slice());
            rows += u64::from(take(record.deserialize(Some(&header)).map_err(|error| grid.damaged(error))?));
            if rows > RUN_SECONDS_MAX {
                return Err(self.too_long(rows));
            }
            for &(name, place) in &places {
                if let Ok(Some(figure)) = read::figure(&row.cells[place]) {
                    columns.entry(name).or_default().insert(row.second, figure);
                }
            }
        }
        Ok(())
    }

    fn too_long(&self, seconds: u64) -> RecapError {
        let problem =
            format!("{seconds} seconds lie between its first and its last; at most {RUN_SECONDS_MAX} are drawn");
        RecapError::Extent { directory: self.directory.clone(), problem }
    }

    fn check_extent(&self) -> Result<(), RecapError> {
        let wrong = |problem: String| Err(RecapError::Extent { directory: self.directory.clone(), problem });
        let (Some(first), Some(last)) = (self.headline.keys().next(), self.headline.keys().next_back()) else {
            return wrong("no second was recorded: no process reported to this run".into());
        };
        if last - first > RUN_SECONDS_MAX {
            return Err(self.too_long(last - first));
        }
        Ok(())
    }

    fn load_values(&mut self, path: &Path) -> Result<(), RecapError> {
        let mut values = Values::open(path)?;
        while let Some(row) = values.next_value()? {
            if let (Some(role), Some(name)) = (row.role, KEPT.into_iter().find(|kept| kept.as_bytes() == row.name)) {
                *self.values.entry((role, name)).or_default().entry(row.second).or_default() += row.value;
            }
            // Most are 0 in most seconds; a second that is complete has no others.
            let Some((group, reason)) = row.reason().filter(|_| row.value != 0) else { continue };
            let group = &mut self.reasons[group];
            if let Some(seconds) = group.get_mut(reason) {
                *seconds.entry(row.second).or_default() += row.value;
                continue;
            }
            group.insert(reason.to_owned(), BTreeMap::from([(row.second, row.value)]));
            if group.len() > REASONS_MAX {
                return Err(values.damaged(format!("more than {REASONS_MAX} different reasons")).into());
            }
        }
        Ok(())
    }

    /// Sales and envelopes were counted before headline.csv told of them: an older recording's
    /// columns come from the counts.
    #[allow(clippy::cast_precision_loss, reason = "sums of a recording, far from 2^53")]
    fn complete_trades(&mut self) {
        for (moved, residual, servers, machines) in TRADES {
            if self.columns.contains_key(moved) && self.columns.contains_key(residual) {
                continue;
            }
            let of = |role, name| self.values.get(&(role, name));
            let (Some(servers), Some(machines)) = (of(Role::Server, servers), of(Role::Machine, machines)) else {
                continue;
            };
            let (mut flows, mut residuals, mut apart) = (BTreeMap::new(), BTreeMap::new(), 0);
            for &second in self.headline.keys() {
                let [gave, got] = [servers, machines].map(|side| side.get(&second).copied().unwrap_or_default());
                apart += gave - got;
                flows.insert(second, gave as f64);
                residuals.insert(second, apart as f64);
            }
            self.columns.insert(moved, flows);
            self.columns.insert(residual, residuals);
        }
    }

    fn load_histograms(&mut self, path: &Path) -> Result<(), RecapError> {
        let mut times = Times::open(path)?;
        let latency = format!("{}.{}", Role::Machine, names::LATENCY.name);
        while let Some((second, name, histogram)) = times.next_time(|_, _| true)? {
            if name == latency {
                self.heat.insert(second, heat_of(&histogram).to_vec());
            }
            let wrong = |problem: String| RecapError::File(read::damaged(path)(format!("second {second}: {problem}")));
            if self.histograms.len() > HISTOGRAMS_MAX {
                return Err(wrong(format!("more than {HISTOGRAMS_MAX} different histograms")));
            }
            // One that comes from the wire does not grow; the sum has to.
            let sum = match self.histograms.entry(name) {
                Entry::Occupied(sum) => sum.into_mut(),
                Entry::Vacant(free) => free.insert(Histogram::new(DIGITS).map_err(|error| wrong(error.to_string()))?),
            };
            sum.add(&histogram).map_err(|error| wrong(error.to_string()))?;
        }
        Ok(())
    }

    /// A value of [`KEPT`] in a second that is complete.
    pub fn value(&self, role: Role, name: &'static str, second: u64) -> Option<i64> {
        self.complete(second)?;
        self.values.get(&(role, name))?.get(&second).copied()
    }

    /// Seconds in which some process of that role told of its processor time.
    pub fn values_of(&self, role: Role) -> impl Iterator<Item = u64> {
        self.values.get(&(role, CPU)).into_iter().flat_map(|seconds| seconds.keys().copied())
    }

    /// The headline of a second that is complete.
    pub fn complete(&self, second: u64) -> Option<&Headline> {
        self.headline.get(&second).filter(|headline| headline.complete)
    }

    /// The host in a second that its row covers alone: with what lies before it, a row is no
    /// second's.
    pub fn host_second(&self, second: u64) -> Option<&HostSecond> {
        self.host.get(&second).filter(|row| row.span_seconds.is_some_and(|span| (0.5..1.5).contains(&span)))
    }

    /// The run's first second; everything is told from there.
    pub fn start(&self) -> u64 {
        let recorded = self.headline.keys().next().copied().unwrap_or_default();
        match self.run.started_at_ms / 1_000 {
            0 => recorded,
            started => started.min(recorded).max(recorded.saturating_sub(RUN_SECONDS_MAX)),
        }
    }

    /// The second after the last.
    pub fn end(&self) -> u64 {
        self.headline.keys().next_back().map_or(0, |last| last + 1)
    }

    /// Phases of the fleet's summary; none without one.
    pub fn phases(&self) -> &[Phase] {
        self.summary.as_ref().map_or(&[], |summary| &summary.phases)
    }
}
