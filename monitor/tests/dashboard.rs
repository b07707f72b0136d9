//! The dashboard and the reporter on real sockets, in one process.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hdrhistogram::Histogram;
use hongbao_monitor::app::Monitor;
use hongbao_monitor::config::{Config, Doors};
use hongbao_monitor::owner::Outcome;
use hongbao_monitor::recording::ReportedByRole;
use hongbao_monitor::recording::read::{Reader, Second};
use hongbao_monitor::terminal::lines::ViewMode;
use hongbao_proto::frame::Codec;
use hongbao_proto::limits::REPORT_FRAME_BYTES_MAX;
use hongbao_proto::report_v1::{
    Counter, Hello, MonitorFrame, Report, ReporterFrame, Source, monitor_frame, reporter_frame,
};
use hongbao_proto::token::{Audience, Secret, Signer};
use hongbao_telemetry::clock::{unix_millis, unix_seconds};
use hongbao_telemetry::logs::LogArgs;
use hongbao_telemetry::report::names::{self, role};
use hongbao_telemetry::report::{Reporter, ReporterConfig, Sample};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    ingest: SocketAddr,
    http: SocketAddr,
    record: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<Outcome>,
    _directory: TempDir,
}

impl Running {
    async fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap()).await
    }

    async fn start_on(listen: SocketAddr) -> Self {
        Self::start_with(listen, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn start_with(listen: SocketAddr, http: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let config = Config {
            listen,
            http,
            doors: Doors::default(),
            record: directory.path().join("recording"),
            stragglers: Duration::from_millis(500),
            view: ViewMode::None,
            ready_file: None,
            secret_file: Some(secret),
            expect_balanced: false,
            log: LogArgs::default(),
        };
        let monitor = Monitor::bind(&config).await.unwrap();
        let stop = CancellationToken::new();
        let (ingest, http, record) = (monitor.ingest, monitor.http, config.record);
        let stopping = stop.clone();
        let task = tokio::spawn(async move { monitor.run(stopping).await.unwrap() });
        Self { ingest, http, record, stop, task, _directory: directory }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = reqwest::get(format!("http://{}{path}", self.http)).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Asks again, each time that something was recorded, until `wanted` says yes.
    async fn get_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let recorded = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        recorded.add_watch(&self.record, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO).unwrap();
        // Read as a pipe is; unchecked, because it is none.
        let recorded = Receiver::from_owned_fd_unchecked(recorded.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let mut events = [0; 4096];
        let asked = async {
            loop {
                let (_, answer) = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                recorded.readable().await.unwrap();
                while recorded.try_read(&mut events).is_ok() {}
            }
        };
        tokio::time::timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("{path} never became what it should"))
    }

    async fn ended(&self, reason: &str, count: u64) {
        self.get_until("/api/v1/run", |run| run["connections_ended"][reason] == count).await;
    }

    async fn stop(self) -> (Outcome, PathBuf, TempDir) {
        self.stop.cancel();
        let outcome = tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
        (outcome, self.record, self._directory)
    }
}

fn token(audience: Audience) -> String {
    let signer = Signer::new(&Secret::from_text(SECRET).unwrap());
    signer.sign("test", audience, unix_seconds(), 600).unwrap()
}

fn config(monitor: SocketAddr, role: &'static str, name: &str) -> ReporterConfig {
    ReporterConfig { monitor, token: token(Audience::Report), role, name: name.into() }
}

type Raw = Framed<TcpStream, Codec<MonitorFrame, ReporterFrame, REPORT_FRAME_BYTES_MAX>>;

async fn connect(monitor: SocketAddr) -> Raw {
    Framed::new(TcpStream::connect(monitor).await.unwrap(), Codec::default())
}

fn hello(token: String, name: &str, instance: &str, started_at_ms: u64) -> ReporterFrame {
    let source = Source {
        role: role::MACHINE.into(),
        name: name.into(),
        instance: instance.into(),
        started_at_ms,
        control: String::new(),
        listen: String::new(),
    };
    ReporterFrame { frame: Some(reporter_frame::Frame::Hello(Hello { token, source: Some(source) })) }
}

fn report(second: u64, total: u64) -> ReporterFrame {
    let counters = vec![Counter { name: names::GRABS_SENT.name.into(), total }];
    let report = Report { second, counters, ..Report::default() };
    ReporterFrame { frame: Some(reporter_frame::Frame::Report(report)) }
}

async fn introduced(monitor: SocketAddr, name: &str, instance: &str, started_at_ms: u64) -> Raw {
    let mut raw = connect(monitor).await;
    raw.send(&hello(token(Audience::Report), name, instance, started_at_ms)).await.unwrap();
    let answer = tokio::time::timeout(DEADLINE, raw.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(answer.frame, Some(monitor_frame::Frame::Accepted(_))), "{answer:?}");
    raw
}

/// The reason that the monitor gives before it hangs up.
async fn refusal(raw: &mut Raw) -> String {
    let frame = tokio::time::timeout(DEADLINE, raw.next()).await.unwrap().unwrap().unwrap();
    let Some(monitor_frame::Frame::Refused(refused)) = frame.frame else { panic!("{frame:?}") };
    assert!(tokio::time::timeout(DEADLINE, raw.next()).await.unwrap().is_none(), "the stream ends after a refusal");
    refused.reason
}

#[tokio::test]
async fn garbage_is_refused_with_its_reason_and_others_go_on() {
    let running = Running::start().await;
    let mut good = introduced(running.ingest, "m1", "a", unix_millis()).await;
    let pieces: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", "not a valid message"),
        (&[0], "length 0"),
        (&[0xff; 16], "does not end"),
        (&[0x80, 0x80, 0x20], "at most"),
    ];
    for (bytes, reason) in pieces {
        let mut raw = connect(running.ingest).await;
        raw.get_mut().write_all(bytes).await.unwrap();
        if bytes[0] == b'G' {
            // 'G' announces a frame of 71 bytes.
            raw.get_mut().write_all(&[0xff; 71]).await.unwrap();
        }
        let told = refusal(&mut raw).await;
        assert!(told.contains(reason), "{told} should say {reason}");
    }
    running.ended("garbage", 4).await;

    // After Hello a frame may be long, but not longer than a megabyte.
    good.get_mut().write_all(&[0x81, 0x80, 0x40]).await.unwrap();
    assert!(refusal(&mut good).await.contains("at most 1048576"));
    running.ended("garbage", 5).await;
    running.stop().await;
}

#[tokio::test]
async fn only_a_token_for_reporting_opens_the_door() {
    let running = Running::start().await;
    let foreign = Signer::new(&Secret::from_text("another secret that is long enough").unwrap());
    let expired = Signer::new(&Secret::from_text(SECRET).unwrap()).sign("test", Audience::Report, 1, 1).unwrap();
    let tokens = [
        (String::new(), "malformed"),
        (token(Audience::Admin), "not meant"),
        (token(Audience::User), "not meant"),
        (foreign.sign("test", Audience::Report, unix_seconds(), 60).unwrap(), "wrongly signed"),
        (expired, "expired"),
    ];
    let count = tokens.len() as u64;
    for (token, reason) in tokens {
        let mut raw = connect(running.ingest).await;
        raw.send(&hello(token, "m1", "a", unix_millis())).await.unwrap();
        let told = refusal(&mut raw).await;
        assert!(told.contains(reason), "{told} should say {reason}");
    }
    running.ended("token", count).await;
    let (outcome, ..) = running.stop().await;
    assert!(outcome.sources.is_empty());
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_ended_at_the_hello_deadline() {
    let running = Running::start().await;
    let mut raw = connect(running.ingest).await;
    assert!(refusal(&mut raw).await.contains("no Hello within 5 s"));
    running.ended("silent", 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_report_before_hello_and_a_second_hello_are_refused() {
    let running = Running::start().await;
    let mut raw = connect(running.ingest).await;
    raw.send(&report(1, 1)).await.unwrap();
    assert!(refusal(&mut raw).await.contains("must be Hello"));
    let mut raw = introduced(running.ingest, "m1", "a", unix_millis()).await;
    raw.send(&hello(token(Audience::Report), "m1", "a", unix_millis())).await.unwrap();
    assert!(refusal(&mut raw).await.contains("only reports"));
    running.ended("out_of_turn", 2).await;
    running.stop().await;
}

#[tokio::test]
async fn a_report_that_is_not_acceptable_ends_its_connection_only() {
    let running = Running::start().await;
    let mut bad = introduced(running.ingest, "m1", "a", unix_millis()).await;
    let mut good = introduced(running.ingest, "m2", "b", unix_millis()).await;
    bad.send(&report(unix_seconds(), u64::MAX)).await.unwrap();
    assert!(refusal(&mut bad).await.contains("out of range"));
    good.send(&report(unix_seconds(), 7)).await.unwrap();
    running.get_until("/api/v1/run", |run| run["reports"]["reports"] == 1).await;
    running.ended("rejected", 1).await;
    running.stop().await;
}

#[tokio::test]
async fn a_newer_instance_replaces_an_older_and_an_older_is_refused() {
    let running = Running::start().await;
    let now = unix_millis();
    let mut old = introduced(running.ingest, "m1", "a", now).await;
    let _new = introduced(running.ingest, "m1", "b", now + 10).await;
    assert!(refusal(&mut old).await.contains("took over"));
    let mut older = connect(running.ingest).await;
    older.send(&hello(token(Audience::Report), "m1", "a", now)).await.unwrap();
    assert!(refusal(&mut older).await.contains("newer instance of machine/m1"));
    running.ended("replaced", 1).await;
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
        raw.send(&frame).await.unwrap();
    }
    running.get_until("/api/v1/latest", |latest| latest["headline"]["second"].as_u64() > Some(second + 1)).await;
    // Its second was closed as incomplete long ago.
    raw.send(&report(second + 2, 35)).await.unwrap();
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
    let server = Reporter::new(config(running.ingest, role::SERVER, "s1"));
    let machine = Reporter::new(config(running.ingest, role::MACHINE, "m1"));
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
    let reporter = Reporter::new(config(address, role::MACHINE, "m1"));
    let stats = reporter.stats();
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
        let second = Running::start_on(address).await;
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
    tokio::time::timeout(DEADLINE, waiting).await.expect("the event never came");
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
    let metrics = reqwest::get(format!("http://{}/metrics", running.http)).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("hongbao_monitor_connections_ended_total{reason=\"garbage\"} 0\n"), "{metrics}");
    assert_eq!(metrics.matches("# HELP hongbao_monitor_connections_ended_total ").count(), 1);
    running.stop().await;
}

#[tokio::test]
async fn beyond_loopback_the_api_needs_an_administrators_token() {
    let running = Running::start_with("127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap()).await;
    let address = SocketAddr::from(([127, 0, 0, 1], running.http.port()));
    let client = reqwest::Client::new();
    for path in ["seconds", "latest", "books", "sources", "run"] {
        let response = client.get(format!("http://{address}/api/v1/{path}")).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
    }
    let request = client.get(format!("http://{address}/api/v1/run")).bearer_auth(token(Audience::Admin));
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(client.get(format!("http://{address}/metrics")).send().await.unwrap().status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn a_silent_monitor_costs_reports_but_no_samples() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reporter = Reporter::new(config(listener.local_addr().unwrap(), role::MACHINE, "m1"));
    let stats = reporter.stats();
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
    let reporter = Reporter::new(config(running.ingest, role::MACHINE, "m1"));
    let stats = reporter.stats();
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
        let reporter = Reporter::new(config(running.ingest, role::MACHINE, "m1"));
        let stats = reporter.stats();
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
