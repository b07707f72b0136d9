//! What a SET worker costs per message, without the kernel: applying Grabs that find nothing, and
//! the batch's answers encoded, grouped and handed to wires that take everything. And what it costs
//! per connection to write to all of them.
//!
//! `cargo bench -p hongbao-server --bench set`

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hongbao_proto::{RequestId, UserId};
use hongbao_server::admission::Rate;
use hongbao_server::clock::Now;
use hongbao_server::ledger::sqlite::SqliteLedger;
use hongbao_server::ledger::writer;
use hongbao_server::set::directory::{ConnectionKey, Directory};
use hongbao_server::set::message::{ClientRequest, Control, Message};
use hongbao_server::set::payments::Wallets;
use hongbao_server::set::room_requests::RoomShards;
use hongbao_server::set::tally::SetTally;
use hongbao_server::set::{Set, SetHandle, Shared};
use hongbao_server::transport::wire::{Wire, Written};
use tokio::sync::mpsc;

const USERS: u64 = 1_000;
const BATCH: u64 = 64;

struct Sink;

impl Wire for Sink {
    fn write(&mut self, frames: &[u8]) -> Written {
        black_box(frames);
        Written::Sent
    }
    fn finish(&mut self) {}
    fn cut(&mut self) {}
    fn backlog(&mut self) -> usize {
        0
    }
    fn peer(&self) -> Option<String> {
        None
    }

    fn number(&self) -> i32 {
        0
    }
}

/// A SET of logged-in users, and their connections.
fn inhabited() -> (Set<Sink>, Vec<ConnectionKey>, Now) {
    let ledger = SqliteLedger::open_in_memory().expect("memory suffices");
    let (ledger, _, _) = writer::spawn(Box::new(ledger), || 0);
    let (inbox, mut queue) = mpsc::channel(8_192);
    let (generator, _) = mpsc::channel(1);
    let (offerings, _) = mpsc::channel(1);
    let shared = Arc::new(Shared {
        traces: Arc::default(),
        directory: Directory::default(),
        gate: None,
        logins: None,
        connection_rate: Rate::new(1_000_000_000, u32::MAX),
        payments: Box::new(Wallets(ledger.clone())),
        ledger,
        generator,
        offerings,
        room_shards: RoomShards::open(0).0,
        sets: Box::new([SetHandle { inbox, tally: Arc::new(SetTally::default()) }]),
        login_seconds: 60,
        idle_seconds: 600,
        end_at_expiry: true,
        barred: Default::default(),
    });
    let now = Now { at: 1_000_000_000, wall: 1_000 };
    let mut set = Set::new(0, Arc::clone(&shared));
    let mut keys = Vec::new();
    for user in 1..=USERS {
        let key = set.attach(Sink, &now);
        let (request, user) = (RequestId::new(1).expect("valid"), UserId::new(user).expect("valid"));
        set.apply(Message::Peer { key, request: ClientRequest::Login { request, user, expires_at: u64::MAX } }, &now);
        let reply = queue.blocking_recv().expect("the ledger replies");
        set.apply(reply, &now);
        keys.push(key);
    }
    set.flush(&now);
    (set, keys, now)
}

fn bench(criterion: &mut Criterion) {
    let (mut set, keys, now) = inhabited();
    let mut id = 1u64;
    let mut group = criterion.benchmark_group("set");
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("grab_none_now", |bencher| {
        bencher.iter_batched(
            || {
                (0..BATCH)
                    .map(|_| {
                        id += 1;
                        let key = keys[usize::try_from(id.wrapping_mul(0x9E37_79B9) % USERS).unwrap_or(0)];
                        Message::Peer {
                            key,
                            request: ClientRequest::Grab {
                                request: RequestId::new(id).expect("valid"),
                                campaign: None,
                            },
                        }
                    })
                    .collect::<Vec<_>>()
            },
            |batch| {
                for message in batch {
                    set.apply(message, &now);
                }
                set.flush(&now);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();

    let mut group = criterion.benchmark_group("broadcast");
    group.throughput(Throughput::Elements(USERS));
    let frame = Bytes::from(vec![0; 100]);
    group.bench_function("announce", |bencher| {
        bencher.iter(|| {
            set.apply(Message::Control(Control::Announce(frame.clone())), &now);
            while set.has_bulk_work() {
                set.work_in_bulk(&now);
                set.flush(&now);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
