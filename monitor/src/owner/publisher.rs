//! What readers of the run are sent, and what is kept of it for those who ask.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::limits::{
    HOST_WAIT_MS, HOSTS_WAITING_MAX, SECONDS_KEPT_MAX, SECONDS_PER_ANSWER_MAX, STREAM_BEHIND_MAX, push_newest,
};
use crate::run::host::HostSecond;
use crate::run::merge::SourceStatus;
use crate::run::second::{ClosedSecond, MergedSecond};
use crate::run::series::{History, Row};
use crate::run::sets::SetsBoard;

/// What stands is sent again after this long, if it has changed: less than a second, so that no
/// second goes by without it.
const STATE_EVERY_MS: u64 = 900;

/// An event of the stream, made once for all readers.
#[derive(Debug, PartialEq, Eq)]
pub struct StreamEvent {
    pub event: &'static str,
    /// The second, where it is one.
    pub id: Option<u64>,
    pub data: String,
}

impl StreamEvent {
    /// An event without an id.
    pub fn new(event: &'static str, data: &impl Serialize) -> Self {
        let data = serde_json::to_string(data)
            .unwrap_or_else(|error| unreachable!("plain values in memory are always written: {error}"));
        Self { event, id: None, data }
    }

    /// A second's row.
    pub fn second(row: &Row) -> Self {
        Self { id: Some(row.second()), ..Self::new("second", row) }
    }
}

/// What a new reader of the stream gets.
#[derive(Debug)]
pub struct Subscription {
    /// Who we are, and what stands.
    pub first: VecDeque<Arc<StreamEvent>>,
    /// The seconds since the last that it has seen.
    pub missed: VecDeque<Arc<Row>>,
    /// Everything from now on; it ends with the run.
    pub live: broadcast::Receiver<Arc<StreamEvent>>,
    /// To be counted up when the reader is dropped.
    pub dropped: Arc<AtomicU64>,
}

/// A closed second that waits for the host's row of it.
struct PendingSecond {
    closed: Arc<ClosedSecond>,
    host: Option<Box<HostSecond>>,
}

pub struct Publisher {
    stream: broadcast::Sender<Arc<StreamEvent>>,
    dropped: Arc<AtomicU64>,
    pub history: History,
    kept: VecDeque<Arc<MergedSecond>>,
    pending: VecDeque<PendingSecond>,
    /// Rows of the host whose second is not closed yet.
    hosts: VecDeque<Box<HostSecond>>,
    sources_sent: Vec<SourceStatus>,
    /// The SETs have changed since they were sent.
    sets_changed: bool,
    state_sent_ms: u64,
}

impl Default for Publisher {
    fn default() -> Self {
        Self {
            stream: broadcast::Sender::new(STREAM_BEHIND_MAX),
            dropped: Arc::default(),
            history: History::default(),
            kept: VecDeque::new(),
            pending: VecDeque::new(),
            hosts: VecDeque::new(),
            sources_sent: Vec::new(),
            sets_changed: false,
            state_sent_ms: 0,
        }
    }
}

impl Publisher {
    /// Hands an event to whoever listens; it is not even made if nobody does.
    pub fn send(&self, event: impl FnOnce() -> StreamEvent) {
        // An error says that the last reader has just gone.
        if self.stream.receiver_count() > 0 && self.stream.send(Arc::new(event())).is_err() {
            tracing::trace!(event = "stream_unread", "nobody reads the stream any more");
        }
    }

    /// Takes the host's row of a second.
    pub fn host(&mut self, row: Box<HostSecond>) {
        match self.pending.iter_mut().find(|pending| pending.closed.merged.second == row.second) {
            Some(pending) => pending.host = Some(row),
            None => push_newest(&mut self.hosts, row, HOSTS_WAITING_MAX),
        }
    }

    /// Takes a second, to be sent once the host's row of it is there.
    pub fn closed(&mut self, closed: Arc<ClosedSecond>) {
        push_newest(&mut self.kept, Arc::clone(&closed.merged), SECONDS_KEPT_MAX);
        let second = closed.merged.second;
        while self.hosts.pop_front_if(|row| row.second < second).is_some() {}
        let host = self.hosts.pop_front_if(|row| row.second == second);
        self.pending.push_back(PendingSecond { closed, host });
    }

    /// Whether a second waits to be sent.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Sends the seconds that have their host's row, or have waited for it long enough; in order.
    pub fn send_seconds(&mut self, now: u64, all: bool) {
        let due = |second: u64| (second + 1) * 1_000 + HOST_WAIT_MS;
        while let Some(pending) = self
            .pending
            .pop_front_if(|pending| all || pending.host.is_some() || now >= due(pending.closed.merged.second))
        {
            let row = Arc::new(Row::of(&pending.closed, pending.host.as_deref()));
            self.send(|| StreamEvent::second(&row));
            self.history.push(row);
        }
    }

    pub fn sets_changed(&mut self) {
        self.sets_changed = true;
    }

    /// Sends what stands, if it has changed: at most once a second, and best when a second has just
    /// been sent.
    pub fn send_state(&mut self, now: u64, sources: impl FnOnce() -> Vec<SourceStatus>, sets: &SetsBoard) {
        if self.readers() == 0 || now.abs_diff(self.state_sent_ms) < STATE_EVERY_MS {
            return;
        }
        self.state_sent_ms = now;
        let sources = sources();
        if sources != self.sources_sent {
            self.send(|| StreamEvent::new("sources", &sources));
            self.sources_sent = sources;
        }
        if std::mem::take(&mut self.sets_changed) {
            self.send(|| StreamEvent::new("sets", &sets.servers()));
        }
    }

    /// A new reader, who gets `first` and what it has missed `after` a second.
    pub fn subscribe(&self, first: Vec<StreamEvent>, after: Option<u64>) -> Subscription {
        Subscription {
            first: first.into_iter().map(Arc::new).collect(),
            missed: after.map_or_else(VecDeque::new, |second| self.history.after(second).into()),
            live: self.stream.subscribe(),
            dropped: Arc::clone(&self.dropped),
        }
    }

    pub fn readers(&self) -> usize {
        self.stream.receiver_count()
    }

    /// Readers that were too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn seconds(&self, from: Option<u64>, limit: usize) -> Vec<Arc<MergedSecond>> {
        let limit = limit.min(SECONDS_PER_ANSWER_MAX);
        let first = match from {
            Some(from) => self.kept.partition_point(|second| second.second < from),
            None => self.kept.len().saturating_sub(limit),
        };
        self.kept.iter().skip(first).take(limit).cloned().collect()
    }

    /// The last second that was closed.
    pub fn last(&self) -> Option<&MergedSecond> {
        self.kept.back().map(|second| &**second)
    }

    /// Ends the readers' streams: they come back, and find another run.
    pub fn begin_run(&mut self) {
        let (dropped, hosts) = (Arc::clone(&self.dropped), std::mem::take(&mut self.hosts));
        *self = Self { dropped, hosts, ..Self::default() };
    }
}
