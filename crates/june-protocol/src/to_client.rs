//! Messages from the gateway to a client.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    audio::Codec,
    code::Code,
    ids::{Identity, RoomName, SessionId, TurnId, UserId, UtteranceId},
    secret::Secret,
    session_options::SessionOptions,
};

pub use crate::participants::ParticipantsUpdate;

/// One message to a client. Times are milliseconds since the session began unless a field says otherwise;
/// `timestamp` is the time of sending (RFC 3339).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ToClient {
    /// The session is attached.
    ConnectionAck(Box<ConnectionAck>),
    /// The session could not be attached. The channel closes.
    ConnectionError {
        /// The error code.
        code: Code,
        /// A description for people.
        message: String,
        /// The time of sending.
        timestamp: String,
        /// Whether a retry may succeed.
        retryable: bool,
        /// How long to wait before a retry, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// The token expired while the channel was open. The client needs a new one.
    AuthError {
        /// A description for people.
        message: String,
    },
    /// A new control token. It extends this channel and opens the next one. Sent on request, and unasked before
    /// the current one expires.
    ControlToken {
        /// The token.
        control_token: Secret,
        /// When it expires, in seconds since the Unix epoch.
        expires_at: u64,
    },
    /// The user's own token expires soon: send a new one by `renew_token`.
    TokenExpiring {
        /// When it expires, in seconds since the Unix epoch.
        expires_at: u64,
    },
    /// The user's own new token was accepted.
    TokenRenewed {
        /// When it expires, in seconds since the Unix epoch; absent where it never does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        /// The `id` of the `renew_token`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
    },
    /// The options of the session changed. The answer to `configure_session`.
    SessionConfigured {
        /// The options in force.
        options: Box<SessionOptions>,
        /// The `id` of the `configure_session`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
    },
    /// The answer to `ping`.
    Pong {
        /// `t` of the `ping`.
        #[serde(skip_serializing_if = "Option::is_none")]
        t: Option<serde_json::Number>,
    },
    /// The desired state of the microphone. Sent again until the client reports it.
    MicrophoneStateChange {
        /// On or off.
        is_microphone_enabled: bool,
        /// What the audio is used for; empty means off.
        required_data: Vec<MicrophoneData>,
        /// Send all audio, not only speech detected by the client's VAD.
        bypass_vad: bool,
        /// The session.
        session_id: SessionId,
        /// The time of sending.
        timestamp: String,
        /// Counts changes; echoed in `microphone_state_ack`.
        version: u64,
    },
    /// How to join the LiveKit room, with a new token.
    LivekitInfo(LivekitInfo),
    /// The source of the user's audio.
    MediaState {
        /// The active source.
        active: MediaSource,
        /// Why it is active.
        reason: MediaReason,
        /// The time since the last audio, if there was any.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_audio_age_ms: Option<u64>,
    },
    /// Data of a subscribed stream.
    DataStream {
        /// The session.
        session_id: SessionId,
        /// The subscription, as the client wrote it.
        stream_type: String,
        /// The data.
        data: StreamData,
        /// The time of sending.
        timestamp: String,
    },
    /// The state of speech recognition.
    SttState {
        /// The state.
        state: PartState,
        /// The STT provider.
        provider: String,
        /// What is wrong, as a description for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The provider that works in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken_over_by: Option<String>,
        /// After how long the provider is tried again, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
    },
    /// The state of the language model.
    LlmState {
        /// The state.
        state: PartState,
        /// The LLM provider.
        provider: String,
        /// What is wrong, as a description for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The provider that works in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken_over_by: Option<String>,
        /// After how long the provider is tried again, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
    },
    /// The state of speech synthesis.
    TtsState {
        /// The state.
        state: PartState,
        /// The TTS provider.
        provider: String,
        /// What is wrong, as a description for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The provider that works in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken_over_by: Option<String>,
        /// After how long the provider is tried again, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in_ms: Option<u64>,
    },
    /// An utterance began.
    SpeechStarted {
        /// The utterance.
        utterance_id: UtteranceId,
        /// The time of its first sample.
        at: u64,
        /// The source of its audio.
        source: MediaSource,
    },
    /// An utterance ended.
    SpeechEnded {
        /// The utterance.
        utterance_id: UtteranceId,
        /// The time at which its end was detected.
        at: u64,
        /// The source of its audio.
        source: MediaSource,
        /// Why it ended.
        reason: SpeechEndReason,
    },
    /// A turn began: the response is being generated.
    TurnStarted {
        /// The turn.
        turn_id: TurnId,
        /// Increases with each response; audio frames carry it.
        generation: u32,
        /// The utterances that are answered; empty for a typed turn.
        utterance_ids: Vec<UtteranceId>,
    },
    /// The response needs a tool of the client: answer with `tool_result`.
    ToolCall {
        /// The turn.
        turn_id: TurnId,
        /// The call, unique in the session.
        call_id: String,
        /// The tool.
        name: String,
        /// Its arguments, as the LLM wrote them: they need not be valid by the tool's schema.
        arguments: serde_json::Map<String, serde_json::Value>,
        /// After how long a result is too late.
        timeout_ms: u64,
    },
    /// The result of a call is of no use any more.
    ToolCallCancelled {
        /// The turn.
        turn_id: TurnId,
        /// The call.
        call_id: String,
        /// Why.
        reason: ToolCancelReason,
    },
    /// More of the response's text, to be appended.
    AnswerDelta {
        /// The turn.
        turn_id: TurnId,
        /// The text to append.
        text: String,
    },
    /// The whole text of the response.
    AnswerDone {
        /// The turn.
        turn_id: TurnId,
        /// The whole text.
        text: String,
        /// How it ended.
        finish: Finish,
        /// What is said instead, where there is no text.
        #[serde(skip_serializing_if = "Option::is_none")]
        excuse: Option<String>,
    },
    /// The spoken response begins. With `delivery` `ws`, binary frames of this generation follow.
    SpeechBegin {
        /// The turn.
        turn_id: TurnId,
        /// The generation of its frames.
        generation: u32,
        /// Their encoding.
        codec: Codec,
        /// Sample rate in Hz.
        sample_rate: u32,
        /// Of Opus: this many samples at the beginning are no part of the response.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pre_skip: Option<u32>,
        /// Always 1.
        channels: u8,
        /// Where the audio is delivered.
        delivery: Delivery,
    },
    /// All frames of this generation have been sent.
    SpeechFinish {
        /// The turn.
        turn_id: TurnId,
        /// The generation of its frames.
        generation: u32,
        /// How it ended.
        finish: Finish,
    },
    /// Stop playback at once: the user interrupted.
    AudioStopRequest {
        /// The app that requests it: the gateway itself.
        app_id: String,
    },
    /// Latencies of the turn, from the end of speech.
    TurnMetrics(TurnMetrics),
    /// The turn is stored durably.
    TurnSaved {
        /// The turn.
        turn_id: TurnId,
        /// Its position in the history.
        history_seq: u64,
    },
    /// The participants of a room: first a snapshot, then changes.
    #[serde(rename = "participants:update")]
    ParticipantsUpdate(ParticipantsUpdate),
    /// The session ended. The channel closes.
    SessionEnd {
        /// The reason.
        reason: EndReason,
    },
    /// One message was rejected. The session continues.
    Error {
        /// The error code.
        code: Code,
        /// A description for people.
        message: String,
        /// Whether the same message may succeed later.
        retryable: bool,
        /// After how many milliseconds, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// The `id` of the message.
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
        /// The stream that it is about, as the client wrote it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stream_type: Option<String>,
    },
}

/// `connection_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionAck {
    /// The session.
    pub session_id: SessionId,
    /// The time of sending.
    pub timestamp: String,
    /// How to join the room; absent where the client or the gateway does not use LiveKit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub livekit: Option<LivekitInfo>,
    /// The session in the format of MentraOS clients.
    pub user_session: UserSession,
    /// `edge.v1`.
    pub protocol: String,
    /// Counts the connections of the session.
    pub epoch: u64,
    /// Whether an earlier connection was resumed. Missed messages follow.
    pub resumed: bool,
    /// The secret for resuming this session.
    pub resume_token: String,
    /// How long the session waits for a disconnected client.
    pub grace_ms: u64,
    /// The interval of the gateway's pings.
    pub heartbeat_ms: u64,
    /// How the microphone can reach the gateway.
    pub media: MediaOffer,
    /// The expected format of binary frames from the client.
    pub audio: AudioFormat,
    /// The format of spoken responses on the WebSocket; absent where responses are text only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speech: Option<AudioFormat>,
    /// The options in force. `instructions` and `voice` are absent where the gateway's own are used.
    #[serde(default)]
    pub options: SessionOptions,
}

/// The part of `connection_ack` that MentraOS clients read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSession {
    /// The user.
    pub user_id: UserId,
    /// When the session began (RFC 3339).
    pub start_time: String,
    /// Always empty: the gateway runs no apps.
    pub active_app_sessions: Vec<String>,
    /// Always empty.
    pub loading_apps: Vec<String>,
    /// Always empty.
    pub app_subscriptions: serde_json::Map<String, serde_json::Value>,
    /// Always true.
    pub requires_audio: bool,
    /// The transcribed languages.
    pub minimum_transcription_languages: Vec<String>,
    /// Whether speech recognition works.
    pub is_transcribing: bool,
}

/// How the microphone can reach the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MediaOffer {
    /// The active source.
    pub active: MediaSource,
    /// All sources that the gateway accepts.
    pub offered: Vec<MediaSource>,
}

/// The format of binary frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioFormat {
    /// The encoding of samples.
    pub codec: Codec,
    /// Sample rate in Hz.
    pub sample_rate: u32,
    /// The preferred length of a frame, in milliseconds.
    pub frame_ms: u32,
    /// The number of the last frame received. A client that resumes continues after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u32>,
}

/// `livekit_info`, and `livekit` of `connection_ack`
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LivekitInfo {
    /// The URL of the LiveKit server.
    pub url: String,
    /// The room.
    pub room_name: RoomName,
    /// A new token.
    pub token: String,
    /// The identity that the token grants.
    pub identity: Identity,
    /// When the token expires, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// The required name of the microphone's track.
    pub track_name: String,
    /// What the token allows.
    pub role: LivekitRole,
}

impl std::fmt::Debug for LivekitInfo {
    /// Omits the token: it must not be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LivekitInfo")
            .field("room_name", &self.room_name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// What a LiveKit token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LivekitRole {
    /// Publishing the microphone and data.
    Publish,
    /// Subscribing, too.
    Subscribe,
}

/// A source of the user's audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MediaSource {
    /// The microphone's track in the LiveKit room.
    Livekit,
    /// Data packets in the LiveKit room.
    Data,
    /// Binary frames on the control channel.
    Ws,
    /// No source is active.
    None,
}

/// Why the active source changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaReason {
    /// Audio began to arrive from it.
    Audio,
    /// The other source fell silent.
    Failover,
    /// No source delivers audio.
    Silent,
    /// The gateway's participant joined the room.
    AgentJoined,
    /// LiveKit cannot be reached. The gateway retries, and accepts audio on the WebSocket meanwhile.
    LivekitUnreachable,
    /// Another participant took the gateway's identity in the room. The gateway does not reconnect.
    DuplicateIdentity,
    /// The room delivers no audio. It is expected on the control channel.
    LivekitSilent,
    /// The room had no microphone for long. The gateway's participant left, and returns with the microphone.
    AgentIdle,
    /// This gateway has no LiveKit.
    LivekitOff,
}

/// What audio is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MicrophoneData {
    /// The samples.
    Pcm,
    /// Transcripts made by the client.
    Transcription,
    /// Either.
    PcmOrTranscription,
}

/// The state of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// Working.
    Ready,
    /// Starting.
    Starting,
    /// Working with reduced quality.
    Degraded,
    /// Not working.
    Failed,
}

/// `data` of a `data_stream`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum StreamData {
    /// A transcript.
    Transcription {
        /// The utterance; the same from the first interim to the final transcript.
        utterance_id: UtteranceId,
        /// The whole utterance so far; replaces the previous transcript.
        text: String,
        /// Whether it is final. Each utterance has exactly one final transcript.
        is_final: bool,
        /// The start of the utterance.
        start_time: u64,
        /// The end of the transcribed audio.
        end_time: u64,
        /// The language that was heard, `en-US`; `und` where nobody knows.
        transcribe_language: String,
        /// The STT provider.
        provider: String,
        /// Whose microphone it is, where it is not the user's own: the participant's identity in the room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<Identity>,
        /// Who spoke, where that is known: the provider's label, the participant, or both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        speaker_id: Option<String>,
    },
    /// A translation of a final transcript.
    Translation {
        /// The utterance.
        utterance_id: UtteranceId,
        /// The whole utterance in the other language.
        text: String,
        /// What was said.
        original_text: String,
        /// Always true: interims are not translated.
        is_final: bool,
        /// The start of the utterance.
        start_time: u64,
        /// The end of the transcribed audio.
        end_time: u64,
        /// The language that was heard.
        transcribe_language: String,
        /// The language of the translation.
        translate_language: String,
        /// Whether it was translated. What is said in the other language already is not.
        did_translate: bool,
        /// The preferred LLM provider; the STT provider where nothing was translated.
        provider: String,
        /// Whose microphone it is, where it is not the user's own: the participant's identity in the room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<Identity>,
        /// Who spoke, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        speaker_id: Option<String>,
    },
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// It is complete.
    Stop,
    /// The user interrupted it by speaking, by typing or by a button.
    Interrupted,
    /// It failed.
    Error,
    /// It was cut at the greatest length or time of an answer.
    Length,
}

/// Where the spoken response is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Binary frames on the control channel.
    #[default]
    Ws,
    /// A track in the LiveKit room.
    Room,
}

/// `turn_metrics`: offsets in milliseconds from the end of speech, or from the typed message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnMetrics {
    /// The turn.
    pub turn_id: TurnId,
    /// When speech ended, in milliseconds since the session began. The other values count from here.
    pub speech_end_ms: u64,
    /// The final transcript.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_ms: Option<u64>,
    /// The first token of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// The first audio frame sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_audio_ms: Option<u64>,
    /// The first sample played, by the client's `playhead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_played_ms: Option<u64>,
}

/// Why an utterance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpeechEndReason {
    /// The speaker was silent for longer than the endpointing delay.
    Silence,
    /// The client's own voice activity detection ended it.
    ClientVad,
    /// It reached the maximum length. The next utterance begins at the next sample.
    Limit,
    /// Audio stopped arriving.
    Muted,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SessionEndReason")]
pub enum EndReason {
    /// The client did not reconnect in time.
    GraceExpired,
    /// A newer connection took it over.
    Superseded,
    /// It was ended by the user, or by a backend on their behalf.
    Logout,
    /// An operator ended it.
    Disconnected,
    /// The gateway shuts down.
    Shutdown,
}

impl EndReason {
    /// Whether the end was intended. The session's tokens are invalid then.
    pub const fn is_for_good(self) -> bool {
        match self {
            Self::Logout | Self::Disconnected => true,
            Self::GraceExpired | Self::Superseded | Self::Shutdown => false,
        }
    }
}

/// Why the result of a tool call is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolCancelReason {
    /// The response was interrupted, or ended without it.
    Interrupted,
    /// The result did not come in time.
    TimedOut,
}

impl ToClient {
    /// An `error` message.
    pub fn error(code: Code, message: impl Into<String>, reply_to: Option<String>) -> Self {
        Self::error_after(code, message, None, reply_to)
    }

    /// The same, with the time after which the message may succeed.
    pub fn error_after(
        code: Code,
        message: impl Into<String>,
        retry_after: Option<Duration>,
        reply_to: Option<String>,
    ) -> Self {
        let retry_after_ms = retry_after.map(|wait| wait.as_millis() as u64);
        Self::Error {
            code,
            message: message.into(),
            retryable: code.retryable(),
            retry_after_ms,
            reply_to,
            stream_type: None,
        }
    }

    /// The same, about a stream.
    #[must_use]
    pub fn of_stream(mut self, stream: &str) -> Self {
        if let Self::Error { stream_type, .. } = &mut self {
            *stream_type = Some(stream.to_owned());
        }
        self
    }

    /// Whether the message gets a `seq`, and is sent again to a client that resumes. Direct answers (`pong`),
    /// messages that carry a token, those that end a channel and those with a version of their own
    /// (`participants:update`) do not.
    pub const fn is_sequenced(&self) -> bool {
        match self {
            Self::ConnectionAck(_)
            | Self::ConnectionError { .. }
            | Self::AuthError { .. }
            | Self::ControlToken { .. }
            | Self::TokenExpiring { .. }
            | Self::TokenRenewed { .. }
            | Self::SessionConfigured { .. }
            | Self::Pong { .. }
            | Self::LivekitInfo(_)
            | Self::ParticipantsUpdate(_)
            | Self::SessionEnd { .. }
            | Self::Error { .. } => false,
            Self::MicrophoneStateChange { .. }
            | Self::MediaState { .. }
            | Self::DataStream { .. }
            | Self::SttState { .. }
            | Self::LlmState { .. }
            | Self::TtsState { .. }
            | Self::SpeechStarted { .. }
            | Self::SpeechEnded { .. }
            | Self::TurnStarted { .. }
            | Self::ToolCall { .. }
            | Self::ToolCallCancelled { .. }
            | Self::AnswerDelta { .. }
            | Self::AnswerDone { .. }
            | Self::SpeechBegin { .. }
            | Self::SpeechFinish { .. }
            | Self::AudioStopRequest { .. }
            | Self::TurnMetrics(_)
            | Self::TurnSaved { .. } => true,
        }
    }

    /// Encodes the message as a text frame, with its sequence number if it has one.
    pub fn encode(&self, seq: Option<u64>) -> String {
        let json = serde_json::to_string(self).expect("messages have only JSON fields");
        match seq {
            Some(seq) => format!("{{\"seq\":{seq},{}", &json[1..]),
            None => json,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_number_is_a_field_of_the_message() {
        let message = ToClient::AnswerDelta { turn_id: TurnId(3), text: "Hello".into() };
        let json: serde_json::Value = serde_json::from_str(&message.encode(Some(41))).unwrap();

        assert_eq!(
            json,
            serde_json::json!({"seq": 41, "type": "answer_delta", "turnId": "turn_3", "text": "Hello"})
        );
    }

    #[test]
    fn a_token_does_not_show_in_a_debug_print() {
        let info = LivekitInfo {
            url: "ws://127.0.0.1:7880".into(),
            room_name: RoomName::parse("room-a").unwrap(),
            token: "the-secret-jwt".into(),
            identity: Identity::parse("a").unwrap(),
            expires_at: 0,
            track_name: "mic".into(),
            role: LivekitRole::Publish,
        };
        assert!(!format!("{info:?}").contains("the-secret-jwt"));
    }
}
