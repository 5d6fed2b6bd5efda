//! Providers that may have a fault, and whose calls are noted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    audio::Pcm,
    clock,
    language::Language,
    providers::{
        ProviderError,
        inference::worker_pool::Hold,
        llm::{LanguageModel, LlmEvent, Prompt},
        scripted::fault::{At, broken, broken_utterance},
        stt::{SpeechToText, SpokenLanguage, SttEvent, SttRequest},
        tts::{SpeechRequest, TextToSpeech},
    },
};

/// The calls of a trial, in order. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    calls: Vec<Call>,
    /// When the utterance ended.
    audio_over: Option<Instant>,
}

struct Call {
    provider: &'static str,
    at: Instant,
    first_result: Option<Instant>,
    /// The newest result, or the error.
    last: Instant,
}

/// The provider that made the call after others had failed.
pub(super) struct Takeover {
    pub(super) by: &'static str,
    pub(super) after: Duration,
    pub(super) first_result_after: Option<Duration>,
}

impl Calls {
    pub(super) fn audio_is_over(&self) {
        self.0.lock().audio_over = Some(clock::now());
    }

    /// Of the last provider that was called, if so many were called before it.
    pub(super) fn takeover(&self, broken: usize) -> Option<Takeover> {
        let noted = self.0.lock();
        let [.., failed, next] = &noted.calls[..] else { return None };
        if noted.calls.len() <= broken {
            return None;
        }
        // A deadline counts from the end of the utterance, where that is later than the fault.
        let audio_over = noted.audio_over.filter(|over| *over <= next.at);
        let fault = audio_over.map_or(failed.last, |over| failed.last.max(over));
        Some(Takeover {
            by: next.provider,
            after: next.at.saturating_duration_since(fault),
            first_result_after: next.first_result.map(|at| at.saturating_duration_since(fault)),
        })
    }

    /// Notes a call and what comes of it.
    fn note<T: Send + 'static>(
        &self,
        provider: &'static str,
        stream: BoxStream<'static, Result<T, ProviderError>>,
    ) -> BoxStream<'static, Result<T, ProviderError>> {
        let (now, noted) = (clock::now(), self.0.clone());
        let index = {
            let mut noted = noted.lock();
            noted.calls.push(Call { provider, at: now, first_result: None, last: now });
            noted.calls.len() - 1
        };
        let results = stream.inspect(move |item| {
            let (now, mut noted) = (clock::now(), noted.lock());
            let call = &mut noted.calls[index];
            call.last = now;
            if item.is_ok() {
                call.first_result.get_or_insert(now);
            }
        });
        results.boxed()
    }
}

/// A provider with or without a fault.
pub(super) struct Watched<T: ?Sized> {
    provider: Arc<T>,
    name: &'static str,
    fault: Option<At>,
    pub(super) calls: Calls,
}

impl<T: ?Sized> Watched<T> {
    pub(super) fn new(provider: &Arc<T>, name: &'static str, fault: Option<At>, calls: &Calls) -> Self {
        Self { provider: provider.clone(), name, fault, calls: calls.clone() }
    }
}

impl SpeechToText for Watched<dyn SpeechToText> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        self.provider.transcribes(language)
    }

    fn is_streaming(&self) -> bool {
        self.provider.is_streaming()
    }

    fn hold(&self) -> Hold {
        self.provider.hold()
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let events = broken_utterance(audio, self.fault.clone(), |audio| self.provider.open(request, audio));
        self.calls.note(self.name, events)
    }
}

impl LanguageModel for Watched<dyn LanguageModel> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sees_images(&self) -> bool {
        self.provider.sees_images()
    }

    fn continues_answers(&self) -> bool {
        self.provider.continues_answers()
    }

    fn hold(&self) -> Hold {
        self.provider.hold()
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.calls.note(self.name, broken(self.provider.respond(prompt), self.fault.clone()))
    }
}

impl TextToSpeech for Watched<dyn TextToSpeech> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sample_rate_hz(&self) -> u32 {
        self.provider.sample_rate_hz()
    }

    fn speaks(&self, language: &Language) -> bool {
        self.provider.speaks(language)
    }

    fn voices(&self) -> &[&'static str] {
        self.provider.voices()
    }

    fn hold(&self) -> Hold {
        self.provider.hold()
    }

    /// In small pieces, so that a fault can come within a sentence that the provider gives as a whole.
    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let piece = (self.provider.sample_rate_hz() / super::roles::PIECES_PER_S) as usize;
        let cut = move |samples: Result<Vec<i16>, ProviderError>| {
            let pieces: Vec<_> = match samples {
                Ok(samples) => samples.chunks(piece).map(|piece| Ok(piece.to_vec())).collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(pieces)
        };
        let pieces = self.provider.synthesize(request).flat_map(cut).boxed();
        self.calls.note(self.name, broken(pieces, self.fault.clone()))
    }
}
