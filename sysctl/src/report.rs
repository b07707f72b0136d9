//! The findings as a whole: which limit binds first, and how much this host carries; as a table or
//! as data.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use crate::facts::HostFacts;
use crate::finding::{Finding, Weight, thousands};
use crate::judge::fleet::{self, FleetWanted};
use crate::judge::server::{self, Wanted};
use crate::mend::{Change, mend};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Connections,
    Users,
}

/// A host held against what is wanted of it.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    pub wanted: u64,
    pub unit: Unit,
    /// Whether the host carries them.
    pub fits: bool,
    /// The most that it carries now.
    pub carries: u64,
    pub binds: &'static str,
    /// The most that it carries without a price; `None`: all that it carries.
    pub slower_beyond: Option<u64>,
    /// The setting that has that price.
    pub slower_for: Option<&'static str>,
    pub findings: Vec<Finding>,
}

impl Verdict {
    pub fn of(facts: &HostFacts, wanted: &Wanted) -> Self {
        Self::from(wanted.connections, Unit::Connections, server::judge(facts, wanted))
    }

    pub fn of_fleet(facts: &HostFacts, wanted: &FleetWanted) -> Self {
        Self::from(wanted.users, Unit::Users, fleet::judge(facts, wanted))
    }

    fn from(wanted: u64, unit: Unit, findings: Vec<Finding>) -> Self {
        let tightest = |weight| {
            let bounds = findings.iter().filter(move |finding| finding.weight == weight);
            bounds.filter_map(|finding| Some((finding.carries?, finding.setting))).min_by_key(|(carries, _)| *carries)
        };
        // Descriptors bound every host.
        let (carries, binds) = tightest(Weight::Bounds).unwrap_or((0, "nofile hard"));
        let slower = tightest(Weight::Hampers).filter(|(most, _)| *most < carries);
        Self {
            wanted,
            unit,
            fits: carries >= wanted,
            carries,
            binds,
            slower_beyond: slower.map(|(most, _)| most),
            slower_for: slower.map(|(_, setting)| setting),
            findings,
        }
    }

    /// What mends the setting that binds.
    pub fn command(&self) -> Option<&str> {
        self.findings.iter().find(|finding| finding.setting == self.binds)?.command.as_deref()
    }
}

/// What `check` prints as JSON.
#[derive(Serialize)]
struct Checked<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// What `--fix` did.
    changes: &'a [Change],
}

/// What `check` is asked to do.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Raise what is too low.
    pub fix: bool,
    pub json: bool,
}

impl Check {
    /// Judges the host that we run on, mends it if asked to, and says so; returns whether it fits.
    pub fn run(self, out: &mut impl Write, judge: impl Fn(&HostFacts) -> Verdict) -> io::Result<bool> {
        let mut verdict = judge(&HostFacts::read());
        let mut changes = Vec::new();
        if self.fix {
            changes = mend(Path::new("/proc/sys"), &verdict.findings);
            verdict = judge(&HostFacts::read());
        }
        if self.json {
            let text = serde_json::to_string_pretty(&Checked { verdict: &verdict, changes: &changes })?;
            writeln!(out, "{text}")?;
            return Ok(verdict.fits);
        }
        for change in &changes {
            writeln!(out, "{change}")?;
        }
        if self.fix {
            writeln!(out, "{}", if changes.is_empty() { "nothing to raise\n" } else { "" })?;
        }
        writeln!(out, "{verdict}")?;
        Ok(verdict.fits)
    }
}

/// What stands before a setting.
fn mark(finding: &Finding) -> &'static str {
    match (finding.enough, finding.weight) {
        (true, _) => "ok",
        (false, Weight::Bounds) => "BINDS",
        (false, Weight::Hampers) => "slower",
        (false, Weight::Informs) => "note",
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 5]> = self
            .findings
            .iter()
            .map(|finding| {
                [
                    mark(finding).to_owned(),
                    finding.setting.to_owned(),
                    finding.now.to_string(),
                    finding.needed.to_string(),
                    finding.carries.map_or("-".to_owned(), thousands),
                ]
            })
            .collect();
        let head = ["", "setting", "now", "needed", "carries"];
        let widths: [usize; 5] = std::array::from_fn(|column| {
            rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(head[column].len())
        });
        let [mark, setting, now, needed, carries] = widths;
        let mut line = |row: [&str; 5]| {
            let text = format!(
                "{:mark$}  {:setting$}  {:>now$}  {:>needed$}  {:>carries$}",
                row[0], row[1], row[2], row[3], row[4]
            );
            writeln!(f, "{}", text.trim_end())
        };
        line(head)?;
        for row in &rows {
            line(row.each_ref().map(String::as_str))?;
        }
        writeln!(f)?;
        let notable = |finding: &&Finding| !finding.enough || finding.command.is_some();
        for finding in self.findings.iter().filter(notable) {
            writeln!(f, "{}: {}", finding.setting, finding.why)?;
            if let Some(command) = &finding.command {
                writeln!(f, "    {command}")?;
            }
            if let Some(file) = &finding.file {
                writeln!(f, "    at every boot: sysctl/{file}")?;
            }
        }
        if self.findings.iter().any(|finding| notable(&finding)) {
            writeln!(f)?;
        }
        let slower = match (self.slower_beyond, self.slower_for) {
            (Some(most), Some(setting)) => format!(" (slower beyond {}: {setting})", thousands(most)),
            _ => String::new(),
        };
        write!(
            f,
            "{} {} {}: this host carries {} now{slower}; {} binds first.",
            thousands(self.wanted),
            match self.unit {
                Unit::Connections => "connections",
                Unit::Users => "users",
            },
            if self.fits { "fit" } else { "do not fit" },
            thousands(self.carries),
            self.binds,
        )
    }
}
