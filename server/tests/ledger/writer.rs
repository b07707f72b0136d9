//! What the writer promises: queue order, answers after the commit, an answer for everything, and recovery.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hongbao_proto::{CampaignId, RequestId, Serial, UserId};
use hongbao_server::campaign::{Campaign, CampaignTerms, UnixMs};
use hongbao_server::ledger::audit::audit;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::writer::{LedgerHandle, LedgerStatus, Reply, ReplyTo, Request, Unavailable, spawn};
use hongbao_server::ledger::{Ledger, LedgerError, Outcome, Posting, Recall, Totals, Win};
use hongbao_server::limits::{LEDGER_BATCH_MAX, LEDGER_QUEUE_MAX};
use proptest::prelude::*;

use super::support::{Model, acknowledge, claim, request, terms, user, won};

const PATIENCE: Duration = Duration::from_secs(20);

struct To(usize, mpsc::Sender<(usize, Reply)>);

impl ReplyTo for To {
    fn deliver(self, reply: Reply) {
        self.1.send((self.0, reply)).expect("the test waits for every answer");
    }
}

fn clock() -> UnixMs {
    7
}

/// Holds the ledger's thread until the sender is dropped, so that what is queued meanwhile meets in one batch.
fn hold(handle: &LedgerHandle<To>) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (entered, in_call) = mpsc::channel();
    let call = Request::Call(Box::new(move |_: &mut dyn Ledger| {
        entered.send(()).unwrap();
        held.recv().unwrap_err();
    }));
    assert!(handle.try_send(call).is_ok());
    in_call.recv_timeout(PATIENCE).unwrap();
    release
}

fn post(handle: &LedgerHandle<To>, n: usize, posting: Posting, answers: &mpsc::Sender<(usize, Reply)>) {
    assert!(handle.try_send(Request::Post { posting, reply_to: To(n, answers.clone()) }).is_ok());
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never saw: {what}");
        std::thread::yield_now();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim(u64, u64, u64),
    Acknowledge(u64, u64),
    FirstAnswer(u64, u64),
    Recall(u64),
    Call,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..5u64, 1..9u64, 0..30u64).prop_map(|(user, request, serial)| Step::Claim(user, request, serial)),
        1 => (1..5u64, 0..30u64).prop_map(|(user, serial)| Step::Acknowledge(user, serial)),
        2 => (1..5u64, 1..9u64).prop_map(|(user, request)| Step::FirstAnswer(user, request)),
        2 => (1..5u64).prop_map(Step::Recall),
        1 => Just(Step::Call),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn requests_that_meet_in_a_batch_are_answered_as_if_one_at_a_time_in_queue_order(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut ledger = SqliteLedger::open_in_memory().unwrap();
        let rain = ledger.create_campaign(terms(30, Some(3)), 1).unwrap();
        let mut model = Model { campaigns: vec![rain.clone()], ..Model::default() };
        let (handle, status, thread) = spawn::<To>(Box::new(ledger), clock);
        let (answers, inbox) = mpsc::channel();
        let (calls, called) = mpsc::channel();
        let mut expected = Vec::new();
        let release = hold(&handle);
        for (n, step) in steps.iter().enumerate() {
            let reply_to = To(n, answers.clone());
            let sent = match *step {
                Step::Claim(u, r, serial) => {
                    let posting = claim(&rain, u, r, serial);
                    expected.push((n, Reply::Posted(Ok(model.post(&posting)))));
                    handle.try_send(Request::Post { posting, reply_to })
                }
                Step::Acknowledge(u, serial) => {
                    let posting = acknowledge(u, &[(rain.id, serial)]);
                    expected.push((n, Reply::Posted(Ok(model.post(&posting)))));
                    handle.try_send(Request::Post { posting, reply_to })
                }
                Step::FirstAnswer(u, r) => {
                    expected.push((n, Reply::FirstAnswer(Ok(model.first_answer(user(u), request(r))))));
                    handle.try_send(Request::FirstAnswer { user: user(u), request: request(r), reply_to })
                }
                Step::Recall(u) => {
                    expected.push((n, Reply::Recalled(Ok(model.recall(user(u))))));
                    handle.try_send(Request::Recall { user: user(u), reply_to })
                }
                Step::Call => {
                    let (calls, wins) = (calls.clone(), model.wins.len());
                    handle.try_send(Request::Call(Box::new(move |ledger: &mut dyn Ledger| {
                        calls.send((ledger.totals().unwrap().won, wins as u64)).unwrap();
                    })))
                }
            };
            prop_assert!(sent.is_ok());
        }
        drop(release);
        drop((handle, answers, calls));
        thread.join().unwrap();
        let mut answered: Vec<(usize, Reply)> = inbox.iter().collect();
        answered.sort_by_key(|(n, _)| *n);
        prop_assert_eq!(answered, expected);
        for (seen, expected) in called.iter() {
            prop_assert_eq!(seen, expected);
        }
        prop_assert_eq!(status.wins(), model.wins.len() as u64);
    }
}

#[test]
fn a_storm_of_logins_between_claims_costs_one_commit() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(100, None), 1).unwrap();
    let (handle, status, thread) = spawn::<To>(Box::new(ledger), clock);
    let (answers, inbox) = mpsc::channel();
    let release = hold(&handle);
    for n in 0..100 {
        post(&handle, 0, claim(&rain, n + 1, 1, n), &answers);
        for user_n in [1_000 + n, n + 1] {
            let recall =
                Request::Recall { user: user(user_n), reply_to: To(usize::try_from(user_n).unwrap(), answers.clone()) };
            assert!(handle.try_send(recall).is_ok());
        }
    }
    drop((release, handle, answers));
    thread.join().unwrap();
    assert_eq!(inbox.iter().count(), 300);
    // The call that held the thread was a batch of its own, without postings.
    assert_eq!((status.batches(), status.postings(), status.wins()), (1, 100, 100));
    let sizes = status.take_batch_sizes();
    assert_eq!((sizes.len(), sizes.max()), (1, 100));
    assert_eq!(status.take_commit_latency().len(), 1);
    assert_eq!(status.take_commit_latency().len(), 0);
}

#[test]
fn a_full_queue_gives_the_request_back_and_everything_accepted_is_answered() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let total = u64::try_from(LEDGER_QUEUE_MAX).unwrap() + 1;
    let rain = ledger.create_campaign(terms(total, None), 1).unwrap();
    let (handle, status, thread) = spawn::<To>(Box::new(ledger), clock);
    let (answers, inbox) = mpsc::channel();
    let release = hold(&handle);
    for n in 0..total - 1 {
        post(&handle, 0, claim(&rain, 1, n + 1, n), &answers);
    }
    assert_eq!(handle.queue_depth(), LEDGER_QUEUE_MAX);
    let last = claim(&rain, 1, total, total - 1);
    let returned = handle.try_send(Request::Post { posting: last.clone(), reply_to: To(1, answers.clone()) });
    assert!(matches!(&returned, Err(Request::Post { posting, reply_to: To(1, _) }) if *posting == last));
    drop((release, handle, answers, returned));
    thread.join().unwrap();
    assert_eq!(
        inbox.iter().filter(|(_, reply)| matches!(reply, Reply::Posted(Ok(Outcome::Won(_))))).count(),
        LEDGER_QUEUE_MAX
    );
    let batches = u64::try_from(LEDGER_QUEUE_MAX / LEDGER_BATCH_MAX).unwrap();
    assert_eq!(status.batches(), batches, "full batches, none larger");
}

#[test]
fn the_thread_ends_when_all_handles_are_gone_and_leaves_one_file_that_is_balanced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(100, None), 1).unwrap();
    let (handle, _status, thread) = spawn::<To>(Box::new(ledger), clock);
    let (answers, inbox) = mpsc::channel();
    let other = handle.clone();
    for n in 0..100 {
        post(&other, 0, claim(&rain, n + 1, 1, n), &answers);
    }
    drop((handle, other, answers));
    thread.join().unwrap();
    assert_eq!(inbox.iter().count(), 100);
    assert!(!directory.path().join("ledger.db-wal").exists(), "the log is folded in");
    let report = audit(&path).unwrap();
    assert!(report.is_balanced() && report.wins == 100, "{report}");
}

#[test]
fn a_call_returns_its_result_and_a_stopped_ledger_says_so() {
    let (handle, _status, thread) = spawn::<To>(Box::new(SqliteLedger::open_in_memory().unwrap()), clock);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let created = runtime.block_on(handle.call(|ledger| ledger.create_campaign(terms(5, None), 1))).unwrap().unwrap();
    assert_eq!(created.id.get(), 1);
    // A thread that panics takes the queue with it (in a release build, the process).
    let panicked = runtime.block_on(handle.call(|_| -> () { panic!("on purpose") }));
    assert!(panicked.is_err());
    assert!(thread.join().is_err());
    assert!(runtime.block_on(handle.call(|_| ())).is_err());
    let (answers, _inbox) = mpsc::channel();
    assert!(handle.try_send(Request::Recall { user: user(1), reply_to: To(0, answers) }).is_err());
}

/// A ledger whose writes fail while it is told so.
struct Flaky(SqliteLedger, Arc<AtomicBool>);

impl Flaky {
    fn check(&self) -> Result<(), LedgerError> {
        if self.1.load(Ordering::SeqCst) { Err(LedgerError::Unavailable("disk full".to_owned())) } else { Ok(()) }
    }
}

impl Ledger for Flaky {
    fn post(&mut self, postings: &[Posting], now: UnixMs) -> Result<Vec<Outcome>, LedgerError> {
        self.check()?;
        self.0.post(postings, now)
    }
    fn first_answer(&mut self, user: UserId, request: RequestId) -> Result<Option<Win>, LedgerError> {
        self.0.first_answer(user, request)
    }
    fn recall(&mut self, user: UserId) -> Result<Recall, LedgerError> {
        self.check()?;
        self.0.recall(user)
    }
    fn create_campaign(&mut self, terms: CampaignTerms, now: UnixMs) -> Result<Campaign, LedgerError> {
        self.0.create_campaign(terms, now)
    }
    fn stop_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        self.0.stop_campaign(id, now)
    }
    fn settle_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError> {
        self.0.settle_campaign(id, now)
    }
    fn campaigns(&mut self) -> Result<Vec<Campaign>, LedgerError> {
        self.0.campaigns()
    }
    fn claimed_serials(&mut self, id: CampaignId) -> Result<Vec<Serial>, LedgerError> {
        self.0.claimed_serials(id)
    }
    fn totals(&mut self) -> Result<Totals, LedgerError> {
        self.0.totals()
    }
    fn probe(&mut self, now: UnixMs) -> Result<(), LedgerError> {
        self.check()?;
        self.0.probe(now)
    }
}

fn flaky() -> (LedgerHandle<To>, LedgerStatus, Arc<AtomicBool>, Campaign) {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(100, None), 1).unwrap();
    let fails = Arc::new(AtomicBool::new(true));
    let (handle, status, _thread) = spawn::<To>(Box::new(Flaky(ledger, fails.clone())), clock);
    (handle, status, fails, rain)
}

#[test]
fn a_failed_commit_is_told_to_all_in_it_and_the_next_that_succeeds_makes_it_healthy_again() {
    let (handle, status, fails, rain) = flaky();
    let (answers, inbox) = mpsc::channel();
    let release = hold(&handle);
    assert!(status.healthy());
    for n in 0..10 {
        post(&handle, 0, claim(&rain, n + 1, 1, n), &answers);
    }
    assert!(handle.try_send(Request::Recall { user: user(1), reply_to: To(1, answers.clone()) }).is_ok());
    drop(release);
    for _ in 0..10 {
        assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), (0, Reply::Posted(Err(Unavailable))));
    }
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), (1, Reply::Recalled(Err(Unavailable))));
    assert!(!status.healthy());
    assert_eq!(status.last_error().as_deref(), Some("ledger cannot be written: disk full"));
    assert_eq!((status.wins(), status.failed_batches()), (0, 1));

    fails.store(false, Ordering::SeqCst);
    post(&handle, 2, claim(&rain, 1, 1, 0), &answers);
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), (2, Reply::Posted(Ok(Outcome::Won(won(&rain, 1, 0))))));
    assert!(status.healthy());
    assert_eq!(status.wins(), 1);
}

#[test]
fn an_idle_ledger_finds_out_by_itself_that_it_works_again() {
    let (handle, status, fails, rain) = flaky();
    let (answers, inbox) = mpsc::channel();
    post(&handle, 0, claim(&rain, 1, 1, 0), &answers);
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), (0, Reply::Posted(Err(Unavailable))));
    until("unhealthy", || !status.healthy());
    fails.store(false, Ordering::SeqCst);
    until("healthy again", || status.healthy());
    // Not by a posting: there was none.
    assert_eq!((status.batches(), status.failed_batches()), (0, 1));
}

#[test]
fn an_unhealthy_ledger_still_ends_at_once_when_its_handles_are_gone() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(100, None), 1).unwrap();
    let (handle, status, thread) = spawn::<To>(Box::new(Flaky(ledger, Arc::new(AtomicBool::new(true)))), clock);
    let (answers, inbox) = mpsc::channel();
    post(&handle, 0, claim(&rain, 1, 1, 0), &answers);
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), (0, Reply::Posted(Err(Unavailable))));
    drop(handle);
    thread.join().unwrap();
    assert!(!status.healthy());
}
