//! A monitor in this process, processes that report to it, and a server whose users the test
//! answers itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use hongbao_monitor::app::Monitor;
use hongbao_monitor::config::{Arguments, Config};
use hongbao_monitor::owner::Outcome;
use hongbao_proto::frame::Codec;
use hongbao_proto::limits::SERVER_FRAME_BYTES_MAX;
use hongbao_proto::token::{Audience, Secret, Signer, Verifier};
use hongbao_proto::v1::client_frame::Request as Ask;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{ClientFrame, ServerFrame, Welcome};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::report::{Reporter, ReporterConfig, Sample, names};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn secret() -> Secret {
    Secret::from_text(SECRET).unwrap()
}

/// A token of any audience, good for so many seconds.
pub fn token(subject: &str, audience: Audience, ttl: u64) -> String {
    Signer::new(&secret()).sign(subject, audience, unix_seconds(), ttl).unwrap()
}

pub fn admin() -> String {
    token("mei", Audience::Admin, 600)
}

/// Fails the test where something that is waited for does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

pub struct Running {
    pub ingest: SocketAddr,
    pub http: SocketAddr,
    pub record: PathBuf,
    pub client: reqwest::Client,
    stop: CancellationToken,
    task: JoinHandle<Outcome>,
    pub folder: TempDir,
}

impl Running {
    pub async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, SECRET).unwrap();
        let record = folder.path().join("recording");
        let mut arguments =
            vec!["hongbao-monitor", "--listen", "127.0.0.1:0", "--view", "none", "--stragglers", "500ms"];
        if !flags.contains(&"--http") {
            arguments.extend(["--http", "127.0.0.1:0"]);
        }
        let (record_flag, secret_flag) = (record.display().to_string(), path.display().to_string());
        arguments.extend(["--record", &record_flag, "--secret-file", &secret_flag]);
        arguments.extend(flags);
        let config = Config::checked(Arguments::try_parse_from(arguments).unwrap(), unix_seconds()).unwrap();
        let monitor = Monitor::bind(&config).await.unwrap();
        let (ingest, http, stop) = (monitor.ingest, monitor.http, CancellationToken::new());
        let stopping = stop.clone();
        let task = tokio::spawn(async move { monitor.run(stopping).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().unwrap();
        Self { ingest, http, record, client, stop, task, folder }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http.port())
    }

    pub async fn get(&self, path: &str) -> Value {
        self.client.get(self.url(path)).send().await.unwrap().json().await.unwrap()
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(self.url(path)).bearer_auth(token).json(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Asks again until it is as wanted; there is no event for it outside the monitor.
    pub async fn get_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        soon(path, async {
            loop {
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
            }
        })
        .await
    }

    /// A sample of `/metrics`, named without its `hongbao_monitor_`.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.client.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix("hongbao_monitor_")?.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    pub async fn ended(&self, reason: &str) -> u64 {
        self.metric(&format!("guests_ended_total{{reason=\"{reason}\"}}")).await
    }

    /// A process that has reported once: what it counts from now on is new.
    pub async fn reports(
        &self,
        role: &'static str,
        name: &str,
        control: Option<SocketAddr>,
        listen: Option<SocketAddr>,
    ) -> Process {
        let config = ReporterConfig {
            monitor: self.ingest,
            token: token(name, Audience::Report, 600),
            role,
            name: name.to_owned(),
        };
        let mut reporter = Reporter::new(config);
        if let Some(control) = control {
            reporter = reporter.controlled_at(control);
        }
        if let Some(listen) = listen {
            reporter = reporter.listening_at(listen);
        }
        let totals: Arc<Mutex<(u64, u64)>> = Arc::default();
        let told = Arc::clone(&totals);
        let leave = CancellationToken::new();
        let left = leave.clone().cancelled_owned();
        let task = tokio::spawn(reporter.run_until(left, move |_| {
            let (won, fen) = *told.lock().unwrap();
            let counters = vec![(names::PRIZES_WON, won), (names::PAID_FEN, fen)];
            Sample { counters: if role == names::role::SERVER { counters } else { Vec::new() }, ..Sample::default() }
        }));
        let label = name.to_owned();
        self.get_until("/api/v1/sources", |answer| {
            let of = |source: &Value| source["name"] == label.as_str() && source["reports"].as_u64() >= Some(1);
            answer["sources"].as_array().unwrap().iter().any(of)
        })
        .await;
        Process { totals, leave, task }
    }

    pub async fn stop(self) -> (Outcome, TempDir) {
        self.stop.cancel();
        (soon("the monitor to stop", self.task).await.unwrap(), self.folder)
    }
}

pub struct Process {
    /// Of a server: prizes won, and their fen.
    pub totals: Arc<Mutex<(u64, u64)>>,
    leave: CancellationToken,
    task: JoinHandle<()>,
}

impl Process {
    /// Reports its last totals and takes its leave.
    pub async fn leave(self) {
        self.leave.cancel();
        soon("a process to leave", self.task).await.unwrap();
    }
}

/// What a control surface was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub token: String,
    pub body: Value,
}

/// A control surface that takes everything with `status`.
pub async fn surface(status: StatusCode) -> (SocketAddr, mpsc::UnboundedReceiver<Asked>) {
    async fn take(
        State((status, heard)): State<(StatusCode, mpsc::UnboundedSender<Asked>)>,
        request: Request,
    ) -> Response {
        let path = request.uri().path().to_owned();
        let header = request.headers()["authorization"].to_str().unwrap().to_owned();
        let bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        let token = header.strip_prefix("Bearer ").unwrap().to_owned();
        heard.send(Asked { path, token, body: serde_json::from_slice(&bytes).unwrap() }).unwrap();
        (status, Json(json!({ "done": status.is_success() }))).into_response()
    }
    let (sender, heard) = mpsc::unbounded_channel();
    let router = Router::new().fallback(take).with_state((status, sender));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, heard)
}

/// One user's connection as a server holds it.
pub type User = Framed<TcpStream, Codec<ClientFrame, ServerFrame, SERVER_FRAME_BYTES_MAX>>;

/// A server whose every word is the test's.
pub struct Users {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Users {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next user who connects, logged in, and its id.
    pub async fn welcome(&self) -> (User, u64) {
        let (stream, _) = soon("a user to connect", self.listener.accept()).await.unwrap();
        let mut user = User::new(stream, Codec::default());
        let (id, ask) = hear(&mut user).await;
        let Ask::Login(login) = ask else { panic!("the first request is {ask:?}") };
        let who = Verifier::hs256(&secret(), Audience::User).verify_user(&login.token).unwrap().get();
        say(&mut user, id, Event::Welcome(Welcome { user_id: who, ..Welcome::default() })).await;
        (user, who)
    }
}

pub async fn hear(user: &mut User) -> (u64, Ask) {
    let frame = soon("a request", user.next()).await.expect("the user is there").unwrap();
    (frame.request_id, frame.request.unwrap())
}

pub async fn say(user: &mut User, request_id: u64, event: Event) {
    soon("a frame to be sent", user.send(&ServerFrame { request_id, event: Some(event) })).await.unwrap();
}
