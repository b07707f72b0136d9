//! The report as Markdown.

use std::fmt::Write;

use hongbao_telemetry::table::aligned;

use crate::report::charts::Chart;
use crate::report::figures::Figures;
use crate::report::tables::{Table, verdict};

/// The whole report; charts are linked beside it.
pub fn render(figures: &Figures, tables: &[Table], charts: &[(Chart, String)]) -> String {
    let mut text = format!("# Hongbao: run of {}\n\n**{}**\n", figures.run.started_at, plain(&verdict(figures)));
    if !figures.verdict.failures.is_empty() {
        text.push('\n');
    }
    let mut push = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).unwrap_or_else(|error| unreachable!("text in memory is always written: {error}"));
    };
    for failure in &figures.verdict.failures {
        push(format_args!("- {}\n", plain(failure)));
    }
    for table in tables {
        push(format_args!("\n## {}\n\n{}\n", plain(&table.title), grid(table)));
        if !table.note.is_empty() {
            push(format_args!("\n{}\n", plain(&table.note)));
        }
    }
    push(format_args!("\n## Charts\n"));
    for (chart, _) in charts {
        push(format_args!("\n![{}]({}.svg)\n", chart.title, chart.file));
    }
    text
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
