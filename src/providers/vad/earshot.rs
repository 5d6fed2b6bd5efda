//! earshot: a small network in pure Rust with built-in weights; about 8 KiB per stream.

use std::sync::Arc;

use super::{DetectorFactory, SpeechDetector};
use crate::{
    audio::pcm::{FRAME_SAMPLES, Frame},
    providers::{ProviderError, registry::LoadContext},
};

pub(in crate::providers) fn load(_: &LoadContext<'_>) -> Result<DetectorFactory, ProviderError> {
    Ok(factory())
}

pub(in crate::providers) fn factory() -> DetectorFactory {
    Arc::new(|| Box::new(Earshot::default()))
}

pub struct Earshot(Box<::earshot::Detector>);

impl Default for Earshot {
    fn default() -> Self {
        Self(::earshot::Detector::default_boxed())
    }
}

impl SpeechDetector for Earshot {
    fn probability(&mut self, frame: &Frame) -> Option<f32> {
        // It judges 16 ms at a time: a frame is speech where either half is.
        let (halves, _) = frame.as_chunks::<{ FRAME_SAMPLES / 2 }>();
        halves.iter().map(|half| self.0.predict_i16(half)).reduce(f32::max)
    }

    fn reset(&mut self) {
        self.0.reset();
    }
}
