//! Tickets and coupons: held, paid, given back, expired, and sold to the last unit.

use std::collections::{BTreeMap, BTreeSet};

use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::order::State;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use hongbao_proto::{RequestId, UserId};
use hongbao_server::market::campaign::Seed;
use hongbao_server::market::lottery::{Entrant, draw};
use hongbao_telemetry::clock::unix_millis;
use serde_json::{Value, json};

use hongbao_testing::client::{code, grab, next_id};
use hongbao_testing::{Client, Server, eventually, until};

fn pay(order_id: u64) -> Request {
    Request::Pay(v1::Pay { order_id })
}

fn cancel(order_id: u64) -> Request {
    Request::Cancel(v1::Cancel { order_id })
}

fn orders(client: &mut Client) -> Vec<v1::Order> {
    match client.ask(Request::Orders(v1::Orders::default())) {
        Event::OrderList(list) => list.orders,
        other => panic!("{other:?}"),
    }
}

fn statement(client: &mut Client) -> v1::StatementPage {
    match client.ask(Request::Statement(v1::Statement::default())) {
        Event::StatementPage(page) => page,
        other => panic!("{other:?}"),
    }
}

fn order(event: Event) -> v1::Order {
    match event {
        Event::Order(order) => order,
        other => panic!("instead of an order: {other:?}"),
    }
}

/// Grabs until a unit is the user's, held or for good.
fn buy(client: &mut Client, campaign: u32) -> v1::Order {
    eventually("a unit", || match client.grab(campaign) {
        Event::Order(order) => Some(order),
        Event::NoneNow(_) | Event::TooEarly(_) => None,
        Event::Error(error) if error.code() == ErrorCode::NoSuchCampaign => None,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_ticket_is_held_paid_once_and_shown_in_orders_and_statement() {
    let server = Server::start();
    let mut user = server.login(1);
    let campaign = server.sale(&json!({"kind": "ticket", "total": 10, "price_fen": 300, "hold_ms": 60_000}));
    let held = buy(&mut user, campaign);
    assert_eq!((held.state(), held.price_fen, held.decided_at_ms), (State::Reserved, 300, 0));
    assert_eq!(held.pay_by_ms, held.reserved_at_ms + 60_000);

    assert_eq!(code(&user.ask(pay(held.order_id))), ErrorCode::InsufficientFunds);
    server.deposit(1, 1, 500, "first");
    server.deposit(1, 1, 500, "first");
    let paid = order(user.ask(pay(held.order_id)));
    assert_eq!((paid.state(), paid.serial), (State::Paid, held.serial));
    // Again, and again: nothing moves twice.
    assert_eq!(order(user.ask(pay(held.order_id))), paid);
    assert_eq!(code(&user.ask(cancel(held.order_id))), ErrorCode::OrderPaid);
    assert_eq!(orders(&mut user), [paid]);
    let page = statement(&mut user);
    let moved: Vec<_> = page.movements.iter().map(|moved| (moved.kind(), moved.amount_fen, moved.order_id)).collect();
    assert_eq!(page.balance_fen, 200);
    assert_eq!(
        moved,
        [(v1::movement::Kind::Pay, -300, held.order_id), (v1::movement::Kind::Deposit, 500, 0)],
        "one deposit of one key"
    );
    // Somebody else's order is no order.
    let mut other = server.login(2);
    assert_eq!(code(&other.ask(pay(held.order_id))), ErrorCode::NoSuchOrder);
    assert_eq!(code(&other.ask(cancel(held.order_id))), ErrorCode::NoSuchOrder);
    assert_eq!(code(&other.ask(pay(999_999))), ErrorCode::NoSuchOrder);
    assert!(orders(&mut other).is_empty());
    until("the sale's books", || server.campaign(campaign)["won"] == 1);
    let books = server.campaign(campaign);
    assert_eq!((&books["paid_fen"], &books["reserved"]), (&json!(300), &json!(0)));
    server.check_books();
}

#[test]
fn a_unit_given_back_or_not_paid_in_time_is_sold_to_another() {
    let server = Server::start();
    let (mut first, mut second) = (server.login(1), server.login(2));
    server.deposit(1, 2, 1_000, "wallets");
    let campaign = server.sale(&json!({"kind": "ticket", "total": 1, "price_fen": 300, "hold_ms": 1_000}));
    let given_back = buy(&mut first, campaign);
    // It may come back: nobody is told that it is sold out.
    assert!(matches!(second.grab(campaign), Event::NoneNow(_)));
    assert_eq!(order(first.ask(cancel(given_back.order_id))).state(), State::Cancelled);
    assert_eq!(order(first.ask(cancel(given_back.order_id))).state(), State::Cancelled);
    assert!(matches!(first.ask(pay(given_back.order_id)), Event::TooLate(_)));

    let left_alone = buy(&mut second, campaign);
    assert_eq!(left_alone.serial, given_back.serial);
    let bought = buy(&mut first, campaign);
    assert_eq!(bought.serial, given_back.serial);
    let late = second.ask(pay(left_alone.order_id));
    assert!(matches!(late, Event::TooLate(_)), "{late:?}");
    assert_eq!(orders(&mut second)[0].state(), State::Expired);
    assert_eq!(order(first.ask(pay(bought.order_id))).state(), State::Paid);
    until("every SET to know", || matches!(second.grab(campaign), Event::SoldOut(_)));
    assert_eq!((statement(&mut first).balance_fen, statement(&mut second).balance_fen), (700, 1_000));
    until("the sale to be settled", || server.campaign(campaign)["settled"] == true);
    assert_eq!(server.campaign(campaign)["refunded_fen"], 300, "what was taken in is banked");
    server.check_books();
}

#[test]
fn what_costs_nothing_is_the_users_at_once_and_a_limit_holds() {
    let server = Server::start();
    let mut user = server.login(1);
    let campaign = server.sale(&json!({
        "kind": "coupon", "total": 100, "face_value_fen": 5_000, "per_user_limit": 2, "valid_until_ms": 9_999_999_999_999_u64
    }));
    for _ in 0..2 {
        let coupon = buy(&mut user, campaign);
        assert_eq!((coupon.state(), coupon.price_fen, coupon.face_value_fen), (State::Paid, 0, 5_000));
        assert_eq!(coupon.valid_until_ms, 9_999_999_999_999);
    }
    let limit = eventually("the limit", || match user.grab(campaign) {
        Event::LimitReached(reached) => Some(reached.limit),
        Event::NoneNow(_) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(limit, 2);
    server.check_books();
}

#[test]
fn an_order_survives_kill_9_until_acknowledged() {
    let mut server = Server::start();
    let mut user = server.login(1);
    server.deposit(1, 1, 1_000, "wallet");
    let campaign = server.sale(&json!({"kind": "ticket", "total": 5, "price_fen": 300}));
    let request = next_id();
    let held = eventually("a unit", || match user.ask_as(next_id(), grab(campaign)) {
        Event::Order(order) => Some(order),
        Event::NoneNow(_) | Event::Error(_) | Event::TooEarly(_) => None,
        other => panic!("{other:?}"),
    });
    assert!(held.grabbed_by_request_id > request);
    for _ in 0..2 {
        server.kill();
        server.start_again();
        let mut user = server.login(1);
        let told = user.push(|event| match event {
            Event::Reminder(reminder) => Some(reminder.orders.clone()),
            _ => None,
        });
        assert_eq!(told, [held]);
    }
    let mut user = server.login(1);
    assert_eq!(order(user.ask_as(held.grabbed_by_request_id, grab(campaign))), held, "its first answer again");
    let paid = order(user.ask(pay(held.order_id)));
    let seen = Request::Acknowledge(v1::Acknowledge { order_ids: vec![held.order_id], ..Default::default() });
    assert_eq!(user.ask(seen), Event::Acknowledged(v1::Acknowledged { count: 1 }));
    server.kill();
    server.start_again();
    let mut user = server.login(1);
    user.ping();
    assert!(!user.pushes.iter().any(|push| matches!(push, Event::Reminder(_))), "{:?}", user.pushes);
    assert_eq!(orders(&mut user), [paid]);
    server.check_books();
}

/// Users on eight connections each fight over too few tickets: some pay, some give back, some let
/// their hold run out.
#[test]
fn a_contested_sale_sells_each_unit_once_and_all_of_them() {
    const TOTAL: u64 = 300;
    let server = Server::with(&["--shards", "3"]);
    server.deposit(1, 24, 1_000_000, "wallets");
    let campaign =
        server.sale(&json!({"kind": "ticket", "total": TOTAL, "price_fen": 7, "hold_ms": 1_000, "per_user_limit": 40}));
    let sold = std::thread::scope(|scope| {
        let server = &server;
        let buyers: Vec<_> = (1..=24u64)
            .map(|user| {
                scope.spawn(move || {
                    let mut client = server.login(user);
                    let (mut mine, mut turn) = (Vec::new(), user);
                    eventually("the end of the sale", || {
                        turn += 1;
                        match client.grab(campaign) {
                            Event::Order(held) if turn % 5 == 0 => {
                                order(client.ask(cancel(held.order_id)));
                            }
                            // Left to run out.
                            Event::Order(_) if turn % 11 == 0 => {}
                            Event::Order(held) => match client.ask(pay(held.order_id)) {
                                Event::Order(paid) => mine.push(paid.serial),
                                Event::TooLate(_) => {}
                                other => panic!("{other:?}"),
                            },
                            Event::SoldOut(_) => return Some(()),
                            Event::NoneNow(_) | Event::TooEarly(_) | Event::LimitReached(_) => {}
                            Event::Error(error) if error.code() == ErrorCode::NoSuchCampaign => {}
                            other => panic!("{other:?}"),
                        }
                        None
                    });
                    (user, mine)
                })
            })
            .collect();
        buyers.into_iter().map(|buyer| buyer.join().unwrap()).collect::<Vec<_>>()
    });
    let mut owners = BTreeMap::new();
    for (user, serials) in sold {
        assert!(serials.len() <= 40, "user {user} holds {}", serials.len());
        for serial in serials {
            assert_eq!(owners.insert(serial, user), None, "unit {serial} sold twice");
        }
    }
    assert_eq!(owners.len() as u64, TOTAL);
    until("the sale to be settled", || server.campaign(campaign)["settled"] == true);
    assert_eq!(server.campaign(campaign)["paid_fen"], json!(TOTAL * 7));
    server.check_books();
}

#[test]
fn the_opening_window_is_a_lottery_and_anyone_can_draw_again() {
    const USERS: u64 = 30;
    const TOTAL: u64 = 10;
    let server = Server::with(&["--fair-window", "1500ms"]);
    let mut clients: Vec<_> = (1..=USERS).map(|user| server.login(user)).collect();
    let seed = Seed([42; 32]);
    let starts_at_ms = unix_millis() + 500;
    let campaign = server.sale(&json!({
        "kind": "coupon", "total": TOTAL, "starts_at_ms": starts_at_ms, "seed": seed.to_hex()
    }));
    assert_eq!(server.campaign(campaign)["fair_window_ms"], 1_500, "the server's, where the sale does not say");
    let mut entrants = Vec::new();
    for (user, client) in (1..).zip(&mut clients) {
        let request = eventually("the window to open", || {
            let request = next_id();
            client.send(request, grab(campaign));
            // An answer of the window comes only with the draw; a ping overtakes it.
            let ping = next_id();
            client.send(ping, Request::Ping(v1::Ping {}));
            let frame = std::iter::repeat_with(|| client.frame()).find(|frame| frame.request_id != 0).unwrap();
            match frame.event {
                Some(Event::Pong(_)) => Some(request),
                Some(Event::TooEarly(_) | Event::Error(_)) => {
                    assert!(matches!(client.answer(ping), Event::Pong(_)));
                    None
                }
                other => panic!("{other:?}"),
            }
        });
        entrants.push((Entrant { user: UserId::new(user).unwrap(), request: RequestId::new(request).unwrap() }, ()));
    }
    // A second Grab of the window does not take part twice.
    assert!(matches!(clients[0].grab(campaign), Event::NoneNow(_)));
    let expected: Vec<u64> = draw(&seed, entrants.clone())[..usize::try_from(TOTAL).unwrap()]
        .iter()
        .map(|(entrant, ())| entrant.user.get())
        .collect();
    let mut won = Vec::new();
    for ((entrant, ()), client) in entrants.iter().zip(&mut clients) {
        match client.answer(entrant.request.get()) {
            Event::Order(order) => won.push((order.serial, entrant.user.get())),
            Event::NoneNow(_) => {}
            other => panic!("{other:?}"),
        }
    }
    won.sort_unstable();
    assert!(unix_millis() >= starts_at_ms + 1_500);
    assert_eq!(won.iter().map(|(_, user)| *user).collect::<BTreeSet<_>>(), expected.iter().copied().collect());
    until("it to be sold out", || matches!(clients[5].grab(campaign), Event::SoldOut(_)));
    until("the seed to be published", || server.campaign(campaign)["seed"] == seed.to_hex());
    server.check_books();
}

#[test]
fn terms_that_do_not_go_together_are_refused() {
    let server = Server::start();
    for terms in [
        json!({"kind": "ticket", "total": 5, "price_fen": 1, "rate_per_second": 5}),
        json!({"kind": "ticket", "total": 5, "price_fen": 1, "face_value_fen": 5}),
        json!({"kind": "ticket", "total": 5, "price_fen": 1, "hold_ms": 10}),
        json!({"kind": "coupon", "total": 5, "valid_from_ms": 10, "valid_until_ms": 10}),
        json!({"kind": "rain", "total": 5, "rate_per_second": 1, "min_fen": 1, "price_fen": 5}),
        json!({"kind": "rain", "total": 5}),
    ] {
        let refused = server.call(reqwest::Method::POST, "/v1/campaigns", Some(&terms));
        assert_eq!(refused.status(), 400, "{terms}");
        let why: Value = refused.json().unwrap();
        assert!(!why["error"]["message"].as_str().unwrap().is_empty(), "{why}");
    }
}
