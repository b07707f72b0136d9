//! Why a reporter's connection ended: one closed list, sorted by fault, for counters, the recording
//! and the peer.

/// Why a connection ended; by its name in `/metrics` and in recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum End {
    /// The peer hung up, or the network lost it. Nobody's fault.
    Closed,
    /// A newer connection of the same process took over. Nobody's fault.
    Replaced,
    /// Bytes that are no frame of the protocol. The peer's fault, like those that follow.
    Garbage,
    /// No Hello in time.
    Silent,
    /// Something else where Hello was due, or Hello again.
    OutOfTurn,
    /// A token that is not good for reporting.
    Token,
    /// A Hello or a report that is not acceptable.
    Rejected,
    /// No report for too long.
    Idle,
    /// No room for another connection. Our limit.
    Full,
    /// This monitor stops. Ours.
    Stopping,
}
