//! Which address a user connects from. A pair of source and destination address has one range of
//! ephemeral ports, and `connect` slows down by orders of magnitude past half of it, so users are
//! spread over several source addresses.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::arguments::ArgumentError;

/// Users that connect from one address, at most.
pub const USERS_PER_ADDRESS_MAX: u32 = 25_000;

/// Where loopback sources begin, and how many there are before they repeat: 127.64.0.0 to
/// 127.127.255.255.
const LOOPBACK_BASE: u32 = 0x7f40_0000;
const LOOPBACK_COUNT: u64 = 1 << 22;

/// What `--source-addresses` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourcePolicy {
    /// On IPv4 loopback, addresses that no other machine of the fleet uses; elsewhere the kernel's
    /// choice.
    Auto,
    /// These, filled evenly.
    List(Vec<IpAddr>),
}

impl FromStr for SourcePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let parse = |part: &str| part.trim().parse().map_err(|_| format!("`{}` is no IP address", part.trim()));
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self::List)
    }
}

/// The addresses of one machine; `None`: the kernel's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(Vec<Option<IpAddr>>);

impl Sources {
    /// Addresses for `users` users of which the first has the id `first`, towards `server`.
    pub fn new(policy: &SourcePolicy, server: IpAddr, first: u64, users: u32) -> Result<Self, ArgumentError> {
        let addresses = match policy {
            SourcePolicy::List(list) => list.iter().copied().map(Some).collect(),
            SourcePolicy::Auto => match server {
                IpAddr::V4(server) if server.is_loopback() => (0..users.div_ceil(USERS_PER_ADDRESS_MAX))
                    .map(|group| Some(loopback(first + u64::from(group) * u64::from(USERS_PER_ADDRESS_MAX))))
                    .collect(),
                _ => vec![None],
            },
        };
        if addresses.len() * (USERS_PER_ADDRESS_MAX as usize) < users as usize {
            return Err(ArgumentError::Wrong(format!(
                "{users} users on {} source address(es); at most {USERS_PER_ADDRESS_MAX} fit on one: name more with --source-addresses",
                addresses.len()
            )));
        }
        Ok(Self(addresses))
    }

    /// The address of the machine's user number `user`, from 0. Neighbours connect from different
    /// addresses.
    pub fn of(&self, user: u32) -> Option<IpAddr> {
        self.0[user as usize % self.0.len()]
    }
}

/// The id of a group's first user belongs to one machine only, so its address does as well.
fn loopback(first_user: u64) -> IpAddr {
    // Below 2^22.
    #[allow(clippy::cast_possible_truncation)]
    let number = (first_user % LOOPBACK_COUNT) as u32;
    IpAddr::V4(Ipv4Addr::from(LOOPBACK_BASE + number))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn loopback_machines_share_no_address_and_hold_so_many_users() {
        let mut owners = HashSet::new();
        for machine in 0..40u64 {
            let sources = Sources::new(&SourcePolicy::Auto, LOOPBACK, 1 + machine * 60_000, 60_000).unwrap();
            let mut users: HashMap<_, u32> = HashMap::new();
            (0..60_000).for_each(|user| *users.entry(sources.of(user).unwrap()).or_default() += 1);
            assert!(users.values().all(|&count| count <= USERS_PER_ADDRESS_MAX));
            assert!(users.keys().all(|address| address.is_loopback() && owners.insert(*address)));
        }
    }

    #[test]
    fn too_many_users_for_the_listed_addresses_are_refused() {
        let policy: SourcePolicy = "10.0.0.1, 10.0.0.2".parse().unwrap();
        let server = "10.0.0.9".parse().unwrap();
        assert!(Sources::new(&policy, server, 1, 50_000).is_ok());
        let refused = Sources::new(&policy, server, 1, 50_001).unwrap_err();
        assert!(refused.to_string().starts_with("50001 users on 2 source address(es)"));
        assert!(Sources::new(&SourcePolicy::Auto, server, 1, 25_001).is_err());
        assert!("10.0.0.1,nonsense".parse::<SourcePolicy>().is_err());
    }
}
