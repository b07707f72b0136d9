//! What this server says of itself, once a second to the monitor and at every scrape: one
//! description for both.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hongbao_proto::report_v1::Sets;
use hongbao_proto::v1::ErrorCode;
use hongbao_telemetry::labels;
use hongbao_telemetry::metrics::CumulativeHistograms;
use hongbao_telemetry::report::{Events, Key, ReporterStats, Sample, names};
use hongbao_telemetry::{disk, process};

use crate::ends::End;
use crate::generator::StockBoard;
use crate::ledger::writer::LedgerStatus;
use crate::services::rooms::room_shard::RoomsBoard;
use crate::set::SetHandle;
use crate::set::broadcast::Broadcasts;
use crate::set::tally::{AnswerKind, ERRORS, SetTally, Tally};
use crate::shard::acceptor::AcceptTally;

/// Everything that is counted, wherever it is counted.
#[derive(Clone)]
pub struct Telemetry {
    pub sets: Box<[SetHandle]>,
    pub accept: Arc<AcceptTally>,
    pub ledger: LedgerStatus,
    pub stock: Arc<StockBoard>,
    /// What was announced lately, and how far it has come.
    pub broadcasts: Arc<Broadcasts>,
    pub rooms: Arc<RoomsBoard>,
    /// What happens, on its way to the monitor's timeline.
    pub events: Events,
    /// How the start and the stop come on.
    pub steps: Arc<Steps>,
    /// What one descriptor table may hold.
    pub descriptors_limit: u64,
    /// SETs whose sockets lie in one private descriptor table; none where all share the process's.
    pub sets_per_table: Option<NonZeroUsize>,
    pub ledger_path: Arc<Path>,
    /// Connections that SETs and descriptors have room for.
    pub connections_max: u64,
    /// The reporter's own, where there is one.
    pub reporter: Option<Arc<ReporterStats>>,
}

labels! {
    /// A step of the start or of the stop. The label is its name in metrics and in the log.
    #[derive(PartialOrd, Ord)]
    pub enum Step {
        Bind = "bind",
        OpenLedger = "open_ledger",
        /// To every shard listening.
        Serve = "serve",
        CloseListeners = "close_listeners",
        StopIssuing = "stop_issuing",
        NotifyUsers = "notify_users",
        RunDry = "run_dry",
        CloseLedger = "close_ledger",
        Audit = "audit",
    }
}

/// The steps that were begun, with how long each took, or when the one began that is under way.
#[derive(Debug, Default)]
pub struct Steps(Mutex<BTreeMap<Step, (Instant, Option<Duration>)>>);

impl Steps {
    /// The step before is over.
    pub fn begin(&self, step: Step) {
        self.end();
        self.lock().insert(step, (Instant::now(), None));
    }

    /// The last step is over.
    pub fn end(&self) {
        for (began, took) in self.lock().values_mut() {
            took.get_or_insert_with(|| began.elapsed());
        }
    }

    /// How long each step since `first` took, for people.
    pub fn since(&self, first: Step) -> String {
        let steps = Step::ALL.iter().filter(|step| **step >= first && self.millis(**step) > 0);
        let took: Vec<_> = steps.map(|step| format!("{} {} ms", step.label(), self.millis(*step))).collect();
        took.join(", ")
    }

    /// 0 where it was not begun.
    pub fn millis(&self, step: Step) -> u64 {
        let took = self.lock().get(&step).map(|(began, took)| took.unwrap_or_else(|| began.elapsed()));
        took.map_or(0, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Step, (Instant, Option<Duration>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Telemetry {
    /// One counter summed over all SETs.
    pub fn sum(&self, of: impl Fn(&SetTally) -> &Tally) -> u64 {
        self.sets.iter().map(|set| of(&set.tally).get()).sum()
    }

    pub fn answered(&self) -> u64 {
        self.sets.iter().map(|set| set.tally.answered()).sum()
    }

    /// Descriptors in the fullest table. That of another thread cannot be counted without reading
    /// all of it: its sockets are known, and what else it has is a copy of ours.
    fn open_descriptors(&self) -> u64 {
        let own = process::open_descriptors();
        let connections = |sets: &[SetHandle]| sets.iter().map(|set| set.tally.connections.get()).sum::<u64>();
        let fullest = self.sets_per_table.and_then(|sets| self.sets.chunks(sets.get()).map(connections).max());
        own + fullest.unwrap_or(0)
    }

    fn sets_now(&self) -> Sets {
        let of = |figure: fn(&SetHandle) -> u64| self.sets.iter().map(figure).collect();
        Sets {
            connections: of(|set| set.tally.connections.get()),
            online: of(|set| set.tally.online.get()),
            queue_depth: of(|set| (set.inbox.max_capacity() - set.inbox.capacity()) as u64),
            owed: of(|set| set.tally.owed.get()),
            stock: of(|set| set.tally.stock.get()),
        }
    }

    /// The whole description.
    pub fn sample(&self) -> Sample {
        let prizes = self.stock.total();
        let ledger = self.ledger.counts();
        let books = ledger.totals;
        let named = |name, help, value: u64| (Key::new(name, help), value);
        let of_sets = |name, help, of: fn(&SetTally) -> &Tally| named(name, help, self.sum(of));
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut counters = vec![
            (names::REQUESTS_RECEIVED, self.sum(|set| &set.received)),
            (names::REQUESTS_ANSWERED, self.answered()),
            (names::GRABS_RECEIVED, self.sum(|set| &set.grabs)),
            (names::PRIZES_ISSUED, read(&self.stock.issued_first)),
            (names::PRIZES_WON, books.won),
            (names::PAID_FEN, books.paid.0),
            of_sets("answers_undelivered", "Answers whose connection had gone", |set| &set.undelivered),
            of_sets("frames_stale", "Frames still queued when their connection ended", |set| &set.stale),
            of_sets("connections_accepted", "Connections accepted", |set| &set.accepted),
            of_sets("logins_deferred", "Logins told to come back at an appointed moment", |set| &set.logins_deferred),
            of_sets("writes_refused", "Writes that a socket took only in part", |set| &set.refused_writes),
            of_sets("received_bytes", "Bytes read from peers", |set| &set.bytes_in),
            of_sets("sent_bytes", "Bytes written to peers", |set| &set.bytes_out),
            (names::ANNOUNCEMENTS_DELIVERED, self.sum(|set| &set.announced)),
            named(
                "announcements_dropped",
                "Announcements that a SET had no room for, counted by SET",
                self.sum(|set| &set.announcements_dropped) + self.broadcasts.queues_full(),
            ),
            of_sets("offers_dropped", "Envelopes not offered at once for lack of room", |set| &set.offers_dropped),
            (names::UNITS_SOLD, books.sold),
            (names::EARNED_FEN, books.earned.0),
            (names::ENVELOPES_SENT, books.envelopes),
            (names::SHARES_OPENED, books.opened),
            (names::OPENED_FEN, books.opened_fen.0),
            (names::CHAT_DELIVERED, self.sum(|set| &set.chat_delivered)),
            of_sets("chat_offline", "Chat messages to users who were off-line, one for each", |set| &set.chat_offline),
            of_sets(
                "chat_dropped",
                "Chat messages not written because the user or its SET was behind, one for each",
                |set| &set.chat_dropped,
            ),
            of_sets("equations_broken", "Batches after which a SET's books did not balance", |set| {
                &set.broken_equations
            }),
            (names::ACCEPTS_WITHOUT_DESCRIPTOR, read(&self.accept.out_of_descriptors)),
            named("accept_errors", "Failures of accept other than a lack of descriptors", read(&self.accept.errors)),
            named("listeners_closed_full", "Times a full shard stopped listening", read(&self.accept.closed_full)),
            named("ledger_batches", "Transactions committed", ledger.batches),
            named("ledger_batches_failed", "Transactions that failed", ledger.failed_batches),
            named("ledger_postings", "Postings committed", ledger.postings),
            (names::EVENTS_FORGOTTEN, self.events.forgotten()),
            (names::CPU, process::cpu_micros()),
        ];
        for (index, answer) in AnswerKind::ALL.iter().enumerate() {
            let key = Key::labelled("answers", "kind", answer.label(), "Answers given, by kind");
            counters.push((key, self.sum(|set| &set.answers[index])));
        }
        for (index, (_, label)) in ERRORS.iter().enumerate().filter(|(_, (code, _))| *code != ErrorCode::Unspecified) {
            let key = Key::labelled("errors", "code", label, "Typed errors answered, by code");
            counters.push((key, self.sum(|set| &set.errors[index])));
        }
        for (index, end) in End::ALL.iter().enumerate() {
            let key = Key::labelled("connections_ended", "reason", end.label(), "Connections ended, by reason");
            counters.push((key, self.sum(|set| &set.ends[index])));
        }
        if let Some(reporter) = &self.reporter {
            let help = "Reports given up because the monitor was away or slow";
            counters.push(named("reports_sent", "Reports written to the monitor", read(&reporter.sent)));
            counters.push(named("reports_dropped", help, read(&reporter.dropped)));
        }
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let deepest = self.sets.iter().map(|set| set.inbox.max_capacity() - set.inbox.capacity()).max().unwrap_or(0);
        let mut gauges = vec![
            (names::USERS_ONLINE, gauge(self.sum(|set| &set.online))),
            (names::CONNECTIONS, gauge(self.sum(|set| &set.connections))),
            (Key::new("connections_max", "Connections that there is room for"), gauge(self.connections_max)),
            (names::REQUESTS_OWED, gauge(self.sum(|set| &set.owed))),
            (names::QUEUE_DEPTH_MAX, gauge(deepest as u64)),
            (names::PRIZES_IN_SETS, gauge(prizes.in_sets)),
            (Key::new("prizes_in_flight", "Prizes with the ledger"), gauge(prizes.in_flight)),
            (Key::new("prizes_in_transit", "Prizes on their way to a SET"), gauge(prizes.in_transit)),
            (Key::new("prizes_residual", "Prizes unaccounted for; 0 or the program is wrong"), gauge(prizes.residual)),
            (Key::new("orders_reserved", "Orders that wait for their payment"), gauge(books.reserved)),
            (Key::new("envelopes_open", "Envelopes that can be opened"), gauge(books.envelopes_open)),
            (Key::new("enclosed_fen", "Money in envelopes that can be opened, in fen"), gauge(books.enclosed.0)),
            (Key::new("ledger_healthy", "Whether the ledger can be written: 1 or 0"), i64::from(self.ledger.healthy())),
            (Key::new("ledger_bytes", "Size of the ledger's file and of its log"), gauge(self.ledger_bytes())),
            (Key::new("rooms", "Chat rooms with members"), gauge(read(&self.rooms.rooms))),
            (Key::new("room_members", "Members of all chat rooms"), gauge(read(&self.rooms.members))),
            (names::RESIDENT_BYTES, gauge(process::resident_bytes())),
            (names::OPEN_DESCRIPTORS, gauge(self.open_descriptors())),
            (names::DESCRIPTORS_LIMIT, gauge(self.descriptors_limit)),
        ];
        for &step in Step::ALL {
            let help = "Time in a step of the start or stop, in microseconds";
            let key = Key::labelled("step_us", "step", step.label(), help);
            gauges.push((key, gauge(1_000 * self.steps.millis(step))));
        }
        if let Some(free) = disk::free_bytes(&self.ledger_path) {
            gauges.push((Key::new("ledger_free_bytes", "Bytes left on the file system of the ledger"), gauge(free)));
        }
        Sample { counters, gauges, ..Sample::default() }
    }

    fn ledger_bytes(&self) -> u64 {
        let mut log = self.ledger_path.as_os_str().to_owned();
        log.push("-wal");
        disk::file_bytes(&self.ledger_path) + disk::file_bytes(&PathBuf::from(log))
    }

    /// Histograms since the start.
    pub fn histograms(&self) -> CumulativeHistograms {
        let mut histograms = CumulativeHistograms::default();
        histograms.add_one(names::LEDGER_COMMIT, &self.ledger.commit_latency());
        histograms
    }

    /// The same with what the last second alone added: for the reporter, which asks once a second.
    pub fn sample_second(&self) -> Sample {
        let mut sample = self.sample();
        sample.histograms.push((names::LEDGER_COMMIT, self.ledger.take_commit_latency()));
        sample.sets = Some(self.sets_now());
        sample
    }
}
