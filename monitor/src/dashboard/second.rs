//! One second of the run, merged from the reports of every process.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize, Serializer};

use super::books::Balance;
use super::histogram::Quantiles;
use crate::report::names::{self, role};

/// What a reporting process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A push server.
    Server,
    /// One machine of the simulated fleet.
    Machine,
}

impl Role {
    /// The role of that name on the wire.
    pub fn from_name(name: &str) -> Option<Self> {
        [Role::Server, Role::Machine].into_iter().find(|role| role.name() == name)
    }

    /// Its name on the wire, in recordings and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Server => role::SERVER,
            Role::Machine => role::MACHINE,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A counter over all processes of a role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CounterSecond {
    /// What this second added. Negative only where a ledger was replaced by an emptier one.
    pub delta: i64,
    /// Since the run began.
    pub total: i64,
}

/// A gauge over all processes of a role that reported this second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GaugeSecond {
    /// Their sum.
    pub sum: i64,
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
}

/// One role's second. Names are those of the reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RoleSecond {
    /// Every counter that the role has reported in this run.
    pub counters: BTreeMap<String, CounterSecond>,
    /// Gauges of this second.
    pub gauges: BTreeMap<String, GaugeSecond>,
    /// Histograms of this second, microseconds.
    pub histograms: BTreeMap<String, Quantiles>,
}

/// One second of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MergedSecond {
    /// Unix time.
    pub second: u64,
    /// Whether every process known to be alive has reported it, and nothing in it belongs to another second.
    pub complete: bool,
    /// Processes known to be alive.
    pub sources_expected: usize,
    /// Processes that reported.
    pub sources_reported: usize,
    /// Some of those that did not, as `role/name`.
    pub missing: Vec<String>,
    /// By role.
    pub roles: BTreeMap<Role, RoleSecond>,
    /// The books at the end of the second.
    pub books: Balance,
}

impl MergedSecond {
    fn delta(&self, role: Role, key: &crate::report::Key) -> i64 {
        self.roles.get(&role).and_then(|role| role.counters.get(key.name)).map_or(0, |counter| counter.delta)
    }

    fn quantiles(&self, key: &crate::report::Key) -> Quantiles {
        let role = self.roles.get(&Role::Machine);
        role.and_then(|role| role.histograms.get(key.name)).copied().unwrap_or_default()
    }

    /// The figures that a person looks at first.
    pub fn headline(&self) -> Headline {
        let online = |role| self.roles.get(&role).and_then(|role| role.gauges.get(names::USERS_ONLINE.name));
        let latency = self.quantiles(&names::LATENCY);
        Headline {
            second: self.second,
            complete: self.complete,
            sources_expected: self.sources_expected,
            sources_reported: self.sources_reported,
            users_online: online(Role::Server).or_else(|| online(Role::Machine)).map_or(0, |gauge| gauge.sum),
            planned: self.delta(Role::Machine, &names::GRABS_PLANNED),
            sent: self.delta(Role::Machine, &names::GRABS_SENT),
            received: self.delta(Role::Server, &names::GRABS_RECEIVED),
            answered: self.delta(Role::Machine, &names::GRABS_ANSWERED),
            issued: self.delta(Role::Server, &names::PRIZES_ISSUED),
            won: self.delta(Role::Server, &names::PRIZES_WON),
            paid_fen: self.delta(Role::Server, &names::PAID_FEN),
            received_fen: self.delta(Role::Machine, &names::RECEIVED_FEN),
            residual_fen: self.books.residual_fen,
            residual_prizes: self.books.residual_prizes,
            latency_p50_us: latency.p50,
            latency_p99_us: latency.p99,
            latency_p999_us: latency.p999,
            latency_max_us: latency.max,
            send_lag_p99_us: self.quantiles(&names::SEND_LAG).p99,
        }
    }
}

/// The columns of `headline.csv`, in order. Flows are what the second added; residuals stand at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headline {
    /// Unix time.
    pub second: u64,
    /// See [`MergedSecond::complete`].
    pub complete: bool,
    /// Processes known to be alive.
    pub sources_expected: usize,
    /// Processes that reported.
    pub sources_reported: usize,
    /// Users with a live connection, by the servers' count, or by the machines' where no server reports.
    pub users_online: i64,
    /// Grabs that the schedule had due.
    pub planned: i64,
    /// Grabs written to a socket.
    pub sent: i64,
    /// Grabs taken in by servers.
    pub received: i64,
    /// Grabs whose answer arrived at a machine.
    pub answered: i64,
    /// Prizes handed to SETs.
    pub issued: i64,
    /// Wins in the ledgers.
    pub won: i64,
    /// Their money, fen.
    pub paid_fen: i64,
    /// Money that users were told of, fen.
    pub received_fen: i64,
    /// Paid less received since the run began, fen.
    pub residual_fen: i64,
    /// Won less received since the run began.
    pub residual_prizes: i64,
    /// Latency of Grabs from their planned time, microseconds.
    pub latency_p50_us: u64,
    /// 99th percentile.
    pub latency_p99_us: u64,
    /// 99.9th percentile.
    pub latency_p999_us: u64,
    /// Largest.
    pub latency_max_us: u64,
    /// How far sends were behind the plan, 99th percentile, microseconds.
    pub send_lag_p99_us: u64,
}

/// One value of one process, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceValue {
    /// `role/name`.
    pub source: String,
    /// Counter: what the second added. Gauge: as reported.
    pub kind: ValueKind,
    /// The reported name.
    pub name: String,
    /// The value.
    pub value: i64,
}

/// What a recorded value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// What a second added to a total.
    Counter,
    /// A value at the second's end.
    Gauge,
}

impl ValueKind {
    /// As recorded.
    pub const fn name(self) -> &'static str {
        match self {
            ValueKind::Counter => "counter",
            ValueKind::Gauge => "gauge",
        }
    }
}

/// A merged second with what goes to disk and is not kept in memory.
#[derive(Debug)]
pub struct ClosedSecond {
    /// The merged second.
    pub merged: MergedSecond,
    /// Each process's values.
    pub values: Vec<SourceValue>,
    /// Whole histograms, merged over the processes of a role.
    pub histograms: BTreeMap<(Role, String), Histogram<u64>>,
}
