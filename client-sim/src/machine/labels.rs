//! The closed lists that a machine counts by.

use hongbao_proto::v1::goodbye::Reason;

use hongbao_telemetry::labels;

labels! {
    /// What a request was answered with.
    pub enum Outcome {
        Won = "won",
        /// No prize at the moment.
        NoneNow = "none_now",
        SoldOut = "sold_out",
        Overloaded = "overloaded",
        /// The user holds as many as allowed.
        LimitReached = "limit_reached",
        TooEarly = "too_early",
        TooLate = "too_late",
        Error = "error",
        Order = "order",
        Opened = "opened",
        EnvelopeEmpty = "envelope_empty",
        /// What became of a message.
        Receipt = "receipt",
        /// A page of orders or movements, or the state of a room.
        Told = "told",
    }
}

labels! {
    /// What no server may do.
    pub enum Violation {
        DuplicateAnswer = "duplicate_answer",
        /// An answer to a request that this user never made.
        UnknownRequest = "unknown_request",
        /// An answer that does not fit its request.
        WrongKind = "wrong_kind",
        PrizeToldToTwo = "prize_told_to_two",
        PrizeChanged = "prize_changed",
        Malformed = "malformed",
        /// A prize or a share of 0 fen.
        AmountZero = "amount_zero",
        /// A share of an envelope that its user was never offered.
        OpenedUnoffered = "opened_unoffered",
        /// A share told with two amounts or numbers, or told and then denied.
        ShareChanged = "share_changed",
        ShareToldToTwo = "share_told_to_two",
        /// An order that is no longer what it has become.
        OrderBackwards = "order_backwards",
        /// An order with another price, unit, sale or Grab than before.
        OrderChanged = "order_changed",
        OrderToldToTwo = "order_told_to_two",
        /// An order that expired while it was held.
        OrderExpiredEarly = "order_expired_early",
        /// One unit that is two orders' for good.
        SerialPaidTwice = "serial_paid_twice",
        /// A limit that the user had not reached.
        LimitUntrue = "limit_untrue",
        /// More units for good than one user may hold.
        LimitExceeded = "limit_exceeded",
        /// A message that its sender never said, or not to this user.
        ChatUntrue = "chat_untrue",
        /// A message of a room told twice.
        ChatRepeated = "chat_repeated",
        /// A receipt that does not add up.
        ReceiptUntrue = "receipt_untrue",
        /// A balance that is not the sum of the movements.
        BalanceUntrue = "balance_untrue",
        /// A statement without something that its user was told, or with another amount.
        StatementContradicts = "statement_contradicts",
    }
}

labels! {
    /// Why a connection ended.
    pub enum EndReason {
        /// We stopped.
        Ours = "ours",
        /// The server closed without a word.
        Closed = "closed",
        Reset = "reset",
        Protocol = "protocol",
        /// The socket took nothing for too long.
        Stuck = "stuck",
        LoginTimeout = "login_timeout",
        /// A storm that we were told to make.
        Storm = "storm",
        /// Goodbye: a newer login of the same user.
        Replaced = "goodbye_replaced",
        Draining = "goodbye_draining",
        Authentication = "goodbye_authentication",
        Kicked = "goodbye_kicked",
        Full = "goodbye_full",
        /// Goodbye: we were silent, slow or broke the protocol, in the server's eyes.
        Blamed = "goodbye_blamed",
    }
}

impl From<Reason> for EndReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Replaced => EndReason::Replaced,
            Reason::Draining => EndReason::Draining,
            Reason::Authentication => EndReason::Authentication,
            Reason::Kicked => EndReason::Kicked,
            Reason::Full => EndReason::Full,
            Reason::Unspecified
            | Reason::LoginTimeout
            | Reason::Idle
            | Reason::Slow
            | Reason::Protocol
            | Reason::Stalled => EndReason::Blamed,
        }
    }
}
