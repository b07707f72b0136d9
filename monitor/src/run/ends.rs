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

#[cfg(test)]
mod tests {
    use strum::VariantArray;

    use super::*;

    #[test]
    fn every_end_has_the_name_that_it_is_counted_by() {
        let names: Vec<&str> = End::VARIANTS.iter().map(Into::into).collect();
        let counted = "closed replaced garbage silent out_of_turn token rejected idle full stopping";
        assert_eq!(names.join(" "), counted);
    }
}
