//! Histograms from the wire. Their encoding states its own dimensions, so that a few bytes can ask
//! for gigabytes: everything is checked before the library that allocates gets to see it.

use std::io::Read;

use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::Serialize;

use crate::limits::{HISTOGRAM_BYTES_MAX, HISTOGRAM_DIGITS_MAX};

const COMPRESSED_COOKIE: u32 = 0x1c84_9314;
/// Cookie, payload length, normalizing offset, digits: 4 bytes each; lowest, highest, ratio: 8
/// bytes each.
const HEADER_BYTES: usize = 40;

/// A count, or a sum of counts, above this is no measurement of one second; sums over all sources
/// stay far from overflow.
const COUNT_MAX: u64 = 1 << 50;

/// Why bytes are not taken for a histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// Not in the V2 compressed encoding.
    #[error("not an HdrHistogram in V2 compressed encoding: {0}")]
    Encoding(String),
    /// Larger than we hold.
    #[error("histogram inflates to more than {HISTOGRAM_BYTES_MAX} bytes")]
    TooLong,
    /// More digits than we hold.
    #[error("histogram has {0} significant digits; at most {HISTOGRAM_DIGITS_MAX} are allowed")]
    Digits(u32),
    /// Counts that no second can have.
    #[error("histogram counts are out of range")]
    Counts,
}

fn encoding(problem: impl std::fmt::Display) -> HistogramError {
    HistogramError::Encoding(problem.to_string())
}

/// Decodes one histogram in HdrHistogram's V2 compressed encoding.
pub fn decode(bytes: &[u8]) -> Result<Histogram<u64>, HistogramError> {
    let (cookie, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| encoding("too short"))?;
    let (_length, deflated) = rest.split_first_chunk::<4>().ok_or_else(|| encoding("too short"))?;
    if u32::from_be_bytes(*cookie) != COMPRESSED_COOKIE {
        return Err(encoding("wrong cookie"));
    }
    let mut inflated = Vec::new();
    let limit = HEADER_BYTES + HISTOGRAM_BYTES_MAX;
    ZlibDecoder::new(deflated).take(limit as u64 + 1).read_to_end(&mut inflated).map_err(encoding)?;
    if inflated.len() > limit {
        return Err(HistogramError::TooLong);
    }
    let Some((header, payload)) = inflated.split_at_checked(HEADER_BYTES) else {
        return Err(encoding("header is cut off"));
    };
    let word =
        |index: usize| u32::from_be_bytes([header[index], header[index + 1], header[index + 2], header[index + 3]]);
    if word(4) as usize != payload.len() {
        return Err(encoding("wrong payload length"));
    }
    if word(12) > HISTOGRAM_DIGITS_MAX {
        return Err(HistogramError::Digits(word(12)));
    }
    check_counts(payload)?;
    Deserializer::new().deserialize(&mut inflated.as_slice()).map_err(encoding)
}

/// Walks the zig-zag varints of a payload: counts, and runs of zeros as negative numbers. The
/// library negates and sums them unchecked.
fn check_counts(mut payload: &[u8]) -> Result<(), HistogramError> {
    let mut sum = 0u64;
    while let Some(&first) = payload.first() {
        let mut value = u64::from(first & 0x7f);
        let mut length = 1;
        while payload[length - 1] & 0x80 != 0 && length < 9 {
            let &byte = payload.get(length).ok_or_else(|| encoding("payload is cut off"))?;
            // The ninth byte has no continuation bit: all of it is value.
            let bits = if length == 8 { byte } else { byte & 0x7f };
            value |= u64::from(bits) << (7 * length);
            length += 1;
        }
        let magnitude = (value >> 1) + (value & 1);
        if magnitude > COUNT_MAX {
            return Err(HistogramError::Counts);
        }
        if value & 1 == 0 {
            sum += magnitude;
            if sum > COUNT_MAX {
                return Err(HistogramError::Counts);
            }
        }
        payload = &payload[length..];
    }
    Ok(())
}

/// What is kept of a histogram in memory and in tables; microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Values recorded.
    pub count: u64,
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    pub max: u64,
}

impl Quantiles {
    /// The figures of `histogram`; all 0 if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};
    use proptest::prelude::*;

    use super::*;

    fn encode(histogram: &Histogram<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut bytes).unwrap();
        bytes
    }

    fn wrap(inner: &[u8]) -> Vec<u8> {
        let mut deflated = flate2::read::ZlibEncoder::new(inner, flate2::Compression::fast());
        let mut bytes = COMPRESSED_COOKIE.to_be_bytes().to_vec();
        bytes.extend([0; 4]);
        deflated.read_to_end(&mut bytes).unwrap();
        let length = u32::try_from(bytes.len() - 8).unwrap();
        bytes[4..8].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    #[test]
    fn a_histogram_that_asks_for_too_much_memory_is_refused() {
        assert_eq!(decode(&encode(&Histogram::new(5).unwrap())), Err(HistogramError::Digits(5)));
        assert_eq!(decode(&wrap(&vec![0; 2 * HISTOGRAM_BYTES_MAX])), Err(HistogramError::TooLong));
        let mut inner = Vec::new();
        V2Serializer::new().serialize(&Histogram::<u64>::new(3).unwrap(), &mut inner).unwrap();
        inner[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(decode(&wrap(&inner)), Err(HistogramError::Encoding(_))));
    }

    #[test]
    fn a_run_of_zeros_without_end_is_refused() {
        let mut inner = Vec::new();
        V2Serializer::new().serialize(&Histogram::<u64>::new(3).unwrap(), &mut inner).unwrap();
        inner.truncate(HEADER_BYTES);
        inner.extend([0xff; 9]);
        inner[4..8].copy_from_slice(&9u32.to_be_bytes());
        assert_eq!(decode(&wrap(&inner)), Err(HistogramError::Counts));
    }

    proptest! {
        #[test]
        fn histograms_come_back_as_they_were(values in prop::collection::vec(0u64..u64::MAX >> 2, 0..200)) {
            let mut histogram = Histogram::new(3).unwrap();
            for value in values {
                histogram.record(value).unwrap();
            }
            prop_assert_eq!(decode(&encode(&histogram)).unwrap(), histogram);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(start in 0usize..40, noise in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut inner = Vec::new();
            V2Serializer::new().serialize(&Histogram::<u64>::new(2).unwrap(), &mut inner).unwrap();
            inner.truncate(start);
            inner.extend(&noise);
            if let Some(length) = inner.len().checked_sub(HEADER_BYTES) {
                inner[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            }
            for bytes in [noise.clone(), wrap(&inner)] {
                if let Ok(histogram) = decode(&bytes) {
                    prop_assert!(Quantiles::of(&histogram).p50 <= Quantiles::of(&histogram).max);
                }
            }
        }
    }
}
