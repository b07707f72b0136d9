//! The one task that owns the run: merge, books, recording, view. Everybody else sends it messages.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hongbao_proto::report_v1::{Report, Source};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::books::Balance;
use super::ends::End;
use super::host::{HostFacts, HostSecond};
use super::limits::{CONTROL_BYTES_MAX, SECONDS_KEPT_MAX, SECONDS_PER_ANSWER_MAX};
use super::mark::{self, Mark, Marks};
use super::merge::{Joined, Merge, MergeCounts, Presence, SourceId, SourceName, SourceStatus};
use super::record::{Recording, RunStatus};
use super::second::{ClosedSecond, MergedSecond, Role};
use super::sets::{self, SetsBoard};
use super::view::{Frame, View};
use crate::credentials::unix_millis;
use crate::disk;
use crate::report::{Key, Sample};

/// `run.json` is written anew after this many seconds, and whenever a source joins.
const RUN_FILE_SECONDS: u64 = 10;

/// What reaches the owner.
#[derive(Debug)]
pub enum Message {
    /// A connection with a good token introduces its process.
    Hello {
        /// The process.
        source: Source,
        /// Where its connection comes from.
        peer: IpAddr,
        /// Dropped, or used with a reason, when the connection must end.
        cut: oneshot::Sender<Cut>,
        /// The connection's number, or why it is refused.
        reply: oneshot::Sender<Result<ConnectionId, String>>,
    },
    /// One second of it.
    Report(ConnectionId, Report),
    /// A connection has ended; without a number if it never said a good Hello.
    Gone(Option<ConnectionId>, End),
    /// The host's last second.
    Host(Box<HostSecond>),
    /// Something for the timeline that no process reports: what an operator did here.
    Mark(Mark),
    /// From the HTTP interface.
    Ask(Question),
}

/// Why the owner ends a connection.
#[derive(Debug)]
pub enum Cut {
    /// A newer connection of the same process took over.
    Replaced,
    /// A report was not acceptable.
    Rejected(String),
}

/// A connection after its Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

/// What HTTP handlers ask, and where the answer goes.
#[derive(Debug)]
pub enum Question {
    /// Merged seconds, oldest first.
    Seconds {
        /// The first second wanted; without it the latest ones.
        from: Option<u64>,
        /// How many at most.
        limit: usize,
        /// The answer.
        reply: oneshot::Sender<Vec<Arc<MergedSecond>>>,
    },
    /// Every source.
    Sources(oneshot::Sender<Vec<SourceStatus>>),
    /// How to reach each source's own control surface.
    Controls(oneshot::Sender<Vec<ControlPoint>>),
    /// The latest marks of the timeline, oldest first.
    Marks(oneshot::Sender<Vec<Arc<Mark>>>),
    /// Each server's SETs as last reported, by the server's name.
    Sets(oneshot::Sender<SetsBoard>),
    /// The run and its books.
    Run(oneshot::Sender<RunStatus>),
    /// The monitor's own metrics.
    Metrics(oneshot::Sender<Sample>),
}

/// A source's own control surface, for whoever judges whether to trust it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPoint {
    /// Its role.
    pub role: Role,
    /// Its name, unique in the role.
    pub name: String,
    /// Whether it is there.
    pub presence: Presence,
    /// As the process gave it; it may not be an address at all, nor the process's own. Empty: it has none.
    pub control: String,
    /// Where its connection to us comes from.
    pub peer: IpAddr,
}

struct Reach {
    control: String,
    peer: IpAddr,
}

struct Connection {
    joined: Joined,
    cut: oneshot::Sender<Cut>,
}

/// The owner of a run.
pub struct Owner {
    merge: Merge,
    recording: Recording,
    view: View,
    started_at_ms: u64,
    ended_at_ms: Option<u64>,
    straggler_ms: u64,
    host: HostFacts,
    connections: HashMap<ConnectionId, Connection>,
    by_source: HashMap<SourceId, ConnectionId>,
    reach: BTreeMap<SourceId, Reach>,
    marks: Marks,
    sets: SetsBoard,
    connected: u64,
    ended: BTreeMap<End, u64>,
    kept: VecDeque<Arc<MergedSecond>>,
    seconds: u64,
    seconds_complete: u64,
}

impl Owner {
    /// The owner of a run that begins at `started_at_ms`.
    pub fn new(started_at_ms: u64, straggler: Duration, recording: Recording, view: View) -> Self {
        let straggler_ms = u64::try_from(straggler.as_millis()).unwrap_or(u64::MAX);
        Self {
            merge: Merge::new(started_at_ms, straggler_ms),
            recording,
            view,
            started_at_ms,
            ended_at_ms: None,
            straggler_ms,
            host: HostFacts::read(),
            connections: HashMap::new(),
            by_source: HashMap::new(),
            reach: BTreeMap::new(),
            marks: Marks::default(),
            sets: SetsBoard::default(),
            connected: 0,
            ended: BTreeMap::new(),
            kept: VecDeque::new(),
            seconds: 0,
            seconds_complete: 0,
        }
    }

    /// Runs until `stop`, then closes what was reported, ends the recording and returns what the run came to.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>, stop: CancellationToken) -> Outcome {
        self.write_run();
        loop {
            let now = unix_millis();
            // Our own clock may be set while we sleep; the merge is asked again within a second.
            let pause = self.merge.due_ms(now).map_or(1_000, |due| (due - now).clamp(1, 1_000));
            tokio::select! {
                () = stop.cancelled() => break,
                message = inbox.recv() => match message {
                    Some(message) => self.apply(message),
                    None => break,
                },
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
            }
            while let Ok(message) = inbox.try_recv() {
                self.apply(message);
            }
            let now = unix_millis();
            for closed in self.merge.advance(now) {
                self.closed(&closed);
            }
            self.release_marks(now, false);
        }
        self.finish(inbox)
    }

    /// 1 take what was already sent · 2 close every second · 3 end the recording · 4 give the terminal back.
    fn finish(mut self, mut inbox: mpsc::Receiver<Message>) -> Outcome {
        inbox.close();
        while let Ok(message) = inbox.try_recv() {
            self.apply(message);
        }
        for closed in self.merge.advance(unix_millis()) {
            self.closed(&closed);
        }
        for closed in self.merge.finish() {
            self.closed(&closed);
        }
        let now = unix_millis();
        self.release_marks(now, true);
        self.ended_at_ms = Some(now);
        self.write_run();
        let stdout_is_read = self.view.close();
        Outcome { run: self.run_status(), sources: self.merge.sources(), stdout_is_read }
    }

    fn apply(&mut self, message: Message) {
        let now = unix_millis();
        match message {
            Message::Hello { source, peer, cut, reply } => {
                let answer = self.hello(now, &source, peer, cut);
                if let Err(Ok(connection)) = reply.send(answer) {
                    self.gone(now, connection);
                }
            }
            Message::Report(id, report) => {
                let Some(connection) = self.connections.get(&id) else { return };
                let joined = connection.joined;
                if let Err(rejection) = self.report(now, joined, report) {
                    let label = self.merge.label(joined.source).to_owned();
                    tracing::info!(source = label, rejection, "report refused");
                    self.cut(now, id, Cut::Rejected(rejection));
                }
            }
            Message::Gone(id, end) => {
                *self.ended.entry(end).or_default() += 1;
                if let Some(id) = id {
                    self.gone(now, id);
                }
            }
            Message::Host(row) => self.recording.write_host(&row),
            Message::Mark(mark) => {
                let mark = self.marks.add(mark);
                self.marked(&mark);
            }
            Message::Ask(question) => self.answer(question),
        }
    }

    fn report(&mut self, now: u64, joined: Joined, mut report: Report) -> Result<(), String> {
        let events = mark::checked(std::mem::take(&mut report.events)).map_err(|error| error.to_string())?;
        let sets = report.sets.take().map(sets::checked).transpose().map_err(|error| error.to_string())?;
        let second = report.second;
        self.merge.report(now, joined, report).map_err(|rejection| rejection.to_string())?;
        let source = self.merge.source(joined.source);
        for event in events {
            self.marks.hear(now, source.label, event);
        }
        if let (Some(sets), Role::Server) = (sets, source.role) {
            self.sets.put(source.name, second, sets);
        }
        Ok(())
    }

    fn release_marks(&mut self, now: u64, all: bool) {
        for mark in self.marks.release(now, all) {
            self.marked(&mark);
        }
    }

    /// The one place that every mark passes.
    fn marked(&mut self, mark: &Arc<Mark>) {
        self.recording.write_mark(mark);
    }

    fn hello(
        &mut self,
        now: u64,
        source: &Source,
        peer: IpAddr,
        cut: oneshot::Sender<Cut>,
    ) -> Result<ConnectionId, String> {
        if source.control.len() > CONTROL_BYTES_MAX {
            return Err(format!("a control address has at most {CONTROL_BYTES_MAX} bytes"));
        }
        let joined = self.merge.connect(now, source).map_err(|rejection| rejection.to_string())?;
        self.connected += 1;
        let id = ConnectionId(self.connected);
        if let Some(&older) = self.by_source.get(&joined.source)
            && let Some(older) = self.connections.remove(&older)
        {
            send_cut(older.cut, Cut::Replaced);
        }
        self.by_source.insert(joined.source, id);
        self.reach.insert(joined.source, Reach { control: source.control.clone(), peer });
        self.connections.insert(id, Connection { joined, cut });
        tracing::info!(source = self.merge.label(joined.source), instance = source.instance, "source reports");
        self.write_run();
        Ok(id)
    }

    fn cut(&mut self, now: u64, id: ConnectionId, reason: Cut) {
        if let Some(connection) = self.connections.remove(&id) {
            self.left(now, connection.joined);
            send_cut(connection.cut, reason);
        }
    }

    fn left(&mut self, now: u64, joined: Joined) {
        self.by_source.remove(&joined.source);
        self.merge.disconnect(now, joined);
        let source = self.merge.source(joined.source);
        if source.role == Role::Server {
            self.sets.forget(source.name);
        }
    }

    fn gone(&mut self, now: u64, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.left(now, connection.joined);
            tracing::info!(source = self.merge.label(connection.joined.source), "source has gone");
        }
    }

    fn closed(&mut self, closed: &ClosedSecond) {
        self.seconds += 1;
        self.seconds_complete += u64::from(closed.merged.complete);
        self.recording.write(closed);
        if self.seconds.is_multiple_of(RUN_FILE_SECONDS) {
            self.write_run();
        }
        if self.kept.len() == SECONDS_KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(closed.merged.clone()));
        self.view.show(|| Frame {
            headline: closed.merged.headline(),
            books: closed.merged.books,
            missing: closed.merged.missing.clone(),
            sources: self.merge.sources(),
            record: self.recording.directory().to_path_buf(),
            record_failures: self.recording.failures(),
        });
    }

    fn write_run(&mut self) {
        let (run, sources) = (self.run_status(), self.merge.sources());
        self.recording.write_run(&run, &sources);
    }

    fn run_status(&self) -> RunStatus {
        RunStatus {
            version: env!("CARGO_PKG_VERSION"),
            started_at_ms: self.started_at_ms,
            ended_at_ms: self.ended_at_ms,
            straggler_ms: self.straggler_ms,
            seconds: self.seconds,
            seconds_complete: self.seconds_complete,
            record: self.recording.directory().to_path_buf(),
            host: self.host.clone(),
            record_failures: self.recording.failures(),
            joined_late: self.merge.joined_late(),
            books: self.merge.books(),
            reports: self.merge.counts(),
            connections_ended: self.ended.iter().map(|(end, &count)| (end.name(), count)).collect(),
        }
    }

    fn answer(&self, question: Question) {
        // Who asked may have gone; then nobody misses the answer.
        match question {
            Question::Seconds { from, limit, reply } => {
                let limit = limit.min(SECONDS_PER_ANSWER_MAX);
                let first = match from {
                    Some(from) => self.kept.partition_point(|second| second.second < from),
                    None => self.kept.len().saturating_sub(limit),
                };
                drop(reply.send(self.kept.iter().skip(first).take(limit).cloned().collect()));
            }
            Question::Sources(reply) => drop(reply.send(self.merge.sources())),
            Question::Controls(reply) => drop(reply.send(self.controls())),
            Question::Marks(reply) => drop(reply.send(self.marks.kept().cloned().collect())),
            Question::Sets(reply) => drop(reply.send(self.sets.clone())),
            Question::Run(reply) => drop(reply.send(self.run_status())),
            Question::Metrics(reply) => drop(reply.send(self.sample())),
        }
    }

    fn controls(&self) -> Vec<ControlPoint> {
        let point = |(id, reach): (&SourceId, &Reach)| {
            let SourceName { role, name, presence, .. } = self.merge.source(*id);
            ControlPoint { role, name: name.to_owned(), presence, control: reach.control.clone(), peer: reach.peer }
        };
        self.reach.iter().map(point).collect()
    }

    fn sample(&self) -> Sample {
        let counts: MergeCounts = self.merge.counts();
        let books: Balance = self.merge.books();
        let sources = self.merge.sources();
        let odd = |value| Key::labelled("reports_odd", "kind", value, "Reports out of the ordinary, by kind");
        let mut counters = vec![
            (Key::new("reports", "Reports taken"), counts.reports),
            (odd("duplicate"), counts.duplicate),
            (odd("late"), counts.late),
            (odd("ahead"), counts.ahead),
            (odd("crowded"), counts.crowded),
            (odd("stale"), counts.stale),
            (Key::new("names_dropped", "Values ignored because their source has too many names"), counts.names_dropped),
            (Key::new("totals_fell", "Totals that fell within one instance, and were ignored"), counts.totals_fell),
            (Key::new("seconds_skipped", "Seconds never closed because the clock was set"), counts.seconds_skipped),
            (Key::new("seconds", "Seconds closed"), self.seconds),
            (Key::new("seconds_complete", "Seconds closed and complete"), self.seconds_complete),
            (Key::new("record_failures", "Writes to the recording that failed"), self.recording.failures()),
        ];
        for end in End::ALL {
            let key =
                Key::labelled("connections_ended", "reason", end.name(), "Ingest connections that ended, by reason");
            counters.push((key, self.ended.get(&end).copied().unwrap_or_default()));
        }
        let present = |presence| sources.iter().filter(|source| source.presence == presence).count();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (expected, reported) =
            self.kept.back().map_or((0, 0), |second| (second.sources_expected, second.sources_reported));
        let mut gauges = vec![
            (Key::new("sources", "Processes seen in this run"), gauge(sources.len())),
            (Key::new("sources_reporting", "Processes connected now"), gauge(present(Presence::Reporting))),
            (Key::new("sources_left", "Processes that have taken their leave"), gauge(present(Presence::Left))),
            (Key::new("sources_lost", "Processes gone without taking their leave"), gauge(present(Presence::Lost))),
            (Key::new("sources_expected", "Processes whose report the last closed second waited for"), gauge(expected)),
            (Key::new("sources_reported", "Processes that the last closed second has a report of"), gauge(reported)),
            (Key::new("recording", "1 while the recording can be written"), i64::from(!self.recording.failing())),
            (
                Key::new("residual_prizes", "Prizes won less prizes received, since the run began"),
                books.residual_prizes,
            ),
            (
                Key::new("residual_fen", "Money paid less money received, since the run began, in fen"),
                books.residual_fen,
            ),
        ];
        if let Some(free) = disk::free_bytes(self.recording.directory()) {
            let key = Key::new("recording_free_bytes", "Bytes left on the file system of the recording");
            gauges.push((key, i64::try_from(free).unwrap_or(i64::MAX)));
        }
        Sample { counters, gauges, ..Sample::default() }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The run with its final books.
    pub run: RunStatus,
    /// Every source.
    pub sources: Vec<SourceStatus>,
    /// Whether standard output took what was shown last.
    pub stdout_is_read: bool,
}

fn send_cut(connection: oneshot::Sender<Cut>, reason: Cut) {
    if connection.send(reason).is_err() {
        tracing::debug!("the connection to be cut has just ended by itself");
    }
}
