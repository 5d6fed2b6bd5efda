//! PCM formats, and the formats that libopus codes without resampling.

use audiopus::{Channels, SampleRate};
use thiserror::Error;

/// RTP clock rate of Opus in Hz, independent of the coded sampling rate (RFC 7587 §4.1).
pub(crate) const OPUS_CLOCK: u32 = 48_000;

/// Sampling rates in Hz that Opus encodes and decodes without resampling (RFC 6716 §2).
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Accepted PCM sampling rates, in Hz.
const PCM_RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
const MAX_CHANNELS: u32 = 8;

/// A PCM format: sampling rate and number of interleaved channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    rate: u32,
    channels: u32,
}

/// The sampling rate or number of channels is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("unsupported audio format: {rate} Hz, {channels} channels")]
pub(crate) struct UnsupportedFormat {
    rate: i64,
    channels: i64,
}

impl Format {
    /// 16 kHz mono, the input format of most speech recognition models.
    pub(crate) const SPEECH: Self = Self { rate: 16_000, channels: 1 };

    pub(crate) fn new(rate: impl Into<i64>, channels: impl Into<i64>) -> Result<Self, UnsupportedFormat> {
        let (rate, channels) = (rate.into(), channels.into());
        let unsupported = UnsupportedFormat { rate, channels };
        match (u32::try_from(rate), u32::try_from(channels)) {
            (Ok(rate), Ok(channels))
                if PCM_RATES.contains(&rate) && (1..=MAX_CHANNELS).contains(&channels) =>
            {
                Ok(Self { rate, channels })
            }
            _ => Err(unsupported),
        }
    }

    /// Sampling rate in Hz.
    pub(crate) fn rate(self) -> u32 {
        self.rate
    }

    /// Number of interleaved channels.
    pub(crate) fn channels(self) -> u32 {
        self.channels
    }

    /// Number of samples, over all channels, in `ms` milliseconds, rounded down to whole sampling instants.
    pub(crate) fn samples_in_ms(self, ms: u32) -> usize {
        (self.rate * ms / 1000 * self.channels) as usize
    }

    /// Converts `pcm` with `coded_channels` (1 or 2) to the channels of this format. Mono is copied to every
    /// channel; stereo is unchanged.
    pub(crate) fn map_channels(self, pcm: &[i16], coded_channels: usize) -> Vec<i16> {
        let channels = self.channels as usize;
        if channels == coded_channels {
            return pcm.to_vec();
        }
        pcm.iter().step_by(coded_channels).flat_map(|sample| std::iter::repeat_n(*sample, channels)).collect()
    }

    /// The Opus format for PCM of this format: the same rate if Opus supports it, otherwise the next higher one,
    /// and 1 or 2 channels.
    pub(crate) fn opus_format(self) -> OpusFormat {
        let rate = OPUS_RATES.into_iter().find(|rate| *rate >= self.rate).unwrap_or(OPUS_CLOCK);
        OpusFormat { rate, stereo: self.channels == 2 }
    }
}

/// A format that Opus codes directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpusFormat {
    rate: u32,
    stereo: bool,
}

impl OpusFormat {
    pub(crate) fn rate(self) -> u32 {
        self.rate
    }

    pub(crate) fn channels(self) -> usize {
        if self.stereo { 2 } else { 1 }
    }

    pub(crate) fn mono(self) -> Self {
        Self { stereo: false, ..self }
    }

    /// Number of samples, over all channels, in `ticks` of the 48 kHz RTP clock.
    pub(crate) fn samples_in_ticks(self, ticks: u32) -> usize {
        (ticks / (OPUS_CLOCK / self.rate)) as usize * self.channels()
    }

    pub(crate) fn opus_rate(self) -> SampleRate {
        match self.rate {
            8_000 => SampleRate::Hz8000,
            12_000 => SampleRate::Hz12000,
            16_000 => SampleRate::Hz16000,
            24_000 => SampleRate::Hz24000,
            _ => SampleRate::Hz48000,
        }
    }

    pub(crate) fn opus_channels(self) -> Channels {
        if self.stereo { Channels::Stereo } else { Channels::Mono }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_opus_supports_are_kept_and_others_use_the_next_higher_one() {
        for (rate, opus_format) in
            [(16_000, 16_000), (24_000, 24_000), (22_050, 24_000), (44_100, 48_000), (96_000, 48_000)]
        {
            assert_eq!(Format::new(rate, 1).unwrap().opus_format().rate(), opus_format);
        }
    }

    #[test]
    fn formats_out_of_range_are_rejected() {
        for (rate, channels) in [(0, 1), (-16_000, 1), (16_000, 0), (16_000, -1), (1_000_000, 1), (16_000, 9)]
        {
            assert!(Format::new(rate, channels).is_err(), "{rate} Hz, {channels} channels");
        }
    }

    #[test]
    fn ten_milliseconds_of_stereo_at_48_khz_are_960_samples() {
        assert_eq!(Format::new(48_000, 2).unwrap().samples_in_ms(10), 960);
    }
}
