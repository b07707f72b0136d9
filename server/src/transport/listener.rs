//! Where peers come from: one listening socket for each shard, which share a port.
//!
//! Every socket is bound here. One that a service manager hands over (`LISTEN_FDS`) will be another
//! way to a [`Bound`].

use std::io;
use std::net::SocketAddr;

use hongbao_sysctl::cores;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::limits;
use crate::transport::stream::{Accepted, Stream};

/// A bound socket that does not listen yet: peers are refused.
#[derive(Debug)]
pub struct Bound(Socket);

impl Bound {
    /// Shares the port with other shards' sockets. Where the calling thread is pinned to a core, the
    /// kernel prefers this socket for peers whose handshake it processes on that core: on the queue
    /// of a network card that interrupts there, or, on loopback, from peers there.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        let kind = Type::STREAM.cloexec().nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            // `[::]` serves both families, whatever the host's default is.
            socket.set_only_v6(false)?;
        }
        // Accepted sockets inherit these three: no system call for each connection.
        socket.set_tcp_nodelay(true)?;
        socket.set_send_buffer_size(limits::SOCKET_SEND_BYTES)?;
        socket.set_recv_buffer_size(limits::SOCKET_RECEIVE_BYTES)?;
        if let Some(core) = cores::pinned_to()? {
            socket.set_cpu_affinity(core)?;
        }
        socket.bind(&address.into())?;
        Ok(Self(socket))
    }

    /// With its actual port.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
    }

    /// From now on the kernel completes handshakes.
    pub fn listen(self) -> io::Result<std::net::TcpListener> {
        self.0.listen(limits::LISTEN_BACKLOG)?;
        Ok(self.0.into())
    }
}

/// A socket that listens, on the runtime of the calling thread.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    pub fn new(bound: Bound) -> io::Result<Self> {
        bound.listen().and_then(TcpListener::from_std).map(Self)
    }

    pub async fn accept(&self) -> io::Result<Accepted> {
        let (stream, peer) = self.0.accept().await?;
        Ok(Accepted { stream: Stream::Tcp(stream), peer })
    }
}
