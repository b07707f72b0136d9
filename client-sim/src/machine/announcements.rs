//! Announcements that users were told, text by text and user by user, so that one told twice does
//! not make up for one that was missed.

use std::collections::BTreeMap;

use crate::limits::ANNOUNCEMENT_TEXTS_MAX;
use crate::results::Announced;

#[derive(Debug)]
struct Text {
    /// A bit for each user of the machine who was told.
    reached: Box<[u64]>,
    counts: Announced,
}

#[derive(Debug)]
pub struct Announcements {
    users: u32,
    /// Announcements in all, repeated ones too.
    pub total: u64,
    texts: BTreeMap<String, Text>,
}

impl Announcements {
    /// Nothing, by `users` users.
    pub fn new(users: u32) -> Self {
        Self { users, total: 0, texts: BTreeMap::new() }
    }

    /// `user` was told `text` at `now`, Unix nanoseconds.
    pub fn receive(&mut self, user: u32, text: &str, now: u64) {
        self.total += 1;
        let now_us = now / 1_000;
        if !self.texts.contains_key(text) {
            if self.texts.len() == ANNOUNCEMENT_TEXTS_MAX {
                return;
            }
            let reached = vec![0; self.users.div_ceil(u64::BITS) as usize].into();
            let counts = Announced { text: text.to_owned(), users: 0, repeated: 0, first_us: now_us, last_us: 0 };
            self.texts.insert(text.to_owned(), Text { reached, counts });
        }
        let Some(Text { reached, counts }) = self.texts.get_mut(text) else { return };
        counts.last_us = now_us;
        let (word, bit) = ((user / u64::BITS) as usize, 1 << (user % u64::BITS));
        if reached[word] & bit == 0 {
            reached[word] |= bit;
            counts.users += 1;
        } else {
            counts.repeated += 1;
        }
    }

    pub fn texts(&self) -> Vec<Announced> {
        self.texts.values().map(|text| text.counts.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_counts_once_a_text_and_repeats_are_found() {
        let mut announcements = Announcements::new(130);
        for (user, text, now) in [(0, "a", 5_000), (129, "a", 9_000), (129, "a", 12_000), (129, "b", 20_000)] {
            announcements.receive(user, text, now);
        }
        let a = Announced { text: "a".into(), users: 2, repeated: 1, first_us: 5, last_us: 12 };
        let b = Announced { text: "b".into(), users: 1, repeated: 0, first_us: 20, last_us: 20 };
        assert_eq!((announcements.total, announcements.texts()), (4, vec![a, b]));
    }

    #[test]
    fn no_more_texts_are_kept_than_the_bound_but_all_are_counted() {
        let mut announcements = Announcements::new(1);
        let texts = ANNOUNCEMENT_TEXTS_MAX as u64 + 1;
        (0..texts).for_each(|number| announcements.receive(0, &number.to_string(), 0));
        assert_eq!((announcements.total, announcements.texts().len()), (texts, ANNOUNCEMENT_TEXTS_MAX));
    }
}
