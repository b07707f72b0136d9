//! What goes to every connection, a few connections at a time.

use bytes::Bytes;

use super::Set;
use crate::ends::End;
use crate::limits;
use crate::shard::directory::Seat;
use crate::shard::message::{Now, ReturnWindow};
use crate::shard::session::Phase;
use crate::shard::wire::{Wire, Written};

/// Something that goes to every connection, a few at a time.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) next_slot: usize,
    pub(super) what: Swept,
}

#[derive(Debug)]
pub(super) enum Swept {
    Announcement(Bytes),
    Farewell(ReturnWindow),
}

impl<W: Wire> Set<W> {
    /// Whether something waits to be swept over the connections.
    pub fn is_sweeping(&self) -> bool {
        !self.sweeps.is_empty()
    }

    /// Takes the oldest sweep a few connections further.
    pub fn sweep(&mut self, now: &Now) {
        let Some(mut sweep) = self.sweeps.pop_front() else { return };
        let until = sweep.next_slot + limits::SWEEP_STEP;
        for slot in sweep.next_slot..until.min(self.slots()) {
            let Some(seat) = self.seat_at(slot) else { continue };
            match &sweep.what {
                Swept::Announcement(frame) => self.announce(seat, frame, now),
                Swept::Farewell(window) => self.dismiss(seat, End::Draining, Some(window.moment(slot)), now),
            }
        }
        sweep.next_slot = until;
        if until < self.slots() {
            self.sweeps.push_front(sweep);
        }
    }

    fn announce(&mut self, seat: Seat, frame: &[u8], now: &Now) {
        let Some(session) = self.live(seat) else { return };
        if session.phase != Phase::Online {
            return;
        }
        match session.wire.write(frame) {
            Written::Sent => {}
            Written::Queued { newly } => {
                if newly {
                    session.slow_since = now.seconds();
                    self.slow.push(now.seconds() + limits::SLOW_SECONDS_MAX, seat);
                }
            }
            Written::Overflow => return self.end(seat, End::Slow, None, now),
        }
        self.tally.announced.add(1);
        self.tally.bytes_out.add(frame.len() as u64);
    }
}

impl ReturnWindow {
    /// A moment inside the window for the connection in `slot`: multiplicative hashing spreads neighbours.
    fn moment(&self, slot: usize) -> u32 {
        let span = u64::from(self.until_ms.saturating_sub(self.from_ms)) + 1;
        let spread = (slot as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.from_ms + u32::try_from((spread * span) >> 32).unwrap_or(0)
    }
}
