//! The bounds of the wire, in one place. Both ends are held to them.

/// Payload of one frame from a client, bytes.
pub const CLIENT_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Payload of one frame from the server, bytes.
pub const SERVER_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Payload of one frame between a process and the monitor, bytes: a second's histograms fit many
/// times over.
pub const REPORT_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The longest varint that announces a frame: protobuf's own bound for 32 bits. What is announced
/// fits into three bytes; some libraries pad it.
pub const LENGTH_BYTES_MAX: usize = 5;

/// What one `Acknowledge` names, what one `Reminder` or `Offers` tells, and the rows of one page of
/// orders or movements.
pub const ITEMS_PER_FRAME_MAX: usize = 64;

/// Text of an announcement, bytes.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 1024;

const _: () = assert!(SERVER_FRAME_BYTES_MAX <= REPORT_FRAME_BYTES_MAX);
/// Users that an envelope may be sent to by name.
pub const ENVELOPE_USERS_MAX: usize = 500;

pub const ENVELOPE_SHARES_MAX: u32 = 500;

/// Greeting of an envelope, bytes.
pub const GREETING_BYTES_MAX: usize = 200;

/// An envelope's life if none is asked for, seconds.
pub const ENVELOPE_SECONDS: u32 = 24 * 3600;

/// The longest life of an envelope, seconds.
pub const ENVELOPE_SECONDS_MAX: u32 = 7 * 24 * 3600;

/// Text of a chat message, bytes.
pub const CHAT_BYTES_MAX: usize = 1024;

// A prize's name is at most two varints of 10 bytes with their tags, and a tag and length around
// it.
const _: () = assert!(ITEMS_PER_FRAME_MAX * 24 <= CLIENT_FRAME_BYTES_MAX);
// An order is at most 12 varints of 10 bytes with their tags, tag and length around it; an offer a
// greeting besides.
const _: () = assert!(ITEMS_PER_FRAME_MAX * (12 * 11 + 3) <= SERVER_FRAME_BYTES_MAX);
const _: () = assert!(ITEMS_PER_FRAME_MAX * (GREETING_BYTES_MAX + 7 * 11 + 6) <= SERVER_FRAME_BYTES_MAX);
// User ids are varints of at most 8 bytes.
const _: () = assert!(ENVELOPE_USERS_MAX * 8 + GREETING_BYTES_MAX + 64 <= CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(ENVELOPE_SHARES_MAX as usize * (3 * 11 + 2) + 1024 <= SERVER_FRAME_BYTES_MAX);
