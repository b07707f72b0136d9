//! The summary for people.

use hongbao_proto::Fen;
use hongbao_telemetry::summary::{Change, Phase};
use hongbao_telemetry::table::aligned;

use crate::fleet::announcements::AnnouncementSummary;
use crate::fleet::purchases::{EnvelopeSummary, SaleSummary};
use crate::fleet::storms::StormSummary;
use crate::fleet::verdict::{OperationSummary, Summary};
use crate::results::ChatTotals;

/// The whole summary as text, without a trailing newline.
pub fn render(summary: &Summary) -> String {
    let head = [
        "phase",
        "QPS",
        "kept",
        "sent",
        "answered",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "lag p50/99/99.9/max ms",
        "server µs/req",
        "fleet µs/req",
    ];
    let phases: Vec<Vec<String>> = summary.phases.iter().map(row).collect();
    let mut lines = vec![
        format!(
            "{} of {} users on {} machines, logged in within {:.1} s",
            summary.connected, summary.users, summary.machines, summary.connect_seconds
        ),
        aligned(&head, &phases),
    ];
    lines.extend(summary.parts.storms.iter().map(storm));
    lines.extend(summary.changes.iter().map(|one| change(one, summary)));
    lines.extend(summary.parts.announcements.iter().map(|one| announcement(one, summary.users)));
    if let Some(operations) = operations(summary) {
        lines.push(operations);
    }
    lines.extend(summary.parts.envelopes.as_ref().map(envelopes));
    lines.extend(summary.parts.sale.as_ref().map(|one| sale(one, summary)));
    lines.extend((summary.parts.totals.chat != ChatTotals::default()).then(|| chat(&summary.parts.totals.chat)));
    if summary.parts.totals.statements > 0 {
        lines.push(format!("statements: {} read to their end, and right", summary.parts.totals.statements));
    }
    lines.extend([books(summary), memory(summary), format!("answers: {}", counts(&summary.outcomes))]);
    for (title, counted) in [("errors", &summary.errors), ("connections ended", &summary.parts.totals.ends)] {
        if !counted.is_empty() {
            lines.push(format!("{title}: {}", counts(counted)));
        }
    }
    lines.push(if summary.passed == Some(true) {
        "PASSED".to_owned()
    } else {
        format!("FAILED\n  {}", summary.failures.join("\n  "))
    });
    lines.join("\n")
}

fn change(change: &Change, summary: &Summary) -> String {
    let since = |second: u64| second.saturating_sub(summary.phases.first().map_or(0, |phase| phase.from));
    format!(
        "ordered otherwise, and not judged: {} requests a second, from second {} to {} ({} of {} machines)",
        change.qps,
        since(change.from),
        since(change.until),
        change.machines,
        summary.machines
    )
}

fn row(phase: &Phase) -> Vec<String> {
    let ms = |value: f64| format!("{value:.2}");
    let us = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let judged = if phase.judged { "" } else { " (not judged)" };
    let excluded = |why: &str, seconds: u64| match seconds {
        0 => String::new(),
        _ => format!(", {why}: {seconds} s excluded"),
    };
    vec![
        phase.name.clone(),
        phase.qps_target.to_string(),
        format!(
            "{}/{} s ±{}{}{}{judged}",
            phase.seconds_within_tolerance,
            phase.seconds_judged(),
            phase.tolerance,
            excluded("storm", phase.storm_seconds),
            excluded("ordered otherwise", phase.changed_seconds),
        ),
        phase.sent.to_string(),
        phase.answered.to_string(),
        ms(phase.p50_ms),
        ms(phase.p99_ms),
        ms(phase.p999_ms),
        ms(phase.max_ms),
        format!(
            "{:.2}/{:.2}/{:.2}/{:.2}",
            phase.send_lag_p50_ms, phase.send_lag_p99_ms, phase.send_lag_p999_ms, phase.send_lag_max_ms
        ),
        us(phase.server_cpu_us_per_request),
        us(phase.fleet_cpu_us_per_request),
    ]
}

/// What was asked for, where it was more than grabs.
fn operations(summary: &Summary) -> Option<String> {
    if summary.parts.operations.is_empty() && summary.parts.reactions.is_empty() {
        return None;
    }
    let head = ["requests", "sent", "answered", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "answers"];
    let row = |one: &OperationSummary, name: String| {
        let times = [one.p50_ms, one.p99_ms, one.p999_ms, one.max_ms].map(|ms| format!("{ms:.2}"));
        let mut row = vec![name, one.sent.to_string(), one.answered.to_string()];
        row.extend(times);
        row.push(counts(&one.outcomes));
        row
    };
    let mut rows: Vec<Vec<String>> = summary.parts.operations.iter().map(|one| row(one, one.name.clone())).collect();
    rows.extend(summary.parts.reactions.iter().map(|one| row(one, format!("{} (of their own accord)", one.name))));
    Some(aligned(&head, &rows))
}

fn envelopes(one: &EnvelopeSummary) -> String {
    let residual = one.residual_fen.map_or_else(String::new, |residual| format!("; residual {residual} fen"));
    format!(
        "envelopes at {} s: {} of {} sent, {} still open after {:.1} s; {} offers to users, who opened {} shares, {} yuan; {} yuan went back{residual}",
        one.at_second,
        one.server.sent,
        one.server.count,
        one.server.open,
        one.seconds,
        one.offered,
        one.opened,
        Fen(one.opened_fen),
        Fen(one.server.refunded_fen),
    )
}

fn sale(one: &SaleSummary, summary: &Summary) -> String {
    let orders = &summary.parts.totals.orders;
    format!(
        "sale at {} s: server sold {} of {} tickets for {} yuan; users were told of {} for {} yuan; {} orders reserved, {} cancelled, {} expired; residual {} fen",
        one.at_second,
        one.paid,
        one.total,
        Fen(one.paid_fen),
        one.told_paid,
        Fen(one.told_fen),
        orders.reserved,
        orders.cancelled,
        orders.expired,
        one.residual_fen,
    )
}

fn chat(chat: &ChatTotals) -> String {
    let ChatTotals { delivered, offline, dropped, received, missed, recovered } = chat;
    format!(
        "chat: {delivered} delivered, {offline} offline, {dropped} dropped; {received} heard, {recovered} of these after a reconnect; {missed} of rooms missed"
    )
}

fn storm(storm: &StormSummary) -> String {
    let back = match storm.seconds_until_all_back {
        Some(seconds) => format!("all back within {seconds:.1} s"),
        None => format!("{} back", storm.back),
    };
    format!(
        "storm of {} at {} s: {} cut, {back}; {} requests of others p50 {:.2} p99 {:.2} max {:.2} ms; {} waited for their user, p50 {:.0} p99 {:.0} max {:.0} ms",
        storm.share,
        storm.at_second,
        storm.cut,
        storm.others_requests,
        storm.others_p50_ms,
        storm.others_p99_ms,
        storm.others_max_ms,
        storm.held_requests,
        storm.held_p50_ms,
        storm.held_p99_ms,
        storm.held_max_ms,
    )
}

fn announcement(one: &AnnouncementSummary, users: u64) -> String {
    let span = match (one.first_ms, one.last_ms) {
        (Some(first), Some(last)) => format!(", the first after {first:.1} ms, the last after {last:.1} ms"),
        _ => String::new(),
    };
    let server = one.server.as_ref().map_or_else(String::new, |server| {
        format!("; server: {} reached in {:.3} s, {} dropped", server.reached, server.seconds, server.dropped)
    });
    format!("`{}`: heard by {} of {users}, {} repeats{span}{server}", one.text, one.delivered, one.repeated)
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
