//! Two detectors in a row: [`Earshot`] for every frame, a more accurate one where Earshot detects something.

use std::{collections::VecDeque, sync::Arc};

use super::{DetectorFactory, SpeechDetector, earshot::Earshot, silero};
use crate::{
    audio::pcm::Frame,
    providers::{ProviderError, registry::LoadContext},
};

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<DetectorFactory, ProviderError> {
    let silero = silero::Engine::installed(context)?;
    Ok(Arc::new(move || Box::new(TwoStage::new(silero.detector(), StageSettings::default()))))
}

/// When the second stage of [`TwoStage`] runs. `benches/vad.rs --sweep` compares values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageSettings {
    /// Probability of the first stage from which on the second runs. Well below the threshold of the endpointer:
    /// the first stage only has to rule speech out.
    pub wake: f32,
    /// Frames below `wake` in both stages after which the second stops.
    pub stay_awake_frames: u32,
    /// Earlier frames that the second stage reads when it starts: it is recurrent, and its first judgements are poor.
    pub warm_up_frames: usize,
}

impl Default for StageSettings {
    fn default() -> Self {
        Self { wake: 0.4, stay_awake_frames: 10, warm_up_frames: 12 }
    }
}

/// A cheap detector in front of an accurate one.
pub struct TwoStage<S> {
    first: Earshot,
    second: S,
    settings: StageSettings,
    phase: Phase,
}

enum Phase {
    /// Only the first stage runs. The last frames are kept to warm up the second.
    Asleep { recent: VecDeque<Frame> },
    /// Both stages run.
    Awake {
        /// Consecutive frames below `wake` in both stages.
        doubtful_frames: u32,
    },
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
    use crate::audio::pcm::FRAME_SAMPLES;

    /// Counts the frames, and answers the same for all of them.
    struct Counting {
        frames_since_reset: u32,
        answer: Option<f32>,
    }

    impl SpeechDetector for Counting {
        fn probability(&mut self, _: &Frame) -> Option<f32> {
            self.frames_since_reset += 1;
            self.answer
        }

        fn reset(&mut self) {
            self.frames_since_reset = 0;
        }
    }

    fn two_stage(answer: Option<f32>) -> TwoStage<Counting> {
        TwoStage::new(Counting { frames_since_reset: 0, answer }, StageSettings::default())
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

        assert_eq!(detector.second.frames_since_reset, 0);
    }

    #[test]
    fn speech_starts_the_second_stage_which_reads_the_frames_before_first() {
        let mut detector = two_stage(Some(0.77));
        for _ in 0..20 {
            detector.probability(&[0; FRAME_SAMPLES]);
        }

        let woken_by = speech().iter().position(|frame| {
            detector.probability(frame);
            detector.is_awake()
        });

        assert!(woken_by.is_some());
        assert_eq!(detector.second.frames_since_reset, 13);
        assert_eq!(detector.probability(&[0; FRAME_SAMPLES]), Some(0.77));
    }

    #[test]
    fn the_second_stage_stops_when_both_rule_speech_out() {
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
    fn where_the_second_stage_fails_the_first_decides() {
        let mut detector = two_stage(None);

        let most = speech().iter().filter_map(|frame| detector.probability(frame)).fold(0.0, f32::max);

        assert!(most > 0.5);
    }
}
