//! The run being recorded: the owner hands over what there is, and a thread of its own writes it.
//!
//! Everything up to a second's end is one transaction. Where it fails, as on a full disk, it is
//! rolled back and its second is lost, counted; the next is tried again. Where the disk is too slow
//! the queue fills up, and what finds no room in it is lost likewise. The run never waits.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use rusqlite::types::Value;
use rusqlite::{Connection, ToSql, Transaction, params, params_from_iter};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use crate::limits::{HOSTS_WAITING_MAX, MARKS_HELD_MAX, RECORDING_QUEUE_MAX, RECORDING_SECONDS_MAX, push_newest};
use crate::recording::rotation::Rotation;
use crate::recording::{APPLICATION_ID, FILE, OLD_FILE, RunStatus, TABLES, VERSION, headline_columns, host_columns};
use crate::run::host::HostSecond;
use crate::run::mark::Mark;
use crate::run::merge::SourceStatus;
use crate::run::second::ClosedSecond;
use crate::run::series::{Heat, Reasons};
use crate::run::sets::SetsBoard;

/// Marks and the host's rows wait so long for a second's end.
const TRANSACTION_EVERY: Duration = Duration::from_secs(1);

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

/// What is recorded.
#[derive(Debug)]
pub enum Entry {
    /// The SETs are given where they have changed.
    Second(Arc<ClosedSecond>, Option<SetsBoard>),
    Host(Box<HostSecond>),
    Mark(Arc<Mark>),
    Run(Box<RunStatus>, Vec<SourceStatus>),
    /// Another run begins with a second, in this directory.
    Begin(PathBuf, u64),
}

#[derive(Debug, Default)]
struct Health {
    /// Seconds lost, and transactions without a second that failed.
    failures: AtomicU64,
    failing: AtomicBool,
    /// Seconds that wait to be written.
    waiting: AtomicUsize,
}

impl Health {
    fn failed(&self, failures: u64, directory: &Path, error: &dyn std::fmt::Display) {
        self.failures.fetch_add(failures, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(event = "recording_failing", directory = %directory.display(), %error, "cannot record; the run goes on");
        }
    }

    fn works(&self, directory: &Path) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(event = "recording_works", directory = %directory.display(), "recording works again");
        }
    }
}

/// The run's recording, as its owner has it.
#[derive(Debug)]
pub struct Recording {
    /// As it was asked for; whoever reads recordings is told of another.
    directory: watch::Sender<PathBuf>,
    health: Arc<Health>,
    queue: SyncSender<Entry>,
    thread: JoinHandle<()>,
}

impl Recording {
    /// Makes the directory and the file, which may not exist yet, and starts the thread that
    /// writes. Where there is a rotation it keeps to its bound.
    pub fn create(directory: &Path, rotation: Option<Rotation>) -> Result<Self, RecordError> {
        let file = Some(File::create(directory)?);
        let (queue, inbox) = sync_channel(RECORDING_QUEUE_MAX);
        let health = Arc::new(Health::default());
        let (first, hosts) = (directory.to_path_buf(), VecDeque::new());
        let writer = Writer { file, directory: first.clone(), first, hosts, rotation, health: Arc::clone(&health) };
        let thread = std::thread::Builder::new().name("recording".into()).spawn(move || writer.run(&inbox));
        let thread = thread.map_err(|source| RecordError::Unwritable { path: directory.into(), source })?;
        Ok(Self { directory: watch::Sender::new(directory.into()), health, queue, thread })
    }

    /// Takes back what [`create`](Self::create) made: the run cannot start.
    pub fn discard(self) {
        let directory = self.directory();
        self.close();
        let removed = fs::remove_file(directory.join(FILE)).and_then(|()| fs::remove_dir(&directory));
        if let Err(error) = removed {
            tracing::warn!(event = "recording_left", %error, directory = %directory.display(), "the directory stays");
        }
    }

    /// Where the recording lies.
    pub fn directory(&self) -> PathBuf {
        self.directory.borrow().clone()
    }

    /// The same, for whoever wants to know when it is another.
    pub fn current(&self) -> watch::Receiver<PathBuf> {
        self.directory.subscribe()
    }

    /// What comes from now on is of another run, which begins with a second.
    pub fn begin_run(&self, directory: PathBuf, second: u64) {
        self.directory.send_replace(directory.clone());
        self.push(Entry::Begin(directory, second));
    }

    /// Seconds that were not recorded, and other writes that failed.
    pub fn failures(&self) -> u64 {
        self.health.failures.load(Ordering::Relaxed)
    }

    pub fn failing(&self) -> bool {
        self.health.failing.load(Ordering::Relaxed)
    }

    pub fn push(&self, entry: Entry) {
        let seconds = usize::from(matches!(entry, Entry::Second(..)));
        let waiting = self.health.waiting.fetch_add(seconds, Ordering::Relaxed);
        if (seconds > 0 && waiting >= RECORDING_SECONDS_MAX) || self.queue.try_send(entry).is_err() {
            self.health.waiting.fetch_sub(seconds, Ordering::Relaxed);
            self.health.failed(1, &self.directory(), &"the disk is too slow");
        }
    }

    /// Waits until everything is written, and leaves one file.
    pub fn close(self) {
        drop(self.queue);
        if self.thread.join().is_err() {
            tracing::error!(event = "recording_failing", directory = %self.directory.borrow().display(), error = "the writer has panicked", "cannot record");
        }
    }
}

#[derive(Debug)]
struct Writer {
    /// None where it could not be made; then it is tried again.
    file: Option<File>,
    directory: PathBuf,
    /// Of the first run: guests' journal lies there.
    first: PathBuf,
    /// The host's latest rows: another run begins with seconds of which it has been told already.
    hosts: VecDeque<HostSecond>,
    rotation: Option<Rotation>,
    health: Arc<Health>,
}

impl Writer {
    fn run(mut self, inbox: &Receiver<Entry>) {
        self.prune();
        let mut batch = Vec::new();
        while let Ok(first) = inbox.recv() {
            batch.push(first);
            let due = Instant::now() + TRANSACTION_EVERY;
            while matches!(batch.last(), Some(Entry::Host(_) | Entry::Mark(_)))
                && let Ok(next) = inbox.recv_timeout(due.saturating_duration_since(Instant::now()))
            {
                batch.push(next);
            }
            let begin = batch.pop_if(|last| matches!(last, Entry::Begin(..)));
            self.write(&mut batch);
            if let Some(Entry::Begin(directory, second)) = begin {
                // What could not be written of the last run is of no other.
                batch.clear();
                batch.extend(
                    self.hosts.iter().filter(|row| row.second + 1 >= second).map(|row| Entry::Host(Box::new(*row))),
                );
                self.close();
                self.directory = directory;
                self.prune();
            }
        }
        self.close();
    }

    fn close(&mut self) {
        if let Some(Err(error)) = self.file.take().map(|file| file.close()) {
            self.health.failed(1, &self.directory, &error);
        }
    }

    fn prune(&self) {
        if let Some(Err(error)) = self.rotation.as_ref().map(|of| of.prune(&[&self.first, &self.directory])) {
            tracing::warn!(event = "runs_kept", %error, "old runs cannot be deleted");
        }
    }

    /// Writes a batch, or loses its seconds: marks stay in it, for the next try.
    fn write(&mut self, batch: &mut Vec<Entry>) {
        for entry in &*batch {
            if let Entry::Host(row) = entry {
                push_newest(&mut self.hosts, **row, HOSTS_WAITING_MAX);
            }
        }
        let seconds = batch.iter().filter(|entry| matches!(entry, Entry::Second(..))).count();
        let written = self.try_write(batch);
        self.health.waiting.fetch_sub(seconds, Ordering::Relaxed);
        match written {
            Ok(()) => {
                self.health.works(&self.directory);
                batch.clear();
            }
            Err(error) => {
                self.health.failed(seconds.max(1) as u64, &self.directory, &error);
                batch.retain(|entry| matches!(entry, Entry::Mark(_)));
                batch.truncate(MARKS_HELD_MAX);
            }
        }
    }

    fn try_write(&mut self, batch: &[Entry]) -> Result<(), Box<dyn std::error::Error>> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::create(&self.directory)?,
        };
        Ok(self.file.insert(file).write(batch)?)
    }
}

/// The open file of a run.
#[derive(Debug)]
struct File {
    connection: Connection,
    /// With a place for each column.
    insert_second: String,
    insert_host: String,
}

impl File {
    fn create(directory: &Path) -> Result<Self, RecordError> {
        let unwritable = |path: &Path, source| RecordError::Unwritable { path: path.into(), source };
        let path = directory.join(FILE);
        fs::create_dir_all(directory).map_err(|source| unwritable(directory, source))?;
        let occupied = || RecordError::Occupied { path: directory.into() };
        if directory.join(OLD_FILE).exists() {
            return Err(occupied());
        }
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => occupied(),
            _ => unwritable(&path, source),
        })?;
        let connection = open(&path).map_err(|error| {
            // Not half of one: whoever tries again makes it whole.
            fs::remove_file(&path).ok();
            unwritable(&path, io::Error::other(error))
        })?;
        let insert = |table: &str, columns: usize| {
            let places = vec!["?"; columns].join(", ");
            // A clock that was set back brings no second twice.
            format!("INSERT OR IGNORE INTO {table} VALUES ({places})")
        };
        Ok(Self {
            connection,
            insert_second: insert("seconds", headline_columns().len() + 2),
            insert_host: insert("hosts", host_columns().len()),
        })
    }

    fn write(&mut self, entries: &[Entry]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for entry in entries {
            match entry {
                Entry::Second(closed, sets) => write_second(&transaction, &self.insert_second, closed, sets.as_ref())?,
                Entry::Host(row) => {
                    transaction
                        .prepare_cached(&self.insert_host)?
                        .execute(params_from_iter(cells(row, &host_columns())))?;
                }
                Entry::Mark(mark) => {
                    let mut insert = transaction
                        .prepare_cached("INSERT INTO marks (at_ms, kind, source, text) VALUES (?, ?, ?, ?)")?;
                    insert.execute(params![integer(mark.at_ms), mark.kind, mark.source, mark.text])?;
                }
                Entry::Run(run, sources) => write_run(&transaction, run, sources)?,
                Entry::Begin(..) => {}
            }
        }
        transaction.commit()
    }

    /// Folds the log into the file, which then needs no other to be read; of one that is being read
    /// right now, an empty log stays.
    fn close(&self) -> rusqlite::Result<()> {
        let ended = self.connection.pragma_update(None, "journal_mode", "DELETE");
        ended.or_else(|_| self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What a power cut takes is the last seconds, and never the file.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let transaction = connection.transaction()?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.execute_batch(&TABLES)?;
    transaction.commit()?;
    Ok(connection)
}

fn write_second(
    transaction: &Transaction<'_>,
    insert: &str,
    closed: &ClosedSecond,
    sets: Option<&SetsBoard>,
) -> rusqlite::Result<()> {
    let second = integer(closed.merged.second);
    let texts = [text(&Reasons::of(&closed.merged)), text(&Heat::of(closed))].map(Value::Text);
    let figures = cells(&closed.merged.headline, &headline_columns()).into_iter().chain(texts);
    transaction.prepare_cached(insert)?.execute(params_from_iter(figures))?;
    let put = |sql: &str, values: &[&dyn ToSql]| transaction.prepare_cached(sql)?.execute(values);
    put("INSERT OR IGNORE INTO sources VALUES (?, ?)", params![second, deflated(&closed.reported)])?;
    if let Some(sets) = sets {
        put("INSERT OR IGNORE INTO sets VALUES (?, ?)", params![second, deflated(&sets.servers())])?;
    }
    for ((role, name), histogram) in &closed.histograms {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(histogram, &mut bytes)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        put("INSERT OR IGNORE INTO latency VALUES (?, ?, ?)", params![second, format!("{role}.{name}"), bytes])?;
    }
    Ok(())
}

fn write_run(transaction: &Transaction<'_>, run: &RunStatus, sources: &[SourceStatus]) -> rusqlite::Result<()> {
    let (started, ended) = (integer(run.started_at_ms), run.ended_at_ms.map(integer));
    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO run VALUES (1, ?, ?, ?, ?, ?)")?;
    put.execute(params![run.version, started, ended, text(run), text(&sources)]).map(drop)
}

/// Of a struct's fields, those that are `columns`.
fn cells(row: &impl Serialize, columns: &[&str]) -> Vec<Value> {
    let row = json!(row);
    let cell = |name: &&str| match &row[name] {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(yes) => Value::Integer(i64::from(*yes)),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| number.as_f64().map_or(Value::Null, Value::Real), Value::Integer)
        }
        other => Value::Text(other.to_string()),
    };
    columns.iter().map(cell).collect()
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_else(|error| unreachable!("plain values in memory are always written: {error}"))
}

fn deflated(value: &impl Serialize) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let written = serde_json::to_writer(&mut encoder, value).map_err(io::Error::other);
    written
        .and_then(|()| encoder.finish())
        .unwrap_or_else(|error| unreachable!("plain values in memory are always written: {error}"))
}

/// SQLite's integers have a sign; no time or count of ours needs the last bit.
fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes a file so that a reader sees the old or the new one, never a part.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::run::books::Balance;
    use crate::run::second::{Headline, MergedSecond};

    fn closed(second: u64) -> Entry {
        let merged = MergedSecond {
            second,
            complete: true,
            sources_expected: 0,
            sources_reported: 0,
            missing: vec![],
            roles: BTreeMap::new(),
            books: Balance::default(),
            headline: Headline { second, complete: true, ..Headline::default() },
        };
        let merged = Arc::new(merged);
        Entry::Second(Arc::new(ClosedSecond { merged, reported: BTreeMap::new(), histograms: BTreeMap::new() }), None)
    }

    fn writer(directory: &Path) -> Writer {
        let (file, directory) = (Some(File::create(directory).unwrap()), directory.to_path_buf());
        let (first, hosts, rotation) = (directory.clone(), VecDeque::new(), None);
        Writer { file, directory, first, hosts, rotation, health: Arc::default() }
    }

    fn connection(writer: &Writer) -> &Connection {
        &writer.file.as_ref().unwrap().connection
    }

    fn mark(text: &str) -> Entry {
        let mark = Mark { at_ms: 1, kind: "qps".into(), source: "monitor".into(), text: text.into() };
        Entry::Mark(Arc::new(mark))
    }

    fn column<T: rusqlite::types::FromSql>(connection: &Connection, sql: &str) -> Vec<T> {
        let mut rows = connection.prepare(sql).unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_full_disk_costs_its_seconds_counted_and_no_mark() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(&directory.path().join("run"));
        let limit = |writer: &Writer, pages: u32| {
            connection(writer).query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        };
        writer.health.waiting.store(4, Ordering::Relaxed);
        writer.write(&mut vec![closed(1)]);
        // No page more than there are: what does not fit is rolled back whole.
        limit(&writer, 1);
        let mut batch = vec![mark(&"x".repeat(10_000)), closed(2), closed(3)];
        writer.write(&mut batch);
        assert!(writer.health.failing.load(Ordering::Relaxed) && matches!(batch[..], [Entry::Mark(_)]));
        assert_eq!(writer.health.failures.load(Ordering::Relaxed), 2);
        limit(&writer, 1 << 20);
        batch.push(closed(4));
        writer.write(&mut batch);
        assert!(!writer.health.failing.load(Ordering::Relaxed) && batch.is_empty());
        assert_eq!(column::<i64>(connection(&writer), "SELECT second FROM seconds"), [1, 4]);
        assert_eq!(column::<String>(connection(&writer), "SELECT kind FROM marks"), ["qps"]);
        assert_eq!(writer.health.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_disk_that_stands_still_never_holds_up_the_run() {
        let directory = tempfile::tempdir().unwrap();
        let recording = Recording::create(&directory.path().join("run"), None).unwrap();
        // Whoever holds the file keeps the writer waiting, as a disk does that does not answer.
        let other = Connection::open(directory.path().join("run").join(FILE)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let total = 3 * RECORDING_SECONDS_MAX as u64;
        for second in 1..=total {
            recording.push(closed(second));
        }
        assert!(recording.failing() && recording.failures() > 0);
        other.execute_batch("ROLLBACK").unwrap();
        drop(other);
        let (health, path) = (Arc::clone(&recording.health), recording.directory().join(FILE));
        recording.close();
        let written = column::<i64>(&Connection::open(path).unwrap(), "SELECT count(*) FROM seconds")[0];
        let lost = health.failures.load(Ordering::Relaxed);
        assert_eq!(u64::try_from(written).unwrap() + lost, total, "each is written or counted");
    }

    #[test]
    fn an_ended_recording_is_one_file_and_one_taken_back_none() {
        let directory = tempfile::tempdir().unwrap();
        let (kept, discarded) = (directory.path().join("kept"), directory.path().join("discarded"));
        let recording = Recording::create(&kept, None).unwrap();
        recording.push(closed(1));
        recording.close();
        let files: Vec<_> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, [FILE]);
        assert!(matches!(Recording::create(&kept, None), Err(RecordError::Occupied { .. })));
        Recording::create(&discarded, None).unwrap().discard();
        assert!(!discarded.exists());
    }

    #[test]
    fn a_new_run_has_the_hosts_rows_from_just_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        let recording = Recording::create(&one, None).unwrap();
        for second in 1..=4 {
            recording.push(Entry::Host(Box::new(HostSecond { second, ..HostSecond::default() })));
        }
        recording.begin_run(two.clone(), 4);
        recording.push(closed(4));
        recording.close();
        let hosts = |of: &Path| column::<i64>(&Connection::open(of.join(FILE)).unwrap(), "SELECT second FROM hosts");
        assert_eq!((hosts(&one), hosts(&two)), (vec![1, 2, 3, 4], vec![3, 4]));
    }

    #[test]
    fn runs_follow_one_another_and_old_ones_make_room() {
        let root = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| root.path().join(name));
        let rotation = Rotation { root: root.path().into(), run_for: None, keep: Some(0) };
        let recording = Recording::create(&one, Some(rotation)).unwrap();
        let host = |second| Entry::Host(Box::new(HostSecond { second, ..HostSecond::default() }));
        for entry in [host(1), closed(1), host(2), host(3), closed(2)] {
            recording.push(entry);
        }
        recording.begin_run(two.clone(), 3);
        recording.push(closed(3));
        // What is in its place is no directory: it is tried until it is one.
        fs::write(&three, "").unwrap();
        recording.begin_run(three.clone(), 4);
        recording.push(closed(4));
        while recording.failures() == 0 {
            std::thread::yield_now();
        }
        fs::remove_file(&three).unwrap();
        recording.push(closed(5));
        assert_eq!((recording.directory(), &*recording.current().borrow()), (three.clone(), &three));
        recording.close();
        let seconds = |directory: &Path, table: &str| {
            let connection = Connection::open(directory.join(FILE)).unwrap();
            column::<i64>(&connection, &format!("SELECT second FROM {table}"))
        };
        assert_eq!((seconds(&one, "seconds"), seconds(&one, "hosts")), (vec![1, 2], vec![1, 2, 3]));
        assert_eq!(seconds(&three, "seconds"), [5]);
        assert!(!two.exists(), "neither the first run nor the current is deleted, and the others are");
    }
}
