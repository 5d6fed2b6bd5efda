//! Frames of a spoken response to PCM.

use std::sync::{Mutex, PoisonError};

use audiopus::{Channels, MutSignals, SampleRate, coder::Decoder, packet::Packet};
use june_protocol::audio::{Codec, DownlinkFrame};

/// The longest packet, in milliseconds (RFC 6716 §2.1.4).
const MAX_PACKET_MS: usize = 120;

/// The client cannot decode the response.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{codec:?} at {rate_hz} Hz cannot be decoded")]
pub struct UnsupportedSpeech {
    /// Its codec.
    pub codec: Codec,
    /// Its sample rate, in Hz.
    pub rate_hz: u32,
}

/// The decoder of one response. PCM is passed on as it is.
#[derive(Default)]
pub struct SpeechDecoder(Option<Opus>);

struct Opus {
    /// Never locked: it makes the type `Sync`, which the decoder alone is not.
    decoder: Mutex<Decoder>,
    /// The samples of the longest packet.
    max_samples: usize,
    /// The position of the next packet.
    next: u64,
    /// Samples of the decoder's output before the response.
    pre_skip: u64,
}

impl SpeechDecoder {
    /// The decoder of a response, by the fields of its `speech_begin`.
    ///
    /// # Errors
    /// [`UnsupportedSpeech`] for another codec than PCM and Opus, and a rate that Opus does not have.
    pub fn new(codec: Codec, rate_hz: u32, pre_skip: Option<u32>) -> Result<Self, UnsupportedSpeech> {
        let unsupported = UnsupportedSpeech { codec, rate_hz };
        match codec {
            Codec::Pcm16le => Ok(Self(None)),
            Codec::Lc3 => Err(unsupported),
            Codec::Opus => {
                let rate = i32::try_from(rate_hz).ok().and_then(|rate| SampleRate::try_from(rate).ok());
                let decoder = rate.and_then(|rate| Decoder::new(rate, Channels::Mono).ok());
                Ok(Self(Some(Opus {
                    decoder: Mutex::new(decoder.ok_or(unsupported)?),
                    max_samples: rate_hz as usize * MAX_PACKET_MS / 1000,
                    next: 0,
                    pre_skip: u64::from(pre_skip.unwrap_or_default()),
                })))
            }
        }
    }

    /// The frame as PCM, with its position among the samples of the response. None for an Opus packet that was
    /// decoded before, that does not follow the last one, or that is damaged.
    pub fn decode(&mut self, frame: DownlinkFrame) -> Option<DownlinkFrame> {
        match (&mut self.0, frame.codec) {
            (None, Codec::Pcm16le) => Some(frame),
            (Some(opus), Codec::Opus) => opus.decode(&frame),
            (None | Some(_), _) => None,
        }
    }
}

impl Opus {
    fn decode(&mut self, frame: &DownlinkFrame) -> Option<DownlinkFrame> {
        if frame.position != self.next {
            return None;
        }
        let mut samples = vec![0; self.max_samples];
        let packet = Packet::try_from(&frame.payload[..]).ok()?;
        let signals = MutSignals::try_from(&mut samples[..]).ok()?;
        let decoder = self.decoder.get_mut().unwrap_or_else(PoisonError::into_inner);
        let length = decoder.decode(Some(packet), signals, false).ok()?;
        self.next += length as u64;
        let early = self.pre_skip.saturating_sub(frame.position).min(length as u64);
        let end = length.saturating_sub(usize::from(frame.padding)).max(early as usize);
        Some(DownlinkFrame {
            codec: Codec::Pcm16le,
            position: (frame.position + early).saturating_sub(self.pre_skip),
            padding: 0,
            payload: samples[early as usize..end].iter().flat_map(|sample| sample.to_le_bytes()).collect(),
            ..*frame
        })
    }
}

impl std::fmt::Debug for SpeechDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let next = self.0.as_ref().map(|opus| opus.next);
        f.debug_struct("SpeechDecoder").field("next", &next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use audiopus::{Application, coder::Encoder};

    use super::*;

    const RATE_HZ: u32 = 24_000;
    const PACKET: usize = 480;

    /// A rising tone as frames, of which the last has `padding`; and the encoder's lookahead.
    fn frames(packets: usize, padding: u16) -> (Vec<DownlinkFrame>, u32) {
        let encoder = Encoder::new(SampleRate::Hz24000, Channels::Mono, Application::Audio).unwrap();
        let frame = |number: usize| {
            let samples: Vec<i16> = (number * PACKET..(number + 1) * PACKET)
                .map(|at| ((at as f32 * 0.05).sin() * 8000.0) as i16)
                .collect();
            let mut packet = [0; 1500];
            let length = encoder.encode(&samples, &mut packet).unwrap();
            let padding = (number + 1 == packets).then_some(padding);
            let position = (number * PACKET) as u64;
            DownlinkFrame::decode(DownlinkFrame::encode_opus(1, position, padding, &packet[..length]))
                .unwrap()
        };
        ((0..packets).map(frame).collect(), encoder.lookahead().unwrap())
    }

    #[test]
    fn what_is_before_and_behind_the_response_is_cut() {
        let (frames, pre_skip) = frames(5, 100);
        let mut decoder = SpeechDecoder::new(Codec::Opus, RATE_HZ, Some(pre_skip)).unwrap();

        let mut samples = Vec::new();
        for frame in frames {
            let frame = decoder.decode(frame).unwrap();
            assert_eq!((frame.codec, frame.position), (Codec::Pcm16le, samples.len() as u64));
            samples.extend(frame.samples());
        }

        assert_eq!(samples.len(), 5 * PACKET - 100 - pre_skip as usize);
    }

    #[test]
    fn a_packet_that_is_sent_again_is_decoded_once_and_one_after_a_gap_not_at_all() {
        let (frames, pre_skip) = frames(3, 0);
        let mut decoder = SpeechDecoder::new(Codec::Opus, RATE_HZ, Some(pre_skip)).unwrap();

        assert!(decoder.decode(frames[0].clone()).is_some());
        assert_eq!(decoder.decode(frames[0].clone()), None);
        assert_eq!(decoder.decode(frames[2].clone()), None);
        assert!(decoder.decode(frames[1].clone()).is_some());
        assert!(decoder.decode(frames[2].clone()).is_some());
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        assert!(SpeechDecoder::new(Codec::Lc3, 16_000, None).is_err());
        assert!(SpeechDecoder::new(Codec::Opus, 22_050, None).is_err());
        let mut decoder = SpeechDecoder::new(Codec::Opus, RATE_HZ, None).unwrap();
        for packet in [&[][..], &[0xFF, 0xFF]] {
            let frame = DownlinkFrame::decode(DownlinkFrame::encode_opus(1, 0, None, packet)).unwrap();
            assert_eq!(decoder.decode(frame), None);
        }
    }

    #[test]
    fn more_padding_than_there_are_samples_leaves_none() {
        let (frames, pre_skip) = frames(1, u16::MAX);
        let mut decoder = SpeechDecoder::new(Codec::Opus, RATE_HZ, Some(pre_skip)).unwrap();

        let frame = decoder.decode(frames[0].clone()).unwrap();

        assert_eq!((frame.position, frame.payload.len(), frame.end), (0, 0, true));
    }
}
