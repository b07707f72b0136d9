//! Holds a host's limits against the connections wanted. Pure: values in, findings out.

use std::fmt;

use serde::Serialize;

use crate::facts::HostFacts;
use crate::tables::Tables;

/// Memory of the server for one idle, logged-in connection, bytes; measured: 0.9 to 1.0 KiB.
pub const SERVER_BYTES: u64 = 1_024;

/// Memory of a simulated user, bytes, where the fleet runs on the same host.
pub const FLEET_BYTES: u64 = 1_228;

/// Memory of the kernel for one end of an idle connection, bytes; measured: 6.4 KiB for both ends.
pub const KERNEL_BYTES: u64 = 3_277;

/// What the server takes without any connection, with its queues full, bytes.
pub const BASE_BYTES: u64 = 128 * 1_024 * 1_024;

/// Open files of the server besides its connections, however many shards it has.
const FILES_BESIDES: u64 = 8_192;

/// Threads of the server besides its shards.
const THREADS_BESIDES: u64 = 16;

/// Above every limit of descriptors that Linux allows, so that sums over tables cannot overflow.
const NOFILE_MAX: u64 = 1 << 31;

/// The kernel's own bound of `tcp_child_ehash_entries`.
const EHASH_ENTRIES_MAX: u64 = 1 << 24;

/// What the host is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Connections of the server.
    pub connections: u64,
    /// Whether the other ends of all connections live on this host as well, with the fleet that holds them.
    pub fleet_here: bool,
    /// Where the server listens.
    pub port: u16,
    /// How it spreads connections over descriptor tables.
    pub shards: Shards,
    /// What its descriptor tables hold.
    pub tables: Tables,
    /// The backlog that each shard listens with.
    pub backlog: u64,
}

impl Wanted {
    /// Ends of a connection on this host.
    fn ends(&self) -> u64 {
        if self.fleet_here { 2 } else { 1 }
    }
}

/// How a server spreads connections over descriptor tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// As `--connections` has it chosen: one table, or as many private ones as it takes.
    Chosen,
    /// As configured.
    Fixed {
        /// How many.
        count: u32,
        /// Whether each has a descriptor table of its own.
        private: bool,
    },
}

/// What it means that a setting does not suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Connections beyond it are refused.
    Bounds,
    /// They are served, at a price.
    Hampers,
    /// Nothing today; good to know.
    Informs,
}

/// What a setting says, or should say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// Bytes.
    Bytes(u64),
    /// In words.
    Words(String),
    /// Whatever it is, it will do.
    Any,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => f.pad(&thousands(*count)),
            Self::Bytes(bytes) => {
                let tenths = u128::from(*bytes) * 10 / (1 << 30);
                f.pad(&format!("{}.{} GiB", tenths / 10, tenths % 10))
            }
            Self::Words(words) => f.pad(words),
            Self::Any => f.pad("any"),
        }
    }
}

/// `1,234,567`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A kernel setting with values that suffice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raise {
    /// Its name with dots.
    pub key: &'static str,
    /// Its values, each to be raised to, never lowered.
    pub values: Vec<u64>,
}

/// One setting, judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, as `sysctl` or the shell has it.
    pub setting: &'static str,
    /// What it is.
    pub now: Value,
    /// What it should at least be.
    pub needed: Value,
    /// Whether it suffices.
    pub enough: bool,
    /// What it means if it does not.
    pub weight: Weight,
    /// One sentence.
    pub why: String,
    /// What mends it, where it does not suffice.
    pub command: Option<String>,
    /// The most connections that it carries; `None`: however many.
    pub carries: Option<u64>,
    /// What `--fix` does about it.
    #[serde(skip)]
    pub raise: Option<Raise>,
}

impl Finding {
    /// A kernel setting that `--fix` raises where it is below `needed`.
    fn sysctl(key: &'static str, weight: Weight, now: u64, needed: u64, why: impl Into<String>) -> Self {
        Self {
            setting: key,
            now: Value::Count(now),
            needed: Value::Count(needed),
            enough: now >= needed,
            weight,
            why: why.into(),
            command: None,
            carries: None,
            raise: None,
        }
        .raised_to(vec![needed])
    }

    /// Has `--fix` raise it, if it does not suffice.
    fn raised_to(mut self, values: Vec<u64>) -> Self {
        if !self.enough {
            let text: Vec<_> = values.iter().map(u64::to_string).collect();
            self.command = Some(format!("sysctl -w {}='{}'", self.setting, text.join(" ")).replace('\'', quote(&text)));
            self.raise = Some(Raise { key: self.setting, values });
        }
        self
    }

    fn carrying(self, connections: u64) -> Self {
        Self { carries: Some(connections), ..self }
    }
}

/// Several values are one argument to the shell.
fn quote(values: &[String]) -> &'static str {
    if values.len() > 1 { "'" } else { "" }
}

/// Holds every setting that is known against what is wanted.
pub fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = vec![nofile_hard(facts, wanted), nofile_soft(facts)];
    findings.extend(files(facts, wanted));
    findings.extend(memory(facts, wanted));
    findings.extend(threads(facts, wanted));
    findings.extend(conntrack(facts, wanted));
    findings.extend(backlogs(facts, wanted));
    findings.extend(tcp(facts, wanted));
    findings.extend(port(facts, wanted));
    findings
}

/// The most connections for which there is room with at most `most` shards.
fn carried_by_chosen_shards(tables: Tables, limit: u64, cores: u32, most: u32) -> u64 {
    if most < cores {
        return 0;
    }
    let (mut fits, mut too_many) = (0, limit * u64::from(most) + 1);
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        match tables.shards_for(middle, limit, cores, most) {
            Some(_) => fits = middle,
            None => too_many = middle,
        }
    }
    fits.max(tables.room(limit, cores))
}

/// The lowest limit of descriptors at which some number of shards carries `connections`.
fn least_limit(tables: Tables, connections: u64, cores: u32) -> u64 {
    let (mut too_low, mut suffices) = (0, NOFILE_MAX);
    while suffices - too_low > 1 {
        let middle = too_low + (suffices - too_low) / 2;
        match tables.shards_for(connections, middle, cores, tables.shards_max) {
            Some(_) => suffices = middle,
            None => too_low = middle,
        }
    }
    suffices
}

fn nofile_hard(facts: &HostFacts, wanted: &Wanted) -> Finding {
    let limit = facts.nofile_hard.min(NOFILE_MAX);
    let connections = wanted.connections;
    let needed_by = |connections: u64, shards: u32| connections + wanted.tables.besides(shards);
    let (carries, needed, why) = match wanted.shards {
        Shards::Chosen => {
            let one_table = needed_by(connections, facts.cores);
            let why = match wanted.tables.shards_for(connections, limit, facts.cores, wanted.tables.shards_max) {
                _ if limit >= one_table => "One descriptor for each connection; one table holds them all.".to_owned(),
                Some(shards) => format!(
                    "Needs {shards} shards with private tables at this limit; `hongbao-server --connections {connections}` makes them."
                ),
                None => format!(
                    "Even {} shards with private tables at this limit hold too few descriptors.",
                    thousands(wanted.tables.shards_max.into())
                ),
            };
            let carries = carried_by_chosen_shards(wanted.tables, limit, facts.cores, wanted.tables.shards_max);
            (carries, least_limit(wanted.tables, connections, facts.cores).min(one_table), why)
        }
        Shards::Fixed { count, private: true } => (
            wanted.tables.room(limit, count) * u64::from(count),
            needed_by(connections.div_ceil(count.max(1).into()), count),
            format!("One descriptor for each connection, in {count} private tables."),
        ),
        Shards::Fixed { count, private: false } => (
            wanted.tables.room(limit, count),
            needed_by(connections, count),
            "One descriptor for each connection, in one table; with --connections the server makes private ones as needed."
                .to_owned(),
        ),
    };
    let enough = carries >= connections;
    let target = match wanted.shards {
        Shards::Chosen => needed_by(connections, facts.cores),
        Shards::Fixed { .. } => needed,
    };
    let command = (limit < target).then(|| {
        let first = facts.nr_open.filter(|open| *open < target);
        let first = first.map_or(String::new(), |_| format!("sysctl -w fs.nr_open={target}; "));
        let unless = if enough { " # for one table instead" } else { "" };
        format!("{first}ulimit -Hn {target}{unless} (systemd: LimitNOFILE={target})")
    });
    Finding {
        setting: "nofile hard",
        now: Value::Count(facts.nofile_hard),
        needed: Value::Count(needed),
        enough,
        weight: Weight::Bounds,
        why,
        command,
        carries: Some(carries),
        raise: None,
    }
}

fn nofile_soft(facts: &HostFacts) -> Finding {
    let low = facts.nofile_soft < facts.nofile_hard;
    Finding {
        setting: "nofile soft",
        now: Value::Count(facts.nofile_soft),
        needed: Value::Any,
        enough: true,
        weight: Weight::Informs,
        why: "The server raises its own to the hard one; a shell does not, and no program can do it for its shell."
            .into(),
        command: low.then(|| format!("ulimit -Sn {}", facts.nofile_hard)),
        carries: None,
        raise: None,
    }
}

fn files(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(nr_open) = facts.nr_open {
        let one_table = wanted.connections + wanted.tables.besides(facts.cores);
        let why = "What `ulimit -Hn` can be raised to; matters only where one table is to hold all connections.";
        findings.push(Finding::sysctl("fs.nr_open", Weight::Informs, nr_open, one_table, why));
    }
    if let Some(files) = facts.file_max {
        let besides = files.used.saturating_add(FILES_BESIDES);
        let needed = besides.saturating_add(wanted.connections * wanted.ends());
        let why = format!(
            "Files of the whole host: {} for each connection, besides those open now; CAP_SYS_ADMIN may exceed it.",
            wanted.ends()
        );
        let carries = files.max.saturating_sub(besides) / wanted.ends();
        findings.push(Finding::sysctl("fs.file-max", Weight::Bounds, files.max, needed, why).carrying(carries));
    }
    findings
}

fn memory(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let each = SERVER_BYTES + KERNEL_BYTES + if wanted.fleet_here { FLEET_BYTES + KERNEL_BYTES } else { 0 };
    let needed = BASE_BYTES + wanted.connections * each;
    let finding = |setting, available: u64, command: &str| {
        let enough = available >= needed;
        let ends = if wanted.fleet_here { "server, fleet and both ends in the kernel" } else { "server and kernel" };
        Finding {
            setting,
            now: Value::Bytes(available),
            needed: Value::Bytes(needed),
            enough,
            weight: Weight::Bounds,
            why: format!("{} bytes for each idle connection: {ends}; measured.", thousands(each)),
            command: (!enough).then(|| command.to_owned()),
            carries: Some(available.saturating_sub(BASE_BYTES) / each),
            raise: None,
        }
    };
    let host = facts.memory_available.map(|bytes| finding("memory available", bytes, "free memory, or add some"));
    let group = facts.cgroup_memory.map(|quota| {
        let max = needed.saturating_add(quota.used);
        finding("cgroup memory left", quota.room(), &format!("systemctl set-property UNIT MemoryMax={max}"))
    });
    host.into_iter().chain(group).collect()
}

fn threads(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let room = facts.cgroup_pids?.room();
    let limit = facts.nofile_hard.min(NOFILE_MAX);
    let most = u32::try_from(room.saturating_sub(THREADS_BESIDES)).unwrap_or(u32::MAX).min(wanted.tables.shards_max);
    let (shards, carries) = match wanted.shards {
        Shards::Fixed { count, .. } => (count, if most >= count { wanted.connections } else { 0 }),
        Shards::Chosen if wanted.connections <= wanted.tables.room(limit, facts.cores) => {
            (facts.cores, carried_by_chosen_shards(wanted.tables, limit, facts.cores, most))
        }
        Shards::Chosen => (
            wanted
                .tables
                .shards_for(wanted.connections, limit, facts.cores, wanted.tables.shards_max)
                .unwrap_or(wanted.tables.shards_max),
            carried_by_chosen_shards(wanted.tables, limit, facts.cores, most),
        ),
    };
    let needed = u64::from(shards) + THREADS_BESIDES;
    let enough = room >= needed;
    Some(Finding {
        setting: "cgroup pids left",
        now: Value::Count(room),
        needed: Value::Count(needed),
        enough,
        weight: Weight::Bounds,
        why: format!("A thread for each of {shards} shards, and some besides."),
        command: (!enough).then(|| {
            let max = needed + facts.cgroup_pids.map_or(0, |quota| quota.used);
            format!("systemctl set-property UNIT TasksMax={max}")
        }),
        // With threads for as many shards as there may be, it is not threads that bind.
        carries: (!enough || wanted.shards == Shards::Chosen && most < wanted.tables.shards_max).then_some(carries),
        raise: None,
    })
}

fn conntrack(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let flows = facts.conntrack?;
    let (weight, why) = if flows.used > 0 {
        (Weight::Bounds, "A firewall here tracks flows, and drops those beyond this.")
    } else {
        (Weight::Informs, "Nothing is tracked now; a firewall rule that looks at connection states would change that.")
    };
    let needed = wanted.connections.saturating_add(flows.used);
    let finding = Finding::sysctl("net.netfilter.nf_conntrack_max", weight, flows.max, needed, why);
    Some(finding.carrying(flows.room()))
}

fn backlogs(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let backlog = wanted.backlog;
    let storm = "else a login storm overflows the accept queue, and peers wait out SYN retries of 1, 3, 7 seconds";
    let somaxconn = facts.somaxconn.map(|now| {
        let why = format!("Each shard listens with a backlog of {backlog}, cut down to this; {storm}.");
        Finding::sysctl("net.core.somaxconn", Weight::Hampers, now, backlog, why)
    });
    let half_open = facts.syn_backlog.map(|now| {
        let why = "Half-open connections of a storm, as many as an accept queue takes over.";
        Finding::sysctl("net.ipv4.tcp_max_syn_backlog", Weight::Hampers, now, backlog, why)
    });
    somaxconn.into_iter().chain(half_open).collect()
}

fn tcp(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let sockets = wanted.connections * wanted.ends();
    let mut findings = Vec::new();
    if let Some([low, pressure, max]) = facts.tcp_mem {
        // Measured: idle connections take no page of it, one with anything unread takes one.
        let why = "Pages of bytes in flight: none for an idle connection, one for each that an announcement is on its way to.";
        let finding = Finding::sysctl("net.ipv4.tcp_mem", Weight::Hampers, max, sockets, why);
        // The kernel's own proportions.
        let values = vec![low.max(sockets / 2), pressure.max(sockets / 3 * 2), sockets];
        findings.push(finding.raised_to(values).carrying(max / wanted.ends()));
    }
    let buckets = sockets.next_power_of_two().min(EHASH_ENTRIES_MAX);
    let namespace = format!(
        "sysctl -w net.ipv4.tcp_child_ehash_entries={buckets} && ip netns add NAME, or boot with thash_entries={buckets}"
    );
    let own = facts.ehash_entries.map(|entries| (entries.unsigned_abs(), entries < 0));
    if let Some((entries, shared)) = own {
        let whose =
            if shared { "This namespace shares its parent's buckets" } else { "Buckets of the table of connections" };
        findings.push(Finding {
            setting: "net.ipv4.tcp_ehash_entries",
            now: Value::Count(entries),
            needed: Value::Count(sockets),
            enough: entries >= sockets,
            weight: Weight::Hampers,
            why: format!(
                "{whose}; with several sockets in each, every packet costs more (8 in each: below 50,000 requests/s)."
            ),
            command: (entries < sockets).then(|| namespace.clone()),
            carries: Some(entries / wanted.ends()),
            raise: None,
        });
    }
    if let Some(entries) = facts.child_ehash_entries {
        let inherited = entries == 0 && own.is_none_or(|(entries, _)| entries >= sockets);
        let enough = inherited || entries >= sockets;
        findings.push(Finding {
            setting: "net.ipv4.tcp_child_ehash_entries",
            now: Value::Count(entries),
            needed: if inherited { Value::Any } else { Value::Count(sockets) },
            enough,
            weight: Weight::Informs,
            why: "Buckets of a network namespace made from now on, a table of its own; 0: it shares this one's.".into(),
            command: (!enough).then_some(namespace),
            carries: None,
            raise: None,
        });
    }
    if let Some(entries) = facts.tw_buckets {
        findings.push(Finding {
            setting: "net.ipv4.tcp_max_tw_buckets",
            now: Value::Count(entries),
            needed: Value::Any,
            enough: true,
            weight: Weight::Informs,
            why:
                "Connections that linger in TIME_WAIT on the side that closed first; many slow a fleet's next run down."
                    .into(),
            command: None,
            carries: None,
            raise: None,
        });
    }
    findings
}

fn port(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let (low, high) = facts.port_range?;
    let port = wanted.port;
    let enough = !(low..=high).contains(&port) || facts.reserved_ports.iter().any(|range| range.contains(&port));
    let mut reserved: Vec<String> =
        facts.reserved_ports.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
    reserved.push(port.to_string());
    Some(Finding {
        setting: "net.ipv4.ip_local_port_range",
        now: Value::Words(format!("{low}-{high}")),
        needed: Value::Words(format!("without {port}")),
        enough,
        weight: Weight::Hampers,
        why: format!("An outgoing connection that happens to take {port} would keep the server from starting."),
        command: (!enough).then(|| format!("sysctl -w net.ipv4.ip_local_reserved_ports={}", reserved.join(","))),
        carries: None,
        raise: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Verdict;
    use crate::facts::Quota;

    /// A host as it comes: 2 cores, 24 GiB, 20,000 descriptors.
    fn untouched() -> HostFacts {
        HostFacts {
            cores: 2,
            nofile_soft: 20_000,
            nofile_hard: 20_000,
            nr_open: Some(1_048_576),
            file_max: Some(Quota { max: 2_466_170, used: 343 }),
            somaxconn: Some(4_096),
            syn_backlog: Some(2_048),
            tcp_mem: Some([287_898, 383_867, 575_796]),
            ehash_entries: Some(262_144),
            child_ehash_entries: Some(0),
            conntrack: Some(Quota { max: 262_144, used: 0 }),
            tw_buckets: Some(131_072),
            port_range: Some((32_768, 60_999)),
            reserved_ports: Vec::new(),
            memory_available: Some(24 << 30),
            cgroup_memory: None,
            cgroup_pids: None,
        }
    }

    fn of(setting: &str, facts: &HostFacts, wanted: &Wanted) -> Finding {
        judge(facts, wanted).into_iter().find(|finding| finding.setting == setting).unwrap()
    }

    const MILLION: u64 = 1_000_000;

    const TABLES: Tables = Tables { fixed: 64, per_shard: 6, shards_max: 1_024 };

    fn connections(connections: u64) -> Wanted {
        let (tables, backlog) = (TABLES, 4_096);
        Wanted { connections, fleet_here: false, port: 7_400, shards: Shards::Chosen, tables, backlog }
    }

    #[test]
    fn a_low_limit_of_descriptors_asks_for_shards_and_binds_nothing() {
        let nofile = of("nofile hard", &untouched(), &connections(MILLION));
        assert!(nofile.enough && nofile.carries.unwrap() > MILLION, "{nofile:?}");
        assert!(nofile.why.contains("55 shards with private tables"), "{nofile:?}");
        let command = nofile.command.unwrap();
        assert!(command.contains("LimitNOFILE=1000076") && command.contains("for one table instead"), "{command}");
        assert!(Verdict::of(&untouched(), &connections(MILLION)).fits);
    }

    #[test]
    fn a_limit_that_the_most_shards_cannot_make_up_for_binds() {
        let facts = HostFacts { nofile_hard: 1_024, ..untouched() };
        let verdict = Verdict::of(&facts, &connections(MILLION));
        assert!(!verdict.fits);
        assert_eq!(verdict.binds, "nofile hard");
        assert!(verdict.carries < MILLION && verdict.carries > 20_000, "{}", verdict.carries);
    }

    #[test]
    fn with_shards_as_configured_their_tables_bind() {
        let shards = |count, private| Wanted { shards: Shards::Fixed { count, private }, ..connections(MILLION) };
        let shared = of("nofile hard", &untouched(), &shards(2, false));
        assert_eq!((shared.enough, shared.carries), (false, Some(TABLES.room(20_000, 2))));
        let private = of("nofile hard", &untouched(), &shards(10, true));
        assert_eq!((private.enough, private.carries), (false, Some(10 * TABLES.room(20_000, 10))));
        assert!(of("nofile hard", &untouched(), &shards(60, true)).enough);
    }

    #[test]
    fn a_command_for_more_descriptors_than_the_kernel_allows_raises_that_first() {
        let facts = HostFacts { nofile_hard: 1_024, ..untouched() };
        let command = of("nofile hard", &facts, &connections(2 * MILLION)).command.unwrap();
        assert!(command.starts_with("sysctl -w fs.nr_open=2000076; ulimit -Hn 2000076"), "{command}");
    }

    #[test]
    fn conntrack_binds_only_where_something_is_tracked() {
        let idle = Verdict::of(&untouched(), &connections(MILLION));
        assert!(idle.fits);
        let tracking = HostFacts { conntrack: Some(Quota { max: 262_144, used: 44 }), ..untouched() };
        let verdict = Verdict::of(&tracking, &connections(MILLION));
        assert_eq!((verdict.fits, verdict.carries), (false, 262_100));
        assert_eq!(verdict.binds, "net.netfilter.nf_conntrack_max");
    }

    #[test]
    fn a_control_group_binds_before_the_hosts_memory() {
        let facts = HostFacts { cgroup_memory: Some(Quota { max: 3 << 30, used: 1 << 30 }), ..untouched() };
        let verdict = Verdict::of(&facts, &connections(MILLION));
        assert_eq!((verdict.fits, verdict.binds), (false, "cgroup memory left"));
        assert_eq!(verdict.carries, ((2 << 30) - BASE_BYTES) / (SERVER_BYTES + KERNEL_BYTES));
    }

    #[test]
    fn threads_for_the_shards_must_fit_into_the_control_group() {
        let facts = HostFacts { cgroup_pids: Some(Quota { max: 40, used: 4 }), ..untouched() };
        let pids = of("cgroup pids left", &facts, &connections(MILLION));
        assert!(!pids.enough && pids.carries.unwrap() < 20 * 20_000, "{pids:?}");
        assert_eq!(pids.command.as_deref(), Some("systemctl set-property UNIT TasksMax=75"));
        assert!(of("cgroup pids left", &facts, &connections(15_000)).enough);
    }

    #[test]
    fn a_negative_number_of_buckets_is_the_parents() {
        let shared = HostFacts { ehash_entries: Some(-262_144), ..untouched() };
        let buckets = of("net.ipv4.tcp_ehash_entries", &shared, &connections(MILLION));
        assert_eq!((buckets.enough, buckets.carries, buckets.weight), (false, Some(262_144), Weight::Hampers));
        assert!(buckets.why.contains("parent"));
        assert!(buckets.command.unwrap().contains("tcp_child_ehash_entries=1048576"));
    }

    #[test]
    fn a_fleet_on_the_same_host_takes_the_other_ends() {
        let wanted = Wanted { fleet_here: true, ..connections(MILLION) };
        let buckets = of("net.ipv4.tcp_ehash_entries", &untouched(), &wanted);
        assert_eq!(buckets.needed, Value::Count(2 * MILLION));
        assert_eq!(of("fs.file-max", &untouched(), &wanted).carries, Some((2_466_170 - 343 - FILES_BESIDES) / 2));
        assert!(
            of("memory available", &untouched(), &wanted).carries
                < of("memory available", &untouched(), &connections(MILLION)).carries
        );
    }

    #[test]
    fn the_servers_port_must_not_be_given_to_others() {
        let facts = HostFacts { port_range: Some((1_024, 65_535)), ..untouched() };
        let taken = of("net.ipv4.ip_local_port_range", &facts, &connections(1));
        assert_eq!(taken.command.as_deref(), Some("sysctl -w net.ipv4.ip_local_reserved_ports=7400"));
        let reserved = HostFacts { reserved_ports: vec![7_000..=7_500], ..facts };
        assert!(of("net.ipv4.ip_local_port_range", &reserved, &connections(1)).enough);
    }

    #[test]
    fn only_what_does_not_suffice_is_raised_and_several_values_are_one_argument() {
        let findings = judge(&untouched(), &connections(MILLION));
        assert!(findings.iter().all(|finding| finding.raise.is_none() || !finding.enough));
        let pages = of("net.ipv4.tcp_mem", &untouched(), &connections(MILLION));
        assert_eq!(pages.command.as_deref(), Some("sysctl -w net.ipv4.tcp_mem='500000 666666 1000000'"));
        let half_open = of("net.ipv4.tcp_max_syn_backlog", &untouched(), &connections(1));
        assert_eq!(half_open.command.as_deref(), Some("sysctl -w net.ipv4.tcp_max_syn_backlog=4096"));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let text: Vec<_> = [0, 999, 1_000, 12_345, 1_234_567].map(thousands).into();
        assert_eq!(text, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    prop_compose! {
        fn any_host()(
            (cores, nofile_hard) in (1u32..64, 256u64..1_100_000),
            file_max in 20_000u64..10_000_000,
            memory in (256u64 << 20)..(64 << 30),
            group in prop::option::of((256u64 << 20)..(64 << 30)),
            pids in prop::option::of(80u64..2_000),
            flows in prop::option::of((1_000u64..5_000_000, 0u64..1_000)),
        ) -> HostFacts {
            HostFacts {
                cores,
                nofile_hard,
                file_max: Some(Quota { max: file_max, used: 500 }),
                memory_available: Some(memory),
                cgroup_memory: group.map(|max| Quota { max, used: 0 }),
                cgroup_pids: pids.map(|max| Quota { max, used: 0 }),
                conntrack: flows.map(|(max, used)| Quota { max, used }),
                ..untouched()
            }
        }
    }

    proptest! {
        #[test]
        fn what_a_host_carries_fits_and_one_more_does_not(facts in any_host(), wanted in 1u64..2_000_000, fleet_here: bool) {
            let wanted = Wanted { fleet_here, ..connections(wanted) };
            let verdict = Verdict::of(&facts, &wanted);
            prop_assert_eq!(verdict.fits, wanted.connections <= verdict.carries);
            let full = Verdict::of(&facts, &Wanted { connections: verdict.carries, ..wanted });
            prop_assert!(full.fits && full.carries == verdict.carries, "{:?}", full);
            let one_more = Verdict::of(&facts, &Wanted { connections: verdict.carries + 1, ..wanted });
            prop_assert!(!one_more.fits);
        }

        #[test]
        fn a_finding_suffices_exactly_for_what_it_carries(facts in any_host(), wanted in 1u64..2_000_000) {
            for finding in judge(&facts, &connections(wanted)) {
                if let Some(carries) = finding.carries {
                    prop_assert_eq!(finding.enough, carries >= wanted, "{:?}", finding);
                }
            }
        }

        #[test]
        fn raising_what_is_too_low_makes_it_suffice(facts in any_host(), wanted in 1u64..2_000_000) {
            let wanted = connections(wanted);
            let mut raised = facts.clone();
            for raise in judge(&facts, &wanted).into_iter().filter_map(|finding| finding.raise) {
                let value = raise.values[raise.values.len() - 1];
                match raise.key {
                    "fs.nr_open" => raised.nr_open = Some(value),
                    "fs.file-max" => raised.file_max = Some(Quota { max: value, used: 500 }),
                    "net.core.somaxconn" => raised.somaxconn = Some(value),
                    "net.ipv4.tcp_max_syn_backlog" => raised.syn_backlog = Some(value),
                    "net.ipv4.tcp_mem" => raised.tcp_mem = raise.values.try_into().ok(),
                    "net.netfilter.nf_conntrack_max" => {
                        raised.conntrack = facts.conntrack.map(|flows| Quota { max: value, ..flows });
                    }
                    key => panic!("{key}"),
                }
            }
            prop_assert!(judge(&raised, &wanted).iter().all(|finding| finding.raise.is_none()));
        }
    }
}
