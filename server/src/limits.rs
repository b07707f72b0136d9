//! The bounds of the server, in one place.

use std::time::Duration;

/// Unacknowledged wins sent at one login.
pub const RECALLED_WINS_MAX: usize = 256;

/// Requests that wait for the ledger's writer.
pub const LEDGER_QUEUE_MAX: usize = 16 * 1024;

/// Postings in one transaction.
pub const LEDGER_BATCH_MAX: usize = 4 * 1024;

/// Prizes of one campaign: the sum of their amounts is computed at creation, about 0.1 µs each.
pub const CAMPAIGN_TOTAL_MAX: u64 = 10_000_000;

/// The time for which a unit waits for its payment unless the sale says otherwise, milliseconds.
pub const HOLD_MS: u64 = 15 * 60 * 1_000;

/// The longest time for which a unit waits for its payment, milliseconds: one day.
pub const HOLD_MS_MAX: u64 = 24 * 3_600 * 1_000;

/// The longest opening of a sale that is drawn by lot, milliseconds: whoever takes part waits so
/// long for an answer.
pub const FAIR_WINDOW_MS_MAX: u32 = 5_000;

/// What one envelope may hold, fen.
pub const ENVELOPE_FEN_MAX: u64 = 1_000_000_000;

/// Group envelopes that can still be opened, at most.
pub const ENVELOPES_OPEN_MAX: usize = 1_000_000;

/// Of these, at most so many of one user: each costs its recipients' memory, and a fen.
pub const ENVELOPES_OPEN_PER_USER_MAX: u32 = 500;

/// Recipients of all envelopes that can still be opened, about 60 bytes each.
pub const OFFERS_OPEN_MAX: u64 = 10_000_000;

/// Recipients of the emptied envelopes that are kept in memory, 8 bytes each and 24 for each share.
pub const EMPTY_RECIPIENTS_KEPT: usize = 2_000_000;

/// Emptied envelopes that are kept in memory for questions; about 500 bytes each with ten
/// recipients. Older ones are read from disk.
pub const ENVELOPES_EMPTY_KEPT: usize = 50_000;

/// How often overdue orders and envelopes are looked for, milliseconds.
pub const EXPIRE_INTERVAL_MS: u64 = 200;

/// Orders and envelopes that expire in one posting.
pub const EXPIRE_STEP: usize = 1_024;

pub const DEPOSIT_USERS_MAX: u32 = 100_000;

/// Movements of a user that are gone through, newest first, in search of what an old request got.
pub const WALK_MAX: u32 = 4_096;

/// Rains that one Grab for any of them asks the ledger about, where each may give its user no more.
pub const RAINS_PER_GRAB_MAX: u16 = 8;

/// Connections that the kernel completes ahead of `accept`, for each shard.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Messages in a SET's queue.
pub const SET_QUEUE_MAX: usize = 8 * 1024;

/// Requests that met a full queue and wait, 16 bytes each, for their `Overloaded`. Beyond this a
/// reader stops reading.
pub const SET_REFUSALS_MAX: usize = 16 * 1024;

/// Messages applied between two rounds of writing.
pub const SET_BATCH_MAX: usize = 512;

/// Answers gathered before they are written even if the batch goes on, bytes.
pub const SET_OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Connections of one SET at most, whatever is configured.
pub const SET_CAPACITY_MAX: usize = 65_536;

/// SETs of one node at most.
pub const SETS_MAX: u32 = 1_024;

/// Read buffer of a shard, shared by its connections, bytes.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// Bytes that a slow peer may leave unread in our memory before it is cut.
pub const OUTBOX_BYTES_MAX: usize = 128 * 1024;

/// A peer whose outbox has not run empty for so long is cut, seconds.
pub const SLOW_SECONDS_MAX: u32 = 10;

/// From the first byte of a frame to its last, seconds.
pub const FRAME_SECONDS_MAX: u32 = 10;

/// From our goodbye to the peer's own end, seconds; then the connection is torn down.
pub const LINGER_SECONDS: u32 = 2;

/// How long a peer that has closed its side is waited for with what it is owed, seconds.
pub const HALF_CLOSED_SECONDS_MAX: u32 = 30;

/// Requests of one connection that may come behind its Login before that is answered.
pub const EARLY_REQUESTS_MAX: usize = 16;

/// The same of all connections of a SET: a crowd that logs in while the ledger is slow pins at most
/// so many frames.
pub const SET_EARLY_REQUESTS_MAX: usize = 4_096;
const _: () = assert!(SET_EARLY_REQUESTS_MAX * hongbao_proto::limits::CLIENT_FRAME_BYTES_MAX <= 32 * 1024 * 1024);

/// Below so much room on its disk a ledger that cannot be opened may open later, bytes.
pub const LEDGER_FREE_BYTES_MIN: u64 = 1024 * 1024;

/// Users whom operators keep out at a time.
pub const BARRED_USERS_MAX: usize = 10_000;

/// The longest that a user may be kept out, seconds.
pub const BARRED_SECONDS_MAX: u64 = 30 * 86_400;

/// Announcements that wait in one SET while earlier ones are still being written.
pub const ANNOUNCEMENTS_PENDING_MAX: usize = 64;

/// Their bytes: they leave in one write, which a socket's empty send buffer takes whole.
pub const ANNOUNCEMENTS_PENDING_BYTES_MAX: usize = 32 * 1024;

/// Broadcasts of which operators can still ask what became of them.
pub const BROADCASTS_KEPT: usize = 64;

/// Chat and Room requests of one SET that are under way. Each holds a place in the SET's queue for
/// its answer: the other half stays free for the ledger's.
pub const CHATS_UNDER_WAY_MAX: usize = SET_QUEUE_MAX / 2;

/// Deliveries that wait in one SET while earlier ones are still being written.
pub const DELIVERIES_PENDING_MAX: usize = 2 * 1024;

/// Connections that deliveries reach in a batch, and as many again between two batches.
pub const DELIVER_STEP: usize = 512;

/// Tasks that look after rooms, on the main thread: a large room holds up a part of the others at
/// most.
pub const ROOM_SHARDS: usize = 4;

/// Requests in a room shard's queue, up to about 1.2 KiB each.
pub const ROOM_SHARD_QUEUE_MAX: usize = 4 * 1024;

/// Requests of a room shard that wait until an earlier message to their room has been handed to the SETs.
pub const ROOM_SHARD_WAITING_MAX: usize = 1_024;

/// Messages of one room shard that are on their way to members, 8 bytes for each member.
pub const ROOM_SHARD_MESSAGES_MAX: usize = 256;

/// History on its way from one room shard to users who catch up, bytes.
pub const ROOM_SHARD_RECOVERY_BYTES_MAX: usize = 16 * 1024 * 1024;

pub const ROOM_SHARD_ROOMS_MAX: usize = 16 * 1024;

/// Memberships in one room shard: 30 to 60 bytes each, as full as their tables are.
pub const ROOM_SHARD_MEMBERSHIPS_MAX: usize = 1024 * 1024;

/// History of one room shard, bytes.
pub const ROOM_SHARD_HISTORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Members looked up for a message before the shard turns to another room.
pub const FANOUT_STEP: usize = 256;

/// Members looked up before a room shard lets the other tasks of the main thread run. Any other work
/// counts as [`ROOM_SHARD_REQUEST_WEIGHT`] members.
pub const ROOM_SHARD_STEP: usize = 1_024;

/// What a request, or a SET to be written to, is worth in members looked up.
pub const ROOM_SHARD_REQUEST_WEIGHT: usize = 32;

pub const ROOM_MEMBERS_MAX: usize = 20_000;

pub const USER_ROOMS_MAX: u8 = 64;

/// Messages in a room's history.
pub const HISTORY_MESSAGES_MAX: usize = 256;

/// A room's history, bytes: all of it fits one RoomState.
pub const HISTORY_BYTES_MAX: usize = 48 * 1024;

/// What a message in a history counts for besides its text, bytes: more than its other fields take
/// in memory or on the wire.
pub const HISTORY_OVERHEAD_BYTES: usize = 64;

/// Connections that an announcement or a farewell reaches between two batches.
pub const SWEEP_STEP: usize = 256;

/// Connections of these whose write sides are looked up together, so that the waits for their
/// memory overlap.
pub const SWEEP_LOOKAHEAD: usize = 16;

/// Connections that are closed between two batches.
pub const CLOSE_STEP: usize = 64;

/// Connections looked at by one step of the idle sweep; a full SET is swept in about 16 ticks.
pub const IDLE_SWEEP_STEP: usize = SET_CAPACITY_MAX / 16;

/// Requests a second that one connection may send, unless configured otherwise.
pub const CONNECTION_RATE: u32 = 500;

/// Logins a second of the whole node, unless configured otherwise: a million come in within a
/// minute, while those who are online are served.
pub const LOGIN_RATE: u32 = 20_000;

/// Logins that pass at once after a quiet time, in milliseconds at the rate.
pub const LOGIN_BURST_MS: u64 = 100;

/// How late a login may come to its retry slot, milliseconds: the peer's round trip and its
/// timer.
pub const LOGIN_GRACE_MS: u64 = 1_000;

/// Retry slots of logins are at most so far away, seconds. Whoever comes when all of them are
/// taken asks again, spread evenly over the second half of this time.
pub const LOGIN_HORIZON_SECONDS: u64 = 60;

/// Connections taken in by a shard before its other tasks get their turn; each costs a few system
/// calls. Meanwhile peers wait in the kernel's backlog, and where that overflows the kernel drops
/// their SYN, which they repeat after a second.
pub const ACCEPTS_PER_ROUND: u32 = 32;

/// The longest `--coalesce`: answers are late by as much.
pub const COALESCE_MAX: Duration = Duration::from_millis(100);

/// Serials returned to the generator in one message.
pub const RETURN_BATCH_MAX: usize = 1_024;

/// Envelopes that wait to be offered, or units to be returned, in one SET. Beyond it envelopes are
/// found at the recipients' next login.
pub const SET_UNSENT_MAX: usize = 1_024;

/// Envelopes that wait to be offered to those on-line, in the whole node.
pub const OFFERINGS_MAX: usize = 4 * 1024;

/// Messages in the generator's queue.
pub const GENERATOR_QUEUE_MAX: usize = 4 * 1024;

/// Hint with an `Overloaded`, milliseconds.
pub const RETRY_AFTER_MS: u32 = 1_000;

/// Kernel send buffer of a connection, bytes (the kernel doubles it): bounds what a peer that never
/// reads can pin there.
pub const SOCKET_SEND_BYTES: usize = 64 * 1024;

/// Kernel receive buffer of a connection, bytes.
pub const SOCKET_RECEIVE_BYTES: usize = 16 * 1024;

const _: () = assert!(OUTBOX_BYTES_MAX >= 2 * hongbao_proto::limits::SERVER_FRAME_BYTES_MAX);
const _: () = assert!(SCRATCH_BYTES > 2 * hongbao_proto::limits::CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(SET_BATCH_MAX <= SET_QUEUE_MAX);
// One announcement always fits, and all that wait fit beside an answer in what a slow peer may
// leave unread.
const _: () = assert!(ANNOUNCEMENTS_PENDING_BYTES_MAX >= 2 * hongbao_proto::limits::ANNOUNCEMENT_BYTES_MAX);
const _: () =
    assert!(ANNOUNCEMENTS_PENDING_BYTES_MAX + hongbao_proto::limits::SERVER_FRAME_BYTES_MAX <= OUTBOX_BYTES_MAX);
const _: () = assert!(ANNOUNCEMENTS_PENDING_BYTES_MAX <= SOCKET_SEND_BYTES);

// Every room shard's messages may be on their way to one SET, and users' messages besides.
const _: () = assert!(DELIVERIES_PENDING_MAX >= 2 * ROOM_SHARDS * ROOM_SHARD_MESSAGES_MAX);
// A message always fits an empty history; a full one fits a frame beside the other fields of a
// RoomState.
const _: () = assert!(HISTORY_BYTES_MAX >= HISTORY_OVERHEAD_BYTES + hongbao_proto::limits::CHAT_BYTES_MAX);
const _: () = assert!(HISTORY_BYTES_MAX + 128 <= hongbao_proto::limits::SERVER_FRAME_BYTES_MAX);
const _: () =
    assert!(ROOM_SHARD_RECOVERY_BYTES_MAX >= HISTORY_BYTES_MAX && ROOM_SHARD_HISTORY_BYTES_MAX >= HISTORY_BYTES_MAX);

/// What is archived is at least so old, milliseconds: one day. A SendEnvelope from before an
/// archive is not known as a repeat any more.
pub const ARCHIVE_AGE_MIN_MS: u64 = 24 * 3_600 * 1_000;

/// Characters of a campaign's title.
pub const CAMPAIGN_TITLE_CHARS_MAX: usize = 200;

/// Findings of one audit that are kept with their text; all are counted.
pub const AUDIT_FINDINGS_MAX: usize = 100;

/// Entries of one user that `find` follows: more than any user has who does not live off it.
pub const FIND_WALK_MAX: usize = 1_000_000;

/// Bytes of a line of a journal or a log that `find` reads; longer ones are passed over.
pub const FIND_LINE_BYTES_MAX: u64 = 64 * 1024;

/// Items that `find` prints at most.
pub const FIND_ITEMS_MAX: usize = 100_000;

/// Operators who follow users at the same time. Each costs every SET a comparison for each request.
pub const TRACERS_MAX: usize = 8;

/// Steps that wait for one of them to be read: some seconds of a busy user. What finds no room is
/// lost, counted and reported.
pub const TRACE_QUEUE_MAX: usize = 1_024;

/// Requests of followed users in one SET of which it is known when they came.
pub const TRACE_ASKED_MAX: usize = 256;
