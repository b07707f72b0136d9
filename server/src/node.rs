//! Puts a server together from its parts, runs it, and stops it in order.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hongbao_proto::token::{Audience, Signer, Verifier};
use hongbao_sysctl::cores;
use hongbao_sysctl::{HostFacts, Shards, Verdict, Wanted};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::http;
use hongbao_telemetry::program::service::Service;
use hongbao_telemetry::report::names::{event, role};
use hongbao_telemetry::report::{Events, Reporter, ReporterConfig};
use tokio::sync::{Notify, mpsc, watch};

use crate::admin::{self, Admin};
use crate::admission::{Gate, LoginQueue, Rate};
use crate::clock::{Clock, wall};
use crate::config::Config;
use crate::generator::{Command, Generator};
use crate::ledger::audit::audit;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{Ledger, LedgerError, writer};
use crate::limits;
use crate::services::envelope_runs::Runs;
use crate::services::offers::Clerk;
use crate::services::rooms;
use crate::set::directory::Directory;
use crate::set::message::{Control, Message, ReturnWindow, StockReport};
use crate::set::payments::Wallets;
use crate::set::room_messages::RoomShards;
use crate::set::tally::Tally;
use crate::set::{SetHandle, Shared};
use crate::shard::acceptor::{AcceptTally, Acceptor};
use crate::shard::{Shard, ShardThread, ThreadOptions};
use crate::telemetry::Telemetry;
use crate::tools::host;
use crate::transport::descriptors;
use crate::watchdog::Watchdog;

/// Lifetime of the token with which this process reports, seconds: longer than any run.
const REPORT_TOKEN_SECONDS: u64 = 10 * 365 * 86_400;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be used.
    #[error("--ledger {path}: {source}")]
    Ledger { path: PathBuf, source: LedgerError },
    /// An address cannot be bound.
    #[error("cannot listen on {address} ({flag}): {source}; is another server running? choose another port")]
    Bind {
        address: SocketAddr,
        /// The flag that gave it.
        flag: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that announces the addresses.
    #[error("cannot write --ready-file {path}: {source}")]
    ReadyFile {
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread or a runtime.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// How a server's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every queue ran dry in time, and the books balance.
    InOrder,
    /// The deadline passed first.
    CutShort,
    /// The books do not balance.
    Unbalanced,
}

/// A server that serves.
pub struct Node {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    stop: Arc<Notify>,
    accepting: watch::Sender<bool>,
    commands: mpsc::Sender<Command>,
    telemetry: Telemetry,
    shards: Vec<JoinHandle<()>>,
    ledger_thread: JoinHandle<()>,
    generator: tokio::task::JoinHandle<()>,
    clerk: tokio::task::JoinHandle<()>,
    watchdog: tokio::task::JoinHandle<()>,
    service: Service,
    desks: Vec<tokio::task::JoinHandle<()>>,
    /// Reporter and admin surface: they end in their own time once `closing` is true.
    closers: Vec<tokio::task::JoinHandle<()>>,
    closing: watch::Sender<bool>,
    stop_deadline: Duration,
    return_after_ms: u32,
    ledger_path: PathBuf,
}

impl Node {
    /// Starts everything. Must be called inside a runtime; tasks of the main thread are spawned on
    /// it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let now = wall();
        let bind_error = |address, flag| move |source| StartError::Bind { address, flag, source };
        // Before we listen, lest peers of the server there reach us; and after, should two start at
        // once.
        refuse_shared_port(&config, config.listen, 0)?;
        let limit = descriptors::raise_limit();
        let own = ThreadOptions { tables: config.private_tables, cores: config.pin_shards, coalesce: config.coalesce };
        let threads = ShardThread::start_all(config.shards, own).map_err(StartError::Thread)?;
        let mut address = config.listen;
        for (already, thread) in threads.iter().enumerate() {
            address = thread.listen(address).map_err(bind_error(address, "--listen"))?;
            if already == 0 {
                refuse_shared_port(&config, address, 1)?;
            }
        }
        let admin_listener =
            tokio::net::TcpListener::bind(config.admin).await.map_err(bind_error(config.admin, "--admin"))?;
        let admin_address = admin_listener.local_addr().map_err(bind_error(config.admin, "--admin"))?;
        if let Some(path) = &config.ready_file {
            try_ready_file(path)?;
        }

        // Only what is refused no more creates a ledger.
        let ledger_error = |source| StartError::Ledger { path: config.ledger.clone(), source };
        let mut ledger = SqliteLedger::open(&config.ledger).map_err(ledger_error)?;
        let campaigns = unfinished(&mut ledger).map_err(ledger_error)?;
        say_what_binds(&config, address.port());

        // On a busy host dozens of shards wait in line for a core. The ledger, the generator and
        // the reports are one each, and everybody waits for them: where they stood in line as well,
        // wins were seen to take seconds.
        if !cores::favour() {
            tracing::info!(event = "not_favoured", "no CAP_SYS_NICE: the ledger's thread is scheduled as all others");
        }
        let (ledger, ledger_status, ledger_thread) = writer::spawn(Box::new(ledger), wall);
        let (stock_sender, stock_reports) = mpsc::channel::<StockReport>(limits::GENERATOR_QUEUE_MAX);
        let (commands, command_queue) = mpsc::channel(limits::GENERATOR_QUEUE_MAX);
        let (offerings, offering_queue) = mpsc::channel(limits::OFFERINGS_MAX);
        let (handles, inboxes): (Vec<SetHandle>, Vec<_>) = (0..config.sets)
            .map(|_| {
                let (inbox, queue) = mpsc::channel(limits::SET_QUEUE_MAX);
                (SetHandle { inbox, tally: Arc::default() }, queue)
            })
            .unzip();
        let sets: Box<[SetHandle]> = handles.into();
        let (room_shards, room_queues) = RoomShards::open(limits::ROOM_SHARDS);
        let shared = Arc::new(Shared {
            traces: Arc::default(),
            directory: Directory::default(),
            // A tenth of a second of bursts: SETs ask for whole batches.
            gate: config.max_qps.map(|qps| Gate::new(Rate::new(qps.get(), qps.get().div_ceil(10)))),
            logins: config.login_rate.map(|rate| LoginQueue::of_logins(rate.get())),
            connection_rate: Rate::new(config.max_connection_qps, config.max_connection_qps.saturating_mul(2)),
            ledger: ledger.clone(),
            generator: stock_sender,
            payments: Box::new(Wallets(ledger.clone())),
            offerings,
            room_shards,
            sets: sets.clone(),
            login_seconds: config.login_seconds,
            idle_seconds: config.idle_seconds,
        });
        let accept = Arc::new(AcceptTally::default());
        let (accepting, accepting_watch) = watch::channel(true);
        let generator = Generator::recover(sets.clone(), ledger.clone(), campaigns, config.notify_campaigns, now);
        let events = Events::default();
        let generator = generator.telling(events.clone());
        let beats: Vec<Arc<Tally>> = threads.iter().map(|_| Arc::default()).collect();
        let (serving, mut served) = mpsc::channel(threads.len());
        let pulse = Readiness { beats: &beats, serving };
        let shards = serve_shards(&config, limit, address, threads, inboxes, &shared, &accept, &accepting_watch, pulse);

        let (desk_tasks, rooms) = rooms::spawn(&shared, room_queues);
        let mut telemetry = Telemetry {
            sets,
            accept,
            ledger: ledger_status,
            stock: generator.board(),
            broadcasts: Arc::default(),
            rooms,
            events: events.clone(),
            descriptors_limit: limit,
            sets_per_table: config
                .private_tables
                .then(|| NonZeroUsize::new((config.sets / config.shards) as usize))
                .flatten(),
            ledger_path: config.ledger.as_path().into(),
            connections_max: connections_max(&config, limit),
            reporter: None,
        };
        let generator_task = tokio::spawn(generator.run(command_queue, stock_reports, wall));
        let clerk = Clerk::new(Arc::clone(&shared), wall);
        let clerk = tokio::spawn(clerk.run(offering_queue));
        let (closing, closing_watch) = watch::channel(false);
        let mut closers = Vec::new();
        if let Some(monitor) = config.monitor {
            let reporter = Reporter::new(ReporterConfig {
                monitor,
                token: report_token(&config),
                role: role::SERVER,
                name: config.name.clone(),
            })
            .controlled_at(admin_address)
            .listening_at(address)
            .telling(events.clone());
            telemetry.reporter = Some(reporter.stats());
            let telemetry = telemetry.clone();
            closers.push(tokio::spawn(
                reporter.run_until(closed(closing_watch.clone()), move |_| telemetry.sample_second()),
            ));
        }
        let service = Service::from_environment();
        let watchdog = Watchdog::new(service, beats, ledger.clone(), telemetry.clone());
        let stop = Arc::new(Notify::new());
        let state = Admin {
            shared,
            generator: commands.clone(),
            stock: Arc::clone(&telemetry.stock),
            ledger,
            fair_window_ms: config.fair_window_ms,
            runs: Arc::new(Runs::telling(events)),
            broadcasts: Arc::clone(&telemetry.broadcasts),
            telemetry: telemetry.clone(),
            stop: Arc::clone(&stop),
            closing: closing_watch.clone(),
            accepting: accepting_watch,
        };
        let router = admin::router(state, Arc::new(Verifier::hs256(&config.secret, Audience::Admin)));
        closers.push(tokio::spawn(async move {
            if let Err(error) = http::serve(admin_listener, router, closed(closing_watch)).await {
                tracing::error!(event = "admin_ended", %error, "the admin surface has ended");
            }
        }));
        for _ in 0..config.shards {
            served.recv().await.ok_or_else(|| StartError::Thread(std::io::Error::other("a shard has ended")))?;
        }
        let watchdog = tokio::spawn(watchdog.run());
        if let Some(path) = &config.ready_file {
            announce_ready(path, address, admin_address)?;
        }
        tracing::info!(event = "serving", listen = %address, admin = %admin_address, shards = config.shards, sets = config.sets, "serving");
        Ok(Self {
            listen: address,
            admin: admin_address,
            stop,
            accepting,
            commands,
            telemetry,
            shards,
            ledger_thread,
            generator: generator_task,
            clerk,
            watchdog,
            service,
            desks: desk_tasks,
            closers,
            closing,
            stop_deadline: config.stop_deadline,
            return_after_ms: config.return_after_ms,
            ledger_path: config.ledger,
        })
    }

    /// What completes when an operator asks over HTTP for a stop.
    pub fn stop_asked(&self) -> impl Future<Output = ()> + use<> {
        let stop = Arc::clone(&self.stop);
        async move { stop.notified().await }
    }

    /// The numbered stop: 1 close listeners · 2 stop issuing · 3 tell peers when to return · 4 let
    /// queues run dry · 5 close the ledger · 6 audit.
    pub async fn stop(mut self) -> Stopped {
        let deadline = Instant::now() + self.stop_deadline;
        let online = self.telemetry.sum(|set| &set.online);
        // It would find parts silent that have ended; and it holds a way to the ledger, which ends
        // when all are gone.
        self.watchdog.abort();
        (&mut self.watchdog).await.ok();
        self.service.stopping(&format!("stopping in order; {online} users are told when to return"));
        self.telemetry.events.push(
            wall(),
            event::DRAIN,
            format!("the server stops in order; {online} users are on-line"),
        );
        tracing::info!(event = "stop_step", step = 1, online, "stop 1/6: closing listeners");
        self.accepting.send_replace(false);

        tracing::info!(event = "stop_step", step = 2, "stop 2/6: no more prizes are issued");
        // An error says that the generator has ended already.
        self.commands.send(Command::Halt).await.ok();

        tracing::info!(event = "stop_step", step = 3, "stop 3/6: telling users when to return");
        let window = ReturnWindow { from_ms: self.return_after_ms, until_ms: self.return_after_ms.saturating_mul(3) };
        self.tell_sets(deadline, || Control::Farewell(window)).await;

        tracing::info!(event = "stop_step", step = 4, "stop 4/6: letting queues run dry");
        let dry = self.run_dry(deadline).await;
        self.tell_sets(deadline, || Control::Stop).await;
        let shards = self.shards;
        let ended = tokio::task::spawn_blocking(move || shards.into_iter().all(|shard| shard.join().is_ok()));
        let patience = deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(1);
        let ended = matches!(tokio::time::timeout(patience, ended).await, Ok(Ok(true)));

        tracing::info!(event = "stop_step", step = 5, "stop 5/6: closing the ledger");
        self.closing.send_replace(true);
        for task in self.closers {
            // An error would be a panic, which has been reported.
            task.await.ok();
        }
        for task in self.desks.into_iter().chain([self.generator, self.clerk]) {
            task.abort();
            // Its error says that it was aborted.
            task.await.ok();
        }
        drop(self.commands);
        let ledger_thread = self.ledger_thread;
        let closed = tokio::task::spawn_blocking(move || ledger_thread.join().is_ok());
        let closed = matches!(tokio::time::timeout(self.stop_deadline, closed).await, Ok(Ok(true)));

        let verdict = match tokio::task::spawn_blocking(move || audit(&self.ledger_path)).await {
            Ok(Ok(report)) if report.is_balanced() => {
                tracing::info!(event = "stop_audited", step = 6, "stop 6/6: audit: {report}");
                if dry && ended && closed { Stopped::InOrder } else { Stopped::CutShort }
            }
            Ok(Ok(report)) => {
                tracing::error!(event = "stop_unbalanced", step = 6, "stop 6/6: audit: {report}");
                Stopped::Unbalanced
            }
            Ok(Err(error)) => {
                tracing::error!(event = "stop_unaudited", step = 6, %error, "stop 6/6: the ledger cannot be audited");
                Stopped::Unbalanced
            }
            Err(_) => Stopped::CutShort,
        };
        if !(dry && ended && closed) {
            tracing::warn!(event = "stop_cut_short", dry, ended, closed, "the stop was cut short by its deadline");
        }
        verdict
    }

    async fn tell_sets(&self, deadline: Instant, control: impl Fn() -> Control) {
        for set in &self.telemetry.sets {
            let patience = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(100);
            // A SET that takes no message by the deadline is cut off with the process.
            tokio::time::timeout(patience, set.inbox.send(Message::Control(control()))).await.ok();
        }
    }

    /// Whether every connection has ended and every request was answered by the deadline.
    async fn run_dry(&self, deadline: Instant) -> bool {
        loop {
            let left = self.telemetry.sum(|set| &set.connections) + self.telemetry.sum(|set| &set.owed);
            if left == 0 || Instant::now() >= deadline {
                return left == 0;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Completes when the node closes, or is gone.
async fn closed(mut closing: watch::Receiver<bool>) {
    closing.wait_for(|closing| *closing).await.ok();
}

/// Every campaign, with its claimed serials where some may still be issued: what
/// [`Generator::recover`] begins with.
pub fn unfinished(
    ledger: &mut dyn Ledger,
) -> Result<Vec<(crate::market::campaign::Campaign, Vec<hongbao_proto::Serial>)>, LedgerError> {
    let campaigns = ledger.campaigns()?;
    campaigns
        .into_iter()
        .map(|campaign| {
            let claimed = if campaign.settlement.is_none() { ledger.claimed_serials(campaign.id)? } else { Vec::new() };
            Ok((campaign, claimed))
        })
        .collect()
}

/// SO_REUSEPORT lets a second server of the same user share our port silently; a plain bind shows
/// whether one is there.
///
/// `ours`: how many listeners of this process are there already.
fn refuse_shared_port(config: &Config, address: SocketAddr, ours: usize) -> Result<(), StartError> {
    if config.listen.port() == 0 {
        return Ok(());
    }
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default()
        + &std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let port = format!(":{:04X}", address.port());
    let sockets = listening
        .lines()
        .filter(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
        })
        .count();
    if sockets > ours {
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        return Err(StartError::Bind { address, flag: "--listen", source });
    }
    Ok(())
}

/// What SETs have room for, or descriptors, where those are fewer.
fn connections_max(config: &Config, limit: u64) -> u64 {
    let tables = if config.private_tables { u64::from(config.shards) } else { 1 };
    let keys = u64::from(config.sets) * u64::from(config.set_capacity);
    keys.min(tables * descriptors::room(limit, config.shards))
}

/// By which shards say that they serve, and that they turn.
struct Readiness<'a> {
    /// One for each shard.
    beats: &'a [Arc<Tally>],
    serving: mpsc::Sender<()>,
}

#[allow(clippy::too_many_arguments)] // every part of the node meets here, once
fn serve_shards(
    config: &Config,
    limit: u64,
    address: SocketAddr,
    threads: Vec<ShardThread>,
    inboxes: Vec<mpsc::Receiver<Message>>,
    shared: &Arc<Shared>,
    accept: &Arc<AcceptTally>,
    accepting: &watch::Receiver<bool>,
    pulse: Readiness<'_>,
) -> Vec<JoinHandle<()>> {
    let sets_per_shard = config.sets / config.shards;
    let verifier = Arc::new(config.user_verifier.clone());
    let clock = Clock::start();
    let mut inboxes = inboxes.into_iter();
    (0..)
        .zip(threads)
        .map(|(index, thread)| {
            let first_set = index * sets_per_shard;
            let mine = first_set as usize..(first_set + sets_per_shard) as usize;
            thread.serve(Shard {
                first_set,
                inboxes: inboxes.by_ref().take(mine.len()).collect(),
                acceptor: Acceptor {
                    address,
                    sets: shared.sets[mine].iter().map(|set| (set.clone(), 0)).collect(),
                    set_capacity: config.set_capacity.into(),
                    // A shared table runs out for all shards at once; then the spare descriptor
                    // serves.
                    capacity: if config.private_tables { descriptors::room(limit, config.shards) } else { u64::MAX },
                    tally: Arc::clone(accept),
                    accepting: accepting.clone(),
                },
                shared: Arc::clone(shared),
                verifier: Arc::clone(&verifier),
                clock,
                beat: Arc::clone(&pulse.beats[index as usize]),
                serving: pulse.serving.clone(),
            })
        })
        .collect()
}

/// Says in one line whether this host carries the connections asked for, or which of its limits
/// binds first.
fn say_what_binds(config: &Config, port: u16) {
    let shards = Shards::Fixed { count: config.shards, private: config.private_tables };
    let wanted = Wanted { port, shards, ..host::wanted(config.connections) };
    let verdict = Verdict::of(&HostFacts::read(), &wanted);
    let (wanted, host, binds) = (verdict.wanted, verdict.carries, verdict.binds);
    if verdict.fits {
        tracing::info!(
            event = "host_carries",
            wanted,
            host,
            "this host carries the connections wanted; {binds} would bind first"
        );
    } else {
        let mend = verdict.command().unwrap_or_default();
        tracing::warn!(
            event = "host_too_small",
            wanted,
            host,
            mend,
            "{binds} binds: this host carries fewer connections than wanted"
        );
    }
}

fn report_token(config: &Config) -> String {
    Signer::new(&config.secret)
        .sign(&config.name, Audience::Report, unix_seconds(), REPORT_TOKEN_SECONDS)
        .unwrap_or_else(|error| {
            // The monitor refuses an empty token, and that is counted and shown.
            tracing::error!(event = "report_token_failed", %error, "no token to report with");
            String::new()
        })
}

/// Whether the ready file can be written, found out before anything else is created.
fn try_ready_file(path: &Path) -> Result<(), StartError> {
    let unfinished = path.with_extension("tmp");
    // One left by an earlier run would send whoever waits for it to the wrong place.
    let stale = if path.exists() { std::fs::remove_file(path) } else { Ok(()) };
    stale
        .and_then(|()| std::fs::File::create(&unfinished))
        .and_then(|_| std::fs::remove_file(&unfinished))
        .map_err(|source| StartError::ReadyFile { path: path.to_path_buf(), source })
}

fn announce_ready(path: &PathBuf, listen: SocketAddr, admin: SocketAddr) -> Result<(), StartError> {
    let ready = serde_json::json!({ "listen": listen, "admin": admin }).to_string();
    // Renamed into place: whoever waits for the file never reads half of it.
    let unfinished = path.with_extension("tmp");
    std::fs::write(&unfinished, ready)
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|source| StartError::ReadyFile { path: path.clone(), source })
}
