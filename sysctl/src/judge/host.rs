//! What every program of ours needs of its host, at whichever end of the connections it is.

use crate::facts::HostFacts;
use crate::finding::{Finding, To, Value, Weight, thousands};

/// Open files besides connections, of all processes of ours, however many shards or machines there
/// are.
pub(super) const FILES_BESIDES: u64 = 8_192;

/// The kernel's own bound of `tcp_child_ehash_entries`.
const EHASH_ENTRIES_MAX: u64 = 1 << 24;

/// Connections, and how many of their ends are on this host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub connections: u64,
    /// 2 where server and fleet share the host.
    pub ends: u64,
}

impl Load {
    fn sockets(self) -> u64 {
        self.connections * self.ends
    }
}

/// The greatest number up to `most` that `fits`, if all smaller ones do; 0 if none does.
pub(super) fn greatest(most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut good, mut bad) = (0, most + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) { good = middle } else { bad = middle }
    }
    good
}

/// `nofile soft`
pub(super) fn nofile_soft(facts: &HostFacts) -> Finding {
    let why = "Our programs raise their own to the hard one; a shell does not, and no program can do it for its shell.";
    let finding = Finding::fine("nofile soft", Weight::Informs, facts.nofile_soft, why);
    let low = facts.nofile_soft < facts.nofile_hard;
    Finding { command: low.then(|| format!("ulimit -Sn {}", facts.nofile_hard)), ..finding }
}

/// `nofile hard`, of which `needed` carry what is wanted.
pub(super) fn nofile_hard(
    facts: &HostFacts,
    needed: u64,
    enough: bool,
    why: String,
    command: Option<String>,
    carries: u64,
) -> Finding {
    let finding = Finding::fine("nofile hard", Weight::Bounds, facts.nofile_hard, why);
    let finding = Finding { command, ..finding }.needing(needed, enough).carrying(carries);
    finding.lasting(|values| values.first().is_some_and(|value| *value >= needed))
}

/// `one_table`: descriptors, where one table is to hold as much as it may be asked to.
pub(super) fn files(facts: &HostFacts, load: Load, one_table: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(nr_open) = facts.nr_open {
        let why = "What `ulimit -Hn` can be raised to; matters only where one table is to hold so many.";
        findings.push(Finding::sysctl("fs.nr_open", Weight::Informs, nr_open, one_table, why));
    }
    if let Some(files) = facts.file_max {
        let besides = files.used.saturating_add(FILES_BESIDES);
        let needed = besides.saturating_add(load.sockets());
        let why = format!(
            "Files of the whole host: {} for each connection, besides those open now; CAP_SYS_ADMIN may exceed it.",
            load.ends
        );
        let carries = files.max.saturating_sub(besides) / load.ends;
        findings.push(Finding::sysctl("fs.file-max", Weight::Bounds, files.max, needed, why).carrying(carries));
    }
    findings
}

/// Memory of the host and of its control group, where so many connections take
/// `bytes(connections)`, which grows with them.
pub(super) fn memory(facts: &HostFacts, load: Load, why: &str, bytes: impl Fn(u64) -> u64) -> Vec<Finding> {
    let needed = bytes(load.connections);
    let finding = |setting, available: u64, command: String| {
        // No connection takes less than a byte.
        let carries = greatest(available, |connections| bytes(connections) <= available);
        let finding = Finding::fine(setting, Weight::Bounds, Value::Bytes(available), why);
        finding.needing(Value::Bytes(needed), available >= needed).mended_by(command).carrying(carries)
    };
    let host =
        facts.memory_available.map(|bytes| finding("memory available", bytes, "free memory, or add some".into()));
    let group = facts.cgroup_memory.map(|quota| {
        let max = needed.saturating_add(quota.used);
        finding("cgroup memory left", quota.room(), format!("systemctl set-property UNIT MemoryMax={max}"))
    });
    host.into_iter().chain(group).collect()
}

/// Threads that may be begun, where so many are needed. What they carry is the caller's to say.
pub(super) fn threads(facts: &HostFacts, needed: u64, why: String) -> Option<Finding> {
    let quota = facts.cgroup_pids?;
    let finding = Finding::fine("cgroup pids left", Weight::Bounds, quota.room(), why);
    let command = format!("systemctl set-property UNIT TasksMax={}", needed + quota.used);
    Some(finding.needing(needed, quota.room() >= needed).mended_by(command))
}

pub(super) fn conntrack(facts: &HostFacts, load: Load) -> Option<Finding> {
    let flows = facts.conntrack?;
    let (weight, why) = if flows.used > 0 {
        (Weight::Bounds, "A firewall here tracks flows, and drops those beyond this.")
    } else {
        (Weight::Informs, "Nothing is tracked now; a firewall rule that looks at connection states would change that.")
    };
    let needed = load.connections.saturating_add(flows.used);
    let finding = Finding::sysctl("net.netfilter.nf_conntrack_max", weight, flows.max, needed, why);
    Some(finding.carrying(flows.room()))
}

pub(super) fn tcp(facts: &HostFacts, load: Load) -> Vec<Finding> {
    let sockets = load.sockets();
    let mut findings = Vec::new();
    if let Some([low, pressure, max]) = facts.tcp_mem {
        // Measured: idle connections take no page of it, one with anything unread takes one.
        let why = "Pages of bytes in flight: none for an idle connection, one for each that an announcement is on its way to.";
        let finding = Finding::fine("net.ipv4.tcp_mem", Weight::Hampers, max, why).needing(sockets, max >= sockets);
        // The kernel's own proportions.
        let values = vec![low.max(sockets / 2), pressure.max(sockets / 3 * 2), sockets];
        findings.push(finding.raised(To::AtLeast(values)).carrying(max / load.ends));
    }
    let buckets = sockets.next_power_of_two().min(EHASH_ENTRIES_MAX);
    let namespace = format!(
        "sysctl -w net.ipv4.tcp_child_ehash_entries={buckets} && ip netns add NAME, or boot with thash_entries={buckets}"
    );
    let own = facts.ehash_entries.map(|entries| (entries.unsigned_abs(), entries < 0));
    if let Some((entries, shared)) = own {
        let whose =
            if shared { "This namespace shares its parent's buckets" } else { "Buckets of the table of connections" };
        let why = format!(
            "{whose}; with several sockets in each, every packet costs more (measured, a round trip: 6 in each, 1.7 µs; 49, 27 µs)."
        );
        let finding = Finding::fine("net.ipv4.tcp_ehash_entries", Weight::Hampers, entries, why);
        let finding = finding.needing(sockets, entries >= sockets).mended_by(&namespace);
        findings.push(finding.carrying(entries / load.ends));
    }
    if let Some(entries) = facts.child_ehash_entries {
        let inherited = entries == 0 && own.is_none_or(|(entries, _)| entries >= sockets);
        let why = "Buckets of a network namespace made from now on, a table of its own; 0: it shares this one's.";
        let finding = Finding::fine("net.ipv4.tcp_child_ehash_entries", Weight::Informs, entries, why);
        let needed = if inherited { Value::Any } else { sockets.into() };
        findings.push(finding.needing(needed, inherited || entries >= sockets).mended_by(namespace));
    }
    if let Some(entries) = facts.tw_buckets {
        let why = "Connections that linger in TIME_WAIT on the side that closed first, a fleet's; see tcp_tw_reuse.";
        findings.push(Finding::fine("net.ipv4.tcp_max_tw_buckets", Weight::Informs, entries, why));
    }
    findings
}

pub(super) fn server_port(facts: &HostFacts, port: u16) -> Option<Finding> {
    let (low, high) = facts.port_range?;
    let kept = facts.reserved_ports.iter().any(|range| range.contains(&port));
    let mut reserved: Vec<String> = facts
        .reserved_ports
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low}-{high}"),
        })
        .collect();
    let now = if reserved.is_empty() { "none".to_owned() } else { reserved.join(",") };
    reserved.push(port.to_string());
    let why = format!("An outgoing connection that happens to take {port} would keep the server from starting.");
    let finding = Finding::fine("net.ipv4.ip_local_reserved_ports", Weight::Hampers, now, why);
    let enough = kept || !(low..=high).contains(&port);
    let needed = if enough && !kept { Value::Any } else { format!("with {port}").into() };
    Some(finding.needing(needed, enough).raised(To::With(reserved.join(","))))
}

/// Ports from which so many users connect from one address, to one server.
pub(super) fn ports(facts: &HostFacts, users: u64, carries: impl Fn(u64) -> u64) -> Option<Finding> {
    let (low, high) = facts.port_range?;
    let usable = facts.ports_usable();
    let why = format!(
        "{} ports towards one server from one source address, and up to {} users there; past half of the ports `connect` slows down, as it tries every second one first.",
        thousands(usable),
        thousands(users),
    );
    let weight = if usable < users { Weight::Bounds } else { Weight::Hampers };
    let finding = Finding::fine("net.ipv4.ip_local_port_range", weight, format!("{low}-{high}"), why);
    let finding = finding.needing(format!("{} ports", thousands(2 * users)), usable >= 2 * users);
    let carries = (usable < users).then(|| carries(usable));
    Some(Finding { carries, ..finding.raised(To::Range(PORTS_WIDE.0, PORTS_WIDE.1)) })
}

/// Wide enough for twice the users of an address, and above the ports that servers commonly take,
/// ours included.
const PORTS_WIDE: (u16, u16) = (10_240, 65_535);

/// Whether latencies between hosts mean anything.
pub(super) fn clock(facts: &HostFacts) -> Option<Finding> {
    let clock = facts.clock?;
    let milliseconds = |us: u64| format!("{}.{} ms", us / 1_000, us % 1_000 / 100);
    let now = if clock.synchronised {
        format!("within {}", milliseconds(clock.max_error_us))
    } else {
        "unsynchronised".to_owned()
    };
    let why = format!(
        "Nothing here depends on it but reports by the second and latencies between hosts; estimated error {}, at most {}.",
        milliseconds(clock.estimated_error_us),
        milliseconds(clock.max_error_us),
    );
    let finding = Finding::fine("clock", Weight::Hampers, now, why);
    let finding = finding.needing("synchronised".to_owned(), clock.synchronised);
    Some(finding.mended_by("apt-get install chrony && chronyc waitsync 30 0.01"))
}
