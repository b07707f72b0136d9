//! What a client remembers: of itself whatever becomes of the server, and of each connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use hongbao_proto::UserId;
use hongbao_server::set::directory::ConnectionKey;
use hongbao_server::shard::reader::ReaderState;

use super::wire::Pipe;

/// What a Grab got, in the parts that never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Win { campaign: u32, serial: u64, amount: u64 },
    Order { id: u64, campaign: u32, serial: u64 },
}

/// What a user is told of at login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    Win { campaign: u32, serial: u64, amount: u64, request: u64 },
    Order { id: u64, state: i32 },
    Offer(u64),
}

#[derive(Debug)]
pub struct User {
    pub id: UserId,
    pub token: String,
    /// Ids of requests increase.
    pub next_request: u64,
    /// Grabs sent lately.
    pub grabs: VecDeque<(u64, u32)>,
    /// What Grabs got, as far as it was told.
    pub told: BTreeMap<u64, Told>,
    /// Prizes not acknowledged yet.
    pub wins: BTreeSet<(u32, u64)>,
    /// Orders in the state told last.
    pub orders: BTreeMap<u64, i32>,
    /// Envelopes ever offered.
    pub offers: BTreeSet<u64>,
    /// Shares, as told first.
    pub shares: BTreeMap<u64, (u32, u64)>,
    /// Envelopes sent, by request.
    pub sent: BTreeMap<u64, u64>,
    /// Prizes and envelopes that are seen for good, and the step at which the server said so.
    pub seen_wins: BTreeMap<(u32, u64), u64>,
    pub seen_envelopes: BTreeMap<u64, u64>,
    /// By room: its epoch and the last offset up to which everything was told.
    pub rooms: BTreeMap<u64, (u64, u64)>,
    /// Rooms that this user asked to leave without having heard the answer, ever.
    pub left: BTreeSet<u64>,
    /// Sales in which this user may have no more.
    pub limited: BTreeSet<u32>,
}

impl User {
    pub fn new(id: UserId, token: String) -> Self {
        Self {
            id,
            token,
            next_request: 1,
            grabs: VecDeque::new(),
            told: BTreeMap::new(),
            wins: BTreeSet::new(),
            orders: BTreeMap::new(),
            offers: BTreeSet::new(),
            shares: BTreeMap::new(),
            sent: BTreeMap::new(),
            seen_wins: BTreeMap::new(),
            seen_envelopes: BTreeMap::new(),
            rooms: BTreeMap::new(),
            left: BTreeSet::new(),
            limited: BTreeSet::new(),
        }
    }

    pub fn request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request - 1
    }
}

/// A request that is owed an answer.
#[derive(Debug, Clone)]
pub struct Asked {
    pub what: Ask,
    /// Whether the connection had been welcomed.
    pub online: bool,
    /// What an earlier sending of this Grab got, as far as it was told by then.
    pub first: Option<Told>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Login,
    Ping,
    Grab(u32),
    Acknowledge {
        wins: Vec<(u32, u64)>,
        orders: Vec<u64>,
        envelopes: Vec<u64>,
    },
    Open(u64),
    Send,
    Inspect(u64),
    Pay(u64),
    Cancel(u64),
    Orders,
    Statement,
    ChatTo,
    ChatIn {
        room: u64,
        text: String,
    },
    Join {
        room: u64,
        epoch: u64,
        offset: u64,
    },
    Leave(u64),
    Look(u64),
    /// Can only be refused.
    Hostile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Fresh,
    LoggingIn,
    Online,
    /// The server has said goodbye.
    Over,
}

#[derive(Debug)]
pub struct Conn {
    pub user: usize,
    pub set: usize,
    pub key: ConnectionKey,
    pub pipe: Rc<Pipe>,
    /// Bytes on their way to the server.
    pub up: Vec<u8>,
    /// What the server's reader keeps.
    pub reader: ReaderState,
    /// Whether the reader waits for room in the SET's queue.
    pub blocked: bool,
    /// The client has closed its end.
    pub closed: bool,
    /// The client does not read for a while.
    pub stalled: bool,
    /// Bytes of an unfinished frame.
    pub partial: Vec<u8>,
    pub phase: Phase,
    pub asked: BTreeMap<u64, VecDeque<Asked>>,
    /// The step at which the login was sent.
    pub login_at: u64,
    /// The moment appointed for another login, wall clock.
    pub appointment: Option<u64>,
    /// What is being told after the welcome: how many in all.
    pub recall: Option<(usize, Vec<Item>)>,
    /// By room: epoch (0: not known here) and the offset beyond which pushes are new.
    pub rooms: BTreeMap<u64, (u64, u64)>,
}

impl Conn {
    pub fn new(user: usize, set: usize, key: ConnectionKey, pipe: Rc<Pipe>) -> Self {
        Self {
            user,
            set,
            key,
            pipe,
            up: Vec::new(),
            reader: ReaderState::default(),
            blocked: false,
            closed: false,
            stalled: false,
            partial: Vec::new(),
            phase: Phase::Fresh,
            asked: BTreeMap::new(),
            login_at: 0,
            appointment: None,
            recall: None,
            rooms: BTreeMap::new(),
        }
    }

    /// Requests that are owed an answer.
    pub fn owed(&self) -> usize {
        self.asked.values().map(VecDeque::len).sum()
    }

    pub fn is_live(&self) -> bool {
        !self.closed && self.phase != Phase::Over
    }
}
