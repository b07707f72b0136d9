//! One second of the run, merged from the reports of every process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize, Serializer};

use crate::run::books::{Balance, Book, Sides};
use crate::run::column::row;
use crate::run::histogram::Quantiles;
use hongbao_telemetry::report::Key;
use hongbao_telemetry::report::names::{self, role};

/// What a reporting process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
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
    pub sum: i64,
    pub min: i64,
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
    /// Whether every process known to be alive has reported it, and nothing in it belongs to
    /// another second.
    pub complete: bool,
    /// Processes known to be alive.
    pub sources_expected: usize,
    pub sources_reported: usize,
    /// Some of those that did not, as `role/name`.
    pub missing: Vec<String>,
    pub roles: BTreeMap<Role, RoleSecond>,
    /// The books at the end of the second.
    pub books: Balance,
    /// The figures that a person looks at first: [`Headline::of`] the rest.
    #[serde(skip)]
    pub headline: Headline,
}

impl MergedSecond {
    fn counter(&self, role: Role, name: &str) -> Option<i64> {
        Some(self.roles.get(&role)?.counters.get(name)?.delta)
    }

    fn delta(&self, role: Role, key: &Key) -> i64 {
        self.counter(role, key.name).unwrap_or_default()
    }

    fn gauge(&self, role: Role, name: &str) -> Option<GaugeSecond> {
        self.roles.get(&role)?.gauges.get(name).copied()
    }

    fn quantiles(&self, role: Role, name: &str) -> Option<Quantiles> {
        self.roles.get(&role)?.histograms.get(name).copied().filter(|quantiles| quantiles.count > 0)
    }

    /// Counters of a role whose name begins with `prefix`, and what the second added to each; those
    /// it added nothing to as well.
    pub fn family<'a>(&'a self, role: Role, prefix: &'a str) -> impl Iterator<Item = (&'a str, i64)> {
        let counters = self.roles.get(&role).map(|role| &role.counters);
        let from = counters.into_iter().flat_map(move |counters| counters.range(prefix.to_owned()..));
        from.map_while(move |(name, counter)| Some((name.strip_prefix(prefix)?, counter.delta)))
    }

    fn family_sum(&self, role: Role, prefix: &str) -> Option<i64> {
        self.family(role, prefix).map(|(_, delta)| delta).reduce(|sum, delta| sum + delta)
    }
}

/// Counters of servers: connections that ended, by reason.
pub const ENDED_PREFIX: &str = "connections_ended_";
/// Counters of servers: answers, by kind.
pub const ANSWERS_PREFIX: &str = "answers_";
/// Counters of servers: typed errors, by code.
pub const ERRORS_PREFIX: &str = "errors_";
/// Counters of machines: what no server may do, by kind.
pub const VIOLATIONS_PREFIX: &str = "violations_";

row! {
/// The columns of `seconds`, in order. Flows are what the second added; residuals and gauges
/// stand at its end. What no process reports is absent, and so are the later columns in a recording
/// from before they were there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headline prefixed "" {
    /// Unix time.
    second: u64 => First,
    /// See [`MergedSecond::complete`].
    complete: bool => Min,
    /// Processes known to be alive.
    sources_expected: usize => Last,
    sources_reported: usize => Min,
    /// Users with a live connection, by the servers' count, or by the machines' where no server
    /// reports.
    users_online: i64 => Last,
    /// Requests that the schedule had due, of every kind; Grabs only, where a machine tells no more.
    planned: i64 => Mean,
    /// Of these, written to a socket.
    sent: i64 => Mean,
    /// Grabs taken in by servers.
    received: i64 => Mean,
    /// Of these, those whose answer arrived at a machine.
    answered: i64 => Mean,
    /// Prizes handed to SETs.
    issued: i64 => Mean,
    /// Wins in the ledgers.
    won: i64 => Mean,
    /// Their money, fen.
    paid_fen: i64 => Mean,
    /// Money that users were told of, fen.
    received_fen: i64 => Mean,
    /// Paid less received since the run began, fen.
    residual_fen: i64 => Last,
    /// Won less received since the run began.
    residual_prizes: i64 => Last,
    /// Latency of Grabs from their planned time, microseconds.
    latency_p50_us: u64 => Max,
    /// 99th percentile.
    latency_p99_us: u64 => Max,
    /// 99.9th percentile.
    latency_p999_us: u64 => Max,
    latency_max_us: u64 => Max,
    /// How far sends were behind the plan, 99th percentile, microseconds.
    send_lag_p99_us: u64 => Max,
    /// Users that the machines simulate.
    users_goal: Option<i64> => Last,
    /// Connections open at the servers.
    connections: Option<i64> => Last,
    /// Requests of every kind that servers took in.
    requests_received: Option<i64> => Mean,
    requests_answered: Option<i64> => Mean,
    /// Requests that servers owe an answer.
    requests_owed: Option<i64> => Last,
    /// Units of sales that became somebody's for good, in the ledgers.
    units_sold: Option<i64> => Mean,
    /// Their prices, fen.
    earned_fen: Option<i64> => Mean,
    /// Sold less what users were told is theirs, since the run began.
    residual_units: Option<i64> => Last,
    /// Earned less what users were told they spent, since the run began, fen.
    residual_sale_fen: Option<i64> => Last,
    /// Shares of envelopes opened, in the ledgers.
    shares_opened: Option<i64> => Mean,
    /// Their money, fen.
    opened_fen: Option<i64> => Mean,
    /// Opened less what users were told they opened, since the run began.
    residual_shares: Option<i64> => Last,
    /// The same of their money, fen.
    residual_share_fen: Option<i64> => Last,
    envelopes_sent: Option<i64> => Mean,
    /// Chat messages written to a connection of whom they were for.
    chat_delivered: Option<i64> => Mean,
    /// Announcements written, one for each connection.
    announcements_delivered: Option<i64> => Mean,
    /// How far sends were behind the plan, median, microseconds.
    send_lag_p50_us: Option<u64> => Max,
    send_lag_max_us: Option<u64> => Max,
    /// Time of one ledger commit, median, microseconds.
    ledger_commit_p50_us: Option<u64> => Max,
    /// 99th percentile.
    ledger_commit_p99_us: Option<u64> => Max,
    /// The worst bound on a machine's clock error, microseconds.
    clock_error_max_us: Option<i64> => Max,
    /// Requests answered Overloaded.
    overloaded: Option<i64> => Mean,
    /// Requests answered with a typed error, and peers turned away for lack of a descriptor.
    refused: Option<i64> => Mean,
    /// Connections that ended at the servers, for whatever reason.
    disconnects: Option<i64> => Mean,
    /// Messages in the deepest SET queue.
    queue_depth_max: Option<i64> => Max,
    prizes_in_sets: Option<i64> => Last,
    /// Processor time of the servers, microseconds.
    server_cpu_us: Option<i64> => Mean,
    /// Processor time of the machines, microseconds.
    fleet_cpu_us: Option<i64> => Mean,
    server_resident_bytes: Option<i64> => Last,
    /// Resident memory of the machines.
    fleet_resident_bytes: Option<i64> => Last,
    /// Descriptors in the fullest table of a server, or of a machine where no server reports.
    open_descriptors: Option<i64> => Max,
    /// Descriptors that the smallest of those tables may hold.
    descriptors_limit: Option<i64> => Last,
}
}

impl Headline {
    /// Of a merged second.
    pub fn of(merged: &MergedSecond) -> Self {
        let (server, machine) = (Role::Server, Role::Machine);
        let of_either = |key: &Key| merged.gauge(server, key.name).or_else(|| merged.gauge(machine, key.name));
        let sum = |role, name| merged.gauge(role, name).map(|gauge| gauge.sum);
        // Older machines, and people at `/shake`, tell of their Grabs only.
        let scheduled =
            |all: &Key, grabs: &Key| merged.counter(machine, all.name).unwrap_or_else(|| merged.delta(machine, grabs));
        let latency = merged.quantiles(machine, names::LATENCY.name).unwrap_or_default();
        let send_lag = merged.quantiles(machine, names::SEND_LAG.name);
        let commit = merged.quantiles(server, names::LEDGER_COMMIT.name);
        let residual = |book: Book, of: fn(&Sides) -> i64| {
            let (servers, users) = book.counters();
            let kept = merged.counter(server, servers[0].name).or_else(|| merged.counter(machine, users[0].name));
            kept.map(|_| of(&merged.books.claims.sides(book)))
        };
        let turned_away = merged.counter(server, names::ACCEPTS_WITHOUT_DESCRIPTOR.name);
        Self {
            second: merged.second,
            complete: merged.complete,
            sources_expected: merged.sources_expected,
            sources_reported: merged.sources_reported,
            users_online: of_either(&names::USERS_ONLINE).map_or(0, |gauge| gauge.sum),
            planned: scheduled(&names::SCHEDULED_DUE, &names::GRABS_PLANNED),
            sent: scheduled(&names::SCHEDULED_SENT, &names::GRABS_SENT),
            received: merged.delta(server, &names::GRABS_RECEIVED),
            answered: scheduled(&names::SCHEDULED_ANSWERED, &names::GRABS_ANSWERED),
            issued: merged.delta(server, &names::PRIZES_ISSUED),
            won: merged.delta(server, &names::PRIZES_WON),
            paid_fen: merged.delta(server, &names::PAID_FEN),
            received_fen: merged.delta(machine, &names::RECEIVED_FEN),
            residual_fen: merged.books.residual_fen,
            residual_prizes: merged.books.residual_prizes,
            latency_p50_us: latency.p50,
            latency_p99_us: latency.p99,
            latency_p999_us: latency.p999,
            latency_max_us: latency.max,
            send_lag_p99_us: send_lag.map_or(0, |lag| lag.p99),
            users_goal: sum(machine, names::USERS.name),
            connections: sum(server, names::CONNECTIONS.name),
            requests_received: merged.counter(server, names::REQUESTS_RECEIVED.name),
            requests_answered: merged.counter(server, names::REQUESTS_ANSWERED.name),
            requests_owed: sum(server, names::REQUESTS_OWED.name),
            units_sold: merged.counter(server, names::UNITS_SOLD.name),
            earned_fen: merged.counter(server, names::EARNED_FEN.name),
            residual_units: residual(Book::Sales, Sides::residual_count),
            residual_sale_fen: residual(Book::Sales, Sides::residual_fen),
            shares_opened: merged.counter(server, names::SHARES_OPENED.name),
            opened_fen: merged.counter(server, names::OPENED_FEN.name),
            residual_shares: residual(Book::Envelopes, Sides::residual_count),
            residual_share_fen: residual(Book::Envelopes, Sides::residual_fen),
            envelopes_sent: merged.counter(server, names::ENVELOPES_SENT.name),
            chat_delivered: merged.counter(server, names::CHAT_DELIVERED.name),
            announcements_delivered: merged.counter(server, names::ANNOUNCEMENTS_DELIVERED.name),
            send_lag_p50_us: send_lag.map(|lag| lag.p50),
            send_lag_max_us: send_lag.map(|lag| lag.max),
            ledger_commit_p50_us: commit.map(|commit| commit.p50),
            ledger_commit_p99_us: commit.map(|commit| commit.p99),
            clock_error_max_us: merged.gauge(machine, names::CLOCK_ERROR.name).map(|gauge| gauge.max),
            overloaded: merged.counter(server, "answers_overloaded"),
            refused: merged
                .family_sum(server, ERRORS_PREFIX)
                .map(|errors| errors + turned_away.unwrap_or_default())
                .or(turned_away),
            disconnects: merged.family_sum(server, ENDED_PREFIX),
            queue_depth_max: merged.gauge(server, names::QUEUE_DEPTH_MAX.name).map(|gauge| gauge.max),
            prizes_in_sets: sum(server, names::PRIZES_IN_SETS.name),
            server_cpu_us: merged.counter(server, names::CPU.name),
            fleet_cpu_us: merged.counter(machine, names::CPU.name),
            server_resident_bytes: sum(server, names::RESIDENT_BYTES.name),
            fleet_resident_bytes: sum(machine, names::RESIDENT_BYTES.name),
            open_descriptors: of_either(&names::OPEN_DESCRIPTORS).map(|gauge| gauge.max),
            descriptors_limit: of_either(&names::DESCRIPTORS_LIMIT).map(|gauge| gauge.min),
        }
    }
}

/// One value of one process, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceValue {
    /// `role/name`.
    pub source: String,
    /// Counter: what the second added. Gauge: as reported.
    pub kind: ValueKind,
    pub name: String,
    pub value: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// What a second added to a total.
    Counter,
    /// A value at the second's end.
    Gauge,
}

impl ValueKind {
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
    pub merged: Arc<MergedSecond>,
    /// Each process's values.
    pub values: Vec<SourceValue>,
    /// Whole histograms, merged over the processes of a role.
    pub histograms: BTreeMap<(Role, String), Histogram<u64>>,
}
