//! Moonshine tiny-en: the embedded transcriber, English, on a pool of worker threads.
//!
//! The model understands whole utterances only. Interims come from decoding the open utterance
//! again and again (a decode takes about a hundredth of its length), as [`pace`](super::pace) says;
//! they are ordinary jobs that make room for finals.
//!
//! A speech model given no speech makes something up, so a text goes by
//! `believable` before anybody sees it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorRef};
use tokio::sync::{mpsc, oneshot};

use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ, pcm},
    providers::{
        ProviderError,
        inference::{
            onnx::Runtime,
            worker_pool::{Priority, WorkerPool},
        },
        stt::{
            SpeechToText, SttEvent,
            hallucination_filter::believable,
            partial_scheduler::{PartialScheduler, Reason},
        },
    },
};

/// Memory grows with the square of the length; the gate cuts at 15 s, and this is the safety net.
const MAX_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 20;
/// Finals and interims that wait, over all workers. Each session has at most one of either.
const QUEUE: usize = 64;

/// Moonshine on its worker threads.
pub struct Moonshine {
    workers: Arc<WorkerPool<Model>>,
}

impl Moonshine {
    /// Loads the model from `folder` once for each of `workers` threads.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] where a file is missing or is not what it should be.
    pub fn load(runtime: &Runtime, folder: &Path, workers: usize) -> Result<Self, ProviderError> {
        let runtime = runtime.clone();
        let vocabulary = Arc::new(Vocabulary::load(&folder.join("moonshine-tiny-en-tokenizer.bin"))?);
        let encoder = folder.join("moonshine-tiny-en-encoder.ort");
        let decoder = folder.join("moonshine-tiny-en-decoder.ort");
        let make = move || {
            Ok(Model {
                encoder: runtime.session(&encoder)?,
                decoder: runtime.session(&decoder)?,
                vocabulary: Arc::clone(&vocabulary),
            })
        };
        Ok(Self { workers: Arc::new(WorkerPool::start("moonshine", workers, QUEUE, make)?) })
    }
}

impl SpeechToText for Moonshine {
    fn name(&self) -> &'static str {
        "moonshine"
    }

    fn open(&self, audio: mpsc::Receiver<Pcm>) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        let utterance = Utterance {
            workers: Arc::clone(&self.workers),
            audio,
            pcm: Vec::new(),
            pace: PartialScheduler::default(),
            under_way: None,
            decoded: None,
            said: String::new(),
            over: false,
        };
        stream::unfold(utterance, |mut utterance| async {
            let event = utterance.next().await?;
            Some((event, utterance))
        })
        .boxed()
    }
}

// --- One utterance --------------------------------------------------------------------------------

/// An open utterance: what was heard, and what is being made of it.
struct Utterance {
    workers: Arc<WorkerPool<Model>>,
    audio: mpsc::Receiver<Pcm>,
    pcm: Vec<i16>,
    pace: PartialScheduler,
    /// The decode under way. While there is one, no further one is asked for.
    under_way: Option<Decode>,
    /// The last decode that gave a text.
    decoded: Option<Decoded>,
    /// The last interim given out.
    said: String,
    over: bool,
}

struct Decode {
    /// How many samples it hears.
    length: usize,
    reason: Reason,
    text: oneshot::Receiver<Result<String, ProviderError>>,
}

struct Decoded {
    length: usize,
    text: String,
}

impl Utterance {
    /// The next event: interims while audio comes, then the one final or error, then none.
    async fn next(&mut self) -> Option<Result<SttEvent, ProviderError>> {
        while !self.over {
            tokio::select! {
                decoded = answer(&mut self.under_way) => {
                    if let Some(text) = decoded.and_then(|decoded| self.news(decoded)) {
                        return Some(Ok(SttEvent::Interim(text)));
                    }
                }
                more = self.audio.recv() => match more {
                    Some(pcm) => self.hear(&pcm),
                    None => {
                        self.over = true;
                        return Some(self.finish().await.map(SttEvent::Final));
                    }
                },
            }
        }
        None
    }

    fn hear(&mut self, pcm: &[i16]) {
        let room = MAX_SAMPLES - self.pcm.len();
        if room < pcm.len() {
            tracing::warn!(longest_s = MAX_SAMPLES / SAMPLE_RATE_HZ as usize, "utterance too long");
        }
        self.pcm.extend_from_slice(&pcm[..room.min(pcm.len())]);
        self.pace.grown_to(&self.pcm);
        if self.under_way.is_some() {
            return;
        }
        if let Some(reason) = self.pace.wanted() {
            let length = self.pace.decoding();
            // What is said in a pause is probably the final. Where the queue is full the pool has
            // better to do, and the next time may find room.
            let priority = match reason {
                Reason::Grown => Priority::Ordinary,
                Reason::Paused => Priority::Urgent,
            };
            self.under_way = self.decode(priority).ok().map(|text| Decode { length, reason, text });
        }
    }

    /// What is worth telling of a decode. A longer stretch can have fewer words for a moment, when
    /// the last one is half heard; that would only flicker.
    fn news(&mut self, decoded: Decoded) -> Option<String> {
        let text = decoded.text.trim_end_matches(['.', '…', '-', ',']).to_owned();
        self.decoded = Some(decoded);
        if text.len() < self.said.len() || text == self.said {
            return None;
        }
        self.said.clone_from(&text);
        Some(text)
    }

    /// The whole text: of a decode that has heard all sound, else of one more.
    async fn finish(&mut self) -> Result<String, ProviderError> {
        if self.pcm.is_empty() {
            return Ok(String::new());
        }
        let under_way = self
            .under_way
            .take_if(|decode| decode.reason == Reason::Paused && self.pace.is_heard_by(decode.length));
        // One that is of no use any more is called off by dropping its receiver.
        self.under_way = under_way;
        if self.under_way.is_some()
            && let Some(decoded) = answer(&mut self.under_way).await
        {
            return Ok(decoded.text);
        }
        if let Some(decoded) = self.decoded.take_if(|decoded| self.pace.is_heard_by(decoded.length)) {
            return Ok(decoded.text);
        }
        self.decode(Priority::Urgent)?
            .await
            .unwrap_or(Err(ProviderError::Inference("the transcriber stopped".into())))
    }

    fn decode(
        &self,
        priority: Priority,
    ) -> Result<oneshot::Receiver<Result<String, ProviderError>>, ProviderError> {
        let pcm = self.pcm.clone();
        self.workers.run(priority, move |model, cue| {
            let text = model.transcribe(&pcm, || cue.is_cancelled()).transpose()?;
            Some(text.map(|text| believable(&text, &pcm)))
        })
    }
}

/// Waits for the decode under way and takes it out; for ever where there is none. None where it was
/// called off or failed: the final will tell.
async fn answer(under_way: &mut Option<Decode>) -> Option<Decoded> {
    let Some(decode) = under_way else {
        return std::future::pending().await;
    };
    let result = (&mut decode.text).await;
    let length = decode.length;
    *under_way = None;
    Some(Decoded { length, text: result.ok()?.ok()? })
}

// --- The model ------------------------------------------------------------------------------------

const BEGIN: i64 = 1;
const END: i64 = 2;
/// Nobody speaks faster: past this many tokens a second of audio the decoder is in a loop.
const TOKENS_PER_SECOND: f32 = 6.5;
/// Layers, heads and head size of the tiny model: the shape of the decoder's memory.
const LAYERS: usize = 6;
const HEADS: usize = 8;
const HEAD_SIZE: usize = 36;

struct Model {
    encoder: Session,
    decoder: Session,
    vocabulary: Arc<Vocabulary>,
}

impl Model {
    /// The text of an utterance by greedy decoding; none where `unwanted` said to stop.
    fn transcribe(
        &mut self,
        pcm: &[i16],
        unwanted: impl Fn() -> bool,
    ) -> Result<Option<String>, ProviderError> {
        let samples: Vec<f32> = pcm.iter().copied().map(pcm::to_f32).collect();
        let mask = vec![1i64; samples.len()];
        let shape = [1, samples.len()];
        let mut encoded = self.encoder.run(ort::inputs! {
            "input_values" => TensorRef::from_array_view((shape, &samples[..]))?,
            "attention_mask" => TensorRef::from_array_view((shape, &mask[..]))?,
        })?;
        let hidden = encoded
            .remove("last_hidden_state")
            .ok_or_else(|| ProviderError::Inference("Moonshine's encoder gave no hidden state".into()))?;

        let seconds = samples.len() as f32 / SAMPLE_RATE_HZ as f32;
        let most_tokens = (seconds * TOKENS_PER_SECOND).ceil() as usize;
        let mut tokens = vec![BEGIN];
        let mut memory = Memory::empty()?;
        for step in 0..most_tokens {
            if unwanted() {
                return Ok(None);
            }
            let last = [tokens[step]];
            let first = step == 0;
            let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
                ("input_ids".into(), TensorRef::from_array_view(([1, 1], &last[..]))?.into()),
                // By samples, not by encoder frames: the model strides over it itself.
                ("encoder_attention_mask".into(), TensorRef::from_array_view((shape, &mask[..]))?.into()),
                ("encoder_hidden_states".into(), (&hidden).into()),
                ("use_cache_branch".into(), Tensor::from_array(([1], vec![!first]))?.into()),
            ];
            inputs.extend(memory.inputs());
            let mut outputs = self.decoder.run(inputs)?;
            let (_, logits) = outputs["logits"].try_extract_tensor::<f32>()?;
            let next = most_likely(logits);
            if next == END {
                break;
            }
            tokens.push(next);
            memory.keep(|name| outputs.remove(name), first);
        }
        Ok(Some(self.vocabulary.text(&tokens[1..])))
    }
}

fn most_likely(logits: &[f32]) -> i64 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(END, |(token, _)| token as i64)
}

/// What the decoder remembers from token to token: keys and values of each layer, over the text so
/// far and over the audio.
struct Memory(Vec<Slot>);

struct Slot {
    input: String,
    output: String,
    /// Over the audio: computed with the first token, and only then.
    of_audio: bool,
    value: DynValue,
}

impl Memory {
    fn empty() -> Result<Self, ProviderError> {
        let mut slots = Vec::with_capacity(LAYERS * 4);
        for layer in 0..LAYERS {
            for side in ["decoder", "encoder"] {
                for kind in ["key", "value"] {
                    let nothing = Tensor::from_array(([1, HEADS, 0, HEAD_SIZE], Vec::<f32>::new()))?;
                    slots.push(Slot {
                        input: format!("past_key_values.{layer}.{side}.{kind}"),
                        output: format!("present.{layer}.{side}.{kind}"),
                        of_audio: side == "encoder",
                        value: nothing.into_dyn(),
                    });
                }
            }
        }
        Ok(Self(slots))
    }

    fn inputs(&self) -> impl Iterator<Item = (Cow<'_, str>, SessionInputValue<'_>)> {
        self.0.iter().map(|slot| (Cow::from(&slot.input), SessionInputValue::from(&slot.value)))
    }

    /// Takes over what a step put out.
    fn keep(&mut self, mut output: impl FnMut(&str) -> Option<DynValue>, first: bool) {
        for slot in &mut self.0 {
            if (first || !slot.of_audio)
                && let Some(value) = output(&slot.output)
            {
                slot.value = value;
            }
        }
    }
}

/// Token numbers to text.
struct Vocabulary(Vec<Vec<u8>>);

impl Vocabulary {
    fn load(path: &Path) -> Result<Self, ProviderError> {
        let bytes = std::fs::read(path)
            .map_err(|error| ProviderError::Unavailable(format!("tokens {}: {error}", path.display())))?;
        Self::parse(&bytes)
            .ok_or_else(|| ProviderError::Unavailable(format!("tokens {}: not a tokenizer", path.display())))
    }

    /// Each token is its length and its bytes. A length under 128 is one byte, a longer one is
    /// two: what exceeds 128, then the number of 128s.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut pieces = Vec::new();
        while let Some((&low, rest)) = bytes.split_first() {
            let (length, rest) = match low {
                0..128 => (usize::from(low), rest),
                128.. => {
                    let (&high, rest) = rest.split_first()?;
                    (usize::from(high) * 128 + usize::from(low) - 128, rest)
                }
            };
            let (piece, rest) = rest.split_at_checked(length)?;
            pieces.push(piece.to_vec());
            bytes = rest;
        }
        (!pieces.is_empty()).then_some(Self(pieces))
    }

    fn text(&self, tokens: &[i64]) -> String {
        let mut bytes = Vec::new();
        for piece in tokens.iter().filter_map(|&token| self.0.get(usize::try_from(token).ok()?)) {
            match byte_of(piece) {
                Some(byte) => bytes.push(byte),
                // Control tokens (`<s>`, `<<ST_12>>`) are no text.
                None if piece.first() == Some(&b'<') && piece.last() == Some(&b'>') => {}
                None => bytes.extend_from_slice(piece),
            }
        }
        String::from_utf8_lossy(&bytes).replace('▁', " ").trim().to_owned()
    }
}

/// The byte of a fallback token such as `<0x0A>`.
fn byte_of(piece: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(piece).ok()?.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        providers::testing::{self, word_errors},
        turn::utterance_detector,
    };

    fn moonshine() -> Moonshine {
        Moonshine::load(&testing::runtime(), &testing::models(), 1).unwrap()
    }

    /// Feeds an utterance in pieces of 20 ms, faster than real time, and collects what comes.
    async fn hear(transcriber: &dyn SpeechToText, pcm: &[i16]) -> Vec<SttEvent> {
        let (feed, audio) = mpsc::channel(1);
        let events = transcriber.open(audio);
        let feeding = async {
            for piece in pcm.chunks(320) {
                feed.send(Pcm::from(piece)).await.unwrap();
            }
            drop(feed);
        };
        let (events, ()) = tokio::join!(events.map(Result::unwrap).collect(), feeding);
        events
    }

    async fn last_words(transcriber: &dyn SpeechToText, pcm: &[i16]) -> String {
        match hear(transcriber, pcm).await.pop() {
            Some(SttEvent::Final(text)) => text,
            other => panic!("the last event was {other:?}"),
        }
    }

    #[tokio::test]
    async fn recorded_speech_is_understood() {
        let moonshine = moonshine();
        let (mut errors, mut words) = (0, 0);
        for (clip, spoken) in testing::transcripts() {
            let text = last_words(&moonshine, &utterance_detector::fixture(&clip)).await;

            let wrong = word_errors(&spoken, &text);
            println!("{wrong} wrong in {clip}: {text}");
            errors += wrong;
            words += spoken.split_whitespace().count();
        }

        println!("word error rate {:.1} %", 100.0 * errors as f64 / words as f64);
        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[tokio::test]
    async fn an_utterance_has_interims_that_grow_and_one_final() {
        let moonshine = moonshine();

        // Two seconds at a time, so that an interim comes between.
        let pcm = utterance_detector::fixture("sense_and_sensibility_0870.wav");
        let (feed, audio) = mpsc::channel(1);
        let mut events = moonshine.open(audio);
        let mut interims = Vec::new();
        for piece in pcm.chunks(2 * SAMPLE_RATE_HZ as usize) {
            feed.send(Pcm::from(piece)).await.unwrap();
            match events.next().await {
                Some(Ok(SttEvent::Interim(text))) => interims.push(text),
                other => panic!("expected an interim, got {other:?}"),
            }
        }
        drop(feed);
        let end: Vec<_> = events.collect().await;

        assert!(interims.is_sorted_by_key(String::len), "{interims:?}");
        assert!(interims[0].contains("John"), "{interims:?}");
        assert!(matches!(&end[..], [Ok(SttEvent::Final(text))] if text.contains("Dashwood")), "{end:?}");
    }

    #[tokio::test]
    async fn silence_and_noise_have_an_empty_final() {
        let moonshine = moonshine();
        let mut seed = 1u32;
        let mut faint_noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 28) as i16 - 8
        };
        let hiss: Vec<i16> = (0..48_000).map(|_| faint_noise()).collect();

        assert_eq!(hear(&moonshine, &[0; 48_000]).await, [SttEvent::Final(String::new())]);
        assert_eq!(last_words(&moonshine, &hiss).await, "");
        assert_eq!(last_words(&moonshine, &[9_000; 1_000]).await, "");
        assert_eq!(hear(&moonshine, &[]).await, [SttEvent::Final(String::new())]);
    }

    #[test]
    fn tokens_are_pieces_bytes_and_controls() {
        let mut file = vec![3];
        file.extend(b"<s>");
        file.extend([5]);
        file.extend("▁hi".as_bytes());
        file.extend([6]);
        file.extend(b"<0x21>");
        file.extend([130, 1]);
        file.extend([b'x'; 130]);
        let vocabulary = Vocabulary::parse(&file).unwrap();

        assert_eq!(vocabulary.text(&[0, 1, 2, 99, -1]), "hi!");
        assert_eq!(vocabulary.text(&[3]).len(), 130);
        assert!(Vocabulary::parse(&[9, b'x']).is_none());
        assert!(Vocabulary::parse(&[]).is_none());
    }
}
