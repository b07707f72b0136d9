//! A host that the server runs on.

use super::host::{self, Load, greatest};
use super::{
    KERNEL_BYTES, MACHINE_BASE_BYTES, NOFILE_MAX, SERVER_BASE_BYTES, SERVER_BYTES, USER_BYTES, USERS_PER_ADDRESS_MAX,
};
use crate::facts::HostFacts;
use crate::finding::{Finding, Weight, thousands};
use crate::tables::Tables;

const THREADS_BESIDES: u64 = 16;

/// What the host is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub connections: u64,
    /// Whether the other ends of all connections live on this host as well, with the fleet that
    /// holds them.
    pub fleet_here: bool,
    pub port: u16,
    /// How it spreads connections over descriptor tables.
    pub shards: Shards,
    /// What its descriptor tables hold.
    pub tables: Tables,
    /// The backlog that each shard listens with.
    pub backlog: u64,
}

impl Wanted {
    fn load(&self) -> Load {
        Load { connections: self.connections, ends: if self.fleet_here { 2 } else { 1 } }
    }
}

/// How a server spreads connections over descriptor tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shards {
    /// As `--connections` has it chosen: one table, or as many private ones as it takes.
    Chosen,
    Fixed {
        count: u32,
        /// Whether each has a descriptor table of its own.
        private: bool,
    },
}

/// Holds every setting that is known against what is wanted.
pub fn judge(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let one_table = wanted.connections + wanted.tables.besides(facts.cores);
    let mut findings = vec![nofile_hard(facts, wanted), host::nofile_soft(facts)];
    findings.extend(host::files(facts, wanted.load(), one_table));
    findings.extend(memory(facts, wanted));
    findings.extend(threads(facts, wanted));
    findings.extend(backlogs(facts, wanted));
    findings.extend(ports(facts, wanted));
    findings.extend(host::server_port(facts, wanted.port));
    findings.extend(host::conntrack(facts, wanted.load()));
    findings.extend(host::tcp(facts, wanted.load()));
    findings.extend(host::clock(facts));
    findings
}

/// The most connections for which there is room with at most `most` shards.
fn carried_by_chosen_shards(tables: Tables, limit: u64, cores: u32, most: u32) -> u64 {
    if most < cores {
        return 0;
    }
    let chosen = greatest(limit * u64::from(most), |n| tables.shards_for(n, limit, cores, most).is_some());
    chosen.max(tables.room(limit, cores))
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
    host::nofile_hard(facts, needed, enough, why, command, carries)
}

fn memory(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let (fleet, ends) = if wanted.fleet_here {
        (USER_BYTES + KERNEL_BYTES, "server, fleet and both ends in the kernel")
    } else {
        (0, "server and kernel")
    };
    let each = SERVER_BYTES + KERNEL_BYTES + fleet;
    let why = format!("{} bytes for each idle connection: {ends}; measured.", thousands(each));
    let machines = |connections: u64| {
        let room = facts.nofile_hard.clamp(1_024, NOFILE_MAX);
        if wanted.fleet_here { connections.div_ceil(room) } else { 0 }
    };
    let bytes = |connections| SERVER_BASE_BYTES + connections * each + machines(connections) * MACHINE_BASE_BYTES;
    host::memory(facts, wanted.load(), &why, bytes)
}

/// Only users who connect from this host take ports of it.
fn ports(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let users = wanted.connections.min(USERS_PER_ADDRESS_MAX);
    // On loopback there are as many addresses as it takes; few users have one alone.
    wanted.fleet_here.then(|| host::ports(facts, users, |usable| usable))?
}

fn threads(facts: &HostFacts, wanted: &Wanted) -> Option<Finding> {
    let (tables, limit) = (wanted.tables, facts.nofile_hard.min(NOFILE_MAX));
    let room = facts.cgroup_pids?.room().saturating_sub(THREADS_BESIDES);
    let most = u32::try_from(room).unwrap_or(u32::MAX).min(tables.shards_max);
    let (shards, carries) = match wanted.shards {
        Shards::Fixed { count, .. } => (count, if most >= count { wanted.connections } else { 0 }),
        Shards::Chosen => {
            let shards = if wanted.connections <= tables.room(limit, facts.cores) {
                Some(facts.cores)
            } else {
                tables.shards_for(wanted.connections, limit, facts.cores, tables.shards_max)
            };
            (shards.unwrap_or(tables.shards_max), carried_by_chosen_shards(tables, limit, facts.cores, most))
        }
    };
    let why = format!("A thread for each of {shards} shards, and some besides.");
    let finding = host::threads(facts, u64::from(shards) + THREADS_BESIDES, why)?;
    // With threads for as many shards as there may be, it is not threads that bind.
    let binds = !finding.enough || wanted.shards == Shards::Chosen && most < tables.shards_max;
    Some(Finding { carries: binds.then_some(carries), ..finding })
}

fn backlogs(facts: &HostFacts, wanted: &Wanted) -> Vec<Finding> {
    let backlog = wanted.backlog;
    let storm = "else a login storm overflows the accept queue, and peers wait out SYN retries of 1, 3, 7 seconds";
    let somaxconn = facts.somaxconn.map(|now| {
        let why = format!("Each shard listens with a backlog of {backlog}, cut down to this; {storm}.");
        Finding::sysctl("net.core.somaxconn", Weight::Hampers, now, backlog, why)
    });
    let half_open = facts.syn_backlog.map(|now| {
        let key = "net.ipv4.tcp_max_syn_backlog";
        if facts.syncookies != Some(0) {
            let why = "Half-open connections of a storm; heard only where tcp_syncookies is 0.";
            return Finding::fine(key, Weight::Informs, now, why);
        }
        let why =
            "Half-open connections of a storm, as many as an accept queue takes over; tcp_syncookies=1 does without.";
        Finding::sysctl(key, Weight::Hampers, now, backlog, why)
    });
    somaxconn.into_iter().chain(half_open).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Verdict;
    use crate::facts::Quota;
    use crate::finding::{To, Value};
    use crate::sys::Clock;

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
            tw_reuse: Some(2),
            timestamps: Some(1),
            syncookies: Some(1),
            port_range: Some((32_768, 60_999)),
            reserved_ports: Vec::new(),
            memory_available: Some(24 << 30),
            cgroup_memory: None,
            cgroup_pids: None,
            addresses: vec!["10.0.0.1".parse().unwrap()],
            clock: Some(Clock { synchronised: true, estimated_error_us: 40, max_error_us: 2_000 }),
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
    fn more_descriptors_than_the_kernel_allows_raise_that_first() {
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
        assert_eq!(verdict.carries, ((2 << 30) - SERVER_BASE_BYTES) / (SERVER_BYTES + KERNEL_BYTES));
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
        assert_eq!(of("fs.file-max", &untouched(), &wanted).carries, Some((2_466_170 - 343 - host::FILES_BESIDES) / 2));
        assert!(
            of("memory available", &untouched(), &wanted).carries
                < of("memory available", &untouched(), &connections(MILLION)).carries
        );
    }

    #[test]
    fn the_servers_port_must_not_be_given_to_others() {
        let facts = HostFacts { port_range: Some((1_024, 65_535)), ..untouched() };
        let taken = of("net.ipv4.ip_local_reserved_ports", &facts, &connections(1));
        assert_eq!(taken.command.as_deref(), Some("sysctl -w net.ipv4.ip_local_reserved_ports=7400"));
        let reserved = HostFacts { reserved_ports: vec![7_000..=7_500], ..facts.clone() };
        assert!(of("net.ipv4.ip_local_reserved_ports", &reserved, &connections(1)).enough);
        let others = HostFacts { reserved_ports: vec![80..=80, 90..=99], ..facts };
        let taken = of("net.ipv4.ip_local_reserved_ports", &others, &connections(1));
        assert_eq!(taken.command.as_deref(), Some("sysctl -w net.ipv4.ip_local_reserved_ports=80,90-99,7400"));
    }

    #[test]
    fn only_what_falls_short_is_raised_and_values_are_one_argument() {
        let findings = judge(&untouched(), &connections(MILLION));
        assert!(findings.iter().all(|finding| finding.raise.is_none() || !finding.enough));
        let pages = of("net.ipv4.tcp_mem", &untouched(), &connections(MILLION));
        assert_eq!(pages.command.as_deref(), Some("sysctl -w net.ipv4.tcp_mem='500000 666666 1000000'"));
        assert!(of("net.ipv4.tcp_max_syn_backlog", &untouched(), &connections(1)).enough);
        let without_cookies = HostFacts { syncookies: Some(0), ..untouched() };
        let half_open = of("net.ipv4.tcp_max_syn_backlog", &without_cookies, &connections(1));
        assert_eq!(half_open.command.as_deref(), Some("sysctl -w net.ipv4.tcp_max_syn_backlog=4096"));
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
                let To::AtLeast(values) = raise.to else { panic!("{}", raise.key) };
                let value = values[values.len() - 1];
                match raise.key {
                    "fs.nr_open" => raised.nr_open = Some(value),
                    "fs.file-max" => raised.file_max = Some(Quota { max: value, used: 500 }),
                    "net.core.somaxconn" => raised.somaxconn = Some(value),
                    "net.ipv4.tcp_max_syn_backlog" => raised.syn_backlog = Some(value),
                    "net.ipv4.tcp_mem" => raised.tcp_mem = values.try_into().ok(),
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
