//! `hongbao-monitor report` over a recorded run: a small one, of 2,000 users, recorded by the
//! scripts and kept with the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
fn a_report_says_where_it_is_and_holds_every_chart_twice() {
    let (_directory, out, output) = written();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(out.join("report.html").to_str().unwrap()), "{told}");
    assert!(told.contains("2,000 idle users: whole machine "), "{told}");
    let (page, markdown) =
        (fs::read_to_string(out.join("report.html")).unwrap(), fs::read_to_string(out.join("report.md")).unwrap());
    for chart in CHARTS {
        let png = fs::read(out.join(format!("{chart}.png"))).unwrap();
        assert_eq!(&png[1..4], b"PNG", "{chart}");
        assert!(fs::read_to_string(out.join(format!("{chart}.svg"))).unwrap().starts_with("<svg "), "{chart}");
        assert!(markdown.contains(&format!("]({chart}.svg)")), "{chart}");
    }
    assert_eq!(page.matches("<svg ").count(), CHARTS.len());
    // One file that needs no other.
    for foreign in ["<script", "<link", "src=", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn figures_are_those_that_were_recorded() {
    let (_directory, out, _) = written();
    let (told, fleet, run) =
        (json(&out.join("report.json")), json(&recorded().join("summary.json")), json(&recorded().join("run.json")));
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
    let headline = fs::read_to_string(recorded().join("headline.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(headline.as_bytes());
    let columns = reader.headers().unwrap().clone();
    let at = |name: &str| columns.iter().position(|column| column == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let complete: Vec<&csv::StringRecord> = rows.iter().filter(|row| &row[at("complete")] == "true").collect();
    let sent: Vec<f64> = complete.iter().map(|row| row[at("sent")].parse().unwrap()).collect();
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
    let headline = directory.path().join("headline.csv");
    let text = fs::read_to_string(&headline).unwrap();
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    rows[20] = rows[20].replace(",true,", ",false,");
    rows.remove(10);
    fs::write(&headline, rows.join("\n") + "\n").unwrap();
    assert!(report(&[directory.path()]).status.success());
    let lines = |folder: &Path, chart: &str| {
        let svg = fs::read_to_string(folder.join(format!("{chart}.svg"))).unwrap();
        svg.lines().filter(|line| line.starts_with("<polyline ") && line.contains("#DD842A")).count()
    };
    let (_whole, whole, _) = written();
    let torn = directory.path().join("report");
    assert_eq!((lines(&whole, "1-sent"), lines(&torn, "1-sent")), (1, 3));
    assert_eq!((lines(&whole, "6-latency"), lines(&torn, "6-latency")), (1, 3));
    assert_eq!(json(&torn.join("report.json"))["run"]["seconds_complete"], rows.len() - 2);
}

#[test]
fn a_recording_without_host_and_fleet_is_told_as_far_as_it_goes() {
    let directory = tempfile::tempdir().unwrap();
    copy(directory.path());
    for file in ["host.csv", "summary.json", "latency.hlog"] {
        fs::remove_file(directory.path().join(file)).unwrap();
    }
    // A monitor that was killed leaves half a line.
    let headline = directory.path().join("headline.csv");
    let mut text = fs::read_to_string(&headline).unwrap();
    text.push_str("1795");
    fs::write(&headline, text).unwrap();
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
    refused(&|directory| fs::remove_file(directory.join("run.json")).unwrap(), &["holds no recording", "run.json"]);
    refused(&write("run.json", "{}"), &["run.json", "damaged", "run"]);
    refused(&write("headline.csv", "second,complete\n1,perhaps\n"), &["headline.csv", "damaged"]);
    refused(
        &write("seconds.csv", "second,complete,source,kind,name,value\n1,true,a/b,gauge,x,many\n"),
        &["seconds.csv", "line"],
    );
    refused(&write("host.csv", "when\n1\n"), &["host.csv", "second"]);
    refused(&write("latency.hlog", "1.0,1.0,0.0,HISTnonsense\n"), &["latency.hlog", "second 1"]);
    refused(&write("summary.json", "no"), &["summary.json", "damaged"]);
    refused(
        &|directory| fs::write(directory.join("seconds.csv"), [0xff, 0xfe, b'\n']).unwrap(),
        &["seconds.csv", "utf-8"],
    );
    let header = fs::read_to_string(recorded().join("headline.csv")).unwrap().lines().next().unwrap().to_owned() + "\n";
    refused(&|directory| fs::write(directory.join("headline.csv"), &header).unwrap(), &["no second was recorded"]);
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
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script") && !page.contains("<img"));
}
