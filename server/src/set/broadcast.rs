//! What became of an announcement: how many connections it reached, and when the last SET was done
//! with it.
//!
//! Each SET is handed a [`Receipt`] with the announcement. Wherever that is dropped, it reports: so
//! a broadcast ends even where a SET's queue was full, or the SET has stopped.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock::UnixMs;
use crate::limits;

/// The broadcasts of this node: the last [`limits::BROADCASTS_KEPT`], by id. Locked by operators
/// only.
#[derive(Debug, Default)]
pub struct Broadcasts {
    kept: Mutex<VecDeque<Arc<Broadcast>>>,
    /// SETs that had no room for an announcement in their queue, over all broadcasts.
    queues_full: AtomicU64,
}

/// One announcement on its way.
#[derive(Debug)]
pub struct Broadcast {
    /// Counted from 1 since the process started.
    pub id: u64,
    pub sets: u32,
    /// Wall clock.
    started_at: UnixMs,
    started: Instant,
    /// SETs that are not done yet.
    unfinished: AtomicU32,
    sets_dropped: AtomicU32,
    reached: AtomicU64,
    dropped: AtomicU64,
    took: OnceLock<Duration>,
}

/// What became of an announcement.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct AnnouncementView {
    id: u64,
    /// Connections that it was written to; a slow one has it in its outbox.
    pub reached: u64,
    /// Connections that were logged in and did not get it: cut as slow when it came to them, or in
    /// a SET that dropped it.
    pub dropped: u64,
    /// SETs of this server.
    sets: u32,
    /// SETs that dropped it, because their queue was full or too many announcements were pending.
    pub sets_dropped: u32,
    /// Unix milliseconds.
    started_at_ms: u64,
    /// When the last SET was done with it, Unix milliseconds; `null`: not yet, and the figures
    /// still move.
    pub finished_at_ms: Option<u64>,
    /// From the request to the last write, or until now.
    seconds: f64,
}

impl Broadcasts {
    /// Begins a broadcast to `sets` SETs: a receipt for each. The oldest broadcast kept is
    /// forgotten.
    pub fn begin(&self, sets: u32, now: UnixMs) -> (Arc<Broadcast>, Vec<Receipt>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let broadcast = Arc::new(Broadcast {
            id: kept.back().map_or(1, |last| last.id + 1),
            sets,
            started_at: now,
            started: Instant::now(),
            unfinished: AtomicU32::new(sets),
            sets_dropped: AtomicU32::new(0),
            reached: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            took: OnceLock::new(),
        });
        if kept.len() == limits::BROADCASTS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&broadcast));
        let receipts = (0..sets).map(|_| Receipt { broadcast: Arc::clone(&broadcast), is_swept: false }).collect();
        (broadcast, receipts)
    }

    /// The broadcast of this id, if it is still kept.
    pub fn find(&self, id: u64) -> Option<Arc<Broadcast>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|broadcast| broadcast.id == id).cloned()
    }

    /// The one place where an announcement is given up because a SET's queue is full; `online`:
    /// users logged in there.
    pub fn queue_full(&self, receipt: Receipt, online: u64) {
        self.queues_full.fetch_add(1, Ordering::Relaxed);
        receipt.refuse(online);
    }

    /// How often a SET's queue was full.
    pub fn queues_full(&self) -> u64 {
        self.queues_full.load(Ordering::Relaxed)
    }
}

impl Broadcast {
    /// How far it has come. Exact once it has finished.
    pub fn view(&self) -> AnnouncementView {
        // First: it is set after everything else.
        let took = self.took.get().copied();
        let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        AnnouncementView {
            id: self.id,
            reached: self.reached.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            sets: self.sets,
            sets_dropped: self.sets_dropped.load(Ordering::Relaxed),
            started_at_ms: self.started_at,
            finished_at_ms: took_ms.map(|took| self.started_at.saturating_add(took)),
            seconds: took.unwrap_or_else(|| self.started.elapsed()).as_secs_f64(),
        }
    }
}

/// One SET's duty to report.
#[derive(Debug)]
pub struct Receipt {
    broadcast: Arc<Broadcast>,
    is_swept: bool,
}

impl Receipt {
    /// Some connections more have had their turn.
    pub fn add(&self, reached: u64, dropped: u64) {
        self.broadcast.reached.fetch_add(reached, Ordering::Relaxed);
        self.broadcast.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    /// Every connection of the SET has had its turn.
    pub fn sweep(mut self) {
        self.is_swept = true;
    }

    /// The SET has no room for it, and so nobody of those `online` gets it.
    pub fn refuse(self, online: u64) {
        self.add(0, online);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let broadcast = &self.broadcast;
        if !self.is_swept {
            broadcast.sets_dropped.fetch_add(1, Ordering::Relaxed);
        }
        // What each SET has added before is seen by whoever sees the last one's time.
        if broadcast.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Nobody else is the last.
            broadcast.took.set(broadcast.started.elapsed()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_ends_when_every_set_has_swept_or_dropped_it() {
        let broadcasts = Broadcasts::default();
        let (broadcast, receipts) = broadcasts.begin(4, 5);
        let [first, second, third, fourth] = <[Receipt; 4]>::try_from(receipts).unwrap();
        first.add(256, 1);
        first.add(44, 0);
        first.sweep();
        second.refuse(20);
        broadcasts.queue_full(third, 3);
        let figures = |view: &AnnouncementView| (view.reached, view.dropped, view.sets_dropped);
        let halfway = broadcast.view();
        assert_eq!((figures(&halfway), halfway.finished_at_ms), ((300, 24, 2), None));
        // A SET that stops drops what it holds.
        drop(fourth);
        let done = broadcasts.find(1).unwrap().view();
        assert_eq!(figures(&done), (300, 24, 3));
        assert_eq!((done.seconds, done.finished_at_ms.is_some()), (broadcast.view().seconds, true));
        assert_eq!(broadcasts.queues_full(), 1);
    }

    #[test]
    fn only_the_last_broadcasts_are_remembered() {
        let broadcasts = Broadcasts::default();
        for _ in 0..=limits::BROADCASTS_KEPT {
            broadcasts.begin(1, 0);
        }
        assert!(broadcasts.find(1).is_none());
        assert_eq!(broadcasts.find(2).unwrap().id, 2);
        assert_eq!(broadcasts.find(limits::BROADCASTS_KEPT as u64 + 1).unwrap().view().sets_dropped, 1);
    }
}
