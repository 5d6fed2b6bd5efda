//! Moonshine tiny-en: the embedded STT, for English, on a pool of worker threads.
//!
//! The model transcribes whole utterances only. Interims come from decoding the open utterance repeatedly, when the
//! [`PartialScheduler`] says so; a decode takes about a hundredth of the utterance's length. Interims are ordinary jobs
//! that make room for finals.

mod model;
mod vocabulary;

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::{mpsc, oneshot};

use self::{
    model::{Model, Text},
    vocabulary::Vocabulary,
};
use super::{
    SpeechToText, SpokenLanguage, SttEvent, SttRequest, Transcript,
    hallucination_filter::{english, without_hallucinations},
    partial_scheduler::{PartialScheduler, Reason},
};
use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
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

/// Memory use grows with the square of the length. The endpointer ends utterances at 15 s.
const MAX_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 20;
/// Finals and interims that wait, of all sessions together. Each session has at most one of each.
const QUEUE: usize = 64;

/// What `scripts/setup models` installs.
const TOKENIZER_FILE: &str = "moonshine-tiny-en-tokenizer.bin";
const ENCODER_FILE: &str = "moonshine-tiny-en-encoder.ort";
const DECODER_FILE: &str = "moonshine-tiny-en-decoder.ort";

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn SpeechToText>, ProviderError> {
    let load = || {
        let config = context.config;
        [TOKENIZER_FILE, ENCODER_FILE, DECODER_FILE]
            .iter()
            .try_for_each(|file| context.model(file).map(drop))?;
        Moonshine::load(context.onnx_runtime()?, &config.models, config.stt_workers)
    };
    Ok(Arc::new(load().map_err(|error| error.installed_by("models"))?))
}

/// Moonshine on its worker threads.
pub(crate) struct Moonshine {
    workers: Arc<WorkerPool<Model>>,
}

impl Moonshine {
    /// Starts `workers` threads, which share the model of `folder`. [`ProviderError::Unavailable`] if a file is
    /// missing or invalid.
    pub(crate) fn load(runtime: &Runtime, folder: &Path, workers: usize) -> Result<Self, ProviderError> {
        let runtime = runtime.clone();
        let vocabulary = Arc::new(Vocabulary::load(&folder.join(TOKENIZER_FILE))?);
        let encoder = folder.join(ENCODER_FILE);
        let decoder = folder.join(DECODER_FILE);
        let sessions = SharedModel::new(move || {
            Ok((Arc::new(runtime.session(&encoder)?), Arc::new(runtime.session(&decoder)?)))
        });
        let make = move || {
            let sessions = sessions.get()?;
            let [encoder, decoder] =
                [&sessions.0, &sessions.1].map(|session| SessionHandle::new(session.clone()));
            Ok(Model::new(encoder, decoder, Arc::clone(&vocabulary)))
        };
        Ok(Self { workers: Arc::new(WorkerPool::start("moonshine", workers, QUEUE, make)?) })
    }
}

impl SpeechToText for Moonshine {
    fn name(&self) -> &'static str {
        "moonshine"
    }

    /// English. Asked for any language, it hears English.
    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        match language {
            SpokenLanguage::Auto { hints } => {
                hints.is_empty() || hints.iter().any(|hint| hint.primary() == "en")
            }
            SpokenLanguage::Known(language) => language.primary() == "en",
        }
    }

    fn hold(&self) -> Hold {
        self.workers.hold()
    }

    fn open(
        &self,
        _: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let utterance = Utterance {
            workers: Arc::clone(&self.workers),
            audio,
            pcm: Vec::new(),
            scheduler: PartialScheduler::default(),
            decoding: None,
            decoded: None,
            tokens: Arc::default(),
            last_interim: String::new(),
            is_over: false,
        };
        stream::unfold(utterance, |mut utterance| async {
            let event = utterance.next().await?;
            Some((event, utterance))
        })
        .boxed()
    }
}

// --- One utterance --------------------------------------------------------------------------------

/// An open utterance: its audio and its decodes.
struct Utterance {
    workers: Arc<WorkerPool<Model>>,
    audio: mpsc::Receiver<Pcm>,
    pcm: Vec<i16>,
    scheduler: PartialScheduler,
    /// The decode in progress. While there is one, no other starts.
    decoding: Option<Decode>,
    /// The last decode that succeeded.
    decoded: Option<Decoded>,
    /// Its tokens, which the next one probably begins with.
    tokens: Arc<[i64]>,
    last_interim: String,
    is_over: bool,
}

struct Decode {
    /// Samples that it covers.
    length: usize,
    reason: Reason,
    text: oneshot::Receiver<Result<Text, ProviderError>>,
}

struct Decoded {
    length: usize,
    text: Text,
}

impl Utterance {
    /// The next event: interims while audio comes in, then one final or error, then none.
    async fn next(&mut self) -> Option<Result<SttEvent, ProviderError>> {
        while !self.is_over {
            tokio::select! {
                decoded = next_decoded(&mut self.decoding) => {
                    if let Some(text) = decoded.and_then(|decoded| self.interim(decoded)) {
                        return Some(Ok(SttEvent::Interim(Transcript::text(text))));
                    }
                }
                more = self.audio.recv() => match more {
                    Some(pcm) => self.push(&pcm),
                    None => {
                        self.is_over = true;
                        return Some(self.finish().await.map(|text| SttEvent::Final(Transcript::text(text))));
                    }
                },
            }
        }
        None
    }

    fn push(&mut self, pcm: &[i16]) {
        let room = MAX_SAMPLES - self.pcm.len();
        if room < pcm.len() {
            tracing::warn!(
                max_s = MAX_SAMPLES / SAMPLE_RATE_HZ as usize,
                "utterance too long: its end is not transcribed"
            );
        }
        self.pcm.extend_from_slice(&pcm[..room.min(pcm.len())]);
        self.scheduler.grown_to(&self.pcm);
        if self.decoding.is_some() {
            return;
        }
        if let Some(reason) = self.scheduler.due() {
            let length = self.scheduler.start_decoding();
            // A decode in a pause is probably the final. If the queue is full, this decode is skipped.
            let priority = match reason {
                Reason::Grown => Priority::Ordinary,
                Reason::Paused => Priority::Urgent,
            };
            self.decoding = self.decode(priority).ok().map(|text| Decode { length, reason, text });
        }
    }

    /// The interim of a decode, unless it would repeat or shorten the last one: while a word is incomplete, a longer
    /// utterance can have fewer words.
    fn interim(&mut self, decoded: Decoded) -> Option<String> {
        let text = decoded.text.text.trim_end_matches(['.', '…', '-', ',']).to_owned();
        self.tokens = decoded.text.tokens.as_slice().into();
        self.decoded = Some(decoded);
        if text.len() < self.last_interim.len() || text == self.last_interim {
            return None;
        }
        self.last_interim.clone_from(&text);
        Some(text)
    }

    /// The text of a decode that covers all sound, or of one more decode.
    async fn finish(&mut self) -> Result<String, ProviderError> {
        if self.pcm.is_empty() {
            return Ok(String::new());
        }
        // Dropping the receiver of a decode that is of no use cancels it.
        self.decoding = self
            .decoding
            .take_if(|decode| decode.reason == Reason::Paused && self.scheduler.is_covered_by(decode.length));
        if self.decoding.is_some()
            && let Some(decoded) = next_decoded(&mut self.decoding).await
        {
            return Ok(decoded.text.text);
        }
        if let Some(decoded) = self.decoded.take_if(|decoded| self.scheduler.is_covered_by(decoded.length)) {
            return Ok(decoded.text.text);
        }
        let text = self.decode(Priority::Urgent)?.await;
        text.unwrap_or(Err(ProviderError::Inference("the worker pool stopped".into()))).map(|text| text.text)
    }

    fn decode(
        &self,
        priority: Priority,
    ) -> Result<oneshot::Receiver<Result<Text, ProviderError>>, ProviderError> {
        let (pcm, guess) = (self.pcm.clone(), Arc::clone(&self.tokens));
        self.workers.run(priority, move |model, cancel| {
            let text = model.transcribe(&pcm, &guess, || cancel.is_cancelled()).transpose()?;
            Some(text.map(|Text { text, tokens }| Text {
                text: without_hallucinations(&english(&text), &pcm),
                tokens,
            }))
        })
    }
}

/// Waits for the decode in progress and takes it out; never returns if there is none. None if it was cancelled or
/// failed: an error recurs in the final.
async fn next_decoded(decoding: &mut Option<Decode>) -> Option<Decoded> {
    let Some(decode) = decoding else {
        return std::future::pending().await;
    };
    let result = (&mut decode.text).await;
    let length = decode.length;
    *decoding = None;
    Some(Decoded { length, text: result.ok()?.ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        providers::testing::{self, word_errors},
        turn::utterance_detector,
    };

    fn moonshine() -> Moonshine {
        Moonshine::load(&testing::runtime(), &testing::models(), 1).unwrap()
    }

    /// Feeds an utterance in pieces of 20 ms, faster than real time, and collects the events.
    async fn transcribe(stt: &dyn SpeechToText, pcm: &[i16]) -> Vec<SttEvent> {
        let (feed, audio) = mpsc::channel(1);
        let events = stt.open(SttRequest::default(), audio);
        let feeding = async {
            for piece in pcm.chunks(320) {
                feed.send(Pcm::from(piece)).await.unwrap();
            }
            drop(feed);
        };
        let (events, ()) = tokio::join!(events.map(Result::unwrap).collect(), feeding);
        events
    }

    async fn final_text(stt: &dyn SpeechToText, pcm: &[i16]) -> String {
        match transcribe(stt, pcm).await.pop() {
            Some(SttEvent::Final(heard)) => heard.text,
            other => panic!("the last event was {other:?}"),
        }
    }

    #[tokio::test]
    async fn recordings_are_transcribed() {
        let moonshine = moonshine();
        let (mut errors, mut words) = (0, 0);
        for (clip, transcript) in testing::transcripts() {
            let text = final_text(&moonshine, &utterance_detector::fixture(&clip)).await;

            let wrong = word_errors(&transcript, &text);
            println!("{wrong} wrong in {clip}: {text}");
            errors += wrong;
            words += transcript.split_whitespace().count();
        }

        println!("word error rate {:.1} %", 100.0 * errors as f64 / words as f64);
        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[tokio::test]
    async fn an_utterance_has_interims_that_grow_and_one_final() {
        let moonshine = moonshine();

        // Two seconds at a time, so that an interim comes between.
        let pcm = utterance_detector::fixture("sense_and_sensibility_0870.wav");
        let (feed, audio) = mpsc::channel(1);
        let mut events = moonshine.open(SttRequest::default(), audio);
        let mut interims = Vec::new();
        for piece in pcm.chunks(2 * SAMPLE_RATE_HZ as usize) {
            feed.send(Pcm::from(piece)).await.unwrap();
            match events.next().await {
                Some(Ok(SttEvent::Interim(heard))) => interims.push(heard.text),
                other => panic!("expected an interim, got {other:?}"),
            }
        }
        drop(feed);
        let end: Vec<_> = events.collect().await;

        assert!(interims.is_sorted_by_key(String::len), "{interims:?}");
        assert!(interims[0].contains("John"), "{interims:?}");
        assert!(
            matches!(&end[..], [Ok(SttEvent::Final(heard))] if heard.text.contains("Dashwood")),
            "{end:?}"
        );
    }

    #[tokio::test]
    async fn silence_and_noise_have_an_empty_final() {
        let moonshine = moonshine();
        let mut seed = 1u32;
        let mut faint_noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 28) as i16 - 8
        };
        let hiss: Vec<i16> = (0..48_000).map(|_| faint_noise()).collect();

        assert_eq!(transcribe(&moonshine, &[0; 48_000]).await, [SttEvent::Final(Transcript::default())]);
        assert_eq!(final_text(&moonshine, &hiss).await, "");
        assert_eq!(final_text(&moonshine, &[9_000; 1_000]).await, "");
        assert_eq!(transcribe(&moonshine, &[]).await, [SttEvent::Final(Transcript::default())]);
    }
}
