//! TTS providers in order of preference, as one voice with one sample rate: that of the preferred one.
//!
//! A provider that fails, gives no sound in time, stalls, or gives nothing is replaced by the next, also within the
//! sentence: the next one speaks the words that the first did not. How many those are is estimated from the length of its
//! sound and its rate of speech, which is learned from whole sentences ([`SpeechRate`]). While somebody could take over,
//! the newest [`HELD`] of sound is held back, so that the sound can be cut between two words.
//!
//! Where the chain hedges, a provider without a sound after its own p95 gets a backup ([`Hedge`]): whoever gives a sound first
//! speaks the sentence.
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
        chain::{Attempt, Call, Chain, ChainState, ProviderRole},
        hedge::{Hedge, Next},
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

    /// Whether sentences are hedged.
    pub(in crate::providers) fn hedging(self, hedges: bool) -> Self {
        Self { chain: self.chain.hedging(hedges), ..self }
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
            hedge: Hedge::default(),
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
    hedge: Hedge<Vec<i16>>,
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
            let samples = match self.hedge.next(&mut running.pieces, deadline).await {
                Next::Current(Ok(Some(samples))) => self.take(&samples),
                Next::Current(Ok(None)) if running.sounds => self.finish(),
                Next::Current(Ok(None)) => self.failed(ProviderError::Empty),
                Next::Current(Err(error)) => self.failed(error),
                Next::Due => self.ask_another(),
                Next::Backup(Ok(Some(samples))) if has_sound(&samples) => self.backup_won(&samples),
                Next::Backup(Ok(Some(_))) => Vec::new(),
                Next::Backup(Ok(None)) => self.backup_failed(ProviderError::Empty),
                Next::Backup(Err(error)) => self.backup_failed(error),
            };
            if !samples.is_empty() {
                return Some(Ok(samples));
            }
        }
        None
    }

    /// Lets the next provider speak what is left: the backup if there is one.
    fn begin(&mut self) -> bool {
        loop {
            let backup = self.hedge.promote(&mut self.call);
            let Some((attempt, pieces)) = backup.or_else(|| {
                let attempt = self.call.next()?;
                let pieces = self.ask(&attempt);
                Some((attempt, pieces))
            }) else {
                return false;
            };
            let rate_hz = self.chain.providers[attempt.provider].sample_rate_hz();
            let resampler = match Resampler::new(rate_hz, 1, self.rate_hz) {
                Ok(resampler) => resampler,
                Err(error) => {
                    self.call.fail(attempt, ProviderError::Garbled(error.to_string()));
                    continue;
                }
            };
            let held = if self.call.can_go_on() { HELD } else { Duration::ZERO };
            self.hedge.begin(&self.call, &attempt, self.deadlines.tts_first_sound);
            self.running = Some(Running {
                pieces,
                rate_hz,
                resampler,
                held: Vec::new(),
                sound_by: self.sound_by(&attempt),
                attempt,
                max_held: (held.as_millis() * u128::from(rate_hz) / 1000) as usize,
                spoken: 0,
                sounds: false,
            });
            return true;
        }
    }

    fn ask(&self, attempt: &Attempt) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let mut request = self.request.clone();
        if !self.chain.is_preferred(attempt) {
            request.voice = None;
        }
        self.chain.providers[attempt.provider].synthesize(request)
    }

    fn sound_by(&self, attempt: &Attempt) -> Instant {
        attempt.began + self.call.patience(self.deadlines.tts_first_sound)
    }

    fn ask_another(&mut self) -> Vec<i16> {
        if let Some(attempt) = self.call.hedge() {
            let pieces = self.ask(&attempt);
            self.hedge.ask(attempt, pieces);
        }
        Vec::new()
    }

    fn backup_won(&mut self, samples: &[i16]) -> Vec<i16> {
        if let Some(loser) = self.running.take() {
            self.hedge.won(&mut self.call, loser.attempt);
        }
        if self.begin() { self.take(samples) } else { Vec::new() }
    }

    /// The provider at work may now be the last one, which has longer.
    fn backup_failed(&mut self, error: ProviderError) -> Vec<i16> {
        self.hedge.backup_failed(&mut self.call, error);
        let by = self.running.as_ref().map(|running| self.sound_by(&running.attempt));
        if let (Some(running), Some(by)) = (&mut self.running, by) {
            running.sound_by = by;
        }
        Vec::new()
    }

    /// More samples of the provider; returns what can be passed on.
    fn take(&mut self, samples: &[i16]) -> Vec<i16> {
        let Some(running) = &mut self.running else { return Vec::new() };
        if !running.sounds && has_sound(samples) {
            running.sounds = true;
            running.attempt.works();
            self.hedge.settle(&mut self.call, &running.attempt);
        }
        running.take(samples)
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

fn has_sound(samples: &[i16]) -> bool {
    samples.iter().any(|sample| sample.unsigned_abs() > MIN_SOUND)
}

#[cfg(test)]
mod hedging;
#[cfg(test)]
mod tests;
