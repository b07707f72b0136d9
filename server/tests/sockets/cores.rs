//! Shards that stay on their cores serve the peers whose packets arrive there.

use hongbao_sysctl::cores;

use hongbao_testing::Server;

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
        hongbao_testing::until("all to have left", || server.stats()["connections"] == 0);
    }
}
