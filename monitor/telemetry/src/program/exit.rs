//! How a failed start ends: whether a retry may help, and what to do.

use std::io::{self, ErrorKind};

use nix::errno::Errno;

/// A person must change something: usage, a setting, a file.
pub const USAGE: u8 = 2;

/// It may pass by itself, and whoever started the program may try again: `EX_TEMPFAIL` of sysexits.
pub const TRY_AGAIN: u8 = 75;

/// The code for an error of the system at a start.
pub fn code_of(error: &io::Error) -> u8 {
    match error.kind() {
        ErrorKind::AddrInUse
        | ErrorKind::AddrNotAvailable
        | ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::WouldBlock
        | ErrorKind::OutOfMemory
        | ErrorKind::Interrupted
        | ErrorKind::TimedOut
        | ErrorKind::NetworkDown
        | ErrorKind::NetworkUnreachable => TRY_AGAIN,
        _ => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE) => TRY_AGAIN,
            _ => USAGE,
        },
    }
}

/// What to do about an address that cannot be bound.
pub fn bind_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "end what listens there, or choose another port",
        ErrorKind::AddrNotAvailable => "this host does not have the address (yet)",
        ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one",
        _ => "choose another address",
    }
}
