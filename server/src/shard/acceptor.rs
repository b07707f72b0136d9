//! Takes connections in. It never dies and never spins: a spare descriptor answers the peer that
//! finds none left, and a shard at its capacity closes its listener, so that the kernel stops
//! hashing new peers to it until it has room again. A storm of peers is taken in round by round,
//! with everything else that the shard has to do in between.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use hongbao_proto::v1::{self, goodbye::Reason, server_frame::Event};
use nix::errno::Errno;
use tokio::sync::watch;

use crate::limits;
use crate::set::SetHandle;
use crate::set::message::Message;
use crate::transport::listener::{Bound, Listener};
use crate::transport::stream::Accepted;

/// How long to wait before looking again, where waiting is all there is to do.
const BACK_OFF: Duration = Duration::from_millis(100);

/// When a peer that found no room may try again.
const RETURN_AFTER_FULL_MS: u32 = 5_000;

/// What happened to the listener. Relaxed counters, read by anyone.
#[derive(Debug, Default)]
pub struct AcceptTally {
    /// Peers turned away because no descriptor was left.
    pub out_of_descriptors: AtomicU64,
    /// `accept` failures of other kinds.
    pub errors: AtomicU64,
    /// Times that the listener was closed because every SET was full.
    pub closed_full: AtomicU64,
}

#[derive(Debug)]
pub struct Acceptor {
    pub address: SocketAddr,
    /// The shard's SETs, with how many connections each was ever given.
    pub sets: Vec<(SetHandle, u64)>,
    /// Connections of one SET at most.
    pub set_capacity: u64,
    /// Connections of all its SETs at most: what its descriptor table has room for.
    pub capacity: u64,
    /// Counts of this node's acceptors.
    pub tally: Arc<AcceptTally>,
    /// Becomes `false` when no more connections are wanted.
    pub accepting: watch::Receiver<bool>,
}

impl Acceptor {
    /// Accepts while connections are wanted.
    pub async fn run(mut self, listener: Listener) {
        let mut accepting = self.accepting.clone();
        tokio::select! {
            // An error says that the node is gone.
            _ = accepting.wait_for(|wanted| !wanted) => {}
            never = self.accept_all(listener) => match never {},
        }
    }

    async fn accept_all(&mut self, first: Listener) -> std::convert::Infallible {
        let mut spare = Spare::new();
        let mut open = Some(first);
        let mut accepted = 0u32;
        loop {
            let listener = match open.take().map_or_else(|| Bound::new(self.address).and_then(Listener::new), Ok) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(event = "listen_failed", %error, address = %self.address, "cannot listen; trying again");
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            while let Some(index) = self.roomiest() {
                match listener.accept().await {
                    Ok(accepted) => self.hand_over(index, accepted).await,
                    Err(error) => self.recover(&error, &listener, &mut spare).await,
                }
                accepted = accepted.wrapping_add(1);
                if accepted.is_multiple_of(limits::ACCEPTS_PER_ROUND) {
                    tokio::task::yield_now().await;
                }
            }
            drop(listener);
            self.tally.closed_full.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(event = "shard_full", "every SET of this shard is full; not listening until one has room");
            while self.roomiest().is_none() {
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }

    async fn hand_over(&mut self, index: usize, accepted: Accepted) {
        let (set, given) = &mut self.sets[index];
        *given += 1;
        // A full queue holds back the acceptor, and with it the kernel's backlog; an error says
        // that the SET is gone.
        set.inbox.send(Message::Connected(accepted)).await.ok();
    }

    /// The SET with the fewest connections, counting those it has not taken in yet; `None` where
    /// all are full.
    fn roomiest(&self) -> Option<usize> {
        let load = |(set, given): &(SetHandle, u64)| given - set.tally.accepted.get() + set.tally.connections.get();
        let (index, set) = self.sets.iter().enumerate().min_by_key(|(_, set)| load(set))?;
        let total: u64 = self.sets.iter().map(load).sum();
        (load(set) < self.set_capacity && total < self.capacity).then_some(index)
    }

    async fn recover(&self, error: &io::Error, listener: &Listener, spare: &mut Spare) {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE) => {
                let before = self.tally.out_of_descriptors.fetch_add(1, Ordering::Relaxed);
                if before.is_power_of_two() || before == 0 {
                    tracing::warn!(event = "descriptors_exhausted", %error, turned_away = before + 1, "no descriptor left for a new connection; raise nofile or lower --set-capacity");
                }
                spare.turn_away(listener).await;
                tokio::time::sleep(BACK_OFF).await;
            }
            // The peer gave up before we came: its business.
            Some(Errno::ECONNABORTED | Errno::EINTR) => {}
            _ => {
                self.tally.errors.fetch_add(1, Ordering::Relaxed);
                tracing::error!(event = "accept_failed", %error, "accept failed; trying again");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// A descriptor kept for the moment when there is none left.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Accepts one peer on the spare descriptor, sends it a goodbye, and closes it.
    async fn turn_away(&mut self, listener: &Listener) {
        self.0 = None;
        if let Ok(Ok(Accepted { stream, .. })) = tokio::time::timeout(BACK_OFF, listener.accept()).await {
            let (_read_half, write_half) = stream.into_split();
            let mut frame = BytesMut::new();
            let goodbye = v1::Goodbye { reason: Reason::Full.into(), return_after_ms: Some(RETURN_AFTER_FULL_MS) };
            let event = Some(Event::Goodbye(goodbye));
            hongbao_proto::frame::append(&v1::ServerFrame { request_id: 0, event }, &mut frame);
            // A fresh socket has room for one small frame; should it fail, the peer sees the
            // connection close.
            if write_half.writable().await.is_ok() {
                write_half.try_write(&frame).ok();
            }
        }
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashSet;
    use std::rc::Rc;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_storm_of_peers_leaves_the_shards_other_tasks_their_turns() {
        const PEERS: usize = 500;
        let bound = Bound::new(([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound.address().unwrap();
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let listener = runtime.block_on(async { Listener::new(bound) }).unwrap();
        // All of them wait in the backlog before the acceptor looks.
        let peers: Vec<_> = (0..PEERS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let mut waiting: HashSet<_> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
        let (inbox, mut queue) = mpsc::channel(limits::SET_QUEUE_MAX);
        let (_wanted, accepting) = watch::channel(true);
        let acceptor = Acceptor {
            address,
            sets: vec![(SetHandle { inbox, tally: Arc::default() }, 0)],
            set_capacity: 1_000,
            capacity: 1_000,
            tally: Arc::default(),
            accepting,
        };
        let rounds = Rc::new(Cell::new(0));
        let others_turns = Rc::clone(&rounds);
        runtime.block_on(async move {
            let acceptor = tokio::task::spawn_local(acceptor.run(listener));
            let (mut taken, mut most) = (0, 0);
            while taken < PEERS {
                tokio::task::yield_now().await;
                let mut now = 0;
                while let Ok(message) = queue.try_recv() {
                    let Message::Connected(Accepted { peer, .. }) = message else { panic!("{message:?}") };
                    assert!(waiting.remove(&peer), "{peer}");
                    now += 1;
                }
                taken += now;
                most = most.max(now);
                others_turns.set(others_turns.get() + usize::from(now > 0));
            }
            assert!(most <= limits::ACCEPTS_PER_ROUND as usize, "{most} at once");
            acceptor.abort();
        });
        assert!(rounds.get() >= PEERS / limits::ACCEPTS_PER_ROUND as usize);
    }
}
