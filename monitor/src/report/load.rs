//! A recording as it was written, read back into types. Whatever is not a recording is refused with
//! a line that says what to do.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use crate::limits::{REASONS_MAX, RUN_SECONDS_MAX};
use crate::recording::plain_name;
use crate::recording::read::{self, ReadError, Reader, Run};
use crate::run::column::Column;
use crate::run::host::HostSecond;
use crate::run::mark::Mark;
use crate::run::second::{Headline, Role};
use hongbao_telemetry::summary::{Phase, SUMMARY_FILE, Summary};

/// Significant digits of histograms over the whole run.
const DIGITS: u8 = 3;

/// Different histograms of a recording: each is some hundred kilobytes of memory.
const HISTOGRAMS_MAX: usize = 64;

/// Why there is no report. One line.
#[derive(Debug, thiserror::Error)]
pub enum RecapError {
    /// The recording cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
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

/// A recording, by second where something was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    /// What was asked for.
    pub directory: PathBuf,
    pub run: Run,
    /// Of each second that was closed.
    pub headline: BTreeMap<u64, Headline>,
    /// Of each second in which the host was sampled.
    pub host: BTreeMap<u64, HostSecond>,
    /// Further figures of [`Headline`] and [`HostSecond`], by column: those that are drawn.
    pub columns: BTreeMap<&'static str, BTreeMap<u64, f64>>,
    /// Some values of [`KEPT`], summed over the processes of a role.
    values: HashMap<(Role, &'static str), BTreeMap<u64, i64>>,
    /// By family of [`Reasons`](crate::run::series::Reasons::families) and reason: the seconds in
    /// which something was counted.
    pub reasons: [BTreeMap<String, BTreeMap<u64, i64>>; 4],
    /// The machines' latencies of each second, counted by
    /// [`HEAT_BOUNDS_US`](crate::run::series::HEAT_BOUNDS_US).
    pub heat: BTreeMap<u64, Vec<u64>>,
    /// The timeline.
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

const KEPT: [&str; 5] = [CPU, RESIDENT, LOGINS, RECEIVED_BYTES, SENT_BYTES];

/// Further columns of seconds that are drawn.
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

/// Further columns of the host that are drawn.
const HOST_KEPT: [&str; 4] = ["net_received_packets", "net_received_bytes", "net_sent_packets", "net_sent_bytes"];

impl Recording {
    /// Reads a recording; the fleet's summary from `summary` if given, else from the recording if
    /// it is there.
    pub fn load(directory: &Path, summary: Option<&Path>) -> Result<Self, RecapError> {
        let reader = Reader::open(directory)?;
        let beside = Some(directory.join(SUMMARY_FILE)).filter(|path| path.is_file());
        let summary = match summary.map(Path::to_path_buf).or(beside) {
            Some(path) => Some(read::json(&path)?),
            None => None,
        };
        let mut recording = Self { directory: directory.into(), run: reader.run()?, summary, ..Self::default() };
        recording.load_seconds(&reader)?;
        recording.load_values(&reader)?;
        recording.load_histograms(&reader)?;
        recording.marks = reader.marks()?;
        Ok(recording)
    }

    fn load_seconds(&mut self, reader: &Reader) -> Result<(), RecapError> {
        let wrong = |problem: String| Err(RecapError::Extent { directory: self.directory.clone(), problem });
        let Some(extent) = reader.extent()? else {
            return wrong("no second was recorded: no process reported to this run".into());
        };
        let span = extent.last - extent.first;
        if span > RUN_SECONDS_MAX {
            return wrong(format!(
                "{span} seconds lie between its first and its last; at most {RUN_SECONDS_MAX} are drawn"
            ));
        }
        reader.seconds(extent.first, extent.last, |read::Second { headline, reasons, heat, .. }| {
            let second = headline.second;
            self.keep(second, &HEADLINE_KEPT, Headline::COLUMNS.iter().zip(headline.figures()));
            for (kept, kinds) in self.reasons.iter_mut().zip(reasons.families()) {
                for (kind, &count) in kinds {
                    #[allow(clippy::cast_possible_truncation, reason = "a count of one second")]
                    kept.entry(kind.clone()).or_default().insert(second, count as i64);
                }
            }
            self.heat.extend(heat.latency.map(|counts| (second, counts.to_vec())));
            self.headline.insert(second, headline);
            true
        })?;
        if self.reasons.iter().any(|kinds| kinds.len() > REASONS_MAX) {
            return Err(reader.damaged(format!("more than {REASONS_MAX} different reasons")).into());
        }
        for row in reader.hosts()? {
            self.keep(row.second, &HOST_KEPT, HostSecond::COLUMNS.iter().zip(row.figures()));
            self.host.insert(row.second, row);
        }
        Ok(())
    }

    /// Of a row's figures, those of `columns`.
    fn keep<'a>(
        &mut self,
        second: u64,
        columns: &[&'static str],
        figures: impl Iterator<Item = (&'a Column, Option<f64>)>,
    ) {
        for (column, figure) in figures {
            let name = plain_name(column);
            if let (true, Some(figure)) = (columns.contains(&name), figure) {
                self.columns.entry(name).or_default().insert(second, figure);
            }
        }
    }

    fn load_values(&mut self, reader: &Reader) -> Result<(), RecapError> {
        reader.reported(0, u64::MAX, |second, roles| {
            for (role, reported) in roles.iter().filter_map(|(role, of)| Some((Role::from_name(role)?, of))) {
                for name in KEPT {
                    let values = reported.counters.get(name).or_else(|| reported.gauges.get(name));
                    if let Some(sum) = values.and_then(|values| values.iter().flatten().copied().reduce(|a, b| a + b)) {
                        self.values.entry((role, name)).or_default().insert(second, sum);
                    }
                }
            }
        })?;
        Ok(())
    }

    fn load_histograms(&mut self, reader: &Reader) -> Result<(), RecapError> {
        let mut wrong = None;
        reader.histograms(|second, name, histogram| {
            // One that comes from the wire does not grow; the sum has to.
            let added = match self.histograms.entry(name.to_owned()) {
                Entry::Occupied(sum) => sum.into_mut().add(&histogram).map_err(|error| error.to_string()),
                Entry::Vacant(free) => Histogram::new(DIGITS)
                    .map_err(|error| error.to_string())
                    .and_then(|sum| free.insert(sum).add(&histogram).map_err(|error| error.to_string())),
            };
            if let Err(problem) = added {
                wrong = Some(format!("second {second}: {problem}"));
            }
        })?;
        let many = self.histograms.len() > HISTOGRAMS_MAX;
        match wrong.or_else(|| many.then(|| format!("more than {HISTOGRAMS_MAX} different histograms"))) {
            Some(problem) => Err(reader.damaged(problem).into()),
            None => Ok(()),
        }
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
