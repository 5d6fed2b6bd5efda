//! Reads recordings that stand for a microphone.

use std::path::Path;

use crate::audio::{
    SAMPLE_RATE_HZ,
    pcm::{self, Resampler},
};

/// Reads a WAV file of any usual format, and resamples it to 16 kHz mono.
pub(super) fn read_wav(path: &Path) -> Result<Vec<i16>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let reader = hound::WavReader::open(path).map_err(|error| at(&error))?;
    let spec = reader.spec();
    let samples: Result<Vec<i16>, hound::Error> = match (spec.sample_format, spec.bits_per_sample) {
        (hound::SampleFormat::Int, 16) => reader.into_samples::<i16>().collect(),
        (hound::SampleFormat::Int, bits) if bits > 16 => reader
            .into_samples::<i32>()
            .map(|sample| sample.map(|sample| (sample >> (bits - 16)) as i16))
            .collect(),
        (hound::SampleFormat::Int, _) => {
            reader.into_samples::<i16>().map(|sample| sample.map(|sample| sample << 8)).collect()
        }
        (hound::SampleFormat::Float, _) => {
            reader.into_samples::<f32>().map(|sample| sample.map(pcm::from_f32)).collect()
        }
    };
    let samples = samples.map_err(|error| at(&error))?;
    if spec.sample_rate == SAMPLE_RATE_HZ && spec.channels == 1 {
        return Ok(samples);
    }
    let mut resampler =
        Resampler::new(spec.sample_rate, spec.channels, SAMPLE_RATE_HZ).map_err(|error| at(&error))?;
    // The resampler holds its last chunk back: half a second of silence flushes it.
    let silence = vec![0; spec.sample_rate as usize / 2 * usize::from(spec.channels)];
    let mut resampled = resampler.process(&samples);
    resampled.extend(resampler.process(&silence));
    Ok(resampled)
}
