//! Opus packets (RFC 6716) to 16 kHz mono, with concealment of missing packets.
//!
//! libopus decodes directly to 16 kHz mono. A packet may carry a coarse copy of the one before it (in-band
//! FEC, RFC 6716 §2.1.7); where it has none, and for earlier packets, libopus conceals the loss (PLC).

use audiopus::{Channels, MutSignals, SampleRate, coder::Decoder, packet::Packet};

use crate::audio::SAMPLE_RATE_HZ;

/// The maximum duration of a packet: 120 ms (RFC 6716 §2.1.4).
const MAX_PACKET_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 120 / 1000;

/// The longest loss that is concealed. Audio after a longer one does not continue what came before.
const MAX_CONCEALED_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 100 / 1000;

/// The bytes are not an Opus packet.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an Opus packet")]
pub struct NotOpus;

/// The decoder of one stream of packets.
pub struct OpusStream {
    decoder: Decoder,
    /// How long the last packet was, in samples.
    last: usize,
}

impl OpusStream {
    /// A decoder at the beginning of a stream.
    pub fn new() -> Self {
        let decoder = Decoder::new(SampleRate::Hz16000, Channels::Mono)
            .expect("libopus has memory for a decoder, and knows this rate");
        Self { decoder, last: 0 }
    }

    /// The samples of a packet, after those that conceal the `missing` packets before it.
    pub fn decode(&mut self, packet: &[u8], missing: u32) -> Result<Vec<i16>, NotOpus> {
        let hole = (missing as usize).saturating_mul(self.last);
        if hole > MAX_CONCEALED_SAMPLES {
            *self = Self::new();
        }
        let filled = if hole > MAX_CONCEALED_SAMPLES { 0 } else { hole };
        let mut samples = vec![0; filled + MAX_PACKET_SAMPLES];
        for at in (0..filled).step_by(self.last.max(1)) {
            let piece = &mut samples[at..at + self.last];
            // Only the packet right before this one can be in it.
            let copy = at + self.last == filled;
            Self::run(&mut self.decoder, copy.then_some(packet), piece, copy)?;
        }
        self.last = Self::run(&mut self.decoder, Some(packet), &mut samples[filled..], false)?;
        samples.truncate(filled + self.last);
        Ok(samples)
    }

    fn run(
        decoder: &mut Decoder,
        packet: Option<&[u8]>,
        samples: &mut [i16],
        copy: bool,
    ) -> Result<usize, NotOpus> {
        let packet = packet.map(Packet::try_from).transpose().map_err(|_| NotOpus)?;
        let samples = MutSignals::try_from(samples).map_err(|_| NotOpus)?;
        decoder.decode(packet, samples, copy).map_err(|_| NotOpus)
    }
}

impl Default for OpusStream {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for OpusStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpusStream").field("last", &self.last).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use audiopus::{Application, coder::Encoder};
    use proptest::prelude::*;

    use super::*;
    use crate::{audio::pcm::level_dbfs, turn::utterance_detector::fixture};

    /// 20 ms at 16 kHz.
    const FRAME: usize = 320;

    /// A recording as packets of 20 ms, each with a copy of the one before it.
    fn packets() -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(SampleRate::Hz16000, Channels::Mono, Application::Voip).unwrap();
        encoder.set_inband_fec(true).unwrap();
        encoder.set_packet_loss_perc(20).unwrap();
        let mut packet = [0; 1500];
        fixture("goforward.wav")
            .as_chunks::<FRAME>()
            .0
            .iter()
            .map(|frame| {
                let length = encoder.encode(frame, &mut packet).unwrap();
                packet[..length].to_vec()
            })
            .collect()
    }

    #[test]
    fn packets_come_out_as_long_and_about_as_loud_as_they_went_in() {
        let mut stream = OpusStream::new();
        let sound: Vec<i16> = packets().iter().flat_map(|packet| stream.decode(packet, 0).unwrap()).collect();

        let original = fixture("goforward.wav");
        assert_eq!(sound.len(), original.len() / FRAME * FRAME);
        // The voice mode of the encoder takes the lowest tones away.
        assert!((level_dbfs(&sound) - level_dbfs(&original)).abs() < 3.0);
    }

    #[test]
    fn a_missing_packet_is_replaced_and_the_sound_keeps_its_length() {
        let packets = packets();
        let whole: Vec<i16> = {
            let mut stream = OpusStream::new();
            packets.iter().flat_map(|packet| stream.decode(packet, 0).unwrap()).collect()
        };
        let mut stream = OpusStream::new();
        let mut sound = Vec::new();
        for (at, packet) in packets.iter().enumerate() {
            match at % 10 {
                4 => {}
                5 => sound.extend(stream.decode(packet, 1).unwrap()),
                _ => sound.extend(stream.decode(packet, 0).unwrap()),
            }
        }

        assert_eq!(sound.len(), whole.len());
        let difference: Vec<i16> = sound.iter().zip(&whole).map(|(a, b)| a.saturating_sub(*b)).collect();
        assert!(level_dbfs(&difference) < level_dbfs(&whole) - 6.0, "what was lost was made up for");
    }

    #[test]
    fn a_long_hole_is_not_filled() {
        let packets = packets();
        let mut stream = OpusStream::new();
        stream.decode(&packets[0], 0).unwrap();

        assert_eq!(stream.decode(&packets[1], 5).unwrap().len(), 6 * FRAME);
        assert_eq!(stream.decode(&packets[2], 6).unwrap().len(), FRAME);
        assert_eq!(stream.decode(&packets[3], u32::MAX).unwrap().len(), FRAME);
    }

    #[test]
    fn what_is_no_packet_is_refused_and_the_next_one_is_heard() {
        let mut stream = OpusStream::new();

        assert_eq!(stream.decode(&[], 0), Err(NotOpus));
        assert_eq!(stream.decode(&[0xFF, 0xFF], 3), Err(NotOpus));
        assert_eq!(stream.decode(&packets()[0], 0).unwrap().len(), FRAME);
    }

    proptest! {
        #[test]
        fn no_bytes_make_more_than_a_hole_and_a_packet(
            packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), 0..10u32), 0..20),
        ) {
            let mut stream = OpusStream::new();
            for (packet, missing) in packets {
                let length = stream.decode(&packet, missing).map_or(0, |samples| samples.len());
                prop_assert!(length <= MAX_CONCEALED_SAMPLES + MAX_PACKET_SAMPLES);
            }
        }
    }
}
