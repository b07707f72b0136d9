//! Names that both a reporting process and the dashboard must know: those of the two books and of the headline figures.
//! Everything else a process may name as it likes; the dashboard records it under that name.

use super::Key;

/// Roles of reporting processes.
pub mod role {
    /// A push server.
    pub const SERVER: &str = "server";
    /// One machine of the simulated fleet.
    pub const MACHINE: &str = "machine";
}

/// Kinds of events on the timeline.
pub mod event {
    /// A phase of a fleet's run begins.
    pub const PHASE: &str = "phase";
    /// The fleet sends another number of requests a second.
    pub const QPS: &str = "qps";
    /// A campaign was made, has ended, or is sold out.
    pub const CAMPAIGN: &str = "campaign";
    /// A run of group envelopes has begun or ended.
    pub const ENVELOPES: &str = "envelopes";
    /// Something was announced to everybody.
    pub const ANNOUNCEMENT: &str = "announcement";
    /// A share of the users is cut off.
    pub const STORM: &str = "storm";
    /// A server stops in order.
    pub const DRAIN: &str = "drain";
    /// Every kind that a process may report.
    pub const ALL: [&str; 7] = [PHASE, QPS, CAMPAIGN, ENVELOPES, ANNOUNCEMENT, STORM, DRAIN];
}

// Gauges of both roles
/// Users with a live, logged-in connection.
pub const USERS_ONLINE: Key = Key::new("users_online", "Users with a live, logged-in connection");

/// Descriptors that one table of the process may hold.
pub const DESCRIPTORS_LIMIT: Key = Key::new("descriptors_limit", "Descriptors that one table of this process may hold");

// The servers' side of the books: counters
/// Requests that came in and were counted as owed an answer.
pub const REQUESTS_RECEIVED: Key = Key::new("requests_received", "Requests taken in; each is owed one answer");
/// Requests that were answered.
pub const REQUESTS_ANSWERED: Key = Key::new("requests_answered", "Requests that got their one answer");
/// Grabs taken in, a part of the requests.
pub const GRABS_RECEIVED: Key = Key::new("grabs_received", "Grabs taken in, a part of the requests");
/// Prizes handed to SETs for the first time.
pub const PRIZES_ISSUED: Key = Key::new("prizes_issued", "Prizes issued to SETs, first issues only");
/// Wins committed to the ledger, over its whole life.
pub const PRIZES_WON: Key = Key::new("prizes_won", "Wins in the ledger since it was made");
/// Money of those wins.
pub const PAID_FEN: Key = Key::new("paid_fen", "Money of the wins in the ledger, in fen");

// The users' side of the books: counters
/// Grabs that the schedule had due.
pub const GRABS_PLANNED: Key = Key::new("grabs_planned", "Grabs that the schedule had due");
/// Grabs written to a socket.
pub const GRABS_SENT: Key = Key::new("grabs_sent", "Grabs written to a socket");
/// Grabs whose answer arrived.
pub const GRABS_ANSWERED: Key = Key::new("grabs_answered", "Grabs whose answer arrived");
/// Distinct prizes that users were told they won.
pub const PRIZES_RECEIVED: Key = Key::new("prizes_received", "Distinct prizes that users were told they won");
/// Money of those prizes.
pub const RECEIVED_FEN: Key = Key::new("received_fen", "Money of the prizes that users were told they won, in fen");

// Histograms of machines, microseconds
/// From the planned send time to the answer.
pub const LATENCY: Key = Key::new("latency_us", "From the planned send time of a Grab to its answer, in microseconds");
/// From the planned to the actual send time.
pub const SEND_LAG: Key =
    Key::new("send_lag_us", "From the planned to the actual send time of a Grab, in microseconds");

// Gauges of machines
/// Users that the machine simulates.
pub const USERS: Key = Key::new("users", "Users that this machine simulates");
/// Clock offset against the NTP server.
pub const CLOCK_OFFSET: Key =
    Key::new("clock_offset_us", "Measured offset of the local clock from the NTP server, in microseconds");
/// Bound on the error of that offset.
pub const CLOCK_ERROR: Key = Key::new("clock_error_us", "Bound on the error of the clock offset, in microseconds");

// Of the reporting itself
/// Gauge, 1 in the last report of a process that takes its leave. Added by `Reporter::run_until`, read by the dashboard,
/// never recorded.
pub const FINAL_REPORT: Key = Key::new("final_report", "1 in the last report of a process");

/// Counters whose total comes from a durable ledger and not from the running process: what a restarted process reports
/// goes on where the ended one stood, and *replaces* its total. The totals of every other counter start at 0 with each
/// process, and add up over the instances of one name.
pub const OF_THE_LEDGER: [&str; 2] = [PRIZES_WON.name, PAID_FEN.name];
