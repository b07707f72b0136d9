//! Why a reporter's connection ended: one closed list, sorted by fault, for counters, the recording
//! and the peer.

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl End {
    /// Every reason.
    pub const ALL: [End; 10] = [
        End::Closed,
        End::Replaced,
        End::Garbage,
        End::Silent,
        End::OutOfTurn,
        End::Token,
        End::Rejected,
        End::Idle,
        End::Full,
        End::Stopping,
    ];

    /// As counted: in `/metrics`, in recordings.
    pub const fn name(self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::Replaced => "replaced",
            End::Garbage => "garbage",
            End::Silent => "silent",
            End::OutOfTurn => "out_of_turn",
            End::Token => "token",
            End::Rejected => "rejected",
            End::Idle => "idle",
            End::Full => "full",
            End::Stopping => "stopping",
        }
    }
}
