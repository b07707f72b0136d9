//! The server as a stranger meets it: a real process, real sockets, and everything that a peer, an
//! operator or a host can do to it. Whatever is done, the same must hold: the peer is told in typed
//! words, it is counted, nobody else notices, and the books balance.

mod admin;
mod announcements;
mod campaigns;
mod chat;
mod check;
mod cores;
mod crowds;
mod envelopes;
mod fleet_kills;
mod framing;
mod kills;
mod ledger_faults;
mod login;
mod login_rate;
mod logs;
mod mixed_kills;
mod monitor_away;
mod overload;
mod python_client;
mod repeats;
mod resets;
mod sales;
mod slow;
mod start;
mod stop;
mod tables;
mod trace;

use std::collections::BTreeSet;
use std::time::Duration;

use hongbao_proto::v1::client_frame::Request;
use hongbao_testing::client::framed;
use hongbao_testing::{Client, Heard, Server};

/// Floods the server from `peers` users who send `each` requests, `batch` at once, while a bystander
/// is served: every request is answered, and once. How many were.
fn flood(server: &Server, peers: u64, each: u64, batch: u64, request: impl Fn(u64) -> Request + Sync) -> u64 {
    let mut bystander = server.login(9_999);
    let requests = |mut peer: Client| {
        let mut answered = 0;
        for first in (1..=each).step_by(usize::try_from(batch).unwrap()) {
            let ids = first..first + batch;
            let frames: Vec<u8> = ids.clone().flat_map(|id| framed(id, request(id)).to_vec()).collect();
            peer.send_raw(&frames);
            let mut waiting: BTreeSet<u64> = ids.collect();
            while !waiting.is_empty() {
                let frame = peer.frame();
                if frame.request_id != 0 {
                    assert!(waiting.remove(&frame.request_id), "answered twice: {frame:?}");
                    answered += 1;
                }
            }
        }
        answered
    };
    let answered = std::thread::scope(|scope| {
        let peers: Vec<Client> = (1..=peers).map(|user| server.login(user)).collect();
        let threads: Vec<_> = peers.into_iter().map(|peer| scope.spawn(|| requests(peer))).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            bystander.ping();
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(bystander.pushes.is_empty());
    assert_eq!(bystander.hear(Duration::from_millis(1)), Heard::Silence);
    answered
}
