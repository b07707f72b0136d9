//! A shard: one thread, one single-threaded runtime, one listener, several SETs. Sockets never leave it.

pub mod acceptor;
pub mod directory;
pub mod message;
pub mod output;
pub mod reader;
pub mod session;
pub mod set;
#[cfg(test)]
mod set_tests;
pub mod tally;
pub mod wire;
pub mod worker;

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hongbao_proto::token::Verifier;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::acceptor::Acceptor;
use self::message::{Control, Message};
use self::reader::Link;
use self::set::{Set, SetHandle, Shared};
use self::worker::Clock;
use crate::limits;

/// Everything a shard's thread starts with.
pub struct Shard {
    /// Index of its first SET; the others follow.
    pub first_set: u32,
    /// The queues of its SETs.
    pub inboxes: Vec<mpsc::Receiver<Message>>,
    /// Takes connections in.
    pub acceptor: Acceptor,
    /// Already bound, so that a port in use is found before anything starts.
    pub listener: TcpListener,
    /// What all SETs share.
    pub shared: Arc<Shared>,
    /// Checks login tokens.
    pub verifier: Arc<Verifier>,
    /// The process's clock.
    pub clock: Clock,
}

impl Shard {
    /// Starts the thread. It ends when each of its SETs was told to stop.
    pub fn spawn(self, index: usize) -> io::Result<JoinHandle<()>> {
        let runtime = std::thread::Builder::new().name(format!("shard-{index}"));
        runtime.spawn(move || {
            match Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime.block_on(self.run()),
                Err(error) => {
                    tracing::error!(%error, "a shard cannot make its runtime; raise nofile");
                    std::process::exit(1);
                }
            }
        })
    }

    async fn run(self) {
        let scratch = Rc::new(RefCell::new(vec![0; limits::SCRATCH_BYTES].into_boxed_slice()));
        let handles: Vec<SetHandle> = self.acceptor.sets.iter().map(|(set, _)| set.clone()).collect();
        let acceptor = tokio::task::spawn_local(self.acceptor.run(self.listener));
        let ticker = tokio::task::spawn_local(tick(handles.clone()));
        let workers: Vec<_> = (self.first_set..)
            .zip(self.inboxes.into_iter().zip(handles))
            .map(|(index, (inbox, handle))| {
                let link = Rc::new(Link {
                    inbox: handle.inbox,
                    refusals: RefCell::default(),
                    tally: handle.tally,
                    verifier: Arc::clone(&self.verifier),
                    scratch: Rc::clone(&scratch),
                });
                let set = Set::new(index, Arc::clone(&self.shared));
                tokio::task::spawn_local(worker::run(set, inbox, link, self.clock))
            })
            .collect();
        for worker in workers {
            if let Err(error) = worker.await {
                tracing::error!(%error, "a SET worker ended abnormally");
            }
        }
        ticker.abort();
        acceptor.abort();
    }
}

/// Tells each SET about once a second that time passes. A SET whose queue is full hears it the next time.
async fn tick(sets: Vec<SetHandle>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        for set in &sets {
            set.inbox.try_send(Message::Control(Control::Tick)).ok();
        }
    }
}
