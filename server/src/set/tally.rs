//! What a SET counts. One thread writes, anyone reads: a plain load and store, a twentieth of an
//! atomic addition's cost.

use std::sync::atomic::{AtomicU64, Ordering};

use hongbao_proto::v1::ErrorCode;
use hongbao_telemetry::labels;

use crate::ends::End;

/// A number with a single writer.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds `count`. Only the owning thread calls this.
    pub fn add(&self, count: u64) {
        self.set(self.get() + count);
    }

    /// Replaces the value. Only the owning thread calls this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value as last written.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

labels! {
    /// The kinds of answer a request can get.
    pub enum AnswerKind {
        Welcome = "welcome",
        Pong = "pong",
        Won = "won",
        NoneNow = "none_now",
        SoldOut = "sold_out",
        Overloaded = "overloaded",
        LimitReached = "limit_reached",
        TooEarly = "too_early",
        TooLate = "too_late",
        Acknowledged = "acknowledged",
        Opened = "opened",
        EnvelopeEmpty = "envelope_empty",
        EnvelopeSent = "envelope_sent",
        Order = "order",
        Receipt = "receipt",
        Room = "room",
        Page = "page",
        Error = "error",
    }
}

/// Error codes and the label of each, in the order of their wire numbers.
pub const ERRORS: [(ErrorCode, &str); 18] = [
    (ErrorCode::Unspecified, "unspecified"),
    (ErrorCode::Malformed, "malformed"),
    (ErrorCode::UnknownRequest, "unknown_request"),
    (ErrorCode::OutOfRange, "out_of_range"),
    (ErrorCode::NotLoggedIn, "not_logged_in"),
    (ErrorCode::AlreadyLoggedIn, "already_logged_in"),
    (ErrorCode::TokenInvalid, "token_invalid"),
    (ErrorCode::TokenExpired, "token_expired"),
    (ErrorCode::TokenForeign, "token_foreign"),
    (ErrorCode::NoSuchCampaign, "no_such_campaign"),
    (ErrorCode::LedgerUnavailable, "ledger_unavailable"),
    (ErrorCode::NoSuchEnvelope, "no_such_envelope"),
    (ErrorCode::NoSuchOrder, "no_such_order"),
    (ErrorCode::InsufficientFunds, "insufficient_funds"),
    (ErrorCode::OrderPaid, "order_paid"),
    (ErrorCode::NoSuchRoom, "no_such_room"),
    (ErrorCode::RoomFull, "room_full"),
    (ErrorCode::UserBarred, "user_barred"),
];

/// The counters and gauges of one SET.
#[derive(Debug, Default)]
pub struct SetTally {
    /// Requests taken in; each is owed one answer.
    pub received: Tally,
    pub grabs: Tally,
    /// Answers given, by [`AnswerKind`].
    pub answers: [Tally; AnswerKind::ALL.len()],
    /// Typed errors among them, and those that end a connection, by position in [`ERRORS`].
    pub errors: [Tally; ERRORS.len()],
    /// Answers still owed (gauge).
    pub owed: Tally,
    /// Prizes and units on the shelves (gauge).
    pub stock: Tally,
    /// Answers whose connection had gone when they were ready; a win among them is sent again at the next
    /// login.
    pub undelivered: Tally,
    /// Frames that were still queued when their connection ended.
    pub stale: Tally,
    /// Connections attached (gauge).
    pub connections: Tally,
    /// Logins that got a retry slot, because too many came at once.
    pub logins_deferred: Tally,
    /// Users logged in (gauge).
    pub online: Tally,
    pub accepted: Tally,
    /// Connections ended, by [`End`].
    pub ends: [Tally; End::ALL.len()],
    /// Messages in the last batch (gauge): how far the worker is behind.
    pub batch: Tally,
    /// Writes that a socket refused in full or in part.
    pub refused_writes: Tally,
    /// Bytes read from peers.
    pub bytes_in: Tally,
    /// Bytes offered to sockets.
    pub bytes_out: Tally,
    /// Writes of an announcement to a connection: one for each of both.
    pub announced: Tally,
    /// Announcements given up because too many, or too many bytes, were pending.
    pub announcements_dropped: Tally,
    /// Envelopes that could not be passed on to be offered: their recipients find them at the next
    /// login.
    pub offers_dropped: Tally,
    /// Chat messages written to a connection of whom they were for, each once for everybody;
    /// counted where the sender is.
    pub chat_delivered: Tally,
    /// The same for those who were off-line.
    pub chat_offline: Tally,
    /// The same for those who were too far behind to be written to.
    pub chat_dropped: Tally,
    /// Batches after which an equation of the SET did not hold. Reads 0, or the program is wrong.
    pub broken_equations: Tally,
}

impl SetTally {
    pub fn answered(&self) -> u64 {
        self.answers.iter().map(Tally::get).sum()
    }

    /// Counts a typed error.
    pub fn error(&self, code: ErrorCode) {
        if let Some(index) = ERRORS.iter().position(|(known, _)| *known == code) {
            self.errors[index].add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_of_the_protocol_has_a_label_at_its_number() {
        for (index, (code, label)) in ERRORS.iter().enumerate() {
            assert_eq!(*code as usize, index);
            assert_eq!(code.as_str_name().strip_prefix("ERROR_CODE_").unwrap().to_lowercase(), *label);
        }
        assert!(ErrorCode::try_from(i32::try_from(ERRORS.len()).unwrap()).is_err());
    }
}
