//! Voice activity detection: how probable it is that a frame is speech.
//!
//! Most of what a wearable's microphone captures is not speech. [`earshot`] judges a frame in a fraction of the time
//! that [`silero`] takes, but takes much noise and music for speech. [`two_stage`] asks Silero only where earshot
//! does not rule speech out.

pub mod earshot;
pub mod silero;
pub mod two_stage;

use std::sync::Arc;

pub use crate::audio::pcm::Frame;

/// Judges one stream of frames, in order. Keeps state: one detector per stream.
pub trait SpeechDetector: Send {
    /// The probability, 0 to 1, that this frame is speech. None if the detector failed.
    fn probability(&mut self, frame: &Frame) -> Option<f32>;

    /// Forgets all frames: the next one does not continue the last.
    fn reset(&mut self);
}

/// Creates a detector for each stream.
pub type DetectorFactory = Arc<dyn Fn() -> Box<dyn SpeechDetector> + Send + Sync>;

/// The detectors that a gateway uses. Cheap to clone.
#[derive(Clone)]
pub struct Detectors {
    pub(super) name: &'static str,
    pub(super) factory: DetectorFactory,
    pub(super) off: Option<String>,
}

impl Detectors {
    /// A detector for one stream.
    pub fn detector(&self) -> Box<dyn SpeechDetector> {
        (self.factory)()
    }

    pub(crate) fn factory(&self) -> DetectorFactory {
        Arc::clone(&self.factory)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Why these are not the configured ones, where they are not.
    pub(crate) fn off(&self) -> Option<&str> {
        self.off.as_deref()
    }
}
