//! Users whom an operator keeps out for a time. Kept in memory: a restart lets them in again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use hongbao_proto::UserId;
use rustc_hash::FxHashMap;

use crate::clock::Nanos;
use crate::limits;

#[derive(Debug, Default)]
pub struct Barred {
    /// Whether there is anybody: logins look at nothing else as long as there is not.
    any: AtomicBool,
    until: Mutex<FxHashMap<UserId, Nanos>>,
}

impl Barred {
    /// Keeps `user` out until a moment. `false`: as many are kept out as may be.
    #[must_use]
    pub fn bar(&self, user: UserId, until: Nanos, now: Nanos) -> bool {
        let mut barred = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        barred.retain(|_, until| *until > now);
        if barred.len() >= limits::BARRED_USERS_MAX && !barred.contains_key(&user) {
            return false;
        }
        barred.insert(user, until);
        self.any.store(true, Ordering::Release);
        true
    }

    /// For how long `user` is still kept out, milliseconds.
    pub fn wait_ms(&self, user: UserId, now: Nanos) -> Option<u32> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let barred = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = barred.get(&user)?.saturating_sub(now).div_ceil(1_000_000);
        (left > 0).then(|| u32::try_from(left).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_ends_and_their_number_is_bounded() {
        let user = |id: u64| UserId::new(id).unwrap();
        let barred = Barred::default();
        assert_eq!(barred.wait_ms(user(1), 0), None);
        for id in 1..=limits::BARRED_USERS_MAX as u64 {
            assert!(barred.bar(user(id), 5_000_000, 0));
        }
        assert_eq!(barred.wait_ms(user(1), 1_000_000), Some(4));
        assert!(!barred.bar(user(u64::MAX >> 12), 5_000_000, 4_999_999));
        assert!(barred.bar(user(1), 9_000_000, 4_999_999), "known already");
        assert_eq!(barred.wait_ms(user(2), 5_000_000), None);
        assert!(barred.bar(user(u64::MAX >> 12), 9_000_000, 5_000_000), "the others' time is over");
    }
}
