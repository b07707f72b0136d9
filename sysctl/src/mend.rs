//! Raises kernel settings that are too low. Never lowers one: another program may count on it.

use std::path::Path;
use std::{fmt, fs, io};

use serde::Serialize;

use crate::judge::{Finding, Raise};

/// What became of one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub setting: &'static str,
    /// Its values before.
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

/// Raises what the findings ask for, in the folder `settings` (`/proc/sys`). Goes on after a failure. Changes last until the
/// next boot.
pub fn mend(settings: &Path, findings: &[Finding]) -> Vec<Change> {
    let raises = findings.iter().filter_map(|finding| finding.raise.as_ref());
    raises.filter_map(|raise| change(settings, raise)).collect()
}

/// `None` where it has become high enough meanwhile.
fn change(settings: &Path, raise: &Raise) -> Option<Change> {
    let path = settings.join(raise.key.replace('.', "/"));
    let wanted = join(&raise.values);
    let failed = |old: String, new: String, error: io::Error| {
        Some(Change { setting: raise.key, old, new, failure: Some(error.to_string()) })
    };
    let before = match values(&path) {
        Ok(before) => before,
        Err(error) => return failed("?".to_owned(), wanted, error),
    };
    let old = join(&before);
    if before.len() != raise.values.len() {
        let error = io::Error::other(format!("{} values where {} were expected", before.len(), raise.values.len()));
        return failed(old, wanted, error);
    }
    let after: Vec<u64> = before.iter().zip(&raise.values).map(|(before, wanted)| *before.max(wanted)).collect();
    let new = join(&after);
    if after == before {
        return None;
    }
    // The kernel may take a value and cut it: what counts is what it says afterwards.
    match fs::write(&path, &new).and_then(|()| values(&path)) {
        Ok(now) if now == after => Some(Change { setting: raise.key, old, new, failure: None }),
        Ok(now) => failed(old, new, io::Error::other(format!("the kernel made it {}", join(&now)))),
        Err(error) => failed(old, new, error),
    }
}

fn values(path: &Path) -> io::Result<Vec<u64>> {
    let text = fs::read_to_string(path)?;
    text.split_ascii_whitespace().map(|value| value.parse().map_err(io::Error::other)).collect()
}

fn join(values: &[u64]) -> String {
    values.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostFacts, Shards, Tables, Wanted, judge};

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
