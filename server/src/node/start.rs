//! The start, step by step: addresses, ledger, everything else; and last of all listeners.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hongbao_proto::Serial;
use hongbao_proto::token::{Audience, Signer, Verifier};
use hongbao_sysctl::cores;
use hongbao_sysctl::{HostFacts, Verdict, Wanted};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::disk;
use hongbao_telemetry::http;
use hongbao_telemetry::program::exit;
use hongbao_telemetry::program::service::Service;
use hongbao_telemetry::report::names::role;
use hongbao_telemetry::report::{Events, Reporter};
use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::{self, Admin};
use crate::admission::{Gate, LoginQueue, Rate};
use crate::clock::{Clock, wall};
use crate::config::Config;
use crate::generator::{Generator, unfinished};
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{LedgerError, writer};
use crate::limits;
use crate::market::campaign::Campaign;
use crate::node::stop::Running;
use crate::services::envelope_runs::Runs;
use crate::services::rooms::room_shard::{Bounds, RoomsBoard};
use crate::services::rooms::service::{Service as RoomService, random_epochs};
use crate::services::{expiry, offers};
use crate::set::directory::Directory;
use crate::set::message::{Message, StockReport};
use crate::set::payments::Wallets;
use crate::set::room_requests::RoomShards;
use crate::set::tally::Tally;
use crate::set::{SetHandle, Shared};
use crate::shard::acceptor::Acceptor;
use crate::shard::{Shard, ShardThread, ThreadOptions};
use crate::telemetry::{Step, Steps, Telemetry};
use crate::tools::check;
use crate::transport::descriptors::{self, TABLES};
use crate::watchdog::Watchdog;

/// Operators that may wait to be let in.
const ADMIN_BACKLOG: u32 = 1_024;

/// Whoever watches the log learns after so long why nobody is let in.
const OPENING_REPORTED_AFTER: Duration = Duration::from_secs(1);

/// Lifetime of the token with which this process reports, seconds: longer than any run.
const REPORT_TOKEN_SECONDS: u64 = 10 * 365 * 86_400;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The ledger cannot be used.
    #[error("--ledger {path}: {source}")]
    Ledger { path: PathBuf, source: LedgerError },
    /// An address cannot be bound.
    #[error("cannot listen on {address} ({flag}): {source}; {}", exit::bind_remedy(.source))]
    Bind { address: SocketAddr, flag: &'static str, source: io::Error },
    /// A file that announces the addresses.
    #[error("cannot write --ready-file {path}: {source}")]
    ReadyFile { path: PathBuf, source: io::Error },
    /// A thread or a runtime.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl StartError {
    /// The code of the process: whether a retry may help.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Ledger { source: LedgerError::InUse { .. }, .. } => exit::TRY_AGAIN,
            StartError::Ledger { path, source: LedgerError::Unavailable(_) } if is_full_below(path) => exit::TRY_AGAIN,
            StartError::Ledger { .. } => exit::USAGE,
            StartError::Bind { source, .. } | StartError::ReadyFile { source, .. } | StartError::Thread(source) => {
                exit::code_of(source)
            }
        }
    }
}

/// A server with its addresses, at which nobody is let in yet.
pub struct Bound {
    config: Config,
    /// Descriptors that one table may hold.
    limit: u64,
    threads: Vec<ShardThread>,
    listen: SocketAddr,
    admin: TcpSocket,
    steps: Steps,
}

impl Bound {
    /// Takes the addresses, and finds out whether the ready file can be written.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let steps = Steps::default();
        steps.begin(Step::Bind);
        refuse_shared_port(config.listen)?;
        let limit = descriptors::raise_limit();
        let own = ThreadOptions { tables: config.private_tables, cores: config.pin_shards, coalesce: config.coalesce };
        let threads = ShardThread::start_all(config.shards, own).map_err(StartError::Thread)?;
        let mut listen = config.listen;
        for thread in &threads {
            listen = thread.bind(listen).map_err(bind_error(listen, "--listen"))?;
        }
        let admin = bind_admin(config.admin).map_err(bind_error(config.admin, "--admin"))?;
        if let Some(path) = &config.ready_file {
            try_ready_file(path)?;
        }
        Ok(Self { config, limit, threads, listen, admin, steps })
    }

    /// Where users will be let in.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where operators will.
    pub fn admin(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Opens the ledger, which is created only now: nothing else is refused any more. It may take
    /// long.
    pub async fn open(self) -> Result<Opened, StartError> {
        self.steps.begin(Step::OpenLedger);
        let path = self.config.ledger.clone();
        let mut opening = tokio::task::spawn_blocking(move || {
            let mut ledger = SqliteLedger::open(path)?;
            let campaigns = unfinished(&mut ledger)?;
            Ok((ledger, campaigns))
        });
        let opened = match timeout(OPENING_REPORTED_AFTER, &mut opening).await {
            Ok(opened) => opened,
            Err(_) => {
                let step = Step::OpenLedger.label();
                tracing::info!(event = "start_step", step, "the ledger is being opened; nobody is let in yet");
                opening.await
            }
        };
        let ledger_error = |source| StartError::Ledger { path: self.config.ledger.clone(), source };
        let (ledger, campaigns) =
            opened.map_err(|error| StartError::Thread(io::Error::other(error)))?.map_err(ledger_error)?;
        self.steps.begin(Step::Serve);
        tracing::info!(event = "start_step", step = Step::Serve.label(), "so far: {}", self.steps.since(Step::Bind));
        Ok(Opened { bound: self, ledger, campaigns })
    }
}

/// A server with its ledger.
pub struct Opened {
    bound: Bound,
    ledger: SqliteLedger,
    campaigns: Vec<(Campaign, Vec<Serial>)>,
}

impl Opened {
    /// Starts everything, and lets users and operators in. Tasks of the main thread are spawned on
    /// the caller's runtime.
    pub async fn serve(self) -> Result<Running, StartError> {
        let Self { bound: Bound { config, limit, threads, listen, admin, steps }, ledger, campaigns } = self;
        let now = wall();
        report_host(&config, listen.port());
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
            end_at_expiry: config.end_at_expiry,
            barred: Default::default(),
        });
        let events = Events::default();
        let mut generator = Generator::recover(sets.clone(), ledger.clone(), campaigns, config.notify_campaigns, now);
        generator.events = events.clone();
        let mut services = JoinSet::new();
        let rooms = Arc::<RoomsBoard>::default();
        for queue in room_queues {
            let shard = RoomService::new(Arc::clone(&shared), Arc::clone(&rooms), Bounds::default(), random_epochs());
            services.spawn(shard.run(queue));
        }
        let beats: Vec<Arc<Tally>> = threads.iter().map(|_| Arc::default()).collect();
        let mut telemetry = Telemetry {
            sets,
            accept: Arc::default(),
            ledger: ledger_status,
            stock: Arc::clone(&generator.board),
            broadcasts: Arc::default(),
            rooms,
            events: events.clone(),
            steps: Arc::new(steps),
            descriptors_limit: limit,
            sets_per_table: config
                .private_tables
                .then(|| NonZeroUsize::new((config.sets / config.shards) as usize))
                .flatten(),
            ledger_path: config.ledger.as_path().into(),
            connections_max: connections_max(&config, limit),
            reporter: None,
        };
        services.spawn(generator.run(command_queue, stock_reports, wall));
        services.spawn(offers::run(Arc::clone(&shared), offering_queue));
        services.spawn(expiry::run(Arc::clone(&shared), wall));
        let (accepting, accepting_watch) = watch::channel(true);
        let (closing, closing_watch) = watch::channel(false);
        refuse_other_listeners(listen, 0)?;
        let threads = threads.into_iter().zip(beats.iter().cloned()).collect();
        let shards = serve_shards(&config, listen, &accepting_watch, threads, inboxes, &shared, &telemetry).await?;
        refuse_other_listeners(listen, shards.len())?;
        let admin_listener = admin.listen(ADMIN_BACKLOG).map_err(bind_error(config.admin, "--admin"))?;
        let admin = admin_listener.local_addr().map_err(bind_error(config.admin, "--admin"))?;

        let reporter = spawn_reporter(&config, &mut telemetry, listen, admin);
        let stop_requested = Arc::new(Notify::new());
        let runs = Arc::new(Runs::reporting_to(events));
        let state = Admin {
            shared,
            generator: commands.clone(),
            fair_window_ms: config.fair_window_ms,
            runs: Arc::clone(&runs),
            telemetry: telemetry.clone(),
            stop: Arc::clone(&stop_requested),
            closing: closing_watch.clone(),
            accepting: accepting_watch,
        };
        let router = admin::router(state, Arc::new(Verifier::hs256(&config.secret, Audience::Admin)));
        let service = Service::from_environment();
        let watchdog = services.spawn(Watchdog::new(service, beats, ledger, telemetry.clone()).run());
        let surface = tokio::spawn(async move {
            if let Err(error) = http::serve(http::CONNECTIONS_MAX, admin_listener, router, closed(closing_watch)).await
            {
                tracing::error!(event = "admin_ended", %error, "the admin surface has ended");
            }
        });
        if let Some(path) = &config.ready_file {
            announce_ready(path, listen, admin)?;
        }
        telemetry.steps.end();
        tracing::info!(event = "serving", %listen, %admin, shards = config.shards, sets = config.sets, "serving");
        Ok(Running {
            listen,
            admin,
            stop_requested,
            accepting,
            commands,
            telemetry,
            service,
            shards,
            ledger_thread,
            services,
            watchdog,
            runs,
            surface,
            closing,
            reporter,
            stop_deadline: config.stop_deadline,
            return_after_ms: config.return_after_ms,
            ledger_path: config.ledger,
        })
    }
}

/// Whether the disk has no room for a new ledger.
fn is_full_below(path: &Path) -> bool {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk::free_bytes(directory).is_some_and(|free| free < limits::LEDGER_FREE_BYTES_MIN)
}

fn bind_error(address: SocketAddr, flag: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Bind { address, flag, source }
}

fn bind_admin(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(false)?;
    }
    socket.bind(address)?;
    Ok(socket)
}

/// Completes when the node closes, or is gone.
async fn closed(mut closing: watch::Receiver<bool>) {
    closing.wait_for(|closing| *closing).await.ok();
}

/// SO_REUSEPORT lets a second server of the same user share our port silently: a socket without it
/// finds out whether anybody listens on an address that overlaps ours, as the kernel sees it.
fn refuse_shared_port(address: SocketAddr) -> Result<(), StartError> {
    if address.port() == 0 {
        return Ok(());
    }
    bind_admin(address).map(drop).map_err(bind_error(address, "--listen"))
}

/// The same, once we listen: another server may have come meanwhile, which did not listen either
/// when we looked. Listeners stand first in the kernel's table, so that its length does not matter.
fn refuse_other_listeners(address: SocketAddr, ours: usize) -> Result<(), StartError> {
    let (path, local) = match address {
        SocketAddr::V4(v4) => ("/proc/net/tcp", format!("{:08X}", u32::from_ne_bytes(v4.ip().octets()))),
        SocketAddr::V6(v6) => {
            let octets = v6.ip().octets();
            let words = octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            ("/proc/net/tcp6", words.map(|word| format!("{word:08X}")).collect())
        }
    };
    let local = format!("{local}:{:04X}", address.port());
    let table = File::open(path).map_err(bind_error(address, "--listen"))?;
    let fields = |line: String| {
        let mut fields = line.split_ascii_whitespace().skip(1).map(str::to_owned);
        Some((fields.next()?, fields.nth(1)?))
    };
    let listeners = BufReader::new(table).lines().skip(1).map_while(|line| fields(line.ok()?));
    let there = listeners.take_while(|(_, state)| state == "0A").filter(|(bound, _)| *bound == local).count();
    if there > ours {
        return Err(bind_error(address, "--listen")(io::ErrorKind::AddrInUse.into()));
    }
    Ok(())
}

/// What SETs have room for, or descriptors, where those are fewer.
fn connections_max(config: &Config, limit: u64) -> u64 {
    let tables = if config.private_tables { u64::from(config.shards) } else { 1 };
    let room = u64::from(config.sets) * u64::from(config.set_capacity);
    room.min(tables * TABLES.room(limit, config.shards))
}

/// Completes once each shard listens, one after the other: the kernel gives a peer to the next
/// listener of its core in the order in which they began, so pinned shards must take turns by core.
/// With each thread comes what it beats.
async fn serve_shards(
    config: &Config,
    listen: SocketAddr,
    accepting: &watch::Receiver<bool>,
    threads: Vec<(ShardThread, Arc<Tally>)>,
    inboxes: Vec<mpsc::Receiver<Message>>,
    shared: &Arc<Shared>,
    telemetry: &Telemetry,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let sets_per_shard = config.sets / config.shards;
    let verifier = Arc::new(config.user_verifier.clone());
    let clock = Clock::start();
    // A shared table runs out for all shards at once; then the spare descriptor serves.
    let capacity = match config.private_tables {
        true => TABLES.room(telemetry.descriptors_limit, config.shards),
        false => u64::MAX,
    };
    let (serving, mut served) = mpsc::channel(1);
    let mut inboxes = inboxes.into_iter();
    let mut handles = Vec::new();
    for (index, (thread, beat)) in (0..).zip(threads) {
        let first_set = index * sets_per_shard;
        let mine = first_set as usize..(first_set + sets_per_shard) as usize;
        handles.push(thread.serve(Shard {
            first_set,
            inboxes: inboxes.by_ref().take(mine.len()).collect(),
            acceptor: Acceptor {
                address: listen,
                sets: shared.sets[mine].iter().map(|set| (set.clone(), 0)).collect(),
                set_capacity: config.set_capacity.into(),
                capacity,
                tally: Arc::clone(&telemetry.accept),
                accepting: accepting.clone(),
            },
            shared: Arc::clone(shared),
            verifier: Arc::clone(&verifier),
            clock,
            beat,
            serving: serving.clone(),
        }));
        let listening = served.recv().await;
        let listening = listening.ok_or_else(|| StartError::Thread(io::Error::other("a shard has ended")))?;
        listening.map_err(bind_error(listen, "--listen"))?;
    }
    Ok(handles)
}

/// Logs in one line whether this host carries the connections asked for, or which of its limits
/// binds first.
fn report_host(config: &Config, port: u16) {
    let shards = hongbao_sysctl::Shards::Fixed { count: config.shards, private: config.private_tables };
    let wanted = Wanted { port, shards, ..check::wanted(config.connections) };
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

/// Begins to report to the monitor, if there is one. Returns the way to end that, and its task.
fn spawn_reporter(
    config: &Config,
    telemetry: &mut Telemetry,
    listen: SocketAddr,
    admin: SocketAddr,
) -> Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)> {
    let reporter = Reporter {
        control: Some(admin),
        listen: Some(listen),
        events: telemetry.events.clone(),
        ..Reporter::new(config.monitor?, report_token(config), role::SERVER, &config.name)
    };
    telemetry.reporter = Some(Arc::clone(&reporter.stats));
    let telemetry = telemetry.clone();
    let (leave, left) = oneshot::channel();
    let left = async { drop(left.await) };
    Some((leave, tokio::spawn(reporter.run_until(left, move |_| telemetry.sample_second()))))
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
