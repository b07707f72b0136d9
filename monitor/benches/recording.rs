//! An hour of a million users, 56 machines and a server of 1,000 SETs, recorded and read back: how
//! large it is, how long the page waits for its data, and how long a report takes. Exit code 1
//! beyond the targets.
//!
//! `cargo bench -p hongbao-monitor --bench recording`; a number makes it that many seconds.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use hongbao_monitor::recording::read::Reader;
use hongbao_monitor::recording::write::{Entry, Recording};
use hongbao_monitor::recording::{FILE, RunStatus};
use hongbao_monitor::report::Report as RunReport;
use hongbao_monitor::report::load;
use hongbao_monitor::run::host::{HostFacts, HostSecond};
use hongbao_monitor::run::merge::{Joined, Merge};
use hongbao_monitor::run::series::Series;
use hongbao_monitor::run::sets::{SetsBoard, checked};
use hongbao_proto::report_v1::{Counter, Gauge, Histogram as Encoded, Report, Sets, Source};
use hongbao_telemetry::report::names::{self, role};

const MACHINES: u64 = 56;
const SETS: u64 = 1_000;
const USERS: u64 = 1_000_000;
const BEGAN: u64 = 1_800_000_000;

const BYTES_MAX: u64 = 100_000_000;
const PAGE_MAX: Duration = Duration::from_secs(1);
const REPORT_MAX: Duration = Duration::from_secs(5);

/// The same in each run, and as little compressible as what is measured.
fn noise(at: u64, of: u64) -> u64 {
    let mixed = (at.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ of.rotate_left(32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb)) >> 33
}

/// Some latencies, encoded as reports bring them.
fn encoded(variant: u64) -> Vec<u8> {
    let mut histogram = Histogram::<u64>::new(3).unwrap();
    for request in 0..1_000 {
        let us = 300 + noise(request, variant) % 2_000 + (noise(request, variant + 7) % 100).pow(2);
        histogram.record(us).unwrap();
    }
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&histogram, &mut bytes).unwrap();
    bytes
}

/// One process: what it counts, and how fast.
struct Process {
    joined: Joined,
    number: u64,
    counters: Vec<(String, u64, u64)>,
    gauges: Vec<(String, u64)>,
    histograms: Vec<&'static str>,
}

impl Process {
    fn new(merge: &mut Merge, role: &'static str, number: u64) -> Self {
        let name = format!("{role}-{number:02}");
        let source = Source {
            role: role.into(),
            name,
            instance: "one".into(),
            started_at_ms: BEGAN * 1_000,
            ..Source::default()
        };
        let joined = merge.connect(BEGAN * 1_000, &source).unwrap();
        let kinds = |prefix: &str, count: u64, rate: u64| {
            // Few of many reasons ever occur.
            (0..count)
                .map(|kind| (format!("{prefix}_{kind}"), 0, if kind % 5 == 0 { rate } else { 0 }))
                .collect::<Vec<_>>()
        };
        let named =
            |keys: &[(&str, u64)]| keys.iter().map(|(name, rate)| ((*name).to_owned(), 0, *rate)).collect::<Vec<_>>();
        let (mut counters, gauges): (Vec<_>, Vec<(&str, u64)>) = match role {
            role::SERVER => (
                [kinds("answers", 30, 20_000), kinds("errors", 25, 30), kinds("connections_ended", 20, 40)].concat(),
                vec![
                    ("users_online", USERS),
                    ("connections", USERS),
                    ("resident_bytes", 9 << 30),
                    ("queue_depth_max", 40),
                ],
            ),
            _ => (
                [kinds("violations", 25, 0), kinds("outcomes", 30, 300)].concat(),
                vec![("users_online", USERS / MACHINES), ("users", USERS / MACHINES), ("clock_error_us", 300)],
            ),
        };
        counters.extend(match role {
            role::SERVER => named(&[
                ("requests_received", 60_000),
                ("requests_answered", 60_000),
                ("grabs_received", 60_000),
                ("prizes_issued", 200),
                ("prizes_won", 200),
                ("paid_fen", 40_000),
                ("received_bytes", 9_000_000),
                ("sent_bytes", 12_000_000),
                ("cpu_us", 1_400_000),
            ]),
            _ => named(&[
                ("grabs_planned", 1_070),
                ("grabs_sent", 1_070),
                ("grabs_answered", 1_070),
                ("prizes_received", 4),
                ("received_fen", 700),
                ("cpu_us", 12_000),
            ]),
        });
        let more = (0..12).map(|n| (format!("level_{n}"), 1_000 * n));
        let gauges = gauges.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(more).collect();
        let histograms = match role {
            role::SERVER => vec![names::LEDGER_COMMIT.name, "loop_us", "handle_us"],
            _ => vec![names::LATENCY.name, names::SEND_LAG.name],
        };
        Self { joined, number, counters, gauges, histograms }
    }

    fn report(&mut self, second: u64, encoded: &[Vec<u8>]) -> Report {
        let number = self.number;
        let counters = self.counters.iter_mut().enumerate().map(|(at, (name, total, rate))| {
            *total += if *rate == 0 { 0 } else { *rate * 9 / 10 + noise(second, at as u64 + number) % (*rate / 5 + 1) };
            Counter { name: name.clone(), total: *total }
        });
        let gauges = self.gauges.iter().enumerate().map(|(at, (name, value))| {
            let value = i64::try_from(value + noise(second, at as u64 * 77 + number) % (value / 50 + 1)).unwrap();
            Gauge { name: name.clone(), value }
        });
        let histograms = self.histograms.iter().enumerate().map(|(at, name)| {
            let variant = usize::try_from(noise(second, at as u64 + 3 * number) % encoded.len() as u64).unwrap();
            Encoded { name: (*name).to_owned(), v2_deflate: encoded[variant].clone().into() }
        });
        Report {
            second,
            counters: counters.collect(),
            gauges: gauges.collect(),
            histograms: histograms.collect(),
            ..Report::default()
        }
    }
}

fn sets(second: u64) -> Sets {
    let list = |of: u64, base: u64, span: u64, every: u64| {
        (0..SETS).map(|set| base + noise(second / every, set * 5 + of) % span).collect::<Vec<u64>>()
    };
    let connections = list(0, 990, 20, 30);
    Sets {
        online: connections.clone(),
        connections,
        queue_depth: list(2, 0, 4, 1),
        owed: list(3, 0, 3, 1),
        stock: list(4, 10, 90, 2),
    }
}

fn record(directory: &Path, seconds: u64) {
    let encoded: Vec<Vec<u8>> = (0..64).map(encoded).collect();
    let mut merge = Merge::new(BEGAN * 1_000, 2_000);
    let mut processes = vec![Process::new(&mut merge, role::SERVER, 1)];
    processes.extend((1..=MACHINES).map(|number| Process::new(&mut merge, role::MACHINE, number)));
    let recording = Recording::create(directory, None).unwrap();
    let mut board = SetsBoard::default();
    let mut books = Default::default();
    for second in BEGAN..BEGAN + seconds {
        let now = (second + 1) * 1_000;
        for process in &mut processes {
            let report = process.report(second, &encoded);
            merge.report(now, process.joined, report).unwrap();
        }
        board.put("server-01", second, checked(sets(second)).unwrap());
        let host = HostSecond {
            second,
            span_seconds: Some(1.0),
            cpu_user_seconds: Some(noise(second, 1) as f64 % 200.0 / 100.0),
            memory_available_bytes: Some(12 << 30),
            net_sent_packets: Some(noise(second, 2) % 100_000),
            ..HostSecond::default()
        };
        recording.push(Entry::Host(Box::new(host)));
        for closed in merge.advance(now) {
            books = closed.merged.books;
            recording.push(Entry::Second(Arc::new(closed), Some(board.clone())));
        }
        // As fast as the disk: a run has a second for each.
        while second % 50 == 49
            && Reader::open(directory).unwrap().extent().unwrap().is_none_or(|told| told.last < second)
        {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let run = RunStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at_ms: BEGAN * 1_000,
        ended_at_ms: Some((BEGAN + seconds) * 1_000),
        straggler_ms: 2_000,
        seconds,
        seconds_complete: seconds,
        record: directory.into(),
        host: HostFacts::read(),
        books,
        reports: merge.counts(),
        ..RunStatus::default()
    };
    assert_eq!(recording.failures(), 0, "every second is recorded");
    recording.push(Entry::Run(Box::new(run), merge.sources()));
    recording.close();
}

/// All that the page shows of a past run, as JSON.
fn page(directory: &Path) -> usize {
    let reader = Reader::open(directory).unwrap();
    reader.totals().unwrap();
    let rows = reader.rows(0, u64::MAX, 1).unwrap();
    let series = serde_json::to_vec(&Series::of("run", 1, &rows)).unwrap();
    let sources = serde_json::to_vec(&reader.sources(Some(BEGAN)).unwrap()).unwrap();
    let marks = serde_json::to_vec(&reader.marks().unwrap()).unwrap();
    series.len() + sources.len() + marks.len() + reader.sets(BEGAN).unwrap().len()
}

fn report(directory: &Path) {
    let recording = load::Recording::load(directory, None).unwrap();
    assert!(!RunReport::of(&recording).page.is_empty());
}

fn main() -> ExitCode {
    let seconds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(3_600);
    let directory = tempfile::tempdir().unwrap();
    let timed = |what: &mut dyn FnMut()| {
        let begun = Instant::now();
        what();
        begun.elapsed()
    };
    let recorded = timed(&mut || record(directory.path(), seconds));
    println!("recorded {seconds} s of {USERS} users, {MACHINES} machines, {SETS} SETs in {recorded:.1?}");
    let bytes = std::fs::metadata(directory.path().join(FILE)).unwrap().len();
    let (opened, reported) =
        (timed(&mut || assert!(page(directory.path()) > 0)), timed(&mut || report(directory.path())));
    let mut over = false;
    let mut say = |what: &str, value: String, most: String, is_over: bool| {
        over |= is_over;
        println!("{what}: {value}, target {most}{}", if is_over { ": OVER" } else { "" });
    };
    say("file", format!("{:.1} MB", bytes as f64 / 1e6), format!("{} MB", BYTES_MAX / 1_000_000), bytes > BYTES_MAX);
    say("the page's data", format!("{opened:.2?}"), format!("{PAGE_MAX:?}"), opened > PAGE_MAX);
    say("the report", format!("{reported:.2?}"), format!("{REPORT_MAX:?}"), reported > REPORT_MAX);
    ExitCode::from(u8::from(over))
}
