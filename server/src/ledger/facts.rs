//! What has become durable, said in the log where it did: target `facts`, level debug, one event
//! for each decision that moved or reserved something. Off unless asked for; then it costs the
//! ledger's thread one look for each batch.

#![deny(clippy::wildcard_enum_match_arm)]

use hongbao_proto::{RequestId, UserId};

use super::{
    Acknowledged, CancelResult, ClaimResult, DepositResult, Expired, Ledger, LedgerError, OpenResult, PayResult,
    Posting, PostingResult, SendResult,
};
use crate::clock::UnixMs;
use crate::market::order::OrderState;

/// The target of these events.
macro_rules! fact {
    ($($fields:tt)*) => { tracing::debug!(target: "facts", $($fields)*) };
}

/// Whether anybody wants them.
pub fn are_wanted() -> bool {
    tracing::enabled!(target: "facts", tracing::Level::DEBUG)
}

/// Logs what became of `posting`, which is durable: not what was logged before, nor where nothing
/// moved. `request`: what brought it about, where it was a user's.
pub fn log(posting: &Posting, request: Option<RequestId>, result: &PostingResult) {
    let user = posting.user().map_or(0, UserId::get);
    let request = request.map(RequestId::get);
    match result {
        PostingResult::Claim(result) => log_claim(user, result),
        PostingResult::Acknowledge(Acknowledged { count: 0 }) => {}
        PostingResult::Acknowledge(Acknowledged { count }) => {
            fact!(event = "acknowledge", user, request, count = *count, "seen");
        }
        PostingResult::Pay(result) => match result {
            PayResult::Paid(order) => fact!(
                event = "order_paid",
                user,
                request,
                order = order.id.get(),
                campaign = order.campaign.get(),
                serial = order.serial.0,
                price_fen = order.price.0,
                "paid"
            ),
            PayResult::TooLate { .. } | PayResult::InsufficientFunds | PayResult::NoSuchOrder | PayResult::TooMuch => {}
        },
        PostingResult::Cancel(result) => match result {
            CancelResult::Cancelled(order) => fact!(
                event = "order_cancelled",
                user,
                request,
                order = order.id.get(),
                campaign = order.campaign.get(),
                serial = order.serial.0,
                "given back"
            ),
            CancelResult::Over(_) | CancelResult::Paid | CancelResult::NoSuchOrder => {}
        },
        PostingResult::Send(result) => match result {
            SendResult::Sent { to, .. } if to.is_empty() => {}
            SendResult::Sent { offer, recipients, .. } => {
                // Envelopes of the house have numbers of their own.
                let request = if let Posting::Send(new) = posting { Some(new.request.get()) } else { request };
                let (envelope, recipients) = (offer.envelope.get(), *recipients);
                fact!(event = "send", user, request, envelope, recipients, "sent");
            }
            SendResult::InsufficientFunds | SendResult::TooManyEnvelopes | SendResult::TooMuch => {}
        },
        PostingResult::Open(result) => match result {
            OpenResult::Opened { envelope, share, amount } => fact!(
                event = "open",
                user,
                request,
                envelope = envelope.get(),
                share = *share,
                amount_fen = amount.0,
                "opened"
            ),
            OpenResult::Empty { .. } | OpenResult::TooLate { .. } | OpenResult::NoSuchEnvelope => {}
        },
        PostingResult::Deposit(result) => match (posting, result) {
            (Posting::Deposit { first, count, amount, .. }, DepositResult::Deposited) => {
                let (user, users, amount_fen) = (first.get(), *count, amount.0);
                fact!(event = "deposit", user, users, amount_fen, "deposited, now or before");
            }
            (_, DepositResult::Deposited | DepositResult::KeyUsed | DepositResult::TooMuch) => {}
        },
        PostingResult::Expire(expired) => log_expired(expired),
    }
}

fn log_claim(user: u64, result: &ClaimResult) {
    match result {
        ClaimResult::Won(win) => fact!(
            event = "win",
            user,
            request = win.request.get(),
            campaign = win.campaign.get(),
            serial = win.serial.0,
            amount_fen = win.amount.0,
            "won"
        ),
        ClaimResult::Ordered(order) => fact!(
            event = "order",
            user,
            request = order.request.get(),
            order = order.id.get(),
            campaign = order.campaign.get(),
            serial = order.serial.0,
            price_fen = order.price.0,
            state = if order.state == OrderState::Paid { "paid" } else { "reserved" },
            "taken"
        ),
        ClaimResult::Repeated(_)
        | ClaimResult::LimitReached { .. }
        | ClaimResult::OutOfOrder
        | ClaimResult::Taken
        | ClaimResult::NoSuchCampaign
        | ClaimResult::Settled
        | ClaimResult::NoSuchSerial
        | ClaimResult::WrongAmount => {}
    }
}

fn log_expired(expired: &Expired) {
    for order in &expired.orders {
        fact!(
            event = "order_expired",
            user = order.user.get(),
            request = order.request.get(),
            order = order.id.get(),
            campaign = order.campaign.get(),
            serial = order.serial.0,
            "not paid in time"
        );
    }
    for (envelope, sender, returned) in &expired.envelopes {
        let user = sender.map_or(0, UserId::get);
        let (envelope, amount_fen) = (envelope.get(), returned.0);
        fact!(event = "envelope_expired", user, envelope, amount_fen, "the rest went back");
    }
}

/// [`Ledger::post`] for those who post without a user's request, and logs what came of it.
pub fn post(ledger: &mut dyn Ledger, postings: &[Posting], now: UnixMs) -> Result<Vec<PostingResult>, LedgerError> {
    let results = ledger.post(postings, now)?;
    if are_wanted() {
        for (posting, result) in postings.iter().zip(&results) {
            log(posting, None, result);
        }
    }
    Ok(results)
}
