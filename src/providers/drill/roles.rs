//! One call of each role.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Role, Trial, watched::Watched};
use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ, pcm::Resampler},
    providers::{
        Deadlines, ProviderError,
        chain::ProviderRole,
        llm::{ChatMessage, LanguageModel, LlmEvent, Prompt, fallback::LlmChain},
        stt::{SpeechToText, SpokenLanguage, SttEvent, SttRequest, fallback::SttChain},
        tts::{SpeechRequest, TextToSpeech, fallback::TtsChain},
    },
};

/// What the TTS says, which the STT then hears.
const SENTENCE: &str = "The quick brown fox jumps over the lazy dog.";

/// Long enough for a fault within the answer.
const QUESTION: &str = "Count from one to ten in words.";
const SYSTEM: &str = "You are a voice assistant. Answer in one sentence.";

/// Where a fault within a result comes: after a second of an utterance, in steps of half a second; after some pieces of
/// an answer; after 0.6 s of a sentence.
const STT_WITHIN: usize = 2;
const LLM_WITHIN: usize = 6;
const TTS_WITHIN: usize = 12;
pub(super) const PIECES_PER_S: u32 = 20;

/// Audio goes in as a client sends it: in real time.
const CHUNK: Duration = Duration::from_millis(100);
const CHUNK_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 10;

/// Transcribes `speech`, 16 kHz.
pub(crate) async fn stt(
    providers: &[Arc<dyn SpeechToText>],
    deadlines: Deadlines,
    speech: &[i16],
    language: &SpokenLanguage,
    report: &mut dyn FnMut(&Trial),
) -> Vec<Trial> {
    let role = Role {
        role: ProviderRole::Stt,
        providers,
        name: |stt| stt.name(),
        within: STT_WITHIN,
        too_late: deadlines.stt_final * 2,
        deadlines,
    };
    let call = async |watched: Vec<Watched<dyn SpeechToText>>| {
        let calls = watched[0].calls.clone();
        let chain = SttChain::new(watched.into_iter().map(|it| Arc::new(it) as _).collect(), deadlines);
        let (feed, audio) = mpsc::channel::<Pcm>(64);
        let request = SttRequest { language: language.clone(), ..SttRequest::default() };
        let mut events = chain.open(request, audio);
        let speak = async move {
            let mut tick = tokio::time::interval(CHUNK);
            for chunk in speech.chunks(CHUNK_SAMPLES) {
                tick.tick().await;
                // The utterance may be over before its audio is.
                let _ = feed.send(chunk.into()).await;
            }
            calls.audio_is_over();
        };
        let hear = async {
            while let Some(event) = events.next().await {
                match event? {
                    SttEvent::Interim(_) => {}
                    SttEvent::Final(heard) if heard.text.trim().is_empty() => break,
                    SttEvent::Final(heard) => return Ok(heard.text),
                }
            }
            Err(ProviderError::Empty)
        };
        tokio::join!(hear, speak).0
    };
    role.try_all(call, report).await
}

/// Answers a question.
pub(crate) async fn llm(
    providers: &[Arc<dyn LanguageModel>],
    deadlines: Deadlines,
    report: &mut dyn FnMut(&Trial),
) -> Vec<Trial> {
    let role = Role {
        role: ProviderRole::Llm,
        providers,
        name: |llm| llm.name(),
        within: LLM_WITHIN,
        too_late: deadlines.llm_first_sentence * 2,
        deadlines,
    };
    let call = async |watched: Vec<Watched<dyn LanguageModel>>| {
        let chain = LlmChain::new(watched.into_iter().map(|it| Arc::new(it) as _).collect(), deadlines);
        let prompt = Prompt::new(SYSTEM, vec![ChatMessage::user(QUESTION)]);
        let (mut events, mut text) = (chain.respond(prompt), String::new());
        while let Some(event) = events.next().await {
            if let LlmEvent::TextDelta(delta) = event? {
                text.push_str(&delta);
            }
        }
        let text = text.trim();
        if text.is_empty() { Err(ProviderError::Empty) } else { Ok(text.to_owned()) }
    };
    role.try_all(call, report).await
}

/// Speaks a sentence.
pub(crate) async fn tts(
    providers: &[Arc<dyn TextToSpeech>],
    deadlines: Deadlines,
    report: &mut dyn FnMut(&Trial),
) -> Vec<Trial> {
    let role = Role {
        role: ProviderRole::Tts,
        providers,
        name: |tts| tts.name(),
        within: TTS_WITHIN,
        too_late: deadlines.tts_first_sound * 2,
        deadlines,
    };
    let call = async |watched: Vec<Watched<dyn TextToSpeech>>| {
        let chain = TtsChain::new(watched.into_iter().map(|it| Arc::new(it) as _).collect(), deadlines);
        let samples = speak(&chain).await?;
        let seconds = samples.len() as f32 / chain.sample_rate_hz() as f32;
        if samples.is_empty() { Err(ProviderError::Empty) } else { Ok(format!("{seconds:.1} s of sound")) }
    };
    role.try_all(call, report).await
}

/// A sentence by one of these providers, at 16 kHz.
pub(crate) async fn speech(
    providers: Vec<Arc<dyn TextToSpeech>>,
    deadlines: Deadlines,
) -> Result<Vec<i16>, ProviderError> {
    let chain = TtsChain::new(providers, deadlines);
    let samples = speak(&chain).await?;
    let mut resampler = Resampler::new(chain.sample_rate_hz(), 1, SAMPLE_RATE_HZ)
        .map_err(|error| ProviderError::Garbled(error.to_string()))?;
    let mut speech = resampler.process(&samples);
    speech.extend(resampler.flush());
    Ok(speech)
}

async fn speak(tts: &dyn TextToSpeech) -> Result<Vec<i16>, ProviderError> {
    let mut pieces = tts.synthesize(SpeechRequest::text(SENTENCE));
    let mut samples = Vec::new();
    while let Some(piece) = pieces.next().await {
        samples.extend(piece?);
    }
    Ok(samples)
}
