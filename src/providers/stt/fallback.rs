//! STT providers in order of preference, as one.
//!
//! The audio of an utterance is kept until its final. A provider that fails, does not take its audio, or gives no final in
//! time is replaced by the next, which gets the audio from the beginning. So the final is of one provider and of the whole
//! utterance. A provider that gives an empty final for audio that has the level of speech is doubted, and so is one that
//! streams and gives no interim of it in time: the next provider decides whether it failed.
//!
//! Price: sound that no provider can transcribe, such as a cough or music, is transcribed twice, or by each provider if it
//! is long; of an utterance of more than [`MAX_KEPT`] samples the next provider gets only the beginning.

use std::{sync::Arc, time::Instant};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;

use super::{SpeechToText, SpokenLanguage, SttEvent, SttRequest, Transcript};
use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ, pcm},
    clock,
    providers::{
        Deadlines, ProviderError,
        chain::{Attempt, Call, Chain, ChainState, ProviderRole, by},
        inference::worker_pool::Hold,
    },
};

/// Audio that is kept for the next provider: more than the longest utterance.
const MAX_KEPT: usize = SAMPLE_RATE_HZ as usize * 20;

/// Chunks that wait for a provider besides what it gets at the beginning. One that is further behind has stopped.
const AUDIO_QUEUE: usize = 256;

/// Audio has the level of speech if so many frames (of 32 ms) are as loud as this.
const MIN_SPEECH_FRAMES: usize = 10;
const MIN_SPEECH_DBFS: f32 = -45.0;

/// The providers.
pub(in crate::providers) struct SttChain {
    chain: Chain<dyn SpeechToText>,
    deadlines: Deadlines,
}

impl SttChain {
    /// In order of preference; at least one.
    pub(in crate::providers) fn new(providers: Vec<Arc<dyn SpeechToText>>, deadlines: Deadlines) -> Self {
        Self { chain: Chain::new(ProviderRole::Stt, providers, |stt| stt.name()), deadlines }
    }

    pub(in crate::providers) fn state(&self) -> Arc<ChainState> {
        self.chain.state.clone()
    }
}

impl SpeechToText for SttChain {
    /// Of the preferred one.
    fn name(&self) -> &'static str {
        self.chain.name()
    }

    fn transcribes(&self, language: &SpokenLanguage) -> bool {
        self.chain.chosen().any(|provider| provider.transcribes(language))
    }

    fn select(&self, names: &[String]) -> Option<Arc<dyn SpeechToText>> {
        Some(Arc::new(Self { chain: self.chain.select(names)?, deadlines: self.deadlines }))
    }

    fn hold(&self) -> Hold {
        self.chain.chosen().map(SpeechToText::hold).collect()
    }

    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let utterance = Utterance {
            call: self.chain.call(|provider| provider.transcribes(&request.language)),
            chain: self.chain.clone(),
            deadlines: self.deadlines,
            request,
            audio,
            audio_is_over: false,
            kept: Vec::new(),
            kept_samples: 0,
            level: Level::default(),
            running: None,
            interim_chars: 0,
            silent: Vec::new(),
            doubted: None,
            is_over: false,
        };
        stream::unfold(utterance, |mut utterance| async {
            let event = utterance.next().await?;
            Some((event, utterance))
        })
        .boxed()
    }
}

/// An open utterance.
struct Utterance {
    chain: Chain<dyn SpeechToText>,
    deadlines: Deadlines,
    request: SttRequest,
    audio: mpsc::Receiver<Pcm>,
    audio_is_over: bool,
    /// The audio so far, at most [`MAX_KEPT`] samples.
    kept: Vec<Pcm>,
    kept_samples: usize,
    level: Level,
    call: Call,
    running: Option<Running>,
    /// The length of the longest interim, in characters.
    interim_chars: usize,
    /// Providers that gave no interim of what may be speech.
    silent: Vec<Attempt>,
    /// A provider that gave an empty final for what may be speech.
    doubted: Option<Attempt>,
    is_over: bool,
}

/// The provider that is at work.
struct Running {
    attempt: Attempt,
    /// None once its audio is over.
    feed: Option<mpsc::Sender<Pcm>>,
    events: BoxStream<'static, Result<SttEvent, ProviderError>>,
    /// It gave an interim.
    gave: bool,
    /// When it has to give one, while the audio goes on.
    first_by: Option<Instant>,
    /// When the final has to come, after the end of the audio.
    final_by: Option<Instant>,
}

impl Utterance {
    /// The next event: interims, then one final or error, then none.
    async fn next(&mut self) -> Option<Result<SttEvent, ProviderError>> {
        while !self.is_over {
            let Some(running) = &mut self.running else {
                if self.begin() {
                    continue;
                }
                self.is_over = true;
                return Some(self.without_provider());
            };
            let event = tokio::select! {
                more = self.audio.recv(), if !self.audio_is_over => {
                    match more {
                        Some(pcm) => self.push(pcm),
                        None => self.end_audio(),
                    }
                    continue;
                }
                event = by(running.final_by.or(running.first_by), running.events.next()) => event,
            };
            let event = match event {
                Ok(Some(Ok(SttEvent::Interim(heard)))) => self.interim(heard),
                Ok(Some(Ok(SttEvent::Final(heard)))) => self.finished(heard),
                Err(_) if running.final_by.is_none() => self.is_silent(),
                Ok(Some(Err(error))) | Err(error) => self.failed(error),
                Ok(None) => self.failed(ProviderError::Empty),
            };
            if let Some(event) = event {
                return Some(Ok(event));
            }
        }
        None
    }

    /// Opens the utterance at the next provider, with the audio so far.
    fn begin(&mut self) -> bool {
        let Some(attempt) = self.call.next() else { return false };
        let (feed, audio) = mpsc::channel(self.kept.len() + AUDIO_QUEUE);
        let events = self.chain.providers[attempt.provider].open(self.request.clone(), audio);
        for pcm in &self.kept {
            // There is room, and the provider may already have refused.
            let _ = feed.try_send(pcm.clone());
        }
        self.running =
            Some(Running { attempt, feed: Some(feed), events, gave: false, first_by: None, final_by: None });
        self.expect_first_result();
        if self.audio_is_over {
            self.end_audio();
        }
        true
    }

    /// Sets the deadline of the first result, once the audio has the level of speech.
    fn expect_first_result(&mut self) {
        let Some(running) = &mut self.running else { return };
        let is_due = self.level.is_of_speech() && !running.gave && running.first_by.is_none();
        if is_due && self.chain.providers[running.attempt.provider].is_streaming() && self.call.can_go_on() {
            running.first_by = Some(clock::now() + self.deadlines.stt_first_result);
        }
    }

    fn push(&mut self, pcm: Pcm) {
        self.level.push(&pcm);
        self.expect_first_result();
        if self.kept_samples + pcm.len() <= MAX_KEPT {
            self.kept_samples += pcm.len();
            self.kept.push(pcm.clone());
        }
        let Some(feed) = self.running.as_mut().and_then(|running| running.feed.as_mut()) else { return };
        // One that closed its queue says why by its next event.
        if let Err(mpsc::error::TrySendError::Full(_)) = feed.try_send(pcm) {
            self.failed(ProviderError::TimedOut);
        }
    }

    fn end_audio(&mut self) {
        self.audio_is_over = true;
        if let Some(running) = &mut self.running {
            running.feed = None;
            running.final_by = Some(clock::now() + self.call.patience(self.deadlines.stt_final));
        }
    }

    fn interim(&mut self, heard: Transcript) -> Option<SttEvent> {
        let chars = heard.text.chars().count();
        if let Some(running) = self.running.as_mut().filter(|_| chars > 0) {
            (running.gave, running.first_by) = (true, None);
        }
        (chars > 0 && chars >= self.interim_chars).then(|| {
            self.interim_chars = chars;
            SttEvent::Interim(heard)
        })
    }

    fn finished(&mut self, heard: Transcript) -> Option<SttEvent> {
        if !self.audio_is_over && self.call.can_go_on() {
            return self.failed(ProviderError::Garbled("a final before the end of the audio".into()));
        }
        let mut attempt = self.running.take()?.attempt;
        let is_empty = heard.text.trim().is_empty();
        match self.doubted.take() {
            None if is_empty && self.call.can_go_on() && self.level.is_of_speech() => {
                self.doubted = Some(attempt);
                return None;
            }
            Some(mut doubted) if is_empty => doubted.works(),
            Some(doubted) => self.call.overrule(doubted, &attempt, &ProviderError::Empty),
            None => {}
        }
        for silent in self.silent.drain(..).filter(|_| !is_empty) {
            self.call.overrule(silent, &attempt, &ProviderError::TimedOut);
        }
        attempt.works();
        self.is_over = true;
        Some(SttEvent::Final(heard))
    }

    /// No interim came in time.
    fn is_silent(&mut self) -> Option<SttEvent> {
        self.silent.extend(self.running.take().map(|running| running.attempt));
        None
    }

    fn failed(&mut self, error: ProviderError) -> Option<SttEvent> {
        if let Some(running) = self.running.take() {
            self.call.fail(running.attempt, error);
        }
        None
    }

    /// Nobody can deny what the doubted provider said, or all have failed.
    fn without_provider(&mut self) -> Result<SttEvent, ProviderError> {
        match self.doubted.take() {
            Some(mut doubted) => {
                doubted.works();
                Ok(SttEvent::Final(Transcript::default()))
            }
            None => {
                for silent in self.silent.drain(..) {
                    self.call.fail(silent, ProviderError::TimedOut);
                }
                Err(self.call.exhausted())
            }
        }
    }
}

/// Whether audio is as loud as speech for about as long as a word.
#[derive(Default)]
struct Level {
    framer: pcm::Framer,
    loud_frames: usize,
}

impl Level {
    fn push(&mut self, audio: &[i16]) {
        let loud = &mut self.loud_frames;
        self.framer.push(audio, |frame| *loud += usize::from(pcm::level_dbfs(frame) >= MIN_SPEECH_DBFS));
    }

    fn is_of_speech(&self) -> bool {
        self.loud_frames >= MIN_SPEECH_FRAMES
    }
}

#[cfg(test)]
mod tests;
