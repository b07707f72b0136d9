//! How many connections one process of this host may hold, and where it keeps them.

use std::io;
use std::panic::resume_unwind;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;

use crate::limits::SPARE_DESCRIPTORS;

/// Raises the soft limit of descriptors to the hard one; returns how many of them connections may
/// take.
pub fn for_connections() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard.saturating_sub(SPARE_DESCRIPTORS))
}

/// Runs `work` on a thread with a descriptor table of its own, which also takes the process's
/// signals, and waits for it.
///
/// `/proc/PID/fd` shows the table of the main thread. Agents that list it for every process
/// (supervisors, `lsof`, `ss -p`) pay about 0.8 µs a descriptor: with a million users on this host,
/// that is most of a second of one core each time.
pub fn on_a_private_table<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || {
            unshare(CloneFlags::CLONE_FILES)?;
            Ok(work())
        })?;
        // From here on, so that the worker does not inherit it: a handler writes to a number in its
        // own thread's table.
        SigSet::all().thread_block()?;
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
