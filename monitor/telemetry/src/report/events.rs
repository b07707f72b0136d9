//! What happened, on its way to the monitor's timeline.
//!
//! A report that finds the monitor away is dropped, because later totals make up for it; nothing
//! makes up for an event. So events wait here until a report that carries them was written, and are
//! told again on the next connection if the one that took them ended soon after. The monitor knows
//! those that it has heard before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hongbao_proto::report_v1::Event;

use crate::lock::locked;

/// Events kept, told or not. Beyond it the oldest is forgotten: a person reads tens of them, never
/// thousands.
pub const EVENTS_KEPT_MAX: usize = 256;

pub const EVENTS_PER_REPORT_MAX: usize = 32;

/// Bytes of an event's text; what is longer is cut.
pub const EVENT_TEXT_BYTES_MAX: usize = 256;

/// Bytes of an event's kind.
pub const EVENT_KIND_BYTES_MAX: usize = 32;

/// What was written to a connection that ended within this time may not have been read, and is told
/// again.
const UNCERTAIN: Duration = Duration::from_secs(60);

/// A bounded log of events; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    kept: VecDeque<Kept>,
    forgotten: u64,
}

#[derive(Debug)]
struct Kept {
    event: Event,
    told: Option<Instant>,
}

impl Events {
    /// Something happened, or takes effect, at `at_ms` (Unix milliseconds). `kind` is one of
    /// `names::event`, `text` one line for people, of at most [`EVENT_TEXT_BYTES_MAX`] bytes.
    pub fn push(&self, at_ms: u64, kind: &'static str, text: impl Into<String>) {
        let mut text: String = text.into();
        text.truncate(text.floor_char_boundary(EVENT_TEXT_BYTES_MAX));
        let mut log = self.log();
        if log.kept.len() == EVENTS_KEPT_MAX && log.kept.pop_front().is_some_and(|oldest| oldest.told.is_none()) {
            log.forgotten += 1;
        }
        log.kept.push_back(Kept { event: Event { at_ms, kind: kind.to_owned(), text }, told: None });
    }

    /// Events that were forgotten before they were told.
    pub fn forgotten(&self) -> u64 {
        self.log().forgotten
    }

    /// The oldest that were not told yet, at most [`EVENTS_PER_REPORT_MAX`]; from now on they count
    /// as told.
    pub(super) fn take(&self, now: Instant) -> Vec<Event> {
        let mut log = self.log();
        let untold = log.kept.iter_mut().filter(|kept| kept.told.is_none()).take(EVENTS_PER_REPORT_MAX);
        untold
            .map(|kept| {
                kept.told = Some(now);
                kept.event.clone()
            })
            .collect()
    }

    /// The connection has ended: what it took just before will be told again.
    pub(super) fn connection_lost(&self, now: Instant) {
        for kept in &mut self.log().kept {
            if kept.told.is_some_and(|told| now.saturating_duration_since(told) < UNCERTAIN) {
                kept.told = None;
            }
        }
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        locked(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.text.as_str()).collect()
    }

    #[test]
    fn an_event_is_sent_once_and_again_if_its_connection_ended_soon() {
        let (events, start) = (Events::default(), Instant::now());
        events.push(1, "qps", "early");
        assert_eq!(texts(&events.take(start)), ["early"]);
        assert!(events.take(start).is_empty());
        let later = start + UNCERTAIN;
        events.push(2, "qps", "late");
        assert_eq!(texts(&events.take(later)), ["late"]);
        events.connection_lost(later);
        assert_eq!(texts(&events.take(later)), ["late"]);
    }

    #[test]
    fn an_absent_monitor_costs_the_oldest_events_which_are_counted() {
        let events = Events::default();
        for number in 0..EVENTS_KEPT_MAX + 3 {
            events.push(0, "storm", number.to_string());
        }
        assert_eq!(events.forgotten(), 3);
        let now = Instant::now();
        let mut told = Vec::new();
        loop {
            let some = events.take(now);
            assert!(some.len() <= EVENTS_PER_REPORT_MAX);
            if some.is_empty() {
                break;
            }
            told.extend(some);
        }
        assert_eq!(told.len(), EVENTS_KEPT_MAX);
        assert_eq!((told[0].text.as_str(), told.last().unwrap().text.as_str()), ("3", "258"));
        // Those that were told may be forgotten without a loss.
        events.push(0, "storm", "one more");
        assert_eq!(events.forgotten(), 3);
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let events = Events::default();
        events.push(0, "announcement", "红".repeat(EVENT_TEXT_BYTES_MAX));
        let told = events.take(Instant::now());
        assert_eq!(told[0].text.len(), EVENT_TEXT_BYTES_MAX / 3 * 3);
    }
}
