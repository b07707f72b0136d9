//! The thread that owns the ledger, and the bounded queue before it.
//!
//! Batching is natural: while one commit is on its way to the disk, requests gather; the next
//! commit takes them all. There is no timer on this path, so a lone claim waits for nobody and a
//! flood pays for one `fsync` per thousands of claims.
//!
//! **Order.** Every request sees all that were queued before it and none that were queued after it,
//! as far as anyone can tell. What a user has done depends on that user's postings alone, so a
//! question ([`WriterRequest::Ask`]) of a user with nothing pending in the batch is answered at once,
//! ahead of the commit: a storm of logins costs no commits. A question of a user with a posting
//! pending waits for the batch's commit. A posting of a user whose question waits so, or a
//! [`WriterRequest::Task`], commits what is pending first. What others do to a user (an envelope, a
//! deposit) may come before or after a question, as it would if they had done it a moment earlier
//! or later.
//!
//! A failed commit is told to everyone in it ([`Unavailable`]) and turns [`LedgerStatus::healthy`]
//! off; the thread stays and tries again with each batch, and once a second with a probe when there
//! is none.

use std::any::type_name;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hongbao_proto::{RequestId, UserId};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

pub use super::task::log_mismatch;
use super::task::{self, LedgerTask, TaskReply, TaskResult};
use super::{Answer, Ledger, LedgerError, Posting, PostingResult, Question, Totals, facts};
use crate::clock::UnixMs;
use crate::limits::{LEDGER_BATCH_MAX, LEDGER_QUEUE_MAX};

/// Between two attempts to find out whether a failing ledger works again.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

/// The longest commit that the histogram tells apart, microseconds: one minute. Longer ones count
/// as this.
const COMMIT_MICROS_MAX: u64 = 60_000_000;

/// Where the answer to a request goes. Called on the ledger's thread, once, and must not block.
pub trait ReplyTo: Send + 'static {
    /// Hands the answer over.
    fn deliver(self, reply: Reply);

    /// The user's request that is answered, if it is one: for the log.
    fn request(&self) -> Option<RequestId> {
        None
    }
}

/// The ledger could not do it, and did nothing. Why is in [`LedgerStatus::last_error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is unavailable")]
pub struct Unavailable;

/// What became of a request, one variant for each kind of [`WriterRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`WriterRequest::Post`]; durable.
    Posted(Result<PostingResult, Unavailable>),
    /// To [`WriterRequest::Ask`].
    Answered(Result<Answer, Unavailable>),
}

impl Reply {
    /// What became of a posting of this kind.
    pub fn posted<R: TryFrom<PostingResult>>(self) -> Result<R, NoResult> {
        match self {
            Reply::Posted(Ok(result)) => R::try_from(result).map_err(|_| mismatched::<R>()),
            Reply::Answered(Ok(_)) => Err(mismatched::<R>()),
            Reply::Posted(Err(Unavailable)) | Reply::Answered(Err(Unavailable)) => Err(NoResult::Unavailable),
        }
    }

    /// The answer to a question of this kind.
    pub fn answered<A: TryFrom<Answer>>(self) -> Result<A, NoResult> {
        match self {
            Reply::Answered(Ok(answer)) => A::try_from(answer).map_err(|_| mismatched::<A>()),
            Reply::Posted(Ok(_)) => Err(mismatched::<A>()),
            Reply::Posted(Err(Unavailable)) | Reply::Answered(Err(Unavailable)) => Err(NoResult::Unavailable),
        }
    }
}

/// Why there is no result of the kind that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoResult {
    /// The ledger did nothing.
    Unavailable,
    /// It replied to something else. Our own fault, and logged as such; what it did is not known.
    Mismatched,
}

fn mismatched<R>() -> NoResult {
    log_mismatch(type_name::<R>());
    NoResult::Mismatched
}

/// What the ledger's thread can be asked.
pub enum WriterRequest<T: ReplyTo> {
    Post {
        posting: Posting,
        reply_to: T,
    },
    Ask {
        user: UserId,
        question: Question,
        reply_to: T,
    },
    /// Do this, all earlier postings being durable.
    Task(LedgerTask),
}

/// A way into the ledger's queue. The thread ends when the last one is gone.
pub struct LedgerHandle<T: ReplyTo> {
    queue: mpsc::Sender<WriterRequest<T>>,
}

impl<T: ReplyTo> Clone for LedgerHandle<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T: ReplyTo> LedgerHandle<T> {
    /// A queue for so many requests; the other end is for whoever owns the [`Writer`].
    pub fn open(capacity: usize) -> (Self, mpsc::Receiver<WriterRequest<T>>) {
        let (queue, receiver) = mpsc::channel(capacity);
        (Self { queue }, receiver)
    }

    /// Queues a request, or gives it back if the queue is full or the ledger's thread has ended: it
    /// was not and will not be done.
    #[must_use = "a request given back was not done, and its sender is owed an answer"]
    pub fn try_send(&self, request: WriterRequest<T>) -> Result<(), WriterRequest<T>> {
        self.queue.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(request) | mpsc::error::TrySendError::Closed(request) => request,
        })
    }

    /// Queues a request, waiting for room. Gives it back if the ledger's thread has ended.
    #[must_use = "a request given back was not done, and its sender is owed an answer"]
    pub async fn send(&self, request: WriterRequest<T>) -> Result<(), WriterRequest<T>> {
        self.queue.send(request).await.map_err(|error| error.0)
    }

    /// A place in the queue, if there is one: what is sent into it is certain to fit.
    pub fn try_reserve(&self) -> Option<mpsc::Permit<'_, WriterRequest<T>>> {
        self.queue.try_reserve().ok()
    }

    /// See [`Ledger::ask`]; `A` is the question's answer.
    pub async fn ask<A: TryFrom<Answer>>(&self, user: UserId, question: Question) -> Result<A, LedgerError> {
        let answer = self.run(|reply| LedgerTask::Ask { user, question, reply }).await?;
        A::try_from(answer).map_err(|_| task::mismatched::<A>())
    }

    /// Posts what is no user's request; `R` is what becomes of postings of their kind.
    pub async fn post<R: TryFrom<PostingResult>>(
        &self,
        postings: Vec<Posting>,
        now: UnixMs,
    ) -> Result<Vec<R>, LedgerError> {
        task::typed(self.run(|reply| LedgerTask::Post { postings, now, reply }).await?)
    }

    /// As [`LedgerHandle::post`], of one.
    pub async fn post_one<R: TryFrom<PostingResult>>(&self, posting: Posting, now: UnixMs) -> Result<R, LedgerError> {
        task::only(self.run(|reply| LedgerTask::Post { postings: vec![posting], now, reply }).await?)
    }

    /// Queues a task, if there is room: where its result will be.
    pub fn try_task<R>(&self, task: impl FnOnce(TaskReply<R>) -> LedgerTask) -> Option<TaskResult<R>> {
        let place = self.try_reserve()?;
        let (reply, result) = oneshot::channel();
        place.send(WriterRequest::Task(task(reply)));
        Some(result)
    }

    /// Has a task done, and waits for its result.
    pub async fn run<R>(&self, task: impl FnOnce(TaskReply<R>) -> LedgerTask) -> Result<R, LedgerError> {
        let (reply, result) = oneshot::channel();
        self.send(WriterRequest::Task(task(reply))).await.map_err(|_| LedgerError::Stopped)?;
        result.await.map_err(|_| LedgerError::Stopped)?
    }

    /// Requests that wait in the queue, at most [`LEDGER_QUEUE_MAX`].
    pub fn queue_depth(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// How the ledger fares: kept by its thread, read by anyone at any time. Cheap to clone.
#[derive(Clone)]
pub struct LedgerStatus(Arc<Status>);

struct Status {
    healthy: AtomicBool,
    counts: Mutex<LedgerCounts>,
    last_error: Mutex<Option<String>>,
    commits: Mutex<Commits>,
    close_by: OnceLock<Instant>,
}

/// What the ledger's thread has done since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct LedgerCounts {
    /// Transactions committed.
    pub batches: u64,
    pub postings: u64,
    /// Transactions that failed, which all who waited for them were told.
    pub failed_batches: u64,
    /// Tasks that were done, well or not.
    pub tasks: u64,
    /// Sums over all that is committed, since ever.
    pub totals: Totals,
}

struct Commits {
    micros: Histogram<u64>,
    /// Since the start.
    micros_ever: Histogram<u64>,
}

impl LedgerStatus {
    fn new() -> Self {
        Self(Arc::new(Status {
            healthy: AtomicBool::new(true),
            counts: Mutex::default(),
            last_error: Mutex::default(),
            commits: Mutex::new(Commits { micros: micros_histogram(), micros_ever: micros_histogram() }),
            close_by: OnceLock::new(),
        }))
    }

    /// Whether the last thing tried on the ledger worked.
    pub fn healthy(&self) -> bool {
        self.0.healthy.load(Relaxed)
    }

    /// The thread is to end by then, once every handle is gone: from then on it answers no question
    /// any more, and what it has not checkpointed is left to the next start. What is posted is
    /// still committed. The first call counts.
    pub fn end_by(&self, until: Instant) {
        // A later call is the same stop.
        self.0.close_by.set(until).ok();
    }

    fn close_by(&self) -> Option<Instant> {
        self.0.close_by.get().copied()
    }

    fn is_late(&self) -> bool {
        self.close_by().is_some_and(|until| Instant::now() >= until)
    }

    pub fn counts(&self) -> LedgerCounts {
        *unpoisoned(&self.0.counts)
    }

    fn count(&self, change: impl FnOnce(&mut LedgerCounts)) {
        change(&mut unpoisoned(&self.0.counts));
    }

    /// What went wrong last, even if it works again.
    pub fn last_error(&self) -> Option<String> {
        unpoisoned(&self.0.last_error).clone()
    }

    /// How long commits took since the last call, microseconds.
    pub fn take_commit_latency(&self) -> Histogram<u64> {
        std::mem::replace(&mut unpoisoned(&self.0.commits).micros, micros_histogram())
    }

    /// How long commits took since the start, microseconds.
    pub fn commit_latency(&self) -> Histogram<u64> {
        unpoisoned(&self.0.commits).micros_ever.clone()
    }

    fn committed(&self, postings: usize, took: Duration) {
        let postings = u64::try_from(postings).unwrap_or(u64::MAX);
        self.count(|counts| {
            counts.batches += 1;
            counts.postings += postings;
        });
        let mut commits = unpoisoned(&self.0.commits);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        commits.micros.saturating_record(micros);
        commits.micros_ever.saturating_record(micros);
    }

    fn works(&self) {
        if !self.0.healthy.swap(true, Relaxed) {
            tracing::info!(event = "ledger_works", "the ledger can be written again");
        }
    }

    fn failed(&self, error: &LedgerError) {
        if self.0.healthy.swap(false, Relaxed) {
            tracing::error!(event = "ledger_failing", %error, "the ledger fails; no win is acknowledged until it works again");
        }
        *unpoisoned(&self.0.last_error) = Some(error.to_string());
    }
}

/// The values behind these locks are whole at every moment, whoever panicked.
fn unpoisoned<V>(lock: &Mutex<V>) -> MutexGuard<'_, V> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, COMMIT_MICROS_MAX, 3).expect("constant bounds are valid")
}

/// Starts the thread that owns `ledger`. `clock` gives the time that goes into the books.
///
/// The thread ends when every handle is gone and the queue is empty; the ledger is closed by then,
/// its log folded into the main file.
pub fn spawn<T: ReplyTo>(
    ledger: Box<dyn Ledger>,
    clock: fn() -> UnixMs,
) -> (LedgerHandle<T>, LedgerStatus, JoinHandle<()>) {
    let (handle, receiver) = LedgerHandle::open(LEDGER_QUEUE_MAX);
    let writer = Writer::new(ledger, clock);
    let status = writer.status.clone();
    let thread = thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || writer.run(receiver))
        .expect("a thread can be started while the server starts");
    (handle, status, thread)
}

/// Why the requests of a user cannot be looked at alone, inside a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UserPending {
    /// A posting of this user waits for the commit.
    Posting,
    /// And after it a read waits.
    Read,
}

/// The owner of a ledger, without its thread: [`Writer::apply`] for each request, then
/// [`Writer::flush`]. What is answered depends on nothing but these calls, the ledger and the
/// clock.
pub struct Writer<T: ReplyTo> {
    ledger: Box<dyn Ledger>,
    clock: fn() -> UnixMs,
    status: LedgerStatus,
    /// What the next commit holds; `repliers` runs beside it.
    postings: Vec<Posting>,
    repliers: Vec<T>,
    /// Reads that the next commit holds up, in the order of the queue.
    waiting: Vec<(UserId, Question, T)>,
    /// The users in `postings` and `waiting`.
    users: FxHashMap<UserId, UserPending>,
    next_probe: Instant,
}

impl<T: ReplyTo> Writer<T> {
    /// The owner of `ledger`. `clock` gives the time that goes into the books.
    pub fn new(ledger: Box<dyn Ledger>, clock: fn() -> UnixMs) -> Self {
        let mut writer = Self {
            ledger,
            clock,
            status: LedgerStatus::new(),
            postings: Vec::new(),
            repliers: Vec::new(),
            waiting: Vec::new(),
            users: FxHashMap::default(),
            next_probe: Instant::now(),
        };
        writer.publish_totals();
        writer
    }

    pub fn status(&self) -> LedgerStatus {
        self.status.clone()
    }

    fn run(mut self, mut queue: mpsc::Receiver<WriterRequest<T>>) {
        let mut batch = Vec::with_capacity(LEDGER_BATCH_MAX);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            let received = if self.status.healthy() {
                Some(queue.blocking_recv_many(&mut batch, LEDGER_BATCH_MAX))
            } else {
                receive_until(&mut queue, &mut batch, &waker, self.next_probe)
            };
            if received == Some(0) {
                break;
            }
            for request in batch.drain(..) {
                self.apply(request);
            }
            self.flush();
            if !self.status.healthy() && Instant::now() >= self.next_probe {
                self.probe();
            }
        }
        self.close();
    }

    /// The last thing to be done: commits what is pending, and puts the books in the form that is
    /// quickest to open.
    pub fn close(&mut self) {
        self.flush();
        match self.ledger.checkpoint(self.status.close_by()) {
            Ok(true) => {}
            Ok(false) => log_not_folded(&"there was no time"),
            Err(error) => {
                self.status.failed(&error);
                log_not_folded(&error);
            }
        }
    }

    /// Takes a request. A posting waits for [`Writer::flush`], and so do questions of its user.
    pub fn apply(&mut self, request: WriterRequest<T>) {
        match request {
            WriterRequest::Post { posting, reply_to } => {
                if let Some(user) = posting.user() {
                    if self.users.get(&user) == Some(&UserPending::Read) {
                        self.flush();
                    }
                    self.users.insert(user, UserPending::Posting);
                }
                self.postings.push(posting);
                self.repliers.push(reply_to);
            }
            WriterRequest::Ask { user, question, reply_to } => match self.users.entry(user) {
                Entry::Occupied(mut pending) => {
                    pending.insert(UserPending::Read);
                    self.waiting.push((user, question, reply_to));
                }
                Entry::Vacant(_) => self.answer(user, &question, reply_to),
            },
            WriterRequest::Task(task) => {
                self.flush();
                if !self.status.is_late() {
                    task.run(&mut *self.ledger);
                    self.publish_totals();
                    self.status.count(|counts| counts.tasks += 1);
                }
            }
        }
    }

    fn answer(&mut self, user: UserId, question: &Question, reply_to: T) {
        let answer = if self.status.is_late() {
            Err(Unavailable)
        } else {
            self.ledger.ask(user, question).map_err(|error| {
                self.fail(&error);
                Unavailable
            })
        };
        reply_to.deliver(Reply::Answered(answer));
    }

    /// Commits what is pending, answers it, then answers the reads that waited for it.
    pub fn flush(&mut self) {
        if !self.postings.is_empty() {
            let started = Instant::now();
            match self.ledger.post(&self.postings, (self.clock)()) {
                Ok(results) => {
                    assert_eq!(results.len(), self.postings.len(), "the ledger answers each posting");
                    self.status.committed(results.len(), started.elapsed());
                    self.status.works();
                    self.publish_totals();
                    if facts::are_wanted() {
                        for ((posting, reply_to), result) in self.postings.iter().zip(&self.repliers).zip(&results) {
                            facts::log(posting, reply_to.request(), result);
                        }
                    }
                    for (reply_to, result) in self.repliers.drain(..).zip(results) {
                        reply_to.deliver(Reply::Posted(Ok(result)));
                    }
                }
                Err(error) => {
                    self.status.count(|counts| counts.failed_batches += 1);
                    self.fail(&error);
                    for reply_to in self.repliers.drain(..) {
                        reply_to.deliver(Reply::Posted(Err(Unavailable)));
                    }
                }
            }
            self.postings.clear();
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        for (user, question, reply_to) in waiting.drain(..) {
            self.answer(user, &question, reply_to);
        }
        self.waiting = waiting;
        self.users.clear();
    }

    /// Finds out whether the ledger can be written.
    pub fn probe(&mut self) {
        match self.ledger.probe((self.clock)()) {
            Ok(()) => self.status.works(),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &LedgerError) {
        self.status.failed(error);
        self.next_probe = Instant::now() + PROBE_PERIOD;
    }

    fn publish_totals(&mut self) {
        match self.ledger.totals() {
            Ok(totals) => self.status.count(|counts| counts.totals = totals),
            Err(error) => self.fail(&error),
        }
    }
}

fn log_not_folded(error: &dyn Display) {
    tracing::error!(
        event = "ledger_not_folded",
        %error,
        "the ledger's log was not folded into its file; nothing is lost, the next start reads both"
    );
}

/// Wakes a thread that parks while it polls.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Receives into `batch`: how many (0: every handle is gone), or `None` when `deadline` passes
/// first.
fn receive_until<V>(
    queue: &mut mpsc::Receiver<V>,
    batch: &mut Vec<V>,
    waker: &Waker,
    deadline: Instant,
) -> Option<usize> {
    let mut context = Context::from_waker(waker);
    loop {
        if let Poll::Ready(received) = queue.poll_recv_many(&mut context, batch, LEDGER_BATCH_MAX) {
            return Some(received);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}
