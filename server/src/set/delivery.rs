//! One encoded frame for some connections of a SET, and the certainty of hearing what became of it.
//!
//! Whoever pushes to users looks their connections up in the directory, groups them by SET, and hands
//! each SET a [`Delivery`]. All deliveries of a frame share one [`Count`], and the last of them to
//! go away completes it. What is dropped on its way (a SET's queue is full, or the SET has stopped)
//! counts itself as dropped: so the report always comes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use hongbao_proto::frame;
use hongbao_proto::v1::{ServerFrame, server_frame::Event};

use crate::set::directory::ConnectionKey;

/// What became of a frame. The three add up to the connections, or users, that it was for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Written to a live connection: its socket or its outbox has it.
    pub delivered: u32,
    /// Had no connection, or one that was not logged in any more, or not yet.
    pub offline: u32,
    /// Had a connection that was behind by so much that it was cut, or one in a SET that had no
    /// room.
    pub dropped: u32,
}

/// Counts what becomes of a frame in all SETs, and reports once.
pub struct Count {
    delivered: AtomicU32,
    offline: AtomicU32,
    dropped: AtomicU32,
    report: Option<Box<dyn FnOnce(Delivered) + Send + Sync>>,
}

impl Count {
    /// `report` is called wherever the last reference is dropped: it must not wait.
    pub fn new(report: impl FnOnce(Delivered) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            delivered: AtomicU32::new(0),
            offline: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
            report: Some(Box::new(report)),
        })
    }

    pub fn add(&self, some: Delivered) {
        // Whoever drops the last reference sees what was added through the others.
        self.delivered.fetch_add(some.delivered, Ordering::Relaxed);
        self.offline.fetch_add(some.offline, Ordering::Relaxed);
        self.dropped.fetch_add(some.dropped, Ordering::Relaxed);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let total = Delivered {
            delivered: *self.delivered.get_mut(),
            offline: *self.offline.get_mut(),
            dropped: *self.dropped.get_mut(),
        };
        if let Some(report) = self.report.take() {
            report(total);
        }
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Count").finish_non_exhaustive()
    }
}

/// A frame for some connections of one SET. Dropped, it counts those that have not had their turn
/// as dropped.
#[derive(Debug)]
pub struct Delivery {
    keys: Box<[ConnectionKey]>,
    /// Those before have had their turn.
    next: usize,
    frame: Bytes,
    count: Arc<Count>,
}

impl Delivery {
    /// `frame` for `keys`, which are all of one SET.
    pub fn new(keys: impl Into<Box<[ConnectionKey]>>, frame: Bytes, count: Arc<Count>) -> Self {
        Self { keys: keys.into(), next: 0, frame, count }
    }

    /// The whole frame, with its length.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    pub fn count(&self) -> &Arc<Count> {
        &self.count
    }

    /// Seats that have not had their turn.
    pub fn left(&self) -> usize {
        self.keys.len() - self.next
    }

    /// The next connection; the caller now answers for it.
    pub fn take(&mut self) -> Option<ConnectionKey> {
        let key = self.keys.get(self.next).copied()?;
        self.next += 1;
        Some(key)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        // As many as a room may have members.
        let dropped = u32::try_from(self.left()).unwrap_or(u32::MAX);
        if dropped > 0 {
            self.count.add(Delivered { dropped, ..Delivered::default() });
        }
    }
}

/// A push, encoded once for everybody.
pub fn encode(event: Event) -> Bytes {
    let mut bytes = BytesMut::new();
    frame::append(&ServerFrame { request_id: 0, event: Some(event) }, &mut bytes);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn keys(count: u32) -> Vec<ConnectionKey> {
        (0..count).map(|slot| ConnectionKey { slot, generation: 0 }).collect()
    }

    #[test]
    fn the_report_comes_once_and_counts_the_unserved_as_dropped() {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let count = Count::new({
            let reports = Arc::clone(&reports);
            move |delivered| reports.lock().unwrap().push(delivered)
        });
        let mut first = Delivery::new(keys(3), Bytes::new(), Arc::clone(&count));
        let second = Delivery::new(keys(5), Bytes::new(), Arc::clone(&count));
        count.add(Delivered { offline: 2, ..Delivered::default() });
        drop(count);
        assert_eq!(first.take(), Some(ConnectionKey { slot: 0, generation: 0 }));
        first.count().add(Delivered { delivered: 1, ..Delivered::default() });
        assert_eq!(first.left(), 2);
        drop(first);
        assert!(reports.lock().unwrap().is_empty());
        // On another thread, as where a SET stops.
        std::thread::spawn(move || drop(second)).join().unwrap();
        assert_eq!(*reports.lock().unwrap(), [Delivered { delivered: 1, offline: 2, dropped: 7 }]);
    }
}
