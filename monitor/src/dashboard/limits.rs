//! Every bound of the dashboard, in one place.

use std::time::Duration;

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

/// Events that a reader of the stream may be behind; it is dropped beyond it. There are about four a second, but a storm of marks
/// must not cost anybody the stream.
pub const STREAM_BEHIND_MAX: usize = 512;

/// Marks that are told before readers get their turn.
pub const MARKS_PER_TURN_MAX: usize = 64;

/// How long a second that is closed waits for the host's row of it before it is told, milliseconds from the second's end.
pub const HOST_WAIT_MS: u64 = 400;

/// Rows of the host that wait for their second to be closed: stragglers may hold it up for half a minute.
pub const HOSTS_WAITING_MAX: usize = 64;

/// Connections to the HTTP interface at once: streams stay open, and must leave room for those who only ask.
pub const HTTP_CONNECTIONS_MAX: usize = STREAMS_MAX + 192;

/// Processes, told apart by role and name, over a whole run.
pub const SOURCES_MAX: usize = 1_024;

/// Connections to the ingest port at once: every source may have a new one while its old one is being noticed as dead.
pub const CONNECTIONS_MAX: usize = 2 * SOURCES_MAX;

/// Bytes of a source's name, of an instance, of a metric's name.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of a control address: an IPv6 address with scope and port has fewer than 64.
pub const CONTROL_BYTES_MAX: usize = 64;

/// Different counters and gauges of one source, each.
pub const NAMES_PER_SOURCE_MAX: usize = 512;

/// Different histograms of one report.
pub const HISTOGRAMS_PER_REPORT_MAX: usize = 16;

/// Bytes of a histogram inflated. One of 3 digits over the whole range of u64 has 55,296 buckets, a few bytes each.
pub const HISTOGRAM_BYTES_MAX: usize = 512 * 1024;

/// Significant digits of a histogram: each further one costs ten times the memory.
pub const HISTOGRAM_DIGITS_MAX: u32 = 3;

/// Reports of one source that are filed under one second: its own, those of a restarted process, late ones.
pub const REPORTS_PER_SOURCE_SECOND_MAX: usize = 8;

/// How far ahead of our clock a report's second may be and still be filed under it.
pub const AHEAD_SECONDS_MAX: u64 = 3;

/// A source that vanished without its leave is missed for this long; then it counts as ended.
pub const LOST_SECONDS: u64 = 10;

/// Seconds closed at most at once, after our clock was set forward or we stood still; those before are skipped, counted.
pub const CATCH_UP_SECONDS_MAX: u64 = 120;

/// Missing sources that a second names; the count is always right.
pub const MISSING_NAMED_MAX: usize = 16;

/// Marks of the timeline kept in memory; all of them are on disk. A person makes tens in a run, alerts hundreds.
pub const MARKS_KEPT_MAX: usize = 2_048;

/// How long an event waits for other processes to tell the same, milliseconds: reports come within a second's first moments.
pub const MARK_HOLD_MS: u64 = 1_000;

/// Events that wait so. What comes beyond is forgotten, and counted: whoever tells so much has nothing to say.
pub const MARKS_HELD_MAX: usize = 1_024;

/// SETs of one server that are shown one by one. A node for a million connections has some hundreds.
pub const SETS_PER_SOURCE_MAX: usize = 4_096;

/// Messages that wait for the dashboard's one owner; when it is full, reporters' sockets are not read.
pub const INBOX_MAX: usize = 256;

/// For Hello to arrive on a new connection.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Without a report for this long a connection is ended. A report is due each second.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// For a refused peer to read why, and to hang up.
pub const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

const _: () = assert!(LOST_SECONDS < CATCH_UP_SECONDS_MAX);
// Catching up may tell as many seconds at once.
const _: () =
    assert!(2 * MARKS_PER_TURN_MAX < STREAM_BEHIND_MAX && 2 * CATCH_UP_SECONDS_MAX < STREAM_BEHIND_MAX as u64);
const _: () = assert!(HTTP_CONNECTIONS_MAX > STREAMS_MAX);
const _: () = assert!(SECONDS_PER_ANSWER_MAX <= SECONDS_KEPT_MAX);
