//! A piece of sound in memory.

use std::borrow::Cow;

/// Interleaved 16-bit PCM.
#[derive(Debug, Clone)]
pub struct AudioFrame<'a> {
    /// The samples, channel by channel within each sampling instant.
    pub data: Cow<'a, [i16]>,
    /// Sampling instants per second (Hz).
    pub sample_rate: u32,
    /// 1 for mono, 2 for stereo.
    pub num_channels: u32,
    /// Sampling instants in `data`, that is its length divided by `num_channels`.
    pub samples_per_channel: u32,
}

impl AudioFrame<'_> {
    /// A frame of silence that owns its samples.
    pub fn new(sample_rate: u32, num_channels: u32, samples_per_channel: u32) -> Self {
        Self {
            data: Cow::Owned(vec![0; (num_channels * samples_per_channel) as usize]),
            sample_rate,
            num_channels,
            samples_per_channel,
        }
    }
}
