//! `/metrics`: a [`Sample`] under the names and in the units of Prometheus.
//!
//! A report to the monitor counts in microseconds, because its numbers are integers; Prometheus
//! wants base units, so a name that ends in `_us` is shown in seconds here. What every process has
//! (processor time, memory, descriptors) goes by the names that all exporters give it, so that
//! ready-made dashboards find it. The classic text format is served unless a scraper asks for
//! OpenMetrics.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, VARY};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use hdrhistogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::logs::writer::lines_lost;
use crate::process;
use crate::program::build;
use crate::report::{Key, Sample, names};

/// Upper bounds of the buckets of every histogram, microseconds.
const BUCKET_BOUNDS_US: [u64; 15] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000];

/// Reported names of what is shown under the standard names of a process instead.
const OF_THE_PROCESS: [&str; 4] =
    [names::CPU.name, names::RESIDENT_BYTES.name, names::OPEN_DESCRIPTORS.name, names::DESCRIPTORS_LIMIT.name];

/// Reported names that say too little without their report around them, and what they are called
/// here.
const RENAMED: [(&str, &str); 1] = [("ended", "connections_ended")];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`, which everything reads.
    Classic,
    /// OpenMetrics 1.0, for who asks for it.
    OpenMetrics,
}

impl Format {
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What these headers ask for: OpenMetrics only where it is named and nothing else is wanted
    /// more.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut quality = 1.0_f64;
            let mut known = true;
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim().to_ascii_lowercase().as_str() {
                    // What is no number is no wish.
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => known = ["0.0.1", "1.0.0", "0.0.4"].contains(&value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if known => open = quality.max(open),
                "text/plain" | "text/*" | "*/*" => plain = quality.max(plain),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Format::OpenMetrics } else { Format::Classic }
    }
}

impl<S: Sync> FromRequestParts<S> for Format {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Format::wanted(&parts.headers))
    }
}

/// Histograms over the life of a process, in fixed buckets: what `/metrics` shows, where a
/// [`Sample`] holds one second.
#[derive(Debug, Clone, Default)]
pub struct CumulativeHistograms(BTreeMap<Key, Buckets>);

#[derive(Debug, Clone, Default)]
struct Buckets {
    /// One more than there are bounds: what lies above the last.
    counts: [u64; BUCKET_BOUNDS_US.len() + 1],
    count: u64,
    sum_us: u128,
}

impl CumulativeHistograms {
    /// Adds a second's histograms. Whoever takes the samples adds each one once.
    pub fn add(&mut self, sample: &Sample) {
        for (key, histogram) in &sample.histograms {
            self.add_one(*key, histogram);
        }
    }

    /// Adds one histogram, of microseconds.
    pub fn add_one(&mut self, key: Key, histogram: &Histogram<u64>) {
        let buckets = self.0.entry(key).or_default();
        for value in histogram.iter_recorded() {
            let (us, count) = (value.value_iterated_to(), value.count_at_value());
            let index = BUCKET_BOUNDS_US.partition_point(|&bound| bound < us);
            buckets.counts[index] += count;
            buckets.count += count;
            buckets.sum_us += u128::from(us) * u128::from(count);
        }
    }
}

/// The name of a reported value at `/metrics`, without `_total`:
/// `hongbao_server_clock_offset_seconds`.
fn exposed(prefix: &str, name: &str) -> String {
    let name = RENAMED.iter().find(|(reported, _)| *reported == name).map_or(name, |(_, shown)| shown);
    match name.strip_suffix("_us") {
        Some(stem) => format!("{prefix}_{stem}_seconds"),
        None => format!("{prefix}_{name}"),
    }
}

/// The HELP line: what the key says, but for a unit that is another one here.
fn meaning(key: &Key) -> &'static str {
    key.help.strip_suffix(", in microseconds").unwrap_or(key.help)
}

/// Renders `sample`: counters as `hongbao_<process>_<name>_total`, gauges as
/// `hongbao_<process>_<name>`, what is reported in microseconds in seconds, and what every process
/// has beside it. Keys of one name are one family, told apart by their label. The sample's own
/// histograms are not looked at: they hold one second only.
pub fn text(process: &str, sample: &Sample, histograms: &CumulativeHistograms, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot {
        prefix: format!("hongbao_{process}"),
        counters: by_family(&sample.counters),
        descriptors: [names::OPEN_DESCRIPTORS, names::DESCRIPTORS_LIMIT].map(|wanted| {
            let found = sample.gauges.iter().find(|(key, _)| key.name == wanted.name);
            found.and_then(|(_, value)| u64::try_from(*value).ok())
        }),
        gauges: by_family(&sample.gauges),
        histograms: histograms.clone(),
    }));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) if format == Format::OpenMetrics => text,
        Ok(()) => classic(&text),
        // Writing to a String cannot fail, and the snapshot has no failure of its own.
        Err(std::fmt::Error) => unreachable!("formatting into memory failed"),
    }
}

/// [`text`] as the response of a `/metrics` handler.
pub fn response(process: &str, sample: &Sample, histograms: &CumulativeHistograms, format: Format) -> Response {
    let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "accept")];
    (headers, text(process, sample, histograms, format)).into_response()
}

/// OpenMetrics as written by the encoder, in the classic format: a counter's family is named as its
/// samples are, and there is no end mark. Everything else that the encoder writes is the same in
/// both.
fn classic(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        let counter = match line.split(' ').nth(1) {
            Some("EOF") if line == "# EOF" => continue,
            Some("HELP") => lines.peek().is_some_and(|below| below.ends_with(" counter")),
            Some("TYPE") => line.ends_with(" counter"),
            _ => false,
        };
        let mut words = line.splitn(4, ' ');
        match (counter, words.next(), words.next(), words.next(), words.next()) {
            (true, Some(mark), Some(kind), Some(name), Some(rest)) => {
                text.extend([mark, " ", kind, " ", name, "_total ", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

type Families<V> = BTreeMap<&'static str, Vec<(Key, V)>>;

fn by_family<V: Copy>(values: &[(Key, V)]) -> Families<V> {
    let mut families = Families::new();
    for &(key, value) in values.iter().filter(|(key, _)| !OF_THE_PROCESS.contains(&key.name)) {
        families.entry(key.name).or_default().push((key, value));
    }
    families
}

#[derive(Debug)]
struct Snapshot {
    prefix: String,
    counters: Families<u64>,
    gauges: Families<i64>,
    /// Open ones and their limit, where the process knows better than the kernel's list says: one
    /// of private tables knows its fullest, and one of many thousand sockets need not list them.
    descriptors: [Option<u64>; 2],
    histograms: CumulativeHistograms,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        encode_build(&mut encoder)?;
        encode_process(&mut encoder, self.descriptors)?;
        let shown = exposed(&self.prefix, "log_lines_lost");
        let help = "Lines of the log that were dropped because nobody read it fast enough";
        let mut lost = encoder.encode_descriptor(&shown, help, None, MetricType::Counter)?;
        lost.encode_counter::<NoLabelSet, _, u64>(&lines_lost(), None)?;
        for (name, members) in &self.counters {
            let shown = exposed(&self.prefix, name);
            let mut family = encoder.encode_descriptor(&shown, meaning(&members[0].0), None, MetricType::Counter)?;
            for (key, value) in members {
                each(&mut family, key, |member| match in_seconds(name, (*value).into()) {
                    Some(seconds) => member.encode_counter::<NoLabelSet, _, u64>(&seconds, None),
                    None => member.encode_counter::<NoLabelSet, _, u64>(value, None),
                })?;
            }
        }
        for (name, members) in &self.gauges {
            let shown = exposed(&self.prefix, name);
            let mut family = encoder.encode_descriptor(&shown, meaning(&members[0].0), None, MetricType::Gauge)?;
            for (key, value) in members {
                each(&mut family, key, |member| match in_seconds(name, (*value).into()) {
                    Some(seconds) => member.encode_gauge(&seconds),
                    None => member.encode_gauge(value),
                })?;
            }
        }
        for (key, buckets) in &self.histograms.0 {
            let shown = exposed(&self.prefix, key.name);
            let mut family = encoder.encode_descriptor(&shown, meaning(key), None, MetricType::Histogram)?;
            let bounds = BUCKET_BOUNDS_US.iter().map(|&us| seconds(us.into())).chain([f64::INFINITY]);
            let counts: Vec<(f64, u64)> = bounds.zip(buckets.counts).collect();
            let sum = seconds(i128::try_from(buckets.sum_us).unwrap_or(i128::MAX));
            each(&mut family, key, |member| member.encode_histogram::<NoLabelSet>(sum, buckets.count, &counts, None))?;
        }
        Ok(())
    }
}

/// Writes the member of `family` that `key` is: without a label the family itself, which then
/// stands without braces.
fn each(
    family: &mut MetricEncoder<'_>,
    key: &Key,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), std::fmt::Error>,
) -> Result<(), std::fmt::Error> {
    match key.label {
        Some(label) => write(&mut family.encode_family(&[label])?),
        None => write(family),
    }
}

/// What is reported in microseconds.
fn in_seconds(name: &str, value: i128) -> Option<f64> {
    name.ends_with("_us").then(|| seconds(value))
}

fn encode_build(encoder: &mut DescriptorEncoder) -> Result<(), std::fmt::Error> {
    let help = "Always 1; its labels say what was built from which commit";
    let mut family = encoder.encode_descriptor("hongbao_build_info", help, None, MetricType::Gauge)?;
    let labels = [("version", build::VERSION), ("commit", build::COMMIT)];
    family.encode_family(&labels)?.encode_gauge(&1_i64)
}

fn encode_process(encoder: &mut DescriptorEncoder, [open, limit]: [Option<u64>; 2]) -> Result<(), std::fmt::Error> {
    let cpu_help = "Total user and system CPU time spent in seconds";
    let mut cpu = encoder.encode_descriptor("process_cpu_seconds", cpu_help, None, MetricType::Counter)?;
    cpu.encode_counter::<NoLabelSet, _, u64>(&seconds(process::cpu_micros().into()), None)?;
    let gauges = [
        (
            "process_max_fds",
            "Maximum number of open file descriptors",
            limit.unwrap_or_else(process::descriptors_limit),
        ),
        ("process_open_fds", "Number of open file descriptors", open.unwrap_or_else(process::open_descriptors)),
        ("process_resident_memory_bytes", "Resident memory size in bytes", process::resident_bytes()),
    ];
    for (name, help, value) in gauges {
        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    let (name, help) = ("process_start_time_seconds", "Start time of the process since unix epoch in seconds");
    let started = seconds((process::started_at_ms() * 1_000).into());
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&started)
}

#[allow(clippy::cast_precision_loss)]
fn seconds(us: i128) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn wanted(accept: &str) -> Format {
        Format::wanted(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_str(accept).unwrap())]))
    }

    #[test]
    fn openmetrics_is_for_who_names_it_and_wants_nothing_more() {
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Classic);
        for classic in [
            "*/*",
            "text/plain",
            "text/plain;version=0.0.4;q=1,application/openmetrics-text;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=9.0.0",
            "application/openmetrics-text;q=much",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,*/*;q=0.2",
            ";;;,,,=",
        ] {
            assert_eq!(wanted(classic), Format::Classic, "{classic}");
        }
        // The second is what Prometheus sends.
        for open in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain;q=0.3, APPLICATION/OpenMetrics-Text; version=\"1.0.0\"; q=0.8",
        ] {
            assert_eq!(wanted(open), Format::OpenMetrics, "{open}");
        }
    }

    #[test]
    fn microseconds_become_seconds_and_unclear_names_clear_ones() {
        assert_eq!(exposed("hongbao_machine", "clock_offset_us"), "hongbao_machine_clock_offset_seconds");
        assert_eq!(exposed("hongbao_machine", "ended"), "hongbao_machine_connections_ended");
        assert_eq!(exposed("hongbao_server", "paid_fen"), "hongbao_server_paid_fen");
    }

    #[test]
    fn a_value_without_a_label_has_no_braces() {
        let sample = Sample { gauges: vec![(Key::new("users", "Users"), 3)], ..Sample::default() };
        let text = text("server", &sample, &CumulativeHistograms::default(), Format::Classic);
        assert!(text.contains("\nhongbao_server_users 3\n"), "{text}");
    }
}
