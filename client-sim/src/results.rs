//! What a machine tells over its control surface: the shapes that machine and fleet share, in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::storm::Share;

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
}

/// Body of `POST /v1/storm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StormOrder {
    /// The part of all users that is hit, in parts per million.
    pub share: Share,
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

/// Everything counted since the machine started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Grabs that were due.
    pub planned: u64,
    /// Grabs written, each counted once.
    pub sent: u64,
    /// Grabs whose answer came, in time or late.
    pub answered: u64,
    /// Of these, after the answer timeout.
    pub answered_late: u64,
    /// Grabs given up at the answer timeout and not answered since.
    pub unanswered: u64,
    /// Grabs written again after a reconnect, with the same request id.
    pub resent: u64,
    /// Grabs that were due while their user had no connection, or whose socket refused them at first.
    pub held_back: u64,
    /// Answers by kind.
    pub outcomes: Counts,
    /// Error answers by code.
    pub errors: Counts,
    /// What no server may do, by kind.
    pub violations: Counts,
    /// Distinct prizes that users were told of.
    pub prizes: u64,
    /// Their money.
    pub fen: u64,
    /// Logins after the first of each user.
    pub reconnects: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// Ends of connections by reason.
    pub ends: Counts,
    /// Acknowledges sent.
    pub acknowledges: u64,
    /// Announcements that users were told.
    pub announcements: u64,
}

impl Totals {
    /// Adds another machine's totals.
    pub fn add(&mut self, other: &Totals) {
        self.planned += other.planned;
        self.sent += other.sent;
        self.answered += other.answered;
        self.answered_late += other.answered_late;
        self.unanswered += other.unanswered;
        self.resent += other.resent;
        self.held_back += other.held_back;
        self.prizes += other.prizes;
        self.fen += other.fen;
        self.reconnects += other.reconnects;
        self.connect_failures += other.connect_failures;
        self.acknowledges += other.acknowledges;
        self.announcements += other.announcements;
        for (sum, part) in [
            (&mut self.outcomes, &other.outcomes),
            (&mut self.errors, &other.errors),
            (&mut self.violations, &other.violations),
            (&mut self.ends, &other.ends),
        ] {
            add_counts(sum, part);
        }
    }
}

/// Adds `part` to `sum`, label by label.
pub fn add_counts(sum: &mut Counts, part: &Counts) {
    for (label, count) in part {
        *sum.entry(label.clone()).or_default() += count;
    }
}

/// The machine's clock against its NTP server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockView {
    /// Added to the local clock, microseconds.
    pub offset_us: i64,
    /// Bound on the error of the offset, microseconds.
    pub error_us: u64,
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
    /// Grabs due in it.
    pub planned: u64,
    /// Grabs written in it.
    pub sent: u64,
    /// Answers that came in it.
    pub answered: u64,
    /// Those answers by kind.
    pub outcomes: Counts,
    /// Of those answers, from the planned send time, microseconds.
    pub p50_us: u64,
    /// As above.
    pub p99_us: u64,
    /// As above.
    pub max_us: u64,
}

/// How a storm goes on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StormView {
    /// What was asked for.
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
    /// Of requests of users who were not cut, planned in this second; HdrHistogram V2 deflate in base64, microseconds.
    pub latency: String,
}

/// What a storm did to one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StormResult {
    /// How it went.
    pub view: StormView,
    /// Requests of users who were not cut, by second.
    pub others: Vec<StormSecond>,
    /// Latencies of requests that waited for their user's return, likewise; empty: there was none.
    pub held: String,
}

/// Body of `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The machine's name.
    pub name: String,
    /// `connecting`, `running` or `stopping`.
    pub state: String,
    /// Users of this machine.
    pub users: u64,
    /// Users with a connection.
    pub connected: u64,
    /// Users logged in.
    pub online: u64,
    /// Users told not to come back.
    pub retired: u64,
    /// Grabs sent or due whose answer is still awaited.
    pub outstanding: u64,
    /// Acknowledges whose answer is still awaited, or that are about to be sent.
    pub acknowledges_outstanding: u64,
    /// QPS of the whole fleet at the moment, and since which Unix second; absent before the first.
    pub phase: Option<QpsChange>,
    /// The last second that is over.
    pub last_second: Option<SecondRow>,
    /// Latencies of that second, HdrHistogram V2 deflate in base64, microseconds.
    pub last_second_latency: String,
    /// Storms so far, and those to come.
    pub storms: Vec<StormView>,
    /// Everything so far.
    pub totals: Totals,
    /// The clock.
    pub clock: ClockView,
    /// The process.
    pub process: ProcessView,
}

/// One segment of the schedule: all requests that were planned in it, whenever they were answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentResult {
    /// Unix second of its beginning.
    pub from: u64,
    /// Requests a second over the whole fleet.
    pub qps: u32,
    /// Grabs due in it on this machine.
    pub planned: u64,
    /// Of these, written.
    pub sent: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Of these, held back by a storm; they are in neither histogram.
    pub held_by_storm: u64,
    /// From planned send time to answer, HdrHistogram V2 deflate in base64, microseconds.
    pub latency: String,
    /// From planned to actual send time, likewise.
    pub send_lag: String,
}

/// What one campaign gave to a machine's users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignResult {
    /// Campaign id.
    pub campaign: u32,
    /// Distinct prizes told.
    pub prizes: u64,
    /// Their money.
    pub fen: u64,
}

/// What users of a machine were told of one announcement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// Its text, by which it is known.
    pub text: String,
    /// Users who were told.
    pub users: u64,
    /// Deliveries to users who had been told already.
    pub repeated: u64,
    /// When the first came, Unix microseconds.
    pub first_us: u64,
    /// When the last came, likewise.
    pub last_us: u64,
}

/// Body of `GET /v1/results`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The machine's name.
    pub name: String,
    /// Everything counted.
    pub totals: Totals,
    /// Grabs whose answer is still awaited.
    pub outstanding: u64,
    /// By segment of the schedule.
    pub segments: Vec<SegmentResult>,
    /// By wall-clock second, from the first segment's on, without gaps.
    pub seconds: Vec<SecondRow>,
    /// By storm.
    pub storms: Vec<StormResult>,
    /// By announcement.
    pub announced: Vec<Announced>,
    /// By campaign.
    pub campaigns: Vec<CampaignResult>,
    /// The clock.
    pub clock: ClockView,
    /// The process.
    pub process: ProcessView,
}
