//! What the tests of every crate share: programs that end with their test, peers that send any
//! bytes, reporters, a browser.
//!
//! Nothing here waits for a while and hopes: every wait is for an event, with a deadline
//! ([`eventually`], [`soon`]).

pub mod browser;
pub mod client;
pub mod monitor;
pub mod programs;
pub mod reporter;
pub mod server;
pub mod service;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

pub use browser::Browser;
pub use client::{Client, Ending, Heard};
pub use monitor::{Fleet, Monitor};
pub use programs::{Running, SECRET, command, output, program, root, secret, sign, user_token};
pub use server::{Server, Setup};

/// How long an event may take before its test fails: far longer than it ever takes, on however busy
/// a machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at something that cannot be waited on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until there is something to see, for at most [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

/// [`eventually`] for a plain condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// Fails the test where something that is awaited does not come within [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Repeats `act` about ten times a second for `duration`: for what must hold during a stretch of
/// time.
pub fn throughout(duration: Duration, mut act: impl FnMut()) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        act();
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// An address that was free a moment ago, for who must be found at it again.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
