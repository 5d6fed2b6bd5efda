//! The samples of a spoken response as frames of PCM.

use std::collections::VecDeque;

use crate::response::playback::FrameAudio;

/// The samples that are not sent yet, and those that may be needed again.
#[derive(Debug)]
pub(super) struct PcmFrames {
    /// Samples from `base` on.
    samples: VecDeque<i16>,
    /// The position of the first sample that is kept.
    base: u64,
    /// The length of a frame, in samples.
    frame: u64,
}

impl PcmFrames {
    pub(super) fn new(frame: u64) -> Self {
        Self { samples: VecDeque::new(), base: 0, frame }
    }

    pub(super) fn push(&mut self, samples: &[i16]) {
        self.samples.extend(samples);
    }

    /// The position after the last sample.
    pub(super) fn total(&self) -> u64 {
        self.base + self.samples.len() as u64
    }

    /// The length of a frame, in samples.
    pub(super) fn frame(&self) -> u64 {
        self.frame
    }

    /// The earliest position that is kept.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The frame at a position that is kept, and its length in samples.
    pub(super) fn at(&self, position: u64) -> (FrameAudio, u64) {
        let length = (self.total() - position).min(self.frame);
        let from = (position - self.base) as usize;
        let samples = self.samples.range(from..from + length as usize).copied().collect();
        (FrameAudio::Samples(samples), length)
    }

    /// Releases what comes before a position.
    pub(super) fn release(&mut self, before: u64) {
        let gone = before.saturating_sub(self.base);
        self.samples.drain(..gone as usize);
        self.base += gone;
    }
}
