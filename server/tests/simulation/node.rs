//! A node put together as `hongbao_server::node` does, without threads, sockets and timers: whoever
//! holds it decides who goes next.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use hongbao_proto::UserId;
use hongbao_proto::token::Verifier;
use hongbao_server::admission::{Gate, LoginQueue, Rate};
use hongbao_server::clock::{Now, UnixMs};
use hongbao_server::generator::{Command, Generator, StockBoard, unfinished};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::writer::{LedgerHandle, Writer, WriterRequest};
use hongbao_server::market::campaign::Seed;
use hongbao_server::services::envelope_runs::{Run, Runs, Terms};
use hongbao_server::services::rooms::room_shard::Bounds;
use hongbao_server::services::rooms::service::{Epochs, Service};
use hongbao_server::services::{expiry, offers};
use hongbao_server::set::directory::Directory;
use hongbao_server::set::message::{Control, Message, Offering, ReplyPermit, StockReport};
use hongbao_server::set::payments::Wallets;
use hongbao_server::set::room_requests::{QueuedRoomRequest, RoomShards};
use hongbao_server::set::{Set, SetHandle, Shared};
use hongbao_server::shard::reader::Intake;
use hongbao_server::shard::worker;
use tokio::sync::mpsc;

use super::rng::Rng;
use super::watched::{Watch, Watched};
use super::wire::SimWire;

thread_local! {
    /// The wall clock of the run on this thread, Unix milliseconds.
    static WALL: Cell<UnixMs> = const { Cell::new(0) };
}

pub fn set_wall(now: UnixMs) {
    WALL.set(now);
}

/// For those who hold a clock rather than being told the time.
pub fn wall() -> UnixMs {
    WALL.get()
}

/// How large a node's parts are: small, so that everything is full now and then.
#[derive(Debug, Clone)]
pub struct Setup {
    pub sets: u32,
    pub set_queue: usize,
    pub ledger_queue: usize,
    pub generator_queue: usize,
    pub offerings: usize,
    pub room_shards: usize,
    pub gate: Option<u32>,
    pub logins: Option<u32>,
    pub connection_rate: u32,
    pub history_bytes: usize,
    /// Who is rarely served, so that its queue fills.
    pub lazy: Lazy,
    /// What users do most.
    pub focus: Focus,
    /// The process dies so many times less often: what a crash would heal has time to show.
    pub calm: u64,
}

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    Everything,
    Envelopes,
    Chat,
    Orders,
}

/// One of the parts, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lazy {
    Nobody,
    Sets,
    Ledger,
    Generator,
    Offers,
    RoomShards,
    Clients,
}

impl Setup {
    pub fn draw(rng: &mut Rng) -> Self {
        let size = |rng: &mut Rng, from| {
            let to = *rng.pick(&[2 * from, 16, 64, 512]).unwrap_or(&64);
            usize::try_from(rng.within(from, to.max(from))).unwrap_or(64)
        };
        Self {
            sets: u32::try_from(rng.within(1, 4)).unwrap_or(1),
            set_queue: size(rng, 4),
            ledger_queue: size(rng, 2),
            generator_queue: size(rng, 4),
            offerings: size(rng, 1),
            room_shards: usize::try_from(rng.within(1, 2)).unwrap_or(1),
            gate: rng.one_in(4).then_some(200),
            logins: rng.one_in(4).then_some(20),
            connection_rate: *rng.pick(&[20, 500, 500, 500]).unwrap_or(&500),
            history_bytes: *rng.pick(&[400, 4_000, 1 << 20]).unwrap_or(&4_000),
            lazy: match rng.below(12) {
                0 => Lazy::Sets,
                1 => Lazy::Ledger,
                2 | 3 => Lazy::Generator,
                4 => Lazy::Offers,
                5 => Lazy::RoomShards,
                6 => Lazy::Clients,
                _ => Lazy::Nobody,
            },
            focus: *rng
                .pick(&[Focus::Everything, Focus::Everything, Focus::Envelopes, Focus::Chat, Focus::Orders])
                .unwrap_or(&Focus::Everything),
            calm: *rng.pick(&[1, 1, 4, 100]).unwrap_or(&1),
        }
    }
}

/// A SET, its queue and what its readers share.
pub struct SetNode {
    pub set: Set<SimWire>,
    inbox: mpsc::Receiver<Message>,
    pub intake: Intake,
}

type Work<R> = Pin<Box<dyn Future<Output = R>>>;

/// A run of envelopes, between two of its steps or in the middle of one.
enum EnvelopeRun {
    Idle(Box<Run>),
    Busy(Work<Box<Run>>),
}

pub struct Node {
    // The writer goes first: it holds places in the others' queues.
    pub ledger: Writer<ReplyPermit>,
    pub requests: mpsc::Receiver<WriterRequest<ReplyPermit>>,
    pub handle: LedgerHandle<ReplyPermit>,
    pub shared: Arc<Shared>,
    pub sets: Vec<SetNode>,
    pub generator: Generator,
    pub board: Arc<StockBoard>,
    pub commands: mpsc::Sender<Command>,
    command_queue: mpsc::Receiver<Command>,
    reports: mpsc::Receiver<StockReport>,
    offerings: mpsc::Receiver<Offering>,
    /// What each of the two is at.
    offering: Option<Work<()>>,
    expiring: Option<Work<()>>,
    envelope_runs: Vec<EnvelopeRun>,
    pub runs: Arc<Runs>,
    room_shards: Vec<(Service, mpsc::Receiver<QueuedRoomRequest>)>,
}

impl Node {
    /// Opens the ledger at `path` and recovers everything from it. `check` sees the ledger before
    /// anything is asked of it.
    pub fn open(
        setup: &Setup,
        path: &Path,
        watch: &Arc<Mutex<Watch>>,
        verifier: &Arc<Verifier>,
        now: &Now,
        check: impl FnOnce(&mut SqliteLedger),
    ) -> Result<Self, String> {
        let mut ledger = SqliteLedger::open(path).map_err(|error| error.to_string())?;
        check(&mut ledger);
        let campaigns = unfinished(&mut ledger).map_err(|error| error.to_string())?;
        let ledger = Writer::new(Box::new(Watched::new(ledger, Arc::clone(watch))), wall);
        let (handle, requests) = LedgerHandle::open(setup.ledger_queue);
        let (stock, reports) = mpsc::channel(setup.generator_queue);
        let (commands, command_queue) = mpsc::channel(setup.generator_queue);
        let (offerings_in, offerings) = mpsc::channel(setup.offerings);
        let (handles, inboxes): (Vec<SetHandle>, Vec<_>) = (0..setup.sets)
            .map(|_| {
                let (inbox, queue) = mpsc::channel(setup.set_queue);
                (SetHandle { inbox, tally: Arc::default() }, queue)
            })
            .unzip();
        let (room_shards, room_queues) = RoomShards::open(setup.room_shards);
        let shared = Arc::new(Shared {
            traces: Arc::default(),
            directory: Directory::default(),
            gate: setup.gate.map(|rate| Gate::new(Rate::new(rate, rate.div_ceil(10)))),
            logins: setup.logins.map(LoginQueue::of_logins),
            connection_rate: Rate::new(setup.connection_rate, setup.connection_rate.saturating_mul(2)),
            ledger: handle.clone(),
            generator: stock,
            payments: Box::new(Wallets(handle.clone())),
            offerings: offerings_in,
            room_shards,
            sets: handles.clone().into(),
            login_seconds: 10,
            idle_seconds: 60,
            end_at_expiry: true,
            barred: Default::default(),
        });
        let generator = Generator::recover(handles.clone().into(), handle.clone(), campaigns, true, now.wall);
        let bounds = Bounds { history_bytes: setup.history_bytes, ..Bounds::default() };
        let board = Arc::default();
        let room_service = |(shard, queue): (u64, _)| {
            // In place of random ones: by the moment of the start, the shard, and the room.
            let mut next = (now.wall << 16) + (shard << 12);
            let epochs: Epochs = Box::new(move || {
                next += 1;
                NonZeroU64::new(next).unwrap_or(NonZeroU64::MIN)
            });
            (Service::new(Arc::clone(&shared), Arc::clone(&board), bounds, epochs), queue)
        };
        let room_shards = (0..).zip(room_queues).map(room_service).collect();
        let sets = (0..)
            .zip(handles.into_iter().zip(inboxes))
            .map(|(index, (handle, inbox))| SetNode {
                set: Set::new(index, Arc::clone(&shared)),
                inbox,
                intake: Intake {
                    inbox: handle.inbox,
                    refusals: RefCell::default(),
                    tally: handle.tally,
                    verifier: Arc::clone(verifier),
                    scratch: Rc::default(),
                },
            })
            .collect();
        Ok(Self {
            ledger,
            requests,
            handle,
            sets,
            board: Arc::clone(&generator.board),
            generator,
            commands,
            command_queue,
            reports,
            offerings,
            offering: None,
            expiring: None,
            envelope_runs: Vec::new(),
            runs: Arc::default(),
            room_shards,
            shared,
        })
    }

    /// Has a SET take up to so many messages; how many it took, if it had anything to do.
    pub fn serve_set(&mut self, index: usize, max: usize, now: &Now, see: impl Fn(&mut Message)) -> Option<usize> {
        let SetNode { set, inbox, intake } = &mut self.sets[index];
        let mut batch = Vec::new();
        while batch.len() < max
            && let Ok(mut message) = inbox.try_recv()
        {
            see(&mut message);
            batch.push(message);
        }
        let taken = batch.len();
        if taken == 0 && !set.has_bulk_work() && intake.refusals.borrow().is_empty() {
            return None;
        }
        worker::round(set, &mut batch, intake, now, |_, _, _| {});
        Some(taken)
    }

    /// Has the ledger take up to so many requests and commit.
    ///
    /// `hold` is told whose each posting is that waits for the commit.
    pub fn serve_ledger(&mut self, max: usize, hold: impl Fn(Option<UserId>)) -> Option<usize> {
        let mut taken = 0;
        while taken < max
            && let Ok(request) = self.requests.try_recv()
        {
            let posting = match &request {
                WriterRequest::Post { posting, .. } => Some(posting.user()),
                _ => None,
            };
            self.ledger.apply(request);
            if let Some(user) = posting {
                hold(user);
            }
            taken += 1;
        }
        self.ledger.flush();
        (taken > 0).then_some(taken)
    }

    /// The last thing that the ledger's thread does.
    pub fn fold(&mut self) {
        self.ledger.close();
    }

    pub fn serve_command(&mut self, now: &Now) -> Option<()> {
        if self.generator.serve_ledger(now.wall) {
            return Some(());
        }
        let command = self.command_queue.try_recv().ok()?;
        self.generator.run_command(command, now.wall);
        Some(())
    }

    pub fn serve_report(&mut self) -> Option<String> {
        let report = self.reports.try_recv().ok()?;
        let text = match &report {
            StockReport::Books { set, round, .. } => format!("books of set {set}, round {round}"),
            report => format!("{report:?}"),
        };
        self.generator.on_report(report);
        Some(text)
    }

    /// Lets offers, or expiry, go on, or begin something.
    pub fn serve_offers(&mut self, expire: bool) -> Option<&'static str> {
        let (work, what) = match expire {
            true => (&mut self.expiring, "expiry goes on"),
            false => (&mut self.offering, "offers go on"),
        };
        if work.is_none() {
            *work = Some(if expire {
                let shared = Arc::clone(&self.shared);
                Box::pin(async move { expiry::expire(&shared, wall).await })
            } else {
                let (shared, offering) = (Arc::clone(&self.shared), self.offerings.try_recv().ok()?);
                Box::pin(async move { offers::offer(&shared, &offering).await })
            });
        }
        if let Some(at) = work
            && at.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
        {
            *work = None;
        }
        Some(what)
    }

    /// Begins to send a run of envelopes.
    pub fn begin_envelope_run(&mut self, terms: Terms, seed: Seed) {
        let run = Run::begin(terms, seed, &self.runs, &self.shared, wall);
        self.envelope_runs.push(EnvelopeRun::Idle(Box::new(run)));
    }

    /// Lets one of the runs of envelopes go on. Whether it had anything to do.
    pub fn serve_envelope_run(&mut self, choice: usize) -> bool {
        if self.envelope_runs.is_empty() {
            return false;
        }
        let index = choice % self.envelope_runs.len();
        let mut work = match self.envelope_runs.swap_remove(index) {
            EnvelopeRun::Busy(work) => work,
            EnvelopeRun::Idle(run) if run.is_over => return false,
            EnvelopeRun::Idle(mut run) => Box::pin(async move {
                run.step().await;
                run
            }),
        };
        self.envelope_runs.push(match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(run) => EnvelopeRun::Idle(run),
            Poll::Pending => EnvelopeRun::Busy(work),
        });
        true
    }

    pub fn serve_room_shard(&mut self, index: usize) -> Option<()> {
        let (shard, queue) = &mut self.room_shards[index];
        let request = queue.try_recv().ok();
        if request.is_none() && !shard.is_busy() {
            return None;
        }
        shard.step(request);
        Some(())
    }

    pub fn room_shards(&self) -> usize {
        self.room_shards.len()
    }

    /// About a second has passed. A SET whose queue is full hears it the next time.
    pub fn tick(&self) {
        for set in &self.shared.sets {
            set.inbox.try_send(Message::Control(Control::Tick)).ok();
        }
    }

    /// The equations that hold at every step, where they do not.
    pub fn broken(&self) -> Option<String> {
        for (index, set) in self.shared.sets.iter().enumerate() {
            let tally = &set.tally;
            let (received, answered, owed) = (tally.received.get(), tally.answered(), tally.owed.get());
            if tally.broken_equations.get() > 0 || received != answered + owed {
                return Some(format!(
                    "SET {index}: received {received}, answered {answered}, owed {owed}; or its stock"
                ));
            }
        }
        let stock = self.board.total();
        (stock.residual != 0 || stock.void != 0).then(|| format!("stock is unaccounted for: {stock:?}"))
    }
}
