//! Piper with the voice en_US-joe-medium: the embedded speaker, English, on a pool of worker
//! threads.
//!
//! ```text
//!   sentence ─▶ text_normalizer::clauses ─▶ breaths ─▶ phonemes ─▶ numbers ─▶ the model ─▶ 22.05 kHz PCM
//! ```
//!
//! The model speaks a whole phrase at a time, in about a twentieth of its length. A long sentence is
//! therefore spoken breath by breath: the first sound comes after the first breath, and the next
//! one is made while it plays. The first is an urgent job, those that follow are ordinary.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use ort::session::Session;
use ort::value::TensorRef;
use serde::Deserialize;

use crate::{
    audio::pcm,
    providers::{
        ProviderError,
        inference::{
            onnx::Runtime,
            worker_pool::{Priority, WorkerPool},
        },
        tts::{
            TextToSpeech,
            frontend::{
                phonemizer::Phonemizer,
                text_normalizer::{self, Clause},
            },
        },
    },
};

/// Breaths that wait, over all workers. Each session has at most one.
const QUEUE: usize = 64;
/// A breath goes on over commas until it is this long, in bytes of words: about two seconds. The
/// first is kept shorter, for an early sound.
const CHUNK_BYTES: usize = 40;
const FIRST_CHUNK_BYTES: usize = 12;
/// A clause longer than this (some 15 s) is cut between words: the model's memory grows with it.
const MAX_CHUNK_BYTES: usize = 240;

/// Piper on its worker threads.
pub struct Piper {
    workers: Arc<WorkerPool<Session>>,
    phonemizer: Phonemizer,
    voice: Arc<Voice>,
}

impl Piper {
    /// Loads the voice from `folder` once for each of `workers` threads.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] where a file is missing or is not what it should be.
    pub fn load(
        runtime: &Runtime,
        folder: &Path,
        phonemizer: Phonemizer,
        workers: usize,
    ) -> Result<Self, ProviderError> {
        let voice = Arc::new(Voice::load(&folder.join("piper-en-us-joe-medium.json"))?);
        let (runtime, model) = (runtime.clone(), folder.join("piper-en-us-joe-medium.onnx"));
        let workers = WorkerPool::start("piper", workers, QUEUE, move || runtime.session(&model))?;
        Ok(Self { workers: Arc::new(workers), phonemizer, voice })
    }
}

impl TextToSpeech for Piper {
    fn name(&self) -> &'static str {
        "piper"
    }

    fn sample_rate_hz(&self) -> u32 {
        self.voice.audio.sample_rate
    }

    fn synthesize(&self, sentence: String) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let speech = Speech {
            workers: Arc::clone(&self.workers),
            phonemizer: self.phonemizer.clone(),
            voice: Arc::clone(&self.voice),
            breaths: breaths(text_normalizer::clauses(&sentence)),
            priority: Priority::Urgent,
        };
        stream::unfold(speech, |mut speech| async {
            let breath = speech.breaths.pop_front()?;
            let pcm = speech.say(&breath).await;
            if pcm.is_err() {
                speech.breaths.clear();
            }
            speech.priority = Priority::Ordinary;
            Some((pcm, speech))
        })
        .boxed()
    }
}

/// A sentence being spoken.
struct Speech {
    workers: Arc<WorkerPool<Session>>,
    phonemizer: Phonemizer,
    voice: Arc<Voice>,
    breaths: VecDeque<Vec<Clause>>,
    /// Of the next breath.
    priority: Priority,
}

impl Speech {
    async fn say(&self, breath: &[Clause]) -> Result<Vec<i16>, ProviderError> {
        let ids = self.voice.ids(&self.phonemizer.phonemes(breath).await?);
        let voice = Arc::clone(&self.voice);
        let job = self.workers.run(self.priority, move |model, _| Some(voice.synthesize(model, &ids)))?;
        job.await.unwrap_or(Err(ProviderError::Inference("the speaker stopped".into())))
    }
}

/// Groups clauses into what is synthesized at once.
fn breaths(clauses: Vec<Clause>) -> VecDeque<Vec<Clause>> {
    let mut breaths = VecDeque::new();
    let mut breath: Vec<Clause> = Vec::new();
    let mut bytes = 0;
    for clause in clauses.into_iter().flat_map(shortened) {
        let enough = if breaths.is_empty() { FIRST_CHUNK_BYTES } else { CHUNK_BYTES };
        bytes += clause.words.len();
        let ends_sentence = matches!(clause.mark, '.' | '!' | '?');
        breath.push(clause);
        if bytes >= enough || ends_sentence {
            breaths.push_back(std::mem::take(&mut breath));
            bytes = 0;
        }
    }
    if !breath.is_empty() {
        breaths.push_back(breath);
    }
    breaths
}

/// A clause of bearable length, or the pieces of one that is not.
fn shortened(clause: Clause) -> Vec<Clause> {
    if clause.words.len() <= MAX_CHUNK_BYTES {
        return vec![clause];
    }
    let mut pieces: Vec<Clause> = Vec::new();
    for word in clause.words.split(' ') {
        // A word may be of any length: what no person could say is not said either.
        let word: String = word.chars().take(60).collect();
        match pieces.last_mut() {
            Some(piece) if piece.words.len() + word.len() < MAX_CHUNK_BYTES => {
                piece.words.push(' ');
                piece.words.push_str(&word);
            }
            _ => pieces.push(Clause { words: word, mark: ',' }),
        }
    }
    if let Some(last) = pieces.last_mut() {
        last.mark = clause.mark;
    }
    pieces
}

// --- The voice ------------------------------------------------------------------------------------

/// What the voice's JSON file says.
#[derive(Deserialize)]
struct Voice {
    audio: Audio,
    inference: Inference,
    phoneme_id_map: HashMap<char, Vec<i64>>,
}

#[derive(Deserialize)]
struct Audio {
    sample_rate: u32,
}

/// How much the voice varies in tone, in pace, and how slow it is.
#[derive(Deserialize)]
struct Inference {
    noise_scale: f32,
    length_scale: f32,
    noise_w: f32,
}

impl Voice {
    fn load(path: &Path) -> Result<Self, ProviderError> {
        let unusable =
            |error: String| ProviderError::Unavailable(format!("voice {}: {error}", path.display()));
        let json = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let voice: Self = serde_json::from_slice(&json).map_err(|error| unusable(error.to_string()))?;
        match ['^', '_', '$'].iter().all(|symbol| voice.phoneme_id_map.contains_key(symbol)) {
            true => Ok(voice),
            false => Err(unusable("no symbols for begin, pad and end".into())),
        }
    }

    /// Begin, each phoneme followed by padding, end: as the voice was trained. Phonemes that it
    /// does not know are left out.
    fn ids(&self, phonemes: &str) -> Vec<i64> {
        let id = |symbol: char| self.phoneme_id_map.get(&symbol).into_iter().flatten().copied();
        let mut ids: Vec<i64> = id('^').chain(id('_')).collect();
        for symbol in phonemes.chars().filter(|symbol| !matches!(symbol, '^' | '_' | '$')) {
            let before = ids.len();
            ids.extend(id(symbol));
            if ids.len() > before {
                ids.extend(id('_'));
            }
        }
        ids.extend(id('$'));
        ids
    }

    fn synthesize(&self, model: &mut Session, ids: &[i64]) -> Result<Vec<i16>, ProviderError> {
        let length = [ids.len() as i64];
        let Inference { noise_scale, length_scale, noise_w } = self.inference;
        let scales = [noise_scale, length_scale, noise_w];
        let outputs = model.run(ort::inputs! {
            "input" => TensorRef::from_array_view(([1, ids.len()], ids))?,
            "input_lengths" => TensorRef::from_array_view(([1], &length[..]))?,
            "scales" => TensorRef::from_array_view(([3], &scales[..]))?,
        })?;
        let (_, samples) = outputs["output"].try_extract_tensor::<f32>()?;
        Ok(samples.iter().copied().map(pcm::from_f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audio::{Pcm, SAMPLE_RATE_HZ, pcm::Resampler},
        providers::{
            stt::{SpeechToText, SttEvent, moonshine::Moonshine},
            testing::{self, word_errors},
            tts::frontend::{cmudict::Cmudict, phonemizer::Espeak},
        },
    };
    use tokio::sync::mpsc;

    const SENTENCES: [&str; 6] = [
        "Sure.",
        "Good morning, how are you today?",
        "The next train leaves from the platform behind the old bridge.",
        "You asked about the weather, and it will be sunny with a light wind from the west.",
        "I could not find any restaurant near the station, but there is a small bakery around the corner.",
        "No language model is configured here, so I repeat what I heard.",
    ];

    /// Without the voice's own variety, which is drawn anew each time: the same words always sound the same.
    fn piper(phonemizer: Phonemizer) -> Piper {
        let mut piper = Piper::load(&testing::runtime(), &testing::models(), phonemizer, 1).unwrap();
        let voice = Arc::get_mut(&mut piper.voice).unwrap();
        (voice.inference.noise_scale, voice.inference.noise_w) = (0.0, 0.0);
        piper
    }

    fn dictionary() -> Phonemizer {
        Phonemizer::new(Cmudict::load(&testing::models().join("cmudict.dict")).unwrap(), None)
    }

    async fn spoken(piper: &Piper, sentence: &str) -> Vec<i16> {
        let runs: Vec<_> = piper.synthesize(sentence.to_owned()).map(Result::unwrap).collect().await;
        runs.concat()
    }

    /// What the transcriber understands of what the speaker says, in words wrong of words.
    async fn round_trip(piper: &Piper, moonshine: &Moonshine) -> (usize, usize) {
        let (mut errors, mut words) = (0, 0);
        for sentence in SENTENCES {
            let mut resampler = Resampler::new(piper.sample_rate_hz(), 1, SAMPLE_RATE_HZ).unwrap();
            let mut heard = resampler.process(&spoken(piper, sentence).await);
            heard.extend([0; 8_000]);
            let (feed, audio) = mpsc::channel(1);
            let events = moonshine.open(audio);
            feed.send(Pcm::from(heard)).await.unwrap();
            drop(feed);
            let text = match events.collect::<Vec<_>>().await.pop() {
                Some(Ok(SttEvent::Final(text))) => text,
                other => panic!("the last event was {other:?}"),
            };
            let wrong = word_errors(sentence, &text);
            println!("{wrong} wrong: {text}");
            errors += wrong;
            words += sentence.split(' ').count();
        }
        (errors, words)
    }

    #[tokio::test]
    async fn what_piper_says_by_the_dictionary_is_understood() {
        let moonshine = Moonshine::load(&testing::runtime(), &testing::models(), 1).unwrap();

        let (errors, words) = round_trip(&piper(dictionary()), &moonshine).await;

        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[tokio::test]
    async fn what_piper_says_by_espeak_is_understood() {
        let espeak = Espeak::find().expect("espeak-ng is not installed: run scripts/setup e2e");
        let moonshine = Moonshine::load(&testing::runtime(), &testing::models(), 1).unwrap();

        let (errors, words) = round_trip(&piper(Phonemizer::espeak_alone(espeak)), &moonshine).await;

        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[tokio::test]
    async fn a_sentence_without_words_is_no_sound() {
        assert!(spoken(&piper(dictionary()), "🎉 … !").await.is_empty());
    }

    #[test]
    fn the_first_breath_is_short_and_the_others_go_on_over_commas() {
        let text = "Well, you asked about the weather, and it will be sunny, warm, dry. Take a hat, or two.";

        let breaths: Vec<Vec<String>> = breaths(text_normalizer::clauses(text))
            .into_iter()
            .map(|breath| breath.into_iter().map(|clause| clause.words).collect())
            .collect();

        assert_eq!(
            breaths,
            [
                vec!["Well", "you asked about the weather"],
                vec!["and it will be sunny", "warm", "dry"],
                vec!["Take a hat", "or two"],
            ]
        );
    }

    #[test]
    fn a_clause_without_end_is_cut_between_words() {
        let endless = "word ".repeat(200);

        let breaths = breaths(text_normalizer::clauses(&endless));

        assert!(breaths.len() > 3);
        assert!(breaths.iter().flatten().all(|clause| clause.words.len() <= MAX_CHUNK_BYTES));
    }
}
