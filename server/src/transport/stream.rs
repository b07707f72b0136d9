//! A peer's connection: how its bytes come in and go out.
//!
//! An enum, on the one thread that accepted it: another transport is a variant here, and a plain
//! connection is not a byte larger for it (the asserts in `set::session` and `shard::worker`).

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection as it comes from the listener.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Stream,
    pub peer: SocketAddr,
}

#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
}

#[derive(Debug)]
pub enum ReadHalf {
    Tcp(OwnedReadHalf),
}

#[derive(Debug)]
pub enum WriteHalf {
    Tcp(OwnedWriteHalf),
}

impl Stream {
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        let Stream::Tcp(stream) = self;
        let (read_half, write_half) = stream.into_split();
        (ReadHalf::Tcp(read_half), WriteHalf::Tcp(write_half))
    }
}

impl ReadHalf {
    /// As [`tokio::io::AsyncRead::poll_read`].
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ReadHalf::Tcp(half) = self;
        Pin::new(half).poll_read(context, buffer)
    }
}

impl WriteHalf {
    fn socket(&self) -> &TcpStream {
        let WriteHalf::Tcp(half) = self;
        half.as_ref()
    }

    /// Writes what fits now; [`io::ErrorKind::WouldBlock`]: nothing does.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.socket().try_write(bytes)
    }

    pub async fn writable(&self) -> io::Result<()> {
        self.socket().writable().await
    }

    pub fn shutdown(&self, how: Shutdown) {
        // A socket that the peer has reset cannot be shut down again, and need not be.
        SockRef::from(self.socket()).shutdown(how).ok();
    }

    /// `None` once the peer has reset the connection.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket().peer_addr().ok()
    }

    /// The socket's descriptor.
    pub fn number(&self) -> i32 {
        self.socket().as_raw_fd()
    }
}
