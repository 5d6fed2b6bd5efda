//! What every STT service on the network has to do, against a server that speaks its protocol.

use std::sync::Arc;

use futures::StreamExt;
use test_support::{STT_KEY, SttFault, SttScript, SttServer, SttVendor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

use super::{
    SpeechToText, SpokenLanguage, SttEvent, SttRequest, Transcript, assemblyai::AssemblyAi,
    deepgram::Deepgram, fallback::SttChain, june::June, openai::OpenAi,
};
use crate::{
    audio::{Pcm, SAMPLE_RATE_HZ},
    language::Language,
    providers::{
        Deadlines, ProviderError,
        testing::{ScriptedStt, chunk, deadlines},
    },
    secret::Secret,
};

type Outcome = Result<SttEvent, ProviderError>;
type Made = Result<Arc<dyn SpeechToText>, ProviderError>;

/// One provider, and the service it is for.
struct Case {
    vendor: SttVendor,
    make: fn(&str, Secret) -> Made,
    /// Whether the service asks for a key.
    has_key: bool,
}

const DEEPGRAM: Case = Case {
    vendor: SttVendor::Deepgram,
    make: |url, key| Ok(Arc::new(Deepgram::new(url, &key, "nova-3", false)?)),
    has_key: true,
};
const ASSEMBLYAI: Case = Case {
    vendor: SttVendor::AssemblyAi,
    make: |url, key| Ok(Arc::new(AssemblyAi::new(url, &key, "universal-3-5-pro", false)?)),
    has_key: true,
};
const OPENAI: Case = Case {
    vendor: SttVendor::OpenAi,
    make: |url, key| Ok(Arc::new(OpenAi::new(url, Some(key), "gpt-transcribe")?)),
    has_key: true,
};
const JUNE: Case = Case {
    vendor: SttVendor::June,
    make: |url, key| Ok(Arc::new(June::new(url, Some(key))?)),
    has_key: false,
};

pub(super) fn key() -> Secret {
    Secret::new(STT_KEY)
}

pub(super) fn known(tag: &str) -> SpokenLanguage {
    SpokenLanguage::Known(Language::parse(tag).unwrap())
}

/// Two seconds of something loud.
pub(super) fn speech() -> Vec<i16> {
    (0..2 * SAMPLE_RATE_HZ as i32).map(|n| (n * 7919 % 16_001 - 8_000) as i16).collect()
}

/// Feeds an utterance in pieces of 20 ms and collects the events.
pub(super) async fn transcribe(stt: &dyn SpeechToText, request: SttRequest, pcm: &[i16]) -> Vec<Outcome> {
    let (feed, audio) = mpsc::channel(1);
    let events = stt.open(request, audio);
    let feeding = async {
        for piece in pcm.chunks(320) {
            // The provider can be gone.
            if feed.send(Pcm::from(piece)).await.is_err() {
                break;
            }
        }
        drop(feed);
    };
    futures::join!(events.collect(), feeding).0
}

impl Case {
    async fn start(&self, script: SttScript) -> (SttServer, Arc<dyn SpeechToText>) {
        let server = SttServer::start(self.vendor, script).await;
        let provider = (self.make)(&server.url(), key()).unwrap();
        (server, provider)
    }

    async fn outcome(&self, script: SttScript) -> Vec<Outcome> {
        let (_server, provider) = self.start(script).await;
        transcribe(&*provider, SttRequest::default(), &speech()).await
    }

    /// The error that ends an utterance in which this goes wrong.
    async fn error(&self, fault: SttFault) -> ProviderError {
        let mut events = self.outcome(SttScript::failing(fault.clone())).await;
        let Some(Err(error)) = events.pop() else {
            panic!("{fault:?} did not end with an error: {events:?}")
        };
        assert!(
            events.iter().all(|event| matches!(event, Ok(SttEvent::Interim(_)))),
            "{fault:?}: {events:?}"
        );
        let words = format!("{error} {error:?}");
        assert!(!words.contains(STT_KEY), "{words}");
        error
    }

    // --- What has to work ---

    async fn an_utterance_ends_with_one_final(self) {
        let text = "Where is the station? Dort: 世界, ça va! 🌍";
        let (server, provider) = self.start(SttScript::saying(text)).await;

        let mut events = transcribe(&*provider, SttRequest::default(), &speech()).await;

        let Some(Ok(SttEvent::Final(heard))) = events.pop() else { panic!("{events:?}") };
        assert_eq!(heard.text, text);
        assert!(events.iter().all(|event| matches!(event, Ok(SttEvent::Interim(_)))), "{events:?}");
        let sent = &server.requests()[0].pcm;
        assert!(sent.starts_with(&speech()), "{} samples arrived", sent.len());
        assert!(sent[speech().len()..].iter().all(|sample| *sample == 0));
    }

    async fn interims_come_while_the_utterance_is_open(self) {
        let (_server, provider) = self.start(SttScript::saying("Where is the station? Over there.")).await;
        let (feed, audio) = mpsc::channel(1);
        let mut events = provider.open(SttRequest::default(), audio);

        feed.send(speech().into()).await.unwrap();
        let first = events.next().await;

        let Some(Ok(SttEvent::Interim(heard))) = first else { panic!("{first:?}") };
        assert!("Where is the station? Over there.".to_lowercase().starts_with(&heard.text.to_lowercase()));
        drop(feed);
        let rest: Vec<_> = events.collect().await;
        assert!(matches!(rest.last(), Some(Ok(SttEvent::Final(_)))), "{rest:?}");
    }

    async fn a_service_that_is_silent_is_replaced_while_the_utterance_goes_on(self) {
        let (_server, provider) = self.start(SttScript::failing(SttFault::Silence)).await;
        let second = Arc::new(ScriptedStt::hearing_chunks("second", []));
        let short = std::time::Duration::from_millis(300);
        let chain =
            SttChain::new(vec![provider, second], Deadlines { stt_first_result: short, ..deadlines() });
        let (feed, audio) = mpsc::channel(4);
        let mut events = chain.open(SttRequest::default(), audio);
        for word in 0..3 {
            feed.send(chunk(word)).await.unwrap();
        }

        let first = tokio::time::timeout(std::time::Duration::from_secs(20), events.next()).await;

        let Ok(Some(Ok(SttEvent::Interim(heard)))) = first else { panic!("{first:?}") };
        assert_eq!(heard.text, "w0", "the utterance is heard from its beginning");
        drop(feed);
        let last = events.collect::<Vec<_>>().await.pop();
        assert_eq!(last, Some(Ok(SttEvent::Final("w0 w1 w2".into()))));
    }

    async fn a_slow_answer_is_waited_for(self) {
        let script = SttScript { latency: std::time::Duration::from_millis(20), ..SttScript::saying("Yes.") };

        let events = self.outcome(script).await;

        assert!(
            matches!(events.last(), Some(Ok(SttEvent::Final(heard))) if heard.text == "Yes."),
            "{events:?}"
        );
    }

    async fn an_utterance_in_which_nothing_is_heard_has_an_empty_final(self) {
        let events = self.outcome(SttScript::default()).await;

        assert_eq!(events, [Ok(SttEvent::Final(Transcript::default()))]);
    }

    async fn an_utterance_without_sound_asks_nobody(self) {
        let (server, provider) = self.start(SttScript::saying("Yes.")).await;

        let events = transcribe(&*provider, SttRequest::default(), &[]).await;

        assert_eq!(events, [Ok(SttEvent::Final(Transcript::default()))]);
        assert_eq!(server.requests().len(), 0);
    }

    async fn an_utterance_that_is_dropped_closes_its_connection(self) {
        let (server, provider) = self.start(SttScript::failing(SttFault::Silence)).await;
        let (feed, audio) = mpsc::channel(1);
        let mut events = provider.open(SttRequest::default(), audio);
        feed.send(speech().into()).await.unwrap();
        drop(feed);

        tokio::select! {
            event = events.next() => panic!("{event:?}"),
            () = server.until_open(1) => {}
        }
        drop(events);

        server.until_open(0).await;
    }

    async fn languages_it_does_not_transcribe_are_known_before(self) {
        let (_server, provider) = self.start(SttScript::default()).await;

        for language in ["en", "en-US", "de-AT", "fr", "zh-CN"] {
            assert!(provider.transcribes(&known(language)), "{language}");
        }
        assert!(!provider.transcribes(&known("tlh")));
        assert!(provider.transcribes(&SpokenLanguage::default()));
    }

    // --- What goes wrong ---

    async fn a_refusal_keeps_its_reason_and_says_whether_to_ask_again(self) {
        let body = |reason: &str| format!(r#"{{"error":{{"message":"{reason} ({STT_KEY})"}}}}"#);
        for (status, reason, is_retryable) in [
            (400, "no such model", false),
            (401, "wrong key", false),
            (429, "quota reached", true),
            (500, "no GPU", true),
        ] {
            let error = self.error(SttFault::Refuses(status, body(reason))).await;

            assert_eq!(error.is_retryable(), is_retryable, "{error}");
            assert!(error.to_string().contains(&format!("HTTP {status}: {reason} (…)")), "{error}");
            if let ProviderError::RateLimited { retry_after, .. } = error {
                assert_eq!(retry_after, Some(std::time::Duration::from_secs(7)));
            }
        }
    }

    async fn a_wrong_key_is_refused_and_does_not_show(self) {
        let server = SttServer::start(self.vendor, SttScript::saying("Yes.")).await;
        let provider = (self.make)(&server.url(), Secret::new("hush-hush")).unwrap();

        let events = transcribe(&*provider, SttRequest::default(), &speech()).await;

        if self.has_key {
            let Some(Err(error)) = events.last() else { panic!("{events:?}") };
            assert!(matches!(error, ProviderError::Refused(_)), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }

    async fn a_cut_connection_is_an_error_that_may_pass(self) {
        let error = self.error(SttFault::Cut).await;

        assert!(matches!(error, ProviderError::Connection(_)), "{error:?}");
    }

    async fn a_connection_may_be_closed_with_any_code(self) {
        for code in [1000, 1001, 1002, 1008, 1011, 1013, 3005, 3007, 4000, 4999] {
            let error = self.error(SttFault::Closes(code)).await;

            assert!(error.to_string().contains(&code.to_string()), "{error}");
        }
    }

    async fn what_is_not_of_the_protocol_is_an_error(self) {
        for fault in [SttFault::Binary, SttFault::Garbage, SttFault::Huge] {
            let error = self.error(fault.clone()).await;

            assert!(matches!(error, ProviderError::Garbled(_)), "{fault:?}: {error:?}");
        }
    }

    async fn an_error_that_the_service_reports_is_an_error(self) {
        let error = self.error(SttFault::Reports(3005, format!("no GPU for {STT_KEY}"))).await;

        assert!(error.is_retryable() && error.to_string().contains("no GPU"), "{error}");
    }

    async fn a_service_that_is_not_there_is_a_failed_connection(self) {
        let server = SttServer::start(self.vendor, SttScript::default()).await;
        let provider = (self.make)(&server.url(), key()).unwrap();
        drop(server);
        tokio::task::yield_now().await;

        let events = transcribe(&*provider, SttRequest::default(), &speech()).await;

        assert!(matches!(&events[..], [Err(ProviderError::Connection(_))]), "{events:?}");
    }

    async fn a_failure_of_tls_is_a_failed_connection(self) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut hello = [0; 16];
                let _ = connection.read(&mut hello).await;
                let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
        });
        let provider = (self.make)(&url, key()).unwrap();

        let events = transcribe(&*provider, SttRequest::default(), &speech()).await;

        assert!(matches!(&events[..], [Err(ProviderError::Connection(_))]), "{events:?}");
        answering.abort();
    }
}

/// The suite for one provider.
macro_rules! suite {
    ($vendor:ident, $case:expr, [$($test:ident),* $(,)?]) => {
        mod $vendor {
            $(
                #[tokio::test]
                async fn $test() {
                    $case.$test().await;
                }
            )*
        }
    };
    ($($vendor:ident: $case:expr,)*) => {
        $(suite! { $vendor, $case, [
            an_utterance_ends_with_one_final,
            a_slow_answer_is_waited_for,
            an_utterance_in_which_nothing_is_heard_has_an_empty_final,
            an_utterance_without_sound_asks_nobody,
            an_utterance_that_is_dropped_closes_its_connection,
            languages_it_does_not_transcribe_are_known_before,
            a_refusal_keeps_its_reason_and_says_whether_to_ask_again,
            a_wrong_key_is_refused_and_does_not_show,
            a_cut_connection_is_an_error_that_may_pass,
            what_is_not_of_the_protocol_is_an_error,
            an_error_that_the_service_reports_is_an_error,
            a_service_that_is_not_there_is_a_failed_connection,
            a_failure_of_tls_is_a_failed_connection,
        ] })*
    };
}

suite! {
    deepgram: super::DEEPGRAM,
    assemblyai: super::ASSEMBLYAI,
    openai: super::OPENAI,
    june: super::JUNE,
}

/// What only streaming providers do.
mod streaming {
    use super::*;

    #[tokio::test]
    async fn interims_come_while_the_utterance_is_open() {
        for case in [DEEPGRAM, ASSEMBLYAI] {
            case.interims_come_while_the_utterance_is_open().await;
        }
    }

    #[tokio::test]
    async fn a_service_that_is_silent_is_replaced_while_the_utterance_goes_on() {
        for case in [DEEPGRAM, ASSEMBLYAI] {
            case.a_service_that_is_silent_is_replaced_while_the_utterance_goes_on().await;
        }
    }

    #[tokio::test]
    async fn a_connection_may_be_closed_with_any_code() {
        for case in [DEEPGRAM, ASSEMBLYAI] {
            case.a_connection_may_be_closed_with_any_code().await;
        }
    }
}
