//! A recording as it was written, read back into types. Whatever is not a recording is refused with a line that says what to do.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dashboard::books::Balance;
use crate::dashboard::histogram;
use crate::dashboard::host::{HostFacts, HostSecond};
use crate::dashboard::record::{HEADLINE_FILE, HISTOGRAM_FILE, HOST_FILE, RUN_FILE, SECONDS_FILE};
use crate::dashboard::second::{Headline, Role};
use crate::report::names;

/// What the fleet writes with `--summary`, where the scripts put it.
pub const SUMMARY_FILE: &str = "summary.json";

/// Seconds of a run that are drawn at most: a recording of days would fill memory before anything was seen of it.
const SECONDS_MAX: u64 = 200_000;

/// Significant digits of histograms over the whole run.
const DIGITS: u8 = 3;

/// Why there is no report. One line.
#[derive(Debug, thiserror::Error)]
pub enum RecapError {
    /// The directory holds no recording.
    #[error("{directory} holds no recording: {file} is missing; name a directory that hongbao-monitor has recorded to")]
    Foreign {
        /// As given.
        directory: PathBuf,
        /// What every recording has.
        file: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what a monitor writes.
    #[error("{path} is damaged, or of another version: {problem}; record the run again, or repair the file")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where in the file.
        problem: String,
    },
    /// A run of no second, or of too many.
    #[error("{directory}: {problem}")]
    Extent {
        /// As given.
        directory: PathBuf,
        /// How so.
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
#[allow(missing_docs, reason = "as in RunStatus")]
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

/// One phase, of the fleet's summary.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fleet's names; times in the unit of their suffix")]
pub struct Phase {
    pub name: String,
    pub judged: Option<bool>,
    pub from: u64,
    pub qps_target: u64,
    pub seconds: u64,
    pub tolerance: Option<String>,
    pub seconds_within_tolerance: u64,
    pub storm_seconds: u64,
    pub planned: u64,
    pub sent: u64,
    pub answered: u64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: Option<f64>,
    pub send_lag_p50_ms: Option<f64>,
    pub send_lag_p99_ms: Option<f64>,
    pub send_lag_p999_ms: Option<f64>,
    pub send_lag_max_ms: Option<f64>,
    pub server_cpu_us_per_request: Option<f64>,
    pub fleet_cpu_us_per_request: Option<f64>,
    pub per_second: Vec<PhaseSecond>,
}

/// One second of a phase, over the whole fleet.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PhaseSecond {
    pub second: u64,
    pub sent: u64,
    pub answered: u64,
    /// Users were cut and not all back: no plan can be kept.
    pub storm: bool,
}

/// Both sides' books at the end, by the server's campaign and the machines' journals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fleet's names")]
pub struct Books {
    pub campaign: Option<u64>,
    pub issued: Option<u64>,
    pub won: Option<u64>,
    pub paid_fen: Option<u64>,
    pub received: Option<u64>,
    pub received_fen: Option<u64>,
    pub journal_prizes: Option<u64>,
    pub journal_fen: Option<u64>,
    pub residual_fen: Option<i64>,
}

/// Resident memory by the user, as the fleet measured it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fleet's names")]
pub struct UserMemory {
    pub server_rss_bytes_per_connection: Option<u64>,
    pub fleet_rss_bytes_per_user: Option<u64>,
}

/// The clock of a machine.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fleet's names")]
pub struct Clock {
    pub offset_us: i64,
    pub error_us: u64,
}

/// What of the fleet's summary is told again. What a newer fleet says besides is in `others`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the fleet's names")]
pub struct Summary {
    pub passed: Option<bool>,
    pub failures: Vec<String>,
    pub users: u64,
    pub machines: u64,
    pub connected: u64,
    pub connect_seconds: f64,
    pub tolerance: String,
    pub phases: Vec<Phase>,
    pub books: Books,
    pub memory: UserMemory,
    pub totals: BTreeMap<String, Value>,
    pub outcomes: BTreeMap<String, u64>,
    pub errors: BTreeMap<String, u64>,
    pub violations: BTreeMap<String, u64>,
    pub reconnects: u64,
    pub unanswered: u64,
    pub clocks: BTreeMap<String, Clock>,
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct ValueRow<'a> {
    second: u64,
    source: &'a str,
    name: &'a str,
    value: i64,
}

/// A recording, by second where something was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// What was asked for.
    pub directory: PathBuf,
    /// The run.
    pub run: Run,
    /// Of each second that was closed.
    pub headline: BTreeMap<u64, Headline>,
    /// Of each second in which the host was sampled; empty for a recording from before there was such a file.
    pub host: BTreeMap<u64, HostSecond>,
    /// Some values of [`KEPT`], summed over the processes of a role.
    values: HashMap<(Role, &'static str), BTreeMap<u64, i64>>,
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

const KEPT: [&str; 3] = [CPU, RESIDENT, LOGINS];

impl Recording {
    /// Reads a recording; the fleet's summary from `summary` if given, else from the recording if it is there.
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
        let run = json::<RunFile>(&run_file)?.run;
        let optional = |path: PathBuf| path.is_file().then_some(path);
        let summary = match summary.map(Path::to_path_buf).or_else(|| optional(directory.join(SUMMARY_FILE))) {
            Some(path) => Some(json(&path)?),
            None => None,
        };
        let mut recording = Self { directory: directory.into(), run, summary, ..Self::default() };
        for row in rows::<Headline>(&directory.join(HEADLINE_FILE))? {
            recording.headline.insert(row.second, row);
        }
        if let Some(path) = optional(directory.join(HOST_FILE)) {
            recording.host = rows::<HostSecond>(&path)?.into_iter().map(|row| (row.second, row)).collect();
        }
        recording.load_values(&directory.join(SECONDS_FILE))?;
        if let Some(path) = optional(directory.join(HISTOGRAM_FILE)) {
            recording.load_histograms(&path)?;
        }
        recording.check_extent()?;
        Ok(recording)
    }

    fn check_extent(&self) -> Result<(), RecapError> {
        let wrong = |problem: String| Err(RecapError::Extent { directory: self.directory.clone(), problem });
        let (Some(first), Some(last)) = (self.headline.keys().next(), self.headline.keys().next_back()) else {
            return wrong("no second was recorded: no process reported to this run".into());
        };
        if last - first > SECONDS_MAX {
            return wrong(format!(
                "{} seconds lie between its first and its last; at most {SECONDS_MAX} are drawn",
                last - first
            ));
        }
        Ok(())
    }

    fn load_values(&mut self, path: &Path) -> Result<(), RecapError> {
        let text = whole_lines(path)?;
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let headers = reader.headers().map_err(damaged(path))?.clone();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(damaged(path))? {
            let row: ValueRow<'_> = record.deserialize(Some(&headers)).map_err(damaged(path))?;
            let role = row.source.split_once('/').and_then(|(role, _)| Role::from_name(role));
            if let (Some(role), Some(name)) = (role, KEPT.into_iter().find(|kept| *kept == row.name)) {
                *self.values.entry((role, name)).or_default().entry(row.second).or_default() += row.value;
            }
        }
        Ok(())
    }

    fn load_histograms(&mut self, path: &Path) -> Result<(), RecapError> {
        let text = whole_lines(path)?;
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            let wrong = |problem: String| RecapError::Damaged { path: path.into(), problem };
            let LogEntry::Interval(interval) = entry.map_err(|error| wrong(format!("{error:?}")))? else { continue };
            let at = interval.start_timestamp().as_secs();
            let bytes = STANDARD
                .decode(interval.encoded_histogram())
                .map_err(|error| wrong(format!("second {at}: {error}")))?;
            let histogram = histogram::decode(&bytes).map_err(|error| wrong(format!("second {at}: {error}")))?;
            let tag = interval
                .tag()
                .map_or_else(|| format!("{}.{}", Role::Machine, names::LATENCY.name), |tag| tag.to_string());
            // One that comes from the wire does not grow; the sum has to.
            let sum = match self.histograms.entry(tag) {
                Entry::Occupied(sum) => sum.into_mut(),
                Entry::Vacant(free) => free.insert(Histogram::new(DIGITS).map_err(|error| wrong(error.to_string()))?),
            };
            sum.add(&histogram).map_err(|error| wrong(format!("second {at}: {error}")))?;
        }
        Ok(())
    }

    /// A value of [`KEPT`] in a second that is complete.
    pub fn value(&self, role: Role, name: &'static str, second: u64) -> Option<i64> {
        self.complete(second)?;
        self.values.get(&(role, name))?.get(&second).copied()
    }

    /// The headline of a second that is complete.
    pub fn complete(&self, second: u64) -> Option<&Headline> {
        self.headline.get(&second).filter(|headline| headline.complete)
    }

    /// The host in a second that its row covers alone: with what lies before it, a row is no second's.
    pub fn host_second(&self, second: u64) -> Option<&HostSecond> {
        self.host.get(&second).filter(|row| row.span_seconds.is_some_and(|span| (0.5..1.5).contains(&span)))
    }

    /// The run's first second; everything is told from there.
    pub fn start(&self) -> u64 {
        let recorded = self.headline.keys().next().copied().unwrap_or_default();
        match self.run.started_at_ms / 1_000 {
            0 => recorded,
            started => started.min(recorded).max(recorded.saturating_sub(SECONDS_MAX)),
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

fn damaged<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> RecapError {
    move |error| RecapError::Damaged { path: path.into(), problem: error.to_string().replace('\n', " ") }
}

fn read(path: &Path) -> Result<String, RecapError> {
    let bytes = fs::read(path).map_err(|source| RecapError::Unreadable { path: path.into(), source })?;
    String::from_utf8(bytes).map_err(damaged(path))
}

/// Without a last line that a killed monitor has left unfinished.
fn whole_lines(path: &Path) -> Result<String, RecapError> {
    let mut text = read(path)?;
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    Ok(text)
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, RecapError> {
    serde_json::from_str(&read(path)?).map_err(damaged(path))
}

fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, RecapError> {
    let text = whole_lines(path)?;
    csv::Reader::from_reader(text.as_bytes()).deserialize().collect::<Result<_, _>>().map_err(damaged(path))
}
