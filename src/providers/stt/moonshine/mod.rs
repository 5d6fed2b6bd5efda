//! Moonshine tiny-en: the embedded STT, for English, on a pool of worker threads.
//!
//! The model has no state that grows with the audio: interims come from decoding the open utterance repeatedly, when the
//! [`PartialScheduler`] says so. A decode takes about a hundredth of the length of what it decodes. So that this stays
//! short, a long utterance is decoded in segments:
//!
//! ```text
//!   |◀─────── segment ───────▶|◀── open segment ──▶
//!   ▁▂▆█▇▆▇▅▇█▆▂▁▁▂▆█▇▆▇▅▂▁▁▁▁▁▂▆█▇▆▇▅▇█▆▇▅▇█▆▂▆█▇▆▇▅▇
//!          i     P    i     P     i    i      i           a segment ends in the first pause (P) after MIN_SEGMENT
//! ```
//!
//! Interims are ordinary jobs that make room for finals.

mod model;
mod vocabulary;

use std::{path::Path, sync::Arc, time::Duration};

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
    partial_scheduler::{InterimBudget, InterimShare, PartialScheduler, Reason},
};
use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    clock,
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

/// The longest segment: memory use grows with the square of the length. The endpointer ends utterances at 15 s.
const MAX_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 20;
/// The shortest segment that is followed by another one. The model makes more errors in short ones.
const MIN_SEGMENT: usize = SAMPLE_RATE_HZ as usize * 4;
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
    interims: Arc<InterimBudget>,
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
        let interims = InterimBudget::new(workers);
        Ok(Self { workers: Arc::new(WorkerPool::start("moonshine", workers, QUEUE, make)?), interims })
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
            interims: self.interims.open(),
            audio,
            pcm: Vec::new(),
            segment_start: 0,
            segments: String::new(),
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
    interims: InterimShare,
    audio: mpsc::Receiver<Pcm>,
    pcm: Vec<i16>,
    /// Where the open segment begins.
    segment_start: usize,
    /// The text of the segments before it.
    segments: String,
    scheduler: PartialScheduler,
    /// The decode in progress. While there is one, no other starts.
    decoding: Option<Decode>,
    /// The last decode of the open segment that succeeded.
    decoded: Option<Decoded>,
    /// Its tokens, which the next one probably begins with.
    tokens: Arc<[i64]>,
    last_interim: String,
    is_over: bool,
}

struct Decode {
    /// The end of what it covers, in samples of the utterance.
    length: usize,
    reason: Reason,
    text: oneshot::Receiver<Result<Timed, ProviderError>>,
}

/// A text, and how long a worker took to decode it.
struct Timed {
    text: Text,
    took: Duration,
}

struct Decoded {
    length: usize,
    reason: Reason,
    text: Text,
    took: Duration,
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
        let room = MAX_SAMPLES - (self.pcm.len() - self.segment_start);
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
        self.end_segment_if_due();
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

    /// Sound follows a pause whose decode is there: the next segment begins in that pause.
    fn end_segment_if_due(&mut self) {
        let is_due = |decoded: &mut Decoded| {
            decoded.reason == Reason::Paused
                && decoded.length - self.segment_start >= MIN_SEGMENT
                && !self.scheduler.is_covered_by(decoded.length)
        };
        if let Some(decoded) = self.decoded.take_if(is_due) {
            self.segments = self.with_segments(&decoded.text.text);
            self.segment_start = decoded.length;
            self.tokens = Arc::default();
        }
    }

    /// The text of the utterance, if this is that of the open segment.
    fn with_segments(&self, text: &str) -> String {
        let parts = [self.segments.as_str(), text];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The interim of a decode, unless it would repeat or shorten the last one: while a word is incomplete, a longer
    /// utterance can have fewer words. In a pause, it is probably what the final will be, and is given in any case.
    fn interim(&mut self, decoded: Decoded) -> Option<String> {
        let text = self.with_segments(&decoded.text.text);
        let text = text.trim_end_matches(['.', '…', '-', ',']).to_owned();
        self.scheduler.space(self.interims.interval(decoded.took));
        self.tokens = decoded.text.tokens.as_slice().into();
        let is_pause = decoded.reason == Reason::Paused;
        self.decoded = Some(decoded);
        if !is_pause && (text.len() < self.last_interim.len() || text == self.last_interim) {
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
            return Ok(self.with_segments(&decoded.text.text));
        }
        if let Some(decoded) = self.decoded.take_if(|decoded| self.scheduler.is_covered_by(decoded.length)) {
            return Ok(self.with_segments(&decoded.text.text));
        }
        let decoded = self.decode(Priority::Urgent)?.await;
        let decoded = decoded.unwrap_or(Err(ProviderError::Inference("the worker pool stopped".into())))?;
        Ok(self.with_segments(&decoded.text.text))
    }

    fn decode(
        &self,
        priority: Priority,
    ) -> Result<oneshot::Receiver<Result<Timed, ProviderError>>, ProviderError> {
        let (pcm, guess) = (self.pcm[self.segment_start..].to_vec(), Arc::clone(&self.tokens));
        self.workers.run(priority, move |model, cancel| {
            let start = clock::now();
            let text = model.transcribe(&pcm, &guess, || cancel.is_cancelled()).transpose()?;
            Some(text.map(|Text { text, tokens }| {
                let text = without_hallucinations(&english(&text), &pcm);
                Timed { text: Text { text, tokens }, took: clock::now() - start }
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
    let Decode { length, reason, .. } = *decode;
    *decoding = None;
    let Timed { text, took } = result.ok()?.ok()?;
    Some(Decoded { length, reason, text, took })
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

        // After two seconds an interim is due, however long its decode takes.
        let pcm = utterance_detector::fixture("sense_and_sensibility_0870.wav");
        let (first, rest) = pcm.split_at(2 * SAMPLE_RATE_HZ as usize);
        let (feed, audio) = mpsc::channel(1);
        let mut events = moonshine.open(SttRequest::default(), audio);
        feed.send(Pcm::from(first)).await.unwrap();
        let Some(Ok(SttEvent::Interim(first))) = events.next().await else { panic!("no interim") };
        let mut interims = vec![first.text];
        let feeding = async {
            for piece in rest.chunks(320) {
                feed.send(Pcm::from(piece)).await.unwrap();
            }
            drop(feed);
        };
        let (mut end, ()) = tokio::join!(events.collect::<Vec<_>>(), feeding);
        let heard_last = end.pop();
        for event in end {
            match event {
                Ok(SttEvent::Interim(heard)) => interims.push(heard.text),
                other => panic!("expected an interim, got {other:?}"),
            }
        }

        assert!(interims.is_sorted_by_key(String::len), "{interims:?}");
        assert!(interims[0].contains("John"), "{interims:?}");
        assert!(
            matches!(&heard_last, Some(Ok(SttEvent::Final(heard))) if heard.text.contains("Dashwood")),
            "{heard_last:?}"
        );
    }

    #[tokio::test]
    async fn speech_beyond_the_longest_segment_is_transcribed_whole() {
        let moonshine = moonshine();
        let sentence = utterance_detector::fixture("sense_and_sensibility_0930.wav");
        let pause = vec![0; SAMPLE_RATE_HZ as usize / 2];
        let times = MAX_SAMPLES / sentence.len() + 2;
        let pcm: Vec<i16> = (0..times).flat_map(|_| [&sentence[..], &pause[..]].concat()).collect();
        let (feed, audio) = mpsc::channel(1);
        let mut events = moonshine.open(SttRequest::default(), audio);
        let mut heard = String::new();
        for piece in pcm.chunks(sentence.len() + pause.len()) {
            feed.send(Pcm::from(piece)).await.unwrap();
            // The pause is decoded before the next sentence comes.
            if let Some(Ok(SttEvent::Interim(text))) = events.next().await {
                heard = text.text;
            }
        }
        drop(feed);
        let text = match events.collect::<Vec<_>>().await.pop() {
            Some(Ok(SttEvent::Final(heard))) => heard.text,
            other => panic!("the last event was {other:?}"),
        };

        assert_eq!(text.matches("amiable").count(), times, "{text}");
        assert!(text.starts_with(heard.split('.').next().unwrap()), "{heard} is no beginning of {text}");
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
