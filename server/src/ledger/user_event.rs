//! What happened to a user, by the names that operators read: in the log (target `facts`), while
//! they follow the user (`trace`), and afterwards (`find`).

#![deny(clippy::wildcard_enum_match_arm)]

use std::fmt;

use hongbao_proto::{EnvelopeId, Fen};
use serde::Serialize;

use super::{
    Acknowledged, Award, CancelResult, ClaimResult, DepositResult, OpenResult, PayResult, PostingResult, SendResult,
    Win,
};
use crate::market::order::{Order, OrderState};

/// What became durable for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserEvent {
    Won(Win),
    Ordered(Order),
    OrderPaid(Order),
    OrderCancelled(Order),
    OrderExpired(Order),
    Opened { envelope: EnvelopeId, share: u32, amount: Fen },
    Sent { envelope: EnvelopeId, recipients: u32 },
    EnvelopeExpired { envelope: EnvelopeId, amount: Fen },
    Acknowledged { count: u32 },
    Deposited { users: u64, amount: Fen },
}

/// What an event is called: in the log, as the ledger's decision, and for people.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    pub log: &'static str,
    pub decision: &'static str,
    pub message: &'static str,
}

impl UserEvent {
    pub const fn names(&self) -> Names {
        let (log, decision, message) = match self {
            Self::Won(_) => ("win", "won", "won"),
            Self::Ordered(_) => ("order", "ordered", "taken"),
            Self::OrderPaid(_) => ("order_paid", "order", "paid"),
            Self::OrderCancelled(_) => ("order_cancelled", "released", "given back"),
            Self::OrderExpired(_) => ("order_expired", "expired", "not paid in time"),
            Self::Opened { .. } => ("open", "opened", "opened"),
            Self::Sent { .. } => ("send", "sent", "sent"),
            Self::EnvelopeExpired { .. } => ("envelope_expired", "expired", "the rest went back"),
            Self::Acknowledged { .. } => ("acknowledge", "acknowledged", "seen"),
            Self::Deposited { .. } => ("deposit", "deposited", "deposited, now or before"),
        };
        Names { log, decision, message }
    }

    pub fn details(&self) -> Details {
        match *self {
            Self::Won(win) => Details::of(&Award::Win(win)),
            Self::Ordered(order) | Self::OrderPaid(order) | Self::OrderCancelled(order) | Self::OrderExpired(order) => {
                Details::of(&Award::Order(order))
            }
            Self::Opened { envelope, share, amount } => {
                Details { share: Some(share), amount_fen: Some(amount.0), ..Details::envelope(envelope) }
            }
            Self::Sent { envelope, recipients } => {
                Details { count: Some(recipients.into()), ..Details::envelope(envelope) }
            }
            Self::EnvelopeExpired { envelope, amount } => {
                Details { amount_fen: Some(amount.0), ..Details::envelope(envelope) }
            }
            Self::Acknowledged { count } => Details::count(count.into()),
            Self::Deposited { users, amount } => Details { amount_fen: Some(amount.0), ..Details::count(users) },
        }
    }
}

/// What the ledger made of a posting: as an event, or the name of why nothing moved.
#[derive(Debug, Clone, Copy)]
pub enum Decision {
    Made(UserEvent),
    Unmoved(&'static str, Details),
}

impl Decision {
    pub fn of(result: &PostingResult) -> Self {
        let unmoved = |name| Self::Unmoved(name, Details::default());
        match result {
            PostingResult::Claim(result) => match result {
                ClaimResult::Won(win) => Self::Made(UserEvent::Won(*win)),
                ClaimResult::Ordered(order) => Self::Made(UserEvent::Ordered(*order)),
                ClaimResult::Repeated(first) => Self::Unmoved("repeated", Details::of(first)),
                ClaimResult::LimitReached { limit } => Self::Unmoved("limit_reached", Details::count((*limit).into())),
                ClaimResult::Taken => unmoved("taken"),
                ClaimResult::OutOfOrder
                | ClaimResult::NoSuchCampaign
                | ClaimResult::Settled
                | ClaimResult::NoSuchSerial
                | ClaimResult::WrongAmount => unmoved("refused"),
            },
            PostingResult::Acknowledge(Acknowledged { count: 0 }) => Self::Unmoved("acknowledged", Details::count(0)),
            PostingResult::Acknowledge(Acknowledged { count }) => Self::Made(UserEvent::Acknowledged { count: *count }),
            PostingResult::Pay(result) => match result {
                PayResult::Paid(order) => Self::Made(UserEvent::OrderPaid(*order)),
                PayResult::TooLate { .. } => unmoved("too_late"),
                PayResult::InsufficientFunds => unmoved("insufficient_funds"),
                PayResult::NoSuchOrder => unmoved("no_such_order"),
                PayResult::TooMuch => unmoved("refused"),
            },
            PostingResult::Cancel(result) => match result {
                CancelResult::Cancelled(order) => Self::Made(UserEvent::OrderCancelled(*order)),
                CancelResult::Over(order) => Self::Unmoved("order", Details::of(&Award::Order(*order))),
                CancelResult::Paid => unmoved("order_paid"),
                CancelResult::NoSuchOrder => unmoved("no_such_order"),
            },
            PostingResult::Send(result) => match result {
                SendResult::Sent { offer, to, recipients, .. } => {
                    let sent = UserEvent::Sent { envelope: offer.envelope, recipients: *recipients };
                    // A repeat, which has nobody left to be told.
                    if to.is_empty() { Self::Unmoved(sent.names().decision, sent.details()) } else { Self::Made(sent) }
                }
                SendResult::InsufficientFunds => unmoved("insufficient_funds"),
                SendResult::TooManyEnvelopes => unmoved("too_many_envelopes"),
                SendResult::TooMuch => unmoved("refused"),
            },
            PostingResult::Open(result) => match *result {
                OpenResult::Opened { envelope, share, amount } => {
                    Self::Made(UserEvent::Opened { envelope, share, amount })
                }
                OpenResult::Empty { envelope } => Self::Unmoved("empty", Details::envelope(envelope)),
                OpenResult::TooLate { .. } => unmoved("too_late"),
                OpenResult::NoSuchEnvelope => unmoved("no_such_envelope"),
            },
            // Whose they are is not known by the result.
            PostingResult::Expire(_) => unmoved("expired"),
            PostingResult::Deposit(DepositResult::Deposited) => unmoved("deposited"),
            PostingResult::Deposit(DepositResult::KeyUsed | DepositResult::TooMuch) => unmoved("refused"),
        }
    }
}

/// What an event is about, as far as it says: in JSON, and as `name=value` in lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub envelope: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount_fen: Option<u64>,
    /// How many things it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Where an order is now: reserved, paid, cancelled or expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<OrderState>,
}

/// A thing that a request can be about: what tells two of a kind apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Prize { campaign: u64, serial: u64 },
    Order(u64),
    Share { envelope: u64, share: u32 },
    Envelope(u64),
}

impl Details {
    /// Of a prize or an order.
    pub fn of(award: &Award) -> Self {
        let (campaign, serial, amount, order) = match award {
            Award::Win(win) => (win.campaign, win.serial, win.amount, None),
            Award::Order(order) => (order.campaign, order.serial, order.price, Some(order.id.get())),
        };
        let (campaign, serial, amount_fen) = (Some(campaign.get().into()), Some(serial.0), Some(amount.0));
        Self { order, campaign, serial, amount_fen, ..Self::default() }
    }

    pub fn envelope(envelope: EnvelopeId) -> Self {
        Self { envelope: Some(envelope.get()), ..Self::default() }
    }

    pub fn count(count: u64) -> Self {
        Self { count: Some(count), ..Self::default() }
    }

    /// The one thing that this is about, if there is one.
    pub fn subject(&self) -> Option<Subject> {
        match *self {
            Details { order: Some(order), .. } => Some(Subject::Order(order)),
            Details { campaign: Some(campaign), serial: Some(serial), .. } => Some(Subject::Prize { campaign, serial }),
            Details { envelope: Some(envelope), share: Some(share), .. } => Some(Subject::Share { envelope, share }),
            Details { envelope: Some(envelope), .. } => Some(Subject::Envelope(envelope)),
            Details { .. } => None,
        }
    }
}

/// ` order=7 campaign=3`: each after a space.
impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [
            ("order", self.order),
            ("campaign", self.campaign),
            ("serial", self.serial),
            ("envelope", self.envelope),
            ("share", self.share.map(u64::from)),
            ("amount_fen", self.amount_fen),
            ("count", self.count),
        ];
        for (name, number) in numbers {
            number.map_or(Ok(()), |number| write!(f, " {name}={number}"))?;
        }
        self.code.map_or(Ok(()), |code| write!(f, " code={code}"))?;
        self.state.map_or(Ok(()), |state| write!(f, " now={state}"))
    }
}
