//! A recording, read back by query: however long the run was, and whoever is still writing it.
//!
//! A recording may be damaged, half written, or planted: only a regular file is opened, views and
//! triggers in it do nothing, and nothing is inflated beyond its bound.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, Row as SqlRow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::limits::{DOCUMENT_BYTES_MAX, MARKS_TOLD_MAX, RUN_SECONDS_MAX};
use crate::recording::{APPLICATION_ID, FILE, OLD_FILE, RunStatus, VERSION, headline_columns, host_columns};
use crate::run::histogram;
use crate::run::host::HostSecond;
use crate::run::mark::Mark;
use crate::run::merge::Presence;
use crate::run::second::{Headline, ReportedByRole};
use crate::run::series::{self, Heat, Reasons};
use hongbao_telemetry::summary::Second as Load;

/// Why a recording cannot be read. One line.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0} holds no recording: {FILE} is missing; name a directory that hongbao-monitor has recorded to")]
    Foreign(PathBuf),
    #[error("{0} was recorded as CSV by an older version, which alone reads it; record the run again")]
    Old(PathBuf),
    #[error("cannot read {path}: {problem}")]
    Unreadable {
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// Not what a monitor writes.
    #[error("{path} is damaged, or of another version: {problem}; record the run again, or repair the file")]
    Damaged {
        path: PathBuf,
        /// What is wrong, and where in the file.
        problem: String,
    },
}

/// A [`ReadError::Damaged`] of that file, in one line.
pub fn damaged<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> ReadError {
    move |error| ReadError::Damaged { path: path.into(), problem: error.to_string().replace('\n', " ") }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    move |error| ReadError::Unreadable { path: path.into(), problem: error.to_string() }
}

/// A link may lead anywhere, and a pipe would be waited for.
fn regular(path: &Path) -> Result<(), ReadError> {
    match fs::symlink_metadata(path).map_err(unreadable(path))?.is_file() {
        true => Ok(()),
        false => Err(unreadable(path)(io::Error::other("not a regular file"))),
    }
}

/// A whole JSON document of at most [`DOCUMENT_BYTES_MAX`] bytes: the fleet's summary beside the
/// recording.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T, ReadError> {
    regular(path)?;
    let file = fs::File::open(path).map_err(unreadable(path))?;
    serde_json::from_slice(&bounded(file).map_err(damaged(path))?).map_err(damaged(path))
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() <= DOCUMENT_BYTES_MAX {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("it is longer than {DOCUMENT_BYTES_MAX} bytes"))),
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

/// A closed second, with the host's row of it.
#[derive(Debug, Clone)]
pub struct Second {
    pub headline: Headline,
    pub host: Option<HostSecond>,
    pub reasons: Reasons,
    pub heat: Heat,
}

/// What the seconds of a run come to, for a list. What no second tells is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    pub seconds: Option<u64>,
    pub seconds_complete: Option<u64>,
    /// Most users on-line in a complete second.
    pub users_max: Option<f64>,
    /// Most answers to scheduled requests in a complete second.
    pub qps_max: Option<f64>,
    /// 99th percentile of latency in the middle one of all complete seconds that had answers,
    /// sorted by it.
    pub latency_p99_us: Option<f64>,
    /// Wins in the ledgers.
    pub won: Option<i64>,
}

/// A recording, open for reading. It is not written to, and nothing is made beside it once its run
/// has ended.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
}

impl Reader {
    pub fn open(directory: &Path) -> Result<Self, ReadError> {
        // Of links, the file's own is refused below.
        let directory = &fs::canonicalize(directory).map_err(|_| ReadError::Foreign(directory.into()))?;
        let path = directory.join(FILE);
        match regular(&path) {
            Ok(()) => {}
            Err(_) if directory.join(OLD_FILE).exists() => return Err(ReadError::Old(directory.into())),
            Err(_) if !path.is_symlink() && !path.exists() => return Err(ReadError::Foreign(directory.into())),
            Err(error) => return Err(error),
        }
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let opened = || {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
            let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
            let whose = (read("application_id")?, read("user_version")?);
            Ok((connection, whose))
        };
        match opened().map_err(|error| failed(&path, error))? {
            (connection, (APPLICATION_ID, VERSION)) => Ok(Self { path, connection }),
            (_, (id, version)) => {
                let problem = format!("application id {id}, version {version}; known is {APPLICATION_ID}, {VERSION}");
                Err(damaged(&path)(problem))
            }
        }
    }

    /// What is wrong with the recording, for whoever makes something of it.
    pub fn damaged(&self, problem: impl std::fmt::Display) -> ReadError {
        damaged(&self.path)(problem)
    }

    fn failed(&self, error: rusqlite::Error) -> ReadError {
        failed(&self.path, error)
    }

    /// Each row of a query is handed to `take`, whose error is a damage of the row.
    fn each(
        &self,
        sql: &str,
        params: impl Params,
        mut take: impl FnMut(&SqlRow<'_>) -> Result<(), Box<dyn std::error::Error>>,
    ) -> Result<(), ReadError> {
        self.each_while(sql, params, |row| take(row).map(|()| true))
    }

    /// What `make` reads of each row.
    fn list<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut make: impl FnMut(&SqlRow<'_>) -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<Vec<T>, ReadError> {
        let mut rows = Vec::new();
        self.each(sql, params, |row| {
            rows.push(make(row)?);
            Ok(())
        })?;
        Ok(rows)
    }

    fn each_while(
        &self,
        sql: &str,
        params: impl Params,
        mut take: impl FnMut(&SqlRow<'_>) -> Result<bool, Box<dyn std::error::Error>>,
    ) -> Result<(), ReadError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.failed(error))?;
        let mut rows = statement.query(params).map_err(|error| self.failed(error))?;
        while let Some(row) = rows.next().map_err(|error| self.failed(error))? {
            if !take(row).map_err(damaged(&self.path))? {
                break;
            }
        }
        Ok(())
    }

    fn one<T: rusqlite::types::FromSql>(&self, sql: &str, params: impl Params) -> Result<Option<T>, ReadError> {
        self.connection.query_row(sql, params, |row| row.get(0)).optional().map_err(|error| self.failed(error))
    }

    /// What the run is, or was. A monitor that could write nothing of it leaves none.
    pub fn run(&self) -> Result<RunStatus, ReadError> {
        serde_json::from_value(self.document()?["run"].take()).map_err(damaged(&self.path))
    }

    /// `{"run": …, "sources": […]}`, as the monitor told of them last.
    pub fn document(&self) -> Result<Value, ReadError> {
        let text: Option<String> =
            self.one("SELECT json_object('run', json(status), 'sources', json(sources)) FROM run", [])?;
        let text = text.ok_or_else(|| damaged(&self.path)("it does not say what the run was"))?;
        serde_json::from_str(&text).map_err(damaged(&self.path))
    }

    /// Every process as the monitor told of it last; or as it was at a second, by what it reported
    /// then.
    pub fn sources(&self, at: Option<u64>) -> Result<Value, ReadError> {
        let mut sources = self.document()?["sources"].take();
        let Some(at) = at else { return Ok(sources) };
        let mut reported = ReportedByRole::new();
        self.reported(at, at, |_, roles| reported = roles)?;
        for source in sources.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            let text = |name: &str| source.get(name).and_then(Value::as_str).unwrap_or_default();
            let figures = reported.get(text("role")).and_then(|reported| reported.figures(text("name")));
            // Whoever took its leave before stays as it was.
            let presence = match figures {
                Some(_) => Presence::Reporting,
                None if source.get("last_second").and_then(Value::as_u64) < Some(at) => continue,
                None => Presence::Lost,
            };
            source.insert("presence".to_owned(), json!(presence));
            source.insert("last_second".to_owned(), json!(figures.map(|_| at)));
            if let Value::Object(figures) = json!(figures.unwrap_or_default()) {
                source.extend(figures);
            }
        }
        Ok(sources)
    }

    /// The run's seconds; none of a run without any.
    pub fn extent(&self) -> Result<Option<Extent>, ReadError> {
        let sql = "SELECT min(second), max(second), count(*) FROM seconds";
        let extent = self.list(sql, [], |row| match unsigned(row, 2)? {
            0 => Ok(None),
            count if count > RUN_SECONDS_MAX => {
                Err(format!("more than {RUN_SECONDS_MAX} seconds; no more are told").into())
            }
            _ => Ok(Some(Extent { first: unsigned(row, 0)?, last: unsigned(row, 1)? })),
        })?;
        Ok(extent.into_iter().next().flatten())
    }

    /// The seconds `from..=until`, in order, until `take` is false.
    pub fn seconds(&self, from: u64, until: u64, mut take: impl FnMut(Second) -> bool) -> Result<(), ReadError> {
        let (headline, host) = (headline_columns(), host_columns());
        let names =
            |table: &str, names: &[&str]| names.iter().map(|name| format!("{table}.{name}")).collect::<Vec<_>>();
        let columns = [names("seconds", &headline), names("hosts", &host)].concat().join(", ");
        let sql = format!(
            "SELECT {columns}, reasons, heat FROM seconds LEFT JOIN hosts USING (second)
             WHERE second BETWEEN ? AND ? ORDER BY second"
        );
        let (hosts, texts) = (headline.len(), headline.len() + host.len());
        self.each_while(&sql, range(from, until), |row| {
            let sampled = row.get_ref(hosts)? != ValueRef::Null;
            Ok(take(Second {
                headline: typed(row, 0, &headline)?,
                host: if sampled { Some(typed(row, hosts, &host)?) } else { None },
                reasons: serde_json::from_str(row.get_ref(texts)?.as_str()?)?,
                heat: serde_json::from_str(row.get_ref(texts + 1)?.as_str()?)?,
            }))
        })
    }

    /// The same as they are told live, `every` of them folded into one.
    pub fn rows(&self, from: u64, until: u64, every: u64) -> Result<Vec<series::Row>, ReadError> {
        let (mut rows, mut group) = (Vec::new(), Vec::<series::Row>::new());
        let fold = |group: &mut Vec<series::Row>, rows: &mut Vec<series::Row>| {
            rows.extend(series::Row::folded(&group.iter().collect::<Vec<_>>()));
            group.clear();
        };
        self.seconds(from, until, |Second { headline, host, reasons, heat }| {
            if group.first().is_some_and(|first| first.second() / every != headline.second / every) {
                fold(&mut group, &mut rows);
            }
            group.push(series::Row::new(&headline, host.as_ref(), reasons, heat));
            true
        })?;
        fold(&mut group, &mut rows);
        Ok(rows)
    }

    /// The host's rows, those of seconds in which nobody reported too.
    pub fn hosts(&self) -> Result<Vec<HostSecond>, ReadError> {
        let columns = host_columns();
        let sql = format!("SELECT {} FROM hosts ORDER BY second", columns.join(", "));
        self.list(&sql, [], |row| typed(row, 0, &columns))
    }

    /// What each process reported in the seconds `from..=until`, in order.
    pub fn reported(&self, from: u64, until: u64, mut take: impl FnMut(u64, ReportedByRole)) -> Result<(), ReadError> {
        let sql = "SELECT second, reported FROM sources WHERE second BETWEEN ? AND ? ORDER BY second";
        self.each(sql, range(from, until), |row| {
            take(unsigned(row, 0)?, serde_json::from_slice(&inflated(row.get_ref(1)?.as_blob()?)?)?);
            Ok(())
        })
    }

    /// JSON of each server's SETs as they were at the end of a second: `{server: {list: […]}}`.
    pub fn sets(&self, at: u64) -> Result<Vec<u8>, ReadError> {
        let sql = "SELECT servers FROM sets WHERE second <= ? ORDER BY second DESC LIMIT 1";
        match self.one::<Vec<u8>>(sql, [range(at, at)[0]])? {
            Some(bytes) => inflated(&bytes).map_err(damaged(&self.path)),
            None => Ok(b"{}".to_vec()),
        }
    }

    /// The latest marks, at most [`MARKS_TOLD_MAX`], sorted by time.
    pub fn marks(&self) -> Result<Vec<Mark>, ReadError> {
        let sql =
            "SELECT at_ms, kind, source, text FROM (SELECT * FROM marks ORDER BY id DESC LIMIT ?) ORDER BY at_ms, id";
        self.list(sql, [range(MARKS_TOLD_MAX as u64, 0)[0]], |row| {
            Ok(Mark { at_ms: unsigned(row, 0)?, kind: row.get(1)?, source: row.get(2)?, text: row.get(3)? })
        })
    }

    /// Every histogram by second and `role.name`, microseconds.
    pub fn histograms(&self, mut take: impl FnMut(u64, &str, Histogram<u64>)) -> Result<(), ReadError> {
        self.each("SELECT second, name, histogram FROM latency ORDER BY second, name", [], |row| {
            let second = unsigned(row, 0)?;
            let decoded = histogram::decode(row.get_ref(2)?.as_blob()?);
            take(second, row.get_ref(1)?.as_str()?, decoded.map_err(|error| format!("second {second}: {error}"))?);
            Ok(())
        })
    }

    /// What was planned and done in each second that is complete, in order, and whether users were
    /// missing in it.
    pub fn load(&self, mut take: impl FnMut(Load, bool)) -> Result<(), ReadError> {
        let sql = "SELECT second, planned, sent, answered, users_online < users_goal FROM seconds
            WHERE complete ORDER BY second";
        self.each(sql, [], |row| {
            let [second, planned, sent, answered] =
                [unsigned(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?, unsigned(row, 3)?];
            take(Load { second, planned, sent, answered, ..Load::default() }, row.get(4).unwrap_or(false));
            Ok(())
        })
    }

    pub fn totals(&self) -> Result<Totals, ReadError> {
        let sql = "
            WITH told AS (SELECT latency_p99_us AS us FROM seconds WHERE complete AND latency_p99_us > 0)
            SELECT count(*), count(*) FILTER (WHERE complete), max(users_online) FILTER (WHERE complete),
                max(answered) FILTER (WHERE complete), sum(won),
                (SELECT us FROM told ORDER BY us LIMIT 1 OFFSET (SELECT count(*) / 2 FROM told))
            FROM seconds";
        let totals = self.list(sql, [], |row| {
            Ok(Totals {
                seconds: Some(unsigned(row, 0)?),
                seconds_complete: Some(unsigned(row, 1)?),
                users_max: row.get(2)?,
                qps_max: row.get(3)?,
                won: row.get(4)?,
                latency_p99_us: row.get(5)?,
            })
        })?;
        Ok(totals.into_iter().next().unwrap_or_default())
    }

    /// The kinds that were counted in any second: by group as in [`Reasons`], each sorted.
    pub fn reason_names(&self) -> Result<Vec<(String, String)>, ReadError> {
        let sql = "SELECT DISTINCT groups.key, kinds.key FROM seconds, json_each(reasons) AS groups,
                   json_each(groups.value) AS kinds ORDER BY 1, 2";
        self.list(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }
}

fn failed(path: &Path, error: rusqlite::Error) -> ReadError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure | ErrorCode::DatabaseBusy,
        ) => unreadable(path)(io::Error::other(error)),
        _ => damaged(path)(error),
    }
}

/// A time or a count.
fn unsigned(row: &SqlRow<'_>, at: usize) -> Result<u64, Box<dyn std::error::Error>> {
    Ok(row.get::<_, i64>(at)?.try_into()?)
}

/// As SQLite counts.
fn range(from: u64, until: u64) -> [i64; 2] {
    [from, until].map(|second| i64::try_from(second).unwrap_or(i64::MAX))
}

fn inflated(bytes: &[u8]) -> io::Result<Vec<u8>> {
    bounded(ZlibDecoder::new(bytes))
}

/// A struct of the row's cells from the place `at` on, which are called `columns`.
fn typed<T: DeserializeOwned>(row: &SqlRow<'_>, at: usize, columns: &[&str]) -> Result<T, Box<dyn std::error::Error>> {
    let mut fields = Map::new();
    for (place, &name) in columns.iter().enumerate() {
        let value = match row.get_ref(at + place)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(yes) if name == "complete" => Value::Bool(yes != 0),
            ValueRef::Integer(number) => json!(number),
            ValueRef::Real(number) => json!(number),
            ValueRef::Text(_) | ValueRef::Blob(_) => return Err(format!("column {name} is no figure").into()),
        };
        fields.insert(name.to_owned(), value);
    }
    let second = fields.get("second").cloned().unwrap_or_default();
    serde_json::from_value(Value::Object(fields)).map_err(|error| format!("second {second}: {error}").into())
}
