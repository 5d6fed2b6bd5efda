//! Properties of Opus packets that are read from their headers (RFC 6716 §3).

/// Maximum duration of a packet, in ticks of the 48 kHz clock: 120 ms.
pub(crate) const MAX_PACKET_TICKS: u32 = 5_760;

/// Duration of the shortest frame, in ticks: 2.5 ms. Every Opus duration is a multiple of it.
pub(crate) const MIN_FRAME_TICKS: u32 = 120;

/// Packets of up to this many bytes only signal silence (discontinuous transmission).
const DTX_BYTES: usize = 2;

/// Duration of `packet`, in ticks of the 48 kHz clock; `None` if it is not a valid Opus packet.
pub(crate) fn ticks(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let frame = frame_ticks(toc);
    // The two low bits of the first byte are the frame count code (§3.2).
    let frames = match toc & 0b11 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*packet.get(1)? & 0b11_1111),
    };
    let ticks = frame * frames;
    (1..=MAX_PACKET_TICKS).contains(&ticks).then_some(ticks)
}

/// Whether the packet begins a DTX period: the sender sends nothing more until there is speech or 400 ms have passed.
pub(crate) fn is_dtx(packet: &[u8]) -> bool {
    packet.len() <= DTX_BYTES
}

/// Duration of one frame, from the configuration number in the TOC byte (§3.1, table 2).
fn frame_ticks(toc: u8) -> u32 {
    let config = toc >> 3;
    match config {
        // SILK: 10, 20, 40, 60 ms
        0..=11 => [480, 960, 1_920, 2_880][usize::from(config % 4)],
        // Hybrid: 10, 20 ms
        12..=15 => [480, 960][usize::from(config % 2)],
        // CELT: 2.5, 5, 10, 20 ms
        _ => [120, 240, 480, 960][usize::from(config % 4)],
    }
}

#[cfg(test)]
mod tests {
    use audiopus::SampleRate;
    use audiopus::packet::{Packet, nb_samples};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_duration_of_any_packet_is_that_of_libopus(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            let theirs = Packet::try_from(&bytes[..]).and_then(|packet| nb_samples(packet, SampleRate::Hz48000)).ok();

            let theirs = theirs.and_then(|samples| u32::try_from(samples).ok()).filter(|samples| *samples > 0);

            prop_assert_eq!(ticks(&bytes), theirs);
        }
    }
}
