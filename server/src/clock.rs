//! What time is in this crate. Whatever is paced, due or timed out goes by monotonic time; wall
//! time is read for stamps, and for terms that people set in it.

use std::time::Instant;

pub use hongbao_telemetry::clock::{unix_micros as wall_us, unix_millis as wall};

/// Monotonic time since the process started.
pub type Nanos = u64;

/// Wall time, Unix milliseconds.
pub type UnixMs = u64;

pub const NANOS_PER_SECOND: Nanos = 1_000_000_000;

/// The instant that a batch is applied at: the clock is read once for all its messages.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub at: Nanos,
    pub wall: UnixMs,
}

impl Now {
    /// Whole seconds since the process started.
    #[allow(clippy::cast_possible_truncation)] // 136 years
    pub fn seconds(&self) -> u32 {
        (self.at / NANOS_PER_SECOND) as u32
    }
}

/// The process's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks, read once.
    #[allow(clippy::cast_possible_truncation)] // 584 years
    pub fn now(&self) -> Now {
        Now { at: self.start.elapsed().as_nanos() as u64, wall: wall() }
    }
}
