//! Request ids. The server wants the ids of a user's Grabs to increase, over reconnects and over
//! runs; the fleet wants to know an answer's planned time without storing it. Both follow from one
//! rule:
//!
//! `request_id of request k = (epoch in Unix seconds - 1,700,000,000) << 34 | (k + 1)`
//!
//! The upper bits, the [`RunTag`], grow from run to run; the lower ones are the request's number in
//! the schedule. The few requests outside of the schedule use ids without a tag, which no run can
//! produce: small fixed ones, as a connection has at most one Login and one Ping under way, and its
//! Acknowledges are counted; and from [`REACTIONS`] on, numbers that a machine gives out once each.

/// Bits of a request id that number the request inside its run.
const NUMBER_BITS: u32 = 34;

/// Requests of one run: 79 hours at 60,000 a second.
pub const REQUESTS_MAX: u64 = (1 << NUMBER_BITS) - 1;

/// 2023-11-14T22:13:20Z; a run's epoch must lie after it.
const TAG_BASE_SECONDS: u64 = 1_700_000_000;

/// Id of every Login.
pub const LOGIN: u64 = 1;
/// Id of every Ping.
pub const PING: u64 = 2;
/// Id of every Acknowledge.
pub const ACKNOWLEDGE: u64 = 3;
/// The first id of what users do of their own accord.
pub const REACTIONS: u64 = 16;

/// Whether an id is one of what users do of their own accord.
pub const fn is_reaction(id: u64) -> bool {
    REACTIONS <= id && id < 1 << NUMBER_BITS
}

/// An epoch that no request id can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {0} is no Unix time between 2023-11-14 and 2040-11-18")]
pub struct EpochError(pub u64);

/// The part of a request id that tells runs apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunTag(u64);

impl RunTag {
    /// The tag of the run whose first request is due in Unix second `epoch`.
    pub fn new(epoch: u64) -> Result<Self, EpochError> {
        match epoch.checked_sub(TAG_BASE_SECONDS) {
            Some(seconds) if seconds > 0 && seconds < 1 << (63 - NUMBER_BITS) => Ok(Self(seconds << NUMBER_BITS)),
            _ => Err(EpochError(epoch)),
        }
    }

    /// Id of request number `request`, which is below [`REQUESTS_MAX`].
    pub const fn request_id(self, request: u64) -> u64 {
        self.0 | (request + 1)
    }

    /// The request that an id names, if it is one of this run.
    pub const fn request_of(self, id: u64) -> Option<u64> {
        match (id ^ self.0).checked_sub(1) {
            Some(request) if request < REQUESTS_MAX => Some(request),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hongbao_proto::RequestId;

    use super::*;

    #[test]
    fn an_id_leads_back_to_its_request_and_to_no_other_run() {
        let (run, later) = (RunTag::new(1_795_000_000).unwrap(), RunTag::new(1_795_000_001).unwrap());
        for request in [0, 1, 59_999, REQUESTS_MAX - 1] {
            let id = run.request_id(request);
            assert!(RequestId::new(id).is_ok());
            assert_eq!((run.request_of(id), later.request_of(id)), (Some(request), None));
        }
        for id in [0, LOGIN, PING, ACKNOWLEDGE, REACTIONS, (1 << NUMBER_BITS) - 1, u64::MAX] {
            assert_eq!(run.request_of(id), None);
        }
        assert!(is_reaction(REACTIONS) && !is_reaction(ACKNOWLEDGE) && !is_reaction(run.request_id(0)));
    }

    #[test]
    fn ids_increase_inside_a_run_and_from_run_to_run() {
        let (run, later) = (RunTag::new(1_795_000_000).unwrap(), RunTag::new(1_795_000_001).unwrap());
        assert!(run.request_id(0) < run.request_id(1));
        assert!(run.request_id(REQUESTS_MAX - 1) < later.request_id(0));
    }

    #[test]
    fn an_epoch_that_does_not_fit_is_refused() {
        for epoch in [0, TAG_BASE_SECONDS, TAG_BASE_SECONDS + (1 << 29), u64::MAX] {
            assert_eq!(RunTag::new(epoch), Err(EpochError(epoch)));
        }
        let last = RunTag::new(TAG_BASE_SECONDS + (1 << 29) - 1).unwrap();
        assert!(RequestId::new(last.request_id(REQUESTS_MAX - 1)).is_ok());
    }
}
