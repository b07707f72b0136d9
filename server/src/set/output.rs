//! The frames of one batch, encoded one after the other, and written with one call per connection
//! touched.

use std::ops::Range;

use bytes::BytesMut;
use hongbao_proto::frame;
use hongbao_proto::v1::{ServerFrame, server_frame::Event};

use crate::set::directory::ConnectionKey;

#[derive(Debug, Clone, Copy)]
struct Span {
    key: ConnectionKey,
    start: usize,
    end: usize,
}

/// Frames waiting for the end of the batch.
#[derive(Debug, Default)]
pub struct Output {
    bytes: BytesMut,
    spans: Vec<Span>,
    /// Where frames of one connection are gathered when others came between them.
    gathered: BytesMut,
}

impl Output {
    /// Encodes a frame for `key`.
    pub fn push(&mut self, key: ConnectionKey, request_id: u64, event: Event) {
        let start = self.bytes.len();
        frame::append(&ServerFrame { request_id, event: Some(event) }, &mut self.bytes);
        self.join(key, start);
    }

    /// What was added since `start` is for `key`.
    fn join(&mut self, key: ConnectionKey, start: usize) {
        let end = self.bytes.len();
        match self.spans.last_mut() {
            Some(last) if last.key == key => last.end = end,
            _ => self.spans.push(Span { key, start, end }),
        }
    }

    /// Adds whole frames, encoded already, for `key`.
    pub fn push_encoded(&mut self, key: ConnectionKey, frames: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frames);
        self.join(key, start);
    }

    /// Those of these slots for which something waits, in order.
    pub fn touched(&self, slots: Range<usize>) -> Vec<usize> {
        let mut touched: Vec<_> =
            self.spans.iter().map(|span| span.key.slot as usize).filter(|slot| slots.contains(slot)).collect();
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Hands each connection its frames, in the order in which they were pushed, and forgets them.
    pub fn drain(&mut self, mut write: impl FnMut(ConnectionKey, &[u8])) {
        // Stable: a connection's frames keep their order.
        self.spans.sort_by_key(|span| span.key.slot);
        for group in self.spans.chunk_by(|a, b| a.key == b.key) {
            let (first, last) = (group[0], group[group.len() - 1]);
            if group.windows(2).all(|pair| pair[0].end == pair[1].start) {
                write(first.key, &self.bytes[first.start..last.end]);
            } else {
                self.gathered.clear();
                for span in group {
                    self.gathered.extend_from_slice(&self.bytes[span.start..span.end]);
                }
                write(first.key, &self.gathered);
            }
        }
        self.spans.clear();
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use hongbao_proto::v1;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn each_connection_gets_one_write_with_its_frames_in_order(pushes in prop::collection::vec((0u32..5, 0u32..2), 0..60)) {
            let mut output = Output::default();
            let mut expected: HashMap<(u32, u32), Vec<u64>> = HashMap::new();
            for (id, &(slot, generation)) in pushes.iter().enumerate() {
                output.push(ConnectionKey { slot, generation }, id as u64 + 1, Event::Pong(v1::Pong { server_time_ms: 5 }));
                expected.entry((slot, generation)).or_default().push(id as u64 + 1);
            }
            // A slot seldom changes hands inside a batch; when it does, its two connections' frames
            // may alternate.
            let mut seen: HashMap<(u32, u32), Vec<u64>> = HashMap::new();
            let mut writes = 0;
            output.drain(|key, mut frames| {
                writes += 1;
                while !frames.is_empty() {
                    let frame = v1::ServerFrame::decode_length_delimited(&mut frames).unwrap();
                    seen.entry((key.slot, key.generation)).or_default().push(frame.request_id);
                }
            });
            prop_assert!(output.is_empty());
            prop_assert_eq!(&seen, &expected);
            if pushes.iter().all(|(_, generation)| *generation == 0) {
                prop_assert_eq!(writes, expected.len());
            }
        }
    }
}
