//! What the tasks of one machine, all on one thread, have in common.

use std::cell::{Cell, RefCell};
use std::io;

use hongbao_telemetry::metrics::CumulativeHistograms;
use hongbao_telemetry::report::Events;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::machine::config::MachineConfig;
use crate::machine::crowd::Crowd;
use crate::machine::sockets::Sockets;
use hongbao_telemetry::labels;

labels! {
    /// How far the machine has come.
    pub enum Stage {
        /// Not every user has been logged in yet.
        Connecting = "connecting",
        /// Every user was logged in at some moment.
        Running = "running",
        /// Asked to stop.
        Stopping = "stopping",
    }
}

/// Shared by an `Rc`; no borrow is held across an await.
#[derive(Debug)]
pub struct Shared {
    pub config: MachineConfig,
    pub clock: Clock,
    pub crowd: RefCell<Crowd>,
    /// What every connection reads into.
    pub scratch: RefCell<Box<[u8]>>,
    /// Where the users' sockets are watched.
    pub sockets: Sockets,
    /// Wakes the sender: the schedule is another.
    pub schedule_changed: Notify,
    /// Told once: every user is logged in.
    pub all_online: Notify,
    /// Wakes the machine: it is to stop.
    pub stop_asked: Notify,
    /// Unix nanosecond from which on nothing is sent, once asked to stop.
    pub stop_at: Cell<u64>,
    pub stage: Cell<Stage>,
    /// Resident bytes before the crowd was made.
    pub rss_bytes_before_users: u64,
    /// Descriptors open before the crowd connected.
    pub descriptors_before_users: u64,
    /// What this machine's descriptor table may hold.
    pub descriptors_limit: u64,
    /// What happens, on its way to the monitor's timeline.
    pub events: Events,
    /// Histograms since the start, for `/metrics`.
    pub cumulative: RefCell<CumulativeHistograms>,
}

impl Shared {
    /// The one place where a connection that could not be opened is counted and said.
    pub fn connect_failed(&self, user: u32, error: &io::Error) {
        let mut crowd = self.crowd.borrow_mut();
        crowd.connect_failed(user, self.clock.now());
        let failures = crowd.tally.counters.totals.connect_failures;
        let source = self.config.sources.of(user);
        tracing::warn!(event = "connect_failed", server = %self.config.common.server, ?source, %error, failures, "cannot connect");
    }

    /// Asks the machine to stop once `at` (Unix nanoseconds) has passed.
    pub fn ask_to_stop(&self, at: u64) {
        self.stop_at.set(at);
        self.stage.set(Stage::Stopping);
        self.stop_asked.notify_one();
    }
}
