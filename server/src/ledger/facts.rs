//! What has become durable, said in the log where it did: target `facts`, level debug, one event
//! for each decision that moved or reserved something. Off unless asked for; then it costs the
//! ledger's thread one look for each batch.

use hongbao_proto::{RequestId, UserId};

use super::{Ledger, LedgerError, Outcome, Posting};
use crate::clock::UnixMs;
use crate::market::order::{Order, OrderState};

/// The target of these events.
macro_rules! fact {
    ($($fields:tt)*) => { tracing::debug!(target: "facts", $($fields)*) };
}

/// Whether anybody wants them.
pub fn are_wanted() -> bool {
    tracing::enabled!(target: "facts", tracing::Level::DEBUG)
}

/// Says what became of `posting`, which is durable. `request`: what brought it about, where it was
/// a user's.
pub fn tell(posting: &Posting, request: Option<RequestId>, outcome: &Outcome) {
    let by = posting.user().map_or(0, UserId::get);
    let request = request.map(RequestId::get);
    match (posting, outcome) {
        (Posting::Claim(claim), Outcome::Won(win)) => fact!(
            event = "win",
            user = by,
            request = claim.request.get(),
            campaign = win.campaign.get(),
            serial = win.serial.0,
            amount_fen = win.amount.0,
            "won"
        ),
        (Posting::Claim(_), Outcome::Ordered(order)) => tell_order(order),
        (Posting::Pay { .. }, Outcome::Order(order)) if order.state == OrderState::Paid => fact!(
            event = "order_paid",
            user = by,
            request,
            order = order.id.get(),
            campaign = order.campaign.get(),
            serial = order.serial.0,
            price_fen = order.price.0,
            "paid"
        ),
        (Posting::Cancel { .. }, Outcome::Released(order)) => fact!(
            event = "order_cancelled",
            user = by,
            request,
            order = order.id.get(),
            campaign = order.campaign.get(),
            serial = order.serial.0,
            "given back"
        ),
        (Posting::Open { .. }, Outcome::Opened { envelope, share, amount }) => fact!(
            event = "open",
            user = by,
            request,
            envelope = envelope.get(),
            share = *share,
            amount_fen = amount.0,
            "opened"
        ),
        (Posting::Send(new), Outcome::Sent { offer, to, recipients, .. }) if !to.is_empty() => fact!(
            event = "send",
            user = by,
            request = new.request.get(),
            envelope = offer.envelope.get(),
            recipients = *recipients,
            "sent"
        ),
        (Posting::Acknowledge { .. }, Outcome::Acknowledged { count }) if *count > 0 => {
            fact!(event = "acknowledge", user = by, request, count = *count, "seen");
        }
        (Posting::Deposit { first, count, amount, .. }, Outcome::Deposited) => fact!(
            event = "deposit",
            user = first.get(),
            users = *count,
            amount_fen = amount.0,
            "deposited, now or before"
        ),
        (Posting::Expire, Outcome::Expired(expired)) => {
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
        // A repeat, which was said before; or nothing moved.
        _ => {}
    }
}

fn tell_order(order: &Order) {
    fact!(
        event = "order",
        user = order.user.get(),
        request = order.request.get(),
        order = order.id.get(),
        campaign = order.campaign.get(),
        serial = order.serial.0,
        price_fen = order.price.0,
        state = if order.state == OrderState::Paid { "paid" } else { "reserved" },
        "taken"
    );
}

/// [`Ledger::post`] for those who post without a user's request, and says what came of it.
pub fn post(ledger: &mut dyn Ledger, postings: &[Posting], now: UnixMs) -> Result<Vec<Outcome>, LedgerError> {
    let outcomes = ledger.post(postings, now)?;
    if are_wanted() {
        for (posting, outcome) in postings.iter().zip(&outcomes) {
            tell(posting, None, outcome);
        }
    }
    Ok(outcomes)
}
