//! How probable it is that a frame is speech.
//!
//! Most of what a wearable's microphone hears all day is no speech. [`Earshot`] judges a frame in
//! a fraction of what a larger model needs, but takes much noise and music for speech; the larger
//! model does not. [`TwoStage`] lets the first decide when the second is worth asking.

pub mod silero;

use std::{collections::VecDeque, sync::Arc};

use crate::audio::pcm::FRAME_SAMPLES;
pub use crate::audio::pcm::Frame;

/// Judges one stream of frames, in order. Keeps state: one detector per stream.
pub trait SpeechDetector: Send {
    /// The probability, 0 to 1, that this frame is speech. None where the detector cannot say (its
    /// run time failed).
    fn probability(&mut self, frame: &Frame) -> Option<f32>;

    /// Forgets what it heard: the next frame does not continue the last.
    fn reset(&mut self);
}

/// Creates a detector for each stream.
pub type DetectorFactory = Arc<dyn Fn() -> Box<dyn SpeechDetector> + Send + Sync>;

/// The small network of crate `earshot`, weights inside; about 8 KiB a stream.
pub struct Earshot(Box<earshot::Detector>);

impl Default for Earshot {
    fn default() -> Self {
        Self(earshot::Detector::default_boxed())
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

/// When the second stage of [`TwoStage`] is asked. Chosen by `benches/vad.rs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageSettings {
    /// Probability of the first stage that wakes the second. Well under what opens the gate: the
    /// first stage only has to rule speech out.
    pub wake: f32,
    /// Frames since either stage last held speech possible after which the second sleeps again.
    pub stay_awake_frames: u32,
    /// Frames before the one that woke it which the second stage hears first: it is recurrent and
    /// judges poorly from a cold start.
    pub warm_up_frames: usize,
}

impl Default for StageSettings {
    fn default() -> Self {
        Self { wake: 0.4, stay_awake_frames: 10, warm_up_frames: 12 }
    }
}

/// A cheap detector before a good one.
pub struct TwoStage<S> {
    first: Earshot,
    second: S,
    settings: StageSettings,
    phase: Phase,
}

enum Phase {
    /// The second stage rests; the last frames are kept to warm it up.
    Asleep { recent: VecDeque<Frame> },
    /// The second stage judges; so many frames since either held speech possible.
    Awake { doubtful_frames: u32 },
}

impl<S: SpeechDetector> TwoStage<S> {
    /// Puts [`Earshot`] before `second`.
    pub fn new(second: S, settings: StageSettings) -> Self {
        Self { first: Earshot::default(), second, settings, phase: asleep() }
    }

    /// Whether the second stage judged the last frame.
    pub fn is_awake(&self) -> bool {
        matches!(self.phase, Phase::Awake { .. })
    }
}

impl<S: SpeechDetector> SpeechDetector for TwoStage<S> {
    fn probability(&mut self, frame: &Frame) -> Option<f32> {
        let cheap = self.first.probability(frame).unwrap_or(0.0);
        let possible = cheap >= self.settings.wake;
        match &mut self.phase {
            Phase::Asleep { recent } if possible => {
                self.second.reset();
                for earlier in recent.iter() {
                    self.second.probability(earlier);
                }
                self.phase = Phase::Awake { doubtful_frames: 0 };
                self.second.probability(frame).or(Some(cheap))
            }
            Phase::Asleep { recent } => {
                recent.push_back(*frame);
                if recent.len() > self.settings.warm_up_frames {
                    recent.pop_front();
                }
                Some(cheap)
            }
            Phase::Awake { doubtful_frames } => {
                let judged = self.second.probability(frame).unwrap_or(cheap);
                *doubtful_frames =
                    if possible || judged >= self.settings.wake { 0 } else { *doubtful_frames + 1 };
                if *doubtful_frames >= self.settings.stay_awake_frames {
                    self.phase = asleep();
                }
                Some(judged)
            }
        }
    }

    fn reset(&mut self) {
        self.first.reset();
        self.phase = asleep();
    }
}

fn asleep() -> Phase {
    Phase::Asleep { recent: VecDeque::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what it is asked, and always says the same.
    struct Counting {
        heard_since_reset: u32,
        says: Option<f32>,
    }

    impl SpeechDetector for Counting {
        fn probability(&mut self, _: &Frame) -> Option<f32> {
            self.heard_since_reset += 1;
            self.says
        }

        fn reset(&mut self) {
            self.heard_since_reset = 0;
        }
    }

    fn two_stage(says: Option<f32>) -> TwoStage<Counting> {
        TwoStage::new(Counting { heard_since_reset: 0, says }, StageSettings::default())
    }

    /// A few seconds of a person speaking.
    fn speech() -> Vec<Frame> {
        crate::turn::utterance_detector::fixture("sense_and_sensibility_0880.wav").as_chunks().0.to_vec()
    }

    #[test]
    fn silence_never_reaches_the_second_stage() {
        let mut detector = two_stage(Some(1.0));

        for _ in 0..300 {
            assert!(detector.probability(&[0; FRAME_SAMPLES]).is_some_and(|p| p < 0.4));
        }

        assert_eq!(detector.second.heard_since_reset, 0);
    }

    #[test]
    fn speech_wakes_the_second_stage_which_hears_the_frames_before_first() {
        let mut detector = two_stage(Some(0.77));
        for _ in 0..20 {
            detector.probability(&[0; FRAME_SAMPLES]);
        }

        let woken_by = speech().iter().position(|frame| {
            detector.probability(frame);
            detector.is_awake()
        });

        assert!(woken_by.is_some());
        assert_eq!(detector.second.heard_since_reset, 13);
        assert_eq!(detector.probability(&[0; FRAME_SAMPLES]), Some(0.77));
    }

    #[test]
    fn the_second_stage_sleeps_again_when_neither_holds_speech_possible() {
        let mut detector = two_stage(Some(0.0));
        for frame in speech() {
            detector.probability(&frame);
        }
        for _ in 0..20 {
            detector.probability(&[0; FRAME_SAMPLES]);
        }

        assert!(!detector.is_awake());
    }

    #[test]
    fn where_the_second_stage_cannot_say_the_first_decides() {
        let mut detector = two_stage(None);

        let most = speech().iter().filter_map(|frame| detector.probability(frame)).fold(0.0, f32::max);

        assert!(most > 0.5);
    }
}
