//! Files of a recording, read back: as streams of whole lines, however long the run was and whoever
//! is still writing.
//!
//! A recording may be damaged, half written, or planted: only regular files are opened, no line and
//! no document is longer than its bound, and a last line without its end is no line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nix::libc;
use serde::de::DeserializeOwned;

use crate::limits::{DOCUMENT_BYTES_MAX, LINE_BYTES_MAX, MARKS_TOLD_MAX};
use crate::recording::write::VALUES_HEADER;
use crate::run::histogram;
use crate::run::mark::Mark;
use crate::run::second::{ANSWERS_PREFIX, ENDED_PREFIX, ERRORS_PREFIX, Role, VIOLATIONS_PREFIX};
use crate::run::series::NO_ANSWER;
use hongbao_telemetry::report::names;

/// Read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why a file of a recording cannot be told from. One line.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not what a monitor writes.
    #[error("{path} is damaged, or of another version: {problem}; record the run again, or repair the file")]
    Damaged {
        path: PathBuf,
        /// What is wrong, and where in the file.
        problem: String,
    },
}

/// A [`FileError::Damaged`] of that file, with the reader's own words.
pub fn damaged<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> FileError {
    move |error| FileError::Damaged { path: path.into(), problem: error.to_string().replace('\n', " ") }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Unreadable { path: path.into(), source }
}

/// Opens a file for reading if it is one: a link may lead anywhere, and a pipe would be waited for.
pub fn open(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable(path))?;
    if file.metadata().map_err(unreadable(path))?.is_file() {
        Ok(file)
    } else {
        Err(unreadable(path)(io::Error::other("not a regular file")))
    }
}

/// A whole JSON document of at most [`DOCUMENT_BYTES_MAX`] bytes.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let mut bytes = Vec::new();
    let limit = DOCUMENT_BYTES_MAX as u64;
    open(path)?.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable(path))?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(damaged(path)(format!("it is longer than {DOCUMENT_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(damaged(path))
}

/// The whole lines that a file had when it was opened, one after the other.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    reader: BufReader<Take<File>>,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl Lines {
    /// Opens a file; without its last line, if that has no end yet.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut file = open(path)?;
        let bytes = whole(&mut file).map_err(unreadable(path))?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, file.take(bytes));
        Ok(Self { path: path.into(), reader, line: Vec::new(), number: 0, bytes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long the whole lines are together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line, without its end; `None` after the last.
    pub fn next_bytes(&mut self) -> Result<Option<&[u8]>, FileError> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.line);
        if read.map_err(unreadable(&self.path))? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.pop() != Some(b'\n') {
            return Err(self.damaged(format!("it is longer than {LINE_BYTES_MAX} bytes")));
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(Some(&self.line))
    }

    /// The next line as text.
    pub fn next_text(&mut self) -> Result<Option<&str>, FileError> {
        if self.next_bytes()?.is_none() {
            return Ok(None);
        }
        match str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(self.damaged(error)),
        }
    }

    /// What is wrong with the line that was read last.
    pub fn damaged(&self, problem: impl std::fmt::Display) -> FileError {
        damaged(&self.path)(format!("line {}: {problem}", self.number))
    }
}

/// Where the last whole line ends.
fn whole(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BUFFER_BYTES];
    while end > 0 {
        let start = end.saturating_sub(BUFFER_BYTES as u64);
        let length = usize::try_from(end - start).unwrap_or(BUFFER_BYTES);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block[..length])?;
        if let Some(last) = block[..length].iter().rposition(|&byte| byte == b'\n') {
            end = start + last as u64 + 1;
            break;
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(end)
}

/// The first cell of the last whole line, where it is a number: the last second of a file of one
/// row a second.
pub fn last_second(path: &Path) -> Result<Option<u64>, FileError> {
    let mut file = open(path)?;
    let end = whole(&mut file).map_err(unreadable(path))?;
    let start = end.saturating_sub(LINE_BYTES_MAX as u64);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start)).map_err(unreadable(path))?;
    file.take(end - start).read_to_end(&mut tail).map_err(unreadable(path))?;
    let tail = tail.strip_suffix(b"\n").unwrap_or(&tail);
    let line = tail.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let cell = line.split(|&byte| byte == b',').next().unwrap_or_default();
    Ok(str::from_utf8(cell).ok().and_then(|cell| cell.parse().ok()))
}

/// A file of one row of figures a second: a header that begins with `second`, then numbers, `true`
/// and `false`, or nothing.
#[derive(Debug)]
pub struct Grid {
    lines: Lines,
    columns: Vec<String>,
    last: Option<u64>,
}

/// Columns of a file.
const COLUMNS_MAX: usize = 512;

/// One row, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GridRow {
    pub second: u64,
    /// One cell for each column, `second` among them.
    pub cells: Vec<String>,
}

impl Grid {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut lines = Lines::open(path)?;
        let header = lines.next_text()?.unwrap_or_default().to_owned();
        let columns: Vec<String> = header.split(',').map(str::to_owned).collect();
        let plain = |name: &String| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        };
        let mut distinct: Vec<&String> = columns.iter().collect();
        distinct.sort();
        distinct.dedup();
        let problem = match columns.first() {
            _ if header.is_empty() => Some("it has no header".to_owned()),
            Some(first) if first != "second" => Some(format!("its first column is {first:?}, not second")),
            _ if columns.len() > COLUMNS_MAX => Some(format!("it has more than {COLUMNS_MAX} columns")),
            _ if !columns.iter().all(plain) => Some("a column's name is none".to_owned()),
            _ if distinct.len() < columns.len() => Some("two columns have one name".to_owned()),
            _ => None,
        };
        match problem {
            Some(problem) => Err(lines.damaged(problem)),
            None => Ok(Self { lines, columns, last: None }),
        }
    }

    /// Names of the columns, `second` first.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What is wrong with the row that was read last.
    pub fn damaged(&self, problem: impl std::fmt::Display) -> FileError {
        self.lines.damaged(problem)
    }

    /// The next row. A row of a second that has been told already is passed over: clocks are set
    /// back now and then.
    pub fn next_row(&mut self, row: &mut GridRow) -> Result<bool, FileError> {
        loop {
            let Some(text) = self.lines.next_text()? else { return Ok(false) };
            row.cells.clear();
            row.cells.extend(text.split(',').map(str::to_owned));
            let wrong = match row.cells.iter().find(|cell| figure(cell).is_err()) {
                _ if row.cells.len() != self.columns.len() => {
                    Some(format!("{} cells for {} columns", row.cells.len(), self.columns.len()))
                }
                Some(cell) => Some(format!("{cell:?} is no figure")),
                None => None,
            };
            if let Some(wrong) = wrong {
                return Err(self.lines.damaged(wrong));
            }
            row.second = match row.cells[0].parse() {
                Ok(second) => second,
                Err(error) => return Err(self.lines.damaged(format!("second: {error}"))),
            };
            if self.last.is_none_or(|last| row.second > last) {
                self.last = Some(row.second);
                return Ok(true);
            }
        }
    }
}

/// A cell's figure: nothing is none, `true` is 1.
pub fn figure(cell: &str) -> Result<Option<f64>, std::num::ParseFloatError> {
    match cell {
        "" => Ok(None),
        "true" => Ok(Some(1.0)),
        "false" => Ok(Some(0.0)),
        number => number.parse().map(|number: f64| Some(number).filter(|number| number.is_finite())),
    }
}

/// A row of seconds.csv, as far as anybody sums it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value<'a> {
    /// Unix time.
    pub second: u64,
    /// What kind of process told it; one that this version does not know is none.
    pub role: Option<Role>,
    /// A counter's part of this second; else a gauge.
    pub counter: bool,
    pub name: &'a [u8],
    /// Likewise.
    pub value: i64,
}

/// The rows of seconds.csv. They are many, millions an hour: they are looked at as bytes, and
/// nothing is copied.
#[derive(Debug)]
pub struct Values(Lines);

impl Values {
    /// Opens the file and checks its header.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut lines = Lines::open(path)?;
        if lines.next_text()?.is_none_or(|header| header != VALUES_HEADER.trim_end()) {
            return Err(lines.damaged(format!("it has another header than {}", VALUES_HEADER.trim_end())));
        }
        Ok(Self(lines))
    }

    /// The next row; `None` after the last.
    pub fn next_value(&mut self) -> Result<Option<Value<'_>>, FileError> {
        if self.0.next_bytes()?.is_none() {
            return Ok(None);
        }
        match value(&self.0.line) {
            Some(value) => Ok(Some(value)),
            None => Err(self.0.damaged("it is no row of second, complete, source, kind, name and value")),
        }
    }

    /// What is wrong with the row that was read last.
    pub fn damaged(&self, problem: impl std::fmt::Display) -> FileError {
        self.0.damaged(problem)
    }
}

fn value(line: &[u8]) -> Option<Value<'_>> {
    let mut cells = line.splitn(6, |&byte| byte == b',');
    let (second, _, source, kind) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
    let (name, value) = (cells.next()?, cells.next()?);
    let role = source.split(|&byte| byte == b'/').next()?;
    Some(Value {
        second: str::from_utf8(second).ok()?.parse().ok()?,
        role: str::from_utf8(role).ok().and_then(Role::from_name),
        counter: kind == b"counter",
        name,
        value: str::from_utf8(value).ok()?.parse().ok()?,
    })
}

/// The histograms of latency.hlog.
#[derive(Debug)]
pub struct Times(Lines);

impl Times {
    /// Opens the file.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Lines::open(path).map(Self)
    }

    /// The next one of those `wanted` by second and `role.name`; the others are not decoded.
    pub fn next_time(
        &mut self,
        wanted: impl Fn(u64, &str) -> bool,
    ) -> Result<Option<(u64, String, Histogram<u64>)>, FileError> {
        let path = self.0.path.clone();
        let wrong = damaged::<String>;
        loop {
            if self.0.next_bytes()?.is_none() {
                return Ok(None);
            }
            // The library wants a line with its end.
            self.0.line.push(b'\n');
            let Some(entry) = IntervalLogIterator::new(&self.0.line).next() else { continue };
            let LogEntry::Interval(interval) = entry.map_err(|error| wrong(&path)(format!("{error:?}")))? else {
                continue;
            };
            let second = interval.start_timestamp().as_secs();
            let name = interval
                .tag()
                .map_or_else(|| format!("{}.{}", Role::Machine, names::LATENCY.name), |tag| tag.as_str().to_owned());
            if !wanted(second, &name) {
                continue;
            }
            let bytes = STANDARD
                .decode(interval.encoded_histogram())
                .map_err(|error| wrong(&path)(format!("second {second}: {error}")))?;
            let histogram =
                histogram::decode(&bytes).map_err(|error| wrong(&path)(format!("second {second}: {error}")))?;
            return Ok(Some((second, name, histogram)));
        }
    }
}

/// The latest marks of marks.csv, at most [`MARKS_TOLD_MAX`], sorted by time; none where there is
/// no such file.
pub fn marks(path: &Path) -> Result<Vec<Mark>, FileError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut lines = Lines::open(path)?;
    let header = csv::StringRecord::from(lines.next_text()?.unwrap_or_default().split(',').collect::<Vec<_>>());
    let mut marks = std::collections::VecDeque::new();
    while let Some(line) = lines.next_text()? {
        let mut record = csv::StringRecord::new();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        let read = reader.read_record(&mut record).and_then(|_| record.deserialize::<Mark>(Some(&header)));
        let mark = match read {
            Ok(mark) => mark,
            Err(error) => return Err(lines.damaged(error)),
        };
        if marks.len() == MARKS_TOLD_MAX {
            marks.pop_front();
        }
        marks.push_back(mark);
    }
    let mut marks = Vec::from(marks);
    marks.sort_by_key(|mark: &Mark| mark.at_ms);
    Ok(marks)
}

/// What counts things by reason: its name, whose counters they are, and what these begin with.
pub const GROUPS: [(&str, Role, &str); 4] = [
    ("ended", Role::Server, ENDED_PREFIX),
    ("answers", Role::Server, ANSWERS_PREFIX),
    ("errors", Role::Server, ERRORS_PREFIX),
    ("violations", Role::Machine, VIOLATIONS_PREFIX),
];

impl<'a> Value<'a> {
    /// The group that this counts for, and the reason.
    pub fn reason(&self) -> Option<(usize, &'a str)> {
        let role = self.role.filter(|_| self.counter)?;
        let (group, rest) = GROUPS.iter().enumerate().find_map(|(group, (_, whose, prefix))| {
            let rest = self.name.strip_prefix(prefix.as_bytes())?;
            (*whose == role).then_some((group, rest))
        })?;
        let reason = str::from_utf8(rest).ok().filter(|rest| !rest.is_empty() && *rest != NO_ANSWER)?;
        Some((group, reason))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(text: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.csv");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn rows(path: &Path) -> Result<Vec<GridRow>, FileError> {
        let (mut grid, mut row, mut rows) = (Grid::open(path)?, GridRow::default(), Vec::new());
        while grid.next_row(&mut row)? {
            rows.push(row.clone());
        }
        Ok(rows)
    }

    #[test]
    fn a_last_line_that_is_half_written_is_no_line() {
        let (_directory, path) = file(b"second,x\n1,2\n2,3\n3,");
        assert_eq!(rows(&path).unwrap().len(), 2);
        assert_eq!(last_second(&path).unwrap(), Some(2));
        for (text, last) in [(&b""[..], None), (b"second,x\n", None), (b"second,x\n9,1\n", Some(9)), (b"no end", None)]
        {
            let (_directory, path) = file(text);
            assert_eq!(last_second(&path).unwrap(), last);
        }
    }

    #[test]
    fn the_last_whole_line_is_found_however_far_back_it_lies() {
        let mut text = b"second,x\n7,1\n".to_vec();
        text.extend(vec![b'1'; 3 * BUFFER_BYTES]);
        let (_directory, path) = file(&text);
        assert_eq!((rows(&path).unwrap().len(), last_second(&path).unwrap()), (1, Some(7)));
    }

    #[test]
    fn a_row_of_a_second_that_was_told_is_passed_over() {
        let (_directory, path) = file(b"second,x\n5,1\n4,2\n5,3\n6,4\n");
        assert_eq!(rows(&path).unwrap().iter().map(|row| row.second).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn what_no_monitor_writes_is_refused_with_its_line() {
        let wide = format!("second,{}\n", (0..COLUMNS_MAX).map(|n| format!("c{n}")).collect::<Vec<_>>().join(","));
        let long = format!("second,x\n1,{}\n", "1".repeat(LINE_BYTES_MAX));
        for (text, part) in [
            ("", "no header"),
            ("when,x\n", "not second"),
            ("second,x,x\n", "one name"),
            ("second,=cmd()\n", "a column's name"),
            (&wide, "columns"),
            ("second,x\n1,2,3\n", "line 2: 3 cells"),
            ("second,x\n1,2\n2,many\n", "line 3: \"many\""),
            ("second,x\n-1,2\n", "line 2: second"),
            (&long, "line 2: it is longer than"),
        ] {
            let (_directory, path) = file(text.as_bytes());
            let error = rows(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("damaged"), "{error} should say {part}");
        }
        let (_directory, path) = file(&[b's', 0xff, b'\n']);
        assert!(rows(&path).unwrap_err().to_string().contains("utf-8"));
    }

    #[test]
    fn links_pipes_and_directories_are_not_opened() {
        let (directory, path) = file(b"second,x\n");
        let (link, pipe) = (directory.path().join("link"), directory.path().join("pipe"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for odd in [link.as_path(), &pipe, directory.path()] {
            assert!(matches!(open(odd), Err(FileError::Unreadable { .. })), "{}", odd.display());
        }
        assert!(open(&path).is_ok());
    }

    #[test]
    fn the_latest_marks_are_told_by_time_and_a_text_may_have_commas() {
        let mut text = "at_ms,kind,source,text\n".to_owned();
        for number in (0..MARKS_TOLD_MAX as u64 + 2).rev() {
            text.push_str(&format!("{number},qps,monitor,\"so, {number}\"\n"));
        }
        text.push_str("7,half");
        let (_directory, path) = file(text.as_bytes());
        let told = marks(&path).unwrap();
        assert_eq!((told.len(), told[0].at_ms, told[1].text.as_str()), (MARKS_TOLD_MAX, 0, "so, 1"));
        let (_directory, path) = file(b"at_ms,kind,source,text\nsoon,a,b,c\n");
        assert!(marks(&path).unwrap_err().to_string().contains("line 2"));
        assert!(marks(Path::new("/no/such/marks.csv")).unwrap().is_empty());
    }

    #[test]
    fn a_document_longer_than_its_bound_is_refused() {
        let (_directory, path) = file(&vec![b' '; DOCUMENT_BYTES_MAX + 1]);
        assert!(json::<serde_json::Value>(&path).unwrap_err().to_string().contains("longer than"));
    }
}
