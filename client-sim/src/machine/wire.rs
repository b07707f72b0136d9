//! Frames to and from the server. A Grab is written by hand into a few bytes on the stack; a stream
//! is cut in the shared read buffer, and only a frame that is not complete yet is kept.

use bytes::{BufMut, BytesMut};
use hongbao_proto::frame::{self, FrameError, Split};
use hongbao_proto::limits::SERVER_FRAME_BYTES_MAX;
use hongbao_proto::v1::{ClientFrame, client_frame::Request};

/// The longest Grab: length, tag and 9 bytes of request id, tag and length of the Grab, tag and 5
/// bytes of campaign.
const GRAB_BYTES_MAX: usize = 1 + 10 + 2 + 6;

/// Writes Grabs of one campaign.
#[derive(Debug, Clone, Copy)]
pub struct GrabTemplate {
    tail: [u8; 8],
    tail_bytes: usize,
}

#[derive(Debug)]
pub struct GrabFrame {
    bytes: [u8; GRAB_BYTES_MAX],
    length: usize,
}

impl GrabTemplate {
    /// For the campaign with this id; 0: any rain.
    pub fn new(campaign: u32) -> Self {
        let mut request = BytesMut::new();
        if campaign != 0 {
            request.put_u8(0x08);
            prost::encoding::encode_varint(campaign.into(), &mut request);
        }
        let mut tail = [0; 8];
        // ClientFrame.grab is field 4, length-delimited.
        tail[0] = 0x22;
        tail[1] = request.len().to_le_bytes()[0];
        tail[2..2 + request.len()].copy_from_slice(&request);
        Self { tail, tail_bytes: 2 + request.len() }
    }

    /// The frame of the Grab with this request id.
    pub fn frame(&self, mut id: u64) -> GrabFrame {
        let mut bytes = [0; GRAB_BYTES_MAX];
        bytes[1] = 0x08;
        let mut length = 2;
        // The low seven bits of what is left, as in any varint.
        #[allow(clippy::cast_possible_truncation)]
        while id >= 0x80 {
            bytes[length] = id as u8 | 0x80;
            id >>= 7;
            length += 1;
        }
        bytes[length] = id.to_le_bytes()[0];
        length += 1;
        bytes[length..length + self.tail_bytes].copy_from_slice(&self.tail[..self.tail_bytes]);
        length += self.tail_bytes;
        bytes[0] = (length - 1).to_le_bytes()[0];
        GrabFrame { bytes, length }
    }
}

impl AsRef<[u8]> for GrabFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

pub fn frame(request_id: u64, request: Request) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame::append(&ClientFrame { request_id, request: Some(request) }, &mut bytes);
    bytes
}

/// Cuts `bytes` into frames and hands each payload to `take`. Returns the beginning of a frame
/// whose rest is still to come.
pub fn cut(mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<&[u8], FrameError> {
    while !bytes.is_empty() {
        let Split::Frame { payload, consumed } = frame::split(bytes, SERVER_FRAME_BYTES_MAX)? else { break };
        take(payload);
        bytes = &bytes[consumed..];
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use hongbao_proto::v1::{self, Grab};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn a_grab_written_by_hand_is_the_one_that_the_library_writes(id in 1u64..1 << 63, campaign in any::<u32>()) {
            for campaign_id in [campaign, campaign % 300, 0] {
                let expected = frame(id, Request::Grab(Grab { campaign_id }));
                let written = GrabTemplate::new(campaign_id).frame(id);
                prop_assert_eq!(written.as_ref(), &expected[..]);
            }
        }

        #[test]
        fn frames_survive_any_cutting_of_the_stream(ids in prop::collection::vec(1u64..1 << 62, 1..20), cuts in prop::collection::vec(1usize..9, 1..100)) {
            let mut stream = BytesMut::new();
            for &request_id in &ids {
                let event = Some(v1::server_frame::Event::NoneNow(v1::NoneNow {}));
                frame::append(&v1::ServerFrame { request_id, event }, &mut stream);
            }
            let (mut partial, mut seen, mut cuts) = (Vec::new(), Vec::new(), cuts.iter().cycle());
            while !stream.is_empty() {
                partial.extend(stream.split_to((*cuts.next().unwrap()).min(stream.len())));
                let take = |payload: &[u8]| seen.push(v1::ServerFrame::decode(payload).unwrap().request_id);
                partial = cut(&partial, take).unwrap().to_vec();
            }
            prop_assert!(partial.is_empty());
            prop_assert_eq!(seen, ids);
        }
    }
}
