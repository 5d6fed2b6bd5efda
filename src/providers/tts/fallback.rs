//! TTS providers in order of preference, as one voice with one sample rate: that of the preferred one.
//!
//! A provider that fails, gives no sound in time, stalls, or gives nothing is replaced by the next, also within the
//! sentence: the next one speaks the words that the first did not. How many those are is estimated from the length of its
//! sound and its rate of speech, which is learned from whole sentences ([`SpeechRate`]). While somebody could take over,
//! the newest [`HELD`] of sound is held back, so that the sound can be cut between two words.
//!
//! Price: the voice changes within the sentence. The first sound waits until [`HELD`] of it is there, if there is somebody
//! to take over; providers that are faster than speech take a fraction of that. The estimate can be wrong by a word in a
//! sentence whose rate is unusual. The voice that a request asks for is the preferred provider's; others use their
//! default.

mod cut;
mod rest;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};

use self::rest::SpeechRate;
use super::{SpeechRequest, TextToSpeech};
use crate::{
    audio::pcm::Resampler,
    clock,
    language::Language,
    providers::{
        Deadlines, ProviderError,
        chain::{Attempt, Call, Chain, ChainState, ProviderRole, by},
        inference::worker_pool::Hold,
    },
};

/// Sound that is held back: longer than most words.
const HELD: Duration = Duration::from_millis(300);

/// A sample that is louder belongs to a sound.
const MIN_SOUND: u16 = 64;

/// The providers.
pub(in crate::providers) struct TtsChain {
    chain: Chain<dyn TextToSpeech>,
    rates: Arc<[SpeechRate]>,
    deadlines: Deadlines,
}

impl TtsChain {
    /// In order of preference; at least one.
    pub(in crate::providers) fn new(providers: Vec<Arc<dyn TextToSpeech>>, deadlines: Deadlines) -> Self {
        let rates = providers.iter().map(|_| SpeechRate::default()).collect();
        Self { chain: Chain::new(ProviderRole::Tts, providers, |tts| tts.name()), rates, deadlines }
    }

    pub(in crate::providers) fn state(&self) -> Arc<ChainState> {
        self.chain.state.clone()
    }
}

impl TextToSpeech for TtsChain {
    /// Of the preferred one.
    fn name(&self) -> &'static str {
        self.chain.name()
    }

    /// Of all its selections the same.
    fn sample_rate_hz(&self) -> u32 {
        self.chain.providers[0].sample_rate_hz()
    }

    fn speaks(&self, language: &Language) -> bool {
        self.chain.chosen().any(|provider| provider.speaks(language))
    }

    /// Of the preferred one.
    fn voices(&self) -> &[&'static str] {
        self.chain.preferred().voices()
    }

    fn select(&self, names: &[String]) -> Option<Arc<dyn TextToSpeech>> {
        Some(Arc::new(Self {
            chain: self.chain.select(names)?,
            rates: self.rates.clone(),
            deadlines: self.deadlines,
        }))
    }

    fn hold(&self) -> Hold {
        self.chain.chosen().map(TextToSpeech::hold).collect()
    }

    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let speaks = |provider: &dyn TextToSpeech| {
            request.language.as_ref().is_none_or(|language| provider.speaks(language))
        };
        let sentence = Sentence {
            call: self.chain.call(speaks),
            chain: self.chain.clone(),
            rates: self.rates.clone(),
            deadlines: self.deadlines,
            rate_hz: self.sample_rate_hz(),
            request,
            running: None,
            is_over: false,
        };
        stream::unfold(sentence, |mut sentence| async {
            let samples = sentence.next().await?;
            Some((samples, sentence))
        })
        .boxed()
    }
}

/// A sentence on its way.
struct Sentence {
    chain: Chain<dyn TextToSpeech>,
    rates: Arc<[SpeechRate]>,
    deadlines: Deadlines,
    call: Call,
    /// Of the chain.
    rate_hz: u32,
    /// With the text that was not spoken yet.
    request: SpeechRequest,
    running: Option<Running>,
    is_over: bool,
}

/// The provider that is at work.
struct Running {
    attempt: Attempt,
    pieces: BoxStream<'static, Result<Vec<i16>, ProviderError>>,
    /// Of the provider.
    rate_hz: u32,
    resampler: Resampler,
    /// The newest samples, at the provider's rate.
    held: Vec<i16>,
    /// How many are held back at most.
    max_held: usize,
    /// How many samples were passed on since the first sound, at the provider's rate.
    spoken: usize,
    /// When the first sound has to be there.
    sound_by: Instant,
    /// It gave a sound, and not only silence.
    sounds: bool,
}

impl Sentence {
    /// The next samples.
    async fn next(&mut self) -> Option<Result<Vec<i16>, ProviderError>> {
        while !self.is_over {
            if self.running.is_none() && !self.begin() {
                self.is_over = true;
                return Some(Err(self.call.exhausted()));
            }
            let Some(running) = &mut self.running else { continue };
            let stalled_at = clock::now() + self.call.patience(self.deadlines.stall);
            let deadline = if running.sounds { stalled_at } else { running.sound_by };
            let samples = match by(Some(deadline), running.pieces.next()).await {
                Ok(Some(Ok(samples))) => running.take(&samples),
                Ok(None) if running.sounds => self.finish(),
                Ok(None) => self.failed(ProviderError::Empty),
                Ok(Some(Err(error))) | Err(error) => self.failed(error),
            };
            if !samples.is_empty() {
                return Some(Ok(samples));
            }
        }
        None
    }

    /// Lets the next provider speak what is left.
    fn begin(&mut self) -> bool {
        while let Some(attempt) = self.call.next() {
            let provider = &self.chain.providers[attempt.provider];
            let rate_hz = provider.sample_rate_hz();
            let resampler = match Resampler::new(rate_hz, 1, self.rate_hz) {
                Ok(resampler) => resampler,
                Err(error) => {
                    self.call.fail(attempt, ProviderError::Garbled(error.to_string()));
                    continue;
                }
            };
            let mut request = self.request.clone();
            if !self.chain.is_preferred(&attempt) {
                request.voice = None;
            }
            let held = if self.call.can_go_on() { HELD } else { Duration::ZERO };
            self.running = Some(Running {
                pieces: provider.synthesize(request),
                attempt,
                rate_hz,
                resampler,
                held: Vec::new(),
                sound_by: clock::now() + self.call.patience(self.deadlines.tts_first_sound),
                max_held: (held.as_millis() * u128::from(rate_hz) / 1000) as usize,
                spoken: 0,
                sounds: false,
            });
            return true;
        }
        false
    }

    /// The provider has spoken all of its text.
    fn finish(&mut self) -> Vec<i16> {
        let Some(mut running) = self.running.take() else { return Vec::new() };
        self.is_over = true;
        let held = std::mem::take(&mut running.held);
        let mut samples = running.pass(&held);
        samples.extend(running.resampler.flush());
        self.rates[running.attempt.provider].learn(&self.request.text, running.seconds());
        samples
    }

    /// The provider failed: what it has spoken up to the last gap between words stands.
    fn failed(&mut self, error: ProviderError) -> Vec<i16> {
        let Some(mut running) = self.running.take() else { return Vec::new() };
        let mut samples = Vec::new();
        if running.spoken > 0 {
            let mut held = std::mem::take(&mut running.held);
            held.truncate(cut::quietest(&held, running.rate_hz));
            samples = running.pass(&held);
            samples.extend(running.resampler.flush());
            let rate = &self.rates[running.attempt.provider];
            let rest = rate.rest(&self.request.text, running.seconds()).to_owned();
            self.is_over = rest.is_empty();
            self.request.text = rest;
        }
        self.call.fail(running.attempt, error);
        samples
    }
}

impl Running {
    /// More samples; returns what can be passed on.
    fn take(&mut self, samples: &[i16]) -> Vec<i16> {
        if !self.sounds && samples.iter().any(|sample| sample.unsigned_abs() > MIN_SOUND) {
            self.sounds = true;
            self.attempt.works();
        }
        self.held.extend_from_slice(samples);
        let free = self.held.len().saturating_sub(self.max_held);
        let ready: Vec<i16> = self.held.drain(..free).collect();
        self.pass(&ready)
    }

    /// The samples at the chain's rate.
    fn pass(&mut self, samples: &[i16]) -> Vec<i16> {
        let silence = match self.spoken {
            0 => samples.iter().take_while(|sample| sample.unsigned_abs() <= MIN_SOUND).count(),
            _ => 0,
        };
        self.spoken += samples.len() - silence;
        self.resampler.process(samples)
    }

    /// The length of what was spoken.
    fn seconds(&self) -> f32 {
        self.spoken as f32 / self.rate_hz as f32
    }
}

#[cfg(test)]
mod tests;
