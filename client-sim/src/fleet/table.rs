//! The summary for people.

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use hongbao_proto::Fen;

use crate::fleet::verdict::{PhaseSummary, Summary};

/// The whole summary as text, without a trailing newline.
pub fn render(summary: &Summary) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "phase",
        "QPS",
        "kept",
        "sent",
        "answered",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "lag p99 ms",
        "server µs/req",
        "fleet µs/req",
    ]);
    for phase in &summary.phases {
        table.add_row(row(phase));
    }
    let mut lines = vec![
        format!(
            "{} of {} users on {} machines, logged in within {:.1} s",
            summary.connected, summary.users, summary.machines, summary.connect_seconds
        ),
        table.to_string(),
        books(summary),
        memory(summary),
        format!("answers: {}", counts(&summary.outcomes)),
    ];
    for (title, counted) in [("errors", &summary.errors), ("connections ended", &summary.totals.ends)] {
        if !counted.is_empty() {
            lines.push(format!("{title}: {}", counts(counted)));
        }
    }
    lines.push(if summary.passed {
        "PASSED".to_owned()
    } else {
        format!("FAILED\n  {}", summary.failures.join("\n  "))
    });
    lines.join("\n")
}

fn row(phase: &PhaseSummary) -> Vec<String> {
    let ms = |value: f64| format!("{value:.2}");
    let us = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let judged = if phase.judged { "" } else { " (not judged)" };
    vec![
        phase.name.clone(),
        phase.qps_target.to_string(),
        format!("{}/{} s{judged}", phase.seconds_within_tolerance, phase.seconds),
        phase.sent.to_string(),
        phase.answered.to_string(),
        ms(phase.p50_ms),
        ms(phase.p99_ms),
        ms(phase.p999_ms),
        ms(phase.max_ms),
        ms(phase.send_lag_p99_ms),
        us(phase.server_cpu_us_per_request),
        us(phase.fleet_cpu_us_per_request),
    ]
}

fn books(summary: &Summary) -> String {
    let books = &summary.books;
    let received = format!("users received {} prizes, {} yuan", books.received, Fen(books.received_fen));
    match (books.won, books.paid_fen, books.residual_fen) {
        (Some(won), Some(paid), Some(residual)) => format!(
            "books: server issued {}, paid {won} prizes, {} yuan; {received}; residual {residual} fen",
            books.issued.unwrap_or_default(),
            Fen(paid),
        ),
        _ => format!("books: {received}; the server's were not read"),
    }
}

fn memory(summary: &Summary) -> String {
    let bytes = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value} bytes"));
    format!(
        "memory per idle connection: server {}, fleet {}",
        bytes(summary.memory.server_rss_bytes_per_connection),
        bytes(summary.memory.fleet_rss_bytes_per_user),
    )
}

fn counts(counts: &crate::results::Counts) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(label, count)| format!("{count} {label}")).collect::<Vec<_>>().join(", ")
}
