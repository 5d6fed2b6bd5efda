//! WebSocket frames (RFC 6455 §5) as bytes: outgoing ones are encoded once and shared, the length of
//! incoming ones is checked before they are buffered.

use actix_http::ws::{CloseCode, CloseReason, OpCode, Parser};
use bytes::{Buf, Bytes, BytesMut};

use crate::{error::Close, protocol::MAX_BINARY_BYTES};

pub(crate) fn text(text: &str) -> Bytes {
    frame(text.as_bytes(), OpCode::Text)
}

pub(crate) fn binary(payload: &[u8]) -> Bytes {
    frame(payload, OpCode::Binary)
}

pub(crate) fn ping() -> Bytes {
    frame(b"", OpCode::Ping)
}

pub(crate) fn close(close: Close, reason: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    let reason = CloseReason { code: CloseCode::from(close.code()), description: Some(reason.into()) };
    Parser::write_close(&mut bytes, Some(reason), false);
    bytes.freeze()
}

fn frame(payload: &[u8], opcode: OpCode) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.len() + 10);
    Parser::write_message(&mut bytes, payload, opcode, true, false);
    bytes.freeze()
}

/// Keeps frames over the limit out of the WebSocket decoder, which buffers a whole frame whatever length its
/// header declares. Their bytes are discarded as they arrive.
#[derive(Debug, Default)]
pub(super) struct SizeGuard {
    /// The bytes of an incomplete header.
    header: BytesMut,
    /// Bytes left of the current frame.
    left: u64,
    /// Whether that frame is dropped.
    dropping: bool,
}

/// What was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oversized {
    /// A whole message: the next one can be read.
    Message,
    /// A fragment: the rest of its message is useless.
    Fragment,
}

/// The longest header: 2 bytes, 8 of length, 4 of mask.
const MAX_HEADER_BYTES: usize = 14;

impl SizeGuard {
    /// Copies the bytes of acceptable frames to `out`, and reports a frame that is discarded.
    pub(super) fn pass(&mut self, mut bytes: Bytes, out: &mut BytesMut) -> Option<Oversized> {
        let mut oversized = None;
        while !bytes.is_empty() {
            if self.left > 0 {
                let now = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let part = bytes.split_to(now);
                self.left -= now as u64;
                if !self.dropping {
                    out.extend_from_slice(&part);
                }
                continue;
            }
            let more = bytes.len().min(MAX_HEADER_BYTES - self.header.len());
            let had = self.header.len();
            self.header.extend_from_slice(&bytes[..more]);
            let Some((length, payload)) = measure(&self.header) else {
                bytes.advance(more);
                continue;
            };
            bytes.advance(length - had);
            self.header.truncate(length);
            self.left = payload;
            self.dropping = payload > MAX_BINARY_BYTES as u64;
            if self.dropping {
                let whole = self.header[0] & 0x8F;
                let is_message = whole == 0x81 || whole == 0x82;
                oversized = Some(if is_message { Oversized::Message } else { Oversized::Fragment });
            } else {
                out.extend_from_slice(&self.header);
            }
            self.header.clear();
        }
        oversized
    }
}

/// The length of a header and of the payload behind it; none while bytes of the header are missing.
fn measure(header: &[u8]) -> Option<(usize, u64)> {
    let second = *header.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let (length, payload) = match second & 0x7F {
        126 => (4, u64::from(u16::from_be_bytes(header.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(header.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    (header.len() >= length + mask).then_some((length + mask, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it: masked.
    fn masked(payload: &[u8], opcode: OpCode, fin: bool) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        Parser::write_message(&mut bytes, payload, opcode, fin, true);
        bytes.to_vec()
    }

    fn pass_all(bytes: &[u8], chunk: usize) -> (Vec<u8>, Vec<Oversized>) {
        let mut guard = SizeGuard::default();
        let mut out = BytesMut::new();
        let oversized = bytes
            .chunks(chunk)
            .filter_map(|chunk| guard.pass(Bytes::copy_from_slice(chunk), &mut out))
            .collect();
        (out.to_vec(), oversized)
    }

    #[test]
    fn a_frame_over_the_limit_is_dropped_and_the_next_one_passes() {
        let before = masked(b"before", OpCode::Text, true);
        let huge = masked(&vec![7; MAX_BINARY_BYTES + 1], OpCode::Binary, true);
        let after = masked(b"after", OpCode::Text, true);
        let all = [before.clone(), huge, after.clone()].concat();

        for chunk in [1, 13, 4096, all.len()] {
            let (out, oversized) = pass_all(&all, chunk);
            assert_eq!(out, [before.clone(), after.clone()].concat());
            assert_eq!(oversized, [Oversized::Message]);
        }
    }

    #[test]
    fn an_oversized_fragment_is_told_apart() {
        let (_, oversized) = pass_all(&masked(&vec![7; MAX_BINARY_BYTES + 1], OpCode::Binary, false), 1000);
        assert_eq!(oversized, [Oversized::Fragment]);
    }

    #[test]
    fn a_length_without_end_fills_no_memory() {
        let mut header = vec![0x82, 0xFF];
        header.extend(u64::MAX.to_be_bytes());
        header.extend([0; 4]);
        header.extend([0; 100_000]);
        let (out, oversized) = pass_all(&header, 1000);
        assert_eq!((out.len(), oversized.len()), (0, 1));
    }

    proptest! {
        #[test]
        fn acceptable_frames_pass_unchanged_however_they_are_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            chunk in 1..50usize,
        ) {
            let all: Vec<u8> = payloads.iter().flat_map(|p| masked(p, OpCode::Binary, true)).collect();
            let (out, oversized) = pass_all(&all, chunk);
            prop_assert_eq!(out, all);
            prop_assert!(oversized.is_empty());
        }
    }
}
