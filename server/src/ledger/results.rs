//! What became of a posting, once it is durable: one enum for each kind, so that whoever asked
//! decides about all that can come of it and nothing else.

use std::sync::Arc;

use hongbao_proto::{EnvelopeId, Fen, UserId};

use super::{Award, Win};
use crate::clock::UnixMs;
use crate::market::envelope::Offer;
use crate::market::order::Order;

/// The enum of values of several types, with the way into it and, by type, out of it again. What is
/// of another type comes back as it is.
macro_rules! one_of {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident($inner:ty),)* }) => {
        $(#[$meta])*
        pub enum $name {
            $($(#[$doc])* $variant($inner),)*
        }

        $(impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                Self::$variant(inner)
            }
        }

        impl TryFrom<$name> for $inner {
            type Error = $name;

            fn try_from(one: $name) -> Result<Self, $name> {
                let $name::$variant(inner) = one else { return Err(one) };
                Ok(inner)
            }
        })*
    };
}
pub(super) use one_of;

one_of! {
    /// What became of a posting of any kind: a batch answers one for each, in order.
    #[derive(Debug, Clone, PartialEq, Eq)]
    PostingResult {
        Claim(ClaimResult),
        Acknowledge(Acknowledged),
        Pay(PayResult),
        Cancel(CancelResult),
        Send(SendResult),
        Open(OpenResult),
        Expire(Box<Expired>),
        Deposit(DepositResult),
    }
}

/// What became of a claim. Stock that is issued as the ledger says never meets the last five, whose
/// serials must be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimResult {
    /// The prize is the user's.
    Won(Win),
    /// The unit is held for the user, or theirs where it costs nothing.
    Ordered(Order),
    /// The same (user, request) had already got this; the serial offered now stays unclaimed.
    Repeated(Award),
    /// The user holds as many units of the campaign as one may; the serial stays unclaimed.
    LimitReached {
        limit: u32,
    },
    /// The request is older than what the user got last, and got nothing itself: whoever sends it
    /// again is too late. The serial stays unclaimed.
    OutOfOrder,
    /// The serial already is somebody's: stock was issued twice.
    Taken,
    NoSuchCampaign,
    /// The campaign has been settled: the rest of its fund is gone.
    Settled,
    /// The serial is not below the campaign's total.
    NoSuchSerial,
    WrongAmount,
}

/// So many of the named things (each counted once) are the user's and acknowledged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    pub count: u32,
}

/// What became of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayResult {
    /// It is paid, now or before.
    Paid(Order),
    /// It was given back, or its hold was over, since then.
    TooLate {
        at: UnixMs,
    },
    /// The wallet holds less than the price.
    InsufficientFunds,
    NoSuchOrder,
    /// Paid from outside, the sums would exceed what the books can hold.
    TooMuch,
}

/// What became of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelResult {
    /// Its unit is for sale again. Once for each order.
    Cancelled(Order),
    /// It was cancelled or had expired before.
    Over(Order),
    Paid,
    NoSuchOrder,
}

/// What became of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendResult {
    /// It is on its way. The same for a repeat, which is not offered again.
    Sent {
        offer: Arc<Offer>,
        /// Nobody where the posting repeats an earlier one.
        to: Arc<[UserId]>,
        /// How many may open it.
        recipients: u32,
        /// What the sender's wallet holds now; nothing for the house.
        balance: Fen,
    },
    /// The wallet holds less than is to be sent.
    InsufficientFunds,
    /// Too many envelopes can still be opened.
    TooManyEnvelopes,
    /// The sums would exceed what the books can hold.
    TooMuch,
}

/// What came of opening an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenResult {
    /// A share is the user's, now or before.
    Opened {
        envelope: EnvelopeId,
        /// From 0, in the order of opening.
        share: u32,
        amount: Fen,
    },
    /// Every share is somebody else's.
    Empty { envelope: EnvelopeId },
    /// It expired at that time.
    TooLate { at: UnixMs },
    /// No such envelope, or not for this user.
    NoSuchEnvelope,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Orders that were not paid in time; their units are for sale again.
    pub orders: Vec<Order>,
    /// Envelopes, and what went back to their senders.
    pub envelopes: Vec<(EnvelopeId, Option<UserId>, Fen)>,
    /// When the next one is due, if any is.
    pub next_due: Option<UnixMs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepositResult {
    /// It is made, now or before.
    Deposited,
    /// A deposit of this key went to other users, or was of another amount.
    KeyUsed,
    /// The sums would exceed what the books can hold.
    TooMuch,
}
