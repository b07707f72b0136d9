//! The task that pushes one report per wall-clock second.
//!
//! Two halves run side by side in one future. The sampler wakes just after each second has ended
//! and never waits for the network; the sender owns the connection. Between them lies a short
//! queue: a report that finds it full, or meets no connection, is dropped and counted, and the
//! totals of later reports make up for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::{SinkExt, StreamExt};
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use hongbao_proto::frame::{Codec, FrameError};
use hongbao_proto::limits::REPORT_FRAME_BYTES_MAX;
use hongbao_proto::report_v1::{
    Counter, Gauge, Hello, Histogram, MonitorFrame, Report, ReporterFrame, Source, monitor_frame, reporter_frame,
};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::{Events, Key, Sample, names};
use crate::clock::unix_time;
use crate::report::events::{EVENT_KIND_BYTES_MAX, EVENT_TEXT_BYTES_MAX, EVENTS_PER_REPORT_MAX};

/// Reports that may wait for a slow or lost connection, in the queue and again in the sender.
/// Little: a report older than the dashboard's straggler window no longer counts for its own
/// second.
const QUEUED_REPORTS_MAX: usize = 2;

/// What the events of one report take at most: kind, text, time, and their tags.
const EVENTS_BYTES_MAX: usize = EVENTS_PER_REPORT_MAX * (EVENT_KIND_BYTES_MAX + EVENT_TEXT_BYTES_MAX + 32);
const _: () = assert!(EVENTS_BYTES_MAX < REPORT_FRAME_BYTES_MAX / 4);

/// For a connection to be made, and again for the monitor to answer Hello.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// For one report to be taken by the socket.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// For the last reports to reach the monitor when a process takes its leave.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);

/// First and longest pause between two attempts to connect; each is lengthened at random by up to
/// as much again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Samples are taken this long after a second has ended, lest a coarse timer fires just before its
/// end.
const AFTER_SECOND: Duration = Duration::from_millis(2);

/// A clock that was set back by at most this many seconds is waited for; one set back further is
/// followed.
const SET_BACK_SECONDS_MAX: u64 = 5;

/// What became of the reports. Relaxed counters, read by anyone.
#[derive(Debug, Default)]
pub struct ReporterStats {
    /// Reports written to the monitor.
    pub sent: AtomicU64,
    /// Reports given up because the monitor was away or slow; totals in later reports make up for
    /// them.
    pub dropped: AtomicU64,
}

/// Pushes reports until dropped, or until told to take its leave.
#[derive(Debug)]
pub struct Reporter {
    /// The monitor's ingest address.
    pub monitor: SocketAddr,
    /// A token with audience `hongbao-report`.
    pub token: String,
    /// `names::role::SERVER` or `names::role::MACHINE`.
    pub role: &'static str,
    /// Unique among the processes of the role, stable over restarts: 1 to 64 of `A-Z a-z 0-9 . _
    /// -`.
    pub name: String,
    /// Seconds are counted on the local clock plus this, microseconds.
    pub clock_offset_us: i64,
    /// Where the process's own control surface is.
    pub control: Option<SocketAddr>,
    /// Where users connect to the process.
    pub listen: Option<SocketAddr>,
    /// What is pushed there is reported, each event once.
    pub events: Events,
    pub stats: Arc<ReporterStats>,
}

impl Reporter {
    /// A reporter that has not connected yet, of a process that has no more than a name.
    pub fn new(monitor: SocketAddr, token: String, role: &'static str, name: impl Into<String>) -> Self {
        Self {
            monitor,
            token,
            role,
            name: name.into(),
            clock_offset_us: 0,
            control: None,
            listen: None,
            events: Events::default(),
            stats: Arc::default(),
        }
    }

    /// Calls `sample` just after the end of each wall-clock second (its argument: the Unix second
    /// that ended) and pushes what it returns. The monitor being away is no failure: the report is
    /// dropped and counted, and the connection is tried again with jittered back-off. Never
    /// returns.
    pub async fn run(self, sample: impl FnMut(u64) -> Sample) {
        self.run_until(std::future::pending(), sample).await;
    }

    /// Like [`run`](Self::run) until `leave` completes. Then `sample` is called once more, for the
    /// second that is not over yet, so that the last totals are in the books; that report is
    /// pushed, and the monitor told that no more will come. Returns when the monitor has taken it,
    /// or after 2 s.
    pub async fn run_until(self, leave: impl Future<Output = ()>, mut sample: impl FnMut(u64) -> Sample) {
        let now = self.now();
        let source = Source {
            role: self.role.to_owned(),
            name: self.name.clone(),
            instance: uuid::Uuid::now_v7().to_string(),
            started_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            control: self.control.map_or_else(String::new, |control| control.to_string()),
            listen: self.listen.map_or_else(String::new, |listen| listen.to_string()),
        };
        let (queue, reports) = mpsc::channel(QUEUED_REPORTS_MAX);
        let hello = ReporterFrame {
            frame: Some(reporter_frame::Frame::Hello(Hello { token: self.token.clone(), source: Some(source) })),
        };
        let stats = Arc::clone(&self.stats);
        let (monitor, events) = (self.monitor, self.events.clone());
        let mut sender = std::pin::pin!(Link { monitor, hello, stats, events, reports, kept: VecDeque::new() }.run());
        tokio::select! {
            // Ends only when the sampler has left and closed the queue.
            () = &mut sender => {}
            () = self.sample_until(leave, queue, &mut sample) => {
                if timeout(LEAVE_DEADLINE, sender).await.is_err() {
                    tracing::warn!(event = "last_report_lost", "the last report did not reach the monitor in time");
                }
            }
        }
    }

    async fn sample_until(
        &self,
        leave: impl Future<Output = ()>,
        queue: mpsc::Sender<ReporterFrame>,
        sample: &mut impl FnMut(u64) -> Sample,
    ) {
        let mut leave = std::pin::pin!(leave);
        let mut seconds = SecondClock { awaited: self.now().as_secs() };
        loop {
            match seconds.poll(self.now()) {
                Tick::Ended(second) => self.push(&queue, frame_of(second, &sample(second), false)),
                Tick::Wait(pause) => tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = &mut leave => break,
                },
            }
        }
        let second = seconds.awaited.max(self.now().as_secs());
        // The queue may be full of reports that a slow monitor has not taken; this one waits for
        // room.
        if queue.send(frame_of(second, &sample(second), true)).await.is_err() {
            self.stats.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn push(&self, queue: &mpsc::Sender<ReporterFrame>, frame: ReporterFrame) {
        let max = REPORT_FRAME_BYTES_MAX - EVENTS_BYTES_MAX;
        if frame.encoded_len() > max {
            tracing::error!(
                event = "report_too_long",
                bytes = frame.encoded_len(),
                max,
                "report is too long to be sent"
            );
        } else if queue.try_send(frame).is_ok() {
            return;
        }
        self.stats.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        let (local, offset) = (unix_time(), Duration::from_micros(self.clock_offset_us.unsigned_abs()));
        if self.clock_offset_us < 0 { local.saturating_sub(offset) } else { local + offset }
    }
}

/// Names the seconds that have ended, each once, on a clock that may be set at any time.
#[derive(Debug)]
struct SecondClock {
    /// The second whose end is awaited; all before it were named or skipped.
    awaited: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Tick {
    /// This second has ended. Those skipped by a clock set forward, or by a process that stood
    /// still, are not named.
    Ended(u64),
    /// Ask again after this long: more than nothing, at most about a second.
    Wait(Duration),
}

impl SecondClock {
    fn poll(&mut self, now: Duration) -> Tick {
        let current = now.as_secs();
        if current > self.awaited && Duration::from_nanos(now.subsec_nanos().into()) >= AFTER_SECOND {
            self.awaited = current;
            return Tick::Ended(current - 1);
        }
        if current + SET_BACK_SECONDS_MAX < self.awaited {
            self.awaited = current;
        }
        // Past the awaited second already, though not by enough: this very second's start is what
        // we wake after.
        let boundary = if current > self.awaited { current } else { current + 1 };
        Tick::Wait(Duration::from_secs(boundary) + AFTER_SECOND - now)
    }
}

fn frame_of(second: u64, sample: &Sample, last: bool) -> ReporterFrame {
    let mut serializer = V2DeflateSerializer::new();
    let histograms = sample.histograms.iter().filter_map(|(key, histogram)| {
        let mut bytes = Vec::new();
        match serializer.serialize(histogram, &mut bytes) {
            Ok(_) => Some(Histogram { name: key.column(), v2_deflate: bytes.into() }),
            Err(error) => {
                tracing::error!(event = "histogram_lost", ?error, name = key.name, "histogram cannot be serialized");
                None
            }
        }
    });
    let gauge = |(key, value): &(Key, i64)| Gauge { name: key.column(), value: *value };
    let report = Report {
        second,
        counters: sample.counters.iter().map(|(key, total)| Counter { name: key.column(), total: *total }).collect(),
        gauges: sample.gauges.iter().chain(last.then_some(&(names::FINAL_REPORT, 1))).map(gauge).collect(),
        histograms: histograms.collect(),
        // Put in when the report is sent: an event must not be dropped with a report.
        events: Vec::new(),
        sets: sample.sets.clone(),
    };
    ReporterFrame { frame: Some(reporter_frame::Frame::Report(report)) }
}

type Connection = Framed<TcpStream, Codec<MonitorFrame, ReporterFrame, REPORT_FRAME_BYTES_MAX>>;

/// Why there is no connection (any more), in one line.
type LinkError = Box<dyn std::error::Error + Send + Sync>;

struct Link {
    monitor: SocketAddr,
    hello: ReporterFrame,
    stats: Arc<ReporterStats>,
    events: Events,
    reports: mpsc::Receiver<ReporterFrame>,
    /// Taken from the queue and not sent yet: the latest few, oldest first.
    kept: VecDeque<ReporterFrame>,
}

impl Link {
    async fn run(mut self) {
        let mut pauses = pauses();
        loop {
            let problem = match self.while_away(connect(self.monitor, self.hello.clone())).await {
                Ok(connection) => {
                    tracing::info!(event = "report_link_up", monitor = %self.monitor, "reporting to the monitor");
                    pauses = self::pauses();
                    match self.stream(connection).await {
                        Ok(()) => return,
                        Err(problem) => {
                            self.events.connection_lost(Instant::now());
                            problem
                        }
                    }
                }
                Err(problem) => problem,
            };
            if self.reports.is_closed() && self.reports.is_empty() && self.kept.is_empty() {
                return;
            }
            tracing::info!(event = "report_link_down", monitor = %self.monitor, %problem, "not reporting; reports are dropped until the monitor is back");
            self.while_away(tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX))).await;
        }
    }

    /// Waits for `attempt` while keeping the latest reports and dropping older ones.
    async fn while_away<T>(&mut self, attempt: impl Future<Output = T>) -> T {
        let mut attempt = std::pin::pin!(attempt);
        loop {
            tokio::select! {
                outcome = &mut attempt => return outcome,
                Some(frame) = self.reports.recv() => {
                    if self.kept.len() == QUEUED_REPORTS_MAX {
                        self.kept.pop_front();
                        self.stats.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    self.kept.push_back(frame);
                }
            }
        }
    }

    /// Sends reports until the connection fails, or until the last one was sent and the monitor has
    /// hung up.
    async fn stream(&mut self, mut connection: Connection) -> Result<(), LinkError> {
        loop {
            while let Some(mut frame) = self.kept.pop_front() {
                if let Some(reporter_frame::Frame::Report(report)) = &mut frame.frame {
                    report.events = self.events.take(Instant::now());
                }
                let sent = timeout(WRITE_DEADLINE, connection.send(&frame)).await;
                let counter = if matches!(sent, Ok(Ok(()))) { &self.stats.sent } else { &self.stats.dropped };
                counter.fetch_add(1, Ordering::Relaxed);
                sent.map_err(|_| format!("the monitor did not take a report within {} s", WRITE_DEADLINE.as_secs()))??;
            }
            tokio::select! {
                incoming = connection.next() => return Err(unexpected(incoming)),
                next = self.reports.recv() => match next {
                    Some(frame) => self.kept.push_back(frame),
                    None => {
                        SinkExt::<&ReporterFrame>::close(&mut connection).await?;
                        while connection.next().await.is_some_and(|frame| frame.is_ok()) {}
                        return Ok(());
                    }
                },
            }
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .without_max_times()
        .with_jitter()
        .build()
}

async fn connect(monitor: SocketAddr, hello: ReporterFrame) -> Result<Connection, LinkError> {
    let attempt = async {
        let connected = TcpStream::connect(monitor).await.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = connected.map_err(|error| format!("cannot connect: {error}"))?;
        let mut connection = Framed::new(stream, Codec::default());
        connection.send(&hello).await?;
        match connection.next().await {
            Some(Ok(MonitorFrame { frame: Some(monitor_frame::Frame::Accepted(_)) })) => Ok(connection),
            other => Err(unexpected(other)),
        }
    };
    let silent = |_| format!("no connection, or no answer to Hello, within {} s", CONNECT_DEADLINE.as_secs());
    timeout(CONNECT_DEADLINE, attempt).await.map_err(silent)?
}

fn unexpected(incoming: Option<Result<MonitorFrame, FrameError>>) -> LinkError {
    match incoming {
        None => "the monitor closed the connection".into(),
        Some(Err(error)) => error.into(),
        Some(Ok(MonitorFrame { frame: Some(monitor_frame::Frame::Refused(refused)) })) => {
            format!("refused: {}", refused.reason).into()
        }
        Some(Ok(_)) => "the monitor sent something unexpected".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_second_is_named_once_just_after_its_end() {
        let mut clock = SecondClock { awaited: 100 };
        assert_eq!(clock.poll(at(100_400)), Tick::Wait(at(602)));
        assert_eq!(clock.poll(at(101_001)), Tick::Wait(at(1)));
        assert_eq!(clock.poll(at(101_002)), Tick::Ended(100));
        assert_eq!(clock.poll(at(101_002)), Tick::Wait(at(1_000)));
        assert_eq!(clock.poll(at(102_010)), Tick::Ended(101));
    }

    #[test]
    fn a_clock_set_forward_skips_and_one_set_back_repeats_none() {
        let mut clock = SecondClock { awaited: 100 };
        assert_eq!(clock.poll(at(3_600_500)), Tick::Ended(3_599));
        assert_eq!(clock.poll(at(3_598_500)), Tick::Wait(at(502)));
        assert_eq!(clock.poll(at(3_600_500)), Tick::Wait(at(502)));
        assert_eq!(clock.poll(at(50_500)), Tick::Wait(at(502)));
        assert_eq!(clock.poll(at(51_010)), Tick::Ended(50));
    }

    proptest! {
        #[test]
        fn no_clock_makes_it_spin_or_oversleep(moments in prop::collection::vec(0u64..100_000, 1..200)) {
            let mut clock = SecondClock { awaited: 10 };
            for moment in moments {
                if let Tick::Ended(second) = clock.poll(at(moment)) {
                    prop_assert!(second < moment / 1000 + 1);
                }
                match clock.poll(at(moment)) {
                    Tick::Wait(pause) => prop_assert!(pause > Duration::ZERO && pause <= at(1_002)),
                    Tick::Ended(second) => prop_assert!(false, "named second {} twice in one moment", second),
                }
            }
        }
    }
}
