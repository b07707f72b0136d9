//! `hongbao-monitor report` over a recorded run: a small one, of 2,000 users, recorded by the
//! scripts and kept with the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hongbao_monitor::recording::read::{Reader, Second};
use serde_json::Value;

const CHARTS: [&str; 15] = [
    "0-timeline",
    "1-sent",
    "2-handled",
    "3-plan-sent-handled",
    "4-issued",
    "5-won",
    "6-latency",
    "7-users",
    "8-memory",
    "9-processors-by-part",
    "10-processors-by-kind",
    "11-latency-heat",
    "12-books",
    "13-refusals",
    "14-network",
];

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recording")
}

/// A recording of the test's own, to be spoiled.
fn copy(to: &Path) {
    for entry in fs::read_dir(recorded()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Changes a recording as whoever has SQLite may.
fn change(directory: &Path, sql: &str) {
    rusqlite::Connection::open(directory.join("run.sqlite")).unwrap().execute_batch(sql).unwrap();
}

fn report(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hongbao-monitor")).env_clear().arg("report").args(arguments).output().unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A report of the recorded run as it is.
fn written() -> (tempfile::TempDir, PathBuf, Output) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let output = report(&[&recorded(), Path::new("--out"), &out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (directory, out, output)
}

#[test]
fn a_report_says_where_it_is_and_holds_every_chart() {
    let (_directory, out, output) = written();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(out.join("report.html").to_str().unwrap()), "{told}");
    assert!(told.contains("2,000 idle users: whole machine "), "{told}");
    let (page, markdown) =
        (fs::read_to_string(out.join("report.html")).unwrap(), fs::read_to_string(out.join("report.md")).unwrap());
    let carried = carried(&page);
    let charts: Vec<&str> =
        carried["report"]["charts"].as_array().unwrap().iter().map(|chart| chart["file"].as_str().unwrap()).collect();
    assert_eq!(charts, CHARTS);
    for chart in CHARTS {
        assert!(fs::read_to_string(out.join(format!("{chart}.svg"))).unwrap().starts_with("<svg "), "{chart}");
        assert!(!out.join(format!("{chart}.png")).exists(), "{chart}");
        assert!(markdown.contains(&format!("]({chart}.svg)")), "{chart}");
    }
    // One file that needs no other.
    for foreign in ["<link", " src=\"", "url(", "@import", "/page/"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let series = &carried["answers"]["/api/v1/runs/recording/series"];
    assert_eq!(series["columns"]["second"].as_array().unwrap().len(), 30);
    assert!(carried["report"]["verdict"].as_str().unwrap().starts_with("Passed. 2,000 users"));
}

/// What a report's page carries instead of a monitor behind it.
fn carried(page: &str) -> Value {
    let data = page.split("<script type=\"application/json\" id=\"carried\">").nth(1).unwrap();
    serde_json::from_str(data.split("</script>").next().unwrap()).unwrap()
}

#[test]
fn figures_are_those_that_were_recorded() {
    let (_directory, out, _) = written();
    let run = Reader::open(&recorded()).unwrap().document().unwrap();
    let (told, fleet) = (json(&out.join("report.json")), json(&recorded().join("summary.json")));
    let phases = fleet["phases"].as_array().unwrap();
    assert!(phases.len() >= 2 && told["phases"].as_array().unwrap().len() == phases.len());
    for (told, fleet) in told["phases"].as_array().unwrap().iter().zip(phases) {
        for name in ["name", "seconds", "seconds_within_tolerance", "storm_seconds", "planned", "sent", "answered"] {
            assert_eq!(told[name], fleet[name], "{name}");
        }
        for name in ["p50_ms", "p99_ms", "p999_ms", "max_ms", "send_lag_p99_ms", "server_cpu_us_per_request"] {
            let (told, fleet) = (told[name].as_f64().unwrap(), fleet[name].as_f64().unwrap());
            assert!((told - fleet).abs() <= fleet.abs() * 1e-12, "{name}: {told} is not {fleet}");
        }
        assert_eq!(told["qps_planned"], fleet["qps_target"]);
        let kept = |percent: u64| {
            let target = fleet["qps_target"].as_u64().unwrap();
            let near = |value: &Value| value.as_u64().unwrap().abs_diff(target) * 100 <= target * percent;
            fleet["per_second"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|row| row["storm"] == false && near(&row["sent"]) && near(&row["answered"]))
                .count()
        };
        for percent in [1, 2, 3] {
            assert_eq!(told["seconds_within_percent"][percent.to_string()], kept(percent), "{percent}%");
        }
    }
    assert_eq!(told["books"]["monitor"], run["run"]["books"]);
    assert_eq!(told["books"]["fleet"], fleet["books"]);
    assert_eq!(told["verdict"]["passed"], fleet["passed"]);
    assert_eq!(told["host"], run["run"]["host"]);
    assert_eq!(told["distributions"]["machine.latency_us"]["count"], fleet["totals"]["answered"]);
    for name in ["storms", "announcements"] {
        assert_eq!(told["others"][name], fleet[name]);
    }
}

#[test]
fn memory_and_processors_add_up() {
    let (_directory, out, _) = written();
    let told = json(&out.join("report.json"));
    let bytes = |name: &str| told["memory"][name].as_u64().unwrap_or_else(|| panic!("{name}"));
    let parts = bytes("server_bytes") + bytes("fleet_bytes") + bytes("kernel_bytes");
    assert!(parts >= bytes("host_bytes"), "what is resident and shared is counted in both, never in neither");
    assert_eq!(bytes("host_bytes"), bytes("available_before_bytes") - bytes("available_idle_bytes"));
    let cpus = told["host"]["cpus"].as_f64().unwrap();
    let stretches = told["processor"].as_array().unwrap();
    assert!(stretches.iter().any(|stretch| stretch["stretch"] == "idle") && stretches.len() >= 3);
    for stretch in stretches {
        let sum: f64 =
            ["user", "system", "interrupts", "steal", "idle"].map(|kind| stretch[kind].as_f64().unwrap()).iter().sum();
        assert!((sum - cpus).abs() < cpus * 0.1, "{stretch}");
        assert!(stretch["server"].as_f64().unwrap() <= cpus, "{stretch}");
    }
}

#[test]
fn seconds_under_an_operators_qps_are_excluded_and_named() {
    let directory = tempfile::tempdir().unwrap();
    copy(directory.path());
    let path = directory.path().join("summary.json");
    let mut summary = json(&path);
    let from = summary["phases"][0]["from"].as_u64().unwrap();
    for second in [1, 2] {
        let row = &mut summary["phases"][0]["per_second"][second];
        (row["sent"], row["answered"], row["changed"]) = (900.into(), 900.into(), true.into());
    }
    (summary["phases"][0]["changed_seconds"], summary["phases"][0]["seconds_within_tolerance"]) = (2.into(), 4.into());
    summary["changes"] = serde_json::json!([{"from": from + 1, "until": from + 3, "qps": 900, "machines": 1}]);
    fs::write(&path, summary.to_string()).unwrap();
    assert!(report(&[directory.path()]).status.success());
    let told = json(&directory.path().join("report/report.json"));
    let phase = &told["phases"][0];
    assert_eq!((&phase["seconds"], &phase["changed_seconds"]), (&6.into(), &2.into()));
    assert_eq!((&phase["seconds_within_tolerance"], &phase["seconds_within_percent"]["1"]), (&4.into(), &4.into()));
    let markdown = fs::read_to_string(directory.path().join("report/report.md")).unwrap();
    let row = |start: &str| {
        let row = markdown.lines().find(|line| line.starts_with(start)).unwrap();
        row.split('|').map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect::<Vec<_>>()
    };
    let kept = markdown.split("## Seconds kept").nth(1).unwrap();
    let kept = kept.lines().find(|line| line.starts_with("| 200/s ")).unwrap();
    assert!(kept.trim_end().ends_with("4 of 4 |"), "{kept}");
    let start = told["run"]["start"].as_u64().unwrap();
    assert_eq!(
        row("| 900 "),
        ["900".to_owned(), (from + 1 - start).to_string(), (from + 3 - start).to_string(), "1".into()]
    );

    let compared = Command::new(env!("CARGO_BIN_EXE_hongbao-monitor"))
        .env_clear()
        .args([Path::new("compare"), directory.path(), &recorded(), Path::new("--json")])
        .output()
        .unwrap();
    let compared: Value = serde_json::from_slice(&compared.stdout).unwrap();
    let kept = compared["rows"].as_array().unwrap().iter().find(|row| row["name"] == "seconds_kept").unwrap();
    assert_eq!((&kept["a"], &kept["b"]), (&1.0.into(), &1.0.into()), "all that were judged were kept");
}

/// Points of the line in that colour, in pixels.
fn line(svg: &str, colour: &str) -> Vec<(f64, f64)> {
    let lines = svg.lines().filter(|line| line.starts_with("<polyline ") && line.contains(colour));
    let points = |line: &str| line.split("points=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let pair = |pair: &str| {
        let (x, y) = pair.split_once(',').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    };
    lines.flat_map(|line| points(line).split_ascii_whitespace().map(pair).collect::<Vec<_>>()).collect()
}

#[test]
fn charts_show_what_was_recorded() {
    let (_directory, out, _) = written();
    let chart = |name: &str| fs::read_to_string(out.join(format!("{name}.svg"))).unwrap();
    let mut sent: Vec<f64> = Vec::new();
    let take = |second: Second| {
        sent.extend(second.headline.complete.then_some(second.headline.sent as f64));
        true
    };
    Reader::open(&recorded()).unwrap().seconds(0, u64::MAX, take).unwrap();
    let drawn: Vec<f64> = line(&chart("1-sent"), "#DD842A").into_iter().map(|(_, y)| y).collect();
    assert_eq!(drawn.len(), sent.len(), "a point for each complete second");
    // Heights are in proportion to what was sent.
    let most = sent.iter().copied().fold(0.0, f64::max);
    let (floor, top) = (drawn.iter().copied().fold(0.0, f64::max), drawn.iter().copied().fold(f64::INFINITY, f64::min));
    for (sent, y) in sent.iter().zip(&drawn) {
        assert!(((floor - y) / (floor - top) - sent / most).abs() < 0.01, "{sent} is drawn at {y}");
    }
    for (name, colours) in [
        ("3-plan-sent-handled", ["#B4BEC7", "#DD842A", "#2B6CB0"].as_slice()),
        ("6-latency", &["#C0392B", "#DD842A", "#2B6CB0"]),
        ("7-users", &["#2B6CB0", "#DD842A"]),
    ] {
        for colour in colours {
            assert!(line(&chart(name), colour).len() > 10, "{name} {colour}");
        }
    }
    for (name, layers) in [("8-memory", 3), ("9-processors-by-part", 5), ("10-processors-by-kind", 5)] {
        assert!(chart(name).matches("<polygon ").count() >= layers, "{name}");
    }
    for phase in ["200/s", "400/s", "storm", "announcements"] {
        assert!(chart("2-handled").contains(phase), "{phase}");
    }
}

#[test]
fn a_second_that_is_missing_or_not_whole_is_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    copy(directory.path());
    change(
        directory.path(),
        "UPDATE seconds SET complete = 0 WHERE second = 1795264122; DELETE FROM seconds WHERE second = 1795264112",
    );
    assert!(report(&[directory.path()]).status.success());
    let lines = |folder: &Path, chart: &str| {
        let svg = fs::read_to_string(folder.join(format!("{chart}.svg"))).unwrap();
        svg.lines().filter(|line| line.starts_with("<polyline ") && line.contains("#DD842A")).count()
    };
    let (_whole, whole, _) = written();
    let torn = directory.path().join("report");
    assert_eq!((lines(&whole, "1-sent"), lines(&torn, "1-sent")), (1, 3));
    assert_eq!((lines(&whole, "6-latency"), lines(&torn, "6-latency")), (1, 3));
    assert_eq!(json(&torn.join("report.json"))["run"]["seconds_complete"], 28);
}

#[test]
fn a_recording_without_host_and_fleet_is_told_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    copy(directory.path());
    fs::remove_file(directory.path().join("summary.json")).unwrap();
    change(directory.path(), "DELETE FROM hosts; DELETE FROM latency; UPDATE run SET ended_at_ms = NULL");
    let output = report(&[directory.path()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = json(&directory.path().join("report/report.json"));
    assert_eq!((&told["verdict"]["passed"], told["phases"].as_array().unwrap().len()), (&Value::Null, 0));
    assert!(directory.path().join("report/1-sent.svg").is_file());
    assert!(!directory.path().join("report/10-processors-by-kind.svg").exists());
}

#[test]
fn what_is_no_recording_is_refused_with_the_remedy() {
    let refused = |spoil: &dyn Fn(&Path), parts: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        copy(directory.path());
        spoil(directory.path());
        let output = report(&[directory.path()]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!directory.path().join("report").exists());
    };
    let write =
        |file: &'static str, text: &'static str| move |directory: &Path| fs::write(directory.join(file), text).unwrap();
    let sql = |sql: &'static str| move |directory: &Path| change(directory, sql);
    refused(&|directory| fs::remove_file(directory.join("run.sqlite")).unwrap(), &["holds no recording", "run.sqlite"]);
    refused(
        &|directory| fs::rename(directory.join("run.sqlite"), directory.join("headline.csv")).unwrap(),
        &["older version", "record the run again"],
    );
    refused(&write("run.sqlite", "no"), &["run.sqlite", "damaged"]);
    refused(&write("summary.json", "no"), &["summary.json", "damaged"]);
    for (spoil, part) in [
        ("PRAGMA user_version = 9", "version 9"),
        ("DELETE FROM run", "what the run was"),
        ("UPDATE run SET status = '{'", "JSON"),
        ("UPDATE seconds SET complete = 'perhaps' WHERE second = 1795264110", "column complete"),
        ("UPDATE seconds SET sent = 0.5 WHERE second = 1795264110", "second 1795264110"),
        ("UPDATE hosts SET tcp_in_use = -1", "invalid value"),
        ("UPDATE sources SET reported = x'00'", "deflate"),
        ("UPDATE latency SET histogram = x'00' WHERE second = 1795264111", "second 1795264111"),
        ("ALTER TABLE seconds DROP COLUMN won", "won"),
        (
            "CREATE TABLE other AS SELECT * FROM seconds; DROP TABLE seconds; CREATE VIEW seconds AS SELECT * FROM other",
            "seconds",
        ),
        ("DELETE FROM seconds", "no second was recorded"),
    ] {
        refused(&sql(spoil), &[part]);
    }
    let output = report(&[Path::new("/no/such/place")]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/place holds no recording"));
}

#[test]
fn an_unwritable_place_and_a_missing_summary_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (file, missing) = (directory.path().join("file"), directory.path().join("missing.json"));
    fs::write(&file, "").unwrap();
    for (arguments, part) in [
        ([&recorded(), Path::new("--out"), &file.join("report")], "--out"),
        ([&recorded(), Path::new("--summary"), &missing], "missing.json"),
    ] {
        let output = report(&arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn names_from_a_summary_cannot_become_markup() {
    let directory = tempfile::tempdir().unwrap();
    copy(directory.path());
    let path = directory.path().join("summary.json");
    let mut summary = json(&path);
    summary["phases"][0]["name"] = "<script>alert(1)</script>".into();
    summary["failures"] = serde_json::json!(["<img onerror=x>"]);
    fs::write(&path, summary.to_string()).unwrap();
    assert!(report(&[directory.path()]).status.success());
    let page = fs::read_to_string(directory.path().join("report/report.html")).unwrap();
    assert!(!page.contains("<script>alert") && !page.contains("<img"));
    let carried = carried(&page);
    assert!(carried["report"]["failures"].to_string().contains("<img onerror=x>"), "as text it is there");
    assert!(!fs::read_to_string(directory.path().join("report/1-sent.svg")).unwrap().contains("<script"));
}
