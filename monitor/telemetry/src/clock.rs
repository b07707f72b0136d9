//! Wall time, read in one place. It may be set at any moment: two readings are never subtracted for
//! a rate or a deadline, which go by monotonic time.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time since the first reading, milliseconds.
pub fn monotonic_millis() -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(FIRST.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Since 1970; nothing on a clock that is set before.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Unix time, whole seconds.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Unix time, milliseconds.
pub fn unix_millis() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX)
}

/// Unix time, microseconds.
pub fn unix_micros() -> u64 {
    u64::try_from(unix_time().as_micros()).unwrap_or(u64::MAX)
}
