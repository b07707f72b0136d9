//! The floor: the cheapest thing that satisfies the same fleet. A bare epoll loop over raw system calls, one thread per core, that
//! answers every request with canned bytes: a Login with a Welcome, anything else with NoneNow, the request's id copied over.
//! No ledger, no stock, no deadlines, no tokens checked, no slow peers. What hongbao-server costs beyond this is what it does.
//!
//! `cargo run --release --example floor -- 127.0.0.1:7400 2`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use hongbao_server::shard::acceptor::listen;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Field 1 (request_id), varint.
const TAG_REQUEST_ID: u8 = 0x08;
/// Field 2 of a client frame (login), length-delimited.
const TAG_LOGIN: u8 = 0x12;
/// Welcome, field 2 of a server frame, empty but for an idle timeout (field 3) of 600,000 ms.
const WELCOME: [u8; 6] = [0x12, 0x04, 0x18, 0xC0, 0xCF, 0x24];
/// NoneNow, field 5, empty.
const NONE_NOW: [u8; 2] = [0x2A, 0x00];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned()).parse()?;
    let threads: usize = arguments.next().map_or(Ok(2), |threads| threads.parse())?;
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard)?;
    let first = listen(address)?;
    let address = first.local_addr()?;
    let listeners = std::iter::once(Ok(first)).chain((1..threads).map(|_| listen(address)));
    let workers =
        listeners.map(|listener| Ok(std::thread::spawn(serve(listener?)))).collect::<std::io::Result<Vec<_>>>()?;
    println!("{{\"listen\":\"{address}\"}}");
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")??;
    }
    Ok(())
}

fn serve(listener: std::net::TcpListener) -> impl FnOnce() -> std::io::Result<()> {
    move || {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, u64::MAX))?;
        let mut peers: Vec<Option<TcpStream>> = Vec::new();
        let mut events = vec![EpollEvent::empty(); 1_024];
        let (mut input, mut output) = (vec![0; 64 * 1024], Vec::with_capacity(64 * 1024));
        loop {
            let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..ready] {
                if event.data() == u64::MAX {
                    while let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true)?;
                        let slot = usize::try_from(stream.as_raw_fd()).unwrap_or(0);
                        epoll.add(
                            stream.as_fd(),
                            EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, slot as u64),
                        )?;
                        peers.resize_with(peers.len().max(slot + 1), || None);
                        peers[slot] = Some(stream);
                    }
                    continue;
                }
                let slot = usize::try_from(event.data()).unwrap_or(0);
                let Some(peer) = peers[slot].as_mut() else { continue };
                match peer.read(&mut input) {
                    Ok(read) if read > 0 => {
                        output.clear();
                        answer(&input[..read], &mut output);
                        // The fleet reads what it is sent; a full socket buffer is beyond the floor.
                        peer.write_all(&output)?;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    _ => peers[slot] = None,
                }
            }
        }
    }
}

/// Answers every whole frame of `input`. The fleet's frames arrive whole: they are small, and it waits for its answers.
fn answer(mut input: &[u8], output: &mut Vec<u8>) {
    while let Some((length, rest)) = varint(input) {
        let Some(frame) = rest.get(..length) else { return };
        input = &rest[length..];
        let Some((_, after_id)) = frame.strip_prefix(&[TAG_REQUEST_ID]).and_then(varint) else { return };
        let id = &frame[..frame.len() - after_id.len()];
        let canned: &[u8] = if after_id.first() == Some(&TAG_LOGIN) { &WELCOME } else { &NONE_NOW };
        output.push(u8::try_from(id.len() + canned.len()).unwrap_or(0));
        output.extend_from_slice(id);
        output.extend_from_slice(canned);
    }
}

fn varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}
