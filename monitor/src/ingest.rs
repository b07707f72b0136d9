//! The ingest port: one task per reporting process, which holds its socket and nothing else.
//!
//! A peer is a stranger until its token was checked: it gets a small frame, a short time and no
//! memory of ours beyond that. Whatever ends a connection has one name, is counted, and is told to
//! the peer where the socket still works.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hongbao_proto::frame::{Codec, FrameError};
use hongbao_proto::limits::REPORT_FRAME_BYTES_MAX;
use hongbao_proto::report_v1::{
    Accepted, Hello, MonitorFrame, Refused, ReporterFrame, Source, monitor_frame, reporter_frame,
};
use hongbao_proto::token::Verifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;

use crate::limits::{GOODBYE_DEADLINE, HELLO_DEADLINE, IDLE_DEADLINE};
use crate::owner::{ConnectionId, Cut, Message};
use crate::run::ends::End;

/// A Hello is a token and three names.
const HELLO_BYTES_MAX: usize = 8 * 1024;

/// Pause after a failed `accept`, which a lack of descriptors would otherwise turn into a busy
/// loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Stranger = Framed<TcpStream, Codec<ReporterFrame, MonitorFrame, HELLO_BYTES_MAX>>;
type Reporter = Framed<TcpStream, Codec<ReporterFrame, MonitorFrame, REPORT_FRAME_BYTES_MAX>>;

/// An end with what the peer is told about it.
struct Ended {
    end: End,
    reason: Option<String>,
}

impl Ended {
    fn because(end: End, reason: impl ToString) -> Self {
        Self { end, reason: Some(reason.to_string()) }
    }

    /// What the peer did wrong, or that there is no room: no failure of ours.
    fn log(&self) {
        if let Some(reason) = &self.reason
            && !matches!(self.end, End::Replaced | End::Stopping)
        {
            tracing::info!(event = "reporter_refused", end = <&str>::from(self.end), reason, "a peer is not heard");
        }
    }

    fn by_frame(error: &FrameError) -> Self {
        match error {
            FrameError::Io(_) => Self { end: End::Closed, reason: None },
            _ => Self::because(End::Garbage, error),
        }
    }
}

/// Accepts reporters until `stop`, at most `room` at once. `verifier` is of the audience
/// `hongbao-report`.
pub async fn serve(
    listener: TcpListener,
    verifier: Arc<Verifier>,
    owner: mpsc::Sender<Message>,
    room: usize,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(room));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok((stream, peer)) => (stream, peer.ip()),
            Err(error) => {
                tracing::error!(event = "reporter_accept_failed", %error, "cannot accept a reporter");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            // No task and no waiting for one too many: what the socket does not take at once is not
            // said.
            let mut bytes = bytes::BytesMut::new();
            let ended = Ended::because(End::Full, "this monitor has no room for another connection");
            ended.log();
            hongbao_proto::frame::append(&refused(ended.reason.as_deref().unwrap_or_default()), &mut bytes);
            if let Err(error) = stream.try_write(&bytes) {
                tracing::debug!(event = "refusal_unheard", %error, "a refused peer did not take the reason");
            }
            notify(&owner, Message::Gone(None, End::Full)).await;
            continue;
        };
        let (verifier, owner) = (Arc::clone(&verifier), owner.clone());
        tokio::spawn(async move {
            connection(stream, peer, &verifier, &owner).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, verifier: &Verifier, owner: &mpsc::Sender<Message>) {
    let mut stranger: Stranger = Framed::new(stream, Codec::default());
    let (id, mut cut) = match introduced(&mut stranger, peer, verifier, owner).await {
        Ok(introduced) => introduced,
        Err(ended) => {
            ended.log();
            notify(owner, Message::Gone(None, ended.end)).await;
            return goodbye(stranger.into_inner(), ended).await;
        }
    };
    let mut reporter: Reporter = stranger.map_codec(|_| Codec::default());
    let ended = reports(&mut reporter, id, &mut cut, owner).await;
    // What the owner rejects it has said itself.
    if ended.end != End::Rejected {
        ended.log();
    }
    notify(owner, Message::Gone(Some(id), ended.end)).await;
    goodbye(reporter.into_inner(), ended).await;
}

/// Hello, checked and known to the owner, and answered.
async fn introduced(
    stranger: &mut Stranger,
    peer: IpAddr,
    verifier: &Verifier,
    owner: &mpsc::Sender<Message>,
) -> Result<(ConnectionId, oneshot::Receiver<Cut>), Ended> {
    let Ok(first) = timeout(HELLO_DEADLINE, stranger.next()).await else {
        return Err(Ended::because(End::Silent, format!("no Hello within {} s", HELLO_DEADLINE.as_secs())));
    };
    let (token, source) = match first {
        None => return Err(Ended { end: End::Closed, reason: None }),
        Some(Err(error)) => return Err(Ended::by_frame(&error)),
        Some(Ok(ReporterFrame {
            frame: Some(reporter_frame::Frame::Hello(Hello { token, source: Some(source) })),
        })) => (token, source),
        Some(Ok(_)) => return Err(Ended::because(End::OutOfTurn, "the first frame must be Hello with a source")),
    };
    verifier.verify(&token).map_err(|error| Ended::because(End::Token, error))?;
    let (id, cut) = register(source, peer, owner).await?;
    let accepted = MonitorFrame { frame: Some(monitor_frame::Frame::Accepted(Accepted {})) };
    match timeout(GOODBYE_DEADLINE, stranger.send(&accepted)).await {
        Ok(Ok(())) => Ok((id, cut)),
        Ok(Err(_)) | Err(_) => {
            notify(owner, Message::Gone(Some(id), End::Closed)).await;
            Err(Ended { end: End::Closed, reason: None })
        }
    }
}

async fn register(
    source: Source,
    peer: IpAddr,
    owner: &mpsc::Sender<Message>,
) -> Result<(ConnectionId, oneshot::Receiver<Cut>), Ended> {
    let stopping = || Ended::because(End::Stopping, "this monitor is stopping");
    let (cut, cut_by_owner) = oneshot::channel();
    let (reply, answer) = oneshot::channel();
    owner.send(Message::Hello { source, peer, cut, reply }).await.map_err(|_| stopping())?;
    match answer.await {
        Ok(Ok(id)) => Ok((id, cut_by_owner)),
        Ok(Err(reason)) => Err(Ended::because(End::Rejected, reason)),
        Err(_) => Err(stopping()),
    }
}

async fn reports(
    reporter: &mut Reporter,
    id: ConnectionId,
    cut: &mut oneshot::Receiver<Cut>,
    owner: &mpsc::Sender<Message>,
) -> Ended {
    loop {
        let frame = tokio::select! {
            // What was sent before a newer connection took over is read first.
            biased;
            frame = timeout(IDLE_DEADLINE, reporter.next()) => frame,
            reason = &mut *cut => return match reason {
                Ok(Cut::Replaced) => Ended::because(End::Replaced, "a newer connection of this process took over"),
                Ok(Cut::Rejected(reason)) => Ended::because(End::Rejected, reason),
                Err(_) => Ended::because(End::Stopping, "this monitor is stopping"),
            },
        };
        let report = match frame {
            Err(_) => return Ended::because(End::Idle, format!("no report for {} s", IDLE_DEADLINE.as_secs())),
            Ok(None) => return Ended { end: End::Closed, reason: None },
            Ok(Some(Err(error))) => return Ended::by_frame(&error),
            Ok(Some(Ok(ReporterFrame { frame: Some(reporter_frame::Frame::Report(report)) }))) => report,
            Ok(Some(Ok(_))) => return Ended::because(End::OutOfTurn, "only reports may follow Hello"),
        };
        if owner.send(Message::Report(id, report)).await.is_err() {
            return Ended::because(End::Stopping, "this monitor is stopping");
        }
    }
}

fn refused(reason: &str) -> MonitorFrame {
    MonitorFrame { frame: Some(monitor_frame::Frame::Refused(Refused { reason: reason.to_owned() })) }
}

/// Says why, and lets the peer hang up first: closing on unread bytes would reset the connection
/// under the reason.
async fn goodbye(mut stream: TcpStream, ended: Ended) {
    let Some(reason) = ended.reason else { return };
    let told = async {
        let mut bytes = bytes::BytesMut::new();
        hongbao_proto::frame::append(&refused(&reason), &mut bytes);
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    match timeout(GOODBYE_DEADLINE, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(event = "refusal_unheard", %error, reason, "the peer went before it was told")
        }
        Err(_) => tracing::debug!(event = "refusal_unheard", reason, "the peer did not hang up when told"),
    }
}

async fn notify(owner: &mpsc::Sender<Message>, message: Message) {
    if owner.send(message).await.is_err() {
        tracing::debug!(event = "run_over", "the run is over");
    }
}

#[cfg(test)]
mod tests {
    use hongbao_proto::token::{Audience, Secret};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_finds_no_room_is_told_so_and_counted() {
        let secret = Secret::from_text("0123456789abcdef0123456789abcdef").unwrap();
        let verifier = Arc::new(Verifier::hs256(&secret, Audience::Report));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (owner, mut inbox) = mpsc::channel(4);
        tokio::spawn(serve(listener, verifier, owner, 1, CancellationToken::new()));
        let first = TcpStream::connect(address).await.unwrap();
        let second = TcpStream::connect(address).await.unwrap();
        let mut second = Framed::new(second, Codec::<MonitorFrame, ReporterFrame, REPORT_FRAME_BYTES_MAX>::default());
        let told = timeout(Duration::from_secs(10), second.next()).await.unwrap().unwrap().unwrap();
        assert!(
            matches!(told.frame, Some(monitor_frame::Frame::Refused(refused)) if refused.reason.contains("no room"))
        );
        let message = timeout(Duration::from_secs(10), inbox.recv()).await.unwrap();
        assert!(matches!(message, Some(Message::Gone(None, End::Full))), "{message:?}");
        drop(first);
    }
}
