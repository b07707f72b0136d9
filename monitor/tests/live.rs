//! The run as it happens, over the real HTTP surface: stream, series, marks, SETs.

use std::sync::Arc;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use hongbao_monitor::limits::{MARKS_KEPT_MAX, STREAMS_MAX};
use hongbao_monitor::recording::read::{Reader, Second};
use hongbao_proto::report_v1::{Counter, Event, Gauge, Report, Sets};
use hongbao_telemetry::clock::{unix_millis, unix_seconds};
use hongbao_telemetry::report::names::{self, role};
use hongbao_telemetry::report::{Events, Reporter, Sample};
use hongbao_testing::reporter::{ReporterPeer, report_token, source};
use hongbao_testing::soon;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::Running;

impl Running {
    async fn listen(&self) -> Reading {
        self.listen_after(None).await
    }

    async fn listen_after(&self, id: Option<&str>) -> Reading {
        let request = self.client.get(self.url("/api/v1/stream"));
        let request = match id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Reading { response, text: String::new() }
    }
}

/// One reader of the stream.
struct Reading {
    response: reqwest::Response,
    text: String,
}

#[derive(Debug)]
struct Told {
    event: String,
    id: Option<u64>,
    data: Value,
}

impl Reading {
    /// The next event, comments left out; none at the end of the stream.
    async fn next(&mut self) -> Option<Told> {
        soon("the next event", self.event()).await
    }

    async fn event(&mut self) -> Option<Told> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let Some(data) = field("data:") {
                    return Some(Told {
                        event: field("event:").unwrap().to_owned(),
                        id: field("id:").map(|id| id.parse().unwrap()),
                        data: serde_json::from_str(data).unwrap(),
                    });
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Told) -> bool) -> Told {
        loop {
            let told = self.next().await.expect("the stream ended before that");
            if wanted(&told) {
                return told;
            }
        }
    }

    async fn second(&mut self) -> Told {
        self.until(|told| told.event == "second").await
    }
}

/// A process that this test plays.
async fn process(running: &Running, role: &str, name: &str) -> ReporterPeer {
    ReporterPeer::accepted(running.ingest, source(role, name)).await
}

fn sent(second: u64, total: u64) -> Report {
    let counters = vec![Counter { name: names::GRABS_SENT.name.into(), total }];
    let gauges = vec![Gauge { name: names::USERS.name.into(), value: 50 }];
    Report { second, counters, gauges, ..Report::default() }
}

fn event(at_ms: u64, text: &str) -> Event {
    Event { at_ms, kind: names::event::QPS.into(), text: text.into() }
}

#[tokio::test]
async fn a_stream_opens_with_hello_sends_each_second_once_and_ends() {
    let running = Running::start().await;
    let mut reading = running.listen().await;
    let hello = reading.next().await.unwrap();
    assert_eq!((hello.event.as_str(), &hello.data["id"]), ("hello", &json!("the-run")));
    assert!(hello.data["run"]["started_at_ms"].as_u64() <= hello.data["now_ms"].as_u64());
    let mut machine = process(&running, role::MACHINE, "m0").await;
    let first = unix_seconds();
    for (second, total) in [(first, 10), (first + 1, 25)] {
        machine.report(sent(second, total)).await;
    }
    let mut heard = Vec::new();
    let is_second = |told: &&Told| told.event == "second";
    let of_machine = |told: &Told| told.event == "sources" && told.data[0]["users"] == 50;
    while heard.iter().filter(is_second).count() < 2 || !heard.iter().any(of_machine) {
        heard.push(reading.next().await.unwrap());
    }
    let seconds: Vec<&Told> = heard.iter().filter(is_second).collect();
    assert_eq!((seconds[0].id, &seconds[0].data["columns"]["second"]), (Some(first), &json!(first)));
    assert_eq!((seconds[1].id, &seconds[1].data["columns"]["sent"]), (Some(first + 1), &json!(15)));
    let figures = &seconds[0].data["columns"];
    assert_eq!(
        (&figures["sent"], &figures["users_goal"], &figures["residual_fen"]),
        (&json!(10), &json!(50), &json!(0))
    );
    assert!(figures["host_memory_available_bytes"].as_u64() > Some(0), "{figures}");
    let sources = &heard.iter().find(|told| of_machine(told)).unwrap().data[0];
    assert_eq!(
        (&sources["role"], &sources["name"], &sources["presence"]),
        (&json!("machine"), &json!("m0"), &json!("reporting"))
    );

    running.stop.cancel();
    let end = reading.until(|told| told.event == "end").await;
    assert!(end.data["ended_at_ms"].as_u64() >= end.data["started_at_ms"].as_u64());
    assert!(reading.next().await.is_none(), "nothing follows the end");
    // A stream that is open does not hold up the stop.
    running.stop().await;
}

#[tokio::test]
async fn a_returning_reader_gets_missed_seconds_before_live_ones() {
    let running = Running::start().await;
    let mut machine = process(&running, role::MACHINE, "m0").await;
    let first = unix_seconds();
    let mut reading = running.listen().await;
    machine.report(sent(first, 1)).await;
    assert_eq!(reading.second().await.id, Some(first));
    drop(reading);
    let mut other = running.listen().await;
    for ahead in 1..=3 {
        machine.report(sent(first + ahead, ahead)).await;
    }
    while other.second().await.id < Some(first + 2) {}
    let mut again = running.listen_after(Some(&first.to_string())).await;
    for second in first + 1..=first + 4 {
        assert_eq!(again.second().await.id, Some(second), "each once, in order");
    }
    // Nonsense is no second; the stream is an ordinary one.
    let mut confused = running.listen_after(Some("yesterday")).await;
    assert_eq!(confused.next().await.unwrap().event, "hello");
    running.stop().await;
}

#[tokio::test]
async fn what_many_machines_report_is_one_mark_everywhere() {
    let running = Running::start().await;
    let mut reading = running.listen().await;
    let second = unix_seconds();
    let mut machines = Vec::new();
    for name in ["m0", "m1", "m2"] {
        let mut machine = process(&running, role::MACHINE, name).await;
        machine
            .report(Report { events: vec![event(second * 1000, "5,000 a second, \"fast\"")], ..sent(second, 1) })
            .await;
        machines.push(machine);
    }
    let mark = reading.until(|told| told.event == "mark").await;
    let expected =
        json!({ "at_ms": second * 1000, "kind": "qps", "source": "3 machines", "text": "5,000 a second, \"fast\"" });
    assert_eq!((&mark.data, mark.id), (&expected, None));
    // Told again after a reconnect.
    machines[0]
        .report(Report { events: vec![event(second * 1000, "5,000 a second, \"fast\"")], ..sent(second + 1, 2) })
        .await;
    machines[0].report(Report { events: vec![event(second * 1000, "another")], ..sent(second + 2, 3) }).await;
    assert_eq!(reading.until(|told| told.event == "mark").await.data["text"], "another");
    let (status, listed) = running.get("/api/v1/marks?run=the-run").await;
    assert_eq!((status, &listed["marks"][0], listed["marks"].as_array().unwrap().len()), (200, &expected, 2));
    assert_eq!(running.get("/api/v1/marks?run=another").await.0, 404);

    let (_, record, _directory) = running.stop().await;
    let marks = Reader::open(&record).unwrap().marks().unwrap();
    assert_eq!(json!(marks)[0], expected);
    assert_eq!((marks.len(), marks[1].text.as_str(), marks[1].source.as_str()), (2, "another", "machine/m0"));
}

#[tokio::test]
async fn an_event_arrives_though_the_monitor_was_away_meanwhile() {
    let first = Running::start().await;
    let address = first.ingest;
    first.stop().await;
    let events = Events::default();
    let reporter = Reporter { events: events.clone(), ..Reporter::new(address, report_token(), role::MACHINE, "m0") };
    let dropped = Arc::clone(&reporter.stats);
    let at = unix_millis();
    events.push(at, names::event::STORM, "30% are cut");
    let story = async {
        // More than may wait: the report of that second is gone.
        while dropped.dropped.load(std::sync::atomic::Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let second = Running::with(&["--listen", &address.to_string()]).await;
        let mut reading = second.listen().await;
        let mark = reading.until(|told| told.event == "mark").await;
        assert_eq!(mark.data, json!({ "at_ms": at, "kind": "storm", "source": "machine/m0", "text": "30% are cut" }));
        second.stop().await;
    };
    tokio::select! {
        () = reporter.run(|_| Sample::default()) => unreachable!("a reporter never ends by itself"),
        () = story => {}
    }
}

#[tokio::test]
async fn a_series_is_what_headline_csv_recorded() {
    let running = Running::start().await;
    let mut reading = running.listen().await;
    let mut machine = process(&running, role::MACHINE, "m0").await;
    let mut server = process(&running, role::SERVER, "s0").await;
    let first = unix_seconds();
    for ahead in 0..3 {
        let mut latency = Histogram::<u64>::new(3).unwrap();
        latency.record_n(90, 5).unwrap();
        latency.record_n(2_000, ahead + 1).unwrap();
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&latency, &mut bytes).unwrap();
        let name = names::LATENCY.name.to_owned();
        let histograms = vec![hongbao_proto::report_v1::Histogram { name, v2_deflate: bytes.into() }];
        machine.report(Report { histograms, ..sent(first + ahead, 100 * ahead) }).await;
        let counter = |name: &str, total| Counter { name: name.into(), total };
        let counters = vec![
            counter("grabs_received", 90 * ahead),
            counter("answers_overloaded", 7 * ahead),
            counter("answers_undelivered", ahead),
            counter("connections_ended_idle", 3 * ahead),
            counter("connections_ended_slow", ahead),
            counter("errors_malformed", ahead),
        ];
        server.report(Report { second: first + ahead, counters, ..Report::default() }).await;
    }
    while reading.second().await.id < Some(first + 2) {}
    let (status, series) = running.get(&format!("/api/v1/series?run=live&from={first}&until={}", first + 2)).await;
    assert_eq!((status, &series["run"], &series["every"]), (200, &json!("the-run"), &json!(1)));
    assert_eq!(series["columns"]["second"], json!([first, first + 1, first + 2]));
    assert_eq!(series["reasons"]["ended"], json!({ "idle": [0, 3, 3], "slow": [0, 1, 1] }));
    assert_eq!(series["reasons"]["answers"], json!({ "overloaded": [0, 7, 7] }));
    assert_eq!(series["columns"]["refused"], json!([0, 1, 1]));
    let heat = series["heat"]["latency"].as_array().unwrap();
    assert_eq!(
        heat.iter().map(|row| (row[0].clone(), row[6].clone())).collect::<Vec<_>>(),
        [(json!(5), json!(1)), (json!(5), json!(2)), (json!(5), json!(3)),]
    );
    let (_, folded) = running.get(&format!("/api/v1/series?from={first}&until={}&every=100000", first + 2)).await;
    assert_eq!(folded["columns"]["sent"].as_array().unwrap().len(), 1);
    let mean = folded["columns"]["sent"][0].as_f64().unwrap();
    assert!((mean - 200.0 / 3.0).abs() < 1e-9, "{mean}");
    for path in ["/api/v1/series?from=9&until=8", "/api/v1/series?every=0", "/api/v1/series?step=3"] {
        assert_eq!(running.get(path).await.0, 400, "{path}");
    }
    assert_eq!(running.get("/api/v1/series?run=../../etc").await.0, 404);

    let (_, record, _directory) = running.stop().await;
    let mut rows = Vec::new();
    let take = |second: Second| {
        rows.push(json!(second.headline));
        true
    };
    Reader::open(&record).unwrap().seconds(0, u64::MAX, take).unwrap();
    for (index, row) in rows.iter().take(3).enumerate() {
        for (name, recorded) in row.as_object().unwrap() {
            let told = &series["columns"][name][index];
            let recorded = recorded.as_bool().map_or_else(|| recorded.clone(), |yes| json!(u8::from(yes)));
            // Nothing was measured: a recording has 0 there, a series nothing.
            let nothing = told.is_null() && recorded == json!(0) && name.contains("_lag_");
            assert!(*told == recorded || nothing, "{name}: {told} is not {recorded}");
        }
    }
}

#[tokio::test]
async fn every_book_has_its_residual_and_one_that_stands_is_an_alert() {
    let running = Running::start().await;
    let mut reading = running.listen().await;
    let mut server = process(&running, role::SERVER, "s0").await;
    let mut machine = process(&running, role::MACHINE, "m0").await;
    let first = unix_seconds() - 20;
    let counters = |totals: &[(&str, u64)]| {
        totals.iter().map(|(name, total)| Counter { name: (*name).into(), total: *total }).collect::<Vec<_>>()
    };
    // The ledger is older than the run: what it held counts for nothing.
    for (second, sold, opened) in [(first, 100, 50), (first + 1, 103, 52)] {
        let totals =
            [("units_sold", sold), ("earned_fen", sold * 80), ("shares_opened", opened), ("opened_fen", opened)];
        server.report(Report { second, counters: counters(&totals), ..Report::default() }).await;
    }
    let told = [("orders_paid", 2), ("spent_fen", 160), ("shares_opened", 2), ("opened_fen", 2)];
    machine.report(Report { second: first, counters: counters(&told), ..Report::default() }).await;
    let alert = reading.until(|told| told.event == "mark").await.data;
    assert_eq!((&alert["kind"], &alert["source"]), (&json!("alert"), &json!("monitor")));
    assert!(alert["text"].as_str().unwrap().contains("books of sales"), "{alert}");
    let (_, books) = running.get("/api/v1/books").await;
    let book = |index: usize| &books["books"][index];
    let names: Vec<&Value> = (0..3).map(|index| &book(index)["book"]).collect();
    assert_eq!(names, ["rain", "sales", "envelopes"]);
    assert_eq!((&book(1)["servers_count"], &book(1)["users_count"]), (&json!(3), &json!(2)));
    assert_eq!((&book(1)["residual_count"], &book(1)["residual_fen"]), (&json!(1), &json!(80)));
    assert_eq!(
        (&book(0)["balanced"], &book(1)["balanced"], &book(2)["balanced"]),
        (&json!(true), &json!(false), &json!(true))
    );
    assert_eq!((&books["balanced"], &books["residual_fen"]), (&json!(false), &json!(0)));
    assert!(book(1)["unbalanced_seconds"].as_u64() >= Some(5), "{books}");
    let figures = reading.second().await.data;
    assert_eq!(
        (&figures["columns"]["residual_units"], &figures["columns"]["residual_share_fen"]),
        (&json!(1), &json!(0))
    );

    let told = [("orders_paid", 3), ("spent_fen", 240), ("shares_opened", 2), ("opened_fen", 2)];
    machine.report(Report { second: unix_seconds(), counters: counters(&told), ..Report::default() }).await;
    let resolved = reading.until(|told| told.event == "mark").await.data;
    assert_eq!(resolved["kind"], "resolved");
    let (outcome, ..) = running.stop().await;
    assert!(outcome.run.books.balanced());
}

#[tokio::test]
async fn sets_are_shown_and_those_of_a_gone_server_are_not() {
    let running = Running::start().await;
    let mut reading = running.listen().await;
    let mut server = process(&running, role::SERVER, "s0").await;
    let sets = |stock: [u64; 2]| Sets {
        connections: vec![3, 4],
        online: vec![2, 4],
        queue_depth: vec![0, 1],
        owed: vec![0, 0],
        stock: stock.into(),
    };
    let first = unix_seconds();
    server.report(Report { second: first, sets: Some(sets([9, 8])), ..Report::default() }).await;
    let expected =
        json!({ "connections": [3, 4], "online": [2, 4], "queue_depth": [0, 1], "owed": [0, 0], "stock": [9, 8] });
    assert_eq!(reading.until(|told| told.event == "sets").await.data["s0"], expected);
    assert_eq!(running.get("/api/v1/sets").await.1["s0"], expected);
    server.report(Report { second: first + 1, sets: Some(sets([7, 8])), ..Report::default() }).await;
    assert_eq!(reading.until(|told| told.event == "sets").await.data["s0"]["stock"], json!([7, 8]));
    drop(server);
    reading.until(|told| told.event == "sets" && told.data == json!({})).await;

    let mut uneven = process(&running, role::SERVER, "s1").await;
    uneven
        .report(Report { second: first, sets: Some(Sets { stock: vec![], ..sets([1, 1]) }), ..Report::default() })
        .await;
    let refused = uneven.refusal().await;
    assert!(refused.contains("equally long"), "{refused}");
    running.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_dropped_and_others_miss_nothing() {
    let running = Running::start().await;
    let mut good = running.listen().await;
    // A peer whose kernel takes little, and who reads nothing.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut slow = socket.connect(running.http).await.unwrap();
    slow.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut begun = [0; 64];
    assert!(slow.read(&mut begun).await.unwrap() > 0);

    // More than its buffers hold, by far; but never more at once than may wait.
    let mut machine = process(&running, role::MACHINE, "m0").await;
    let (reports, each, second, mut heard) = (300, 32, unix_seconds(), 0);
    for report in 0..reports {
        let text = |number| format!("{report} {number} {}", "\"".repeat(230));
        let events = (0..each).map(|number| event(second * 1000, &text(number))).collect();
        machine.report(Report { events, ..sent(second, 1) }).await;
        if (report + 1) % 30 == 0 {
            while heard < (report + 1) * each {
                let mark = good.until(|told| told.event == "mark").await;
                let text = mark.data["text"].as_str().unwrap();
                assert!(text.starts_with(&format!("{} {} \"", heard / each, heard % each)), "{text} is number {heard}");
                heard += 1;
            }
        }
    }
    let mut rest = Vec::new();
    soon("the end of the stream", slow.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "its stream has ended in order");
    let marks = String::from_utf8_lossy(&rest).matches("event: mark").count();
    assert!(marks < reports * each, "{marks}");
    let metrics = running.metrics().await;
    assert!(metrics.contains("hongbao_monitor_streams_dropped_total 1\n"), "{metrics}");
    let (_, listed) = running.get("/api/v1/marks").await;
    assert_eq!(listed["marks"].as_array().unwrap().len(), MARKS_KEPT_MAX);
    running.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_leave_room_for_others() {
    let running = Running::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut reading = running.listen().await;
        assert_eq!(reading.next().await.unwrap().event, "hello");
        streams.push(reading);
    }
    let (status, refused) = running.get("/api/v1/stream").await;
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("unavailable")));
    assert_eq!(running.get("/api/v1/run").await.0, 200);
    drop(streams.pop());
    // Its place is free as soon as the server has noticed.
    soon("a place", async { while running.response("/api/v1/stream").await.status() != 200 {} }).await;
    drop(streams);
    running.stop().await;
}
