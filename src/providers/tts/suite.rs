//! What every TTS provider of the network promises, against a server that speaks its vendor's protocol.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use test_support::tts_servers::{Fault, KEY, Request, SAMPLE_RATE_HZ, Script, TtsServer, Vendor, sound};

use super::{
    DeepgramTtsConfig, ElevenLabsConfig, OpenAiTtsConfig, SpeechRequest, TextToSpeech, TtsServiceConfig,
    deepgram::Aura, elevenlabs::ElevenLabs, june::JuneTts, openai::OpenAiSpeech,
};
use crate::{language::Language, providers::ProviderError, secret::Secret};

const ALL: [Vendor; 5] =
    [Vendor::OpenAi, Vendor::ElevenLabs, Vendor::Deepgram, Vendor::June, Vendor::LaterJune];

const SENTENCE: &str = "Good morning, how are you?";

/// The provider of this vendor, with `key`, at `url`.
fn provider(vendor: Vendor, url: &str, key: &str) -> Arc<dyn TextToSpeech> {
    let (base_url, key) = (Some(url.to_owned()), Secret::new(key));
    match vendor {
        Vendor::OpenAi => {
            let (model, voice) = ("gpt-4o-mini-tts".into(), "alloy".into());
            let config = OpenAiTtsConfig { base_url, key: Some(key), model, voice, languages: None };
            Arc::new(OpenAiSpeech::new(&config).unwrap())
        }
        Vendor::ElevenLabs => {
            let (model, voice) = ("eleven_flash_v2_5".into(), "george".into());
            Arc::new(ElevenLabs::new(&ElevenLabsConfig { base_url, key, model, voice }).unwrap())
        }
        Vendor::Deepgram => {
            let voice = "aura-2-thalia-en".into();
            Arc::new(Aura::new(&DeepgramTtsConfig { base_url, key, voice }).unwrap())
        }
        Vendor::June | Vendor::LaterJune => {
            Arc::new(JuneTts::new(&TtsServiceConfig { url: url.to_owned(), token: Some(key) }).unwrap())
        }
    }
}

pub(super) async fn start(vendor: Vendor, script: Script) -> (TtsServer, Arc<dyn TextToSpeech>) {
    let server = TtsServer::start(vendor, script).await;
    let provider = provider(vendor, &server.url(), KEY);
    (server, provider)
}

/// All samples, and how the stream ended.
pub(super) async fn speak(
    provider: &Arc<dyn TextToSpeech>,
    request: SpeechRequest,
) -> (Vec<i16>, Result<(), ProviderError>) {
    let mut samples = Vec::new();
    let mut pieces = provider.synthesize(request);
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => samples.extend(piece),
            Err(error) => {
                assert!(pieces.next().await.is_none(), "nothing follows an error");
                return (samples, Err(error));
            }
        }
    }
    (samples, Ok(()))
}

/// How a sentence ends at a server with this fault.
async fn failure(vendor: Vendor, fault: Fault) -> (Vec<i16>, ProviderError) {
    let (_server, provider) = start(vendor, Script::failing(fault.clone())).await;
    match speak(&provider, SpeechRequest::text(SENTENCE)).await {
        (samples, Err(error)) => (samples, error),
        (_, Ok(())) => panic!("{vendor:?} has spoken in spite of {fault:?}"),
    }
}

fn language(tag: &str) -> Language {
    Language::parse(tag).unwrap()
}

#[tokio::test]
async fn a_sentence_is_spoken_whole_however_its_bytes_are_split() {
    let sentence = "Good.";
    for vendor in ALL {
        for piece in [1, 3, 4_801, 1_000_000] {
            let (_server, provider) = start(vendor, Script { piece, ..Script::default() }).await;

            let (samples, end) = speak(&provider, SpeechRequest::text(sentence)).await;

            assert_eq!(end, Ok(()), "{vendor:?}, {piece} bytes at a time");
            assert_eq!(provider.sample_rate_hz(), SAMPLE_RATE_HZ);
            assert!(samples == sound(sentence), "{vendor:?}, {piece} bytes at a time: other samples");
        }
    }
}

#[tokio::test]
async fn sound_is_passed_on_before_the_sentence_is_whole() {
    for vendor in ALL {
        let (server, provider) = start(vendor, Script::failing(Fault::Stall)).await;
        let mut pieces = provider.synthesize(SpeechRequest::text(SENTENCE));

        let mut samples = pieces.next().await.unwrap().unwrap();
        assert!(!samples.is_empty() && samples.len() < sound(SENTENCE).len(), "{vendor:?}");
        server.proceed();

        while let Some(piece) = pieces.next().await {
            samples.extend(piece.unwrap());
        }
        assert!(samples == sound(SENTENCE), "{vendor:?}");
    }
}

#[tokio::test]
async fn a_slow_start_is_waited_for() {
    for vendor in ALL {
        let script = Script { latency: Duration::from_millis(20), ..Script::default() };
        let (_server, provider) = start(vendor, script).await;

        assert_eq!(speak(&provider, SpeechRequest::text(SENTENCE)).await.1, Ok(()), "{vendor:?}");
    }
}

#[tokio::test]
async fn a_refusal_keeps_the_servers_reason_and_not_the_key() {
    for vendor in ALL {
        for (status, is_retryable) in [(400, false), (401, false), (429, true), (500, true), (503, true)] {
            let (samples, error) = failure(vendor, Fault::Refuse(status)).await;

            let reason = error.to_string();
            assert!(reason.contains(&format!("HTTP {status}: ")), "{vendor:?}: {reason}");
            assert!(reason.contains("scripted for the key …"), "{vendor:?}: {reason}");
            assert_eq!(error.is_retryable(), is_retryable, "{vendor:?}: {reason}");
            assert_eq!(matches!(error, ProviderError::RateLimited { .. }), status == 429, "{vendor:?}");
            assert!(samples.is_empty());
        }
    }
}

#[tokio::test]
async fn a_limit_says_when_to_ask_again() {
    for vendor in ALL {
        let (_, error) = failure(vendor, Fault::Refuse(429)).await;

        let ProviderError::RateLimited { retry_after, .. } = error else { panic!("{vendor:?}: {error}") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)), "{vendor:?}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_appears_nowhere() {
    for vendor in ALL {
        let server = TtsServer::start(vendor, Script::default()).await;
        let provider = provider(vendor, &server.url(), "hush-hush");

        let (_, end) = speak(&provider, SpeechRequest::text(SENTENCE)).await;

        let error = end.unwrap_err();
        assert!(matches!(&error, ProviderError::Refused(reason) if reason.contains("401")), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn success_without_a_sample_is_a_failure() {
    for vendor in ALL {
        assert_eq!(failure(vendor, Fault::Silent).await, (vec![], ProviderError::Empty), "{vendor:?}");
    }
}

#[tokio::test]
async fn a_web_page_or_json_in_place_of_sound_is_a_failure() {
    for vendor in ALL {
        for fault in [Fault::Html, Fault::Json] {
            let (samples, error) = failure(vendor, fault.clone()).await;

            assert!(matches!(error, ProviderError::Garbled(_)), "{vendor:?}, {fault:?}: {error:?}");
            assert!(samples.is_empty());
        }
    }
}

#[tokio::test]
async fn an_error_in_json_that_is_called_a_success_keeps_its_reason() {
    for vendor in ALL.into_iter().filter(|vendor| *vendor != Vendor::ElevenLabs) {
        let (_, error) = failure(vendor, Fault::Json).await;
        assert_eq!(error, ProviderError::Garbled("application/json: quota reached".into()), "{vendor:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_of_the_protocol_are_a_failure_that_may_pass() {
    for vendor in ALL {
        let (samples, error) = failure(vendor, Fault::Garbage).await;

        assert!(error.is_retryable(), "{vendor:?}: {error:?}");
        assert!(samples.is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_ends_a_sentence_with_an_error() {
    for vendor in ALL {
        let (samples, error) = failure(vendor, Fault::Cut).await;

        assert!(matches!(error, ProviderError::Connection(_)), "{vendor:?}: {error:?}");
        assert!(sound(SENTENCE).starts_with(&samples), "{vendor:?}");
    }
}

#[tokio::test]
async fn speech_without_end_is_cut() {
    for vendor in ALL {
        let (samples, error) = failure(vendor, Fault::Endless).await;

        assert!(matches!(error, ProviderError::Garbled(_)), "{vendor:?}: {error:?}");
        assert!(samples.len() <= 120 * SAMPLE_RATE_HZ as usize, "{vendor:?}");
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    for vendor in ALL {
        let (server, provider) = start(vendor, Script::failing(Fault::Stall)).await;
        let mut pieces = provider.synthesize(SpeechRequest::text(SENTENCE));
        pieces.next().await.unwrap().unwrap();

        drop(pieces);

        server.client_hung_up().await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_or_has_no_tls_is_a_failed_connection() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for vendor in ALL {
        let server = TtsServer::start(vendor, Script::default()).await;
        let closed = format!("http://127.0.0.1:{}", test_support::free_port());
        for url in [server.url().replace("http", "https"), closed] {
            let provider = provider(vendor, &url, KEY);

            let (_, end) = speak(&provider, SpeechRequest::text(SENTENCE)).await;

            let error = end.unwrap_err();
            assert!(matches!(error, ProviderError::Connection(_)), "{vendor:?} at {url}: {error:?}");
        }
        assert_eq!(server.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_text_without_words_is_no_sound_and_no_request() {
    for vendor in ALL {
        let (server, provider) = start(vendor, Script::default()).await;

        assert_eq!(speak(&provider, SpeechRequest::text("🎉 … !")).await, (vec![], Ok(())));

        assert_eq!(server.requests().len(), 0, "{vendor:?}");
    }
}

/// The voice of a request, by its vendor's protocol.
fn voice_of(vendor: Vendor, request: &Request) -> Option<String> {
    let voice = match vendor {
        Vendor::OpenAi => request.bodies[0]["voice"].as_str(),
        Vendor::ElevenLabs => request.path.split('/').nth(3),
        Vendor::Deepgram => request.parameter("model"),
        Vendor::June | Vendor::LaterJune => request.bodies[0]["speaker"].as_str(),
    };
    voice.map(str::to_owned)
}

#[tokio::test]
async fn the_voice_of_a_request_takes_the_place_of_the_default() {
    for (vendor, default, other) in [
        (Vendor::OpenAi, Some("alloy"), "nova"),
        (Vendor::ElevenLabs, Some("george"), "21m00Tcm4TlvDq8ikWAM"),
        (Vendor::Deepgram, Some("aura-2-thalia-en"), "aura-2-zeus-en"),
        (Vendor::June, None, "Claribel Dervla"),
    ] {
        let (server, provider) = start(vendor, Script::default()).await;
        for voice in [None, Some(other.to_owned())] {
            speak(&provider, SpeechRequest { voice, ..SpeechRequest::text(SENTENCE) }).await.1.unwrap();
        }

        let requests = server.requests();
        assert_eq!(voice_of(vendor, &requests[0]).as_deref(), default, "{vendor:?}");
        assert_eq!(voice_of(vendor, &requests[1]).as_deref(), Some(other), "{vendor:?}");
    }
}

#[tokio::test]
async fn a_voice_that_looks_like_a_path_or_a_query_reaches_no_other_route() {
    for vendor in ALL {
        let (server, provider) = start(vendor, Script::default()).await;
        for voice in ["../../v1/voices", "..", "a?b=c#d", "a/b", "a b\r\nx: y", "ü"] {
            let request =
                SpeechRequest { voice: Some(voice.to_owned()), ..SpeechRequest::text("Good morning.") };
            let _ = speak(&provider, request).await;
        }

        let expected = match vendor {
            Vendor::OpenAi => "/v1/audio/speech",
            Vendor::ElevenLabs => "/v1/text-to-speech/",
            Vendor::Deepgram => "/v1/speak",
            Vendor::June | Vendor::LaterJune => "/synthesize",
        };
        for request in server.requests() {
            assert!(request.path.starts_with(expected), "{vendor:?}: {request:?}");
        }
    }
}

#[tokio::test]
async fn a_language_is_spoken_or_denied_and_never_replaced() {
    for vendor in ALL {
        let (_server, provider) = start(vendor, Script::default()).await;
        for tag in ["en", "en-GB", "de", "de-AT", "ja"] {
            assert!(provider.speaks(&language(tag)), "{vendor:?}: {tag}");
            let request =
                SpeechRequest { language: Some(language(tag)), ..SpeechRequest::text("Guten Morgen.") };
            assert_eq!(speak(&provider, request).await.1, Ok(()), "{vendor:?}: {tag}");
        }
        for tag in ["tlh", "haw", "la"] {
            assert!(!provider.speaks(&language(tag)), "{vendor:?}: {tag}");
        }
    }
}
