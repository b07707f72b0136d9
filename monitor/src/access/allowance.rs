//! What a stranger may do how often, by its address: failed tokens, new guests. Pure; the time is
//! passed in.

use std::collections::HashMap;
use std::net::IpAddr;

/// So many at once, and one more each `interval_ms` (generic cell rate algorithm: eight bytes an
/// address).
#[derive(Debug)]
pub struct Allowance {
    interval_ms: u64,
    burst: u64,
    /// Addresses remembered; those that have their whole burst again are forgotten first.
    peers_max: usize,
    /// When each address will have its whole burst again, Unix milliseconds.
    whole_at: HashMap<IpAddr, u64>,
}

impl Allowance {
    /// `burst` at once and one each `interval_ms`, for at most `peers_max` addresses at a time.
    pub fn new(burst: u64, interval_ms: u64, peers_max: usize) -> Self {
        Self { interval_ms, burst, peers_max, whole_at: HashMap::new() }
    }

    /// Whether `peer` has one left; otherwise for how many milliseconds it has none.
    ///
    /// # Errors
    /// Milliseconds to wait. An address that finds no room among those remembered has none either.
    pub fn left(&mut self, peer: IpAddr, now_ms: u64) -> Result<(), u64> {
        let peer = neighbourhood(peer);
        if self.whole_at.len() >= self.peers_max && !self.whole_at.contains_key(&peer) {
            self.whole_at.retain(|_, whole_at| *whole_at > now_ms);
            if self.whole_at.len() >= self.peers_max {
                return Err(self.interval_ms);
            }
        }
        let whole_at = self.whole_at.get(&peer).copied().unwrap_or(0).max(now_ms);
        let latest = now_ms + (self.burst - 1) * self.interval_ms;
        if whole_at <= latest { Ok(()) } else { Err(whole_at - latest) }
    }

    /// `peer` has used one up.
    pub fn spend(&mut self, peer: IpAddr, now_ms: u64) {
        let whole_at = self.whole_at.entry(neighbourhood(peer)).or_default();
        *whole_at = (*whole_at).max(now_ms) + self.interval_ms;
    }

    /// [`left`](Self::left), and uses it up.
    ///
    /// # Errors
    /// As there.
    pub fn take(&mut self, peer: IpAddr, now_ms: u64) -> Result<(), u64> {
        self.left(peer, now_ms)?;
        self.spend(peer, now_ms);
        Ok(())
    }
}

/// The same for one connection, which is remembered by whoever serves it.
#[derive(Debug)]
pub struct Pace {
    interval_ms: u64,
    burst: u64,
    whole_at: u64,
}

impl Pace {
    /// `burst` at once and one each `interval_ms`.
    pub fn new(burst: u64, interval_ms: u64) -> Self {
        Self { interval_ms, burst, whole_at: 0 }
    }

    /// Whether there is one left, which is then used up. The clock must not go back.
    #[must_use]
    pub fn take(&mut self, now_ms: u64) -> bool {
        let whole_at = self.whole_at.max(now_ms);
        let is_left = whole_at <= now_ms + (self.burst - 1) * self.interval_ms;
        if is_left {
            self.whole_at = whole_at + self.interval_ms;
        }
        is_left
    }
}

/// Whoever has one IPv6 address has all of its /64.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        IpAddr::V4(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn a_peer_has_its_burst_then_its_rate_and_others_have_theirs() {
        let mut allowance = Allowance::new(3, 1_000, 8);
        for _ in 0..3 {
            assert_eq!(allowance.take(peer(1), 10_000), Ok(()));
        }
        assert_eq!(allowance.take(peer(1), 10_000), Err(1_000));
        assert_eq!(allowance.take(peer(1), 10_400), Err(600));
        assert_eq!(allowance.take(peer(2), 10_400), Ok(()));
        assert_eq!(allowance.take(peer(1), 11_000), Ok(()));
        assert_eq!(allowance.take(peer(1), 11_000), Err(1_000));
    }

    #[test]
    fn addresses_remembered_are_bounded_and_a_neighbourhood_is_one() {
        let mut allowance = Allowance::new(1, 1_000, 2);
        assert_eq!((allowance.take(peer(1), 0), allowance.take(peer(2), 500)), (Ok(()), Ok(())));
        assert_eq!(allowance.take(peer(3), 600), Err(1_000));
        assert_eq!(allowance.take(peer(3), 1_000), Ok(()), "the first has its burst again and is forgotten");
        let mut allowance = Allowance::new(1, 1_000, 2);
        assert_eq!(allowance.take("2001:db8::1".parse().unwrap(), 0), Ok(()));
        assert!(allowance.take("2001:db8::2".parse().unwrap(), 0).is_err());
        assert_eq!(allowance.take("2001:db8:0:1::2".parse().unwrap(), 0), Ok(()));
    }

    #[test]
    fn a_connection_has_its_burst_and_then_its_pace() {
        let mut pace = Pace::new(2, 50);
        assert_eq!([0, 10, 20, 49, 50, 51].map(|now| pace.take(now)), [true, true, false, false, true, false]);
    }

    proptest! {
        #[test]
        fn in_any_stretch_no_peer_gets_more_than_burst_and_rate(steps in prop::collection::vec(0u64..2_000, 1..200)) {
            let (burst, interval) = (4, 500);
            let mut allowance = Allowance::new(burst, interval, 2);
            let (mut now, mut taken) = (1_000_000, Vec::new());
            for step in steps {
                now += step;
                if allowance.take(peer(1), now).is_ok() {
                    taken.push(now);
                }
            }
            for (index, &from) in taken.iter().enumerate() {
                for (count, &until) in (1u64..).zip(&taken[index..]) {
                    prop_assert!(count <= burst + (until - from) / interval + 1);
                }
            }
        }
    }
}
