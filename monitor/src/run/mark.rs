//! The timeline's marks: what happened, told once each.
//!
//! A change that the whole fleet makes is reported by every machine of it. So what processes report
//! waits a moment for the others, and becomes one mark that says how many told of it; whoever tells
//! the same later, or again, adds nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hongbao_proto::report_v1::Event;
use serde::{Deserialize, Serialize};

use crate::limits::{MARK_HOLD_MS, MARKS_HELD_MAX, MARKS_KEPT_MAX, MARKS_PER_TURN_MAX, push_newest};
use crate::run::rejection::{Rejection, at_most, check_name};
use hongbao_telemetry::report::events::{EVENT_KIND_BYTES_MAX, EVENT_TEXT_BYTES_MAX, EVENTS_PER_REPORT_MAX};

/// Something became worth a person's look. Made here, from the seconds.
pub const ALERT: &str = "alert";
/// What an alert said is over.
pub const RESOLVED: &str = "resolved";

/// One mark of the timeline; a row of `marks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When it happened, or takes effect: Unix milliseconds.
    pub at_ms: u64,
    /// What kind of thing: of `names::event`, [`ALERT`] or [`RESOLVED`].
    pub kind: String,
    /// Who tells of it: `role/name`, `7 machines`, `monitor`, `operator`.
    pub source: String,
    /// One line for people.
    pub text: String,
}

/// Checks what a report brought. Texts come out as one line each.
pub fn checked(mut events: Vec<Event>) -> Result<Vec<Event>, Rejection> {
    const ALLOWED: &str = "a-z _, and not \"alert\" or \"resolved\"";
    at_most("report", events.len(), "events", EVENTS_PER_REPORT_MAX)?;
    for event in &mut events {
        let is_ours = [ALERT, RESOLVED].contains(&event.kind.as_str());
        let allowed = |byte: u8| !is_ours && (byte.is_ascii_lowercase() || byte == b'_');
        check_name("an event's kind", &event.kind, EVENT_KIND_BYTES_MAX, ALLOWED, allowed)?;
        at_most("an event's text", event.text.len(), "bytes", EVENT_TEXT_BYTES_MAX)?;
        event.text = one_line(&event.text);
    }
    Ok(events)
}

/// A text without what would break a line of a table or of a log.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Waits for others that tell the same.
#[derive(Debug)]
struct Held {
    event: Event,
    since_ms: u64,
    sources: BTreeSet<String>,
}

impl Held {
    fn mark(self) -> Mark {
        let Event { at_ms, kind, text } = self.event;
        Mark { at_ms, kind, source: sources(&self.sources), text }
    }
}

/// One source by its label, several of one role by their number: `7 machines`.
fn sources(labels: &BTreeSet<String>) -> String {
    if let (Some(only), 1) = (labels.first(), labels.len()) {
        return only.clone();
    }
    let mut roles: Vec<(&str, usize)> = Vec::new();
    for label in labels {
        let role = label.split('/').next().unwrap_or_default();
        match roles.last_mut() {
            Some((last, count)) if *last == role => *count += 1,
            _ => roles.push((role, 1)),
        }
    }
    let told = |(role, count): (&str, usize)| format!("{count} {role}{}", if count == 1 { "" } else { "s" });
    roles.into_iter().map(told).collect::<Vec<_>>().join(", ")
}

/// The marks of a run: the latest in memory, all on disk by whoever is given them.
#[derive(Debug, Default)]
pub struct Marks {
    kept: VecDeque<Arc<Mark>>,
    held: VecDeque<Held>,
    dropped: u64,
}

impl Marks {
    /// A process tells of an event. `label` is its `role/name`.
    pub fn report(&mut self, now_ms: u64, label: &str, event: Event) {
        let second = event.at_ms / 1000;
        let same =
            |at_ms: u64, kind: &str, text: &str| at_ms / 1000 == second && kind == event.kind && text == event.text;
        let held = self.held.iter_mut().find(|held| same(held.event.at_ms, &held.event.kind, &held.event.text));
        if let Some(held) = held {
            held.sources.insert(label.to_owned());
            held.event.at_ms = held.event.at_ms.min(event.at_ms);
        } else if self.kept.iter().any(|mark| same(mark.at_ms, &mark.kind, &mark.text)) {
            tracing::trace!(event = "mark_repeated", source = label, "told again");
        } else if self.held.len() == MARKS_HELD_MAX {
            self.dropped += 1;
        } else {
            self.held.push_back(Held { event, since_ms: now_ms, sources: BTreeSet::from([label.to_owned()]) });
        }
    }

    /// Keeps a mark as it is, and gives it back to be recorded and streamed.
    pub fn add(&mut self, mut mark: Mark) -> Arc<Mark> {
        mark.text = one_line(&mark.text);
        mark.text.truncate(mark.text.floor_char_boundary(EVENT_TEXT_BYTES_MAX));
        let mark = Arc::new(mark);
        push_newest(&mut self.kept, Arc::clone(&mark), MARKS_KEPT_MAX);
        mark
    }

    /// Some marks that have waited for long enough, to be recorded and streamed; with `all`, some
    /// of all. As long as there are any, there may be more.
    pub fn release(&mut self, now_ms: u64, all: bool) -> Vec<Arc<Mark>> {
        let mut released = Vec::new();
        // A clock that was set back must not hold a mark for longer.
        let due = |held: &mut Held| now_ms.abs_diff(held.since_ms) >= MARK_HOLD_MS;
        while released.len() < MARKS_PER_TURN_MAX
            && let Some(held) = self.held.pop_front_if(|held| all || due(held))
        {
            released.push(self.add(held.mark()));
        }
        released
    }

    /// The latest, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Arc<Mark>> {
        self.kept.iter()
    }

    /// Events that found too many others waiting.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64, text: &str) -> Event {
        Event { at_ms, kind: "qps".into(), text: text.into() }
    }

    #[test]
    fn what_many_machines_tell_is_one_mark_that_says_how_many() {
        let mut marks = Marks::default();
        for machine in ["machine/m0", "machine/m1", "machine/m0", "machine/m2"] {
            marks.report(5_000, machine, event(9_000, "5000 requests a second"));
        }
        marks.report(5_000, "machine/m0", event(10_000, "5000 requests a second"));
        assert!(marks.release(5_000 + MARK_HOLD_MS - 1, false).is_empty());
        let released = marks.release(5_000 + MARK_HOLD_MS, false);
        let told: Vec<_> = released.iter().map(|mark| (mark.at_ms, mark.source.as_str())).collect();
        assert_eq!(told, [(9_000, "3 machines"), (10_000, "machine/m0")]);
        // A straggler, and one who tells it again after a reconnect.
        marks.report(60_000, "machine/m3", event(9_200, "5000 requests a second"));
        assert!(marks.release(90_000, true).is_empty());
    }

    #[test]
    fn sources_of_two_roles_are_told_apart() {
        let labels = ["machine/a", "machine/b", "server/s"].map(String::from);
        assert_eq!(sources(&BTreeSet::from(labels)), "2 machines, 1 server");
    }

    #[test]
    fn marks_beyond_the_bound_are_on_disk_and_events_beyond_dropped() {
        let mut marks = Marks::default();
        for number in 0..MARKS_KEPT_MAX as u64 + 2 {
            marks.add(Mark { at_ms: number, kind: ALERT.into(), source: "monitor".into(), text: String::new() });
        }
        assert_eq!((marks.kept().count(), marks.kept().next().unwrap().at_ms), (MARKS_KEPT_MAX, 2));
        for number in 0..MARKS_HELD_MAX as u64 + 3 {
            marks.report(0, "machine/m", event(number * 1000, "x"));
        }
        assert_eq!(marks.dropped(), 3);
        assert!(marks.release(0, false).is_empty());
        let turns = std::iter::from_fn(|| Some(marks.release(0, true)).filter(|released| !released.is_empty()));
        let turns: Vec<usize> = turns.map(|released| released.len()).collect();
        assert!(turns.iter().sum::<usize>() == MARKS_HELD_MAX && turns.iter().all(|&turn| turn <= MARKS_PER_TURN_MAX));
    }

    #[test]
    fn events_that_are_none_are_refused_and_texts_become_one_line() {
        let kind = |kind: &str| vec![Event { at_ms: 0, kind: kind.into(), text: String::new() }];
        let long = "x".repeat(EVENT_KIND_BYTES_MAX + 1);
        for bad in ["", "Qps", "a b", ALERT, RESOLVED, long.as_str()] {
            let refused = checked(kind(bad)).unwrap_err().to_string();
            assert_eq!(refused, "an event's kind must be 1 to 32 of a-z _, and not \"alert\" or \"resolved\"", "{bad}");
        }
        let many = vec![event(0, ""); EVENTS_PER_REPORT_MAX + 1];
        let refused = checked(many).unwrap_err().to_string();
        assert_eq!(refused, "report has 33 events; at most 32 are allowed");
        let long = "x".repeat(EVENT_TEXT_BYTES_MAX + 1);
        let refused = checked(vec![event(0, &long)]).unwrap_err().to_string();
        assert_eq!(refused, "an event's text has 257 bytes; at most 256 are allowed");
        assert_eq!(checked(vec![event(0, "a\nb\u{7}c")]).unwrap()[0].text, "a b c");
    }
}
