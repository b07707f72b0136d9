//! The ledger: the durable record of who won, sent, opened and bought what. Nothing is told to a
//! user before it is durable here.
//!
//! [`Ledger`] is what the rest of the server knows of it. `books` decides, in memory, what becomes
//! of a posting; `sqlite` makes its decisions durable and finds them again; `writer` owns one on a
//! thread of its own and commits in groups whatever has arrived meanwhile.

pub mod archive;
pub mod audit;
pub mod books;
pub mod facts;
pub mod find;
mod results;
mod schema;
pub mod sqlite;
pub mod task;
pub mod user_event;
pub mod writer;

use std::sync::Arc;
use std::time::Instant;

use hongbao_proto::{CampaignId, EnvelopeId, Fen, OrderId, RequestId, Serial, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::UnixMs;
use crate::market::campaign::{Campaign, CampaignTerms};
use crate::market::envelope::{NewEnvelope, Offer};
use crate::market::order::Order;

use self::results::one_of;
pub use self::results::{
    Acknowledged, CancelResult, ClaimResult, DepositResult, Expired, OpenResult, PayResult, PostingResult, SendResult,
};

/// A user takes a unit of a campaign. The SET that sends it owns the serial until the outcome is
/// known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub user: UserId,
    /// The Grab that caused it; unique per user, and above those of the user's earlier claims.
    pub request: RequestId,
    pub campaign: CampaignId,
    pub serial: Serial,
    /// What it is worth: `CampaignTerms::amount(serial)`.
    pub amount: Fen,
}

/// A prize that is durably somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Win {
    pub campaign: CampaignId,
    pub serial: Serial,
    pub amount: Fen,
    /// The Grab that won it.
    pub request: RequestId,
}

/// What a Grab got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Award {
    /// A prize of a rain.
    Win(Win),
    /// A unit of a sale, as the order stands now.
    Order(Order),
}

/// What a user says to have seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub prizes: Box<[(CampaignId, Serial)]>,
    pub envelopes: Box<[EnvelopeId]>,
    /// Orders, as told last.
    pub orders: Box<[OrderId]>,
}

/// Where the price of an order comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    Wallet,
    /// A payment provider has collected it outside of these books.
    Outside,
}

/// A write to the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posting {
    /// A user takes a unit.
    Claim(Claim),
    /// A user has seen these; those of others are passed over.
    Acknowledge {
        user: UserId,
        seen: Box<Seen>,
    },
    /// A user pays an order.
    Pay {
        user: UserId,
        order: OrderId,
        means: Means,
    },
    /// A user gives a reserved unit back.
    Cancel {
        user: UserId,
        order: OrderId,
    },
    /// Money goes into an envelope.
    Send(Box<NewEnvelope>),
    Open {
        user: UserId,
        envelope: EnvelopeId,
    },
    /// What is overdue expires, the oldest first, at most [`crate::limits::EXPIRE_STEP`].
    Expire,
    /// The operator puts money into the wallets of consecutive users.
    Deposit {
        /// The first of them.
        first: UserId,
        /// How many, at most [`crate::limits::DEPOSIT_USERS_MAX`].
        count: u32,
        amount: Fen,
        /// Chosen by the operator: a deposit of the same key is made once.
        key: Box<str>,
    },
}

impl Posting {
    /// Whose it is, if one user's alone.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Posting::Claim(claim) => Some(claim.user),
            Posting::Acknowledge { user, .. }
            | Posting::Pay { user, .. }
            | Posting::Cancel { user, .. }
            | Posting::Open { user, .. } => Some(*user),
            Posting::Send(envelope) => envelope.sender,
            Posting::Expire | Posting::Deposit { .. } => None,
        }
    }
}

/// What a user who logs in must be told, and how its requests go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recall {
    /// Unacknowledged wins and orders, oldest first, at most [`crate::limits::RECALLED_WINS_MAX`];
    /// more follow once these are acknowledged.
    pub unacknowledged: Vec<Award>,
    /// Envelopes that wait for this user, oldest first, at most as many.
    pub offers: Vec<Arc<Offer>>,
    /// The highest request id among all claims of the user that got something.
    pub last_request: Option<RequestId>,
}

/// What a user asks about its own affairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What must I be told at login?
    Recall,
    /// What did this Grab of mine get?
    FirstAnswer(RequestId),
    Orders {
        /// Only those before this one.
        before: Option<OrderId>,
        /// At most so many.
        limit: u32,
    },
    /// What went through my wallet?
    Statement {
        /// Only movements before this one.
        before: Option<i64>,
        /// At most so many.
        limit: u32,
    },
    Envelope(EnvelopeId),
}

one_of! {
    /// The answers, one for each [`Question`].
    #[derive(Debug, Clone, PartialEq, Eq)]
    Answer {
        Recall(Recall),
        FirstAnswer(Option<Award>),
        Orders(Page<Order>),
        Statement(Statement),
        /// `None` where the user has nothing to do with it.
        Envelope(Option<Box<EnvelopeView>>),
    }
}

/// A wallet, and what went through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Now, whichever page this is.
    pub balance: Fen,
    pub movements: Page<Movement>,
}

/// Part of a list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub more: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), more: false }
    }
}

/// What a movement of money is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Won in a rain.
    Win(CampaignId, Serial),
    Open(EnvelopeId),
    Send(EnvelopeId),
    /// The unopened rest of one's own envelope.
    Return(EnvelopeId),
    Pay(OrderId),
    /// Put in by the operator.
    Deposit,
}

/// Money that came into a wallet, or left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movement {
    /// Its number in the books.
    pub entry: i64,
    pub at: UnixMs,
    pub purpose: Purpose,
    /// Fen; above 0: came in.
    pub amount: i64,
}

/// An envelope as those see it who may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeView {
    pub offer: Arc<Offer>,
    pub total: Fen,
    /// Who got what, in the order of opening; empty to a recipient who could still open it.
    pub opened: Vec<(UserId, Fen, UnixMs)>,
    /// Whether nothing more can be opened.
    pub is_over: bool,
    /// What went back to the sender when it expired.
    pub refunded: Option<Fen>,
}

/// Sums over the whole ledger; as operators see them, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Totals {
    /// Prizes of rains ever won.
    pub won: u64,
    #[serde(rename = "paid_fen")]
    #[schema(value_type = u64)]
    pub paid: Fen,
    /// Units of sales that are somebody's for good.
    pub sold: u64,
    #[serde(rename = "earned_fen")]
    #[schema(value_type = u64)]
    pub earned: Fen,
    /// Envelopes ever sent.
    pub envelopes: u64,
    /// Shares of envelopes ever opened, but for those that an archive has taken away.
    #[serde(rename = "shares_opened")]
    pub opened: u64,
    #[serde(skip)]
    pub opened_fen: Fen,
    /// Orders that wait for their payment (gauge).
    pub reserved: u64,
    /// Envelopes that can still be opened (gauge).
    pub envelopes_open: u64,
    /// Money in them (gauge).
    #[serde(rename = "enclosed_fen")]
    #[schema(value_type = u64)]
    pub enclosed: Fen,
}

/// Why the ledger did not do what it was asked. Nothing of the call was applied.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk is full, read-only or failing. Worth trying again later.
    #[error("ledger cannot be written: {0}")]
    Unavailable(String),
    /// Made by a newer version of this program.
    #[error(
        "ledger {path} has schema {found}; this version knows up to {known}: run the version that wrote it, or a newer one"
    )]
    TooNew { path: String, found: i64, known: i64 },
    /// Made by a version of this program that was never released.
    #[error("ledger {path} has schema {found}, of a version before the first release: start with a new file")]
    TooOld { path: String, found: i64 },
    /// Another process has it open. Two writers would each believe their own idea of the books.
    #[error("ledger {path} is in use by another process")]
    InUse { path: String },
    /// The file is something else.
    #[error("{path} is not a ledger of this program: {why}")]
    Foreign { path: String, why: String },
    /// No such campaign.
    #[error("campaign {0} does not exist")]
    NoSuchCampaign(CampaignId),
    /// The terms contradict themselves or exceed a limit.
    #[error("campaign terms refused: {0}")]
    BadTerms(String),
    /// What was asked for cannot be done to this file.
    #[error("{0}")]
    Refused(String),
    /// What was read cannot be right.
    #[error("ledger is corrupt: {0}")]
    Corrupt(String),
    /// Its thread has ended, or is too late to begin with this.
    #[error("the ledger is closed")]
    Stopped,
    /// The reply is of another kind than the request: our own fault, logged as such.
    #[error("the ledger answered something else")]
    Mismatched,
}

/// The books. One caller at a time; every method is a blocking call.
pub trait Ledger: Send {
    /// Applies all postings in one transaction, and answers in their order. Durable once it returns
    /// `Ok`.
    fn post(&mut self, postings: &[Posting], now: UnixMs) -> Result<Vec<PostingResult>, LedgerError>;

    /// Answers a user's question from what is durable. Cheap for a login of the many who never got
    /// anything.
    fn ask(&mut self, user: UserId, question: &Question) -> Result<Answer, LedgerError>;

    /// Opens a campaign and moves the exact sum of its prizes from the treasury into its fund.
    fn create_campaign(&mut self, terms: CampaignTerms, now: UnixMs) -> Result<Campaign, LedgerError>;

    /// Records that an operator stopped a campaign. Idempotent.
    fn stop_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError>;

    /// Gives back what is left in the fund, or banks what a sale has taken in; nothing can be won
    /// or bought afterwards. Refused while orders of the campaign wait for their payment.
    /// Idempotent.
    fn settle_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError>;

    /// All campaigns with their sums, by id.
    fn campaigns(&mut self) -> Result<Vec<Campaign>, LedgerError>;

    /// The serials of a campaign that are somebody's, ascending. Empty once it is settled.
    fn claimed_serials(&mut self, id: CampaignId) -> Result<Vec<Serial>, LedgerError>;

    /// When the next order or envelope expires, if any is to.
    fn next_due(&mut self) -> Option<UnixMs>;

    /// An envelope as its sender sees it.
    fn envelope(&mut self, id: EnvelopeId) -> Result<Option<EnvelopeView>, LedgerError>;

    /// Orders of a campaign, newest first.
    fn orders_of(&mut self, id: CampaignId, before: Option<OrderId>, limit: u32) -> Result<Page<Order>, LedgerError>;

    /// Sums over everything, kept up to date: cheap.
    fn totals(&mut self) -> Result<Totals, LedgerError>;

    /// Writes something durable and forgettable: tells whether writing works again.
    fn probe(&mut self, now: UnixMs) -> Result<(), LedgerError>;

    /// Before closing: puts the books in the form that is quickest to open. Durability does not
    /// depend on it: what is not done by `until` is added up again at the next opening, as after a
    /// crash. Whether all was done.
    fn checkpoint(&mut self, until: Option<Instant>) -> Result<bool, LedgerError> {
        let _ = until;
        Ok(true)
    }
}
