//! Framing of packets in a TCP stream: a 16-bit big-endian length before each packet (RFC 4571).

/// Maximum packet length in bytes. WebRTC packets are shorter; a peer that announces more is not a WebRTC peer.
const MAX_PACKET_BYTES: usize = 8_192;

/// Splits a stream of bytes into packets.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    bytes: Vec<u8>,
    /// Length of the part of `bytes` that was returned already.
    read: usize,
}

/// The peer announced a packet longer than [`MAX_PACKET_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the announced packet length of {0} bytes exceeds the limit")]
pub(super) struct PacketTooLong(usize);

impl Deframer {
    /// Appends received bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next complete packet, if any.
    ///
    /// # Errors
    /// [`PacketTooLong`] if the announced length exceeds [`MAX_PACKET_BYTES`].
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, PacketTooLong> {
        let unread = self.bytes.get(self.read..).unwrap_or_default();
        let Some(head) = unread.first_chunk::<2>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > MAX_PACKET_BYTES {
            return Err(PacketTooLong(length));
        }
        if unread.len() < 2 + length {
            return Ok(None);
        }
        let start = self.read + 2;
        self.read = start + length;
        Ok(self.bytes.get(start..self.read))
    }
}

/// Appends `packet` with its length to `out`. Returns false, and appends nothing, if it exceeds [`MAX_PACKET_BYTES`].
pub(super) fn frame(packet: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(length) =
        u16::try_from(packet.len()).ok().filter(|length| usize::from(*length) <= MAX_PACKET_BYTES)
    else {
        return false;
    };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(packet);
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packets_survive_any_segmentation_of_the_stream(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cut in 1_usize..500,
        ) {
            let mut stream = Vec::new();
            prop_assert!(packets.iter().all(|packet| frame(packet, &mut stream)));

            let (mut deframer, mut out) = (Deframer::default(), Vec::new());
            for piece in stream.chunks(cut) {
                deframer.push(piece);
                while let Some(packet) = deframer.next().unwrap() {
                    out.push(packet.to_vec());
                }
            }

            prop_assert_eq!(out, packets);
        }
    }

    #[test]
    fn packets_over_the_limit_are_rejected_on_both_sides() {
        let mut deframer = Deframer::default();
        deframer.push(&[0xFF, 0xFF, 0]);

        assert_eq!(deframer.next(), Err(PacketTooLong(65_535)));
        assert!(!frame(&vec![0; 70_000], &mut Vec::new()));
    }
}
