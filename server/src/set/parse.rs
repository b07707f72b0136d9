//! What the ledger is asked for, from the wire: every field checked, every bound held to.

use std::sync::Arc;

use hongbao_proto::limits::{
    ENVELOPE_SECONDS, ENVELOPE_SECONDS_MAX, ENVELOPE_SHARES_MAX, ENVELOPE_USERS_MAX, GREETING_BYTES_MAX,
    ITEMS_PER_FRAME_MAX,
};
use hongbao_proto::v1::{self, ErrorCode, client_frame::Request};
use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, RequestId, RoomId, Serial, UserId};

use crate::ledger::{Question, Seen};
use crate::limits::{CAMPAIGN_TOTAL_MAX, ENVELOPE_FEN_MAX};
use crate::market::campaign::Seed;
use crate::market::envelope::{Mode, NewEnvelope};
use crate::set::message::LedgerRequest;

/// What a request of a user wants of the ledger, or what is wrong with it.
pub fn ledger_request(request: Request, id: RequestId) -> Result<LedgerRequest, ErrorCode> {
    match request {
        Request::Acknowledge(acknowledge) => seen(&acknowledge).map(|seen| LedgerRequest::Acknowledge(Box::new(seen))),
        Request::Open(open) => Ok(LedgerRequest::Open(envelope(open.envelope_id)?)),
        Request::SendEnvelope(send) => new_envelope(send, id).map(|new| LedgerRequest::Send(Box::new(new))),
        Request::Pay(pay) => Ok(LedgerRequest::Pay(order(pay.order_id)?)),
        Request::Cancel(cancel) => Ok(LedgerRequest::Cancel(order(cancel.order_id)?)),
        Request::Orders(orders) => {
            let before = if orders.before_order_id == 0 { None } else { Some(order(orders.before_order_id)?) };
            ask(Question::Orders { before, limit: page(orders.limit)? })
        }
        Request::Statement(statement) => {
            let before = match statement.before_entry_id {
                0 => None,
                entry => Some(i64::try_from(entry).map_err(|_| ErrorCode::OutOfRange)?),
            };
            ask(Question::Statement { before, limit: page(statement.limit)? })
        }
        Request::InspectEnvelope(inspect) => ask(Question::Envelope(envelope(inspect.envelope_id)?)),
        _ => Err(ErrorCode::UnknownRequest),
    }
}

fn ask(question: Question) -> Result<LedgerRequest, ErrorCode> {
    Ok(LedgerRequest::Ask(Box::new(question)))
}

/// What an Acknowledge names, if it is as much as may be and all can exist.
fn seen(acknowledge: &v1::Acknowledge) -> Result<Seen, ErrorCode> {
    let named = acknowledge.prizes.len() + acknowledge.envelope_ids.len() + acknowledge.order_ids.len();
    if !(1..=ITEMS_PER_FRAME_MAX).contains(&named) {
        return Err(ErrorCode::OutOfRange);
    }
    let prize = |prize: &v1::PrizeId| {
        let campaign = CampaignId::new(prize.campaign_id.into()).map_err(|_| ErrorCode::OutOfRange)?;
        if prize.serial < CAMPAIGN_TOTAL_MAX {
            Ok((campaign, Serial(prize.serial)))
        } else {
            Err(ErrorCode::OutOfRange)
        }
    };
    Ok(Seen {
        prizes: acknowledge.prizes.iter().map(prize).collect::<Result<_, _>>()?,
        envelopes: acknowledge.envelope_ids.iter().map(|id| envelope(*id)).collect::<Result<_, _>>()?,
        orders: acknowledge.order_ids.iter().map(|id| order(*id)).collect::<Result<_, _>>()?,
    })
}

fn new_envelope(send: v1::SendEnvelope, request: RequestId) -> Result<NewEnvelope, ErrorCode> {
    let mode = match send.mode() {
        v1::send_envelope::Mode::Random => Mode::Random,
        v1::send_envelope::Mode::Equal => Mode::Equal,
        v1::send_envelope::Mode::Unspecified => return Err(ErrorCode::OutOfRange),
    };
    let seconds = if send.lifetime_seconds == 0 { ENVELOPE_SECONDS } else { send.lifetime_seconds };
    let sound = (1..=ENVELOPE_SHARES_MAX).contains(&send.shares)
        && (u64::from(send.shares)..=ENVELOPE_FEN_MAX).contains(&send.total_fen)
        && send.greeting.len() <= GREETING_BYTES_MAX
        && seconds <= ENVELOPE_SECONDS_MAX
        && send.user_ids.len() <= ENVELOPE_USERS_MAX
        && (send.room_id == 0) != send.user_ids.is_empty();
    if !sound {
        return Err(ErrorCode::OutOfRange);
    }
    let room =
        if send.room_id == 0 { None } else { Some(RoomId::new(send.room_id).map_err(|_| ErrorCode::OutOfRange)?) };
    let mut users: Vec<UserId> =
        send.user_ids.iter().map(|id| UserId::new(*id).map_err(|_| ErrorCode::OutOfRange)).collect::<Result<_, _>>()?;
    users.sort_unstable();
    if users.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ErrorCode::OutOfRange);
    }
    Ok(NewEnvelope {
        sender: None,
        request,
        total: Fen(send.total_fen),
        shares: send.shares,
        mode,
        // Without randomness nothing is promised that could be guessed.
        seed: Seed::generate().map_err(|_| ErrorCode::LedgerUnavailable)?,
        greeting: send.greeting.into(),
        recipients: Arc::from(users),
        room,
        lifetime_ms: u64::from(seconds) * 1_000,
    })
}

fn envelope(id: u64) -> Result<EnvelopeId, ErrorCode> {
    EnvelopeId::new(id).map_err(|_| ErrorCode::OutOfRange)
}

fn order(id: u64) -> Result<OrderId, ErrorCode> {
    OrderId::new(id).map_err(|_| ErrorCode::OutOfRange)
}

/// How many rows a page may have.
fn page(limit: u32) -> Result<u32, ErrorCode> {
    let max = u32::try_from(ITEMS_PER_FRAME_MAX).map_err(|_| ErrorCode::OutOfRange)?;
    match limit {
        0 => Ok(max),
        limit if limit <= max => Ok(limit),
        _ => Err(ErrorCode::OutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send() -> v1::SendEnvelope {
        v1::SendEnvelope {
            total_fen: 1_000,
            shares: 10,
            mode: v1::send_envelope::Mode::Random.into(),
            user_ids: vec![9, 3, 7],
            ..Default::default()
        }
    }

    fn refused(change: impl FnOnce(&mut v1::SendEnvelope)) -> bool {
        let mut send = send();
        change(&mut send);
        matches!(ledger_request(Request::SendEnvelope(send), RequestId::new(1).unwrap()), Err(ErrorCode::OutOfRange))
    }

    #[test]
    fn an_envelope_is_taken_as_it_is_asked_for() {
        let Ok(LedgerRequest::Send(new)) = ledger_request(Request::SendEnvelope(send()), RequestId::new(1).unwrap())
        else {
            panic!()
        };
        assert_eq!(new.recipients.iter().map(|user| user.get()).collect::<Vec<_>>(), [3, 7, 9]);
        assert_eq!((new.total, new.shares, new.lifetime_ms), (Fen(1_000), 10, 86_400_000));
    }

    #[test]
    fn an_envelope_outside_of_any_bound_is_refused() {
        assert!(refused(|send| send.shares = 0));
        assert!(refused(|send| send.shares = ENVELOPE_SHARES_MAX + 1));
        assert!(refused(|send| send.total_fen = 9));
        assert!(refused(|send| send.total_fen = ENVELOPE_FEN_MAX + 1));
        assert!(refused(|send| send.mode = 0));
        assert!(refused(|send| send.mode = 77));
        assert!(refused(|send| send.greeting = "x".repeat(GREETING_BYTES_MAX + 1)));
        assert!(refused(|send| send.lifetime_seconds = ENVELOPE_SECONDS_MAX + 1));
        assert!(refused(|send| send.user_ids = (1..=ENVELOPE_USERS_MAX as u64 + 1).collect()));
        assert!(refused(|send| send.user_ids = vec![4, 4]));
        assert!(refused(|send| send.user_ids = vec![0]));
        assert!(refused(|send| send.user_ids.clear()));
        assert!(refused(|send| send.room_id = 5));
        assert!(!refused(|send| {
            send.room_id = 5;
            send.user_ids.clear();
        }));
    }

    #[test]
    fn pages_and_acknowledgements_are_bounded() {
        let id = RequestId::new(1).unwrap();
        let orders = |limit| ledger_request(Request::Orders(v1::Orders { before_order_id: 0, limit }), id);
        let Ok(LedgerRequest::Ask(question)) = orders(0) else { panic!() };
        assert_eq!(*question, Question::Orders { before: None, limit: 64 });
        assert!(matches!(orders(65), Err(ErrorCode::OutOfRange)));
        let acknowledge = |envelopes: u64| {
            let envelope_ids = (1..=envelopes).collect();
            let order_ids = vec![1; 60];
            ledger_request(Request::Acknowledge(v1::Acknowledge { prizes: Vec::new(), envelope_ids, order_ids }), id)
        };
        assert!(matches!(acknowledge(4), Ok(LedgerRequest::Acknowledge(_))));
        assert!(matches!(acknowledge(5), Err(ErrorCode::OutOfRange)));
        let nothing = ledger_request(Request::Acknowledge(v1::Acknowledge::default()), id);
        assert!(matches!(nothing, Err(ErrorCode::OutOfRange)));
    }
}
