//! Scripted TTS: tones in place of words, which are known by their loudness. Each letter, space and sign is so long, and
//! spaces and signs are silent.

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
#[cfg(test)]
use parking_lot::Mutex;

use super::{
    NAME, SPARE,
    fault::{At, Script, broken, late},
};
use crate::{
    language::Language,
    providers::{
        ProviderError,
        registry::LoadContext,
        tts::{SpeechRequest, TextToSpeech},
    },
};

const RATE_HZ: u32 = 24_000;
const TONE_HZ: u32 = 200;
const LETTERS_PER_S: u32 = 15;

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn TextToSpeech>, ProviderError> {
    let too_late = context.config.deadlines.tts_first_sound * 2;
    let faults = context.config.scripted.tts.iter().map(|planned| planned.at(too_late));
    Ok(Arc::new(ScriptedTts { script: Script::repeating(faults), ..configured(NAME, context) }))
}

pub(in crate::providers) fn load_spare(
    context: &LoadContext<'_>,
) -> Result<Arc<dyn TextToSpeech>, ProviderError> {
    Ok(Arc::new(configured(SPARE, context)))
}

fn configured(name: &'static str, context: &LoadContext<'_>) -> ScriptedTts {
    ScriptedTts {
        latency: context.config.scripted.latency,
        half_wave: (RATE_HZ / TONE_HZ / 2) as usize,
        ..ScriptedTts::new(name, RATE_HZ, [])
    }
}

pub(crate) struct ScriptedTts {
    name: &'static str,
    pub(in crate::providers) script: Script,
    rate_hz: u32,
    /// From the request to the first sound.
    latency: Duration,
    /// Samples of a half wave of the tone.
    half_wave: usize,
    #[cfg(test)]
    pub(crate) said: Mutex<Vec<SpeechRequest>>,
}

impl ScriptedTts {
    /// Its tones are levels: they have no wave.
    pub(crate) fn new(
        name: &'static str,
        rate_hz: u32,
        faults: impl IntoIterator<Item = Option<At>>,
    ) -> Self {
        Self {
            name,
            script: Script::once(faults),
            rate_hz,
            latency: Duration::ZERO,
            half_wave: usize::MAX,
            #[cfg(test)]
            said: Mutex::default(),
        }
    }

    fn samples(&self, text: &str) -> Vec<i16> {
        let letter = (self.rate_hz / LETTERS_PER_S) as usize;
        let mut samples = Vec::new();
        for word in text.split_inclusive(' ') {
            let sound = word.chars().filter(|c| c.is_alphanumeric()).count();
            let loudness = loudness(word);
            let wave = |at: usize| if (at / self.half_wave).is_multiple_of(2) { loudness } else { -loudness };
            samples.extend((0..sound * letter).map(wave));
            samples.extend(vec![0; (word.chars().count() - sound) * letter]);
        }
        samples
    }
}

/// By the number in the word, such as `w7`, else by its letters.
pub(in crate::providers) fn loudness(word: &str) -> i16 {
    const LEVELS: u32 = 60;
    let number = word.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or_else(|_| {
        word.chars()
            .filter(|c| c.is_alphanumeric())
            .fold(0_u32, |sum, c| sum.wrapping_mul(31).wrapping_add(u32::from(c)))
    });
    500 + (number % LEVELS) as i16 * 500
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

    /// In pieces of half a letter.
    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let samples = self.samples(&request.text);
        #[cfg(test)]
        self.said.lock().push(request);
        let piece = (self.rate_hz / LETTERS_PER_S / 2) as usize;
        let pieces: Vec<_> = samples.chunks(piece).map(|samples| Ok(samples.to_vec())).collect();
        broken(late(stream::iter(pieces).boxed(), self.latency), self.script.next())
    }
}
