//! The session's machines together: one input, exactly these effects; and promises under any order of
//! inputs.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    connection::{RENEWAL_LEAD, TOKEN_REQUEST_INTERVAL},
    media::{AUDIO_STALL_TIMEOUT, MENTRA_SETTLE_TIME},
    messages::TokenEnd,
    *,
};
use crate::{
    auth::{RoomKeys, users::Users},
    config::{AuthConfig, LivekitConfig},
    deny::tests::deny_list,
    error::Close,
    livekit::token::TokenIssuer,
    protocol::edge_v1::{
        from_client::{ConnectionInit, Resume},
        to_client::Delivery,
    },
    providers::{
        llm::Role,
        vad::{Frame, SpeechDetector},
    },
    secret::Secret,
    store::history::HistoryItem,
    turn::client_vad,
};

mod mentra;
mod response;

const GRACE: Duration = Duration::from_secs(60);
const AGENT_IDLE: Duration = Duration::from_secs(300);
const STARTED_MS: u64 = 1_700_000_000_000;

/// Takes a frame for speech where its first sample is loud.
struct LoudIsSpeech;

impl SpeechDetector for LoudIsSpeech {
    fn probability(&mut self, frame: &Frame) -> Option<f32> {
        Some(if frame[0].unsigned_abs() > 1000 { 0.9 } else { 0.1 })
    }

    fn reset(&mut self) {}
}

/// Signs with LiveKit's keys, too. Shared: each has a store of its own behind its deny list.
static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap().keep();
    let deny = deny_list(&folder);
    let livekit = LivekitConfig {
        url: "ws://livekit.example".into(),
        internal_url: "ws://livekit.example".into(),
        api_key: "key".into(),
        api_secret: Secret::new("secret-secret-secret-secret-secret"),
        rejoin_backoff: Duration::from_secs(2),
    };
    let issuer = TokenIssuer::new(&livekit, false);
    let users = Users::new(&AuthConfig::default()).unwrap();
    Authenticator::new(&AuthConfig::default(), users, b"control", Some(RoomKeys { issuer, deny }))
});

/// What the tests' sessions have in common.
pub(crate) fn config() -> SessionConfig {
    SessionConfig {
        grace: GRACE,
        heartbeat: Duration::from_secs(10),
        client_timeout: Duration::from_secs(30),
        language: "en-US".into(),
        system_prompt: "Be brief.".into(),
        stt: Ok("test"),
        detectors: Arc::new(|| Box::new(LoudIsSpeech)),
        endpointer: EndpointerConfig::default(),
        voice: Some(Voice { rate_hz: 16_000, delivery: Delivery::Ws }),
        livekit: true,
        client_vad_percent: 100,
        agent_idle: AGENT_IDLE,
        memory: 12,
        authenticator: AUTHENTICATOR.clone(),
        room_tokens: None,
    }
}

pub(crate) fn info() -> SessionInfo {
    let user = UserId::parse("john").unwrap();
    SessionInfo {
        id: SessionId::from_u128(7),
        room: RoomName::for_user(&user, "abc123"),
        user,
        started_ms: STARTED_MS,
        generation_base: 0,
    }
}

/// A session, its time, and what it told each socket.
struct Rig {
    session: Session,
    now: Instant,
    effects: Vec<Effect>,
}

impl Rig {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: SessionConfig) -> Self {
        let now = crate::clock::now();
        Self { session: Session::new(info(), Arc::new(config), now, STARTED_MS), now, effects: Vec::new() }
    }

    fn attached() -> Self {
        let mut rig = Self::new();
        rig.attach(1, None);
        rig.effects.clear();
        rig
    }

    fn input(&mut self, input: Input) -> &mut Self {
        let effects = self.session.handle(input, self.now);
        self.effects.extend(effects);
        self
    }

    fn wait(&mut self, time: Duration) -> &mut Self {
        let until = self.now + time;
        while let Some((deadline, _)) = self.session.deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(deadline);
            self.input(Input::Tick);
        }
        self.now = until;
        self
    }

    fn attach_client(
        &mut self,
        socket: SocketId,
        profile: Profile,
        init: ConnectionInit,
        token: Option<TokenEnd>,
    ) -> &mut Self {
        self.input(Input::Attach(socket, Box::new(Attachment { profile, init, token })))
    }

    /// Attaches with what a client says of itself.
    fn attach_with(&mut self, socket: SocketId, init: &str) -> &mut Self {
        let FromClient::ConnectionInit(init) = ClientMessage::decode(init).unwrap().message else {
            panic!("{init}")
        };
        self.attach_client(socket, Profile::EdgeV1, *init, None)
    }

    /// Attaches with a token that ends after so many seconds.
    fn attach_until(&mut self, socket: SocketId, seconds: u64, renewable: bool) -> &mut Self {
        let token = TokenEnd {
            at: self.now + Duration::from_secs(seconds),
            unix_s: STARTED_MS / 1000 + seconds,
            renewable,
        };
        self.attach_client(socket, Profile::EdgeV1, ConnectionInit::default(), Some(token))
    }

    fn attach(&mut self, socket: SocketId, last_seq: Option<u64>) -> &mut Self {
        self.attach_as(Profile::EdgeV1, socket, last_seq)
    }

    fn attach_as(&mut self, profile: Profile, socket: SocketId, last_seq: Option<u64>) -> &mut Self {
        self.attach_resuming(profile, socket, last_seq, 0)
    }

    fn attach_resuming(
        &mut self,
        profile: Profile,
        socket: SocketId,
        last_seq: Option<u64>,
        last_audio_seq: u32,
    ) -> &mut Self {
        let resume = last_seq.map(|last_server_seq| Resume {
            session_id: SessionId::from_u128(7),
            resume_token: self.session.resume_token.clone(),
            last_server_seq,
            last_audio_seq,
        });
        self.attach_client(socket, profile, ConnectionInit { resume, ..ConnectionInit::default() }, None)
    }

    /// A message of the attached client.
    fn say(&mut self, text: &str) -> &mut Self {
        let message = ClientMessage::decode(text).unwrap();
        self.input(Input::ClientMessage(self.session.socket().unwrap(), message))
    }

    // --- Audio ---

    /// Audio of the attached client, on the control channel.
    fn channel_audio(&mut self, samples: &[i16]) -> &mut Self {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.input(Input::UplinkPcm(self.session.socket().unwrap(), bytes.into()))
    }

    fn room_audio(&mut self, samples: &[i16]) -> &mut Self {
        self.input(Input::RoomAudio(MediaSource::Livekit, samples.into()))
    }

    /// Speech begins, in the room.
    fn start_speech(&mut self) -> &mut Self {
        self.room_audio(&loud())
    }

    /// Speech ends: more silence than an utterance survives.
    fn end_speech(&mut self) -> &mut Self {
        self.room_audio(&[1; 16_000])
    }

    /// An utterance from beginning to end.
    fn speak(&mut self, text: &str) -> &mut Self {
        self.start_speech().end_speech();
        let utterance = self.session.recognition.last_utterance();
        self.input(Input::Final(utterance, text.into()))
    }

    // --- The response ---

    fn llm(&mut self, generation: u32, text: &str) -> &mut Self {
        self.input(Input::Llm(generation, StreamItem::More(LlmEvent::TextDelta(text.into()))))
    }

    fn llm_ends(&mut self, generation: u32) -> &mut Self {
        self.input(Input::Llm(generation, StreamItem::Over(Ok(()))))
    }

    fn tts(&mut self, generation: u32, samples: usize) -> &mut Self {
        self.input(Input::Tts(generation, StreamItem::More(vec![1; samples])))
    }

    fn tts_ends(&mut self, generation: u32) -> &mut Self {
        self.input(Input::Tts(generation, StreamItem::Over(Ok(()))))
    }

    // --- What came of it ---

    /// The messages to a socket since the last call, as JSON.
    fn told(&mut self, socket: SocketId) -> Vec<Value> {
        let mut told = Vec::new();
        self.effects.retain(|effect| {
            let Effect::Send(to, frame) = effect else { return true };
            if *to == socket {
                told.push(serde_json::from_str(frame).unwrap());
            }
            *to != socket
        });
        told
    }

    fn told_types(&mut self, socket: SocketId) -> Vec<String> {
        self.told(socket).iter().map(|message| message["type"].as_str().unwrap().to_owned()).collect()
    }

    fn has(&self, wanted: impl Fn(&Effect) -> bool) -> bool {
        self.effects.iter().any(wanted)
    }

    /// Whether an utterance was opened.
    fn opened(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::Transcribe(_)))
    }

    /// Whether an utterance was closed.
    fn closed(&self) -> bool {
        self.has(|effect| matches!(effect, Effect::EndUtterance(_)))
    }

    /// The audio of utterances.
    fn utterance_audio(&self) -> Vec<i16> {
        self.effects
            .iter()
            .filter_map(
                |effect| if let Effect::UtteranceAudio(pcm) = effect { Some(pcm.to_vec()) } else { None },
            )
            .flatten()
            .collect()
    }

    /// What was passed on to consumers.
    fn forwarded(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        self.effects.retain(|effect| {
            let Effect::Forward(message) = effect else { return true };
            all.push(Value::Object(message.clone().into_object()));
            false
        });
        all
    }

    fn saved(&self) -> Vec<String> {
        self.effects
            .iter()
            .filter_map(|effect| {
                let Effect::Save(item, _) = effect else { return None };
                Some(item.text().to_owned())
            })
            .collect()
    }
}

/// Half a second that counts as speech.
fn loud() -> [i16; 8_000] {
    [5_000; 8_000]
}

/// 20 ms that do not, and are no digital silence either.
const QUIET: [i16; 320] = [1; 320];

#[test]
fn an_attached_client_gets_its_session_the_state_of_the_media_and_the_wish_for_its_microphone() {
    let mut rig = Rig::new();
    rig.attach(1, None);

    assert!(rig.has(|effect| matches!(effect, Effect::JoinRoom)));
    let told = rig.told(1);
    let types: Vec<_> = told.iter().map(|message| message["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["connection_ack", "media_state", "microphone_state_change"]);
    assert_eq!(told[0]["resumed"], false);
    assert_eq!(told[0]["epoch"], 1);
    assert_eq!(told[0]["livekit"]["trackName"], "mic");
    assert_eq!(told[0]["userSession"]["startTime"], "2023-11-14T22:13:20.000Z");
    assert_eq!(told[2]["isMicrophoneEnabled"], true);
    assert_eq!(told[2]["requiredData"], json!(["pcm"]));
}

#[test]
fn a_session_whose_socket_comes_back_within_the_grace_resumes_with_what_it_missed() {
    let mut rig = Rig::attached();
    let seen = rig.session.downlink.last_seq();
    rig.input(Input::SocketLost(1)).speak("Hello.");
    rig.wait(GRACE - Duration::from_secs(1)).attach(2, Some(seen));

    let types = rig.told_types(2);
    assert_eq!(types[0], "connection_ack");
    assert_eq!(&types[1..5], ["media_state", "speech_started", "speech_ended", "data_stream"]);
    assert!(!rig.has(|effect| matches!(effect, Effect::Ended(_))));
}

#[test]
fn a_session_whose_client_stays_away_ends_after_the_grace() {
    let mut rig = Rig::attached();
    rig.input(Input::SocketLost(1)).wait(GRACE);
    assert!(rig.has(|effect| matches!(effect, Effect::Ended(EndReason::GraceExpired))));
    assert_eq!(rig.session.deadline(), None);
}

#[test]
fn a_client_whose_token_ends_is_told_so_and_let_go_and_its_session_waits() {
    let mut rig = Rig::attached();
    rig.attach_until(2, 7, false).wait(Duration::from_secs(6));
    assert!(rig.session.socket().is_some());
    rig.told(2);

    rig.wait(Duration::from_secs(1));

    assert_eq!(rig.told_types(2), ["auth_error"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(2, Close::Unauthorized, _))));
    assert_eq!(rig.session.socket(), None);
    rig.wait(GRACE - Duration::from_secs(1)).attach(3, Some(0));
    assert_eq!(rig.told_types(3)[0], "connection_ack");
}

#[test]
fn the_end_of_an_older_sockets_token_is_nothing_to_a_newer_one() {
    let mut rig = Rig::attached();
    rig.attach_until(2, 5, false).attach(3, None);
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.session.socket(), Some(3));
}

#[test]
fn a_control_token_is_renewed_on_the_open_channel_before_it_ends_and_on_request() {
    let mut rig = Rig::new();
    rig.attach_until(1, 3600, true);
    rig.told(1);

    let mut tokens = Vec::new();
    for _ in 0..3 * 360 {
        rig.input(Input::Alive(1)).wait(Duration::from_secs(10));
        tokens.extend(rig.told(1).into_iter().filter(|message| message["type"] == "control_token"));
    }

    assert_eq!(rig.session.socket(), Some(1), "three hours later the channel is open");
    assert_eq!(tokens.len(), 3);
    let renewed_s = STARTED_MS / 1000 + 3600 - RENEWAL_LEAD.as_secs();
    assert_eq!(tokens[0]["expiresAt"], renewed_s + 3600);
    assert!(tokens.iter().all(|token| token.get("seq").is_none()), "a token is not sent again");

    rig.say(r#"{"type":"renew_token"}"#).say(r#"{"type":"renew_token","id":"7"}"#);
    let told = rig.told(1);
    assert_eq!(told[0]["type"], "control_token");
    assert_eq!((&told[1]["code"], &told[1]["replyTo"]), (&json!("RATE_LIMITED"), &json!("7")));
}

#[test]
fn a_client_with_a_token_of_its_own_is_told_before_it_ends_and_brings_a_new_one() {
    let mut rig = Rig::new();
    rig.attach_until(1, 60, false);
    rig.told(1);

    for _ in 0..2 {
        rig.input(Input::Alive(1)).wait(Duration::from_secs(15));
    }
    let told: Vec<Value> =
        rig.told(1).into_iter().filter(|message| message["type"] == "token_expiring").collect();
    assert_eq!(told, [json!({"type": "token_expiring", "expiresAt": STARTED_MS / 1000 + 60})]);

    rig.say(r#"{"type":"renew_token","id":"8"}"#);
    assert_eq!(rig.told(1)[0]["code"], "FORBIDDEN", "the gateway cannot renew it");
    rig.wait(TOKEN_REQUEST_INTERVAL).say(r#"{"type":"renew_token","id":"9","token":"fresh"}"#);
    assert!(rig.has(|effect| matches!(
        effect,
        Effect::VerifyToken { socket: 1, token, .. } if token.expose() == "fresh"
    )));
    let fresh = |user: &str| Principal {
        user: UserId::parse(user).unwrap(),
        session: None,
        room: None,
        expires_at: Some(STARTED_MS / 1000 + 600),
    };
    rig.input(Input::TokenVerified(1, Some("9".into()), Ok(fresh("ann"))));
    assert_eq!(rig.told(1)[0]["code"], "FORBIDDEN", "another user's token");
    rig.input(Input::TokenVerified(1, Some("9".into()), Ok(fresh("john"))));
    assert_eq!(rig.told(1)[0]["type"], "token_renewed");

    for _ in 0..20 {
        rig.input(Input::Alive(1)).wait(Duration::from_secs(10));
    }
    assert_eq!(rig.session.socket(), Some(1), "the channel outlives the first token");
}

#[test]
fn the_late_close_of_an_older_socket_does_not_end_the_session() {
    let mut rig = Rig::attached();
    rig.attach(2, None);
    assert_eq!(rig.told_types(1), ["session_end"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::Superseded, _))));

    rig.input(Input::SocketLost(1));
    assert_eq!(rig.session.socket(), Some(2));
}

#[test]
fn a_client_that_shows_no_life_is_let_go_and_one_that_does_is_pinged() {
    let mut rig = Rig::attached();
    rig.wait(Duration::from_secs(25));
    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::Ping(1))).count(), 2);
    rig.input(Input::Alive(1)).wait(Duration::from_secs(29));
    assert_eq!(rig.session.socket(), Some(1));
    rig.wait(Duration::from_secs(1));
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::GoingAway, _))));
    assert_eq!(rig.session.socket(), None);
}

#[test]
fn the_microphone_is_asked_for_until_sound_comes() {
    let mut rig = Rig::attached();
    rig.wait(Duration::from_secs(11));
    assert_eq!(rig.told_types(1), ["microphone_state_change"]);
    rig.input(Input::Alive(1)).channel_audio(&QUIET);
    rig.told(1);
    rig.wait(Duration::from_secs(15));
    assert_eq!(rig.told_types(1), Vec::<String>::new());
}

#[test]
fn a_sentence_is_transcribed_answered_spoken_and_remembered() {
    let mut rig = Rig::attached();
    rig.speak("What time is it?");
    let types = rig.told_types(1);
    assert_eq!(types, ["media_state", "speech_started", "speech_ended", "data_stream", "turn_started"]);
    let Some(Effect::Generate(1, prompt)) =
        rig.effects.iter().find(|effect| matches!(effect, Effect::Generate(..)))
    else {
        panic!("{:?}", rig.effects)
    };
    assert_eq!(prompt.system, "Be brief.");
    assert_eq!(prompt.messages, [ChatMessage { role: Role::User, text: "What time is it?".into() }]);

    rig.llm(1, "It is five.").llm_ends(1);
    assert!(rig.has(|effect| matches!(effect, Effect::Synthesize(1, text) if text == "It is five.")));
    rig.tts(1, 1600).tts_ends(1);
    rig.wait(Duration::from_millis(200));
    assert_eq!(
        rig.told_types(1),
        ["answer_delta", "answer_done", "speech_begin", "speech_finish", "turn_metrics"]
    );
    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::SendBinary(..))).count(), 6);
    assert_eq!(rig.saved(), ["What time is it?", "It is five."]);

    rig.input(Input::TurnSaved(TurnId(1), 2));
    assert_eq!(rig.told(1)[0]["historySeq"], 2);
}

#[test]
fn speaking_over_the_answer_stops_it_and_only_what_was_heard_is_kept() {
    let mut rig = Rig::attached();
    rig.speak("Tell me a story.");
    rig.llm(1, "Once upon a time there was a king. ");
    rig.tts(1, 16_000).wait(Duration::from_millis(500));
    rig.told(1);
    rig.effects.clear();

    rig.start_speech();

    assert!(rig.has(|effect| matches!(effect, Effect::StopLlm)));
    assert!(rig.has(|effect| matches!(effect, Effect::StopTts)));
    assert_eq!(rig.saved(), ["Once upon a time"]);
    assert_eq!(
        rig.told_types(1),
        ["speech_started", "audio_stop_request", "answer_done", "speech_finish", "turn_metrics"]
    );
    rig.llm(1, "late").tts(1, 1600);
    assert_eq!(rig.told_types(1), Vec::<String>::new(), "what comes late from the cut answer is dropped");
}

#[test]
fn an_answer_goes_on_where_it_was_when_the_client_comes_back() {
    let mut rig = Rig::attached();
    rig.speak("Hello.");
    rig.llm(1, "Hello yourself. ").llm_ends(1);
    rig.tts(1, 32_000).tts_ends(1);
    rig.say(r#"{"type":"playhead","generation":1,"playedMs":300}"#);
    rig.wait(Duration::from_millis(500));
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(20));
    rig.effects.clear();

    let seen = rig.session.downlink.last_seq();
    rig.attach(2, Some(seen));

    let first = rig.effects.iter().find_map(|effect| {
        let Effect::SendBinary(2, frame) = effect else { return None };
        crate::protocol::edge_v1::audio::DownlinkFrame::decode(frame.clone()).ok()
    });
    assert_eq!(first.unwrap().position, 300 * 16);
}

#[test]
fn an_interim_never_gets_shorter_and_there_is_one_final() {
    let mut rig = Rig::attached();
    rig.start_speech();
    let utterance = rig.session.recognition.last_utterance();
    rig.told(1);
    for text in ["go", "go for", "go", "go forward"] {
        rig.input(Input::Interim(utterance, text.into()));
    }
    rig.end_speech();
    rig.input(Input::Final(utterance, "Go forward ten meters.".into()));
    rig.input(Input::Final(utterance, "again".into()))
        .input(Input::Interim(utterance, "late interim".into()));

    let texts: Vec<_> = rig
        .told(1)
        .into_iter()
        .filter(|message| message["type"] == "data_stream")
        .map(|message| (message["data"]["text"].clone(), message["data"]["isFinal"].clone()))
        .collect();
    assert_eq!(
        texts,
        [
            (json!("go"), json!(false)),
            (json!("go for"), json!(false)),
            (json!("go forward"), json!(false)),
            (json!("Go forward ten meters."), json!(true)),
        ]
    );
}

#[test]
fn an_utterance_whose_audio_stops_arriving_is_ended() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    assert!(rig.opened() && !rig.closed());
    rig.told(1);

    rig.wait(AUDIO_STALL_TIMEOUT);

    assert_eq!(rig.effects.iter().filter(|effect| matches!(effect, Effect::EndUtterance(_))).count(), 1);
    let told = rig.told(1);
    assert_eq!((&told[0]["type"], &told[0]["reason"]), (&json!("speech_ended"), &json!("muted")));
}

#[test]
fn an_utterance_waits_for_the_client_that_brings_its_audio_itself() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(4));
    rig.attach(2, Some(0)).wait(Duration::from_secs(1));
    assert!(!rig.closed());

    rig.channel_audio(&loud()).input(Input::SocketLost(2)).wait(Duration::from_secs(6));
    assert!(rig.closed(), "it does not wait for ever");
}

#[test]
fn another_client_does_not_go_on_in_the_middle_of_a_sentence() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    rig.attach(2, None);
    assert!(rig.closed());
}

#[test]
fn a_recogniser_that_fails_ends_the_utterance_with_an_empty_final_and_the_client_is_told() {
    let mut rig = Rig::attached();
    rig.start_speech().end_speech();
    rig.told(1);
    rig.input(Input::SttFailed(rig.session.recognition.last_utterance(), "too busy".into()));
    let told = rig.told(1);
    assert_eq!(told[0]["type"], "stt_state");
    assert_eq!((&told[1]["data"]["text"], &told[1]["data"]["isFinal"]), (&json!(""), &json!(true)));
    assert_eq!(told.len(), 2, "nothing is answered");
}

#[test]
fn frames_that_cannot_be_read_are_answered_and_the_tenth_in_a_row_closes_the_channel() {
    let mut rig = Rig::attached();
    for _ in 0..9 {
        rig.input(Input::Malformed(1, DecodeError::NoType));
    }
    rig.say(r#"{"type":"pong"}"#);
    for _ in 0..9 {
        rig.input(Input::Malformed(1, DecodeError::NoType));
    }
    assert_eq!(rig.session.socket(), Some(1));
    assert!(rig.told(1).iter().all(|message| message["code"] == "MALFORMED_MESSAGE"));
    rig.input(Input::Malformed(1, DecodeError::NoType));
    assert!(rig.has(|effect| matches!(effect, Effect::Close(1, Close::Policy, _))));
}

#[test]
fn an_unknown_message_is_passed_on_as_it_is_and_is_no_error() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"make_coffee","id":"c1","cups":2}"#);
    let forwarded = rig.forwarded();
    assert_eq!(forwarded, [json!({"type": "make_coffee", "id": "c1", "cups": 2})]);
    assert_eq!(rig.told(1), [] as [Value; 0]);
    assert_eq!(rig.session.socket(), Some(1));
}

#[test]
fn who_takes_the_session_again_and_again_without_its_secret_is_refused() {
    let mut rig = Rig::attached();
    for socket in 2..=4 {
        rig.attach(socket, None);
        assert_eq!(rig.session.socket(), Some(socket));
    }
    rig.effects.clear();

    rig.attach(5, None);
    assert_eq!(rig.session.socket(), Some(4));
    assert!(rig.has(|effect| matches!(effect, Effect::Close(5, Close::Overloaded, _))));
    assert!(rig.has(|effect| matches!(effect, Effect::RefuseUntil(_))));
    let told = rig.told(5);
    assert_eq!((&told[0]["type"], &told[0]["code"]), (&json!("connection_error"), &json!("RATE_LIMITED")));

    rig.attach(6, Some(0));
    assert_eq!(rig.session.socket(), Some(6), "the same device comes back");
}

#[test]
fn a_livekit_token_is_signed_once_a_second_at_most() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"livekit_init"}"#);
    rig.say(r#"{"type":"livekit_init","id":"again"}"#);
    let told = rig.told(1);
    assert_eq!(told.iter().filter(|message| message["type"] == "livekit_info").count(), 1);
    let refused = told.iter().find(|message| message["type"] == "error").unwrap();
    assert_eq!((&refused["code"], &refused["replyTo"]), (&json!("RATE_LIMITED"), &json!("again")));

    rig.wait(TOKEN_REQUEST_INTERVAL).say(r#"{"type":"livekit_init"}"#);
    assert!(rig.told_types(1).contains(&"livekit_info".to_owned()));
}

#[test]
fn goodbye_ends_the_session_without_grace() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"goodbye"}"#);
    assert_eq!(rig.told_types(1), ["session_end"]);
    assert!(rig.has(|effect| matches!(effect, Effect::Ended(EndReason::Logout))));
}

#[test]
fn another_room_than_ones_own_cannot_be_watched() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"subscribe:participants","room":"room-other"}"#);
    assert_eq!(rig.told(1)[0]["code"], "FORBIDDEN");
    rig.say(r#"{"type":"subscribe:participants"}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(_))));
}

#[test]
fn a_watched_room_is_watched_again_for_the_next_client_until_it_says_otherwise() {
    let mut rig = Rig::attached();
    let own = rig.session.info().room.clone();
    rig.say(r#"{"type":"subscribe:participants"}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(room) if *room == own)));
    rig.effects.clear();

    rig.attach(2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::WatchRoom(room) if *room == own)));
    rig.say(r#"{"type":"unsubscribe:participants"}"#);
    assert!(rig.has(|effect| matches!(effect, Effect::UnwatchRoom(room) if *room == own)));
}

#[test]
fn a_microphone_in_the_room_lets_an_agent_that_is_not_there_try_again_at_once() {
    let mut rig = Rig::attached();
    let retried = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::RetryJoin));
    for (state, wanted) in [
        (AgentState::Unreachable, true),
        (AgentState::Joined, false),
        // Another gateway's agent is there: this one does not fight for the place.
        (AgentState::Displaced, false),
    ] {
        rig.input(Input::AgentState(state));
        rig.effects.clear();
        rig.input(Input::MicrophonePublished);
        assert_eq!(retried(&rig), wanted, "{state:?}");
    }
}

#[test]
fn a_restarted_gateway_does_not_reuse_numbers_and_does_not_pretend_to_know_what_was_missed() {
    let mut rig = Rig::attached();
    let seen = rig.session.downlink.last_seq();
    let info = SessionInfo { generation_base: 1, ..info() };
    rig.session = Session::new(info, Arc::new(config()), rig.now, STARTED_MS);
    rig.attach(9, Some(seen)).speak("Hello.");
    let told = rig.told(9);
    assert_eq!(told[0]["resumed"], false);
    let numbers: Vec<u64> = told.iter().filter_map(|message| message["seq"].as_u64()).collect();
    assert!(numbers.iter().all(|seq| *seq > 1 << 32), "{numbers:?}");
}

/// A client whose own voice detection is trusted, with the agent in its room.
fn trusted() -> Rig {
    let mut rig = Rig::new();
    rig.attach_with(1, r#"{"type":"connection_init","capabilities":{"vad":true,"media":["livekit","ws"]}}"#);
    rig.input(Input::AgentState(AgentState::Joined));
    rig
}

#[test]
fn a_client_with_voice_detection_of_its_own_is_followed_and_told_to_send_only_speech() {
    let mut rig = trusted();
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(false))));
    let told = rig.told(1);
    let wish = told.iter().find(|message| message["type"] == "microphone_state_change").unwrap();
    assert_eq!(wish["bypassVad"], false);
    rig.effects.clear();

    rig.channel_audio(&loud());
    assert!(!rig.opened(), "half a second of speech without its word is not enough");
    rig.say(r#"{"type":"VAD","status":true}"#);
    assert!(rig.opened());
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(true))));
    rig.channel_audio(&QUIET).say(r#"{"type":"VAD","status":false}"#);
    assert!(rig.closed());
    rig.effects.clear();
    rig.wait(client_vad::MIN_SILENCE);
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(false))));

    // The next client of the session has no detection of its own.
    rig.effects.clear();
    rig.attach(2, None);
    assert!(rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(true))));
    rig.channel_audio(&loud());
    assert!(rig.opened());
}

#[test]
fn outside_of_the_rollout_a_client_is_always_listened_to() {
    let mut rig = Rig::with(SessionConfig { client_vad_percent: 0, ..config() });
    rig.attach_with(1, r#"{"type":"connection_init","capabilities":{"vad":true}}"#);
    assert!(!rig.has(|effect| matches!(effect, Effect::SubscribeMicrophone(_))));
    let told = rig.told(1);
    let wish = told.iter().find(|message| message["type"] == "microphone_state_change").unwrap();
    assert_eq!(wish["bypassVad"], true);
    rig.channel_audio(&loud());
    assert!(rig.opened());
}

#[test]
fn a_detection_that_stays_open_for_ten_minutes_is_closed() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    for _ in 0..599 {
        rig.input(Input::Alive(1)).channel_audio(&QUIET);
        rig.wait(Duration::from_secs(1));
    }
    rig.told(1);
    for _ in 0..2 {
        rig.input(Input::Alive(1)).channel_audio(&QUIET);
        rig.wait(Duration::from_secs(1));
    }
    let told = rig.told(1);
    let ended = told.iter().find(|message| message["type"] == "speech_ended").unwrap();
    assert_eq!(ended["reason"], "client_vad");
}

#[test]
fn audio_that_comes_back_while_the_client_detects_speech_opens_an_utterance_again() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    rig.channel_audio(&QUIET).wait(AUDIO_STALL_TIMEOUT);
    assert!(rig.closed());
    rig.effects.clear();
    rig.channel_audio(&QUIET);
    assert!(rig.opened());
}

#[test]
fn pre_roll_is_heard_before_the_room_and_does_not_take_its_place() {
    let mut rig = trusted();
    rig.say(r#"{"type":"VAD","status":true}"#);
    rig.told(1);
    rig.effects.clear();
    rig.input(Input::UplinkFrame(1, frame(1, Codec::Pcm16le, &pcm(&[2; 512]), true)));
    rig.room_audio(&[3; 512]);
    assert_eq!(rig.utterance_audio(), [[2; 512], [3; 512]].concat());
    assert!(!rig.closed());
    assert_eq!(rig.told(1)[0]["active"], "livekit");
}

#[test]
fn the_acknowledgement_comes_before_what_an_attachment_ended() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    rig.attach(2, None);
    let types = rig.told_types(2);
    assert_eq!(types[0], "connection_ack");
    assert!(types.contains(&"speech_ended".to_owned()), "{types:?}");
}

/// A binary frame.
fn frame(seq: u32, codec: Codec, payload: &[u8], pre_roll: bool) -> UplinkFrame {
    UplinkFrame {
        codec,
        pre_roll,
        backfill: false,
        end: false,
        seq,
        capture_ms: 0,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn pcm(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// 20 ms of silence as an Opus packet.
fn opus_packet() -> Vec<u8> {
    use audiopus::{Application, Channels, SampleRate, coder::Encoder};
    let encoder = Encoder::new(SampleRate::Hz16000, Channels::Mono, Application::Voip).unwrap();
    let mut packet = [0; 400];
    let length = encoder.encode(&[1; 320], &mut packet).unwrap();
    packet[..length].to_vec()
}

#[test]
fn a_takeover_that_is_refused_leaves_the_decoder_of_the_device_that_has_the_session_alone() {
    let mut rig = Rig::attached();
    for socket in 2..=4 {
        rig.attach(socket, None);
    }
    rig.say(r#"{"type":"audio_config","codec":"opus","sampleRate":16000,"channels":1}"#);
    rig.input(Input::UplinkFrame(4, frame(1, Codec::Opus, &opus_packet(), false)));
    rig.told(4);

    rig.attach(5, None);
    assert_eq!(rig.session.socket(), Some(4), "the takeover is refused");
    rig.input(Input::UplinkFrame(4, frame(2, Codec::Opus, &opus_packet(), false)));

    assert_eq!(rig.told(4), [] as [Value; 0], "its Opus is still decoded");
}

#[test]
fn the_audio_config_of_a_socket_that_is_not_attached_changes_nothing() {
    let mut rig = Rig::attached();
    rig.attach(2, None);
    rig.told(2);
    let opus = r#"{"type":"audio_config","codec":"opus","sampleRate":16000,"channels":1}"#;
    for stale in [1, 7] {
        rig.input(Input::ClientMessage(stale, ClientMessage::decode(opus).unwrap()));
    }

    rig.input(Input::UplinkFrame(2, frame(1, Codec::Pcm16le, &pcm(&loud()), false)));

    assert!(rig.opened(), "PCM is still what is decoded");
    assert!(rig.told(2).iter().all(|message| message["type"] != "error"));
}

#[test]
fn a_transcript_of_the_clients_own_keeps_its_language() {
    let mut rig = Rig::attached();
    rig.say(r#"{"type":"phone_subscription_update","subscriptions":["transcription:de-DE","transcription:en-US"]}"#);
    rig.say(
        r#"{"type":"local_transcription","text":"Guten Tag.","isFinal":true,"transcribeLanguage":"de-DE"}"#,
    );

    let told = rig.told(1);
    let streams: Vec<_> = told.iter().filter(|message| message["type"] == "data_stream").collect();
    assert_eq!(streams.len(), 1, "{told:?}");
    assert_eq!(streams[0]["streamType"], "transcription:de-DE");
    assert_eq!(streams[0]["data"]["transcribeLanguage"], "de-DE");
    let saved = rig.effects.iter().find_map(|effect| {
        let Effect::Save(HistoryItem::Utterance { language, .. }, _) = effect else { return None };
        Some(language.clone())
    });
    assert_eq!(saved.as_deref(), Some("de-DE"));

    rig.say(r#"{"type":"local_transcription","text":"?","isFinal":true,"transcribeLanguage":"not a tag"}"#);
    assert_eq!(rig.told(1)[0]["code"], "INVALID_REQUEST");
}

#[test]
fn a_room_without_sound_is_joined_again_and_then_given_up_for_the_control_channel() {
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined));
    rig.told(1);
    rig.wait(audio_watchdog::MAX_GAP);
    assert_eq!(rig.told_types(1), ["livekit_info"]);
    rig.wait(audio_watchdog::MAX_GAP);
    let told: Vec<_> = rig.told(1).into_iter().filter(|message| message["type"] == "media_state").collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0]["active"], &told[0]["reason"]), (&json!("ws"), &json!("livekit_silent")));
}

#[test]
fn no_audio_is_missed_where_none_is_expected() {
    let asked = |rig: &mut Rig| rig.told_types(1).contains(&"livekit_info".to_owned());
    // A trusted client that detects no speech; an agent that is not there; a client that is not.
    let mut rig = trusted();
    rig.wait(Duration::from_secs(20));
    assert!(!asked(&mut rig));
    rig.say(r#"{"type":"VAD","status":true}"#).wait(audio_watchdog::MAX_GAP);
    assert!(asked(&mut rig), "somebody speaks");
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Unreachable)).wait(Duration::from_secs(20));
    assert!(!asked(&mut rig));
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined))
        .input(Input::SocketLost(1))
        .wait(Duration::from_secs(20));
    assert!(!asked(&mut rig));
    // A microphone that is muted sends silence: that is no gap.
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined));
    for _ in 0..20 {
        rig.room_audio(&[0; 320]).wait(Duration::from_secs(1));
    }
    assert!(!asked(&mut rig));
}

#[test]
fn where_the_agent_is_not_in_the_room_sound_is_expected_on_the_control_channel() {
    for (news, reason) in
        [(AgentState::Unreachable, "livekit_unreachable"), (AgentState::Displaced, "duplicate_identity")]
    {
        let mut rig = Rig::attached();
        rig.room_audio(&QUIET).input(Input::SourceGone(MediaSource::Livekit));
        rig.told(1);
        rig.input(Input::AgentState(news));
        let told = rig.told(1);
        assert_eq!((&told[0]["active"], &told[0]["reason"]), (&json!("ws"), &json!(reason)));
        rig.input(Input::AgentState(AgentState::Joined));
        assert_eq!(rig.told(1)[0]["active"], "none", "the room may be tried again");
    }
}

#[test]
fn an_agent_in_a_room_without_a_microphone_leaves_and_comes_back_with_the_microphone() {
    let signs: [fn(&mut Rig) -> &mut Rig; 4] = [
        |rig| rig.input(Input::MicrophonePublished),
        |rig| rig.say(r#"{"type":"VAD","status":true}"#),
        |rig| rig.say(r#"{"type":"livekit_init"}"#),
        |rig| rig.attach(2, None),
    ];
    for sign in signs {
        let mut rig = Rig::attached();
        rig.input(Input::AgentState(AgentState::Joined));
        let joined = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::JoinRoom));
        let left = |rig: &Rig| rig.has(|effect| matches!(effect, Effect::LeaveRoom));
        for _ in 0..AGENT_IDLE.as_secs() / 20 {
            assert!(!left(&rig));
            rig.input(Input::Alive(1)).wait(Duration::from_secs(20));
        }
        assert!(left(&rig));
        assert!(rig.told(1).iter().any(|message| message["reason"] == "agent_idle"));
        rig.effects.clear();

        sign(&mut rig);

        assert!(joined(&rig));
    }
}

#[test]
fn a_silent_microphone_keeps_the_agent_in_the_room() {
    let mut rig = Rig::attached();
    rig.input(Input::AgentState(AgentState::Joined));
    for _ in 0..AGENT_IDLE.as_secs() / 10 {
        rig.input(Input::Alive(1)).room_audio(&[0; 320]);
        rig.wait(Duration::from_secs(20));
    }
    assert!(!rig.has(|effect| matches!(effect, Effect::LeaveRoom)));
}

#[test]
fn an_utterance_goes_on_when_its_client_is_back_within_five_seconds() {
    let mut rig = Rig::attached();
    rig.channel_audio(&loud());
    let seen = rig.session.downlink.last_seq();
    rig.input(Input::SocketLost(1)).wait(Duration::from_secs(4));
    rig.attach(2, Some(seen)).wait(Duration::from_secs(1));
    rig.channel_audio(&QUIET).wait(Duration::from_secs(1));
    assert!(!rig.closed());

    rig.input(Input::SocketLost(2)).wait(Duration::from_secs(5));
    assert!(rig.closed(), "it does not wait for ever");
}

/// Conformance case 4: the minute of grace, to the second.
#[test]
fn a_client_that_returns_after_59_s_resumes_and_after_61_s_there_is_nothing_to_resume() {
    for (away, alive) in [(59, true), (61, false)] {
        let mut rig = Rig::attached();
        let seen = rig.session.downlink.last_seq();
        rig.input(Input::SocketLost(1)).wait(Duration::from_secs(away));
        rig.attach(2, Some(seen));
        assert_eq!(rig.told(2).first().map(|ack| ack["resumed"].clone()), alive.then_some(json!(true)));
    }
}

fn any_input() -> impl Strategy<Value = u8> {
    0..24u8
}

proptest! {
    /// Whatever happens in whatever order: sequence numbers are gap-free per session, stale sockets
    /// get nothing, every utterance has one final, and a deadline that is due makes progress.
    #[test]
    fn a_session_keeps_its_promises(inputs in proptest::collection::vec((any_input(), 0..3_000u64), 0..80)) {
        let mut rig = Rig::new();
        let mut socket = 0;
        let mut seqs: Vec<u64> = Vec::new();
        for (kind, wait_ms) in inputs {
            let generation = rig.session.dialogue.generation().unwrap_or(1);
            let utterance = rig.session.recognition.last_utterance();
            let current = rig.session.socket();
            match kind {
                0 => { socket += 1; rig.attach(socket, None); }
                1 => { rig.input(Input::SocketLost(socket)); }
                2 => { rig.input(Input::SocketLost(socket.saturating_sub(1))); }
                3 => { rig.room_audio(&QUIET); }
                4 if current.is_some() => { rig.channel_audio(&QUIET); }
                5 => { rig.start_speech(); }
                6 => { rig.end_speech(); }
                7 => { rig.input(Input::Interim(utterance, "some words".into())); }
                8 => { rig.input(Input::Final(utterance, "some words".into())); }
                9 => { rig.llm(generation, "An answer. "); }
                10 => { rig.llm_ends(generation); }
                11 => { rig.tts(generation, 4000); }
                12 => { rig.tts_ends(generation); }
                13 if current.is_some() => { rig.say(r#"{"type":"interrupt"}"#); }
                14 if current.is_some() => { rig.say(r#"{"type":"say","text":"typed"}"#); }
                15 => { rig.input(Input::SourceGone(MediaSource::Livekit)); }
                16 if current.is_some() => { rig.say(r#"{"type":"VAD","status":true}"#); }
                17 if current.is_some() => { rig.say(r#"{"type":"VAD","status":false}"#); }
                18 => { rig.input(Input::AgentState(AgentState::Joined)); }
                19 => { rig.input(Input::AgentState(AgentState::Unreachable)); }
                20 => { rig.input(Input::UplinkFrame(socket, frame(1, Codec::Pcm16le, &pcm(&QUIET), true))); }
                21 => {
                    socket += 1;
                    rig.attach_with(socket, r#"{"type":"connection_init","capabilities":{"vad":true}}"#);
                }
                22 if current.is_some() => { rig.channel_audio(&loud()); }
                23 => { socket += 1; rig.attach(socket, seqs.last().copied()); }
                _ => {}
            }
            rig.wait(Duration::from_millis(wait_ms));
            if let Some(current) = rig.session.socket() {
                for message in rig.told(current) {
                    seqs.extend(message["seq"].as_u64());
                }
            }
            rig.effects.clear();
        }
        // A resume sends again what the client did not see, and nothing that it did.
        let mut sorted = seqs.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(seqs.len(), sorted.len(), "a number was told twice");
        prop_assert!(seqs.is_sorted());
    }
}

#[test]
fn an_answer_is_spoken_in_the_room_only_while_somebody_is_there_to_say_it() {
    for (news, in_room) in [(AgentState::Joined, true), (AgentState::Unreachable, false)] {
        let voice = Some(Voice { rate_hz: 16_000, delivery: Delivery::Room });
        let mut rig = Rig::with(SessionConfig { voice, ..config() });
        rig.attach(1, None).input(Input::AgentState(news)).speak("Hello.");
        rig.effects.clear();

        rig.llm(1, "Hi there.").llm_ends(1);
        rig.tts(1, 320);

        assert_eq!(rig.has(|effect| matches!(effect, Effect::PublishSpeech(_))), in_room);
        assert_eq!(rig.has(|effect| matches!(effect, Effect::SendBinary(..))), !in_room);
        let begin = rig.told(1).into_iter().find(|message| message["type"] == "speech_begin").unwrap();
        assert_eq!(begin["delivery"], if in_room { "room" } else { "ws" });
    }
}
