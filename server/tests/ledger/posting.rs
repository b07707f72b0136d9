//! What the ledger answers, and what it still knows after it was closed.

use hongbao_proto::{CampaignId, Fen, Serial};
use hongbao_server::ledger::audit::audit;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{
    Acknowledged, Award, CancelResult, Claim, ClaimResult, DepositResult, Expired, Ledger, LedgerError, Means,
    OpenResult, PayResult, Posting, PostingResult, Recall, Seen, SendResult,
};
use hongbao_server::limits::{ENVELOPES_OPEN_PER_USER_MAX, EXPIRE_STEP, RECALLED_WINS_MAX};
use hongbao_server::market::campaign::{Amounts, Campaign, Goods, Settlement};
use hongbao_server::market::order::{Order, OrderState};

use super::support::{
    acknowledge, balance, cancel, claim, claim_of, deposit, envelope, envelope_id, first_answer, open, ordered, pay,
    recall, request, sale_terms, send, terms, user, won,
};

#[test]
fn a_claim_is_won_once_and_its_repeat_gets_the_first_answer() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(10, None), 5).unwrap();
    let first = PostingResult::Claim(ClaimResult::Won(won(&rain, 100, 0)));
    let again = PostingResult::Claim(ClaimResult::Repeated(Award::Win(won(&rain, 100, 0))));

    // In one batch, and in a later one; the serial offered with the repeat stays free.
    let batch = [claim(&rain, 1, 100, 0), claim(&rain, 1, 100, 1), claim(&rain, 2, 100, 0)];
    assert_eq!(ledger.post(&batch, 6).unwrap(), [first, again.clone(), PostingResult::Claim(ClaimResult::Taken)]);
    assert_eq!(ledger.post(&batch, 7).unwrap(), [again.clone(), again, PostingResult::Claim(ClaimResult::Taken)]);
    assert_eq!(ledger.claimed_serials(rain.id).unwrap(), [Serial(0)]);
    assert_eq!(first_answer(&mut ledger, 1, 100), Some(Award::Win(won(&rain, 100, 0))));
    assert_eq!(first_answer(&mut ledger, 2, 100), None);
}

#[test]
fn a_limit_holds_in_a_batch_and_a_repeat_gets_its_answer() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(10, Some(2)), 5).unwrap();
    let batch: Vec<Posting> = (0..4).map(|n| claim(&rain, 1, 10 + n, n)).collect();
    let limit = || PostingResult::Claim(ClaimResult::LimitReached { limit: 2 });
    let (zero, one) = (won(&rain, 10, 0), won(&rain, 11, 1));
    assert_eq!(
        ledger.post(&batch, 6).unwrap(),
        [PostingResult::Claim(ClaimResult::Won(zero)), PostingResult::Claim(ClaimResult::Won(one)), limit(), limit()]
    );
    let later = [claim(&rain, 1, 10, 5), claim(&rain, 1, 12, 5), claim(&rain, 1, 13, 1), claim(&rain, 2, 12, 5)];
    let expected = [
        PostingResult::Claim(ClaimResult::Repeated(Award::Win(zero))),
        limit(),
        PostingResult::Claim(ClaimResult::Taken),
        PostingResult::Claim(ClaimResult::Won(won(&rain, 12, 5))),
    ];
    assert_eq!(ledger.post(&later, 7).unwrap(), expected);
}

#[test]
fn one_impossible_claim_does_not_fail_the_others_of_its_batch() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(3, None), 5).unwrap();
    let over = ledger.create_campaign(terms(3, None), 5).unwrap();
    ledger.post(&[claim(&over, 7, 70, 0)], 5).unwrap();
    ledger.settle_campaign(over.id, 6).unwrap();
    let unknown = Campaign { id: CampaignId::new(99).unwrap(), ..rain.clone() };
    let dear = Posting::Claim(Claim { amount: Fen(501), ..claim_of(&rain, 1, 3, 1) });
    let batch = [
        claim(&unknown, 1, 1, 0),
        claim(&rain, 1, 2, 3),
        claim(&rain, 1, 2, u64::MAX),
        dear,
        claim(&over, 1, 4, 1),
        claim(&over, 7, 70, 1),
        acknowledge(1, &[(rain.id, u64::MAX)]),
        claim(&rain, 1, 5, 2),
    ];
    let expected = [
        PostingResult::Claim(ClaimResult::NoSuchCampaign),
        PostingResult::Claim(ClaimResult::NoSuchSerial),
        PostingResult::Claim(ClaimResult::NoSuchSerial),
        PostingResult::Claim(ClaimResult::WrongAmount),
        PostingResult::Claim(ClaimResult::Settled),
        PostingResult::Claim(ClaimResult::Repeated(Award::Win(won(&over, 70, 0)))),
        PostingResult::Acknowledge(Acknowledged { count: 0 }),
        PostingResult::Claim(ClaimResult::Won(won(&rain, 5, 2))),
    ];
    assert_eq!(ledger.post(&batch, 7).unwrap(), expected);
}

#[test]
fn wins_are_recalled_oldest_first_until_acknowledged() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let many = u64::try_from(RECALLED_WINS_MAX).unwrap() + 10;
    let rain = ledger.create_campaign(terms(many, None), 5).unwrap();
    // Serials run backwards: what is oldest is for the books to say.
    let batch: Vec<Posting> = (0..many).map(|n| claim(&rain, 1, 1 + n, many - 1 - n)).collect();
    ledger.post(&batch, 6).unwrap();
    let told = recall(&mut ledger, 1).unacknowledged;
    let oldest = |n: u64| Award::Win(won(&rain, 1 + n, many - 1 - n));
    assert_eq!(told, (0..many - 10).map(oldest).collect::<Vec<_>>());

    let mine = [(rain.id, many - 1), (rain.id, many - 1), (rain.id, many - 2), (rain.id, many)];
    let outcomes = ledger.post(&[acknowledge(2, &mine), acknowledge(1, &mine), acknowledge(1, &mine)], 7).unwrap();
    // Each is acknowledged once; what was acknowledged before counts no more.
    assert_eq!(outcomes, [0, 2, 0].map(|count| PostingResult::Acknowledge(Acknowledged { count })));
    let told = recall(&mut ledger, 1);
    assert_eq!((told.unacknowledged[0], told.last_request), (oldest(2), Some(request(many))));
    assert_eq!(recall(&mut ledger, 2), Recall::default());
}

#[test]
fn a_settled_campaign_gives_back_the_rest_and_settles_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(10, None), 5).unwrap();
    let dry = ledger.create_campaign(terms(1, None), 5).unwrap();
    ledger.post(&[claim(&rain, 1, 1, 4), claim(&dry, 1, 2, 0)], 6).unwrap();
    assert_eq!(ledger.stop_campaign(rain.id, 7).unwrap().stopped_at, Some(7));
    assert_eq!(ledger.stop_campaign(rain.id, 8).unwrap().stopped_at, Some(7));
    let refunded = rain.terms.total_amount().checked_sub(rain.terms.amount(Serial(4))).unwrap();
    for now in [9, 10] {
        let settled = ledger.settle_campaign(rain.id, now).unwrap();
        assert_eq!(settled.settlement, Some(Settlement { settled_at: 9, refunded }));
    }
    let settled = ledger.settle_campaign(dry.id, 9).unwrap();
    assert_eq!(settled.settlement, Some(Settlement { settled_at: 9, refunded: Fen::ZERO }));
    let nobody = CampaignId::new(9).unwrap();
    assert!(matches!(ledger.stop_campaign(nobody, 9), Err(LedgerError::NoSuchCampaign(id)) if id == nobody));
    assert!(matches!(ledger.settle_campaign(nobody, 9), Err(LedgerError::NoSuchCampaign(_))));
    assert!(matches!(ledger.claimed_serials(nobody), Err(LedgerError::NoSuchCampaign(_))));
    let report = audit(&path).unwrap();
    assert!(report.is_balanced(), "{report}");
    assert_eq!(report.refunded_fen, i128::from(refunded.0));
}

#[test]
fn bad_terms_and_more_money_than_the_books_hold_are_refused() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    assert!(matches!(ledger.create_campaign(terms(0, None), 5), Err(LedgerError::BadTerms(_))));
    let mut vast = terms(1, None);
    let amount = Fen(u64::MAX / 2);
    vast.goods = Goods::Rain { rate_per_second: 1, amounts: Amounts { min: amount, max: amount } };
    let first = ledger.create_campaign(vast.clone(), 5).unwrap();
    let refusal = ledger.create_campaign(vast, 5).unwrap_err();
    assert!(matches!(&refusal, LedgerError::BadTerms(why) if why.contains("together")), "{refusal}");
    assert_eq!(ledger.campaigns().unwrap().len(), 1);
    let batch = [
        deposit(1, 2, u64::MAX / 2, "vast"),
        deposit(1, 1, u64::MAX, "beyond"),
        send(envelope(None, 1, 5, 1, &[1])),
        claim(&first, 1, 1, 0),
    ];
    let expected = [
        DepositResult::TooMuch.into(),
        DepositResult::TooMuch.into(),
        SendResult::TooMuch.into(),
        PostingResult::Claim(ClaimResult::Won(won(&first, 1, 0))),
    ];
    assert_eq!(ledger.post(&batch, 6).unwrap(), expected);
}

#[test]
fn a_request_too_late_gets_nothing_and_its_serial_stays_free() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(10, None), 5).unwrap();
    let batch = [claim(&rain, 1, 8, 0), claim(&rain, 1, 7, 1), claim(&rain, 2, 7, 1)];
    let late = || PostingResult::Claim(ClaimResult::OutOfOrder);
    let expected = [
        PostingResult::Claim(ClaimResult::Won(won(&rain, 8, 0))),
        late(),
        PostingResult::Claim(ClaimResult::Won(won(&rain, 7, 1))),
    ];
    assert_eq!(ledger.post(&batch, 6).unwrap(), expected);
    assert_eq!(ledger.post(&[claim(&rain, 1, 7, 2)], 7).unwrap(), [late()]);
    assert_eq!(ledger.claimed_serials(rain.id).unwrap(), [Serial(0), Serial(1)]);
}

#[test]
fn a_unit_is_held_paid_cancelled_or_expired_and_shown_so() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let sale = ledger.create_campaign(sale_terms(4, None, 300), 5).unwrap();
    ledger.post(&[deposit(1, 1, 500, "start")], 5).unwrap();
    let grabs: Vec<Posting> = (0..4).map(|n| claim(&sale, 1, 10 + n, n)).collect();
    let order = |n: u64| ordered(&sale, n, (1, 9 + n), n - 1, 1_000);
    assert_eq!(
        ledger.post(&grabs, 1_000).unwrap(),
        [1, 2, 3, 4].map(|n| PostingResult::Claim(ClaimResult::Ordered(order(n))))
    );
    assert_eq!((ledger.next_due(), ledger.campaigns().unwrap()[0].reserved), (Some(6_000), 4));
    assert!(
        matches!(ledger.settle_campaign(sale.id, 2_000), Err(LedgerError::BadTerms(why)) if why.contains("4 orders"))
    );

    let decided = |n: u64, state, at| Order { state, decided_at: Some(at), ..order(n) };
    let steps = [
        pay(1, 1, Means::Wallet),
        pay(1, 2, Means::Wallet),
        pay(1, 2, Means::Outside),
        pay(2, 3, Means::Outside),
        pay(1, 1, Means::Wallet),
        cancel(1, 3),
        cancel(1, 3),
        cancel(1, 1),
        cancel(2, 4),
        pay(1, 3, Means::Outside),
    ];
    let (paid, outside) = (decided(1, OrderState::Paid, 2_000), decided(2, OrderState::Paid, 2_000));
    let cancelled = decided(3, OrderState::Cancelled, 2_000);
    let expected: [PostingResult; 10] = [
        PayResult::Paid(paid).into(),
        PayResult::InsufficientFunds.into(),
        PayResult::Paid(outside).into(),
        PayResult::NoSuchOrder.into(),
        PayResult::Paid(paid).into(),
        CancelResult::Cancelled(cancelled).into(),
        CancelResult::Over(cancelled).into(),
        CancelResult::Paid.into(),
        CancelResult::NoSuchOrder.into(),
        PayResult::TooLate { at: 2_000 }.into(),
    ];
    assert_eq!(ledger.post(&steps, 2_000).unwrap(), expected);
    assert_eq!(balance(&mut ledger, 1), Fen(200));
    // The cancelled one is told to nobody; the others as they stand.
    let told = [order(4), paid, outside].map(Award::Order);
    assert_eq!(recall(&mut ledger, 1).unacknowledged, told);

    assert_eq!(
        ledger.post(&[pay(1, 4, Means::Outside)], 6_000).unwrap(),
        [PostingResult::Pay(PayResult::TooLate { at: 6_000 })]
    );
    let over = decided(4, OrderState::Expired, 6_000);
    let expired = Expired { orders: vec![over], envelopes: vec![], next_due: None };
    assert_eq!(ledger.post(&[Posting::Expire], 6_000).unwrap(), [PostingResult::Expire(Box::new(expired))]);
    assert_eq!(recall(&mut ledger, 1).unacknowledged, [paid, outside, over].map(Award::Order));
    assert_eq!(first_answer(&mut ledger, 1, 13), Some(Award::Order(over)));
    let seen = Seen { orders: [1, 2, 4, 4].map(super::support::order_id).into(), ..Seen::default() };
    let seen = Posting::Acknowledge { user: user(1), seen: Box::new(seen) };
    assert_eq!(ledger.post(&[seen], 6_001).unwrap(), [PostingResult::Acknowledge(Acknowledged { count: 3 })]);

    // Released units are for sale again, to anybody.
    assert_eq!(ledger.claimed_serials(sale.id).unwrap(), [Serial(0), Serial(1)]);
    let again = ledger.post(&[claim(&sale, 2, 1, 2), claim(&sale, 2, 2, 0)], 6_002).unwrap();
    assert_eq!(
        again,
        [
            PostingResult::Claim(ClaimResult::Ordered(ordered(&sale, 5, (2, 1), 2, 6_002))),
            PostingResult::Claim(ClaimResult::Taken)
        ]
    );
    ledger.post(&[cancel(2, 5)], 6_003).unwrap();
    let settlement = Settlement { settled_at: 6_004, refunded: Fen(600) };
    assert_eq!(ledger.settle_campaign(sale.id, 6_004).unwrap().settlement, Some(settlement));
}

#[test]
fn a_limit_counts_what_is_held_now_not_what_was_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let sale = ledger.create_campaign(sale_terms(9, Some(2), 300), 5).unwrap();
    let limit = || PostingResult::Claim(ClaimResult::LimitReached { limit: 2 });
    let batch = [claim(&sale, 1, 1, 0), claim(&sale, 1, 2, 1), claim(&sale, 1, 3, 2)];
    assert_eq!(ledger.post(&batch, 10).unwrap()[2], limit());
    let batch = [cancel(1, 1), claim(&sale, 1, 4, 0), claim(&sale, 1, 5, 3)];
    assert_eq!(
        ledger.post(&batch, 11).unwrap()[1..],
        [PostingResult::Claim(ClaimResult::Ordered(ordered(&sale, 3, (1, 4), 0, 11))), limit()]
    );
    drop(ledger);
    // Counted from the rows by a ledger that has not seen it happen.
    let mut ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(ledger.post(&[claim(&sale, 1, 6, 4)], 12).unwrap(), [limit()]);
    assert!(matches!(ledger.post(&[Posting::Expire], 6_000).unwrap()[..], [PostingResult::Expire(_)]));
    let batch = [claim(&sale, 1, 7, 4), claim(&sale, 1, 8, 5), claim(&sale, 1, 9, 6)];
    assert_eq!(ledger.post(&batch, 6_000).unwrap()[2], limit());
}

#[test]
fn what_is_overdue_expires_the_oldest_first_in_steps() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let many = EXPIRE_STEP as u64 + 10;
    let sale = ledger.create_campaign(sale_terms(many, None, 300), 5).unwrap();
    let grabs: Vec<Posting> = (0..many).map(|n| claim(&sale, n + 1, 1, n)).collect();
    ledger.post(&grabs[..20], 50).unwrap();
    ledger.post(&grabs[20..], 100).unwrap();
    ledger.post(&[send(envelope(None, 1, 5, 1, &[1]))], 100).unwrap();
    let mut expire = || match ledger.post(&[Posting::Expire], 5_100).unwrap().remove(0) {
        PostingResult::Expire(expired) => *expired,
        other => panic!("{other:?}"),
    };
    let (first, second) = (expire(), expire());
    assert_eq!((first.orders.len(), first.next_due), (EXPIRE_STEP, Some(5_100)));
    assert!(first.orders.is_sorted_by_key(|order| order.pay_by));
    assert_eq!((second.orders.len(), second.envelopes.len(), second.next_due), (10, 0, Some(10_100)));
    assert_eq!(expire().orders.len(), 0);
}

#[test]
fn an_envelope_is_opened_once_a_recipient_and_its_rest_returns() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    ledger.post(&[deposit(1, 1, 1_000, "start")], 5).unwrap();
    let sent = envelope(Some(1), 3, 100, 3, &[2, 3, 4, 5]);
    let outcomes = ledger.post(&[send(sent.clone()), send(sent.clone()), send(envelope(Some(2), 1, 5, 1, &[1]))], 10);
    let outcomes = outcomes.unwrap();
    let PostingResult::Send(SendResult::Sent { offer, to, recipients: 4, balance: Fen(900) }) = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!((&to[..], offer.expires_at), (&sent.recipients[..], 10_010));
    assert!(
        matches!(&outcomes[1], PostingResult::Send(SendResult::Sent { to, recipients: 4, balance: Fen(900), .. }) if to.is_empty()),
        "{outcomes:?}"
    );
    assert_eq!(outcomes[2], PostingResult::Send(SendResult::InsufficientFunds));
    assert_eq!(recall(&mut ledger, 2).offers, std::slice::from_ref(offer));

    let opened = |share, amount| {
        PostingResult::Open(OpenResult::Opened { envelope: envelope_id(1), share, amount: Fen(amount) })
    };
    let outcomes = ledger.post(&[open(2, 1), open(2, 1), open(1, 1), open(2, 2), open(4, 1)], 11).unwrap();
    let none = || PostingResult::Open(OpenResult::NoSuchEnvelope);
    assert_eq!(outcomes, [opened(0, 34), opened(0, 34), none(), none(), opened(1, 33)]);
    assert_eq!((balance(&mut ledger, 2), ledger.totals().unwrap().enclosed), (Fen(34), Fen(33)));
    assert_eq!(recall(&mut ledger, 2).offers, []);

    // Its time is over before anybody says so.
    assert_eq!(ledger.post(&[open(3, 1)], 10_010).unwrap(), [PostingResult::Open(OpenResult::TooLate { at: 10_010 })]);
    let expired = Expired { orders: vec![], envelopes: vec![(envelope_id(1), Some(user(1)), Fen(33))], next_due: None };
    assert_eq!(ledger.post(&[Posting::Expire], 10_010).unwrap(), [PostingResult::Expire(Box::new(expired))]);
    let outcomes = ledger.post(&[open(3, 1), open(4, 1)], 10_011).unwrap();
    assert_eq!(outcomes, [PostingResult::Open(OpenResult::TooLate { at: 10_010 }), opened(1, 33)]);
    assert_eq!(balance(&mut ledger, 1), Fen(933));

    // From the house, and emptied.
    let outcomes = ledger.post(&[send(envelope(None, 1, 1, 1, &[2, 3])), open(3, 2), open(2, 2)], 10_012).unwrap();
    assert_eq!(outcomes[2], PostingResult::Open(OpenResult::Empty { envelope: envelope_id(2) }));
    assert_eq!(recall(&mut ledger, 2).offers, []);
    assert_eq!(ledger.next_due(), None);
}

#[test]
fn a_deposit_is_made_once_for_each_key() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let batch = [deposit(1, 3, 10, "a"), deposit(1, 3, 10, "a"), deposit(1, 3, 11, "a"), deposit(3, 1, 5, "b")];
    let used = || PostingResult::Deposit(DepositResult::KeyUsed);
    let expected = [
        PostingResult::Deposit(DepositResult::Deposited),
        PostingResult::Deposit(DepositResult::Deposited),
        used(),
        PostingResult::Deposit(DepositResult::Deposited),
    ];
    assert_eq!(ledger.post(&batch, 6).unwrap(), expected);
    assert_eq!([1, 2, 3, 4].map(|n| balance(&mut ledger, n)), [Fen(10), Fen(10), Fen(15), Fen(0)]);
}

#[test]
fn a_reopened_ledger_does_not_offer_an_opened_envelope_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let acknowledged = Seen { envelopes: [envelope_id(1)].into(), ..Seen::default() };
    let batch = [
        send(envelope(None, 1, 9, 3, &[1, 2, 3])),
        open(1, 1),
        Posting::Acknowledge { user: user(2), seen: Box::new(acknowledged) },
    ];
    ledger.post(&batch, 5).unwrap();
    for _ in 0..2 {
        assert_eq!([1, 2, 3].map(|n| recall(&mut ledger, n).offers.len()), [0, 0, 1]);
        drop(ledger);
        ledger = SqliteLedger::open(&path).unwrap();
    }
}

#[test]
fn open_envelopes_are_bounded_and_one_that_is_over_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    ledger.post(&[deposit(1, 2, 100_000, "wallets")], 1).unwrap();
    let most = u64::from(ENVELOPES_OPEN_PER_USER_MAX);
    let batch: Vec<_> = (1..=most).map(|number| send(envelope(Some(1), number, 1, 1, &[2, 3]))).collect();
    assert!(
        ledger
            .post(&batch, 2)
            .unwrap()
            .iter()
            .all(|outcome| matches!(outcome, PostingResult::Send(SendResult::Sent { .. })))
    );
    // Counted again from the file.
    drop(ledger);
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let mut post = |posting: Posting, now| ledger.post(&[posting], now).unwrap().remove(0);
    let next = |number: u64| send(envelope(Some(1), most + number, 1, 1, &[2, 3]));
    assert_eq!(post(next(1), 3), PostingResult::Send(SendResult::TooManyEnvelopes));
    assert!(
        matches!(post(send(envelope(Some(2), 1, 1, 1, &[3])), 3), PostingResult::Send(SendResult::Sent { .. })),
        "somebody else may"
    );
    assert!(
        matches!(post(send(envelope(None, 1, 1, 1, &[3])), 3), PostingResult::Send(SendResult::Sent { .. })),
        "so may the house"
    );
    assert!(matches!(post(open(3, 7), 4), PostingResult::Open(OpenResult::Opened { .. })));
    assert!(matches!(post(next(1), 5), PostingResult::Send(SendResult::Sent { .. })));
    assert_eq!(post(next(2), 5), PostingResult::Send(SendResult::TooManyEnvelopes));
    // The first ones expire, all at once.
    assert!(matches!(post(Posting::Expire, 10_002), PostingResult::Expire(_)));
    assert!(matches!(post(next(2), 10_002), PostingResult::Send(SendResult::Sent { .. })));
}
