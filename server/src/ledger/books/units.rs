//! Which units of a campaign are somebody's: a bit each, in chunks that are written as one.

use hongbao_proto::Serial;

/// Serials of one chunk: 1 KiB of bits. A batch of claims touches one or two, serials being issued
/// in ascending order.
pub const CHUNK_SERIALS: u64 = 8 * 1_024;

const WORDS: usize = (CHUNK_SERIALS / 64) as usize;

/// One bit for each serial of a campaign; chunks beyond the highest one ever set take no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units {
    chunks: Vec<[u64; WORDS]>,
}

impl Units {
    /// Whether the unit is somebody's.
    pub fn is_taken(&self, serial: Serial) -> bool {
        let (chunk, word, bit) = place(serial);
        self.chunks.get(chunk).is_some_and(|chunk| chunk[word] & bit != 0)
    }

    /// Says whose it is now: somebody's, or for sale.
    pub fn set(&mut self, serial: Serial, taken: bool) {
        let (chunk, word, bit) = place(serial);
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, [0; WORDS]);
        }
        let word = &mut self.chunks[chunk][word];
        *word = if taken { *word | bit } else { *word & !bit };
    }

    /// The number of the chunk that a serial is in.
    pub fn chunk_of(serial: Serial) -> u64 {
        serial.0 / CHUNK_SERIALS
    }

    /// A chunk as bytes, lowest serial in the lowest bit of the first; all zero beyond the highest
    /// set.
    pub fn chunk(&self, number: u64) -> Vec<u8> {
        let chunk = usize::try_from(number).ok().and_then(|number| self.chunks.get(number));
        chunk.map_or_else(|| vec![0; WORDS * 8], |words| words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// Puts a chunk back as [`Units::chunk`] gave it. `false`: it has another length.
    #[must_use = "a chunk of another length was not read"]
    pub fn load(&mut self, number: u64, bytes: &[u8]) -> bool {
        let Ok(number) = usize::try_from(number) else { return false };
        if bytes.len() != WORDS * 8 {
            return false;
        }
        if number >= self.chunks.len() {
            self.chunks.resize(number + 1, [0; WORDS]);
        }
        for (word, bytes) in self.chunks[number].iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        true
    }

    /// The serials that are somebody's, ascending.
    pub fn taken(&self) -> impl Iterator<Item = Serial> + '_ {
        self.chunks.iter().zip(0u64..).flat_map(|(chunk, number)| {
            chunk.iter().zip(0u64..).filter(|(word, _)| **word != 0).flat_map(move |(word, index)| {
                (0..64u64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| Serial(number * CHUNK_SERIALS + index * 64 + bit))
            })
        })
    }

    /// How many are somebody's.
    pub fn count(&self) -> u64 {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Chunk, word in it, and bit in that. Serials end at `CAMPAIGN_TOTAL_MAX`, which is checked
/// before.
fn place(serial: Serial) -> (usize, usize, u64) {
    let chunk = usize::try_from(serial.0 / CHUNK_SERIALS).expect("serials are far below 2^64");
    let within = serial.0 % CHUNK_SERIALS;
    (chunk, usize::try_from(within / 64).expect("below the words of a chunk"), 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_a_set_and_survive_the_trip_through_bytes(
            steps in prop::collection::vec((0u64..40_000, prop::bool::weighted(0.7)), 0..300),
        ) {
            let (mut units, mut model) = (Units::default(), BTreeSet::new());
            for (serial, taken) in steps {
                units.set(Serial(serial), taken);
                if taken { model.insert(serial); } else { model.remove(&serial); }
                prop_assert_eq!(units.is_taken(Serial(serial)), taken);
            }
            prop_assert_eq!(units.taken().map(|serial| serial.0).collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(units.count(), model.len() as u64);
            let mut read = Units::default();
            for chunk in 0..5 {
                prop_assert!(read.load(chunk, &units.chunk(chunk)));
            }
            prop_assert!(!read.load(0, &[0; 5]));
            prop_assert_eq!(read.taken().collect::<Vec<_>>(), units.taken().collect::<Vec<_>>());
        }
    }
}
