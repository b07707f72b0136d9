//! What the writer promises: queue order, answers after the commit, an answer for everything, and
//! recovery.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, Serial, UserId};
use hongbao_server::clock::UnixMs;
use hongbao_server::ledger::audit::audit;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::task::{CampaignChange, LedgerTask};
use hongbao_server::ledger::writer::{LedgerHandle, LedgerStatus, Reply, ReplyTo, Unavailable, WriterRequest, spawn};
use hongbao_server::ledger::{
    Answer, ClaimResult, DepositResult, EnvelopeView, Ledger, LedgerError, Means, Page, PayResult, Posting,
    PostingResult, Question, Recall, Statement, Totals,
};
use hongbao_server::limits::{LEDGER_BATCH_MAX, LEDGER_QUEUE_MAX};
use hongbao_server::market::campaign::{Campaign, CampaignTerms};
use hongbao_server::market::order::Order;
use proptest::prelude::*;

use super::support::{
    Model, acknowledge, cancel, claim, envelope, open, pay, request, sale_terms, send, terms, user, won,
};

const PATIENCE: Duration = Duration::from_secs(20);

enum To {
    Test(usize, mpsc::Sender<(usize, Reply)>),
    /// Says that the ledger's thread is here, and keeps it until the other end is dropped.
    Hold(mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl ReplyTo for To {
    fn deliver(self, reply: Reply) {
        match self {
            To::Test(n, answers) => answers.send((n, reply)).expect("the test waits for every answer"),
            To::Hold(entered, held) => {
                entered.send(()).expect("the test waits for the thread");
                held.recv().unwrap_err();
            }
        }
    }
}

fn clock() -> UnixMs {
    7
}

/// Holds the ledger's thread until the sender is dropped, so that what is queued meanwhile meets in
/// one batch.
fn hold(handle: &LedgerHandle<To>) -> mpsc::Sender<()> {
    let (release, held) = mpsc::channel::<()>();
    let (entered, entry) = mpsc::channel();
    let reply_to = To::Hold(entered, held);
    assert!(handle.try_send(WriterRequest::Ask { user: user(9_999), question: Question::Recall, reply_to }).is_ok());
    entry.recv_timeout(PATIENCE).unwrap();
    release
}

fn post(handle: &LedgerHandle<To>, n: usize, posting: Posting, answers: &mpsc::Sender<(usize, Reply)>) {
    assert!(handle.try_send(WriterRequest::Post { posting, reply_to: To::Test(n, answers.clone()) }).is_ok());
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
    Order(u64, u64, u64),
    Pay(u64, u64),
    Cancel(u64, u64),
    Send(u64, u64),
    Open(u64, u64),
    Ask(u64, Question),
    Call,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1..5u64, 1..9u64, 0..30u64).prop_map(|(user, request, serial)| Step::Claim(user, request, serial)),
        1 => (1..5u64, 0..30u64).prop_map(|(user, serial)| Step::Acknowledge(user, serial)),
        2 => (1..5u64, 1..9u64, 0..10u64).prop_map(|(user, request, serial)| Step::Order(user, request, serial)),
        1 => (1..5u64, 1..5u64).prop_map(|(user, order)| Step::Pay(user, order)),
        1 => (1..5u64, 1..5u64).prop_map(|(user, order)| Step::Cancel(user, order)),
        1 => (1..5u64, 1..5u64).prop_map(|(user, request)| Step::Send(user, request)),
        1 => (1..5u64, 1..5u64).prop_map(|(user, envelope)| Step::Open(user, envelope)),
        2 => (1..5u64, 1..9u64).prop_map(|(user, n)| Step::Ask(user, Question::FirstAnswer(request(n)))),
        2 => (1..5u64).prop_map(|user| Step::Ask(user, Question::Recall)),
        1 => (1..5u64).prop_map(|user| Step::Ask(user, Question::Orders { before: None, limit: 9 })),
        1 => (1..5u64).prop_map(|user| Step::Ask(user, Question::Statement { before: None, limit: 9 })),
        1 => Just(Step::Call),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn requests_of_a_batch_are_answered_as_if_one_by_one(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut ledger = SqliteLedger::open_in_memory().unwrap();
        let mut model = Model::default();
        let rain = ledger.create_campaign(terms(30, Some(3)), 1).unwrap();
        prop_assert_eq!(&model.create_campaign(terms(30, Some(3)), 1), &rain);
        let sale = ledger.create_campaign(sale_terms(10, None, 20), 1).unwrap();
        prop_assert_eq!(&model.create_campaign(sale_terms(10, None, 20), 1), &sale);
        let (handle, status, thread) = spawn::<To>(Box::new(ledger), clock);
        let (answers, inbox) = mpsc::channel();
        let mut called = Vec::new();
        let mut expected = Vec::new();
        let release = hold(&handle);
        for (n, step) in steps.iter().enumerate() {
            let posting = match *step {
                Step::Claim(u, r, serial) => claim(&rain, u, r, serial),
                Step::Acknowledge(u, serial) => acknowledge(u, &[(rain.id, serial)]),
                Step::Order(u, r, serial) => claim(&sale, u, r, serial),
                Step::Pay(u, order) => pay(u, order, if order % 2 == 0 { Means::Wallet } else { Means::Outside }),
                Step::Cancel(u, order) => cancel(u, order),
                // To the sender alone: what others do may come before or after a user's question.
                Step::Send(u, r) => send(envelope(Some(u), r, 4, 2, &[u])),
                Step::Open(u, id) => open(u, id),
                Step::Ask(u, question) => {
                    expected.push((n, Reply::Answered(Ok(model.ask(user(u), &question)))));
                    let reply_to = To::Test(n, answers.clone());
                    let sent = handle.try_send(WriterRequest::Ask { user: user(u), question, reply_to });
                    prop_assert!(sent.is_ok());
                    continue;
                }
                Step::Call => {
                    let campaigns = handle.try_task(|reply| LedgerTask::Campaigns { reply }).unwrap();
                    called.push((campaigns, model.campaigns.clone()));
                    continue;
                }
            };
            expected.push((n, Reply::Posted(Ok(model.post(&posting, clock())))));
            let sent = handle.try_send(WriterRequest::Post { posting, reply_to: To::Test(n, answers.clone()) });
            prop_assert!(sent.is_ok());
        }
        drop(release);
        drop((handle, answers));
        thread.join().unwrap();
        let mut answered: Vec<(usize, Reply)> = inbox.iter().collect();
        answered.sort_by_key(|(n, _)| *n);
        prop_assert_eq!(answered, expected);
        for (campaigns, expected) in called {
            prop_assert_eq!(campaigns.blocking_recv().unwrap().unwrap(), expected);
        }
        prop_assert_eq!(status.counts().totals, model.totals());
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
            let recall = WriterRequest::Ask {
                user: user(user_n),
                question: Question::Recall,
                reply_to: To::Test(usize::try_from(user_n).unwrap(), answers.clone()),
            };
            assert!(handle.try_send(recall).is_ok());
        }
    }
    drop((release, handle, answers));
    thread.join().unwrap();
    assert_eq!(inbox.iter().count(), 300);
    // What held the thread was a batch of its own, without postings.
    let counts = status.counts();
    assert_eq!((counts.batches, counts.postings, counts.totals.won), (1, 100, 100));
    assert_eq!(status.take_commit_latency().len(), 1);
    assert_eq!(status.take_commit_latency().len(), 0);
}

#[test]
fn a_full_queue_returns_the_request_and_answers_all_accepted() {
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
    let returned =
        handle.try_send(WriterRequest::Post { posting: last.clone(), reply_to: To::Test(1, answers.clone()) });
    assert!(matches!(&returned, Err(WriterRequest::Post { posting, reply_to: To::Test(1, _) }) if *posting == last));
    drop((release, handle, answers, returned));
    thread.join().unwrap();
    assert_eq!(
        inbox
            .iter()
            .filter(|(_, reply)| matches!(reply, Reply::Posted(Ok(PostingResult::Claim(ClaimResult::Won(_))))))
            .count(),
        LEDGER_QUEUE_MAX
    );
    let batches = u64::try_from(LEDGER_QUEUE_MAX / LEDGER_BATCH_MAX).unwrap();
    assert_eq!(status.counts().batches, batches, "full batches, none larger");
}

#[test]
fn the_thread_ends_with_its_handles_and_leaves_balanced_books() {
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
    let change = CampaignChange::Create(Box::new(terms(5, None)));
    let created = handle.try_task(|reply| LedgerTask::ChangeCampaign { change, now: 1, reply }).unwrap();
    assert_eq!(created.blocking_recv().unwrap().unwrap().id.get(), 1);
    assert_eq!(runtime.block_on(handle.run(|reply| LedgerTask::Campaigns { reply })).unwrap().len(), 1);
    let deposit = Posting::Deposit { first: user(1), count: 1, amount: Fen(5), key: "start".into() };
    let deposited = runtime.block_on(handle.post_one::<DepositResult>(deposit.clone(), 2));
    assert_eq!(deposited.unwrap(), DepositResult::Deposited);
    let taken_for_another = runtime.block_on(handle.post_one::<PayResult>(deposit, 2));
    assert!(matches!(taken_for_another, Err(LedgerError::Mismatched)));
    let statement = Question::Statement { before: None, limit: 5 };
    assert_eq!(runtime.block_on(handle.ask::<Statement>(user(1), statement)).unwrap().balance, Fen(5));
    assert!(matches!(runtime.block_on(handle.ask::<Recall>(user(1), statement)), Err(LedgerError::Mismatched)));
    // A thread that panics takes the queue with it (in a release build, the process).
    let (entered, entry) = mpsc::channel();
    drop(entry);
    let reply_to = To::Hold(entered, mpsc::channel().1);
    assert!(handle.try_send(WriterRequest::Ask { user: user(1), question: Question::Recall, reply_to }).is_ok());
    assert!(thread.join().is_err());
    assert!(matches!(runtime.block_on(handle.run(|reply| LedgerTask::Campaigns { reply })), Err(LedgerError::Stopped)));
    assert!(handle.try_task(|reply| LedgerTask::Campaigns { reply }).is_none());
    let (answers, _inbox) = mpsc::channel();
    assert!(
        handle
            .try_send(WriterRequest::Ask { user: user(1), question: Question::Recall, reply_to: To::Test(0, answers) })
            .is_err()
    );
}

/// A ledger whose writes fail while it is told so.
struct Flaky(SqliteLedger, Arc<AtomicBool>);

impl Flaky {
    fn check(&self) -> Result<(), LedgerError> {
        if self.1.load(Ordering::SeqCst) { Err(LedgerError::Unavailable("disk full".to_owned())) } else { Ok(()) }
    }
}

impl Ledger for Flaky {
    fn post(&mut self, postings: &[Posting], now: UnixMs) -> Result<Vec<PostingResult>, LedgerError> {
        self.check()?;
        self.0.post(postings, now)
    }
    fn ask(&mut self, user: UserId, question: &Question) -> Result<Answer, LedgerError> {
        self.check()?;
        self.0.ask(user, question)
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
    fn next_due(&mut self) -> Option<UnixMs> {
        self.0.next_due()
    }
    fn envelope(&mut self, id: EnvelopeId) -> Result<Option<EnvelopeView>, LedgerError> {
        self.0.envelope(id)
    }
    fn orders_of(&mut self, id: CampaignId, before: Option<OrderId>, limit: u32) -> Result<Page<Order>, LedgerError> {
        self.0.orders_of(id, before, limit)
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
fn a_failed_commit_is_told_to_all_in_it_and_a_later_one_heals() {
    let (handle, status, fails, rain) = flaky();
    let (answers, inbox) = mpsc::channel();
    fails.store(false, Ordering::SeqCst);
    let release = hold(&handle);
    fails.store(true, Ordering::SeqCst);
    assert!(status.healthy());
    for n in 0..10 {
        post(&handle, 0, claim(&rain, n + 1, 1, n), &answers);
    }
    assert!(
        handle
            .try_send(WriterRequest::Ask {
                user: user(1),
                question: Question::Recall,
                reply_to: To::Test(1, answers.clone())
            })
            .is_ok()
    );
    drop(release);
    for _ in 0..10 {
        assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), (0, Reply::Posted(Err(Unavailable))));
    }
    assert_eq!(inbox.recv_timeout(PATIENCE).unwrap(), (1, Reply::Answered(Err(Unavailable))));
    assert!(!status.healthy());
    assert_eq!(status.last_error().as_deref(), Some("ledger cannot be written: disk full"));
    assert_eq!((status.counts().totals.won, status.counts().failed_batches), (0, 1));

    fails.store(false, Ordering::SeqCst);
    post(&handle, 2, claim(&rain, 1, 1, 0), &answers);
    assert_eq!(
        inbox.recv_timeout(PATIENCE).unwrap(),
        (2, Reply::Posted(Ok(PostingResult::Claim(ClaimResult::Won(won(&rain, 1, 0))))))
    );
    assert!(status.healthy());
    assert_eq!(status.counts().totals.won, 1);
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
    assert_eq!((status.counts().batches, status.counts().failed_batches), (0, 1));
}

#[test]
fn an_unhealthy_ledger_still_ends_when_its_handles_are_gone() {
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
