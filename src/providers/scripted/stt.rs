//! Scripted STT: hears a word in each half second of audio, by its samples.

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;

use super::{
    NAME, SPARE,
    fault::{At, STT_STEP, Script, broken_utterance},
};
use crate::{
    audio::Pcm,
    language::Language,
    providers::{
        ProviderError,
        registry::LoadContext,
        stt::{SpeechToText, SpokenLanguage, SttEvent, SttRequest, Transcript},
    },
};

/// What it hears.
const WORDS: [&str; 32] = [
    "apple", "bread", "chair", "dance", "eagle", "flame", "grape", "house", "island", "jacket", "kettle",
    "lemon", "mango", "night", "ocean", "paper", "queen", "river", "stone", "table", "uncle", "violet",
    "water", "yellow", "amber", "berry", "cloud", "dream", "field", "green", "honey", "light",
];

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn SpeechToText>, ProviderError> {
    let config = &context.config.scripted;
    let too_late = context.config.deadlines.stt_final * 2;
    let script = Script::repeating(config.stt.iter().map(|planned| planned.at(too_late)));
    Ok(Arc::new(ScriptedStt { script, latency: config.latency, ..ScriptedStt::new(NAME, []) }))
}

pub(in crate::providers) fn load_spare(
    context: &LoadContext<'_>,
) -> Result<Arc<dyn SpeechToText>, ProviderError> {
    Ok(Arc::new(ScriptedStt { latency: context.config.scripted.latency, ..ScriptedStt::new(SPARE, []) }))
}

pub(crate) struct ScriptedStt {
    name: &'static str,
    pub(in crate::providers) script: Script,
    /// From the end of the audio to the final.
    latency: Duration,
    /// It speaks this language only.
    pub(in crate::providers) language: Option<Language>,
    pub(in crate::providers) word: fn(&[i16]) -> String,
}

impl ScriptedStt {
    pub(crate) fn new(name: &'static str, faults: impl IntoIterator<Item = Option<At>>) -> Self {
        Self { name, script: Script::once(faults), latency: Duration::ZERO, language: None, word }
    }
}

/// Another one for other samples, most probably.
fn word(samples: &[i16]) -> String {
    let sum = samples.iter().fold(0_u32, |sum, sample| sum.wrapping_mul(31).wrapping_add(*sample as u32));
    WORDS[(sum >> 16) as usize % WORDS.len()].to_owned()
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

    fn is_streaming(&self) -> bool {
        true
    }

    /// An interim after each word.
    fn open(
        &self,
        _: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let (word, latency) = (self.word, self.latency);
        broken_utterance(audio, self.script.next(), move |audio| {
            let utterance = Utterance { audio, samples: Vec::new(), words: Vec::new(), word, latency };
            stream::unfold(Some(utterance), |utterance| async {
                let mut utterance = utterance?;
                Some(match utterance.interim().await {
                    Some(heard) => (Ok(SttEvent::Interim(heard)), Some(utterance)),
                    None => (Ok(SttEvent::Final(utterance.last().await)), None),
                })
            })
            .boxed()
        })
    }
}

struct Utterance {
    audio: mpsc::Receiver<Pcm>,
    /// Less than a word.
    samples: Vec<i16>,
    words: Vec<String>,
    word: fn(&[i16]) -> String,
    latency: Duration,
}

impl Utterance {
    /// None at the end of the audio.
    async fn interim(&mut self) -> Option<Transcript> {
        while self.samples.len() < STT_STEP {
            self.samples.extend_from_slice(&self.audio.recv().await?);
        }
        let samples: Vec<i16> = self.samples.drain(..STT_STEP).collect();
        self.words.push((self.word)(&samples));
        Some(self.heard())
    }

    async fn last(&mut self) -> Transcript {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        if !self.samples.is_empty() {
            self.words.push((self.word)(&self.samples));
        }
        self.heard()
    }

    fn heard(&self) -> Transcript {
        Transcript::text(self.words.join(" "))
    }
}
