//! Packets in a stream of bytes: each behind its length in two bytes, the high one first (RFC 4571).

/// Longer than any packet of WebRTC. A peer that announces more is not one.
const MAX_PACKET: usize = 8_192;

/// Cuts a stream of bytes into packets.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    bytes: Vec<u8>,
    /// How much of `bytes` was handed out.
    read: usize,
}

/// The peer announced a packet that is longer than any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {0} bytes was announced")]
pub(super) struct TooLong(usize);

impl Deframer {
    /// Takes what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole packet, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let waiting = self.bytes.get(self.read..).unwrap_or_default();
        let Some(head) = waiting.first_chunk::<2>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*head));
        if length > MAX_PACKET {
            return Err(TooLong(length));
        }
        if waiting.len() < 2 + length {
            return Ok(None);
        }
        let start = self.read + 2;
        self.read = start + length;
        Ok(self.bytes.get(start..self.read))
    }
}

/// Appends `packet` behind its length. One that is longer than any is left out, and the answer is false.
pub(super) fn frame(packet: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(length) = u16::try_from(packet.len()).ok().filter(|length| usize::from(*length) <= MAX_PACKET)
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
        fn packets_come_out_as_they_went_in_however_the_stream_is_cut(
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
    fn what_is_too_long_is_refused_on_both_ends() {
        let mut deframer = Deframer::default();
        deframer.push(&[0xFF, 0xFF, 0]);

        assert_eq!(deframer.next(), Err(TooLong(65_535)));
        assert!(!frame(&vec![0; 70_000], &mut Vec::new()));
    }
}
