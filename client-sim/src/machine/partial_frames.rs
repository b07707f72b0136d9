//! The beginnings of frames whose rest has not come yet. Nearly every connection has none: so they
//! lie here, and each user, of whom there are very many, has but four bytes to find its own.

use slab::Slab;

/// The beginning of a frame, or nothing.
pub type PartialFrame = Option<Vec<u8>>;

/// Where the beginning of a user's next frame lies.
#[derive(Debug)]
pub struct Place(u32);

impl Place {
    /// Nowhere: a frame has ended, or none has begun.
    pub const NOWHERE: Self = Self(u32::MAX);
}

/// Those of all users of a machine.
#[derive(Debug, Default)]
pub struct PartialFrames(Slab<Vec<u8>>);

impl PartialFrames {
    /// Takes out what lies at `place`, which is nowhere after that.
    pub fn take(&mut self, place: &mut Place) -> PartialFrame {
        let Place(index) = std::mem::replace(place, Place::NOWHERE);
        if index == Place::NOWHERE.0 { None } else { self.0.try_remove(index as usize) }
    }

    pub fn keep(&mut self, partial: PartialFrame) -> Place {
        let Some(bytes) = partial else { return Place::NOWHERE };
        // A machine has far fewer connections than that.
        Place(u32::try_from(self.0.insert(bytes)).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_once_and_each_user_finds_its_own() {
        let mut partial_frames = PartialFrames::default();
        let mut nowhere = partial_frames.keep(None);
        assert_eq!(partial_frames.take(&mut nowhere), None);
        let [mut one, mut two] = [b"one", b"two"].map(|bytes| partial_frames.keep(Some(bytes.to_vec())));
        assert_eq!(partial_frames.take(&mut one), Some(b"one".to_vec()));
        assert_eq!(partial_frames.take(&mut one), None);
        let mut three = partial_frames.keep(Some(b"three".to_vec()));
        assert_eq!(partial_frames.take(&mut two), Some(b"two".to_vec()));
        assert_eq!(partial_frames.take(&mut three), Some(b"three".to_vec()));
    }
}
