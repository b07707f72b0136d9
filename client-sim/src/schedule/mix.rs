//! Which operation a request is: a pure function of its number, the same on all machines.
//!
//! With weights that add up to `W`, every aligned block of `W` consecutive requests holds each
//! operation exactly as often as it weighs, evenly spread inside the block, and turned by a hash of
//! the block: so no user meets the same operation at each of its turns, whatever `total` and `W`
//! have in common.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::backoff::scramble;
use crate::schedule::Spread;
use hongbao_telemetry::labels;

labels! {
    /// What a user does when its turn comes.
    pub enum Operation {
        Grab = "grab",
        /// Opens the oldest envelope that was offered to it.
        Open = "open",
        /// Says something to another user, or to its room.
        Chat = "chat",
        /// Grabs from the sale.
        Ticket = "ticket",
    }
}

/// The largest sum of weights.
const SUM_MAX: u32 = 1_000_000;

/// Operations by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mix {
    weights: [u32; Operation::COUNT],
    /// Over one block: as long as the weights' sum.
    spread: Spread,
}

impl Mix {
    /// Nothing but grabs.
    pub fn grabs() -> Self {
        Self { weights: [1, 0, 0, 0], spread: Spread::new(1) }
    }

    /// Whether there is nothing but grabs.
    pub fn is_grabs(&self) -> bool {
        self.has_only(Operation::Grab)
    }

    /// How often an operation comes in a block.
    pub fn weight(&self, operation: Operation) -> u32 {
        self.weights[operation as usize]
    }

    /// Requests of a block.
    pub fn sum(&self) -> u32 {
        self.spread.total()
    }

    fn has_only(&self, operation: Operation) -> bool {
        self.weight(operation) == self.sum()
    }

    /// What request number `request` is.
    pub fn of(&self, request: u64) -> Operation {
        if self.is_grabs() {
            return Operation::Grab;
        }
        let sum = u64::from(self.sum());
        let (block, within) = (request / sum, request % sum);
        // Both below the sum, which is small.
        let at = u64::from(self.spread.user_of(within));
        let mut place = (at + scramble(block) % sum) % sum;
        for &operation in Operation::ALL {
            match place.checked_sub(self.weight(operation).into()) {
                Some(rest) => place = rest,
                None => return operation,
            }
        }
        Operation::Grab
    }

    /// In any window of consecutive requests, each operation's count differs from its part by less
    /// than this: blocks are exact, and in either block that the window only touches the places are
    /// spread as users are.
    pub fn bound(&self) -> u64 {
        2 * self.spread.share_bound()
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self::grabs()
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `grab=90,open=5`; `+` does for a comma where commas part something else.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [0; Operation::COUNT];
        for part in text.split([',', '+']) {
            let (name, weight) = part
                .trim()
                .split_once('=')
                .ok_or_else(|| format!("`{text}` is not NAME=WEIGHT,…, as in grab=90,open=5,chat=4,ticket=1"))?;
            let operation = *Operation::ALL
                .iter()
                .find(|operation| operation.label() == name)
                .ok_or_else(|| format!("`{name}` is no operation: grab, open, chat and ticket are"))?;
            let weight: u32 = weight.parse().map_err(|_| format!("`{part}`: the weight is not a whole number"))?;
            if std::mem::replace(&mut weights[operation as usize], weight) != 0 {
                return Err(format!("`{text}` names {name} twice"));
            }
        }
        let divisor = weights.into_iter().fold(0, super::gcd);
        if divisor == 0 {
            return Err(format!("`{text}`: some weight must be above 0"));
        }
        let weights = weights.map(|weight| weight / divisor);
        let sum: u64 = weights.into_iter().map(u64::from).sum();
        match u32::try_from(sum) {
            Ok(sum) if sum <= SUM_MAX => Ok(Self { weights, spread: Spread::new(sum) }),
            _ => Err(format!("`{text}`: the weights add up to {sum}, at most {SUM_MAX} can be kept")),
        }
    }
}

impl TryFrom<String> for Mix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mix> for String {
    fn from(mix: Mix) -> String {
        mix.to_string()
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Operation::ALL.iter().filter(|operation| self.weight(**operation) > 0);
        for (number, operation) in named.enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{}={}", operation.label(), self.weight(*operation))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mix(text: &str) -> Mix {
        text.parse().unwrap()
    }

    #[test]
    fn mixes_are_read_or_refused_with_a_reason() {
        assert_eq!(mix("grab=90,open=5,chat=4,ticket=1").to_string(), "grab=90,open=5,chat=4,ticket=1");
        assert_eq!(mix("ticket=2+grab=2"), mix("grab=1,ticket=1"));
        assert!(mix("grab=7").is_grabs() && !mix("grab=7,open=1").is_grabs());
        for (wrong, said) in [
            ("", "is not NAME=WEIGHT"),
            ("grab", "is not NAME=WEIGHT"),
            ("shake=1", "`shake` is no operation"),
            ("grab=x", "not a whole number"),
            ("grab=-1", "not a whole number"),
            ("grab=0,open=0", "above 0"),
            ("grab=1,grab=2", "names grab twice"),
            ("grab=1000000,open=1", "at most 1000000"),
        ] {
            let refused = wrong.parse::<Mix>().unwrap_err();
            assert!(refused.contains(said) && !refused.contains('\n'), "{wrong}: {refused}");
        }
        assert_eq!(serde_json::from_str::<Mix>("\"open=1\"").unwrap(), mix("open=1"));
        assert!(serde_json::from_str::<Mix>("\"open=0\"").is_err());
    }

    #[test]
    fn each_user_meets_each_operation_as_often_as_it_weighs() {
        // Fleets whose size has much in common with the weights' sum, or with the golden ratio.
        for total in [100u64, 1_000, 15_000, 987, 1_597] {
            let (mix, turns) = (mix("grab=90,open=5,chat=4,ticket=1"), 4_000);
            for user in [0, 1, total / 2, total - 1] {
                let opens = (0..turns).filter(|turn| mix.of(user + turn * total) == Operation::Open).count();
                assert!((120..280).contains(&opens), "user {user} of {total}: {opens} of {turns}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_shares_of_any_window_are_as_weighted_to_within_the_bound(
            weights in prop::array::uniform4(0u32..120),
            start in any::<u32>(),
            length in 1u64..3_000,
        ) {
            prop_assume!(weights.iter().any(|&weight| weight > 0));
            let parts = Operation::ALL.iter().zip(weights).map(|(one, weight)| format!("{}={weight}", one.label()));
            let mix: Mix = parts.collect::<Vec<_>>().join(",").parse().unwrap();
            let mut counts = [0i64; 4];
            for request in u64::from(start)..u64::from(start) + length {
                counts[mix.of(request) as usize] += 1;
            }
            let (sum, length) = (i64::from(mix.sum()), i64::try_from(length).unwrap());
            for (count, &operation) in counts.into_iter().zip(Operation::ALL) {
                let skew = (count * sum - length * i64::from(mix.weight(operation))).unsigned_abs();
                prop_assert!(skew < mix.bound().max(1) * sum.unsigned_abs(), "{}: {count} of {length}", operation.label());
            }
        }
    }
}
