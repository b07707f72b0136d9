//! Frames that others push to connections of this SET, some hundreds of connections between two
//! batches.
//!
//! What is handed in stays in order: a connection gets the frames of one pusher in the order in
//! which they were handed to its SET. A room's state waits here behind them too, so that no message
//! that it counts as past is sent after it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use hongbao_proto::RequestId;

use crate::clock::Now;
use crate::limits;
use crate::set::Set;
use crate::set::delivery::{Count, Delivered, Delivery};
use crate::set::directory::ConnectionKey;
use crate::set::room_messages::RoomState;
use crate::set::session::SessionState;
use crate::transport::wire::Wire;

/// What waits, and what has joined the output without having been written yet.
#[derive(Debug, Default)]
pub(in crate::set) struct Deliveries {
    waiting: VecDeque<Turn>,
    /// Deliveries among those; the states are bounded by the requests that may be under way.
    pending: usize,
    /// Turns given since the last bulk work: so many are given at once.
    spent: usize,
    handed: Vec<Handed>,
    /// Theirs, one after the other.
    keys: Vec<ConnectionKey>,
}

#[derive(Debug)]
enum Turn {
    Delivery(Delivery),
    State { key: ConnectionKey, request: RequestId, state: Box<RoomState> },
}

/// Connections whose frame is in the output.
#[derive(Debug)]
struct Handed {
    count: Arc<Count>,
    keys: Range<usize>,
}

impl Deliveries {
    pub(in crate::set) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn push_state(&mut self, key: ConnectionKey, request: RequestId, state: Box<RoomState>) {
        self.waiting.push_back(Turn::State { key, request, state });
    }

    /// The connections added since `from` are of `count`'s frame.
    fn hand(&mut self, count: &Arc<Count>, from: usize) {
        let keys = from..self.keys.len();
        if !keys.is_empty() {
            self.handed.push(Handed { count: Arc::clone(count), keys });
        }
    }
}

impl<W: Wire> Set<W> {
    /// Serves the delivery's connections at once where these are few and nothing waits. Where too much
    /// waits, it is dropped, and counts itself so.
    pub(in crate::set) fn deliver(&mut self, delivery: Delivery, now: &Now) {
        if self.deliveries.pending >= limits::DELIVERIES_PENDING_MAX {
            return;
        }
        let rest = if self.deliveries.is_empty() { self.serve(delivery, now) } else { Some(delivery) };
        if let Some(rest) = rest {
            self.deliveries.pending += 1;
            self.deliveries.waiting.push_back(Turn::Delivery(rest));
        }
    }

    /// Gives the next of those that wait their turn. A flush must follow.
    pub(super) fn deliver_waiting(&mut self, now: &Now) {
        self.deliveries.spent = 0;
        while self.deliveries.spent < limits::DELIVER_STEP
            && let Some(turn) = self.deliveries.waiting.pop_front()
        {
            match turn {
                Turn::Delivery(delivery) => {
                    self.deliveries.pending -= 1;
                    if let Some(rest) = self.serve(delivery, now) {
                        self.deliveries.pending += 1;
                        self.deliveries.waiting.push_front(Turn::Delivery(rest));
                    }
                }
                Turn::State { key, request, state } => {
                    self.deliveries.spent += 1;
                    self.answer_state(key, request, *state);
                    if self.output.len() > limits::SET_OUTPUT_BYTES_MAX {
                        self.flush(now);
                    }
                }
            }
        }
        // The coming batch has as many again.
        self.deliveries.spent = 0;
    }

    /// Adds the frame to the output for as many connections as may be served now; returns what is left.
    fn serve(&mut self, mut delivery: Delivery, now: &Now) -> Option<Delivery> {
        let count = Arc::clone(delivery.count());
        let mut from = self.deliveries.keys.len();
        let mut offline = 0;
        while self.deliveries.spent < limits::DELIVER_STEP {
            let Some(key) = delivery.take() else { break };
            self.deliveries.spent += 1;
            if self.session(key).is_none_or(|session| session.state != SessionState::Online) {
                offline += 1;
                continue;
            }
            if let Some(user) = self.followed(key) {
                self.watched.pushed_encoded(self.index, key, user, delivery.frame());
            }
            self.output.push_encoded(key, delivery.frame());
            self.deliveries.keys.push(key);
            if self.output.len() > limits::SET_OUTPUT_BYTES_MAX {
                self.deliveries.hand(&count, from);
                self.flush(now);
                from = 0;
            }
        }
        self.deliveries.hand(&count, from);
        if offline > 0 {
            count.add(Delivered { offline, ..Delivered::default() });
        }
        (delivery.left() > 0).then_some(delivery)
    }

    /// What was handed to the output has been written, except to those that overflowed, or had
    /// gone.
    pub(in crate::set) fn report_handed(&mut self, overflowed: &[ConnectionKey]) {
        for Handed { count, keys } in self.deliveries.handed.drain(..) {
            let mut became = Delivered::default();
            for key in &self.deliveries.keys[keys] {
                let session = self.sessions.get(key.slot as usize);
                let is_there = session.is_some_and(|session| session.generation == key.generation);
                match (is_there, overflowed.contains(key)) {
                    (true, false) => became.delivered += 1,
                    (true, true) => became.dropped += 1,
                    (false, _) => became.offline += 1,
                }
            }
            count.add(became);
        }
        self.deliveries.keys.clear();
    }
}
