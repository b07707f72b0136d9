//! What the kernel says of this process, from /proc. A figure that cannot be read is 0: reporting
//! must not fail for it.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

pub fn sysconf_or(variable: SysconfVar, default: u64) -> u64 {
    sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(default)
}

/// Resident memory, bytes.
pub fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * sysconf_or(SysconfVar::PAGE_SIZE, 4_096)
}

/// CPU time of all threads so far, user and system, microseconds. The kernel counts in ticks of 10
/// ms on most hosts.
pub fn cpu_micros() -> u64 {
    let [user, system] = stat_fields([14, 15]);
    (user + system) * 1_000_000 / sysconf_or(SysconfVar::CLK_TCK, 100)
}

/// Fields of /proc/self/stat, by their number in proc(5).
fn stat_fields<const N: usize>(numbers: [usize; N]) -> [u64; N] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the command in parentheses and may hold anything; count from behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    numbers.map(|number| fields.get(number - 3).and_then(|field| field.parse().ok()).unwrap_or(0))
}

/// When the process started, Unix milliseconds. The kernel counts in ticks since the host's start,
/// which it knows to the second.
pub fn started_at_ms() -> u64 {
    let [ticks] = stat_fields([22]);
    let booted = fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<u64>().ok());
    let ticks_ms = ticks * 1_000 / sysconf_or(SysconfVar::CLK_TCK, 100);
    booted.map_or(0, |booted| booted * 1_000 + ticks_ms)
}

/// How many descriptors one table of this process may hold: RLIMIT_NOFILE, soft. 0 where it cannot
/// be read.
pub fn descriptors_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _hard)| soft)
}

/// Open descriptors in the table of the calling thread.
pub fn open_descriptors() -> u64 {
    const LIST: &str = "/proc/thread-self/fd";
    // Since Linux 6.2 their number is the directory's size; before that it is 0, and they are
    // counted one by one.
    match fs::metadata(LIST).map_or(0, |list| list.len()) {
        0 => fs::read_dir(LIST).map_or(0, |entries| entries.count() as u64),
        open => open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_descriptors_and_used_time() {
        assert!(resident_bytes() > 100_000);
        assert!(open_descriptors() >= 3 && open_descriptors() < descriptors_limit());
        let now = crate::clock::unix_millis();
        // Tests run within an hour of their start; the host's start is known to the second only.
        assert!((now - 3_600_000..now + 2_000).contains(&started_at_ms()));
        let before = cpu_micros();
        let mut spun = 0u64;
        while cpu_micros() == before {
            spun = spun.wrapping_add(1);
        }
        assert!(spun > 0);
    }
}
