//! One server process in a home of its own, which goes away with it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{PipeWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use hongbao_proto::token::Audience;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use reqwest::blocking::{self, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Client, SECRET, command, eventually, program, sign, until, user_token};

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
    child: Child,
    home: TempDir,
    setup: Setup,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    http: blocking::Client,
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
        let child = spawn(home.path(), &setup);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, home, setup, listen: nowhere, admin: nowhere, http: blocking::Client::new() };
        server.wait_until_ready();
        server
    }

    /// Starts again on what an earlier process left.
    pub fn start_again(&mut self) {
        fs::remove_file(self.path("ready")).unwrap();
        self.child = spawn(self.home.path(), &self.setup);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let ready = self.path("ready");
        let text = eventually("the server to be ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            fs::read_to_string(&ready).ok()
        });
        let ready: Value = serde_json::from_str(&text).unwrap();
        let address = |key: &str| ready[key].as_str().unwrap().parse().unwrap();
        (self.listen, self.admin) = (address("listen"), address("admin"));
        // A connection that the surface closes after an answer must not be taken for the next
        // request.
        self.http =
            blocking::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(20)).build().unwrap();
    }

    // ---- The process

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn ledger(&self) -> PathBuf {
        self.setup.ledger.clone().unwrap_or_else(|| self.path("ledger"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The exit code, once the process has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status: ExitStatus = eventually("the server to end", || self.child.try_wait().unwrap());
        status.code()
    }

    /// CPU time used so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Fields 14 and 15, counted from after the name in parentheses, which is the second; in
        // ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
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
        let mut request = self.http.request(method, format!("http://{}{path}", self.admin));
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
        let audit = command(program(SERVER)).arg("audit").arg("--ledger").arg(self.ledger()).output().unwrap();
        assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
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

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- the server's log\n{}",
                fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
            );
        }
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn spawn(home: &Path, setup: &Setup) -> Child {
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
    let log = match &setup.log {
        Some(pipe) => Stdio::from(pipe.try_clone().unwrap()),
        None => File::options().create(true).append(true).open(home.join("log")).unwrap().into(),
    };
    command.stdout(Stdio::null()).stderr(log).spawn().expect("the server's program can be started")
}

/// A file that nobody else can read: of any other the server warns.
pub fn write_secret(path: impl AsRef<Path>, secret: impl AsRef<[u8]>) {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(secret.as_ref()).unwrap();
}

pub fn json_of(response: Response) -> Value {
    let status = response.status();
    let text = response.text().unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}
