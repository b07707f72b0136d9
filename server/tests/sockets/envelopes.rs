//! Group envelopes: paid by the sender, offered, opened first come first served, and returned where
//! nobody opens them.

use std::collections::{BTreeMap, BTreeSet};

use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::send_envelope::Mode;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode};
use serde_json::json;

use hongbao_testing::client::{code, next_id};
use hongbao_testing::server::json_of;
use hongbao_testing::{Client, Server, until};

fn envelope(total_fen: u64, shares: u32, mode: Mode, user_ids: Vec<u64>) -> v1::SendEnvelope {
    v1::SendEnvelope {
        total_fen,
        shares,
        mode: mode.into(),
        greeting: "恭喜发财".to_owned(),
        user_ids,
        ..Default::default()
    }
}

fn send(client: &mut Client, envelope: v1::SendEnvelope) -> v1::EnvelopeSent {
    match client.ask(Request::SendEnvelope(envelope)) {
        Event::EnvelopeSent(sent) => sent,
        other => panic!("{other:?}"),
    }
}

fn open(client: &mut Client, envelope_id: u64) -> Event {
    client.ask(Request::Open(v1::Open { envelope_id }))
}

fn inspect(client: &mut Client, envelope_id: u64) -> v1::EnvelopeView {
    match client.ask(Request::InspectEnvelope(v1::InspectEnvelope { envelope_id })) {
        Event::EnvelopeView(view) => view,
        other => panic!("{other:?}"),
    }
}

fn balance(client: &mut Client) -> u64 {
    match client.ask(Request::Statement(v1::Statement::default())) {
        Event::StatementPage(page) => page.balance_fen,
        other => panic!("{other:?}"),
    }
}

/// The offers of the next push of them.
fn offers(client: &mut Client) -> Vec<v1::Offer> {
    client.push(|event| match event {
        Event::Offers(offers) => Some(offers.offers.clone()),
        _ => None,
    })
}

/// What a user is offered while logging in.
fn offered_at_login(server: &Server, user: u64) -> (Client, Vec<v1::Offer>) {
    let mut client = server.login(user);
    client.ping();
    let offers = client.pushes.iter().filter_map(|push| match push {
        Event::Offers(offers) => Some(offers.offers.clone()),
        _ => None,
    });
    let offers = offers.flatten().collect();
    (client, offers)
}

#[test]
fn an_envelope_is_paid_offered_opened_in_order_and_shown() {
    let server = Server::start();
    server.deposit(1, 1, 1_000, "wallet");
    let mut sender = server.login(1);
    let mut users: Vec<_> = (2..=4).map(|user| server.login(user)).collect();
    let mut stranger = server.login(9);
    let request = next_id();
    let asked = envelope(100, 3, Mode::Random, vec![2, 3, 4, 5]);
    let sent = match sender.ask_as(request, Request::SendEnvelope(asked.clone())) {
        Event::EnvelopeSent(sent) => sent,
        other => panic!("{other:?}"),
    };
    assert_eq!((sent.recipients, sent.balance_fen), (4, 900));
    // Sent again under the same id: the same envelope, and nothing moves.
    assert_eq!(sender.ask_as(request, Request::SendEnvelope(asked)), Event::EnvelopeSent(sent));
    assert_eq!(balance(&mut sender), 900);

    for user in &mut users {
        let [offer] = &offers(user)[..] else { panic!("one offer") };
        assert_eq!((offer.envelope_id, offer.sender_id, offer.shares), (sent.envelope_id, 1, 3));
        assert_eq!(offer.greeting, "恭喜发财");
    }
    assert!(inspect(&mut users[0], sent.envelope_id).opened.is_empty(), "nobody looks before opening");
    let mut amounts = Vec::new();
    for (number, user) in (0u32..).zip(&mut users) {
        let Event::Opened(opened) = open(user, sent.envelope_id) else { panic!() };
        assert_eq!(opened.share, number);
        assert!(opened.amount_fen >= 1);
        assert_eq!(open(user, sent.envelope_id), Event::Opened(opened), "once");
        assert_eq!(balance(user), opened.amount_fen);
        amounts.push(opened.amount_fen);
    }
    assert_eq!(amounts.iter().sum::<u64>(), 100);
    // The fourth comes too late, and is no longer offered it.
    let (mut late, offered) = offered_at_login(&server, 5);
    assert!(offered.is_empty());
    assert_eq!(
        open(&mut late, sent.envelope_id),
        Event::EnvelopeEmpty(v1::EnvelopeEmpty { envelope_id: sent.envelope_id })
    );
    assert_eq!(code(&open(&mut stranger, sent.envelope_id)), ErrorCode::NoSuchEnvelope);
    let view = inspect(&mut late, sent.envelope_id);
    assert_eq!(view.opened.iter().map(|share| share.amount_fen).collect::<Vec<_>>(), amounts);
    let luckiest = view.luckiest.unwrap() as usize;
    assert!(amounts.iter().all(|amount| *amount <= amounts[luckiest]));
    assert_eq!(inspect(&mut sender, sent.envelope_id), view);
    server.check_books();
}

#[test]
fn an_offer_is_repeated_at_login_until_opened_or_acknowledged() {
    let mut server = Server::start();
    server.deposit(1, 1, 1_000, "wallet");
    let mut sender = server.login(1);
    let sent = send(&mut sender, envelope(100, 2, Mode::Equal, vec![2, 3]));
    for kill in [false, true] {
        if kill {
            server.kill();
            server.start_again();
        }
        for user in [2, 3] {
            let (_, offered) = offered_at_login(&server, user);
            assert_eq!(offered.iter().map(|offer| offer.envelope_id).collect::<Vec<_>>(), [sent.envelope_id]);
        }
    }
    let (mut opener, _) = offered_at_login(&server, 2);
    let Event::Opened(opened) = open(&mut opener, sent.envelope_id) else { panic!() };
    assert_eq!(opened.amount_fen, 50);
    let (mut other, _) = offered_at_login(&server, 3);
    let seen = Request::Acknowledge(v1::Acknowledge { envelope_ids: vec![sent.envelope_id], ..Default::default() });
    assert_eq!(other.ask(seen), Event::Acknowledged(v1::Acknowledged { count: 1 }));
    server.kill();
    server.start_again();
    for user in [2, 3] {
        let (mut client, offered) = offered_at_login(&server, user);
        assert!(offered.is_empty());
        // Acknowledged is not opened: the share still waits.
        let Event::Opened(opened) = open(&mut client, sent.envelope_id) else { panic!() };
        assert_eq!(opened.amount_fen, 50);
    }
    server.check_books();
}

#[test]
fn what_nobody_opens_comes_back_when_the_envelope_expires() {
    let server = Server::start();
    server.deposit(1, 1, 1_000, "wallet");
    let (mut sender, mut user) = (server.login(1), server.login(2));
    let sent = send(&mut sender, v1::SendEnvelope { lifetime_seconds: 1, ..envelope(101, 4, Mode::Equal, vec![2, 3]) });
    let Event::Opened(opened) = open(&mut user, sent.envelope_id) else { panic!() };
    assert_eq!(opened.amount_fen, 26, "the first ones get one fen more");
    until("the rest to come back", || balance(&mut sender) == 1_000 - 26);
    let view = inspect(&mut sender, sent.envelope_id);
    assert_eq!((view.refunded_fen, view.opened.len(), view.luckiest), (Some(75), 1, Some(0)));
    let (mut late, offered) = offered_at_login(&server, 3);
    assert!(offered.is_empty());
    assert!(matches!(open(&mut late, sent.envelope_id), Event::TooLate(_)));
    assert_eq!(open(&mut user, sent.envelope_id), Event::Opened(opened), "what was opened stays so");
    server.check_books();
}

#[test]
fn an_envelope_needs_money_and_recipients() {
    let server = Server::start();
    server.deposit(1, 1, 99, "wallet");
    let mut sender = server.login(1);
    let refused = sender.ask(Request::SendEnvelope(envelope(100, 2, Mode::Equal, vec![2])));
    assert_eq!(code(&refused), ErrorCode::InsufficientFunds);
    for wrong in [
        envelope(1, 2, Mode::Equal, vec![2]),
        envelope(10, 0, Mode::Equal, vec![2]),
        envelope(10, 2, Mode::Unspecified, vec![2]),
        envelope(10, 2, Mode::Equal, vec![]),
        envelope(10, 2, Mode::Equal, vec![2, 2]),
        envelope(10, 2, Mode::Equal, vec![0]),
    ] {
        assert_eq!(code(&sender.ask(Request::SendEnvelope(wrong))), ErrorCode::OutOfRange);
    }
    assert_eq!(code(&open(&mut sender, 12)), ErrorCode::NoSuchEnvelope);
    assert_eq!(balance(&mut sender), 99);
    server.check_books();
}

#[test]
fn an_envelope_for_a_room_is_for_its_members_of_that_moment() {
    let server = Server::start();
    server.deposit(1, 1, 1_000, "wallet");
    let join = |client: &mut Client| {
        let action = v1::room::Action::Join.into();
        let joined = client.ask(Request::Room(v1::Room { room_id: 77, action, ..Default::default() }));
        assert!(matches!(joined, Event::RoomState(_)), "{joined:?}");
    };
    let mut users: Vec<_> = (1..=4).map(|user| server.login(user)).collect();
    let asked = || v1::SendEnvelope { room_id: 77, ..envelope(90, 3, Mode::Equal, vec![]) };
    assert_eq!(code(&users[0].ask(Request::SendEnvelope(asked()))), ErrorCode::NoSuchRoom);
    users[..3].iter_mut().for_each(join);
    let sent = send(&mut users[0], asked());
    assert_eq!((sent.recipients, sent.balance_fen), (3, 910));
    join(&mut users[3]);
    for user in &mut users[..3] {
        assert_eq!(offers(user)[0].room_id, 77);
        assert!(matches!(open(user, sent.envelope_id), Event::Opened(_)));
    }
    assert_eq!(code(&open(&mut users[3], sent.envelope_id)), ErrorCode::NoSuchEnvelope);
    server.check_books();
}

/// Twenty users open what the house sends as fast as they hear of it, through two kills: every
/// share is somebody's once.
#[test]
fn envelopes_of_the_house_are_opened_exactly_once_through_kills() {
    const USERS: u64 = 20;
    let mut server = Server::start();
    let body = json!({
        "count": 150, "rate_per_second": 150, "recipients": 8, "shares": 5, "first_user": 1, "users": USERS,
        "min_total_fen": 5, "max_total_fen": 500, "lifetime_seconds": 3
    });
    let run = |server: &Server| {
        let run = json_of(server.call(reqwest::Method::POST, "/v1/envelope-runs", Some(&body)));
        run["id"].as_u64().unwrap()
    };
    let mut told: BTreeMap<(u64, u32), (u64, u64)> = BTreeMap::new();
    for round in 0..3 {
        let id = run(&server);
        let mut clients: Vec<_> = (1..=USERS).map(|user| (user, server.login(user))).collect();
        let mut seen = BTreeSet::new();
        until("some to be opened", || {
            for (user, client) in &mut clients {
                client.ping();
                let offered: Vec<u64> = client
                    .pushes
                    .drain(..)
                    .filter_map(|push| if let Event::Offers(offers) = push { Some(offers.offers) } else { None })
                    .flatten()
                    .map(|offer| offer.envelope_id)
                    .collect();
                for envelope in offered {
                    match open(client, envelope) {
                        Event::Opened(opened) => {
                            seen.insert(envelope);
                            let share = (*user, opened.amount_fen);
                            let before = told.insert((envelope, opened.share), share);
                            assert!(
                                before.is_none_or(|before| before == share),
                                "{envelope}: {before:?} and {share:?}"
                            );
                        }
                        Event::EnvelopeEmpty(_) | Event::TooLate(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            if round == 2 {
                server.get(&format!("/v1/envelope-runs/{id}"))["finished"] == true
            } else {
                seen.len() > 40
            }
        });
        if round < 2 {
            server.kill();
            server.start_again();
        }
    }
    let progress = server.get("/v1/envelope-runs/1");
    assert_eq!((&progress["sent"], &progress["open"]), (&json!(150), &json!(0)));
    assert_eq!(
        progress["sent_fen"].as_u64().unwrap(),
        progress["opened_fen"].as_u64().unwrap() + progress["refunded_fen"].as_u64().unwrap()
    );
    until("all envelopes to be empty or refunded", || server.stats()["ledger"]["envelopes_open"] == 0);
    assert_eq!(server.stats()["ledger"]["enclosed_fen"], 0);
    // What each was told is what the books say, to the share.
    let mut envelopes: BTreeMap<u64, Vec<(u32, u64, u64)>> = BTreeMap::new();
    for ((envelope, share), (user, amount)) in &told {
        envelopes.entry(*envelope).or_default().push((*share, *user, *amount));
    }
    for (envelope, shares) in envelopes {
        let view = server.get(&format!("/v1/envelopes/{envelope}"));
        for (share, user, amount) in shares {
            let booked = &view["opened"][share as usize];
            assert_eq!((&booked["user"], &booked["amount_fen"]), (&json!(user), &json!(amount)), "{envelope}/{share}");
        }
    }
    server.check_books();
    server.stop_and_audit();
}
