//! One utterance by HTTP: it is sent as a WAV file when it is over.

use std::future::Future;

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use reqwest::multipart::Part;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{SttEvent, Transcript, hallucination_filter::without_hallucinations, languages};
use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ, wav},
    language::Language,
    providers::ProviderError,
};

/// The longest utterance that is sent; services take 25 MB. The endpointer ends utterances at 15 s.
const MAX_SAMPLES: usize = SAMPLE_RATE_HZ as usize * 120;

/// The largest answer that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

pub(super) type Events = BoxStream<'static, Result<SttEvent, ProviderError>>;

/// Opens one utterance, which `transcribe` gets when it is over. An utterance without sound is not sent.
pub(super) fn open<F>(
    mut audio: mpsc::Receiver<Pcm>,
    transcribe: impl FnOnce(Pcm) -> F + Send + 'static,
) -> Events
where
    F: Future<Output = Result<Events, ProviderError>> + Send + 'static,
{
    let transcribing = async move {
        let mut utterance = Vec::new();
        while let Some(pcm) = audio.recv().await {
            let room = MAX_SAMPLES - utterance.len();
            if (1..pcm.len()).contains(&room) {
                tracing::warn!(
                    max_s = MAX_SAMPLES / SAMPLE_RATE_HZ as usize,
                    "utterance too long: its end is not transcribed"
                );
            }
            utterance.extend_from_slice(&pcm[..room.min(pcm.len())]);
        }
        if utterance.is_empty() {
            return finally(Transcript::default());
        }
        transcribe(utterance.into()).await.unwrap_or_else(ProviderError::into_stream)
    };
    stream::once(transcribing).flatten().boxed()
}

/// The only event.
pub(super) fn finally(heard: Transcript) -> Events {
    stream::iter([Ok(SttEvent::Final(heard))]).boxed()
}

pub(super) fn wav_file(utterance: &[i16]) -> Part {
    let file = Part::stream(wav::encode(utterance, SAMPLE_RATE_HZ)).file_name("audio.wav");
    file.mime_str("audio/wav").expect("a valid media type")
}

/// The transcript in an answer: a JSON object with `text`, or a JSON string. What the service heard is in `language`, or
/// in `languages` as objects with a `code`.
pub(super) fn transcript(answer: &[u8], utterance: &[i16]) -> Result<Transcript, ProviderError> {
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|_| ProviderError::Garbled("the answer is not JSON".into()))?;
    let Some(text) = answer.as_str().or_else(|| answer["text"].as_str()) else {
        return Err(ProviderError::Garbled("the answer has no text".into()));
    };
    let language = answer["language"].as_str().or_else(|| answer["languages"][0]["code"].as_str());
    Ok(Transcript { language: language.and_then(heard), ..said(text, utterance) })
}

/// A transcript of these words, as far as they can have been said.
pub(super) fn said(text: &str, utterance: &[i16]) -> Transcript {
    Transcript::text(without_hallucinations(text, utterance))
}

/// A language by its code. Some servers give its English name instead, which says no more than none.
fn heard(code: &str) -> Option<Language> {
    let language = Language::parse(code).ok()?;
    languages::code(&language, languages::WHISPER).is_some().then_some(language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_an_answer_are_understood() {
        let loud = [9_000; 16_000];
        let read = |answer: &str| transcript(answer.as_bytes(), &loud);

        assert_eq!(read(r#"{"text":" Hello. "}"#), Ok(Transcript::text("Hello.")));
        assert_eq!(read(r#""Hello.""#), Ok(Transcript::text("Hello.")));
        let german = Transcript { language: Language::parse("de").ok(), ..Transcript::text("Hallo.") };
        assert_eq!(read(r#"{"text":"Hallo.","language":"de"}"#), Ok(german.clone()));
        assert_eq!(read(r#"{"text":"Hallo.","languages":[{"code":"de"}]}"#), Ok(german));
        assert_eq!(read(r#"{"text":"Hello.","language":"english"}"#), Ok(Transcript::text("Hello.")));
        for other in ["", "<html>", "{}", r#"{"text":7}"#, "[]", "null"] {
            assert!(matches!(read(other), Err(ProviderError::Garbled(_))), "{other}");
        }
    }
}
