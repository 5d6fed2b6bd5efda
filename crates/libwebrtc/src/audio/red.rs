//! Redundant audio (RFC 2198): packets that carry their predecessors along.

use std::sync::Arc;

use str0m::rtp::{RedDecoder, RedEncoder, RedundantBlock};

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

/// Packs packets together with a copy of the one before.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    /// The packet before, and its timestamp.
    last: Option<(u32, Vec<u8>)>,
}

impl Packer {
    /// The RED payload of an Opus packet with the timestamp `time`. A copy that is too old or too large for RED's
    /// header (340 ms, 1,023 bytes) is left out.
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
    fn a_red_packet_gives_its_payload_and_its_predecessors_nearest_first() {
        let copy =
            |pt, timestamp_offset, byte| RedundantBlock { pt, timestamp_offset, payload: vec![byte; 3] };
        let packet =
            RedEncoder::encode(OPUS, b"now", &[copy(OPUS, 1920, 2), copy(0, 1440, 9), copy(OPUS, 960, 1)]);

        let unpacked = unpack(&packet, OPUS).unwrap();

        assert_eq!(&*unpacked.primary, b"now");
        let earlier: Vec<_> =
            unpacked.earlier.iter().map(|copy| (copy.ticks_before, copy.payload[0])).collect();
        assert_eq!(earlier, [(960, 1), (1920, 2)]);
    }

    #[test]
    fn what_is_packed_unpacks_with_a_copy_of_the_packet_before_also_where_timestamps_wrap_around() {
        let mut packer = Packer::default();
        packer.pack(b"first".to_vec(), u32::MAX - 959, OPUS);

        let unpacked = unpack(&packer.pack(b"second".to_vec(), 0, OPUS), OPUS).unwrap();

        assert_eq!(&*unpacked.primary, b"second");
        assert_eq!(unpacked.earlier, [Earlier { ticks_before: 960, payload: b"first"[..].into() }]);
    }

    #[test]
    fn after_a_long_pause_there_is_no_copy() {
        let mut packer = Packer::default();
        packer.pack(b"first".to_vec(), 0, OPUS);

        let unpacked = unpack(&packer.pack(b"second".to_vec(), 48_000, OPUS), OPUS).unwrap();

        assert_eq!(unpacked.earlier, []);
    }

    #[test]
    fn a_packet_of_another_codec_or_none_at_all_is_refused() {
        assert_eq!(unpack(&RedEncoder::encode(0, b"pcmu", &[]), OPUS), None);
        assert_eq!(unpack(&[], OPUS), None);
        assert_eq!(unpack(&[0x80 | OPUS, 0, 0], OPUS), None);
    }
}
