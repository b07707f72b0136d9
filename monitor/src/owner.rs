//! The one task that owns the run: merge, books, recording, view. Everybody else sends it messages.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hongbao_proto::report_v1::{Report, Source};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::limits::{
    CONTROL_BYTES_MAX, HOST_WAIT_MS, HOSTS_WAITING_MAX, SECONDS_KEPT_MAX, SECONDS_PER_ANSWER_MAX, STREAM_BEHIND_MAX,
};
use crate::recording::write::{Recording, RunStatus};
use crate::run::alert::{Alerts, Evidence};
use crate::run::books::{Balance, Book};
use crate::run::ends::End;
use crate::run::host::{HostFacts, HostSecond};
use crate::run::mark::{self, Mark, Marks};
use crate::run::merge::{Joined, Merge, MergeCounts, Presence, SourceId, SourceName, SourceStatus};
use crate::run::second::{ClosedSecond, MergedSecond, Role};
use crate::run::series::{History, Row};
use crate::run::sets::{self, SetsBoard};
use crate::terminal::lines::{Frame, View};
use hongbao_telemetry::clock::unix_millis;
use hongbao_telemetry::disk;
use hongbao_telemetry::report::{Key, Sample};

/// What the run is, is recorded anew after this many seconds, and whenever a source joins.
const RUN_FILE_SECONDS: u64 = 10;

/// What stands is told again after this long, if it has changed: less than a second, so that no
/// second goes by without it.
const STATE_EVERY_MS: u64 = 900;

/// What reaches the owner.
#[derive(Debug)]
pub enum Message {
    /// A connection with a good token introduces its process.
    Hello {
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
        reply: oneshot::Sender<Vec<Arc<MergedSecond>>>,
    },
    /// Every source.
    Sources(oneshot::Sender<Vec<SourceStatus>>),
    /// How to reach each source's own control surface.
    Controls(oneshot::Sender<Vec<ControlPoint>>),
    /// The run's id, and the latest marks of its timeline, oldest first.
    Marks(oneshot::Sender<(String, Vec<Arc<Mark>>)>),
    /// Rows of seconds, for charts.
    History {
        /// The first second.
        from: u64,
        until: u64,
        reply: oneshot::Sender<Stretch>,
    },
    /// Everything that happens from now on.
    Subscribe {
        /// The last second that the reader has seen; those after it come first.
        after: Option<u64>,
        reply: oneshot::Sender<Subscription>,
    },
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
    pub role: Role,
    /// Its name, unique in the role.
    pub name: String,
    /// Whether it is there.
    pub presence: Presence,
    /// As the process gave it; it may not be an address at all, nor the process's own. Empty: it
    /// has none.
    pub control: String,
    /// Where users connect to it, likewise.
    pub listen: String,
    /// Where its connection to us comes from.
    pub peer: IpAddr,
}

/// Rows of a stretch of the run.
#[derive(Debug)]
pub struct Stretch {
    pub run: String,
    /// In order.
    pub rows: Vec<Arc<Row>>,
    /// Seconds that a row stands for at most.
    pub finest: u64,
}

/// An event of the stream, made once for all readers.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub event: &'static str,
    /// The second, where it is one.
    pub id: Option<u64>,
    /// JSON.
    pub data: String,
}

impl Told {
    /// An event without an id.
    pub fn new(event: &'static str, data: &impl Serialize) -> Self {
        let data = serde_json::to_string(data)
            .unwrap_or_else(|error| unreachable!("plain values in memory are always written: {error}"));
        Self { event, id: None, data }
    }

    /// A second's row.
    pub fn second(row: &Row) -> Self {
        Self { id: Some(row.second()), ..Self::new("second", row) }
    }
}

/// What a new reader of the stream gets.
#[derive(Debug)]
pub struct Subscription {
    /// Who we are, and what stands.
    pub first: Vec<Arc<Told>>,
    /// The seconds since the last that it has seen.
    pub missed: Vec<Arc<Row>>,
    /// Whatever is told from now on; it ends with the run.
    pub live: broadcast::Receiver<Arc<Told>>,
    /// To be counted up when the reader is dropped.
    pub dropped: Arc<AtomicU64>,
}

/// A closed second that waits for the host's row of it.
struct Untold {
    closed: Arc<ClosedSecond>,
    host: Option<Box<HostSecond>>,
}

struct Reach {
    control: String,
    listen: String,
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
    alerts: Alerts,
    sets: SetsBoard,
    history: History,
    untold: VecDeque<Untold>,
    /// Rows of the host whose second is not closed yet.
    hosts: VecDeque<Box<HostSecond>>,
    told: broadcast::Sender<Arc<Told>>,
    sources_told: Vec<SourceStatus>,
    sets_told: bool,
    /// The SETs as they are have been recorded.
    sets_recorded: bool,
    state_told_ms: u64,
    streams_dropped: Arc<AtomicU64>,
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
            alerts: Alerts::default(),
            sets: SetsBoard::default(),
            history: History::default(),
            untold: VecDeque::new(),
            hosts: VecDeque::new(),
            told: broadcast::Sender::new(STREAM_BEHIND_MAX),
            sources_told: Vec::new(),
            sets_told: true,
            sets_recorded: true,
            state_told_ms: 0,
            streams_dropped: Arc::default(),
            connected: 0,
            ended: BTreeMap::new(),
            kept: VecDeque::new(),
            seconds: 0,
            seconds_complete: 0,
        }
    }

    /// Runs until `stop`, then closes what was reported, ends the recording and returns what the
    /// run came to.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Message>, stop: CancellationToken) -> Outcome {
        self.write_run();
        let mut more_marks = false;
        loop {
            let now = unix_millis();
            // Our own clock may be set while we sleep; the merge is asked again within a second.
            let pause = self.merge.due_ms(now).map_or(1_000, |due| (due - now).clamp(1, 1_000));
            let pause = if self.untold.is_empty() { pause } else { pause.min(HOST_WAIT_MS / 4) };
            let pause = if more_marks { 0 } else { pause };
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
                self.closed(closed);
            }
            more_marks = self.release_marks(now, false);
            self.tell_seconds(now, false);
            self.tell_state(now);
            // A full inbox must not keep readers from what they were just told.
            tokio::task::yield_now().await;
        }
        self.finish(inbox).await
    }

    /// 1 take what was already sent · 2 close every second · 3 end the recording · 4 give the
    ///   terminal back.
    async fn finish(mut self, mut inbox: mpsc::Receiver<Message>) -> Outcome {
        inbox.close();
        while let Ok(message) = inbox.try_recv() {
            self.apply(message);
        }
        for closed in self.merge.advance(unix_millis()) {
            self.closed(closed);
        }
        for closed in self.merge.finish() {
            self.closed(closed);
        }
        let now = unix_millis();
        self.tell_seconds(now, true);
        while self.release_marks(now, true) {
            tokio::task::yield_now().await;
        }
        self.ended_at_ms = Some(now);
        self.write_run();
        // Streams end once they have read this: nobody can tell them anything any more.
        self.tell(|| Told::new("end", &self.run_status()));
        let stdout_is_read = self.view.close();
        let (run, sources) = (self.run_status(), self.merge.sources());
        self.recording.close();
        Outcome { run, sources, stdout_is_read }
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
                    tracing::info!(event = "report_refused", source = label, rejection, "report refused");
                    self.cut(now, id, Cut::Rejected(rejection));
                }
            }
            Message::Gone(id, end) => {
                *self.ended.entry(end).or_default() += 1;
                if let Some(id) = id {
                    self.gone(now, id);
                }
            }
            Message::Host(row) => {
                self.recording.write_host(&row);
                match self.untold.iter_mut().find(|untold| untold.closed.merged.second == row.second) {
                    Some(untold) => untold.host = Some(row),
                    None => {
                        self.hosts.push_back(row);
                        if self.hosts.len() > HOSTS_WAITING_MAX {
                            self.hosts.pop_front();
                        }
                    }
                }
            }
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
            (self.sets_told, self.sets_recorded) = (false, false);
        }
        Ok(())
    }

    /// Whether there may be more.
    fn release_marks(&mut self, now: u64, all: bool) -> bool {
        let released = self.marks.release(now, all);
        released.iter().for_each(|mark| self.marked(mark));
        !released.is_empty()
    }

    /// The one place that every mark passes.
    fn marked(&mut self, mark: &Arc<Mark>) {
        self.recording.write_mark(mark);
        self.tell(|| Told::new("mark", &**mark));
    }

    /// Hands an event to whoever listens; it is not even made if nobody does.
    fn tell(&self, told: impl FnOnce() -> Told) {
        // An error says that the last reader has just gone.
        if self.told.receiver_count() > 0 && self.told.send(Arc::new(told())).is_err() {
            tracing::trace!(event = "stream_unread", "nobody reads the stream any more");
        }
    }

    /// Tells the seconds that have their host's row, or have waited for it long enough; in order.
    fn tell_seconds(&mut self, now: u64, all: bool) {
        let told_by = |second: u64| (second + 1) * 1_000 + HOST_WAIT_MS;
        while let Some(untold) = self
            .untold
            .pop_front_if(|untold| all || untold.host.is_some() || now >= told_by(untold.closed.merged.second))
        {
            let row = Arc::new(Row::of(&untold.closed, untold.host.as_deref()));
            self.tell(|| Told::second(&row));
            self.history.push(row);
        }
    }

    /// Tells what stands, if it has changed: at most once a second, and best when a second has just
    /// been told.
    fn tell_state(&mut self, now: u64) {
        if self.told.receiver_count() == 0 || now.abs_diff(self.state_told_ms) < STATE_EVERY_MS {
            return;
        }
        self.state_told_ms = now;
        let sources = self.merge.sources();
        if sources != self.sources_told {
            self.tell(|| Told::new("sources", &sources));
            self.sources_told = sources;
        }
        if !std::mem::replace(&mut self.sets_told, true) {
            self.tell(|| Told::new("sets", &self.sets.servers()));
        }
    }

    fn subscribe(&self, after: Option<u64>) -> Subscription {
        let hello = json!({
            "run": self.run_status(),
            "id": self.run_id(),
            "version": env!("CARGO_PKG_VERSION"),
            "now_ms": unix_millis(),
        });
        let mut first = vec![Told::new("hello", &hello), Told::new("sources", &self.merge.sources())];
        let sets = self.sets.servers();
        if !sets.is_empty() {
            first.push(Told::new("sets", &sets));
        }
        Subscription {
            first: first.into_iter().map(Arc::new).collect(),
            missed: after.map_or_else(Vec::new, |second| self.history.after(second)),
            live: self.told.subscribe(),
            dropped: Arc::clone(&self.streams_dropped),
        }
    }

    /// The recording's directory names the run.
    fn run_id(&self) -> String {
        let name = self.recording.directory().file_name();
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn hello(
        &mut self,
        now: u64,
        source: &Source,
        peer: IpAddr,
        cut: oneshot::Sender<Cut>,
    ) -> Result<ConnectionId, String> {
        if source.control.len().max(source.listen.len()) > CONTROL_BYTES_MAX {
            return Err(format!("an address has at most {CONTROL_BYTES_MAX} bytes"));
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
        self.reach
            .insert(joined.source, Reach { control: source.control.clone(), listen: source.listen.clone(), peer });
        self.connections.insert(id, Connection { joined, cut });
        tracing::info!(
            event = "source_joined",
            source = self.merge.label(joined.source),
            instance = source.instance,
            "source reports"
        );
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
            (self.sets_told, self.sets_recorded) = (false, false);
        }
    }

    fn gone(&mut self, now: u64, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            self.left(now, connection.joined);
            tracing::info!(
                event = "source_left",
                source = self.merge.label(connection.joined.source),
                "source has gone"
            );
        }
    }

    fn closed(&mut self, closed: ClosedSecond) {
        self.seconds += 1;
        self.seconds_complete += u64::from(closed.merged.complete);
        let closed = Arc::new(closed);
        let sets = (!std::mem::replace(&mut self.sets_recorded, true)).then(|| self.sets.clone());
        self.recording.write(Arc::clone(&closed), sets);
        let evidence = Evidence {
            headline: &closed.merged.headline,
            books: &closed.merged.books,
            sources: &self.merge.sources(),
            recording_fails: self.recording.failing(),
        };
        for alert in self.alerts.look(evidence) {
            let mark = self.marks.add(alert);
            self.marked(&mark);
        }
        if self.seconds.is_multiple_of(RUN_FILE_SECONDS) {
            self.write_run();
        }
        if self.kept.len() == SECONDS_KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(closed.merged.clone()));
        self.view.show(|| Frame { headline: closed.merged.headline, books: closed.merged.books });
        let second = closed.merged.second;
        while self.hosts.pop_front_if(|row| row.second < second).is_some() {}
        let host = self.hosts.pop_front_if(|row| row.second == second);
        self.untold.push_back(Untold { closed, host });
    }

    fn write_run(&mut self) {
        self.recording.write_run(self.run_status(), self.merge.sources());
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
            Question::Marks(reply) => drop(reply.send((self.run_id(), self.marks.kept().cloned().collect()))),
            Question::History { from, until, reply } => {
                let (rows, finest) = self.history.range(from, until);
                drop(reply.send(Stretch { run: self.run_id(), rows, finest }));
            }
            Question::Subscribe { after, reply } => drop(reply.send(self.subscribe(after))),
            Question::Sets(reply) => drop(reply.send(self.sets.clone())),
            Question::Run(reply) => drop(reply.send(self.run_status())),
            Question::Metrics(reply) => drop(reply.send(self.sample())),
        }
    }

    fn controls(&self) -> Vec<ControlPoint> {
        let point = |(id, reach): (&SourceId, &Reach)| {
            let SourceName { role, name, presence, .. } = self.merge.source(*id);
            let Reach { control, listen, peer } = reach;
            let (name, control, listen) = (name.to_owned(), control.clone(), listen.clone());
            ControlPoint { role, name, presence, control, listen, peer: *peer }
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
            (
                Key::new("events_dropped", "Events that found too many others waiting to become marks"),
                self.marks.dropped(),
            ),
            (
                Key::new("streams_dropped", "Readers of the stream that were too slow"),
                self.streams_dropped.load(Ordering::Relaxed),
            ),
            (Key::new("record_failures", "Seconds that could not be recorded"), self.recording.failures()),
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
            (Key::new("streams", "Readers of the stream"), gauge(self.told.receiver_count())),
            (Key::new("recording", "1 while the recording can be written"), i64::from(!self.recording.failing())),
        ];
        for book in Book::ALL {
            let sides = books.claims.sides(book);
            gauges.extend(residuals(book).into_iter().zip([sides.residual_count(), sides.residual_fen()]));
            let unbalanced = i64::try_from(books.unbalanced_seconds_of(book)).unwrap_or(i64::MAX);
            let help = "For how many seconds in a row, up to the last one, a book did not balance";
            gauges.push((Key::labelled("unbalanced_seconds", "book", book.name(), help), unbalanced));
        }
        if let Some(free) = disk::free_bytes(self.recording.directory()) {
            let key = Key::new("recording_free_bytes", "Bytes left on the file system of the recording");
            gauges.push((key, i64::try_from(free).unwrap_or(i64::MAX)));
        }
        Sample { counters, gauges, ..Sample::default() }
    }
}

/// What servers gave less what users got, of one book: by number, and in money.
const fn residuals(book: Book) -> [Key; 2] {
    match book {
        Book::Rain => [
            Key::new("residual_prizes", "Prizes won less prizes received, since the run began"),
            Key::new("residual_fen", "Money of prizes paid less money received, since the run began, in fen"),
        ],
        Book::Sales => [
            Key::new("residual_units", "Units of sales sold less units that users have, since the run began"),
            Key::new(
                "residual_sale_fen",
                "Money earned by sales less money that users spent, since the run began, in fen",
            ),
        ],
        Book::Envelopes => [
            Key::new(
                "residual_shares",
                "Shares of envelopes opened less shares that users were told of, since the run began",
            ),
            Key::new(
                "residual_share_fen",
                "Money of shares opened less money that users were told of, since the run began, in fen",
            ),
        ],
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
        tracing::debug!(event = "cut_too_late", "the connection to be cut has just ended by itself");
    }
}
