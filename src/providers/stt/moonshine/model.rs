//! The model's encoder and decoder: PCM to text.

use std::{borrow::Cow, sync::Arc};

use ort::{
    session::{Session, SessionInputValue},
    value::{DynValue, Tensor, TensorRef},
};

use super::vocabulary::Vocabulary;
use crate::{
    audio::{SAMPLE_RATE_HZ, pcm},
    providers::{ProviderError, inference::shared_model::SessionHandle},
};

/// The tokens that begin and end a text.
const BEGIN: i64 = 1;
const END: i64 = 2;
/// Faster than anybody speaks: beyond this many tokens per second of audio, the decoder is in a loop.
const TOKENS_PER_SECOND: f32 = 6.5;
/// Layers, heads and head size of the tiny model: the shape of the decoder's cache.
const LAYERS: usize = 6;
const HEADS: usize = 8;
const HEAD_SIZE: usize = 36;

pub(super) struct Model {
    encoder: SessionHandle,
    decoder: SessionHandle,
    vocabulary: Arc<Vocabulary>,
}

impl Model {
    pub(super) fn new(encoder: SessionHandle, decoder: SessionHandle, vocabulary: Arc<Vocabulary>) -> Self {
        Self { encoder, decoder, vocabulary }
    }

    /// The text of an utterance by greedy decoding; none once `is_cancelled`.
    ///
    /// `guess` is the text of an earlier decode of the same utterance, which probably is how this one begins. One run of
    /// the decoder checks it as a whole, which takes a fifth of the time of decoding it again token by token.
    pub(super) fn transcribe(
        &mut self,
        pcm: &[i16],
        guess: &[i64],
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Option<Text>, ProviderError> {
        let samples: Vec<f32> = pcm.iter().copied().map(pcm::to_f32).collect();
        let mask = vec![1i64; samples.len()];
        let shape = [1, samples.len()];
        let mut encoded = self.encoder.run(ort::inputs! {
            "input_values" => TensorRef::from_array_view((shape, &samples[..]))?,
            "attention_mask" => TensorRef::from_array_view((shape, &mask[..]))?,
        })?;
        let hidden = encoded
            .remove("last_hidden_state")
            .ok_or_else(|| ProviderError::Inference("Moonshine: the encoder has no hidden state".into()))?;

        let seconds = samples.len() as f32 / SAMPLE_RATE_HZ as f32;
        let most_tokens = (seconds * TOKENS_PER_SECOND).ceil() as usize;
        let guess = &guess[..guess.len().min(most_tokens.saturating_sub(1))];
        let mut audio = Audio { hidden: &hidden, mask: &mask, decoder: &mut self.decoder };
        let mut cache = KvCache::empty()?;
        let input: Vec<i64> = [BEGIN].iter().chain(guess).copied().collect();
        let likely = audio.decode(&input, &mut cache)?;
        let agreed = guess.iter().zip(&likely).take_while(|(guessed, likely)| guessed == likely).count();
        cache.truncate(1 + agreed)?;
        let mut tokens = guess[..agreed].to_vec();
        let mut next = likely[agreed];
        while next != END && tokens.len() < most_tokens {
            if is_cancelled() {
                return Ok(None);
            }
            tokens.push(next);
            next = *audio.decode(&[next], &mut cache)?.last().unwrap_or(&END);
        }
        Ok(Some(Text { text: self.vocabulary.text(&tokens), tokens }))
    }
}

/// What was said, and the tokens that it was decoded from.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) tokens: Vec<i64>,
}

/// The encoded audio of an utterance, and what decodes it.
struct Audio<'a> {
    hidden: &'a DynValue,
    mask: &'a [i64],
    decoder: &'a mut Session,
}

impl Audio<'_> {
    /// The most likely token after each of these, which follow what is in the cache.
    fn decode(&mut self, tokens: &[i64], cache: &mut KvCache) -> Result<Vec<i64>, ProviderError> {
        let first = cache.is_empty;
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
            ("input_ids".into(), TensorRef::from_array_view(([1, tokens.len()], tokens))?.into()),
            // In samples, not in encoder frames: the model subsamples it itself.
            (
                "encoder_attention_mask".into(),
                TensorRef::from_array_view(([1, self.mask.len()], self.mask))?.into(),
            ),
            ("encoder_hidden_states".into(), self.hidden.into()),
            ("use_cache_branch".into(), Tensor::from_array(([1], vec![!first]))?.into()),
        ];
        inputs.extend(cache.inputs());
        let mut outputs = self.decoder.run(inputs)?;
        let (_, logits) = outputs["logits"].try_extract_tensor::<f32>()?;
        let likely = logits.chunks(logits.len() / tokens.len()).map(most_likely).collect();
        cache.update(|name| outputs.remove(name));
        Ok(likely)
    }
}

fn most_likely(logits: &[f32]) -> i64 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(END, |(token, _)| token as i64)
}

/// Keys and values of each layer of the decoder, of the text so far and of the audio.
struct KvCache {
    slots: Vec<Slot>,
    is_empty: bool,
}

struct Slot {
    input: String,
    output: String,
    /// Of the audio: computed with the first token only.
    of_audio: bool,
    value: DynValue,
}

impl KvCache {
    fn empty() -> Result<Self, ProviderError> {
        let mut slots = Vec::with_capacity(LAYERS * 4);
        for layer in 0..LAYERS {
            for side in ["decoder", "encoder"] {
                for kind in ["key", "value"] {
                    let empty = Tensor::from_array(([1, HEADS, 0, HEAD_SIZE], Vec::<f32>::new()))?;
                    slots.push(Slot {
                        input: format!("past_key_values.{layer}.{side}.{kind}"),
                        output: format!("present.{layer}.{side}.{kind}"),
                        of_audio: side == "encoder",
                        value: empty.into_dyn(),
                    });
                }
            }
        }
        Ok(Self { slots, is_empty: true })
    }

    fn inputs(&self) -> impl Iterator<Item = (Cow<'_, str>, SessionInputValue<'_>)> {
        self.slots.iter().map(|slot| (Cow::from(&slot.input), SessionInputValue::from(&slot.value)))
    }

    /// Takes over the outputs of a step.
    fn update(&mut self, mut output: impl FnMut(&str) -> Option<DynValue>) {
        for slot in &mut self.slots {
            if (self.is_empty || !slot.of_audio)
                && let Some(value) = output(&slot.output)
            {
                slot.value = value;
            }
        }
        self.is_empty = false;
    }

    /// Forgets the text after so many tokens.
    fn truncate(&mut self, tokens: usize) -> Result<(), ProviderError> {
        for slot in self.slots.iter_mut().filter(|slot| !slot.of_audio) {
            let (_, values) = slot.value.try_extract_tensor::<f32>()?;
            let of_head = values.len() / HEADS;
            let kept = tokens * HEAD_SIZE;
            if kept < of_head {
                let values: Vec<f32> =
                    values.chunks(of_head).flat_map(|head| &head[..kept]).copied().collect();
                slot.value = Tensor::from_array(([1, HEADS, tokens, HEAD_SIZE], values))?.into_dyn();
            }
        }
        Ok(())
    }
}
