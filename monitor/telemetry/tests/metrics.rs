//! `/metrics` as a scraper reads it, in both formats. Needs promtool, which `scripts/test`
//! installs.

use std::io::Write;
use std::process::{Command, Stdio};

use hdrhistogram::Histogram;
use hongbao_telemetry::metrics::{self, CumulativeHistograms, Format};
use hongbao_telemetry::program::build;
use hongbao_telemetry::report::{Key, Sample, names};

fn rendered(format: Format) -> String {
    let ended = |reason| Key::labelled("ended", "reason", reason, "Connections that ended");
    let latency = Key::new("latency_us", "Latency of \"Grabs\", in microseconds");
    let mut histogram = Histogram::new(3).unwrap();
    for us in [10, 100, 1_000, 10_000_000] {
        histogram.record(us).unwrap();
    }
    let sample = Sample {
        counters: vec![
            (ended("idle"), 3),
            (Key::new("requests", "Requests"), 7),
            (ended("kicked"), 4),
            (Key::new("cpu_us", "Shown as what every process has"), 5),
            (Key::new("waited_us", "Time waited"), 1_500_000),
        ],
        gauges: vec![
            (Key::new("users", "Users"), -1),
            (Key::new("clock_offset_us", "Offset"), -250),
            (names::OPEN_DESCRIPTORS, 77),
        ],
        histograms: vec![(latency, histogram)],
        ..Sample::default()
    };
    let mut histograms = CumulativeHistograms::default();
    histograms.add(&sample);
    histograms.add(&sample);
    metrics::text("server", &sample, &histograms, format)
}

fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line} in\n{text}");
    }
}

/// What both formats say in the same words.
const BOTH: [&str; 16] = [
    "process_open_fds 77",
    "# HELP hongbao_server_latency_seconds Latency of \"Grabs\"",
    "# TYPE hongbao_server_users gauge",
    "hongbao_server_connections_ended_total{reason=\"idle\"} 3",
    "hongbao_server_connections_ended_total{reason=\"kicked\"} 4",
    "hongbao_server_requests_total 7",
    "hongbao_server_waited_seconds_total 1.5",
    "hongbao_server_users -1",
    "hongbao_server_clock_offset_seconds -0.00025",
    "# TYPE hongbao_server_latency_seconds histogram",
    "hongbao_server_latency_seconds_bucket{le=\"0.0001\"} 4",
    "hongbao_server_latency_seconds_bucket{le=\"+Inf\"} 8",
    "hongbao_server_latency_seconds_count 8",
    "# TYPE process_open_fds gauge",
    "# TYPE process_resident_memory_bytes gauge",
    "# TYPE hongbao_build_info gauge",
];

#[test]
fn a_sample_is_rendered_as_openmetrics_with_one_family_per_name() {
    let text = rendered(Format::OpenMetrics);
    assert_lines(&text, &BOTH);
    assert_lines(
        &text,
        &[
            "# HELP hongbao_server_connections_ended Connections that ended",
            "# TYPE hongbao_server_connections_ended counter",
            "# TYPE process_cpu_seconds counter",
        ],
    );
    assert!(text.contains(&format!(
        "hongbao_build_info{{version=\"{}\",commit=\"{}\"}} 1\n",
        build::VERSION,
        build::COMMIT
    )));
    assert_eq!(text.matches("# HELP hongbao_server_connections_ended ").count(), 1);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_classic_format_names_a_counters_family_as_its_samples() {
    let text = rendered(Format::Classic);
    assert_lines(&text, &BOTH);
    assert_lines(
        &text,
        &[
            "# HELP hongbao_server_connections_ended_total Connections that ended",
            "# TYPE hongbao_server_connections_ended_total counter",
            "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds",
            "# TYPE process_cpu_seconds_total counter",
        ],
    );
    assert!(!text.contains("EOF") && !text.contains("cpu_us"));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_classic_format() {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed: apt-get install prometheus");
    promtool.stdin.take().unwrap().write_all(rendered(Format::Classic).as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let said =
        (said.status.success(), String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
    assert_eq!(said, (true, String::new(), String::new()));
}
