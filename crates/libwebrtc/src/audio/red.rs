//! Redundant audio (RFC 2198): packets that carry their predecessors along.

use std::sync::Arc;

use str0m::rtp::RedDecoder;

/// What a RED packet holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// The packet proper.
    pub primary: Arc<[u8]>,
    /// Predecessors, the nearest first. Entry 0 is the packet sent right before this one.
    pub earlier: Vec<Earlier>,
}

/// A copy of a packet that was sent before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Earlier {
    /// By how many ticks of the RTP clock it was earlier.
    pub ticks_before: u32,
    /// Its payload.
    pub payload: Arc<[u8]>,
}

/// Opens a RED payload whose blocks are of the payload type `opus`. Copies of other codecs are left out;
/// `None` if the structure is broken or the packet proper is of another codec.
pub(crate) fn unpack(payload: &[u8], opus: u8) -> Option<Unpacked> {
    let blocks = RedDecoder::decode(payload).ok()?;
    let (primary, redundant) = blocks.split_last()?;
    if !primary.is_primary || primary.pt != opus {
        return None;
    }
    // The oldest comes first on the wire.
    let earlier = redundant
        .iter()
        .rev()
        .filter(|block| block.pt == opus && block.timestamp_offset > 0 && !block.payload.is_empty())
        .map(|block| Earlier { ticks_before: block.timestamp_offset, payload: block.payload.into() })
        .collect();
    Some(Unpacked { primary: primary.payload.into(), earlier })
}

#[cfg(test)]
mod tests {
    use str0m::rtp::{RedEncoder, RedundantBlock};

    use super::*;

    const OPUS: u8 = 111;

    #[test]
    fn a_red_packet_gives_its_payload_and_its_predecessors_nearest_first() {
        let copy = |pt, timestamp_offset, byte| RedundantBlock { pt, timestamp_offset, payload: vec![byte; 3] };
        let packet = RedEncoder::encode(OPUS, b"now", &[copy(OPUS, 1920, 2), copy(0, 1440, 9), copy(OPUS, 960, 1)]);

        let unpacked = unpack(&packet, OPUS).unwrap();

        assert_eq!(&*unpacked.primary, b"now");
        let earlier: Vec<_> = unpacked.earlier.iter().map(|copy| (copy.ticks_before, copy.payload[0])).collect();
        assert_eq!(earlier, [(960, 1), (1920, 2)]);
    }

    #[test]
    fn a_packet_of_another_codec_or_none_at_all_is_refused() {
        assert_eq!(unpack(&RedEncoder::encode(0, b"pcmu", &[]), OPUS), None);
        assert_eq!(unpack(&[], OPUS), None);
        assert_eq!(unpack(&[0x80 | OPUS, 0, 0], OPUS), None);
    }
}
