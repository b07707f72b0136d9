//! What a SET passes on besides prizes: envelopes to be offered, released units, and who waits for
//! a draw.

use hongbao_proto::{Fen, OrderId};

use super::*;
use crate::ledger::{DepositResult, Posting};
use crate::market::campaign::{CampaignKind, Goods, Sale, Seed};
use crate::market::envelope::{Mode, NewEnvelope};
use crate::market::lottery::Entrant;

fn sale(fair_window_ms: u32) -> Arc<CampaignTerms> {
    let goods = Goods::Sale(Sale {
        kind: CampaignKind::Ticket,
        price: Fen(10),
        face_value: Fen::ZERO,
        hold_ms: 60_000,
        valid_from: None,
        valid_until: None,
        fair_window_ms,
    });
    Arc::new(CampaignTerms { goods, ends_at: None, per_user_limit: None, ..CampaignTerms::example() })
}

/// A rig with an open sale, campaign 2, in SET 0.
fn rig_with_sale(fair_window_ms: u32) -> Rig {
    let mut rig = Rig::new(1);
    let terms = CampaignTerms::clone(&sale(fair_window_ms));
    assert_eq!(rig.create(terms), the_sale());
    set_phase(&mut rig, fair_window_ms, SalePhase::Open);
    rig
}

fn set_phase(rig: &mut Rig, fair_window_ms: u32, phase: SalePhase) {
    let phase = Control::Phase { campaign: the_sale(), terms: sale(fair_window_ms), phase };
    rig.apply(0, Message::Control(phase));
}

fn the_sale() -> CampaignId {
    CampaignId::new(2).unwrap()
}

fn buy(id: u64) -> ClientRequest {
    ClientRequest::Grab { request: request(id), campaign: Some(the_sale()) }
}

fn send(id: u64) -> ClientRequest {
    let new = NewEnvelope {
        sender: None,
        request: request(id),
        total: Fen(1),
        shares: 1,
        mode: Mode::Equal,
        seed: Seed([1; 32]),
        greeting: "".into(),
        recipients: Arc::new([UserId::new(2).unwrap()]),
        room: None,
        lifetime_ms: 60_000,
    };
    ClientRequest::Ledger { request: request(id), wanted: LedgerRequest::Send(Box::new(new)) }
}

fn deposit(rig: &Rig, user: u64, amount: u64) {
    let posting = Posting::Deposit {
        first: UserId::new(user).unwrap(),
        count: 1,
        amount: Fen(amount),
        key: format!("of user {user}").into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let deposited = runtime.block_on(rig.shared.ledger.post_one::<DepositResult>(posting, 1));
    assert_eq!(deposited.unwrap(), DepositResult::Deposited);
}

#[test]
fn envelopes_wait_to_be_offered_and_go_only_beyond_their_bound() {
    let mut rig = Rig::new(1);
    // One user may not have so many open.
    let senders: Vec<_> = (1..=3)
        .map(|user| {
            deposit(&rig, user, 1_000_000);
            rig.welcomed(0, user)
        })
        .collect();
    // The queue of whoever offers them holds 4.
    let (held, dropped) = (limits::SET_UNSENT_MAX, 3);
    for number in 0..4 + held + dropped {
        rig.send(0, senders[number % 3].0, send(100 + number as u64));
        // Within the connection's rate.
        rig.now.at += SECOND / 50;
        rig.await_replies();
    }
    let sent: Vec<_> = senders.iter().flat_map(|(_, peer)| peer.take()).collect();
    assert!(sent.iter().all(|frame| matches!(frame.event, Some(Event::EnvelopeSent(_)))));
    assert_eq!(sent.len(), 4 + held + dropped, "the envelopes themselves are in the ledger");
    assert_eq!(rig.tally(0).offers_dropped.get(), dropped as u64);
    let mut offered = Vec::new();
    while let Ok(offering) = rig.offered.try_recv() {
        offered.push(offering.offer.envelope.get());
        rig.tick(1);
    }
    assert_eq!(offered, (1..=(4 + held) as u64).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn a_unit_given_back_reaches_the_generator_once_there_is_room() {
    let mut rig = rig_with_sale(0);
    let (key, peer) = rig.welcomed(0, 1);
    let supply = Control::Supply { campaign: the_sale(), serials: Box::new([Serial(7)]) };
    rig.apply(0, Message::Control(supply));
    rig.send(0, key, buy(10));
    rig.await_replies();
    let Event::Order(order) = peer.event() else { panic!() };
    while rig.stock_reports.try_recv().is_ok() {}
    let blocker = rig.shared.generator.clone();
    while blocker.try_send(StockReport::Wanted { set: 9, campaign: the_sale() }).is_ok() {}
    rig.send(
        0,
        key,
        ClientRequest::Ledger {
            request: request(11),
            wanted: LedgerRequest::Cancel(OrderId::new(order.order_id).unwrap()),
        },
    );
    rig.await_replies();
    assert!(matches!(peer.event(), Event::Order(_)));
    while rig.stock_reports.try_recv().is_ok() {}
    rig.tick(1);
    let reports: Vec<_> = std::iter::from_fn(|| rig.stock_reports.try_recv().ok()).collect();
    let released =
        |report: &&StockReport| matches!(report, StockReport::Released { serials, .. } if *serials == [Serial(7)]);
    assert_eq!(reports.iter().filter(released).count(), 1, "{reports:?}");
}

#[test]
fn grabs_of_the_opening_window_are_answered_by_the_draw_alone() {
    let mut rig = rig_with_sale(1_000);
    let users: Vec<_> = (1..=3).map(|user| rig.welcomed(0, user)).collect();
    for ((key, peer), id) in users.iter().zip(10..) {
        rig.send(0, *key, buy(id));
        assert!(peer.take().is_empty());
    }
    assert_eq!(rig.tally(0).owed.get(), 3);
    // One leaves before the draw, and wins all the same.
    rig.send(0, users[0].0, ClientRequest::Gone(End::Closed));
    rig.apply(0, Message::Control(Control::Draw { campaign: the_sale() }));
    let reports = std::iter::from_fn(|| rig.stock_reports.try_recv().ok());
    let entrants = reports.into_iter().find_map(|report| match report {
        StockReport::Lottery { entrants, .. } => Some(entrants),
        _ => None,
    });
    let entrants = entrants.expect("the list of those who came");
    assert_eq!(entrants.iter().map(|entrant| entrant.user.get()).collect::<Vec<_>>(), [1, 2, 3]);
    let winners: Box<[(Entrant, Serial)]> = Box::new([(entrants[2], Serial(0)), (entrants[0], Serial(1))]);
    rig.apply(0, Message::Control(Control::Drawn { campaign: the_sale(), winners }));
    rig.await_replies();
    assert!(matches!(users[1].1.event(), Event::NoneNow(_)));
    let Event::Order(order) = users[2].1.event() else { panic!() };
    assert_eq!((order.serial, order.grabbed_by_request_id), (0, 12));
    let (_, peer) = rig.login(0, 1);
    let told = peer.take();
    let Some(Event::Reminder(reminder)) = &told[1].event else { panic!("{told:?}") };
    assert_eq!(reminder.orders[0].serial, 1);
}

#[test]
fn without_a_draw_everybody_who_waits_for_it_hears_why() {
    let mut rig = rig_with_sale(1_000);
    let (key, peer) = rig.welcomed(0, 1);
    rig.send(0, key, buy(10));
    set_phase(&mut rig, 1_000, SalePhase::Ended { at: 4_000 });
    assert!(matches!(peer.event(), Event::TooLate(v1::TooLate { ended_at_ms: 4_000 })));

    let mut rig = rig_with_sale(1_000);
    let (key, peer) = rig.welcomed(0, 1);
    rig.send(0, key, buy(10));
    let window = crate::set::message::ReturnWindow { from_ms: 1, until_ms: 2 };
    rig.apply(0, Message::Control(Control::Farewell(window)));
    assert!(matches!(peer.event(), Event::Overloaded(_)));
    assert_eq!(rig.tally(0).owed.get(), 0);
}
