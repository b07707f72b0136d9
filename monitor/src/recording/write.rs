//! The run on disk, in formats that other tools read: CSV with named columns, HdrHistogram's
//! interval log, JSON.
//!
//! Every second is written when it is closed, whole or not at all: what a full disk cut off is
//! taken back before the next attempt. A failing disk is counted and said once; the run goes on.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};
use serde::Serialize;
use serde_json::json;

use crate::run::books::Balance;
use crate::run::host::{HostFacts, HostSecond};
use crate::run::mark::Mark;
use crate::run::merge::{MergeCounts, SourceStatus};
use crate::run::second::{ClosedSecond, Headline, Role};
use hongbao_telemetry::report::names;

/// One row per second with fixed columns.
pub const HEADLINE_FILE: &str = "headline.csv";
/// One row per second, process and value.
pub const SECONDS_FILE: &str = "seconds.csv";
/// One line per second and histogram.
pub const HISTOGRAM_FILE: &str = "latency.hlog";
/// One row per second of the monitor's host.
pub const HOST_FILE: &str = "host.csv";
/// One row per mark of the timeline.
pub const MARKS_FILE: &str = "marks.csv";
/// The first line of [`SECONDS_FILE`].
pub const VALUES_HEADER: &str = "second,complete,source,kind,name,value\n";
/// What the run was.
pub const RUN_FILE: &str = "run.json";

/// Why there is no recording. One line.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The directory cannot be made or written.
    #[error("cannot record to {path}: {source}; choose another directory with --record")]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is a recording already.
    #[error("{path} already holds a recording; choose another directory with --record")]
    Occupied { path: PathBuf },
}

/// What `run.json` and `/api/v1/run` tell.
#[derive(Debug, Clone, Serialize)]
pub struct RunStatus {
    /// Of this program.
    pub version: &'static str,
    /// When the run began, Unix milliseconds.
    pub started_at_ms: u64,
    pub ended_at_ms: Option<u64>,
    /// How long a second waits for its reports, milliseconds.
    pub straggler_ms: u64,
    /// Seconds closed.
    pub seconds: u64,
    /// Those of them that are complete.
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
    pub connections_ended: BTreeMap<&'static str, u64>,
}

/// Appends whole records to a file, or none of them.
#[derive(Debug)]
struct Appender {
    file: File,
    length: u64,
    torn: bool,
}

impl Appender {
    fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Self { file, length: 0, torn: false })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        if let Err(error) = self.file.write_all(bytes) {
            self.torn = true;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// The open files of a run.
#[derive(Debug)]
pub struct Recording {
    directory: PathBuf,
    headline: Appender,
    seconds: Appender,
    histograms: Appender,
    host: Appender,
    marks: Appender,
    failures: u64,
    failing: bool,
}

impl Recording {
    /// Makes the directory and its files, headers included; none of them may exist yet.
    pub fn create(directory: &Path, started_at_ms: u64) -> Result<Self, RecordError> {
        let unwritable = |path: &Path| {
            let path = path.to_path_buf();
            move |source: io::Error| match source.kind() {
                io::ErrorKind::AlreadyExists
                    if path.is_file() && path.parent().is_some_and(|parent| parent.is_dir()) =>
                {
                    RecordError::Occupied { path: path.parent().unwrap_or(&path).to_path_buf() }
                }
                _ => RecordError::Unwritable { path, source },
            }
        };
        fs::create_dir_all(directory).map_err(|source| RecordError::Unwritable { path: directory.into(), source })?;
        let create = |name: &str, header: &[u8]| {
            let path = directory.join(name);
            let mut appender = Appender::create(&path).map_err(unwritable(&path))?;
            appender.append(header).map_err(unwritable(&path))?;
            Ok::<_, RecordError>(appender)
        };
        let mut hlog = Vec::new();
        interval_log(&mut hlog, Some(started_at_ms), |_| Ok(())).map_err(unwritable(directory))?;
        Ok(Self {
            headline: create(HEADLINE_FILE, &header(csv_row(&Headline::default(), true)))?,
            seconds: create(SECONDS_FILE, VALUES_HEADER.as_bytes())?,
            histograms: create(HISTOGRAM_FILE, &hlog)?,
            host: create(HOST_FILE, &header(csv_row(&HostSecond::default(), true)))?,
            marks: create(MARKS_FILE, b"at_ms,kind,source,text\n")?,
            directory: directory.to_path_buf(),
            failures: 0,
            failing: false,
        })
    }

    /// Takes back what [`create`](Self::create) made: the run cannot start.
    pub fn discard(self) {
        let files = [HEADLINE_FILE, SECONDS_FILE, HISTOGRAM_FILE, HOST_FILE, MARKS_FILE];
        let files = files.map(|name| self.directory.join(name));
        let removed = files.iter().try_for_each(fs::remove_file).and_then(|()| fs::remove_dir(&self.directory));
        if let Err(error) = removed {
            tracing::warn!(event = "recording_left", %error, directory = %self.directory.display(), "the directory stays");
        }
    }

    /// Where the recording lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes that failed.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Whether the latest write failed.
    pub fn failing(&self) -> bool {
        self.failing
    }

    /// Writes a closed second.
    pub fn write(&mut self, closed: &ClosedSecond) {
        let outcomes = [
            self.headline.append(&headline_row(&closed.merged.headline())),
            self.seconds.append(&tidy_rows(closed)),
            histogram_lines(closed).and_then(|lines| self.histograms.append(&lines)),
        ];
        for outcome in outcomes {
            self.note(outcome);
        }
    }

    /// Writes a second of the host.
    pub fn write_host(&mut self, row: &HostSecond) {
        let outcome = self.host.append(&csv_row(row, false));
        self.note(outcome);
    }

    /// Writes a mark of the timeline.
    pub fn write_mark(&mut self, mark: &Mark) {
        let outcome = self.marks.append(&csv_row(mark, false));
        self.note(outcome);
    }

    /// Replaces `run.json`.
    pub fn write_run(&mut self, run: &RunStatus, sources: &[SourceStatus]) {
        let document = json!({
            "run": run,
            "sources": sources,
            "files": {
                HEADLINE_FILE: "one row per second; flows are what the second added, residuals stand at its end; fen, microseconds",
                SECONDS_FILE: "one row per second, process and value; a counter's value is what the second added, a gauge's as reported",
                HISTOGRAM_FILE: "HdrHistogram interval log, microseconds; untagged lines are the machines' latency of Grabs",
                HOST_FILE: "one row per second of the monitor's host and network namespace; processor time and TCP's counts are what span_seconds added",
                MARKS_FILE: "one row per mark of the timeline, in the order in which the monitor heard of them; Unix milliseconds",
            },
        });
        let outcome = replace(&self.directory.join(RUN_FILE), format!("{document:#}\n").as_bytes());
        self.note(outcome);
    }

    fn note(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) if self.failing && !self.any_torn() => {
                self.failing = false;
                tracing::info!(event = "recording_works", directory = %self.directory.display(), "recording works again");
            }
            Ok(()) => {}
            Err(error) => {
                self.failures += 1;
                if !self.failing {
                    tracing::error!(event = "recording_failing", directory = %self.directory.display(), %error, "cannot record; the run goes on");
                }
                self.failing = true;
            }
        }
    }

    fn any_torn(&self) -> bool {
        [&self.headline, &self.seconds, &self.histograms, &self.host, &self.marks].iter().any(|appender| appender.torn)
    }
}

/// Writes a file so that a reader sees the old or the new one, never a part.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

/// The first line of `text`.
fn header(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|&byte| byte == b'\n').map_or(text.len(), |index| index + 1);
    text.truncate(end);
    text
}

fn headline_row(headline: &Headline) -> Vec<u8> {
    csv_row(headline, false)
}

fn csv_row(row: &impl Serialize, header: bool) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().has_headers(header).from_writer(Vec::new());
    let written = writer.serialize(row).map_err(io::Error::other);
    written
        .and_then(|()| writer.into_inner().map_err(|error| io::Error::other(error.to_string())))
        .unwrap_or_else(|error| unreachable!("plain fields in memory are always written: {error}"))
}

/// Names and labels are of `[A-Za-z0-9._/-]`, checked when they came in, so nothing needs quoting.
fn tidy_rows(closed: &ClosedSecond) -> Vec<u8> {
    let mut rows = String::new();
    for value in &closed.values {
        let fields: [&str; 6] = [
            &closed.merged.second.to_string(),
            if closed.merged.complete { "true" } else { "false" },
            &value.source,
            value.kind.name(),
            &value.name,
            &value.value.to_string(),
        ];
        rows.push_str(&fields.join(","));
        rows.push('\n');
    }
    rows.into_bytes()
}

type Log<'a, 'b> = hdrhistogram::serialization::interval_log::IntervalLogWriter<'a, 'b, Vec<u8>, V2DeflateSerializer>;

fn interval_log(
    lines: &mut Vec<u8>,
    started_at_ms: Option<u64>,
    write: impl FnOnce(&mut Log<'_, '_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut builder = IntervalLogWriterBuilder::new();
    if let Some(started_at_ms) = started_at_ms {
        builder.add_comment("[hongbao-monitor; values in microseconds]");
        builder.with_start_time(UNIX_EPOCH + Duration::from_millis(started_at_ms));
    }
    let mut serializer = V2DeflateSerializer::new();
    let mut log = builder.begin_log_with(lines, &mut serializer)?;
    write(&mut log)
}

fn histogram_lines(closed: &ClosedSecond) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    interval_log(&mut lines, None, |log| {
        let start = Duration::from_secs(closed.merged.second);
        for ((role, name), histogram) in &closed.histograms {
            let plain = (*role, name.as_str()) == (Role::Machine, names::LATENCY.name);
            let tag = if plain { String::new() } else { format!("{role}.{name}") };
            write_interval(log, start, histogram, (!plain).then(|| Tag::new(&tag)).flatten())?;
        }
        Ok(())
    })?;
    Ok(lines)
}

fn write_interval(
    log: &mut Log<'_, '_>,
    start: Duration,
    histogram: &Histogram<u64>,
    tag: Option<Tag<'_>>,
) -> io::Result<()> {
    log.write_histogram(histogram, start, Duration::from_secs(1), tag).map_err(|error| match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::second::MergedSecond;

    fn closed(second: u64) -> ClosedSecond {
        let merged = MergedSecond {
            second,
            complete: true,
            sources_expected: 0,
            sources_reported: 0,
            missing: vec![],
            roles: BTreeMap::new(),
            books: Balance::default(),
        };
        ClosedSecond { merged, values: vec![], histograms: BTreeMap::new() }
    }

    #[test]
    fn a_full_disk_is_counted_and_recording_resumes_with_space() {
        let directory = tempfile::tempdir().unwrap();
        let mut recording = Recording::create(&directory.path().join("run"), 1_000).unwrap();
        recording.write(&closed(1));
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let good = std::mem::replace(&mut recording.headline.file, full);
        recording.write(&closed(2));
        assert!(recording.failing() && recording.failures() == 1);
        recording.headline.file = good;
        // What a full disk leaves: the beginning of a row.
        recording.headline.file.write_all(b"2,tr").unwrap();
        recording.write(&closed(3));
        assert!(!recording.failing());
        let text = fs::read_to_string(directory.path().join("run").join(HEADLINE_FILE)).unwrap();
        let seconds: Vec<&str> = text.lines().map(|line| line.split(',').next().unwrap()).collect();
        assert_eq!(seconds, ["second", "1", "3"]);
    }

    #[test]
    fn a_recording_taken_back_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        Recording::create(&path, 1_000).unwrap().discard();
        assert!(!path.exists());
    }
}
