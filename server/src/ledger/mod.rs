//! The ledger: the durable record of who won what. A win is acknowledged to its user only after it is durable here.
//!
//! [`Ledger`] is what the rest of the server knows of it. Its embedded implementation is SQLite (`sqlite`); `writer` owns
//! one on a thread of its own and commits in groups whatever has arrived meanwhile.

pub mod audit;
mod schema;
pub mod sqlite;
pub mod writer;

use hongbao_proto::{CampaignId, Fen, RequestId, Serial, UserId};

use crate::campaign::{Campaign, CampaignTerms, UnixMs};

/// A user takes a prize. The SET that sends it owns the serial until the outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub user: UserId,
    /// The Grab that caused it; unique per user.
    pub request: RequestId,
    /// Of which campaign.
    pub campaign: CampaignId,
    /// Which prize.
    pub serial: Serial,
    /// What it is worth: `CampaignTerms::amount(serial)`.
    pub amount: Fen,
}

/// A prize that is durably somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Win {
    /// Of which campaign.
    pub campaign: CampaignId,
    /// Which prize.
    pub serial: Serial,
    /// What it is worth.
    pub amount: Fen,
    /// The Grab that won it.
    pub request: RequestId,
}

/// A write to the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posting {
    /// A user takes a prize.
    Claim(Claim),
    /// A user has seen these wins.
    Acknowledge {
        /// Who.
        user: UserId,
        /// Which prizes; those of others are passed over.
        prizes: Box<[(CampaignId, Serial)]>,
    },
}

impl Posting {
    /// Whose it is. No posting touches what another user may see.
    pub fn user(&self) -> UserId {
        match self {
            Posting::Claim(claim) => claim.user,
            Posting::Acknowledge { user, .. } => *user,
        }
    }
}

/// Why a claim can never succeed. Stock that is issued as the ledger says never meets this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The campaign is not in the ledger.
    #[error("no such campaign")]
    NoSuchCampaign,
    /// The campaign has been settled: the rest of its fund is gone.
    #[error("the campaign is settled")]
    Settled,
    /// The serial is not below the campaign's total.
    #[error("no such serial")]
    NoSuchSerial,
    /// The amount is not what the campaign's seed says.
    #[error("the amount is not the drawn one")]
    WrongAmount,
}

/// What became of a [`Posting`] once it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The prize is the user's.
    Won(Win),
    /// The same (user, request) had already won this; the serial offered now stays unclaimed.
    Repeated(Win),
    /// The user holds as many prizes of the campaign as one may; the serial stays unclaimed.
    LimitReached {
        /// The campaign's limit.
        limit: u32,
    },
    /// The serial already is somebody's. Never seen unless stock was issued twice; the caller must drop the serial.
    Taken,
    /// The claim cannot be right and nothing moved; the caller must drop the serial.
    Refused(Refusal),
    /// So many of the named prizes (each counted once) are the user's and acknowledged now.
    Acknowledged {
        /// How many.
        count: u32,
    },
}

/// What a user who logs in must be told, and how its requests go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recall {
    /// Unacknowledged wins, oldest first, at most [`crate::limits::RECALLED_WINS_MAX`]; more follow once these are acknowledged.
    pub unacknowledged: Vec<Win>,
    /// The highest request id among all wins of the user.
    pub last_request: Option<RequestId>,
}

/// Sums over the whole ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Wins ever committed.
    pub won: u64,
    /// Their money.
    pub paid: Fen,
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
    TooNew {
        /// Its file.
        path: String,
        /// Its schema version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another process has it open. Two writers would each believe their own idea of the books.
    #[error("ledger {path} is in use by another process")]
    InUse {
        /// Its file.
        path: String,
    },
    /// The file is something else.
    #[error("{path} is not a ledger of this program: {why}")]
    Foreign {
        /// The file.
        path: String,
        /// How that shows.
        why: String,
    },
    /// No such campaign.
    #[error("campaign {0} does not exist")]
    NoSuchCampaign(CampaignId),
    /// The terms contradict themselves or exceed a limit.
    #[error("campaign terms refused: {0}")]
    BadTerms(String),
    /// What was read cannot be right.
    #[error("ledger is corrupt: {0}")]
    Corrupt(String),
}

/// The books. One caller at a time; every method is a blocking call.
pub trait Ledger: Send {
    /// Applies all postings in one transaction, and answers in their order. Durable once it returns `Ok`.
    fn post(&mut self, postings: &[Posting], now: UnixMs) -> Result<Vec<Outcome>, LedgerError>;

    /// The win of (user, request), if that request won one.
    fn first_answer(&mut self, user: UserId, request: RequestId) -> Result<Option<Win>, LedgerError>;

    /// What `user` must be told at login. Cheap for the many who never won.
    fn recall(&mut self, user: UserId) -> Result<Recall, LedgerError>;

    /// Opens a campaign and moves the exact sum of its prizes from the treasury into its fund.
    fn create_campaign(&mut self, terms: CampaignTerms, now: UnixMs) -> Result<Campaign, LedgerError>;

    /// Records that an operator stopped a campaign. Idempotent.
    fn stop_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError>;

    /// Gives back what is left in the fund; nothing can be won afterwards. Idempotent.
    fn settle_campaign(&mut self, id: CampaignId, now: UnixMs) -> Result<Campaign, LedgerError>;

    /// All campaigns with their wins, by id.
    fn campaigns(&mut self) -> Result<Vec<Campaign>, LedgerError>;

    /// The serials of a campaign that are somebody's, ascending.
    fn claimed_serials(&mut self, id: CampaignId) -> Result<Vec<Serial>, LedgerError>;

    /// Sums over everything, kept up to date: cheap.
    fn totals(&mut self) -> Result<Totals, LedgerError>;

    /// Writes something durable and forgettable: tells whether writing works again.
    fn probe(&mut self, now: UnixMs) -> Result<(), LedgerError>;

    /// Before closing: puts the books in the form that is quickest to open. Durability does not depend on it.
    fn checkpoint(&mut self) -> Result<(), LedgerError> {
        Ok(())
    }
}
