//! What one idle, logged-in connection takes from the allocator, part by part. Real connections
//! over loopback are taken in by the library's own types, in the order in which the server takes
//! them in; between the steps the thread's own count of allocated bytes is read. `scripts/memory`
//! runs it, reads what the kernel holds meanwhile, and compares the sum with the server itself.
//!
//! - `footprint server --connections N …` takes every option of hongbao-server and has as many
//!   shards, SETs and descriptor tables as the server would. It prints where it listens, then, once
//!   all are logged in and quiet, the parts.
//! - `footprint clients --server ADDR --connections N` holds the other ends.
//!
//! Both print one line of JSON for each event and end when their standard input does.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use clap::{Args, Parser};
use hongbao_proto::UserId;
use hongbao_proto::token::{Secret, Signer, Verifier};
use hongbao_proto::v1::{ClientFrame, Login, client_frame::Request};
use hongbao_server::admission::Rate;
use hongbao_server::clock::Clock;
use hongbao_server::config::{Config, Settings};
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::writer;
use hongbao_server::limits;
use hongbao_server::set::directory::{ConnectionAddress, ConnectionKey, Directory};
use hongbao_server::set::message::{Control, Message};
use hongbao_server::set::payments::Wallets;
use hongbao_server::set::room_requests::RoomShards;
use hongbao_server::set::session::Session;
use hongbao_server::set::{Set, SetHandle, Shared};
use hongbao_server::shard::reader::{self, Intake};
use hongbao_server::transport::descriptors::{self, TABLES};
use hongbao_server::transport::listener::Bound;
use hongbao_server::transport::stream::Stream;
use hongbao_server::transport::wire::SocketWire;
use hongbao_telemetry::clock::unix_seconds;
use hongbao_telemetry::credentials::load_secret;
use hongbao_telemetry::process;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Socket, Type};
use tikv_jemalloc_ctl::{epoch, stats, thread as allocator};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc as queue;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Connections taken one step further together, between two readings.
const CHUNK: usize = 64;

/// Connections that a client thread has under way: fewer than a listener's backlog, so that no
/// connect is dropped and repeated.
const UNDER_WAY: usize = 256;

/// Connections of one client thread at most.
const CLIENTS_PER_THREAD: u64 = 20_000;

/// Connections from one source address: less than half of the smallest range of ports, beyond which
/// `connect` searches long.
const CLIENTS_PER_ADDRESS: u64 = 10_000;

/// From the last login to the reading, as the fleet waits before it reads the server's memory.
const SETTLE: Duration = Duration::from_secs(3);

/// Where nothing is there to do.
const PAUSE: Duration = Duration::from_millis(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Parser)]
enum Role {
    /// Take the connections in, and say what they cost
    Server {
        #[command(flatten)]
        settings: Box<Settings>,
    },
    /// Hold the other ends
    Clients(Clients),
}

#[derive(Debug, Args)]
struct Clients {
    /// Where the server listens
    #[arg(long)]
    server: SocketAddr,
    /// How many
    #[arg(long)]
    connections: u64,
}

fn main() -> Result<(), Failure> {
    descriptors::raise_limit();
    match Role::parse() {
        Role::Server { settings } => serve(&settings.resolve(None)?)?,
        Role::Clients(clients) => connect_all(&clients)?,
    }
    // Whoever started this holds the other end, and looks at the kernel's figures meanwhile.
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

// ---- The server's side

/// Net bytes that a thread has taken from the allocator, by the step in which it did.
#[derive(Debug, Default, Clone, Copy)]
struct Parts {
    /// `TcpStream::from_std`: the runtime's record of the socket.
    registration: i64,
    /// `into_split` and `SocketWire::new`: what both halves share, and the SET's hold on the write
    /// half.
    write_side: i64,
    /// `Set::attach`: the slab with its spare room, and the queue of deadlines.
    session: i64,
    /// `spawn_local(reader::read(..))`.
    task: i64,
}

impl std::iter::Sum for Parts {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            registration: sum.registration + part.registration,
            write_side: sum.write_side + part.write_side,
            session: sum.session + part.session,
            task: sum.task + part.task,
        })
    }
}

/// The calling thread's account with the allocator.
struct Account {
    allocated: allocator::ThreadLocal<u64>,
    freed: allocator::ThreadLocal<u64>,
}

impl Account {
    fn open() -> Result<Self, Failure> {
        let error = |error| format!("the allocator keeps no statistics: {error}");
        Ok(Self {
            allocated: allocator::allocatedp::read().map_err(error)?,
            freed: allocator::deallocatedp::read().map_err(error)?,
        })
    }

    fn balance(&self) -> i64 {
        self.allocated.get().wrapping_sub(self.freed.get()).cast_signed()
    }

    /// Carries out one step and adds what it took to `part`.
    fn charge<T>(&self, part: &mut i64, step: impl FnOnce() -> T) -> T {
        let before = self.balance();
        let result = step();
        *part += self.balance() - before;
        result
    }
}

/// The process as the allocator and the kernel see it, bytes.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Usage {
    /// Asked for by the program, rounded up to size classes.
    allocated: usize,
    /// In pages that hold any of that.
    active: usize,
    /// The allocator's own books.
    metadata: usize,
    /// In pages that the allocator holds.
    resident: usize,
    /// In all pages of the process.
    rss: u64,
}

impl Usage {
    fn read() -> Result<Self, Failure> {
        let error = |error| format!("the allocator keeps no statistics: {error}");
        epoch::advance().map_err(error)?;
        Ok(Self {
            allocated: stats::allocated::read().map_err(error)?,
            active: stats::active::read().map_err(error)?,
            metadata: stats::metadata::read().map_err(error)?,
            resident: stats::resident::read().map_err(error)?,
            rss: process::resident_bytes(),
        })
    }
}

/// What every shard is given.
#[derive(Clone)]
struct Common {
    shared: Arc<Shared>,
    verifier: Arc<Verifier>,
    clock: Clock,
    accepted: Arc<AtomicU64>,
    connections: u64,
}

fn serve(config: &Config) -> Result<(), Failure> {
    let clock = Clock::start();
    let (ledger, _, _) = writer::spawn(Box::new(SqliteLedger::open_in_memory()?), || 0);
    let (handles, mut inboxes): (Vec<SetHandle>, Vec<_>) = (0..config.sets)
        .map(|_| {
            let (inbox, messages) = queue::channel(limits::SET_QUEUE_MAX);
            (SetHandle { inbox, tally: Arc::default() }, messages)
        })
        .unzip();
    let (offerings, _offered) = queue::channel(1);
    let (generator, _stock_reports) = queue::channel(limits::GENERATOR_QUEUE_MAX);
    let shared = Arc::new(Shared {
        traces: Arc::default(),
        directory: Directory::default(),
        gate: None,
        logins: None,
        connection_rate: Rate::new(config.max_connection_qps, config.max_connection_qps.saturating_mul(2)),
        payments: Box::new(Wallets(ledger.clone())),
        ledger,
        generator,
        offerings,
        room_shards: RoomShards::open(0).0,
        sets: handles.into(),
        login_seconds: config.login_seconds,
        idle_seconds: config.idle_seconds,
        end_at_expiry: true,
        barred: Default::default(),
    });
    let common = Common {
        shared,
        verifier: Arc::new(config.user_verifier.clone()),
        clock,
        accepted: Arc::default(),
        connections: config.connections,
    };

    // Everything that the threads share is open before the first takes a table of its own.
    let first = Bound::new(config.listen)?.listen()?;
    let address = first.local_addr()?;
    let built = Arc::new(Barrier::new(config.shards as usize + 1));
    let (parts, finished) = mpsc::channel();
    let sets_per_shard = config.sets / config.shards;
    let private_table = config.private_tables;
    for (index, listener) in (0..config.shards)
        .zip(std::iter::once(Ok(first)).chain(std::iter::repeat_with(|| Bound::new(address).and_then(Bound::listen))))
    {
        let shard = Shard {
            first_set: index * sets_per_shard,
            inboxes: inboxes.drain(..sets_per_shard as usize).collect(),
            listener: listener?,
            common: common.clone(),
        };
        let (built, parts) = (Arc::clone(&built), parts.clone());
        thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            if let Err(error) = shard.live(private_table, &built, &parts) {
                eprintln!("footprint: shard {index}: {error}");
                std::process::exit(1);
            }
        })?;
    }
    built.wait();
    let before = Usage::read()?;
    say(&serde_json::json!({ "listen": address, "shards": config.shards, "sets": config.sets }))?;

    let parts: Parts = (0..config.shards).map(|_| finished.recv()).collect::<Result<Vec<_>, _>>()?.into_iter().sum();
    thread::sleep(SETTLE);
    let after = Usage::read()?;
    say(&serde_json::json!({
        "connections": config.connections,
        "registration": parts.registration,
        "write_side": parts.write_side,
        "session": parts.session,
        "task": parts.task,
        "directory": directory(config)?,
        "session_struct": size_of::<Session<SocketWire>>(),
        "before": before,
        "after": after,
    }))
}

/// What the entries take: a directory of its own with as many users, since at a login it cannot be
/// told from the rest.
fn directory(config: &Config) -> Result<i64, Failure> {
    let account = Account::open()?;
    let mut taken = 0;
    let directory = account.charge(&mut taken, || -> Result<Directory, Failure> {
        let directory = Directory::default();
        for number in 1..=config.connections {
            let key = ConnectionKey { slot: u32::try_from(number)?, generation: 0 };
            directory.enter(UserId::new(number)?, ConnectionAddress { set: 0, key });
        }
        Ok(directory)
    })?;
    drop(directory);
    Ok(taken)
}

/// One shard, as far as idle connections need it.
struct Shard {
    first_set: u32,
    inboxes: Vec<queue::Receiver<Message>>,
    listener: TcpListener,
    common: Common,
}

/// A SET, its queue, and what its readers share with it.
struct Seats {
    set: Set<SocketWire>,
    inbox: queue::Receiver<Message>,
    intake: Rc<Intake>,
}

impl Shard {
    fn live(self, private_table: bool, built: &Barrier, finished: &mpsc::Sender<Parts>) -> Result<(), Failure> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())?;
        built.wait();
        if private_table {
            descriptors::unshare_table()?;
        }
        runtime.block_on(self.run(finished))
    }

    async fn run(self, finished: &mpsc::Sender<Parts>) -> Result<(), Failure> {
        let Common { shared, verifier, clock, accepted, connections } = self.common;
        let scratch = Rc::new(RefCell::new(vec![0; limits::SCRATCH_BYTES].into_boxed_slice()));
        let mut sets: Vec<Seats> = (self.first_set..)
            .zip(self.inboxes)
            .map(|(index, inbox)| {
                let handle = &shared.sets[index as usize];
                let intake = Rc::new(Intake {
                    inbox: handle.inbox.clone(),
                    refusals: RefCell::default(),
                    tally: Arc::clone(&handle.tally),
                    verifier: Arc::clone(&verifier),
                    scratch: Rc::clone(&scratch),
                });
                Seats { set: Set::new(index, Arc::clone(&shared)), inbox, intake }
            })
            .collect();
        let (account, mut parts) = (Account::open()?, Parts::default());
        let (mut fresh, mut streams) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
        let (mut turn, mut mine, mut ticked) = (0, 0, Instant::now());
        loop {
            accept(&self.listener, &mut fresh)?;
            accepted.fetch_add(fresh.len() as u64, Ordering::Relaxed);
            mine += fresh.len() as u64;
            let idle = fresh.is_empty();
            let now = clock.now();
            account.charge(&mut parts.registration, || {
                fresh.drain(..).try_for_each(|stream| {
                    streams.push(Stream::Tcp(tokio::net::TcpStream::from_std(stream)?));
                    io::Result::Ok(())
                })
            })?;
            for stream in streams.drain(..) {
                let Seats { set, intake, .. } = &mut sets[turn];
                let (read_half, wire) = account.charge(&mut parts.write_side, || {
                    let (read_half, write_half) = stream.into_split();
                    (read_half, SocketWire::new(write_half))
                });
                let key = account.charge(&mut parts.session, || set.attach(wire, &now));
                account.charge(&mut parts.task, || {
                    tokio::task::spawn_local(reader::read(read_half, key, Rc::clone(intake)));
                });
                turn = (turn + 1) % shared.sets.len().min(sets.len());
            }
            let tick = ticked.elapsed() >= Duration::from_secs(1);
            for Seats { set, inbox, .. } in &mut sets {
                while let Ok(message) = inbox.try_recv() {
                    set.apply(message, &now);
                }
                if tick {
                    ticked = Instant::now();
                    set.apply(Message::Control(Control::Tick), &now);
                }
                set.flush(&now);
            }
            if idle {
                tokio::time::sleep(PAUSE).await;
            } else {
                tokio::task::yield_now().await;
            }
            let online: u64 = sets.iter().map(|keys| keys.intake.tally.online.get()).sum();
            if online == mine && accepted.load(Ordering::Relaxed) == connections {
                break;
            }
        }
        finished.send(parts)?;
        // Idle from here on, and held until the process ends.
        std::future::pending().await
    }
}

/// Up to a chunk of what waits in the backlog.
fn accept(listener: &TcpListener, fresh: &mut Vec<TcpStream>) -> io::Result<()> {
    while fresh.len() < CHUNK {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                fresh.push(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

// ---- The clients' side

fn connect_all(clients: &Clients) -> Result<(), Failure> {
    let secret = load_secret(None)?;
    let threads = clients.connections.div_ceil(CLIENTS_PER_THREAD.min(TABLES.room(descriptors::hard_limit(), 0)));
    let (online, inbox) = mpsc::channel();
    for index in 0..threads {
        // The users are dealt out evenly.
        let (first, last) = (clients.connections * index / threads, clients.connections * (index + 1) / threads);
        let (server, secret, online) = (clients.server, secret.clone(), online.clone());
        thread::spawn(move || match connect_some(server, first..last, &secret) {
            Ok(held) => {
                // The main thread waits for every one of these.
                online.send(()).ok();
                thread::park();
                drop(held);
            }
            Err(error) => {
                eprintln!("footprint: clients {first} to {last}: {error}");
                std::process::exit(1);
            }
        });
    }
    (0..threads).try_for_each(|_| inbox.recv())?;
    say(&serde_json::json!({ "online": clients.connections }))
}

/// Connects and logs in; returns the connections, and the epoll instance that watches them as a
/// client's would.
fn connect_some(
    server: SocketAddr,
    users: std::ops::Range<u64>,
    secret: &Secret,
) -> Result<(Vec<TcpStream>, Epoll), Failure> {
    descriptors::unshare_table()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let signer = Signer::new(secret);
    let mut held: Vec<TcpStream> = Vec::new();
    let mut welcomed = 0;
    for user in users {
        // Unlike 127.0.0.1, these addresses are nobody else's, each with a range of ports to
        // itself.
        let source = u32::from(Ipv4Addr::new(127, 128, 0, 1)) + u32::try_from(user / CLIENTS_PER_ADDRESS)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into())?;
        socket.set_tcp_nodelay(true)?;
        socket.connect(&server.into())?;
        let mut stream = TcpStream::from(socket);
        stream.write_all(&login(&signer, user + 1)?)?;
        epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, user))?;
        held.push(stream);
        if held.len() - welcomed == UNDER_WAY {
            await_welcome(&held[welcomed])?;
            welcomed += 1;
        }
    }
    held[welcomed..].iter().try_for_each(await_welcome)?;
    Ok((held, epoll))
}

fn login(signer: &Signer, user: u64) -> Result<BytesMut, Failure> {
    let token = signer.sign_user(UserId::new(user)?, unix_seconds(), 3_600)?;
    let mut frame = BytesMut::new();
    let request = Some(Request::Login(Login { token }));
    hongbao_proto::frame::append(&ClientFrame { request_id: 1, request }, &mut frame);
    Ok(frame)
}

/// The server says nothing else to a user who has just logged in for the first time.
fn await_welcome(mut stream: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 256];
    if stream.read(&mut buffer)? == 0 {
        return Err(io::Error::other("the server has closed a connection"));
    }
    Ok(())
}

fn say(event: &serde_json::Value) -> Result<(), Failure> {
    writeln!(io::stdout(), "{event}")?;
    Ok(())
}
