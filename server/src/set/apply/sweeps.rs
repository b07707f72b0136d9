//! Bulk work: what goes to every connection, and closing those that have ended, a slice of them at
//! a time.

use std::ops::Range;

use bytes::Bytes;

use crate::clock::Now;
use crate::ends::End;
use crate::limits;
use crate::set::Set;
use crate::set::broadcast::Receipt;
use crate::set::directory::ConnectionKey;
use crate::set::message::ReturnWindow;
use crate::set::session::SessionState;
use crate::transport::wire::{Wire, Written};

/// Something that goes to every connection, slot by slot.
#[derive(Debug)]
pub(in crate::set) struct Sweep {
    /// 0: not begun.
    next_slot: usize,
    what: Swept,
}

#[derive(Debug)]
enum Swept {
    Announcements(Round),
    Farewell(ReturnWindow),
}

/// The announcements that leave together, in one write for each connection.
#[derive(Debug, Default)]
struct Round {
    /// One after the other; joined into one once the round begins. The frame of a lone announcement
    /// is that of all SETs.
    frames: Vec<Bytes>,
    count: usize,
    bytes: usize,
    receipts: Vec<Receipt>,
}

/// What one step of a round came to.
#[derive(Debug, Default)]
struct Step {
    reached: u64,
    dropped: u64,
    bytes: u64,
}

impl Round {
    fn add(&mut self, frame: Bytes, receipt: Option<Receipt>) {
        self.count += 1;
        self.bytes += frame.len();
        self.frames.push(frame);
        self.receipts.extend(receipt);
    }

    /// All frames as one string of bytes. Nothing may be added any more.
    fn joined(&mut self) -> Bytes {
        if self.frames.len() > 1 {
            self.frames = vec![Bytes::from(self.frames.concat())];
        }
        self.frames.first().cloned().unwrap_or_default()
    }
}

impl<W: Wire> Set<W> {
    /// An announcement joins those that wait, in the order in which they came; or, with too many
    /// waiting, is given up here.
    ///
    /// A connection gets each announcement at most once: a round visits every slot once. Whoever
    /// logs in before a round has begun gets what it carries; whoever logs in during a round gets
    /// it where the round has not come to its slot yet.
    pub(in crate::set) fn announce(&mut self, frame: Bytes, receipt: Option<Receipt>) {
        let (mut count, mut bytes) = (1, frame.len());
        for sweep in self.sweeps.iter().filter(|sweep| sweep.next_slot == 0) {
            if let Swept::Announcements(waiting) = &sweep.what {
                count += waiting.count;
                bytes += waiting.bytes;
            }
        }
        if count > limits::ANNOUNCEMENTS_PENDING_MAX || bytes > limits::ANNOUNCEMENTS_PENDING_BYTES_MAX {
            self.tally.announcements_dropped.add(1);
            if let Some(receipt) = receipt {
                receipt.refuse(self.tally.online.get());
            }
            return;
        }
        match self.sweeps.back_mut() {
            Some(Sweep { next_slot: 0, what: Swept::Announcements(waiting) }) => waiting.add(frame, receipt),
            _ => {
                let mut round = Round::default();
                round.add(frame, receipt);
                self.sweeps.push_back(Sweep { next_slot: 0, what: Swept::Announcements(round) });
            }
        }
    }

    /// Sends everybody a goodbye, after what was announced before.
    pub(super) fn farewell(&mut self, window: ReturnWindow) {
        self.sweeps.push_back(Sweep { next_slot: 0, what: Swept::Farewell(window) });
    }

    /// Whether something waits to be swept over the connections or delivered to some, or some wait
    /// to be closed.
    pub fn has_bulk_work(&self) -> bool {
        !self.sweeps.is_empty() || !self.ended.is_empty() || !self.deliveries.is_empty()
    }

    /// Closes some connections that have ended, serves some deliveries, and takes the oldest sweep
    /// a few connections further. A flush must follow.
    pub fn work_in_bulk(&mut self, now: &Now) {
        if !self.ended.is_empty() {
            self.ended.truncate(self.ended.len().saturating_sub(limits::CLOSE_STEP));
            self.count_connections();
        }
        self.deliver_waiting(now);
        self.sweep(now);
    }

    /// A connection's frames of this batch leave in the same write as what is swept, and before it:
    /// nobody gets an announcement ahead of the welcome.
    fn sweep(&mut self, now: &Now) {
        let Some(mut sweep) = self.sweeps.pop_front() else { return };
        let from = sweep.next_slot;
        let until = from + limits::SWEEP_STEP;
        let slots = from..until.min(self.slots());
        match &mut sweep.what {
            Swept::Announcements(round) => {
                let frames = round.joined();
                let step = self.write_to(slots, &frames, now);
                self.tally.announced.add(step.reached * round.count as u64);
                self.tally.bytes_out.add(step.bytes);
                for receipt in &round.receipts {
                    receipt.add(step.reached, step.dropped);
                }
            }
            Swept::Farewell(window) => {
                for slot in slots {
                    if let Some(key) = self.key_at(slot) {
                        self.dismiss(key, End::Draining, Some(window.moment(slot)), now);
                    }
                }
            }
        }
        sweep.next_slot = until;
        if until < self.slots() {
            self.sweeps.push_front(sweep);
        } else if let Swept::Announcements(round) = sweep.what {
            self.swept.extend(round.receipts);
        }
    }

    /// Writes `frames` to every connection in `slots` that is logged in: straight from these bytes,
    /// except where answers wait.
    fn write_to(&mut self, slots: Range<usize>, frames: &[u8], now: &Now) -> Step {
        let mut step = Step::default();
        let mut touched = self.output.touched(slots.clone());
        for slot in slots {
            if slot.is_multiple_of(limits::SWEEP_LOOKAHEAD) {
                self.look_ahead(slot);
            }
            if self.watched.any() {
                self.trace_swept(slot, frames);
            }
            let Some(mut session) = self.sessions.get_mut(slot).filter(|session| session.state == SessionState::Online)
            else {
                continue;
            };
            // A slab grows one by one, and the acceptor stops at the SET's capacity.
            let key = ConnectionKey { slot: u32::try_from(slot).unwrap_or(u32::MAX), generation: session.generation };
            if touched.binary_search(&slot).is_ok() {
                let room = limits::SET_OUTPUT_BYTES_MAX.saturating_sub(self.output.len());
                if frames.len() <= room && session.wire.backlog() == 0 {
                    self.output.push_encoded(key, frames);
                    step.reached += 1;
                    continue;
                }
                // Too much for one write, or a slow peer, of which we want to know at once whether
                // it got this.
                self.flush(now);
                touched.clear();
                match self.live(key) {
                    Some(live) => session = live,
                    None => {
                        step.dropped += 1;
                        continue;
                    }
                }
            }
            step.bytes += frames.len() as u64;
            match session.wire.write(frames) {
                Written::Sent => step.reached += 1,
                Written::Queued { newly } => {
                    step.reached += 1;
                    self.queued(key, newly, now);
                }
                Written::Overflow => {
                    step.dropped += 1;
                    self.end(key, End::Slow, None, now);
                }
            }
        }
        step
    }

    #[cold]
    fn trace_swept(&mut self, slot: usize, frames: &[u8]) {
        let Some(key) = self.key_at(slot) else { return };
        if let Some(user) = self.followed(key)
            && self.session(key).is_some_and(|session| session.state == SessionState::Online)
        {
            self.watched.pushed_encoded(self.index, key, user, frames);
        }
    }

    /// Brings the write sides of the slots from `slot` on close: one after the other, each would be
    /// waited for by itself.
    fn look_ahead(&self, slot: usize) {
        let ahead = slot..slot + limits::SWEEP_LOOKAHEAD;
        let wires = ahead.filter_map(|slot| self.sessions.get(slot)).map(|session| &session.wire);
        std::hint::black_box(wires.fold(0, |seen, wire| seen ^ wire.number()));
    }

    /// A socket has refused a part of what was written to it.
    fn queued(&mut self, key: ConnectionKey, newly: bool, now: &Now) {
        self.tally.refused_writes.add(1);
        if newly && let Some(session) = self.session(key) {
            session.slow_since = now.seconds();
            self.slow.push(now.seconds() + limits::SLOW_SECONDS_MAX, key);
        }
    }

    /// What was swept has been written by now.
    pub(in crate::set) fn report_swept(&mut self) {
        self.swept.drain(..).for_each(Receipt::sweep);
    }
}

impl ReturnWindow {
    /// A moment inside the window for the connection in `slot`: multiplicative hashing spreads
    /// neighbours.
    fn moment(&self, slot: usize) -> u32 {
        let span = u64::from(self.until_ms.saturating_sub(self.from_ms)) + 1;
        let spread = (slot as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.from_ms + u32::try_from((spread * span) >> 32).unwrap_or(0)
    }
}
