//! The figures as tables, the same for every format.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::report::figures::{Connect, Figures, PhaseFigures, Processor};
use crate::run::books::{Claims, Trade};
use crate::run::histogram::Quantiles;
use crate::run::mark::Mark;
use crate::words::{bytes, count, decimals, figures, or_dash, percent, phase, plain, thousands, yuan};
use hongbao_telemetry::summary::Change;

/// A table: its first column names the rows, the others hold figures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    pub title: String,
    /// Below it: what a reader has to know.
    pub note: String,
    pub head: Vec<String>,
    /// As many cells each.
    pub rows: Vec<Vec<String>>,
    /// Columns from this one on hold text; 0: none but the first does.
    pub text_from: usize,
    /// Told before the charts.
    pub leads: bool,
}

impl Table {
    /// The columns' names are told apart by ` | `.
    fn new(title: &str, note: &str, head: &str, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        let head = head.split(" | ").map(str::to_owned).collect();
        Self { title: title.into(), note: note.into(), head, rows: rows.into_iter().collect(), ..Self::default() }
    }
}

/// The headline in a sentence.
pub fn verdict(figures: &Figures) -> String {
    let machines = match figures.run.machines {
        Some(1) => "1 machine".to_owned(),
        machines => format!("{} machines", count(machines.unwrap_or(0))),
    };
    let books =
        if figures.verdict.books_balanced { "both books agree to the fen" } else { "the two books DO NOT agree" };
    let users = figures.run.users.map_or_else(String::new, |users| format!("{} users on {}: ", count(users), machines));
    match figures.verdict.passed {
        Some(true) => format!(
            "Passed. {users}everyone connected, every second was kept, every request was answered once, {books}."
        ),
        Some(false) => format!("Not passed. {users}{books}; what did not hold is listed below."),
        None => format!("Not judged: there is no summary of the fleet. {}.", capital(books)),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// All tables that there is something to put into.
pub fn all(figures: &Figures) -> Vec<Table> {
    let mut tables = vec![phases(figures), seconds_kept(figures), changes(figures), trades(figures), books(figures)];
    tables.iter_mut().for_each(|table| table.leads = true);
    tables.extend([timeline(figures), connect(figures), memory(figures), processor(figures)]);
    tables.extend(others(figures));
    tables.extend([answers(figures), turned_away(figures), distributions(figures), tcp(figures), host(figures)]);
    tables.retain(|table| !table.rows.is_empty());
    tables
}

fn phases(all: &Figures) -> Table {
    let row = |PhaseFigures { phase: one, .. }: &PhaseFigures| {
        let us = |value: Option<f64>| or_dash(value, |us| decimals(us, 1));
        let name = if one.judged { phase(&one.name) } else { format!("{} (not judged)", phase(&one.name)) };
        let mut row = vec![name];
        row.extend([one.qps_target, one.seconds, one.sent, one.answered].map(count));
        row.extend([one.p50_ms, one.p99_ms, one.p999_ms, one.max_ms].map(figures));
        row.extend([one.send_lag_p50_ms, one.send_lag_p99_ms, one.send_lag_max_ms].map(figures));
        row.extend([one.server_cpu_us_per_request, one.fleet_cpu_us_per_request].map(us));
        row
    };
    Table::new(
        "Phases",
        "Latency runs from the planned send time of a request to its answer, all in milliseconds. Send lag is how far sends were \
         behind the plan. Processor time is of the whole process, kernel included, in microseconds for each request answered.",
        "phase | planned/s | seconds | sent | answered | p50 | p99 | p99.9 | max | lag p50 | lag p99 | lag max | server µs | \
         fleet µs",
        all.phases.iter().map(row),
    )
}

fn seconds_kept(all: &Figures) -> Table {
    let row = |PhaseFigures { phase: one, seconds_within_percent, .. }: &PhaseFigures| {
        let judged = match (one.judged, one.tolerance.as_str()) {
            (false, _) => "not judged".to_owned(),
            (true, "") => "–".to_owned(),
            (true, tolerance) => format!("±{tolerance}"),
        };
        let mut row = vec![phase(&one.name)];
        row.extend([one.seconds, one.storm_seconds, one.changed_seconds].map(count));
        row.extend(seconds_within_percent.values().copied().map(count));
        row.extend([judged, format!("{} of {}", count(one.seconds_within_tolerance), count(one.seconds_judged()))]);
        row
    };
    Table::new(
        "Seconds kept",
        "A second is kept if both the requests sent in it and the answers that came in it are so near to the plan. Excluded are \
         seconds of a storm, until all users are back, and seconds in which an operator's QPS held.",
        "phase | seconds | in a storm | ordered otherwise | ±1% | ±2% | ±3% | judged by | kept",
        all.phases.iter().map(row),
    )
}

/// What an operator ordered.
fn changes(all: &Figures) -> Table {
    let row = |one: &Change| {
        let [from, until] = [one.from, one.until].map(|second| count(second.saturating_sub(all.run.start)));
        vec![count(one.qps.into()), from, until, count(one.machines as u64)]
    };
    Table::new(
        "Ordered otherwise by an operator",
        "Seconds in which these held are excluded from what the plan is judged by.",
        "QPS | from second | until second | machines",
        all.changes.iter().map(row),
    )
}

fn connect(all: &Figures) -> Table {
    let row = |one: &Connect| {
        let most = or_dash(one.per_second_max, thousands);
        vec![count(one.users), count(one.connected), decimals(one.seconds, 1), decimals(one.per_second, 0), most]
    };
    let head = "users | logged in | seconds | a second, mean | a second, most";
    Table::new("Connecting", "", head, all.connect.as_ref().map(row))
}

fn memory(all: &Figures) -> Table {
    let memory = &all.memory;
    let slab_per_user = memory.slab_bytes.zip(memory.users).and_then(|(bytes, users)| bytes.checked_div(users));
    let rows = [
        ("server", memory.server_bytes, memory.server_bytes_per_user),
        ("fleet", memory.fleet_bytes, memory.fleet_bytes_per_user),
        ("kernel", memory.kernel_bytes, memory.kernel_bytes_per_user),
        ("… of it slab", memory.slab_bytes, slab_per_user),
        ("whole machine", memory.host_bytes, memory.host_bytes_per_user),
        ("available before the run", memory.available_before_bytes, None),
        ("available then", memory.available_idle_bytes, None),
        ("available, the least of any second", memory.available_least_bytes, None),
    ];
    let row = |(part, all, each): (&str, Option<u64>, Option<u64>)| {
        all.or(each)?;
        Some(vec![part.into(), or_dash(all, size), or_dash(each, |each| format!("{} B", count(each)))])
    };
    let at = or_dash(memory.idle_second, count);
    Table::new(
        "Memory of idle, logged-in users",
        &format!(
            "In second {at} of the run. Server and fleet: resident memory, and by the user what users added to it. Whole machine: what was \
             available before the first process of the run, less what was available then; the kernel's part is what of it is resident in \
             neither process. What other programs took or gave back meanwhile is in these two. Both ends of every connection are on \
             this machine if server and fleet are.",
        ),
        "part | in all | by the user",
        rows.into_iter().filter_map(row),
    )
}

/// Where the memory of idle users is, in a line; none if nobody measured it.
pub fn memory_line(all: &Figures) -> Option<String> {
    let memory = &all.memory;
    let parts = [("server", memory.server_bytes), ("fleet", memory.fleet_bytes), ("kernel", memory.kernel_bytes)];
    let parts = parts.into_iter().filter_map(|(name, bytes)| Some(format!("{name} {}", size(bytes?))));
    let parts = parts.collect::<Vec<_>>().join(", ");
    let unknown = || "whole machine not known: ".to_owned();
    let whole = memory.host_bytes.zip(memory.host_bytes_per_user).map_or_else(unknown, |(whole, each)| {
        format!("whole machine {}, {} B a user, both ends: ", size(whole), count(each))
    });
    Some(format!("memory with {} idle users: {whole}{parts}", count(memory.users?)))
}

fn size(all: u64) -> String {
    bytes(all as f64)
}

fn processor(all: &Figures) -> Table {
    let cpus = all.host.cpus.map_or_else(String::new, |cpus| format!(" This host has {cpus}."));
    let row = |one: &Processor| {
        let Processor { server, fleet, user, system, interrupts, steal, idle, .. } = *one;
        let parts = [server, fleet, user, system, interrupts, steal, idle];
        let mut row = vec![phase(&one.stretch), count(one.seconds)];
        row.extend(parts.map(|part| or_dash(part, |part| decimals(part, 2))));
        row.push(or_dash(one.kernel_share, percent));
        row
    };
    Table::new(
        "Processors",
        &format!(
            "In processors: 1.00 is one of them, the whole time.{cpus} Server and fleet are whole processes, with the kernel's work for them. \
             User, system, interrupts, steal and idle are of the whole host, whoever caused them; the kernel's share is system and \
             interrupts out of all the time that the host worked.",
        ),
        "stretch | seconds | server | fleet | user | system | interrupts | steal | idle | kernel's share",
        all.processor.iter().map(row),
    )
}

fn books(all: &Figures) -> Table {
    let monitor = &all.books.monitor;
    let Claims { issued, won, paid_fen, prizes_received, received_fen, .. } = monitor.claims;
    let [issued, won, received] = [issued, won, prizes_received].map(thousands);
    let [paid, money] = [paid_fen, received_fen].map(yuan);
    let residual = format!("{} prizes, {}", thousands(monitor.residual_prizes), yuan(monitor.residual_fen));
    let longest = format!("{} s", count(monitor.unbalanced_seconds_longest));
    let mut rows = vec![vec!["monitor".into(), issued, won, paid, received, money, residual, longest]];
    if let Some(fleet) = &all.books.fleet {
        let fen = |fen: Option<i128>| or_dash(fen.and_then(|fen| i64::try_from(fen).ok()), yuan);
        let [issued, won] = [fleet.issued, fleet.won].map(|number| or_dash(number, count));
        let [received, in_journals] = [fleet.received, fleet.journal_prizes].map(count);
        let paid = fen(fleet.paid_fen.map(i128::from));
        let [money, money_in_journals] = [fleet.received_fen, fleet.journal_fen].map(|money| fen(Some(money.into())));
        let dash = || "–".to_owned();
        rows.push(vec!["fleet".into(), issued, won, paid, received, money, fen(fleet.residual_fen), dash()]);
        rows.push(vec!["journals".into(), dash(), dash(), dash(), in_journals, money_in_journals, dash(), dash()]);
    }
    Table::new(
        "The two books",
        "What servers say they paid, what users say they were told, and the residual, which must be 0. The monitor's are of all reports, \
         the fleet's of the run's campaign and the machines' journals.",
        "books | issued | won | paid | received | money received | residual | longest imbalance",
        rows,
    )
}

fn trades(all: &Figures) -> Table {
    let row = |trade: &Trade| {
        let Trade { book, sides, residual_count, residual_fen } = trade;
        let pairs = [
            (sides.servers_count, sides.servers_fen),
            (sides.users_count, sides.users_fen),
            (*residual_count, *residual_fen),
        ];
        let cells = pairs.into_iter().flat_map(|(pieces, fen)| [thousands(pieces), yuan(fen)]);
        [(*book).to_owned()].into_iter().chain(cells).collect()
    };
    // Alone it would say what the table of the two books says.
    let several = all.trades.iter().filter(|_| all.trades.len() > 1);
    Table::new(
        "The books",
        "What servers say they gave and what users say they got, each counted by its own side, in pieces and in money.",
        "book | servers | money | users | money | residual | money",
        several.map(row),
    )
}

/// Rows of the timeline that are told; the recording has all.
const MOMENTS_MAX: usize = 200;

fn timeline(all: &Figures) -> Table {
    let note = match all.timeline.len().saturating_sub(MOMENTS_MAX) {
        0 => String::new(),
        more => format!("{} more are in the recording.", count(more as u64)),
    };
    let row = |moment: &Mark| {
        let at = decimals(moment.at_ms as f64 / 1_000.0, 1);
        vec![at, plain(&moment.kind), moment.source.clone(), moment.text.clone()]
    };
    let rows = all.timeline.iter().take(MOMENTS_MAX).map(row);
    Table { text_from: 1, ..Table::new("Timeline", &note, "second | what | told by | ", rows) }
}

fn turned_away(all: &Figures) -> Table {
    let rows = all.turned_away.iter().map(|(reason, &number)| vec![plain(reason), thousands(number)]);
    Table::new("Turned away and gone, by the servers' count", "", "reason | count", rows)
}

fn answers(all: &Figures) -> Table {
    let answers = &all.answers;
    let families = [("", &answers.outcomes), ("error: ", &answers.errors), ("violation: ", &answers.violations)];
    let kinds = families.into_iter().flat_map(|(prefix, counts)| {
        counts.iter().map(move |(kind, &number)| vec![format!("{prefix}{}", plain(kind)), count(number)])
    });
    let others = [
        ("never answered", answers.unanswered),
        ("logins after a user's first", answers.reconnects),
        ("connects that failed", answers.connect_failures),
    ];
    let others = others.into_iter().filter_map(|(name, number)| Some(vec![name.to_owned(), count(number?)]));
    Table::new("Answers, by the machines' count", "", "kind | count", kinds.chain(others))
}

fn distributions(all: &Figures) -> Table {
    let row = |(name, times): (&String, &Quantiles)| {
        let mut row = vec![plain(&name.replace('.', ": ").replace("_us", "")), count(times.count)];
        row.extend([times.p50, times.p99, times.p999, times.max].map(|us| figures(us as f64 / 1_000.0)));
        row
    };
    let rows = all.distributions.iter().filter(|(_, times)| times.count > 0).map(row);
    Table::new("Times over the whole run", "Milliseconds.", "what | count | p50 | p99 | p99.9 | max", rows)
}

fn tcp(all: &Figures) -> Table {
    let note = "By the kernel's counts in the monitor's network namespace, over the whole run.";
    let rows = all.tcp.iter().map(|(name, &number)| vec![plain(name), count(number)]);
    Table::new("What TCP lost or refused", note, "count | times", rows)
}

fn host(all: &Figures) -> Table {
    let Figures { host, run, .. } = all;
    let seconds = format!("{}, {} of them complete", count(run.seconds), count(run.seconds_complete));
    let rows = [
        ("processor", host.cpu_model.clone()),
        ("processors", host.cpus.map(count)),
        ("memory", host.memory_bytes.map(size)),
        ("kernel", host.kernel.clone()),
        ("started", Some(run.started_at.clone())),
        ("seconds recorded", Some(seconds)),
        ("largest clock error of a machine", run.clock_error_us_max.map(|us| format!("{} µs", count(us)))),
        ("monitor's version", Some(run.version.clone())),
    ];
    let rows = rows.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?]));
    Table::new("Host and run", "The host is the monitor's.", "what | value", rows)
}

/// A table of more columns than this is laid on its side.
const COLUMNS_MAX: usize = 8;

/// Whatever else the fleet tells: an object or a list of objects becomes a table, lists within it
/// tables of their own.
fn others(all: &Figures) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut singles = Table::new("Further figures", "", "what | value", []);
    for (name, value) in &all.others {
        match value {
            Value::Object(_) | Value::Array(_) => generic(&capital(&plain(name)), value, all.run.start, &mut tables),
            Value::Null => {}
            single => singles.rows.push(vec![plain(name), scalar(single)]),
        }
    }
    tables.push(singles);
    tables
}

fn generic(title: &str, value: &Value, start: u64, tables: &mut Vec<Table>) {
    let rows: Vec<&Map<String, Value>> = match value {
        Value::Object(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_object).collect(),
        _ => return,
    };
    let rows: Vec<BTreeMap<String, &Value>> = rows.into_iter().map(|row| flat("", row)).collect();
    let figures = rows.iter().flatten().filter(|(_, value)| !is_list(value));
    let names: BTreeSet<&str> = figures.map(|(name, _)| name.as_str()).collect();
    let cell = |row: &BTreeMap<String, &Value>, name: &str| or_dash(row.get(name), |value| moment(name, value, start));
    if !names.is_empty() {
        let mut table = Table { title: title.to_owned(), ..Table::default() };
        if names.len() > COLUMNS_MAX && rows.len() <= COLUMNS_MAX {
            table.head.push("what".into());
            match rows.len() {
                1 => table.head.push("value".into()),
                several => table.head.extend((1..=several).map(|number| format!("number {number}"))),
            }
            let line =
                |name: &&str| [heading(name)].into_iter().chain(rows.iter().map(|row| cell(row, name))).collect();
            table.rows = names.iter().map(line).collect();
        } else {
            table.head = names.iter().map(|name| heading(name)).collect();
            table.rows = rows.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()).collect();
        }
        tables.push(table);
    }
    for (number, row) in rows.iter().enumerate() {
        for (name, list) in row.iter().filter(|(_, value)| is_list(value)) {
            let which = if rows.len() > 1 { format!(" {}", number + 1) } else { String::new() };
            generic(&format!("{title}{which}: {}", plain(name)), list, start, tables);
        }
    }
}

/// Objects within objects by names with spaces: `all_back` of `view` is `view all_back`.
fn flat<'a>(prefix: &str, object: &'a Map<String, Value>) -> BTreeMap<String, &'a Value> {
    let mut fields = BTreeMap::new();
    for (name, value) in object {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix} {name}") };
        if let Value::Object(inner) = value {
            fields.extend(flat(&name, inner));
        } else {
            fields.insert(name, value);
        }
    }
    fields
}

fn is_list(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.iter().any(Value::is_object))
}

/// A moment is told in seconds, whatever it was counted in.
fn heading(name: &str) -> String {
    plain(name.strip_suffix("_at_ms").map_or(name, |stem| &name[..stem.len() + "_at".len()]))
}

/// Unix times as seconds of the run, where a name says that it is one.
fn moment(name: &str, value: &Value, start: u64) -> String {
    let last = name.rsplit(' ').next().unwrap_or(name);
    let unix = match (last, value.as_u64()) {
        ("at", Some(second)) => Some(second),
        (name, Some(ms)) if name.ends_with("_at_ms") => Some(ms / 1_000),
        _ => None,
    };
    match unix.and_then(|unix| unix.checked_sub(start)) {
        Some(second) => format!("second {}", count(second)),
        None => scalar(value),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => thousands(whole),
            (None, Some(part)) => figures(part),
            (None, None) => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(scalar).collect::<Vec<_>>().join(", "),
        Value::Object(_) => "…".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_a_newer_fleet_tells_becomes_tables() {
        let mut tables = Vec::new();
        let storms = json!([{"cut": 3000, "back": {"last_ms": 1235.4}, "at": 1007, "all": true, "others": [{"second": 0, "p99_ms": 1.25}]}, {"cut": 7}]);
        generic("Storms", &storms, 1_000, &mut tables);
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].head, ["all", "at", "back last ms", "cut"]);
        assert_eq!(tables[0].rows, [["yes", "second 7", "1,235", "3,000"], ["–", "–", "–", "7"]]);
        assert_eq!(
            (tables[1].title.as_str(), &tables[1].rows[0]),
            ("Storms 1: others", &vec!["1.25".to_owned(), "0".to_owned()])
        );
        generic("Nothing", &json!([]), 0, &mut tables);
        generic("Nothing", &Value::Null, 0, &mut tables);
        assert_eq!(tables.len(), 2);
    }
}
