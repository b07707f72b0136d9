//! Shards that stay on their cores serve the peers whose packets arrive there.

use hongbao_sysctl::cores;

use hongbao_testing::{Server, until};
use serde_json::json;

#[test]
fn a_pinned_shard_serves_the_peers_of_its_core() {
    // Even SETs are those of shards on the first core of two, odd ones of the second.
    let server = Server::with(&["--shards", "4", "--sets", "4", "--pin-shards", "true"]);
    for core in 0..2 {
        let users = std::thread::scope(|scope| {
            let peer = scope.spawn(|| {
                // What a thread sends over loopback is received on the core that it runs on.
                cores::pin(core).unwrap();
                (1..=40).map(|user| server.login(user)).collect::<Vec<_>>()
            });
            peer.join().unwrap()
        });
        let sessions = server.get("/v1/sessions?limit=100");
        let sets: Vec<u64> =
            sessions["sessions"].as_array().unwrap().iter().map(|one| one["set"].as_u64().unwrap()).collect();
        assert_eq!(sets.len(), 40);
        let cores = std::thread::available_parallelism().unwrap().get() as u64;
        if cores.is_multiple_of(2) {
            assert!(sets.iter().all(|set| set % 2 == u64::from(core) % cores), "from core {core}: {sets:?}");
        }
        drop(users);
        until("all to have left", || server.stats()["connections"] == 0);
    }
}

/// The kernel gives a peer to the next listener of its core, in the order in which they began to
/// listen: one behind many of the other core gets the peers of all of them.
#[test]
fn pinned_shards_of_a_core_get_equally_many_peers() {
    const PEERS: usize = 1_600;
    let server = Server::with(&["--shards", "32", "--sets", "32", "--pin-shards", "true", "--login-timeout", "1m"]);
    let peers = std::thread::scope(|scope| {
        let peer = scope.spawn(|| {
            cores::pin(0).unwrap();
            (0..PEERS).map(|_| server.connect()).collect::<Vec<_>>()
        });
        peer.join().unwrap()
    });
    until("all to be taken in", || server.stats()["connections"] == PEERS);
    let (mut counts, mut next) = ([0usize; 32], json!({"set": 0, "slot": 0}));
    while let (Some(set), Some(slot)) = (next["set"].as_u64(), next["slot"].as_u64()) {
        let page = server.get(&format!("/v1/sessions?limit=1000&set={set}&slot={slot}"));
        let sets = page["sessions"].as_array().unwrap().iter().map(|one| one["set"].as_u64().unwrap());
        sets.for_each(|set| counts[usize::try_from(set).unwrap()] += 1);
        next = page["next"].clone();
    }
    assert_eq!(counts.iter().sum::<usize>(), PEERS);
    let serving = counts.iter().filter(|count| **count > 0).count();
    let most = counts.iter().max().unwrap();
    assert!(most * serving <= 2 * PEERS, "{counts:?}");
    drop(peers);
}
