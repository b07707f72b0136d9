//! Past runs over HTTP: the recording kept with the tests, one that a test records, and whatever
//! may be wrong with one.

use std::fs;
use std::path::{Path, PathBuf};

use hongbao_proto::report_v1::{Counter, Report, Sets};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::report::names;
use hongbao_testing::reporter::{ReporterPeer, source};
use hongbao_testing::soon;
use rusqlite::Connection;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Running;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recording")
}

/// A monitor that records to `recordings/now`, beside whatever a test puts there.
async fn start() -> Running {
    Running::start_in(tempfile::tempdir().unwrap(), "now", &[]).await
}

impl Running {
    fn recordings(&self) -> &Path {
        self.record.parent().unwrap()
    }

    /// Puts a copy of the recording kept with the tests beside the current one.
    fn recorded(&self, name: &str) -> PathBuf {
        let to = self.recordings().join(name);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(fixture()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
        to
    }

    /// A request whose path nobody has tidied up.
    async fn raw(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.http);
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon(path, socket.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Changes a recording as whoever has SQLite may.
fn change(directory: &Path, sql: &str) {
    Connection::open(directory.join("run.sqlite")).unwrap().execute_batch(sql).unwrap();
}

/// Figures of the recording kept with the tests.
fn recorded(sql: &str) -> Vec<f64> {
    let recording = Connection::open(fixture().join("run.sqlite")).unwrap();
    let mut rows = recording.prepare(sql).unwrap();
    rows.query_map([], |row| Ok(row.get::<_, Option<f64>>(0)?.unwrap_or(f64::NAN)))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// A column of a table that was exported.
fn cells<'a>(table: &'a (csv::StringRecord, Vec<csv::StringRecord>), name: &str) -> Vec<&'a str> {
    let at = table.0.iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}"));
    table.1.iter().map(|row| &row[at]).collect()
}

fn floats(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
}

#[tokio::test]
async fn runs_are_listed_with_their_results_and_the_current_one_first() {
    let running = start().await;
    running.recorded("night-1");
    let damaged = running.recorded("night-2");
    change(&damaged, "UPDATE run SET status = '{ not json'");
    fs::create_dir(running.recordings().join("empty")).unwrap();
    let answer = running.good("/api/v1/runs").await;
    let runs = answer["runs"].as_array().unwrap();
    let ids: Vec<&str> = runs.iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["now", "night-1", "night-2"]);
    assert_eq!((&runs[0]["live"], &runs[1]["live"]), (&true.into(), &false.into()));
    let run = &runs[1];
    let most = |name: &str| recorded(&format!("SELECT max({name}) FROM seconds"))[0];
    assert_eq!((run["seconds"].as_u64(), run["seconds_complete"].as_u64()), (Some(30), Some(30)));
    assert_eq!(run["users_max"].as_f64(), Some(most("users_online")));
    assert_eq!(run["qps_max"].as_f64(), Some(most("answered")));
    assert_eq!((&run["balanced"], &run["passed"], &run["won"]), (&true.into(), &true.into(), &5182.into()));
    assert!(run["title"].as_str().unwrap().starts_with("2,000 users: 200/s"), "{run}");
    assert!(run["problem"].is_null() && run["latency_p99_us"].as_f64().unwrap() > 0.0);
    let problem = runs[2]["problem"].as_str().unwrap();
    assert!(problem.starts_with("run.sqlite is damaged") && runs[2]["seconds"] == 30, "{problem}");
    assert!(!problem.contains(running.recordings().to_str().unwrap()), "{problem}");
    running.stop().await;
}

#[tokio::test]
async fn a_series_is_what_was_recorded() {
    let running = start().await;
    running.recorded("old");
    let series = running.good("/api/v1/series?run=old").await;
    assert_eq!((&series["run"], &series["every"]), (&"old".into(), &1.into()));
    for name in ["second", "sent", "answered", "won", "paid_fen", "residual_fen", "users_online"] {
        assert_eq!(floats(&series["columns"][name]), recorded(&format!("SELECT {name} FROM seconds")), "{name}");
    }
    assert!(series["columns"]["complete"].as_array().unwrap().iter().all(|one| *one == 1));
    let seconds = floats(&series["columns"]["second"]);
    let available = recorded(&format!("SELECT memory_available_bytes FROM hosts WHERE second = {}", seconds[5]));
    assert_eq!(floats(&series["columns"]["host_memory_available_bytes"])[5..6], available);
    // What nobody told is absent.
    assert!(series["columns"]["units_sold"].as_array().unwrap().iter().all(Value::is_null));
    let length = seconds.len();
    let heat = series["heat"]["latency"].as_array().unwrap();
    assert_eq!((heat.len(), series["heat"]["bounds_us"].as_array().unwrap().len()), (length, 21));
    let answers: u64 = heat.iter().flat_map(|row| row.as_array().into_iter().flatten()).filter_map(Value::as_u64).sum();
    let summary: Value = serde_json::from_slice(&fs::read(fixture().join("summary.json")).unwrap()).unwrap();
    assert_eq!(answers, summary["totals"]["answered"].as_u64().unwrap());
    let welcomed: f64 =
        recorded("SELECT reasons ->> '$.answers.welcome' FROM seconds").iter().filter(|n| !n.is_nan()).sum();
    assert!(welcomed > 0.0);
    assert!((floats(&series["reasons"]["answers"]["welcome"]).iter().sum::<f64>() - welcomed).abs() < 1e-9);
    running.stop().await;
}

#[tokio::test]
async fn a_series_is_cut_and_folded_as_it_was_asked_for() {
    let running = start().await;
    running.recorded("old");
    let whole = running.good("/api/v1/series?run=old").await;
    let (seconds, sent) = (floats(&whole["columns"]["second"]), floats(&whole["columns"]["sent"]));
    let part = running.good(&format!("/api/v1/runs/old/series?from={}&until={}", seconds[4], seconds[9])).await;
    assert_eq!(floats(&part["columns"]["second"]), seconds[4..=9]);
    assert_eq!(floats(&part["columns"]["sent"]), sent[4..=9]);
    let folded = running.good("/api/v1/series?run=old&every=10").await;
    assert_eq!(folded["every"], 10);
    let firsts = floats(&folded["columns"]["second"]);
    assert!(firsts.len() <= 4 && firsts[1] % 10.0 == 0.0);
    let second_group: Vec<f64> = seconds
        .iter()
        .zip(&sent)
        .filter(|(second, _)| (firsts[1]..firsts[2]).contains(*second))
        .map(|(_, sent)| *sent)
        .collect();
    let mean = second_group.iter().sum::<f64>() / second_group.len() as f64;
    assert!((floats(&folded["columns"]["sent"])[1] - mean).abs() < 1e-9);
    for (query, part) in [("from=9&until=8", "later"), ("every=0", "at least 1"), ("every=x", "every")] {
        let (status, answer) = running.get(&format!("/api/v1/series?run=old&{query}")).await;
        let message = answer["error"]["message"].as_str().unwrap().to_owned();
        assert!(status == 400 && message.contains(part), "{query}: {status} {message}");
    }
    running.stop().await;
}

#[tokio::test]
async fn the_table_has_every_column_and_every_second_as_recorded() {
    let running = start().await;
    running.recorded("old");
    let response = running.response("/api/v1/runs/old/export.csv").await;
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"hongbao-old.csv\"");
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/csv"));
    let text = response.text().await.unwrap();
    assert!(text.lines().count() == 31 && text.matches("\r\n").count() == 31, "RFC 4180 ends lines with CRLF");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let exported = (reader.headers().unwrap().clone(), reader.records().map(Result::unwrap).collect::<Vec<_>>());
    for name in ["second", "sent", "won", "residual_fen"] {
        let figures: Vec<f64> = cells(&exported, name).iter().map(|cell| cell.parse().unwrap()).collect();
        assert_eq!(figures, recorded(&format!("SELECT {name} FROM seconds")), "{name}");
    }
    assert!(cells(&exported, "complete").iter().all(|cell| *cell == "true"));
    assert!(cells(&exported, "units_sold").iter().all(|cell| cell.is_empty()));
    let available = recorded("SELECT memory_available_bytes FROM hosts JOIN seconds USING (second)")[0];
    assert_eq!(cells(&exported, "host_memory_available_bytes")[0].parse(), Ok(available));
    assert_eq!(exported.0.iter().filter(|name| *name == "second").count(), 1);
    let welcomed: u64 = cells(&exported, "answers_welcome").iter().filter_map(|cell| cell.parse::<u64>().ok()).sum();
    assert!(welcomed >= 2_000, "{welcomed}");
    running.stop().await;
}

#[tokio::test]
async fn the_whole_run_is_one_document() {
    let running = start().await;
    let directory = running.recorded("old");
    let start = 1_795_264_110_000u64;
    change(
        &directory,
        &format!(
            "INSERT INTO marks (at_ms, kind, source, text) VALUES ({}, 'storm', 'fleet', '30%, now'), ({start}, 'qps', '2 machines', '400/s')",
            start + 5_000
        ),
    );
    let response = running.response("/api/v1/runs/old/export.json").await;
    assert_eq!(response.headers()["content-disposition"], "attachment; filename=\"hongbao-old.json\"");
    let document: Value = response.json().await.unwrap();
    assert_eq!(document["run"]["run"]["books"]["won"], 5182);
    assert_eq!(document["summary"]["users"], 2_000);
    assert_eq!(document["series"]["columns"]["second"].as_array().unwrap().len(), 30);
    assert_eq!((&document["marks"][0]["kind"], &document["marks"][1]["text"]), (&"qps".into(), &"30%, now".into()));
    let marks = running.good("/api/v1/marks?run=old").await;
    assert_eq!(marks["marks"], document["marks"]);
    // They stand in the report, too.
    let page = running.response("/api/v1/runs/old/report.html").await.text().await.unwrap();
    assert!(page.contains("30%, now") && page.contains("2 machines"));
    running.stop().await;
}

#[tokio::test]
async fn the_report_is_drawn_from_the_recording_and_leaves_it_alone() {
    let running = start().await;
    let directory = running.recorded("old");
    let files = || fs::read_dir(&directory).unwrap().count();
    let before = files();
    let response = running.response("/api/v1/runs/old/report.html").await;
    assert_eq!(response.headers()["content-disposition"], "inline; filename=\"hongbao-old-report.html\"");
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("sandbox"), "{policy}");
    let page = response.text().await.unwrap();
    let names = running.good("/api/v1/runs/old/charts").await;
    let names: Vec<&str> = names["charts"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(page.matches("\\u003csvg ").count() == names.len() && names.contains(&"11-latency-heat"), "{names:?}");
    let chart = running.response(&format!("/api/v1/runs/old/charts/{}.svg", names[0])).await;
    assert_eq!((chart.status().as_u16(), chart.headers()["content-type"].to_str().unwrap()), (200, "image/svg+xml"));
    assert!(chart.text().await.unwrap().starts_with("<svg "));
    for missing in ["nothing.svg", "0-timeline.png", "0-timeline", "..%2frun.sqlite"] {
        assert_eq!(running.get(&format!("/api/v1/runs/old/charts/{missing}")).await.0, 404, "{missing}");
    }
    let figures = running.good("/api/v1/runs/old/report.json").await;
    assert_eq!((&figures["recording"], &figures["verdict"]["passed"]), (&"old".into(), &true.into()));
    assert_eq!(files(), before, "reading a run writes nothing");
    // Another second, another report.
    change(
        &directory,
        "CREATE TEMP TABLE more AS SELECT * FROM seconds WHERE second = 1795264132; UPDATE more SET second = second + 1;
         INSERT INTO seconds SELECT * FROM more",
    );
    let figures = running.good("/api/v1/runs/old/report.json").await;
    assert_eq!(figures["run"]["seconds"], 31);
    running.stop().await;
}

#[tokio::test]
async fn two_runs_are_told_side_by_side() {
    let running = start().await;
    running.recorded("a");
    let other = running.recorded("b");
    let path = other.join("summary.json");
    let mut summary: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    summary["phases"][0]["p99_ms"] = (summary["phases"][0]["p99_ms"].as_f64().unwrap() * 2.0).into();
    summary["phases"][1]["name"] = "another".into();
    fs::write(&path, summary.to_string()).unwrap();
    let told = running.good("/api/v1/compare?a=a&b=b").await;
    assert_eq!(
        (&told["a"]["run"], &told["b"]["run"], &told["a"]["balanced"]),
        (&"a".into(), &"b".into(), &true.into())
    );
    let rows = told["rows"].as_array().unwrap();
    let row = |group: &str, name: &str| {
        rows.iter().find(|row| row["group"] == group && row["name"] == name).unwrap_or_else(|| panic!("{group} {name}"))
    };
    let p99 = row("200/s", "latency_p99_us");
    assert!((p99["ratio"].as_f64().unwrap() - 2.0).abs() < 1e-9 && p99["unit"] == "us", "{p99}");
    assert!((row("run", "won")["ratio"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    // A phase that nobody else is named as stands beside the one in its place.
    assert!(row("400/s | another", "qps_planned")["b"].is_number());
    for (query, status) in [("a=a", 400), ("a=a&b=none", 404), ("a=a&b=../b", 404), ("a=a&b=b&c=1", 400)] {
        assert_eq!(running.get(&format!("/api/v1/compare?{query}")).await.0, status, "{query}");
    }
    let compare = |json: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hongbao-monitor"));
        let output =
            command.env_clear().arg("compare").args([running.recordings().join("a"), other.clone()]).args(json);
        output.output().unwrap()
    };
    let printed = String::from_utf8(compare(&[]).stdout).unwrap();
    assert!(printed.contains("200/s: latency p99") && printed.contains("2.00"), "{printed}");
    let printed: Value = serde_json::from_slice(&compare(&["--json"]).stdout).unwrap();
    assert_eq!(printed["rows"], told["rows"]);
    running.stop().await;
}

#[tokio::test]
async fn nobody_gets_out_of_the_recordings_directory() {
    let running = start().await;
    running.recorded("old");
    fs::rename(running.recorded("hidden"), running.home.path().join("outside")).unwrap();
    std::os::unix::fs::symlink(running.home.path().join("outside"), running.recordings().join("link")).unwrap();
    for id in
        ["..", "../outside", "..%2foutside", "%2e%2e%2foutside", "..%5coutside", ".", "%00", "old%2f..%2fold", "a%20b"]
    {
        for rest in ["export.csv", "export.json", "report.html", "report.json", "charts", "series", "marks"] {
            let answer = running.raw(&format!("/api/v1/runs/{id}/{rest}")).await;
            let status = answer.split(' ').nth(1).unwrap().to_owned();
            assert!(["400", "404"].contains(&status.as_str()), "{id}/{rest}: {answer}");
            assert!(!answer.contains("second"), "{id}/{rest}: {answer}");
        }
        for path in [
            format!("/api/v1/series?run={id}"),
            format!("/api/v1/marks?run={id}"),
            format!("/api/v1/compare?a={id}&b=old"),
        ] {
            let answer = running.raw(&path).await;
            let status = answer.split(' ').nth(1).unwrap();
            assert!(["400", "404"].contains(&status) && !answer.contains("columns"), "{path}: {answer}");
        }
    }
    let (status, answer) = running.get("/api/v1/series?run=link").await;
    assert_eq!((status, &answer["error"]["code"]), (404, &"not_found".into()), "a link that leads out is no run");
    let (status, answer) = running.get("/api/v1/series?run=none").await;
    assert!(status == 404 && answer["error"]["message"].as_str().unwrap().contains("/api/v1/runs"), "{answer}");
    // Nor by a file within a recording.
    let planted = running.recorded("planted");
    fs::remove_file(planted.join("run.sqlite")).unwrap();
    std::os::unix::fs::symlink(fixture().join("run.sqlite"), planted.join("run.sqlite")).unwrap();
    assert_eq!(running.get("/api/v1/series?run=planted").await.0, 422);
    running.stop().await;
}

#[tokio::test]
async fn damage_is_named_with_its_second_and_without_its_place() {
    let running = start().await;
    for (id, sql, part) in [
        ("torn-second", "UPDATE seconds SET sent = 0.5 WHERE second = 1795264110", "second 1795264110"),
        ("torn-host", "UPDATE hosts SET tcp_in_use = 'many'", "tcp_in_use"),
        ("torn-heat", "UPDATE seconds SET heat = '{'", "EOF"),
    ] {
        change(&running.recorded(id), sql);
        for path in [format!("/api/v1/series?run={id}"), format!("/api/v1/runs/{id}/report.json")] {
            let (status, answer) = running.get(&path).await;
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(
                status == 422 && message.contains("run.sqlite") && message.contains(part),
                "{path}: {status} {message}"
            );
            assert!(!message.contains(running.recordings().to_str().unwrap()), "{message}");
        }
    }
    // A table may be under way when the damaged row is met: then it must not look whole.
    for (seconds, early) in [(0, true), (5_000, false)] {
        let torn = running.recorded("torn-late");
        change(
            &torn,
            &format!(
                "CREATE TEMP TABLE more AS SELECT * FROM seconds WHERE second = 1795264132;
                 WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n <= {seconds})
                 INSERT INTO temp.more SELECT more.second + n, {} FROM temp.more, numbers;
                 DELETE FROM more WHERE second = 1795264132;
                 INSERT INTO seconds SELECT * FROM more;
                 UPDATE seconds SET complete = 'perhaps' WHERE second = (SELECT max(second) FROM seconds)",
                columns_after_second()
            ),
        );
        let answer = reqwest::get(format!("http://{}/api/v1/runs/torn-late/export.csv", running.http)).await;
        match answer {
            Ok(response) if early => assert_eq!(response.status().as_u16(), 422),
            Ok(response) => assert!(response.bytes().await.is_err(), "the connection breaks off"),
            Err(error) => assert!(!early, "{error}"),
        }
    }
    running.stop().await;
}

fn columns_after_second() -> String {
    let recording = Connection::open(fixture().join("run.sqlite")).unwrap();
    let rows = recording.prepare("SELECT * FROM seconds").unwrap();
    rows.column_names().skip(1).map(|name| format!("more.{name}")).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn a_run_is_read_while_another_program_writes_it() {
    let running = start().await;
    let directory = running.recorded("writing");
    change(
        &directory,
        "PRAGMA journal_mode = WAL; UPDATE run SET ended_at_ms = NULL, status = json_set(status, '$.ended_at_ms', NULL)",
    );
    let writer = Connection::open(directory.join("run.sqlite")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM seconds WHERE second > 1795264110").unwrap();
    let series = running.good("/api/v1/series?run=writing").await;
    assert_eq!(floats(&series["columns"]["second"]).last(), Some(&1_795_264_132.0));
    let text = running.response("/api/v1/runs/writing/export.csv").await.text().await.unwrap();
    assert_eq!(text.lines().count(), 31);
    let figures = running.good("/api/v1/runs/writing/report.json").await;
    assert!(figures["verdict"]["failures"].to_string().contains("still runs"), "{figures}");
    writer.execute_batch("ROLLBACK").unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_past_run_has_its_sets_and_its_machines() {
    let running = start().await;
    let directory = running.recorded("old");
    let sources = running.good("/api/v1/runs/old/sources").await["sources"].clone();
    assert_eq!((&sources[0]["name"], &sources[0]["presence"]), (&"server-1".into(), &"left".into()));
    assert!(sources[1]["online"].is_null(), "what it said last is not in this recording");
    let then = running.good("/api/v1/runs/old/sources?at=1795264113").await["sources"].clone();
    assert_eq!((&then[1]["name"], &then[1]["presence"]), (&"machine-01".into(), &"reporting".into()));
    assert_eq!((&then[1]["online"], &then[1]["cpu_us"]), (&2_000.into(), &40_000.into()));
    change(&directory, "DELETE FROM sources WHERE second = 1795264113");
    let then = running.good("/api/v1/runs/old/sources?at=1795264113").await["sources"].clone();
    assert_eq!((&then[1]["presence"], &then[1]["online"]), (&"lost".into(), &Value::Null));
    assert_eq!(running.good("/api/v1/runs/old/sets").await, serde_json::json!({}));
    assert_eq!(running.get("/api/v1/runs/old/sets?at=soon").await.0, 400);
    running.stop().await;
}

#[tokio::test]
async fn a_run_recorded_a_moment_ago_is_told_as_it_was_live() {
    let first = Running::start_in(tempfile::tempdir().unwrap(), "first", &[]).await;
    let mut machine = ReporterPeer::accepted(first.ingest, source(names::role::MACHINE, "m1")).await;
    let from = unix_seconds();
    for number in 1..=3u64 {
        let counters = vec![Counter { name: names::GRABS_SENT.name.into(), total: 100 * number }];
        let report = Report { second: from + number - 1, counters, ..Report::default() };
        machine.report(report).await;
    }
    // Reports were taken once the last one shows in the count.
    let mut stream = first.response("/api/v1/stream").await;
    let mut told = String::new();
    while !told.contains("event: second") || !told.contains(&format!("id: {}", from + 2)) {
        let chunk = soon("the next second", stream.chunk()).await.unwrap().unwrap();
        told.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    drop(stream);
    let live = first.good("/api/v1/series?run=first").await;
    let sent = |series: &Value| floats(&series["columns"]["sent"]).iter().sum::<f64>();
    assert!((sent(&live) - 300.0).abs() < 1e-9, "{live}");
    assert_eq!(first.good("/api/v1/runs/live/report.json").await["recording"], "first");
    drop(machine);
    let (_, _, directory) = first.stop().await;

    let second = Running::start_in(directory, "second", &[]).await;
    let runs = second.good("/api/v1/runs").await;
    let old = runs["runs"].as_array().unwrap().iter().find(|run| run["id"] == "first").unwrap().clone();
    assert!(old["live"] == false && old["ended_at_ms"].is_u64() && old["problem"].is_null(), "{old}");
    assert_eq!(second.good("/api/v1/runs/first/sources").await["sources"][0]["name"], "m1");
    let after = second.good("/api/v1/series?run=first").await;
    assert!((sent(&after) - 300.0).abs() < 1e-9);
    let live_columns: Vec<&String> = live["columns"].as_object().unwrap().keys().collect();
    assert_eq!(after["columns"].as_object().unwrap().keys().collect::<Vec<_>>(), live_columns);
    let told = second.good("/api/v1/runs/first").await;
    assert_eq!((&told["entry"]["id"], &told["recorded"]["run"]["version"].is_string()), (&"first".into(), &true));
    second.stop().await;
}

#[tokio::test]
async fn a_new_run_begins_with_a_fleet_and_the_last_has_its_sets() {
    let home = tempfile::tempdir().unwrap();
    let recordings = format!("--recordings={}", home.path().join("recordings").display());
    let running = Running::start_in(home, "", &[&recordings]).await;
    let mut server = ReporterPeer::accepted(running.ingest, source(names::role::SERVER, "s1")).await;
    let list = || vec![3, 1, 4];
    let sets = Sets { connections: list(), online: list(), queue_depth: list(), owed: list(), stock: list() };
    let counters = vec![Counter { name: names::GRABS_RECEIVED.name.into(), total: 7 }];
    server.report(Report { second: unix_seconds(), counters, sets: Some(sets), ..Report::default() }).await;
    let run = running.get_until("/api/v1/run", |run| run["seconds"].as_u64() >= Some(1)).await;
    let first = Path::new(run["record"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
    let mut stream = running.response("/api/v1/stream").await;
    let _machine = ReporterPeer::accepted(running.ingest, source(names::role::MACHINE, "m1")).await;
    // Its readers' streams end with the run, so that they come back to another.
    while soon("the stream's end", stream.chunk()).await.unwrap().is_some() {}
    let listed = running.get_until("/api/v1/runs", |runs| {
        let runs = runs["runs"].as_array().unwrap();
        runs.len() == 2 && runs.iter().all(|run| run["problem"].is_null()) && runs[1]["ended_at_ms"].is_u64()
    });
    let listed = listed.await;
    let (now, old) = (&listed["runs"][0], &listed["runs"][1]);
    assert_eq!((&now["live"], &old["live"], &old["id"]), (&true.into(), &false.into(), &first.as_str().into()));
    assert_eq!(old["ended_at_ms"], now["started_at_ms"]);
    let told = running.good(&format!("/api/v1/runs/{first}/sets")).await;
    let expected = serde_json::json!([3, 1, 4]);
    assert_eq!((&told["s1"]["stock"], &told["s1"]["online"]), (&expected, &expected));
    assert_eq!(running.good(&format!("/api/v1/runs/{first}/sources")).await["sources"].as_array().unwrap().len(), 1);
    let series = running.good(&format!("/api/v1/runs/{first}/series")).await;
    assert!((floats(&series["columns"]["received"]).iter().sum::<f64>() - 7.0).abs() < 1e-9, "{series}");
    let (outcome, ..) = running.stop().await;
    assert_ne!(outcome.run.record.file_name().unwrap().to_str(), Some(first.as_str()));
}

#[test]
fn python_reads_a_recording_with_its_own_sqlite3() {
    let script = "import json, sqlite3, sys, zlib\n\
                  run = sqlite3.connect(sys.argv[1])\n\
                  (sent, p99), = run.execute('SELECT sum(sent), max(latency_p99_us) FROM seconds')\n\
                  (reported,), = run.execute('SELECT reported FROM sources ORDER BY second LIMIT 1')\n\
                  print(sent, p99, *json.loads(zlib.decompress(reported))['machine']['sources'])";
    let mut python = std::process::Command::new("python3");
    let output = python.arg("-c").arg(script).arg(fixture().join("run.sqlite")).output().unwrap();
    let figure = |sql| recorded(sql)[0];
    let (sent, p99) = (figure("SELECT sum(sent) FROM seconds"), figure("SELECT max(latency_p99_us) FROM seconds"));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told.trim(), format!("{sent} {p99} machine-01"), "{}", String::from_utf8_lossy(&output.stderr));
}
