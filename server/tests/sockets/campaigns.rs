//! What a Grab is told of campaigns in every state, and what anyone can check afterwards.

use std::collections::BTreeMap;

use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ErrorCode, campaign_notice};
use hongbao_proto::{Fen, Serial};
use hongbao_server::market::campaign::{Amounts, Seed, amount_of};
use hongbao_telemetry::clock::unix_millis;
use serde_json::{Value, json};

use hongbao_testing::client::code;
use hongbao_testing::{Client, Server, eventually, until};

/// Shakes until the answer is something else than "not known here yet" or "none now".
fn settled_answer(client: &mut Client, campaign: u32) -> Event {
    eventually("another answer than none", || match client.grab(campaign) {
        Event::NoneNow(_) => None,
        Event::Error(error) if error.code() == ErrorCode::NoSuchCampaign => None,
        other => Some(other),
    })
}

#[test]
fn a_campaign_that_does_not_exist_is_named_so() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    assert_eq!(code(&user.grab(7)), ErrorCode::NoSuchCampaign);
    // Any rain will do, and none falls.
    assert_eq!(user.grab(0), Event::NoneNow(v1::NoneNow {}));
    bystander.ping();
    assert_eq!((server.errors("no_such_campaign"), server.answers("none_now")), (1, 1));
    server.check_books();
}

#[test]
fn before_its_start_a_campaign_says_when_it_starts() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let starts_at_ms = unix_millis() + 3_600_000;
    let campaign = server.rain(10, 10, &json!({ "starts_at_ms": starts_at_ms }));
    assert_eq!(settled_answer(&mut user, campaign), Event::TooEarly(v1::TooEarly { starts_at_ms }));
    assert_eq!(user.grab(0), Event::NoneNow(v1::NoneNow {}));
    bystander.ping();
    assert_eq!(server.answers("too_early"), 1);
    assert_eq!(server.campaign(campaign)["won"], 0);
    server.check_books();
}

#[test]
fn after_its_end_a_campaign_says_when_it_ended() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    let ends_at_ms = unix_millis() + 700;
    let campaign = server.rain(1_000, 10, &json!({ "ends_at_ms": ends_at_ms }));
    user.win(campaign);
    let ended = eventually("the campaign to end", || match user.grab(campaign) {
        Event::TooLate(too_late) => Some(too_late),
        Event::Won(_) | Event::NoneNow(_) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(ended.ended_at_ms, ends_at_ms);
    assert!(unix_millis() >= ends_at_ms);
    bystander.ping();
    assert_eq!(server.answers("too_late"), 1);
    until("the rest to go back", || server.campaign(campaign)["settled"] == true);
    let books = server.campaign(campaign);
    let paid = books["paid_fen"].as_u64().unwrap();
    assert_eq!(books["refunded_fen"], 1_000 * 100 - paid);
    server.check_books();
}

#[test]
fn a_stopped_campaign_is_over_at_once_and_for_good() {
    let mut server = Server::start();
    let mut user = server.login(1);
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    user.win(campaign);
    let stopped = server.call(reqwest::Method::POST, &format!("/v1/campaigns/{campaign}/stop"), None);
    assert_eq!(stopped.status(), 200);
    let ended = eventually("every SET to know", || match user.grab(campaign) {
        Event::TooLate(too_late) => Some(too_late),
        Event::Won(_) | Event::NoneNow(_) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(server.campaign(campaign)["stopped_at_ms"], ended.ended_at_ms);
    until("the rest to go back", || server.campaign(campaign)["settled"] == true);
    let won = server.campaign(campaign)["won"].clone();
    server.check_books();
    server.kill();
    server.start_again();
    let mut user = server.login(1);
    assert_eq!(settled_answer(&mut user, campaign), Event::TooLate(ended));
    assert_eq!(server.campaign(campaign)["won"], won);
    server.check_books();
}

#[test]
fn sold_out_is_said_only_when_every_prize_is_somebodys() {
    const TOTAL: u64 = 20;
    let server = Server::start();
    let mut users: Vec<_> = (1..=5).map(|user| server.login(user)).collect();
    let campaign = server.rain(TOTAL, 200, &Value::Null);
    let (mut won, mut sold_out) = (0, 0);
    until("all five to hear that it is sold out", || {
        for user in &mut users {
            match user.grab(campaign) {
                Event::Won(_) => {
                    assert_eq!(sold_out, 0, "a prize after the end of them");
                    won += 1;
                }
                Event::SoldOut(_) => {
                    assert_eq!(won, TOTAL, "sold out, it was said, with prizes left");
                    sold_out += 1;
                }
                Event::NoneNow(_) => {}
                Event::Error(error) if error.code() == ErrorCode::NoSuchCampaign => {}
                other => panic!("{other:?}"),
            }
        }
        sold_out >= 5
    });
    until("operators to see the same", || server.campaign(campaign)["state"] == "sold_out");
    let books = server.campaign(campaign);
    assert_eq!((&books["won"], &books["paid_fen"]), (&json!(TOTAL), &json!(TOTAL * 100)));
    server.check_books();
}

#[test]
fn a_user_at_the_limit_is_told_so_and_leaves_prizes_to_others() {
    let server = Server::start();
    let mut greedy = server.login(1);
    let campaign = server.rain(3, 1_000, &json!({ "per_user_limit": 2 }));
    greedy.win(campaign);
    greedy.win(campaign);
    let limit = eventually("the limit", || match greedy.grab(campaign) {
        Event::LimitReached(limit) => Some(limit.limit),
        Event::NoneNow(_) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(limit, 2);
    // The third lies in the greedy user's SET, and goes back once nobody there is logged in.
    drop(greedy);
    server.login(2).win(campaign);
    server.check_books();
}

#[test]
fn the_seed_is_committed_to_first_and_proves_every_amount_after() {
    let server = Server::start();
    let mut user = server.login(1);
    let campaign = server.rain(30, 500, &json!({"min_fen": 1, "max_fen": 10_000}));
    let public = || {
        // No token: anyone may look.
        let response = server.call_as(None, reqwest::Method::GET, "/public/campaigns", None);
        response.json::<Value>().unwrap().as_array().unwrap().iter().find(|one| one["id"] == campaign).unwrap().clone()
    };
    let before = public();
    assert_eq!(before["seed"], Value::Null);
    let commitment = before["seed_sha256"].as_str().unwrap().to_owned();
    let mut wins = BTreeMap::new();
    while wins.len() < 30 {
        let (_, won) = user.win(campaign);
        assert_eq!(wins.insert(won.serial, won.amount_fen), None, "a prize won twice");
    }
    let seed = eventually("the seed", || public()["seed"].as_str().map(|seed| Seed::from_hex(seed).unwrap()));
    assert_eq!(const_hex::encode(seed.sha256()), commitment);
    let amounts = Amounts { min: Fen(1), max: Fen(10_000) };
    for (&serial, &amount) in &wins {
        assert_eq!(Fen(amount), amount_of(&seed, amounts, Serial(serial)));
    }
    assert_eq!(server.campaign(campaign)["paid_fen"], wins.values().sum::<u64>());
    // The same is pushed to users.
    let pushed = user.push(|event| match event {
        Event::CampaignNotice(notice) if notice.state() == campaign_notice::State::SoldOut => Some(notice.clone()),
        _ => None,
    });
    assert_eq!((const_hex::encode(&pushed.seed_sha256), const_hex::encode(&pushed.seed)), (commitment, seed.to_hex()));
    server.check_books();
}

#[test]
fn contradicting_terms_are_refused_and_create_nothing() {
    let server = Server::start();
    let now = unix_millis();
    let bad = [
        json!({"kind": "rain", "total": 0, "rate_per_second": 1, "min_fen": 1}),
        json!({"kind": "rain", "total": 1, "rate_per_second": 0, "min_fen": 1}),
        json!({"kind": "rain", "total": 1, "rate_per_second": 1, "min_fen": 0}),
        json!({"kind": "rain", "total": 1, "rate_per_second": 1, "min_fen": 2, "max_fen": 1}),
        json!({"kind": "rain", "total": 1, "rate_per_second": 1, "min_fen": 1, "starts_at_ms": now, "ends_at_ms": now}),
        json!({"kind": "rain", "total": 1, "rate_per_second": 1, "min_fen": 1, "per_user_limit": 0}),
        json!({"kind": "rain", "total": 1, "rate_per_second": 1, "min_fen": 1, "seed": "short"}),
        json!({"kind": "rain", "total": 10_000_000, "rate_per_second": 1, "min_fen": 9_000_000_000_000_000_000_u64}),
        json!({"kind": "hail", "total": 1, "rate_per_second": 1, "min_fen": 1}),
        json!({"kind": "rain", "total": 1, "rate_per_second": 1, "min_fen": 1, "colour": "red"}),
        json!({"kind": "rain", "total": -1, "rate_per_second": 1, "min_fen": 1}),
        json!([]),
    ];
    for body in bad {
        let response = server.call(reqwest::Method::POST, "/v1/campaigns", Some(&body));
        assert!(response.status().is_client_error(), "{body}: {}", response.status());
        let error: Value = response.json().unwrap();
        assert!(!error["error"]["message"].as_str().unwrap().is_empty(), "{body}: {error}");
    }
    assert_eq!(server.get("/v1/campaigns"), json!([]));
}
