//! What the terminal dashboard knows: made of what a monitor's HTTP interface says, and bounded.
//! Pure: nothing here reads a clock, a socket or a terminal.

use std::collections::BTreeMap;

use serde_json::Value;

/// Seconds kept: what the widest terminal can show.
pub const SECONDS_KEPT: usize = 600;

pub const MARKS_KEPT: usize = 200;

/// Sources, servers with SETs and kinds of reasons kept.
pub const NAMES_KEPT: usize = 4_096;

/// Characters of a name or text.
const TEXT_CHARS_MAX: usize = 200;

/// The columns that are shown, by their names in the monitor's series.
pub const COLUMNS: [&str; 46] = [
    "complete",
    "sources_expected",
    "sources_reported",
    "users_online",
    "users_goal",
    "connections",
    "planned",
    "sent",
    "received",
    "answered",
    "issued",
    "won",
    "paid_fen",
    "residual_prizes",
    "residual_fen",
    "residual_units",
    "residual_sale_fen",
    "residual_shares",
    "residual_share_fen",
    "units_sold",
    "shares_opened",
    "envelopes_sent",
    "chat_delivered",
    "announcements_delivered",
    "latency_p50_us",
    "latency_p99_us",
    "latency_p999_us",
    "latency_max_us",
    "send_lag_p99_us",
    "ledger_commit_p99_us",
    "clock_error_max_us",
    "overloaded",
    "refused",
    "disconnects",
    "queue_depth_max",
    "prizes_in_sets",
    "server_cpu_us",
    "fleet_cpu_us",
    "server_resident_bytes",
    "fleet_resident_bytes",
    "open_descriptors",
    "descriptors_limit",
    "host_cpu_idle_seconds",
    "host_memory_available_bytes",
    "host_net_received_bytes",
    "host_net_sent_bytes",
];

/// One second.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// The Unix second.
    pub second: u64,
    values: Vec<Option<f64>>,
    /// What ended, was answered, failed and violated, by kind.
    pub reasons: BTreeMap<(&'static str, String), f64>,
}

/// The groups of reasons, by their names in the monitor's words.
pub const REASONS: [&str; 4] = ["ended", "answers", "errors", "violations"];

impl Row {
    /// A column of this second, where there is such a figure.
    pub fn get(&self, column: &str) -> Option<f64> {
        let index = COLUMNS.iter().position(|known| *known == column)?;
        self.values.get(index).copied().flatten()
    }
}

/// A process that reports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Source {
    pub role: String,
    pub name: String,
    pub presence: String,
    pub clock_offset_us: Option<f64>,
    pub clock_error_us: Option<f64>,
    pub online: Option<f64>,
    pub users: Option<f64>,
    pub cpu_us: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub reports: Option<f64>,
    pub instances: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct SetFigures {
    pub server: String,
    pub index: usize,
    pub connections: f64,
    pub online: f64,
    pub queue_depth: f64,
    pub owed: f64,
    pub stock: f64,
}

/// Something on the timeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mark {
    pub at_ms: u64,
    pub kind: String,
    pub source: String,
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Book {
    pub book: String,
    pub servers_count: f64,
    pub servers_fen: f64,
    pub users_count: f64,
    pub users_fen: f64,
    pub residual_count: f64,
    pub residual_fen: f64,
    pub unbalanced_seconds: f64,
}

impl Book {
    /// Whether both sides say the same.
    #[allow(clippy::float_cmp, reason = "whole numbers far below 2^53")]
    pub fn is_balanced(&self) -> bool {
        self.residual_count == 0.0 && self.residual_fen == 0.0
    }
}

/// How the monitor is reached.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    Connecting,
    Live,
    /// It does not; why.
    Away(String),
    /// The run is over.
    Ended,
}

/// Everything that is shown.
#[derive(Debug, Clone)]
pub struct State {
    /// How the monitor is reached.
    pub link: Link,
    pub run: String,
    pub version: String,
    /// When the run began, Unix milliseconds.
    pub started_at_ms: u64,
    /// Writes to the recording that failed.
    pub record_failures: f64,
    /// The latest seconds, oldest first.
    pub rows: Vec<Row>,
    /// Processes that report, servers first.
    pub sources: Vec<Source>,
    pub sets: Vec<SetFigures>,
    /// The latest marks, oldest first.
    pub marks: Vec<Mark>,
    pub books: Vec<Book>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            link: Link::Connecting,
            run: String::new(),
            version: String::new(),
            started_at_ms: 0,
            record_failures: 0.0,
            rows: Vec::new(),
            sources: Vec::new(),
            sets: Vec::new(),
            marks: Vec::new(),
            books: Vec::new(),
        }
    }
}

/// What the feed brings.
#[derive(Debug)]
pub enum Update {
    Event(String, Value),
    /// The answer of `/api/v1/series`.
    Series(Value),
    /// The answer of `/api/v1/books`.
    Books(Value),
    /// The answer of `/api/v1/marks`.
    Marks(Value),
    /// The stream has begun.
    Connected,
    /// The monitor cannot be reached; why.
    Away(String),
}

impl State {
    /// Takes in what the feed brings. Whatever it does not understand it passes over.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Connected => self.link = Link::Live,
            Update::Away(problem) if self.link != Link::Ended => self.link = Link::Away(clean(&problem)),
            Update::Away(_) => {}
            Update::Series(series) => self.series(&series),
            Update::Books(books) if books["books"].is_array() => {
                self.books = list(&books["books"]).take(16).map(book).collect();
            }
            Update::Books(books) => self.books = rain_book(&books).into_iter().collect(),
            Update::Marks(marks) => {
                for one in list(&marks["marks"]) {
                    self.mark(one);
                }
            }
            Update::Event(name, data) => self.event(&name, &data),
        }
    }

    fn event(&mut self, name: &str, data: &Value) {
        match name {
            "hello" => {
                let run = text(&data["id"]);
                if run != self.run {
                    *self = Self { link: Link::Live, run, ..Self::default() };
                }
                self.link = Link::Live;
                self.version = text(&data["version"]);
                self.run_status(&data["run"]);
            }
            "second" => self.second(data),
            "sources" => {
                self.sources = list(data).take(NAMES_KEPT).map(source).collect();
                self.sources.sort_by(|a, b| {
                    (a.role != "server", &a.role, &a.name).cmp(&(b.role != "server", &b.role, &b.name))
                });
            }
            "sets" => self.sets = sets(data),
            "mark" => self.mark(data),
            "end" => {
                self.run_status(data);
                self.link = Link::Ended;
            }
            _ => {}
        }
    }

    fn run_status(&mut self, run: &Value) {
        self.started_at_ms = run["started_at_ms"].as_u64().unwrap_or(self.started_at_ms);
        self.record_failures = run["record_failures"].as_f64().unwrap_or(0.0);
    }

    fn second(&mut self, data: &Value) {
        let columns = &data["columns"];
        let Some(second) = columns["second"].as_u64() else { return };
        let values = COLUMNS.iter().map(|name| number(&columns[*name])).collect();
        let mut reasons = BTreeMap::new();
        for group in REASONS {
            for (kind, count) in data["reasons"][group].as_object().into_iter().flatten() {
                if let Some(count) = count.as_f64().filter(|count| *count > 0.0)
                    && reasons.len() < NAMES_KEPT
                {
                    reasons.insert((group, clean(kind)), count);
                }
            }
        }
        self.insert(Row { second, values, reasons });
    }

    fn series(&mut self, series: &Value) {
        let columns = &series["columns"];
        let seconds = list(&columns["second"]).map(|second| second.as_u64());
        let first = list(&columns["second"]).count().saturating_sub(SECONDS_KEPT);
        for (index, second) in seconds.enumerate().skip(first) {
            let Some(second) = second else { continue };
            let values = COLUMNS.iter().map(|name| number(&columns[*name][index])).collect();
            let mut reasons = BTreeMap::new();
            for group in REASONS {
                for (kind, counts) in series["reasons"][group].as_object().into_iter().flatten().take(64) {
                    if let Some(count) = counts[index].as_f64().filter(|count| *count > 0.0) {
                        reasons.insert((group, clean(kind)), count);
                    }
                }
            }
            self.insert(Row { second, values, reasons });
        }
    }

    /// A second is told twice where history and stream overlap; the later word counts.
    fn insert(&mut self, row: Row) {
        match self.rows.binary_search_by_key(&row.second, |row| row.second) {
            Ok(known) => self.rows[known] = row,
            Err(place) => self.rows.insert(place, row),
        }
        let surplus = self.rows.len().saturating_sub(SECONDS_KEPT);
        self.rows.drain(..surplus);
    }

    fn mark(&mut self, data: &Value) {
        let mark = Mark {
            at_ms: data["at_ms"].as_u64().unwrap_or_default(),
            kind: text(&data["kind"]),
            source: text(&data["source"]),
            text: text(&data["text"]),
        };
        if !self.marks.contains(&mark) {
            let place = self.marks.partition_point(|known| known.at_ms <= mark.at_ms);
            self.marks.insert(place, mark);
        }
        let surplus = self.marks.len().saturating_sub(MARKS_KEPT);
        self.marks.drain(..surplus);
    }

    /// The latest second.
    pub fn last(&self) -> Option<&Row> {
        self.rows.last()
    }

    /// A column of the latest second.
    pub fn now(&self, column: &str) -> Option<f64> {
        self.last()?.get(column)
    }

    /// The latest `count` values of a column, with the seconds that they are of.
    pub fn column(&self, column: &str, count: usize) -> impl Iterator<Item = (u64, Option<f64>)> {
        let index = COLUMNS.iter().position(|known| *known == column);
        let from = self.rows.len().saturating_sub(count);
        self.rows[from..]
            .iter()
            .map(move |row| (row.second, index.and_then(|index| row.values.get(index).copied().flatten())))
    }

    /// How often each kind of a group occurred in the last second and in the last minute, the most
    /// frequent first.
    pub fn reasons(&self, group: &str) -> Vec<(&str, f64, f64)> {
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let since = self.last().map_or(0, |last| last.second.saturating_sub(60));
        for row in self.rows.iter().rev().take_while(|row| row.second > since) {
            for ((of, kind), count) in row.reasons.iter().filter(|((of, _), _)| *of == group) {
                debug_assert_eq!(*of, group);
                let sum = sums.entry(kind).or_default();
                sum.1 += count;
                if Some(row.second) == self.last().map(|last| last.second) {
                    sum.0 += count;
                }
            }
        }
        let mut sums: Vec<_> = sums.into_iter().map(|(kind, (second, minute))| (kind, second, minute)).collect();
        sums.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(b.0)));
        sums
    }

    /// SETs that stand out, the sickest first, each with what is odd about it.
    pub fn odd_sets(&self) -> Vec<(&SetFigures, String)> {
        let typical = |of: fn(&SetFigures) -> f64| {
            let mut values: Vec<f64> = self.sets.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let (queue, owed, connections) =
            (typical(|set| set.queue_depth), typical(|set| set.owed), typical(|set| set.connections));
        let mut odd: Vec<(f64, &SetFigures, String)> = Vec::new();
        for set in &self.sets {
            // Queues of a few messages come and go.
            let (queued, owing) = (set.queue_depth - 4.0 * queue - 64.0, set.owed - 4.0 * owed - 64.0);
            if queued > 0.0 {
                odd.push((queued + 1e6, set, format!("queue {}", set.queue_depth)));
            } else if owing > 0.0 {
                odd.push((owing + 1e3, set, format!("owes {}", set.owed)));
            } else if connections >= 20.0 && set.connections < connections / 2.0 {
                odd.push((connections - set.connections, set, format!("only {} connections", set.connections)));
            }
        }
        odd.sort_by(|a, b| b.0.total_cmp(&a.0));
        odd.into_iter().map(|(_, set, what)| (set, what)).collect()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        value => value.as_f64().filter(|value| value.is_finite()),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map(clean).unwrap_or_default()
}

/// Names and texts come from other processes: nothing of them may speak to the terminal, or go on
/// for ever.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn source(value: &Value) -> Source {
    Source {
        role: text(&value["role"]),
        name: text(&value["name"]),
        presence: text(&value["presence"]),
        clock_offset_us: number(&value["clock_offset_us"]),
        clock_error_us: number(&value["clock_error_us"]),
        online: number(&value["online"]),
        users: number(&value["users"]),
        cpu_us: number(&value["cpu_us"]),
        resident_bytes: number(&value["resident_bytes"]),
        reports: number(&value["reports"]),
        instances: number(&value["instances"]),
    }
}

fn book(value: &Value) -> Book {
    let count = |name: &str| number(&value[name]).unwrap_or(0.0);
    Book {
        book: text(&value["book"]),
        servers_count: count("servers_count"),
        servers_fen: count("servers_fen"),
        users_count: count("users_count"),
        users_fen: count("users_fen"),
        residual_count: count("residual_count"),
        residual_fen: count("residual_fen"),
        unbalanced_seconds: count("unbalanced_seconds"),
    }
}

/// The one book of a monitor that does not tell them apart.
fn rain_book(value: &Value) -> Option<Book> {
    let count = |name: &str| number(&value[name]);
    Some(Book {
        book: "rain".to_owned(),
        servers_count: count("won")?,
        servers_fen: count("paid_fen")?,
        users_count: count("prizes_received")?,
        users_fen: count("received_fen")?,
        residual_count: count("residual_prizes")?,
        residual_fen: count("residual_fen")?,
        unbalanced_seconds: count("unbalanced_seconds").unwrap_or(0.0),
    })
}

fn sets(data: &Value) -> Vec<SetFigures> {
    let mut sets = Vec::new();
    for (server, columns) in data.as_object().into_iter().flatten() {
        let count = list(&columns["connections"]).count();
        for index in 0..count.min(NAMES_KEPT.saturating_sub(sets.len())) {
            let of = |name: &str| number(&columns[name][index]).unwrap_or(0.0);
            sets.push(SetFigures {
                server: clean(server),
                index,
                connections: of("connections"),
                online: of("online"),
                queue_depth: of("queue_depth"),
                owed: of("owed"),
                stock: of("stock"),
            });
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn second(second: u64, sent: u64) -> Update {
        let data = json!({"columns": {"second": second, "sent": sent, "complete": 1},
            "reasons": {"ended": {"idle": 2}, "answers": {}, "errors": {}, "violations": {}}, "heat": {}});
        Update::Event("second".to_owned(), data)
    }

    #[test]
    fn history_and_stream_may_overlap_and_come_in_any_order() {
        let mut state = State::default();
        state.apply(second(12, 120));
        let columns = json!({"second": [10, 11, 12], "sent": [100, null, 1]});
        let reasons = json!({"ended": {"idle": [1, 0, 5]}});
        state.apply(Update::Series(json!({"run": "x", "every": 1, "columns": columns, "reasons": reasons})));
        state.apply(second(12, 120));
        state.apply(second(13, 130));
        let sent: Vec<_> = state.column("sent", 10).collect();
        assert_eq!(sent, [(10, Some(100.0)), (11, None), (12, Some(120.0)), (13, Some(130.0))]);
        assert_eq!(state.reasons("ended"), [("idle", 2.0, 5.0)]);
    }

    #[test]
    fn memory_is_bounded_and_texts_cannot_speak_to_the_terminal() {
        let mut state = State::default();
        for number in 0..2_000 {
            state.apply(second(number, 1));
            let mark =
                json!({"at_ms": number, "kind": "alert", "source": "", "text": "\u{1b}[31mred\u{7}".repeat(100)});
            state.apply(Update::Event("mark".to_owned(), mark));
        }
        assert_eq!((state.rows.len(), state.marks.len()), (SECONDS_KEPT, MARKS_KEPT));
        assert!(state.marks.iter().all(|mark| mark.text.chars().count() <= 200 && !mark.text.contains('\u{1b}')));
    }

    #[test]
    fn another_run_begins_anew() {
        let mut state = State::default();
        let hello = |id: &str| Update::Event("hello".to_owned(), json!({"id": id, "version": "1", "run": {}}));
        state.apply(hello("a"));
        state.apply(second(5, 1));
        state.apply(hello("a"));
        assert_eq!(state.rows.len(), 1);
        state.apply(hello("b"));
        assert!(state.rows.is_empty() && state.link == Link::Live);
    }

    #[test]
    fn a_sick_set_stands_out_among_healthy_ones() {
        let mut connections = vec![100; 50];
        connections[7] = 3;
        let mut queue_depth = vec![1; 50];
        queue_depth[20] = 4_000;
        let zeros = vec![0; 50];
        let data = json!({"server-1": {"connections": connections, "online": connections, "queue_depth": queue_depth,
            "owed": zeros, "stock": zeros}});
        let mut state = State::default();
        state.apply(Update::Event("sets".to_owned(), data));
        let odd: Vec<_> = state.odd_sets().into_iter().map(|(set, what)| (set.index, what)).collect();
        assert_eq!(odd, [(20, "queue 4000".to_owned()), (7, "only 3 connections".to_owned())]);
    }
}
