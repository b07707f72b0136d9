//! Which core a thread runs on, and how soon.
//!
//! A request that arrives on one core and is served on another drags its socket's cache lines
//! across, and the wake-up is an interrupt between cores. Threads that belong together are pinned
//! to one core instead.

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The calling thread, to the scheduler.
const SELF: Pid = Pid::from_raw(0);

/// Nine times the share of a thread that asks for nothing, and a turn soon after it wakes.
const FAVOURED: i32 = -10;

/// Pins the calling thread, and those that it will start, to one of the cores it may run on: the
/// `index`-th, counted round.
pub fn pin(index: u32) -> io::Result<()> {
    let allowed = listed(&sched_getaffinity(SELF)?);
    let Some(core) = allowed.get(index as usize % allowed.len().max(1)) else { return Ok(()) };
    let mut one = CpuSet::new();
    one.set(*core)?;
    Ok(sched_setaffinity(SELF, &one)?)
}

/// The core that the calling thread is pinned to, where there is but one that it may run on.
pub fn pinned_to() -> io::Result<Option<usize>> {
    match listed(&sched_getaffinity(SELF)?)[..] {
        [core] => Ok(Some(core)),
        _ => Ok(None),
    }
}

/// Has the scheduler favour the calling thread, and those that it starts from now on. `false`: this
/// process may not ask for that.
pub fn favour() -> bool {
    rustix::process::nice(FAVOURED).is_ok()
}

fn listed(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_on_its_core_and_others_are_left_alone() {
        let before = listed(&sched_getaffinity(SELF).unwrap());
        for index in 0..2 * before.len() {
            let core = std::thread::spawn(move || {
                pin(u32::try_from(index).unwrap()).unwrap();
                pinned_to().unwrap()
            });
            assert_eq!(core.join().unwrap(), Some(before[index % before.len()]));
        }
        assert_eq!(listed(&sched_getaffinity(SELF).unwrap()), before);
    }
}
