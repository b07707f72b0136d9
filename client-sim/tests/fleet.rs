//! The fleet as a process with machines as processes, against a small server and its admin API.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common::{DEADLINE, FakeServer, PRICE, Pushes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use hongbao_proto::v1::order::State as OrderState;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ServerFrame};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::broadcast;

type Seen = Arc<std::sync::Mutex<crate::common::Seen>>;
type Books = (Seen, u64);

/// Ten envelopes of two shares each, to two users each.
async fn send_envelopes(
    State((seen, pushes)): State<(Seen, Pushes)>,
    Json(new): Json<Value>,
) -> (StatusCode, Json<Value>) {
    assert_eq!((&new["count"], &new["recipients"], &new["users"]), (&json!(10), &json!(2), &json!(40)));
    for envelope_id in 1..=10 {
        seen.lock().unwrap().shares.insert(envelope_id, 2);
        for user in [envelope_id, 40 - envelope_id] {
            let offer = v1::Offer { envelope_id, shares: 2, ..Default::default() };
            let event = Some(Event::Offers(v1::Offers { offers: vec![offer] }));
            pushes.send((user, ServerFrame { request_id: 0, event })).unwrap();
        }
    }
    (StatusCode::CREATED, Json(json!({"id": 5, "count": 10})))
}

/// What became of them; off by `skew` fen.
async fn envelope_run(State((seen, skew)): State<Books>) -> Json<Value> {
    let seen = seen.lock().unwrap();
    let open = 10 - seen.envelopes.values().filter(|openings| openings.len() == 2).count();
    let opened: u64 = seen.envelopes.values().flatten().map(|(_, fen)| fen).sum();
    Json(json!({
        "id": 5, "count": 10, "sent": 10, "open": open, "opened_fen": opened + skew, "refunded_fen": 0,
        "finished": open == 0, "new_field": 1,
    }))
}

/// The books over the sale; off by `skew` fen.
async fn sale(State((seen, skew)): State<Books>) -> Json<Value> {
    let seen = seen.lock().unwrap();
    let of = |wanted: OrderState| seen.orders.iter().filter(|(_, order)| order.state() == wanted).count() as u64;
    let (paid, reserved) = (of(OrderState::Paid), of(OrderState::Reserved));
    Json(
        json!({"id": crate::common::SALE, "issued": 9, "won": paid, "paid_fen": PRICE * paid + skew, "reserved": reserved}),
    )
}

/// Enough to build the fleet's rain, sale, envelopes and books on; what the server says of money is
/// off by `skew` fen.
async fn start_admin(server: &FakeServer, skew: u64) -> String {
    async fn books(State((seen, skew)): State<Books>) -> Json<Value> {
        let won = seen.lock().unwrap().won.len() as u64;
        let state = "stopped";
        Json(json!({"id": 1, "state": state, "issued": won, "won": won, "paid_fen": 7 * won + skew, "new_field": [1]}))
    }
    async fn announce(State(everybody): State<broadcast::Sender<String>>, Json(new): Json<Value>) -> Json<Value> {
        everybody.send(new["text"].as_str().unwrap().to_owned()).unwrap();
        Json(json!({"id": 7, "sets_told": 1}))
    }
    async fn create(Json(new): Json<Value>) -> Json<Value> {
        let id = if new["kind"] == "ticket" { crate::common::SALE } else { 1 };
        Json(json!({"id": id, "seed_sha256": "00"}))
    }
    async fn deposit(State((seen, _)): State<Books>, Json(new): Json<Value>) -> Json<Value> {
        seen.lock().unwrap().deposits.push(new);
        Json(json!({"users": 40}))
    }
    let router = Router::new()
        .route("/v1/campaigns", post(create))
        .route("/v1/deposits", post(deposit))
        .route("/v1/campaigns/3", get(sale))
        .route("/v1/campaigns/3/stop", post(|| async { Json(json!({})) }))
        .route("/v1/envelope-runs/5", get(envelope_run))
        .route("/v1/campaigns/1", get(books))
        .route("/v1/campaigns/1/stop", post(|| async { Json(json!({})) }))
        .route(
            "/v1/stats",
            get(|| async {
                Json(json!({"requests": {"answered": 1}, "process": {"rss_bytes": 1_000_000, "cpu_seconds": 0.5}}))
            }),
        )
        .with_state((Arc::clone(&server.seen), skew))
        .route("/v1/envelope-runs", post(send_envelopes))
        .with_state((Arc::clone(&server.seen), server.pushes.clone()))
        .route("/v1/announcements", post(announce))
        .route(
            "/v1/announcements/7",
            get(async || Json(json!({"id": 7, "reached": 40, "dropped": 0, "seconds": 0.002}))),
        )
        .with_state(server.announcements.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

fn fleet(server: &FakeServer, directory: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao-sim"));
    command
        .args(["fleet", "--machines", "2", "--users", "40", "--settle", "100ms", "--tolerance", "50%"])
        .args(["--server", &server.address.to_string(), "--clock-budget", "500ms"])
        .arg("--journal-dir")
        .arg(directory.join("journals"))
        .args(more)
        .env("HONGBAO_SECRET", hongbao_testing::SECRET)
        .env_remove("HONGBAO_SECRET_FILE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn finish(mut command: Command) -> Output {
    tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("the fleet ends").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Processes whose arguments name `directory`.
fn processes_of(directory: &Path) -> usize {
    let named = directory.display().to_string();
    let commands = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
    commands.filter_map(|path| std::fs::read(path).ok()).filter(|command| text(command).contains(&named)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_which_all_holds_exits_0_and_writes_its_summary() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    let admin = start_admin(&server, 0).await;
    let summary = directory.path().join("summary.json");
    let arguments =
        ["--phases", "first=200x2s,400x2s", "--warm-up", "1s", "--rain", "20:7", "--admin", &admin, "--summary"];
    let mut command = fleet(&server, directory.path(), &arguments);
    command.arg(&summary);
    let output = finish(command).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("PASSED"));
    assert!(text(&output.stderr).contains("SNTP responder"));

    let summary: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert_eq!((&summary["users"], &summary["connected"]), (&json!(40), &json!(40)));
    assert!(summary["connect_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(summary["phases"].as_array().unwrap().len(), 3);
    let phase = &summary["phases"][1];
    assert_eq!((&phase["name"], &phase["qps_target"], &phase["seconds"]), (&json!("first"), &json!(200), &json!(2)));
    assert_eq!(
        (&phase["seconds_within_tolerance"], &phase["sent"], &phase["answered"]),
        (&json!(2), &json!(400), &json!(400))
    );
    for key in ["p50_ms", "p99_ms", "p999_ms", "max_ms", "send_lag_p99_ms"] {
        assert!(phase[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let books = &summary["books"];
    assert!(books["won"].as_u64().unwrap() > 50);
    assert_eq!((&books["paid_fen"], &books["residual_fen"]), (&books["received_fen"], &json!(0)));
    assert!(books["issued"].is_u64());
    assert!(summary["memory"]["server_rss_bytes_per_connection"].is_u64());
    assert!(summary["memory"]["fleet_rss_bytes_per_user"].is_u64());
    assert_eq!(server.seen.lock().unwrap().grabs.len(), 200 + 400 + 800);
    assert_eq!(processes_of(directory.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_passes_when_all_are_back_and_the_books_agree() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    let admin = start_admin(&server, 0).await;
    let summary = directory.path().join("summary.json");
    let arguments = ["--phases", "100x1s~3%,400x4s", "--storm", "30%@1s,10%@3s", "--storm-deadline", "2s"];
    let mut command = fleet(&server, directory.path(), &arguments);
    command.args(["--rain", "20:7", "--admin", &admin, "--summary"]).arg(&summary);
    let output = finish(command).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("s excluded"), "{}", text(&output.stdout));

    let summary: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    let storms = summary["storms"].as_array().unwrap();
    for (storm, (share, at_second, cut)) in storms.iter().zip([("30%", 1, 12), ("10%", 3, 4)]) {
        assert_eq!((&storm["share"], &storm["at_second"]), (&json!(share), &json!(at_second)));
        assert_eq!((&storm["cut"], &storm["back"]), (&json!(cut), &json!(cut)));
        assert!(storm["seconds_until_all_back"].as_f64().unwrap() >= 0.05);
        assert!(storm["others_requests"].as_u64().unwrap() > 200);
        assert!(storm["others_p99_ms"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(summary["reconnects"], json!(16));
    let phase = &summary["phases"][1];
    assert_eq!((&phase["sent"], &phase["answered"], &phase["seconds"]), (&json!(1_600), &json!(1_600), &json!(4)));
    let excluded = phase["storm_seconds"].as_u64().unwrap();
    assert!((2..=4).contains(&excluded), "{excluded}");
    assert_eq!(phase["seconds_within_tolerance"].as_u64().unwrap(), 4 - excluded);
    assert_eq!((&summary["phases"][0]["tolerance"], &phase["tolerance"]), (&json!("3%"), &json!("50%")));
    assert_eq!(summary["books"]["residual_fen"], json!(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_reach_every_user_once() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    let admin = start_admin(&server, 0).await;
    let summary = directory.path().join("summary.json");
    let arguments = ["--phases", "100x2s", "--announce", "3@0s/300ms", "--admin", &admin, "--summary"];
    let mut command = fleet(&server, directory.path(), &arguments);
    command.arg(&summary);
    let output = finish(command).await;
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    let summary: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert_eq!(summary["announcements_received"], json!(120));
    let announcements = summary["announcements"].as_array().unwrap();
    assert_eq!(announcements.len(), 3);
    for one in announcements {
        assert_eq!((&one["delivered"], &one["shortfall"], &one["repeated"]), (&json!(40), &json!(0), &json!(0)));
        assert!(one["first_ms"].as_f64().unwrap() <= one["last_ms"].as_f64().unwrap());
        assert_eq!(one["server"]["reached"], json!(40));
    }
}

const DEALS: [&str; 12] = [
    "--phases",
    "100x1s@grab=3+chat=1,deals=200x2s@grab=2+open=1+ticket=1",
    "--envelopes",
    "10:10:2@1s",
    "--tickets",
    "1000:500:50@1s",
    "--hold",
    "1s",
    "--statements",
    "20",
    "--rain",
    "20:7",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_envelopes_a_sale_and_chat_balances_and_shows_each() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    server.mischief.hold_ms.store(1_000, Ordering::SeqCst);
    let admin = start_admin(&server, 0).await;
    let summary = directory.path().join("summary.json");
    let mut command = fleet(&server, directory.path(), &DEALS);
    command.args(["--admin", &admin, "--summary"]).arg(&summary);
    let output = finish(command).await;
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    for words in ["envelopes at 1 s: 10 of 10 sent, 0 still open", "sale at 1 s: server sold", "chat: 25 delivered"] {
        assert!(said.contains(words), "{words}: {said}");
    }

    let summary: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    let (envelopes, sale) = (&summary["envelopes"], &summary["sale"]);
    assert_eq!((&envelopes["opened"], &envelopes["opened_fen"]), (&json!(20), &json!(30)));
    assert_eq!((&envelopes["journal_shares"], &envelopes["residual_fen"]), (&json!(20), &json!(0)));
    assert!(sale["paid"].as_u64() > Some(50), "{sale}");
    assert_eq!((&sale["paid"], &sale["journal_paid"]), (&sale["told_paid"], &sale["told_paid"]));
    assert_eq!((&sale["residual_fen"], &sale["told_waiting"]), (&json!(0), &json!(0)));
    let totals = &summary["totals"];
    assert_eq!((&totals["chat"]["received"], &totals["statements"]), (&json!(25), &json!(20)));
    assert!(totals["orders"]["expired"].as_u64() > Some(0), "{totals}");
    let names = |list: &str| {
        let list = summary[list].as_array().unwrap().iter();
        list.map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("operations"), ["chat", "grab", "open", "ticket"]);
    assert_eq!(names("reactions"), ["cancel", "open", "orders", "pay", "statement"]);
    let sent = summary["operations"].as_array().unwrap().iter().map(|one| one["sent"].as_u64().unwrap());
    assert_eq!(sent.sum::<u64>(), 100 + 400);
    let deposits = &server.seen.lock().unwrap().deposits;
    assert_eq!(deposits.len(), 1);
    assert_eq!((&deposits[0]["users"], &deposits[0]["amount_fen"]), (&json!(40), &json!(500 * 50)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fen_too_much_in_either_book_fails_the_run_with_a_line() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    server.mischief.hold_ms.store(1_000, Ordering::SeqCst);
    let admin = start_admin(&server, 1).await;
    let mut command = fleet(&server, directory.path(), &DEALS);
    command.args(["--admin", &admin]);
    let output = finish(command).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("the books over envelopes differ by 1 fen"), "{stdout}");
    assert!(stdout.contains("the books over the sale differ"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_silent_for_a_while_does_not_end_the_run() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    let mut command = fleet(&server, directory.path(), &["--phases", "20x12s"]);
    command.args(["--answer-timeout", "20s"]);
    let child = command.spawn().unwrap();
    server.until("login of all", |seen| seen.logins.len() == 40).await;
    server.until("the first requests", |seen| seen.grabs.len() > 20).await;
    let machine = machine_pids(directory.path(), child.id().unwrap())[0];
    kill(machine, Signal::SIGSTOP).unwrap();
    // Longer than a status may take: the other machine goes on meanwhile.
    server.until("seven seconds of requests", |seen| seen.grabs.len() > 20 + 70).await;
    kill(machine, Signal::SIGCONT).unwrap();
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    let said = text(&output.stdout);
    // Judged at the end: every request was sent and answered, if late.
    assert!(said.contains("240") && said.contains("memory per idle connection"), "{said}\n{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_answer_and_a_missing_fen_each_fail_the_run() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    let admin = start_admin(&server, 1).await;
    server.mischief.answer_twice.store(true, Ordering::SeqCst);
    let output =
        finish(fleet(&server, directory.path(), &["--phases", "100x1s", "--rain", "5:7", "--admin", &admin])).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("the books differ"), "{stdout}");
    assert!(stdout.contains("1 violations of the protocol by the server: duplicate_answer"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_that_cannot_be_reached_is_said_in_one_line() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    let output = finish(fleet(&server, directory.path(), &["--admin", "http://127.0.0.1:1"])).await;
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.lines().any(|line| line.contains("admin: http://127.0.0.1:1/v1/stats cannot be reached")),
        "{stderr}"
    );
    assert_eq!(processes_of(directory.path()), 0);
}

#[tokio::test]
async fn wrong_arguments_exit_2_before_anything_starts() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    for (more, said) in [
        (&["--phases", "5000"][..], "QPSxDURATION"),
        (&["--phases", "5000x20s~200%"], "is not a percentage below 100"),
        (&["--rain", "200"], "--admin"),
        (&["--announce", "1@1s"], "--admin"),
        (&["--storm", "30@1s"], "is not a percentage above 0"),
        (&["--storm", "30%@40s"], "not inside the phases, which last 40s"),
        (&["--storm", "30%@5s,5%@9s", "--storm-deadline", "5s"], "at 5 s and 9 s are nearer than --storm-deadline"),
        (&["--users", "1"], "every machine needs a user"),
        (&["--users", "4000000000"], "use at least"),
        (&["--summary", "/nonexistent/summary.json"], "its directory must exist"),
        (&["--secret-file", "/nonexistent/secret"], "/nonexistent/secret"),
        (&["--mix", "grab=1,grab=2"], "names grab twice"),
        (&["--mix", "shake=1"], "`shake` is no operation"),
        (&["--mix", "grab=0"], "some weight must be above 0"),
        (&["--mix", "ticket=1"], "ticket turns need --tickets"),
        (&["--phases", "5x5s@open=x"], "not a whole number"),
        (&["--tickets", "5"], "--admin"),
        (&["--tickets", "5", "--admin", "http://127.0.0.1:1"], "some phase's mix must have ticket turns"),
        (&["--envelopes", "5:1:501", "--admin", "http://127.0.0.1:1"], "1 to 500 users"),
        (&["--envelopes", "5@40s", "--admin", "http://127.0.0.1:1"], "not inside the phases"),
        (&["--colour"], "--colour"),
    ] {
        // A later option overrides the earlier one only where clap lets it; so these come alone.
        let mut command = Command::new(env!("CARGO_BIN_EXE_hongbao-sim"));
        command.args(["fleet", "--server", &server.address.to_string(), "--machines", "2"]).args(more);
        command.env("HONGBAO_SECRET", hongbao_testing::SECRET).env_remove("HONGBAO_SECRET_FILE");
        let output = finish(command).await;
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{more:?}: {}", text(&output.stderr));
    }
    assert!(!directory.path().join("journals").exists());
    assert!(server.seen.lock().unwrap().logins.is_empty());
}

/// All processes whose arguments name `directory`, but for the fleet itself.
fn machine_pids(directory: &Path, fleet: u32) -> Vec<Pid> {
    let named = directory.display().to_string();
    let is_machine = |entry: &std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        text(&command).contains(&named)
    };
    let machines = std::fs::read_dir("/proc").unwrap().flatten().filter(is_machine);
    let ids = machines.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id != fleet).map(|id| Pid::from_raw(i32::try_from(id).unwrap())).collect()
}

/// Descriptors of all processes whose arguments name `directory`, but for the fleet itself:
/// readable once they have ended.
fn machines_of(directory: &Path, fleet: u32) -> Vec<AsyncFd<OwnedFd>> {
    #[allow(deprecated, reason = "what it asks of its argument holds: a pidfd is one descriptor, closed when dropped")]
    let open = |pid: Pid| {
        let pid = rustix::process::Pid::from_raw(pid.as_raw()).unwrap();
        AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::empty()).unwrap(), Interest::READABLE).unwrap()
    };
    machine_pids(directory, fleet).into_iter().map(open).collect()
}

fn pid(child: &tokio::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_is_told_to_end_leaves_no_machine_behind() {
    let (server, directory) = (FakeServer::start().await, tempfile::tempdir().unwrap());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        server.seen.lock().unwrap().logins.clear();
        let mut child = fleet(&server, directory.path(), &["--phases", "100x60s"]).spawn().unwrap();
        server.until("login of all", |seen| seen.logins.len() == 40).await;
        assert_eq!(processes_of(directory.path()), 3);
        let machines = machines_of(directory.path(), child.id().unwrap());
        assert_eq!(machines.len(), 2);
        kill(pid(&child), signal).unwrap();
        let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("the fleet ends").unwrap();
        assert!(!status.success());
        for machine in machines {
            drop(tokio::time::timeout(DEADLINE, machine.readable()).await.expect("the machine ends").unwrap());
        }
    }
}
