//! The samples of a spoken response as Opus packets: 24 kHz mono, each encoded once, when it is first sent.
//!
//! ```text
//!   position 0        base                  encoded                      end        end + pre-skip
//!   ├─ released ────────┼─ packets kept ───────┼─ samples that wait ───────┼─ silence ──┼─ padding ─┤
//! ```
//!
//! Positions count the samples that go into the encoder. The decoder's output lags behind by the pre-skip, so
//! silence of that length pushes the end out; the last packet says how much of it is padding. A position at
//! which sending begins again is always that of a packet: a client drops whole packets that it has.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    audio::{
        opus_encoder::{OPUS_SPEECH_RATE_HZ, OpusEncoder},
        pcm::{Resampler, UnsupportedFormat},
    },
    response::playback::FrameAudio,
};

/// Packets that are not released yet, and samples that are not encoded yet.
pub(super) struct OpusFrames {
    source: Source,
    encoder: OpusEncoder,
    /// Samples that wait to be encoded.
    samples: VecDeque<i16>,
    /// Packets from `base` on.
    packets: VecDeque<Bytes>,
    /// The position of the first packet that is kept.
    base: u64,
    /// The samples of a packet.
    frame: u64,
    /// Where the response ends, once that is known.
    end: Option<u64>,
}

impl OpusFrames {
    /// Packets of this length, of samples at `rate_hz`.
    pub(super) fn new(rate_hz: u32, frame_ms: u32) -> Result<Self, UnsupportedFormat> {
        Ok(Self {
            source: Source::new(rate_hz)?,
            encoder: OpusEncoder::new(),
            samples: VecDeque::new(),
            packets: VecDeque::new(),
            base: 0,
            frame: u64::from(OPUS_SPEECH_RATE_HZ) * u64::from(frame_ms) / 1000,
            end: None,
        })
    }

    /// More samples, at the synthesizer's rate.
    pub(super) fn push(&mut self, samples: &[i16]) {
        if self.end.is_none() {
            self.samples.extend(self.source.take(samples));
        }
    }

    /// No more samples.
    pub(super) fn complete(&mut self) {
        if self.end.is_some() {
            return;
        }
        self.samples.extend(self.source.finish());
        let end = self.total();
        self.end = Some(end);
        let packets = (end + self.pre_skip()).div_ceil(self.frame);
        let waiting = packets * self.frame - self.base - self.encoded();
        self.samples.resize(waiting as usize, 0);
    }

    /// The position after the last sample, padding included.
    pub(super) fn total(&self) -> u64 {
        self.base + self.encoded() + self.samples.len() as u64
    }

    /// The position after the last sample of the response.
    pub(super) fn end(&self) -> u64 {
        self.end.unwrap_or_else(|| self.total())
    }

    /// The length of a packet, in samples.
    pub(super) fn frame(&self) -> u64 {
        self.frame
    }

    /// The earliest position that is kept.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// How many samples of the decoder's output come before the response.
    pub(super) fn pre_skip(&self) -> u64 {
        self.encoder.pre_skip() as u64
    }

    /// The packet at a position that is kept, where there are enough samples for one; and its length in samples.
    pub(super) fn at(&mut self, position: u64) -> (FrameAudio, u64) {
        let number = ((position - self.base) / self.frame) as usize;
        while self.packets.len() <= number {
            let samples: Vec<i16> = self.samples.drain(..self.frame as usize).collect();
            self.packets.push_back(self.encoder.encode(&samples));
        }
        let after = position + self.frame;
        let padding = match self.end {
            Some(end) if after == self.total() => after - end - self.pre_skip(),
            Some(_) | None => 0,
        };
        (FrameAudio::Packet { packet: self.packets[number].clone(), padding: padding as u16 }, self.frame)
    }

    /// Releases packets that end before a position.
    pub(super) fn release(&mut self, before: u64) {
        while self.base + self.frame <= before && self.packets.pop_front().is_some() {
            self.base += self.frame;
        }
    }

    /// How many of the kept samples are encoded.
    fn encoded(&self) -> u64 {
        self.packets.len() as u64 * self.frame
    }
}

impl std::fmt::Debug for OpusFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpusFrames").field("base", &self.base).field("end", &self.end).finish_non_exhaustive()
    }
}

/// Samples of the synthesizer, resampled. What comes out is exactly as long as what went in.
struct Source {
    resampler: Resampler,
    rate_hz: u32,
    /// The resampler's delay, as far as it has not come out yet.
    delay: usize,
    /// Samples that came in, and that went out.
    taken: u64,
    given: u64,
}

impl Source {
    fn new(rate_hz: u32) -> Result<Self, UnsupportedFormat> {
        let resampler = Resampler::new(rate_hz, 1, OPUS_SPEECH_RATE_HZ)?;
        Ok(Self { delay: resampler.delay(), resampler, rate_hz, taken: 0, given: 0 })
    }

    fn take(&mut self, samples: &[i16]) -> Vec<i16> {
        self.taken += samples.len() as u64;
        let resampled = self.resampler.process(samples);
        self.give(resampled)
    }

    fn finish(&mut self) -> Vec<i16> {
        let rest = self.resampler.flush();
        self.give(rest)
    }

    /// Cuts the delay at the beginning, and what the resampler adds at the end.
    fn give(&mut self, mut samples: Vec<i16>) -> Vec<i16> {
        let early = self.delay.min(samples.len());
        samples.drain(..early);
        self.delay -= early;
        let due = (self.taken * u64::from(OPUS_SPEECH_RATE_HZ)).div_ceil(u64::from(self.rate_hz));
        samples.truncate((due - self.given) as usize);
        self.given += samples.len() as u64;
        samples
    }
}

#[cfg(test)]
pub(super) mod tests {
    use audiopus::{Channels, MutSignals, SampleRate, coder::Decoder, packet::Packet};
    use proptest::prelude::*;

    use super::*;
    use crate::{audio::pcm::level_dbfs, turn::utterance_detector::fixture};

    /// What a client makes of packets: decoded, and cut to the response.
    pub(in crate::response) fn decoded<'a>(
        packets: impl IntoIterator<Item = &'a FrameAudio>,
        pre_skip: u64,
    ) -> Vec<i16> {
        let mut decoder = Decoder::new(SampleRate::Hz24000, Channels::Mono).unwrap();
        let mut sound = Vec::new();
        for audio in packets {
            let FrameAudio::Packet { packet, padding } = audio else { panic!("{audio:?}") };
            let mut samples = [0; 2880];
            let (packet, signals) =
                (Packet::try_from(&packet[..]).unwrap(), MutSignals::try_from(&mut samples[..]).unwrap());
            let length = decoder.decode(Some(packet), signals, false).unwrap();
            sound.extend(&samples[..length - usize::from(*padding)]);
        }
        sound.drain(..pre_skip as usize);
        sound
    }

    fn frames(rate_hz: u32, frame_ms: u32, samples: &[i16]) -> OpusFrames {
        let mut frames = OpusFrames::new(rate_hz, frame_ms).unwrap();
        frames.push(samples);
        frames.complete();
        frames
    }

    fn packets(frames: &mut OpusFrames) -> Vec<FrameAudio> {
        let positions = (0..frames.total()).step_by(frames.frame() as usize);
        positions.map(|position| frames.at(position).0).collect()
    }

    /// How far the difference of two sounds is below the first of them, in dB.
    fn signal_to_noise(sound: &[i16], other: &[i16]) -> f32 {
        let difference: Vec<i16> = sound.iter().zip(other).map(|(a, b)| a.saturating_sub(*b)).collect();
        level_dbfs(sound) - level_dbfs(&difference)
    }

    #[test]
    fn what_a_client_decodes_is_the_response_sample_by_sample() {
        let speech = fixture("goforward.wav");
        for frame_ms in [20, 60] {
            // At Opus' own rate, so that nothing but the codec changes it.
            let mut frames = frames(OPUS_SPEECH_RATE_HZ, frame_ms, &speech);
            let packets = packets(&mut frames);

            let sound = decoded(&packets, frames.pre_skip());

            assert_eq!(sound.len(), speech.len());
            let in_place = signal_to_noise(&speech, &sound);
            assert!(in_place > 8.0, "{in_place} dB in frames of {frame_ms} ms");
            let shifted = signal_to_noise(&speech[..speech.len() - 12], &sound[12..]);
            assert!(shifted < in_place - 3.0, "half a millisecond late it fits less: {shifted} dB");
        }
    }

    #[test]
    fn another_rate_is_resampled_and_the_response_keeps_its_length_and_its_place() {
        let speech = fixture("goforward.wav");
        let mut resampler = Resampler::new(16_000, 1, OPUS_SPEECH_RATE_HZ).unwrap();
        let mut expected = resampler.process(&speech);
        expected.extend(resampler.flush());
        let delay = resampler.delay();

        let mut frames = frames(16_000, 20, &speech);
        let packets = packets(&mut frames);
        let sound = decoded(&packets, frames.pre_skip());

        assert_eq!(sound.len(), speech.len() * 3 / 2);
        let fits = signal_to_noise(&expected[delay..][..sound.len()], &sound);
        assert!(fits > 8.0, "{fits} dB");
    }

    #[test]
    fn a_packet_that_is_sent_again_is_the_same_one() {
        let mut frames = frames(OPUS_SPEECH_RATE_HZ, 20, &fixture("goforward.wav"));
        let first = packets(&mut frames);
        assert_eq!(packets(&mut frames), first, "encoding again would go on from the last packet");
    }

    #[test]
    fn a_response_without_samples_is_one_packet_without_any() {
        let mut frames = frames(22_050, 20, &[]);
        let packets = packets(&mut frames);
        assert_eq!(packets.len(), 1);
        assert_eq!(decoded(&packets, frames.pre_skip()), [0; 0]);
    }

    proptest! {
        /// However the samples arrive: all packets are whole, and what they decode to has the response's length.
        #[test]
        fn packets_are_whole_and_nothing_is_missing(
            runs in prop::collection::vec(0..3000usize, 0..8),
            rate_hz in prop::sample::select(vec![16_000, 22_050, 24_000, 44_100]),
            frame_ms in prop::sample::select(vec![20, 60]),
            released in 0..6u64,
        ) {
            let mut frames = OpusFrames::new(rate_hz, frame_ms).unwrap();
            let mut audio = Vec::new();
            let mut position = 0;
            for run in &runs {
                frames.push(&vec![1; *run]);
                while position + frames.frame() <= frames.total() {
                    audio.push(frames.at(position).0);
                    position += frames.frame();
                }
                frames.release(released * frames.frame() + 1);
                prop_assert!(frames.base().is_multiple_of(frames.frame()) && frames.base() <= position);
            }
            frames.complete();
            prop_assert_eq!(frames.total() % frames.frame(), 0);
            while position < frames.total() {
                audio.push(frames.at(position).0);
                position += frames.frame();
            }

            let samples: usize = runs.iter().sum();
            let expected = (samples * OPUS_SPEECH_RATE_HZ as usize).div_ceil(rate_hz as usize);
            prop_assert_eq!(frames.end() as usize, expected);
            prop_assert_eq!(decoded(&audio, frames.pre_skip()).len(), expected);
        }
    }
}
