//! A host that machines of the fleet run on.

use std::net::{IpAddr, SocketAddr};

use super::host::{self, Load, greatest};
use super::{
    KERNEL_BYTES, MACHINE_BASE_BYTES, NOFILE_MAX, SERVER_BASE_BYTES, SERVER_BYTES, USER_BYTES, USERS_PER_ADDRESS_MAX,
};
use crate::facts::HostFacts;
use crate::finding::{Finding, To, Value, Weight, thousands};

/// Threads of a machine: its own, and that of its sockets.
const THREADS_PER_MACHINE: u64 = 2;

const THREADS_BESIDES: u64 = 16;

/// Machines that one fleet starts, at most, where their number is left to descriptors.
const MACHINES_MAX: u64 = 1_024;

/// What the host is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FleetWanted {
    /// Simulated users, of all machines on this host.
    pub users: u64,
    /// Machines, each a process; `None`: as many as descriptors ask for.
    pub machines: Option<u32>,
    /// Where the server is, if that is known.
    pub server: Option<SocketAddr>,
    /// Descriptors that a machine needs besides its users'.
    pub spare_descriptors: u64,
}

impl FleetWanted {
    /// Users that one machine has descriptors for.
    fn room(&self, facts: &HostFacts) -> u64 {
        facts.nofile_hard.min(NOFILE_MAX).saturating_sub(self.spare_descriptors)
    }

    fn machines(&self, facts: &HostFacts, users: u64) -> u64 {
        match self.machines {
            Some(machines) => u64::from(machines.max(1)),
            None => users.div_ceil(self.room(facts).max(1)).clamp(1, MACHINES_MAX),
        }
    }

    fn server_here(&self, facts: &HostFacts) -> bool {
        self.server.is_some_and(|server| server.ip().is_loopback() || facts.addresses.contains(&server.ip()))
    }
}

/// Holds every setting that is known against what is wanted.
pub fn judge(facts: &HostFacts, wanted: &FleetWanted) -> Vec<Finding> {
    let server_here = wanted.server_here(facts);
    let load = Load { connections: wanted.users, ends: if server_here { 2 } else { 1 } };
    let each = wanted.users.div_ceil(wanted.machines(facts, wanted.users));
    let mut findings = vec![nofile_hard(facts, wanted), host::nofile_soft(facts)];
    findings.extend(host::files(facts, load, each + wanted.spare_descriptors));
    findings.extend(memory(facts, wanted, load, server_here));
    findings.extend(threads(facts, wanted));
    findings.push(addresses(facts, wanted));
    findings.extend(ports(facts, wanted));
    findings.extend(tw_reuse(facts, wanted));
    findings.extend(wanted.server.filter(|_| server_here).and_then(|server| host::server_port(facts, server.port())));
    findings.extend(host::conntrack(facts, load));
    findings.extend(host::tcp(facts, load));
    findings.extend(host::clock(facts));
    findings
}

fn nofile_hard(facts: &HostFacts, wanted: &FleetWanted) -> Finding {
    let (users, room) = (wanted.users, wanted.room(facts));
    let most = wanted.machines.map_or(MACHINES_MAX, |machines| u64::from(machines.max(1)));
    let (carries, needed) = (most * room, users.div_ceil(most) + wanted.spare_descriptors);
    let machines = users.div_ceil(room.max(1));
    let why = match wanted.machines {
        Some(machines) => format!(
            "A descriptor for each user in a table for each of {machines} machines, and {} besides.",
            wanted.spare_descriptors
        ),
        None => {
            format!("A descriptor for each user, in a table for each machine: --machines {machines} at this limit.")
        }
    };
    let enough = carries >= users;
    let command = (!enough).then(|| {
        let raise = format!("ulimit -Hn {needed} (systemd: LimitNOFILE={needed})");
        if wanted.machines.is_some() && machines <= MACHINES_MAX {
            format!("hongbao-sim fleet --machines {machines}, or {raise}")
        } else {
            raise
        }
    });
    host::nofile_hard(facts, needed, enough, why, command, carries)
}

fn memory(facts: &HostFacts, wanted: &FleetWanted, load: Load, server_here: bool) -> Vec<Finding> {
    let (base, server) = if server_here { (SERVER_BASE_BYTES, SERVER_BYTES + KERNEL_BYTES) } else { (0, 0) };
    let each = USER_BYTES + KERNEL_BYTES + server;
    let bytes = |users: u64| base + users * each + wanted.machines(facts, users) * MACHINE_BASE_BYTES;
    let ends = if server_here { "fleet, server and both ends in the kernel" } else { "fleet and kernel" };
    let why = format!("{} bytes for each idle user: {ends}; and some for each machine; measured.", thousands(each));
    host::memory(facts, load, &why, bytes)
}

fn threads(facts: &HostFacts, wanted: &FleetWanted) -> Option<Finding> {
    let threads = |users: u64| wanted.machines(facts, users) * THREADS_PER_MACHINE + THREADS_BESIDES;
    let why = format!("Threads of {} machines, and some besides.", wanted.machines(facts, wanted.users));
    let finding = host::threads(facts, threads(wanted.users), why)?;
    let room = facts.cgroup_pids?.room();
    let most = MACHINES_MAX * NOFILE_MAX;
    let carries = greatest(most, |users| threads(users) <= room);
    Some(Finding { carries: (carries < most).then_some(carries), ..finding })
}

/// Addresses of this host that users can connect from to the server; `None`: as many as they like.
fn sources(facts: &HostFacts, wanted: &FleetWanted) -> Option<Vec<IpAddr>> {
    let of_family = |v6: bool| {
        let addresses = facts.addresses.iter().copied();
        addresses.filter(|address| address.is_ipv6() == v6 && !address.is_loopback()).collect::<Vec<_>>()
    };
    match wanted.server.map(|server| server.ip()) {
        Some(IpAddr::V4(server)) if server.is_loopback() => None,
        // There is one.
        Some(IpAddr::V6(server)) if server.is_loopback() => Some(vec![server.into()]),
        Some(server) => Some(of_family(server.is_ipv6())),
        None => Some(of_family(false)),
    }
}

fn addresses(facts: &HostFacts, wanted: &FleetWanted) -> Finding {
    let needed = wanted.users.div_ceil(USERS_PER_ADDRESS_MAX);
    let most = thousands(USERS_PER_ADDRESS_MAX);
    let Some(sources) = sources(facts, wanted) else {
        let why = format!(
            "At most {most} users connect from one; on loopback the fleet takes what it needs from 127.64.0.0/10."
        );
        return Finding::fine("source addresses", Weight::Bounds, "loopback".to_owned(), why).needing(needed, true);
    };
    let have = sources.len() as u64;
    let whose = match wanted.server {
        Some(server) => format!("towards {}", server.ip()),
        None => "with IPv4, the server being unknown (--server)".to_owned(),
    };
    let why = format!("At most {most} users connect from one, {whose}; more than one must be named to the fleet.");
    let finding = Finding::fine("source addresses", Weight::Bounds, have, why);
    let enough = have >= needed;
    let names: Vec<_> =
        sources.iter().take(usize::try_from(needed).unwrap_or(usize::MAX)).map(IpAddr::to_string).collect();
    let command = if !enough {
        Some(format!("ip address add ADDRESS/PREFIX dev DEVICE, for {} more", needed - have))
    } else {
        (needed > 1).then(|| format!("hongbao-sim machine --source-addresses {}", names.join(",")))
    };
    Finding { command, ..finding }.needing(needed, enough).carrying(have * USERS_PER_ADDRESS_MAX)
}

fn ports(facts: &HostFacts, wanted: &FleetWanted) -> Option<Finding> {
    let (groups, alike) = match sources(facts, wanted) {
        // Each machine has addresses of its own.
        None => {
            let alike = wanted.machines.map_or(1, |machines| u64::from(machines.max(1)));
            (wanted.machines(facts, wanted.users), alike)
        }
        Some(sources) => {
            let addresses = (sources.len() as u64).max(1);
            (addresses, addresses)
        }
    };
    host::ports(facts, wanted.users.div_ceil(groups).min(USERS_PER_ADDRESS_MAX), |usable| alike * usable)
}

/// A run that follows within a minute of another finds that one's ports lingering.
fn tw_reuse(facts: &HostFacts, wanted: &FleetWanted) -> Option<Finding> {
    let reuse = facts.tw_reuse?;
    let loopback = wanted.server.is_some_and(|server| server.ip().is_loopback());
    let stamped = facts.timestamps != Some(0);
    let enough = stamped && (reuse == 1 || loopback && reuse == 2);
    let why = if stamped {
        "Else ports of a run that has just ended are taken for a minute, as if its users were still connected."
    } else {
        "Of no use as long as tcp_timestamps is 0: without them, ports of a run that has just ended are taken for a minute."
    };
    let finding = Finding::fine("net.ipv4.tcp_tw_reuse", Weight::Hampers, reuse, why);
    let finding = finding.needing(if enough { Value::Any } else { 1.into() }, enough);
    Some(if stamped {
        finding.raised(To::Switch(1))
    } else {
        finding.mended_by("sysctl -w net.ipv4.tcp_timestamps=1 net.ipv4.tcp_tw_reuse=1")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Verdict;
    use crate::facts::Quota;
    use crate::sys::Clock;

    /// A host as it comes, with one address.
    fn untouched() -> HostFacts {
        HostFacts {
            addresses: vec!["127.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            clock: Some(Clock { synchronised: true, estimated_error_us: 40, max_error_us: 2_000 }),
            cores: 2,
            nofile_soft: 1_024,
            nofile_hard: 20_000,
            port_range: Some((32_768, 60_999)),
            tw_reuse: Some(2),
            timestamps: Some(1),
            memory_available: Some(24 << 30),
            ..HostFacts::read_below("/nowhere".as_ref(), (0, 0))
        }
    }

    fn users(users: u64, server: &str) -> FleetWanted {
        FleetWanted { users, machines: None, server: Some(server.parse().unwrap()), spare_descriptors: 64 }
    }

    fn of(setting: &str, facts: &HostFacts, wanted: &FleetWanted) -> Finding {
        judge(facts, wanted).into_iter().find(|finding| finding.setting == setting).unwrap()
    }

    #[test]
    fn a_million_users_on_loopback_need_51_machines_and_addresses() {
        let wanted = users(1_000_000, "127.0.0.1:7400");
        let verdict = Verdict::of_fleet(&untouched(), &wanted);
        assert!(verdict.fits, "{verdict}");
        assert!(of("nofile hard", &untouched(), &wanted).why.contains("--machines 51 "));
        let addresses = of("source addresses", &untouched(), &wanted);
        assert_eq!((addresses.needed, addresses.carries), (Value::Count(40), None));
    }

    #[test]
    fn a_server_elsewhere_takes_25000_users_from_each_address() {
        let wanted = users(60_000, "10.0.0.1:7400");
        let verdict = Verdict::of_fleet(&untouched(), &wanted);
        assert_eq!((verdict.fits, verdict.carries, verdict.binds), (false, 25_000, "source addresses"));
        assert!(verdict.command().unwrap().ends_with("for 2 more"));
        let more = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|address| address.parse().unwrap());
        let facts = HostFacts { addresses: more.into(), ..untouched() };
        let addresses = of("source addresses", &facts, &wanted);
        assert!(addresses.enough);
        assert_eq!(
            addresses.command.as_deref(),
            Some("hongbao-sim machine --source-addresses 10.0.0.2,10.0.0.3,10.0.0.4")
        );
        assert!(!of("source addresses", &facts, &users(60_000, "[fd00::1]:7400")).enough);
    }

    #[test]
    fn past_half_of_the_ports_users_are_slow_past_all_refused() {
        let ports = |range, users_| {
            let facts = HostFacts { port_range: Some(range), ..untouched() };
            of("net.ipv4.ip_local_port_range", &facts, &users(users_, "10.0.0.1:7400"))
        };
        assert!(ports((32_768, 60_999), 14_116).enough);
        let slow = ports((32_768, 60_999), 14_117);
        assert_eq!((slow.enough, slow.weight, slow.carries), (false, Weight::Hampers, None));
        assert_eq!(slow.command.as_deref(), Some("sysctl -w net.ipv4.ip_local_port_range='10240 65535'"));
        assert!(slow.file.unwrap().starts_with("91-hongbao-client.conf:"));
        let refused = ports((40_000, 41_999), 2_001);
        assert_eq!((refused.enough, refused.weight, refused.carries), (false, Weight::Bounds, Some(2_000)));
        assert!(ports((10_240, 65_535), 25_000).enough);
    }

    #[test]
    fn so_many_machines_as_are_asked_for_hold_so_many_users() {
        let wanted = |machines| FleetWanted { machines: Some(machines), ..users(100_000, "127.0.0.1:7400") };
        let few = of("nofile hard", &untouched(), &wanted(2));
        assert_eq!((few.enough, few.carries, few.needed), (false, Some(2 * 19_936), Value::Count(50_064)));
        assert!(few.command.unwrap().starts_with("hongbao-sim fleet --machines 6, or ulimit -Hn 50064"));
        assert!(of("nofile hard", &untouched(), &wanted(6)).enough);
    }

    #[test]
    fn a_server_on_this_host_takes_its_share() {
        let (here, away) = (users(1_000, "10.0.0.2:7400"), users(1_000, "10.0.0.1:7400"));
        let needed = |wanted| match of("memory available", &untouched(), wanted).needed {
            Value::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        assert_eq!(needed(&here) - needed(&away), SERVER_BASE_BYTES + 1_000 * (SERVER_BYTES + KERNEL_BYTES));
        let facts = HostFacts { port_range: Some((1_024, 65_535)), ..untouched() };
        assert!(!of("net.ipv4.ip_local_reserved_ports", &facts, &here).enough);
        let settings: Vec<_> = judge(&facts, &away).iter().map(|finding| finding.setting).collect();
        assert!(!settings.contains(&"net.ipv4.ip_local_reserved_ports"), "a port elsewhere is nothing to us");
    }

    #[test]
    fn a_run_after_another_reuses_ports_elsewhere_only_if_told_to() {
        assert!(of("net.ipv4.tcp_tw_reuse", &untouched(), &users(1, "127.0.0.1:7400")).enough);
        let away = of("net.ipv4.tcp_tw_reuse", &untouched(), &users(1, "10.0.0.1:7400"));
        assert_eq!(away.command.as_deref(), Some("sysctl -w net.ipv4.tcp_tw_reuse=1"));
        let facts = HostFacts { tw_reuse: Some(1), timestamps: Some(0), ..untouched() };
        let unstamped = of("net.ipv4.tcp_tw_reuse", &facts, &users(1, "10.0.0.1:7400"));
        assert!(!unstamped.enough && unstamped.command.unwrap().contains("tcp_timestamps=1"));
    }

    #[test]
    fn an_unsynchronised_clock_is_a_warning_and_no_bound() {
        let clock = Some(Clock { synchronised: false, estimated_error_us: 16_000_000, max_error_us: 16_000_000 });
        let facts = HostFacts { clock, ..untouched() };
        let finding = of("clock", &facts, &users(1, "127.0.0.1:7400"));
        assert_eq!((finding.enough, finding.weight, finding.carries), (false, Weight::Hampers, None));
        assert!(finding.command.unwrap().contains("chrony"));
        assert!(Verdict::of_fleet(&facts, &users(1, "127.0.0.1:7400")).fits);
    }

    proptest! {
        #[test]
        fn a_host_fits_exactly_if_nothing_binds_and_its_load_fits(
            nofile_hard in 65u64..100_000,
            low in 1_024u16..40_000,
            width in 100u16..25_000,
            memory in (64u64 << 20)..(32 << 30),
            pids in prop::option::of(20u64..500),
            addresses in 0u8..40,
            machines in prop::option::of(1u32..60),
            count in 1u64..1_500_000,
            loopback: bool,
        ) {
            let facts = HostFacts {
                nofile_hard,
                port_range: Some((low, low + width)),
                memory_available: Some(memory),
                cgroup_pids: pids.map(|max| Quota { max, used: 3 }),
                addresses: (0..addresses).map(|last| IpAddr::from([10, 1, 0, last])).collect(),
                ..untouched()
            };
            let server = if loopback { "127.0.0.1:7400" } else { "10.0.0.1:7400" };
            let wanted = FleetWanted { machines, ..users(count, server) };
            let verdict = Verdict::of_fleet(&facts, &wanted);
            let bound = verdict.findings.iter().any(|finding| !finding.enough && finding.weight == Weight::Bounds);
            prop_assert_eq!(verdict.fits, !bound, "{}", verdict);
            if !verdict.fits && verdict.carries > 0 {
                let fewer = Verdict::of_fleet(&facts, &FleetWanted { users: verdict.carries, ..wanted });
                prop_assert!(fewer.fits, "{}\n{}", verdict, fewer);
            }
        }
    }
}
