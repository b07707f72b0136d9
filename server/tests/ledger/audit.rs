//! The audit finds each kind of corruption: one that cannot fail would prove nothing.

use std::fs;
use std::path::{Path, PathBuf};

use hongbao_server::ledger::audit::{JOURNAL_HEADER, audit, audit_journals};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{Ledger, LedgerError, Posting};
use hongbao_server::limits::AUDIT_FINDINGS_MAX;
use rusqlite::Connection;

use super::support::{acknowledge, claim, terms};

/// Campaign 1: 60 prizes, no limit, 20 won, request = serial + 1. Campaign 2: limit 2, users 1 and 2 hold two each. Campaign
/// 3: settled.
fn write_books(path: &Path) {
    let mut ledger = SqliteLedger::open(path).unwrap();
    let rain = ledger.create_campaign(terms(60, None), 1).unwrap();
    let limited = ledger.create_campaign(terms(60, Some(2)), 1).unwrap();
    let over = ledger.create_campaign(terms(5, None), 1).unwrap();
    let mut postings: Vec<Posting> = (0..20).map(|n| claim(&rain, n % 4 + 1, n + 1, n)).collect();
    postings.extend((0..4).map(|n| claim(&limited, n % 2 + 1, 100 + n, n)));
    postings.push(claim(&over, 3, 200, 0));
    postings.push(acknowledge(1, &[(rain.id, 0)]));
    ledger.post(&postings, 2).unwrap();
    ledger.settle_campaign(over.id, 3).unwrap();
}

/// Tables without their keys, so that what a key would refuse can be written.
const WITHOUT_KEYS: &str = "
    CREATE TABLE copy AS SELECT * FROM wins; DROP TABLE wins; ALTER TABLE copy RENAME TO wins;
    CREATE TABLE copy AS SELECT * FROM accounts; DROP TABLE accounts; ALTER TABLE copy RENAME TO accounts;";

#[test]
fn each_kind_of_corruption_is_found_by_its_check() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.db");
    write_books(&good);
    let report = audit(&good).unwrap();
    assert!(report.is_balanced(), "{report}");
    assert_eq!((report.campaigns, report.wins, report.acknowledged), (3, 25, 1));
    assert_eq!((report.transfers, report.accounts), (3 + 25 + 1, 2 + 3 + 4));
    assert_eq!((report.residual_fen, report.funded_fen > report.paid_fen), (0, true));

    let mutations: &[(&str, &str)] = &[
        ("residual", "UPDATE accounts SET balance = balance + 1 WHERE id = 1"),
        ("balance", "UPDATE accounts SET balance = balance + 1 WHERE id = 1"),
        // Two errors that cancel out in the sum.
        (
            "balance",
            "UPDATE accounts SET balance = balance + 1 WHERE id = 1; UPDATE accounts SET balance = balance - 1 WHERE id = 2",
        ),
        ("balance", "DELETE FROM accounts WHERE id = 4"),
        ("negative", "UPDATE accounts SET balance = -1 WHERE id = 2"),
        ("account", "UPDATE accounts SET kind = 1 WHERE id = 2"),
        ("amount", "UPDATE wins SET amount_fen = amount_fen + 1 WHERE campaign = 1 AND serial = 3"),
        // The whole chain forged: only the draw itself tells.
        (
            "amount",
            "UPDATE wins SET amount_fen = amount_fen + 1 WHERE campaign = 1 AND serial = 3;
             UPDATE transfers SET amount_fen = amount_fen + 1 WHERE kind = 2 AND debit = -1 AND serial = 3;
             UPDATE accounts SET balance = balance + 1 WHERE id = 4; UPDATE accounts SET balance = balance - 1 WHERE id = -1;
             UPDATE campaigns SET paid = paid + 1 WHERE id = 1",
        ),
        ("pair", "UPDATE wins SET amount_fen = amount_fen + 1 WHERE campaign = 1 AND serial = 3"),
        ("pair", "UPDATE wins SET user = 3 WHERE campaign = 1 AND serial = 0"),
        ("pair", "UPDATE wins SET request = 999 WHERE campaign = 1 AND serial = 0"),
        ("pair", "UPDATE wins SET transfer = 1 WHERE campaign = 1 AND serial = 0"),
        ("pair", "DELETE FROM wins WHERE campaign = 1 AND serial = 0"),
        ("sums", "DELETE FROM wins WHERE campaign = 1 AND serial = 0"),
        ("pair", "DELETE FROM transfers WHERE kind = 2 AND serial = 5"),
        ("balance", "DELETE FROM transfers WHERE kind = 2 AND serial = 5"),
        ("reference", "DELETE FROM transfers WHERE kind = 2 AND serial = 5"),
        ("pair", "INSERT INTO transfers SELECT 9999, at_ms, debit, credit, amount_fen, kind, serial, request FROM transfers WHERE id = 8"),
        ("transfer", "UPDATE transfers SET credit = -2 WHERE id = 8"),
        ("transfer", "UPDATE transfers SET kind = 9 WHERE id = 8"),
        ("transfer", "INSERT INTO transfers SELECT 9999, at_ms, debit, credit, amount_fen, kind, serial, request FROM transfers WHERE id = 1"),
        ("transfer", "PRAGMA ignore_check_constraints = 1; UPDATE transfers SET amount_fen = -5 WHERE id = 8"),
        ("serial", "UPDATE wins SET serial = 60 WHERE campaign = 1 AND serial = 3"),
        ("serial", "UPDATE wins SET campaign = 7 WHERE campaign = 1 AND serial = 3"),
        ("reference", "UPDATE wins SET campaign = 7 WHERE campaign = 1 AND serial = 3"),
        ("limit", "UPDATE wins SET user = 1 WHERE campaign = 2 AND serial = 1"),
        ("limit", "UPDATE campaigns SET per_user_limit = 1 WHERE id = 2"),
        ("sums", "UPDATE campaigns SET won = won + 1 WHERE id = 1"),
        ("sums", "UPDATE campaigns SET paid = paid - 1 WHERE id = 1"),
        ("fund", "UPDATE campaigns SET paid = paid - 1 WHERE id = 1"),
        ("fund", "UPDATE campaigns SET total_amount = total_amount + 1 WHERE id = 1"),
        ("fund", "UPDATE campaigns SET refunded = refunded + 1 WHERE id = 3"),
        ("fund", "UPDATE campaigns SET settled_at = 5 WHERE id = 1"),
        ("fund", "UPDATE campaigns SET settled_at = NULL WHERE id = 3"),
        ("amount", "UPDATE campaigns SET seed = zeroblob(32) WHERE id = 1"),
        ("terms", "UPDATE campaigns SET ends_at = starts_at WHERE id = 1"),
        ("campaign", "UPDATE campaigns SET kind = 77 WHERE id = 1"),
        ("win", "PRAGMA ignore_check_constraints = 1; UPDATE wins SET acknowledged = 2 WHERE campaign = 1 AND serial = 0"),
        ("win", "UPDATE wins SET request = 0 WHERE campaign = 1 AND serial = 0"),
        ("schema", "DROP INDEX wins_by_request"),
        ("schema", "CREATE TABLE stranger (id INTEGER)"),
        ("schema", "DROP TABLE transfers"),
        ("win", "DROP TABLE transfers"),
        ("unique", "KEYLESS INSERT INTO wins SELECT * FROM wins WHERE campaign = 1 AND serial = 0"),
        ("unique", "KEYLESS UPDATE wins SET request = 1 WHERE campaign = 1 AND serial = 4"),
        ("unique", "KEYLESS INSERT INTO accounts SELECT * FROM accounts WHERE id = 1"),
    ];
    for (n, (check, sql)) in mutations.iter().enumerate() {
        let bad = directory.path().join(format!("bad-{n}.db"));
        fs::copy(&good, &bad).unwrap();
        let connection = Connection::open(&bad).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        let sql = match sql.strip_prefix("KEYLESS") {
            Some(sql) => format!("{WITHOUT_KEYS} {sql}"),
            None => (*sql).to_owned(),
        };
        connection.execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().unwrap();
        let report = audit(&bad).unwrap();
        assert!(!report.is_balanced(), "not found: {sql}");
        assert!(
            report.findings.iter().any(|finding| finding.check == *check),
            "no finding {check:?} for {sql}:\n{report}"
        );
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
    drop(ledger);
    Connection::open(&path).unwrap().execute_batch("UPDATE accounts SET balance = balance + 1 WHERE id > 0").unwrap();
    let report = audit(&path).unwrap();
    assert_eq!((report.findings.len(), report.findings_total), (AUDIT_FINDINGS_MAX, 301));
    assert!(report.to_string().contains("NOT BALANCED") && report.to_string().contains("and 201 more"), "{report}");
    assert!(serde_json::to_string(&report).unwrap().contains("\"findings_total\":301"));
}

#[test]
fn a_page_whose_header_is_overwritten_is_found_or_the_file_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    write_books(&path);
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
fn an_audit_changes_neither_the_file_nor_the_log_and_may_run_beside_the_server() {
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

fn journal(directory: &Path, name: &str, rows: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, format!("{JOURNAL_HEADER}\n{rows}")).unwrap();
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
    let amount = |n| rain.terms.amount(hongbao_proto::Serial(n)).0;
    let row = |n: u64| format!("{},{},1,{n},{},5\n", n + 1, 10 + n, amount(n));

    let a = journal(directory.path(), "a.csv", &(row(0) + &row(0)));
    let b = journal(directory.path(), "b.csv", &(row(1) + "3,12,1,"));
    let report = audit_journals(&path, &[a, b]).unwrap();
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
        let bad = journal(directory.path(), "bad.csv", &rows);
        let report = audit_journals(&path, &[bad]).unwrap();
        assert_eq!(report.findings_total, 1, "{rows}: {report}");
        assert_eq!(report.findings[0].check, "journal");
        assert!(report.findings[0].place.contains("bad.csv:"), "{report}");
    }
    let headless = directory.path().join("headless.csv");
    fs::write(&headless, row(0)).unwrap();
    assert!(!audit_journals(&path, &[headless]).unwrap().is_balanced());
    let missing = directory.path().join("missing.csv");
    assert!(matches!(audit_journals(&path, &[missing]), Err(LedgerError::Unavailable(_))));
}
