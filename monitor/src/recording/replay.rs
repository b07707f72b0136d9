//! A recorded run, second by second: the rows of all its files joined while they are read, one
//! second in memory at a time.
//!
//! Which seconds there are is said by headline.csv; what another file has of other seconds is
//! passed over, and what it lacks is absent.

use std::collections::HashMap;
use std::path::Path;

use crate::limits::{REASONS_MAX, RUN_SECONDS_MAX};
use crate::recording::read::{self, FileError, GROUPS, Grid, GridRow, Times, Values};
use crate::recording::write::{HEADLINE_FILE, HISTOGRAM_FILE, HOST_FILE, SECONDS_FILE};
use crate::run::host::HostSecond;
use crate::run::second::Headline;
use crate::run::series::{self, Heat, Reasons, heat_of};
use hongbao_telemetry::report::names;

/// What the columns of host.csv are called beside the others.
pub const HOST_PREFIX: &str = "host_";

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

/// Reasons by group of [`GROUPS`].
pub type ReasonNames = [Vec<String>; GROUPS.len()];

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
    /// Opens a recording's files; only headline.csv has to be there. Where the run has not ended,
    /// its last second may be half written in the longest file, and is not told from there.
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
                Some(path) => Some(TimeReader { times: Times::open(&path)?, ahead: None }),
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

    /// How many columns headline.csv has, and how many of host.csv are told.
    pub fn widths(&self) -> [usize; 2] {
        [self.headline.columns().len(), self.host_columns().len()]
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
    pub fn expect_reasons(&mut self, names: &ReasonNames) {
        if let Some(reader) = &mut self.reasons {
            reader.names.clone_from(names);
            let place = |(place, name): (usize, &String)| (name.as_bytes().to_vec(), place);
            reader.places = names.each_ref().map(|names| names.iter().enumerate().map(place).collect());
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

/// The first and the last second of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Unix time.
    pub first: u64,
    /// Likewise.
    pub last: u64,
}

/// A run's extent without reading all of it; none of a run of no second.
pub fn extent(directory: &Path) -> Result<Option<Extent>, FileError> {
    let path = directory.join(HEADLINE_FILE);
    let (mut grid, mut row) = (Grid::open(&path)?, GridRow::default());
    if !grid.next_row(&mut row)? {
        return Ok(None);
    }
    let last = read::last_second(&path)?.unwrap_or(row.second).max(row.second);
    Ok(Some(Extent { first: row.second, last }))
}

/// The seconds of a run as they are told live; of `from..=until` only, `every` of them folded into
/// one, where that is given.
pub fn rows(directory: &Path, ended: bool, stretch: Option<(u64, u64, u64)>) -> Result<Vec<series::Row>, FileError> {
    let (from, until, every) = stretch.unwrap_or((0, u64::MAX, 1));
    let mut replay = Replay::open(directory, ended, Parts { reasons: true, times: true })?;
    let columns = replay.columns();
    let (headline, host) = columns.split_at(replay.widths()[0]);
    let plain = host.iter().map(|name| name.strip_prefix(HOST_PREFIX).unwrap_or(name));
    let host = csv::StringRecord::from_iter(std::iter::once("second").chain(plain));
    let headline = csv::StringRecord::from(headline);
    let (mut row, mut rows, mut group) = (Row::default(), Vec::new(), Vec::<series::Row>::new());
    let fold = |group: &mut Vec<series::Row>, rows: &mut Vec<series::Row>| {
        rows.extend(series::Row::folded(&group.iter().collect::<Vec<_>>()));
        group.clear();
    };
    while replay.next(&mut row)? {
        if row.second < from {
            continue;
        }
        if row.second > until {
            break;
        }
        let told = typed(&row, &replay, &headline, &host).map_err(|error| replay.headline.damaged(error))?;
        if group.first().is_some_and(|first| first.second() / every != row.second / every) {
            fold(&mut group, &mut rows);
        }
        group.push(told);
    }
    fold(&mut group, &mut rows);
    Ok(rows)
}

fn typed(
    row: &Row,
    replay: &Replay,
    headline: &csv::StringRecord,
    host: &csv::StringRecord,
) -> Result<series::Row, csv::Error> {
    let figures: Headline = csv::StringRecord::from(row.headline.as_slice()).deserialize(Some(headline))?;
    let sampled: Option<HostSecond> = match row.host.as_slice() {
        [] => None,
        cells => {
            let second = row.second.to_string();
            let cells = std::iter::once(second.as_str()).chain(cells.iter().map(String::as_str));
            Some(csv::StringRecord::from_iter(cells).deserialize(Some(host))?)
        }
    };
    let mut reasons = Reasons::default();
    for (((_, role, prefix), names), sums) in GROUPS.iter().zip(replay.reasons()).zip(&row.reasons) {
        for (name, sum) in names.iter().zip(sums).filter_map(|(name, sum)| Some((name, (*sum)?))) {
            // Of a group that we read: it always belongs somewhere.
            reasons.add(*role, &format!("{prefix}{name}"), sum);
        }
    }
    let heat = |histogram: &Option<Histogram>| histogram.as_ref().filter(|times| !times.is_empty()).map(heat_of);
    let heat = Heat { latency: heat(&row.latency), send_lag: heat(&row.send_lag) };
    Ok(series::Row::new(&figures, sampled.as_ref(), reasons, heat))
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

/// Sums counters of seconds.csv by second and reason.
#[derive(Debug)]
struct ReasonReader {
    values: Values,
    ended: bool,
    names: ReasonNames,
    places: [HashMap<Vec<u8>, usize>; GROUPS.len()],
    /// A value read beyond the second that was asked for.
    ahead: Option<(u64, Option<Reason>, i64)>,
}

/// Group, and place in the group.
type Reason = (usize, usize);

impl ReasonReader {
    fn open(path: &Path, ended: bool) -> Result<Self, FileError> {
        let values = Values::open(path)?;
        Ok(Self { values, ended, names: Default::default(), places: Default::default(), ahead: None })
    }

    fn next(&mut self) -> Result<Option<(u64, Option<Reason>, i64)>, FileError> {
        let Some(row) = self.values.next_value()? else { return Ok(None) };
        let (second, value) = (row.second, row.value);
        let Some((group, reason)) = row.reason() else { return Ok(Some((second, None, value))) };
        // Some dozens of names come again with each source and second.
        let place = match self.places[group].get(reason.as_bytes()) {
            Some(&place) => place,
            None => self.names[group].len(),
        };
        if place == self.names[group].len() {
            self.places[group].insert(reason.as_bytes().to_vec(), place);
            self.names[group].push(reason.to_owned());
            if place == REASONS_MAX {
                return Err(self.values.damaged(format!("more than {REASONS_MAX} different reasons")));
            }
        }
        Ok(Some((second, Some((group, place)), value)))
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

/// The reasons that a run knows, group by group, sorted: what a table needs before its first row.
pub fn reasons_of(directory: &Path) -> Result<ReasonNames, FileError> {
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
    times: Times,
    ahead: Option<(u64, bool, Histogram)>,
}

impl TimeReader {
    /// The next histogram that is told: its second, whether it is of latencies, and what is in it.
    fn next(&mut self, from: u64) -> Result<Option<(u64, bool, Histogram)>, FileError> {
        let latency = |name: &str| name.strip_prefix("machine.") == Some(names::LATENCY.name);
        let wanted = |second: u64, name: &str| {
            second >= from && (latency(name) || name.strip_prefix("machine.") == Some(names::SEND_LAG.name))
        };
        let next = self.times.next_time(wanted)?;
        Ok(next.map(|(second, name, histogram)| (second, latency(&name), histogram)))
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

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::fs;

    use super::*;
    use crate::run::series::Series;

    fn fixture() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recording")
    }

    #[test]
    fn a_run_folded_while_read_equals_one_folded_afterwards() {
        let whole = rows(&fixture(), true, None).unwrap();
        let folded = rows(&fixture(), true, Some((0, u64::MAX, 7))).unwrap();
        assert!(whole.len() == 30 && folded.len() <= 6);
        assert_eq!(Series::of("r", 7, &folded), Series::of("r", 7, &whole));
        let extent = extent(&fixture()).unwrap().unwrap();
        assert_eq!((extent.first, extent.last), (whole[0].second(), whole[29].second()));
        let part = rows(&fixture(), true, Some((extent.first + 3, extent.first + 5, 1))).unwrap();
        assert_eq!(part.iter().map(series::Row::second).collect::<Vec<_>>(), [3, 4, 5].map(|at| extent.first + at));
    }

    #[test]
    fn seconds_a_file_lacks_are_absent_and_headless_ones_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file, text| fs::write(directory.path().join(file), text).unwrap();
        write(HEADLINE_FILE, "second,complete\n5,true\n7,true\n8,true\n");
        write(HOST_FILE, "second,x\n4,40\n6,60\n7,70\n9,90\n");
        write(
            SECONDS_FILE,
            "second,complete,source,kind,name,value\n4,true,server/a,counter,answers_won,1\n5,true,server/a,counter,answers_won,2\n\
             5,true,server/b,counter,answers_won,3\n5,true,machine/m,counter,answers_won,50\n5,true,server/a,gauge,answers_odd,9\n\
             6,true,server/a,counter,answers_won,7\n8,true,server/a,counter,errors_malformed,4\n",
        );
        let parts = Parts { reasons: true, times: true };
        let (mut replay, mut row) = (Replay::open(directory.path(), true, parts).unwrap(), Row::default());
        let mut told = Vec::new();
        while replay.next(&mut row).unwrap() {
            told.push((row.second, row.host.concat(), row.reasons[1].clone(), row.reasons[2].clone()));
        }
        let none = String::new;
        assert_eq!(
            told,
            [(5, none(), vec![Some(5)], vec![]), (7, "70".into(), vec![], vec![]), (8, none(), vec![], vec![Some(4)])]
        );
        assert_eq!(replay.columns(), ["second", "complete", "host_x"]);
        assert_eq!(reasons_of(directory.path()).unwrap()[1], ["won"]);
    }

    #[test]
    fn more_reasons_or_seconds_than_the_bounds_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |file: &str, text: &str| {
            fs::write(directory.path().join(file), text).unwrap();
            rows(directory.path(), true, Some((u64::MAX, u64::MAX, 1))).unwrap_err().to_string()
        };
        let mut values = crate::recording::write::VALUES_HEADER.to_owned();
        for number in 0..=REASONS_MAX {
            writeln!(values, "1,true,server/s,counter,answers_{number},1").unwrap();
        }
        fs::write(directory.path().join(HEADLINE_FILE), "second,complete\n1,true\n").unwrap();
        assert!(refused(SECONDS_FILE, &values).contains(&format!("line {}", REASONS_MAX + 2)));
        fs::remove_file(directory.path().join(SECONDS_FILE)).unwrap();
        let mut headline = "second\n".to_owned();
        for second in 0..=RUN_SECONDS_MAX {
            writeln!(headline, "{second}").unwrap();
        }
        assert!(refused(HEADLINE_FILE, &headline).contains("no more are told"));
    }
}
