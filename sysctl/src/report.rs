//! The findings as a whole: which limit binds first, and how many connections this host carries; as a table or as data.

use std::fmt;

use serde::Serialize;

use crate::facts::HostFacts;
use crate::judge::{Finding, Wanted, Weight, judge, thousands};

/// A host held against what is wanted of it.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Connections wanted.
    pub connections: u64,
    /// Whether the host carries them.
    pub fits: bool,
    /// The most connections that it carries now.
    pub carries: u64,
    /// The setting that binds there.
    pub binds: &'static str,
    /// The most connections that it carries without a price; `None`: all that it carries.
    pub slower_beyond: Option<u64>,
    /// The setting that has that price.
    pub slower_for: Option<&'static str>,
    /// All settings.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Judges.
    pub fn of(facts: &HostFacts, wanted: &Wanted) -> Self {
        let findings = judge(facts, wanted);
        let tightest = |weight| {
            let bounds = findings.iter().filter(move |finding| finding.weight == weight);
            bounds.filter_map(|finding| Some((finding.carries?, finding.setting))).min_by_key(|(carries, _)| *carries)
        };
        // Descriptors bound every host.
        let (carries, binds) = tightest(Weight::Bounds).unwrap_or((0, "nofile hard"));
        let slower = tightest(Weight::Hampers).filter(|(most, _)| *most < carries);
        Self {
            connections: wanted.connections,
            fits: carries >= wanted.connections,
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
            "{} connections {}: this host carries {} now{slower}; {} binds first.",
            thousands(self.connections),
            if self.fits { "fit" } else { "do not fit" },
            thousands(self.carries),
            self.binds,
        )
    }
}
