//! Which recordings there are: the directories beside the current one, and of each what a list
//! shows.
//!
//! A name from a browser becomes a path here and nowhere else. What a list tells is kept by the
//! time and length of the two documents that a recording has, so that listing again costs a look at
//! each.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::watch;

use crate::limits::{DIRECTORY_ENTRIES_MAX, RUN_ID_BYTES_MAX, RUNS_LISTED_MAX};
use crate::recording::FILE;
use crate::recording::read::{self, ReadError, Reader, Totals};
use crate::runs::verdict::Verdict;
use crate::words;
use hongbao_telemetry::lock::locked;
use hongbao_telemetry::summary::{SUMMARY_FILE, Summary};

/// A recording's name: that of its directory. Nothing in it leads anywhere else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RunId(String);

/// A text that names no recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run's id has 1 to {RUN_ID_BYTES_MAX} of A-Z a-z 0-9 . _ - and does not begin with a dot")]
pub struct BadRunId;

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, BadRunId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let good = (1..=RUN_ID_BYTES_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(allowed);
        if good { Ok(Self(text.to_owned())) } else { Err(BadRunId) }
    }
}

impl RunId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a list shows of a run. What is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Entry {
    pub id: String,
    /// Who took part and what was asked of them, if the fleet's summary says so; else the name.
    pub title: String,
    /// Unix milliseconds.
    pub started_at_ms: Option<u64>,
    /// Absent while the run goes on, and where the monitor was killed.
    pub ended_at_ms: Option<u64>,
    #[serde(flatten)]
    pub totals: Totals,
    /// Whether both books agree at the end.
    pub balanced: Option<bool>,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// This monitor is recording it.
    pub live: bool,
    /// Why something is missing here.
    pub problem: Option<String>,
}

/// Files of a recording as they are: what was made of them holds until one of these changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stamp(Vec<Option<(u128, u64)>>);

impl Stamp {
    /// Of every file that a recording is read from.
    pub fn of(directory: &Path) -> Self {
        let log = format!("{FILE}-wal");
        Self([FILE, &log, SUMMARY_FILE].iter().map(|file| stamp(&directory.join(file))).collect())
    }

    /// Of a moment instead: what was made then holds while that lasts.
    pub fn moment(number: u64) -> Self {
        Self(vec![Some((0, number))])
    }
}

fn stamp(path: &Path) -> Option<(u128, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((modified.as_nanos(), metadata.len()))
}

/// The recordings of one directory.
#[derive(Debug)]
pub struct Catalog {
    parent: PathBuf,
    current: watch::Receiver<PathBuf>,
    known: Mutex<HashMap<RunId, (Stamp, Entry)>>,
}

impl Catalog {
    /// Of the directory that holds `current`, which is being recorded.
    pub fn beside(current: watch::Receiver<PathBuf>) -> std::io::Result<Self> {
        let directory = fs::canonicalize(&*current.borrow())?;
        let parent = directory.parent().unwrap_or(&directory).to_owned();
        Ok(Self { parent, current, known: Mutex::default() })
    }

    /// The id of the run being recorded; `None` if its directory has a name that no id may have.
    pub fn current(&self) -> Option<RunId> {
        self.current.borrow().file_name()?.to_str()?.parse().ok()
    }

    /// Where the recording of that name lies; `None` if there is none beside the current one.
    pub fn find(&self, id: &RunId) -> Option<PathBuf> {
        let path = self.parent.join(id.as_str());
        // A link is followed only to another place of the same directory.
        let real = fs::canonicalize(&path).ok()?;
        let inside = real.parent() == Some(&*self.parent);
        (inside && real.join(FILE).is_file()).then_some(path)
    }

    /// Newest first; at most [`RUNS_LISTED_MAX`].
    pub fn list(&self) -> std::io::Result<Vec<Entry>> {
        let (mut ids, current) = (BTreeSet::new(), self.current());
        for entry in fs::read_dir(&self.parent)?.take(DIRECTORY_ENTRIES_MAX) {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()));
        }
        ids.extend(current.clone());
        let mut found: Vec<(bool, Option<SystemTime>, RunId, PathBuf)> = Vec::new();
        for id in ids {
            let Some(path) = self.find(&id) else { continue };
            let modified = fs::metadata(path.join(FILE)).and_then(|file| file.modified()).ok();
            let live = current.as_ref() == Some(&id);
            found.push((live, modified, id, path));
        }
        // Before anything is read: those that were written last.
        found.sort_by(|a, b| b.cmp(a));
        found.truncate(RUNS_LISTED_MAX);
        let mut entries: Vec<Entry> =
            found.into_iter().map(|(live, _, id, path)| self.entry(live, &id, &path)).collect();
        entries.sort_by(|a, b| (b.live, b.started_at_ms, &b.id).cmp(&(a.live, a.started_at_ms, &a.id)));
        let mut known = locked(&self.known);
        known.retain(|id, _| entries.iter().any(|entry| entry.id == id.as_str()));
        Ok(entries)
    }

    fn entry(&self, live: bool, id: &RunId, directory: &Path) -> Entry {
        let stamp = Stamp::of(directory);
        if let Some((known, entry)) = locked(&self.known).get(id)
            && *known == stamp
        {
            return Entry { live, ..entry.clone() };
        }
        let entry = Entry { live, ..read(id, directory) };
        locked(&self.known).insert(id.clone(), (stamp, entry.clone()));
        entry
    }
}

fn read(id: &RunId, directory: &Path) -> Entry {
    let mut entry = Entry { id: id.to_string(), title: id.to_string(), ..Entry::default() };
    let mut problems: Vec<String> = Vec::new();
    let recorded = Reader::open(directory).and_then(|reader| {
        let failures = read_run(&mut entry, &reader)?;
        entry.verdict = Verdict::of_recording(&reader, entry.balanced == Some(true))?;
        Ok(failures)
    });
    match recorded {
        Ok(0) => {}
        Ok(failures) => problems.push(format!("{failures} writes to the recording failed")),
        Err(error) => problems.push(without_directory(&error, directory)),
    }
    if directory.join(SUMMARY_FILE).exists() {
        match read::json::<Summary>(&directory.join(SUMMARY_FILE)) {
            Ok(summary) => {
                entry.verdict = Verdict::of_summary(&summary);
                entry.title = title(&summary);
            }
            Err(error) => problems.push(without_directory(&error, directory)),
        }
    }
    entry.problem = Some(problems.join("; ")).filter(|text| !text.is_empty());
    entry
}

/// Writes that failed. Of a damaged recording, what can be read is in the entry all the same.
fn read_run(entry: &mut Entry, reader: &Reader) -> Result<u64, ReadError> {
    let (run, totals) = (reader.run(), reader.totals());
    if let Ok(totals) = &totals {
        entry.totals = totals.clone();
    }
    if let Ok(run) = &run {
        entry.started_at_ms = Some(run.started_at_ms).filter(|&ms| ms > 0);
        entry.ended_at_ms = run.ended_at_ms;
        entry.balanced = Some(run.books.balanced());
        // The books are of all seconds; without them, the seconds' sum is as near as it gets.
        entry.totals.won = Some(run.books.claims.won);
    }
    totals.and(run).map(|run| run.record_failures)
}

/// Errors go to whoever may read this interface; where on the disk things lie is no affair of
/// theirs.
pub fn without_directory(error: &impl ToString, directory: &Path) -> String {
    error.to_string().replace(&format!("{}/", directory.display()), "")
}

fn title(summary: &Summary) -> String {
    const PHASES_NAMED: usize = 6;
    let users = match summary.users {
        1 => "1 user".to_owned(),
        users => format!("{} users", words::count(users)),
    };
    let mut phases: Vec<String> =
        summary.phases.iter().take(PHASES_NAMED).map(|phase| words::phase(&phase.name)).collect();
    if summary.phases.len() > PHASES_NAMED {
        phases.push("…".into());
    }
    if phases.is_empty() { users } else { format!("{users}: {}", phases.join(", ")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_id_is_a_plain_name() {
        for good in ["20261121T194649Z", "a", "a..b", "night_2-b"] {
            assert_eq!(good.parse::<RunId>().unwrap().as_str(), good);
        }
        let long = "a".repeat(RUN_ID_BYTES_MAX + 1);
        for bad in ["", ".", "..", ".git", "a/b", "../a", "a\\b", "a b", "a\0", "%2e%2e", "å", &long] {
            assert_eq!(bad.parse::<RunId>(), Err(BadRunId), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_id_leads_out_of_its_directory(text in "[./a\\\\%~ ]{0,12}") {
            if let Ok(id) = text.parse::<RunId>() {
                let path = Path::new("/parent").join(id.as_str());
                prop_assert_eq!(path.parent(), Some(Path::new("/parent")));
                prop_assert_eq!(path.components().count(), 3);
            }
        }
    }

    fn beside(current: &Path) -> std::io::Result<Catalog> {
        Catalog::beside(watch::Sender::new(current.to_owned()).subscribe())
    }

    fn change(directory: &Path, sql: &str) {
        rusqlite::Connection::open(directory.join(FILE)).unwrap().execute_batch(sql).unwrap();
    }

    /// One of two seconds.
    fn recording(parent: &Path, name: &str, started_at_ms: u64) -> PathBuf {
        let directory = parent.join(name);
        fs::create_dir_all(&directory).unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recording");
        fs::copy(fixture.join(FILE), directory.join(FILE)).unwrap();
        change(
            &directory,
            &format!(
                "PRAGMA synchronous = OFF; BEGIN; DELETE FROM seconds WHERE second > (SELECT min(second) + 1 FROM seconds);
                 UPDATE seconds SET answered = 7; UPDATE seconds SET answered = 9, complete = 0 WHERE second % 2;
                 UPDATE run SET status = json_set(status, '$.started_at_ms', {started_at_ms}); COMMIT"
            ),
        );
        directory
    }

    #[test]
    fn recordings_are_listed_newest_first_and_what_is_none_is_not() {
        let parent = tempfile::tempdir().unwrap();
        for (name, started) in [("b", 2_000), ("c", 3_000), ("a", 1_000), (".hidden", 4_000)] {
            recording(parent.path(), name, started);
        }
        fs::create_dir(parent.path().join("empty")).unwrap();
        fs::write(parent.path().join("file"), "").unwrap();
        let catalog = beside(&parent.path().join("a")).unwrap();
        let listed = catalog.list().unwrap();
        let ids: Vec<_> = listed.iter().map(|entry| (entry.id.as_str(), entry.live)).collect();
        assert_eq!(ids, [("a", true), ("c", false), ("b", false)]);
        assert_eq!(
            (listed[1].totals.seconds, listed[1].totals.seconds_complete, listed[1].totals.qps_max),
            (Some(2), Some(1), Some(7.0))
        );
        assert!(listed.iter().all(|entry| entry.problem.is_none()), "{listed:?}");
    }

    #[test]
    fn a_link_out_of_the_directory_is_no_recording() {
        let (parent, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inside = recording(parent.path(), "a", 1_000);
        let outside = recording(elsewhere.path(), "secret", 1_000);
        std::os::unix::fs::symlink(&outside, parent.path().join("out")).unwrap();
        std::os::unix::fs::symlink(&inside, parent.path().join("latest")).unwrap();
        let catalog = beside(&inside).unwrap();
        let found = |name: &str| catalog.find(&name.parse().unwrap()).is_some();
        assert!(found("a") && found("latest") && !found("out") && !found("none"));
    }

    #[test]
    fn the_list_is_bounded_and_always_holds_the_run_being_recorded() {
        let parent = tempfile::tempdir().unwrap();
        for number in 0..RUNS_LISTED_MAX + 5 {
            recording(parent.path(), &format!("run-{number}"), 1_000 + number as u64);
        }
        let catalog = beside(&parent.path().join("run-0")).unwrap();
        let listed = catalog.list().unwrap();
        assert_eq!((listed.len(), listed[0].id.as_str(), listed[0].live), (RUNS_LISTED_MAX, "run-0", true));
    }

    #[test]
    fn a_foreign_directory_is_read_in_part_and_the_run_is_found() {
        let parent = tempfile::tempdir().unwrap();
        for number in 0..=DIRECTORY_ENTRIES_MAX {
            fs::write(parent.path().join(format!("thing-{number}")), "").unwrap();
        }
        let current = recording(parent.path(), "now", 1_000);
        let listed = beside(&current).unwrap().list().unwrap();
        assert_eq!(listed.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["now"]);
    }

    #[test]
    fn what_was_read_is_kept_until_the_recording_changes() {
        let parent = tempfile::tempdir().unwrap();
        let directory = recording(parent.path(), "a", 1_000);
        let catalog = beside(&directory).unwrap();
        let listed = catalog.list().unwrap();
        let known = || catalog.known.lock().unwrap().values().next().unwrap().0.clone();
        let before = known();
        assert_eq!((catalog.list().unwrap(), known()), (listed, before.clone()), "nothing is read again");
        change(
            &directory,
            "UPDATE seconds SET answered = 8; UPDATE run SET status = json_set(status, '$.started_at_ms', 5)",
        );
        let listed = catalog.list().unwrap();
        assert_eq!((listed[0].totals.qps_max, listed[0].started_at_ms), (Some(8.0), Some(5)));
        assert_ne!(known(), before);
    }

    #[test]
    fn a_damaged_recording_is_listed_with_what_is_known_and_why() {
        let parent = tempfile::tempdir().unwrap();
        let current = recording(parent.path(), "a", 1_000);
        let silent = recording(parent.path(), "b", 2_000);
        change(&silent, "DELETE FROM run");
        let torn = recording(parent.path(), "c", 3_000);
        change(&torn, "UPDATE seconds SET answered = 'some'");
        let entries = beside(&current).unwrap().list().unwrap();
        let of = |id: &str| entries.iter().find(|entry| entry.id == id).unwrap();
        let problem = of("b").problem.clone().unwrap();
        assert!(problem.starts_with("run.sqlite is damaged") && of("b").totals.qps_max == Some(7.0), "{problem}");
        let problem = of("c").problem.clone().unwrap();
        assert!(problem.contains("run.sqlite") && of("c").started_at_ms == Some(3_000), "{problem}");
        assert!(!problem.contains(parent.path().to_str().unwrap()), "{problem}");
    }
}
