//! Generation and measurement of tones, for tests.

use std::f64::consts::PI;

/// Measured properties of a tone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tone {
    /// Peak amplitude, in units of one sample step.
    pub amplitude: f64,
    /// Signal-to-noise ratio in dB.
    pub snr_db: f64,
}

/// A sine of `length` samples.
pub(crate) fn sine(hz: f64, amplitude: f64, rate: u32, length: usize) -> Vec<i16> {
    (0..length)
        .map(|i| (amplitude * (2.0 * PI * hz * i as f64 / f64::from(rate)).sin()).round() as i16)
        .collect()
}

/// Fits a tone of `hz` to `pcm` (least squares over a sine and a cosine) and compares it with the residual.
pub(crate) fn snr_db(pcm: &[i16], rate: u32, hz: f64) -> Tone {
    let angle = |i: usize| 2.0 * PI * hz * i as f64 / f64::from(rate);
    let n = pcm.len() as f64;
    let (mut s, mut c) = (0.0, 0.0);
    for (i, sample) in pcm.iter().enumerate() {
        s += f64::from(*sample) * angle(i).sin();
        c += f64::from(*sample) * angle(i).cos();
    }
    let (s, c) = (2.0 * s / n, 2.0 * c / n);
    let residual: f64 = pcm
        .iter()
        .enumerate()
        .map(|(i, sample)| (f64::from(*sample) - s * angle(i).sin() - c * angle(i).cos()).powi(2))
        .sum();
    let amplitude = s.hypot(c);
    Tone { amplitude, snr_db: 10.0 * (amplitude * amplitude / 2.0 / (residual / n).max(1e-9)).log10() }
}
