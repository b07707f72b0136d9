//! Private descriptor tables: one process carries more connections than one table holds, and what
//! is written to wake another shard never lands in a socket, whatever opens and closes meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hongbao_proto::v1::server_frame::Event;
use nix::sys::signal::Signal;

use hongbao_testing::client::login;
use hongbao_testing::{Client, Heard, PATIENCE, Server, Setup, until, user_token};

/// `ulimit -n`, for each of four shards.
const DESCRIPTORS: u32 = 200;

/// How long sockets open and close.
const CHURN: Duration = Duration::from_secs(3);

fn server() -> Server {
    let flags = ["--descriptors", "private", "--shards", "4", "--sets", "4"].map(str::to_owned).to_vec();
    Server::set_up(Setup { flags, descriptors: Some(DESCRIPTORS), ..Setup::default() })
}

#[test]
fn one_process_carries_more_connections_than_one_table_holds() {
    let server = server();
    // 80 for each shard, of the 112 that it has room for: the kernel spreads them by a hash.
    let mut users: Vec<_> = (1..=320).map(|user| server.login(user)).collect();
    assert_eq!(server.stats()["users_online"], 320);
    for user in &mut users {
        user.ping();
    }
    drop(users);
    until("the tables to be empty again", || server.stats()["connections"] == 0);
    let mut again: Vec<_> = (1..=320).map(|user| server.login(user)).collect();
    again.iter_mut().for_each(Client::ping);
    server.check_books();
}

/// Every frame that any of these clients hears must be one of the protocol: the eight bytes of a
/// wake-up are none.
#[test]
fn no_wake_up_lands_in_a_socket_of_any_table() {
    let mut server = server();
    server.rain(1_000_000, 5_000, &serde_json::json!({}));
    let mut steady: Vec<_> = (1_001..=1_012).map(|user| server.login(user)).collect();
    let (address, rounds, started) = (server.listen, AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for seed in 0..4u64 {
            let rounds = &rounds;
            scope.spawn(move || {
                while started.elapsed() < CHURN {
                    // Few users for many connections: nearly every login ends one that lives in
                    // another shard.
                    let round = rounds.fetch_add(1, Ordering::Relaxed);
                    let user = (round * 7 + seed) % 24 + 1;
                    let mut client = Client::connect(address);
                    client.send(1, login(&user_token(user)));
                    // Welcome, or Goodbye where somebody else logged in as the same user.
                    let Heard::Frame(first) = client.hear(PATIENCE) else { panic!("user {user} heard nothing") };
                    assert!(matches!(first.event, Some(Event::Welcome(_) | Event::Goodbye(_))), "{first:?}");
                }
            });
        }
        while started.elapsed() < CHURN {
            server.announce("wake up");
            for client in &mut steady {
                client.grab(0);
            }
        }
    });
    assert!(rounds.load(Ordering::Relaxed) > 200, "{rounds:?} logins are no churn");
    for client in &mut steady {
        client.ping();
    }
    server.check_books();
    assert_eq!(server.errors("malformed"), 0);
    assert!(server.ended("replaced") > 50, "{} replaced", server.ended("replaced"));

    // A signal is taken by the main thread, and reaches every shard as messages.
    server.signal(Signal::SIGTERM);
    for client in &mut steady {
        client.push(|event| matches!(event, Event::Goodbye(_)).then_some(()));
    }
    drop(steady);
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
}
