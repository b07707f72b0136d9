//! The audit finds each kind of corruption, and nothing else: one that cannot fail would prove
//! nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hongbao_proto::Serial;
use hongbao_server::ledger::audit::{
    AuditOptions, AuditReport, JOURNAL_HEADER, JOURNAL_HEADER_OF_WINS, audit, audit_with,
};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{Ledger, LedgerError, Means, Posting, Seen};
use hongbao_server::limits::AUDIT_FINDINGS_MAX;
use rusqlite::Connection;

use super::support::{
    cancel, claim, deposit, envelope, envelope_id, open, order_id, pay, sale_terms, send, terms, user,
};

/// Something of everything. Times are those of the batches: 1, 10, 20, 5,010 (order 4 expires),
/// 10,010 (envelope 2 expires).
///
/// - Deposit: 1,000 fen to users 1 to 4.
/// - Rains: campaign 1, 20 won, unit and request n by user n % 4 + 1 at request n + 1. Campaign 2,
///   limit 2, users 1 and 2 hold two each. Campaign 3, one won, settled.
/// - Sales: campaign 4 for 300 fen, limit 2: order 1 of user 1 paid from the wallet, 2 of user 2
///   paid outside, 3 of user 3 cancelled, 4 of user 4 expired, 7 of user 1 and 8 of user 2 (the
///   unit of order 3 again) wait. Campaign 5 for nothing: order 5 of user 2. Campaign 6, order 6 of
///   user 3, paid outside, settled.
/// - Envelopes: 1 of user 1, opened by 2, 3 and 4. 2 of the house, opened by 1, expired. 3 of user
///   2 for 1 and 3, opened by 1, acknowledged by 3.
fn write_books(path: &Path) {
    let mut ledger = SqliteLedger::open(path).unwrap();
    let rain = ledger.create_campaign(terms(60, None), 1).unwrap();
    let limited = ledger.create_campaign(terms(60, Some(2)), 1).unwrap();
    let over = ledger.create_campaign(terms(5, None), 1).unwrap();
    let sale = ledger.create_campaign(sale_terms(10, Some(2), 300), 1).unwrap();
    let free = ledger.create_campaign(sale_terms(5, None, 0), 1).unwrap();
    let sold = ledger.create_campaign(sale_terms(5, None, 40), 1).unwrap();
    let mut postings = vec![deposit(1, 4, 1_000, "start")];
    postings.extend((0..20).map(|n| claim(&rain, n % 4 + 1, n + 1, n)));
    postings.extend((0..4).map(|n| claim(&limited, n % 2 + 1, 100 + n, n)));
    postings.push(claim(&over, 3, 200, 0));
    ledger.post(&postings, 10).unwrap();
    let mut postings: Vec<Posting> = (0..4).map(|n| claim(&sale, n + 1, 300, n)).collect();
    postings.extend([
        claim(&free, 2, 301, 4),
        claim(&sold, 3, 301, 4),
        pay(1, 1, Means::Wallet),
        pay(2, 2, Means::Outside),
        cancel(3, 3),
        pay(3, 6, Means::Outside),
        send(envelope(Some(1), 4, 100, 3, &[2, 3, 4])),
        send(envelope(None, 5, 60, 4, &[1, 2, 3, 4])),
        open(2, 1),
        open(4, 1),
        open(3, 1),
        open(1, 2),
    ]);
    ledger.post(&postings, 20).unwrap();
    ledger.post(&[Posting::Expire], 5_020).unwrap();
    ledger.post(&[Posting::Expire], 10_020).unwrap();
    let seen = Seen {
        prizes: [(rain.id, Serial(0))].into(),
        orders: [order_id(1)].into(),
        envelopes: [envelope_id(3)].into(),
    };
    let postings = [
        claim(&sale, 1, 400, 8),
        claim(&sale, 2, 400, 2),
        send(envelope(Some(2), 8, 50, 3, &[1, 3])),
        open(1, 3),
        Posting::Acknowledge { user: user(1), seen: Box::new(seen.clone()) },
        Posting::Acknowledge { user: user(3), seen: Box::new(seen) },
    ];
    ledger.post(&postings, 10_020).unwrap();
    ledger.settle_campaign(over.id, 10_030).unwrap();
    ledger.settle_campaign(sold.id, 10_030).unwrap();
    ledger.checkpoint(None).unwrap();
}

/// Tables without their keys, so that what a key would refuse can be written.
fn without_key(table: &str) -> String {
    format!(
        "DROP VIEW wins; CREATE TABLE copy AS SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE copy RENAME TO {table};"
    )
}

/// Check and place of each finding, each once.
fn found(report: &AuditReport) -> BTreeSet<String> {
    report.findings.iter().map(|finding| format!("{} {}", finding.check, finding.place)).collect()
}

fn spoil(good: &Path, bad: &Path, sql: &str) -> AuditReport {
    fs::copy(good, bad).unwrap();
    let connection = Connection::open(bad).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = 1").unwrap();
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection.close().unwrap();
    audit(bad).unwrap()
}

/// A fault, and exactly what is found of it; `..`: and more.
const FAULTS: &[(&str, &[&str])] = &[
    ("UPDATE accounts SET balance = balance + 1 WHERE id = 1", &["balance account 1", "residual ledger"]),
    (
        "UPDATE accounts SET balance = balance + 1 WHERE id = 1; UPDATE accounts SET balance = balance - 1 WHERE id = 2",
        &["balance account 1", "balance account 2"],
    ),
    ("DELETE FROM accounts WHERE id = 4", &["behind account 4"]),
    (
        "UPDATE accounts SET balance = balance - (SELECT amount_fen FROM entries WHERE id = last_entry), last_entry = (SELECT previous FROM entries WHERE id = last_entry) WHERE id = 4",
        &["behind account 4"],
    ),
    ("UPDATE accounts SET last_entry = last_entry + 1 WHERE id = 4", &["account account 4", "residual ledger"]),
    ("UPDATE accounts SET last_entry = 0 WHERE id = 4", &["balance account 4", "behind account 4", "residual ledger"]),
    ("INSERT INTO accounts VALUES (-77, 0, 0, 0, 0)", &["account account -77"]),
    ("INSERT INTO accounts VALUES (-1099511627900, 0, 0, 0, 0)", &["account account -1099511627900"]),
    ("UPDATE accounts SET last_claim = last_claim - 1 WHERE id = 2", &["claim account 2"]),
    ("UPDATE accounts SET last_claim = 999 WHERE id = 3", &["claim account 3"]),
    ("UPDATE accounts SET balance = -1 WHERE id = 2", &["balance account 2", "negative account 2", "residual ledger"]),
    ("UPDATE accounts SET archived = 5 WHERE id = 2", &["archive account 2", "archive ledger", "balance account 2"]),
    ("UPDATE accounts SET balance = 0, last_entry = 0, last_claim = 0 WHERE id = 2", &["behind account 2"]),
    (
        "DELETE FROM entries WHERE id = 9",
        &[
            "balance account -1",
            "balance account 2",
            "chain entry 13",
            "entry entry 10",
            "fund campaign 1",
            "notice entry 9",
            "reference notices 9",
            "sums campaign 1",
            "units unit 1/1",
        ],
    ),
    (
        "DELETE FROM entries WHERE id = (SELECT max(id) FROM entries WHERE kind = 10)",
        &["account account -2199023255554", "balance account -1099511627776", "entry entry 51", "envelope envelope 2"],
    ),
    (
        "UPDATE entries SET kind = 99 WHERE id = 9",
        &["entry entry 9", "notice entry 9", "sums campaign 1", "units unit 1/1"],
    ),
    (
        "UPDATE entries SET kind = 9 WHERE id = 9",
        &["entry entry 9", "envelope envelope -2199023255551", "notice entry 9", "sums campaign 1", "units unit 1/1"],
    ),
    (
        "UPDATE entries SET credit = -2 WHERE id = 9",
        &[
            "balance account -2",
            "balance account 2",
            "chain entry 13",
            "chain entry 9",
            "claim account -2",
            "entry entry 9",
            "fund campaign 2",
        ],
    ),
    (
        "UPDATE entries SET amount_fen = 0 WHERE id = 9",
        &[
            "amount entry 9",
            "balance account -1",
            "balance account 2",
            "entry entry 9",
            "fund campaign 1",
            "sums campaign 1",
        ],
    ),
    (
        "UPDATE entries SET amount_fen = -5 WHERE id = 9",
        &[
            "amount entry 9",
            "balance account -1",
            "balance account 2",
            "entry entry 9",
            "fund campaign 1",
            "sums campaign 1",
        ],
    ),
    (
        "UPDATE entries SET amount_fen = 7 WHERE kind = 5 AND item = 3",
        &["balance account -4", "balance account 3", "entry entry 41", "fund campaign 4"],
    ),
    ("UPDATE entries SET request = NULL WHERE id = 9", &["entry entry 9"]),
    ("UPDATE entries SET request = 77 WHERE kind = 9 AND item = 2", &["entry entry 47", "envelope envelope 1"]),
    (
        "UPDATE entries SET item = 3 WHERE kind = 8 AND credit = -2199023255553",
        &["entry entry 43", "envelope envelope 1"],
    ),
    ("UPDATE entries SET at_ms = -4 WHERE id = 9", &["entry entry 9"]),
    (
        "UPDATE entries SET kind = 1, debit = 0, credit = -1, request = NULL, item = 0, previous = 0 WHERE id = 9",
        &[
            "balance account -1",
            "balance account 0",
            "balance account 2",
            "chain entry 13",
            "entry entry 9",
            "fund campaign 1",
            "notice entry 9",
            "sums campaign 1",
            "units unit 1/1",
        ],
    ),
    (
        "INSERT INTO entries SELECT (SELECT max(id) FROM entries) + 1, at_ms, kind, debit, credit, amount_fen, item, request, previous FROM entries WHERE id = 1",
        &["entry entry 57", "fund campaign 1"],
    ),
    ("UPDATE entries SET previous = previous - 1 WHERE id = 20", &["chain entry 20"]),
    ("UPDATE entries SET previous = 3 WHERE kind = 7 AND item = 2", &["chain entry 40"]),
    ("UPDATE entries SET request = 13 WHERE id = 12", &["chain entry 16", "chain entry 20"]),
    ("UPDATE entries SET request = 12 WHERE kind = 2 AND debit = -1 AND item = 15", &["chain entry 23"]),
    (
        "UPDATE entries SET amount_fen = amount_fen + 1 WHERE kind = 2 AND debit = -1 AND item = 3",
        &["amount entry 11", "balance account -1", "balance account 4", "fund campaign 1", "sums campaign 1"],
    ),
    (
        "UPDATE entries SET amount_fen = amount_fen + 1 WHERE kind = 2 AND debit = -1 AND item = 3; UPDATE accounts SET balance = balance + 1 WHERE id = 4; UPDATE accounts SET balance = balance - 1 WHERE id = -1; UPDATE campaigns SET paid = paid + 1 WHERE id = 1",
        &["amount entry 11"],
    ),
    (
        "UPDATE entries SET amount_fen = amount_fen + 1 WHERE kind = 7 AND item = 2; UPDATE accounts SET balance = balance + 1 WHERE id = -4; UPDATE accounts SET balance = balance - 1 WHERE id = 0; UPDATE campaigns SET paid = paid + 1 WHERE id = 4",
        &["amount entry 40"],
    ),
    (
        "UPDATE campaigns SET seed = zeroblob(32) WHERE id = 2",
        &["amount entry 28", "amount entry 29", "amount entry 30", "amount entry 31", "fund campaign 2"],
    ),
    ("UPDATE entries SET item = 60 WHERE kind = 2 AND debit = -1 AND item = 3", &["serial entry 11", "units unit 1/3"]),
    (
        "UPDATE entries SET item = 4 WHERE kind = 2 AND debit = -1 AND item = 3",
        &["amount entry 11", "unique entry 12", "units unit 1/3"],
    ),
    (
        "UPDATE entries SET item = 44 WHERE kind = 2 AND debit = -2 AND item = 3",
        &["amount entry 31", "units unit 2/3", "units unit 2/44"],
    ),
    (
        "UPDATE entries SET debit = -7 WHERE kind = 2 AND debit = -1 AND item = 3",
        &[
            "account account -7",
            "balance account -1",
            "behind account -7",
            "campaign entry 11",
            "fund campaign 1",
            "negative entry 11",
            "residual ledger",
            "sums campaign 1",
            "units unit 1/3",
        ],
    ),
    ("UPDATE campaigns SET first_entry = first_entry + 1 WHERE id = 1", &["campaign campaign 1"]),
    ("UPDATE campaigns SET first_entry = 40 WHERE id = 4", &["campaign campaign 4"]),
    ("UPDATE campaigns SET per_user_limit = 1 WHERE id = 2", &["limit entry 30", "limit entry 31"]),
    ("UPDATE campaigns SET per_user_limit = 1 WHERE id = 4", &["limit entry 51", "limit entry 52"]),
    ("UPDATE campaigns SET won = won + 1 WHERE id = 1", &["sums campaign 1"]),
    ("UPDATE campaigns SET paid = paid - 1 WHERE id = 1", &["fund campaign 1", "sums campaign 1"]),
    ("UPDATE campaigns SET reserved = reserved - 1 WHERE id = 4", &["sums campaign 4"]),
    ("UPDATE campaigns SET fund = fund + 1 WHERE id = 1", &["fund campaign 1"]),
    ("UPDATE campaigns SET refunded = refunded + 1 WHERE id = 3", &["fund campaign 3"]),
    ("UPDATE campaigns SET refunded = refunded + 1 WHERE id = 6", &["fund campaign 6"]),
    ("UPDATE campaigns SET refunded = 1 WHERE id = 4", &["fund campaign 4"]),
    ("UPDATE campaigns SET settled_at = 5 WHERE id = 2", &["fund campaign 2", "units campaign 2"]),
    ("UPDATE campaigns SET settled_at = NULL WHERE id = 3", &["fund campaign 3", "units unit 3/0"]),
    ("UPDATE campaigns SET settled_at = 9 WHERE id = 6", &["fund campaign 6"]),
    ("UPDATE campaigns SET ends_at = starts_at WHERE id = 1", &["terms campaign 1"]),
    ("UPDATE campaigns SET kind = 77 WHERE id = 1", &["campaign ledger", ".."]),
    (
        "UPDATE units SET bits = zeroblob(1024) WHERE campaign = 2",
        &["units unit 2/0", "units unit 2/1", "units unit 2/2", "units unit 2/3"],
    ),
    ("UPDATE units SET bits = zeroblob(1000) WHERE campaign = 5", &["units campaign 5", "units unit 5/4"]),
    ("UPDATE units SET chunk = 9 WHERE campaign = 5", &["units campaign 5", "units unit 5/4"]),
    ("DELETE FROM units WHERE campaign = 5", &["units unit 5/4"]),
    ("INSERT INTO units VALUES (3, 0, zeroblob(1024))", &["units campaign 3"]),
    ("INSERT INTO units VALUES (9, 0, zeroblob(1024))", &["reference units"]),
    ("DELETE FROM orders WHERE id = 2", &["order order 2", "units unit 4/1"]),
    ("UPDATE orders SET user = 3 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET request = 299 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET request = 0 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET campaign = 1 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET serial = 11 WHERE id = 2", &["order order 2", "serial entry 34", "units unit 4/1"]),
    ("UPDATE orders SET serial = 7 WHERE id = 2", &["units unit 4/1", "units unit 4/7"]),
    ("UPDATE orders SET price = 299 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET state = 1 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET state = 1, decided_at = NULL WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET state = 2 WHERE id = 8", &["order order 8"]),
    ("UPDATE orders SET state = 2 WHERE id = 3", &["order order 3"]),
    ("UPDATE orders SET state = 4 WHERE id = 3", &["order order 3"]),
    ("UPDATE orders SET state = 3 WHERE id = 4", &["notice order 4"]),
    ("UPDATE orders SET state = 9 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET decided_at = 21 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET decided_at = NULL WHERE id = 5", &["order order 5"]),
    ("UPDATE orders SET reserved_at = 19, pay_by = 5019 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET pay_by = pay_by + 1 WHERE id = 2", &["order order 2"]),
    ("UPDATE orders SET id = 99 WHERE id = 5", &["order order 5", "order order 99", "units unit 5/4"]),
    (
        "UPDATE entries SET debit = 3 WHERE kind = 6 AND item = 1",
        &[
            "balance account 1",
            "balance account 3",
            "chain entry 39",
            "chain entry 41",
            "chain entry 43",
            "order order 1",
        ],
    ),
    ("UPDATE entries SET item = 5 WHERE kind = 6 AND item = 1", &["notice order 5", "order order 1", "order order 5"]),
    (
        "UPDATE entries SET at_ms = 5020 WHERE kind = 7 AND item = 2; UPDATE orders SET decided_at = 5020 WHERE id = 2",
        &["order order 2"],
    ),
    ("UPDATE orders SET serial = 1 WHERE id = 7", &["unique entry 51", "units unit 4/8"]),
    ("DELETE FROM envelopes WHERE id = 2", &["envelope envelope 2", "reference closings 2", "reference openings"]),
    ("UPDATE envelopes SET seed = zeroblob(32) WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET mode = 2 WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET mode = 3 WHERE id = 2", &["envelope envelope 2"]),
    ("UPDATE envelopes SET total = total + 1 WHERE id = 2", &["envelope envelope 2"]),
    ("UPDATE envelopes SET shares = 5 WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET total = 2 WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET sender = 2 WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET request = 9 WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET sent_at = 21 WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET expires_at = 20 WHERE id = 3", &["envelope envelope 3"]),
    ("UPDATE envelopes SET expires_at = 99999 WHERE id = 2", &["envelope envelope 2"]),
    ("UPDATE envelopes SET recipients = x'0200000000000000' WHERE id = 1", &["envelope envelope 1"]),
    ("UPDATE envelopes SET recipients = substr(recipients, 2) WHERE id = 2", &["envelope envelope 2"]),
    ("UPDATE envelopes SET recipients = x'02000000000000000100000000000000' WHERE id = 2", &["envelope envelope 2"]),
    ("DELETE FROM openings WHERE envelope = 1 AND share = 1", &["envelope envelope 1"]),
    ("DELETE FROM openings WHERE envelope = 1 AND share = 2", &["envelope envelope 1"]),
    ("UPDATE openings SET amount_fen = amount_fen + 1 WHERE envelope = 3", &["envelope envelope 3"]),
    ("UPDATE openings SET user = 9 WHERE envelope = 3", &["envelope envelope 3"]),
    ("UPDATE openings SET user = 2 WHERE envelope = 1 AND share = 2", &["envelope envelope 1"]),
    ("UPDATE openings SET at_ms = at_ms + 1 WHERE envelope = 3", &["envelope envelope 3"]),
    (
        "UPDATE openings SET envelope = 9 WHERE envelope = 3",
        &["envelope envelope 3", "envelope envelope 9", "reference openings"],
    ),
    (
        "UPDATE openings SET envelope = 9 WHERE envelope = 3",
        &["envelope envelope 3", "envelope envelope 9", "reference openings"],
    ),
    ("INSERT INTO openings VALUES (3, 1, 3, 20, 10020)", &["envelope envelope 3"]),
    ("DELETE FROM open_envelopes", &["envelope envelope 3"]),
    ("UPDATE open_envelopes SET told = zeroblob(16)", &["envelope envelope 3"]),
    ("UPDATE open_envelopes SET told = x'0400000000000000'", &["envelope envelope 3"]),
    ("INSERT INTO open_envelopes VALUES (1, zeroblob(8))", &["envelope envelope 1"]),
    ("DELETE FROM closings WHERE envelope = 1", &["envelope envelope 1"]),
    ("UPDATE closings SET refunded = refunded + 1 WHERE envelope = 2", &["envelope envelope 2"]),
    ("UPDATE closings SET at_ms = 10019 WHERE envelope = 2", &["envelope envelope 2"]),
    ("UPDATE closings SET at_ms = 10021 WHERE envelope = 1", &["envelope envelope 1"]),
    (
        "UPDATE entries SET credit = 2 WHERE kind = 10",
        &[
            "balance account -1099511627776",
            "balance account 2",
            "chain entry 50",
            "chain entry 52",
            "envelope envelope 2",
        ],
    ),
    ("UPDATE entries SET item = 1 WHERE kind = 9 AND debit = -2199023255553 AND item = 2", &["envelope envelope 1"]),
    (
        "UPDATE entries SET debit = -2199023255556 WHERE kind = 9 AND debit = -2199023255555",
        &[
            "account account -2199023255555",
            "behind account -2199023255556",
            "envelope envelope 3",
            "envelope envelope 4",
            "negative entry 54",
            "residual ledger",
        ],
    ),
    (
        "UPDATE deposits SET amount_fen = 999",
        &["deposit entry 4", "deposit entry 5", "deposit entry 6", "deposit entry 7"],
    ),
    (
        "UPDATE deposits SET first_user = 2",
        &["deposit entry 4", "deposit entry 5", "deposit entry 6", "deposit entry 7"],
    ),
    ("UPDATE deposits SET users = 3", &["deposit entry 7"]),
    ("UPDATE deposits SET users = 5", &["deposit entry 8"]),
    ("UPDATE deposits SET at_ms = 11", &["deposit entry 4", "deposit entry 5", "deposit entry 6", "deposit entry 7"]),
    (
        "UPDATE deposits SET first_entry = 5",
        &["deposit entry 4", "deposit entry 5", "deposit entry 6", "deposit entry 7", "deposit entry 8"],
    ),
    ("DELETE FROM deposits", &["deposit entry 4", "deposit entry 5", "deposit entry 6", "deposit entry 7"]),
    ("INSERT INTO deposits VALUES ('other', 5, 1, 1, 10, 30)", &["deposit entry 30"]),
    ("INSERT INTO notices SELECT id FROM entries WHERE kind = 9 AND item = 2", &["notice entry 47"]),
    ("INSERT INTO notices VALUES (999)", &["notice entry 999", "reference notices 999"]),
    ("INSERT INTO notices VALUES (999)", &["notice entry 999", "reference notices 999"]),
    ("INSERT INTO notices SELECT id FROM entries WHERE kind = 4 AND item = 2", &["notice order 2"]),
    ("INSERT INTO notices SELECT id FROM entries WHERE kind = 5 AND item = 3", &["notice order 3"]),
    ("DROP INDEX orders_by_user", &["schema orders_by_user"]),
    ("CREATE TABLE stranger (id INTEGER)", &["schema stranger"]),
    ("CREATE TRIGGER stranger AFTER INSERT ON notices BEGIN SELECT 1; END", &["schema stranger"]),
    ("DROP TABLE entries", &["schema entries", "entry ledger", ".."]),
    ("DROP TABLE progress", &["progress ledger", ".."]),
    (
        "UPDATE progress SET accounts_from = 1000000; UPDATE accounts SET last_entry = 5, balance = 1000, last_claim = 0 WHERE id = 1",
        &["account account 1", "behind account 1", "residual ledger"],
    ),
    ("UPDATE progress SET archived_through = 3", &["entry entry 1"]),
    ("KEYLESS orders INSERT INTO orders SELECT * FROM orders WHERE id = 2", &["unique order 2", ".."]),
    ("KEYLESS accounts INSERT INTO accounts SELECT * FROM accounts WHERE id = 1", &["unique account 1", ".."]),
    ("KEYLESS envelopes UPDATE envelopes SET sender = 1, request = 4 WHERE id = 3", &["unique user 1 request 4", ".."]),
    ("KEYLESS entries INSERT INTO entries SELECT * FROM entries WHERE id = 9", &["entry entry 9", ".."]),
];

#[test]
fn each_kind_of_corruption_is_found_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.db");
    write_books(&good);
    let report = audit(&good).unwrap();
    assert!(report.is_balanced(), "{report}");
    assert_eq!((report.campaigns, report.accounts, report.transfers), (6, 16, 56));
    assert_eq!((report.wins, report.acknowledged, report.residual_fen), (25, 1, 0));
    assert_eq!((report.orders, report.sold, report.earned_fen), (8, 4, 640));
    assert_eq!((report.envelopes, report.opened, report.sent_fen), (3, 5, 210));
    assert_eq!((report.deposits, report.deposited_fen, report.funded_fen > report.paid_fen), (1, 4_000, true));

    let bad = directory.path().join("bad.db");
    for (sql, expected) in FAULTS {
        let full = match sql.strip_prefix("KEYLESS ").and_then(|rest| rest.split_once(' ')) {
            Some((table, rest)) => format!("{} {rest}", without_key(table)),
            None => (*sql).to_owned(),
        };
        let report = spoil(&good, &bad, &full);
        let found = found(&report);
        let mut expected: BTreeSet<String> = expected.iter().map(|finding| (*finding).to_owned()).collect();
        if expected.remove("..") {
            assert!(expected.is_subset(&found), "{sql}: {expected:?} is not all in\n{report}");
        } else {
            assert_eq!(found, expected, "{sql}:\n{report}");
        }
        assert!(!expected.is_empty() && !report.is_balanced());
    }
}

#[test]
fn findings_are_all_counted_and_some_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(300, None), 1).unwrap();
    let postings: Vec<Posting> = (0..300).map(|n| claim(&rain, n + 1, 1, n)).collect();
    ledger.post(&postings, 2).unwrap();
    ledger.checkpoint(None).unwrap();
    drop(ledger);
    Connection::open(&path).unwrap().execute_batch("UPDATE accounts SET balance = balance + 1 WHERE id > 0").unwrap();
    let report = audit(&path).unwrap();
    assert_eq!((report.findings.len(), report.findings_total), (AUDIT_FINDINGS_MAX, 301));
    assert!(report.to_string().contains("NOT BALANCED") && report.to_string().contains("and 201 more"), "{report}");
    assert!(serde_json::to_string(&report).unwrap().contains("\"findings_total\":301"));
}

#[test]
fn a_page_with_a_broken_header_is_found_or_the_file_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    write_books(&path);
    // What lies in a page that nothing uses is nobody's business.
    Connection::open(&path).unwrap().execute_batch("VACUUM").unwrap();
    let good = fs::read(&path).unwrap();
    let mut seen_by_integrity = 0;
    for page in (4096..good.len()).step_by(4096) {
        let mut bytes = good.clone();
        bytes[page..page + 8].fill(0xff);
        fs::write(&path, &bytes).unwrap();
        match audit(&path) {
            Ok(report) => {
                assert!(!report.is_balanced(), "{page}: {report}");
                seen_by_integrity += usize::from(report.findings.iter().any(|finding| finding.check == "integrity"));
            }
            Err(error) => assert!(matches!(error, LedgerError::Corrupt(_)), "{error}"),
        }
    }
    assert!(seen_by_integrity > 0);
}

#[test]
fn an_audit_changes_nothing_and_may_run_beside_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let log = directory.path().join("ledger.db-wal");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(10, None), 1).unwrap();
    ledger.post(&[claim(&rain, 1, 1, 0)], 2).unwrap();
    let before = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    assert!(!before.1.is_empty());
    let report = audit(&path).unwrap();
    assert!(report.is_balanced() && report.wins == 1, "{report}");
    assert_eq!((fs::read(&path).unwrap(), fs::read(&log).unwrap()), before);
    ledger.post(&[claim(&rain, 1, 2, 1)], 3).unwrap();
    assert_eq!(audit(&path).unwrap().wins, 2);
}

#[test]
fn an_audit_of_what_is_no_ledger_says_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    assert!(matches!(audit(&path), Err(LedgerError::Unavailable(why)) if why.contains("no such file")));
    assert!(!path.exists());
    fs::write(
        &path,
        "a text that is long enough to be looked at as the header of a file, one hundred bytes or more of it.",
    )
    .unwrap();
    assert!(matches!(audit(&path), Err(LedgerError::Foreign { why, .. }) if why.contains("SQLite")));
    fs::write(&path, "").unwrap();
    assert!(matches!(audit(&path), Err(LedgerError::Foreign { .. })));
}

fn journal(directory: &Path, name: &str, header: &str, rows: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, format!("{header}\n{rows}")).unwrap();
    path
}

#[test]
fn journals_are_compared_win_by_win() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(10, None), 1).unwrap();
    let postings: Vec<Posting> = (0..3).map(|n| claim(&rain, n + 1, 10 + n, n)).collect();
    ledger.post(&postings, 2).unwrap();
    let amount = |n| rain.terms.amount(Serial(n)).0;
    let row = |n: u64| format!("{},{},1,{n},{},5\n", n + 1, 10 + n, amount(n));

    let a = journal(directory.path(), "a.csv", JOURNAL_HEADER_OF_WINS, &(row(0) + &row(0)));
    let b = journal(directory.path(), "b.csv", JOURNAL_HEADER_OF_WINS, &(row(1) + "3,12,1,"));
    let report = audit_with(&path, &AuditOptions { journals: &[a, b], until: None }).unwrap();
    assert!(report.is_balanced(), "{report}");
    let sums = report.journals.clone().unwrap();
    assert_eq!((sums.wins, sums.repeats, sums.torn, sums.unheard), (2, 1, 1, 1));
    assert_eq!(sums.received_fen, i128::from(amount(0) + amount(1)));

    let wrong = [
        format!("1,10,1,0,{},5\n", amount(0) + 1),
        format!("1,10,1,1,{},5\n", amount(0)),
        format!("1,10,2,0,{},5\n", amount(0)),
        format!("2,10,1,0,{},5\n", amount(0)),
        format!("1,99,1,0,{},5\n", amount(0)),
        row(0) + &format!("1,10,1,0,{},6\n", amount(0) + 1),
        "nonsense\n".to_owned(),
        "1,2,3,4,5,6,7\n".to_owned(),
        "\n".to_owned(),
    ];
    for rows in wrong {
        let bad = journal(directory.path(), "bad.csv", JOURNAL_HEADER_OF_WINS, &rows);
        let report = audit_with(&path, &AuditOptions { journals: &[bad], until: None }).unwrap();
        assert_eq!(report.findings_total, 1, "{rows}: {report}");
        assert_eq!(report.findings[0].check, "journal");
        assert!(report.findings[0].place.contains("bad.csv:"), "{report}");
    }
    let headless = directory.path().join("headless.csv");
    fs::write(&headless, row(0)).unwrap();
    assert!(!audit_with(&path, &AuditOptions { journals: &[headless], until: None }).unwrap().is_balanced());
    let missing = directory.path().join("missing.csv");
    assert!(matches!(
        audit_with(&path, &AuditOptions { journals: &[missing], until: None }),
        Err(LedgerError::Unavailable(_))
    ));
}

#[test]
fn journals_of_everything_are_compared_row_by_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    write_books(&path);
    let rows = Connection::open(&path).unwrap();
    let mut statement = rows.prepare("SELECT amount_fen FROM openings WHERE envelope = 1 ORDER BY share").unwrap();
    let shares: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let amount = terms(60, None).amount(Serial(5)).0;
    let good = [
        format!("win,2,6,1/5,{amount},7"),
        format!("share,2,0,1/0,{},7", shares[0]),
        format!("share,4,77,1/1,{},7", shares[1]),
        "order,1,300,1/4/0,300,7".to_owned(),
        "order,2,301,5/5/4,0,7".to_owned(),
        "order,2,400,8/4/2,300,7".to_owned(),
        "paid,1,0,1,300,7".to_owned(),
        "paid,3,5,6,40,7".to_owned(),
        "cancelled,3,0,3,0,7".to_owned(),
        "sent,1,4,1,100,7".to_owned(),
    ];
    let rows = good.iter().fold(String::new(), |all, row| all + row + "\n");
    let again = journal(directory.path(), "b.csv", JOURNAL_HEADER, &format!("{}\nsent,1,", good[0]));
    let old = journal(directory.path(), "old.csv", JOURNAL_HEADER_OF_WINS, &format!("2,6,1,5,{amount},9\n"));
    let all = [journal(directory.path(), "a.csv", JOURNAL_HEADER, &rows), again, old];
    let report = audit_with(&path, &AuditOptions { journals: &all, until: None }).unwrap();
    assert!(report.is_balanced(), "{report}");
    let sums = report.journals.clone().unwrap();
    // The same win in the old form is the same win.
    assert_eq!((sums.files, sums.wins, sums.repeats, sums.torn, sums.unheard), (3, 1, 2, 1, 24));
    assert_eq!((sums.shares, i64::try_from(sums.shares_fen).unwrap()), (2, shares[0] + shares[1]));
    assert_eq!((sums.orders, sums.paid, sums.paid_fen, sums.cancelled), (3, 2, 340, 1));
    assert_eq!((sums.sent, sums.sent_fen), (1, 100));

    let wrong = [
        format!("win,2,6,1/5,{},7", amount + 1),
        format!("win,2,7,1/5,{amount},7"),
        format!("win,1,6,1/5,{amount},7"),
        format!("win,2,6,1/25,{amount},7"),
        format!("share,3,0,1/0,{},7", shares[0]),
        format!("share,2,0,1/0,{},7", shares[0] + 1),
        "share,3,0,3/1,20,7".to_owned(),
        "order,1,299,1/4/0,300,7".to_owned(),
        "order,1,300,1/4/1,300,7".to_owned(),
        "order,1,300,1/4/0,0,7".to_owned(),
        "order,2,300,1/4/0,300,7".to_owned(),
        "order,9,300,9/4/0,300,7".to_owned(),
        "paid,1,0,1,299,7".to_owned(),
        "paid,2,0,1,300,7".to_owned(),
        "paid,1,0,7,300,7".to_owned(),
        "cancelled,4,0,4,0,7".to_owned(),
        "cancelled,2,0,3,0,7".to_owned(),
        "cancelled,3,0,3,300,7".to_owned(),
        "sent,1,4,1,101,7".to_owned(),
        "sent,1,3,1,100,7".to_owned(),
        "sent,1,4,2,100,7".to_owned(),
        "won,1,4,2/1,100,7".to_owned(),
        "win,1,4,2,100,7".to_owned(),
        "win,1,4,2/1,100".to_owned(),
        "win,1,4,2/1,100,soon".to_owned(),
    ];
    for row in wrong {
        let bad = journal(directory.path(), "bad.csv", JOURNAL_HEADER, &format!("{rows}{row}\n"));
        let report = audit_with(&path, &AuditOptions { journals: &[bad], until: None }).unwrap();
        assert_eq!(report.findings_total, 1, "{row}: {report}");
        assert_eq!(report.findings[0].check, "journal");
        assert!(report.findings[0].place.ends_with("bad.csv:12"), "{report}");
    }
}
