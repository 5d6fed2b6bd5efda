//! The model's encoder and decoder: PCM to text.

use std::{borrow::Cow, sync::Arc};

use ort::{
    session::{Session, SessionInputValue},
    value::{DynValue, Tensor, TensorRef},
};

use super::vocabulary::Vocabulary;
use crate::{
    audio::{SAMPLE_RATE_HZ, pcm},
    providers::ProviderError,
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
    encoder: Session,
    decoder: Session,
    vocabulary: Arc<Vocabulary>,
}

impl Model {
    pub(super) fn new(encoder: Session, decoder: Session, vocabulary: Arc<Vocabulary>) -> Self {
        Self { encoder, decoder, vocabulary }
    }

    /// The text of an utterance by greedy decoding; none once `is_cancelled`.
    pub(super) fn transcribe(
        &mut self,
        pcm: &[i16],
        is_cancelled: impl Fn() -> bool,
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
            .ok_or_else(|| ProviderError::Inference("Moonshine: the encoder has no hidden state".into()))?;

        let seconds = samples.len() as f32 / SAMPLE_RATE_HZ as f32;
        let most_tokens = (seconds * TOKENS_PER_SECOND).ceil() as usize;
        let mut tokens = vec![BEGIN];
        let mut cache = KvCache::empty()?;
        for step in 0..most_tokens {
            if is_cancelled() {
                return Ok(None);
            }
            let last = [tokens[step]];
            let first = step == 0;
            let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
                ("input_ids".into(), TensorRef::from_array_view(([1, 1], &last[..]))?.into()),
                // In samples, not in encoder frames: the model subsamples it itself.
                ("encoder_attention_mask".into(), TensorRef::from_array_view((shape, &mask[..]))?.into()),
                ("encoder_hidden_states".into(), (&hidden).into()),
                ("use_cache_branch".into(), Tensor::from_array(([1], vec![!first]))?.into()),
            ];
            inputs.extend(cache.inputs());
            let mut outputs = self.decoder.run(inputs)?;
            let (_, logits) = outputs["logits"].try_extract_tensor::<f32>()?;
            let next = most_likely(logits);
            if next == END {
                break;
            }
            tokens.push(next);
            cache.update(|name| outputs.remove(name), first);
        }
        Ok(Some(self.vocabulary.text(&tokens[1..])))
    }
}

fn most_likely(logits: &[f32]) -> i64 {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(END, |(token, _)| token as i64)
}

/// Keys and values of each layer of the decoder, of the text so far and of the audio.
struct KvCache(Vec<Slot>);

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
        Ok(Self(slots))
    }

    fn inputs(&self) -> impl Iterator<Item = (Cow<'_, str>, SessionInputValue<'_>)> {
        self.0.iter().map(|slot| (Cow::from(&slot.input), SessionInputValue::from(&slot.value)))
    }

    /// Takes over the outputs of a step.
    fn update(&mut self, mut output: impl FnMut(&str) -> Option<DynValue>, first: bool) {
        for slot in &mut self.0 {
            if (first || !slot.of_audio)
                && let Some(value) = output(&slot.output)
            {
                slot.value = value;
            }
        }
    }
}
