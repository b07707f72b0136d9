//! So many lines of a kind a second, and how many there would have been. Pure: the second is passed
//! in.

use std::collections::HashMap;

use tracing::Level;

/// Lines of one kind and level a second. Enough to see what happens, and a tenth of a megabyte a
/// minute at most.
pub const LINES_PER_SECOND: u32 = 10;

/// Kinds told apart. Names of kinds are constants of programs and libraries, never of peers; beyond
/// this they share one limit.
pub const KINDS_MAX: usize = 256;

/// What kinds beyond [`KINDS_MAX`] are counted as.
const OTHERS: &str = "others";

const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    second: u64,
    passed: u32,
    withheld: u64,
}

/// Counts lines by kind and level.
#[derive(Debug)]
pub struct Limiter {
    per_second: u32,
    kinds: HashMap<Box<str>, [Count; LEVELS.len()]>,
    any_withheld: bool,
}

impl Limiter {
    /// So many lines of each kind and level pass in a second.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, kinds: HashMap::new(), any_withheld: false }
    }

    /// Whether a line may be said in this second. If not, it has been counted as withheld.
    pub fn admit(&mut self, kind: &str, level: Level, second: u64) -> bool {
        let kind = if self.kinds.contains_key(kind) || self.kinds.len() < KINDS_MAX { kind } else { OTHERS };
        let counts = match self.kinds.get_mut(kind) {
            Some(counts) => counts,
            None => self.kinds.entry(kind.into()).or_default(),
        };
        let index = LEVELS.iter().position(|known| *known == level).unwrap_or(0);
        let count = &mut counts[index];
        // A clock that was set back begins a second as well, or nothing would be said until it has
        // caught up.
        if count.second != second {
            count.second = second;
            count.passed = 0;
        }
        let admitted = count.passed < self.per_second;
        if admitted {
            count.passed += 1;
        } else {
            count.withheld += 1;
            self.any_withheld = true;
        }
        admitted
    }

    /// Whether something was withheld and not taken.
    pub fn has_withheld(&self) -> bool {
        self.any_withheld
    }

    /// How many lines were withheld since the last call, by kind and level, in the order of kinds.
    pub fn take_withheld(&mut self) -> Vec<(Box<str>, Level, u64)> {
        let mut taken = Vec::new();
        if std::mem::take(&mut self.any_withheld) {
            for (kind, counts) in &mut self.kinds {
                for (count, level) in counts.iter_mut().zip(LEVELS).filter(|(count, _)| count.withheld > 0) {
                    taken.push((kind.clone(), level, std::mem::take(&mut count.withheld)));
                }
            }
            taken.sort();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn so_many_of_a_kind_pass_a_second_and_the_rest_is_counted(
            events in prop::collection::vec((0usize..4, 0usize..5, 0u64..5), 0..400),
            per_second in 1u32..5,
        ) {
            let mut limiter = Limiter::new(per_second);
            let (mut passed, mut withheld) = (HashMap::new(), HashMap::new());
            let mut second = 0;
            let mut told = HashMap::new();
            for (number, (kind, level, step)) in events.into_iter().enumerate() {
                second += u64::from(step == 4);
                let (kind, level) = (["a", "b", "c", "d"][kind], LEVELS[level]);
                if limiter.admit(kind, level, second) {
                    *passed.entry((kind, level, second)).or_insert(0) += 1;
                } else {
                    prop_assert_eq!(passed[&(kind, level, second)], per_second);
                    *withheld.entry((kind.to_owned(), level)).or_insert(0u64) += 1;
                }
                if number % 7 == 0 {
                    for (kind, level, count) in limiter.take_withheld() {
                        *told.entry((kind.into_string(), level)).or_insert(0) += count;
                    }
                }
            }
            for (kind, level, count) in limiter.take_withheld() {
                *told.entry((kind.into_string(), level)).or_insert(0) += count;
            }
            prop_assert!(passed.values().all(|passed| *passed <= per_second));
            prop_assert_eq!(told, withheld);
            prop_assert!(!limiter.has_withheld());
        }
    }

    #[test]
    fn memory_is_bounded_however_many_kinds_there_are() {
        let mut limiter = Limiter::new(1);
        for kind in 0..10 * KINDS_MAX {
            limiter.admit(&format!("kind-{kind}"), Level::INFO, 1);
        }
        assert!(limiter.kinds.len() <= KINDS_MAX + 1);
        let withheld = limiter.take_withheld();
        let expected = 9 * KINDS_MAX as u64 - 1;
        assert_eq!(withheld, [(OTHERS.into(), Level::INFO, expected)]);
    }
}
