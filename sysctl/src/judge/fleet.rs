//! A host that machines of the fleet run on.

use std::net::{IpAddr, SocketAddr};

use super::host::{self, Load, greatest};
use super::{
    KERNEL_BYTES, MACHINE_BASE_BYTES, NOFILE_MAX, SERVER_BASE_BYTES, SERVER_BYTES, USER_BYTES, USERS_PER_ADDRESS_MAX,
};
use crate::facts::HostFacts;
use crate::finding::{Finding, Value, Weight, thousands};

/// Threads of a machine: its own, and that of its sockets.
const THREADS_PER_MACHINE: u64 = 2;

/// Threads of the fleet besides its machines.
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

    /// Machines for so many users.
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
    let finding = Finding::fine("nofile hard", Weight::Bounds, Value::Count(facts.nofile_hard), why);
    let command = (!enough).then(|| {
        let raise = format!("ulimit -Hn {needed} (systemd: LimitNOFILE={needed})");
        if wanted.machines.is_some() && machines <= MACHINES_MAX {
            format!("hongbao-sim fleet --machines {machines}, or {raise}")
        } else {
            raise
        }
    });
    let finding = Finding { needed: Value::Count(needed), enough, command, carries: Some(carries), ..finding };
    finding.lasting(|values| values.first().is_some_and(|value| *value >= needed))
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
        let finding = Finding::fine("source addresses", Weight::Bounds, Value::Words("loopback".into()), why);
        return Finding { needed: Value::Count(needed), ..finding };
    };
    let have = sources.len() as u64;
    let whose = match wanted.server {
        Some(server) => format!("towards {}", server.ip()),
        None => "with IPv4, the server being unknown (--server)".to_owned(),
    };
    let why = format!("At most {most} users connect from one, {whose}; more than one must be named to the fleet.");
    let finding = Finding::fine("source addresses", Weight::Bounds, Value::Count(have), why);
    let enough = have >= needed;
    let names: Vec<_> =
        sources.iter().take(usize::try_from(needed).unwrap_or(usize::MAX)).map(IpAddr::to_string).collect();
    let command = if !enough {
        Some(format!("ip address add ADDRESS/PREFIX dev DEVICE, for {} more", needed - have))
    } else {
        (needed > 1).then(|| format!("hongbao-sim machine --source-addresses {}", names.join(",")))
    };
    let finding = Finding { needed: Value::Count(needed), enough, command, ..finding };
    finding.carrying(have * USERS_PER_ADDRESS_MAX)
}

fn ports(facts: &HostFacts, wanted: &FleetWanted) -> Option<Finding> {
    let machines = wanted.machines(facts, wanted.users);
    match sources(facts, wanted) {
        // Each machine has addresses of its own.
        None => {
            let users = wanted.users.div_ceil(machines).min(USERS_PER_ADDRESS_MAX);
            let alike = wanted.machines.map_or(1, |machines| u64::from(machines.max(1)));
            host::ports(facts, users, |usable| alike * usable)
        }
        Some(sources) => {
            let addresses = (sources.len() as u64).max(1);
            let users = wanted.users.div_ceil(addresses).min(USERS_PER_ADDRESS_MAX);
            host::ports(facts, users, |usable| addresses * usable)
        }
    }
}
