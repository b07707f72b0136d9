//! The one task that owns the run: merge, books, recording, view. Everybody else sends it messages.

mod publisher;
mod sources;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hongbao_proto::report_v1::{Report, Source};
use serde_json::json;
use strum::VariantArray;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::limits::HOST_WAIT_MS;
use crate::owner::publisher::Publisher;
pub use crate::owner::publisher::{StreamEvent, Subscription};
use crate::owner::sources::Sources;
use crate::recording::RunStatus;
use crate::recording::rotation::Rotation;
use crate::recording::write::{Entry, Recording};
use crate::run::alert::{Alerts, Evidence};
use crate::run::books::Book;
use crate::run::ends::End;
use crate::run::host::{HostFacts, HostSecond};
use crate::run::mark::{self, Mark, Marks};
use crate::run::merge::{Joined, Merge, MergeCounts, Presence, SourceStatus};
use crate::run::rejection::Rejection;
use crate::run::second::{ClosedSecond, MergedSecond, Role};
use crate::run::series::Row;
use crate::run::sets::{self, SetsBoard};
use crate::terminal::lines::{Frame, View};
use hongbao_telemetry::clock::unix_millis;
use hongbao_telemetry::disk;
use hongbao_telemetry::http::ApiError;
use hongbao_telemetry::report::{Key, Sample};

/// What the run is, is recorded anew after this many seconds, and whenever a source joins.
const RUN_SECONDS: u64 = 10;

/// The machine's name by which this monitor reports for its guests: they are no fleet.
pub const GUESTS_SOURCE: &str = "guests";

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
        reply: oneshot::Sender<Result<ConnectionId, Rejection>>,
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
    Sources(oneshot::Sender<Vec<SourceStatus>>),
    /// How to reach each source's own control surface.
    Controls(oneshot::Sender<Vec<ControlPoint>>),
    /// The latest marks of the run's timeline, oldest first.
    Marks(oneshot::Sender<Vec<Arc<Mark>>>),
    /// Rows of seconds, for charts.
    History {
        /// The first second.
        from: u64,
        until: u64,
        reply: oneshot::Sender<Rows>,
    },
    /// Everything that happens from now on.
    Subscribe {
        /// The last second that the reader has seen; those after it come first.
        after: Option<u64>,
        reply: oneshot::Sender<Subscription>,
    },
    /// Each server's SETs as last reported, by the server's name.
    Sets(oneshot::Sender<SetsBoard>),
    Run(oneshot::Sender<RunStatus>),
    /// The monitor's own metrics.
    Metrics(oneshot::Sender<Sample>),
}

/// Asks the owner.
///
/// # Errors
/// 503 once the monitor stops.
pub async fn ask<A>(
    owner: &mpsc::Sender<Message>,
    question: impl FnOnce(oneshot::Sender<A>) -> Question,
) -> Result<A, ApiError> {
    let stopping = || ApiError::unavailable("this monitor is stopping");
    let (reply, answer) = oneshot::channel();
    owner.send(Message::Ask(question(reply))).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

/// A source's own control surface, for whoever judges whether to trust it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPoint {
    pub role: Role,
    /// Its name, unique in the role.
    pub name: String,
    pub presence: Presence,
    /// As the process gave it; it may not be an address at all, nor the process's own. Empty: it
    /// has none.
    pub control: String,
    /// Where users connect to it, likewise.
    pub listen: String,
    /// Where its connection to us comes from.
    pub peer: IpAddr,
}

/// Rows of a range of the run.
#[derive(Debug)]
pub struct Rows {
    pub run: String,
    pub rows: Vec<Arc<Row>>,
    /// Seconds that a row stands for at most.
    pub finest: u64,
}

/// The owner of a run, and of those that follow it.
pub struct Owner {
    merge: Merge,
    sources: Sources,
    publisher: Publisher,
    recording: Recording,
    rotation: Option<Rotation>,
    /// The second with which the next run begins.
    next_run: Option<u64>,
    view: View,
    /// What the owner knows of the run; its books are those of the last closed second.
    status: RunStatus,
    marks: Marks,
    alerts: Alerts,
    sets: SetsBoard,
    /// The SETs have changed since they were recorded.
    sets_changed: bool,
    /// At the last closed second.
    sources_then: Vec<SourceStatus>,
}

impl Owner {
    /// The owner of a run that begins at `started_at_ms`; where there is a rotation, of those after
    /// it too.
    pub fn new(
        started_at_ms: u64,
        straggler: Duration,
        recording: Recording,
        rotation: Option<Rotation>,
        view: View,
    ) -> Self {
        let straggler_ms = u64::try_from(straggler.as_millis()).unwrap_or(u64::MAX);
        let next_run = rotation.as_ref().map(|rotation| rotation.next(started_at_ms / 1_000));
        let mut merge = Merge::new(started_at_ms, straggler_ms);
        merge.begin_run_at(next_run);
        Self {
            merge,
            sources: Sources::default(),
            publisher: Publisher::default(),
            recording,
            next_run,
            rotation,
            view,
            status: RunStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_at_ms,
                straggler_ms,
                host: HostFacts::read(),
                ..RunStatus::default()
            },
            marks: Marks::default(),
            alerts: Alerts::default(),
            sets: SetsBoard::default(),
            sets_changed: false,
            sources_then: Vec::new(),
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
            let pause = if self.publisher.is_pending() { pause.min(HOST_WAIT_MS / 4) } else { pause };
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
            if self.next_run.is_some_and(|at| now >= (at + 1) * 1_000 + self.status.straggler_ms) {
                self.begin_run(now);
            }
            more_marks = self.release_marks(now, false);
            self.publisher.send_seconds(now, false);
            self.publisher.send_state(now, || self.merge.sources(), &self.sets);
            // A full inbox must not keep readers from what they were just sent.
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
        self.end_run(now, now, self.merge.sources());
        // Streams end once they have read this: nobody sends them anything any more.
        self.publisher.send(|| StreamEvent::new("end", &self.run_status()));
        let stdout_is_read = self.view.close();
        let (run, sources) = (self.run_status(), self.merge.sources());
        self.recording.close();
        Outcome { run, sources, stdout_is_read }
    }

    /// Publishes and records what there is of the run, which ended at `at_ms`.
    fn end_run(&mut self, now: u64, at_ms: u64, sources: Vec<SourceStatus>) {
        self.publisher.send_seconds(now, true);
        while self.release_marks(now, true) {}
        self.status.ended_at_ms = Some(at_ms);
        self.recording.push(Entry::Run(Box::new(self.run_status()), sources));
    }

    /// Ends the run before the second with which the next begins. What is in no closed second yet
    /// is of the next, and so is what one book is ahead of the other.
    fn begin_run(&mut self, now: u64) {
        let (Some(rotation), Some(at)) = (self.rotation.clone(), self.next_run) else { return };
        // A run in which nothing was reported goes on.
        let goes_on = self.status.seconds == 0;
        self.next_run = Some(rotation.next(if goes_on { now / 1_000 } else { at }));
        if !goes_on {
            // Whoever has joined since is of the next.
            let sources = std::mem::take(&mut self.sources_then);
            self.end_run(now, at * 1_000, sources);
            self.recording.begin_run(rotation.directory(at), at);
            self.publisher.begin_run();
            (self.status.started_at_ms, self.status.ended_at_ms) = (at * 1_000, None);
            (self.marks, self.alerts) = (Marks::default(), Alerts::default());
            (self.status.seconds, self.status.seconds_complete) = (0, 0);
        }
        self.merge.begin_run(self.next_run);
        self.write_run();
    }

    fn apply(&mut self, message: Message) {
        let now = unix_millis();
        match message {
            Message::Hello { source, peer, cut, reply } => {
                let answer = self.hello(now, &source, peer, cut);
                if let Err(Ok(connection)) = reply.send(answer) {
                    self.leave(now, connection, None);
                }
            }
            Message::Report(id, report) => {
                let Some(joined) = self.sources.get(id) else { return };
                if let Err(rejection) = self.report(now, joined, report) {
                    let rejection = rejection.to_string();
                    let label = self.merge.label(joined.source).to_owned();
                    tracing::info!(event = "report_refused", source = label, rejection, "report refused");
                    self.leave(now, id, Some(Cut::Rejected(rejection)));
                }
            }
            Message::Gone(id, end) => {
                self.sources.count_end(end);
                if let Some(id) = id {
                    self.leave(now, id, None);
                }
            }
            Message::Host(row) => {
                self.recording.push(Entry::Host(row.clone()));
                self.publisher.host(row);
            }
            Message::Mark(mark) => {
                let mark = self.marks.add(mark);
                self.marked(&mark);
            }
            Message::Ask(question) => self.answer(question),
        }
    }

    fn report(&mut self, now: u64, joined: Joined, mut report: Report) -> Result<(), Rejection> {
        let events = mark::checked(std::mem::take(&mut report.events))?;
        let sets = report.sets.take().map(sets::checked).transpose()?;
        let second = report.second;
        self.merge.report(now, joined, report)?;
        let (source, label) = (self.merge.source(joined.source), self.merge.label(joined.source));
        for event in events {
            self.marks.report(now, label, event);
        }
        if let (Some(sets), Role::Server) = (sets, source.role) {
            self.sets.put(&source.name, second, sets);
            self.sets_changed();
        }
        Ok(())
    }

    fn release_marks(&mut self, now: u64, all: bool) -> bool {
        let released = self.marks.release(now, all);
        released.iter().for_each(|mark| self.marked(mark));
        !released.is_empty()
    }

    /// The one place that every mark passes.
    fn marked(&mut self, mark: &Arc<Mark>) {
        self.recording.push(Entry::Mark(Arc::clone(mark)));
        self.publisher.send(|| StreamEvent::new("mark", &**mark));
    }

    fn sets_changed(&mut self) {
        self.sets_changed = true;
        self.publisher.sets_changed();
    }

    fn subscribe(&self, after: Option<u64>) -> Subscription {
        let hello = json!({
            "run": self.run_status(),
            "id": self.run_id(),
            "version": env!("CARGO_PKG_VERSION"),
            "now_ms": unix_millis(),
        });
        let mut first = vec![StreamEvent::new("hello", &hello), StreamEvent::new("sources", &self.merge.sources())];
        let sets = self.sets.servers();
        if !sets.is_empty() {
            first.push(StreamEvent::new("sets", &sets));
        }
        self.publisher.subscribe(first, after)
    }

    /// The recording's directory names the run.
    fn run_id(&self) -> String {
        let directory = self.recording.directory();
        directory.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn hello(
        &mut self,
        now: u64,
        source: &Source,
        peer: IpAddr,
        cut: oneshot::Sender<Cut>,
    ) -> Result<ConnectionId, Rejection> {
        Sources::check(source)?;
        let first_machine = self.is_fleets(source) && !self.fleet_reports();
        let joined = self.merge.connect(now, source)?;
        if first_machine && self.rotation.is_some() && self.status.seconds > 0 {
            self.next_run = Some(now / 1_000);
            self.merge.begin_run_at(self.next_run);
        }
        let SourceStatus { role, ref name, presence, .. } = *self.merge.source(joined.source);
        let (name, control, listen) = (name.clone(), source.control.clone(), source.listen.clone());
        let control = ControlPoint { role, name, presence, control, listen, peer };
        let id = self.sources.join(joined, control, cut);
        tracing::info!(
            event = "source_joined",
            source = self.merge.label(joined.source),
            instance = source.instance,
            "source reports"
        );
        self.write_run();
        Ok(id)
    }

    fn is_fleets(&self, source: &Source) -> bool {
        source.role == Role::Machine.as_ref() && source.name != GUESTS_SOURCE
    }

    fn fleet_reports(&self) -> bool {
        let sources = self.merge.sources();
        sources.iter().any(|source| {
            source.role == Role::Machine && source.name != GUESTS_SOURCE && source.presence == Presence::Reporting
        })
    }

    /// A connection is over, or is to be cut for a reason.
    fn leave(&mut self, now: u64, id: ConnectionId, reason: Option<Cut>) {
        let gone = reason.is_none();
        let Some(joined) = self.sources.leave(id, reason) else { return };
        self.merge.disconnect(now, joined);
        let source = self.merge.source(joined.source);
        if gone {
            tracing::info!(event = "source_left", source = self.merge.label(joined.source), "source has gone");
        }
        if source.role == Role::Server {
            self.sets.forget(&source.name);
            self.sets_changed();
        }
    }

    fn closed(&mut self, closed: ClosedSecond) {
        let MergedSecond { second, complete, headline, books, .. } = *closed.merged;
        if self.next_run.is_some_and(|at| second >= at) {
            self.begin_run(unix_millis());
        }
        self.status.seconds += 1;
        self.status.seconds_complete += u64::from(complete);
        self.status.books = books;
        let closed = Arc::new(closed);
        let sets = std::mem::take(&mut self.sets_changed).then(|| self.sets.clone());
        self.recording.push(Entry::Second(Arc::clone(&closed), sets));
        self.sources_then = self.merge.sources();
        let evidence = Evidence {
            headline: &headline,
            books: &books,
            sources: &self.sources_then,
            recording_fails: self.recording.failing(),
        };
        for alert in self.alerts.look(evidence) {
            let mark = self.marks.add(alert);
            self.marked(&mark);
        }
        if self.status.seconds.is_multiple_of(RUN_SECONDS) {
            self.write_run();
        }
        self.view.show(|| Frame { headline, books });
        self.publisher.closed(closed);
    }

    fn write_run(&mut self) {
        self.recording.push(Entry::Run(Box::new(self.run_status()), self.merge.sources()));
    }

    fn run_status(&self) -> RunStatus {
        let ended = |(&end, &count): (&End, &u64)| (<&str>::from(end).to_owned(), count);
        RunStatus {
            record: self.recording.directory(),
            record_failures: self.recording.failures(),
            joined_late: self.merge.joined_late(),
            reports: self.merge.counts(),
            connections_ended: self.sources.ended().iter().map(ended).collect(),
            ..self.status.clone()
        }
    }

    fn answer(&self, question: Question) {
        // Who asked may have gone; then nobody misses the answer.
        match question {
            Question::Seconds { from, limit, reply } => drop(reply.send(self.publisher.seconds(from, limit))),
            Question::Sources(reply) => drop(reply.send(self.merge.sources())),
            Question::Controls(reply) => drop(reply.send(self.sources.controls(&self.merge))),
            Question::Marks(reply) => drop(reply.send(self.marks.kept().cloned().collect())),
            Question::History { from, until, reply } => {
                let (rows, finest) = self.publisher.history.range(from, until);
                drop(reply.send(Rows { run: self.run_id(), rows, finest }));
            }
            Question::Subscribe { after, reply } => drop(reply.send(self.subscribe(after))),
            Question::Sets(reply) => drop(reply.send(self.sets.clone())),
            Question::Run(reply) => drop(reply.send(self.run_status())),
            Question::Metrics(reply) => drop(reply.send(self.sample())),
        }
    }

    fn sample(&self) -> Sample {
        let counts: MergeCounts = self.merge.counts();
        let books = self.status.books;
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
            (Key::new("seconds", "Seconds closed"), self.status.seconds),
            (Key::new("seconds_complete", "Seconds closed and complete"), self.status.seconds_complete),
            (
                Key::new("events_dropped", "Events that found too many others waiting to become marks"),
                self.marks.dropped(),
            ),
            (Key::new("streams_dropped", "Readers of the stream that were too slow"), self.publisher.dropped()),
            (Key::new("record_failures", "Seconds that could not be recorded"), self.recording.failures()),
        ];
        for &end in End::VARIANTS {
            let key =
                Key::labelled("connections_ended", "reason", end.into(), "Ingest connections that ended, by reason");
            counters.push((key, self.sources.ended().get(&end).copied().unwrap_or_default()));
        }
        let present = |presence| sources.iter().filter(|source| source.presence == presence).count();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (expected, reported) =
            self.publisher.last().map_or((0, 0), |second| (second.sources_expected, second.sources_reported));
        let mut gauges = vec![
            (Key::new("sources", "Processes seen in this run"), gauge(sources.len())),
            (Key::new("sources_reporting", "Processes connected now"), gauge(present(Presence::Reporting))),
            (Key::new("sources_left", "Processes that have taken their leave"), gauge(present(Presence::Left))),
            (Key::new("sources_lost", "Processes gone without taking their leave"), gauge(present(Presence::Lost))),
            (Key::new("sources_expected", "Processes whose report the last closed second waited for"), gauge(expected)),
            (Key::new("sources_reported", "Processes that the last closed second has a report of"), gauge(reported)),
            (Key::new("streams", "Readers of the stream"), gauge(self.publisher.readers())),
            (Key::new("recording", "1 while the recording can be written"), i64::from(!self.recording.failing())),
        ];
        for book in Book::ALL {
            let sides = books.claims.sides(book);
            gauges.extend(residuals(book).into_iter().zip([sides.residual_count(), sides.residual_fen()]));
            let unbalanced = i64::try_from(books.unbalanced_seconds_of(book)).unwrap_or(i64::MAX);
            let help = "For how many seconds in a row, up to the last one, a book did not balance";
            gauges.push((Key::labelled("unbalanced_seconds", "book", book.name(), help), unbalanced));
        }
        if let Some(free) = disk::free_bytes(&self.recording.directory()) {
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
    pub sources: Vec<SourceStatus>,
    /// Whether standard output took what was shown last.
    pub stdout_is_read: bool,
}
