//! History that is moved into an archive is not missed: not by the audit, not by balances and
//! limits, not after a crash.

use std::fs;
use std::path::{Path, PathBuf};

use hongbao_proto::Fen;
use hongbao_server::clock::UnixMs;
use hongbao_server::ledger::archive::{Archived, Wanted, archive};
use hongbao_server::ledger::audit::audit;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{
    Answer, CancelResult, ClaimResult, DepositResult, Ledger, LedgerError, Means, OpenResult, PayResult, Posting,
    PostingResult, Question, Seen, SendResult, Statement,
};
use hongbao_server::market::campaign::Campaign;
use rusqlite::Connection;

use super::support::{
    balance, cancel, claim, deposit, envelope, envelope_id, first_answer, open, order_id, ordered, pay, recall,
    sale_terms, send, terms, user, won,
};

const DAY: UnixMs = 24 * 3_600 * 1_000;
const NOW: UnixMs = 100 * DAY;

fn wanted(before: UnixMs) -> Wanted {
    Wanted { before, unacknowledged_too: false, vacuum: false }
}

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn ledger(&self) -> SqliteLedger {
        SqliteLedger::open(self.at("ledger.db")).unwrap()
    }

    fn archive(&self, to: &str, wanted: &Wanted) -> Result<Archived, LedgerError> {
        archive(&self.at("ledger.db"), &self.at(to), wanted, NOW)
    }
}

fn acknowledge_all(ledger: &mut SqliteLedger, now: UnixMs) {
    for n in 1..=5 {
        let mut seen = Seen::default();
        let awards = recall(ledger, n).unacknowledged;
        seen.prizes = awards
            .iter()
            .filter_map(|award| match award {
                hongbao_server::ledger::Award::Win(win) => Some((win.campaign, win.serial)),
                hongbao_server::ledger::Award::Order(_) => None,
            })
            .collect();
        seen.orders = awards
            .iter()
            .filter_map(|award| match award {
                hongbao_server::ledger::Award::Win(_) => None,
                hongbao_server::ledger::Award::Order(order) => Some(order.id),
            })
            .collect();
        ledger.post(&[Posting::Acknowledge { user: user(n), seen: Box::new(seen) }], now).unwrap();
    }
}

/// Over by day 2: a rain, order 1 (paid), 2 (cancelled), 3 (expired), envelopes 1 (emptied) and 2
/// (returned). From day 3 on a rain with a limit of 2 runs, which is returned; user 1 holds one
/// prize of it. Straddling its beginning, and over since: order 4 (paid after it) and envelope 3
/// (one share opened before, the rest returned after it).
fn write_books(files: &Files) -> Campaign {
    let mut ledger = files.ledger();
    let rain = ledger.create_campaign(terms(10, None), DAY).unwrap();
    let sale = ledger.create_campaign(sale_terms(10, Some(3), 300), DAY).unwrap();
    let postings = [
        deposit(1, 4, 1_000, "start"),
        claim(&rain, 1, 10, 0),
        claim(&rain, 2, 10, 1),
        claim(&sale, 1, 11, 0),
        claim(&sale, 2, 11, 1),
        claim(&sale, 3, 11, 2),
        pay(1, 1, Means::Wallet),
        cancel(2, 2),
        send(envelope(Some(1), 4, 100, 2, &[2, 3, 4])),
        open(2, 1),
        open(3, 1),
        send(envelope(None, 4, 100, 3, &[2, 3])),
        open(3, 2),
    ];
    ledger.post(&postings, DAY).unwrap();
    ledger.post(&[Posting::Expire], 2 * DAY).unwrap();
    ledger.settle_campaign(rain.id, 2 * DAY).unwrap();
    ledger
        .post(&[claim(&sale, 4, 11, 3), send(envelope(Some(2), 5, 90, 3, &[1, 4])), open(4, 3)], 3 * DAY - 1_000)
        .unwrap();
    let running = ledger.create_campaign(terms(10, Some(2)), 3 * DAY).unwrap();
    ledger.post(&[claim(&running, 1, 12, 0), pay(4, 4, Means::Outside)], 3 * DAY).unwrap();
    ledger.post(&[Posting::Expire], 4 * DAY).unwrap();
    ledger.settle_campaign(sale.id, 4 * DAY).unwrap();
    acknowledge_all(&mut ledger, 4 * DAY);
    running
}

fn balances(ledger: &mut SqliteLedger) -> Vec<Fen> {
    (1..=5).map(|n| balance(ledger, n)).collect()
}

fn count(path: &Path, table: &str) -> i64 {
    Connection::open(path).unwrap().query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

fn is_balanced(path: &Path) {
    let report = audit(path).unwrap();
    assert!(report.is_balanced(), "{report}");
}

#[test]
fn balances_limits_and_audit_are_the_same_without_the_archived() {
    let files = Files::new();
    let running = write_books(&files);
    let path = files.at("ledger.db");
    let before = balances(&mut files.ledger());
    let entries = count(&path, "entries");
    is_balanced(&path);

    let archived = files.archive("old.db", &Wanted { vacuum: true, ..wanted(50 * DAY) }).unwrap();
    let (first, last) = archived.entries.unwrap();
    assert_eq!((first, archived.orders, archived.envelopes, archived.finished), (1, 3, 2, false));
    assert!(archived.stays.as_ref().unwrap().contains("campaign 3, which is not settled"), "{archived}");
    assert_eq!((count(&files.at("old.db"), "entries"), count(&path, "entries")), (last, entries - last));
    assert_eq!((count(&path, "orders"), count(&path, "envelopes"), count(&path, "openings")), (1, 1, 1));
    assert_eq!(count(&files.at("old.db"), "openings"), 3);
    is_balanced(&path);
    assert!(matches!(audit(&files.at("old.db")), Err(LedgerError::Foreign { .. })), "an archive is no ledger");

    let mut ledger = files.ledger();
    assert_eq!(balances(&mut ledger), before);
    // What was before the cut is unknown or came too late; what was after it is known.
    assert_eq!(first_answer(&mut ledger, 1, 10), None);
    assert!(first_answer(&mut ledger, 1, 12).is_some());
    let batch = [
        claim(&running, 1, 10, 5),
        open(4, 1),
        cancel(1, 1),
        open(4, 3),
        pay(4, 4, Means::Wallet),
        deposit(1, 4, 1_000, "start"),
        claim(&running, 1, 13, 1),
        claim(&running, 1, 14, 2),
        send(envelope(Some(1), 20, 10, 1, &[2])),
    ];
    let outcomes = ledger.post(&batch, NOW).unwrap();
    assert_eq!(
        outcomes[..3],
        [
            PostingResult::Claim(ClaimResult::OutOfOrder),
            PostingResult::Open(OpenResult::NoSuchEnvelope),
            PostingResult::Cancel(CancelResult::NoSuchOrder)
        ]
    );
    assert!(matches!(outcomes[3], PostingResult::Open(OpenResult::Opened { share: 0, .. })), "{outcomes:?}");
    assert!(
        matches!(outcomes[4], PostingResult::Pay(PayResult::Paid(order)) if order.id == order_id(4)),
        "{outcomes:?}"
    );
    let expected = [
        PostingResult::Deposit(DepositResult::Deposited),
        PostingResult::Claim(ClaimResult::Won(won(&running, 13, 1))),
        PostingResult::Claim(ClaimResult::LimitReached { limit: 2 }),
    ];
    assert_eq!(outcomes[5..8], expected);
    assert!(
        matches!(&outcomes[8], PostingResult::Send(SendResult::Sent { offer, .. }) if offer.envelope == envelope_id(4)),
        "{outcomes:?}"
    );
    // Numbers go on where they were.
    let sale = ledger.create_campaign(sale_terms(3, None, 0), NOW).unwrap();
    let outcomes = ledger.post(&[claim(&sale, 5, 1, 0)], NOW).unwrap();
    assert_eq!(outcomes, [PostingResult::Claim(ClaimResult::Ordered(ordered(&sale, 5, (5, 1), 0, NOW)))]);
    // A statement begins after the cut; its balance is whole.
    let question = Question::Statement { before: None, limit: 100 };
    let Answer::Statement(Statement { balance, movements }) = ledger.ask(user(1), &question).unwrap() else { panic!() };
    assert!(!movements.more && movements.items.iter().all(|movement| movement.entry > last));
    assert_eq!(balance.0, before[0].0 + won(&running, 13, 1).amount.0 - 10);
    drop(ledger);
    is_balanced(&path);
}

#[test]
fn one_archive_follows_another_and_together_they_hold_all_once() {
    let files = Files::new();
    let running = write_books(&files);
    let path = files.at("ledger.db");
    let entries = count(&path, "entries");
    let (_, first) = files.archive("1.db", &wanted(50 * DAY)).unwrap().entries.unwrap();
    files.ledger().settle_campaign(running.id, 5 * DAY).unwrap();
    let archived = files.archive("2.db", &wanted(50 * DAY)).unwrap();
    assert_eq!((archived.entries, archived.stays), (Some((first + 1, entries + 1)), None));
    assert_eq!((archived.orders, archived.envelopes), (1, 1));
    assert_eq!(count(&path, "entries"), 0);
    is_balanced(&path);
    let sum = |name: &str| count(&files.at(name), "orders") + count(&files.at(name), "envelopes");
    assert_eq!(sum("1.db") + sum("2.db"), 7);

    let archived = files.archive("3.db", &wanted(50 * DAY)).unwrap();
    assert_eq!((archived.entries, files.at("3.db").exists()), (None, false));
    let mut ledger = files.ledger();
    let sale = ledger.create_campaign(sale_terms(3, None, 0), NOW).unwrap();
    let outcomes = ledger.post(&[claim(&sale, 5, 1, 0), send(envelope(None, 9, 5, 1, &[2]))], NOW).unwrap();
    assert_eq!(outcomes[0], PostingResult::Claim(ClaimResult::Ordered(ordered(&sale, 5, (5, 1), 0, NOW))));
    assert!(
        matches!(&outcomes[1], PostingResult::Send(SendResult::Sent { offer, .. }) if offer.envelope == envelope_id(4)),
        "{outcomes:?}"
    );
    drop(ledger);
    is_balanced(&path);
}

#[test]
fn the_young_the_open_and_the_unacknowledged_stay_with_a_reason() {
    let files = Files::new();
    let path = files.at("ledger.db");
    let mut ledger = files.ledger();
    let rain = ledger.create_campaign(terms(10, None), DAY).unwrap();
    ledger.post(&[claim(&rain, 1, 10, 0), send(envelope(None, 4, 100, 3, &[2, 3]))], DAY).unwrap();
    drop(ledger);
    let stays = |wanted: &Wanted| {
        let archived = files.archive("old.db", wanted).unwrap();
        assert_eq!((archived.entries, files.at("old.db").exists()), (None, false));
        archived.stays.unwrap()
    };
    assert!(stays(&wanted(DAY)).contains("entry 1 stays and all after it: it is not old enough"));
    assert!(stays(&wanted(DAY + 1)).contains("is of campaign 1, which is not settled"));
    files.ledger().settle_campaign(rain.id, 2 * DAY).unwrap();

    let all = Wanted { unacknowledged_too: true, ..wanted(50 * DAY) };
    let copy = files.at("copy.db");
    fs::copy(&path, &copy).unwrap();
    let archived = files.archive("old.db", &wanted(50 * DAY)).unwrap();
    assert_eq!(archived.entries, Some((1, 1)));
    assert!(
        archived.stays.unwrap().contains("entry 2 stays and all after it: it has not been acknowledged by its user")
    );
    let archived = archive(&copy, &files.at("all.db"), &all, NOW).unwrap();
    assert_eq!(archived.entries, Some((1, 2)));
    assert!(archived.stays.unwrap().contains("envelope 1, which can still be opened"));
    assert_eq!((count(&files.at("all.db"), "notices"), count(&copy, "notices")), (1, 0));
    for path in [path, copy] {
        is_balanced(&path);
    }
}

#[test]
fn a_crash_between_archive_and_ledger_is_mended_by_repeating() {
    let files = Files::new();
    write_books(&files);
    let path = files.at("ledger.db");
    let untouched = fs::read(&path).unwrap();
    // A crash while it was written: something half done lies there.
    fs::write(files.at("old.db.partial"), "half").unwrap();
    let whole = files.archive("old.db", &wanted(50 * DAY)).unwrap();
    assert!(!files.at("old.db.partial").exists());
    let pruned = count(&path, "entries");

    // A crash before the ledger gave anything away; then a server ran.
    fs::write(&path, &untouched).unwrap();
    let mut ledger = files.ledger();
    ledger.post(&[deposit(1, 1, 5, "later")], NOW).unwrap();
    let expected = balances(&mut ledger);
    drop(ledger);
    is_balanced(&path);
    let again = files.archive("old.db", &wanted(50 * DAY)).unwrap();
    assert_eq!((again.entries, again.orders, again.envelopes), (whole.entries, whole.orders, whole.envelopes));
    assert!(again.finished);
    assert_eq!(count(&path, "entries"), pruned + 1);
    is_balanced(&path);
    assert_eq!(balances(&mut files.ledger()), expected);

    let error = files.archive("old.db", &wanted(50 * DAY)).unwrap_err();
    assert!(error.to_string().contains("name another file"), "{error}");
    assert_eq!(count(&path, "entries"), pruned + 1);
}

#[test]
fn nothing_is_overwritten_taken_in_use_or_pruned_uncopied() {
    let files = Files::new();
    write_books(&files);
    let path = files.at("ledger.db");
    let entries = count(&path, "entries");
    let refused = |to: &str, wanted: &Wanted, why: &str| {
        let error = files.archive(to, wanted).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(count(&path, "entries"), entries);
        is_balanced(&path);
    };
    fs::write(files.at("notes.txt"), "not an archive").unwrap();
    refused("notes.txt", &wanted(50 * DAY), "is no archive");
    assert_eq!(fs::read(files.at("notes.txt")).unwrap(), b"not an archive");
    refused("ledger.db", &wanted(50 * DAY), "is no archive");
    refused("nowhere/old.db", &wanted(50 * DAY), "nowhere");
    refused("old.db", &wanted(NOW - DAY + 1), "at least a day old");
    let missing = archive(&files.at("missing.db"), &files.at("old.db"), &wanted(DAY), NOW).unwrap_err();
    assert!(missing.to_string().contains("no such file") && !files.at("missing.db").exists(), "{missing}");
    let running = files.ledger();
    assert!(matches!(files.archive("old.db", &wanted(50 * DAY)), Err(LedgerError::InUse { .. })));
    drop(running);

    let untouched = fs::read(&path).unwrap();
    files.archive("old.db", &wanted(50 * DAY)).unwrap();
    let whole = fs::read(files.at("old.db")).unwrap();
    for (spoil, why) in [
        ("UPDATE entries SET amount_fen = amount_fen + 1 WHERE id = 3", "1 entries are not as the ledger has them"),
        ("DELETE FROM entries WHERE id = 3", "the ledger has"),
        ("UPDATE orders SET state = 3 WHERE id = 1", "1 orders are not as the ledger has them"),
    ] {
        fs::write(&path, &untouched).unwrap();
        fs::write(files.at("old.db"), &whole).unwrap();
        Connection::open(files.at("old.db")).unwrap().execute_batch(spoil).unwrap();
        refused("old.db", &wanted(50 * DAY), why);
    }
}
