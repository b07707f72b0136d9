//! Faults from outside: a full disk, a directory that cannot be written, a killed process, files
//! that are not ours.
//!
//! A test that needs a process of its own runs itself again in one, told by the environment which
//! ledger to work on.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs, io};

use hongbao_server::ledger::audit::{AuditOptions, audit, audit_with};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::{ClaimResult, Ledger, LedgerError, Posting, PostingResult};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rusqlite::Connection;

use super::support::{claim, recall, terms};

const PATH: &str = "HONGBAO_TEST_LEDGER";

fn again(test: &str, ledger: &Path) -> Command {
    // Past RLIMIT_FSIZE a write fails with EFBIG only where SIGXFSZ is ignored, and that survives
    // `exec`.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(env::current_exe().unwrap());
    let module = module_path!().split_once("::").expect("a test is in a module of its program").1;
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture", "--test-threads=1"]).env(PATH, ledger);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// The ledger to work on, in the process that a test has started for itself.
fn own_process() -> Option<PathBuf> {
    env::var_os(PATH).map(PathBuf::from)
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().expect("SIGKILL can be sent");
        self.0.wait().expect("a child can be waited for");
    }
}

#[test]
fn every_win_told_before_a_kill_is_in_a_balanced_ledger() {
    if let Some(path) = own_process() {
        return post_until_killed(&path);
    }
    for round in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let journal = directory.path().join("told.csv");
        let mut child = Killed(again("every_win_told_before_a_kill_is_in_a_balanced_ledger", &path).spawn().unwrap());
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let mut told = String::from("user,request,campaign,serial,amount_fen,at_ms\n");
        let mut seen = 0;
        // It is killed in the middle of whatever it does then; what it had said until then counts.
        for line in lines {
            let line = line.unwrap();
            if let Some(row) = line.strip_prefix("won ") {
                told += &format!("{row}\n");
                seen += 1;
                if seen == 400 + round * 331 {
                    child.0.kill().unwrap();
                }
            }
        }
        drop(child);
        fs::write(&journal, told).unwrap();
        assert!(directory.path().join("ledger.db-wal").exists(), "it had no time to tidy up");
        let report = audit_with(&path, &AuditOptions { journals: &[journal], until: None }).unwrap();
        assert!(report.is_balanced(), "{report}");
        assert_eq!(report.journals.as_ref().unwrap().wins, seen);

        // And the next server goes on: what is claimed stays claimed.
        let mut ledger = SqliteLedger::open(&path).unwrap();
        let rain = ledger.campaigns().unwrap().remove(0);
        assert_eq!(rain.won, report.wins);
        let outcomes = ledger.post(&[claim(&rain, 1, 1_000_000, 0), claim(&rain, 1, 1_000_000, 49_999)], 9).unwrap();
        assert!(
            matches!(
                outcomes[..],
                [PostingResult::Claim(ClaimResult::Taken), PostingResult::Claim(ClaimResult::Won(_))]
            ),
            "{outcomes:?}"
        );
        drop(ledger);
        assert!(audit(&path).unwrap().is_balanced());
    }
}

#[test]
fn a_full_disk_fails_whole_batches_and_space_revives_the_ledger() {
    if let Some(path) = own_process() {
        return meet_the_end_of_the_disk(&path);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let output = again("a_full_disk_fails_whole_batches_and_space_revives_the_ledger", &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    let report = audit(&path).unwrap();
    assert!(report.is_balanced() && report.wins > 0, "{report}");
}

#[test]
fn a_database_that_may_not_grow_fails_whole_batches_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    let rain = ledger.create_campaign(terms(50_000, None), 1).unwrap();
    ledger.post(&[claim(&rain, 1, 1, 0)], 2).unwrap();
    ledger.limit_pages(60).unwrap();
    let batch: Vec<Posting> = (1..10_000).map(|n| claim(&rain, n, n + 1, n)).collect();
    for _ in 0..2 {
        assert!(matches!(ledger.post(&batch, 3), Err(LedgerError::Unavailable(why)) if why.contains("full")));
        assert_eq!(ledger.totals().unwrap().won, 1);
        assert!(audit(&path).unwrap().is_balanced());
    }
    assert_eq!(recall(&mut ledger, 500).last_request, None);
    ledger.limit_pages(1_000_000).unwrap();
    assert!(
        ledger
            .post(&batch, 4)
            .unwrap()
            .iter()
            .all(|outcome| matches!(outcome, PostingResult::Claim(ClaimResult::Won(_))))
    );
    let report = audit(&path).unwrap();
    assert!(report.is_balanced() && report.wins == 10_000, "{report}");
}

#[test]
fn what_a_crash_leaves_to_add_up_again_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let mut ledger = SqliteLedger::open(&path).unwrap();
    ledger.sweep_in(1_000);
    let rain = ledger.create_campaign(terms(10_000, None), 1).unwrap();
    let rows = Connection::open(&path).unwrap();
    let progress = || {
        let statement = "SELECT (SELECT max(id) FROM entries) + 1 - accounts_from FROM progress";
        rows.query_row(statement, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let mut worst = 0;
    for start in (0..10_000).step_by(50) {
        let batch: Vec<Posting> = (start..start + 50).map(|n| claim(&rain, n * 31 % 2_003 + 1, n + 1, n)).collect();
        ledger.post(&batch, 2).unwrap();
        worst = worst.max(progress());
    }
    assert!((500..=4_000).contains(&worst), "{worst} entries were not in all accounts' rows");
    ledger.checkpoint(None).unwrap();
    assert_eq!(progress(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nowhere").join("ledger.db");
    let error = SqliteLedger::open(&missing).err().unwrap();
    assert!(matches!(&error, LedgerError::Unavailable(why) if why.contains("nowhere")), "{error}");

    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let path = directory.path().join("ledger.db");
    let opened = SqliteLedger::open(&path);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    match opened {
        Err(error) => assert!(matches!(&error, LedgerError::Unavailable(why) if why.contains("ledger.db")), "{error}"),
        Ok(_) => eprintln!("skipped: this user may write into read-only directories"),
    }
    // One that nobody may write into, root included.
    let error = SqliteLedger::open("/proc/ledger.db").err().unwrap();
    assert!(matches!(&error, LedgerError::Unavailable(why) if why.contains("/proc/ledger.db")), "{error}");
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let first = SqliteLedger::open(&path).unwrap();
    let error = SqliteLedger::open(&path).err().unwrap();
    assert_eq!(error.to_string(), format!("ledger {} is in use by another process", path.display()));
    drop(first);
    SqliteLedger::open(&path).unwrap();
}

#[test]
fn a_ledger_of_a_newer_version_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    drop(SqliteLedger::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 3).unwrap();
    let before = fs::read(&path).unwrap();
    for error in [SqliteLedger::open(&path).err().unwrap(), audit(&path).unwrap_err()] {
        assert!(matches!(error, LedgerError::TooNew { found: 3, known: 2, .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_ledger_from_before_the_first_release_is_refused_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    drop(SqliteLedger::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 1).unwrap();
    let before = fs::read(&path).unwrap();
    for error in [SqliteLedger::open(&path).err().unwrap(), audit(&path).unwrap_err()] {
        assert!(matches!(error, LedgerError::TooOld { found: 1, .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_that_is_something_else_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("notes.txt");
    fs::write(&text, "Not a database. ".repeat(300)).unwrap();
    let database = directory.path().join("other.db");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    for path in [text, database] {
        let before = fs::read(&path).unwrap();
        let error = SqliteLedger::open(&path).err().unwrap();
        assert!(matches!(error, LedgerError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

fn post_until_killed(path: &Path) {
    let mut ledger = SqliteLedger::open(path).unwrap();
    let rain = ledger.create_campaign(terms(50_000, None), 1).unwrap();
    let mut out = io::stdout().lock();
    for start in (0..49_000).step_by(50) {
        let batch: Vec<Posting> = (start..start + 50).map(|n| claim(&rain, n * 31 % 997 + 1, n + 1, n)).collect();
        for (n, outcome) in (start..).zip(ledger.post(&batch, n_ms(start)).unwrap()) {
            let PostingResult::Claim(ClaimResult::Won(win)) = outcome else { panic!("{outcome:?}") };
            let user = n * 31 % 997 + 1;
            writeln!(out, "won {user},{},{},{},{},0", win.request, win.campaign, win.serial, win.amount.0).unwrap();
        }
        out.flush().unwrap();
    }
    panic!("nobody killed me");
}

fn n_ms(n: u64) -> u64 {
    1_000 + n
}

fn meet_the_end_of_the_disk(path: &Path) {
    let mut ledger = SqliteLedger::open(path).unwrap();
    let rain = ledger.create_campaign(terms(50_000, None), 1).unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 400_000, hard).unwrap();
    let batch = |start: u64| -> Vec<Posting> { (start..start + 500).map(|n| claim(&rain, n + 1, n + 1, n)).collect() };
    let mut posted = 0;
    let error = loop {
        match ledger.post(&batch(posted), 2) {
            Ok(_) => posted += 500,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
    assert!(posted > 0, "the disk was full before the first batch");
    assert_eq!(ledger.totals().unwrap().won, posted);
    let error = ledger.probe(3).unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
    assert!(matches!(ledger.create_campaign(terms(5, None), 3), Ok(_) | Err(LedgerError::Unavailable(_))));
    assert_eq!(ledger.claimed_serials(rain.id).unwrap().len() as u64, posted);

    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    ledger.probe(4).unwrap();
    assert!(
        ledger
            .post(&batch(posted), 5)
            .unwrap()
            .iter()
            .all(|outcome| matches!(outcome, PostingResult::Claim(ClaimResult::Won(_))))
    );
}
