//! What the programs log: the way of a request, floods, and nothing that is secret.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, fcntl};
use reqwest::Method;
use serde_json::{Value, json};

use crate::BINARY;
use hongbao_testing::client::{login, next_id};
use hongbao_testing::server::{Setup, json_of, write_secret};
use hongbao_testing::{Fleet, PATIENCE, Running, SECRET, Server, command, eventually, until, user_token};

/// Every line as JSON; each must have the stable names.
fn lines(log: &str) -> Vec<Value> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for name in ["ts", "level", "event", "msg"] {
            assert!(value[name].is_string(), "{name} in {line}");
        }
        value
    };
    log.lines().map(parse).collect()
}

fn assert_nothing_secret(log: &str) {
    assert!(!log.contains(SECRET), "the secret is in the log");
    // Every token begins so.
    assert!(!log.contains("eyJ"), "a token is in the log");
}

fn find(server: &Server, more: &[&str]) -> (Option<i32>, String) {
    let output = command(BINARY).args(["find", "--ledger"]).arg(server.ledger()).args(more).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_win_is_followed_from_journal_through_log_to_ledger() {
    let mut server = Server::with(&["--log-format", "json", "--log", "info,facts=debug"]);
    let flags = ["--users", "40", "--phases", "100x3s~50%", "--rain", "40:1-1000", "--answer-timeout", "20s"];
    let more = ["--clock-budget", "5s", "--log-format", "json", "--log", "info"];
    let mut fleet = Fleet::start(&server, None, &[flags.as_slice(), &more].concat());
    // Whether a busy host keeps the schedule is not what is looked at here.
    let (_, theirs, _) = fleet.end();

    let (path, row) = fleet
        .journals()
        .into_iter()
        .find_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let win = text.lines().find(|line| line.starts_with("win,"))?.to_owned();
            Some((path, win))
        })
        .expect("somebody wins in three seconds of rain");
    let fields: Vec<&str> = row.split(',').collect();
    let (user, request, item, amount) = (fields[1], fields[2], fields[3], fields[4]);
    let (campaign, serial) = item.split_once('/').unwrap();
    let number = |text: &str| text.parse::<u64>().unwrap();

    // The server still runs, and has the ledger open.
    let log = server.path("log");
    let files = ["--journal", path.to_str().unwrap(), "--log", log.to_str().unwrap()];
    let wanted = [&["--user", user, "--request", request], files.as_slice()].concat();
    let (code, told) = find(&server, &[wanted.as_slice(), &["--json"]].concat());
    let found: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(code, Some(0), "{found:#}");
    assert!(found["ledger_open_by"].is_number(), "{found:#}");
    let items = found["items"].as_array().unwrap();
    let of = |place: &str| items.iter().position(|item| item["where"] == place);
    let (ledger, said, journal) = (of("ledger").unwrap(), of("log").unwrap(), of("journal").unwrap());
    assert!(ledger < said && said < journal, "decided, said to be durable, heard: {found:#}");
    let entry = &items[ledger];
    assert_eq!((&entry["kind"], &entry["request"]), (&json!("win"), &json!(number(request))));
    assert_eq!((&entry["campaign"], &entry["serial"]), (&json!(number(campaign)), &json!(number(serial))));
    assert_eq!(entry["amount_fen"], json!(number(amount)));
    let fact: Value = serde_json::from_str(items[said]["text"].as_str().unwrap()).unwrap();
    let expected = json!({"event": "win", "user": number(user), "request": number(request), "campaign": number(campaign),
        "serial": number(serial), "amount_fen": number(amount)});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&fact[name], value, "{name} of {fact}");
    }
    assert_eq!(items[journal]["text"], row.as_str());

    // For people, without the rest of the user's life, and bounded.
    let (code, told) = find(&server, &wanted);
    assert!(code == Some(0) && told.starts_with("the ledger is open in process "), "{told}");
    assert_eq!(told.lines().count(), 1 + items.len(), "{told}");
    let (_, told) = find(&server, &[&["--user", user, "--limit", "1"], files.as_slice()].concat());
    assert!(told.contains("older items are left off"), "{told}");
    assert_eq!(find(&server, &["--user", "9007199254740991"]).0, Some(1));

    server.stop_and_audit();
    assert_eq!(find(&server, &wanted).0, Some(0), "a closed ledger can be read as well");
    let ours = server.log();
    assert!(lines(&ours).len() > 10);
    assert_nothing_secret(&ours);
    assert_nothing_secret(&theirs);
    // Machines are told to log as the fleet does; what the fleet itself says of its progress is for
    // people.
    let machines = theirs.lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>().join("\n");
    assert!(lines(&machines).iter().any(|line| line["event"] == "qps_announced"), "{theirs}");
}

#[test]
fn what_users_do_besides_grabbing_is_found_with_its_requests() {
    let server = Server::with(&["--log-format", "pretty", "--log", "facts=debug"]);
    let (mut sender, mut opener) = (server.login(5), server.login(6));
    server.deposit(5, 1, 10_000, "for the envelope");
    let send = hongbao_proto::v1::SendEnvelope {
        total_fen: 500,
        shares: 1,
        mode: hongbao_proto::v1::send_envelope::Mode::Equal.into(),
        user_ids: vec![6],
        ..Default::default()
    };
    use hongbao_proto::v1::client_frame::Request;
    use hongbao_proto::v1::server_frame::Event;
    let sent = match sender.ask(Request::SendEnvelope(send)) {
        Event::EnvelopeSent(sent) => sent.envelope_id,
        other => panic!("{other:?}"),
    };
    let open = next_id();
    let opened = opener.ask_as(open, Request::Open(hongbao_proto::v1::Open { envelope_id: sent }));
    assert!(matches!(opened, Event::Opened(_)), "{opened:?}");
    // The ledger does not know the request that opened a share; the log does, and leads to the
    // entry.
    let log = server.path("log");
    let request = open.to_string();
    let (code, told) = find(&server, &["--user", "6", "--request", &request, "--log", log.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains(&format!(": open envelope={sent} share=0 amount_fen=500")), "{told}");
    assert!(told.contains(&format!("open: opened user=6 request={request} envelope={sent}")), "{told}");
    assert!(!told.contains("deposit"), "{told}");
    let (_, told) = find(&server, &["--user", "5"]);
    assert!(told.contains("deposit amount_fen=10000") && told.contains("amount_fen=-500"), "{told}");
}

#[test]
fn a_flood_of_refused_peers_leaves_few_lines_and_a_true_count() {
    const PEERS: u64 = 400;
    let mut server = Server::with(&["--log-format", "json"]);
    for _ in 0..PEERS {
        // No length is as long as this; what follows looks like a token.
        server.connect().send_raw(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffeyJsecret");
    }
    until("all to be refused", || server.ended("protocol") == PEERS);
    // A wrong token is refused as well, and not repeated.
    let mut client = server.connect();
    client.send(next_id(), login(&format!("{}x", user_token(3))));
    client.ending();
    server.stop_and_audit();
    let log = server.log();
    assert_nothing_secret(&log);
    let mut seconds = BTreeMap::<String, u64>::new();
    let (mut said, mut withheld) = (0, 0);
    for line in lines(&log) {
        if line["event"] == "peer_refused" {
            assert_eq!(line["level"], "info", "a peer's misbehaviour is no warning of ours");
            *seconds.entry(line["ts"].as_str().unwrap()[..19].to_owned()).or_default() += 1;
            said += 1;
        } else if line["event"] == "withheld" && line["of"] == "peer_refused" {
            withheld += line["count"].as_u64().unwrap();
        }
    }
    assert_eq!(said + withheld, PEERS + 1, "{said} said, {withheld} withheld");
    assert!(seconds.values().all(|lines| *lines <= 10) && withheld > 0, "{seconds:?}");
}

#[test]
fn a_kick_is_logged_once_and_rust_log_still_decides() {
    let server = Server::with(&["--log-format", "json"]);
    let mut client = server.login(7);
    server.call(Method::DELETE, "/v1/sessions/7", None);
    client.ending();
    until("the kick to be logged", || server.log().contains("connection_kicked"));
    let kicks =
        lines(&server.log()).into_iter().filter(|line| line["event"] == "connection_kicked" && line["user"] == 7);
    assert_eq!(kicks.count(), 1);

    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    write_secret(at("secret"), SECRET);
    let mut quiet = command(BINARY);
    quiet.env("RUST_LOG", "error").args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger"]);
    quiet.arg(at("ledger")).arg("--secret-file").arg(at("secret")).arg("--ready-file").arg(at("ready"));
    let mut quiet = Running::start(&mut quiet, at("log"));
    quiet.ready(&at("ready"));
    assert!(quiet.stop().success());
    assert_eq!(quiet.log(), "");
}

#[test]
fn an_unreadable_log_filter_is_refused_before_anything_begins() {
    let output = command(BINARY).args(["--log", "a=b=c", "--ledger", "/nonexistent/ledger"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("--log \"a=b=c\""), "{said}");
    let missing = command(BINARY).args(["find", "--user", "1", "--ledger", "/nonexistent/ledger"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(!Path::new("/nonexistent").exists());
}

#[test]
fn an_operators_mistake_is_answered_and_no_failure_of_ours() {
    let server = Server::with(&["--log-format", "json"]);
    let stop = server.call(Method::POST, "/v1/campaigns/77/stop", None);
    assert_eq!(stop.status(), 404);
    json_of(server.call(Method::GET, "/v1/stats", None));
    let loud = lines(&server.log());
    let loud: Vec<_> = loud.iter().filter(|line| line["level"] == "error").collect();
    assert!(loud.is_empty(), "{loud:?}");
}

/// Waits until the service manager is told that all is well.
fn ping(manager: &UnixDatagram) {
    let mut message = [0; 4096];
    eventually("a ping for the service manager", || {
        let length = manager.recv(&mut message).expect("the server tells its manager something every second");
        String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "WATCHDOG=1").then_some(())
    });
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    /// Enough to fill the log's queue with what they win, twice.
    const USERS: u64 = 16;
    const WINS_MAX: usize = 2_000;
    let home = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(home.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let flags = ["--log", "debug", "--log-format", "json", "--max-connection-qps", "100000"];
    let mut server = Server::set_up(Setup {
        flags: flags.map(str::to_owned).to_vec(),
        environment: vec![("NOTIFY_SOCKET", home.path().join("notify").into()), ("WATCHDOG_USEC", "4000000".into())],
        log: Some(writer),
        ..Setup::default()
    });
    let campaign = server.rain(1_000_000, 100_000, &Value::Null);
    let enough = AtomicBool::new(false);
    let won: u64 = std::thread::scope(|scope| {
        let users: Vec<_> = (1..=USERS)
            .map(|user| {
                let (mut client, enough) = (server.login(user), &enough);
                let wins = (0..WINS_MAX).take_while(|_| !enough.load(Ordering::Relaxed));
                scope.spawn(move || wins.map(|_| client.win(campaign)).count() as u64)
            })
            .collect();
        until("lines to be lost", || server.metric("log_lines_lost_total") > 0);
        manager.set_nonblocking(true).unwrap();
        while manager.recv(&mut [0; 4096]).is_ok() {}
        manager.set_nonblocking(false).unwrap();
        let won = server.answers("won");
        for _ in 0..3 {
            ping(&manager);
            assert_eq!(server.call_as(None, Method::GET, "/healthz", None).status(), 200);
        }
        until("more to be won", || server.answers("won") >= won + 100);
        enough.store(true, Ordering::Relaxed);
        users.into_iter().map(|user| user.join().unwrap()).sum()
    });

    let read = Arc::new(Mutex::new(Vec::new()));
    let reading = std::thread::spawn({
        let read = Arc::clone(&read);
        move || BufReader::new(reader).lines().for_each(|line| read.lock().unwrap().push(line.unwrap()))
    });
    until("the loss to be told", || read.lock().unwrap().iter().any(|line| line.contains("log_lines_lost")));
    let lost = server.metric("log_lines_lost_total");
    server.stop_and_audit();
    drop(server);
    reading.join().unwrap();
    let lines = lines(&read.lock().unwrap().join("\n"));
    let of = |event: &'static str| lines.iter().filter(move |line| line["event"] == event);
    assert_eq!(of("log_lines_lost").map(|line| line["count"].as_u64().unwrap()).sum::<u64>(), lost);
    let told = of("win").count() as u64;
    assert!(told < won && told + lost >= won, "{told} wins in the log, {lost} lines lost, {won} won");
    assert!(of("stop_audited").count() == 1, "the log goes on to the end");
}
