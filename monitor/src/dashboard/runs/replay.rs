//! A recorded run, second by second: the rows of all its files joined while they are read, one second in memory at a time.
//!
//! Which seconds there are is said by headline.csv; what another file has of other seconds is passed over, and what it lacks is absent.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::dashboard::files::{FileError, Grid, GridRow, Lines, damaged};
use crate::dashboard::histogram;
use crate::dashboard::limits::{REASONS_MAX, RUN_SECONDS_MAX};
use crate::dashboard::record::{HEADLINE_FILE, HISTOGRAM_FILE, HOST_FILE, SECONDS_FILE};
use crate::dashboard::second::Role;
use crate::report::names;

/// What the columns of host.csv are called beside the others.
pub const HOST_PREFIX: &str = "host_";

/// What counts things by reason: its name here, whose counters they are, and what these begin with.
pub const GROUPS: [(&str, Role, &str); 4] = [
    ("ended", Role::Server, "connections_ended_"),
    ("answers", Role::Server, "answers_"),
    ("errors", Role::Server, "errors_"),
    ("violations", Role::Machine, "violations_"),
];

/// One second of a run, as recorded.
#[derive(Debug, Default)]
pub struct Row {
    /// Unix time.
    pub second: u64,
    /// Cells of headline.csv.
    pub headline: Vec<String>,
    /// Cells of host.csv without its second; empty where the host was not sampled.
    pub host: Vec<String>,
    /// By group and in the order of [`Replay::reasons`]; `None` where nobody told.
    pub reasons: [Vec<Option<i64>>; GROUPS.len()],
    /// The machines' latencies in this second.
    pub latency: Option<Histogram>,
    /// How far their sends were behind the plan.
    pub send_lag: Option<Histogram>,
}

type Histogram = hdrhistogram::Histogram<u64>;

/// A run being read.
#[derive(Debug)]
pub struct Replay {
    headline: Grid,
    row: GridRow,
    host: Option<HostReader>,
    reasons: Option<ReasonReader>,
    times: Option<TimeReader>,
    rows: u64,
}

/// Which parts of a run are wanted: each file takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Of seconds.csv, by far the longest.
    pub reasons: bool,
    /// Of latency.hlog.
    pub times: bool,
}

impl Replay {
    /// Opens a recording's files; only headline.csv has to be there. Where the run has not ended, its last second may be half
    /// written in the longest file, and is not told from there.
    pub fn open(directory: &Path, ended: bool, parts: Parts) -> Result<Self, FileError> {
        let optional = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        Ok(Self {
            headline: Grid::open(&directory.join(HEADLINE_FILE))?,
            row: GridRow::default(),
            host: optional(HOST_FILE).map(|path| HostReader::open(&path)).transpose()?,
            reasons: match optional(SECONDS_FILE).filter(|_| parts.reasons) {
                Some(path) => Some(ReasonReader::open(&path, ended)?),
                None => None,
            },
            times: match optional(HISTOGRAM_FILE).filter(|_| parts.times) {
                Some(path) => Some(TimeReader { lines: Lines::open(&path)?, ahead: None }),
                None => None,
            },
            rows: 0,
        })
    }

    /// Names of [`Row::headline`], then of [`Row::host`] with their prefix.
    pub fn columns(&self) -> Vec<String> {
        let host = self.host_columns().iter().map(|name| format!("{HOST_PREFIX}{name}"));
        self.headline.columns().iter().cloned().chain(host).collect()
    }

    /// Names of [`Row::host`], without the second.
    fn host_columns(&self) -> &[String] {
        self.host.as_ref().map_or(&[], |host| &host.grid.columns()[1..])
    }

    /// Names of [`Row::reasons`], group by group: those met so far.
    pub fn reasons(&self) -> [&[String]; GROUPS.len()] {
        self.reasons.as_ref().map_or([&[]; GROUPS.len()], |reader| reader.names.each_ref().map(Vec::as_slice))
    }

    /// Makes those names known from the start, in this order.
    pub fn expect_reasons(&mut self, names: &[Vec<String>; GROUPS.len()]) {
        if let Some(reader) = &mut self.reasons {
            for (group, names) in names.iter().enumerate() {
                for name in names {
                    reader.index(group, name.as_bytes());
                }
            }
        }
    }

    /// The next second; false after the last.
    pub fn next(&mut self, row: &mut Row) -> Result<bool, FileError> {
        if !self.headline.next_row(&mut self.row)? {
            return Ok(false);
        }
        self.rows += 1;
        if self.rows > RUN_SECONDS_MAX {
            return Err(self.headline.damaged(format!("more than {RUN_SECONDS_MAX} seconds; no more are told")));
        }
        row.second = self.row.second;
        std::mem::swap(&mut row.headline, &mut self.row.cells);
        row.host.clear();
        if let Some(host) = &mut self.host
            && let Some(cells) = host.at(row.second)?
        {
            row.host.extend_from_slice(&cells[1..]);
        }
        match &mut self.reasons {
            Some(reader) => reader.at(row.second, &mut row.reasons)?,
            None => row.reasons.iter_mut().for_each(Vec::clear),
        }
        (row.latency, row.send_lag) = match &mut self.times {
            Some(reader) => reader.at(row.second)?,
            None => (None, None),
        };
        Ok(true)
    }
}

#[derive(Debug)]
struct HostReader {
    grid: Grid,
    row: GridRow,
    /// A row is held that has not been asked for yet.
    held: bool,
}

impl HostReader {
    fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self { grid: Grid::open(path)?, row: GridRow::default(), held: false })
    }

    fn at(&mut self, second: u64) -> Result<Option<&[String]>, FileError> {
        while !self.held || self.row.second < second {
            self.held = self.grid.next_row(&mut self.row)?;
            if !self.held {
                return Ok(None);
            }
        }
        Ok((self.row.second == second).then_some(self.row.cells.as_slice()))
    }
}

/// Sums counters of seconds.csv by second and reason. Its rows are many: they are looked at as bytes, and most only in part.
#[derive(Debug)]
struct ReasonReader {
    lines: Lines,
    ended: bool,
    names: [Vec<String>; GROUPS.len()],
    known: HashMap<Vec<u8>, Option<Reason>>,
    /// A value read beyond the second that was asked for.
    ahead: Option<(u64, Option<Reason>, i64)>,
}

/// Group, and place in the group.
type Reason = (usize, usize);

impl ReasonReader {
    fn open(path: &Path, ended: bool) -> Result<Self, FileError> {
        let mut lines = Lines::open(path)?;
        if lines.next_text()?.is_none_or(|header| header != "second,complete,source,kind,name,value") {
            return Err(lines.damaged("it has another header than second,complete,source,kind,name,value"));
        }
        Ok(Self { lines, ended, names: Default::default(), known: HashMap::new(), ahead: None })
    }

    fn index(&mut self, group: usize, name: &[u8]) -> Option<Reason> {
        let text = str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
        let names = &mut self.names[group];
        let place = names.iter().position(|known| known == text).or_else(|| {
            names.push(text.to_owned());
            Some(names.len() - 1)
        });
        place.map(|place| (group, place))
    }

    fn next(&mut self) -> Result<Option<(u64, Option<Reason>, i64)>, FileError> {
        let Some(line) = self.lines.next_bytes()? else { return Ok(None) };
        let mut cells = line.splitn(6, |&byte| byte == b',');
        let (Some(second), Some(_), Some(source), Some(kind), Some(name), Some(value)) =
            (cells.next(), cells.next(), cells.next(), cells.next(), cells.next(), cells.next())
        else {
            return Err(self.lines.damaged("it has fewer than 6 cells"));
        };
        let number = |bytes: &[u8]| str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok());
        let (Some(second), Some(value)) = (number(second).and_then(|second| u64::try_from(second).ok()), number(value))
        else {
            return Err(self.lines.damaged("its second or its value is no number"));
        };
        if kind != b"counter" {
            return Ok(Some((second, None, value)));
        }
        // Some dozens of names come again with each source and second.
        let role_end = source.iter().position(|&byte| byte == b'/').unwrap_or(source.len());
        let mut key = source[..role_end].to_vec();
        key.push(b'/');
        key.extend_from_slice(name);
        if let Some(&reason) = self.known.get(&key) {
            return Ok(Some((second, reason, value)));
        }
        let group = GROUPS.iter().position(|(_, role, prefix)| {
            &source[..role_end] == role.name().as_bytes() && name.starts_with(prefix.as_bytes())
        });
        let name = group.map(|group| name[GROUPS[group].2.len()..].to_vec());
        let reason = group.zip(name).and_then(|(group, name)| self.index(group, &name));
        if self.known.len() >= 4 * REASONS_MAX * GROUPS.len() || self.names.iter().any(|names| names.len() > REASONS_MAX) {
            return Err(self.lines.damaged(format!("more than {REASONS_MAX} different names")));
        }
        self.known.insert(key, reason);
        Ok(Some((second, reason, value)))
    }

    fn at(&mut self, wanted: u64, sums: &mut [Vec<Option<i64>>; GROUPS.len()]) -> Result<(), FileError> {
        sums.iter_mut().for_each(Vec::clear);
        loop {
            let next = match self.ahead.take() {
                Some(ahead) => Some(ahead),
                None => self.next()?,
            };
            let Some((second, reason, value)) = next else {
                if !self.ended {
                    // Whoever writes may be in the middle of this second.
                    sums.iter_mut().for_each(Vec::clear);
                }
                return Ok(());
            };
            if second > wanted {
                self.ahead = Some((second, reason, value));
                return Ok(());
            }
            if second == wanted
                && let Some((group, place)) = reason
            {
                let sums = &mut sums[group];
                sums.resize(sums.len().max(place + 1), None);
                sums[place] = Some(sums[place].unwrap_or(0).saturating_add(value));
            }
        }
    }
}

/// The reasons that a run knows, group by group, in the order of the alphabet: what a table needs before its first row.
pub fn reasons_of(directory: &Path) -> Result<[Vec<String>; GROUPS.len()], FileError> {
    let path = directory.join(SECONDS_FILE);
    if !path.exists() {
        return Ok(Default::default());
    }
    let mut reader = ReasonReader::open(&path, true)?;
    while reader.next()?.is_some() {}
    let mut names = reader.names;
    names.iter_mut().for_each(|names| names.sort());
    Ok(names)
}

/// The machines' histograms of latency.hlog.
#[derive(Debug)]
struct TimeReader {
    lines: Lines,
    ahead: Option<(u64, bool, Histogram)>,
}

impl TimeReader {
    /// The next histogram that is told: its second, whether it is of latencies, and what is in it.
    fn next(&mut self, from: u64) -> Result<Option<(u64, bool, Histogram)>, FileError> {
        loop {
            let path = self.lines.path().to_owned();
            let Some(line) = self.lines.next_bytes()? else { return Ok(None) };
            let Some(entry) = IntervalLogIterator::new(line).next() else { continue };
            let LogEntry::Interval(interval) = entry.map_err(|error| damaged(&path)(format!("{error:?}")))? else {
                continue;
            };
            let second = interval.start_timestamp().as_secs();
            let latency = match interval.tag() {
                None => true,
                Some(tag) if tag.as_str().strip_prefix("machine.") == Some(names::SEND_LAG.name) => false,
                Some(_) => continue,
            };
            if second < from {
                continue;
            }
            let wrong = |problem: String| damaged(&path)(format!("second {second}: {problem}"));
            let bytes = STANDARD.decode(interval.encoded_histogram()).map_err(|error| wrong(error.to_string()))?;
            let histogram = histogram::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
            return Ok(Some((second, latency, histogram)));
        }
    }

    fn at(&mut self, wanted: u64) -> Result<(Option<Histogram>, Option<Histogram>), FileError> {
        let (mut latency, mut send_lag) = (None, None);
        loop {
            let next = match self.ahead.take() {
                Some(ahead) => Some(ahead),
                None => self.next(wanted)?,
            };
            match next {
                Some(ahead) if ahead.0 > wanted => {
                    self.ahead = Some(ahead);
                    break;
                }
                Some((second, true, histogram)) if second == wanted => latency = Some(histogram),
                Some((second, false, histogram)) if second == wanted => send_lag = Some(histogram),
                Some(_) => {}
                None => break,
            }
        }
        Ok((latency, send_lag))
    }
}
