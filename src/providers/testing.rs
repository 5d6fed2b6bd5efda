//! What the tests of providers share.

use std::{sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use proptest::prelude::*;
use tokio::sync::mpsc;

use crate::{
    audio::Pcm,
    language::Language,
    providers::{
        Deadlines, ProviderError,
        inference::onnx::Runtime,
        llm::LlmEvent,
        scripted::{fault::STT_STEP, tts::loudness},
        stt::{SpeechToText, SpokenLanguage, SttEvent, SttRequest},
    },
};

pub(crate) use crate::providers::scripted::{
    fault::{At, Fault},
    llm::ScriptedLlm,
    stt::ScriptedStt,
    tts::ScriptedTts,
};
pub(crate) use test_support::{models, transcripts, word_errors};

pub(crate) fn runtime() -> Runtime {
    Runtime::load(&models().join("libonnxruntime.so.1.23.2")).expect("scripts/setup models installs it")
}

/// An STT in all languages, whose events this function makes of an utterance.
pub(crate) struct SttBy<F>(pub(crate) F);

impl<F, S> SpeechToText for SttBy<F>
where
    F: Fn(SttRequest, mpsc::Receiver<Pcm>) -> S + Send + Sync + 'static,
    S: Stream<Item = Result<SttEvent, ProviderError>> + Send + 'static,
{
    fn name(&self) -> &'static str {
        "function"
    }

    fn transcribes(&self, _: &SpokenLanguage) -> bool {
        true
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        (self.0)(request, audio).boxed()
    }
}

/// Never reads its audio, and never says anything.
pub(crate) fn hanging_stt() -> Arc<dyn SpeechToText> {
    Arc::new(SttBy(|_, audio| stream::pending().inspect(move |_| _ = &audio)))
}

// --- Scripted providers ---------------------------------------------------------------------------

/// Each fault at each of these positions.
pub(crate) fn faults(positions: &[usize]) -> Vec<At> {
    let faults = [
        Fault::Fails(ProviderError::Connection("lost".into())),
        Fault::Fails(ProviderError::Refused("HTTP 401: no such key".into())),
        Fault::Fails(ProviderError::RateLimited { reason: "quota".into(), retry_after: None }),
        Fault::Hangs,
        Fault::Ends,
    ];
    positions.iter().flat_map(|at| faults.iter().map(|fault| At(*at, fault.clone()))).collect()
}

/// A fault at one of the first `words` words.
pub(crate) fn any_fault(words: usize) -> impl Strategy<Value = At> {
    proptest::sample::select(faults(&(0..words).collect::<Vec<_>>()))
}

/// Short ones, each of another length.
pub(crate) fn deadlines() -> Deadlines {
    Deadlines {
        stt_first_result: Duration::from_millis(1_200),
        stt_final: Duration::from_millis(1_000),
        llm_first_sentence: Duration::from_millis(2_000),
        tts_first_sound: Duration::from_millis(500),
        stall: Duration::from_millis(700),
    }
}

/// How a scripted LLM continues an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continues {
    Exactly,
    /// With its last words, so many.
    Repeating(usize),
}

impl ScriptedLlm {
    pub(crate) fn continuing(mut self, continues: Continues) -> Self {
        self.repeats = match continues {
            Continues::Exactly => 0,
            Continues::Repeating(words) => words,
        };
        self
    }

    pub(crate) fn giving(mut self, events: Vec<LlmEvent>) -> Self {
        self.events = events;
        self
    }

    pub(crate) fn calls(&self) -> usize {
        self.script.calls()
    }
}

/// The chunk of a word: half a second.
pub(crate) fn chunk(word: i16) -> Pcm {
    vec![word + 1_000; STT_STEP].into()
}

impl ScriptedStt {
    /// One that hears the words of [`chunk`].
    pub(crate) fn hearing_chunks(name: &'static str, faults: impl IntoIterator<Item = Option<At>>) -> Self {
        let mut stt = Self::new(name, faults);
        stt.word = |samples| format!("w{}", samples[0] - 1_000);
        stt
    }

    pub(crate) fn of(mut self, language: Language) -> Self {
        self.language = Some(language);
        self
    }

    pub(crate) fn calls(&self) -> usize {
        self.script.calls()
    }
}

impl ScriptedTts {
    pub(crate) fn calls(&self) -> usize {
        self.script.calls()
    }
}

/// The words that were heard, each with the share of it in percent, by the loudness of [`ScriptedTts`] at 16 kHz.
pub(crate) fn heard(samples: &[i16], text: &str) -> Vec<(String, usize)> {
    let mut heard: Vec<(i16, usize)> = Vec::new();
    let mut before = 0;
    for sample in samples {
        match heard.last_mut() {
            Some((loudness, count)) if *loudness == *sample && before == *sample => *count += 1,
            _ if *sample != 0 => heard.push((*sample, 1)),
            _ => {}
        }
        before = *sample;
    }
    let letter = 16_000 / 15;
    let word_of = |sound: i16| text.split(' ').find(|word| loudness(word) == sound).unwrap_or("?");
    heard
        .into_iter()
        .map(|(sound, count)| {
            let word = word_of(sound);
            let letters = word.chars().filter(|c| c.is_alphanumeric()).count();
            (word.to_owned(), count * 100 / (letters * letter).max(1))
        })
        .collect()
}
