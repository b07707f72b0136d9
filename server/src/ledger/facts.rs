//! What has become durable, said in the log where it did: target `facts`, level debug, one event
//! for each decision that moved or reserved something. Off unless asked for; then it costs the
//! ledger's thread one look for each batch.

#![deny(clippy::wildcard_enum_match_arm)]

use hongbao_proto::{RequestId, UserId};

use super::user_event::{Decision, Details, UserEvent};
use super::{DepositResult, Ledger, LedgerError, Posting, PostingResult};
use crate::clock::UnixMs;
use crate::market::order::OrderState;

pub fn are_wanted() -> bool {
    tracing::enabled!(target: "facts", tracing::Level::DEBUG)
}

/// Logs what became of `posting`, which is durable: not what was logged before, nor where nothing
/// moved. `request`: what brought it about, where it was a user's.
pub fn log(posting: &Posting, request: Option<RequestId>, result: &PostingResult) {
    match result {
        PostingResult::Expire(expired) => {
            for order in &expired.orders {
                log_event(Some(order.user), Some(order.request), UserEvent::OrderExpired(*order));
            }
            for &(envelope, sender, amount) in &expired.envelopes {
                log_event(sender, None, UserEvent::EnvelopeExpired { envelope, amount });
            }
        }
        PostingResult::Deposit(result) => match (posting, result) {
            (Posting::Deposit { first, count, amount, .. }, DepositResult::Deposited) => {
                log_event(Some(*first), None, UserEvent::Deposited { users: (*count).into(), amount: *amount });
            }
            (_, DepositResult::Deposited | DepositResult::KeyUsed | DepositResult::TooMuch) => {}
        },
        PostingResult::Claim(_)
        | PostingResult::Acknowledge(_)
        | PostingResult::Pay(_)
        | PostingResult::Cancel(_)
        | PostingResult::Send(_)
        | PostingResult::Open(_) => match Decision::of(result) {
            Decision::Made(event) => log_event(posting.user(), request_of(posting).or(request), event),
            Decision::Unmoved(..) => {}
        },
    }
}

/// A Grab has its own, and so have envelopes of the house.
fn request_of(posting: &Posting) -> Option<RequestId> {
    match posting {
        Posting::Claim(claim) => Some(claim.request),
        Posting::Send(new) => Some(new.request),
        Posting::Acknowledge { .. }
        | Posting::Pay { .. }
        | Posting::Cancel { .. }
        | Posting::Open { .. }
        | Posting::Expire
        | Posting::Deposit { .. } => None,
    }
}

/// `user`: nobody where it is the house.
fn log_event(user: Option<UserId>, request: Option<RequestId>, event: UserEvent) {
    let (user, request, names) = (user.map_or(0, UserId::get), request.map(RequestId::get), event.names());
    let Details { order, campaign, serial, envelope, share, amount_fen: fen, count, .. } = event.details();
    // As they were always called in the log.
    let (mut amount_fen, mut price_fen, mut state) = (fen, None, None);
    let (mut users, mut recipients, mut seen) = (None, None, None);
    match &event {
        UserEvent::Ordered(order) => {
            (amount_fen, price_fen) = (None, fen);
            state = Some(if order.state == OrderState::Paid { "paid" } else { "reserved" });
        }
        UserEvent::OrderPaid(_) => (amount_fen, price_fen) = (None, fen),
        UserEvent::OrderCancelled(_) | UserEvent::OrderExpired(_) => amount_fen = None,
        UserEvent::Sent { .. } => recipients = count,
        UserEvent::Acknowledged { .. } => seen = count,
        UserEvent::Deposited { .. } => users = count,
        UserEvent::Won(_) | UserEvent::Opened { .. } | UserEvent::EnvelopeExpired { .. } => {}
    }
    tracing::debug!(target: "facts", event = names.log, user, request, users, order, campaign, serial, envelope, share,
        amount_fen, price_fen, state, recipients, count = seen, "{}", names.message);
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Debug;
    use std::sync::{Arc, Mutex};

    use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, Serial};
    use hongbao_telemetry::logs::events::{FACTS, KINDS};
    use tracing::field::{Field, Visit};
    use tracing::{Event, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;
    use crate::ledger::Win;
    use crate::market::order::Order;

    /// The fields of each event that was logged.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<BTreeMap<String, BTreeSet<&'static str>>>>);

    #[derive(Default)]
    struct Fields(String, BTreeSet<&'static str>);

    impl Visit for Fields {
        fn record_str(&mut self, field: &Field, value: &str) {
            match field.name() {
                "event" => self.0 = value.to_owned(),
                name => drop(self.1.insert(name)),
            }
        }
        fn record_debug(&mut self, field: &Field, _: &dyn Debug) {
            if field.name() != "message" {
                self.1.insert(field.name());
            }
        }
    }

    impl<S: Subscriber> Layer<S> for Logged {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().unwrap().insert(fields.0, fields.1);
        }
    }

    #[test]
    fn facts_have_the_names_and_fields_of_the_table_of_events() {
        let (user, request) = (UserId::new(1).unwrap(), RequestId::new(2).unwrap());
        let (campaign, serial, amount) = (CampaignId::new(3).unwrap(), Serial(4), Fen(5));
        let envelope = EnvelopeId::new(6).unwrap();
        let order = Order {
            id: OrderId::new(7).unwrap(),
            user,
            campaign,
            serial,
            request,
            price: amount,
            state: OrderState::Reserved,
            reserved_at: 0,
            pay_by: 0,
            decided_at: None,
        };
        let logged = Logged::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logged.clone()), || {
            for event in [
                UserEvent::Won(Win { campaign, serial, amount, request }),
                UserEvent::Ordered(order),
                UserEvent::OrderPaid(order),
                UserEvent::OrderCancelled(order),
                UserEvent::OrderExpired(order),
                UserEvent::Opened { envelope, share: 0, amount },
                UserEvent::Sent { envelope, recipients: 8 },
                UserEvent::EnvelopeExpired { envelope, amount },
                UserEvent::Acknowledged { count: 9 },
                UserEvent::Deposited { users: 10, amount },
            ] {
                let is_asked_for = !matches!(event, UserEvent::EnvelopeExpired { .. } | UserEvent::Deposited { .. });
                log_event(Some(user), is_asked_for.then_some(request), event);
            }
        });
        let logged = logged.0.lock().unwrap();
        assert_eq!(logged.keys().map(String::as_str).collect::<BTreeSet<_>>(), FACTS.into());
        for (event, fields) in logged.iter() {
            let kind = KINDS.iter().find(|kind| kind.name == event).unwrap();
            assert_eq!(fields, &kind.fields.iter().copied().collect(), "{event}");
        }
    }
}
