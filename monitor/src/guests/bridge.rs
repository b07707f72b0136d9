//! The bridge between a browser and a server: a WebSocket on one side, a user's connection on the
//! other, the same frames on both.
//!
//! ```text
//! browser ── one ClientFrame a message ──► checked, paced ──► server
//! browser ◄── outbox, bounded by bytes ◄── guests' book and journal ◄── server
//! ```
//!
//! The server is always read on, whether or not the browser takes what it is told: a slow browser
//! ends its own connection and costs nobody else anything. When a guest leaves, the answers that
//! the server owes it are awaited, and asked for again if the server went first: a prize that was
//! won is in the users' book even if nobody saw it fall.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hongbao_proto::RequestId;
use hongbao_proto::frame::Codec;
use hongbao_proto::limits::{CLIENT_FRAME_BYTES_MAX, SERVER_FRAME_BYTES_MAX};
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{ClientFrame, Login, ServerFrame};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Framed;

use crate::access::operator::Access;
use crate::access::rate_limit::{Meter, Rate};
use crate::guests::service::{End, Guests, Unsettled};
use crate::limits::{
    GUEST_DRAIN_DEADLINE, GUEST_FRAMES_BURST, GUEST_FRAMES_INTERVAL_MS, GUEST_IDLE_DEADLINE, GUEST_LOGIN_DEADLINE,
    GUEST_OUTBOX_BYTES_MAX, GUEST_OUTBOX_FRAMES_MAX, GUEST_OWED_MAX, GUEST_SETTLE_PAUSE, GUEST_SETTLE_TRIES,
    GUEST_WRITE_DEADLINE,
};
use hongbao_telemetry::http::ApiError;

/// Of the Login with which the bridge itself asks for what a guest is owed: the largest, which no
/// page uses.
const SETTLING_LOGIN: u64 = RequestId::MAX;

/// A user's connection.
type Server = Framed<TcpStream, Codec<ServerFrame, ClientFrame, SERVER_FRAME_BYTES_MAX>>;

#[derive(Debug, Clone)]
struct Bridge {
    guests: Arc<Guests>,
    access: Arc<Access>,
}

pub fn router(guests: &Arc<Guests>, access: &Arc<Access>) -> Router {
    let bridge = Bridge { guests: Arc::clone(guests), access: Arc::clone(access) };
    Router::new().route("/api/v1/shake", get(shake)).with_state(bridge)
}

async fn shake(
    State(bridge): State<Bridge>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    bridge.access.own_page(&headers)?;
    let upgraded = upgrade
        .max_message_size(CLIENT_FRAME_BYTES_MAX)
        .max_frame_size(CLIENT_FRAME_BYTES_MAX)
        // A frame is written at once; what the socket does not take is one frame at most.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * SERVER_FRAME_BYTES_MAX)
        .on_upgrade(move |socket| serve(bridge.guests, socket));
    Ok(upgraded)
}

/// A guest, from the first frame to the last answer.
async fn serve(guests: Arc<Guests>, socket: WebSocket) {
    let (sink, mut browser) = socket.split();
    let Some(place) = guests.enter() else {
        guests.ended(End::Full);
        return close(sink, End::Full).await;
    };
    let (end, link) = match introduced(&guests, &mut browser).await {
        Ok(mut link) => {
            let (outbox, writer) = Outbox::open(sink);
            let Err(end) = relay(&guests, &mut link, &mut browser, &outbox).await;
            guests.ended(end);
            outbox.close(end);
            drop(browser);
            let drained = drain(&guests, &mut link);
            // The browser has its own deadlines; neither waits for the other.
            if let (Err(error), ()) = tokio::join!(writer, drained) {
                tracing::error!(event = "guest_writer_failed", %error, "a guest's writer failed");
            }
            (end, link)
        }
        Err(end) => {
            guests.ended(end);
            return close(sink, end).await;
        }
    };
    tracing::debug!(
        event = "guest_ended",
        user = link.user,
        end = end.label(),
        owed = link.owed.len(),
        "a guest's connection has ended"
    );
    let Link { user, token, owed, .. } = link;
    if !owed.is_empty() {
        guests.leave_unsettled(user, Unsettled { token, owed });
        settle(&guests, user).await;
    }
    drop(place);
}

/// A guest's connection to the server.
struct Link {
    user: u64,
    token: String,
    server: Option<Server>,
    /// Requests whose answer may tell of money.
    owed: HashMap<u64, ClientFrame>,
    /// Of an earlier connection, to be sent again once this one is welcome.
    again: Vec<ClientFrame>,
}

/// The first frame, a good Login, and the server that it goes to.
async fn introduced(guests: &Guests, browser: &mut SplitStream<WebSocket>) -> Result<Link, End> {
    let first = tokio::select! {
        first = timeout(GUEST_LOGIN_DEADLINE, browser.next()) => first.map_err(|_| End::Stranger)?,
        () = guests.stop.cancelled() => return Err(End::Stopping),
    };
    let login = frame_of(first)?.ok_or(End::Stranger)?;
    let Some(Request::Login(Login { token })) = &login.request else { return Err(End::Stranger) };
    let (user, token) = (guests.guest(token).ok_or(End::Stranger)?, token.clone());
    if !guests.open_book() {
        return Err(End::Books);
    }
    let address = guests.server().await.ok_or(End::NoServer)?;
    let mut server = connect(address).await.map_err(|error| {
        tracing::info!(event = "guest_serverless", %address, %error, "no server for a guest");
        End::NoServer
    })?;
    send(&mut server, &login).await.map_err(|_| End::NoServer)?;
    let again = guests.take_unsettled(user).map(|unsettled| unsettled.owed.into_values().collect());
    Ok(Link { user, token, server: Some(server), owed: HashMap::new(), again: again.unwrap_or_default() })
}

async fn connect(address: SocketAddr) -> io::Result<Server> {
    let stream = timeout(GUEST_LOGIN_DEADLINE, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(Framed::new(stream, Codec::default()))
}

async fn send(server: &mut Server, frame: &ClientFrame) -> Result<(), ()> {
    match timeout(GUEST_WRITE_DEADLINE, server.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

/// What a message of the browser says; nothing: it was about the WebSocket itself.
fn frame_of(message: Option<Result<Message, axum::Error>>) -> Result<Option<ClientFrame>, End> {
    match message {
        Some(Ok(Message::Binary(bytes))) => {
            let frame = ClientFrame::decode(bytes).map_err(|_| End::Malformed)?;
            RequestId::new(frame.request_id).map_err(|_| End::Malformed)?;
            Ok(Some(frame))
        }
        Some(Ok(Message::Text(_))) => Err(End::Text),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Ok(Message::Close(_))) | None => Err(End::Left),
        // The library has one error for all; it says which in words.
        Some(Err(error)) if error.to_string().contains("too long") => Err(End::TooLong),
        Some(Err(_)) => Err(End::Left),
    }
}

/// Whether guests may ask for this, and whether the answer may tell of money.
fn is_about_money(request: Option<&Request>) -> Result<bool, End> {
    match request {
        Some(Request::Grab(_) | Request::Open(_) | Request::Pay(_) | Request::Cancel(_)) => Ok(true),
        Some(
            Request::Ping(_)
            | Request::Acknowledge(_)
            | Request::Orders(_)
            | Request::Statement(_)
            | Request::InspectEnvelope(_),
        ) => Ok(false),
        // What a million others would read, and their money.
        Some(Request::Chat(_) | Request::Room(_) | Request::SendEnvelope(_)) => Err(End::Forbidden),
        // A second Login may name somebody else.
        Some(Request::Login(_)) | None => Err(End::Malformed),
    }
}

/// Both ways, until either end is over.
async fn relay(
    guests: &Guests,
    link: &mut Link,
    browser: &mut SplitStream<WebSocket>,
    outbox: &Outbox,
) -> Result<Infallible, End> {
    let begun = Instant::now();
    let rate = Rate { burst: GUEST_FRAMES_BURST, interval_ms: GUEST_FRAMES_INTERVAL_MS };
    let mut meter = Meter::default();
    let mut heard = Instant::now();
    loop {
        let server = link.server.as_mut().ok_or(End::ServerEnded)?;
        tokio::select! {
            // What the server has said is written down before anything else.
            biased;
            frame = server.next() => match frame {
                Some(Ok(frame)) => {
                    on_frame(guests, link, &frame).await?;
                    if !outbox.push(&frame) {
                        return Err(End::Slow);
                    }
                }
                Some(Err(_)) | None => {
                    link.server = None;
                    return Err(End::ServerEnded);
                }
            },
            () = guests.stop.cancelled() => return Err(End::Stopping),
            () = outbox.failed() => return Err(End::Slow),
            message = browser.next() => {
                heard = Instant::now();
                let frame = frame_of(message)?;
                // A flood of what is no frame costs as much as one of frames.
                if !meter.take(rate, millis(begun)) || (frame.is_some() && link.owed.len() >= GUEST_OWED_MAX) {
                    return Err(End::TooFast);
                }
                let Some(frame) = frame else { continue };
                if is_about_money(frame.request.as_ref())? {
                    link.owed.insert(frame.request_id, frame.clone());
                }
                if send(server, &frame).await.is_err() {
                    link.server = None;
                    return Err(End::ServerEnded);
                }
            }
            () = tokio::time::sleep_until(heard + GUEST_IDLE_DEADLINE) => return Err(End::Idle),
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A frame came from the server: into the book first.
async fn on_frame(guests: &Guests, link: &mut Link, frame: &ServerFrame) -> Result<(), End> {
    let asked = link.owed.remove(&frame.request_id);
    let is_shake = asked.is_some_and(|asked| matches!(asked.request, Some(Request::Grab(_))));
    if !guests.receive(link.user, frame, is_shake) {
        return Err(End::Books);
    }
    if matches!(frame.event, Some(Event::Welcome(_))) {
        for frame in std::mem::take(&mut link.again) {
            let Some(server) = &mut link.server else { break };
            link.owed.insert(frame.request_id, frame.clone());
            if send(server, &frame).await.is_err() {
                link.server = None;
                return Err(End::ServerEnded);
            }
        }
    }
    Ok(())
}

/// The guest is gone: what the server owes it still comes in.
async fn drain(guests: &Guests, link: &mut Link) {
    let answers = async {
        while !link.owed.is_empty() {
            let Some(server) = &mut link.server else { return };
            match server.next().await {
                Some(Ok(frame)) if on_frame(guests, link, &frame).await.is_ok() => {}
                _ => link.server = None,
            }
        }
    };
    if timeout(GUEST_DRAIN_DEADLINE, answers).await.is_err() {
        tracing::debug!(
            event = "guest_answers_late",
            user = link.user,
            owed = link.owed.len(),
            "answers to a guest who left did not come in time"
        );
    }
    // What was never sent again is owed as well.
    link.owed.extend(std::mem::take(&mut link.again).into_iter().map(|frame| (frame.request_id, frame)));
    link.server = None;
}

/// Logs in once more in the guest's place and asks for what it was owed. A request that is repeated
/// gets its first answer.
async fn settle(guests: &Guests, user: u64) {
    for _ in 0..GUEST_SETTLE_TRIES {
        tokio::select! {
            () = sleep(GUEST_SETTLE_PAUSE) => {}
            () = guests.stop.cancelled() => {}
        }
        // If the guest is back, its own connection has taken it over.
        let Some(Unsettled { token, owed }) = guests.take_unsettled(user) else { return };
        let Some(server) = async { connect(guests.server().await?).await.ok() }.await else {
            guests.leave_unsettled(user, Unsettled { token, owed });
            if guests.stop.is_cancelled() {
                break;
            }
            continue;
        };
        let again = owed.into_values().collect();
        let mut link = Link { user, token, server: Some(server), owed: HashMap::new(), again };
        let login = Request::Login(Login { token: link.token.clone() });
        let login = ClientFrame { request_id: SETTLING_LOGIN, request: Some(login) };
        link.owed.insert(SETTLING_LOGIN, login.clone());
        if let Some(server) = &mut link.server
            && send(server, &login).await.is_err()
        {
            link.server = None;
        }
        drain(guests, &mut link).await;
        link.owed.remove(&SETTLING_LOGIN);
        if link.owed.is_empty() {
            return;
        }
        guests.leave_unsettled(user, Unsettled { token: link.token, owed: link.owed });
        if guests.stop.is_cancelled() {
            break;
        }
    }
    if let Some(Unsettled { owed, .. }) = guests.take_unsettled(user) {
        tracing::warn!(
            event = "guest_untold",
            user,
            owed = owed.len(),
            "a guest left, and what the server owed it was not told"
        );
    }
}

/// What waits for the browser, and the task that writes it.
struct Outbox {
    frames: mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    bytes: Arc<Semaphore>,
    end: oneshot::Sender<End>,
}

impl Outbox {
    fn open(sink: SplitSink<WebSocket, Message>) -> (Self, tokio::task::JoinHandle<()>) {
        let (frames, waiting) = mpsc::channel(GUEST_OUTBOX_FRAMES_MAX);
        let (end, ended) = oneshot::channel();
        let writer = tokio::spawn(write(sink, waiting, ended));
        (Self { frames, bytes: Arc::new(Semaphore::new(GUEST_OUTBOX_BYTES_MAX)), end }, writer)
    }

    /// False: it is full, or nobody writes any more.
    #[must_use]
    fn push(&self, frame: &ServerFrame) -> bool {
        let bytes = Bytes::from(frame.encode_to_vec());
        let size = u32::try_from(bytes.len().max(1)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.bytes).try_acquire_many_owned(size) else { return false };
        self.frames.try_send((bytes, room)).is_ok()
    }

    /// Completes when the browser takes no more.
    async fn failed(&self) {
        self.frames.closed().await;
    }

    /// Nothing more is written but what waits, and then why it is over.
    fn close(self, end: End) {
        if self.end.send(end).is_err() {
            tracing::debug!(event = "browser_gone", end = end.label(), "the browser was gone before it was told");
        }
    }
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut waiting: mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>,
    ended: oneshot::Receiver<End>,
) {
    while let Some((bytes, room)) = waiting.recv().await {
        match timeout(GUEST_WRITE_DEADLINE, sink.send(Message::Binary(bytes))).await {
            Ok(Ok(())) => drop(room),
            Ok(Err(_)) | Err(_) => {
                waiting.close();
                break;
            }
        }
    }
    if let Ok(end) = ended.await {
        close(sink, end).await;
    }
}

/// Says why. A browser that has gone need not hear it.
async fn close(mut sink: SplitSink<WebSocket, Message>, end: End) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let told = async {
        // One who has said so itself gets the library's answer to that.
        if end != End::Left {
            let why = CloseFrame { code: end.code(), reason: end.label().into() };
            sink.send(Message::Close(Some(why))).await?;
        }
        sink.close().await
    };
    match timeout(PATIENCE, told).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => {
            tracing::debug!(event = "browser_deaf", end = end.label(), "a browser did not take why it was closed")
        }
    }
}
