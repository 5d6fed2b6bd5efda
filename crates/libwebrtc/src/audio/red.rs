//! Redundant audio data (RED, RFC 2198): packets that carry copies of earlier ones.

use std::sync::Arc;

use str0m::rtp::{RedDecoder, RedEncoder, RedundantBlock};

/// The contents of a RED packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RedPayload {
    /// The primary block.
    pub primary: Arc<[u8]>,
    /// Redundant blocks, the most recent first. Entry 0 is the packet sent right before this one.
    pub redundant: Vec<RedundantCopy>,
}

/// A copy of an earlier packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RedundantCopy {
    /// Timestamp offset: by how many ticks of the RTP clock it was earlier than the primary block.
    pub ticks_before: u32,
    /// The Opus packet.
    pub payload: Arc<[u8]>,
}

/// Parses a RED payload. `opus` is the payload type of Opus; redundant blocks of other codecs are left out. Returns
/// `None` if the payload is malformed or the primary block is of another codec.
pub(crate) fn unpack(payload: &[u8], opus: u8) -> Option<RedPayload> {
    let blocks = RedDecoder::decode(payload).ok()?;
    let (primary, redundant) = blocks.split_last()?;
    if !primary.is_primary || primary.pt != opus {
        return None;
    }
    // On the wire the oldest block is first.
    let redundant = redundant
        .iter()
        .rev()
        .filter(|block| block.pt == opus && block.timestamp_offset > 0 && !block.payload.is_empty())
        .map(|block| RedundantCopy { ticks_before: block.timestamp_offset, payload: block.payload.into() })
        .collect();
    Some(RedPayload { primary: primary.payload.into(), redundant })
}

/// Builds RED payloads with one redundant copy, that of the previous packet.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    /// Timestamp and payload of the previous packet.
    last: Option<(u32, Vec<u8>)>,
}

impl Packer {
    /// Returns the RED payload of an Opus packet with the timestamp `time`. `opus` is the payload type of Opus. A copy
    /// that exceeds the limits of the RED header (340 ms, 1,023 bytes) is left out.
    pub(crate) fn pack(&mut self, payload: Vec<u8>, time: u32, opus: u8) -> Vec<u8> {
        let copy = self.last.take().map(|(last_time, payload)| RedundantBlock {
            pt: opus,
            timestamp_offset: time.wrapping_sub(last_time),
            payload,
        });
        let packed = RedEncoder::encode(opus, &payload, copy.as_slice());
        self.last = Some((time, payload));
        packed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPUS: u8 = 111;

    #[test]
    fn a_red_packet_yields_its_primary_block_and_its_copies_most_recent_first() {
        let copy =
            |pt, timestamp_offset, byte| RedundantBlock { pt, timestamp_offset, payload: vec![byte; 3] };
        let packet =
            RedEncoder::encode(OPUS, b"now", &[copy(OPUS, 1920, 2), copy(0, 1440, 9), copy(OPUS, 960, 1)]);

        let unpacked = unpack(&packet, OPUS).unwrap();

        assert_eq!(&*unpacked.primary, b"now");
        let redundant: Vec<_> =
            unpacked.redundant.iter().map(|copy| (copy.ticks_before, copy.payload[0])).collect();
        assert_eq!(redundant, [(960, 1), (1920, 2)]);
    }

    #[test]
    fn a_packed_payload_unpacks_with_a_copy_of_the_previous_packet_across_a_timestamp_wraparound() {
        let mut packer = Packer::default();
        packer.pack(b"first".to_vec(), u32::MAX - 959, OPUS);

        let unpacked = unpack(&packer.pack(b"second".to_vec(), 0, OPUS), OPUS).unwrap();

        assert_eq!(&*unpacked.primary, b"second");
        assert_eq!(unpacked.redundant, [RedundantCopy { ticks_before: 960, payload: b"first"[..].into() }]);
    }

    #[test]
    fn a_packet_after_a_long_pause_has_no_copy() {
        let mut packer = Packer::default();
        packer.pack(b"first".to_vec(), 0, OPUS);

        let unpacked = unpack(&packer.pack(b"second".to_vec(), 48_000, OPUS), OPUS).unwrap();

        assert_eq!(unpacked.redundant, []);
    }

    #[test]
    fn a_packet_of_another_codec_or_a_malformed_one_is_rejected() {
        assert_eq!(unpack(&RedEncoder::encode(0, b"pcmu", &[]), OPUS), None);
        assert_eq!(unpack(&[], OPUS), None);
        assert_eq!(unpack(&[0x80 | OPUS, 0, 0], OPUS), None);
    }
}
