//! One second of the run, merged from the reports of every process.

use std::collections::BTreeMap;
use std::sync::Arc;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::run::books::{Balance, Book, Sides};
use crate::run::column::row;
use crate::run::histogram::Quantiles;
use hongbao_telemetry::report::Key;
use hongbao_telemetry::report::names;

/// What a reporting process is: its name on the wire, in recordings and in JSON.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    strum::AsRefStr,
    strum::Display,
    strum::EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    Server,
    /// One machine of the simulated fleet.
    Machine,
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

    fn gauge(&self, role: Role, key: &Key) -> Option<GaugeSecond> {
        self.roles.get(&role)?.gauges.get(key.name).copied()
    }

    fn quantiles(&self, role: Role, key: &Key) -> Option<Quantiles> {
        self.roles.get(&role)?.histograms.get(key.name).copied().filter(|quantiles| quantiles.count > 0)
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
pub struct Headline prefixed "" of(merged: &MergedSecond) {
    /// Unix time.
    second: u64 => First = merged.second,
    /// See [`MergedSecond::complete`].
    complete: bool => Min = merged.complete,
    /// Processes known to be alive.
    sources_expected: usize => Last = merged.sources_expected,
    sources_reported: usize => Min = merged.sources_reported,
    /// Users with a live connection, by the servers' count, or by the machines' where no server
    /// reports.
    users_online: i64 => Last = of_either(&names::USERS_ONLINE).map_or(0, |gauge| gauge.sum),
    /// Requests that the schedule had due, of every kind; Grabs only, where a machine tells no more.
    planned: i64 => Mean = scheduled(&names::SCHEDULED_DUE, &names::GRABS_PLANNED),
    /// Of these, written to a socket.
    sent: i64 => Mean = scheduled(&names::SCHEDULED_SENT, &names::GRABS_SENT),
    /// Grabs taken in by servers.
    received: i64 => Mean = flow(server, &names::GRABS_RECEIVED),
    /// Of those that are sent, answered.
    answered: i64 => Mean = scheduled(&names::SCHEDULED_ANSWERED, &names::GRABS_ANSWERED),
    /// Prizes handed to SETs.
    issued: i64 => Mean = flow(server, &names::PRIZES_ISSUED),
    /// Wins in the ledgers.
    won: i64 => Mean = flow(server, &names::PRIZES_WON),
    /// Their money, fen.
    paid_fen: i64 => Mean = flow(server, &names::PAID_FEN),
    /// Money that users were told of, fen.
    received_fen: i64 => Mean = flow(machine, &names::RECEIVED_FEN),
    /// Paid less received since the run began, fen.
    residual_fen: i64 => Last = merged.books.residual_fen,
    /// Won less received since the run began.
    residual_prizes: i64 => Last = merged.books.residual_prizes,
    /// Latency of Grabs from their planned time, microseconds.
    latency_p50_us: u64 => Max = latency.p50,
    /// 99th percentile.
    latency_p99_us: u64 => Max = latency.p99,
    /// 99.9th percentile.
    latency_p999_us: u64 => Max = latency.p999,
    latency_max_us: u64 => Max = latency.max,
    /// How far sends were behind the plan, 99th percentile, microseconds.
    send_lag_p99_us: u64 => Max = send_lag.map_or(0, |lag| lag.p99),
    /// Users that the machines simulate.
    users_goal: Option<i64> => Last = sum(machine, &names::USERS),
    /// Connections open at the servers.
    connections: Option<i64> => Last = sum(server, &names::CONNECTIONS),
    /// Requests of every kind that servers took in.
    requests_received: Option<i64> => Mean = added(server, &names::REQUESTS_RECEIVED),
    requests_answered: Option<i64> => Mean = added(server, &names::REQUESTS_ANSWERED),
    /// Requests that servers owe an answer.
    requests_owed: Option<i64> => Last = sum(server, &names::REQUESTS_OWED),
    /// Units of sales that became somebody's for good, in the ledgers.
    units_sold: Option<i64> => Mean = added(server, &names::UNITS_SOLD),
    /// Their prices, fen.
    earned_fen: Option<i64> => Mean = added(server, &names::EARNED_FEN),
    /// Sold less what users were told is theirs, since the run began.
    residual_units: Option<i64> => Last = residual(Book::Sales, Sides::residual_count),
    /// Earned less what users were told they spent, since the run began, fen.
    residual_sale_fen: Option<i64> => Last = residual(Book::Sales, Sides::residual_fen),
    /// Shares of envelopes opened, in the ledgers.
    shares_opened: Option<i64> => Mean = added(server, &names::SHARES_OPENED),
    /// Their money, fen.
    opened_fen: Option<i64> => Mean = added(server, &names::OPENED_FEN),
    /// Opened less what users were told they opened, since the run began.
    residual_shares: Option<i64> => Last = residual(Book::Envelopes, Sides::residual_count),
    /// The same of their money, fen.
    residual_share_fen: Option<i64> => Last = residual(Book::Envelopes, Sides::residual_fen),
    envelopes_sent: Option<i64> => Mean = added(server, &names::ENVELOPES_SENT),
    /// Chat messages written to a connection of whom they were for.
    chat_delivered: Option<i64> => Mean = added(server, &names::CHAT_DELIVERED),
    /// Announcements written, one for each connection.
    announcements_delivered: Option<i64> => Mean = added(server, &names::ANNOUNCEMENTS_DELIVERED),
    /// How far sends were behind the plan, median, microseconds.
    send_lag_p50_us: Option<u64> => Max = send_lag.map(|lag| lag.p50),
    send_lag_max_us: Option<u64> => Max = send_lag.map(|lag| lag.max),
    /// Time of one ledger commit, median, microseconds.
    ledger_commit_p50_us: Option<u64> => Max = commit.map(|commit| commit.p50),
    /// 99th percentile.
    ledger_commit_p99_us: Option<u64> => Max = commit.map(|commit| commit.p99),
    /// The worst bound on a machine's clock error, microseconds.
    clock_error_max_us: Option<i64> => Max = max(machine, &names::CLOCK_ERROR),
    /// Requests answered Overloaded.
    overloaded: Option<i64> => Mean = merged.counter(server, "answers_overloaded"),
    /// Requests answered with a typed error, and peers turned away for lack of a descriptor.
    refused: Option<i64> => Mean = refused.or(turned_away),
    /// Connections that ended at the servers, for whatever reason.
    disconnects: Option<i64> => Mean = merged.family_sum(server, ENDED_PREFIX),
    /// Messages in the deepest SET queue.
    queue_depth_max: Option<i64> => Max = max(server, &names::QUEUE_DEPTH_MAX),
    prizes_in_sets: Option<i64> => Last = sum(server, &names::PRIZES_IN_SETS),
    /// Processor time of the servers, microseconds.
    server_cpu_us: Option<i64> => Mean = added(server, &names::CPU),
    /// Processor time of the machines, microseconds.
    fleet_cpu_us: Option<i64> => Mean = added(machine, &names::CPU),
    server_resident_bytes: Option<i64> => Last = sum(server, &names::RESIDENT_BYTES),
    /// Resident memory of the machines.
    fleet_resident_bytes: Option<i64> => Last = sum(machine, &names::RESIDENT_BYTES),
    /// Descriptors in the fullest table of a server, or of a machine where no server reports.
    open_descriptors: Option<i64> => Max = of_either(&names::OPEN_DESCRIPTORS).map(|gauge| gauge.max),
    /// Descriptors that the smallest of those tables may hold.
    descriptors_limit: Option<i64> => Last = of_either(&names::DESCRIPTORS_LIMIT).map(|gauge| gauge.min),
} where {
    let (server, machine) = (Role::Server, Role::Machine);
    let of_either = |key: &Key| merged.gauge(server, key).or_else(|| merged.gauge(machine, key));
    let sum = |role, key: &Key| merged.gauge(role, key).map(|gauge| gauge.sum);
    let max = |role, key: &Key| merged.gauge(role, key).map(|gauge| gauge.max);
    let added = |role, key: &Key| merged.counter(role, key.name);
    let flow = |role, key| added(role, key).unwrap_or_default();
    // Older machines, and people at `/shake`, tell of their Grabs only.
    let scheduled = |all, grabs| added(machine, all).unwrap_or_else(|| flow(machine, grabs));
    let latency = merged.quantiles(machine, &names::LATENCY).unwrap_or_default();
    let send_lag = merged.quantiles(machine, &names::SEND_LAG);
    let commit = merged.quantiles(server, &names::LEDGER_COMMIT);
    let residual = |book: Book, of: fn(&Sides) -> i64| {
        let (servers, users) = book.counters();
        let kept = added(server, &servers[0]).or_else(|| added(machine, &users[0]));
        kept.map(|_| of(&merged.books.claims.sides(book)))
    };
    let turned_away = added(server, &names::ACCEPTS_WITHOUT_DESCRIPTOR);
    let refused = merged.family_sum(server, ERRORS_PREFIX).map(|errors| errors + turned_away.unwrap_or_default());
}
}

/// What a process last said of itself; absent where it says nothing of the kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Users with a live, logged-in connection.
    pub online: Option<i64>,
    /// Users that a machine simulates.
    pub users: Option<i64>,
    /// A machine's clock against the NTP server's.
    pub clock_offset_us: Option<i64>,
    pub clock_error_us: Option<i64>,
    /// Processor time in the last second that was closed.
    pub cpu_us: Option<i64>,
    pub resident_bytes: Option<i64>,
    /// Descriptors in its fullest table.
    pub open_descriptors: Option<i64>,
    /// What that table may hold.
    pub descriptors_limit: Option<i64>,
}

impl Figures {
    /// Takes a gauge, where it is one of these.
    pub fn gauge(&mut self, name: &str, value: i64) {
        let figure = match name {
            name if name == names::USERS_ONLINE.name => &mut self.online,
            name if name == names::USERS.name => &mut self.users,
            name if name == names::CLOCK_OFFSET.name => &mut self.clock_offset_us,
            name if name == names::CLOCK_ERROR.name => &mut self.clock_error_us,
            name if name == names::RESIDENT_BYTES.name => &mut self.resident_bytes,
            name if name == names::OPEN_DESCRIPTORS.name => &mut self.open_descriptors,
            name if name == names::DESCRIPTORS_LIMIT.name => &mut self.descriptors_limit,
            _ => return,
        };
        *figure = Some(value);
    }
}

/// What the processes of one role reported in a second: in each list one value for each of
/// `sources`, null where that process reported none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    pub sources: Vec<String>,
    /// What the second added.
    pub counters: BTreeMap<String, Vec<Option<i64>>>,
    /// As reported.
    pub gauges: BTreeMap<String, Vec<Option<i64>>>,
}

/// By role.
pub type ReportedByRole = BTreeMap<String, Reported>;

impl Reported {
    pub fn add_counter(&mut self, source: &str, name: String, added: i64) {
        let place = self.place(source);
        put(&mut self.counters, name, place, added);
    }

    pub fn add_gauge(&mut self, source: &str, name: String, value: i64) {
        let place = self.place(source);
        put(&mut self.gauges, name, place, value);
    }

    fn place(&mut self, source: &str) -> usize {
        self.sources.iter().position(|name| name == source).unwrap_or_else(|| {
            self.sources.push(source.to_owned());
            self.sources.len() - 1
        })
    }

    /// What a process said of itself; none where it reported nothing.
    pub fn figures(&self, source: &str) -> Option<Figures> {
        let place = self.sources.iter().position(|name| name == source)?;
        let mut figures = Figures::default();
        for (name, values) in &self.gauges {
            if let Some(&Some(value)) = values.get(place) {
                figures.gauge(name, value);
            }
        }
        figures.cpu_us = self.counters.get(names::CPU.name).and_then(|values| *values.get(place)?);
        Some(figures)
    }
}

fn put(values: &mut BTreeMap<String, Vec<Option<i64>>>, name: String, place: usize, value: i64) {
    let values = values.entry(name).or_default();
    values.resize(values.len().max(place + 1), None);
    values[place] = Some(value);
}

/// A merged second with what goes to disk and is not kept in memory.
#[derive(Debug)]
pub struct ClosedSecond {
    /// The merged second.
    pub merged: Arc<MergedSecond>,
    /// Each process's values.
    pub reported: ReportedByRole,
    /// Whole histograms, merged over the processes of a role.
    pub histograms: BTreeMap<(Role, String), Histogram<u64>>,
}
