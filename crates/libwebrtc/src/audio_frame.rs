//! Audio frames in memory.

use std::borrow::Cow;

/// A frame of interleaved 16-bit PCM.
#[derive(Debug, Clone)]
pub struct AudioFrame<'a> {
    /// Samples, interleaved by channel. Length: `num_channels * samples_per_channel`.
    pub data: Cow<'a, [i16]>,
    /// Sampling rate in Hz.
    pub sample_rate: u32,
    /// Number of channels: 1 for mono, 2 for stereo.
    pub num_channels: u32,
    /// Number of samples of each channel.
    pub samples_per_channel: u32,
}

impl AudioFrame<'_> {
    /// Creates a frame of silence that owns its samples.
    pub fn new(sample_rate: u32, num_channels: u32, samples_per_channel: u32) -> Self {
        Self {
            data: Cow::Owned(vec![0; (num_channels * samples_per_channel) as usize]),
            sample_rate,
            num_channels,
            samples_per_channel,
        }
    }
}
