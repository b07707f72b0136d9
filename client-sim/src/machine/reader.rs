//! The read side of one connection: a future of a few words that reads into the machine's one buffer and hands frames to the
//! crowd. It ends when the stream does, and reports that end once.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

use crate::machine::labels::End;
use crate::machine::partials::Place;
use crate::machine::shared::Shared;
use crate::machine::wire;

/// Reads the connection of one user until it ends.
#[derive(Debug)]
pub struct Reader {
    shared: Rc<Shared>,
    stream: OwnedReadHalf,
    user: u32,
    partial: Place,
}

// One lies in the task of every connection, which the runtime aligns to 128 bytes: with one word more it takes 256.
const _: () = assert!(size_of::<Reader>() <= 24);

impl Reader {
    /// A reader of `user`'s connection.
    pub fn new(shared: Rc<Shared>, user: u32, stream: OwnedReadHalf) -> Self {
        Self { shared, stream, user, partial: Place::NOWHERE }
    }

    /// Hands everything in `bytes` to the crowd.
    fn take(&mut self, bytes: &[u8]) {
        let now = self.shared.clock.now();
        let mut crowd = self.shared.crowd.borrow_mut();
        let user = self.user;
        let mut partial = self.shared.partials.take(&mut self.partial);
        match wire::cut(&mut partial, bytes, |payload| crowd.frame(user, payload, now)) {
            Ok(()) => self.partial = self.shared.partials.keep(partial),
            Err(_) => crowd.broken_stream(user, now),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.shared.partials.take(&mut self.partial));
    }
}

impl Future for Reader {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let shared = Rc::clone(&this.shared);
        let mut scratch = shared.scratch.borrow_mut();
        let end = loop {
            let mut buffer = ReadBuf::new(&mut scratch[..]);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => break End::Reset,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => break End::Closed,
                Poll::Ready(Ok(())) => this.take(buffer.filled()),
            }
        };
        let now = shared.clock.now();
        shared.crowd.borrow_mut().ended(this.user, end, now);
        Poll::Ready(())
    }
}
