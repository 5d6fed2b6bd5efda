//! Silero VAD v6.
//!
//! The state of a stream is 1.3 KB; all streams share the model (2.8 MB) through [`Engine`].

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
    providers::{
        ProviderError,
        inference::onnx::Runtime,
        registry::LoadContext,
        vad::{DetectorFactory, SpeechDetector},
    },
};

/// What `scripts/setup models` installs the model as.
const MODEL_FILE: &str = "silero-vad-v6.onnx";

/// Samples of the previous frame that the model expects in front of each frame.
const CONTEXT_SAMPLES: usize = 64;
/// The recurrent state: [2, 1, 128].
const STATE_VALUES: usize = 256;

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<DetectorFactory, ProviderError> {
    let engine = Engine::installed(context)?;
    Ok(Arc::new(move || Box::new(engine.detector())))
}

/// The model, shared by all streams on all threads. Cheap to clone.
///
/// An ONNX Runtime session runs one frame at a time, so the pool grows to the number of threads that run frames at the
/// same time (one per arbiter). A call takes a session for the 90 µs of its frame; the lock is held for a push or
/// a pop only. The session that was used last is taken first, because its memory is in the cache.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    runtime: Runtime,
    model: PathBuf,
    idle: Mutex<Vec<Session>>,
}

impl Engine {
    pub(super) fn installed(context: &LoadContext<'_>) -> Result<Self, ProviderError> {
        let load = || Self::load(context.onnx_runtime()?, &context.model(MODEL_FILE)?);
        load().map_err(|error| error.installed_by("models"))
    }

    /// Loads the model and opens the first session. [`ProviderError::Unavailable`] if the file is missing or invalid.
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

/// A detector for one stream.
pub struct Silero {
    engine: Engine,
    context: [f32; CONTEXT_SAMPLES],
    state: Box<[f32; STATE_VALUES]>,
    /// Whether the last run failed: it is logged once, not 31 times a second.
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
                return Err(ProviderError::Inference("Silero VAD: unexpected shape of the output".into()));
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
        Engine::load(&testing::runtime(), &testing::models().join(MODEL_FILE)).unwrap()
    }

    fn speech() -> Vec<Frame> {
        utterance_detector::fixture("sense_and_sensibility_0880.wav").as_chunks().0.to_vec()
    }

    fn judge(detector: &mut Silero, frames: &[Frame]) -> Vec<f32> {
        frames.iter().map(|frame| detector.probability(frame).unwrap()).collect()
    }

    #[test]
    fn speech_and_silence_are_distinguished() {
        let engine = engine();

        let of_silence = judge(&mut engine.detector(), &[[0; FRAME_SAMPLES]; 60]);
        let of_speech = judge(&mut engine.detector(), &speech());

        assert!(of_silence.iter().all(|probability| *probability < 0.1), "{of_silence:?}");
        let speaking = of_speech.iter().filter(|probability| **probability > 0.9).count();
        assert!(speaking * 2 > of_speech.len(), "{of_speech:?}");
    }

    #[test]
    fn streams_that_share_the_model_are_independent() {
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
    fn a_stream_that_was_reset_starts_over() {
        let mut detector = engine().detector();
        let frames = speech();
        let first = judge(&mut detector, &frames);

        detector.reset();

        assert_eq!(judge(&mut detector, &frames), first);
    }
}
