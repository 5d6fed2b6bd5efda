//! What the tests of providers share.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::mpsc;

use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    language::Language,
    providers::{
        Deadlines, ProviderError,
        inference::onnx::Runtime,
        llm::{LanguageModel, LlmEvent, Prompt, fallback::CONTINUE_SYSTEM},
        stt::{SpeechToText, SpokenLanguage, SttEvent, SttRequest, Transcript},
        tts::{SpeechRequest, TextToSpeech},
    },
};

pub(crate) use test_support::{models, transcripts, word_errors};

pub(crate) fn runtime() -> Runtime {
    Runtime::load(&models().join("libonnxruntime.so.1.23.2")).expect("scripts/setup models installs it")
}

// --- Scripted providers ---------------------------------------------------------------------------

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    Fails(ProviderError),
    /// Nothing more comes.
    Hangs,
    /// The stream ends before its result, without an error.
    Ends,
}

/// A fault after so many words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct At(pub(crate) usize, pub(crate) Fault);

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
        stt_final: Duration::from_millis(1_000),
        llm_first_sentence: Duration::from_millis(2_000),
        tts_first_sound: Duration::from_millis(500),
        stall: Duration::from_millis(700),
    }
}

/// The faults of a provider's calls, in order; without one a call works.
#[derive(Default)]
struct Script {
    faults: Mutex<VecDeque<Option<At>>>,
    calls: AtomicUsize,
}

impl Script {
    fn of(faults: impl IntoIterator<Item = Option<At>>) -> Self {
        Self { faults: Mutex::new(faults.into_iter().collect()), calls: AtomicUsize::new(0) }
    }

    fn next(&self) -> Option<At> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.faults.lock().pop_front().flatten()
    }
}

/// The items up to the fault, and the fault.
fn until_fault<T: Send + 'static>(
    items: impl IntoIterator<Item = T>,
    fault: Option<At>,
) -> BoxStream<'static, Result<T, ProviderError>> {
    let (count, fault) = fault.map_or((usize::MAX, None), |At(count, fault)| (count, Some(fault)));
    let items: Vec<Result<T, ProviderError>> = items.into_iter().take(count).map(Ok).collect();
    let end = match fault {
        None | Some(Fault::Ends) => stream::empty().boxed(),
        Some(Fault::Fails(error)) => error.into_stream(),
        Some(Fault::Hangs) => stream::pending().boxed(),
    };
    stream::iter(items).chain(end).boxed()
}

/// How a scripted LLM continues an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continues {
    Exactly,
    /// With its last words, so many.
    Repeating(usize),
}

/// Answers with a text, word by word.
pub(crate) struct ScriptedLlm {
    name: &'static str,
    script: Script,
    answer: &'static str,
    continues: Continues,
    /// Instead of the text.
    events: Vec<LlmEvent>,
    pub(crate) asked: Mutex<Vec<Prompt>>,
}

impl ScriptedLlm {
    pub(crate) fn new(
        name: &'static str,
        answer: &'static str,
        faults: impl IntoIterator<Item = Option<At>>,
    ) -> Self {
        Self {
            name,
            script: Script::of(faults),
            answer,
            continues: Continues::Exactly,
            events: Vec::new(),
            asked: Mutex::default(),
        }
    }

    pub(crate) fn continuing(self, continues: Continues) -> Self {
        Self { continues, ..self }
    }

    pub(crate) fn giving(self, events: Vec<LlmEvent>) -> Self {
        Self { events, ..self }
    }

    pub(crate) fn calls(&self) -> usize {
        self.script.calls.load(Ordering::Relaxed)
    }
}

impl LanguageModel for ScriptedLlm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let fault = self.script.next();
        let said = match prompt.messages.as_slice() {
            [.., said, _] if prompt.system.ends_with(CONTINUE_SYSTEM) => {
                said.text().split_whitespace().count()
            }
            _ => 0,
        };
        let from = match self.continues {
            Continues::Exactly => said,
            Continues::Repeating(words) => said.saturating_sub(words),
        };
        self.asked.lock().push(prompt);
        if !self.events.is_empty() {
            return until_fault(self.events.clone(), fault);
        }
        // In two pieces each, so that faults come within words, too.
        let words = self.answer.split_inclusive(' ').skip(from);
        let pieces: Vec<Vec<LlmEvent>> = words
            .map(|word| {
                let (head, tail) = word.split_at(word.len() / 2);
                [head, tail].map(|text| LlmEvent::TextDelta(text.to_owned())).into()
            })
            .collect();
        until_fault(pieces.into_iter().flatten(), fault)
    }
}

/// Hears one word in each chunk of audio, by its first sample.
pub(crate) struct ScriptedStt {
    name: &'static str,
    script: Script,
    /// It speaks this language only.
    language: Option<Language>,
}

/// The chunk of a word: half a second.
pub(crate) fn chunk(word: i16) -> Pcm {
    vec![word + 1_000; SAMPLE_RATE_HZ as usize / 2].into()
}

impl ScriptedStt {
    pub(crate) fn new(name: &'static str, faults: impl IntoIterator<Item = Option<At>>) -> Self {
        Self { name, script: Script::of(faults), language: None }
    }

    pub(crate) fn of(self, language: Language) -> Self {
        Self { language: Some(language), ..self }
    }

    pub(crate) fn calls(&self) -> usize {
        self.script.calls.load(Ordering::Relaxed)
    }
}

impl SpeechToText for ScriptedStt {
    fn name(&self) -> &'static str {
        self.name
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        match (language, &self.language) {
            (SpokenLanguage::Known(asked), Some(own)) => asked.is_like(own),
            (SpokenLanguage::Auto { .. }, _) | (_, None) => true,
        }
    }

    /// An interim after each chunk. [`Fault::Ends`] ends with an empty final.
    fn open(
        &self,
        _: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let fault = self.script.next();
        let heard = stream::unfold(
            (audio, fault, Vec::<String>::new(), false),
            |(mut audio, fault, mut words, is_over)| async move {
                if is_over {
                    return None;
                }
                let more = match &fault {
                    Some(At(count, _)) if words.len() >= *count => Err(fault.clone()?.1),
                    _ => Ok(audio.recv().await),
                };
                match more {
                    Ok(Some(pcm)) => {
                        words.push(format!("w{}", pcm[0] - 1_000));
                        let heard = Transcript::text(words.join(" "));
                        Some((Ok(SttEvent::Interim(heard)), (audio, fault, words, false)))
                    }
                    Ok(None) => {
                        let heard = Transcript::text(words.join(" "));
                        Some((Ok(SttEvent::Final(heard)), (audio, fault, words, true)))
                    }
                    Err(Fault::Fails(error)) => Some((Err(error), (audio, fault, words, true))),
                    Err(Fault::Hangs) => std::future::pending().await,
                    Err(Fault::Ends) => {
                        while audio.recv().await.is_some() {}
                        let nothing = SttEvent::Final(Transcript::default());
                        Some((Ok(nothing), (audio, fault, words, true)))
                    }
                }
            },
        );
        heard.boxed()
    }
}

/// Speaks words: each letter, space and sign is so long, and the signs and spaces are silent.
pub(crate) struct ScriptedTts {
    name: &'static str,
    script: Script,
    rate_hz: u32,
    pub(crate) said: Mutex<Vec<SpeechRequest>>,
}

impl ScriptedTts {
    pub(crate) fn new(
        name: &'static str,
        rate_hz: u32,
        faults: impl IntoIterator<Item = Option<At>>,
    ) -> Self {
        Self { name, script: Script::of(faults), rate_hz, said: Mutex::default() }
    }

    pub(crate) fn calls(&self) -> usize {
        self.script.calls.load(Ordering::Relaxed)
    }

    /// The length of a letter, in samples: 15 letters a second.
    fn letter(&self) -> usize {
        self.rate_hz as usize / 15
    }
}

/// The loudness by which a word is known: `w7` is 7,000 above the loudness of silence.
fn loudness(word: &str) -> i16 {
    let number: i16 = word.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    500 + number * 500
}

impl TextToSpeech for ScriptedTts {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sample_rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn speaks(&self, _: &Language) -> bool {
        true
    }

    /// In pieces of half a letter; a fault comes after so many pieces.
    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let fault = self.script.next();
        let mut samples = Vec::new();
        for word in request.text.split_inclusive(' ') {
            let sound = word.chars().filter(|c| c.is_alphanumeric()).count();
            samples.extend(vec![loudness(word); sound * self.letter()]);
            samples.extend(vec![0; (word.chars().count() - sound) * self.letter()]);
        }
        self.said.lock().push(request);
        let pieces: Vec<Vec<i16>> = samples.chunks(self.letter() / 2).map(<[i16]>::to_vec).collect();
        until_fault(pieces, fault)
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
