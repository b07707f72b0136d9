//! When a user who lost the connection tries again: doubling from a tenth of a second to ten
//! seconds, and never two users at the same moment. A pure function of user and attempt, so that a
//! run can be repeated.

/// First delay, milliseconds.
const FIRST_MS: u64 = 100;

/// Longest delay before jitter, milliseconds.
const LONGEST_MS: u64 = 10_000;

/// Milliseconds until attempt number `attempt` (from 0) of `user`: between half and all of the
/// doubled delay.
pub fn delay_ms(user: u32, attempt: u8) -> u64 {
    let ceiling = (FIRST_MS << attempt.min(16)).min(LONGEST_MS);
    let half = ceiling / 2;
    half + scramble(u64::from(user) << 8 | u64::from(attempt)) % (ceiling - half + 1)
}

/// SplitMix64's finaliser: every bit of the input reaches every bit of the output.
pub fn scramble(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_keep_at_least_half() {
        for user in 0..1_000 {
            for attempt in 0..=u8::MAX {
                let ceiling = FIRST_MS.saturating_mul(1 << attempt.min(20)).min(LONGEST_MS);
                let delay = delay_ms(user, attempt);
                assert!((ceiling / 2..=ceiling).contains(&delay), "{delay} of {ceiling}");
            }
        }
    }

    #[test]
    fn users_who_fall_together_do_not_come_back_together() {
        let mut per_bucket = [0; 10];
        for user in 0..10_000 {
            per_bucket[usize::try_from((delay_ms(user, 7) - 5_000) / 501).unwrap()] += 1;
        }
        assert!(per_bucket.iter().all(|&count| (800..1_200).contains(&count)), "{per_bucket:?}");
    }
}
