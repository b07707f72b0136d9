//! The one system call here that has no safe wrapper.
#![allow(unsafe_code)]

use std::io;

/// What the kernel says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Whether anyone keeps it in step with an outside clock, as far as the kernel was told.
    pub synchronised: bool,
    /// What whoever keeps it believes it is off by, microseconds.
    pub estimated_error_us: u64,
    /// What it is off by at most; grows by 500 a second until somebody sets it anew, microseconds.
    pub max_error_us: u64,
}

/// Asks; changes nothing.
pub fn clock() -> io::Result<Clock> {
    // SAFETY: `timex` is a C structure of integers and padding, of which all zeros is a valid
    // value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // What to change: nothing.
    timex.modes = 0;
    // SAFETY: the pointer is to a whole `timex` of ours that outlives the call and that nobody else
    // refers to meanwhile.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Clock {
        synchronised: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        estimated_error_us: u64::try_from(timex.esterror).unwrap_or(0),
        max_error_us: u64::try_from(timex.maxerror).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_says_how_far_off_its_clock_may_be() {
        let clock = super::clock().unwrap();
        assert!(!clock.synchronised || clock.max_error_us < 16_000_000, "{clock:?}");
    }
}
