//! A small server that speaks the protocol and misbehaves on command, and machines that run against
//! it in threads of this process.

#![allow(
    dead_code,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use hongbao_proto::frame::Codec;
use hongbao_proto::limits::SERVER_FRAME_BYTES_MAX;
use hongbao_proto::token::{Audience, Secret, Signer, Verifier};
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::movement::Kind;
use hongbao_proto::v1::order::State;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ClientFrame, ServerFrame, goodbye::Reason};
use hongbao_sim::arguments::CommonArgs;
use hongbao_sim::machine::config::{MachineArgs, MachineConfig, UserRange};
use hongbao_sim::machine::{self, MachineError};
use hongbao_sim::ntp_responder;
use hongbao_sim::results::{Results, Status};
use hongbao_sim::schedule::mix::Mix;
use hongbao_sim::source::{SourcePolicy, Sources};
use hongbao_telemetry::logs::LogArgs;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, broadcast};
use tokio_util::codec::Framed;

pub const DEADLINE: Duration = Duration::from_secs(20);

/// The sale of the server; its tickets cost so many fen.
pub const SALE: u32 = 3;
pub const PRICE: u64 = 500;

pub fn secret() -> Secret {
    hongbao_testing::secret()
}

type Change = Box<dyn FnMut(&mut Event) + Send>;

/// Changes what the server is about to answer.
#[derive(Default)]
pub struct Twist(Mutex<Option<Change>>);

impl std::fmt::Debug for Twist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Twist")
    }
}

impl Twist {
    pub fn set(&self, twist: impl FnMut(&mut Event) + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(twist));
    }

    fn apply(&self, event: &mut Event) {
        if let Some(twist) = self.0.lock().unwrap().as_mut() {
            twist(event);
        }
    }
}

/// What the server does differently from a good one. Each flag is taken back when it has been used
/// once.
#[derive(Debug, Default)]
pub struct Mischief {
    /// Applied to every answer.
    pub twist: Twist,
    /// Cuts the connection on the next Open, without an answer.
    pub cut_open: AtomicBool,
    /// Refuses so many Opens and Pays as overloaded.
    pub refuse_deals: AtomicU32,
    /// For so long a ticket is held, milliseconds; 0: a minute.
    pub hold_ms: AtomicU32,
    /// How many tickets a user may have; 0: any number.
    pub limit: AtomicU32,
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
    /// Orders by id, less one.
    pub orders: Vec<(u64, v1::Order)>,
    /// Openings of each envelope, in order.
    pub envelopes: BTreeMap<u64, Vec<(u64, u64)>>,
    /// Shares of each envelope, where they are fewer than those who ask.
    pub shares: BTreeMap<u64, usize>,
    pub opens: u64,
    /// Movements of each user, oldest first.
    pub wallets: BTreeMap<u64, Vec<v1::Movement>>,
    /// (sender, text).
    pub chats: Vec<(u64, String)>,
    /// Members and messages of each room.
    pub rooms: BTreeMap<u64, (BTreeSet<u64>, Vec<v1::ChatMessage>)>,
    /// Bodies of deposits, of tests with an admin API.
    pub deposits: Vec<serde_json::Value>,
    pub acknowledged_envelopes: BTreeSet<u64>,
    pub acknowledged_orders: Vec<u64>,
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
    /// Frames that go to one user who is logged in.
    pub pushes: Pushes,
}

pub fn wall_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Of one user.
pub type Pushed = (u64, ServerFrame);
pub type Pushes = broadcast::Sender<Pushed>;

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
            pushes: broadcast::Sender::new(16 * 1024),
        };
        let (announcements, pushes) = (server.announcements.clone(), server.pushes.clone());
        let parts = (Arc::clone(&server.mischief), Arc::clone(&server.seen), Arc::clone(&server.idle_timeout_ms));
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (mischief, seen, idle) = parts.clone();
                seen.lock().unwrap().sources.insert(peer.ip());
                stream.set_nodelay(true).unwrap();
                let heard = (announcements.subscribe(), pushes.subscribe(), pushes.clone());
                let stream = Stream::new(stream, Codec::default());
                tokio::spawn(async move { serve(stream, mischief, seen, idle, heard).await });
            }
        });
        server
    }

    /// Tells `user` something that it did not ask for.
    pub fn push(&self, user: u64, event: Event) {
        self.pushes.send((user, ServerFrame { request_id: 0, event: Some(event) })).unwrap();
    }

    /// Offers each of `users` an envelope with so many shares.
    pub fn offer(&self, users: impl Iterator<Item = u64>, envelope_id: u64, shares: usize) {
        self.seen.lock().unwrap().shares.insert(envelope_id, shares);
        for user in users {
            let offer = v1::Offer { envelope_id, shares: 1, expires_at_ms: u64::MAX, ..Default::default() };
            self.push(user, Event::Offers(v1::Offers { offers: vec![offer] }));
        }
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
    (mut heard, mut pushed, pushes): (broadcast::Receiver<String>, broadcast::Receiver<Pushed>, Pushes),
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
            Ok((to, frame)) = pushed.recv() => {
                if user != 0 && to == user && stream.send(&frame).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(Ok(ClientFrame { request_id, request: Some(request) })) = frame else { return };
        let event = match request {
            Request::Login(login) => {
                user = verifier.verify_user(&login.token).unwrap().0.get();
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
                        idle_timeout_ms: idle.load(Ordering::SeqCst),
                        ..Default::default()
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
                let named = acknowledge.prizes.len() + acknowledge.envelope_ids.len() + acknowledge.order_ids.len();
                assert!((1..=64).contains(&named), "{named} acknowledged together");
                seen.acknowledged.extend(acknowledge.prizes.iter().map(|prize| (prize.campaign_id, prize.serial)));
                seen.acknowledged_envelopes.extend(acknowledge.envelope_ids);
                seen.acknowledged_orders.extend(acknowledge.order_ids);
                Event::Acknowledged(v1::Acknowledged { count: 1 })
            }
            Request::Open(_) | Request::Pay(_) if spend(&mischief.refuse_deals) => {
                Event::Overloaded(v1::Overloaded { retry_after_ms: 20 })
            }
            Request::Open(open) => {
                if taken(&mischief.cut_open) {
                    return;
                }
                opened(&mut seen.lock().unwrap(), user, open.envelope_id)
            }
            Request::Pay(pay) => decide(&mut seen.lock().unwrap(), user, pay.order_id, State::Paid),
            Request::Cancel(cancel) => decide(&mut seen.lock().unwrap(), user, cancel.order_id, State::Cancelled),
            Request::Orders(_) => {
                let mut seen = seen.lock().unwrap();
                expire(&mut seen);
                let orders = seen.orders.iter().filter(|(owner, _)| *owner == user).map(|(_, order)| *order).collect();
                Event::OrderList(v1::OrderList { orders, more: false })
            }
            Request::Statement(statement) => page(&seen.lock().unwrap(), user, statement.before_entry_id),
            Request::Chat(chat) => say(&mut seen.lock().unwrap(), user, &chat, &pushes),
            Request::Room(room) => {
                let state = join(&mut seen.lock().unwrap(), user, &room);
                // As the server promises: nothing up to the state's offset comes after it, and
                // nothing beyond before it.
                let is_later = |frame: &ServerFrame| matches!(&frame.event, Some(Event::ChatMessage(message)) if message.offset > state.offset);
                let (mut before, mut after) = (Vec::new(), Vec::new());
                while let Ok((to, frame)) = pushed.try_recv() {
                    if to == user {
                        if is_later(&frame) { after.push(frame) } else { before.push(frame) }
                    }
                }
                let mut event = Event::RoomState(state);
                mischief.twist.apply(&mut event);
                before.push(ServerFrame { request_id, event: Some(event) });
                for frame in before.into_iter().chain(after) {
                    if stream.send(&frame).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            Request::SendEnvelope(_) | Request::InspectEnvelope(_) => Event::Error(v1::Error::default()),
            Request::Grab(v1::Grab { campaign_id: SALE }) => {
                let hold_ms = match mischief.hold_ms.load(Ordering::SeqCst) {
                    0 => 60_000,
                    hold_ms => hold_ms.into(),
                };
                ticket(&mut seen.lock().unwrap(), user, request_id, hold_ms, mischief.limit.load(Ordering::SeqCst))
            }
            Request::Grab(_) => {
                let event = grab(&seen, user, request_id);
                seen.lock().unwrap().came.notify_waiters();
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
        let mut event = event;
        mischief.twist.apply(&mut event);
        let is_grab = matches!(event, Event::Won(_) | Event::NoneNow(_));
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

/// Whether there was one left.
fn spend(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// The n-th to ask gets share n, of n + 1 fen.
fn opened(seen: &mut Seen, user: u64, envelope_id: u64) -> Event {
    seen.opens += 1;
    let shares = seen.shares.get(&envelope_id).copied().unwrap_or(usize::MAX);
    let openings = seen.envelopes.entry(envelope_id).or_default();
    let share = match openings.iter().position(|(owner, _)| *owner == user) {
        Some(share) => share,
        None if openings.len() >= shares => return Event::EnvelopeEmpty(v1::EnvelopeEmpty { envelope_id }),
        None => {
            let amount = openings.len() as u64 + 1;
            openings.push((user, amount));
            let movement = v1::Movement { envelope_id, ..movement(Kind::Open, amount as i64) };
            enter(seen, user, movement);
            seen.envelopes[&envelope_id].len() - 1
        }
    };
    let amount_fen = seen.envelopes[&envelope_id][share].1;
    Event::Opened(v1::Opened { envelope_id, share: share as u32, amount_fen })
}

fn movement(kind: Kind, amount_fen: i64) -> v1::Movement {
    v1::Movement { kind: kind.into(), amount_fen, ..Default::default() }
}

/// Every wallet begins with a deposit.
fn enter(seen: &mut Seen, user: u64, movement: v1::Movement) {
    let first = v1::Movement { entry_id: 1_000 + user, ..self::movement(Kind::Deposit, 1_000_000) };
    seen.wallets.entry(user).or_insert_with(|| vec![first]);
    let entry_id = seen.wallets.values().map(|wallet| wallet.len() as u64).sum::<u64>() + 10_000;
    seen.wallets.entry(user).or_default().push(v1::Movement { entry_id, ..movement });
}

/// Two movements a page.
fn page(seen: &Seen, user: u64, before: u64) -> Event {
    let wallet = seen.wallets.get(&user).map_or(&[][..], Vec::as_slice);
    let balance: i64 = wallet.iter().map(|movement| movement.amount_fen).sum();
    let older: Vec<_> = wallet.iter().rev().filter(|one| before == 0 || one.entry_id < before).copied().collect();
    let more = older.len() > 2;
    let movements = older.into_iter().take(2).collect();
    Event::StatementPage(v1::StatementPage { balance_fen: balance as u64, movements, more })
}

fn ticket(seen: &mut Seen, user: u64, request_id: u64, hold_ms: u64, limit: u32) -> Event {
    expire(seen);
    if let Some((_, order)) = seen.orders.iter().find(|(_, order)| order.grabbed_by_request_id == request_id) {
        return Event::Order(*order);
    }
    let held = seen.orders.iter().filter(|(owner, order)| *owner == user && order.state <= 2).count();
    if limit > 0 && held >= limit as usize {
        return Event::LimitReached(v1::LimitReached { limit });
    }
    let number = seen.orders.len() as u64;
    let order = v1::Order {
        order_id: number + 1,
        campaign_id: SALE,
        serial: number,
        state: State::Reserved.into(),
        price_fen: PRICE,
        reserved_at_ms: wall_ms(),
        pay_by_ms: wall_ms() + hold_ms,
        grabbed_by_request_id: request_id,
        ..Default::default()
    };
    seen.orders.push((user, order));
    Event::Order(order)
}

fn expire(seen: &mut Seen) {
    let now = wall_ms();
    for (_, order) in seen.orders.iter_mut().filter(|(_, one)| one.state() == State::Reserved && one.pay_by_ms <= now) {
        order.set_state(State::Expired);
        order.decided_at_ms = now;
    }
}

/// Pays or cancels.
fn decide(seen: &mut Seen, user: u64, order_id: u64, state: State) -> Event {
    expire(seen);
    let (_, order) = &mut seen.orders[order_id as usize - 1];
    if order.state() == State::Reserved {
        order.set_state(state);
        order.decided_at_ms = wall_ms();
        let order = *order;
        if state == State::Paid {
            let movement = v1::Movement { order_id, ..movement(Kind::Pay, -(PRICE as i64)) };
            enter(seen, user, movement);
        }
        return Event::Order(order);
    }
    if state == State::Paid && order.state() != State::Paid {
        return Event::TooLate(v1::TooLate { ended_at_ms: order.decided_at_ms });
    }
    Event::Order(*order)
}

fn join(seen: &mut Seen, user: u64, room: &v1::Room) -> v1::RoomState {
    let (members, messages) = seen.rooms.entry(room.room_id).or_default();
    members.insert(user);
    let recovered = room.epoch == 9;
    let missed = if recovered { messages[room.offset as usize..].to_vec() } else { Vec::new() };
    let (offset, members) = (messages.len() as u64, members.len() as u32);
    seen.came.notify_waiters();
    v1::RoomState { room_id: room.room_id, epoch: 9, offset, members, recovered, missed }
}

fn say(seen: &mut Seen, from: u64, chat: &v1::Chat, pushes: &Pushes) -> Event {
    seen.chats.push((from, chat.text.clone()));
    let mut message =
        v1::ChatMessage { from_user_id: from, room_id: chat.room_id, text: chat.text.clone(), ..Default::default() };
    let to = if chat.room_id == 0 {
        vec![chat.user_id]
    } else {
        let (members, messages) = seen.rooms.entry(chat.room_id).or_default();
        message.offset = messages.len() as u64 + 1;
        messages.push(message.clone());
        members.iter().copied().filter(|member| *member != from).collect()
    };
    let (delivered, offset) = (to.len() as u32, message.offset);
    for user in to {
        let event = Some(Event::ChatMessage(message.clone()));
        pushes.send((user, ServerFrame { request_id: 0, event })).unwrap();
    }
    Event::Receipt(v1::Receipt { delivered, offline: 0, dropped: 0, offset })
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
        if !seen.won.contains_key(&request_id) {
            let movement = v1::Movement { campaign_id: 1, serial: next, ..movement(Kind::Win, 7) };
            enter(&mut seen, user, movement);
        }
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
    let args = MachineArgs {
        users: ask.users,
        total: ask.total,
        qps: None,
        epoch: None,
        ntp,
        name: "machine-01".into(),
        http: "127.0.0.1:0".parse().unwrap(),
        journal,
        connect_rate: 5_000,
        core: None,
        source_addresses: SourcePolicy::Auto,
        campaign: 0,
        react: false,
        sale: None,
        token_ttl: Duration::from_secs(60),
        with_parent: false,
        common: CommonArgs {
            server,
            secret_file: None,
            monitor: None,
            pace: Duration::from_millis(1),
            coalesce: Duration::ZERO,
            mix: Mix::grabs(),
            rooms: 0,
            clock_budget: Duration::from_millis(500),
            answer_timeout: ask.answer_timeout,
            log: LogArgs::default(),
        },
    };
    let sources = Sources::new(&SourcePolicy::Auto, server.ip(), ask.users.first.into(), users).unwrap();
    MachineConfig { args, secret: secret(), sources }
}

impl Machine {
    pub async fn start(server: &FakeServer, users: u32) -> Self {
        let ask = Ask { users: UserRange { first: 1, last: users }, total: users, answer_timeout: DEADLINE };
        Self::start_with(server, ask).await
    }

    pub async fn start_with(server: &FakeServer, ask: Ask) -> Self {
        Self::start_changed(server, ask, |_| {}).await
    }

    /// All of `users` users, with something changed.
    pub async fn start_as(server: &FakeServer, users: u32, change: impl FnOnce(&mut MachineArgs)) -> Self {
        let ask = Ask { users: UserRange { first: 1, last: users }, total: users, answer_timeout: DEADLINE };
        Self::start_changed(server, ask, change).await
    }

    pub async fn start_changed(server: &FakeServer, ask: Ask, change: impl FnOnce(&mut MachineArgs)) -> Self {
        let ntp = ntp_responder::start().await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let journal = directory.path().join("journal.csv");
        let mut config = config(server.address, ask, ntp, Some(journal.clone()));
        change(&mut config.args);
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

    /// Asks until the status satisfies `wanted`: each round trip is a wait for the machine.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what} did not happen: {status:#?}");
        }
    }

    pub async fn post(&self, path: &str, body: serde_json::Value) -> reqwest::Response {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token);
        request.json(&body).send().await.unwrap()
    }

    /// Holds `qps` for `seconds` from the next whole second but one on, then pauses. Returns the
    /// first second.
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
