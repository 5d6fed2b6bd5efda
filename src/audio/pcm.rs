//! PCM: bytes to samples, any rate and channel count to 16 kHz mono, any chunk length to frames of 512
//! samples, and levels.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Indexing, Resampler as _};

/// Samples in a [`Frame`]: 32 ms at 16 kHz, the window that Silero was trained on.
pub const FRAME_SAMPLES: usize = 512;

/// The unit of voice detection.
pub type Frame = [i16; FRAME_SAMPLES];

/// The lowest level that 16 bits can represent, in dBFS.
pub const SILENCE_DBFS: f32 = -96.0;

/// Splits a stream of samples into frames, and carries over what does not fill one.
#[derive(Debug, Default)]
pub struct Framer {
    /// Always shorter than a frame between calls.
    pending: Vec<i16>,
}

impl Framer {
    /// Takes the next samples and calls `each` with every frame they complete, in order.
    pub fn push(&mut self, mut samples: &[i16], mut each: impl FnMut(&Frame)) {
        if !self.pending.is_empty() {
            let wanted = (FRAME_SAMPLES - self.pending.len()).min(samples.len());
            let (head, rest) = samples.split_at(wanted);
            self.pending.extend_from_slice(head);
            samples = rest;
            if let Ok(frame) = <&Frame>::try_from(self.pending.as_slice()) {
                each(frame);
                self.pending.clear();
            }
        }
        let (frames, rest) = samples.as_chunks::<FRAME_SAMPLES>();
        frames.iter().for_each(each);
        self.pending.extend_from_slice(rest);
    }

    /// Takes out the samples that do not fill a frame; the next frame starts empty.
    pub fn take(&mut self) -> Vec<i16> {
        std::mem::take(&mut self.pending)
    }
}

/// Reads PCM16LE from chunks of bytes that may split a sample.
#[derive(Debug, Default)]
pub struct PcmBytes {
    /// The first byte of a sample whose second has not come yet.
    odd: Option<u8>,
}

impl PcmBytes {
    /// The samples that `bytes` completes.
    pub fn decode(&mut self, bytes: &[u8]) -> Vec<i16> {
        let mut samples = Vec::with_capacity(bytes.len() / 2 + 1);
        let mut rest = bytes;
        if let (Some(low), Some((high, tail))) = (self.odd, bytes.split_first()) {
            samples.push(i16::from_le_bytes([low, *high]));
            self.odd = None;
            rest = tail;
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        samples.extend(pairs.iter().map(|pair| i16::from_le_bytes(*pair)));
        if let [low] = odd {
            self.odd = Some(*low);
        }
        samples
    }

    /// Drops half a sample: what follows is another stream.
    pub fn reset(&mut self) {
        self.odd = None;
    }
}

/// One sample as a float in [-1, 1), as models take it.
pub fn to_f32(sample: i16) -> f32 {
    f32::from(sample) / 32768.0
}

/// A float sample as 16 bit; values outside [-1, 1] are clipped, NaN is 0.
pub fn from_f32(sample: f32) -> i16 {
    // `as` saturates and maps NaN to 0.
    (sample * 32768.0).round() as i16
}

/// The RMS level of samples in dB relative to full scale, at least [`SILENCE_DBFS`].
pub fn level_dbfs(samples: &[i16]) -> f32 {
    if samples.is_empty() {
        return SILENCE_DBFS;
    }
    let energy: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    let rms = (energy / samples.len() as f64).sqrt() / 32768.0;
    (20.0 * rms.log10()).max(f64::from(SILENCE_DBFS)) as f32
}

/// A rate or a number of channels that is not supported.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("cannot turn {from_hz} Hz audio with {channels} channels into {to_hz} Hz mono")]
pub struct UnsupportedFormat {
    /// Rate of the input in Hz.
    pub from_hz: u32,
    /// Channels of the input.
    pub channels: u16,
    /// Rate asked for in Hz.
    pub to_hz: u32,
}

/// Mixes a stream of interleaved samples down to mono and resamples it.
///
/// Band-limited by FFT in blocks of 10 to 40 ms; the delay is half a block. Equal rates: no delay and no
/// change.
pub struct Resampler {
    channels: usize,
    /// Samples of an incomplete interleaved group, fewer than `channels`.
    partial_group: Vec<i16>,
    /// None where the rates are equal.
    conversion: Option<Conversion>,
}

struct Conversion {
    fft: Fft<f32>,
    /// Mono input that does not fill a block yet, at most one block between calls.
    pending: Vec<f32>,
    /// One block of output, reused.
    block: Vec<f32>,
}

impl Resampler {
    /// From `from_hz` and `channels` (1 to 8) to `to_hz` mono; both rates from 8 to 192 kHz.
    pub fn new(from_hz: u32, channels: u16, to_hz: u32) -> Result<Self, UnsupportedFormat> {
        let unsupported = UnsupportedFormat { from_hz, channels, to_hz };
        let rates = 8_000..=192_000;
        if !rates.contains(&from_hz) || !rates.contains(&to_hz) || !(1..=8).contains(&channels) {
            return Err(unsupported);
        }
        let conversion = match from_hz == to_hz {
            true => None,
            false => Some(Conversion::new(from_hz as usize, to_hz as usize).ok_or(unsupported)?),
        };
        Ok(Self { channels: usize::from(channels), partial_group: Vec::new(), conversion })
    }

    /// Takes interleaved samples, any number of them; returns the mono samples that are ready.
    pub fn process(&mut self, interleaved: &[i16]) -> Vec<i16> {
        let mono = self.fold(interleaved);
        match &mut self.conversion {
            None => mono,
            Some(conversion) => conversion.process(&mono),
        }
    }

    /// The stream is over: the rest of it, with silence for what is missing of the last block.
    pub fn flush(&mut self) -> Vec<i16> {
        match &mut self.conversion {
            None => Vec::new(),
            Some(conversion) => {
                // One block for the delay, and one that the waiting samples begin.
                let (block, waiting) = (conversion.fft.input_frames_next(), conversion.pending.len());
                conversion.process(&vec![0; block + (block - waiting) % block])
            }
        }
    }

    /// How many samples of output come before the one that belongs to the first sample of input.
    pub fn delay(&self) -> usize {
        self.conversion.as_ref().map_or(0, |conversion| conversion.fft.output_delay())
    }

    /// The mean of each interleaved group.
    fn fold(&mut self, interleaved: &[i16]) -> Vec<i16> {
        if self.channels == 1 {
            return interleaved.to_vec();
        }
        self.partial_group.extend_from_slice(interleaved);
        let mean = |group: &[i16]| {
            let sum: i32 = group.iter().map(|&sample| i32::from(sample)).sum();
            (sum / group.len() as i32) as i16
        };
        let groups = self.partial_group.chunks_exact(self.channels);
        let rest = groups.remainder().to_vec();
        let mono = groups.map(mean).collect();
        self.partial_group = rest;
        mono
    }
}

impl Conversion {
    fn new(from_hz: usize, to_hz: usize) -> Option<Self> {
        // Longer blocks make a steeper filter and more delay. 10 ms keeps speech up to 7 kHz when
        // coming from above; a narrow-band source has no such octave to spare and gets 20 ms.
        let blocks_per_s = if from_hz < 16_000 { 50 } else { 100 };
        let fft = Fft::new(from_hz, to_hz, from_hz / blocks_per_s, 1, FixedSync::Both).ok()?;
        let block = vec![0.0; fft.output_frames_max()];
        Some(Self { fft, pending: Vec::new(), block })
    }

    fn process(&mut self, mono: &[i16]) -> Vec<i16> {
        self.pending.extend(mono.iter().copied().map(to_f32));
        let wanted = self.fft.input_frames_next();
        let blocks = self.pending.len() / wanted;
        let mut out = Vec::with_capacity(blocks * self.block.len());
        for block in self.pending.chunks_exact(wanted) {
            let frames = self.block.len();
            let input = InterleavedSlice::new(block, 1, wanted);
            let output = InterleavedSlice::new_mut(&mut self.block, 1, frames);
            let (Ok(input), Ok(mut output)) = (input, output) else {
                unreachable!("both slices are as long as said")
            };
            let (_, written) = self
                .fft
                .process_into_buffer(&input, &mut output, None::<&Indexing>)
                .expect("a block of the length that the resampler asked for");
            out.extend(self.block[..written].iter().copied().map(from_f32));
        }
        self.pending.drain(..blocks * wanted);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A sine at half of full scale.
    fn tone(hz: f64, rate_hz: u32, samples: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate_hz);
        (0..samples).map(|n| ((n as f64 * step).sin() * 16_384.0) as i16).collect()
    }

    #[test]
    fn full_scale_noise_is_near_zero_dbfs_and_digital_silence_is_the_floor() {
        assert!((level_dbfs(&[i16::MIN; 100])).abs() < 0.001);
        assert!((level_dbfs(&tone(1000.0, 16_000, 16_000)) + 9.03).abs() < 0.05);
        assert_eq!(level_dbfs(&[0; 100]), SILENCE_DBFS);
        assert_eq!(level_dbfs(&[]), SILENCE_DBFS);
    }

    #[test]
    fn floats_outside_of_the_range_are_clipped_and_nan_is_silence() {
        assert_eq!(from_f32(2.0), i16::MAX);
        assert_eq!(from_f32(-2.0), i16::MIN);
        assert_eq!(from_f32(f32::NAN), 0);
    }

    #[test]
    fn the_rest_of_a_stream_is_flushed() {
        let mut resampler = Resampler::new(22_050, 1, 16_000).unwrap();
        let mut output = resampler.process(&tone(440.0, 22_050, 2_200));
        let before = output.len();

        output.extend(resampler.flush());

        assert!(before < 1_500 && (1_600..=1_920).contains(&output.len()), "{before} {}", output.len());
        assert!(Resampler::new(16_000, 1, 16_000).unwrap().flush().is_empty());
    }

    #[test]
    fn a_tone_keeps_its_level_from_every_usual_rate() {
        for from_hz in [8_000, 11_025, 22_050, 24_000, 44_100, 48_000] {
            let mut resampler = Resampler::new(from_hz, 1, 16_000).unwrap();

            let out = resampler.process(&tone(1000.0, from_hz, from_hz as usize));

            let missing = 16_000 - out.len() as i64;
            assert!((0..=800).contains(&missing), "{from_hz} Hz: {missing} samples held back");
            let level = level_dbfs(&out[2_000..14_000]);
            assert!((level + 9.03).abs() < 0.2, "{from_hz} Hz: {level} dBFS");
        }
    }

    #[test]
    fn what_lies_above_the_new_band_does_not_fold_back_into_it() {
        let mut resampler = Resampler::new(48_000, 1, 16_000).unwrap();

        let out = resampler.process(&tone(10_000.0, 48_000, 48_000));

        assert!(level_dbfs(&out[2_000..14_000]) < -80.0);
    }

    #[test]
    fn stereo_is_folded_even_where_a_chunk_splits_a_pair() {
        let mut resampler = Resampler::new(16_000, 2, 16_000).unwrap();

        let mut out = resampler.process(&[100, 300, -50]);
        out.extend(resampler.process(&[50, 7]));

        assert_eq!(out, [200, 0]);
    }

    #[test]
    fn a_format_that_no_microphone_has_is_refused() {
        assert!(Resampler::new(0, 1, 16_000).is_err());
        assert!(Resampler::new(48_000, 0, 16_000).is_err());
        assert!(Resampler::new(1_000_000, 1, 16_000).is_err());
    }

    proptest! {
        #[test]
        fn frames_are_the_input_in_order_whatever_the_chunks(
            input in prop::collection::vec(any::<i16>(), 0..3000),
            cut in 1usize..1200,
        ) {
            let mut framer = Framer::default();
            let mut framed = Vec::new();
            for chunk in input.chunks(cut) {
                framer.push(chunk, |frame| framed.extend_from_slice(frame));
            }

            prop_assert_eq!(framed.len() % FRAME_SAMPLES, 0);
            framed.extend(framer.take());
            prop_assert_eq!(framed, input);
        }

        #[test]
        fn bytes_are_the_same_samples_wherever_they_are_split(
            input in prop::collection::vec(any::<i16>(), 0..300),
            cut in 1usize..40,
        ) {
            let bytes: Vec<u8> = input.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let mut decoder = PcmBytes::default();

            let decoded: Vec<i16> = bytes.chunks(cut).flat_map(|chunk| decoder.decode(chunk)).collect();

            prop_assert_eq!(decoded, input);
        }

        #[test]
        fn resampling_does_not_depend_on_the_chunks(cut in 1usize..2000) {
            let input = tone(440.0, 44_100, 9_000);

            let whole = Resampler::new(44_100, 1, 16_000).unwrap().process(&input);
            let mut resampler = Resampler::new(44_100, 1, 16_000).unwrap();
            let pieces: Vec<i16> = input.chunks(cut).flat_map(|chunk| resampler.process(chunk)).collect();

            prop_assert_eq!(pieces, whole);
        }
    }
}
