//! The bounds of the wire, in one place. Both ends are held to them.

/// Payload of one frame from a client, bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 4 * 1024;

/// Payload of one frame from the server, bytes.
pub const SERVER_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Payload of one frame between a process and the monitor, bytes: a second's histograms fit many times over.
pub const REPORT_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The longest varint that announces an acceptable frame: three bytes say up to 2^21 - 1.
pub const LENGTH_BYTES_MAX: usize = 3;

/// Prizes named in one `Acknowledge`, and wins told in one `Reminder`.
pub const PRIZES_PER_FRAME_MAX: usize = 64;

/// Text of an announcement, bytes.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 1024;

const _: () = assert!(REPORT_FRAME_BYTES_MAX < 1 << (7 * LENGTH_BYTES_MAX));
const _: () = assert!(SERVER_FRAME_BYTES_MAX <= REPORT_FRAME_BYTES_MAX);
// A win on the wire is at most 4 varints of 10 bytes with their tags, and a tag and length around it.
const _: () = assert!(PRIZES_PER_FRAME_MAX * 48 <= CLIENT_FRAME_BYTES_MAX);
