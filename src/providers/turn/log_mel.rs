//! Whisper's log-mel spectrogram of eight seconds, which Smart Turn takes.
//!
//! Source: `transformers`' `WhisperFeatureExtractor` with `chunk_length=8` and `do_normalize=True`, as
//! `pipecat/audio/turn/smart_turn/_whisper_features.py` of pipecat-ai 1.14.0 calls it.

use std::{f32::consts::TAU, ops::Range, sync::Arc};

use realfft::{RealFftPlanner, RealToComplex};

use crate::{audio::SAMPLE_RATE_HZ, audio::pcm};

/// The samples of a spectrogram: 8 s.
pub(super) const SAMPLES: usize = 8 * SAMPLE_RATE_HZ as usize;
pub(super) const MELS: usize = 80;
pub(super) const FRAMES: usize = SAMPLES / HOP;

const WINDOW: usize = 400;
const HOP: usize = 160;
const BINS: usize = WINDOW / 2 + 1;
const VARIANCE_EPSILON: f32 = 1e-7;
const FLOOR: f32 = 1e-10;
/// Below the maximum, in powers of ten.
const RANGE: f32 = 8.0;

/// Computes spectrograms.
pub(super) struct LogMel {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    filters: Vec<Filter>,
}

/// The weights of one mel band.
struct Filter {
    bins: Range<usize>,
    weights: Vec<f32>,
}

impl LogMel {
    pub(super) fn new() -> Self {
        let hann = |n| 0.5 - 0.5 * (TAU * n as f32 / WINDOW as f32).cos();
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(WINDOW),
            window: (0..WINDOW).map(hann).collect(),
            filters: filters(),
        }
    }

    /// The spectrogram `[MELS, FRAMES]` of the last [`SAMPLES`], or of fewer with silence in front.
    pub(super) fn of(&self, pcm: &[i16]) -> Vec<f32> {
        let padded = self.normalized(&pcm[pcm.len().saturating_sub(SAMPLES)..]);
        let mut input = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = [0.0; BINS];
        let mut mel = vec![0.0; MELS * FRAMES];
        for frame in 0..FRAMES {
            let samples = &padded[frame * HOP..][..WINDOW];
            for ((to, sample), weight) in input.iter_mut().zip(samples).zip(&self.window) {
                *to = sample * weight;
            }
            self.fft
                .process_with_scratch(&mut input, &mut spectrum, &mut scratch)
                .expect("the buffers are of the lengths that the planner made");
            for (to, value) in power.iter_mut().zip(&spectrum) {
                *to = value.norm_sqr();
            }
            for (band, filter) in self.filters.iter().enumerate() {
                let energy: f32 = power[filter.bins.clone()]
                    .iter()
                    .zip(&filter.weights)
                    .map(|(power, weight)| power * weight)
                    .sum();
                mel[band * FRAMES + frame] = energy.max(FLOOR).log10();
            }
        }
        let lowest = mel.iter().copied().fold(f32::MIN, f32::max) - RANGE;
        for value in &mut mel {
            *value = (value.max(lowest) + 4.0) / 4.0;
        }
        mel
    }

    /// [`SAMPLES`] samples of mean 0 and variance 1, and half a window more at each end, mirrored.
    fn normalized(&self, pcm: &[i16]) -> Vec<f32> {
        const PAD: usize = WINDOW / 2;
        let floats = pcm.iter().copied().map(pcm::to_f32);
        let mean = floats.clone().map(f64::from).sum::<f64>() / SAMPLES as f64;
        // Silence in front counts.
        let silent = (SAMPLES - pcm.len()) as f64 * mean * mean;
        let square = |sample: f32| (f64::from(sample) - mean).powi(2);
        let variance = (floats.clone().map(square).sum::<f64>() + silent) / SAMPLES as f64;
        let (mean, scale) = (mean as f32, 1.0 / (variance as f32 + VARIANCE_EPSILON).sqrt());
        let mut padded = vec![-mean * scale; PAD + SAMPLES + PAD];
        let begin = PAD + SAMPLES - pcm.len();
        for (to, sample) in padded[begin..].iter_mut().zip(floats) {
            *to = (sample - mean) * scale;
        }
        for n in 1..=PAD {
            padded[PAD - n] = padded[PAD + n];
            padded[PAD + SAMPLES - 1 + n] = padded[PAD + SAMPLES - 1 - n];
        }
        padded
    }
}

/// Triangles on Slaney's mel scale from 0 to 8 kHz, each of the same area.
fn filters() -> Vec<Filter> {
    const NYQUIST_HZ: f64 = SAMPLE_RATE_HZ as f64 / 2.0;
    let top = mel_of_hz(NYQUIST_HZ);
    let corners: Vec<f64> = (0..MELS + 2).map(|n| hz_of_mel(top * n as f64 / (MELS + 1) as f64)).collect();
    let hz_of_bin = |bin: usize| NYQUIST_HZ * bin as f64 / (BINS - 1) as f64;
    corners
        .windows(3)
        .map(|corners| {
            let [low, middle, high] = corners else { unreachable!("windows(3)") };
            let weight = |bin| {
                let hz = hz_of_bin(bin);
                let rising = (hz - low) / (middle - low);
                let falling = (high - hz) / (high - middle);
                (rising.min(falling).max(0.0) * 2.0 / (high - low)) as f32
            };
            let begin = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
            let end = (0..BINS).rfind(|bin| weight(*bin) > 0.0).map_or(begin, |last| last + 1);
            Filter { bins: begin..end, weights: (begin..end).map(weight).collect() }
        })
        .collect()
}

/// Slaney's scale is linear up to 1 kHz, which is 15 mel, and logarithmic above.
const LINEAR_HZ: f64 = 1000.0;
const LINEAR_MEL: f64 = 15.0;
const HZ_PER_MEL: f64 = LINEAR_HZ / LINEAR_MEL;

/// 27 mel are a factor of 6.4.
fn log_step() -> f64 {
    6.4_f64.ln() / 27.0
}

fn mel_of_hz(hz: f64) -> f64 {
    if hz < LINEAR_HZ { hz / HZ_PER_MEL } else { LINEAR_MEL + (hz / LINEAR_HZ).ln() / log_step() }
}

fn hz_of_mel(mel: f64) -> f64 {
    if mel < LINEAR_MEL { mel * HZ_PER_MEL } else { LINEAR_HZ * (log_step() * (mel - LINEAR_MEL)).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three seconds of a tone that comes and goes, and a little noise.
    fn signal() -> Vec<i16> {
        let second = SAMPLE_RATE_HZ as usize;
        let tone = |n: usize| {
            if n % (second / 2) >= second / 4 {
                return 0;
            }
            (6000.0 * (440.0 * std::f64::consts::TAU * n as f64 / second as f64).sin()).round() as i16
        };
        (0..3 * second).map(|n| tone(n) + (n * 7919 % 61) as i16 - 30).collect()
    }

    #[test]
    fn a_spectrogram_is_that_of_the_original() {
        let mel = LogMel::new().of(&signal());

        assert_eq!(mel.len(), MELS * FRAMES);
        // Computed by pipecat-ai 1.14.0.
        for (band, frame, expected) in [
            (0, 0, -0.1543),
            (0, 700, 1.2403),
            (9, 510, 1.5669),
            (10, 520, 1.7563),
            (12, 560, 1.7010),
            (40, 505, -0.1543),
            (79, 799, -0.1286),
            (20, 799, -0.0656),
            (5, 499, 0.7588),
            (5, 500, 1.3049),
        ] {
            let value = mel[band * FRAMES + frame];
            assert!((value - expected).abs() < 0.002, "band {band}, frame {frame}: {value}, not {expected}");
        }
    }

    #[test]
    fn of_a_longer_signal_the_last_eight_seconds_count() {
        let signal = signal().repeat(3);
        let log_mel = LogMel::new();

        let mel = log_mel.of(&signal[..140_000]);

        assert!((mel[9 * FRAMES] + 0.2485).abs() < 0.002, "{}", mel[9 * FRAMES]);
        assert_eq!(mel, log_mel.of(&signal[12_000..140_000]));
    }
}
