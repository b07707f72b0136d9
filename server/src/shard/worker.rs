//! The loop around a [`Set`]: one task that drains its queue and owns its sockets' write sides.

use std::rc::Rc;

use tokio::sync::mpsc;

use crate::clock::{Clock, Now};
use crate::limits::SET_BATCH_MAX;
use crate::set::Set;
use crate::set::message::Message;
use crate::shard::reader::{self, Intake};
use crate::transport::stream::Accepted;
use crate::transport::wire::{SocketWire, Wire};

/// Serves a SET until it is told to stop.
pub async fn run(mut set: Set<SocketWire>, mut inbox: mpsc::Receiver<Message>, intake: Rc<Intake>, clock: Clock) {
    let mut batch = Vec::with_capacity(SET_BATCH_MAX);
    while !set.is_stopped() {
        let received = tokio::select! {
            biased;
            received = inbox.recv_many(&mut batch, SET_BATCH_MAX) => received,
            () = tokio::task::yield_now(), if set.has_bulk_work() => 1,
        };
        if received == 0 {
            break;
        }
        round(&mut set, &mut batch, &intake, &clock.now(), |set, accepted, now| connect(set, accepted, &intake, now));
    }
}

/// One round of a SET: applies a batch and what met a full queue, takes bulk work a slice further,
/// writes.
pub fn round<W: Wire>(
    set: &mut Set<W>,
    batch: &mut Vec<Message>,
    intake: &Intake,
    now: &Now,
    mut connect: impl FnMut(&mut Set<W>, Accepted, &Now),
) {
    intake.tally.batch.set(batch.len() as u64);
    set.admit(batch, now);
    for message in batch.drain(..) {
        match message {
            Message::Connected(accepted) => connect(set, accepted, now),
            message => set.apply(message, now),
        }
    }
    for (key, request_id) in intake.refusals.take() {
        set.refuse(key, request_id, now);
    }
    // A slice between any two batches, so that nobody waits long behind an announcement to all, or
    // behind a crowd that leaves.
    set.work_in_bulk(now);
    set.flush(now);
}

fn connect(set: &mut Set<SocketWire>, accepted: Accepted, intake: &Rc<Intake>, now: &Now) {
    let (read_half, write_half) = accepted.stream.into_split();
    let key = set.attach(SocketWire::new(write_half), now);
    let reader = reader::read(read_half, key, Rc::clone(intake));
    // One lies in the task of every connection, which the runtime aligns to 128 bytes: above this
    // it takes 384.
    debug_assert!(size_of_val(&reader) <= 152, "{}", size_of_val(&reader));
    tokio::task::spawn_local(reader);
}
