//! Group envelopes as values: what a sender asks for, and how a total falls into shares.
//!
//! Shares are a pure function of (seed, mode, total, shares): the same for everybody who computes
//! them, whole fen, at least one each, and together exactly the total.

use std::sync::Arc;

use hongbao_proto::{EnvelopeId, Fen, RequestId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::market::campaign::{Amounts, Seed, amount_of};

/// How a total falls into shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By the double-mean method.
    Random,
    /// As equal as whole fen allow: the first ones get one fen more.
    Equal,
}

/// What a sender asks for, checked: `shares` is at least 1, `total` at least `shares` fen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEnvelope {
    /// Whose wallet pays; `None`: the house.
    pub sender: Option<UserId>,
    /// The request that caused it: unique for its sender.
    pub request: RequestId,
    pub total: Fen,
    /// Into how many it falls.
    pub shares: u32,
    pub mode: Mode,
    /// Drawn by the server. Secret while shares are left.
    pub seed: Seed,
    pub greeting: Box<str>,
    /// Who may open it, ascending, each once.
    pub recipients: Arc<[UserId]>,
    /// The room whose members they are, if it was sent to one.
    pub room: Option<RoomId>,
    /// For how long it can be opened, milliseconds.
    pub lifetime_ms: u64,
}

/// An envelope as it is offered to those who may open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub envelope: EnvelopeId,
    /// Who sent it; `None`: the house.
    pub sender: Option<UserId>,
    pub room: Option<RoomId>,
    /// Into how many it falls.
    pub shares: u32,
    pub mode: Mode,
    pub greeting: Arc<str>,
    /// It can be opened until then.
    pub expires_at: UnixMs,
}

/// The worth of share `number` (from 0), where `left` is in the envelope for it and those after it,
/// `shares` in all. Requires `number < shares` and `left` at least one fen for each share left.
///
/// Random is the double-mean method: a share is uniform over 1 fen ..= twice the mean of what is
/// left, but leaves at least one fen for each share after it; the last one takes what is left. Its
/// lot is drawn as a prize's is ([`amount_of`]), `number` being the serial. So every share has the
/// same expectation, whenever it is opened.
pub fn share(seed: &Seed, mode: Mode, left: Fen, number: u32, shares: u32) -> Fen {
    let others = u64::from(shares - number - 1);
    let mean = left.0 / (others + 1);
    match mode {
        _ if others == 0 => left,
        Mode::Equal => Fen(left.0.div_ceil(others + 1)),
        Mode::Random => {
            let max = mean.saturating_mul(2).min(left.0 - others);
            amount_of(seed, Amounts { min: Fen(1), max: Fen(max) }, hongbao_proto::Serial(number.into()))
        }
    }
}

/// All shares of an envelope, in the order in which they are opened.
pub fn split(seed: &Seed, mode: Mode, total: Fen, shares: u32) -> impl Iterator<Item = Fen> {
    (0..shares).scan(total, move |left, number| {
        let amount = share(seed, mode, *left, number, shares);
        left.0 -= amount.0;
        Some(amount)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amounts(seed: u8, mode: Mode, total: u64, shares: u32) -> Vec<u64> {
        split(&Seed([seed; 32]), mode, Fen(total), shares).map(|fen| fen.0).collect()
    }

    fn is_sound(amounts: &[u64], total: u64, shares: u32) -> bool {
        amounts.len() == shares as usize && amounts.iter().sum::<u64>() == total && amounts.iter().all(|fen| *fen >= 1)
    }

    #[test]
    fn every_small_total_falls_into_every_number_of_shares_exactly() {
        for total in 1..=60 {
            for shares in 1..=u32::try_from(total).unwrap() {
                for seed in 0..4 {
                    let random = amounts(seed, Mode::Random, total, shares);
                    assert!(is_sound(&random, total, shares), "{total} into {shares}: {random:?}");
                }
                let equal = amounts(0, Mode::Equal, total, shares);
                assert!(is_sound(&equal, total, shares), "{total} into {shares}: {equal:?}");
                assert!(equal.is_sorted_by(|a, b| a >= b) && equal[0] - equal[equal.len() - 1] <= 1, "{equal:?}");
            }
        }
    }

    #[test]
    fn early_and_late_openers_expect_the_same() {
        let (rounds, shares, total) = (4_000u32, 10u32, 100_000u64);
        let mut sums = vec![0u64; shares as usize];
        for round in 0..rounds {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&round.to_be_bytes());
            for (sum, fen) in sums.iter_mut().zip(split(&Seed(seed), Mode::Random, Fen(total), shares)) {
                *sum += fen.0;
            }
        }
        let mean = u64::from(rounds) * total / u64::from(shares);
        // The last share's standard deviation is about 1.1 means: 4,000 rounds leave 1.7%, and this
        // is four times that.
        for sum in sums {
            assert!(sum.abs_diff(mean) * 100 < mean * 7, "{sum} where {mean} is expected");
        }
    }

    proptest! {
        #[test]
        fn a_total_falls_into_shares_of_at_least_one_fen_that_add_up(
            seed: [u8; 32],
            equal: bool,
            shares in 1u32..=500,
            over in 0u64..=(1 << 53),
        ) {
            let (mode, total) = (if equal { Mode::Equal } else { Mode::Random }, over + u64::from(shares));
            let amounts: Vec<u64> = split(&Seed(seed), mode, Fen(total), shares).map(|fen| fen.0).collect();
            prop_assert!(is_sound(&amounts, total, shares), "{:?}", amounts);
        }

        #[test]
        fn no_random_share_is_above_twice_the_mean_of_what_is_left(seed: [u8; 32], shares in 2u32..50, mean in 1u64..1_000) {
            let total = mean * u64::from(shares);
            let mut left = total;
            for (number, fen) in split(&Seed(seed), Mode::Random, Fen(total), shares).enumerate() {
                let after = u64::from(shares) - number as u64 - 1;
                prop_assert!(after == 0 || fen.0 <= 2 * (left / (after + 1)));
                left -= fen.0;
            }
        }
    }
}
