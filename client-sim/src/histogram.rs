//! Latencies in microseconds, 1 µs to 60 s; longer ones count as 60 s. One shape for what is kept,
//! and a coarser one for a single second, so that histograms of machines add up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// Largest value told apart, microseconds.
pub const MICROS_MAX: u64 = 60_000_000;

/// A histogram of microseconds.
pub type Micros = Histogram<u64>;

/// An empty one. About 140 kB of address space, of which only what is used becomes resident.
pub fn empty() -> Micros {
    Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("constant bounds are valid")
}

/// An empty one for a single second, at two significant digits: about 20 kB. One of three would be
/// cleared, added up and encoded at every second's end by all machines of a host at once.
pub fn of_a_second() -> Micros {
    Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("constant bounds are valid")
}

/// HdrHistogram V2, deflated, in base64.
pub fn to_base64(histogram: &Micros) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a Vec takes any number of bytes");
    STANDARD.encode(bytes)
}

/// A text that is no histogram of this shape.
#[derive(Debug, thiserror::Error)]
#[error("not a histogram: {0}")]
pub struct NotAHistogram(String);

/// Adds what [`to_base64`] made to `sum`.
pub fn add_base64(sum: &mut Micros, text: &str) -> Result<(), NotAHistogram> {
    let bytes = STANDARD.decode(text).map_err(|error| NotAHistogram(error.to_string()))?;
    let part: Micros =
        Deserializer::new().deserialize(&mut bytes.as_slice()).map_err(|error| NotAHistogram(error.to_string()))?;
    sum.add(&part).map_err(|error| NotAHistogram(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_add_up_over_the_wire_and_clamp_at_their_maximum() {
        let (mut sum, mut part) = (empty(), empty());
        part.saturating_record(1_000);
        part.saturating_record(u64::MAX);
        for _ in 0..2 {
            add_base64(&mut sum, &to_base64(&part)).unwrap();
        }
        assert_eq!(sum.len(), 4);
        assert!(sum.equivalent(sum.max(), MICROS_MAX));
        assert!(add_base64(&mut sum, "????").is_err());
        assert!(add_base64(&mut sum, "aGVsbG8=").is_err());
    }
}
