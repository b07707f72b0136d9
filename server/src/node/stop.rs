//! The numbered stop: 1 close listeners · 2 stop issuing · 3 tell users when to return · 4 let
//! queues run dry · 5 close the ledger · 6 audit. One deadline holds for the whole, whatever hangs
//! and however large the ledger is: what is not done by then is reported and left undone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hongbao_telemetry::program::service::Service;
use hongbao_telemetry::report::names::event;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::wall;
use crate::generator::Command;
use crate::ledger::audit::{AuditOptions, Unread, audit_with};
use crate::services::envelope_runs::Runs;
use crate::set::message::{Control, Message, ReturnWindow};
use crate::telemetry::{Step, Telemetry};

/// From one look at what is still owed to the next.
const DRY_INTERVAL: Duration = Duration::from_millis(20);

/// How a server's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every queue ran dry in time, and nothing that the audit read is wrong.
    InOrder,
    /// The deadline passed first.
    CutShort,
    /// The books do not balance.
    Unbalanced,
}

/// A server that serves.
pub struct Running {
    /// Where users connect.
    pub listen: SocketAddr,
    /// Where operators do.
    pub admin: SocketAddr,
    pub(super) stop_requested: Arc<Notify>,
    pub(super) accepting: watch::Sender<bool>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) telemetry: Telemetry,
    pub(super) service: Service,
    pub(super) shards: Vec<thread::JoinHandle<()>>,
    pub(super) ledger_thread: thread::JoinHandle<()>,
    /// Tasks that hold a way to the ledger, and end when they are aborted: its thread ends when all
    /// are gone.
    pub(super) services: JoinSet<()>,
    pub(super) watchdog: AbortHandle,
    pub(super) runs: Arc<Runs>,
    /// The operators' surface: it ends in its own time once `closing` is true.
    pub(super) surface: JoinHandle<()>,
    pub(super) closing: watch::Sender<bool>,
    pub(super) reporter: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    pub(super) stop_deadline: Duration,
    pub(super) return_after_ms: u32,
    pub(super) ledger_path: PathBuf,
}

impl Running {
    /// What completes when an operator asks over HTTP for a stop.
    pub fn stop_requested(&self) -> impl Future<Output = ()> + use<> {
        let stop = Arc::clone(&self.stop_requested);
        async move { stop.notified().await }
    }

    /// Begins to stop: no peer is let in any more.
    pub fn stop(self) -> Stopping {
        let deadline = Deadline::begin(self.stop_deadline);
        self.telemetry.ledger.end_by(deadline.closed.into_std());
        let online = self.telemetry.sum(|set| &set.online);
        // It would find parts silent that have ended.
        self.watchdog.abort();
        self.service.stopping(&format!("stopping in order; {online} users are told when to return"));
        let text = format!("the server stops in order; {online} users are on-line");
        self.telemetry.events.push(wall(), event::DRAIN, text);

        begin(&self.telemetry, Step::CloseListeners, Some(online));
        self.accepting.send_replace(false);
        Stopping { node: self, deadline }
    }
}

/// A server on its way out.
pub struct Stopping {
    node: Running,
    deadline: Deadline,
}

impl Stopping {
    /// What still runs when this returns must not be waited for.
    pub async fn finish(self) -> Stopped {
        let Self { mut node, deadline } = self;
        begin(&node.telemetry, Step::StopIssuing, None);
        // An error says that the generator has ended already.
        timeout_at(deadline.dry, node.commands.send(Command::Halt)).await.ok();

        begin(&node.telemetry, Step::NotifyUsers, None);
        let window = ReturnWindow { from_ms: node.return_after_ms, until_ms: node.return_after_ms.saturating_mul(3) };
        node.send_to_sets(deadline.dry, || Control::Farewell(window)).await;

        begin(&node.telemetry, Step::RunDry, None);
        let dry = node.run_dry(deadline.dry).await;
        node.send_to_sets(deadline.audited, || Control::Stop).await;
        let ended = joined(deadline.audited, node.shards.drain(..).collect()).await;

        begin(&node.telemetry, Step::CloseLedger, None);
        node.closing.send_replace(true);
        let now = Instant::now();
        if timeout_at(now + deadline.closed.saturating_duration_since(now) / 2, &mut node.surface).await.is_err() {
            node.surface.abort();
        }
        node.runs.end_all();
        node.services.shutdown().await;
        let Running { telemetry, commands, ledger_thread, ledger_path, reporter, .. } = node;
        drop(commands);
        let closed = joined(deadline.audited, vec![ledger_thread]).await;

        let in_order = dry && ended && closed;
        let balanced = match closed {
            true => {
                begin(&telemetry, Step::Audit, None);
                audited(&ledger_path, &deadline).await
            }
            // It would read what is still being written.
            false => true,
        };
        telemetry.steps.end();
        if let Some((leave, reporter)) = reporter {
            // An error says that it has ended already.
            leave.send(()).ok();
            timeout_at(deadline.whole, reporter).await.ok();
        }
        let took = telemetry.steps.since(Step::CloseListeners);
        if !in_order {
            tracing::warn!(
                event = "stop_cut_short",
                dry,
                ended,
                closed,
                "the stop was cut short by its deadline: {took}"
            );
        } else {
            let ms = u64::try_from(deadline.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(event = "stopped", ms, "stopped in order: {took}");
        }
        match balanced {
            false => Stopped::Unbalanced,
            true if in_order => Stopped::InOrder,
            true => Stopped::CutShort,
        }
    }
}

impl Running {
    /// Hands something to every SET. One that has no room by the deadline is cut off with the
    /// process.
    async fn send_to_sets(&self, deadline: Instant, control: impl Fn() -> Control) {
        for set in &self.telemetry.sets {
            timeout_at(deadline, set.inbox.send(Message::Control(control()))).await.ok();
        }
    }

    /// Whether every connection has ended and every request was answered by the deadline.
    async fn run_dry(&self, deadline: Instant) -> bool {
        loop {
            let left = self.telemetry.sum(|set| &set.connections) + self.telemetry.sum(|set| &set.owed);
            if left == 0 || Instant::now() >= deadline {
                return left == 0;
            }
            sleep(DRY_INTERVAL).await;
        }
    }
}

/// Says so in log and metrics.
fn begin(telemetry: &Telemetry, step: Step, online: Option<u64>) {
    telemetry.steps.begin(step);
    let (number, what) = match step {
        Step::CloseListeners => (1, "closing listeners"),
        Step::StopIssuing => (2, "no more prizes are issued"),
        Step::NotifyUsers => (3, "telling users when to return"),
        Step::RunDry => (4, "letting queues run dry"),
        Step::CloseLedger => (5, "closing the ledger"),
        Step::Audit => (6, "audit of the ledger"),
        Step::Bind | Step::OpenLedger | Step::Serve => return,
    };
    let name = step.label();
    tracing::info!(event = "stop_step", step = number, name, online, "stop {number}/6: {what}");
}

/// Whether all of these threads have ended well by the deadline.
async fn joined(deadline: Instant, threads: Vec<thread::JoinHandle<()>>) -> bool {
    let joined = spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
    matches!(timeout_at(deadline, joined).await, Ok(Ok(true)))
}

/// When which part of a stop must be over: each later one keeps a share, whatever comes before it.
struct Deadline {
    began: Instant,
    /// Users have left, and every request was answered.
    dry: Instant,
    /// The ledger is closed. What it was not told to write by then nobody waits for any more.
    closed: Instant,
    /// The audit has read what it could.
    audited: Instant,
    /// The whole: the monitor has the last report.
    whole: Instant,
}

impl Deadline {
    fn begin(patience: Duration) -> Self {
        let began = Instant::now();
        let after = |percent| began + patience * percent / 100;
        Self { began, dry: after(75), closed: after(85), audited: after(95), whole: after(100) }
    }
}

/// Whether nothing that the audit has read by the deadline is wrong.
async fn audited(ledger: &Path, deadline: &Deadline) -> bool {
    let (path, until) = (ledger.to_path_buf(), Some(deadline.audited.into_std()));
    let auditing = spawn_blocking(move || audit_with(&path, &AuditOptions { until, ..AuditOptions::default() }));
    let Ok(audited) = timeout_at(deadline.whole, auditing).await else {
        tracing::warn!(event = "stop_audit_unfinished", step = 6, "stop 6/6: the disk hangs, and the audit with it");
        return true;
    };
    match audited {
        Ok(Ok(report)) => {
            let balanced = report.is_balanced();
            match &report.unread {
                _ if !balanced => tracing::error!(event = "stop_unbalanced", step = 6, "stop 6/6: audit: {report}"),
                None => tracing::info!(event = "stop_audited", step = 6, "stop 6/6: audit: {report}"),
                Some(Unread { entries, .. }) => {
                    tracing::warn!(event = "stop_audit_unfinished", step = 6, entries, "stop 6/6: audit: {report}");
                }
            }
            balanced
        }
        Ok(Err(error)) => {
            tracing::error!(event = "stop_unaudited", step = 6, %error, "stop 6/6: the ledger cannot be audited");
            false
        }
        // A panic, which has been reported.
        Err(_) => false,
    }
}
