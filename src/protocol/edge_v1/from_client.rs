//! What glasses and phones say on the control channel.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{
    ids::{DeviceId, RoomName, SessionId},
    protocol::{DecodeError, edge_v1::audio::Codec},
    secret::Secret,
};

/// A message and the client's own id for it, which the answer echoes as `replyTo`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientMessage {
    /// The client's request id, if it gave one.
    pub id: Option<String>,
    /// What it said.
    pub message: FromClient,
}

/// One message from a client, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum FromClient {
    /// `connection_init`: the first message; says who calls and what to resume.
    ConnectionInit(Box<ConnectionInit>),
    /// `ping`: answered with `pong` ahead of everything queued.
    Ping(Ping),
    /// `pong`: a sign of life.
    Pong,
    /// `renew_token`: asks for a fresh control token, or brings a fresh token of the client's own.
    RenewToken(RenewToken),
    /// `VAD`: the client's own voice detection opened or closed.
    Vad(Vad),
    /// `microphone_state_ack`: the client did as `microphone_state_change` asked.
    MicrophoneStateAck(MicrophoneStateAck),
    /// `livekit_init`: asks for a fresh token.
    LivekitInit(LivekitInit),
    /// `audio_config`: how binary frames up are packed from now on.
    AudioConfig(AudioConfig),
    /// `phone_subscription_update`: the whole set of streams the client wants.
    Subscriptions(Subscriptions),
    /// `local_transcription`: the client transcribed by itself.
    LocalTranscription(LocalTranscription),
    /// `glasses_connection_state`: the glasses behind a phone came or went.
    GlassesConnectionState(GlassesConnectionState),
    /// `resume_ack`: everything up to this sequence number arrived.
    ResumeAck(ResumeAck),
    /// `goodbye`: end the session now, without grace.
    Goodbye,
    /// `playhead`: how much of the spoken answer was played.
    Playhead(Playhead),
    /// `interrupt`: stop answering.
    Interrupt(Interrupt),
    /// `say`: a typed turn.
    Say(Say),
    /// `subscribe:participants`: push who is in a room.
    SubscribeParticipants(ParticipantsOf),
    /// `unsubscribe:participants`: stop pushing.
    UnsubscribeParticipants(ParticipantsOf),
    /// `audio_play_response`: what became of an `audio_play_request`.
    AudioPlayResponse(AudioPlayResponse),
    /// A type this gateway has no use for itself: it is passed on to whom it concerns.
    Other {
        /// Its `type`.
        kind: String,
        /// All of it.
        body: Map<String, Value>,
    },
}

/// `connection_init`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionInit {
    /// The protocol the client speaks; `edge.v1`.
    pub protocol: Option<String>,
    /// Who calls, for clients that can set neither a header nor the address; MentraOS' clients say
    /// `coreToken`.
    #[serde(alias = "coreToken", skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Which of the user's devices this is.
    pub device_id: Option<DeviceId>,
    /// What the client can do.
    pub capabilities: Capabilities,
    /// Streams the client wants; where absent, the transcription of the session's language.
    pub subscriptions: Option<Vec<String>>,
    /// Continue an earlier connection.
    pub resume: Option<Resume>,
}

/// What a client can do.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Ways to bring its microphone: `livekit`, `ws`.
    pub media: Vec<String>,
    /// Codecs it can send on the WebSocket.
    pub codecs: Vec<String>,
    /// Whether it detects speech by itself and sends `VAD`.
    pub vad: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { media: vec!["livekit".into(), "ws".into()], codecs: vec!["pcm16".into()], vad: false }
    }
}

impl Capabilities {
    /// Whether the client may bring its microphone over LiveKit, and so needs a token.
    pub fn wants_livekit(&self) -> bool {
        self.media.iter().any(|media| media == "livekit")
    }
}

/// Where to continue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// The session of the last `connection_ack`.
    pub session_id: SessionId,
    /// The secret of the last `connection_ack`.
    pub resume_token: String,
    /// The highest `seq` that arrived.
    #[serde(default)]
    pub last_server_seq: u64,
    /// The highest sequence number of a binary frame that was sent.
    #[serde(default)]
    pub last_audio_seq: u32,
}

/// `ping`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Ping {
    /// Anything; comes back in the `pong`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<serde_json::Number>,
}

/// `renew_token`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct RenewToken {
    /// A fresh token of the same user, where the channel was opened with one of theirs; where absent, a
    /// control token is issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// `VAD`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vad {
    /// True when speech began. Old clients send the words "true" and "false".
    #[serde(deserialize_with = "bool_or_word")]
    #[schemars(schema_with = "bool_or_word_schema")]
    pub status: bool,
    /// The sequence number of the first binary frame that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_seq: Option<u32>,
}

/// `microphone_state_ack`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MicrophoneStateAck {
    /// The `version` of the `microphone_state_change` that is answered.
    pub version: u64,
    /// Whether the microphone is on now.
    pub is_microphone_enabled: bool,
    /// Why it could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a token from `livekit_init` is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LivekitMode {
    /// To publish the microphone.
    #[default]
    Publish,
    /// To hear the answer in the room (only where speech is delivered there).
    Subscribe,
}

/// `livekit_init`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct LivekitInit {
    /// What the token is for.
    pub mode: LivekitMode,
}

/// `audio_config`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioConfig {
    /// How samples are packed.
    pub codec: Codec,
    /// In Hz.
    #[serde(default = "default_rate")]
    pub sample_rate: u32,
    /// 1 or 2, interleaved.
    #[serde(default = "default_channels")]
    pub channels: u8,
}

fn default_rate() -> u32 {
    crate::audio::SAMPLE_RATE_HZ
}

fn default_channels() -> u8 {
    1
}

impl Default for AudioConfig {
    /// What binary frames are where the client says nothing: PCM, 16 kHz, mono.
    fn default() -> Self {
        Self { codec: Codec::Pcm16le, sample_rate: default_rate(), channels: default_channels() }
    }
}

/// `phone_subscription_update`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Subscriptions {
    /// The whole set; replaces the one before.
    pub subscriptions: Vec<String>,
}

/// `local_transcription`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalTranscription {
    /// The utterance so far.
    pub text: String,
    /// Whether it will not change any more.
    pub is_final: bool,
    /// Which engine of the client's it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The language it was heard in, `en-US`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcribe_language: Option<String>,
}

/// `audio_play_response`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioPlayResponse {
    /// The `requestId` of the `audio_play_request`.
    pub request_id: String,
    /// Whether it was played.
    pub success: bool,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For how long it was played, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
}

/// `glasses_connection_state`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GlassesConnectionState {
    /// Which glasses.
    #[serde(default)]
    pub model_name: String,
    /// `CONNECTED`, `DISCONNECTED` or `RECONNECTED`.
    pub status: String,
    /// Their Wi-Fi, in the client's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Value>,
}

/// `resume_ack`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeAck {
    /// Everything up to here arrived.
    pub last_server_seq: u64,
}

/// `playhead`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Playhead {
    /// Which answer.
    pub generation: u32,
    /// How much of it was played, in milliseconds since `speech_begin`.
    pub played_ms: u64,
}

/// `interrupt`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Interrupt {
    /// Which answer; where absent, the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// `say`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Say {
    /// What the user typed.
    pub text: String,
}

/// `subscribe:participants`, `unsubscribe:participants`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ParticipantsOf {
    /// Whose participants; where absent, the session's own room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// A LiveKit token for the room, where it is not the session's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl ClientMessage {
    /// Reads a text frame of `edge.v1`.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        Self::decode_known(text, |_| true)
    }

    /// Reads a text frame; types that are not known in its protocol are [`FromClient::Other`].
    pub(in crate::protocol) fn decode_known(
        text: &str,
        known: impl Fn(&str) -> bool,
    ) -> Result<Self, DecodeError> {
        /// What every message has; parsed first, so that an unknown type is no error.
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(rename = "type", borrow, default)]
            kind: Option<Cow<'a, str>>,
            #[serde(default)]
            id: Option<Value>,
        }

        if !text.trim_start().starts_with('{') {
            return Err(DecodeError::Json("expected an object".into()));
        }
        let head: Head<'_> = parse(text)?;
        let kind = head.kind.ok_or(DecodeError::NoType)?;
        let message = match kind.as_ref() {
            other if !known(other) => FromClient::Other { kind: other.to_owned(), body: parse(text)? },
            "connection_init" => FromClient::ConnectionInit(parse(text)?),
            "ping" => FromClient::Ping(parse(text)?),
            "pong" => FromClient::Pong,
            "renew_token" => FromClient::RenewToken(parse(text)?),
            "VAD" | "vad" => FromClient::Vad(parse(text)?),
            "microphone_state_ack" => FromClient::MicrophoneStateAck(parse(text)?),
            "livekit_init" => FromClient::LivekitInit(parse(text)?),
            "audio_config" => FromClient::AudioConfig(parse(text)?),
            "phone_subscription_update" => FromClient::Subscriptions(parse(text)?),
            "local_transcription" => FromClient::LocalTranscription(parse(text)?),
            "glasses_connection_state" => FromClient::GlassesConnectionState(parse(text)?),
            "resume_ack" => FromClient::ResumeAck(parse(text)?),
            "goodbye" => FromClient::Goodbye,
            "playhead" => FromClient::Playhead(parse(text)?),
            "interrupt" => FromClient::Interrupt(parse(text)?),
            "say" => FromClient::Say(parse(text)?),
            "subscribe:participants" => FromClient::SubscribeParticipants(parse(text)?),
            "unsubscribe:participants" => FromClient::UnsubscribeParticipants(parse(text)?),
            "audio_play_response" => FromClient::AudioPlayResponse(parse(text)?),
            other => FromClient::Other { kind: other.to_owned(), body: parse(text)? },
        };
        let id = head.id.map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        Ok(Self { id, message })
    }
}

impl FromClient {
    /// Writes the message as a text frame; what a client does.
    pub fn encode(&self) -> String {
        match self {
            Self::ConnectionInit(body) => tagged("connection_init", body),
            Self::Ping(body) => tagged("ping", body),
            Self::Pong => tagged("pong", &()),
            Self::RenewToken(body) => tagged("renew_token", body),
            Self::Vad(body) => tagged("VAD", body),
            Self::MicrophoneStateAck(body) => tagged("microphone_state_ack", body),
            Self::LivekitInit(body) => tagged("livekit_init", body),
            Self::AudioConfig(body) => tagged("audio_config", body),
            Self::Subscriptions(body) => tagged("phone_subscription_update", body),
            Self::LocalTranscription(body) => tagged("local_transcription", body),
            Self::GlassesConnectionState(body) => tagged("glasses_connection_state", body),
            Self::ResumeAck(body) => tagged("resume_ack", body),
            Self::Goodbye => tagged("goodbye", &()),
            Self::Playhead(body) => tagged("playhead", body),
            Self::Interrupt(body) => tagged("interrupt", body),
            Self::Say(body) => tagged("say", body),
            Self::SubscribeParticipants(body) => tagged("subscribe:participants", body),
            Self::UnsubscribeParticipants(body) => tagged("unsubscribe:participants", body),
            Self::AudioPlayResponse(body) => tagged("audio_play_response", body),
            Self::Other { body, .. } => tagged_already(body),
        }
    }
}

impl FromClient {
    /// The message as an object, to be passed on.
    pub fn into_object(self) -> Map<String, Value> {
        if let Self::Other { body, .. } = self {
            return body;
        }
        serde_json::from_str(&self.encode()).expect("a message is an object")
    }
}

fn tagged_already(body: &Map<String, Value>) -> String {
    serde_json::to_string(body).expect("an object that was JSON is JSON")
}

pub(super) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|error| DecodeError::Json(error.to_string()))
}

/// A body with its `type` in front. `()` is a message without fields.
fn tagged(kind: &str, body: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Tagged<'a, T> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(flatten)]
        body: &'a T,
    }
    serde_json::to_string(&Tagged { kind, body }).expect("messages have only JSON fields")
}

/// Reads `true`, `false`, `"true"` or `"false"`: early clients sent the words.
fn bool_or_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Bool(bool),
        Word(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Bool(value) => Ok(value),
        Either::Word(word) if word.eq_ignore_ascii_case("true") => Ok(true),
        Either::Word(word) if word.eq_ignore_ascii_case("false") => Ok(false),
        Either::Word(word) => {
            Err(serde::de::Error::custom(format!("status: expected a boolean, got \"{word}\"")))
        }
    }
}

fn bool_or_word_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": [true, false, "true", "false"] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_type_is_kept_and_is_no_error() {
        let said = ClientMessage::decode(r#"{"type":"button_press","buttonId":"left","id":7}"#).unwrap();
        assert_eq!(said.id.as_deref(), Some("7"));
        let FromClient::Other { kind, body } = said.message else { panic!("{said:?}") };
        assert_eq!((kind.as_str(), &body["buttonId"]), ("button_press", &Value::from("left")));
    }

    #[test]
    fn vad_takes_booleans_and_words() {
        for (text, status) in [("true", true), ("false", false), ("\"true\"", true), ("\"FALSE\"", false)] {
            let said = ClientMessage::decode(&format!(r#"{{"type":"VAD","status":{text}}}"#)).unwrap();
            assert_eq!(said.message, FromClient::Vad(Vad { status, audio_seq: None }));
        }
        assert!(ClientMessage::decode(r#"{"type":"VAD","status":"perhaps"}"#).is_err());
    }

    #[test]
    fn an_init_without_fields_is_a_client_that_can_do_both() {
        let said = ClientMessage::decode(r#"{"type":"connection_init"}"#).unwrap();
        let FromClient::ConnectionInit(init) = said.message else { panic!("{said:?}") };
        assert_eq!(init.capabilities.media, ["livekit", "ws"]);
        assert_eq!(init.resume, None);
    }

    #[test]
    fn what_is_not_a_message_says_why() {
        assert!(matches!(ClientMessage::decode("{"), Err(DecodeError::Json(_))));
        assert!(matches!(ClientMessage::decode("[]"), Err(DecodeError::Json(_))));
        assert_eq!(ClientMessage::decode("{}"), Err(DecodeError::NoType));
        let Err(DecodeError::Json(why)) = ClientMessage::decode(r#"{"type":"say"}"#) else {
            panic!("needs a text")
        };
        assert!(why.contains("text"), "{why}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in "\\PC{0,200}") {
            let _ = ClientMessage::decode(&text);
        }
    }
}
