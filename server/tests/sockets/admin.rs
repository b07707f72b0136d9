//! The operators' surface, and what its commands do to users.

use std::collections::BTreeSet;

use hongbao_proto::token::Audience;
use hongbao_proto::v1::goodbye::Reason;
use reqwest::Method;
use serde_json::{Value, json};

use hongbao_testing::client::{grab, login, next_id};
use hongbao_testing::{Ending, Server, sign, until, user_token};

/// Every route that asks for a token.
const GUARDED: [(&str, &str); 20] = [
    ("GET", "/v1/campaigns"),
    ("POST", "/v1/campaigns"),
    ("GET", "/v1/campaigns/1"),
    ("POST", "/v1/campaigns/1/stop"),
    ("GET", "/v1/campaigns/1/orders"),
    ("POST", "/v1/deposits"),
    ("GET", "/v1/users/1/statement"),
    ("GET", "/v1/users/1/trace"),
    ("GET", "/v1/users/1/orders"),
    ("GET", "/v1/envelope-runs"),
    ("POST", "/v1/envelope-runs"),
    ("GET", "/v1/envelope-runs/1"),
    ("POST", "/v1/envelope-runs/1/stop"),
    ("GET", "/v1/envelopes/1"),
    ("GET", "/v1/stats"),
    ("GET", "/v1/sessions"),
    ("DELETE", "/v1/sessions/1"),
    ("POST", "/v1/announcements"),
    ("GET", "/v1/announcements/1"),
    ("POST", "/v1/drain"),
];

#[test]
fn guarded_routes_answer_401_in_json_without_an_admins_token() {
    let server = Server::start();
    let mut user = server.login(1);
    let tokens = [
        None,
        Some(String::new()),
        Some("garbage".to_owned()),
        Some(sign("tests", Audience::User)),
        Some(sign("tests", Audience::Report)),
    ];
    for (method, path) in GUARDED {
        for token in &tokens {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let response = server.call_as(token.as_deref(), method.clone(), path, Some(&json!({})));
            assert_eq!(response.status(), 401, "{method} {path} with {token:?}");
            assert!(response.headers().contains_key("www-authenticate"));
            let error: Value = response.json().unwrap();
            assert_eq!(error["error"]["code"], "unauthorized");
            assert!(!error["error"]["message"].as_str().unwrap().is_empty());
        }
    }
    // None of it was done.
    user.ping();
    assert_eq!(server.stats()["users_online"], 1);
}

#[test]
fn probes_metrics_and_the_public_list_ask_for_no_token() {
    let server = Server::start();
    for path in ["/healthz", "/readyz", "/metrics", "/public/campaigns", "/openapi.json"] {
        assert_eq!(server.call_as(None, Method::GET, path, None).status(), 200, "{path}");
    }
}

#[test]
fn the_description_lists_every_route_with_its_guard() {
    let server = Server::start();
    let api: Value = server.call_as(None, Method::GET, "/openapi.json", None).json().unwrap();
    assert!(api["openapi"].as_str().unwrap().starts_with("3."), "{}", api["openapi"]);
    assert_eq!(api["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let mut guarded = BTreeSet::new();
    let mut open = BTreeSet::new();
    for (path, operations) in api["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(
                operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()),
                "{method} {path}"
            );
            let list = if operation["security"].is_array() { &mut guarded } else { &mut open };
            list.insert((method.to_uppercase(), path.replace("{id}", "1").replace("{user}", "1")));
        }
    }
    let expected: BTreeSet<_> = GUARDED.iter().map(|&(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(guarded, expected);
    let probes =
        ["/healthz", "/metrics", "/public/campaigns", "/readyz"].map(|path| ("GET".to_owned(), path.to_owned()));
    assert_eq!(open, BTreeSet::from(probes));
    // What it refers to is there.
    let text = api.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = &reference[..reference.find('"').unwrap()];
        assert!(api.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn bad_requests_of_operators_get_json_and_change_nothing() {
    let server = Server::start();
    let mut user = server.login(1);
    let cases = [
        (Method::GET, "/v1/campaigns/7", None, 404),
        (Method::POST, "/v1/campaigns/7/stop", None, 404),
        (Method::GET, "/v1/campaigns/0", None, 400),
        (Method::GET, "/v1/sessions?limit=0", None, 400),
        (Method::GET, "/v1/sessions?limit=1001", None, 400),
        (Method::GET, "/v1/sessions?page=1", None, 400),
        (Method::GET, "/v1/campaigns/7/orders", None, 404),
        (Method::GET, "/v1/users/0/statement", None, 400),
        (Method::GET, "/v1/users/1/orders?limit=1001", None, 400),
        (Method::GET, "/v1/envelopes/7", None, 404),
        (Method::GET, "/v1/envelope-runs/7", None, 404),
        (Method::POST, "/v1/envelope-runs/7/stop", None, 404),
        (
            Method::POST,
            "/v1/envelope-runs",
            Some(
                json!({"count": 0, "rate_per_second": 1, "recipients": 1, "first_user": 1, "users": 1, "min_total_fen": 1}),
            ),
            400,
        ),
        (
            Method::POST,
            "/v1/envelope-runs",
            Some(
                json!({"count": 1, "rate_per_second": 1, "recipients": 2, "first_user": 1, "users": 1, "min_total_fen": 2}),
            ),
            400,
        ),
        (
            Method::POST,
            "/v1/envelope-runs",
            Some(
                json!({"count": 1, "rate_per_second": 1, "recipients": 2, "first_user": 1, "users": 2, "min_total_fen": 1}),
            ),
            400,
        ),
        (Method::POST, "/v1/deposits", Some(json!({"first_user": 1, "users": 0, "amount_fen": 1, "key": "k"})), 400),
        (Method::POST, "/v1/deposits", Some(json!({"first_user": 1, "users": 1, "amount_fen": 0, "key": "k"})), 400),
        (Method::POST, "/v1/deposits", Some(json!({"first_user": 1, "users": 1, "amount_fen": 1, "key": ""})), 400),
        (
            Method::POST,
            "/v1/deposits",
            Some(json!({"first_user": 1, "users": 1, "amount_fen": u64::MAX, "key": "k"})),
            400,
        ),
        (Method::DELETE, "/v1/sessions/2", None, 404),
        (Method::DELETE, "/v1/sessions/0", None, 400),
        (Method::POST, "/v1/announcements", Some(json!({"text": ""})), 400),
        (Method::GET, "/v1/announcements/1", None, 404),
        (Method::GET, "/v1/announcements/first", None, 400),
        (Method::POST, "/v1/announcements", Some(json!({"text": "x".repeat(1_025)})), 400),
    ];
    for (method, path, body, status) in cases {
        let response = server.call(method.clone(), path, body.as_ref());
        assert_eq!(response.status(), status, "{method} {path}");
        let error: Value = response.json().unwrap();
        assert!(
            error["error"]["code"].is_string() && error["error"]["message"].is_string(),
            "{method} {path}: {error}"
        );
    }
    let huge = server.call(Method::POST, "/v1/announcements", Some(&json!({"text": "x".repeat(100_000)})));
    assert_eq!(huge.status(), 413);
    user.ping();
    server.check_books();
}

#[test]
fn sessions_are_listed_page_by_page_each_once() {
    const USERS: u64 = 57;
    let server = Server::start();
    let clients: Vec<_> = (1..=USERS).map(|user| server.login(user)).collect();
    let mut path = "/v1/sessions?limit=10".to_owned();
    let (mut seen, mut pages) = (BTreeSet::new(), 0);
    loop {
        let page = server.get(&path);
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 10);
        for session in sessions {
            assert_eq!(session["state"], "online");
            assert!(session["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
            assert!(seen.insert(session["user"].as_u64().unwrap()), "listed twice: {session}");
        }
        pages += 1;
        let Some(next) = page["next"].as_object() else { break };
        path = format!("/v1/sessions?limit=10&set={}&slot={}", next["set"], next["slot"]);
    }
    assert_eq!((seen, pages), ((1..=USERS).collect(), 6));
    drop(clients);
}

#[test]
fn a_kicked_user_is_told_so_and_may_come_back() {
    let server = Server::start();
    let (mut bystander, mut user) = (server.login(1), server.login(2));
    assert_eq!(server.call(Method::DELETE, "/v1/sessions/2", None).status(), 202);
    assert_eq!(user.ending(), Ending::goodbye(Reason::Kicked));
    until("the user to be forgotten", || server.call(Method::DELETE, "/v1/sessions/2", None).status() == 404);
    bystander.ping();
    assert_eq!(server.ended("kicked"), 1);
    server.login(2).ping();
    server.check_books();
}

#[test]
fn a_newer_login_replaces_the_older_connection_in_any_set() {
    const LOGINS: u64 = 24;
    let server = Server::start();
    let mut bystander = server.login(1);
    let mut older = server.login(2);
    let mut sets = BTreeSet::new();
    for _ in 1..LOGINS {
        let mut newer = server.login(2);
        assert_eq!(older.ending(), Ending::goodbye(Reason::Replaced));
        newer.ping();
        let sessions = server.get("/v1/sessions")["sessions"].clone();
        let of_user = |session: &&Value| session["user"] == 2 && session["state"] == "online";
        let mine: Vec<_> = sessions.as_array().unwrap().iter().filter(of_user).collect();
        assert_eq!(mine.len(), 1, "{sessions}");
        sets.insert(mine[0]["set"].as_u64().unwrap());
        older = newer;
    }
    assert!(sets.len() > 1, "always the same SET: {sets:?}");
    bystander.ping();
    until("every older connection to be counted", || server.ended("replaced") == LOGINS - 1);
    assert_eq!(server.stats()["users_online"], 2);
    // The directory names the newest.
    server.call(Method::DELETE, "/v1/sessions/2", None);
    assert_eq!(older.ending(), Ending::goodbye(Reason::Kicked));
    server.check_books();
}

#[test]
fn a_user_who_logs_in_from_everywhere_ends_on_one_connection() {
    const THREADS: usize = 8;
    const LOGINS: usize = 25;
    let server = Server::start();
    let mut bystander = server.login(1);
    let last: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut clients: Vec<_> = (0..LOGINS).map(|_| server.connect()).collect();
                    for client in &mut clients {
                        client.send(next_id(), login(&user_token(2)));
                    }
                    clients
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // All but one are told that they were replaced.
    until("all but one to be replaced", || server.ended("replaced") == (THREADS * LOGINS - 1) as u64);
    until("the last one to be welcome", || server.stats()["users_online"] == 2);
    bystander.ping();
    assert_eq!(server.call(Method::DELETE, "/v1/sessions/2", None).status(), 202);
    let mut goodbyes = Vec::new();
    for mut client in last {
        goodbyes.push(client.ending().goodbye.unwrap());
    }
    assert_eq!(goodbyes.iter().filter(|goodbye| **goodbye == Reason::Kicked).count(), 1, "{goodbyes:?}");
    assert_eq!(goodbyes.iter().filter(|goodbye| **goodbye == Reason::Replaced).count(), THREADS * LOGINS - 1);
    server.login(2).ping();
    server.check_books();
}

#[test]
fn two_connections_that_fight_for_one_user_win_nothing_twice() {
    let server = Server::start();
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    let mut user = server.login(1);
    until("prizes to lie ready", || server.stats()["prizes"]["in_sets"] == 1_000);
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        // A Grab on the older connection, and a newer login on its heels.
        let id = next_id();
        user.send(id, grab(campaign));
        ids.insert(id);
        user = server.login(1);
    }
    server.check_books();
    let won = server.stats()["ledger"]["won"].as_u64().unwrap();
    let mut told = BTreeSet::new();
    let mut again = server.connect();
    let unacknowledged = again.login(&user_token(1)).unacknowledged;
    assert_eq!(u64::from(unacknowledged), won);
    if won > 0 {
        let wins = again.push(|event| match event {
            hongbao_proto::v1::server_frame::Event::Reminder(reminder) => Some(reminder.wins.clone()),
            _ => None,
        });
        for win in wins {
            assert!(ids.contains(&win.won_by_request_id) && told.insert(win.won_by_request_id), "{win:?}");
        }
    }
    assert_eq!(told.len() as u64, won);
}
