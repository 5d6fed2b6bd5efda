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
    language::Language,
    livekit::token::TokenIssuer,
    protocol::edge_v1::{
        from_client::{ConnectionInit, Resume},
        to_client::{Delivery, Finish},
    },
    providers::{
        stt::SpokenLanguage,
        vad::{Frame, SpeechDetector},
    },
    secret::Secret,
    store::history::HistoryItem,
    turn::client_vad,
};

mod connection;
mod dialogue;
mod media;
mod mentra;
mod options;
mod participants;
mod pauses;
mod preemption;
mod providers;
mod questions;
mod response;
mod speech;
mod tools;
mod translation;

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
        offer: Offer { language: english(), ..Offer::default() },
        system_prompt: "Be brief.".into(),
        stt: Ok("test"),
        detectors: Arc::new(|| Box::new(LoudIsSpeech)),
        endpointer: EndpointerConfig::default(),
        end_of_turn: EndOfTurnConfig::default(),
        judges_pauses: true,
        preempts: true,
        voice: Some(Voice { rate_hz: 16_000, delivery: Delivery::Ws }),
        livekit: true,
        client_vad_percent: 100,
        agent_idle: AGENT_IDLE,
        memory: 12,
        authenticator: AUTHENTICATOR.clone(),
        room_tokens: None,
        limits: Limits::default(),
        answer_time: Duration::from_secs(60),
        answer_chars: 16_384,
        excuses: Excuses::default(),
        tools: ToolLimits::default(),
    }
}

/// American English.
pub(crate) fn english() -> SpokenLanguage {
    SpokenLanguage::Known(Language::parse("en-US").unwrap())
}

pub(crate) fn info() -> SessionInfo {
    let user = UserId::parse("john").unwrap();
    SessionInfo {
        id: SessionId::from_u128(7),
        room: RoomName::for_user(&user, "abc123"),
        user,
        started_ms: STARTED_MS,
        generation_base: 0,
        options: SessionOptions::default(),
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
            until: None,
        };
        self.attach_client(socket, Profile::EdgeV1, ConnectionInit::default(), Some(token))
    }

    /// Attaches with a control token of this end that was issued on something with that end.
    fn attach_issued(&mut self, socket: SocketId, seconds: u64, until_s: u64) -> &mut Self {
        let unix_s = STARTED_MS / 1000 + seconds;
        let at = self.now + Duration::from_secs(seconds);
        let until = Some(STARTED_MS / 1000 + until_s);
        let token = TokenEnd { at, unix_s, renewable: true, until };
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
        self.has(|effect| matches!(effect, Effect::Transcribe(..)))
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
                |effect| if let Effect::UtteranceAudio(_, pcm) = effect { Some(pcm.to_vec()) } else { None },
            )
            .flatten()
            .collect()
    }

    /// The last prompt.
    fn prompt(&self) -> Option<&crate::providers::llm::Prompt> {
        self.effects.iter().rev().find_map(|effect| {
            let Effect::Generate(_, prompt) = effect else { return None };
            Some(prompt)
        })
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

fn any_input() -> impl Strategy<Value = u8> {
    0..28u8
}

proptest! {
    /// Whatever happens in whatever order: sequence numbers are gap-free per session, stale sockets
    /// get nothing, every utterance has one final, and a deadline that is due makes progress.
    #[test]
    fn a_session_keeps_its_promises(inputs in proptest::collection::vec((any_input(), 0..3_000u64), 0..80)) {
        let mut rig = Rig::new();
        let mut socket = 0;
        let mut pauses = 0;
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
                24..27 if current.is_some() => {
                    let mode = ["conversation", "captions", "push_to_talk"][usize::from(kind - 24)];
                    rig.say(&json!({"type": "configure_session", "options": {"mode": mode}}).to_string());
                }
                27 => {
                    pauses += 1;
                    rig.input(Input::PauseJudged(pauses, Ok(0.8)));
                }
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
