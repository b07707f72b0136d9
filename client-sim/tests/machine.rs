//! A machine over real sockets, against a server that does well or ill.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{Ask, DEADLINE, FakeServer, Machine};
use hongbao_sim::histogram::Micros;
use hongbao_sim::machine::config::UserRange;
use hongbao_sim::results::Results;

/// Every request was answered, once.
fn assert_settled(results: &Results, requests: u64) {
    let totals = &results.totals;
    assert_eq!((totals.planned, totals.sent, totals.answered), (requests, requests, requests), "{totals:#?}");
    assert_eq!((totals.unanswered, results.outstanding), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_users_connect_hold_the_schedule_and_journal_their_wins() {
    let server = FakeServer::start().await;
    let ask = Ask { users: UserRange { first: 101, last: 200 }, total: 300, answer_timeout: DEADLINE };
    let machine = Machine::start_with(&server, ask).await;
    machine.until("login of all", |status| status.online == 100 && status.state == "running").await;
    let from = machine.hold(600, 2).await;
    machine
        .until("the end of the schedule", |status| {
            status.totals.planned >= 400 && status.outstanding == 0 && status.phase.is_some_and(|phase| phase.qps == 0)
        })
        .await;
    let (results, directory) = machine.stop().await;

    // A third of the users, two seconds at 600/s: in proportion to within what the bijection must.
    assert!(results.totals.planned.abs_diff(400) <= 10, "{}", results.totals.planned);
    assert_settled(&results, results.totals.planned);
    assert_eq!(results.totals.violations.len(), 0, "{:?}", results.totals.violations);
    assert_eq!((results.segments[0].from, results.segments[0].qps, results.segments[1].qps), (from, 600, 0));
    let per_second: Vec<u64> = results.seconds.iter().map(|second| second.planned).collect();
    assert!(per_second[..2].iter().all(|planned| planned.abs_diff(200) <= 10), "{per_second:?}");
    assert_eq!(results.segments[0].latency.len(), results.totals.answered);
    assert_eq!(results.totals.ends.get("ours"), Some(&100));

    let seen = server.seen.lock().unwrap();
    let users: BTreeSet<u64> = seen.grabs.iter().map(|&(user, _)| user).collect();
    assert_eq!((users.first(), users.last(), users.len()), (Some(&101), Some(&200), 100));
    let ids: BTreeSet<u64> = seen.grabs.iter().map(|&(_, id)| id).collect();
    assert_eq!(ids.len(), seen.grabs.len());
    assert!(seen.sources.iter().all(|source| source.is_loopback() && source.to_string() == "127.64.0.101"));

    let journal = std::fs::read_to_string(directory.path().join("journal.csv")).unwrap();
    assert_eq!(journal.lines().next(), Some("what,user,request,item,amount_fen,at_ms"));
    assert_eq!(journal.lines().count() - 1, seen.won.len());
    assert_eq!(results.totals.prizes, seen.won.len() as u64);
    assert_eq!(results.totals.fen, 7 * seen.won.len() as u64);
    assert_eq!(results.campaigns[0].prizes, results.totals.prizes);
    assert_eq!(seen.acknowledged.len(), seen.won.len());
    for (request, serial) in &seen.won {
        let item = format!("1/{serial}");
        assert!(journal.lines().any(|row| row.split(',').skip(2).take(2).eq([&request.to_string(), &item])));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_one_turn_per_user_and_second_is_held_too() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 5).await;
    machine.until("login of all", |status| status.online == 5).await;
    machine.hold(1_000, 1).await;
    machine.until("all answers", |status| status.totals.answered == 1_000).await;
    let (results, _directory) = machine.stop().await;
    assert_settled(&results, 1_000);
    assert!(results.totals.violations.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_lost_with_its_connection_is_resent_as_it_was() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 20).await;
    machine.until("login of all", |status| status.online == 20).await;
    server.mischief.cut.store(true, Ordering::SeqCst);
    machine.hold(100, 1).await;
    machine.until("all answers", |status| status.totals.answered == 100).await;
    machine.until("return of the user", |status| status.online == 20).await;
    let (results, _directory) = machine.stop().await;
    assert_settled(&results, 100);
    assert!(results.totals.violations.is_empty(), "{:?}", results.totals.violations);
    assert!(results.totals.resent >= 1);
    assert_eq!(results.totals.reconnects, 1);

    let seen = server.seen.lock().unwrap();
    let (user, repeated) = seen.grabs[0];
    assert_eq!(seen.grabs.iter().filter(|&&grab| grab == (user, repeated)).count(), 2);
    let of_user: Vec<u64> = seen.grabs[1..].iter().filter(|&&(owner, _)| owner == user).map(|&(_, id)| id).collect();
    assert!(of_user.is_sorted(), "ids of a user increase: {of_user:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_answer_and_a_wrong_one_are_violations() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 10).await;
    machine.until("login of all", |status| status.online == 10).await;
    server.mischief.answer_twice.store(true, Ordering::SeqCst);
    server.mischief.answer_wrong.store(true, Ordering::SeqCst);
    machine.hold(50, 1).await;
    machine.until("all answers", |status| status.totals.answered == 50).await;
    let (results, _directory) = machine.stop().await;
    assert_settled(&results, 50);
    assert_eq!(results.totals.violations.get("duplicate_answer"), Some(&1), "{:?}", results.totals.violations);
    assert_eq!(results.totals.violations.get("wrong_kind"), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_no_protocol_is_cut_and_its_request_resent() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 10).await;
    machine.until("login of all", |status| status.online == 10).await;
    server.mischief.garbage.store(true, Ordering::SeqCst);
    machine.hold(50, 1).await;
    machine.until("all answers", |status| status.totals.answered == 50).await;
    let (results, _directory) = machine.stop().await;
    assert_settled(&results, 50);
    assert_eq!(results.totals.violations.get("malformed"), Some(&1));
    assert_eq!(results.totals.ends.get("protocol"), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_returns_at_the_moment_that_the_goodbye_told() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 10).await;
    machine.until("login of all", |status| status.online == 10).await;
    server.mischief.goodbye_after_ms.store(700, Ordering::SeqCst);
    machine.hold(50, 2).await;
    machine.until("return of the user", |status| status.totals.reconnects == 1).await;
    machine.until("all answers", |status| status.totals.answered == 100).await;
    let (results, _directory) = machine.stop().await;
    assert_settled(&results, 100);
    assert_eq!(results.totals.ends.get("goodbye_draining"), Some(&1));

    let seen = server.seen.lock().unwrap();
    let (user, said) = seen.goodbyes.iter().next().unwrap();
    let returned = seen.logins[user][1];
    let away = returned - *said;
    assert!(away >= Duration::from_millis(700), "{away:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_cuts_its_share_and_all_come_back_with_nothing_lost() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 200).await;
    machine.until("login of all", |status| status.online == 200).await;
    // Some of those who come back meet a server without capacity.
    server.mischief.refuse_logins.store(25, Ordering::SeqCst);
    let from = machine.hold(400, 3).await;
    let storm = serde_json::json!({"share": 300_000, "at": from + 1, "watch_seconds": 10});
    assert_eq!(machine.post("/v1/storm", storm).await.status(), 200);
    machine.until("all answers", |status| status.totals.answered == 1_200).await;
    machine.until("the end of the storm", |status| status.storms[0].over && status.online == 200).await;
    let (results, directory) = machine.stop().await;
    assert_settled(&results, 1_200);
    assert!(results.totals.violations.is_empty(), "{:?}", results.totals.violations);
    assert_eq!((results.totals.ends["storm"], results.totals.reconnects), (60, 60));

    let storm = &results.storms[0];
    assert_eq!((storm.view.cut, storm.view.back, storm.view.over), (60, 60, true));
    let back = storm.view.last_back_us.unwrap();
    assert!(back >= 50_000, "{back}");
    let others: u64 = storm.others.iter().map(|second| Micros::try_from(second.latency.clone()).unwrap().len()).sum();
    // Two seconds were watched; of their 800 requests about 560 are of users who were spared.
    assert!((500..620).contains(&others), "{others}");
    assert_eq!(storm.held.len(), results.segments[0].held_by_storm);
    assert_eq!(results.segments[0].latency.len() + storm.held.len(), 1_200);

    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.logins.values().map(Vec::len).sum::<usize>(), 200 + 60 + 25);
    assert_eq!(results.totals.prizes, seen.won.len() as u64);
    let journal = std::fs::read_to_string(directory.path().join("journal.csv")).unwrap();
    assert_eq!(journal.lines().count() - 1, seen.won.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_that_cannot_be_is_refused() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 1).await;
    let storm = |share: u32, at: u64, watch_seconds: u32| {
        let order = serde_json::json!({"share": share, "at": at, "watch_seconds": watch_seconds});
        let answer = machine.post("/v1/storm", order);
        async move { answer.await.status().as_u16() }
    };
    assert_eq!(storm(300_000, 1_795_000_000, 60).await, 409);
    assert_eq!(storm(300_000, 4_000_000_000, 0).await, 409);
    for share in [0, 1_000_001] {
        assert_eq!(storm(share, 4_000_000_000, 60).await, 422);
    }
    assert_eq!(storm(300_000, 4_000_000_000, 60).await, 200);
    assert_eq!(storm(300_000, 4_000_000_059, 60).await, 409);
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_are_counted_user_by_user() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 20).await;
    machine.until("login of all", |status| status.online == 20).await;
    for text in ["rain at noon", "rain at one", "rain at noon"] {
        server.announcements.send(text.to_owned()).unwrap();
    }
    machine.until("all announcements", |status| status.totals.announcements == 60).await;
    let (results, _directory) = machine.stop().await;
    let heard: Vec<_> = results.announced.iter().map(|one| (one.text.as_str(), one.users, one.repeated)).collect();
    assert_eq!(heard, [("rain at noon", 20, 20), ("rain at one", 20, 0)]);
    assert!(results.announced.iter().all(|one| 0 < one.first_us && one.first_us <= one.last_us));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_told_goodbye_for_good_stays_away_and_is_counted() {
    let server = FakeServer::start().await;
    let ask = Ask { users: UserRange { first: 1, last: 10 }, total: 10, answer_timeout: Duration::from_millis(500) };
    let machine = Machine::start_with(&server, ask).await;
    machine.until("login of all", |status| status.online == 10).await;
    server.mischief.goodbye_for_good.store(true, Ordering::SeqCst);
    machine.hold(20, 2).await;
    // The ten users have four turns each, and the one who is away misses three.
    let status = machine
        .until("three missed turns", |status| status.totals.answered == 37 && status.totals.unanswered == 3)
        .await;
    assert_eq!((status.retired, status.online, status.outstanding), (1, 9, 0));
    let (results, _directory) = machine.stop().await;
    assert_eq!(results.totals.ends.get("goodbye_kicked"), Some(&1));
    assert_eq!(results.totals.reconnects, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_answers_is_counted_after_the_timeout() {
    let server = FakeServer::start().await;
    let ask = Ask { users: UserRange { first: 1, last: 10 }, total: 10, answer_timeout: Duration::from_millis(300) };
    let machine = Machine::start_with(&server, ask).await;
    machine.until("login of all", |status| status.online == 10).await;
    server.mischief.ignore.store(true, Ordering::SeqCst);
    machine.hold(20, 1).await;
    let status = machine.until("all answers but one", |status| status.totals.answered == 19).await;
    assert_eq!(status.totals.sent, 20);
    machine.until("the timeout", |status| status.totals.unanswered == 1 && status.outstanding == 0).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_login_is_resent_on_the_same_connection() {
    let server = FakeServer::start().await;
    server.mischief.refuse_logins.store(7, Ordering::SeqCst);
    let machine = Machine::start(&server, 10).await;
    machine.until("login of all", |status| status.online == 10).await;
    let (results, _directory) = machine.stop().await;
    assert_eq!(results.totals.ends.values().sum::<u64>(), 10);
    assert_eq!(server.seen.lock().unwrap().logins.values().map(Vec::len).sum::<usize>(), 17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_win_told_twice_is_booked_once_and_acknowledged() {
    let server = FakeServer::start().await;
    server.mischief.remind.store(true, Ordering::SeqCst);
    let machine = Machine::start(&server, 3).await;
    machine
        .until("acknowledged wins", |status| {
            status.totals.prizes == 3 && status.acknowledges_outstanding == 0 && status.totals.acknowledges >= 3
        })
        .await;
    let (results, directory) = machine.stop().await;
    assert_eq!((results.totals.prizes, results.totals.fen), (3, 15));
    let journal = std::fs::read_to_string(directory.path().join("journal.csv")).unwrap();
    assert_eq!(journal.lines().count(), 4);
    assert_eq!(server.seen.lock().unwrap().acknowledged.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_users_ping_before_the_server_takes_them_for_gone() {
    let server = FakeServer::start().await;
    server.idle_timeout_ms.store(200, Ordering::SeqCst);
    let machine = Machine::start(&server, 3).await;
    machine.until("login of all", |status| status.online == 3).await;
    server.until("six pings", |seen| seen.pings >= 6).await;
    machine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_surface_wants_a_token_and_no_change_in_the_past() {
    let server = FakeServer::start().await;
    let machine = Machine::start(&server, 1).await;
    for path in ["/v1/status", "/v1/results"] {
        assert_eq!(machine.get(path, None).await.status(), 401);
        assert_eq!(machine.get(path, Some("garbage")).await.status(), 401);
    }
    assert_eq!(machine.get("/healthz", None).await.status(), 200);
    let metrics = machine.get("/metrics", None).await.text().await.unwrap();
    assert!(metrics.contains("hongbao_machine_users_online"), "{metrics}");
    let refused = machine.post("/v1/qps", serde_json::json!({"qps": 5, "at": 1_795_000_000})).await;
    assert_eq!(refused.status(), 409);
    assert!(refused.text().await.unwrap().contains("too late"));
    assert_eq!(machine.post("/v1/qps", serde_json::json!({"qps": 5})).await.status().as_u16() / 100, 4);
    machine.stop().await;
}
