//! How many connections one process of this host may hold.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::limits::SPARE_DESCRIPTORS;

/// Raises the soft limit of descriptors to the hard one; returns how many of them connections may take.
pub fn for_connections() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard.saturating_sub(SPARE_DESCRIPTORS))
}
