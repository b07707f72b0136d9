//! Which addresses that a process reports may be talked to. Pure.
//!
//! Whoever holds a report token can claim any address; what we send there carries an
//! administrator's token. So an address is believed only of a process on this host, or where the
//! operator has named it.

use std::net::{IpAddr, SocketAddr};

/// Why an address is not talked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// The process did not give one.
    #[error("it reports no address")]
    None,
    /// What it gave is none.
    #[error("it reports an address that is none")]
    Malformed,
    /// Neither on this host nor named.
    #[error("its address {0} is not on this host; start the monitor with --trust-control {0} if it is yours")]
    Elsewhere(IpAddr),
}

/// The address that `claimed` is to a process whose connection comes from `peer`. An unspecified
/// one is the peer's own.
///
/// # Errors
/// One line that says why not.
pub fn address(claimed: &str, peer: IpAddr, trusted: &[IpAddr]) -> Result<SocketAddr, Untrusted> {
    if claimed.is_empty() {
        return Err(Untrusted::None);
    }
    let mut address: SocketAddr = claimed.parse().map_err(|_| Untrusted::Malformed)?;
    let peer = peer.to_canonical();
    let ip = address.ip().to_canonical();
    address.set_ip(if ip.is_unspecified() { peer } else { ip });
    let ip = address.ip();
    let is_ours = ip.is_loopback() && ip == peer;
    if is_ours || trusted.iter().any(|trusted| trusted.to_canonical() == ip) {
        Ok(address)
    } else {
        Err(Untrusted::Elsewhere(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(claimed: &str, peer: &str, trusted: &[&str]) -> Result<SocketAddr, Untrusted> {
        let trusted: Vec<IpAddr> = trusted.iter().map(|ip| ip.parse().unwrap()).collect();
        address(claimed, peer.parse().unwrap(), &trusted)
    }

    #[test]
    fn a_local_process_is_believed_and_unspecified_means_its_host() {
        let good = Ok("127.0.0.1:7402".parse().unwrap());
        assert_eq!(judged("127.0.0.1:7402", "127.0.0.1", &[]), good);
        assert_eq!(judged("0.0.0.0:7402", "127.0.0.1", &[]), good);
        assert_eq!(judged("[::]:7402", "::ffff:127.0.0.1", &[]), good);
        assert_eq!(judged("[::1]:7402", "::1", &[]), Ok("[::1]:7402".parse().unwrap()));
    }

    #[test]
    fn nobody_can_have_a_token_sent_to_an_address_of_its_choosing() {
        let elsewhere = |ip: &str| Err(Untrusted::Elsewhere(ip.parse().unwrap()));
        assert_eq!(judged("192.0.2.7:80", "127.0.0.1", &[]), elsewhere("192.0.2.7"));
        assert_eq!(judged("192.0.2.7:80", "192.0.2.7", &[]), elsewhere("192.0.2.7"));
        assert_eq!(judged("127.0.0.1:80", "192.0.2.7", &[]), elsewhere("127.0.0.1"));
        assert_eq!(judged("127.0.0.2:80", "127.0.0.1", &[]), elsewhere("127.0.0.2"));
        assert_eq!(judged("0.0.0.0:80", "192.0.2.7", &[]), elsewhere("192.0.2.7"));
        assert_eq!(judged("", "127.0.0.1", &[]), Err(Untrusted::None));
        for none in ["evil.example:80", "127.0.0.1", "http://127.0.0.1:80", "127.0.0.1:99999"] {
            assert_eq!(judged(none, "127.0.0.1", &[]), Err(Untrusted::Malformed), "{none}");
        }
    }

    #[test]
    fn an_address_that_the_operator_has_named_is_believed() {
        let good = Ok("192.0.2.7:80".parse().unwrap());
        assert_eq!(judged("192.0.2.7:80", "192.0.2.7", &["192.0.2.7"]), good);
        assert_eq!(judged("0.0.0.0:80", "192.0.2.7", &["192.0.2.7"]), good);
        assert!(judged("192.0.2.8:80", "192.0.2.7", &["192.0.2.7"]).is_err());
    }
}
