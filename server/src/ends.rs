//! Why connections end: a closed list sorted by fault. Each connection ends once, for one of these;
//! from it follow the metric, the goodbye and the moment at which the peer may come back.

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
