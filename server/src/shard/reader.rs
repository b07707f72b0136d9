//! One connection's reader task: cuts frames, checks them, and queues what they ask for.
//!
//! An idle reader holds no buffer: bytes are read into one scratch buffer per shard, and only the
//! beginning of an unfinished frame is kept. Its future is small, because there are a million of
//! it; whatever is rare is boxed.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hongbao_proto::frame::{Split, split};
use hongbao_proto::limits::CLIENT_FRAME_BYTES_MAX;
use hongbao_proto::token::{TokenRefusal, Verifier};
use hongbao_proto::v1::{self, ErrorCode, client_frame};
use hongbao_proto::{CampaignId, RequestId};
use prost::Message as _;
use tokio::io::ReadBuf;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::ends::{End, Hint};
use crate::limits;
use crate::set::directory::ConnectionKey;
use crate::set::message::{ClientRequest, Message};
use crate::set::parse;
use crate::set::room_messages::{Chat, RoomRequest};
use crate::set::tally::SetTally;
use crate::transport::stream::ReadHalf;

/// What the readers of one SET share with its worker, on one thread.
#[derive(Debug)]
pub struct Intake {
    pub inbox: mpsc::Sender<Message>,
    /// Requests that met a full queue, to be answered `Overloaded` by the worker.
    pub refusals: RefCell<Vec<(ConnectionKey, u64)>>,
    pub tally: Arc<SetTally>,
    /// Checks login tokens.
    pub verifier: Arc<Verifier>,
    /// The shard's read buffer.
    pub scratch: Rc<RefCell<Box<[u8]>>>,
}

/// Why a reader stopped reading.
enum Pause {
    /// The queue is full and so is the list of refusals: wait for room, then go on with what was
    /// kept.
    Full,
    /// The connection is over.
    End(End),
}

/// What a reader keeps between two reads.
#[derive(Debug, Default)]
pub struct ReaderState {
    /// The beginning of an unfinished frame, or, after [`Pause::Full`], frames not yet taken.
    bytes: Option<Box<[u8]>>,
    /// A frame has been understood: what comes is of our protocol.
    understood: bool,
    /// After a violation everything is read and thrown away, so that closing does not reset the
    /// peer before it has read why.
    discarding: bool,
}

/// Reads until the connection ends, and reports the end.
pub async fn read(mut socket: ReadHalf, key: ConnectionKey, intake: Rc<Intake>) {
    let mut state = ReaderState::default();
    loop {
        match poll_fn(|context| intake.poll(context, &mut socket, key, &mut state)).await {
            Pause::Full => {
                // The permit is given back at once: whoever is first takes it, and the others wait
                // again.
                if Box::pin(intake.inbox.reserve()).await.is_err() {
                    return;
                }
            }
            Pause::End(end) => {
                return Box::pin(intake.report(Message::Peer { key, request: ClientRequest::Gone(end) })).await;
            }
        }
    }
}

impl Intake {
    fn poll(
        &self,
        context: &mut Context<'_>,
        socket: &mut ReadHalf,
        key: ConnectionKey,
        state: &mut ReaderState,
    ) -> Poll<Pause> {
        let mut scratch = self.scratch.borrow_mut();
        if state.bytes.is_some() && self.take(key, state, &[]).is_err() {
            return Poll::Ready(Pause::Full);
        }
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(socket.poll_read(context, &mut buffer)) {
                Err(_) => return Poll::Ready(Pause::End(End::Reset)),
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(Pause::End(End::Closed)),
                Ok(()) => {
                    self.tally.bytes_in.add(buffer.filled().len() as u64);
                    if self.take(key, state, buffer.filled()).is_err() {
                        return Poll::Ready(Pause::Full);
                    }
                }
            }
        }
    }

    /// Queues every whole frame of what was kept and what is `new`, and keeps the rest.
    ///
    /// After [`QueueFull`] it must be called again, with nothing new, once the SET has taken
    /// something from its queue.
    pub fn take(&self, key: ConnectionKey, state: &mut ReaderState, new: &[u8]) -> Result<(), QueueFull> {
        if state.discarding {
            return Ok(());
        }
        let was_partial = state.bytes.is_some();
        let joined;
        let mut rest = match state.bytes.take() {
            None => new,
            Some(bytes) => {
                joined = [&bytes, new].concat();
                &joined
            }
        };
        let mut taken = false;
        while !rest.is_empty() {
            let (mut request, consumed) = match split(rest, CLIENT_FRAME_BYTES_MAX) {
                Ok(Split::Frame { payload, consumed }) => (self.understand(payload), consumed),
                Ok(Split::Partial { .. }) if state.foreign(rest).is_none() => break,
                Ok(Split::Partial { .. }) | Err(_) => (malformed(), rest.len()),
            };
            if let ClientRequest::Violation { code: ErrorCode::Malformed, hint, .. } = &mut request {
                *hint = state.foreign(rest);
            }
            let violated = matches!(request, ClientRequest::Violation { .. });
            if self.queue(key, request).is_err() {
                state.bytes = Some(rest.into());
                return Err(QueueFull);
            }
            if violated {
                state.discarding = true;
                return Ok(());
            }
            (taken, state.understood) = (true, true);
            rest = &rest[consumed..];
        }
        if !rest.is_empty() {
            state.bytes = Some(rest.into());
            // Once for each frame. Without room the deadline starts later, with the next piece.
            if (taken || !was_partial) && self.queue(key, ClientRequest::Partial).is_err() {
                return Err(QueueFull);
            }
        }
        Ok(())
    }

    /// Decides what happens when the SET's queue is full: a request joins the refusals, anything
    /// else must wait.
    fn queue(&self, key: ConnectionKey, request: ClientRequest) -> Result<(), QueueFull> {
        let Err(TrySendError::Full(Message::Peer { request, .. })) =
            self.inbox.try_send(Message::Peer { key, request })
        else {
            // Queued; or the worker has left, and this reader's socket is about to be closed.
            return Ok(());
        };
        match &request {
            ClientRequest::Grab { .. }
            | ClientRequest::Ping { .. }
            | ClientRequest::Ledger { .. }
            | ClientRequest::Chat { .. }
            | ClientRequest::Room { .. } => {}
            ClientRequest::Login { .. }
            | ClientRequest::Mistake { .. }
            | ClientRequest::Violation { .. }
            | ClientRequest::Partial
            | ClientRequest::Gone(_) => return Err(QueueFull),
        }
        let mut refusals = self.refusals.borrow_mut();
        if refusals.len() >= limits::SET_REFUSALS_MAX {
            return Err(QueueFull);
        }
        refusals.push((key, request.request_id()));
        Ok(())
    }

    /// Queues the last message of this reader, whatever it takes.
    async fn report(&self, message: Message) {
        if let Err(TrySendError::Full(message)) = self.inbox.try_send(message) {
            // An error says that the worker has left, and with it the session.
            Box::pin(self.inbox.send(message)).await.ok();
        }
    }

    /// Turns a payload into a checked request.
    fn understand(&self, payload: &[u8]) -> ClientRequest {
        let Ok(frame) = v1::ClientFrame::decode(payload) else {
            return malformed();
        };
        let Ok(request) = RequestId::new(frame.request_id) else {
            return ClientRequest::Mistake { request: frame.request_id, code: ErrorCode::OutOfRange };
        };
        match frame.request {
            Some(client_frame::Request::Grab(grab)) => {
                ClientRequest::Grab { request, campaign: CampaignId::new(grab.campaign_id.into()).ok() }
            }
            Some(client_frame::Request::Ping(_)) => ClientRequest::Ping { request },
            Some(client_frame::Request::Chat(chat)) => match Chat::check(chat) {
                Some(chat) => ClientRequest::Chat { request, chat: Box::new(chat) },
                None => ClientRequest::Mistake { request: request.get(), code: ErrorCode::OutOfRange },
            },
            Some(client_frame::Request::Room(room)) => match RoomRequest::check(&room) {
                Some(wanted) => ClientRequest::Room { request, wanted: Box::new(wanted) },
                None => ClientRequest::Mistake { request: request.get(), code: ErrorCode::OutOfRange },
            },
            Some(client_frame::Request::Login(login)) => match self.verifier.verify_user(&login.token) {
                Ok((user, expires_at)) => ClientRequest::Login { request, user, expires_at },
                Err(refusal) => ClientRequest::Violation {
                    request: request.get(),
                    code: refusal_code(refusal),
                    end: End::Authentication,
                    hint: Some(refusal.into()),
                },
            },
            Some(other) => match parse::ledger_request(other, request) {
                Ok(wanted) => ClientRequest::Ledger { request, wanted },
                Err(code) => ClientRequest::Mistake { request: request.get(), code },
            },
            None => ClientRequest::Mistake { request: request.get(), code: ErrorCode::UnknownRequest },
        }
    }
}

/// No room in the SET's queue, nor among its refusals.
#[derive(Debug)]
pub struct QueueFull;

impl ReaderState {
    /// Which other protocol the peer speaks, where nothing of ours has come yet.
    fn foreign(&self, bytes: &[u8]) -> Option<Hint> {
        if self.understood { None } else { Hint::of_first_bytes(bytes) }
    }

    /// Whether the reader has seen a violation, after which it throws everything away.
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }
}

fn malformed() -> ClientRequest {
    ClientRequest::Violation { request: 0, code: ErrorCode::Malformed, end: End::Protocol, hint: None }
}

fn refusal_code(refusal: TokenRefusal) -> ErrorCode {
    match refusal {
        TokenRefusal::Expired => ErrorCode::TokenExpired,
        TokenRefusal::Audience => ErrorCode::TokenForeign,
        TokenRefusal::Malformed
        | TokenRefusal::Algorithm
        | TokenRefusal::Critical
        | TokenRefusal::Signature
        | TokenRefusal::NoExpiry
        | TokenRefusal::NotBefore
        | TokenRefusal::NotYetValid
        | TokenRefusal::IssuedAt
        | TokenRefusal::NoSubject
        | TokenRefusal::Subject => ErrorCode::TokenInvalid,
    }
}

#[cfg(test)]
mod tests {
    use hongbao_proto::frame;
    use hongbao_proto::token::{Audience, Secret};

    use super::*;

    const KEY: ConnectionKey = ConnectionKey { slot: 1, generation: 2 };

    fn intake(queue: usize) -> (Intake, mpsc::Receiver<Message>) {
        let (inbox, queue) = mpsc::channel(queue);
        let secret = Secret::from_text("a secret of 32 bytes, for tests only").unwrap();
        let intake = Intake {
            inbox,
            refusals: RefCell::default(),
            tally: Arc::default(),
            verifier: Arc::new(Verifier::hs256(&secret, Audience::User)),
            scratch: Rc::new(RefCell::new(Box::default())),
        };
        (intake, queue)
    }

    /// The SET times a frame from its first byte on: bytes that trickle in must not begin it anew.
    #[test]
    fn a_frame_that_trickles_in_is_partial_once() {
        let (intake, mut queue) = intake(8);
        let (mut state, mut bytes) = (ReaderState::default(), bytes::BytesMut::new());
        let request = Some(client_frame::Request::Ping(v1::Ping {}));
        frame::append(&v1::ClientFrame { request_id: 7, request }, &mut bytes);
        for byte in bytes.chunks(1) {
            intake.take(KEY, &mut state, byte).unwrap();
        }
        let mut next = || match queue.try_recv() {
            Ok(Message::Peer { request, .. }) => request,
            other => panic!("{other:?}"),
        };
        assert!(matches!(next(), ClientRequest::Partial));
        assert!(matches!(next(), ClientRequest::Ping { request } if request.get() == 7));
        assert!(queue.try_recv().is_err());
    }

    #[test]
    fn requests_at_a_full_queue_are_refused_and_later_wait() {
        let (intake, mut queue) = intake(1);
        let chat = v1::Chat { user_id: 5, room_id: 0, text: "x".to_owned() };
        let room = v1::Room { room_id: 7, action: v1::room::Action::Look.into(), ..Default::default() };
        let requests = [client_frame::Request::Chat(chat), client_frame::Request::Room(room)];
        let bytes = |id: u64| {
            let mut bytes = bytes::BytesMut::new();
            let request = Some(requests[usize::from(id.is_multiple_of(2))].clone());
            frame::append(&v1::ClientFrame { request_id: id, request }, &mut bytes);
            bytes
        };
        let mut state = ReaderState::default();
        let last = 1 + limits::SET_REFUSALS_MAX as u64;
        for id in 1..=last {
            assert!(intake.take(KEY, &mut state, &bytes(id)).is_ok(), "{id}");
        }
        assert_eq!(*intake.refusals.borrow(), (2..=last).map(|id| (KEY, id)).collect::<Vec<_>>());
        assert!(intake.take(KEY, &mut state, &bytes(last + 1)).is_err());
        // Once there is room it is read from what was kept.
        assert!(matches!(queue.try_recv(), Ok(Message::Peer { request: ClientRequest::Chat { .. }, .. })));
        assert!(intake.take(KEY, &mut state, &[]).is_ok());
        let Ok(Message::Peer { request: ClientRequest::Room { request, .. }, .. }) = queue.try_recv() else { panic!() };
        assert_eq!(request.get(), last + 1);
    }
}
