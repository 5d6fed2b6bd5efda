//! Piper with the voice en_US-joe-medium: the embedded TTS, for English, on a pool of worker threads.
//!
//! ```text
//!   sentence ─▶ clauses ─▶ chunks ─▶ phonemes ─▶ ids ─▶ the model ─▶ 22.05 kHz PCM
//! ```
//!
//! The model synthesizes a whole input at a time, in about a twentieth of its length. A long sentence is therefore
//! synthesized in chunks of clauses: the first is short and an urgent job; the others are ordinary jobs, made while
//! the one before is played.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use ort::session::Session;
use ort::value::TensorRef;
use serde::Deserialize;

use tts_frontend::{Clause, Cmudict, Espeak, Phonemizer, text_normalizer};

use super::{SpeechRequest, TextToSpeech};
use crate::{
    audio::pcm,
    language::Language,
    providers::{
        ProviderError,
        inference::{
            onnx::Runtime,
            shared_model::{SessionHandle, SharedModel},
            worker_pool::{Hold, Priority, WorkerPool},
        },
        registry::LoadContext,
    },
};

/// What `scripts/setup models` installs.
const VOICE_FILE: &str = "piper-en-us-joe-medium.json";
const MODEL_FILE: &str = "piper-en-us-joe-medium.onnx";
const CMUDICT_FILE: &str = "cmudict.dict";

/// Chunks that wait, of all sessions together. Each session has at most one.
const QUEUE: usize = 64;
/// A chunk has clauses of at least this length together, in bytes of words: about two seconds. The first is shorter, for
/// an early start.
const CHUNK_BYTES: usize = 40;
const FIRST_CHUNK_BYTES: usize = 12;
/// A longer clause (about 15 s) is cut between words: the model's memory use grows with the length.
const MAX_CHUNK_BYTES: usize = 240;
const MAX_WORD_CHARS: usize = 60;

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn TextToSpeech>, ProviderError> {
    let load = || {
        let config = context.config;
        [VOICE_FILE, MODEL_FILE].iter().try_for_each(|file| context.model(file).map(drop))?;
        let phonemizer = installed_phonemizer(&context.model(CMUDICT_FILE)?)?;
        Piper::load(context.onnx_runtime()?, &config.models, phonemizer, config.tts_workers)
    };
    Ok(Arc::new(load().map_err(|error| error.installed_by("models"))?))
}

/// CMUdict, eSpeak NG, or both: either is enough.
fn installed_phonemizer(cmudict: &Path) -> Result<Phonemizer, ProviderError> {
    match (Cmudict::load(cmudict), Espeak::find()) {
        (Ok(cmudict), espeak) => Ok(Phonemizer::with_cmudict(cmudict, espeak)),
        (Err(_), Some(espeak)) => Ok(Phonemizer::with_espeak_only(espeak)),
        (Err(error), None) => Err(ProviderError::Unavailable(error.to_string())),
    }
}

impl From<tts_frontend::Error> for ProviderError {
    fn from(error: tts_frontend::Error) -> Self {
        Self::Inference(error.to_string())
    }
}

/// Piper on its worker threads.
struct Piper {
    workers: Arc<WorkerPool<SessionHandle>>,
    phonemizer: Phonemizer,
    voice: Arc<Voice>,
}

impl Piper {
    /// Starts `workers` threads, which share the voice of `folder`. [`ProviderError::Unavailable`] if a file is
    /// missing or invalid.
    fn load(
        runtime: &Runtime,
        folder: &Path,
        phonemizer: Phonemizer,
        workers: usize,
    ) -> Result<Self, ProviderError> {
        let voice = Arc::new(Voice::load(&folder.join(VOICE_FILE))?);
        let (runtime, model) = (runtime.clone(), folder.join(MODEL_FILE));
        let session = SharedModel::new(move || runtime.session(&model));
        let make = move || Ok(SessionHandle::new(session.get()?));
        let workers = WorkerPool::start("piper", workers, QUEUE, make)?;
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

    fn hold(&self) -> Hold {
        self.workers.hold()
    }

    fn speaks(&self, language: &Language) -> bool {
        language.primary() == "en"
    }

    fn voices(&self) -> &[&'static str] {
        &["en_US-joe-medium"]
    }

    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let speech = Synthesis {
            workers: Arc::clone(&self.workers),
            phonemizer: self.phonemizer.clone(),
            voice: Arc::clone(&self.voice),
            chunks: chunks(text_normalizer::clauses(&request.text)),
            priority: Priority::Urgent,
        };
        stream::unfold(speech, |mut speech| async {
            let chunk = speech.chunks.pop_front()?;
            let pcm = speech.synthesize(&chunk).await;
            if pcm.is_err() {
                speech.chunks.clear();
            }
            speech.priority = Priority::Ordinary;
            Some((pcm, speech))
        })
        .boxed()
    }
}

/// A sentence that is being synthesized.
struct Synthesis {
    workers: Arc<WorkerPool<SessionHandle>>,
    phonemizer: Phonemizer,
    voice: Arc<Voice>,
    chunks: VecDeque<Vec<Clause>>,
    /// Of the next chunk.
    priority: Priority,
}

impl Synthesis {
    async fn synthesize(&self, chunk: &[Clause]) -> Result<Vec<i16>, ProviderError> {
        let ids = self.voice.ids(&self.phonemizer.phonemes(chunk).await?);
        let voice = Arc::clone(&self.voice);
        let job = self.workers.run(self.priority, move |model, _| Some(voice.synthesize(model, &ids)))?;
        job.await.unwrap_or(Err(ProviderError::Inference("the worker pool stopped".into())))
    }
}

/// Groups clauses into inputs of the model.
fn chunks(clauses: Vec<Clause>) -> VecDeque<Vec<Clause>> {
    let mut chunks = VecDeque::new();
    let mut chunk: Vec<Clause> = Vec::new();
    let mut bytes = 0;
    for clause in clauses.into_iter().flat_map(split_long) {
        let min_bytes = if chunks.is_empty() { FIRST_CHUNK_BYTES } else { CHUNK_BYTES };
        bytes += clause.words.len();
        let ends_sentence = matches!(clause.mark, '.' | '!' | '?');
        chunk.push(clause);
        if bytes >= min_bytes || ends_sentence {
            chunks.push_back(std::mem::take(&mut chunk));
            bytes = 0;
        }
    }
    if !chunk.is_empty() {
        chunks.push_back(chunk);
    }
    chunks
}

/// Splits a clause that is longer than [`MAX_CHUNK_BYTES`].
fn split_long(clause: Clause) -> Vec<Clause> {
    if clause.words.len() <= MAX_CHUNK_BYTES {
        return vec![clause];
    }
    let mut pieces: Vec<Clause> = Vec::new();
    for word in clause.words.split(' ') {
        // A word can be of any length: longer ones are cut.
        let word: String = word.chars().take(MAX_WORD_CHARS).collect();
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

/// The voice's JSON file.
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

/// Variation in tone and in rhythm, and slowness.
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
            false => Err(unusable("the symbols for begin, padding and end are missing".into())),
        }
    }

    /// Begin, each phoneme followed by padding, end, as the voice was trained. Unknown phonemes are left out.
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
            stt::{SpeechToText, SttEvent, SttRequest, moonshine::Moonshine},
            testing::{self, word_errors},
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

    /// Without the random variation of the voice: the same words always give the same samples.
    fn piper(phonemizer: Phonemizer) -> Piper {
        let mut piper = Piper::load(&testing::runtime(), &testing::models(), phonemizer, 1).unwrap();
        let voice = Arc::get_mut(&mut piper.voice).unwrap();
        (voice.inference.noise_scale, voice.inference.noise_w) = (0.0, 0.0);
        piper
    }

    fn cmudict() -> Phonemizer {
        Phonemizer::with_cmudict(Cmudict::load(&testing::models().join(CMUDICT_FILE)).unwrap(), None)
    }

    async fn speech(piper: &Piper, sentence: &str) -> Vec<i16> {
        let pieces: Vec<_> =
            piper.synthesize(SpeechRequest::text(sentence)).map(Result::unwrap).collect().await;
        pieces.concat()
    }

    /// Transcribes what is synthesized; returns the wrong words and all words.
    async fn round_trip(piper: &Piper, moonshine: &Moonshine) -> (usize, usize) {
        let (mut errors, mut words) = (0, 0);
        for sentence in SENTENCES {
            let mut resampler = Resampler::new(piper.sample_rate_hz(), 1, SAMPLE_RATE_HZ).unwrap();
            let mut pcm = resampler.process(&speech(piper, sentence).await);
            pcm.extend([0; 8_000]);
            let (feed, audio) = mpsc::channel(1);
            let events = moonshine.open(SttRequest::default(), audio);
            feed.send(Pcm::from(pcm)).await.unwrap();
            drop(feed);
            let text = match events.collect::<Vec<_>>().await.pop() {
                Some(Ok(SttEvent::Final(heard))) => heard.text,
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
    async fn speech_by_cmudict_is_understood() {
        let moonshine = Moonshine::load(&testing::runtime(), &testing::models(), 1).unwrap();

        let (errors, words) = round_trip(&piper(cmudict()), &moonshine).await;

        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[tokio::test]
    async fn speech_by_espeak_is_understood() {
        let espeak = Espeak::find().expect("espeak-ng is not installed: run scripts/setup e2e");
        let moonshine = Moonshine::load(&testing::runtime(), &testing::models(), 1).unwrap();

        let (errors, words) = round_trip(&piper(Phonemizer::with_espeak_only(espeak)), &moonshine).await;

        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[tokio::test]
    async fn a_sentence_without_words_is_no_sound() {
        assert!(speech(&piper(cmudict()), "🎉 … !").await.is_empty());
    }

    #[test]
    fn the_first_chunk_is_short_and_the_others_span_commas() {
        let text = "Well, you asked about the weather, and it will be sunny, warm, dry. Take a hat, or two.";

        let chunks: Vec<Vec<String>> = chunks(text_normalizer::clauses(text))
            .into_iter()
            .map(|chunk| chunk.into_iter().map(|clause| clause.words).collect())
            .collect();

        assert_eq!(
            chunks,
            [
                vec!["Well", "you asked about the weather"],
                vec!["and it will be sunny", "warm", "dry"],
                vec!["Take a hat", "or two"],
            ]
        );
    }

    #[test]
    fn a_long_clause_is_cut_between_words() {
        let long = "word ".repeat(200);

        let chunks = chunks(text_normalizer::clauses(&long));

        assert!(chunks.len() > 3);
        assert!(chunks.iter().flatten().all(|clause| clause.words.len() <= MAX_CHUNK_BYTES));
    }
}
