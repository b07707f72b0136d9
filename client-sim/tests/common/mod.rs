//! A small server that speaks the protocol and misbehaves on command, and machines that run against it in threads of this
//! process.

#![allow(dead_code, missing_docs, clippy::missing_panics_doc)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use hongbao_proto::frame::Codec;
use hongbao_proto::limits::SERVER_FRAME_BYTES_MAX;
use hongbao_proto::token::{Audience, Secret, Signer, Verifier};
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ClientFrame, ServerFrame, goodbye::Reason};
use hongbao_sim::machine::config::{MachineConfig, UserRange};
use hongbao_sim::machine::{self, MachineError};
use hongbao_sim::ntp_responder::Responder;
use hongbao_sim::results::{Results, Status};
use hongbao_sim::source::{SourcePolicy, Sources};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};
use tokio_util::codec::Framed;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub fn secret() -> Secret {
    Secret::from_text("0123456789abcdef0123456789abcdef").unwrap()
}

/// What the server does differently from a good one. Each flag is taken back when it has been used once.
#[derive(Debug, Default)]
pub struct Mischief {
    /// Cuts the connection on the next Grab, without an answer.
    pub cut: AtomicBool,
    /// Answers the next Grab twice.
    pub answer_twice: AtomicBool,
    /// Answers the next Grab with a Pong.
    pub answer_wrong: AtomicBool,
    /// Sends bytes that are no frame after the next Grab.
    pub garbage: AtomicBool,
    /// Does not answer the next Grab.
    pub ignore: AtomicBool,
    /// Says goodbye after the next Grab, to return after so many milliseconds.
    pub goodbye_after_ms: AtomicU32,
    /// Says goodbye for good after the next Grab.
    pub goodbye_for_good: AtomicBool,
    /// Refuses so many Logins as overloaded.
    pub refuse_logins: AtomicU32,
    /// Reminds each user of the same prize at login.
    pub remind: AtomicBool,
}

/// What the server has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Request ids of all Grabs, in the order of their coming.
    pub grabs: Vec<(u64, u64)>,
    pub logins: HashMap<u64, Vec<Instant>>,
    pub goodbyes: HashMap<u64, Instant>,
    pub acknowledged: BTreeSet<(u32, u64)>,
    pub pings: u64,
    pub won: BTreeMap<u64, u64>,
    pub sources: BTreeSet<std::net::IpAddr>,
    /// Told after each login and each ping.
    came: Arc<Notify>,
}

pub struct FakeServer {
    pub address: SocketAddr,
    pub mischief: Arc<Mischief>,
    pub seen: Arc<Mutex<Seen>>,
    pub idle_timeout_ms: Arc<AtomicU32>,
    /// Texts that go to everybody who is logged in.
    pub announcements: broadcast::Sender<String>,
}

type Stream = Framed<TcpStream, Codec<ClientFrame, ServerFrame, SERVER_FRAME_BYTES_MAX>>;

impl FakeServer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            mischief: Arc::default(),
            seen: Arc::default(),
            idle_timeout_ms: Arc::new(AtomicU32::new(60_000)),
            announcements: broadcast::Sender::new(64),
        };
        let announcements = server.announcements.clone();
        let parts = (Arc::clone(&server.mischief), Arc::clone(&server.seen), Arc::clone(&server.idle_timeout_ms));
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (mischief, seen, idle) = parts.clone();
                seen.lock().unwrap().sources.insert(peer.ip());
                stream.set_nodelay(true).unwrap();
                let heard = announcements.subscribe();
                let stream = Stream::new(stream, Codec::default());
                tokio::spawn(async move { serve(stream, mischief, seen, idle, heard).await });
            }
        });
        server
    }

    /// Waits until logins and pings are as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Seen) -> bool) {
        let came = Arc::clone(&self.seen.lock().unwrap().came);
        let waiting = async {
            loop {
                // Listens before it looks: what comes in between is not missed.
                let mut next = std::pin::pin!(came.notified());
                next.as_mut().enable();
                if wanted(&self.seen.lock().unwrap()) {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what} did not happen"));
    }
}

fn taken(flag: &AtomicBool) -> bool {
    flag.swap(false, Ordering::SeqCst)
}

async fn serve(
    mut stream: Stream,
    mischief: Arc<Mischief>,
    seen: Arc<Mutex<Seen>>,
    idle: Arc<AtomicU32>,
    mut heard: broadcast::Receiver<String>,
) {
    let verifier = Verifier::hs256(&secret(), Audience::User);
    let mut user = 0;
    loop {
        let frame = tokio::select! {
            frame = stream.next() => frame,
            Ok(text) = heard.recv() => {
                let event = Some(Event::Announcement(v1::Announcement { text }));
                if user != 0 && stream.send(&ServerFrame { request_id: 0, event }).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(Ok(ClientFrame { request_id, request: Some(request) })) = frame else { return };
        let event = match request {
            Request::Login(login) => {
                user = verifier.verify_user(&login.token).unwrap().get();
                {
                    let mut seen = seen.lock().unwrap();
                    seen.logins.entry(user).or_default().push(Instant::now());
                    seen.came.notify_waiters();
                }
                let refuse = |left: u32| left.checked_sub(1);
                if mischief.refuse_logins.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
                    Event::Overloaded(v1::Overloaded { retry_after_ms: 20 })
                } else {
                    Event::Welcome(v1::Welcome {
                        user_id: user,
                        server_time_ms: 0,
                        idle_timeout_ms: idle.load(Ordering::SeqCst),
                        unacknowledged: 0,
                    })
                }
            }
            Request::Ping(_) => {
                {
                    let mut seen = seen.lock().unwrap();
                    seen.pings += 1;
                    seen.came.notify_waiters();
                }
                Event::Pong(v1::Pong { server_time_ms: 0 })
            }
            Request::Acknowledge(acknowledge) => {
                let mut seen = seen.lock().unwrap();
                seen.acknowledged.extend(acknowledge.prizes.iter().map(|prize| (prize.campaign_id, prize.serial)));
                Event::Acknowledged(v1::Acknowledged { count: 1 })
            }
            Request::Grab(_) => {
                let event = grab(&seen, user, request_id);
                if taken(&mischief.cut) {
                    return;
                }
                if taken(&mischief.ignore) {
                    continue;
                }
                if taken(&mischief.garbage) {
                    use tokio::io::AsyncWriteExt;
                    stream.get_mut().write_all(&[0xff; 8]).await.unwrap();
                    continue;
                }
                if taken(&mischief.answer_twice) {
                    stream.send(&ServerFrame { request_id, event: Some(event.clone()) }).await.unwrap();
                }
                if taken(&mischief.answer_wrong) {
                    let event = Some(Event::Pong(v1::Pong::default()));
                    stream.send(&ServerFrame { request_id, event }).await.unwrap();
                }
                event
            }
        };
        let is_grab =
            !matches!(event, Event::Welcome(_) | Event::Pong(_) | Event::Acknowledged(_) | Event::Overloaded(_));
        let welcome = matches!(event, Event::Welcome(_));
        if stream.send(&ServerFrame { request_id, event: Some(event) }).await.is_err() {
            return;
        }
        if welcome && mischief.remind.load(Ordering::SeqCst) {
            let won = v1::Won { campaign_id: 9, serial: user, amount_fen: 5, won_by_request_id: 77 };
            let event = Some(Event::Reminder(v1::Reminder { wins: vec![won; 2], orders: Vec::new() }));
            stream.send(&ServerFrame { request_id: 0, event }).await.unwrap();
        }
        if is_grab && let Some(return_after_ms) = goodbye_due(&mischief) {
            seen.lock().unwrap().goodbyes.insert(user, Instant::now());
            let reason = if return_after_ms.is_some() { Reason::Draining } else { Reason::Kicked };
            let event = Some(Event::Goodbye(v1::Goodbye { reason: reason.into(), return_after_ms }));
            stream.send(&ServerFrame { request_id: 0, event }).await.unwrap();
            return;
        }
    }
}

fn goodbye_due(mischief: &Mischief) -> Option<Option<u32>> {
    match mischief.goodbye_after_ms.swap(0, Ordering::SeqCst) {
        0 => taken(&mischief.goodbye_for_good).then_some(None),
        after => Some(Some(after)),
    }
}

/// Every tenth new Grab wins a prize; a repeated one gets what its first sending got.
fn grab(seen: &Mutex<Seen>, user: u64, request_id: u64) -> Event {
    let mut seen = seen.lock().unwrap();
    seen.grabs.push((user, request_id));
    if request_id.is_multiple_of(10) {
        let next = seen.won.len() as u64;
        let serial = *seen.won.entry(request_id).or_insert(next);
        return Event::Won(v1::Won { campaign_id: 1, serial, amount_fen: 7, won_by_request_id: request_id });
    }
    Event::NoneNow(v1::NoneNow {})
}

/// A machine in a thread of its own.
pub struct Machine {
    pub url: String,
    pub journal: PathBuf,
    pub directory: tempfile::TempDir,
    http: reqwest::Client,
    token: String,
    thread: JoinHandle<Result<Results, MachineError>>,
}

pub struct Ask {
    pub users: UserRange,
    pub total: u32,
    pub answer_timeout: Duration,
}

/// What a machine against `server` is asked to be.
pub fn config(server: SocketAddr, ask: Ask, ntp: String, journal: Option<PathBuf>) -> MachineConfig {
    let users = ask.users.last - ask.users.first + 1;
    MachineConfig {
        users: ask.users,
        total: ask.total,
        qps: None,
        epoch: None,
        server,
        ntp,
        name: "machine-01".into(),
        secret: secret(),
        monitor: None,
        http: "127.0.0.1:0".parse().unwrap(),
        journal,
        connect_rate: 5_000,
        pace: Duration::from_millis(1),
        coalesce: Duration::ZERO,
        core: None,
        sources: Sources::new(&SourcePolicy::Auto, server.ip(), ask.users.first.into(), users).unwrap(),
        campaign: 0,
        clock_budget: Duration::from_millis(500),
        token_ttl: Duration::from_secs(60),
        answer_timeout: ask.answer_timeout,
    }
}

impl Machine {
    pub async fn start(server: &FakeServer, users: u32) -> Self {
        let ask = Ask { users: UserRange { first: 1, last: users }, total: users, answer_timeout: DEADLINE };
        Self::start_with(server, ask).await
    }

    pub async fn start_with(server: &FakeServer, ask: Ask) -> Self {
        let responder = Responder::bind().await.unwrap();
        let ntp = responder.address().unwrap().to_string();
        tokio::spawn(responder.run());
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal.csv");
        let config = config(server.address, ask, ntp, Some(journal.clone()));
        let (ready, address) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            machine::run(config, |address| ready.send(address).unwrap(), std::future::pending())
        });
        let url = format!("http://{}", address.await.expect("the machine starts"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let token = Signer::new(&secret()).sign("test", Audience::Admin, now, 600).unwrap();
        Self { url, journal, directory, http: reqwest::Client::new(), token, thread }
    }

    pub async fn status(&self) -> Status {
        let request = self.http.get(format!("{}/v1/status", self.url)).bearer_auth(&self.token);
        request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }

    /// Waits until the status satisfies `wanted`.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what} did not happen: {status:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> reqwest::Response {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.json(&body).send().await.unwrap()
    }

    /// Holds `qps` for `seconds` from the next whole second but one on, then pauses. Returns the first second.
    pub async fn hold(&self, qps: u32, seconds: u64) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let from = now + 2;
        for (qps, at) in [(qps, from), (0, from + seconds)] {
            let response = self.post("/v1/qps", serde_json::json!({"qps": qps, "at": at})).await;
            assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        }
        from
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> reqwest::Response {
        let request = self.http.get(format!("{}{path}", self.url));
        token.into_iter().fold(request, |request, token| request.bearer_auth(token)).send().await.unwrap()
    }

    /// Stops it and returns what it saw.
    pub async fn stop(self) -> (Results, tempfile::TempDir) {
        assert_eq!(self.post("/v1/stop", serde_json::json!({})).await.status(), 202);
        let thread = self.thread;
        let results = tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap());
        (tokio::time::timeout(DEADLINE, results).await.expect("the machine ends").unwrap(), self.directory)
    }
}
