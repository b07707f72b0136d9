//! Opens the users' connections, new ones and lost ones alike, at a steady rate and with a bounded
//! number under way.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{Instant, sleep};

use crate::limits::CONNECTING_MAX;
use crate::machine::shared::Shared;

/// Between two looks at least, while users are about to connect or to log in.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Between two looks at most.
const CALM_PAUSE: Duration = Duration::from_millis(20);

/// Connections that may be caught up on after a pause, as a part of a second's.
const BURST_PART: u32 = 20;

/// Never returns.
pub async fn run(shared: Rc<Shared>) {
    let mut pace = Pace::new(shared.config.connect_rate);
    loop {
        shared.crowd.borrow_mut().keep_appointments(shared.clock.now());
        let mut allowed = pace.allowed(Instant::now());
        while let Some(user) = shared.sockets.give_up(shared.clock.now()) {
            shared.connect_failed(user, &ErrorKind::TimedOut.into());
        }
        while allowed > 0 && shared.sockets.opening() < CONNECTING_MAX {
            let now = shared.clock.now();
            let Some(user) = shared.crowd.borrow_mut().next_to_connect(now) else { break };
            allowed -= 1;
            pace.take();
            connect(&shared, user);
        }
        let next = shared.crowd.borrow().next_arrival();
        let until_next = next.map(|at| Duration::from_nanos(at.saturating_sub(shared.clock.now())));
        sleep(until_next.map_or(CALM_PAUSE, |wait| wait.clamp(BUSY_PAUSE, CALM_PAUSE))).await;
    }
}

/// A steady rate that forgets what was not used, but for a small burst.
#[derive(Debug)]
struct Pace {
    per_second: u32,
    last: Option<Instant>,
    /// In nanoseconds of the rate: a connection costs a second's worth divided by the rate.
    credit: u64,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { per_second, last: None, credit: 0 }
    }

    fn cost(&self) -> u64 {
        1_000_000_000 / u64::from(self.per_second)
    }

    fn allowed(&mut self, now: Instant) -> u64 {
        let cost = self.cost().max(1);
        let elapsed = self.last.replace(now).map_or(Duration::ZERO, |last| now - last);
        let most = cost * u64::from((self.per_second / BURST_PART).max(1));
        self.credit = (self.credit + u64::try_from(elapsed.as_nanos()).unwrap_or(most)).min(most);
        self.credit / cost
    }

    fn take(&mut self) {
        self.credit = self.credit.saturating_sub(self.cost());
    }
}

/// Begins to open a connection; what becomes of it is told by an event.
fn connect(shared: &Shared, user: u32) {
    let now = shared.clock.now();
    let begun = open(shared.config.common.server, shared.config.sources.of(user))
        .and_then(|socket| shared.sockets.open(user, socket, now));
    if let Err(error) = begun {
        shared.connect_failed(user, &error);
    }
}

fn open(server: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if let Some(source) = source {
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_kept_and_what_is_unused_is_forgotten() {
        let (mut pace, start) = (Pace::new(1_000), Instant::now());
        assert_eq!(pace.allowed(start), 0);
        let mut opened = 0;
        for step in 1..=100u64 {
            for _ in 0..pace.allowed(start + Duration::from_millis(10 * step)) {
                pace.take();
                opened += 1;
            }
        }
        assert_eq!(opened, 1_000);
        assert_eq!(pace.allowed(start + Duration::from_secs(60)), 50);
    }
}
