//! The one task that reads what comes for all users of a machine.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limits::SOCKET_EVENTS_MAX;
use crate::machine::labels::EndReason;
use crate::machine::shared::Shared;

/// Serves the sockets. Returns on failure only.
pub async fn run(shared: &Shared, poll: Poll) -> io::Result<Infallible> {
    #[allow(
        deprecated,
        reason = "what it asks of its argument holds: a Poll keeps one descriptor, and closes it when dropped"
    )]
    let mut poll = AsyncFd::with_interest(poll, Interest::READABLE)?;
    let mut events = Events::with_capacity(SOCKET_EVENTS_MAX);
    loop {
        let mut ready = poll.readable_mut().await?;
        match ready.get_inner_mut().poll(&mut events, Some(Duration::ZERO)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        let mut count = 0;
        for event in &events {
            serve_one(shared, event);
            count += 1;
        }
        if count < SOCKET_EVENTS_MAX {
            ready.clear_ready();
        } else {
            // There may be more; what is due is sent first.
            tokio::task::yield_now().await;
        }
    }
}

fn serve_one(shared: &Shared, event: &Event) {
    let Ok(user) = u32::try_from(event.token().0) else { return };
    if shared.sockets.opening() > 0
        && let Some(opened) = shared.sockets.opened(user)
    {
        let now = shared.clock.now();
        let mut crowd = shared.crowd.borrow_mut();
        match opened {
            Ok(socket) => crowd.connected(user, socket, now),
            Err(error) => {
                drop(crowd);
                return shared.connect_failed(user, &error);
            }
        }
    }
    if event.is_readable() || event.is_read_closed() || event.is_error() {
        read(shared, user, event.is_read_closed() || event.is_error());
    }
}

/// Reads what has come for `user`; `to_the_end`: there will be no further event for the end of the
/// stream.
fn read(shared: &Shared, user: u32, to_the_end: bool) {
    let mut scratch = shared.scratch.borrow_mut();
    let mut crowd = shared.crowd.borrow_mut();
    loop {
        // A user whose connection has ended meanwhile has none.
        let Some(mut socket) = crowd.socket(user) else { return };
        let end = match socket.read(&mut scratch[..]) {
            Ok(0) => EndReason::Closed,
            Ok(count) => {
                crowd.bytes(user, &scratch[..count], shared.clock.now());
                if count < scratch.len() && !to_the_end {
                    return;
                }
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => EndReason::Reset,
        };
        return crowd.ended(user, end, shared.clock.now());
    }
}
