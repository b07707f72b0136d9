//! What a stop may take: an audit and a checkpoint keep to their deadline, and say what they left.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hongbao_server::ledger::audit::{AuditOptions, AuditReport, audit, audit_with};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::writer::{Reply, ReplyTo, Unavailable, Writer, WriterRequest};
use hongbao_server::ledger::{Ledger, Posting, Question};
use hongbao_server::market::campaign::Campaign;
use rusqlite::Connection;

use super::support::{claim, terms, user};

const WON: u64 = 20_000;

fn write_books(path: &Path) -> (SqliteLedger, Campaign) {
    let mut ledger = SqliteLedger::open(path).unwrap();
    let rain = ledger.create_campaign(terms(WON + 10, None), 1).unwrap();
    let batch: Vec<Posting> = (0..WON).map(|n| claim(&rain, n + 1, 1, n)).collect();
    ledger.post(&batch, 2).unwrap();
    (ledger, rain)
}

fn audit_until(path: &Path, until: Instant) -> AuditReport {
    audit_with(path, &AuditOptions { until: Some(until), ..AuditOptions::default() }).unwrap()
}

#[test]
fn an_audit_says_what_its_deadline_left_unread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    drop(write_books(&path));

    let whole = audit_until(&path, Instant::now() + Duration::from_secs(600));
    assert_eq!(whole, audit(&path).unwrap());
    assert!(whole.is_balanced() && whole.unread.is_none() && whole.transfers == WON + 1);

    let none = audit_until(&path, Instant::now());
    let unread = none.unread.clone().unwrap();
    assert!(none.is_balanced() && unread.checks.contains(&"entry") && unread.checks.contains(&"notice"), "{none}");
    assert!(none.to_string().contains("balanced as far as it was read"), "{none}");
    assert!(none.to_string().contains("not read by the deadline"), "{none}");

    // Prizes that nobody can draw to the end.
    let rows = Connection::open(&path).unwrap();
    rows.execute_batch("UPDATE campaigns SET total = 1 << 60").unwrap();
    let cut = audit_until(&path, Instant::now() + Duration::from_secs(2));
    assert!(cut.unread.is_some_and(|unread| unread.checks.contains(&"campaign")));
}

#[test]
fn a_checkpoint_without_time_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let log = directory.path().join("ledger.db-wal");
    let (mut ledger, rain) = write_books(&path);
    assert!(!ledger.checkpoint(Some(Instant::now())).unwrap());
    drop(ledger);
    assert!(log.metadata().unwrap().len() > 0, "closing has folded the log after all");
    assert!(audit(&path).unwrap().is_balanced());

    let mut ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(ledger.totals().unwrap().won, WON);
    ledger.post(&[claim(&rain, 1, 2, WON)], 3).unwrap();
    assert!(ledger.checkpoint(Some(Instant::now() + Duration::from_secs(600))).unwrap());
    let rows = Connection::open(&path).unwrap();
    let missing = "SELECT (SELECT max(id) FROM entries) + 1 - accounts_from FROM progress";
    assert_eq!(rows.query_row(missing, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    drop((rows, ledger));
    assert!(!log.exists());
    assert!(audit(&path).unwrap().is_balanced());
}

#[test]
fn the_log_shrinks_once_a_reader_has_gone() {
    const KEPT: u64 = 16 * 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let log = || directory.path().join("ledger.db-wal").metadata().unwrap().len();
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(100_000, None), 1).unwrap();
    let mut next = 0..100_000;
    let mut post = || {
        let batch: Vec<Posting> = next.by_ref().take(60).map(|n| claim(&rain, n * 31 % 5_003 + 1, n + 1, n)).collect();
        assert_eq!(batch.len(), 60, "the log grows too slowly for this test");
        ledger.post(&batch, 2).unwrap();
    };
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM entries;").unwrap();
    while log() < KEPT + KEPT / 8 {
        post();
    }
    drop(reader);
    post();
    post();
    assert!(log() <= KEPT, "{} bytes are kept", log());
}

struct To(mpsc::Sender<Reply>);

impl ReplyTo for To {
    fn deliver(self, reply: Reply) {
        self.0.send(reply).unwrap();
    }
}

#[test]
fn past_its_end_the_ledger_commits_and_answers_nothing() {
    let mut ledger = SqliteLedger::open_in_memory().unwrap();
    let rain = ledger.create_campaign(terms(5, None), 1).unwrap();
    let mut writer = Writer::new(Box::new(ledger), || 7);
    let (sender, replies) = mpsc::channel();
    let ask = |to: &mpsc::Sender<Reply>| WriterRequest::Ask {
        user: user(9),
        question: Question::Recall,
        reply_to: To(to.clone()),
    };
    writer.apply(ask(&sender));
    assert!(matches!(replies.try_recv(), Ok(Reply::Answered(Ok(_)))));
    writer.status().end_by(Instant::now());
    writer.apply(ask(&sender));
    assert_eq!(replies.try_recv(), Ok(Reply::Answered(Err(Unavailable))));
    writer.apply(WriterRequest::Post { posting: claim(&rain, 1, 1, 0), reply_to: To(sender.clone()) });
    writer.flush();
    assert!(matches!(replies.try_recv(), Ok(Reply::Posted(Ok(_)))));
    assert!(writer.status().healthy(), "a question that came too late is no fault of the ledger");
}
