//! Stream framing: protobuf's own length-delimited format, a varint length and then the message.
//!
//! Two readers share one rule. [`split`] works on a borrowed slice and never allocates: the server
//! and the fleet cut their shared scratch buffers with it. [`Codec`] wraps the same rule for
//! `tokio_util::codec::Framed`, where convenience counts.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, BytesMut};
use prost::Message;
use tokio_util::codec::{Decoder, Encoder};

use crate::limits::LENGTH_BYTES_MAX;

/// What makes a stream of bytes no stream of frames. None of these can be recovered from: the next
/// frame's start is unknown.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame of length 0")]
    Empty,
    #[error("frame of {length} bytes; at most {max} are allowed")]
    TooLong {
        /// The announced payload length, bytes.
        length: usize,
        /// The bound, bytes.
        max: usize,
    },
    #[error("frame length does not end within {LENGTH_BYTES_MAX} bytes")]
    EndlessLength,
    #[error("frame is not a valid message: {0}")]
    Payload(#[from] prost::DecodeError),
    #[error("stream failed inside a frame: {0}")]
    Io(#[from] std::io::Error),
}

/// The first frame of `bytes`, cut but not decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A whole frame: its payload, and how many bytes of the input it took with its length.
    Frame {
        /// The message's bytes.
        payload: &'a [u8],
        /// Payload and length prefix together.
        consumed: usize,
    },
    /// The frame goes on beyond the input.
    Partial {
        /// Bytes of the whole frame with its prefix, where the prefix is complete.
        needed: Option<usize>,
    },
}

/// Cuts the first frame off `bytes`. A payload may have 1 to `max` bytes.
pub fn split(bytes: &[u8], max: usize) -> Result<Split<'_>, FrameError> {
    let mut length = 0;
    for (index, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if length > max {
            return Err(FrameError::TooLong { length, max });
        }
        if byte & 0x80 != 0 {
            continue;
        }
        if length == 0 {
            return Err(FrameError::Empty);
        }
        let prefix = index + 1;
        return Ok(match bytes.get(prefix..prefix + length) {
            Some(payload) => Split::Frame { payload, consumed: prefix + length },
            None => Split::Partial { needed: Some(prefix + length) },
        });
    }
    if bytes.len() >= LENGTH_BYTES_MAX {
        return Err(FrameError::EndlessLength);
    }
    Ok(Split::Partial { needed: None })
}

/// Appends `message` to `out` as one frame.
///
/// The caller keeps its messages within the bound of its direction; both ends' tests hold the
/// largest ones against it.
pub fn append<M: Message>(message: &M, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(length + prost::length_delimiter_len(length));
    // BytesMut grows as needed, so neither call can run out of room.
    prost::encoding::encode_varint(length as u64, out);
    message.encode_raw(out);
}

/// `Framed` codec that reads `In` and writes `Out`, each payload at most `MAX` bytes.
#[derive(Debug)]
pub struct Codec<In, Out, const MAX: usize>(PhantomData<(In, Out)>);

impl<In, Out, const MAX: usize> Default for Codec<In, Out, MAX> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<In: Message + Default, Out, const MAX: usize> Decoder for Codec<In, Out, MAX> {
    type Item = In;
    type Error = FrameError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<In>, FrameError> {
        match split(src, MAX)? {
            Split::Frame { payload, consumed } => {
                let message = In::decode(payload)?;
                src.advance(consumed);
                Ok(Some(message))
            }
            Split::Partial { needed } => {
                if let Some(needed) = needed {
                    src.reserve(needed - src.len());
                }
                Ok(None)
            }
        }
    }
}

impl<In, Out: Message, const MAX: usize> Encoder<&Out> for Codec<In, Out, MAX> {
    type Error = FrameError;

    fn encode(&mut self, message: &Out, dst: &mut BytesMut) -> Result<(), FrameError> {
        let length = message.encoded_len();
        if length > MAX {
            return Err(FrameError::TooLong { length, max: MAX });
        }
        append(message, dst);
        debug_assert!(dst.remaining_mut() > 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1;

    const MAX: usize = crate::limits::CLIENT_FRAME_BYTES_MAX;

    fn grab(request_id: u64, campaign_id: u32) -> v1::ClientFrame {
        v1::ClientFrame { request_id, request: Some(v1::client_frame::Request::Grab(v1::Grab { campaign_id })) }
    }

    #[test]
    fn a_bad_length_is_refused_as_soon_as_it_is_seen() {
        assert!(matches!(split(&[0], MAX), Err(FrameError::Empty)));
        // 0 in two bytes is still 0.
        assert!(matches!(split(&[0x80, 0], MAX), Err(FrameError::Empty)));
        assert!(matches!(split(&[0x81, 0x40], MAX), Err(FrameError::TooLong { length: 8193, max: MAX })));
        // 2^31 as a varint, and one that never ends.
        assert!(matches!(split(&[0x80, 0x80, 0x80, 0x80, 0x08], MAX), Err(FrameError::TooLong { .. })));
        assert!(matches!(split(&[0x80; 5], MAX), Err(FrameError::EndlessLength)));
        assert!(matches!(split(&[0xff; 2], MAX), Err(FrameError::TooLong { .. })));
        assert_eq!(split(&[0x80; 4], MAX).unwrap(), Split::Partial { needed: None });
        assert!(matches!(split(b"GET / HTTP/1.1\r\n", 64), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_padded_length_is_read() {
        for head in [&b"\x04"[..], b"\x84\0", b"\x84\x80\0", b"\x84\x80\x80\0", b"\x84\x80\x80\x80\0"] {
            let bytes = [head, b"ping"].concat();
            assert_eq!(split(&bytes, MAX).unwrap(), Split::Frame { payload: b"ping", consumed: head.len() + 4 });
        }
    }

    #[test]
    fn a_frame_of_exactly_the_bound_passes() {
        let mut bytes = BytesMut::new();
        prost::encoding::encode_varint(MAX as u64, &mut bytes);
        let prefix = bytes.len();
        bytes.resize(prefix + MAX, 7);
        assert!(matches!(split(&bytes, MAX), Ok(Split::Frame { consumed, .. }) if consumed == prefix + MAX));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(ids in prop::collection::vec((1u64..u64::MAX, any::<u32>()), 1..20),
                                                    cuts in prop::collection::vec(1usize..9, 1..200)) {
            let mut stream = BytesMut::new();
            for &(id, campaign) in &ids {
                append(&grab(id, campaign), &mut stream);
            }
            let mut codec = Codec::<v1::ClientFrame, v1::ServerFrame, MAX>::default();
            let (mut buffer, mut seen, mut cuts) = (BytesMut::new(), Vec::new(), cuts.iter().cycle());
            while !stream.is_empty() {
                let cut = (*cuts.next().unwrap()).min(stream.len());
                buffer.unsplit(stream.split_to(cut));
                while let Some(frame) = codec.decode(&mut buffer).unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert!(buffer.is_empty());
            prop_assert_eq!(seen, ids.iter().map(|&(id, campaign)| grab(id, campaign)).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Split::Frame { payload, consumed }) = split(&bytes, MAX) {
                prop_assert!(consumed <= bytes.len() && !payload.is_empty());
                // What decodes must survive the way back; what does not is refused without a panic.
                if let Ok(frame) = v1::ClientFrame::decode(payload) {
                    prop_assert_eq!(v1::ClientFrame::decode(frame.encode_to_vec().as_slice()), Ok(frame));
                }
            }
        }
    }
}
