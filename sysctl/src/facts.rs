//! Reads a host's limits. What this kernel does not have, or does not show to us, is `None` and
//! goes unjudged.

use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;
use nix::sys::resource::{Resource, getrlimit};

use crate::sys::{self, Clock};

/// A limit with what is taken of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub max: u64,
    /// What is taken already.
    pub used: u64,
}

impl Quota {
    pub fn room(self) -> u64 {
        self.max.saturating_sub(self.used)
    }
}

/// Limits of a host, as plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Cores that this process may use.
    pub cores: u32,
    /// RLIMIT_NOFILE, soft.
    pub nofile_soft: u64,
    /// RLIMIT_NOFILE, hard.
    pub nofile_hard: u64,
    /// `fs.nr_open`: what RLIMIT_NOFILE can be raised to.
    pub nr_open: Option<u64>,
    /// `fs.file-max`, with the files open on the host.
    pub file_max: Option<Quota>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.ipv4.tcp_mem`, pages: low, pressure, max.
    pub tcp_mem: Option<[u64; 3]>,
    /// `net.ipv4.tcp_ehash_entries`; below 0: the table of the parent namespace, of that size.
    pub ehash_entries: Option<i64>,
    /// `net.ipv4.tcp_child_ehash_entries`; 0: new namespaces share the table.
    pub child_ehash_entries: Option<u64>,
    /// `net.netfilter.nf_conntrack_max`, with the flows tracked now; `None` where the module is not
    /// loaded.
    pub conntrack: Option<Quota>,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub tw_buckets: Option<u64>,
    /// `net.ipv4.tcp_tw_reuse`: 0 never, 1 everywhere, 2 on loopback.
    pub tw_reuse: Option<u64>,
    /// `net.ipv4.tcp_timestamps`; 0: none, and nothing in TIME_WAIT is reused.
    pub timestamps: Option<u64>,
    /// `net.ipv4.tcp_syncookies`; 0: half-open connections beyond the backlog are dropped.
    pub syncookies: Option<u64>,
    /// `net.ipv4.ip_local_port_range`.
    pub port_range: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`.
    pub reserved_ports: Vec<RangeInclusive<u16>>,
    /// Bytes that can be had without swapping.
    pub memory_available: Option<u64>,
    /// Bytes; the tightest of our control group and those above it.
    pub cgroup_memory: Option<Quota>,
    /// Threads; likewise.
    pub cgroup_pids: Option<Quota>,
    /// Of this host's interfaces that are up, without link-local ones.
    pub addresses: Vec<IpAddr>,
    /// What the kernel says of its clock.
    pub clock: Option<Clock>,
}

impl HostFacts {
    /// The host that we run on.
    pub fn read() -> Self {
        let nofile = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1_024, 1_024));
        let addresses = addresses();
        Self { addresses, clock: sys::clock().ok(), ..Self::read_below(Path::new("/"), nofile) }
    }

    /// Reads `proc` and `sys` below `root`, with the soft and the hard limit of descriptors; what
    /// is in no file is unknown.
    pub fn read_below(root: &Path, (nofile_soft, nofile_hard): (u64, u64)) -> Self {
        let sysctl = Sysctl(root.join("proc/sys"));
        Self {
            cores: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            nofile_soft,
            nofile_hard,
            nr_open: sysctl.one("fs/nr_open"),
            file_max: sysctl.quota("fs/file-max", "fs/file-nr"),
            somaxconn: sysctl.one("net/core/somaxconn"),
            syn_backlog: sysctl.one("net/ipv4/tcp_max_syn_backlog"),
            tcp_mem: sysctl.all("net/ipv4/tcp_mem").and_then(|pages| pages.try_into().ok()),
            ehash_entries: sysctl.one("net/ipv4/tcp_ehash_entries"),
            child_ehash_entries: sysctl.one("net/ipv4/tcp_child_ehash_entries"),
            conntrack: sysctl.quota("net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count"),
            tw_buckets: sysctl.one("net/ipv4/tcp_max_tw_buckets"),
            tw_reuse: sysctl.one("net/ipv4/tcp_tw_reuse"),
            timestamps: sysctl.one("net/ipv4/tcp_timestamps"),
            syncookies: sysctl.one("net/ipv4/tcp_syncookies"),
            port_range: sysctl
                .all("net/ipv4/ip_local_port_range")
                .and_then(|ports| <[u16; 2]>::try_from(ports).ok())
                .map(Into::into),
            reserved_ports: port_list(&sysctl.text("net/ipv4/ip_local_reserved_ports").unwrap_or_default()),
            memory_available: fs::read_to_string(root.join("proc/meminfo"))
                .ok()
                .and_then(|text| field(&text, "MemAvailable:"))
                .map(|kib| kib * 1_024),
            cgroup_memory: cgroup_memory(root),
            cgroup_pids: cgroup_pids(root),
            addresses: Vec::new(),
            clock: None,
        }
    }

    /// Ports that outgoing connections may take, from one address to one other.
    pub fn ports_usable(&self) -> u64 {
        let Some((low, high)) = self.port_range else { return 0 };
        let reserved = |port: &u16| self.reserved_ports.iter().any(|range| range.contains(port));
        (low..=high).filter(|port| !reserved(port)).count() as u64
    }
}

/// None if the system does not say.
fn addresses() -> Vec<IpAddr> {
    let mut found = Vec::new();
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| address.ip());
        let v6 = v6.filter(|address| !address.is_unicast_link_local()).map(IpAddr::V6);
        found.extend(v4.or(v6));
    }
    found
}

/// The folder of kernel settings.
struct Sysctl(PathBuf);

impl Sysctl {
    fn text(&self, key: &str) -> Option<String> {
        fs::read_to_string(self.0.join(key)).ok()
    }

    fn all<T: FromStr>(&self, key: &str) -> Option<Vec<T>> {
        self.text(key)?.split_ascii_whitespace().map(|value| value.parse().ok()).collect()
    }

    /// The first value where there are several.
    fn one<T: FromStr>(&self, key: &str) -> Option<T> {
        self.text(key)?.split_ascii_whitespace().next()?.parse().ok()
    }

    fn quota(&self, max: &str, used: &str) -> Option<Quota> {
        Some(Quota { max: self.one(max)?, used: self.one(used).unwrap_or(0) })
    }
}

/// The number that follows `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

/// Ports as the kernel lists them: `80,7400-7404`.
fn port_list(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.parse().ok()?..=high.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// The control groups that bind us, of either version, from ours upwards.
fn groups(root: &Path, controller: &str) -> Vec<PathBuf> {
    let mounted = root.join("sys/fs/cgroup");
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let of_line = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let tree = if controllers.is_empty() {
            // Version 2: one tree for all controllers, mounted aside where version 1 is in use as
            // well.
            Some(mounted.join("unified")).filter(|aside| aside.is_dir()).unwrap_or_else(|| mounted.clone())
        } else {
            mounted.join(controllers.split(',').find(|one| *one == controller)?)
        };
        Some(upwards(&tree, path))
    };
    text.lines().filter_map(of_line).flatten().collect()
}

fn cgroup_memory(root: &Path) -> Option<Quota> {
    let quotas = groups(root, "memory").into_iter().filter_map(|group| {
        let quota = quota(&group, "memory.max", "memory.current")
            .or_else(|| quota(&group, "memory.limit_in_bytes", "memory.usage_in_bytes"))?;
        // Cached files make room when it is asked for.
        let cached = fs::read_to_string(group.join("memory.stat"))
            .ok()
            .and_then(|text| field(&text, "total_inactive_file ").or_else(|| field(&text, "inactive_file ")))
            .unwrap_or(0);
        Some(Quota { used: quota.used.saturating_sub(cached), ..quota })
    });
    quotas.min_by_key(|quota| quota.room())
}

fn cgroup_pids(root: &Path) -> Option<Quota> {
    let quotas = groups(root, "pids").into_iter().filter_map(|group| quota(&group, "pids.max", "pids.current"));
    quotas.min_by_key(|quota| quota.room())
}

/// The folder of a group and of all above it. Those that a container does not see have no files and
/// bind nothing here.
fn upwards(tree: &Path, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors().filter(|path| !path.starts_with("..")).map(|path| tree.join(path)).collect()
}

/// What version 1 says for "no limit" is the greatest number of whole pages.
const CGROUP_UNLIMITED: u64 = 1 << 62;

fn quota(group: &Path, max: &str, used: &str) -> Option<Quota> {
    // "max" is no number, and no limit.
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let max = number(max).filter(|max| *max < CGROUP_UNLIMITED)?;
    Some(Quota { max, used: number(used).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> HostFacts {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        HostFacts::read_below(root.path(), (1_024, 20_000))
    }

    #[test]
    fn settings_are_read_as_the_kernel_writes_them() {
        let facts = host(&[
            ("proc/sys/fs/file-max", "2466170\n"),
            ("proc/sys/fs/file-nr", "343\t0\t2466170\n"),
            ("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796\n"),
            ("proc/sys/net/ipv4/tcp_ehash_entries", "-262144\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "80,7400-7404\n"),
            ("proc/meminfo", "MemTotal:       24684084 kB\nMemAvailable:   24327832 kB\n"),
        ]);
        assert_eq!(facts.file_max, Some(Quota { max: 2_466_170, used: 343 }));
        assert_eq!(facts.tcp_mem, Some([287_898, 383_867, 575_796]));
        assert_eq!(facts.ehash_entries, Some(-262_144));
        assert_eq!(facts.port_range, Some((32_768, 60_999)));
        assert_eq!(facts.reserved_ports, [80..=80, 7_400..=7_404]);
        assert_eq!(facts.ports_usable(), 60_999 - 32_768 + 1);
        assert_eq!(facts.memory_available, Some(24_327_832 * 1_024));
        assert_eq!((facts.nofile_soft, facts.nofile_hard), (1_024, 20_000));
    }

    #[test]
    fn what_a_host_does_not_have_is_none() {
        let facts = host(&[]);
        assert_eq!((facts.somaxconn, facts.conntrack, facts.ehash_entries), (None, None, None));
        assert_eq!((facts.cgroup_memory, facts.cgroup_pids, facts.memory_available), (None, None, None));
    }

    #[test]
    fn reserved_ports_are_no_use_to_outgoing_connections() {
        let facts = host(&[
            ("proc/sys/net/ipv4/ip_local_port_range", "1024\t2023\n"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", "80,1100-1199,1150\n"),
        ]);
        assert_eq!(facts.ports_usable(), 900);
    }

    #[test]
    fn this_host_has_a_loopback_address_and_a_descriptor_limit() {
        let facts = HostFacts::read();
        assert!(facts.nofile_hard >= facts.nofile_soft && facts.nofile_soft > 0, "{facts:?}");
        assert!(facts.addresses.iter().any(IpAddr::is_loopback), "{:?}", facts.addresses);
    }

    #[test]
    fn the_tightest_group_above_counts_without_its_cached_files() {
        let facts = host(&[
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/outer/inner/pids.max", "100\n"),
            ("sys/fs/cgroup/outer/inner/pids.current", "10\n"),
            ("sys/fs/cgroup/outer/memory.max", "1000000\n"),
            ("sys/fs/cgroup/outer/memory.current", "600000\n"),
            ("sys/fs/cgroup/outer/memory.stat", "anon 100000\ninactive_file 500000\n"),
            ("sys/fs/cgroup/outer/pids.max", "50\n"),
            ("sys/fs/cgroup/outer/pids.current", "10\n"),
        ]);
        assert_eq!(facts.cgroup_memory, Some(Quota { max: 1_000_000, used: 100_000 }));
        assert_eq!(facts.cgroup_pids, Some(Quota { max: 50, used: 10 }));
    }

    #[test]
    fn groups_of_the_first_version_are_read_as_well() {
        let facts = host(&[
            ("proc/self/cgroup", "8:pids:/\n4:memory:/job\n0::/\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4000\n"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/pids/pids.max", "max\n"),
        ]);
        assert_eq!(facts.cgroup_memory, Some(Quota { max: 4_000, used: 1_000 }));
        assert_eq!(facts.cgroup_pids, None);
    }
}
