//! Processes that report to a monitor, and a server whose users the test answers itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use futures_util::{SinkExt, StreamExt};
use hongbao_proto::frame::Codec;
use hongbao_proto::limits::SERVER_FRAME_BYTES_MAX;
use hongbao_proto::token::{Audience, Signer, Verifier};
use hongbao_proto::v1::client_frame::Request as Ask;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{ClientFrame, ServerFrame, Welcome};
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::report::{Reporter, Sample, names};
pub use hongbao_testing::{secret, soon};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

pub use crate::support::Running;

/// A token of any audience, good for so many seconds.
pub fn token(subject: &str, audience: Audience, ttl: u64) -> String {
    Signer::new(&secret()).sign(subject, audience, unix_seconds(), ttl).unwrap()
}

pub fn admin() -> String {
    token("mei", Audience::Admin, 600)
}

impl Running {
    /// A sample of `/metrics`, named without its `hongbao_monitor_`.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = self.metrics().await;
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
        let token = token(name, Audience::Report, 600);
        let reporter = Reporter { control, listen, ..Reporter::new(self.ingest, token, role, name) };
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
        let who = Verifier::hs256(&secret(), Audience::User).verify_user(&login.token).unwrap().0.get();
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
