//! What a machine tells over its control surface: the shapes that machine and fleet share, in JSON.

use std::collections::BTreeMap;

use hongbao_telemetry::summary::Clock;
use serde::{Deserialize, Serialize};

use crate::histogram::Micros;
use crate::schedule::mix::Mix;
use crate::storm::Fraction;
use crate::sum::Sum;

/// Counts by label; labels without a count are left out.
pub type Counts = BTreeMap<String, u64>;

/// The first line that a machine prints: where its control surface is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// `address:port`.
    pub http: String,
}

/// Body of `POST /v1/qps`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QpsChange {
    /// Requests a second over the whole fleet; 0 pauses.
    pub qps: u32,
    /// Unix second from which it holds.
    pub at: u64,
    /// What the requests are; absent: what the machine was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix: Option<Mix>,
    /// Whether it is a phase of the fleet's plan, rather than somebody's wish meanwhile; the
    /// timeline says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub planned: bool,
}

/// Body of `POST /v1/sale`: where ticket turns grab from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaleOrder {
    pub campaign: u32,
    /// Units that one user may hold, where there is a limit.
    pub limit: Option<u32>,
}

/// Body of `POST /v1/statements`: users who are to read their statements now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementsOrder {
    /// How many of the machine's users, at most; they are spread evenly over all.
    pub users: u32,
}

/// Body of `POST /v1/storm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StormOrder {
    /// The part of all users that is hit, in parts per million.
    pub share: Fraction,
    /// Unix second in which it begins.
    pub at: u64,
    /// For so long the requests of users who are not hit are looked at, seconds.
    pub watch_seconds: u32,
}

/// Body of `POST /v1/stop`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopAt {
    /// Unix second after which nothing more is sent; absent: at once.
    pub at: Option<u64>,
}

macro_rules! sums {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl Sum for $name {
            fn add(&mut self, other: &Self) {
                $(self.$field.add(&other.$field);)*
            }
        }
    };
}

sums! {
    /// Everything counted since the machine started.
    Totals {
        /// Requests that were due.
        planned: u64,
        /// Requests written, each counted once.
        sent: u64,
        /// Requests whose answer came, in time or late.
        answered: u64,
        /// Of these, after the answer timeout.
        answered_late: u64,
        /// Requests given up at the answer timeout and not answered since.
        unanswered: u64,
        /// Requests written again after a reconnect, with the same request id.
        resent: u64,
        /// Requests that were due while their user had no connection, or whose socket refused them at
        /// first.
        held_back: u64,
        outcomes: Counts,
        /// Error answers by code.
        errors: Counts,
        /// What no server may do, by kind.
        violations: Counts,
        /// Distinct prizes that users were told of.
        prizes: u64,
        fen: u64,
        /// Logins after the first of each user.
        reconnects: u64,
        /// Connections that could not be opened.
        connect_failures: u64,
        /// Ends of connections by reason.
        ends: Counts,
        acknowledges: u64,
        /// Announcements that users were told.
        announcements: u64,
        /// Turns that were to open an envelope or grab from the sale, and shook instead for lack of
        /// one.
        stand_ins: u64,
        /// What users sent outside of the schedule, by kind.
        reactions: Counts,
        /// Of these, given up at the answer timeout and not answered since.
        reactions_unanswered: u64,
        envelopes: EnvelopeTotals,
        orders: OrderTotals,
        chat: ChatTotals,
        /// Statements that were read to their end and found right.
        statements: u64,
    }
}

sums! {
    /// Group envelopes, as users were told of them.
    #[derive(Copy)]
    EnvelopeTotals {
        /// Offers: one for each user and envelope.
        offered: u64,
        /// Of these, not remembered, because their user had too many.
        forgotten: u64,
        /// Shares that users were told of.
        opened: u64,
        opened_fen: u64,
        /// Answers that an envelope was empty.
        empty: u64,
        /// Answers that an envelope had expired.
        expired: u64,
    }
}

sums! {
    /// Orders, as users were told of them.
    #[derive(Copy)]
    OrderTotals {
        reserved: u64,
        /// Got for nothing.
        free: u64,
        /// Theirs for good, for money or for nothing.
        paid: u64,
        paid_fen: u64,
        /// Given back.
        cancelled: u64,
        /// Not paid in time.
        expired: u64,
        /// Neither paid nor given back nor expired so far.
        waiting: u64,
    }
}

sums! {
    /// What was said, by the receipts of those who said it, and what was heard.
    #[derive(Copy)]
    ChatTotals {
        /// Receipts: written to a connection.
        delivered: u64,
        /// Receipts: not on-line.
        offline: u64,
        /// Receipts: on-line, and too far behind.
        dropped: u64,
        /// Messages heard, once for each user who did.
        received: u64,
        /// Messages of a room that a member did not hear though it heard later ones.
        missed: u64,
        /// Messages of a room that a member heard when it joined again.
        recovered: u64,
    }
}

/// What the process uses of its host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Resident now, bytes.
    pub rss_bytes: u64,
    /// Resident before anything was made for users, bytes.
    pub rss_bytes_before_users: u64,
    /// Processor time so far, microseconds.
    pub cpu_micros: u64,
}

/// One wall-clock second of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondRow {
    /// Unix time.
    pub second: u64,
    /// Requests due in it.
    pub planned: u64,
    /// Requests written in it.
    pub sent: u64,
    pub answered: u64,
    /// Those answers by kind.
    pub outcomes: Counts,
    /// Of those answers, from the planned send time, microseconds.
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// How a storm goes on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormView {
    pub storm: StormOrder,
    /// Users who were online and were cut.
    pub cut: u64,
    /// Of these, logged in again.
    pub back: u64,
    /// It has cut all it hits, and all of them are back.
    pub over: bool,
    /// From its beginning to the last return so far, microseconds.
    pub last_back_us: Option<u64>,
}

/// One second of a storm.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StormSecond {
    /// Since the storm's beginning.
    pub second: u64,
    /// [`Micros`] of requests of users who were not cut, planned in this second. There are many
    /// such seconds: the text is far smaller.
    pub latency: String,
}

/// What a storm did to one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StormResult {
    pub view: StormView,
    /// Requests of users who were not cut, by second.
    pub others: Vec<StormSecond>,
    /// Latencies of requests that waited for their user's return.
    pub held: Micros,
}

/// Body of `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    /// `connecting`, `running` or `stopping`.
    pub state: String,
    pub users: u64,
    /// Users with a connection.
    pub connected: u64,
    /// Users logged in.
    pub online: u64,
    /// Users told not to come back.
    pub retired: u64,
    /// Requests sent or due whose answer is still awaited.
    pub outstanding: u64,
    /// Acknowledges whose answer is still awaited, or that are about to be sent.
    pub acknowledges_outstanding: u64,
    /// What users are about to do outside of the schedule, and what of that they await an answer
    /// to.
    pub reactions_outstanding: u64,
    /// QPS of the whole fleet at the moment, and since which Unix second; absent before the first.
    pub phase: Option<QpsChange>,
    /// The last second that is over.
    pub last_second: Option<SecondRow>,
    pub last_second_latency: Micros,
    /// Storms so far, and those to come.
    pub storms: Vec<StormView>,
    pub totals: Totals,
    pub clock: Clock,
    pub process: ProcessView,
}

/// One segment of the schedule: all requests that were planned in it, whenever they were answered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SegmentResult {
    /// Unix second of its beginning.
    pub from: u64,
    /// Requests a second over the whole fleet.
    pub qps: u32,
    /// Requests due in it on this machine.
    pub planned: u64,
    pub sent: u64,
    pub answered: u64,
    /// Of these, held back by a storm; they are in neither histogram.
    pub held_by_storm: u64,
    /// From planned send time to answer.
    pub latency: Micros,
    /// From planned to actual send time.
    pub send_lag: Micros,
}

sums! {
    OperationResult {
        /// Due; of what users do of their own accord, as many as were sent.
        planned: u64,
        /// Written, each counted once.
        sent: u64,
        answered: u64,
        outcomes: Counts,
        /// From the planned send time to the answer; of what users do of their own accord, from its
        /// sending.
        latency: Micros,
    }
}

/// What one campaign gave to a machine's users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignResult {
    pub campaign: u32,
    /// Distinct prizes told.
    pub prizes: u64,
    pub fen: u64,
}

/// What users of a machine got from one sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaleResult {
    pub campaign: u32,
    /// Units that are theirs for good.
    pub paid: u64,
    pub paid_fen: u64,
    /// Units that wait for their payment, as far as users were told.
    pub waiting: u64,
}

/// What users of a machine were told of one announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    pub text: String,
    pub users: u64,
    /// Deliveries to users who had been told already.
    pub repeated: u64,
    /// When the first came, Unix microseconds.
    pub first_us: u64,
    /// When the last came, likewise.
    pub last_us: u64,
}

/// Body of `GET /v1/results`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    pub name: String,
    /// Everything counted.
    pub totals: Totals,
    /// Requests whose answer is still awaited.
    pub outstanding: u64,
    /// The same of what users do of their own accord, and what they are still to do.
    pub reactions_outstanding: u64,
    pub segments: Vec<SegmentResult>,
    /// By operation of the schedule; empty: there were only grabs.
    pub operations: BTreeMap<String, OperationResult>,
    /// By kind of what users did of their own accord.
    pub reactions: BTreeMap<String, OperationResult>,
    /// By wall-clock second, from the first segment's on, without gaps.
    pub seconds: Vec<SecondRow>,
    pub storms: Vec<StormResult>,
    pub announced: Vec<Announced>,
    pub campaigns: Vec<CampaignResult>,
    pub sales: Vec<SaleResult>,
    pub clock: Clock,
    pub process: ProcessView,
}
