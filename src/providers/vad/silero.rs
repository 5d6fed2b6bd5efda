//! Silero VAD v6 as a speech detector: the second stage behind `earshot`.
//!
//! A stream's state is 1.3 KB; the model (2.8 MB) is shared by all of them through [`Engine`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::Session;
use ort::value::TensorRef;
use parking_lot::Mutex;

use crate::{
    audio::{
        SAMPLE_RATE_HZ,
        pcm::{self, FRAME_SAMPLES, Frame},
    },
    providers::{ProviderError, inference::onnx::Runtime, vad::SpeechDetector},
};

/// Samples of the frame before that the model wants in front of each frame.
const CONTEXT_SAMPLES: usize = 64;
/// The recurrent state: [2, 1, 128].
const STATE_VALUES: usize = 256;

/// The model, shared by any number of streams on any number of threads. Cheap to clone.
///
/// A session of ONNX Runtime runs one frame at a time, so there are as many sessions as threads
/// that ever judged at the same moment (one an arbiter). Each call borrows one for its 90 us: the
/// lock is held for a push or a pop only, and the last one used is the first taken, its memory
/// still in the cache.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    runtime: Runtime,
    model: PathBuf,
    idle: Mutex<Vec<Session>>,
}

impl Engine {
    /// Loads the model with the first session.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] where the file is missing or is no model.
    pub fn load(runtime: &Runtime, model: &Path) -> Result<Self, ProviderError> {
        let first = runtime.session(model)?;
        let idle = Mutex::new(vec![first]);
        Ok(Self(Arc::new(Shared { runtime: runtime.clone(), model: model.to_owned(), idle })))
    }

    /// A detector for one stream.
    pub fn detector(&self) -> Silero {
        Silero {
            engine: self.clone(),
            context: [0.0; CONTEXT_SAMPLES],
            state: Box::new([0.0; STATE_VALUES]),
            failed: false,
        }
    }

    fn with_session<T>(
        &self,
        run: impl FnOnce(&mut Session) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let idle = self.0.idle.lock().pop();
        let mut session = match idle {
            Some(session) => session,
            None => self.0.runtime.session(&self.0.model)?,
        };
        let result = run(&mut session);
        self.0.idle.lock().push(session);
        result
    }
}

/// Silero's view of one stream.
pub struct Silero {
    engine: Engine,
    context: [f32; CONTEXT_SAMPLES],
    state: Box<[f32; STATE_VALUES]>,
    /// Whether the last run failed: said once, not 31 times a second.
    failed: bool,
}

impl Silero {
    fn judge(&mut self, frame: &Frame) -> Result<f32, ProviderError> {
        let mut input = [0.0; CONTEXT_SAMPLES + FRAME_SAMPLES];
        input[..CONTEXT_SAMPLES].copy_from_slice(&self.context);
        for (value, sample) in input[CONTEXT_SAMPLES..].iter_mut().zip(frame) {
            *value = pcm::to_f32(*sample);
        }
        self.context.copy_from_slice(&input[FRAME_SAMPLES..]);

        let state = &mut self.state;
        self.engine.with_session(|session| {
            let outputs = session.run(ort::inputs! {
                "input" => TensorRef::from_array_view(([1, input.len()], &input[..]))?,
                "state" => TensorRef::from_array_view(([2usize, 1, 128], &state[..]))?,
                "sr" => TensorRef::from_array_view(([1usize; 0], &[i64::from(SAMPLE_RATE_HZ)][..]))?,
            })?;
            let (_, next) = outputs["stateN"].try_extract_tensor::<f32>()?;
            let (_, probability) = outputs["output"].try_extract_tensor::<f32>()?;
            let (Ok(next), Some(probability)) = (next.try_into(), probability.first()) else {
                return Err(ProviderError::Inference("Silero VAD answered in another shape".into()));
            };
            **state = next;
            Ok(*probability)
        })
    }
}

impl SpeechDetector for Silero {
    fn probability(&mut self, frame: &Frame) -> Option<f32> {
        match self.judge(frame) {
            Ok(probability) => {
                self.failed = false;
                Some(probability)
            }
            Err(error) => {
                if !self.failed {
                    tracing::error!(%error, "voice activity detection failed");
                }
                self.failed = true;
                None
            }
        }
    }

    fn reset(&mut self) {
        self.context.fill(0.0);
        self.state.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{providers::testing, turn::utterance_detector};

    fn engine() -> Engine {
        Engine::load(&testing::runtime(), &testing::models().join("silero-vad-v6.onnx")).unwrap()
    }

    fn speech() -> Vec<Frame> {
        utterance_detector::fixture("sense_and_sensibility_0880.wav").as_chunks().0.to_vec()
    }

    fn judge(detector: &mut Silero, frames: &[Frame]) -> Vec<f32> {
        frames.iter().map(|frame| detector.probability(frame).unwrap()).collect()
    }

    #[test]
    fn speech_is_told_from_silence() {
        let engine = engine();

        let of_silence = judge(&mut engine.detector(), &[[0; FRAME_SAMPLES]; 60]);
        let of_speech = judge(&mut engine.detector(), &speech());

        assert!(of_silence.iter().all(|probability| *probability < 0.1), "{of_silence:?}");
        let speaking = of_speech.iter().filter(|probability| **probability > 0.9).count();
        assert!(speaking * 2 > of_speech.len(), "{of_speech:?}");
    }

    #[test]
    fn streams_that_share_the_model_do_not_hear_each_other() {
        let engine = engine();
        let frames = speech();
        let alone = judge(&mut engine.detector(), &frames);

        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (mut detector, frames) = (engine.detector(), frames.clone());
                std::thread::spawn(move || judge(&mut detector, &frames))
            })
            .collect();
        let together: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();

        assert_eq!(together, [alone.clone(), alone]);
    }

    #[test]
    fn a_stream_that_was_reset_begins_afresh() {
        let mut detector = engine().detector();
        let frames = speech();
        let first = judge(&mut detector, &frames);

        detector.reset();

        assert_eq!(judge(&mut detector, &frames), first);
    }
}
