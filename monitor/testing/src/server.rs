//! One server process in a home of its own, which goes away with it.

use std::ffi::OsString;
use std::fs;
use std::io::PipeWriter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use hongbao_proto::token::Audience;
use nix::sys::signal::Signal;
use reqwest::Method;
use reqwest::blocking::{self, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use crate::programs::write_secret;
use crate::{Client, PATIENCE, Running, SECRET, command, output, program, sign, until, user_token};

const SERVER: &str = "hongbao-server";

/// What differs from an ordinary start.
#[derive(Default)]
pub struct Setup {
    /// Added to the usual ones.
    pub flags: Vec<String>,
    /// `ulimit -n`, hard and soft.
    pub descriptors: Option<u32>,
    /// Where the ledger is; its own home, if absent.
    pub ledger: Option<PathBuf>,
    pub environment: Vec<(&'static str, OsString)>,
    /// Where it logs; a file in its home, if absent.
    pub log: Option<PipeWriter>,
}

pub struct Server {
    process: Running,
    home: TempDir,
    setup: Setup,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// Made when it is needed: it must not be where a test is async.
    http: OnceLock<blocking::Client>,
}

impl Server {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(flags: &[&str]) -> Self {
        Self::set_up(Setup { flags: flags.iter().map(|&flag| flag.to_owned()).collect(), ..Setup::default() })
    }

    pub fn set_up(setup: Setup) -> Self {
        let home = tempfile::Builder::new().prefix("hongbao-server-").tempdir().unwrap();
        write_secret(home.path().join("secret"), SECRET);
        let process = spawn(home.path(), &setup);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { process, home, setup, listen: nowhere, admin: nowhere, http: OnceLock::new() };
        server.wait_until_ready();
        server
    }

    /// Starts again on what an earlier process left.
    pub fn start_again(&mut self) {
        fs::remove_file(self.path("ready")).unwrap();
        self.process = spawn(self.home.path(), &self.setup);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let ready = self.process.ready(&self.home.path().join("ready"));
        let address = |key: &str| ready[key].as_str().unwrap().parse().unwrap();
        (self.listen, self.admin) = (address("listen"), address("admin"));
    }

    fn http(&self) -> &blocking::Client {
        // A connection that the surface closes after an answer must not be taken for the next
        // request.
        let client = || blocking::Client::builder().pool_max_idle_per_host(0).timeout(PATIENCE).build().unwrap();
        self.http.get_or_init(client)
    }

    // ---- The process

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn ledger(&self) -> PathBuf {
        self.setup.ledger.clone().unwrap_or_else(|| self.path("ledger"))
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The exit code, once the process has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.end().code()
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.pid())).unwrap();
        // Fields 14 and 15, counted from after the name in parentheses, which is the second; in
        // ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).unwrap().count()
    }

    // ---- Peers

    pub fn connect(&self) -> Client {
        Client::connect(self.listen)
    }

    pub fn login(&self, user: u64) -> Client {
        let mut client = self.connect();
        let welcome = client.login(&user_token(user));
        assert_eq!(welcome.user_id, user);
        client
    }

    // ---- Operators

    pub fn call_as(&self, token: Option<&str>, method: Method, path: &str, body: Option<&Value>) -> Response {
        let mut request = self.http().request(method, format!("http://{}{path}", self.admin));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.body(body.to_string()).header("content-type", "application/json");
        }
        request.send().expect("the admin surface answers")
    }

    pub fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Response {
        self.call_as(Some(&sign("tests", Audience::Admin)), method, path, body)
    }

    pub fn get(&self, path: &str) -> Value {
        json_of(self.call(Method::GET, path, None))
    }

    pub fn stats(&self) -> Value {
        self.get("/v1/stats")
    }

    /// A sample of `/metrics`, named without its `hongbao_server_`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.call_as(None, Method::GET, "/metrics", None).text().unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix("hongbao_server_")?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    pub fn errors(&self, code: &str) -> u64 {
        self.metric(&format!("errors_total{{code=\"{code}\"}}"))
    }

    pub fn ended(&self, reason: &str) -> u64 {
        self.metric(&format!("connections_ended_total{{reason=\"{reason}\"}}"))
    }

    pub fn answers(&self, kind: &str) -> u64 {
        self.metric(&format!("answers_total{{kind=\"{kind}\"}}"))
    }

    /// Creates a campaign of kind rain; `terms` add to, or replace, the usual ones. Returns its id.
    pub fn rain(&self, total: u64, rate_per_second: u32, terms: &Value) -> u32 {
        let mut body = json!({"kind": "rain", "total": total, "rate_per_second": rate_per_second, "min_fen": 100});
        for (key, value) in terms.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let campaign = json_of(self.call(Method::POST, "/v1/campaigns", Some(&body)));
        u32::try_from(campaign["id"].as_u64().unwrap()).unwrap()
    }

    /// Creates a sale; returns its id.
    pub fn sale(&self, terms: &Value) -> u32 {
        let campaign = json_of(self.call(Method::POST, "/v1/campaigns", Some(terms)));
        u32::try_from(campaign["id"].as_u64().unwrap()).unwrap()
    }

    /// Puts money into the wallets of `users` users from `first` on.
    pub fn deposit(&self, first: u64, users: u64, amount_fen: u64, key: &str) {
        let body = json!({"first_user": first, "users": users, "amount_fen": amount_fen, "key": key});
        json_of(self.call(Method::POST, "/v1/deposits", Some(&body)));
    }

    pub fn campaign(&self, id: u32) -> Value {
        self.get(&format!("/v1/campaigns/{id}"))
    }

    /// Returns the announcement's id.
    pub fn announce(&self, text: &str) -> u64 {
        let response = self.call(Method::POST, "/v1/announcements", Some(&json!({ "text": text })));
        assert_eq!(response.status(), 202);
        let begun = json_of(response);
        assert_eq!(begun["sets_dropped"], 0, "{begun}");
        begun["id"].as_u64().unwrap()
    }

    /// Stops the server in order, and has the audit find nothing in its ledger.
    pub fn stop_and_audit(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.exit_code(), Some(0), "{}", self.log());
        self.audit(&[]);
    }

    /// Has the audit find nothing in the ledger of a server that has ended, with `journals` held
    /// against it; what it says.
    pub fn audit(&self, journals: &[PathBuf]) -> String {
        let mut audit = command(program(SERVER));
        audit.arg("audit").arg("--ledger").arg(self.ledger());
        for journal in journals {
            audit.arg("--journal").arg(journal);
        }
        let (good, said) = output(&mut audit);
        assert!(good, "{said}");
        said
    }

    /// 200 or 503.
    pub fn readyz(&self) -> u16 {
        self.call_as(None, Method::GET, "/readyz", None).status().as_u16()
    }

    /// Whatever happened: every request was answered, every equation holds, every prize is
    /// accounted for.
    pub fn check_books(&self) {
        let mut stats = Value::Null;
        until("the books to come to rest", || {
            stats = self.stats();
            let (requests, prizes) = (&stats["requests"], &stats["prizes"]);
            let sum = |keys: &[&str]| keys.iter().map(|key| prizes[*key].as_u64().unwrap()).sum::<u64>();
            requests["owed"] == 0
                && requests["received"] == requests["answered"]
                && prizes["issued"] == sum(&["claimed", "in_sets", "in_flight", "in_transit", "returned", "void"])
                && prizes["in_flight"] == 0
        });
        assert_eq!(stats["requests"]["broken_equations"], 0, "{stats}");
        assert_eq!((&stats["prizes"]["residual"], &stats["prizes"]["void"]), (&json!(0), &json!(0)), "{stats}");
    }
}

fn spawn(home: &Path, setup: &Setup) -> Running {
    let mut command = match setup.descriptors {
        None => command(program(SERVER)),
        Some(descriptors) => {
            let mut shell = command("sh");
            shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")]).arg(program(SERVER));
            shell
        }
    };
    let ledger = setup.ledger.clone().unwrap_or_else(|| home.join("ledger"));
    let given = |flag: &str| setup.flags.iter().any(|given| given == flag);
    for flag in ["--listen", "--admin"] {
        if !given(flag) {
            command.args([flag, "127.0.0.1:0"]);
        }
    }
    command.arg("--ledger").arg(ledger).arg("--secret-file").arg(home.join("secret"));
    command.arg("--ready-file").arg(home.join("ready"));
    if !given("--shards") {
        command.args(["--shards", "2", "--sets", "4"]);
    }
    command.args(&setup.flags);
    command.envs(setup.environment.iter().cloned());
    let log = home.join("log");
    match &setup.log {
        Some(pipe) => Running::spawn(command.stderr(pipe.try_clone().unwrap()), log),
        None => Running::start(&mut command, log),
    }
}

pub fn json_of(response: Response) -> Value {
    let status = response.status();
    let text = response.text().unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}
