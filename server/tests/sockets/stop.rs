//! The way out: told to everybody, with a deadline, and an audit at its end.

use std::collections::BTreeMap;
use std::path::Path;

use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::server_frame::Event;
use hongbao_server::ledger::books::Kind;
use hongbao_server::ledger::sqlite::SqliteLedger;
use nix::sys::signal::Signal;
use serde_json::Value;

use hongbao_testing::client::{framed, grab, next_id};
use hongbao_testing::{Client, Server, Setup, until, user_token};

/// Shakes until dismissed; returns the prizes it was told of, and when to come back.
fn shake_until_dismissed(client: &mut Client, campaign: u32) -> (BTreeMap<u64, u64>, Option<u32>) {
    let mut wins = BTreeMap::new();
    loop {
        client.send_raw(&framed(next_id(), grab(campaign)));
        match client.frame().event.unwrap() {
            Event::Won(won) => assert_eq!(wins.insert(won.serial, won.amount_fen), None),
            Event::Goodbye(goodbye) => {
                assert_eq!(goodbye.reason(), Reason::Draining);
                return (wins, goodbye.return_after_ms);
            }
            _ => {}
        }
    }
}

#[test]
fn sigterm_under_load_tells_all_when_to_return_and_audits() {
    const USERS: u64 = 16;
    let mut server = Server::start();
    let campaign = server.rain(1_000_000, 5_000, &serde_json::json!({"max_fen": 300}));
    let clients: Vec<_> = (1..=USERS).map(|user| server.login(user)).collect();
    let (mut told, mut moments) = (BTreeMap::new(), Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| scope.spawn(move || shake_until_dismissed(&mut client, campaign)))
            .collect();
        until("prizes to be won", || server.stats()["ledger"]["won"].as_u64().unwrap() > 500);
        server.signal(Signal::SIGTERM);
        for thread in threads {
            let (wins, return_after_ms) = thread.join().unwrap();
            moments.push(return_after_ms.expect("a moment to return"));
            for (serial, amount) in wins {
                assert_eq!(told.insert(serial, amount), None, "told to two users");
            }
        }
    });
    assert!(moments.iter().all(|moment| (5_000..=15_000).contains(moment)), "{moments:?}");
    moments.dedup();
    assert!(moments.len() > 1, "everybody is to return at once: {moments:?}");
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    let log = server.log();
    assert!(log.contains("stop 6/6: audit: "), "{log}");

    // What was told is in the ledger, and the ledger balances.
    let ledger = rusqlite::Connection::open(server.ledger()).unwrap();
    let mut statement = ledger.prepare("SELECT serial, amount_fen FROM wins").unwrap();
    let number = |row: &rusqlite::Row<'_>, column| row.get(column).map(i64::cast_unsigned);
    let rows = statement.query_map([], |row| Ok((number(row, 0)?, number(row, 1)?))).unwrap();
    let wins: BTreeMap<u64, u64> = rows.map(Result::unwrap).collect();
    assert!(told.iter().all(|(serial, amount)| wins.get(serial) == Some(amount)));
    drop(statement);
    drop(ledger);
    server.audit(&[]);
}

#[test]
fn an_operators_drain_stops_as_sigterm_does() {
    let mut server = Server::with(&["--return-after", "100ms"]);
    let mut user = server.login(1);
    assert_eq!(server.call(reqwest::Method::POST, "/v1/drain", None).status(), 202);
    let ending = user.ending();
    assert_eq!(ending.goodbye, Some(Reason::Draining));
    assert!((100..=300).contains(&ending.return_after_ms.unwrap()), "{ending:?}");
    drop(user);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn while_it_stops_no_new_peer_is_taken_in() {
    let mut server = Server::start();
    let mut user = server.login(1);
    server.signal(Signal::SIGTERM);
    assert_eq!(user.ending().goodbye, Some(Reason::Draining));
    until("the listeners to be closed", || Client::try_connect(server.listen).is_err());
    drop(user);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_peer_that_never_closes_is_torn_down_in_time() {
    let mut server = Server::start();
    // One that read its goodbye and stays; one that reads nothing at all.
    let (mut stays, mut deaf) = (server.login(1), Client::connect_narrow(server.listen));
    deaf.login(&user_token(2));
    server.signal(Signal::SIGTERM);
    assert_eq!(stays.ending().goodbye, Some(Reason::Draining));
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
}

#[test]
fn the_deadline_of_a_stop_is_kept_and_its_exit_code_says_so() {
    let mut server = Server::with(&["--stop-deadline", "200ms"]);
    let campaign = server.rain(1_000, 1_000, &Value::Null);
    let mut user = server.login(1);
    user.win(campaign);
    server.signal(Signal::SIGTERM);
    // The user stays longer than the deadline allows.
    assert_eq!(server.exit_code(), Some(3), "{}", server.log());
    server.audit(&[]);
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let mut server = Server::start();
    let user = server.login(1);
    server.signal(Signal::SIGTERM);
    // The user does not leave: the stop waits for it.
    until("the stop to be under way", || server.log().contains("stop 4/6"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(3), "{}", server.log());
    drop(user);
}

#[test]
fn a_stopped_server_starts_again_where_it_was() {
    let mut server = Server::start();
    let campaign = server.rain(500, 1_000, &Value::Null);
    let mut user = server.login(1);
    let (id, won) = user.win(campaign);
    drop(user);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.exit_code(), Some(0));
    server.start_again();
    let mut user = server.login(1);
    assert_eq!(user.ask_as(id, grab(campaign)), Event::Won(won));
    assert_ne!(user.win(campaign).1.serial, won.serial);
    server.check_books();
}

/// A ledger of so many deposits of 1 fen to each of 100,000 users, as an orderly stop leaves it.
/// Written past the books: posting as much takes minutes.
fn write_deposits(path: &Path, deposits: u32) {
    drop(SqliteLedger::open(path).unwrap());
    let ledger = rusqlite::Connection::open(path).unwrap();
    let count = |until: String| {
        format!("WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {until})")
    };
    let (entries, one, each) =
        (format!("{deposits} * 100000"), count("100000".to_owned()), count(deposits.to_string()));
    let all = count(entries.clone());
    let deposit = Kind::Deposit.code();
    ledger
        .execute_batch(&format!(
            "BEGIN;
            INSERT INTO entries (id, at_ms, kind, debit, credit, amount_fen, item, previous)
                {all} SELECT i + 1, 1, {deposit}, 0, 1 + i % 100000, 1, 0, max(i + 1 - 100000, 0) FROM n;
            INSERT INTO deposits (key, at_ms, first_user, users, amount_fen, first_entry)
                {each} SELECT 'deposit ' || i, 1, 1, 100000, 1, 1 + i * 100000 FROM n;
            INSERT INTO accounts (id, balance, last_entry, last_claim)
                {one} SELECT 1 + i, {deposits}, {entries} - 100000 + 1 + i, 0 FROM n;
            INSERT OR REPLACE INTO accounts (id, balance, last_entry, last_claim) VALUES (0, -{entries}, {entries}, 0);
            UPDATE progress SET accounts_from = {entries} + 1;
            COMMIT;"
        ))
        .unwrap();
}

#[test]
fn a_stop_keeps_its_deadline_whatever_the_ledgers_size() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("ledger");
    write_deposits(&ledger, 50);
    let setup = Setup {
        flags: ["--stop-deadline", "5s"].map(str::to_owned).to_vec(),
        ledger: Some(ledger),
        ..Setup::default()
    };
    let mut server = Server::set_up(setup);
    let mut user = server.login(1);
    server.signal(Signal::SIGTERM);
    assert_eq!(user.ending().goodbye, Some(Reason::Draining));
    drop(user);
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    let log = server.log();
    println!("{log}");
    assert!(log.contains("balanced as far as it was read") && log.contains(" of 5000000 entries"), "{log}");
    let (_, stopped) = log.split_once("stopped in order").expect("a last word");
    let (_, ms) = stopped.split_once("ms=").expect("how long it took");
    let ms: u64 = ms.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    assert!(ms <= 5_000, "{log}");
}

#[test]
fn a_small_ledger_of_deposits_is_audited_whole_at_a_stop() {
    let home = tempfile::tempdir().unwrap();
    let ledger = home.path().join("ledger");
    write_deposits(&ledger, 2);
    let mut server = Server::set_up(Setup { ledger: Some(ledger), ..Setup::default() });
    server.stop_and_audit();
    assert!(server.log().contains("balanced: 0 campaigns, 100001 accounts, 200000 entries"), "{}", server.log());
}
