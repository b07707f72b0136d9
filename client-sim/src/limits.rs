//! The bounds of the fleet, in one place.

use std::time::Duration;

/// Read buffer of a machine, shared by its connections, bytes.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// Bytes that one connection's socket may refuse before the machine cuts it: dozens of Grabs.
pub const OUTBOX_BYTES_MAX: usize = 4 * 1024;

/// Sockets served before what is due is sent.
pub const SOCKET_EVENTS_MAX: usize = 256;

/// Connections being opened at once by one machine.
pub const CONNECTING_MAX: usize = 256;

/// For the kernel to open one connection.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// From Login to Welcome, milliseconds; then the connection is cut and the user tries again.
pub const LOGIN_DEADLINE_MS: u32 = 30_000;

/// Requests that the sender sends before it lets answers in.
pub const SEND_BATCH: usize = 64;

/// Requests sent on one reading of the clock.
pub const SENDS_PER_CLOCK_READ: usize = 8;

/// Between two rounds of housekeeping: the journal is flushed and wins are acknowledged so often.
pub const HOUSEKEEPING_PERIOD: Duration = Duration::from_millis(20);

/// Rounds of housekeeping in which every user is looked at once.
pub const SWEEP_ROUNDS: usize = 50;

/// From the end of our side of all connections to the end of the machine.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Connections whose end is begun before others get a turn.
pub const CLOSE_STEP: u32 = 32;

/// Between two steps of a storm.
pub const STORM_PAUSE: Duration = Duration::from_millis(2);

/// Commands from the control surface that wait for the machine.
pub const COMMANDS_MAX: usize = 64;

/// Requests remembered as unanswered, in order to recognise their answers when they come after all;
/// and requests other than grabs of a rain of which a machine remembers what they are.
pub const EXPIRED_MAX: usize = 1 << 20;

/// How long a storm is watched at most, seconds. A machine keeps four bytes for each request of
/// this time.
pub const STORM_WATCH_SECONDS_MAX: u32 = 600;

/// For the requests of users whom a storm spared, while it lasts: the slowest of 99 in 100,
/// milliseconds.
pub const STORM_OTHERS_P99_MS_MAX: f64 = 1_000.0;

/// Announcements that are told apart by their texts; further ones are counted only.
pub const ANNOUNCEMENT_TEXTS_MAX: usize = 1_000;

/// Envelopes that wait for one user to open them; further ones are left for its next login.
pub const OFFERS_PER_USER_MAX: usize = 256;

/// From an offer to the user's opening it of its own accord, at most, milliseconds: thousands are
/// offered at the same moment.
pub const REACTION_JITTER_MS: u64 = 1_000;

/// Of so many shares one is asked for once more, to hear the same again.
pub const REOPEN_ONE_IN: u64 = 16;

/// From the end of an order's hold to the question what has become of it, milliseconds.
pub const LAPSE_MS: u64 = 1_000;

/// How often something refused for lack of capacity is tried again.
pub const REACTION_TRIES_MAX: u8 = 20;

/// Pages of one user's statement, 64 movements each; longer ones are given up.
pub const STATEMENT_PAGES_MAX: u32 = 256;

pub const ACKNOWLEDGED_TOGETHER_MAX: usize = hongbao_proto::limits::ITEMS_PER_FRAME_MAX;

/// Descriptors that a machine needs besides its connections.
pub const SPARE_DESCRIPTORS: u64 = 64;

/// How far ahead a fleet announces its first QPS, seconds.
pub const ANNOUNCE_SECONDS: u64 = 2;

const _: () = assert!(HOUSEKEEPING_PERIOD.as_millis() <= 100);
const _: () = assert!(OUTBOX_BYTES_MAX <= SCRATCH_BYTES);
const _: () = assert!(SENDS_PER_CLOCK_READ <= SEND_BATCH);
