//! Raises kernel settings that are too low. Never lowers one: another program may count on it.

use std::path::Path;
use std::{fmt, fs, io};

use serde::Serialize;

use crate::finding::{Finding, Raise, To};

/// What became of one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub setting: &'static str,
    pub old: String,
    /// Those asked for.
    pub new: String,
    /// Why it was not changed.
    pub failure: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, old, new, failure } = self;
        match failure {
            None => write!(f, "{setting}: {old} → {new}"),
            Some(failure) => write!(f, "{setting}: {old} → {new} failed: {failure}"),
        }
    }
}

/// Raises what the findings ask for, in the folder `settings` (`/proc/sys`). Goes on after a
/// failure. Changes last until the next boot.
pub fn mend(settings: &Path, findings: &[Finding]) -> Vec<Change> {
    let raises = findings.iter().filter_map(|finding| finding.raise.as_ref());
    raises.filter_map(|raise| change(settings, raise)).collect()
}

/// `None` where it has become enough meanwhile.
fn change(settings: &Path, raise: &Raise) -> Option<Change> {
    let path = settings.join(raise.key.replace('.', "/"));
    let mut change = Change { setting: raise.key, old: "?".to_owned(), new: raise.to.to_string(), failure: None };
    change.failure = apply(&path, &raise.to, &mut change).err().map(|error| error.to_string());
    (change.failure.is_some() || change.new != change.old).then_some(change)
}

fn apply(path: &Path, to: &To, change: &mut Change) -> io::Result<()> {
    change.old = text(path)?;
    change.new = better(&change.old, to)?;
    if change.new == change.old {
        return Ok(());
    }
    fs::write(path, &change.new)?;
    // The kernel may take a value and cut it: what counts is what it says afterwards.
    let now = text(path)?;
    if now == change.new || matches!(to, To::With(_)) {
        return Ok(());
    }
    Err(io::Error::other(format!("the kernel made it {now}")))
}

/// What a setting becomes: nothing of it is lowered or narrowed.
fn better(old: &str, to: &To) -> io::Result<String> {
    let numbers = || old.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>().map_err(io::Error::other);
    let count = |have: usize, wanted: usize| {
        let error = || io::Error::other(format!("{have} values where {wanted} were expected"));
        if have == wanted { Ok(()) } else { Err(error()) }
    };
    match to {
        To::AtLeast(wanted) => {
            let before = numbers()?;
            count(before.len(), wanted.len())?;
            Ok(join(before.iter().zip(wanted).map(|(before, wanted)| *before.max(wanted))))
        }
        To::Range(low, high) => {
            let before = numbers()?;
            count(before.len(), 2)?;
            Ok(join([before[0].min(u64::from(*low)), before[1].max(u64::from(*high))].into_iter()))
        }
        // The judge has put the ports that were there into the list.
        To::Switch(_) | To::With(_) => Ok(to.to_string()),
    }
}

/// Values with one blank between.
fn text(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

fn join(values: impl Iterator<Item = u64>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::server::judge;
    use crate::{HostFacts, Shards, Tables, Wanted};

    /// A folder of settings as a small host has them.
    fn host() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65536\n"),
            ("proc/sys/net/ipv4/tcp_mem", "10\t900000\t100000\n"),
            ("proc/sys/fs/file-max", "50000\n"),
            ("proc/sys/fs/file-nr", "100\t0\t50000\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn findings(root: &Path) -> Vec<Finding> {
        let wanted = Wanted {
            connections: 200_000,
            fleet_here: false,
            port: 7_400,
            shards: Shards::Chosen,
            tables: Tables { fixed: 64, per_shard: 6, shards_max: 1_024 },
            backlog: 4_096,
        };
        judge(&HostFacts::read_below(root, (1_024, 20_000)), &wanted)
    }

    #[test]
    fn what_is_too_low_is_raised_and_nothing_is_lowered() {
        let root = host();
        let sysctl = root.path().join("proc/sys");
        let changes: Vec<_> = mend(&sysctl, &findings(root.path())).iter().map(Change::to_string).collect();
        assert_eq!(
            changes,
            [
                "fs.file-max: 50000 → 208292",
                "net.core.somaxconn: 128 → 4096",
                "net.ipv4.tcp_mem: 10 900000 100000 → 100000 900000 200000",
            ]
        );
        assert_eq!(fs::read_to_string(sysctl.join("net/core/somaxconn")).unwrap(), "4096");
        assert_eq!(fs::read_to_string(sysctl.join("net/ipv4/tcp_max_syn_backlog")).unwrap(), "65536\n");
        assert_eq!(mend(&sysctl, &findings(root.path())), [], "there is nothing left to raise");
    }

    #[test]
    fn a_range_is_widened_a_switch_thrown_and_a_list_kept() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("range"), "20000\t65000\n").unwrap();
        fs::write(root.path().join("switch"), "2\n").unwrap();
        fs::write(root.path().join("ports"), "80\n").unwrap();
        let mended = |key, to| change(root.path(), &Raise { key, to }).map(|change| change.to_string());
        let range = || mended("range", To::Range(30_000, 65_535));
        assert_eq!(range().as_deref(), Some("range: 20000 65000 → 20000 65535"));
        assert_eq!(range(), None);
        assert_eq!(mended("switch", To::Switch(1)).as_deref(), Some("switch: 2 → 1"));
        assert_eq!(mended("ports", To::With("80,7400".into())).as_deref(), Some("ports: 80 → 80,7400"));
        assert_eq!(mended("ports", To::AtLeast(vec![1, 2])).unwrap_or_default().matches("failed").count(), 1);
    }

    #[test]
    fn a_failure_is_said_in_one_line_and_the_rest_is_raised() {
        let root = host();
        let findings = findings(root.path());
        let sysctl = root.path().join("proc/sys");
        fs::remove_file(sysctl.join("net/core/somaxconn")).unwrap();
        let changes = mend(&sysctl, &findings);
        let failures: Vec<_> =
            changes.iter().filter(|change| change.failure.is_some()).map(Change::to_string).collect();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].starts_with("net.core.somaxconn: ? → 4096 failed: ") && !failures[0].contains('\n'));
        assert_eq!(changes.len(), 3);
    }
}
