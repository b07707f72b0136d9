//! The report as Markdown.

use hongbao_telemetry::table::aligned;

use crate::report::Report;
use crate::report::tables::{Table, verdict};

/// The whole report; charts are linked beside it.
pub fn render(report: &Report) -> String {
    let Report { figures, tables, charts, .. } = report;
    let mut parts =
        vec![format!("# Hongbao: run of {}", figures.run.started_at), format!("**{}**", plain(&verdict(figures)))];
    let failures: Vec<String> =
        figures.verdict.failures.iter().map(|failure| format!("- {}", plain(failure))).collect();
    parts.extend((!failures.is_empty()).then(|| failures.join("\n")));
    for table in tables {
        parts.extend([format!("## {}", plain(&table.title)), grid(table)]);
        parts.extend((!table.note.is_empty()).then(|| plain(&table.note)));
    }
    parts.push("## Charts".to_owned());
    parts.extend(charts.iter().map(|chart| format!("![{}]({}.svg)", chart.title, chart.file)));
    parts.join("\n\n") + "\n"
}

fn grid(table: &Table) -> String {
    let line = |cells: &[String]| cells.iter().map(|cell| plain(cell)).collect::<Vec<_>>();
    aligned(&line(&table.head), &table.rows.iter().map(|row| line(row)).collect::<Vec<_>>())
}

/// Text in which nothing is markup.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for letter in text.chars() {
        match letter {
            '|' | '*' | '_' | '`' | '<' | '[' | ']' | '\\' | '#' => plain.extend(['\\', letter]),
            '\n' | '\r' => plain.push(' '),
            _ => plain.push(letter),
        }
    }
    plain
}
