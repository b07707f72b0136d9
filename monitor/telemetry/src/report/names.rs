//! Names that both a reporting process and the dashboard must know: those of the two books and of
//! the headline figures. Everything else a process may name as it likes; the dashboard records it
//! under that name.

use crate::report::Key;

/// Roles of reporting processes.
pub mod role {
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
pub const USERS_ONLINE: Key = Key::new("users_online", "Users with a live, logged-in connection");

pub const CPU: Key = Key::new("cpu_us", "Processor time of this process, user and system, in microseconds");
pub const RESIDENT_BYTES: Key = Key::new("resident_bytes", "Resident memory of this process");
pub const OPEN_DESCRIPTORS: Key = Key::new("open_descriptors", "Descriptors open in the fullest table of this process");
pub const DESCRIPTORS_LIMIT: Key = Key::new("descriptors_limit", "Descriptors that one table of this process may hold");

/// Counter: events that the timeline has lost, because the monitor stayed away for too long.
pub const EVENTS_FORGOTTEN: Key = Key::new("events_forgotten", "Events forgotten before the monitor was told of them");

// The servers' side of the books: counters
/// Requests that came in and were counted as owed an answer.
pub const REQUESTS_RECEIVED: Key = Key::new("requests_received", "Requests taken in; each is owed one answer");
pub const REQUESTS_ANSWERED: Key = Key::new("requests_answered", "Requests that got their one answer");
pub const GRABS_RECEIVED: Key = Key::new("grabs_received", "Grabs taken in, a part of the requests");
/// Prizes handed to SETs for the first time.
pub const PRIZES_ISSUED: Key = Key::new("prizes_issued", "Prizes issued to SETs, first issues only");
/// Wins committed to the ledger, over its whole life.
pub const PRIZES_WON: Key = Key::new("prizes_won", "Wins in the ledger since it was made");
pub const PAID_FEN: Key = Key::new("paid_fen", "Money of the wins in the ledger, in fen");

/// Units of sales that are somebody's for good, over the ledger's whole life.
pub const UNITS_SOLD: Key = Key::new("units_sold", "Units of sales that are somebody's for good");
pub const EARNED_FEN: Key = Key::new("earned_fen", "Prices of the units that are somebody's for good, in fen");
pub const SHARES_OPENED: Key = Key::new("shares_opened", "Shares of envelopes opened");
pub const OPENED_FEN: Key = Key::new("opened_fen", "Money of the shares that were opened, in fen");

// What servers do besides: counters
pub const ENVELOPES_SENT: Key = Key::new("envelopes_sent", "Group envelopes ever sent");
/// Chat messages written.
pub const CHAT_DELIVERED: Key =
    Key::new("chat_delivered", "Chat messages written to a connection, one for each user whom they were for");
pub const ANNOUNCEMENTS_DELIVERED: Key =
    Key::new("announcements_delivered", "Announcements written, one for each connection");
/// Peers turned away.
pub const ACCEPTS_WITHOUT_DESCRIPTOR: Key =
    Key::new("accepts_without_descriptor", "Peers turned away because no descriptor was left");

// Gauges of servers
pub const CONNECTIONS: Key = Key::new("connections", "Connections open");
pub const REQUESTS_OWED: Key = Key::new("requests_owed", "Requests not answered yet");
pub const QUEUE_DEPTH_MAX: Key = Key::new("queue_depth_max", "Messages in the deepest SET queue");
pub const PRIZES_IN_SETS: Key = Key::new("prizes_in_sets", "Prizes on the SETs' shelves");

// Histograms of servers, microseconds
pub const LEDGER_COMMIT: Key = Key::new("ledger_commit_us", "Time of one ledger commit, in microseconds");

// The users' side of the books: counters
pub const GRABS_PLANNED: Key = Key::new("grabs_planned", "Grabs that the schedule had due");
pub const GRABS_SENT: Key = Key::new("grabs_sent", "Grabs written to a socket");
pub const GRABS_ANSWERED: Key = Key::new("grabs_answered", "Grabs whose answer arrived");
/// Of every kind, chat and envelopes too; with those below, each of its second to the request.
pub const SCHEDULED_DUE: Key = Key::new("scheduled_due", "Requests of any kind that the schedule had due");
pub const SCHEDULED_SENT: Key = Key::new("scheduled_sent", "Of these, written to a socket");
pub const SCHEDULED_ANSWERED: Key = Key::new("scheduled_answered", "Of these, answered");
pub const PRIZES_RECEIVED: Key = Key::new("prizes_received", "Distinct prizes that users were told they won");
pub const RECEIVED_FEN: Key = Key::new("received_fen", "Money of the prizes that users were told they won, in fen");

pub const ORDERS_PAID: Key = Key::new("orders_paid", "Orders that are users' for good");
/// What they were told they paid for them.
pub const SPENT_FEN: Key = Key::new("spent_fen", "Price of the orders that are users' for good, in fen");
/// Shares that users were told they opened. Of the same name as the servers' counter.
pub const SHARES_TOLD: Key = Key::new("shares_opened", "Different shares of envelopes that users were told of");
pub const SHARES_TOLD_FEN: Key = Key::new("opened_fen", "Money of the shares that users were told of, in fen");

// Histograms of machines, microseconds
pub const LATENCY: Key = Key::new("latency_us", "From the planned send time of a Grab to its answer, in microseconds");
/// From the planned to the actual send time.
pub const SEND_LAG: Key =
    Key::new("send_lag_us", "From the planned to the actual send time of a Grab, in microseconds");

// Gauges of machines
pub const USERS: Key = Key::new("users", "Users that this machine simulates");
/// Clock offset against the NTP server.
pub const CLOCK_OFFSET: Key =
    Key::new("clock_offset_us", "Measured offset of the local clock from the NTP server, in microseconds");
pub const CLOCK_ERROR: Key = Key::new("clock_error_us", "Bound on the error of the clock offset, in microseconds");

// Of the reporting itself
/// Gauge, 1 in the last report of a process that takes its leave. Added by `Reporter::run_until`,
/// read by the dashboard, never recorded.
pub const FINAL_REPORT: Key = Key::new("final_report", "1 in the last report of a process");

/// Counters whose total comes from a durable ledger and not from the running process: what a
/// restarted process reports goes on where the ended one stood, and *replaces* its total. The
/// totals of every other counter start at 0 with each process, and add up over the instances of one
/// name. Of servers only: a machine counts some of the same names from its own start.
pub const OF_THE_LEDGER: [&str; 7] = [
    PRIZES_WON.name,
    PAID_FEN.name,
    UNITS_SOLD.name,
    EARNED_FEN.name,
    ENVELOPES_SENT.name,
    SHARES_OPENED.name,
    OPENED_FEN.name,
];
