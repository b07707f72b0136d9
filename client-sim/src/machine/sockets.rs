//! The sockets of all users behind one epoll instance of their own, which the runtime watches as a
//! single descriptor: a task and a registration for each connection, as a runtime has them, would
//! be most of what a simulated user takes, in memory and in processor time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Poll, Registry, Token};
use rustc_hash::FxHashMap;

use crate::limits::CONNECT_DEADLINE;

/// Where sockets are registered, and those that are being opened.
#[derive(Debug)]
pub struct Sockets {
    registry: Registry,
    opening: RefCell<Opening>,
}

#[derive(Debug, Default)]
struct Opening {
    /// With the Unix nanosecond at which it began.
    sockets: FxHashMap<u32, (u64, TcpStream)>,
    /// (Unix nanoseconds, user), in order. What has opened meanwhile is still in here.
    since: VecDeque<(u64, u32)>,
}

impl Sockets {
    /// No sockets yet, and what the receiver polls.
    pub fn new() -> io::Result<(Self, Poll)> {
        let poll = Poll::new()?;
        Ok((Self { registry: poll.registry().try_clone()?, opening: RefCell::default() }, poll))
    }

    /// How many are being opened.
    pub fn opening(&self) -> usize {
        self.opening.borrow().sockets.len()
    }

    /// Watches the socket of `user`, whose connection is under way.
    pub fn open(&self, user: u32, socket: TcpStream, now: u64) -> io::Result<()> {
        let token = Token(user as usize);
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE | Interest::WRITABLE)?;
        let mut opening = self.opening.borrow_mut();
        opening.sockets.insert(user, (now, socket));
        opening.since.push_back((now, user));
        Ok(())
    }

    /// A user whose connection has not opened in time; it is given up.
    pub fn give_up(&self, now: u64) -> Option<u32> {
        let mut opening = self.opening.borrow_mut();
        let deadline = now.saturating_sub(u64::try_from(CONNECT_DEADLINE.as_nanos()).unwrap_or(u64::MAX));
        while let Some((since, user)) = opening.since.pop_front_if(|(since, _)| *since < deadline) {
            // Else that one has opened or failed, and the user may have begun another since.
            if opening.sockets.get(&user).is_some_and(|(begun, _)| *begun == since) {
                opening.sockets.remove(&user);
                return Some(user);
            }
        }
        None
    }

    /// What has become of a connection that was being opened: open, or failed. `None`: it is not
    /// being opened, or still is.
    pub fn opened(&self, user: u32) -> Option<io::Result<TcpStream>> {
        let mut opening = self.opening.borrow_mut();
        let (_, socket) = opening.sockets.get(&user)?;
        let outcome = match socket.take_error() {
            Ok(None) => match socket.peer_addr() {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == ErrorKind::NotConnected => return None,
                Err(error) => Err(error),
            },
            Ok(Some(error)) | Err(error) => Err(error),
        };
        let (_, socket) = opening.sockets.remove(&user)?;
        Some(outcome.map(|()| socket))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn only_an_opening_of_that_age_is_given_up_not_the_next_one() {
        let (sockets, _poll) = Sockets::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let deadline = u64::try_from(CONNECT_DEADLINE.as_nanos()).unwrap();
        sockets.open(7, socket(), 1_000).unwrap();
        assert!(sockets.opened(7).unwrap().is_ok());
        sockets.open(7, socket(), 2_000).unwrap();
        assert_eq!(sockets.give_up(1_001 + deadline), None);
        assert_eq!((sockets.opening(), sockets.give_up(2_000 + deadline)), (1, None));
        assert_eq!(sockets.give_up(2_001 + deadline), Some(7));
        assert_eq!((sockets.opening(), sockets.give_up(u64::MAX)), (0, None));
    }
}
