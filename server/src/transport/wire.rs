//! The write side of a connection. A write is attempted at once; what the socket refuses goes to an
//! outbox that exists only while the peer is slow, and a task that lives as long as it.

use std::cell::{Cell, RefCell};
use std::net::Shutdown;
use std::rc::Rc;

use bytes::{Buf, BytesMut};

use crate::limits::OUTBOX_BYTES_MAX;
use crate::transport::stream::WriteHalf;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// The socket has all of it, or has failed, which its reader will find out.
    Sent,
    /// The rest waits in the outbox; `newly`: which did not exist before.
    Queued {
        /// The peer has just become slow.
        newly: bool,
    },
    /// The outbox is full. Nothing was added; the stream ends at a frame's boundary only if the
    /// peer is cut now.
    Overflow,
}

/// The write side as a SET sees it; tests and benchmarks have their own.
pub trait Wire {
    fn write(&mut self, frames: &[u8]) -> Written;
    /// Closes the write side once everything is written.
    fn finish(&mut self);
    /// Tears the connection down; its reader ends.
    fn cut(&mut self);
    /// Bytes that the socket has refused so far.
    fn backlog(&mut self) -> usize;
    /// The peer's address, for people.
    fn peer(&self) -> Option<String>;
    /// A number of the socket's own; to read it, all is looked up that a write needs.
    fn number(&self) -> i32;
}

/// A connection's write side.
#[derive(Debug)]
pub struct SocketWire {
    socket: Rc<WriteHalf>,
    outbox: Option<Rc<Outbox>>,
}

/// What a slow peer has yet to take.
#[derive(Debug, Default)]
struct Outbox {
    pending: RefCell<BytesMut>,
    finish: Cell<bool>,
}

impl SocketWire {
    /// Wraps the write half of a connection that lives on this thread.
    pub fn new(socket: WriteHalf) -> Self {
        Self { socket: Rc::new(socket), outbox: None }
    }

    /// The outbox, unless it has run empty since.
    fn outbox(&mut self) -> Option<&Rc<Outbox>> {
        if self.outbox.as_ref().is_some_and(|outbox| outbox.pending.borrow().is_empty()) {
            self.outbox = None;
        }
        self.outbox.as_ref()
    }
}

impl Wire for SocketWire {
    fn write(&mut self, frames: &[u8]) -> Written {
        if let Some(outbox) = self.outbox() {
            let mut pending = outbox.pending.borrow_mut();
            if pending.len() + frames.len() > OUTBOX_BYTES_MAX {
                return Written::Overflow;
            }
            pending.extend_from_slice(frames);
            return Written::Queued { newly: false };
        }
        let sent = match self.socket.try_write(frames) {
            Ok(sent) if sent == frames.len() => return Written::Sent,
            Ok(sent) => sent,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => return Written::Sent,
        };
        if frames.len() - sent > OUTBOX_BYTES_MAX {
            return Written::Overflow;
        }
        let outbox =
            Rc::new(Outbox { pending: RefCell::new(BytesMut::from(&frames[sent..])), finish: Cell::new(false) });
        tokio::task::spawn_local(flush(Rc::clone(&self.socket), Rc::clone(&outbox)));
        self.outbox = Some(outbox);
        Written::Queued { newly: true }
    }

    fn finish(&mut self) {
        match self.outbox() {
            Some(outbox) => outbox.finish.set(true),
            None => self.socket.shutdown(Shutdown::Write),
        }
    }

    fn cut(&mut self) {
        if let Some(outbox) = self.outbox.take() {
            outbox.pending.borrow_mut().clear();
        }
        self.socket.shutdown(Shutdown::Both);
    }

    fn backlog(&mut self) -> usize {
        self.outbox().map_or(0, |outbox| outbox.pending.borrow().len())
    }

    fn peer(&self) -> Option<String> {
        self.socket.peer().map(|address| address.to_string())
    }

    fn number(&self) -> i32 {
        self.socket.number()
    }
}

/// Writes the outbox as the socket takes it, then ends. A socket that fails or is cut ends it too.
async fn flush(socket: Rc<WriteHalf>, outbox: Rc<Outbox>) {
    while !outbox.pending.borrow().is_empty() {
        if socket.writable().await.is_err() {
            break;
        }
        let mut pending = outbox.pending.borrow_mut();
        match socket.try_write(&pending) {
            Ok(sent) => pending.advance(sent),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    outbox.pending.borrow_mut().clear();
    if outbox.finish.get() {
        socket.shutdown(Shutdown::Write);
    }
}
