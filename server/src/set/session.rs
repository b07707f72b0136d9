//! What a SET remembers of a connection: about 64 bytes, whether idle or not.

use hongbao_proto::UserId;

use crate::admission::{Meter, RetrySlot};
use crate::clock::Now;
use crate::transport::wire::SocketWire;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Accepted; nothing but a Login is acceptable.
    Fresh,
    /// Waiting for an older connection of the same user to end, or for the ledger's word on old
    /// wins.
    LoggingIn,
    Online,
    /// Dismissed; its reader discards what still comes until the peer closes, or the linger time is
    /// over.
    Leaving,
}

impl SessionState {
    pub const fn label(self) -> &'static str {
        match self {
            SessionState::Fresh => "fresh",
            SessionState::LoggingIn => "logging_in",
            SessionState::Online => "online",
            SessionState::Leaving => "leaving",
        }
    }
}

/// One connection of a SET.
#[derive(Debug)]
pub struct Session<W> {
    pub wire: W,
    /// Distinguishes it from earlier connections in the same slot.
    pub generation: u32,
    pub state: SessionState,
    /// The peer has closed its side: it is owed what it asked for before, and no more comes.
    pub half_closed: bool,
    /// Requests without their answer yet.
    pub owed: u16,
    /// When the last whole frame came, seconds since the process started.
    pub heard_at: u32,
    /// When the frame now being received began; 0: none is.
    pub partial_since: u32,
    /// When its outbox last came into being.
    pub slow_since: u32,
    /// When its token expires, seconds since the process started.
    pub expires_at: u32,
    pub user: Option<UserId>,
    /// The highest id of a Grab that got a final answer, or is about to. Nobody grabs before the
    /// login: until then it is the bits of the retry slot, see [`Session::retry_slot`].
    pub last_grab: u64,
    /// Use of its request rate.
    pub meter: Meter,
}

const _: () = assert!(size_of::<Session<SocketWire>>() <= 64);

impl<W> Session<W> {
    /// A whole request has come; its answer is owed.
    pub fn receive(&mut self, now: &Now) {
        self.heard_at = now.seconds();
        self.owed = self.owed.saturating_add(1);
    }

    pub fn retry_slot(&self) -> Option<RetrySlot> {
        if self.state == SessionState::Fresh { RetrySlot::from_bits(self.last_grab) } else { None }
    }

    /// Remembers when it may log in. Only in state [`SessionState::Fresh`].
    pub fn book(&mut self, retry_slot: Option<RetrySlot>) {
        self.last_grab = retry_slot.map_or(0, RetrySlot::to_bits);
    }
}
