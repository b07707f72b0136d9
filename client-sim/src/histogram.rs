//! Latencies in microseconds, 1 µs to 60 s; longer ones count as 60 s. One shape for what is kept,
//! and a coarser one for a single second, so that histograms of machines add up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Serialize};

use crate::sum::Sum;

/// Largest value told apart, microseconds.
pub const MICROS_MAX: u64 = 60_000_000;

/// Latencies that are kept. In JSON: HdrHistogram V2, deflated, in base64; empty where nothing was
/// measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Micros(Option<Box<Histogram<u64>>>);

impl Micros {
    /// One that is written even if nothing is measured. About 140 kB of address space, of which
    /// only what is used becomes resident.
    pub fn empty() -> Self {
        Self(Some(shape()))
    }

    pub fn record(&mut self, micros: u64) {
        self.0.get_or_insert_with(shape).saturating_record(micros);
    }

    pub fn len(&self) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Microseconds.
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.as_ref().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }

    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.quantile(quantile) as f64 / 1_000.0
    }
}

impl Sum for Micros {
    fn add(&mut self, other: &Self) {
        if let Some(other) = &other.0 {
            self.0.get_or_insert_with(shape).add(other.as_ref()).expect("one shape");
        }
    }
}

impl From<Histogram<u64>> for Micros {
    fn from(histogram: Histogram<u64>) -> Self {
        Self(Some(histogram.into()))
    }
}

impl From<Micros> for String {
    fn from(Micros(histogram): Micros) -> String {
        let Some(histogram) = histogram else { return String::new() };
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&histogram, &mut bytes).expect("a Vec takes any number of bytes");
        STANDARD.encode(bytes)
    }
}

impl TryFrom<String> for Micros {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bytes = STANDARD.decode(text).map_err(|error| format!("not a histogram: {error}"))?;
        let part: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("not a histogram: {error}"))?;
        let mut whole = shape();
        whole.add(&part).map_err(|error| format!("not a histogram of this shape: {error}"))?;
        Ok(Self(Some(whole)))
    }
}

fn shape() -> Box<Histogram<u64>> {
    Box::new(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("constant bounds are valid"))
}

/// An empty one for a single second, at two significant digits: about 20 kB. One of three would be
/// cleared, added up and encoded at every second's end by all machines of a host at once.
pub fn of_a_second() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("constant bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_add_up_over_the_wire_and_clamp_at_their_maximum() {
        let (mut sum, mut part) = (Micros::default(), Micros::default());
        part.record(1_000);
        part.record(u64::MAX);
        for _ in 0..2 {
            sum.add(&String::from(part.clone()).try_into().unwrap());
        }
        assert_eq!((sum.len(), sum.quantile(1.0) / 100_000), (4, MICROS_MAX / 100_000));
        for wrong in ["????", "aGVsbG8="] {
            assert!(Micros::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert_eq!(
            (String::from(Micros::default()), Micros::try_from(String::new())),
            (String::new(), Ok(Micros::default()))
        );
    }
}
