//! What a stranger may do how often: failed tokens and new guests by its address, messages by its
//! connection. Pure; the time is passed in, by a clock that does not go back.

use std::collections::HashMap;
use std::net::IpAddr;

/// So many at once, and one more each `interval_ms`.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    pub burst: u64,
    pub interval_ms: u64,
}

/// How much of its [`Rate`] somebody has used (generic cell rate algorithm): when the whole burst
/// is there again, milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter(u64);

impl Meter {
    /// # Errors
    /// For how many milliseconds there is none left.
    fn check(self, rate: Rate, now_ms: u64) -> Result<(), u64> {
        let latest = now_ms + (rate.burst - 1) * rate.interval_ms;
        if self.0 <= latest { Ok(()) } else { Err(self.0 - latest) }
    }

    fn spend(&mut self, rate: Rate, now_ms: u64) {
        self.0 = self.0.max(now_ms) + rate.interval_ms;
    }

    /// Whether there is one left, which is then used up.
    #[must_use]
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> bool {
        let is_left = self.check(rate, now_ms).is_ok();
        if is_left {
            self.spend(rate, now_ms);
        }
        is_left
    }
}

/// A [`Meter`] for each address.
#[derive(Debug)]
pub struct RateLimit {
    rate: Rate,
    /// Addresses remembered; those that have their whole burst again are forgotten first.
    peers_max: usize,
    meters: HashMap<IpAddr, Meter>,
}

impl RateLimit {
    /// For at most `peers_max` addresses at a time.
    pub fn new(rate: Rate, peers_max: usize) -> Self {
        Self { rate, peers_max, meters: HashMap::new() }
    }

    /// Whether `peer` has one left.
    ///
    /// # Errors
    /// Milliseconds to wait. An address that finds no room among those remembered has none either.
    pub fn check(&mut self, peer: IpAddr, now_ms: u64) -> Result<(), u64> {
        let peer = neighbourhood(peer);
        if self.meters.len() >= self.peers_max && !self.meters.contains_key(&peer) {
            self.meters.retain(|_, meter| meter.0 > now_ms);
            if self.meters.len() >= self.peers_max {
                return Err(self.rate.interval_ms);
            }
        }
        self.meters.get(&peer).copied().unwrap_or_default().check(self.rate, now_ms)
    }

    /// `peer` has used one up.
    pub fn spend(&mut self, peer: IpAddr, now_ms: u64) {
        self.meters.entry(neighbourhood(peer)).or_default().spend(self.rate, now_ms);
    }

    /// [`check`](Self::check), and uses it up.
    ///
    /// # Errors
    /// As there.
    pub fn take(&mut self, peer: IpAddr, now_ms: u64) -> Result<(), u64> {
        self.check(peer, now_ms)?;
        self.spend(peer, now_ms);
        Ok(())
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

    fn limit(burst: u64, interval_ms: u64, peers_max: usize) -> RateLimit {
        RateLimit::new(Rate { burst, interval_ms }, peers_max)
    }

    #[test]
    fn a_peer_has_its_burst_then_its_rate_and_others_have_theirs() {
        let mut peers = limit(3, 1_000, 8);
        for _ in 0..3 {
            assert_eq!(peers.take(peer(1), 10_000), Ok(()));
        }
        assert_eq!(peers.take(peer(1), 10_000), Err(1_000));
        assert_eq!(peers.take(peer(1), 10_400), Err(600));
        assert_eq!(peers.take(peer(2), 10_400), Ok(()));
        assert_eq!(peers.take(peer(1), 11_000), Ok(()));
        assert_eq!(peers.take(peer(1), 11_000), Err(1_000));
    }

    #[test]
    fn addresses_remembered_are_bounded_and_a_neighbourhood_is_one() {
        let mut peers = limit(1, 1_000, 2);
        assert_eq!((peers.take(peer(1), 0), peers.take(peer(2), 500)), (Ok(()), Ok(())));
        assert_eq!(peers.take(peer(3), 600), Err(1_000));
        assert_eq!(peers.take(peer(3), 1_000), Ok(()), "the first has its burst again and is forgotten");
        let mut peers = limit(1, 1_000, 2);
        assert_eq!(peers.take("2001:db8::1".parse().unwrap(), 0), Ok(()));
        assert!(peers.take("2001:db8::2".parse().unwrap(), 0).is_err());
        assert_eq!(peers.take("2001:db8:0:1::2".parse().unwrap(), 0), Ok(()));
    }

    #[test]
    fn a_connection_has_its_burst_and_then_its_pace() {
        let (mut meter, rate) = (Meter::default(), Rate { burst: 2, interval_ms: 50 });
        assert_eq!([0, 10, 20, 49, 50, 51].map(|now| meter.take(rate, now)), [true, true, false, false, true, false]);
    }

    proptest! {
        #[test]
        fn in_any_stretch_no_peer_gets_more_than_burst_and_rate(steps in prop::collection::vec(0u64..2_000, 1..200)) {
            let (burst, interval) = (4, 500);
            let mut peers = limit(burst, interval, 2);
            let (mut now, mut taken) = (1_000_000, Vec::new());
            for step in steps {
                now += step;
                if peers.take(peer(1), now).is_ok() {
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
