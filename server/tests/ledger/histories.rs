//! Random histories: the ledger and the plainest one there can be (`support::Model`) are told the
//! same and asked the same.
//!
//! Batches fail in the middle of whatever they write, because the file may not grow or because a
//! trigger forbids one row; then nothing of them may have happened. In between, the ledger is
//! closed and opened, and its files are copied without closing it, as `kill -9` leaves them.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use hongbao_proto::Serial;
use hongbao_server::clock::UnixMs;
use hongbao_server::ledger::archive::{Wanted, archive};
use hongbao_server::ledger::audit::audit;
use hongbao_server::ledger::books::{AccountId, Entry, Kind};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{
    Acknowledged, Answer, CancelResult, ClaimResult, DepositResult, Ledger, LedgerError, Means, OpenResult, PayResult,
    Posting, PostingResult, Question, Seen, SendResult, Statement, Totals,
};
use hongbao_server::limits::ARCHIVE_AGE_MIN_MS;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{TestCaseError, TestRunner};
use rusqlite::Connection;

use super::support::{
    Model, cancel, claim_of, deposit, envelope, envelope_id, open, order_id, pay, request, sale_terms, send, terms,
    user,
};

const USERS: u64 = 6;

#[derive(Debug, Clone)]
enum Step {
    /// `jump` 0 and 1: at or below the last request that got something.
    Claim {
        user: u64,
        jump: u64,
        campaign: Index,
        serial: u64,
        wrong: bool,
    },
    Acknowledge {
        user: u64,
        all: bool,
        prizes: Vec<(Index, u64)>,
        orders: Vec<u64>,
        envelopes: Vec<u64>,
    },
    Pay {
        by: u64,
        mine: bool,
        order: Index,
        outside: bool,
    },
    Cancel {
        by: u64,
        mine: bool,
        order: Index,
    },
    Send {
        sender: Option<u64>,
        request: u64,
        over: u64,
        shares: u32,
        recipients: u8,
        crowd: bool,
    },
    Open {
        user: u64,
        envelope: Index,
    },
    Expire,
    Deposit {
        first: u64,
        count: u32,
        amount: u64,
        key: usize,
    },
}

#[derive(Debug, Clone)]
enum Around {
    Nothing,
    /// The file may not grow while the batch is written.
    Full,
    /// Some row of the batch is refused.
    Forbid(Index),
    Reopen,
    /// Opens a copy of the files.
    Copy,
    Checkpoint,
    Settle(Index),
    Create(bool),
}

#[derive(Debug, Clone)]
struct Batch {
    wait: UnixMs,
    around: Around,
    steps: Vec<Step>,
}

fn a_user() -> std::ops::RangeInclusive<u64> {
    1..=USERS
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        9 => (a_user(), 0..9u64, index(), 0..14u64, prop::bool::weighted(0.03))
            .prop_map(|(user, jump, campaign, serial, wrong)| Step::Claim { user, jump, campaign, serial, wrong }),
        2 => (
            a_user(),
            any::<bool>(),
            prop::collection::vec((index(), 0..14u64), 0..5),
            prop::collection::vec(1..12u64, 0..4),
            prop::collection::vec(1..8u64, 0..4),
        )
            .prop_map(|(user, all, prizes, orders, envelopes)| {
                Step::Acknowledge { user, all, prizes, orders, envelopes }
            }),
        3 => (a_user(), prop::bool::weighted(0.85), index(), prop::bool::weighted(0.4))
            .prop_map(|(by, mine, order, outside)| Step::Pay { by, mine, order, outside }),
        2 => (a_user(), prop::bool::weighted(0.85), index()).prop_map(|(by, mine, order)| Step::Cancel { by, mine, order }),
        2 => (prop::option::weighted(0.7, a_user()), 1..9u64, 0..400u64, 1..6u32, 1..64u8, prop::bool::weighted(0.2))
            .prop_map(|(sender, request, over, shares, recipients, crowd)| {
                Step::Send { sender, request, over, shares, recipients, crowd }
            }),
        4 => (a_user(), index()).prop_map(|(user, envelope)| Step::Open { user, envelope }),
        1 => Just(Step::Expire),
        2 => (1..USERS, 1..3u32, 1..900u64, 0..4usize)
            .prop_map(|(first, count, amount, key)| Step::Deposit { first, count, amount, key }),
    ]
}

fn around() -> impl Strategy<Value = Around> {
    prop_oneof![
        3 => Just(Around::Nothing),
        2 => Just(Around::Full),
        3 => any::<Index>().prop_map(Around::Forbid),
        1 => Just(Around::Reopen),
        1 => Just(Around::Copy),
        1 => Just(Around::Checkpoint),
        1 => any::<Index>().prop_map(Around::Settle),
        1 => any::<bool>().prop_map(Around::Create),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    (0..4_000u64, around(), prop::collection::vec(step(), 1..30)).prop_map(|(wait, around, steps)| Batch {
        wait,
        around,
        steps,
    })
}

/// Says the step to the model, and what to say to the ledger.
fn posting(step: &Step, model: &Model) -> Posting {
    let (orders, envelopes) = model.counts();
    let order = |index: &Index| index.index(usize::try_from(orders).unwrap() + 1) as u64 + 1;
    let owner = |order: u64, by: u64, mine: bool| model.owner(order).filter(|_| mine).unwrap_or(by);
    match step {
        Step::Claim { user: who, jump, campaign, serial, wrong } => {
            let campaign = &model.campaigns[campaign.index(model.campaigns.len())];
            let last = model.last_request(user(*who)).map_or(0, |last| last.get());
            let mut claim = claim_of(campaign, *who, (last + jump).saturating_sub(1).max(1), *serial);
            if *wrong {
                claim.amount.0 += 1;
            }
            Posting::Claim(claim)
        }
        Step::Acknowledge { user: who, all, prizes, orders, envelopes } => {
            let of = |index: &Index| model.campaigns[index.index(model.campaigns.len())].id;
            let mut seen = Seen {
                prizes: prizes.iter().map(|(campaign, serial)| (of(campaign), Serial(*serial))).collect(),
                envelopes: envelopes.iter().copied().map(envelope_id).collect(),
                orders: orders.iter().copied().map(order_id).collect(),
            };
            if *all {
                let ids = model.campaigns.iter().map(|campaign| campaign.id);
                seen.prizes = ids.flat_map(|id| (0..14).map(move |n| (id, Serial(n)))).collect();
            }
            Posting::Acknowledge { user: user(*who), seen: Box::new(seen) }
        }
        Step::Pay { by, mine, order: index, outside } => {
            let id = order(index);
            pay(owner(id, *by, *mine), id, if *outside { Means::Outside } else { Means::Wallet })
        }
        Step::Cancel { by, mine, order: index } => {
            let id = order(index);
            cancel(owner(id, *by, *mine), id)
        }
        Step::Send { sender, request, over, shares, recipients, crowd } => {
            let mut to: Vec<u64> = (1..=USERS).filter(|n| recipients >> (n - 1) & 1 == 1).collect();
            if *crowd {
                // More than a page of recipients, which have to be written somewhere.
                to.extend(1_000..1_700);
            }
            send(envelope(*sender, *request, over + u64::from(*shares), *shares, &to))
        }
        Step::Open { user, envelope } => {
            open(*user, envelope.index(usize::try_from(envelopes).unwrap() + 1) as u64 + 1)
        }
        Step::Expire => Posting::Expire,
        Step::Deposit { first, count, amount, key } => deposit(*first, *count, *amount, ["a", "b", "c", "d"][*key]),
    }
}

/// What a batch may write, each refused by a trigger of its own.
const FORBIDDEN: [&str; 14] = [
    "BEFORE INSERT ON entries WHEN NEW.kind IN (2, 4) AND NEW.id % 2 = 0",
    "BEFORE INSERT ON entries WHEN NEW.kind = 5",
    "BEFORE INSERT ON entries WHEN NEW.kind IN (6, 7)",
    "BEFORE INSERT ON entries WHEN NEW.kind IN (9, 10)",
    "BEFORE INSERT ON entries WHEN NEW.kind = 11 AND NEW.id % 2 = 0",
    "BEFORE INSERT ON notices WHEN NEW.entry % 3 = 0",
    "BEFORE DELETE ON notices WHEN OLD.entry % 2 = 0",
    "BEFORE UPDATE ON orders",
    "BEFORE DELETE ON open_envelopes",
    "BEFORE INSERT ON closings",
    "BEFORE UPDATE ON open_envelopes",
    "BEFORE UPDATE ON campaigns",
    "BEFORE INSERT ON accounts",
    "BEFORE INSERT ON units",
];

#[derive(Default)]
struct Coverage {
    failed: Cell<u64>,
    reopened: Cell<u64>,
    /// How often each kind of outcome was seen.
    outcomes: [Cell<u32>; NEVER + 1],
}

struct Bench {
    directory: tempfile::TempDir,
    ledger: Option<SqliteLedger>,
    model: Model,
    now: UnixMs,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = SqliteLedger::open(directory.path().join("ledger.db")).unwrap();
        ledger.sweep_in(20);
        let mut bench = Self { directory, ledger: Some(ledger), model: Model::default(), now: 10_000 };
        for terms in [
            terms(14, None),
            terms(12, Some(2)),
            sale_terms(6, Some(2), 300),
            sale_terms(5, None, 0),
            sale_terms(3, Some(1), 900),
        ] {
            bench.create(terms);
        }
        bench
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }

    fn ledger(&mut self) -> &mut SqliteLedger {
        self.ledger.as_mut().unwrap()
    }

    fn create(&mut self, terms: hongbao_server::market::campaign::CampaignTerms) {
        let now = self.now;
        let campaign = self.ledger().create_campaign(terms.clone(), now).unwrap();
        assert_eq!(campaign, self.model.create_campaign(terms, now));
    }

    fn settle(&mut self, index: &Index) {
        let (id, now) = (self.model.campaigns[index.index(self.model.campaigns.len())].id, self.now);
        let expected = self.model.settle_campaign(id, now);
        match self.ledger().settle_campaign(id, now) {
            Ok(campaign) => assert_eq!(Some(campaign), expected),
            Err(LedgerError::BadTerms(why)) => assert!(expected.is_none() && why.contains("wait"), "{why}"),
            Err(error) => panic!("{error}"),
        }
    }

    fn forbid(&self, index: &Index) {
        let what = FORBIDDEN[index.index(FORBIDDEN.len())];
        let sql = format!("CREATE TRIGGER forbidden {what} BEGIN SELECT RAISE(ABORT, 'forbidden'); END");
        Connection::open(self.path()).unwrap().execute_batch(&sql).unwrap();
    }

    fn allow(&self) {
        Connection::open(self.path()).unwrap().execute_batch("DROP TRIGGER forbidden").unwrap();
    }

    /// The files as they lie there, opened by nobody yet.
    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for name in ["ledger.db", "ledger.db-wal"] {
            let from = self.directory.path().join(name);
            if from.exists() {
                fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        copy
    }

    fn reopen(&mut self) {
        drop(self.ledger.take());
        let mut ledger = SqliteLedger::open(self.path()).unwrap();
        ledger.sweep_in(5);
        self.ledger = Some(ledger);
    }

    fn run(&mut self, batch: &Batch, coverage: &Coverage) {
        self.now += batch.wait;
        match &batch.around {
            Around::Settle(index) => self.settle(index),
            Around::Create(sale) => {
                self.create(if *sale { sale_terms(3, Some(1), 50) } else { terms(4, Some(3)) });
            }
            Around::Full => self.ledger().limit_pages(1).unwrap(),
            Around::Forbid(index) => self.forbid(index),
            _ => {}
        }
        let before = self.model.clone();
        let (mut postings, mut expected) = (Vec::new(), Vec::new());
        for step in &batch.steps {
            let posting = posting(step, &self.model);
            expected.push(self.model.post(&posting, self.now));
            postings.push(posting);
        }
        let now = self.now;
        let mut is_hindered = matches!(batch.around, Around::Full | Around::Forbid(_));
        let outcomes = match self.ledger().post(&postings, now) {
            Ok(outcomes) => outcomes,
            Err(error) if is_hindered => {
                let planted = error.to_string();
                assert!(planted.contains("full") || planted.contains("forbidden"), "{planted}");
                coverage.failed.set(coverage.failed.get() + 1);
                let after = std::mem::replace(&mut self.model, before);
                if matches!(batch.around, Around::Full) {
                    self.ledger().limit_pages(1_000_000).unwrap();
                } else {
                    self.allow();
                }
                self.compare_now();
                self.model = after;
                is_hindered = false;
                self.ledger().post(&postings, now).unwrap()
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(outcomes, expected);
        for outcome in &expected {
            let seen = &coverage.outcomes[number(outcome)];
            seen.set(seen.get() + 1);
        }
        match batch.around {
            Around::Full if is_hindered => self.ledger().limit_pages(1_000_000).unwrap(),
            Around::Forbid(_) if is_hindered => self.allow(),
            Around::Checkpoint => self.ledger().checkpoint(None).map(drop).unwrap(),
            _ => {}
        }
        self.compare_now();
        match batch.around {
            Around::Reopen => {
                self.reopen();
                coverage.reopened.set(coverage.reopened.get() + 1);
                self.compare_now();
            }
            Around::Copy => {
                let copy = self.copy();
                let path = copy.path().join("ledger.db");
                let mut ledger = SqliteLedger::open(&path).unwrap();
                compare(&mut ledger, &self.model, &path);
                coverage.reopened.set(coverage.reopened.get() + 1);
            }
            _ => {}
        }
    }

    /// Brings everything to its end, then moves the older half of it into an archive and the rest
    /// into another.
    fn archive(&mut self) {
        self.now += 60_000;
        let now = self.now;
        while self.model.next_due().is_some() {
            let expected = self.model.post(&Posting::Expire, now);
            assert_eq!(self.ledger().post(&[Posting::Expire], now).unwrap(), [expected]);
        }
        for n in 0..self.model.campaigns.len() {
            let id = self.model.campaigns[n].id;
            assert_eq!(self.ledger().settle_campaign(id, now).ok(), self.model.settle_campaign(id, now));
        }
        drop(self.ledger.take());
        let half = self.model.entries[self.model.entries.len() / 2].at;
        for (before, to) in [(half, "1.db"), (now + 1, "2.db")] {
            let wanted = Wanted { before, unacknowledged_too: true, vacuum: false };
            archive(&self.path(), &self.directory.path().join(to), &wanted, now + 2 * ARCHIVE_AGE_MIN_MS).unwrap();
            let report = audit(&self.path()).unwrap();
            assert!(report.is_balanced(), "{report}");
            let mut ledger = SqliteLedger::open(self.path()).unwrap();
            // What is archived is not counted any more.
            let Totals { opened, opened_fen, .. } = ledger.totals().unwrap();
            let all = self.model.totals();
            assert!(opened <= all.opened && opened_fen <= all.opened_fen);
            assert_eq!(ledger.totals().unwrap(), Totals { opened, opened_fen, ..all });
            assert_eq!(ledger.campaigns().unwrap(), self.model.campaigns);
            for n in 1..=USERS {
                let question = Question::Statement { before: None, limit: 0 };
                let (answer, expected) = (ledger.ask(user(n), &question).unwrap(), self.model.ask(user(n), &question));
                let (
                    Answer::Statement(Statement { balance, .. }),
                    Answer::Statement(Statement { balance: expected, .. }),
                ) = (answer, expected)
                else {
                    panic!("a statement was asked for");
                };
                assert_eq!(balance, expected);
            }
        }
    }

    fn compare_now(&mut self) {
        let path = self.path();
        compare(self.ledger.as_mut().unwrap(), &self.model, &path);
    }
}

/// A number for each result, so that a test can tell which it has seen.
fn number(result: &PostingResult) -> usize {
    match result {
        PostingResult::Claim(result) => match result {
            ClaimResult::Won(_) => 0,
            ClaimResult::Ordered(_) => 1,
            ClaimResult::Repeated(_) => 2,
            ClaimResult::LimitReached { .. } => 3,
            ClaimResult::Taken => 4,
            ClaimResult::OutOfOrder
            | ClaimResult::NoSuchCampaign
            | ClaimResult::Settled
            | ClaimResult::NoSuchSerial
            | ClaimResult::WrongAmount => 5,
        },
        PostingResult::Acknowledge(Acknowledged { .. }) => 6,
        PostingResult::Pay(result) => match result {
            PayResult::Paid(_) => 7,
            PayResult::TooLate { .. } => 8,
            PayResult::InsufficientFunds => 9,
            PayResult::NoSuchOrder => 10,
            PayResult::TooMuch => NEVER,
        },
        PostingResult::Cancel(result) => match result {
            CancelResult::Cancelled(_) => 11,
            CancelResult::Over(_) => 12,
            CancelResult::Paid => 13,
            CancelResult::NoSuchOrder => 14,
        },
        PostingResult::Send(result) => match result {
            SendResult::Sent { .. } => 15,
            SendResult::InsufficientFunds => 16,
            SendResult::TooManyEnvelopes | SendResult::TooMuch => NEVER,
        },
        PostingResult::Open(result) => match result {
            OpenResult::Opened { .. } => 17,
            OpenResult::Empty { .. } => 18,
            OpenResult::TooLate { .. } => 19,
            OpenResult::NoSuchEnvelope => 20,
        },
        PostingResult::Expire(_) => 21,
        PostingResult::Deposit(result) => match result {
            DepositResult::Deposited => 22,
            DepositResult::KeyUsed => 23,
            DepositResult::TooMuch => NEVER,
        },
    }
}

/// Needs a million open envelopes, or more money than there is.
const NEVER: usize = 24;

/// Every question has the model's answer, and every row of the log is the model's.
fn compare(ledger: &mut SqliteLedger, model: &Model, path: &Path) {
    assert_eq!(ledger.totals().unwrap(), model.totals());
    assert_eq!(ledger.campaigns().unwrap(), model.campaigns);
    assert_eq!(ledger.next_due(), model.next_due());
    let (orders, envelopes) = model.counts();
    for campaign in &model.campaigns {
        assert_eq!(ledger.claimed_serials(campaign.id).unwrap(), model.claimed_serials(campaign.id));
        for before in [None, Some(order_id(orders / 2 + 1))] {
            assert_eq!(ledger.orders_of(campaign.id, before, 3).unwrap(), model.orders_of(campaign.id, before, 3));
        }
    }
    for id in (1..=envelopes + 1).map(envelope_id) {
        assert_eq!(ledger.envelope(id).unwrap(), model.envelope(id));
    }
    for n in 1..=USERS + 1 {
        let who = user(n);
        let mut questions = vec![Question::Recall];
        questions.extend((1..=envelopes + 1).map(|n| Question::Envelope(envelope_id(n))));
        let last = model.last_request(who).map_or(0, |last| last.get());
        questions.extend((1..=last + 1).map(|n| Question::FirstAnswer(request(n))));
        questions.extend([None, Some(order_id(orders / 2 + 1))].map(|before| Question::Orders { before, limit: 2 }));
        for question in questions {
            assert_eq!(ledger.ask(who, &question).unwrap(), model.ask(who, &question), "user {n}: {question:?}");
        }
        let (mut before, mut sum) = (None, 0);
        let balance = loop {
            let question = Question::Statement { before, limit: 5 };
            let answer = ledger.ask(who, &question).unwrap();
            assert_eq!(answer, model.ask(who, &question), "user {n}: {question:?}");
            let Answer::Statement(Statement { balance, movements }) = answer else { panic!("{answer:?}") };
            sum += movements.items.iter().map(|movement| movement.amount).sum::<i64>();
            before = movements.items.last().map(|movement| movement.entry);
            if !movements.more {
                break balance;
            }
        };
        assert_eq!(i128::from(balance.0), i128::from(sum), "what went through the wallet is what is in it");
    }

    let rows = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement = rows
        .prepare("SELECT id, at_ms, kind, debit, credit, amount_fen, item, request, previous FROM entries ORDER BY id")
        .unwrap();
    let entries = statement.query_map([], |row| {
        let unsigned = |n: usize| row.get::<_, Option<i64>>(n).map(|n| n.map(|n| u64::try_from(n).unwrap()));
        Ok(Entry {
            id: row.get(0)?,
            at: unsigned(1)?.unwrap(),
            kind: Kind::from_code(row.get(2)?).unwrap(),
            debit: AccountId(row.get(3)?),
            credit: AccountId(row.get(4)?),
            amount: row.get(5)?,
            item: row.get(6)?,
            request: unsigned(7)?.map(request),
            previous: row.get(8)?,
        })
    });
    assert_eq!(entries.unwrap().map(Result::unwrap).collect::<Vec<_>>(), model.entries);
    // A row may be behind, never wrong.
    let mut statement = rows.prepare("SELECT id, balance, last_entry FROM accounts").unwrap();
    let accounts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    for account in accounts {
        let (id, balance, last): (i64, i64, i64) = account.unwrap();
        let later = model.entries.iter().filter(|entry| entry.id > last);
        let missing: i64 = later
            .map(|entry| {
                if entry.credit.0 == id {
                    entry.amount
                } else if entry.debit.0 == id {
                    -entry.amount
                } else {
                    0
                }
            })
            .sum();
        assert_eq!(balance + missing, model.balance(AccountId(id)), "account {id}");
    }
}

fn run_histories(cases: u32) {
    let coverage = Coverage::default();
    let config =
        ProptestConfig { cases, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&prop::collection::vec(batch(), 1..12), |batches| {
        let mut bench = Bench::new();
        for batch in &batches {
            bench.run(batch, &coverage);
        }
        let report = audit(&bench.path()).unwrap();
        prop_assert!(report.is_balanced(), "{}", report);
        prop_assert_eq!(report.wins, bench.model.wins_count());
        prop_assert_eq!(report.transfers, bench.model.entries.len() as u64);
        bench.reopen();
        bench.compare_now();
        bench.archive();
        Ok::<(), TestCaseError>(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // All but the last, which needs a million open envelopes.
    assert!(coverage.outcomes[..NEVER].iter().all(|seen| seen.get() > 0), "{:?}", coverage.outcomes);
    assert!(coverage.failed.get() > u64::from(cases) / 4, "{} batches failed", coverage.failed.get());
    assert!(coverage.reopened.get() > u64::from(cases) / 8, "{} were reopened", coverage.reopened.get());
}

#[test]
fn the_ledger_answers_as_the_model_through_faults_and_restarts() {
    // As many as the environment asks for, like other property tests.
    run_histories(std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(80));
}
