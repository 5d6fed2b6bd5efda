//! The actor in paused time, with a scripted language model and a history in memory.

mod captions;
mod models;
mod preemption;
mod recordings;

use std::sync::Mutex;

use actix::Arbiter;
use futures::{
    future::BoxFuture,
    stream::{self, BoxStream},
};
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::{
    config::LimitsConfig,
    ids::SessionId,
    limits::{Allowance, Limits},
    protocol::{ClientMessage, edge_v1::from_client::ConnectionInit},
    providers::{
        llm::{Prompt, fallback::LlmChain},
        testing::{At, Fault, ScriptedLlm, SttBy, deadlines, hanging_stt},
    },
    session::{
        Offer,
        messages::Attachment,
        tests::{config, info},
    },
    store::{
        StoreError,
        history::{Entry, HistoryItem, Saved},
    },
    ws::send_queue::{SendQueue, SendQueueStream},
};

/// What a client may have queued, in bytes.
const QUEUE_BYTES: usize = 16 * 1024;

/// Tells the test how the session ended.
struct Owner(Mutex<Option<oneshot::Sender<EndReason>>>);

impl SessionOwner for Owner {
    fn refuse_takeovers(&self, _: &UserId, _: Instant) {}

    fn configured(&self, _: SessionId, _: SessionOptions) {}

    fn ended(&self, _: SessionId, reason: EndReason, _: &Addr<SessionActor>) {
        if let Some(ended) = self.0.lock().unwrap().take() {
            let _ = ended.send(reason);
        }
    }
}

/// Keeps lines in memory.
#[derive(Default)]
struct History(Mutex<Vec<Saved>>);

impl HistoryStore for History {
    fn append(&self, entry: Entry) -> BoxFuture<'static, Result<u64, StoreError>> {
        let mut lines = self.0.lock().unwrap();
        let seq = lines.len() as u64 + 1;
        lines.push(Saved { seq, entry });
        Box::pin(async move { Ok(seq) })
    }

    fn of_user(&self, _: &UserId, _: u64, _: usize) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        not_read()
    }

    fn of_session(
        &self,
        _: &UserId,
        _: SessionId,
        _: u64,
        _: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        not_read()
    }

    fn delete_session(&self, _: &UserId, _: SessionId) -> BoxFuture<'static, Result<u64, StoreError>> {
        Box::pin(async { unreachable!("sessions do not delete their history") })
    }

    fn newest(&self, _: &UserId, limit: usize) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        let lines = self.0.lock().unwrap();
        let newest = lines[lines.len().saturating_sub(limit)..].to_vec();
        Box::pin(async move { Ok(newest) })
    }
}

fn not_read() -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
    panic!("a session reads the newest lines only")
}

/// Answers by script. What it is asked, and when its stream is dropped, is told to the test.
struct Script {
    events: Vec<LlmEvent>,
    /// The response stays open after the events.
    hangs: bool,
    asked: mpsc::UnboundedSender<Prompt>,
    dropped: mpsc::UnboundedSender<()>,
}

struct TellsWhenDropped(mpsc::UnboundedSender<()>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl LanguageModel for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        self.asked.send(prompt).unwrap();
        let events = stream::iter(self.events.clone().into_iter().map(Ok));
        let guard = TellsWhenDropped(self.dropped.clone());
        let rest: BoxStream<'static, _> =
            if self.hangs { stream::pending().boxed() } else { stream::empty().boxed() };
        events.chain(rest).inspect(move |_| _ = &guard).boxed()
    }
}

/// Without a TTS.
fn services(
    llm: Arc<dyn LanguageModel>,
    chains: Vec<Arc<ChainState>>,
    config: SessionConfig,
    history: Arc<dyn HistoryStore>,
    stt: Option<Arc<dyn SpeechToText>>,
) -> Services {
    Services {
        config: Arc::new(config),
        agents: None,
        rooms: Rooms::new(vec![Arbiter::current()], Duration::from_secs(30), None),
        consumers: Consumers::default(),
        clips: Clips::default(),
        history,
        stt,
        llm: Some(llm),
        tts: None,
        excuse_voice: None,
        turn: None,
        chains,
    }
}

/// A session and what is around it.
struct Rig {
    actor: Addr<SessionActor>,
    ended: oneshot::Receiver<EndReason>,
    asked: mpsc::UnboundedReceiver<Prompt>,
    dropped: mpsc::UnboundedReceiver<()>,
    history: Arc<History>,
}

impl Rig {
    fn new(words: &[&str], hangs: bool, memory: usize) -> Self {
        Self::with_history(words, hangs, memory, Arc::default())
    }

    /// With an STT that transcribes nothing.
    fn with_limits(limits: Limits) -> Self {
        // The client does not answer pings.
        let client_timeout = Duration::from_secs(600);
        let config =
            SessionConfig { limits, client_timeout, memory: 0, voice: None, livekit: false, ..config() };
        Self::configured(&[], false, config, Arc::default(), Some(hanging_stt()))
    }

    fn with_history(words: &[&str], hangs: bool, memory: usize, history: Arc<History>) -> Self {
        let config = SessionConfig { memory, voice: None, livekit: false, ..config() };
        Self::configured(words, hangs, config, history, None)
    }

    fn configured(
        words: &[&str],
        hangs: bool,
        config: SessionConfig,
        history: Arc<History>,
        stt: Option<Arc<dyn SpeechToText>>,
    ) -> Self {
        let (asked, was_asked) = mpsc::unbounded_channel();
        let (dropped, was_dropped) = mpsc::unbounded_channel();
        let events = words.iter().map(|text| LlmEvent::TextDelta((*text).to_owned())).collect();
        let llm = Arc::new(Script { events, hangs, asked, dropped });
        Self {
            asked: was_asked,
            dropped: was_dropped,
            ..Self::with_llm(llm, Vec::new(), config, history, stt)
        }
    }

    fn with_llm(
        llm: Arc<dyn LanguageModel>,
        chains: Vec<Arc<ChainState>>,
        config: SessionConfig,
        history: Arc<History>,
        stt: Option<Arc<dyn SpeechToText>>,
    ) -> Self {
        Self::of(services(llm, chains, config, history.clone(), stt), history)
    }

    fn of(services: Services, history: Arc<History>) -> Self {
        let (ended, has_ended) = oneshot::channel();
        let owner = Arc::new(Owner(Mutex::new(Some(ended))));
        let actor = SessionActor::new(info(), Arc::new(services), owner).start();
        let (_, asked) = mpsc::unbounded_channel();
        let (_, dropped) = mpsc::unbounded_channel();
        Self { actor, ended: has_ended, asked, dropped, history }
    }

    async fn attach(&self) -> Client {
        let (send_queue, outgoing) = SendQueue::new(QUEUE_BYTES, None);
        let socket = SocketHandle::new(1, send_queue, "http://localhost".into());
        let attachment =
            Attachment { profile: Profile::EdgeV1, init: ConnectionInit::default(), token: None };
        self.actor.send(Attach { socket, attachment }).await.unwrap();
        Client { actor: self.actor.clone(), outgoing }
    }
}

/// A client, behind its socket.
struct Client {
    actor: Addr<SessionActor>,
    outgoing: SendQueueStream,
}

impl Client {
    async fn say(&self, text: &str) {
        let message = ClientMessage::decode(text).unwrap();
        self.actor.send(FromSocket { id: 1, event: SocketEvent::Message(message) }).await.unwrap();
    }

    /// An utterance, from beginning to end.
    async fn speak(&self) {
        for sample in [5_000_i16, 1, 1] {
            self.audio(sample, 8_000).await;
        }
    }

    /// So many samples of this loudness.
    async fn audio(&self, sample: i16, count: usize) {
        let event = SocketEvent::Pcm(sample.to_le_bytes().repeat(count).into());
        self.actor.send(FromSocket { id: 1, event }).await.unwrap();
    }

    /// The next messages of these types, in whatever order they come.
    async fn read_both(&mut self, kinds: [&str; 2]) -> [Value; 2] {
        let mut found = [Value::Null, Value::Null];
        while let Some(missing) = found.iter().position(Value::is_null) {
            let bytes = self.outgoing.next().await.expect("the connection is open");
            let Some(message) = text_of(&bytes) else { continue };
            match kinds.iter().position(|kind| message["type"] == **kind) {
                Some(at) => found[at] = message,
                None => assert_ne!(message["type"], "session_end", "{} did not come", kinds[missing]),
            }
        }
        found
    }

    /// The next message of this type; pings and others are passed over.
    async fn read(&mut self, kind: &str) -> Value {
        loop {
            let bytes = self.outgoing.next().await.expect("the connection is open");
            if let Some(message) = text_of(&bytes)
                && message["type"] == kind
            {
                return message;
            }
        }
    }
}

/// The message of a text frame.
fn text_of(frame: &[u8]) -> Option<Value> {
    let header = if frame[1] == 126 { 4 } else { 2 };
    (frame[0] & 0x0F == 1).then(|| serde_json::from_slice(&frame[header..]).unwrap())
}

#[actix::test]
async fn a_session_that_no_client_attaches_to_ends_with_its_grace() {
    tokio::time::pause();
    let rig = Rig::new(&[], false, 0);
    let began = clock::now();

    assert_eq!(rig.ended.await, Ok(EndReason::GraceExpired));

    assert_eq!((clock::now() - began).as_secs(), config().grace.as_secs());
}

#[actix::test]
async fn a_typed_line_is_answered_in_pieces_and_told_when_it_is_saved() {
    tokio::time::pause();
    let mut rig = Rig::new(&["It is ", "five."], false, 0);
    let mut client = rig.attach().await;

    client.say(r#"{"type":"say","text":"What time is it?"}"#).await;

    assert_eq!(rig.asked.recv().await.unwrap().messages[0].text(), "What time is it?");
    assert_eq!(client.read("answer_delta").await["text"], "It is ");
    assert_eq!(client.read("answer_delta").await["text"], "five.");
    assert_eq!(client.read("answer_done").await["text"], "It is five.");
    assert_eq!(client.read("turn_saved").await["historySeq"], 2);
    let saved: Vec<String> =
        rig.history.0.lock().unwrap().iter().map(|line| line.entry.item.text().to_owned()).collect();
    assert_eq!(saved, ["What time is it?", "It is five."]);
}

#[actix::test]
async fn an_interruption_drops_the_stream_of_the_language_model() {
    tokio::time::pause();
    let mut rig = Rig::new(&["Once upon a time "], true, 0);
    let mut client = rig.attach().await;
    client.say(r#"{"type":"say","text":"Tell me a story."}"#).await;
    client.read("answer_delta").await;

    client.say(r#"{"type":"interrupt"}"#).await;

    rig.dropped.recv().await.unwrap();
    assert_eq!(client.read("answer_done").await["finish"], "interrupted");
}

#[actix::test]
async fn a_stream_of_the_language_model_without_end_is_dropped_when_its_time_is_up() {
    tokio::time::pause();
    let answer_time = Duration::from_secs(20);
    let config = SessionConfig { answer_time, memory: 0, voice: None, livekit: false, ..config() };
    let mut rig = Rig::configured(&["Once upon a time "], true, config, Arc::default(), None);
    let mut client = rig.attach().await;
    client.say(r#"{"type":"say","text":"Tell me a story."}"#).await;
    client.read("answer_delta").await;
    let began = clock::now();

    let done = client.read("answer_done").await;

    assert_eq!((&done["finish"], &done["text"]), (&"length".into(), &"Once upon a time ".into()));
    rig.dropped.recv().await.unwrap();
    assert_eq!((clock::now() - began).as_secs(), answer_time.as_secs());
}

#[actix::test]
async fn speech_that_is_never_transcribed_takes_up_only_so_many_places() {
    tokio::time::pause();
    let limits = Limits::new(&LimitsConfig { utterances_by_user: 8, ..LimitsConfig::unlimited() });
    let rig = Rig::with_limits(limits);
    let mut client = rig.attach().await;

    for _ in 0..9 {
        client.speak().await;
    }

    let told = client.read("stt_state").await;
    assert_eq!(told["message"], "too much speech of this user waits for transcription; wait");
    let last = client.read("data_stream").await;
    assert_eq!((&last["data"]["text"], &last["data"]["isFinal"]), (&"".into(), &true.into()));
    assert_eq!(last["data"]["utteranceId"], "utt_9");
    let hung = client.read("stt_state").await;
    assert_eq!(hung["message"], "took too long", "the others are given up some time");
}

#[actix::test]
async fn a_client_that_does_not_read_is_aborted_and_its_session_waits_for_it() {
    tokio::time::pause();
    let rig = Rig::new(&[], false, 0);
    let mut client = rig.attach().await;
    for _ in 0..QUEUE_BYTES / 100 {
        // Each is answered with an error.
        client.say(r#"{"type":"say","text":""}"#).await;
    }

    let first = client.outgoing.next().await.unwrap();
    assert_eq!(first[0] & 0x0F, 8, "should it read after all, the first frame is the close");
    assert_eq!(u16::from_be_bytes([first[2], first[3]]), Close::SlowClient.code());
    let aborted = clock::now();
    assert_eq!(rig.ended.await, Ok(EndReason::GraceExpired), "nobody came back");
    assert_eq!((clock::now() - aborted).as_secs(), config().grace.as_secs());
}

#[actix::test]
async fn earlier_conversation_reaches_the_language_model_unless_memory_is_off() {
    tokio::time::pause();
    let history = Arc::new(History::default());
    for (memory, remembered) in [(12, true), (0, false)] {
        let mut rig = Rig::with_history(&["Yes."], false, memory, history.clone());
        if history.0.lock().unwrap().is_empty() {
            let appended = history.append(Entry {
                user_id: info().user,
                session_id: SessionId::from_u128(1),
                at_ms: 1,
                item: HistoryItem::Utterance {
                    utterance_id: None,
                    text: "My name is John.".into(),
                    start_ms: 0,
                    end_ms: 0,
                    language: "en-US".into(),
                    participant: None,
                    speaker: None,
                },
            });
            appended.await.unwrap();
        }
        let client = rig.attach().await;

        client.say(r#"{"type":"say","text":"Do you know my name?"}"#).await;

        let prompt = rig.asked.recv().await.unwrap();
        assert_eq!(prompt.messages[0].text() == "My name is John.", remembered, "{memory}: {prompt:?}");
    }
}

/// A session with two language models, of which the first fails at these calls.
fn with_two_models(faults: impl IntoIterator<Item = Option<At>>) -> Rig {
    let first = ScriptedLlm::new("first", "It is five. Good night.", faults);
    let second = ScriptedLlm::new("second", "It is five. Good night.", []);
    let chain = LlmChain::new(vec![Arc::new(first), Arc::new(second)], deadlines());
    let state = chain.state();
    let config = SessionConfig { memory: 0, voice: None, livekit: false, ..config() };
    Rig::with_llm(Arc::new(chain), vec![state], config, Arc::default(), None)
}

#[actix::test]
async fn when_a_language_model_dies_within_an_answer_another_completes_it_and_the_client_is_told() {
    tokio::time::pause();
    let lost = Fault::Fails(ProviderError::Connection("lost".into()));
    let rig = with_two_models([Some(At(5, lost)), None]);
    let mut client = rig.attach().await;

    client.say(r#"{"type":"say","text":"What time is it?"}"#).await;

    let [state, done] = client.read_both(["llm_state", "answer_done"]).await;
    assert_eq!((&state["state"], &state["takenOverBy"]), (&"degraded".into(), &"second".into()));
    assert_eq!((&done["text"], &done["finish"]), (&"It is five. Good night.".into(), &"stop".into()));

    client.say(r#"{"type":"say","text":"And now?"}"#).await;

    let [state, done] = client.read_both(["llm_state", "answer_done"]).await;
    assert_eq!((&done["text"], &state["state"]), (&"It is five. Good night.".into(), &"ready".into()));
}

#[actix::test]
async fn a_session_is_answered_by_the_language_model_that_it_asks_for() {
    tokio::time::pause();
    let first = ScriptedLlm::new("first", "From the first.", []);
    let second = ScriptedLlm::new("second", "From the second.", []);
    let chain = LlmChain::new(vec![Arc::new(first), Arc::new(second)], deadlines());
    let offer =
        Offer { llm_names: vec!["first", "second"], language: config().offer.language, ..Offer::default() };
    let config = SessionConfig { memory: 0, voice: None, livekit: false, offer, ..config() };
    let rig = Rig::with_llm(Arc::new(chain), Vec::new(), config, Arc::default(), None);
    let mut client = rig.attach().await;

    for (asked, answer) in
        [(serde_json::json!(["second"]), "From the second."), (Value::Null, "From the first.")]
    {
        let options = serde_json::json!({"type": "configure_session", "options": {"llm": asked}});
        client.say(&options.to_string()).await;
        client.say(r#"{"type":"say","text":"Who are you?"}"#).await;

        assert_eq!(client.read("answer_done").await["text"], answer);
    }
}

#[actix::test]
async fn a_session_that_begins_while_a_model_fails_is_told_so() {
    tokio::time::pause();
    let lost = || Some(At(0, Fault::Fails(ProviderError::Connection("lost".into()))));
    let first = ScriptedLlm::new("first", "", [lost()]);
    let second = ScriptedLlm::new("second", "", [lost()]);
    let chain = LlmChain::new(vec![Arc::new(first), Arc::new(second)], deadlines());
    let events: Vec<_> = chain.respond(Prompt::default()).collect().await;
    assert!(events[0].is_err());
    let state = chain.state();
    let config = SessionConfig { memory: 0, voice: None, livekit: false, ..config() };
    let rig = Rig::with_llm(Arc::new(chain), vec![state], config, Arc::default(), None);

    let mut client = rig.attach().await;

    let state = client.read("llm_state").await;
    assert_eq!((&state["state"], &state["provider"]), (&"failed".into(), &"first".into()));
}

#[actix::test]
async fn an_hour_of_captions_calls_no_language_model() {
    tokio::time::pause();
    let mut rig = Rig::new(&["An answer."], false, 0);
    let mut client = rig.attach().await;
    client.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).await;

    for n in 0..720 {
        let text = format!("Sentence {n}.");
        let said = serde_json::json!({"type": "local_transcription", "text": text, "isFinal": true});
        client.say(&said.to_string()).await;
        assert_eq!(client.read("data_stream").await["data"]["text"], text);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    assert!(rig.asked.try_recv().is_err());
    assert_eq!(rig.history.0.lock().unwrap().len(), 720);
}

#[actix::test]
async fn speech_in_a_language_that_the_stt_does_not_transcribe_is_refused_and_not_transcribed_in_another() {
    tokio::time::pause();
    let config = SessionConfig { memory: 0, voice: None, livekit: false, ..config() };
    let stt = Arc::new(crate::session::options::tests::Speaks(&["de"]));
    let rig = Rig::configured(&[], false, config, Arc::default(), Some(stt));
    let mut client = rig.attach().await;

    client.speak().await;

    let told = client.read("stt_state").await;
    assert_eq!(told["message"], "refused: listener does not transcribe this language");
    assert_eq!(client.read("data_stream").await["data"]["text"], "");
}

#[tokio::test]
async fn a_sentence_in_a_language_that_the_tts_does_not_speak_is_not_spoken_in_another() {
    let tts = crate::session::options::tests::Speaks(&["en"]);
    let language = Some(crate::language::Language::parse("de").unwrap());
    let request = SpeechRequest { language, ..SpeechRequest::text("Hallo.") };

    let spoken = speech(&tts, request).next().await;

    assert_eq!(spoken, Some(Err(ProviderError::Refused("speaker does not speak de".into()))));
}

// --- Translations -----------------------------------------------------------------------------

/// Repeats, and does not translate.
struct Repeats;

impl LanguageModel for Repeats {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn translators(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let said = prompt.messages.last().map(|message| message.text().to_owned());
        stream::iter(said.map(|said| Ok(LlmEvent::TextDelta(said)))).boxed()
    }
}

/// A session whose LLMs are of these names, of which the last translates.
fn translating(names: &[&'static str], limits: Limits) -> SessionConfig {
    let offer = Offer {
        llm_names: names.to_vec(),
        llm_translators: names.last().copied().into_iter().collect(),
        ..config().offer
    };
    SessionConfig { memory: 0, voice: None, livekit: false, offer, limits, ..config() }
}

const SUBSCRIBES: &str =
    r#"{"type":"phone_subscription_update","subscriptions":["translation:en-US-to-de-DE"]}"#;
const GOOD_MORNING: &str = r#"{"type":"local_transcription","text":"Good morning.","isFinal":true}"#;

#[actix::test]
async fn a_translation_is_asked_of_a_provider_that_translates_and_of_no_other() {
    tokio::time::pause();
    let second = ScriptedLlm::new("second", "Guten Morgen.", []);
    let chain = LlmChain::new(vec![Arc::new(Repeats), Arc::new(second)], deadlines());
    let config = translating(&["echo", "second"], Limits::default());
    let rig = Rig::with_llm(Arc::new(chain), Vec::new(), config, Arc::default(), None);
    let mut client = rig.attach().await;

    client.say(SUBSCRIBES).await;
    client.say(GOOD_MORNING).await;

    let [translation, done] = client.read_both(["data_stream", "answer_done"]).await;
    assert_eq!(
        (&translation["data"]["text"], &done["text"]),
        (&"Guten Morgen.".into(), &"Good morning.".into())
    );
    assert_eq!(translation["data"]["provider"], "second");
}

#[actix::test]
async fn a_translation_that_hangs_takes_no_place_of_the_answer_and_is_told() {
    tokio::time::pause();
    let limits = Limits::new(&LimitsConfig { llm_running_by_user: 1, ..LimitsConfig::unlimited() });
    let llm = ScriptedLlm::new("only", "It is five.", [Some(At(0, Fault::Hangs))]);
    let chain = LlmChain::new(vec![Arc::new(llm)], deadlines());
    let config = translating(&["only"], limits);
    let rig = Rig::with_llm(Arc::new(chain), Vec::new(), config, Arc::default(), None);
    let mut client = rig.attach().await;

    client.say(SUBSCRIBES).await;
    client.say(GOOD_MORNING).await;

    let done = client.read("answer_done").await;
    assert_eq!((&done["text"], &done["finish"]), (&"It is five.".into(), &"stop".into()));
    let error = client.read("error").await;
    assert_eq!(error["message"], "utt_1 is not translated: took too long");
}

#[actix::test]
async fn translations_count_against_the_users_limits() {
    tokio::time::pause();
    let llm_by_user = Allowance { calls_per_minute: 1, ..Allowance::default() };
    let limits = Limits::new(&LimitsConfig { llm_by_user, ..LimitsConfig::unlimited() });
    let llm = ScriptedLlm::new("only", "Guten Morgen.", []);
    let chain = LlmChain::new(vec![Arc::new(llm)], deadlines());
    let config = translating(&["only"], limits);
    let rig = Rig::with_llm(Arc::new(chain), Vec::new(), config, Arc::default(), None);
    let mut client = rig.attach().await;
    client.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).await;
    client.say(SUBSCRIBES).await;

    client.say(GOOD_MORNING).await;
    assert_eq!(client.read("data_stream").await["data"]["type"], "translation");
    client.say(GOOD_MORNING).await;

    let error = client.read("error").await;
    assert_eq!(
        (&error["code"], &error["streamType"]),
        (&"RATE_LIMITED".into(), &"translation:en-US-to-de-DE".into())
    );
}

#[actix::test]
async fn a_translation_is_cancelled_with_its_session() {
    tokio::time::pause();
    let config = translating(&["script"], Limits::default());
    let mut rig = Rig::configured(&["Guten "], true, config, Arc::default(), None);
    let client = rig.attach().await;
    client.say(r#"{"type":"configure_session","options":{"mode":"captions"}}"#).await;
    client.say(SUBSCRIBES).await;
    client.say(GOOD_MORNING).await;
    assert_eq!(rig.asked.recv().await.unwrap().messages[0].text(), "Good morning.");

    client.say(r#"{"type":"goodbye"}"#).await;

    rig.dropped.recv().await.unwrap();
    assert_eq!(rig.ended.await, Ok(EndReason::Logout));
}

#[actix::test]
async fn what_other_participants_said_is_no_part_of_a_later_conversation() {
    tokio::time::pause();
    let history = Arc::new(History::default());
    let said = |text: &str, participant| HistoryItem::Utterance {
        utterance_id: None,
        text: text.into(),
        start_ms: 0,
        end_ms: 0,
        language: "en-US".into(),
        participant,
        speaker: None,
    };
    for item in [said("Call me Eve.", Some(Identity::parse("eve").unwrap())), said("I am John.", None)] {
        let entry = Entry { user_id: info().user, session_id: SessionId::from_u128(1), at_ms: 1, item };
        history.append(entry).await.unwrap();
    }
    let mut rig = Rig::with_history(&["Yes."], false, 12, history);
    let client = rig.attach().await;

    client.say(r#"{"type":"say","text":"Do you know my name?"}"#).await;

    let prompt = rig.asked.recv().await.unwrap();
    let texts: Vec<_> = prompt.messages.iter().map(|message| message.text()).collect();
    assert_eq!(texts, ["I am John.", "Do you know my name?"]);
}
