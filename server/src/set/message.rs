//! The closed list of what can be sent to a SET.

use std::sync::Arc;

use bytes::Bytes;
use hongbao_proto::v1::ErrorCode;
use hongbao_proto::{CampaignId, EnvelopeId, OrderId, RequestId, Serial, UserId};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::oneshot;

use crate::ends::{End, Hint};
use crate::ledger::writer::{self, ReplyTo};
use crate::ledger::{Question, Seen};
use crate::market::campaign::CampaignTerms;
use crate::market::envelope::{NewEnvelope, Offer};
use crate::market::lottery::Entrant;
use crate::market::stock::SalePhase;
use crate::set::broadcast::Receipt;
use crate::set::delivery::{Delivered, Delivery};
use crate::set::directory::ConnectionKey;
use crate::set::room_messages::{Chat, RoomRequest, RoomState};
use crate::transport::stream::Accepted;

/// One message of a SET's queue.
#[derive(Debug)]
pub enum Message {
    /// The acceptor has a new connection for this SET.
    Connected(Accepted),
    /// A connection's reader has read something, or ended.
    Peer { key: ConnectionKey, request: ClientRequest },
    /// A service has done what it was asked, or could not take it.
    Reply { key: ConnectionKey, pending: PendingRequest, reply: Reply },
    /// The older connection of a user is gone; the newer login may go on.
    Displaced { key: ConnectionKey, request: RequestId },
    /// The generator and operators.
    Control(Control),
}

// A SET's queue has room for thousands of these, and there are hundreds of SETs. What is large and
// rare is boxed.
const _: () = assert!(size_of::<Message>() <= 80 && size_of::<ClientRequest>() <= 32);

/// What a reader passes on. Ids are checked, tokens verified.
#[derive(Debug)]
pub enum ClientRequest {
    Grab {
        /// Echoed by the answer.
        request: RequestId,
        /// `None`: any rain.
        campaign: Option<CampaignId>,
    },
    Login {
        /// Echoed by the answer.
        request: RequestId,
        user: UserId,
        /// Unix second at which the token expires.
        expires_at: u64,
    },
    /// Something of the user's own affairs, for the ledger.
    Ledger {
        /// Echoed by the answer.
        request: RequestId,
        wanted: LedgerRequest,
    },
    /// A message to a user or a room.
    Chat {
        /// Echoed by the answer.
        request: RequestId,
        chat: Box<Chat>,
    },
    /// Join, leave or look at a room.
    Room {
        /// Echoed by the answer.
        request: RequestId,
        wanted: Box<RoomRequest>,
    },
    Ping {
        /// Echoed by the answer.
        request: RequestId,
    },
    /// A request that can only be answered with an error; the connection goes on.
    Mistake {
        /// As received, valid or not.
        request: u64,
        code: ErrorCode,
    },
    /// Something after which the connection must end.
    Violation {
        /// As received, 0 where it could not be read.
        request: u64,
        code: ErrorCode,
        end: End,
        hint: Option<Hint>,
    },
    /// The beginning of a frame, without its end.
    Partial,
    /// The reader has ended; nothing more will come from this connection.
    Gone(End),
}

impl ClientRequest {
    pub fn request_id(&self) -> u64 {
        match self {
            ClientRequest::Grab { request, .. }
            | ClientRequest::Login { request, .. }
            | ClientRequest::Ledger { request, .. }
            | ClientRequest::Chat { request, .. }
            | ClientRequest::Room { request, .. }
            | ClientRequest::Ping { request } => request.get(),
            ClientRequest::Mistake { request, .. } | ClientRequest::Violation { request, .. } => *request,
            ClientRequest::Partial | ClientRequest::Gone(_) => 0,
        }
    }
}

/// What a user asks of the ledger besides prizes.
#[derive(Debug)]
pub enum LedgerRequest {
    Acknowledge(Box<Seen>),
    Open(EnvelopeId),
    /// Send one; the sender is not filled in yet.
    Send(Box<NewEnvelope>),
    Pay(OrderId),
    /// Give a unit back.
    Cancel(OrderId),
    /// Show me.
    Ask(Box<Question>),
}

/// What a SET asked a service for, and needs again to answer.
#[derive(Debug, Clone, Copy)]
pub enum PendingRequest {
    /// What a user has missed, at login.
    Recall { request: RequestId },
    /// A prize for the user.
    Claim {
        request: RequestId,
        campaign: CampaignId,
        serial: Serial,
        /// Of a Grab for any rain: how many of them may give this user no more. `None`: it was for
        /// this campaign alone.
        passed: Option<u16>,
    },
    /// What an earlier sending of this Grab won.
    FirstAnswer { request: RequestId, campaign: Option<CampaignId> },
    /// A message, or what a user wants of a room.
    Chat { request: RequestId },
    /// Anything else: the answer follows from the reply alone.
    Simple { request: RequestId },
}

impl PendingRequest {
    pub fn request(self) -> RequestId {
        match self {
            PendingRequest::Recall { request }
            | PendingRequest::Claim { request, .. }
            | PendingRequest::FirstAnswer { request, .. }
            | PendingRequest::Chat { request }
            | PendingRequest::Simple { request } => request,
        }
    }
}

/// What came of a request that a SET has passed on.
#[derive(Debug)]
pub enum Reply {
    Ledger(Box<writer::Reply>),
    /// A message went out; `offset` is its place in the room's history, 0: not to a room.
    Receipt {
        delivered: Delivered,
        offset: u64,
    },
    Room(Box<RoomState>),
    /// An envelope whose recipients are filled in: the room's members at that moment. Now it is the
    /// ledger's.
    Enclosed(Box<NewEnvelope>),
    Refused(ErrorCode),
    Overloaded,
}

/// The answer to one request, and its place in the SET's queue, reserved before the request set
/// out: the reply is certain to fit. Dropped without one, it replies [`Reply::Overloaded`].
#[derive(Debug)]
pub struct ReplyPermit {
    place: Option<OwnedPermit<Message>>,
    key: ConnectionKey,
    pending: PendingRequest,
}

impl ReplyPermit {
    pub fn new(place: OwnedPermit<Message>, key: ConnectionKey, pending: PendingRequest) -> Self {
        Self { place: Some(place), key, pending }
    }

    pub fn send(mut self, reply: Reply) {
        self.fill(reply);
    }

    fn fill(&mut self, reply: Reply) {
        if let Some(place) = self.place.take() {
            place.send(Message::Reply { key: self.key, pending: self.pending, reply });
        }
    }
}

impl Drop for ReplyPermit {
    fn drop(&mut self) {
        self.fill(Reply::Overloaded);
    }
}

impl ReplyTo for ReplyPermit {
    fn deliver(self, reply: writer::Reply) {
        self.send(Reply::Ledger(Box::new(reply)));
    }

    fn request(&self) -> Option<RequestId> {
        Some(self.pending.request())
    }
}

/// What the generator, operators and the clock want of a SET.
#[derive(Debug)]
pub enum Control {
    /// Prizes for the shelf. The generator counts them as issued once this is queued.
    Supply {
        /// Of which campaign; announced before.
        campaign: CampaignId,
        serials: Box<[Serial]>,
    },
    /// A campaign is new or has moved on.
    Phase { campaign: CampaignId, terms: Arc<CampaignTerms>, phase: SalePhase },
    /// The opening window of a sale is over: report who came in it.
    Draw { campaign: CampaignId },
    /// The draw of a sale's opening window. Its units count as supplied.
    Drawn {
        campaign: CampaignId,
        /// Those of this SET who are served, by rank; who waits and is not
        /// among them is not.
        winners: Box<[(Entrant, Serial)]>,
    },
    /// Return what lies on this shelf: users elsewhere shake for it, and nobody here does.
    GiveBack { campaign: CampaignId },
    /// Report the shelves' books to the generator.
    Report {
        /// Echoed, so that it matches what the generator had issued when it asked.
        round: u64,
    },
    /// The user of this connection has logged in elsewhere: end it, then let the newer login go on.
    Displace { key: ConnectionKey, newer: DisplacedBy },
    /// Keep this user out of every SET for so many milliseconds.
    Bar { user: UserId, ms: u64 },
    /// End this connection, if it still is this user's.
    Kick { key: ConnectionKey, user: UserId },
    /// Write this frame to every logged-in connection.
    Announce(Bytes),
    /// The same, for one who wants to know what became of it.
    Broadcast { frame: Bytes, receipt: Receipt },
    /// Write a frame to these connections, where they are logged in.
    Deliver(Delivery),
    /// Send everybody a goodbye.
    Farewell(ReturnWindow),
    /// List sessions, from this slot on.
    List {
        /// The first slot of interest.
        from_slot: u32,
        /// At most so many.
        limit: usize,
        reply: oneshot::Sender<Vec<SessionInfo>>,
    },
    /// About a second has passed.
    Tick,
    /// Leave the loop.
    Stop,
}

/// A newer login, which waits for the end of an older connection of its user.
#[derive(Debug)]
pub struct DisplacedBy {
    /// A place in the newer SET's queue.
    pub permit: OwnedPermit<Message>,
    pub key: ConnectionKey,
    pub request: RequestId,
}

impl DisplacedBy {
    /// The older connection has ended.
    pub fn let_in(self) {
        self.permit.send(Message::Displaced { key: self.key, request: self.request });
    }
}

/// When the dismissed may come back, milliseconds from now; spread evenly, so that they do not come
/// at once.
#[derive(Debug, Clone, Copy)]
pub struct ReturnWindow {
    pub from_ms: u32,
    pub until_ms: u32,
}

/// A session as operators see it.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct SessionInfo {
    /// Index of its SET.
    pub set: u32,
    pub slot: u32,
    /// The user, once logged in.
    pub user: Option<u64>,
    /// `fresh`, `logging_in`, `online` or `leaving`.
    pub state: &'static str,
    pub peer: Option<String>,
    /// Seconds since a whole frame came.
    pub silent_seconds: u32,
    /// Bytes that the socket has refused so far.
    pub outbox_bytes: usize,
}

/// Towards the generator.
#[derive(Debug)]
pub enum StockReport {
    /// Serials that cannot be used here.
    Returned { set: u32, campaign: CampaignId, serials: Vec<Serial> },
    /// A unit that had been somebody's is for sale again.
    Released { campaign: CampaignId, serials: Vec<Serial> },
    /// Who came in a sale's opening window.
    Lottery {
        set: u32,
        campaign: CampaignId,
        /// Each user at most once.
        entrants: Vec<Entrant>,
    },
    /// A Grab found the shelf of an open sale nearly or wholly empty.
    Wanted { set: u32, campaign: CampaignId },
    /// The shelves' books at the moment that `round` was reached in the queue.
    Books { set: u32, round: u64, books: Vec<(CampaignId, crate::market::stock::ShelfBooks)> },
}

/// An envelope to be offered to those on-line of its recipients.
#[derive(Debug)]
pub struct Offering {
    pub offer: Arc<Offer>,
    pub to: Arc<[UserId]>,
}
