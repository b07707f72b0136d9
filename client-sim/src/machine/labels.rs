//! The closed lists that a machine counts by. Each entry is named once; counters, JSON and metrics follow from it.

use hongbao_proto::v1::goodbye::Reason;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$entry:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$entry])* $variant,)* }

        impl $name {
            /// Every entry, in the order of its discriminant.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in JSON and metrics.
            pub const fn label(self) -> &'static str {
                match self { $($name::$variant => $label,)* }
            }
        }
    };
}

labels! {
    /// What a Grab was answered with.
    Outcome {
        /// A prize.
        Won = "won",
        /// No prize at the moment.
        NoneNow = "none_now",
        /// No prize any more.
        SoldOut = "sold_out",
        /// No capacity.
        Overloaded = "overloaded",
        /// The user holds as many as allowed.
        LimitReached = "limit_reached",
        /// Before the start.
        TooEarly = "too_early",
        /// After the end.
        TooLate = "too_late",
        /// A typed error.
        Error = "error",
    }
}

labels! {
    /// What no server may do.
    Violation {
        /// A second answer to one Grab.
        DuplicateAnswer = "duplicate_answer",
        /// An answer to a request that this user never made.
        UnknownRequest = "unknown_request",
        /// An answer that does not fit its request.
        WrongKind = "wrong_kind",
        /// One prize told to two users.
        PrizeToldToTwo = "prize_told_to_two",
        /// One prize told with two amounts.
        PrizeChanged = "prize_changed",
        /// Bytes that are no frame of the protocol.
        Malformed = "malformed",
    }
}

labels! {
    /// Why a connection ended.
    End {
        /// We stopped.
        Ours = "ours",
        /// The server closed without a word.
        Closed = "closed",
        /// The connection broke.
        Reset = "reset",
        /// The server broke the protocol.
        Protocol = "protocol",
        /// The socket took nothing for too long.
        Stuck = "stuck",
        /// No Welcome in time.
        LoginTimeout = "login_timeout",
        /// A storm that we were told to make.
        Storm = "storm",
        /// Goodbye: a newer login of the same user.
        Replaced = "goodbye_replaced",
        /// Goodbye: the server is stopping.
        Draining = "goodbye_draining",
        /// Goodbye: token refused.
        Authentication = "goodbye_authentication",
        /// Goodbye: an operator wished so.
        Kicked = "goodbye_kicked",
        /// Goodbye: no room.
        Full = "goodbye_full",
        /// Goodbye: we were silent, slow or broke the protocol, in the server's eyes.
        Blamed = "goodbye_blamed",
    }
}

impl From<Reason> for End {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Replaced => End::Replaced,
            Reason::Draining => End::Draining,
            Reason::Authentication => End::Authentication,
            Reason::Kicked => End::Kicked,
            Reason::Full => End::Full,
            Reason::Unspecified
            | Reason::LoginTimeout
            | Reason::Idle
            | Reason::Slow
            | Reason::Protocol
            | Reason::Stalled => End::Blamed,
        }
    }
}
