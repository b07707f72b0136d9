//! Why connections end: a closed list sorted by fault. Each connection ends once, for one of these;
//! from it follow the metric, the goodbye and the moment at which the peer may come back.

use hongbao_proto::token::TokenRefusal;
use hongbao_proto::v1::goodbye::Reason;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nobody's: the ordinary course of things.
    Nobody,
    /// The peer broke a rule.
    Peer,
    /// A stated limit was reached.
    Limit,
    /// The host: network, kernel.
    Host,
    /// Ours: an operator's or the program's decision.
    Us,
}

macro_rules! ends {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, $fault:ident, $goodbye:expr;)*) => {
        /// Why a connection ended.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum End { $($(#[$doc])* $variant,)* }

        impl End {
            /// Every reason there is.
            pub const ALL: &'static [End] = &[$(End::$variant,)*];

            /// The metric label.
            pub const fn label(self) -> &'static str {
                match self { $(End::$variant => $label,)* }
            }

            pub const fn fault(self) -> Fault {
                match self { $(End::$variant => Fault::$fault,)* }
            }

            /// The goodbye, where the socket still works.
            pub const fn goodbye(self) -> Option<Reason> {
                match self { $(End::$variant => $goodbye,)* }
            }
        }
    };
}

ends! {
    /// The peer closed its connection.
    Closed = "closed", Nobody, None;
    /// The same user logged in on a newer connection.
    Replaced = "replaced", Nobody, Some(Reason::Replaced);
    /// A frame that cannot be read, or an action out of order.
    Protocol = "protocol", Peer, Some(Reason::Protocol);
    /// A token that is not accepted.
    Authentication = "authentication", Peer, Some(Reason::Authentication);
    /// The token that the user logged in with has expired.
    TokenExpired = "token_expired", Limit, Some(Reason::Authentication);
    LoginTimeout = "login_timeout", Limit, Some(Reason::LoginTimeout);
    /// A frame was begun and not finished in time.
    Stalled = "stalled", Limit, Some(Reason::Stalled);
    /// Silent for too long.
    Idle = "idle", Limit, Some(Reason::Idle);
    /// Did not read what it was sent. A goodbye would only join the queue.
    Slow = "slow", Limit, None;
    /// The connection broke.
    Reset = "reset", Host, None;
    /// An operator asked for it.
    Kicked = "kicked", Us, Some(Reason::Kicked);
    /// The server stops.
    Draining = "draining", Us, Some(Reason::Draining);
}

/// What a peer that broke a rule seems to have got wrong: for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Hint {
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    #[error("it speaks TLS, which this port does not take")]
    Tls,
    #[error("it speaks HTTP, which this port does not take")]
    Http,
    #[error("it began with a PROXY header, which this port does not take: have the balancer send none")]
    Proxy,
    #[error("it speaks SSH, which this port does not take")]
    Ssh,
}

impl Hint {
    /// Which other protocol these first bytes of a connection are of. None of them begins a frame:
    /// as fields of a message they would be unknown ones.
    pub fn of_first_bytes(bytes: &[u8]) -> Option<Self> {
        const FOREIGN: [(&[u8], Hint); 11] = [
            (b"\x16\x03", Hint::Tls),
            (b"PROXY ", Hint::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n", Hint::Proxy),
            (b"SSH-", Hint::Ssh),
            (b"GET ", Hint::Http),
            (b"POST ", Hint::Http),
            (b"HEAD ", Hint::Http),
            (b"PUT ", Hint::Http),
            (b"OPTIONS ", Hint::Http),
            (b"CONNECT ", Hint::Http),
            (b"PRI * HTTP/2", Hint::Http),
        ];
        FOREIGN.into_iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, hint)| hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_variants_index_the_list() {
        for (index, end) in End::ALL.iter().enumerate() {
            assert_eq!(*end as usize, index);
            assert!(End::ALL.iter().filter(|other| other.label() == end.label()).count() == 1);
        }
    }
}
