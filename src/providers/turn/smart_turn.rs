//! Smart Turn v3.2 by Daily (BSD-2-Clause): a Whisper tiny encoder with a classifier of eight seconds of speech, for 23
//! languages.
//!
//! Input and output as in `pipecat/audio/turn/smart_turn/local_smart_turn_v3.py` of pipecat-ai 1.14.0, which carries the
//! model. A decision takes 60 to 100 ms of a core: it runs on a pool of worker threads.

use std::{path::Path, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use ort::value::TensorRef;

use super::{
    EndOfTurnModel,
    log_mel::{FRAMES, LogMel, MELS},
};
use crate::{
    audio::Pcm,
    providers::{
        ProviderError,
        inference::{
            onnx::Runtime,
            shared_model::{SessionHandle, SharedModel},
            worker_pool::{Hold, Priority, WorkerPool},
        },
        registry::LoadContext,
    },
};

/// What `scripts/setup models` installs the model as.
const MODEL_FILE: &str = "smart-turn-v3.2-cpu.onnx";

/// Decisions that wait, of all sessions together. Each session has at most one.
const QUEUE: usize = 64;

pub(in crate::providers) fn load(
    context: &LoadContext<'_>,
) -> Result<Arc<dyn EndOfTurnModel>, ProviderError> {
    let load = || {
        let model = context.model(MODEL_FILE)?;
        SmartTurn::load(context.onnx_runtime()?, &model, context.config.turn_workers)
    };
    Ok(Arc::new(load().map_err(|error| error.installed_by("models"))?))
}

/// Smart Turn on its worker threads.
pub(crate) struct SmartTurn {
    workers: WorkerPool<Model>,
}

struct Model {
    session: SessionHandle,
    log_mel: Arc<LogMel>,
}

impl SmartTurn {
    /// Starts `workers` threads, which share the model. [`ProviderError::Unavailable`] if the file is missing or invalid.
    pub(crate) fn load(runtime: &Runtime, model: &Path, workers: usize) -> Result<Self, ProviderError> {
        let (runtime, model) = (runtime.clone(), model.to_owned());
        let session = SharedModel::new(move || runtime.session(&model));
        let log_mel = Arc::new(LogMel::new());
        let make =
            move || Ok(Model { session: SessionHandle::new(session.get()?), log_mel: Arc::clone(&log_mel) });
        Ok(Self { workers: WorkerPool::start("smart-turn", workers, QUEUE, make)? })
    }
}

impl EndOfTurnModel for SmartTurn {
    fn name(&self) -> &'static str {
        "smart-turn"
    }

    fn hold(&self) -> Hold {
        self.workers.hold()
    }

    fn judge(&self, pcm: Pcm) -> BoxFuture<'static, Result<f32, ProviderError>> {
        let judged = self.workers.run(Priority::Urgent, move |model, _| Some(model.judge(&pcm)));
        async move {
            let stopped = || ProviderError::Inference("the worker pool stopped".into());
            judged?.await.unwrap_or_else(|_| Err(stopped()))
        }
        .boxed()
    }
}

impl Model {
    fn judge(&mut self, pcm: &[i16]) -> Result<f32, ProviderError> {
        let features = self.log_mel.of(pcm);
        let outputs = self.session.run(ort::inputs! {
            "input_features" => TensorRef::from_array_view(([1, MELS, FRAMES], &features[..]))?,
        })?;
        // Named `logits`, it is a probability: the model ends with a sigmoid.
        let (_, probability) = outputs["logits"].try_extract_tensor::<f32>()?;
        match probability {
            [probability] if (0.0..=1.0).contains(probability) => Ok(*probability),
            _ => Err(ProviderError::Inference("Smart Turn: no probability".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audio::SAMPLE_RATE_HZ,
        providers::testing::{models, runtime},
        turn::utterance_detector::fixture,
    };

    /// Somebody speaks from here to there, and then there is a pause of 200 ms.
    fn said(clip: &str, until_s: f32) -> Pcm {
        let mut pcm = fixture(clip);
        pcm.truncate((until_s * SAMPLE_RATE_HZ as f32) as usize);
        pcm.extend([0; SAMPLE_RATE_HZ as usize / 5]);
        pcm.into()
    }

    #[tokio::test]
    async fn what_sounds_finished_is_told_from_what_does_not_as_by_the_original() {
        let model = SmartTurn::load(&runtime(), &models().join(MODEL_FILE), 1).unwrap();

        // What pipecat-ai 1.14.0 says of the same samples.
        for (clip, until_s, expected) in [
            ("goforward.wav", 2.79, 0.98),
            ("something.wav", 3.0, 0.99),
            ("sense_and_sensibility_0870.wav", 7.1, 0.99),
            ("sense_and_sensibility_0890.wav", 5.3, 0.93),
            ("something.wav", 1.8, 0.15),
            ("sense_and_sensibility_0870.wav", 4.2, 0.01),
            ("sense_and_sensibility_0880.wav", 1.4, 0.02),
            ("sense_and_sensibility_0920.wav", 3.0, 0.06),
        ] {
            let probability = model.judge(said(clip, until_s)).await.unwrap();

            assert!((probability - expected).abs() < 0.05, "{clip} until {until_s} s: {probability}");
        }
    }

    #[tokio::test]
    async fn what_is_longer_than_eight_seconds_is_judged_by_its_end_and_nothing_is_judged_at_all() {
        let model = SmartTurn::load(&runtime(), &models().join(MODEL_FILE), 1).unwrap();
        let end = said("sense_and_sensibility_0870.wav", 4.2);
        let long: Pcm = [vec![0; 20 * SAMPLE_RATE_HZ as usize], end.to_vec()].concat().into();

        let (short, long) = (model.judge(end).await.unwrap(), model.judge(long).await.unwrap());

        assert_eq!(short, long);
        assert!((0.0..=1.0).contains(&model.judge(Vec::new().into()).await.unwrap()));
    }
}
