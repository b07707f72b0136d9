//! The dashboard and the reporter on real sockets, in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;
use hongbao_monitor::recording::read::{Reader, Second};
use hongbao_monitor::run::second::ReportedByRole;
use hongbao_proto::report_v1::{Counter, Report, Source};
use hongbao_proto::token::{Audience, Secret, Signer};
use hongbao_telemetry::clock::{unix_millis, unix_seconds};
use hongbao_telemetry::report::names::{self, role};
use hongbao_telemetry::report::{Reporter, Sample};
use hongbao_testing::reporter::{ReporterPeer, source};
use hongbao_testing::{secret, sign, soon};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::Running;

/// Once `count` connections have ended for `reason`.
async fn ended(running: &Running, reason: &str, count: u64) {
    running.get_until("/api/v1/run", |run| run["connections_ended"][reason] == count).await;
}

fn token(audience: Audience) -> String {
    sign("test", audience)
}

fn reporter(monitor: SocketAddr, role: &'static str, name: &str) -> Reporter {
    Reporter::new(monitor, token(Audience::Report), role, name)
}

async fn introduced(monitor: SocketAddr, name: &str, instance: &str, started_at_ms: u64) -> ReporterPeer {
    ReporterPeer::accepted(monitor, instance_of(name, instance, started_at_ms)).await
}

fn instance_of(name: &str, instance: &str, started_at_ms: u64) -> Source {
    Source { instance: instance.into(), started_at_ms, control: String::new(), ..source(role::MACHINE, name) }
}

fn report(second: u64, total: u64) -> Report {
    let counters = vec![Counter { name: names::GRABS_SENT.name.into(), total }];
    Report { second, counters, ..Report::default() }
}

#[tokio::test]
async fn garbage_is_refused_with_its_reason_and_others_go_on() {
    let running = Running::start().await;
    let mut good = introduced(running.ingest, "m1", "a", unix_millis()).await;
    let pieces: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", "not a valid message"),
        (&[0], "length 0"),
        (&[0xff; 16], "at most"),
        (&[0x80, 0x80, 0x20], "at most"),
    ];
    for (bytes, reason) in pieces {
        let mut raw = ReporterPeer::connect(running.ingest).await;
        raw.link.get_mut().write_all(bytes).await.unwrap();
        if bytes[0] == b'G' {
            // 'G' announces a frame of 71 bytes.
            raw.link.get_mut().write_all(&[0xff; 71]).await.unwrap();
        }
        let told = raw.refusal().await;
        assert!(told.contains(reason), "{told} should say {reason}");
    }
    ended(&running, "garbage", 4).await;

    // After Hello a frame may be long, but not longer than a megabyte.
    good.link.get_mut().write_all(&[0x81, 0x80, 0x40]).await.unwrap();
    assert!(good.refusal().await.contains("at most 1048576"));
    ended(&running, "garbage", 5).await;
    running.stop().await;
}

#[tokio::test]
async fn only_a_token_for_reporting_opens_the_door() {
    let running = Running::start().await;
    let foreign = Signer::new(&Secret::from_text("another secret that is long enough").unwrap());
    let expired = Signer::new(&secret()).sign("test", Audience::Report, 1, 1).unwrap();
    let tokens = [
        (String::new(), "malformed"),
        (token(Audience::Admin), "not meant"),
        (token(Audience::User), "not meant"),
        (foreign.sign("test", Audience::Report, unix_seconds(), 60).unwrap(), "wrongly signed"),
        (expired, "expired"),
    ];
    let count = tokens.len() as u64;
    for (token, reason) in tokens {
        let mut raw = ReporterPeer::connect(running.ingest).await;
        raw.hello(token, instance_of("m1", "a", unix_millis())).await;
        let told = raw.refusal().await;
        assert!(told.contains(reason), "{told} should say {reason}");
    }
    ended(&running, "token", count).await;
    let (outcome, ..) = running.stop().await;
    assert!(outcome.sources.is_empty());
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_ended_at_the_hello_deadline() {
    let running = Running::start().await;
    let mut raw = ReporterPeer::connect(running.ingest).await;
    assert!(raw.refusal().await.contains("no Hello within 5 s"));
    ended(&running, "silent", 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_report_before_hello_and_a_second_hello_are_refused() {
    let running = Running::start().await;
    let mut raw = ReporterPeer::connect(running.ingest).await;
    raw.report(report(1, 1)).await;
    assert!(raw.refusal().await.contains("must be Hello"));
    let mut raw = introduced(running.ingest, "m1", "a", unix_millis()).await;
    raw.hello(token(Audience::Report), instance_of("m1", "a", unix_millis())).await;
    assert!(raw.refusal().await.contains("only reports"));
    ended(&running, "out_of_turn", 2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_report_that_is_not_acceptable_ends_its_connection_only() {
    let running = Running::start().await;
    let mut bad = introduced(running.ingest, "m1", "a", unix_millis()).await;
    let mut good = introduced(running.ingest, "m2", "b", unix_millis()).await;
    bad.report(report(unix_seconds(), u64::MAX)).await;
    assert!(bad.refusal().await.contains("out of range"));
    good.report(report(unix_seconds(), 7)).await;
    running.get_until("/api/v1/run", |run| run["reports"]["reports"] == 1).await;
    ended(&running, "rejected", 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_newer_instance_replaces_an_older_and_an_older_is_refused() {
    let running = Running::start().await;
    let now = unix_millis();
    let mut old = introduced(running.ingest, "m1", "a", now).await;
    let _new = introduced(running.ingest, "m1", "b", now + 10).await;
    assert!(old.refusal().await.contains("took over"));
    let mut older = ReporterPeer::connect(running.ingest).await;
    older.hello(token(Audience::Report), instance_of("m1", "a", now)).await;
    assert!(older.refusal().await.contains("newer instance of machine/m1"));
    ended(&running, "replaced", 1).await;
    let (outcome, ..) = running.stop().await;
    assert_eq!((outcome.sources.len(), outcome.sources[0].instances), (1, 2));
}

#[tokio::test]
async fn late_repeated_and_reordered_seconds_lose_nothing() {
    let running = Running::start().await;
    let now = unix_millis();
    let mut raw = introduced(running.ingest, "m1", "a", now).await;
    let second = now / 1000;
    for frame in [report(second + 1, 30), report(second, 10), report(second, 10), report(second + 1, 30)] {
        raw.report(frame).await;
    }
    running.get_until("/api/v1/latest", |latest| latest["headline"]["second"].as_u64() > Some(second + 1)).await;
    // Its second was closed as incomplete long ago.
    raw.report(report(second + 2, 35)).await;
    running.get_until("/api/v1/run", |run| run["reports"]["late"] == 1).await;
    let (outcome, record, _directory) = running.stop().await;
    assert_eq!(outcome.run.reports.duplicate, 2);

    let (mut sent, mut seconds) = (Vec::new(), Vec::new());
    let take = |second: Second| {
        sent.push(second.headline.sent);
        seconds.push(second.headline.second);
        true
    };
    Reader::open(&record).unwrap().seconds(0, u64::MAX, take).unwrap();
    assert_eq!((sent[0], sent[1], sent.iter().sum::<i64>()), (10, 20, 35));
    assert!(seconds.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seconds:?}");
}

#[tokio::test]
async fn both_books_agree_and_the_recording_can_be_read_back() {
    let running = Running::start().await;
    let leave = CancellationToken::new();
    let server = reporter(running.ingest, role::SERVER, "s1");
    let machine = reporter(running.ingest, role::MACHINE, "m1");
    let mut calls = 0;
    let server = server.run_until(leave.clone().cancelled_owned(), move |_| {
        calls += 1;
        let won = 1_000 + 10 * (calls - 1);
        Sample {
            counters: vec![(names::PRIZES_WON, won), (names::PAID_FEN, won * 88), (names::PRIZES_ISSUED, 10 * calls)],
            gauges: vec![(names::USERS_ONLINE, 5)],
            ..Sample::default()
        }
    });
    let mut calls = 0;
    let machine = machine.run_until(leave.clone().cancelled_owned(), move |_| {
        let received = 10 * calls;
        calls += 1;
        let mut latency = Histogram::new(3).unwrap();
        latency.record(1_500).unwrap();
        Sample {
            counters: vec![(names::PRIZES_RECEIVED, received), (names::RECEIVED_FEN, received * 88)],
            histograms: vec![(names::LATENCY, latency)],
            ..Sample::default()
        }
    });
    let watch = async {
        let latest = running.get_until("/api/v1/latest", |latest| {
            latest["second"]["complete"] == true && latest["second"]["books"]["won"].as_i64() > Some(0)
        });
        let latest = latest.await;
        assert_eq!(latest["headline"]["users_online"], 5);
        assert_eq!(latest["headline"]["latency_p50_us"].as_u64(), Some(1_500));
        assert_eq!(latest["second"]["roles"]["server"]["counters"]["prizes_won"]["delta"], 10);
        leave.cancel();
    };
    tokio::join!(server, machine, watch);

    let all_left =
        |sources: &Value| sources["sources"].as_array().unwrap().iter().all(|source| source["presence"] == "left");
    running.get_until("/api/v1/sources", all_left).await;
    let (outcome, record, _directory) = running.stop().await;
    assert!(outcome.run.books.balanced(), "{:?}", outcome.run.books);
    assert!(outcome.run.books.claims.won > 0);

    let recording = Reader::open(&record).unwrap();
    let run = recording.document().unwrap();
    assert_eq!(run["run"]["books"]["residual_fen"], 0);
    assert!(run["run"]["ended_at_ms"].as_u64() > run["run"]["started_at_ms"].as_u64());

    let mut measured = 0;
    recording
        .histograms(|_, name, histogram| measured += u64::from(name == "machine.latency_us") * histogram.len())
        .unwrap();
    assert!(measured >= 2, "{measured}");

    let (mut won, mut online, mut names) = (Vec::new(), Vec::new(), String::new());
    let take = |_, roles: ReportedByRole| {
        names.push_str(&format!("{roles:?}"));
        let Some(server) = roles.get(role::SERVER).filter(|server| server.sources == ["s1"]) else { return };
        won.extend(server.counters["prizes_won"][0]);
        online.extend(server.gauges["users_online"][0]);
    };
    recording.reported(0, u64::MAX, take).unwrap();
    assert!(won.contains(&10) && online.contains(&5), "{won:?} {online:?}");
    assert!(!names.contains("final_report"));
}

#[tokio::test]
async fn a_reporter_survives_a_monitor_restart_and_its_totals_do_too() {
    let first = Running::start().await;
    let address = first.ingest;
    let reporter = reporter(address, role::MACHINE, "m1");
    let stats = Arc::clone(&reporter.stats);
    let (sent, dropped) = (|| stats.sent.load(Ordering::Relaxed), || stats.dropped.load(Ordering::Relaxed));
    let mut total = 0;
    let sampled = Notify::new();
    let report = reporter.run(|_| {
        sampled.notify_one();
        total += 10;
        Sample { counters: vec![(names::PRIZES_RECEIVED, total)], ..Sample::default() }
    });
    let story = async {
        until(&sampled, || sent() >= 1).await;
        first.stop().await;
        until(&sampled, || dropped() >= 1).await;
        let sent_before = sent();
        let second = Running::with(&["--listen", &address.to_string()]).await;
        until(&sampled, || sent() > sent_before).await;
        let books = second.get_until("/api/v1/books", |books| books["prizes_received"].as_i64() >= Some(10)).await;
        assert_eq!(books["joined_late"], true);
        second.stop().await;
    };
    tokio::select! {
        () = report => unreachable!("a reporter never ends by itself"),
        () = story => {}
    }
}

/// Looks again each time that the reporter takes its second's sample.
async fn until(sampled: &Notify, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sampled.notified().await;
        }
    };
    soon("the event", waiting).await;
}

#[tokio::test]
async fn the_http_interface_refuses_bad_questions_in_json() {
    let running = Running::start().await;
    for (path, status, code) in [
        ("/api/v1/latest", 404, "not_found"),
        ("/api/v1/seconds?limit=0", 400, "bad_request"),
        ("/api/v1/seconds?limit=601", 400, "bad_request"),
        ("/api/v1/seconds?from=yesterday", 400, "bad_request"),
        ("/api/v1/seconds?until=3", 400, "bad_request"),
        ("/nothing", 404, "not_found"),
    ] {
        let (answered, body) = running.get(path).await;
        assert_eq!((answered, body["error"]["code"].as_str()), (status, Some(code)), "{path}");
    }
    assert_eq!(running.get("/healthz").await.0, 200);
    assert_eq!(running.get("/readyz").await.0, 200);
    let metrics = running.metrics().await;
    assert!(metrics.contains("hongbao_monitor_connections_ended_total{reason=\"garbage\"} 0\n"), "{metrics}");
    assert_eq!(metrics.matches("# HELP hongbao_monitor_connections_ended_total ").count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn beyond_loopback_the_api_needs_an_administrators_token() {
    let running = Running::with(&["--http", "0.0.0.0:0"]).await;
    for path in ["seconds", "latest", "books", "sources", "run"] {
        let response = running.response(&format!("/api/v1/{path}")).await;
        assert_eq!(response.status(), 401, "{path}");
    }
    let request = running.client.get(running.url("/api/v1/run")).bearer_auth(token(Audience::Admin));
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(running.response("/metrics").await.status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn a_silent_monitor_costs_reports_but_no_samples() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reporter = reporter(listener.local_addr().unwrap(), role::MACHINE, "m1");
    let stats = Arc::clone(&reporter.stats);
    let mut seconds = Vec::new();
    let sampled = Notify::new();
    let dropped = until(&sampled, || stats.dropped.load(Ordering::Relaxed) >= 1);
    tokio::select! {
        () = reporter.run(|second| {
            sampled.notify_one();
            seconds.push(second);
            Sample::default()
        }) => unreachable!("a reporter never ends by itself"),
        () = dropped => {}
    }
    assert!(seconds.len() >= 3 && seconds.windows(2).all(|pair| pair[1] > pair[0]), "{seconds:?}");
    assert_eq!(stats.sent.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_report_too_long_is_dropped_and_the_next_one_is_sent() {
    let running = Running::start().await;
    let reporter = reporter(running.ingest, role::MACHINE, "m1");
    let stats = Arc::clone(&reporter.stats);
    let mut entries = 200_000;
    let sampled = Notify::new();
    let both =
        until(&sampled, || stats.dropped.load(Ordering::Relaxed) == 1 && stats.sent.load(Ordering::Relaxed) >= 1);
    tokio::select! {
        () = reporter.run(|_| {
            sampled.notify_one();
            let gauges = vec![(names::USERS_ONLINE, 1); std::mem::replace(&mut entries, 1)];
            Sample { gauges, ..Sample::default() }
        }) => unreachable!("a reporter never ends by itself"),
        () = both => {}
    }
    running.stop().await;
}

#[test]
fn reporter_and_http_run_on_a_local_runtime_with_unsend_samples() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async {
        let running = Running::start().await;
        let calls = std::rc::Rc::new(std::cell::Cell::new(0));
        let (counted, sampled) = (std::rc::Rc::clone(&calls), std::rc::Rc::new(Notify::new()));
        let beat = std::rc::Rc::clone(&sampled);
        let reporter = reporter(running.ingest, role::MACHINE, "m1");
        let stats = Arc::clone(&reporter.stats);
        let task = tokio::task::spawn_local(reporter.run(move |_| {
            beat.notify_one();
            counted.set(counted.get() + 1);
            Sample::default()
        }));
        until(&sampled, || stats.sent.load(Ordering::Relaxed) >= 1).await;
        assert!(calls.get() >= 1);
        task.abort();
        running.stop().await;
    });
}
