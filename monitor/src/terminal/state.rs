//! What the terminal dashboard knows: made of what a monitor's HTTP interface says, and bounded.
//! Pure: nothing here reads a clock, a socket or a terminal.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::recording::RunStatus;
use crate::run::books::Balance;
use crate::run::mark::Mark;
use crate::run::merge::SourceStatus;
use crate::run::series::{Kinds, Reasons, Row, Series};
use crate::run::sets::SetsSecond;

/// Seconds kept: what the widest terminal can show.
pub const SECONDS_KEPT: usize = 600;

pub const MARKS_KEPT: usize = 200;

/// Sources, SETs, and kinds of reasons in a second.
const NAMES_KEPT: usize = 4_096;

/// Characters of a name or text.
const TEXT_CHARS_MAX: usize = 200;

/// A SET of a server.
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

/// How the monitor is reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Link {
    #[default]
    Connecting,
    Live,
    /// It is not; why.
    Away(String),
    /// The run is over.
    Ended,
}

/// Everything that is shown.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub link: Link,
    /// The run's id.
    pub run: String,
    pub status: RunStatus,
    /// The latest seconds, oldest first.
    pub rows: Vec<Row>,
    /// Processes that report, servers first.
    pub sources: Vec<SourceStatus>,
    pub sets: Vec<SetFigures>,
    /// The latest marks, oldest first.
    pub marks: Vec<Mark>,
    pub books: Option<Balance>,
}

/// What the feed brings.
#[derive(Debug)]
pub enum Update {
    /// An event of the stream, or an answer of `/api/v1/` by its path.
    Data(String, Value),
    /// The stream has begun.
    Connected,
    /// The monitor cannot be reached; why.
    Away(String),
}

#[derive(Deserialize)]
struct Hello {
    id: String,
    run: RunStatus,
}

impl State {
    /// Takes in what the feed brings. Whatever it does not understand it passes over.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Connected => self.link = Link::Live,
            Update::Away(problem) if self.link != Link::Ended => self.link = Link::Away(clean(&problem)),
            Update::Away(_) => {}
            Update::Data(name, data) => {
                self.data(&name, cleaned(data)).ok();
            }
        }
    }

    fn data(&mut self, name: &str, mut data: Value) -> serde_json::Result<()> {
        match name {
            "hello" => {
                let Hello { id, run } = serde_json::from_value(data)?;
                if id != self.run {
                    *self = Self { run: id, ..Self::default() };
                }
                (self.link, self.status) = (Link::Live, run);
            }
            "second" => self.insert(serde_json::from_value(data)?),
            "series" => serde_json::from_value::<Series>(data)?.rows().for_each(|row| self.insert(row)),
            "sources" => {
                let listed = data.get_mut("sources").map(Value::take);
                self.sources = serde_json::from_value(listed.unwrap_or(data))?;
                self.sources.truncate(NAMES_KEPT);
                self.sources.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
            }
            "sets" => self.sets = sets(serde_json::from_value(data)?),
            "mark" => self.mark(serde_json::from_value(data)?),
            "marks" => {
                let marks: Vec<Mark> = serde_json::from_value(data["marks"].take())?;
                marks.into_iter().for_each(|mark| self.mark(mark));
            }
            "books" => self.books = Some(serde_json::from_value(data)?),
            "end" => (self.status, self.link) = (serde_json::from_value(data)?, Link::Ended),
            _ => {}
        }
        Ok(())
    }

    /// A second is sent twice where history and stream overlap; the later one counts.
    fn insert(&mut self, row: Row) {
        if row.reasons.families().into_iter().map(BTreeMap::len).sum::<usize>() > NAMES_KEPT {
            return;
        }
        match self.rows.binary_search_by_key(&row.second(), Row::second) {
            Ok(known) => self.rows[known] = row,
            Err(place) => self.rows.insert(place, row),
        }
        let surplus = self.rows.len().saturating_sub(SECONDS_KEPT);
        self.rows.drain(..surplus);
    }

    fn mark(&mut self, mark: Mark) {
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
        let from = self.rows.len().saturating_sub(count);
        self.rows[from..].iter().map(move |row| (row.second(), row.get(column)))
    }

    /// How often each kind of a family occurred in the last second and in the last minute, the most
    /// frequent first.
    pub fn reasons(&self, family: fn(&Reasons) -> &Kinds) -> Vec<(&str, f64, f64)> {
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let last = self.last().map_or(0, Row::second);
        for row in self.rows.iter().rev().take_while(|row| row.second() > last.saturating_sub(60)) {
            for (kind, count) in family(&row.reasons) {
                let (second, minute) = sums.entry(kind).or_default();
                *minute += count;
                if row.second() == last {
                    *second += count;
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

/// Names and texts come from other processes: nothing of them may speak to the terminal, or go on
/// for ever.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn cleaned(data: Value) -> Value {
    match data {
        Value::String(text) => clean(&text).into(),
        Value::Array(list) => list.into_iter().map(cleaned).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (clean(&name), cleaned(value))).collect(),
        other => other,
    }
}

fn sets(servers: BTreeMap<String, SetsSecond>) -> Vec<SetFigures> {
    let each = |(server, lists): (&String, &SetsSecond), index| {
        let of = |list: &[u64]| list.get(index).copied().unwrap_or(0) as f64;
        SetFigures {
            server: server.clone(),
            index,
            connections: of(&lists.connections),
            online: of(&lists.online),
            queue_depth: of(&lists.queue_depth),
            owed: of(&lists.owed),
            stock: of(&lists.stock),
        }
    };
    let sets = servers.iter().flat_map(|server| (0..server.1.connections.len()).map(move |index| each(server, index)));
    sets.take(NAMES_KEPT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn second(second: u64, sent: u64) -> Update {
        let data = json!({"columns": {"second": second, "sent": sent, "complete": 1},
            "reasons": {"ended": {"idle": 2}, "answers": {}, "errors": {}, "violations": {}}, "heat": {}});
        Update::Data("second".to_owned(), data)
    }

    #[test]
    fn history_and_stream_may_overlap_and_come_in_any_order() {
        let mut state = State::default();
        state.apply(second(12, 120));
        let columns = json!({"second": [10, 11, 12], "sent": [100, null, 1]});
        let reasons = json!({"ended": {"idle": [1, 0, 5]}});
        let series = json!({"run": "x", "every": 1, "columns": columns, "reasons": reasons});
        state.apply(Update::Data("series".to_owned(), series));
        state.apply(second(12, 120));
        state.apply(second(13, 130));
        let sent: Vec<_> = state.column("sent", 10).collect();
        assert_eq!(sent, [(10, Some(100.0)), (11, None), (12, Some(120.0)), (13, Some(130.0))]);
        assert_eq!(state.reasons(|of| &of.ended), [("idle", 2.0, 5.0)]);
    }

    #[test]
    fn memory_is_bounded_and_texts_cannot_speak_to_the_terminal() {
        let mut state = State::default();
        for number in 0..2_000 {
            state.apply(second(number, 1));
            let mark =
                json!({"at_ms": number, "kind": "alert", "source": "", "text": "\u{1b}[31mred\u{7}".repeat(100)});
            state.apply(Update::Data("mark".to_owned(), mark));
        }
        assert_eq!((state.rows.len(), state.marks.len()), (SECONDS_KEPT, MARKS_KEPT));
        assert!(state.marks.iter().all(|mark| mark.text.chars().count() <= 200 && !mark.text.contains('\u{1b}')));
    }

    #[test]
    fn another_run_begins_anew() {
        let mut state = State::default();
        let hello = |id: &str| Update::Data("hello".to_owned(), json!({"id": id, "version": "1", "run": {}}));
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
        state.apply(Update::Data("sets".to_owned(), data));
        let odd: Vec<_> = state.odd_sets().into_iter().map(|(set, what)| (set.index, what)).collect();
        assert_eq!(odd, [(20, "queue 4000".to_owned()), (7, "only 3 connections".to_owned())]);
    }
}
