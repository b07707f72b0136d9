//! A small SNTP server (RFC 4330): where no NTP server is named, the fleet's own clock is what its
//! machines agree on. It answers on loopback only and claims stratum 10, the customary one of an
//! undisciplined local clock.

use std::io;
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::clock;

/// Seconds from 1900, where NTP's time begins, to 1970.
const NTP_TO_UNIX_SECONDS: u64 = 2_208_988_800;

const PACKET_BYTES: usize = 48;
const CLIENT_MODE: u8 = 3;
const SERVER_MODE: u8 = 4;

/// Answers on a free port of loopback, in a task of its own. Returns `127.0.0.1:PORT`.
pub async fn start() -> io::Result<String> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await?;
    let address = socket.local_addr()?.to_string();
    tokio::spawn(async move {
        let mut packet = [0; PACKET_BYTES];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut packet).await else { continue };
            let received = ntp_time(clock::wall());
            // A packet that is no request is ignored, as is a client that has gone.
            if let Some(mut reply) = reply(&packet[..length], received) {
                reply[40..48].copy_from_slice(&ntp_time(clock::wall()));
                socket.send_to(&reply, client).await.ok();
            }
        }
    });
    Ok(address)
}

/// The answer but for its transmit timestamp.
fn reply(request: &[u8], received: [u8; 8]) -> Option<[u8; PACKET_BYTES]> {
    let version = *request.first()? & 0b0011_1000;
    if request.len() < PACKET_BYTES || request[0] & 0b111 != CLIENT_MODE {
        return None;
    }
    let mut reply = [0; PACKET_BYTES];
    reply[0] = version | SERVER_MODE;
    reply[1] = 10;
    reply[2] = request[2];
    // A precision of 2^-20 seconds, about a microsecond.
    reply[3] = 0xec;
    reply[12..16].copy_from_slice(b"LOCL");
    reply[16..24].copy_from_slice(&received);
    reply[24..32].copy_from_slice(&request[40..48]);
    reply[32..40].copy_from_slice(&received);
    Some(reply)
}

/// 32 bits of seconds, which wrap in 2036 as NTP's do, and 32 bits of fraction.
fn ntp_time(since: Duration) -> [u8; 8] {
    let seconds = (since.as_secs() + NTP_TO_UNIX_SECONDS) & u64::from(u32::MAX);
    let fraction = (u64::from(since.subsec_nanos()) << 32) / clock::SECOND;
    (seconds << 32 | fraction).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_echoes_the_request_and_tells_when_it_came() {
        let mut request = [0; PACKET_BYTES];
        request[0] = 4 << 3 | CLIENT_MODE;
        request[40..48].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let answer = reply(&request, [9; 8]).unwrap();
        assert_eq!(answer[0], 4 << 3 | SERVER_MODE);
        assert_eq!((&answer[24..32], &answer[32..40]), (&[1, 2, 3, 4, 5, 6, 7, 8][..], &[9; 8][..]));
    }

    #[test]
    fn what_is_no_request_gets_no_reply() {
        assert_eq!(reply(&[], [0; 8]), None);
        assert_eq!(reply(&[CLIENT_MODE; 47], [0; 8]), None);
        assert_eq!(reply(&[SERVER_MODE; 48], [0; 8]), None);
    }
}
