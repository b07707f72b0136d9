//! One machine of the fleet: one process, one thread, its users, one schedule.
//!
//! ```text
//! sender ── a turn is due ──┐                 ┌── bytes, connected ── receiver
//! connector ── connect ─────┼──→  Crowd  ←────┼── every 20 ms ── housekeeping
//! control ── commands ──────┘   (one owner)   └── samples ── reporter
//! ```
//!
//! [`run`] is the whole life of a machine, from its clock to its last journal row; the modules
//! below are its parts, the [`crowd`] being the one that holds and changes all state.

pub mod announcements;
pub mod chat;
pub mod config;
pub mod connector;
pub mod control;
pub mod crowd;
pub mod envelopes;
pub mod housekeeping;
pub mod labels;
pub mod orders;
pub mod outstanding;
pub mod prizes;
pub mod reactions;
pub mod receiver;
pub mod sender;
pub mod shared;
pub mod sockets;
pub mod statements;
pub mod storms;
pub mod tally;
pub mod user;
pub mod view;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hongbao_proto::token::{Audience, Signer, TokenError};
use hongbao_sysctl::cores;
use hongbao_telemetry::journal::Journal;
use hongbao_telemetry::process;
use hongbao_telemetry::program::service::Service;
use hongbao_telemetry::report::{Events, Reporter, names};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::sleep;

use crate::clock::{self, Clock, ClockError, SECOND};
use crate::limits::{ANNOUNCE_SECONDS, CLOSE_DEADLINE, CLOSE_STEP, SCRATCH_BYTES};
use crate::results::{QpsChange, Results};
use config::MachineConfig;
use crowd::{Crowd, QpsError};
use shared::{Shared, Stage};
use sockets::Sockets;

/// Between two looks at what is left to wait for while stopping.
const STOP_PAUSE: Duration = Duration::from_millis(10);

/// How long a machine's token for the monitor is good: longer than any run.
const REPORT_TOKEN_SECONDS: u64 = 30 * 24 * 3600;

/// What ends a machine before its time.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error("runtime: {0}")]
    Runtime(io::Error),
    #[error("core: {0}")]
    Core(io::Error),
    #[error("epoll: {0}")]
    Sockets(io::Error),
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error("control surface {address}: {source}")]
    Http { address: SocketAddr, source: io::Error },
    #[error("journal {path}: {source}")]
    Journal { path: PathBuf, source: io::Error },
    #[error("schedule: {0}")]
    Schedule(#[from] QpsError),
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Lives the life of one machine. `ready` is called with the address of the control surface as soon
/// as it is bound; the machine stops when told so there, or when `stop` completes.
pub fn run(
    config: MachineConfig,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<Results, MachineError> {
    if let Some(core) = config.core {
        cores::pin(core).map_err(MachineError::Core)?;
    }
    let (mut builder, coalesce) = (Builder::new_current_thread(), config.common.coalesce);
    if !coalesce.is_zero() {
        // Before it waits for events: by then there are several, and one wake serves them all.
        builder.on_thread_park(move || std::thread::sleep(coalesce));
    }
    let runtime = builder.enable_all().build_local(LocalOptions::default()).map_err(MachineError::Runtime)?;
    runtime.block_on(live(config, ready, stop))
}

async fn live(
    config: MachineConfig,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<Results, MachineError> {
    let clock = Clock::new(clock::measure(&config.ntp).await?);
    clock.check_budget(config.common.clock_budget)?;
    let journal = Journal::create(config.journal.as_deref()).map_err(|source| journal_error(&config, source))?;
    let http_error = |source| MachineError::Http { address: config.http, source };
    let listener = TcpListener::bind(config.http).await.map_err(http_error)?;
    let control_address = listener.local_addr().map_err(http_error)?;

    let rss_bytes_before_users = process::resident_bytes();
    let (sockets, poll) = Sockets::new().map_err(MachineError::Sockets)?;
    let shared = Rc::new(Shared {
        crowd: RefCell::new(Crowd::new(&config, journal, clock.now())),
        config,
        clock,
        scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
        sockets,
        schedule_changed: Notify::new(),
        all_online: Notify::new(),
        stop_asked: Notify::new(),
        stop_at: Cell::new(0),
        stage: Cell::new(Stage::Connecting),
        rss_bytes_before_users,
        descriptors_before_users: process::open_descriptors(),
        descriptors_limit: process::descriptors_limit(),
        events: Events::default(),
        cumulative: RefCell::default(),
    });

    let (control_ends, control_end) = oneshot::channel();
    let control = tokio::task::spawn_local({
        let (shared, secret) = (Rc::clone(&shared), shared.config.secret.clone());
        async move { control::serve(shared, listener, &secret, control_end).await }
    });
    let reporting = report(&shared, control_address)?;
    ready(control_address);
    let service = Service::from_environment();
    let heartbeat = tokio::task::spawn_local(housekeeping::notify_service(service, Rc::clone(&shared)));

    if let (Some(qps), Some(at)) = (shared.config.qps, shared.config.epoch) {
        control::announce(&shared, QpsChange { qps, at, mix: None, planned: true })?;
    }
    let mut receiving = tokio::task::spawn_local({
        let shared = Rc::clone(&shared);
        async move { receiver::run(&shared, poll).await }
    });
    let workers = [
        tokio::task::spawn_local(connector::run(Rc::clone(&shared))),
        tokio::task::spawn_local(sender::run(Rc::clone(&shared))),
        tokio::task::spawn_local(housekeeping::run(Rc::clone(&shared))),
    ];
    tokio::select! {
        () = stop => shared.ask_to_stop(0),
        error = start_schedule(&shared) => return Err(error),
        ended = &mut receiving => return Err(MachineError::Sockets(receive_error(ended))),
        () = shared.stop_asked.notified() => {}
    }

    heartbeat.abort();
    service.stopping("waiting for the last answers");
    settle(&shared).await;
    close_all(&shared).await;
    shared.crowd.borrow_mut().flush_journal().map_err(|source| journal_error(&shared.config, source))?;
    let results = view::results(&shared);
    receiving.abort();
    workers.iter().for_each(JoinHandle::abort);
    if let Some((leave, reporter)) = reporting {
        drop(leave);
        log_failure("reporter", reporter.await);
    }
    drop(control_ends);
    log_failure("control surface", control.await);
    Ok(results)
}

fn receive_error(ended: Result<io::Result<Infallible>, JoinError>) -> io::Error {
    match ended {
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    }
}

fn journal_error(config: &MachineConfig, source: io::Error) -> MachineError {
    MachineError::Journal { path: config.journal.clone().unwrap_or_default(), source }
}

fn log_failure<T>(what: &str, ended: Result<T, JoinError>) {
    if let Err(error) = ended {
        tracing::error!(event = "task_failed", what, %error, "task failed");
    }
}

/// The task that reports to the monitor, and what to drop for it to take its leave.
type Reporting = Option<(oneshot::Sender<()>, JoinHandle<()>)>;

fn report(shared: &Rc<Shared>, control: SocketAddr) -> Result<Reporting, TokenError> {
    let Some(monitor) = shared.config.common.monitor else { return Ok(None) };
    let signer = Signer::new(&shared.config.secret);
    let now = shared.clock.now() / SECOND;
    let name = shared.config.name.clone();
    let token = signer.sign(&name, Audience::Report, now, REPORT_TOKEN_SECONDS)?;
    let reporter = Reporter {
        control: Some(control),
        events: shared.events.clone(),
        clock_offset_us: shared.clock.offset.nanos / 1_000,
        ..Reporter::new(monitor, token, names::role::MACHINE, name)
    };
    let (leave, left) = oneshot::channel::<()>();
    let shared = Rc::clone(shared);
    let until = async {
        // Dropped by the machine when it is about to end.
        left.await.ok();
    };
    let task = tokio::task::spawn_local(async move {
        reporter.run_until(until, |second| view::sample_of_seconds(&shared, second)).await;
    });
    Ok(Some((leave, task)))
}

/// Where a QPS was given without an epoch, the schedule begins once all users are logged in.
/// Returns on failure only.
async fn start_schedule(shared: &Shared) -> MachineError {
    shared.all_online.notified().await;
    if let (Some(qps), None) = (shared.config.qps, shared.config.epoch) {
        let at = shared.clock.now() / SECOND + ANNOUNCE_SECONDS;
        if let Err(error) = control::announce(shared, QpsChange { qps, at, mix: None, planned: true }) {
            return error.into();
        }
    }
    std::future::pending().await
}

/// Waits until nothing more is to be sent and every answer is in, or is not going to come.
async fn settle(shared: &Shared) {
    shared.stage.set(Stage::Stopping);
    tokio::time::sleep_until(shared.clock.instant(shared.stop_at.get()).into()).await;
    if shared.stop_at.get() == 0 {
        shared.crowd.borrow_mut().halt();
    }
    let deadline = Instant::now() + shared.config.common.answer_timeout;
    loop {
        let open = {
            let crowd = shared.crowd.borrow();
            crowd.next_due().is_some()
                || crowd.outstanding.count > 0
                || crowd.acknowledges_under_way > 0
                || crowd.reactions.under_way() > 0
        };
        if !open || Instant::now() >= deadline {
            return;
        }
        sleep(STOP_PAUSE).await;
    }
}

/// Closes our side of every connection and waits for the server's.
async fn close_all(shared: &Shared) {
    let users = shared.config.user_count();
    shared.crowd.borrow_mut().begin_closing();
    for force in [false, true] {
        for from in (0..users).step_by(CLOSE_STEP as usize) {
            let now = shared.clock.now();
            shared.crowd.borrow_mut().close(from, from.saturating_add(CLOSE_STEP), force, now);
            tokio::task::yield_now().await;
        }
        let deadline = Instant::now() + CLOSE_DEADLINE;
        while shared.crowd.borrow().census.connected > 0 || shared.sockets.opening() > 0 {
            if Instant::now() >= deadline {
                break;
            }
            sleep(STOP_PAUSE).await;
        }
    }
}
