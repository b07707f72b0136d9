//! The ledger's words as they go over the wire.

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode, movement, order::State, send_envelope};
use hongbao_proto::{RoomId, UserId};

use crate::ledger::writer::log_mismatch;
use crate::ledger::{Answer, Award, EnvelopeView, Movement, Purpose, Statement, Win};
use crate::market::campaign::CampaignTerms;
use crate::market::envelope::{Mode, Offer};
use crate::market::order::{Order, OrderState};
use crate::set::tally::AnswerKind as Kind;

pub fn won(win: &Win) -> v1::Won {
    v1::Won {
        campaign_id: win.campaign.get(),
        serial: win.serial.0,
        amount_fen: win.amount.0,
        won_by_request_id: win.request.get(),
    }
}

/// An order; `terms` of its sale, where the SET still knows it.
pub fn order(order: &Order, terms: Option<&CampaignTerms>) -> v1::Order {
    let sale = terms.and_then(CampaignTerms::sale);
    let state = match order.state {
        OrderState::Reserved => State::Reserved,
        OrderState::Paid => State::Paid,
        OrderState::Cancelled => State::Cancelled,
        OrderState::Expired => State::Expired,
    };
    v1::Order {
        order_id: order.id.get(),
        campaign_id: order.campaign.get(),
        serial: order.serial.0,
        state: state.into(),
        price_fen: order.price.0,
        reserved_at_ms: order.reserved_at,
        pay_by_ms: order.pay_by,
        decided_at_ms: order.decided_at.unwrap_or(0),
        grabbed_by_request_id: order.request.get(),
        face_value_fen: sale.map_or(0, |sale| sale.face_value.0),
        valid_from_ms: sale.and_then(|sale| sale.valid_from).unwrap_or(0),
        valid_until_ms: sale.and_then(|sale| sale.valid_until).unwrap_or(0),
    }
}

pub fn offer(offer: &Offer) -> v1::Offer {
    let mode = match offer.mode {
        Mode::Random => send_envelope::Mode::Random,
        Mode::Equal => send_envelope::Mode::Equal,
    };
    v1::Offer {
        envelope_id: offer.envelope.get(),
        sender_id: offer.sender.map_or(0, UserId::get),
        room_id: offer.room.map_or(0, RoomId::get),
        shares: offer.shares,
        mode: mode.into(),
        greeting: offer.greeting.to_string(),
        expires_at_ms: offer.expires_at,
    }
}

/// What a Grab got.
pub fn award(award: &Award, terms: Option<&CampaignTerms>) -> (Kind, Event) {
    match award {
        Award::Win(win) => (Kind::Won, Event::Won(won(win))),
        Award::Order(one) => (Kind::Order, Event::Order(order(one, terms))),
    }
}

/// The answer to a question of a user; `terms` finds those of a campaign.
pub fn answer<'a>(
    answer: &Answer,
    terms: impl Fn(&Order) -> Option<&'a CampaignTerms>,
) -> Result<(Kind, Event), ErrorCode> {
    Ok(match answer {
        Answer::Orders(page) => {
            let orders = page.items.iter().map(|one| order(one, terms(one))).collect();
            (Kind::Page, Event::OrderList(v1::OrderList { orders, more: page.more }))
        }
        Answer::Statement(Statement { balance, movements }) => {
            let page = v1::StatementPage {
                balance_fen: balance.0,
                movements: movements.items.iter().map(movement).collect(),
                more: movements.more,
            };
            (Kind::Page, Event::StatementPage(page))
        }
        Answer::Envelope(Some(view)) => (Kind::Page, Event::EnvelopeView(envelope_view(view))),
        Answer::Envelope(None) => return Err(ErrorCode::NoSuchEnvelope),
        // Of a login and of a repeated Grab.
        Answer::Recall(_) | Answer::FirstAnswer(_) => {
            log_mismatch("an answer to a question of one's own affairs");
            return Err(ErrorCode::LedgerUnavailable);
        }
    })
}

fn movement(movement: &Movement) -> v1::Movement {
    let mut told = v1::Movement {
        entry_id: movement.entry.unsigned_abs(),
        at_ms: movement.at,
        amount_fen: movement.amount,
        ..v1::Movement::default()
    };
    let kind = match movement.purpose {
        Purpose::Win(campaign, serial) => {
            told.campaign_id = campaign.get();
            told.serial = serial.0;
            movement::Kind::Win
        }
        Purpose::Open(envelope) => {
            told.envelope_id = envelope.get();
            movement::Kind::Open
        }
        Purpose::Send(envelope) => {
            told.envelope_id = envelope.get();
            movement::Kind::Send
        }
        Purpose::Return(envelope) => {
            told.envelope_id = envelope.get();
            movement::Kind::Return
        }
        Purpose::Pay(order) => {
            told.order_id = order.get();
            movement::Kind::Pay
        }
        Purpose::Deposit => movement::Kind::Deposit,
    };
    told.set_kind(kind);
    told
}

fn envelope_view(view: &EnvelopeView) -> v1::EnvelopeView {
    let opened: Vec<_> = view
        .opened
        .iter()
        .map(|(user, amount, at)| v1::OpenedShare { user_id: user.get(), amount_fen: amount.0, at_ms: *at })
        .collect();
    let luckiest = (0u32..).zip(&opened).max_by_key(|(number, share)| (share.amount_fen, std::cmp::Reverse(*number)));
    v1::EnvelopeView {
        offer: Some(offer(&view.offer)),
        total_fen: view.total.0,
        luckiest: luckiest.map(|(number, _)| number).filter(|_| view.is_over),
        refunded_fen: view.refunded.map(|refunded| refunded.0),
        opened,
    }
}
