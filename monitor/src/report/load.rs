//! A recording as the report needs it, by second. What is no recording is refused with a line that
//! says what to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::limits::{REASONS_MAX, RUN_SECONDS_MAX, SERIES_ROWS_MAX};
use crate::recording::RunStatus;
use crate::recording::read::{self, ReadError, Reader};
use crate::run::host::HostSecond;
use crate::run::mark::Mark;
use crate::run::second::{Headline, Role};
use crate::run::series::{Heat, Kinds, Reasons, Row, Series};
use hongbao_telemetry::summary::{Phase, SUMMARY_FILE, Summary};

/// Significant digits of histograms over the whole run.
const DIGITS: u8 = 3;

/// Different histograms of a recording: each is some hundred kilobytes of memory.
const HISTOGRAMS_MAX: usize = 64;

/// What servers read from their users' sockets in a second, and what they wrote, bytes.
const TRAFFIC: [&str; 2] = ["received_bytes", "sent_bytes"];

/// Why there is no report. One line.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A run of no second, or of too many.
    #[error("{directory}: {problem}")]
    Extent { directory: PathBuf, problem: String },
    #[error("cannot put {what} into JSON: {problem}")]
    Encoding { what: &'static str, problem: String },
    #[error("cannot write {path}: {problem}; choose another directory with --out")]
    Unwritable { path: PathBuf, problem: String },
}

/// A recording, by second where something was recorded.
#[derive(Debug, Default)]
pub struct Recording {
    pub directory: PathBuf,
    pub run: RunStatus,
    /// Of each second that was closed.
    pub headline: BTreeMap<u64, Headline>,
    pub reasons: BTreeMap<u64, Reasons>,
    pub heat: BTreeMap<u64, Heat>,
    /// Of each second in which the host was sampled, before the first one that was closed too.
    pub host: BTreeMap<u64, HostSecond>,
    /// Of [`TRAFFIC`], over all servers.
    pub traffic: BTreeMap<u64, [Option<i64>; 2]>,
    pub marks: Vec<Mark>,
    /// Of the whole run, by `role.name`, microseconds.
    pub histograms: BTreeMap<String, Histogram<u64>>,
    /// The fleet's summary, where there is one.
    pub summary: Option<Summary>,
    /// Processes and SETs, as they were in the second that the page shows first.
    pub processes: Value,
    pub sets: Value,
}

impl Recording {
    /// Reads a recording; the fleet's summary from `summary` if given, else from the recording if
    /// it is there.
    pub fn load(directory: &Path, summary: Option<&Path>) -> Result<Self, ReportError> {
        let reader = Reader::open(directory)?;
        let beside = Some(directory.join(SUMMARY_FILE)).filter(|path| path.is_file());
        let summary = match summary.map(Path::to_path_buf).or(beside) {
            Some(path) => Some(read::json(&path)?),
            None => None,
        };
        let mut recording = Self { directory: directory.into(), run: reader.run()?, summary, ..Self::default() };
        recording.load_seconds(&reader)?;
        recording.load_histograms(&reader)?;
        recording.marks = reader.marks()?;
        let busy = recording.busy_second();
        recording.processes = reader.sources(busy)?;
        recording.sets = serde_json::from_slice(&reader.sets(busy.unwrap_or(u64::MAX))?).unwrap_or_default();
        Ok(recording)
    }

    fn load_seconds(&mut self, reader: &Reader) -> Result<(), ReportError> {
        let wrong = |problem: String| Err(ReportError::Extent { directory: self.directory.clone(), problem });
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
            self.reasons.insert(headline.second, reasons);
            self.heat.insert(headline.second, heat);
            self.headline.insert(headline.second, headline);
            true
        })?;
        if (0..4).any(|family| self.sums(|reasons| reasons.families()[family]).len() > REASONS_MAX) {
            return Err(reader.damaged(format!("more than {REASONS_MAX} different reasons")).into());
        }
        self.host = reader.hosts()?.into_iter().map(|row| (row.second, row)).collect();
        reader.reported(extent.first, extent.last, |second, roles| {
            let Some(servers) = roles.get(Role::Server.as_ref()) else { return };
            let sum = |name| servers.counters.get(name)?.iter().flatten().copied().reduce(|sum, one| sum + one);
            self.traffic.insert(second, TRAFFIC.map(sum));
        })?;
        Ok(())
    }

    fn load_histograms(&mut self, reader: &Reader) -> Result<(), ReportError> {
        let mut wrong = None;
        reader.histograms(|second, name, histogram| {
            // One that comes from the wire does not grow; the sum has to.
            let empty = || Histogram::new(DIGITS).unwrap_or_else(|_| unreachable!("{DIGITS} digits are allowed"));
            if let Err(problem) = self.histograms.entry(name.to_owned()).or_insert_with(empty).add(&histogram) {
                wrong = Some(format!("second {second}: {problem}"));
            }
        })?;
        let many = self.histograms.len() > HISTOGRAMS_MAX;
        match wrong.or_else(|| many.then(|| format!("more than {HISTOGRAMS_MAX} different histograms"))) {
            Some(problem) => Err(reader.damaged(problem).into()),
            None => Ok(()),
        }
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

    /// Logins that servers answered in a complete second.
    pub fn logins(&self, second: u64) -> Option<f64> {
        self.complete(second)?.server_cpu_us?;
        Some(self.reasons.get(&second)?.answers.get("welcome").copied().unwrap_or(0.0))
    }

    /// Counts of a family over the whole run.
    pub fn sums(&self, family: impl Fn(&Reasons) -> &Kinds) -> Kinds {
        let mut sums = Kinds::new();
        for (kind, count) in self.reasons.values().flat_map(family) {
            *sums.entry(kind.clone()).or_default() += count;
        }
        sums
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

    /// The last second that had half of the most answers: what the page shows first.
    fn busy_second(&self) -> Option<u64> {
        let most = self.headline.values().map(|second| second.answered).max().filter(|&most| most > 0)?;
        self.headline.values().rfind(|second| second.answered * 2 >= most).map(|second| second.second)
    }

    /// The run column by column, as the interface tells of it.
    pub fn series(&self, run: &str) -> Series {
        let row = |(second, headline): (&u64, &Headline)| {
            let (reasons, heat) = (self.reasons.get(second).cloned(), self.heat.get(second).copied());
            Row::new(headline, self.host.get(second), reasons.unwrap_or_default(), heat.unwrap_or_default())
        };
        let rows: Vec<Row> = self.headline.iter().map(row).collect();
        let first = self.headline.keys().next().copied().unwrap_or_default();
        Series::of(run, (self.end() - first).div_ceil(SERIES_ROWS_MAX), &rows)
    }
}
