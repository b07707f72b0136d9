//! Every bound of the dashboard, in one place.

use std::collections::VecDeque;
use std::time::Duration;

/// Adds to a queue of at most `max`, in which the oldest makes room.
pub fn push_newest<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// Seconds of the run kept in memory for the HTTP interface; all of them are on disk.
pub const SECONDS_KEPT_MAX: usize = 3_600;

/// Seconds that one answer of the HTTP interface may hold.
pub const SECONDS_PER_ANSWER_MAX: usize = 600;

/// Seconds of the run kept in memory for charts, one by one; a row takes about 2 KB.
pub const SERIES_SECONDS_MAX: usize = 3_600;

/// Rows of ten seconds kept of what is older: a day.
pub const SERIES_TENS_MAX: usize = 8_640;

/// Values that a column of one answer may have: more than a screen has pixels.
pub const SERIES_POINTS_MAX: u64 = 3_600;

/// Streams of events open at once: as many people as may look on.
pub const STREAMS_MAX: usize = 64;

/// Events that a reader of the stream may be behind; it is dropped beyond it. There are about four
/// a second, but a storm of marks must not cost anybody the stream.
pub const STREAM_BEHIND_MAX: usize = 512;

/// Marks that are told before readers get their turn.
pub const MARKS_PER_TURN_MAX: usize = 64;

/// How long a second that is closed waits for the host's row of it before it is told, milliseconds
/// from the second's end.
pub const HOST_WAIT_MS: u64 = 400;

/// Rows of the host that wait for their second to be closed: stragglers may hold it up for half a
/// minute.
pub const HOSTS_WAITING_MAX: usize = 64;

/// Connections to the HTTP interface at once: streams stay open, and must leave room for those who
/// only ask.
pub const HTTP_CONNECTIONS_MAX: usize = STREAMS_MAX + 192;

/// Processes, told apart by role and name, over a whole run.
pub const SOURCES_MAX: usize = 1_024;

/// Connections to the ingest port at once: every source may have a new one while its old one is
/// being noticed as dead.
pub const CONNECTIONS_MAX: usize = 2 * SOURCES_MAX;

/// Bytes of a source's name, of an instance, of a metric's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a control address: an IPv6 address with scope and port has fewer than 64.
pub const CONTROL_BYTES_MAX: usize = 64;

/// Different counters and gauges of one source, each.
pub const NAMES_PER_SOURCE_MAX: usize = 512;

pub const HISTOGRAMS_PER_REPORT_MAX: usize = 16;

/// Bytes of a histogram inflated. One of 3 digits over the whole range of u64 has 55,296 buckets, a
/// few bytes each.
pub const HISTOGRAM_BYTES_MAX: usize = 512 * 1024;

/// Significant digits of a histogram: each further one costs ten times the memory.
pub const HISTOGRAM_DIGITS_MAX: u32 = 3;

/// Reports of one source that are filed under one second: its own, those of a restarted process,
/// late ones.
pub const REPORTS_PER_SOURCE_SECOND_MAX: usize = 8;

/// How far ahead of our clock a report's second may be and still be filed under it.
pub const AHEAD_SECONDS_MAX: u64 = 3;

/// A source that vanished without its leave is missed for this long; then it counts as ended.
pub const LOST_SECONDS: u64 = 10;

/// Seconds closed at most at once, after our clock was set forward or we stood still; those before
/// are skipped, counted.
pub const CATCH_UP_SECONDS_MAX: u64 = 120;

/// Missing sources that a second names; the count is always right.
pub const MISSING_NAMED_MAX: usize = 16;

/// Marks of the timeline kept in memory; all of them are on disk. A person makes tens in a run,
/// alerts hundreds.
pub const MARKS_KEPT_MAX: usize = 2_048;

/// How long an event waits for other processes to tell the same, milliseconds: reports come within
/// a second's first moments.
pub const MARK_HOLD_MS: u64 = 1_000;

/// Events that wait so. What comes beyond is forgotten, and counted: whoever tells so much has
/// nothing to say.
pub const MARKS_HELD_MAX: usize = 1_024;

/// SETs of one server that are shown one by one. A node for a million connections has some
/// hundreds.
pub const SETS_PER_SOURCE_MAX: usize = 4_096;

/// Operators signed in at once.
pub const SESSIONS_MAX: usize = 64;

/// Bytes of an operator's name, which goes to the timeline and the log.
pub const OPERATOR_BYTES_MAX: usize = 64;

/// Wrong tokens from one address at once, and then one each so many milliseconds. A person mistypes
/// a few times.
pub const FAILED_TOKENS_BURST: u64 = 10;
/// See [`FAILED_TOKENS_BURST`].
pub const FAILED_TOKENS_INTERVAL_MS: u64 = 6_000;

/// Addresses whose wrong tokens, or new guests, are remembered at a time.
pub const PEERS_REMEMBERED_MAX: usize = 4_096;

/// Operators' actions under way at once: each may talk to every machine.
pub const ACTIONS_MAX: usize = 4;

/// Processes that one action talks to at a time.
pub const ACTION_CALLS_MAX: usize = 32;

/// For one process to take an order. Shorter than a request to us may take, so that the outcome is
/// told.
pub const ACTION_DEADLINE: Duration = Duration::from_secs(4);

/// Bytes of a process's answer to an order.
pub const ACTION_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long the token is good with which we order on an operator's behalf, seconds.
pub const ACTION_TOKEN_SECONDS: u64 = 30;

/// How far ahead a change of QPS or a storm is ordered at least, whole seconds: every machine must
/// hear of it before.
pub const AHEAD_ORDER_SECONDS_MIN: u64 = 1;
/// And at most: an operator means now.
pub const AHEAD_ORDER_SECONDS_MAX: u64 = 60;

/// Guests at once, whatever is asked for: each holds two sockets and an outbox.
pub const GUESTS_MAX: usize = 4_096;

/// Guests on an HTTP address of loopback, if nothing is asked for.
pub const GUESTS_ON_LOOPBACK: usize = 32;

/// How long a guest's token is good, seconds.
pub const GUEST_TOKEN_SECONDS: u64 = 86_400;

/// New guests from one address at once, and then one each so many milliseconds: a class or an
/// office comes through one address.
pub const NEW_GUESTS_BURST: u64 = 40;
/// See [`NEW_GUESTS_BURST`].
pub const NEW_GUESTS_INTERVAL_MS: u64 = 1_000;

/// For a guest's first frame, and again for the server to be reached.
pub const GUEST_LOGIN_DEADLINE: Duration = Duration::from_secs(10);

/// A guest from whom nothing comes for this long has gone. The page sends a Ping every 20 s.
pub const GUEST_IDLE_DEADLINE: Duration = Duration::from_secs(60);

/// Frames of a guest at once, and then one each so many milliseconds. A hand shakes a phone some
/// five times a second.
pub const GUEST_FRAMES_BURST: u64 = 60;
/// See [`GUEST_FRAMES_BURST`].
pub const GUEST_FRAMES_INTERVAL_MS: u64 = 50;

/// Requests of a guest whose answer is awaited and may tell of money.
pub const GUEST_OWED_MAX: usize = 64;

/// Frames that wait for a slow browser.
pub const GUEST_OUTBOX_FRAMES_MAX: usize = 256;

/// Their bytes. Room for the largest frame several times over.
pub const GUEST_OUTBOX_BYTES_MAX: usize = 256 * 1024;

/// For a browser to take one frame, and for the server to.
pub const GUEST_WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// After a guest has gone: for the answers that the server still owes it.
pub const GUEST_DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// After the server has gone: how often it is asked again for what it owed to a guest.
pub const GUEST_SETTLE_TRIES: u32 = 20;

/// Between two of these.
pub const GUEST_SETTLE_PAUSE: Duration = Duration::from_secs(3);

/// Guests to whom the server owes answers and who are not here.
pub const GUESTS_UNSETTLED_MAX: usize = 1_024;

/// Prizes, shares and orders that guests have been told of, in all. Some 100 bytes each.
pub const GUEST_ITEMS_MAX: usize = 500_000;

/// For guests to leave when the monitor stops: they are told, and answers that are owed to them
/// come in.
pub const GUESTS_STOP_DEADLINE: Duration = Duration::from_secs(6);

/// Messages that wait for the dashboard's one owner; when it is full, reporters' sockets are not
/// read.
pub const INBOX_MAX: usize = 256;

/// For Hello to arrive on a new connection.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Without a report for this long a connection is ended. A report is due each second.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// For a refused peer to read why, and to hang up.
pub const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// Seconds that wait to be recorded, each up to a megabyte. What comes beyond, the disk being too
/// slow, is lost, and counted.
pub const RECORDING_SECONDS_MAX: usize = 256;

/// All that waits to be recorded: a storm of marks must not cost a second.
pub const RECORDING_QUEUE_MAX: usize = 8_192;

const _: () = assert!(LOST_SECONDS < CATCH_UP_SECONDS_MAX);
// Catching up is no reason to lose any.
const _: () = assert!(CATCH_UP_SECONDS_MAX < RECORDING_SECONDS_MAX as u64);
// Catching up may tell as many seconds at once.
const _: () =
    assert!(2 * MARKS_PER_TURN_MAX < STREAM_BEHIND_MAX && 2 * CATCH_UP_SECONDS_MAX < STREAM_BEHIND_MAX as u64);
const _: () = assert!(RECORDING_QUEUE_MAX > RECORDING_SECONDS_MAX + MARKS_KEPT_MAX + MARKS_HELD_MAX);
const _: () = assert!(HTTP_CONNECTIONS_MAX > STREAMS_MAX);
const _: () = assert!(SECONDS_PER_ANSWER_MAX <= SECONDS_KEPT_MAX);

// Past runs

/// Recordings that one list holds.
pub const RUNS_LISTED_MAX: usize = 200;

/// Entries of the recordings' directory that are looked at for the list: a directory of other
/// things must not cost seconds.
pub const DIRECTORY_ENTRIES_MAX: usize = 10_000;

/// Bytes of a recording's name.
pub const RUN_ID_BYTES_MAX: usize = 128;

/// Bytes of the fleet's summary, a day of seconds being some ten megabytes, and of what is inflated
/// of one second.
pub const DOCUMENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Seconds of a recorded run that are told at all: a recording of days would fill memory before
/// anything was seen of it.
pub const RUN_SECONDS_MAX: u64 = 200_000;

/// Rows of one series of a recorded run: four hours by the second. Some 200 columns of these are 50
/// MB; longer runs are folded.
pub const SERIES_ROWS_MAX: u64 = 14_400;

/// Series of recorded runs kept in memory, least recently used out first.
pub const SERIES_KEPT_MAX: usize = 2;

/// Different names in one group of reasons; those of a server and a machine together are about a
/// hundred.
pub const REASONS_MAX: usize = 256;

/// Recordings read at once. Each may take a core for seconds that the run itself needs.
pub const READERS_MAX: usize = 2;

/// Reports kept drawn, least recently used out first; each a few megabytes.
pub const REPORTS_KEPT_MAX: usize = 4;

/// Marks of a recorded run that are told.
pub const MARKS_TOLD_MAX: usize = 10_000;

const _: () = assert!(SERIES_ROWS_MAX <= RUN_SECONDS_MAX);
const _: () = assert!(GUEST_OUTBOX_BYTES_MAX >= 2 * hongbao_proto::limits::SERVER_FRAME_BYTES_MAX);
const _: () = assert!(ACTION_DEADLINE.as_secs() < hongbao_telemetry::http::REQUEST_DEADLINE.as_secs());
