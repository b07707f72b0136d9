//! A peer: speaks frames, or any bytes at all.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hongbao_proto::frame::{self, Split, split};
use hongbao_proto::limits::SERVER_FRAME_BYTES_MAX;
use hongbao_proto::v1::client_frame::Request;
use hongbao_proto::v1::goodbye::Reason;
use hongbao_proto::v1::server_frame::Event;
use hongbao_proto::v1::{self, ClientFrame, ErrorCode, ServerFrame};
use prost::Message;
use socket2::{Domain, SockRef, Socket, Type};

use crate::{PATIENCE, eventually};

/// One for all: ids of a user increase over its connections, too.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A request id above all earlier ones.
pub fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

/// What reading came to.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Frame(ServerFrame),
    /// The stream has ended, in order or not.
    End,
    /// Nothing in time.
    Silence,
}

/// How a connection ended, as its peer saw it.
#[derive(Debug, Default, PartialEq)]
pub struct Ending {
    /// Typed errors, with the request that each answers.
    pub errors: Vec<(u64, ErrorCode)>,
    pub goodbye: Option<Reason>,
    pub return_after_ms: Option<u32>,
}

impl Ending {
    pub fn with(request_id: u64, code: ErrorCode, goodbye: Reason) -> Self {
        Self { errors: vec![(request_id, code)], goodbye: Some(goodbye), return_after_ms: None }
    }

    pub fn goodbye(reason: Reason) -> Self {
        Self { goodbye: Some(reason), ..Self::default() }
    }
}

pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    /// Pushes that came while an answer was awaited.
    pub pushes: Vec<Event>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the server takes connections")
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self::over(TcpStream::connect(address)?))
    }

    /// A peer whose kernel keeps little of what it does not read.
    pub fn connect_narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).expect("the server takes connections");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, unread: Vec::new(), pushes: Vec::new() }
    }

    // ---- Saying

    /// Any bytes. The peer may have hung up already: then nobody hears them.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                panic!("cannot write: {error}")
            }
            _ => {}
        }
    }

    pub fn send(&mut self, request_id: u64, request: Request) {
        self.send_raw(&framed(request_id, request));
    }

    /// Sends a request under a new id and waits for its answer.
    pub fn ask(&mut self, request: Request) -> Event {
        self.ask_as(next_id(), request)
    }

    /// Sends a request and waits for the answer with its id.
    pub fn ask_as(&mut self, request_id: u64, request: Request) -> Event {
        self.send(request_id, request);
        self.answer(request_id)
    }

    pub fn ping(&mut self) {
        let answer = self.ask(Request::Ping(v1::Ping {}));
        assert!(matches!(answer, Event::Pong(_)), "a ping was answered {answer:?}");
    }

    pub fn login(&mut self, token: &str) -> v1::Welcome {
        match self.ask(login(token)) {
            Event::Welcome(welcome) => welcome,
            other => panic!("a good login was answered {other:?}"),
        }
    }

    pub fn grab(&mut self, campaign_id: u32) -> Event {
        self.ask(grab(campaign_id))
    }

    /// Shakes until a prize is won; returns it with the request that won it.
    pub fn win(&mut self, campaign_id: u32) -> (u64, v1::Won) {
        eventually("a prize to be won", || {
            let request_id = next_id();
            match self.ask_as(request_id, grab(campaign_id)) {
                Event::Won(won) => {
                    assert_eq!(won.won_by_request_id, request_id);
                    Some((request_id, won))
                }
                // Not told to every SET yet, not due yet, or somebody was faster.
                Event::TooEarly(_) | Event::NoneNow(_) => None,
                Event::Error(error) if error.code() == ErrorCode::NoSuchCampaign => None,
                other => panic!("a Grab was answered {other:?}"),
            }
        })
    }

    pub fn acknowledge(&mut self, prizes: &[(u32, u64)]) -> Event {
        self.ask(acknowledge(prizes))
    }

    // ---- Hearing

    /// The next frame, if one comes within `patience`.
    pub fn hear(&mut self, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        loop {
            if let Split::Frame { payload, consumed } =
                split(&self.unread, SERVER_FRAME_BYTES_MAX).expect("a good frame")
            {
                let frame = ServerFrame::decode(payload).expect("a good message");
                self.unread.drain(..consumed);
                return Heard::Frame(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Heard::End,
                Ok(read) => self.unread.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    return Heard::End;
                }
                Err(error) => panic!("cannot read: {error}"),
            }
        }
    }

    pub fn frame(&mut self) -> ServerFrame {
        match self.hear(PATIENCE) {
            Heard::Frame(frame) => frame,
            other => panic!("instead of a frame: {other:?}"),
        }
    }

    /// The answer with this id; pushes before it are kept.
    pub fn answer(&mut self, request_id: u64) -> Event {
        loop {
            let frame = self.frame();
            let event = frame.event.expect("no frame is without an event");
            if frame.request_id == request_id {
                return event;
            }
            assert_eq!(frame.request_id, 0, "an answer that nobody asked for: {event:?}");
            assert!(!matches!(event, Event::Goodbye(_)), "dismissed while waiting for an answer: {event:?}");
            self.pushes.push(event);
        }
    }

    /// The next push for which `pick` returns something, kept or yet to come.
    pub fn push<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        for index in 0..self.pushes.len() {
            if let Some(picked) = pick(&self.pushes[index]) {
                self.pushes.remove(index);
                return picked;
            }
        }
        loop {
            let frame = self.frame();
            assert_eq!(frame.request_id, 0, "an answer that nobody asked for: {frame:?}");
            let event = frame.event.expect("no frame is without an event");
            if let Some(picked) = pick(&event) {
                return picked;
            }
            self.pushes.push(event);
        }
    }

    /// Reads to the end of the stream. Campaign notices and other answers on the way are passed
    /// over.
    pub fn ending(&mut self) -> Ending {
        let mut ending = Ending::default();
        loop {
            match self.hear(PATIENCE) {
                Heard::End => return ending,
                Heard::Silence => panic!("the server did not end the connection; so far: {ending:?}"),
                Heard::Frame(ServerFrame { request_id, event }) => match event {
                    Some(Event::Error(error)) => {
                        assert!(!error.message.is_empty());
                        ending.errors.push((request_id, error.code()));
                    }
                    Some(Event::Goodbye(goodbye)) => {
                        assert_eq!(request_id, 0);
                        assert_eq!(ending.goodbye, None, "two goodbyes");
                        ending.goodbye = Some(goodbye.reason());
                        ending.return_after_ms = goodbye.return_after_ms;
                    }
                    _ => assert_eq!(ending.goodbye, None, "a goodbye is the last frame"),
                },
            }
        }
    }

    // ---- Leaving

    /// Closes our side: nothing more is sent, and what was asked for is still to come.
    pub fn close_write(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Breaks the connection off: the server gets a reset, not an end.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub fn framed(request_id: u64, request: Request) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame::append(&ClientFrame { request_id, request: Some(request) }, &mut bytes);
    bytes
}

pub fn login(token: &str) -> Request {
    Request::Login(v1::Login { token: token.to_owned() })
}

pub fn grab(campaign_id: u32) -> Request {
    Request::Grab(v1::Grab { campaign_id })
}

pub fn acknowledge(prizes: &[(u32, u64)]) -> Request {
    let prizes = prizes.iter().map(|&(campaign_id, serial)| v1::PrizeId { campaign_id, serial }).collect();
    Request::Acknowledge(v1::Acknowledge { prizes, ..Default::default() })
}

/// The code of an error answer.
pub fn code(event: &Event) -> ErrorCode {
    match event {
        Event::Error(error) => error.code(),
        other => panic!("instead of an error: {other:?}"),
    }
}
