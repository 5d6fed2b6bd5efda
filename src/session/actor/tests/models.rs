//! Which embedded models a session keeps in memory.

use super::*;
use crate::{
    language::Language,
    providers::{inference::worker_pool::Hold, stt::SpokenLanguage},
    session::{Voice, messages::Ask, question::Question},
};

/// A model that counts who holds it.
#[derive(Clone, Default)]
struct Embedded(Arc<()>);

impl Embedded {
    fn hold(&self) -> Hold {
        Hold::of(self.0.clone())
    }
}

impl SpeechToText for Embedded {
    fn name(&self) -> &'static str {
        "listener"
    }

    fn transcribes(&self, _: &SpokenLanguage) -> bool {
        true
    }

    fn hold(&self) -> Hold {
        self.hold()
    }

    fn open(
        &self,
        _: SttRequest,
        _: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>> {
        stream::pending().boxed()
    }
}

impl TextToSpeech for Embedded {
    fn name(&self) -> &'static str {
        "speaker"
    }

    fn sample_rate_hz(&self) -> u32 {
        16_000
    }

    fn speaks(&self, _: &Language) -> bool {
        true
    }

    fn hold(&self) -> Hold {
        self.hold()
    }

    fn synthesize(&self, _: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>> {
        let takes_its_time = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(vec![1; 160])
        };
        stream::once(takes_its_time).boxed()
    }
}

impl LanguageModel for Embedded {
    fn name(&self) -> &'static str {
        "model"
    }

    fn hold(&self) -> Hold {
        self.hold()
    }

    fn respond(&self, _: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        stream::iter([Ok(LlmEvent::TextDelta("Yes.".into()))]).boxed()
    }
}

/// A session with embedded models.
struct Models {
    rig: Rig,
    models: [Arc<()>; 3],
}

impl Models {
    fn new() -> Self {
        let [stt, llm, tts] = [Embedded::default(), Embedded::default(), Embedded::default()];
        let models = [&stt, &llm, &tts].map(|model| model.0.clone());
        let voice = Voice { rate_hz: 16_000, delivery: crate::protocol::edge_v1::to_client::Delivery::Ws };
        let config = SessionConfig { memory: 0, voice: Some(voice), livekit: false, ..config() };
        let history = Arc::<History>::default();
        let services = services(Arc::new(llm), Vec::new(), config, history.clone(), Some(Arc::new(stt)));
        let services = Services { tts: Some(Arc::new(tts)), ..services };
        Self { rig: Rig::of(services, history), models }
    }

    /// Whether STT, LLM and TTS are held. The service and the test have a handle each.
    fn held(&self) -> [bool; 3] {
        [0, 1, 2].map(|role| Arc::strong_count(&self.models[role]) > 2)
    }

    /// Asks a line over REST, and waits for the whole answer.
    async fn ask(&self, with_audio: bool) -> Reply {
        let (replies, mut answer) = mpsc::channel(16);
        let (_withdraw, withdrawn) = oneshot::channel();
        let question = Question { text: "Yes?".into(), images: Vec::new(), language: None, with_audio };
        self.rig.actor.send(Ask { question, replies, withdrawn }).await.unwrap();
        loop {
            match answer.recv().await.unwrap() {
                Reply::Delta(_) => assert_eq!(self.held(), [false, true, with_audio]),
                last @ (Reply::Answer(_) | Reply::Failed(_)) => return last,
            }
        }
    }
}

#[actix::test]
async fn a_session_over_rest_alone_holds_neither_stt_nor_tts_but_while_its_answer_is_recorded() {
    tokio::time::pause();
    let session = Models::new();

    for with_audio in [false, true, false] {
        let Reply::Answer(answer) = session.ask(with_audio).await else { panic!("no answer") };

        let is_recorded = matches!(answer.audio, crate::session::question::Audio::Recorded { .. });
        assert_eq!((is_recorded, session.held()), (with_audio, [false, true, false]));
    }
}

#[actix::test]
async fn a_session_holds_stt_and_tts_while_a_client_is_attached() {
    tokio::time::pause();
    let session = Models::new();
    let mut client = session.rig.attach().await;
    assert_eq!(session.held(), [true, true, true]);

    client.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).await;
    client.read("session_configured").await;
    assert_eq!(session.held(), [true, false, false], "nothing is answered");
    client.say(r#"{"type":"configure_session","options":{"mode":"conversation"}}"#).await;
    client.read("session_configured").await;
    assert_eq!(session.held(), [true, true, true]);

    session.rig.actor.send(FromSocket { id: 1, event: SocketEvent::Closed }).await.unwrap();

    assert_eq!(session.held(), [false, true, false]);
    session.rig.ended.await.unwrap();
}
