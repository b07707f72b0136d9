//! When a monitor that is always on begins a new run, where it lies, and which old ones go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::recording::FILE;

/// Runs that follow one another in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// Each run has a directory here.
    pub root: PathBuf,
    /// A run lasts no longer.
    pub run_for: Option<Duration>,
    /// Bytes that all runs may have together.
    pub keep: Option<u64>,
}

impl Rotation {
    /// Of a run that begins with a second: named after it, UTC.
    pub fn directory(&self, second: u64) -> PathBuf {
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second));
        self.root.join(time.to_string().replace([':', '-'], ""))
    }

    /// The second with which the run after one that began with `began` begins: at local midnight,
    /// or when it has lasted long enough.
    pub fn next(&self, began: u64) -> u64 {
        let lasted = self.run_for.map(|run_for| began.saturating_add(run_for.as_secs().max(1)));
        [lasted, midnight_after(began)].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Deletes whole runs, those that ended first, until all together keep to the bound; never one
    /// of `spared`.
    pub fn prune(&self, spared: &[&Path]) -> io::Result<()> {
        let Some(keep) = self.keep else { return Ok(()) };
        let mut runs: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let file = entry.path().join(FILE);
            // A link is no run of ours.
            if entry.file_type()?.is_dir() && file.is_file() {
                runs.push((fs::metadata(&file)?.modified()?, bytes(&entry.path())?, entry.path()));
            }
        }
        let mut all: u64 = runs.iter().map(|(_, bytes, _)| bytes).sum();
        runs.retain(|(_, _, directory)| !spared.iter().any(|spared| spared.file_name() == directory.file_name()));
        runs.sort();
        for (_, bytes, directory) in runs {
            if all <= keep {
                break;
            }
            fs::remove_dir_all(&directory)?;
            tracing::info!(event = "run_deleted", directory = %directory.display(), bytes, "the oldest run makes room");
            all -= bytes;
        }
        Ok(())
    }
}

fn bytes(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

/// SQLite knows the host's time zone.
fn midnight_after(second: u64) -> Option<u64> {
    let sql = "SELECT unixepoch(?, 'unixepoch', 'localtime', 'start of day', '+1 day', 'utc')";
    let second = i64::try_from(second).ok()?;
    let midnight: i64 = Connection::open_in_memory().ok()?.query_row(sql, [second], |row| row.get(0)).ok()?;
    u64::try_from(midnight).ok()
}

/// `10GiB`, `500MB`, or bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u32, u64); 9] = [
        ("", 0, 1),
        ("kB", 1, 1_000),
        ("MB", 2, 1_000),
        ("GB", 3, 1_000),
        ("TB", 4, 1_000),
        ("KiB", 1, 1_024),
        ("MiB", 2, 1_024),
        ("GiB", 3, 1_024),
        ("TiB", 4, 1_024),
    ];
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = UNITS.iter().find(|(name, ..)| *name == unit.trim_start());
    let size = unit.and_then(|(_, power, base)| number.parse::<u64>().ok()?.checked_mul(base.pow(*power)));
    size.ok_or_else(|| format!("{text:?} is no size; give one such as 10GiB or 500MB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(root: &Path, keep: Option<u64>) -> Rotation {
        Rotation { root: root.into(), run_for: None, keep }
    }

    #[test]
    fn a_run_ends_at_local_midnight_or_when_it_has_lasted() {
        let (began, rotation) = (1_795_264_103, rotation(Path::new("recordings"), None));
        let midnight = rotation.next(began);
        assert!((began + 1..=began + 25 * 3_600).contains(&midnight));
        let sql = "SELECT strftime('%H:%M:%S', ?, 'unixepoch', 'localtime')";
        let connection = Connection::open_in_memory().unwrap();
        let told: String = connection.query_row(sql, [i64::try_from(midnight).unwrap()], |row| row.get(0)).unwrap();
        assert_eq!(told, "00:00:00");
        assert!(rotation.next(midnight) > midnight);
        let hourly = Rotation { run_for: Some(Duration::from_secs(60)), ..rotation.clone() };
        assert_eq!(hourly.next(midnight), midnight + 60);
        assert_eq!(rotation.directory(began), Path::new("recordings/20261121T122823Z"));
    }

    #[test]
    fn the_runs_that_ended_first_go_until_the_rest_fits_the_bound() {
        let root = tempfile::tempdir().unwrap();
        for (age, name) in ["current", "new", "old", "older"].iter().enumerate() {
            let directory = root.path().join(name);
            fs::create_dir_all(directory.join("journals")).unwrap();
            fs::write(directory.join("journals/guests.csv"), [0; 400]).unwrap();
            let file = fs::File::create(directory.join(FILE)).unwrap();
            file.set_len(600).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(100 * age as u64)).unwrap();
        }
        fs::create_dir(root.path().join("no-run")).unwrap();
        fs::write(root.path().join("no-run/file"), [0; 5_000]).unwrap();
        std::os::unix::fs::symlink(root.path().join("no-run"), root.path().join("link")).unwrap();
        let left = || {
            let mut names: Vec<_> =
                fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        rotation(root.path(), None).prune(&[]).unwrap();
        rotation(root.path(), Some(4_000)).prune(&[]).unwrap();
        assert_eq!(left().len(), 6);
        rotation(root.path(), Some(2_500)).prune(&[]).unwrap();
        assert_eq!(left(), ["current", "link", "new", "no-run"]);
        rotation(root.path(), Some(0)).prune(&[Path::new("elsewhere/current")]).unwrap();
        assert_eq!(left(), ["current", "link", "no-run"]);
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("0", 0), ("512", 512), ("10GiB", 10 << 30), ("500MB", 500_000_000), ("1 KiB", 1_024)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "-1", "1.5GiB", "10 G", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
