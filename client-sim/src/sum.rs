//! What machines counted apart and the fleet adds up.

use std::collections::BTreeMap;

pub trait Sum {
    /// Adds another machine's.
    fn add(&mut self, other: &Self);
}

impl Sum for u64 {
    fn add(&mut self, other: &u64) {
        *self += other;
    }
}

impl<T: Sum + Default> Sum for BTreeMap<String, T> {
    fn add(&mut self, other: &Self) {
        for (label, part) in other {
            self.entry(label.clone()).or_default().add(part);
        }
    }
}
