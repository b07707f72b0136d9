//! The floor: the cheapest thing that satisfies the same fleet. A bare epoll loop over raw system
//! calls that answers every request with canned bytes: a Login with a Welcome, anything else with
//! NoneNow, the request's id copied over. No ledger, no stock, no deadlines, no tokens checked, no
//! slow peers. What hongbao-server costs beyond this is what it does.
//!
//! More threads than cores are there for their descriptor tables: each then takes one of its own,
//! as the server's shards do where one table is too small for the connections.
//!
//! `cargo run --release --example floor -- 127.0.0.1:7400 2`
//!
//! It obeys lines on standard input, each answered with one line of JSON:
//! - `online`: how many peers have been welcomed and are still there;
//! - `announce ROUNDS BYTES`: every thread writes an announcement with a text of so many bytes to
//!   each of its peers, ROUNDS times, in a bare loop of `write`s. A write that would block is
//!   counted and not tried again.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hongbao_proto::v1::{Announcement, ServerFrame, server_frame::Event};
use hongbao_server::transport::descriptors;
use hongbao_server::transport::listener::Bound;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// Field 1 (request_id), varint.
const TAG_REQUEST_ID: u8 = 0x08;
/// Field 2 of a client frame (login), length-delimited.
const TAG_LOGIN: u8 = 0x12;
/// Welcome, field 2 of a server frame, empty but for an idle timeout (field 3) of 600,000 ms.
const WELCOME: [u8; 6] = [0x12, 0x04, 0x18, 0xC0, 0xCF, 0x24];
/// NoneNow, field 5, empty.
const NONE_NOW: [u8; 2] = [0x2A, 0x00];

/// What epoll says of the listener and of orders; peers are named by their descriptors.
const LISTENER: u64 = u64::MAX;
const ORDERS: u64 = u64::MAX - 1;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a thread is told to do.
enum Order {
    Count,
    Announce { rounds: u32, frame: Arc<[u8]> },
}

/// What a thread says when it has done it.
struct Report {
    online: u64,
    delivered: u64,
    blocked: u64,
    began: Instant,
    ended: Instant,
}

/// The main thread's end of a worker.
struct Worker {
    orders: mpsc::Sender<Order>,
    wake: Arc<EventFd>,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned()).parse()?;
    let threads: usize = arguments.next().map_or(Ok(2), |threads| threads.parse())?;
    descriptors::raise_limit();
    let private_table = threads > std::thread::available_parallelism()?.get();

    // Whatever a thread shares with this one is opened before the first of them takes a table: it
    // has one number everywhere.
    let first = Bound::new(address).and_then(Bound::listen)?;
    let address = first.local_addr()?;
    let listeners = std::iter::once(Ok(first)).chain((1..threads).map(|_| Bound::new(address).and_then(Bound::listen)));
    let prepared = listeners
        .map(|listener| Ok((listener?, Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))))
        .collect::<Result<Vec<_>, Failure>>()?;
    let (reports, inbox) = mpsc::channel();
    let mut workers = Vec::new();
    for (listener, wake) in prepared {
        let (orders, told) = mpsc::channel();
        workers.push(Worker { orders, wake: Arc::clone(&wake) });
        let thread = Thread { listener, wake, told, reports: reports.clone(), peers: Vec::new() };
        std::thread::spawn(move || {
            if let Err(error) = thread.serve(private_table) {
                eprintln!("floor: {error}");
                std::process::exit(1);
            }
        });
    }
    println!("{{\"listen\":\"{address}\"}}");
    for line in std::io::stdin().lock().lines() {
        obey(&line?, &workers, &inbox)?;
    }
    // Without anybody to give orders it serves until it is ended.
    loop {
        std::thread::park();
    }
}

/// Carries out one line of standard input.
fn obey(line: &str, workers: &[Worker], inbox: &mpsc::Receiver<Report>) -> Result<(), Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["online"] => {
            let reports = tell_all(workers, inbox, || Order::Count)?;
            println!("{{\"online\":{}}}", reports.iter().map(|report| report.online).sum::<u64>());
        }
        ["announce", rounds, bytes] => {
            let (rounds, frame) = (rounds.parse()?, announcement(bytes.parse()?));
            let before = processor_time()?;
            let reports = tell_all(workers, inbox, || Order::Announce { rounds, frame: Arc::clone(&frame) })?;
            let spent = processor_time()? - before;
            let began = reports.iter().map(|report| report.began).min();
            let ended = reports.iter().map(|report| report.ended).max();
            let seconds = began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended - began).as_secs_f64();
            println!(
                "{{\"deliveries\":{},\"would_block\":{},\"seconds\":{seconds:.6},\"cpu_seconds\":{:.6},\"frame_bytes\":{}}}",
                reports.iter().map(|report| report.delivered).sum::<u64>(),
                reports.iter().map(|report| report.blocked).sum::<u64>(),
                spent.as_secs_f64(),
                frame.len(),
            );
        }
        _ => eprintln!("floor: {line:?} is neither `online` nor `announce ROUNDS BYTES`"),
    }
    Ok(())
}

/// Gives every thread an order, and waits for all of them.
fn tell_all(
    workers: &[Worker],
    inbox: &mpsc::Receiver<Report>,
    order: impl Fn() -> Order,
) -> Result<Vec<Report>, Failure> {
    for worker in workers {
        worker.orders.send(order())?;
        worker.wake.write(1)?;
    }
    Ok(workers.iter().map(|_| inbox.recv()).collect::<Result<_, _>>()?)
}

/// The server's own frame, with a text of `bytes` bytes.
fn announcement(bytes: usize) -> Arc<[u8]> {
    let mut frame = BytesMut::new();
    let event = Some(Event::Announcement(Announcement { text: "x".repeat(bytes) }));
    hongbao_proto::frame::append(&ServerFrame { request_id: 0, event }, &mut frame);
    frame[..].into()
}

/// User and system time of this process so far.
fn processor_time() -> nix::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    Ok(micros(usage.user_time()) + micros(usage.system_time()))
}

/// A connection.
struct Peer {
    stream: TcpStream,
    /// Whether it has been welcomed.
    online: bool,
}

/// One thread: a listener and the peers it has accepted, by descriptor.
struct Thread {
    listener: TcpListener,
    wake: Arc<EventFd>,
    told: mpsc::Receiver<Order>,
    reports: mpsc::Sender<Report>,
    peers: Vec<Option<Peer>>,
}

impl Thread {
    fn serve(mut self, private_table: bool) -> Result<(), Failure> {
        if private_table {
            descriptors::unshare_table()?;
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(self.listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        epoll.add(self.wake.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, ORDERS))?;
        let mut events = vec![EpollEvent::empty(); 1_024];
        let (mut input, mut output) = (vec![0; 64 * 1024], Vec::with_capacity(64 * 1024));
        loop {
            let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.accept(&epoll)?,
                    ORDERS => self.obey()?,
                    slot => self.read(usize::try_from(slot)?, &mut input, &mut output),
                }
            }
        }
    }

    fn accept(&mut self, epoll: &Epoll) -> Result<(), Failure> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("accept: {error}; are there too few THREADS?").into()),
            };
            stream.set_nonblocking(true)?;
            let slot = usize::try_from(stream.as_raw_fd())?;
            epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, slot as u64))?;
            self.peers.resize_with(self.peers.len().max(slot + 1), || None);
            self.peers[slot] = Some(Peer { stream, online: false });
        }
    }

    fn read(&mut self, slot: usize, input: &mut [u8], output: &mut Vec<u8>) {
        let Some(peer) = self.peers[slot].as_mut() else { return };
        let stays = match peer.stream.read(input) {
            Ok(read) if read > 0 => {
                output.clear();
                peer.online |= answer(&input[..read], output);
                // The fleet reads what it is sent; a full socket buffer is beyond the floor.
                peer.stream.write_all(output).is_ok()
            }
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            Ok(_) => false,
        };
        if !stays {
            self.peers[slot] = None;
        }
    }

    fn obey(&mut self) -> Result<(), Failure> {
        self.wake.read()?;
        while let Ok(order) = self.told.try_recv() {
            let began = Instant::now();
            let (delivered, blocked) = match order {
                Order::Count => (0, 0),
                Order::Announce { rounds, frame } => self.announce(rounds, &frame),
            };
            let online = self.peers.iter().flatten().filter(|peer| peer.online).count() as u64;
            self.reports.send(Report { online, delivered, blocked, began, ended: Instant::now() })?;
        }
        Ok(())
    }

    /// Returns how many frames were written, and how many were not because the socket was full.
    fn announce(&mut self, rounds: u32, frame: &[u8]) -> (u64, u64) {
        let (mut delivered, mut blocked) = (0, 0);
        for _ in 0..rounds {
            for slot in &mut self.peers {
                let Some(peer) = slot.as_mut().filter(|peer| peer.online) else { continue };
                match peer.stream.write(frame) {
                    Ok(written) if written == frame.len() => delivered += 1,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => blocked += 1,
                    // Nothing could follow half a frame.
                    _ => *slot = None,
                }
            }
        }
        (delivered, blocked)
    }
}

/// Answers every whole frame of `input`; whether a Login was among them. The fleet's frames arrive
/// whole: they are small, and it waits for its answers.
fn answer(mut input: &[u8], output: &mut Vec<u8>) -> bool {
    let mut welcomed = false;
    while let Some((length, rest)) = varint(input) {
        let Some(frame) = rest.get(..length) else { break };
        input = &rest[length..];
        let Some((_, after_id)) = frame.strip_prefix(&[TAG_REQUEST_ID]).and_then(varint) else { break };
        let id = &frame[..frame.len() - after_id.len()];
        let login = after_id.first() == Some(&TAG_LOGIN);
        welcomed |= login;
        let canned: &[u8] = if login { &WELCOME } else { &NONE_NOW };
        output.push(u8::try_from(id.len() + canned.len()).unwrap_or(0));
        output.extend_from_slice(id);
        output.extend_from_slice(canned);
    }
    welcomed
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}
