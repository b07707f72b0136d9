//! A storm: at one announced second a share of all users loses its connections, as when a mobile
//! cell or a proxy dies. Whom it hits is a pure function, so that machines need not talk to each
//! other about that either.

use std::fmt;
use std::str::FromStr;

use hongbao_telemetry::percent;
use serde::{Deserialize, Serialize};

use crate::backoff::scramble;

/// A part of the users, in parts per million: more than none, all at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Fraction(u32);

impl Fraction {
    const WHOLE: u32 = 1_000_000;
    const DECIMALS: usize = 4;

    /// The users below index `index` that are hit: the part, rounded down.
    fn below(self, index: u32) -> u64 {
        u64::from(index) * u64::from(self.0) / u64::from(Self::WHOLE)
    }
}

impl TryFrom<u32> for Fraction {
    type Error = String;

    fn try_from(parts: u32) -> Result<Self, String> {
        if parts == 0 || parts > Self::WHOLE {
            return Err(format!("{parts} parts per million are no share: 1 to {}", Self::WHOLE));
        }
        Ok(Self(parts))
    }
}

impl From<Fraction> for u32 {
    fn from(share: Fraction) -> u32 {
        share.0
    }
}

impl FromStr for Fraction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a percentage above 0 and up to 100, as in 30% or 0.5%");
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?;
        let parts = percent::parse(number, Self::DECIMALS).and_then(|parts| u32::try_from(parts).ok());
        Self::try_from(parts.ok_or_else(wrong)?).map_err(|_| wrong())
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        percent::write(f, self.0.into(), Self::DECIMALS)
    }
}

/// Which of the fleet's users `first..=last` (from 0) the storm of Unix second `at` hits, in no
/// particular order.
///
/// As many as the range's share of the fleet's, rounded so that contiguous ranges add up to the
/// fleet's share exactly; and those of them whose hash is smallest, so that they are spread over
/// SETs and over the schedule, and differ from storm to storm.
pub fn hit(share: Fraction, at: u64, first: u32, last: u32) -> Vec<u32> {
    let count = share.below(last + 1) - share.below(first);
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let rank = |user: u32| (scramble(scramble(at) ^ u64::from(user)), user);
    let mut users: Vec<u32> = (first..=last).collect();
    if count < users.len() {
        users.select_nth_unstable_by_key(count, |&user| rank(user));
        users.truncate(count);
    }
    users
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: u64 = 1_800_000_000;

    fn share(text: &str) -> Fraction {
        text.parse().unwrap()
    }

    #[test]
    fn shares_are_read_or_refused() {
        for (text, parts) in [("30%", 300_000), ("0.5%", 5_000), ("100%", 1_000_000), ("0.0001%", 1)] {
            assert_eq!((u32::from(share(text)), share(text).to_string()), (parts, text.to_owned()));
        }
        for wrong in ["", "%", "30", "0%", "100.1%", "-1%", "0.00001%", "2.x%", "4294967296%"] {
            assert!(wrong.parse::<Fraction>().is_err(), "{wrong}");
        }
        assert_eq!(serde_json::from_str::<Fraction>("300000").unwrap(), share("30%"));
        for wrong in ["0", "1000001", "-1", "\"30%\""] {
            assert!(serde_json::from_str::<Fraction>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_whole_storm_hits_everybody_and_two_storms_hit_others() {
        assert_eq!(hit(share("100%"), AT, 5, 9), [5, 6, 7, 8, 9]);
        let [mut one, mut two] = [AT, AT + 1].map(|at| hit(share("10%"), at, 0, 9_999));
        one.sort_unstable();
        two.sort_unstable();
        let both = one.iter().filter(|user| two.binary_search(user).is_ok()).count();
        assert!((60..140).contains(&both), "{both} of 1000 were hit twice");
    }

    #[test]
    fn a_storm_spreads_over_neighbours_and_consecutive_requests() {
        let spread = crate::schedule::Spread::new(100_000);
        let mut by_user = [0; 10];
        let mut by_position = [0; 10];
        for user in hit(share("30%"), AT, 0, 99_999) {
            by_user[user as usize / 10_000] += 1;
            by_position[spread.position_of(user) as usize / 10_000] += 1;
        }
        for counts in [by_user, by_position] {
            assert!(counts.iter().all(|count| (2_800..3_200).contains(count)), "{counts:?}");
        }
    }

    proptest! {
        #[test]
        fn machines_together_hit_exactly_the_share_of_the_fleet(
            total in 1u32..3_000, machines in 1u32..9, parts in 1u32..=1_000_000,
        ) {
            let share = Fraction::try_from(parts).unwrap();
            let edge = |index: u32| total * index / machines;
            let mut hits = std::collections::BTreeSet::new();
            for machine in (0..machines).filter(|&machine| edge(machine) < edge(machine + 1)) {
                let (first, last) = (edge(machine), edge(machine + 1) - 1);
                let ours = hit(share, AT, first, last);
                prop_assert!(ours.iter().all(|user| (first..=last).contains(user)));
                let fair = u64::from(last - first + 1) * u64::from(parts) / 1_000_000;
                prop_assert!(fair.abs_diff(ours.len() as u64) <= 1);
                hits.extend(ours);
            }
            prop_assert_eq!(hits.len() as u64, u64::from(total) * u64::from(parts) / 1_000_000);
        }
    }
}
