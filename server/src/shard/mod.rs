//! A shard: one thread, one single-threaded runtime, one listener, several SETs, and perhaps a
//! descriptor table of its own. Sockets never leave it.

pub mod acceptor;
pub mod reader;
pub mod worker;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Barrier, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use hongbao_proto::token::Verifier;
use hongbao_sysctl::cores;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::limits;
use crate::set::message::{Control, Message};
use crate::set::tally::Tally;
use crate::set::{Set, SetHandle, Shared};
use crate::shard::acceptor::Acceptor;
use crate::shard::reader::Intake;
use crate::transport::descriptors;
use crate::transport::listener::{Bound, Listener};

/// Everything a shard serves with.
pub struct Shard {
    /// Index of its first SET; the others follow.
    pub first_set: u32,
    /// The queues of its SETs.
    pub inboxes: Vec<mpsc::Receiver<Message>>,
    /// Takes connections in.
    pub acceptor: Acceptor,
    pub shared: Arc<Shared>,
    /// Checks login tokens.
    pub verifier: Arc<Verifier>,
    pub clock: Clock,
    /// Grows once a second for as long as the shard turns.
    pub beat: Arc<Tally>,
    /// Takes one word, once peers are let in, or why they cannot be; then it is dropped.
    pub serving: mpsc::Sender<io::Result<()>>,
}

/// What the shards' threads have to themselves.
#[derive(Debug, Clone, Copy)]
pub struct ThreadOptions {
    pub tables: bool,
    /// A core each, counted round.
    pub cores: bool,
    /// From the end of one round of work to the next look at the sockets, as a network card holds
    /// its interrupts back.
    pub coalesce: Duration,
}

/// A shard's thread: it has its runtime, and a descriptor table of its own where it should, and
/// waits for orders. Dropped, it ends, unless it serves already.
pub struct ShardThread {
    commands: std_mpsc::Sender<ShardCommand>,
    bound: std_mpsc::Receiver<io::Result<SocketAddr>>,
    handle: JoinHandle<()>,
}

enum ShardCommand {
    /// Bind: peers are refused until it serves.
    Bind(SocketAddr),
    /// Listen, and serve until each SET was told to stop.
    Serve(Box<Shard>),
}

impl ShardThread {
    /// Starts `count` threads. The caller's own runtime must exist already: the threads take their
    /// tables once all runtimes do.
    pub fn start_all(count: u32, options: ThreadOptions) -> io::Result<Vec<Self>> {
        let built = Arc::new(Barrier::new(count as usize));
        (0..count).map(|index| Self::start(index, options, Arc::clone(&built))).collect()
    }

    fn start(index: u32, options: ThreadOptions, built: Arc<Barrier>) -> io::Result<Self> {
        let (commands, inbox) = std_mpsc::channel();
        let (reports, bound) = std_mpsc::channel();
        let handle = std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            if let Err(error) = run_commands(index, options, &built, &inbox, &reports) {
                // Whoever waits for this shard to bind learns why it never will.
                reports.send(Err(error)).ok();
            }
        })?;
        Ok(Self { commands, bound, handle })
    }

    /// Has the shard bind, on its own thread; returns the address with its actual port.
    pub fn bind(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let ended = || io::Error::other("the shard's thread has ended");
        self.commands.send(ShardCommand::Bind(address)).map_err(|_| ended())?;
        self.bound.recv().map_err(|_| ended())?
    }

    /// Has the shard listen and serve; its thread ends when each of its SETs was told to stop.
    pub fn serve(self, shard: Shard) -> JoinHandle<()> {
        // A thread that has ended has said why when it was to bind.
        self.commands.send(ShardCommand::Serve(Box::new(shard))).ok();
        self.handle
    }
}

/// The life of a shard's thread.
fn run_commands(
    index: u32,
    options: ThreadOptions,
    built: &Barrier,
    commands: &std_mpsc::Receiver<ShardCommand>,
    reports: &std_mpsc::Sender<io::Result<SocketAddr>>,
) -> io::Result<()> {
    let mut builder = Builder::new_current_thread();
    if !options.coalesce.is_zero() {
        // Before it waits for events: by then there are several, and one wake serves them all.
        builder.on_thread_park(move || std::thread::sleep(options.coalesce));
    }
    let runtime = builder.enable_io().enable_time().build_local(LocalOptions::default());
    // Also where it failed: the others wait here.
    built.wait();
    let runtime = runtime?;
    descriptors::block_signals()?;
    if options.cores {
        cores::pin(index)?;
    }
    if options.tables {
        descriptors::unshare_table()?;
    }
    let mut bound = None;
    while let Ok(command) = commands.recv() {
        match (command, bound.take()) {
            (ShardCommand::Bind(address), _) => {
                let socket = Bound::new(address).and_then(|socket| Ok((socket.address()?, socket)));
                // The asker waits.
                reports
                    .send(socket.map(|(address, socket)| {
                        bound = Some(socket);
                        address
                    }))
                    .ok();
            }
            (ShardCommand::Serve(shard), Some(bound)) => {
                runtime.block_on(shard.run(bound));
                return Ok(());
            }
            (ShardCommand::Serve(_), None) => return Err(io::Error::other("ordered to serve before it was bound")),
        }
    }
    Ok(())
}

impl Shard {
    async fn run(self, bound: Bound) {
        // All that a login needs runs by now, but for our SETs, which take what arrives as soon as
        // this thread comes to them.
        let listener = match Listener::new(bound) {
            Ok(listener) => listener,
            Err(error) => {
                self.serving.try_send(Err(error)).ok();
                return;
            }
        };
        // There is room: shards begin one after the other. Nobody waits where the start has failed.
        self.serving.try_send(Ok(())).ok();
        drop(self.serving);
        let scratch = Rc::new(RefCell::new(vec![0; limits::SCRATCH_BYTES].into_boxed_slice()));
        let handles: Vec<SetHandle> = self.acceptor.sets.iter().map(|(set, _)| set.clone()).collect();
        let acceptor = tokio::task::spawn_local(self.acceptor.run(listener));
        let ticker = tokio::task::spawn_local(tick(handles.clone(), self.beat));
        let workers: Vec<_> = (self.first_set..)
            .zip(self.inboxes.into_iter().zip(handles))
            .map(|(index, (inbox, handle))| {
                let intake = Rc::new(Intake {
                    inbox: handle.inbox,
                    refusals: RefCell::default(),
                    tally: handle.tally,
                    verifier: Arc::clone(&self.verifier),
                    scratch: Rc::clone(&scratch),
                });
                let set = Set::new(index, Arc::clone(&self.shared));
                tokio::task::spawn_local(worker::run(set, inbox, intake, self.clock))
            })
            .collect();
        for worker in workers {
            if let Err(error) = worker.await {
                tracing::error!(event = "set_worker_failed", %error, "a SET worker ended abnormally");
            }
        }
        ticker.abort();
        acceptor.abort();
    }
}

/// Ticks each SET about once a second, and shows in `beat` that this shard turns. A SET with a full
/// queue misses a tick.
async fn tick(sets: Vec<SetHandle>, beat: Arc<Tally>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        beat.add(1);
        for set in &sets {
            set.inbox.try_send(Message::Control(Control::Tick)).ok();
        }
    }
}
