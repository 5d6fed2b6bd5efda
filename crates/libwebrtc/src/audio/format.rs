//! Rates and channels of PCM, and which of them Opus speaks by itself.

use audiopus::{Channels, SampleRate};
use thiserror::Error;

/// The RTP clock of Opus, whatever rate is coded (RFC 7587 §4.1), in Hz.
pub(crate) const OPUS_CLOCK: u32 = 48_000;

/// The rates Opus codes and decodes at without resampling (RFC 6716 §2).
const OPUS_RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Rates that make sense as PCM, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
const MAX_CHANNELS: u32 = 8;

/// PCM of a rate and a number of interleaved channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    rate: u32,
    channels: u32,
}

/// A format that there is no use in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{rate} Hz in {channels} channels is not a format of audio")]
pub(crate) struct UnknownFormat {
    rate: i64,
    channels: i64,
}

impl Format {
    /// What speech recognition takes.
    pub(crate) const SPEECH: Self = Self { rate: 16_000, channels: 1 };

    pub(crate) fn new(rate: impl Into<i64>, channels: impl Into<i64>) -> Result<Self, UnknownFormat> {
        let (rate, channels) = (rate.into(), channels.into());
        let unknown = UnknownFormat { rate, channels };
        match (u32::try_from(rate), u32::try_from(channels)) {
            (Ok(rate), Ok(channels)) if RATES.contains(&rate) && (1..=MAX_CHANNELS).contains(&channels) => {
                Ok(Self { rate, channels })
            }
            _ => Err(unknown),
        }
    }

    /// Sampling instants per second.
    pub(crate) fn rate(self) -> u32 {
        self.rate
    }

    /// Interleaved channels.
    pub(crate) fn channels(self) -> u32 {
        self.channels
    }

    /// Samples of all channels in `ms` milliseconds; whole instants only.
    pub(crate) fn samples_in_ms(self, ms: u32) -> usize {
        (self.rate * ms / 1000 * self.channels) as usize
    }

    /// `pcm` of `coded_channels` (one or two) as this format's channels: mono is the same on each, stereo stays
    /// as it is.
    pub(crate) fn spread(self, pcm: &[i16], coded_channels: usize) -> Vec<i16> {
        let channels = self.channels as usize;
        if channels == coded_channels {
            return pcm.to_vec();
        }
        pcm.iter().step_by(coded_channels).flat_map(|sample| std::iter::repeat_n(*sample, channels)).collect()
    }

    /// What the codec works at for PCM of this format: the same where Opus has it, else the next rate above,
    /// and one or two channels.
    pub(crate) fn coded(self) -> Coded {
        let rate = OPUS_RATES.into_iter().find(|rate| *rate >= self.rate).unwrap_or(OPUS_CLOCK);
        Coded { rate, stereo: self.channels == 2 }
    }
}

/// A format that Opus has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coded {
    rate: u32,
    stereo: bool,
}

impl Coded {
    pub(crate) fn rate(self) -> u32 {
        self.rate
    }

    pub(crate) fn channels(self) -> usize {
        if self.stereo { 2 } else { 1 }
    }

    pub(crate) fn mono(self) -> Self {
        Self { stereo: false, ..self }
    }

    /// Samples of all channels in `ticks` of the RTP clock.
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
    fn rates_that_opus_has_are_coded_as_they_are_and_others_at_the_next_above() {
        for (rate, coded) in
            [(16_000, 16_000), (24_000, 24_000), (22_050, 24_000), (44_100, 48_000), (96_000, 48_000)]
        {
            assert_eq!(Format::new(rate, 1).unwrap().coded().rate(), coded);
        }
    }

    #[test]
    fn formats_that_make_no_sense_are_refused() {
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
