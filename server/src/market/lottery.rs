//! Drawing by lot: who is served first of those who came in a sale's opening window.
//!
//! The order is a pure function of the campaign's secret seed and of who asked with which request.
//! The seed was committed to before the sale and is published after it, so that anyone who has the
//! list can draw again.

use hongbao_proto::{RequestId, UserId};
use sha2::{Digest, Sha256};

use crate::market::campaign::Seed;

/// One who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entrant {
    pub user: UserId,
    pub request: RequestId,
}

/// The rank of an entrant: the first 16 bytes of SHA-256(seed ‖ "lot" ‖ user ‖ request), both
/// numbers as 8 bytes, big-endian. The smallest is served first.
pub fn rank(seed: &Seed, entrant: Entrant) -> [u8; 16] {
    let hash = Sha256::new_with_prefix(seed.0)
        .chain_update(b"lot")
        .chain_update(entrant.user.get().to_be_bytes())
        .chain_update(entrant.request.get().to_be_bytes())
        .finalize();
    std::array::from_fn(|index| hash[index])
}

/// The entrants in the order in which they are served; each with what the caller wants to keep
/// beside it.
pub fn draw<T>(seed: &Seed, entrants: impl IntoIterator<Item = (Entrant, T)>) -> Vec<(Entrant, T)> {
    let mut drawn: Vec<_> =
        entrants.into_iter().map(|(entrant, beside)| (rank(seed, entrant), entrant, beside)).collect();
    drawn.sort_by_key(|(rank, entrant, _)| (*rank, entrant.user, entrant.request));
    drawn.into_iter().map(|(_, entrant, beside)| (entrant, beside)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entrant(user: u64, request: u64) -> Entrant {
        Entrant { user: UserId::new(user).unwrap(), request: RequestId::new(request).unwrap() }
    }

    proptest! {
        #[test]
        fn the_order_does_not_depend_on_who_came_first(
            seed: [u8; 32],
            users in prop::collection::btree_set(1u64..1_000_000, 0..100),
            rotate in 0usize..100,
        ) {
            let mut came: Vec<_> = users.iter().map(|user| (entrant(*user, 1), ())).collect();
            let drawn = draw(&Seed(seed), came.clone());
            if !came.is_empty() {
                let by = rotate % came.len();
                came.rotate_left(by);
            }
            prop_assert_eq!(draw(&Seed(seed), came), drawn.clone());
            prop_assert_eq!(drawn.len(), users.len());
        }
    }

    /// Worked out with Python's hashlib.
    #[test]
    fn a_rank_is_what_anyone_computes_from_the_rule() {
        let rank = rank(&Seed([7; 32]), entrant(5, 9));
        assert_eq!(const_hex::encode(rank), "7f370dce04af1f3b3f7379e4b7a211c9");
    }

    #[test]
    fn everybody_is_served_first_about_equally_often() {
        let mut first = [0u32; 10];
        for round in 0..5_000u32 {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&round.to_be_bytes());
            let drawn = draw(&Seed(seed), (1..=10).map(|user| (entrant(user, user), ())));
            first[usize::try_from(drawn[0].0.user.get()).unwrap() - 1] += 1;
        }
        // 500 are expected of each, with a standard deviation of 21.
        assert!(first.iter().all(|count| (390..610).contains(count)), "{first:?}");
    }
}
