//! A response that is prepared in a pause, with a turn model and an STT that do what the test says.

use super::*;
use crate::providers::{stt::Transcript, turn::EndOfTurnModel};

/// Takes every pause for a likely end, and not a certain one.
struct Likely;

impl EndOfTurnModel for Likely {
    fn name(&self) -> &'static str {
        "likely"
    }

    fn judge(&self, _: Pcm) -> BoxFuture<'static, Result<f32, ProviderError>> {
        Box::pin(async { Ok(0.7) })
    }
}

/// Gives the test a sender of events for each utterance.
fn by_hand(utterances: mpsc::UnboundedSender<mpsc::UnboundedSender<SttEvent>>) -> Arc<dyn SpeechToText> {
    Arc::new(SttBy(move |_, audio| {
        let (events, receiver) = mpsc::unbounded_channel();
        utterances.send(events).unwrap();
        stream::unfold(receiver, |mut events| async { Some((events.recv().await?, events)) })
            .map(Ok)
            .inspect(move |_| _ = &audio)
    }))
}

/// A client that has said "What time is it", and pauses.
struct Scene {
    rig: Rig,
    client: Client,
    words: mpsc::UnboundedSender<SttEvent>,
}

impl Scene {
    async fn paused(hangs: bool, limits: Limits) -> Self {
        let (asked, was_asked) = mpsc::unbounded_channel();
        let (dropped, was_dropped) = mpsc::unbounded_channel();
        let events = ["It is ", "five."].map(|text| LlmEvent::TextDelta(text.to_owned()));
        let llm = Arc::new(Script { events: events.into(), hangs, asked, dropped });
        let (utterances, mut opened) = mpsc::unbounded_channel();
        let config = SessionConfig { limits, memory: 0, voice: None, livekit: false, ..config() };
        let history = Arc::<History>::default();
        let stt = Some(by_hand(utterances));
        let services = Services {
            turn: Some(Arc::new(Likely)),
            ..services(llm, Vec::new(), config, history.clone(), stt)
        };
        let rig = Rig { asked: was_asked, dropped: was_dropped, ..Rig::of(services, history) };
        let client = rig.attach().await;
        client.audio(5_000, 8_000).await;
        client.audio(1, 3_200).await;
        let words = opened.recv().await.unwrap();
        words.send(SttEvent::Interim(Transcript::text("What time is it"))).unwrap();
        Self { rig, client, words }
    }

    /// The pause becomes the end of the turn.
    async fn end(&self, words: &str) {
        self.client.audio(1, 8_000).await;
        self.words.send(SttEvent::Final(Transcript::text(words))).unwrap();
    }
}

/// One call of the language model a minute.
fn one_call() -> Limits {
    let llm_by_user = Allowance { calls_per_minute: 1, ..Allowance::default() };
    Limits::new(&LimitsConfig { llm_by_user, ..LimitsConfig::unlimited() })
}

#[actix::test]
async fn an_answer_that_was_prepared_is_asked_once_and_counts_once() {
    tokio::time::pause();
    let mut scene = Scene::paused(false, one_call()).await;
    assert_eq!(scene.rig.asked.recv().await.unwrap().messages[0].text(), "What time is it");

    scene.end("What time is it?").await;

    assert_eq!(scene.client.read("turn_started").await["generation"], 1);
    assert_eq!(scene.client.read("answer_done").await["text"], "It is five.");
    scene.client.read("turn_saved").await;
    assert!(scene.rig.asked.try_recv().is_err());
}

#[actix::test]
async fn the_stream_of_an_answer_is_dropped_when_the_user_goes_on() {
    tokio::time::pause();
    let mut scene = Scene::paused(true, Limits::default()).await;
    scene.rig.asked.recv().await.unwrap();

    scene.client.audio(5_000, 8_000).await;

    scene.rig.dropped.recv().await.unwrap();
    scene.end("What time is it in Rome?").await;
    assert_eq!(scene.rig.asked.recv().await.unwrap().messages[0].text(), "What time is it in Rome?");
    let started = scene.client.read("turn_started").await;
    assert_eq!((&started["turnId"], &started["generation"]), (&"turn_1".into(), &2.into()));
    assert_eq!(scene.rig.history.0.lock().unwrap().len(), 1, "nothing was saved but what was said");
}

#[actix::test]
async fn an_answer_that_is_thrown_away_counts_against_the_users_calls() {
    tokio::time::pause();
    let mut scene = Scene::paused(false, one_call()).await;
    scene.rig.asked.recv().await.unwrap();

    scene.end("What time is it in Rome?").await;

    assert_eq!(scene.client.read("error").await["code"], "RATE_LIMITED");
}
