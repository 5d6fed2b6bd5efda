//! Messages from a client to the gateway.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{
    DecodeError,
    audio::{Codec, SAMPLE_RATE_HZ},
    ids::{DeviceId, RoomName, SessionId},
    secret::Secret,
    session_options::SessionOptions,
};

/// A message and the client's own id for it, which the answer echoes as `replyTo`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientMessage {
    /// The client's request id.
    pub id: Option<String>,
    /// The message.
    pub message: FromClient,
}

/// One message from a client, by its `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum FromClient {
    /// `connection_init`: the first message; identifies the client and what to resume.
    ConnectionInit(Box<ConnectionInit>),
    /// `ping`: answered with `pong`, ahead of queued messages.
    Ping(Ping),
    /// `pong`: the answer to a ping.
    Pong,
    /// `renew_token`: requests a new control token, or carries a new token of the user's own.
    RenewToken(RenewToken),
    /// `configure_session`: changes options of the session.
    ConfigureSession(ConfigureSession),
    /// `VAD`: the client's own voice activity detection changed.
    Vad(Vad),
    /// `microphone_state_ack`: the client applied a `microphone_state_change`.
    MicrophoneStateAck(MicrophoneStateAck),
    /// `livekit_init`: requests a new LiveKit token.
    LivekitInit(LivekitInit),
    /// `audio_config`: the format of the binary frames that follow.
    AudioConfig(AudioConfig),
    /// `phone_subscription_update`: replaces the set of subscribed streams.
    Subscriptions(Subscriptions),
    /// `local_transcription`: a transcript made by the client.
    LocalTranscription(LocalTranscription),
    /// `glasses_connection_state`: the glasses connected to or disconnected from the phone.
    GlassesConnectionState(GlassesConnectionState),
    /// `resume_ack`: acknowledges messages up to a sequence number.
    ResumeAck(ResumeAck),
    /// `goodbye`: ends the session, without the grace period.
    Goodbye,
    /// `playhead`: how much of the spoken response was played.
    Playhead(Playhead),
    /// `interrupt`: stops the response.
    Interrupt(Interrupt),
    /// `say`: a typed turn.
    Say(Say),
    /// `tool_result`: the answer to a `tool_call`.
    ToolResult(ToolResult),
    /// `subscribe:participants`: subscribes to the participants of a room.
    SubscribeParticipants(ParticipantsOf),
    /// `unsubscribe:participants`: ends the subscription.
    UnsubscribeParticipants(ParticipantsOf),
    /// `audio_play_response`: the result of an `audio_play_request`.
    AudioPlayResponse(AudioPlayResponse),
    /// A type that the gateway does not handle itself. It is forwarded to consumers.
    Other {
        /// The `type`.
        kind: String,
        /// The whole object.
        body: Map<String, Value>,
    },
}

/// `connection_init`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionInit {
    /// The protocol; `edge.v1`.
    pub protocol: Option<String>,
    /// The token, for clients that can set neither a header nor the URL. MentraOS clients send it as
    /// `coreToken`.
    #[serde(alias = "coreToken", skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The device's id, unique per user.
    pub device_id: Option<DeviceId>,
    /// The client's capabilities.
    pub capabilities: Capabilities,
    /// The subscribed streams. Defaults to the transcription in the session's language.
    pub subscriptions: Option<Vec<String>>,
    /// Resumes an earlier connection.
    pub resume: Option<Resume>,
}

/// A client's capabilities.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// How its microphone can reach the gateway: `livekit`, `ws`.
    pub media: Vec<String>,
    /// Codecs that it can send on the WebSocket.
    pub codecs: Vec<String>,
    /// Whether it detects speech itself and sends `VAD`.
    pub vad: bool,
    /// How it takes spoken responses on the WebSocket.
    pub speech: SpeechCapabilities,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            media: vec!["livekit".into(), "ws".into()],
            codecs: vec!["pcm16".into()],
            vad: false,
            speech: SpeechCapabilities::default(),
        }
    }
}

/// How a client takes spoken responses on the WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SpeechCapabilities {
    /// Codecs that it decodes, best first: `opus`, `pcm16le`. The first one that the gateway knows is used.
    pub codecs: Vec<String>,
    /// The length of a frame, in milliseconds: 20 or 60.
    pub frame_ms: u32,
}

impl Default for SpeechCapabilities {
    fn default() -> Self {
        Self { codecs: vec!["pcm16le".into()], frame_ms: 20 }
    }
}

impl Capabilities {
    /// Whether the client can publish its microphone to LiveKit, and needs a token for that.
    pub fn wants_livekit(&self) -> bool {
        self.media.iter().any(|media| media == "livekit")
    }
}

/// The connection to resume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// `sessionId` of the last `connection_ack`.
    pub session_id: SessionId,
    /// `resumeToken` of the last `connection_ack`.
    pub resume_token: String,
    /// The highest `seq` received.
    #[serde(default)]
    pub last_server_seq: u64,
    /// The highest sequence number of the binary frames sent.
    #[serde(default)]
    pub last_audio_seq: u32,
}

/// `ping`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Ping {
    /// Any number; echoed in the `pong`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<serde_json::Number>,
}

/// `renew_token`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct RenewToken {
    /// A new token of the same user, where the channel was opened with a token of the user's own. Without it
    /// the gateway issues a control token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// `configure_session`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ConfigureSession {
    /// The options that change; null removes one. Checked one by one, by [`SessionOptions::set`].
    #[schemars(with = "SessionOptions")]
    pub options: Map<String, Value>,
}

impl ConfigureSession {
    /// Sets these options, and leaves the others as they are.
    pub fn set(options: &SessionOptions) -> Self {
        let Ok(Value::Object(options)) = serde_json::to_value(options) else {
            unreachable!("options have only JSON fields")
        };
        Self { options }
    }
}

/// `VAD`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vad {
    /// True when speech begins. Old clients send the strings "true" and "false".
    #[serde(deserialize_with = "bool_or_string")]
    #[schemars(schema_with = "bool_or_string_schema")]
    pub status: bool,
    /// The sequence number of the first binary frame of the speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_seq: Option<u32>,
}

/// `microphone_state_ack`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MicrophoneStateAck {
    /// `version` of the `microphone_state_change`.
    pub version: u64,
    /// Whether the microphone is on.
    pub is_microphone_enabled: bool,
    /// Why the change failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a LiveKit token is requested for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LivekitMode {
    /// To publish the microphone.
    #[default]
    Publish,
    /// To hear the response in the room, where speech is delivered there.
    Subscribe,
}

/// `livekit_init`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct LivekitInit {
    /// What the token is requested for.
    pub mode: LivekitMode,
}

/// `audio_config`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioConfig {
    /// The encoding of samples.
    pub codec: Codec,
    /// Sample rate in Hz.
    #[serde(default = "default_rate")]
    pub sample_rate: u32,
    /// Number of interleaved channels: 1 or 2.
    #[serde(default = "default_channels")]
    pub channels: u8,
}

fn default_rate() -> u32 {
    SAMPLE_RATE_HZ
}

fn default_channels() -> u8 {
    1
}

impl Default for AudioConfig {
    /// The format of binary frames before any `audio_config`: PCM, 16 kHz, mono.
    fn default() -> Self {
        Self { codec: Codec::Pcm16le, sample_rate: default_rate(), channels: default_channels() }
    }
}

/// `phone_subscription_update`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Subscriptions {
    /// The whole set; replaces the previous one.
    pub subscriptions: Vec<String>,
}

/// `local_transcription`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalTranscription {
    /// The utterance so far.
    pub text: String,
    /// Whether the text is final.
    pub is_final: bool,
    /// The client's STT engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The language, `en-US`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcribe_language: Option<String>,
}

/// `audio_play_response`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioPlayResponse {
    /// `requestId` of the `audio_play_request`.
    pub request_id: String,
    /// Whether it was played.
    pub success: bool,
    /// Why it was not played.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it was played, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
}

/// `glasses_connection_state`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GlassesConnectionState {
    /// The model of the glasses.
    #[serde(default)]
    pub model_name: String,
    /// `CONNECTED`, `DISCONNECTED` or `RECONNECTED`.
    pub status: String,
    /// The state of their Wi-Fi, in the client's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Value>,
}

/// `resume_ack`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResumeAck {
    /// All messages up to this `seq` arrived.
    pub last_server_seq: u64,
}

/// `playhead`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Playhead {
    /// The response's generation.
    pub generation: u32,
    /// How much of it was played, in milliseconds.
    pub played_ms: u64,
}

/// `interrupt`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Interrupt {
    /// The response's generation. Defaults to the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
}

/// `say`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Say {
    /// The typed text.
    pub text: String,
}

/// `tool_result`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// `callId` of the `tool_call`.
    pub call_id: String,
    /// The result: text, or JSON as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Why there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A JPEG or PNG, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// `subscribe:participants`, `unsubscribe:participants`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct ParticipantsOf {
    /// The room. Defaults to the session's own room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<RoomName>,
    /// A LiveKit token for the room, where it is not the session's own room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl ClientMessage {
    /// Decodes a text frame of `edge.v1`.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        Self::decode_known(text, |_| true)
    }

    /// Decodes a text frame of a profile that has only the types for which `known` is true. Other types
    /// become [`FromClient::Other`].
    pub fn decode_known(text: &str, known: impl Fn(&str) -> bool) -> Result<Self, DecodeError> {
        /// The fields of every message; parsed first, so that an unknown type is no error.
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
            "configure_session" => FromClient::ConfigureSession(parse(text)?),
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
            "tool_result" => FromClient::ToolResult(parse(text)?),
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
    /// Encodes the message as a text frame.
    pub fn encode(&self) -> String {
        match self {
            Self::ConnectionInit(body) => tagged("connection_init", body),
            Self::Ping(body) => tagged("ping", body),
            Self::Pong => tagged("pong", &()),
            Self::RenewToken(body) => tagged("renew_token", body),
            Self::ConfigureSession(body) => tagged("configure_session", body),
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
            Self::ToolResult(body) => tagged("tool_result", body),
            Self::SubscribeParticipants(body) => tagged("subscribe:participants", body),
            Self::UnsubscribeParticipants(body) => tagged("unsubscribe:participants", body),
            Self::AudioPlayResponse(body) => tagged("audio_play_response", body),
            Self::Other { body, .. } => tagged_already(body),
        }
    }
}

impl FromClient {
    /// The message as a JSON object, to be forwarded.
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

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|error| DecodeError::Json(error.to_string()))
}

/// A body with its `type`. `()` is a message without fields.
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

/// Accepts `true`, `false`, `"true"` and `"false"`: early clients sent strings.
fn bool_or_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Bool(bool),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Bool(value) => Ok(value),
        Either::Text(word) if word.eq_ignore_ascii_case("true") => Ok(true),
        Either::Text(word) if word.eq_ignore_ascii_case("false") => Ok(false),
        Either::Text(word) => {
            Err(serde::de::Error::custom(format!("status: expected a boolean, got \"{word}\"")))
        }
    }
}

fn bool_or_string_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": [true, false, "true", "false"] })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_type_is_kept_and_is_no_error() {
        let decoded = ClientMessage::decode(r#"{"type":"button_press","buttonId":"left","id":7}"#).unwrap();
        assert_eq!(decoded.id.as_deref(), Some("7"));
        let FromClient::Other { kind, body } = decoded.message else { panic!("{decoded:?}") };
        assert_eq!((kind.as_str(), &body["buttonId"]), ("button_press", &Value::from("left")));
    }

    #[test]
    fn vad_accepts_booleans_and_strings() {
        for (text, status) in [("true", true), ("false", false), ("\"true\"", true), ("\"FALSE\"", false)] {
            let decoded = ClientMessage::decode(&format!(r#"{{"type":"VAD","status":{text}}}"#)).unwrap();
            assert_eq!(decoded.message, FromClient::Vad(Vad { status, audio_seq: None }));
        }
        assert!(ClientMessage::decode(r#"{"type":"VAD","status":"perhaps"}"#).is_err());
    }

    #[test]
    fn an_init_without_fields_offers_livekit_and_ws() {
        let decoded = ClientMessage::decode(r#"{"type":"connection_init"}"#).unwrap();
        let FromClient::ConnectionInit(init) = decoded.message else { panic!("{decoded:?}") };
        assert_eq!(init.capabilities.media, ["livekit", "ws"]);
        assert_eq!(init.resume, None);
    }

    #[test]
    fn a_text_that_is_not_a_message_is_an_error_with_a_reason() {
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
