//! What the gateway says on the control channel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    error::{ApiError, Code},
    ids::{Identity, RoomName, SessionId, TurnId, UserId, UtteranceId},
    protocol::edge_v1::audio::Codec,
    room::roster,
    secret::Secret,
    turn::utterance_detector,
};

/// One message to a client. Times are milliseconds of the session unless a field says otherwise;
/// `timestamp` is a calendar time (RFC 3339).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ToClient {
    /// The session is attached.
    ConnectionAck(Box<ConnectionAck>),
    /// The session could not be attached; the channel closes.
    ConnectionError {
        /// Why.
        code: Code,
        /// For people.
        message: String,
        /// When.
        timestamp: String,
        /// Whether another try may work.
        retryable: bool,
        /// How long to wait before it, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// The token ended while the channel was up: log in again.
    AuthError {
        /// For people.
        message: String,
    },
    /// A fresh control token, by which the channel goes on; for the next connection, too. Comes on request
    /// and, unasked, before the last one ends.
    ControlToken {
        /// The token.
        control_token: Secret,
        /// When it ends, in seconds since the Unix epoch.
        expires_at: u64,
    },
    /// The client's own token ends soon: send a fresh one in a `renew_token`.
    TokenExpiring {
        /// When it ends, in seconds since the Unix epoch.
        expires_at: u64,
    },
    /// The client's own fresh token was accepted.
    TokenRenewed {
        /// When it ends, in seconds since the Unix epoch; absent where it never does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        /// The `id` of the `renew_token`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
    },
    /// The answer to `ping`.
    Pong {
        /// What the `ping` carried.
        #[serde(skip_serializing_if = "Option::is_none")]
        t: Option<serde_json::Number>,
    },
    /// What the gateway wants of the microphone: the desired state, sent again until it is observed.
    MicrophoneStateChange {
        /// On or off.
        is_microphone_enabled: bool,
        /// What the sound is wanted for; empty means off.
        required_data: Vec<MicrophoneData>,
        /// Send all sound, not only what the client's VAD lets through.
        bypass_vad: bool,
        /// Whose microphone.
        session_id: SessionId,
        /// When.
        timestamp: String,
        /// Counts changes; echoed by `microphone_state_ack`.
        version: u64,
    },
    /// How to join the LiveKit room; comes with a token that was signed for this message.
    LivekitInfo(LivekitInfo),
    /// Where the gateway takes the user's voice from.
    MediaState {
        /// The source that is heard at the moment.
        active: MediaSource,
        /// Why it is that one.
        reason: MediaReason,
        /// How long ago sound last came, if it ever did.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_audio_age_ms: Option<u64>,
    },
    /// Data of a stream the client subscribed to.
    DataStream {
        /// The session.
        session_id: SessionId,
        /// The subscription, in the client's own words.
        stream_type: String,
        /// What came.
        data: StreamData,
        /// When.
        timestamp: String,
    },
    /// Whether speech recognition works.
    SttState {
        /// How it is.
        state: PartState,
        /// Which engine.
        provider: String,
        /// What is wrong, for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// The gate opened: somebody speaks.
    SpeechStarted {
        /// The utterance that began.
        utterance_id: UtteranceId,
        /// When its first sample was heard.
        at: u64,
        /// Where it is heard.
        source: MediaSource,
    },
    /// The gate closed.
    SpeechEnded {
        /// The utterance that ended.
        utterance_id: UtteranceId,
        /// When the gate decided so.
        at: u64,
        /// Where it was heard.
        source: MediaSource,
        /// Why it ended.
        reason: utterance_detector::EndReason,
    },
    /// The answer to what was said is being made.
    TurnStarted {
        /// The turn.
        turn_id: TurnId,
        /// Grows with each answer; audio frames carry it.
        generation: u32,
        /// What is answered; empty for a typed turn.
        utterance_ids: Vec<UtteranceId>,
    },
    /// More of the answer's text; appends.
    AnswerDelta {
        /// The turn.
        turn_id: TurnId,
        /// The piece.
        text: String,
    },
    /// The whole of the answer's text.
    AnswerDone {
        /// The turn.
        turn_id: TurnId,
        /// All of it.
        text: String,
        /// How it ended.
        finish: Finish,
    },
    /// The answer is going to be heard; binary frames of this generation follow.
    SpeechBegin {
        /// The turn.
        turn_id: TurnId,
        /// The generation of its frames.
        generation: u32,
        /// How they are packed.
        codec: Codec,
        /// In Hz.
        sample_rate: u32,
        /// Always 1.
        channels: u8,
        /// Where the sound comes from.
        delivery: Delivery,
    },
    /// All frames of this generation have been sent.
    SpeechFinish {
        /// The turn.
        turn_id: TurnId,
        /// The generation that is over.
        generation: u32,
        /// How it ended.
        finish: Finish,
    },
    /// Stop playing at once (barge-in).
    AudioStopRequest {
        /// Who asks; the gateway itself.
        app_id: String,
    },
    /// How long the turn took, from the end of speech.
    TurnMetrics(TurnMetrics),
    /// The turn is on disk.
    TurnSaved {
        /// The turn.
        turn_id: TurnId,
        /// Its place in the history.
        history_seq: u64,
    },
    /// Who is in a room: first everybody, then what changed.
    #[serde(rename = "participants:update")]
    ParticipantsUpdate(ParticipantsUpdate),
    /// The session is over; the channel closes.
    SessionEnd {
        /// Why.
        reason: EndReason,
    },
    /// Something was wrong with one message; the session goes on.
    Error {
        /// What.
        code: Code,
        /// For people.
        message: String,
        /// Whether the same message may work later.
        retryable: bool,
        /// The `id` of the message.
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<String>,
    },
}

/// `connection_ack`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionAck {
    /// The session.
    pub session_id: SessionId,
    /// When.
    pub timestamp: String,
    /// How to join the room; absent where the client brings no LiveKit or the gateway has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub livekit: Option<LivekitInfo>,
    /// The session as MentraOS clients know it.
    pub user_session: UserSession,
    /// `edge.v1`.
    pub protocol: String,
    /// Counts attachments of the session; a stale socket is fenced by it.
    pub epoch: u64,
    /// Whether an earlier connection goes on, with everything that was missed following.
    pub resumed: bool,
    /// The secret that resumes this session.
    pub resume_token: String,
    /// How long the session waits for its client to come back.
    pub grace_ms: u64,
    /// How often the gateway pings.
    pub heartbeat_ms: u64,
    /// Ways to bring the microphone.
    pub media: MediaOffer,
    /// What binary frames up are expected to be.
    pub audio: AudioFormat,
}

/// The part of `connection_ack` that MentraOS clients read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSession {
    /// Whose session.
    pub user_id: UserId,
    /// When it began.
    pub start_time: String,
    /// Always empty: the gateway runs no apps.
    pub active_app_sessions: Vec<String>,
    /// Always empty.
    pub loading_apps: Vec<String>,
    /// Always empty.
    pub app_subscriptions: serde_json::Map<String, serde_json::Value>,
    /// The gateway always listens.
    pub requires_audio: bool,
    /// The languages that are transcribed.
    pub minimum_transcription_languages: Vec<String>,
    /// Whether speech recognition works.
    pub is_transcribing: bool,
}

/// Ways to bring the microphone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MediaOffer {
    /// The one that is heard at the moment.
    pub active: MediaSource,
    /// All that would work.
    pub offered: Vec<MediaSource>,
}

/// What binary frames are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AudioFormat {
    /// How samples are packed.
    pub codec: Codec,
    /// In Hz.
    pub sample_rate: u32,
    /// The length of a frame that suits the gateway best, in milliseconds.
    pub frame_ms: u32,
    /// The number of the last frame that arrived: a client that comes back goes on behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u32>,
}

/// `livekit_info`, and `livekit` of `connection_ack`
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LivekitInfo {
    /// The server.
    pub url: String,
    /// The room.
    pub room_name: RoomName,
    /// A fresh token.
    pub token: String,
    /// Who the token makes the client.
    pub identity: Identity,
    /// When the token ends, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// The name the microphone's track must have.
    pub track_name: String,
    /// What the token allows.
    pub role: LivekitRole,
}

impl std::fmt::Debug for LivekitInfo {
    /// Leaves the token out: it must not reach a log.
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
    /// To publish the microphone, and data.
    Publish,
    /// To subscribe, too.
    Subscribe,
}

/// Where a voice comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MediaSource {
    /// The microphone's track in the LiveKit room.
    Livekit,
    /// Data packets in the LiveKit room.
    Data,
    /// Binary frames on the control channel.
    Ws,
    /// Nowhere at the moment.
    None,
}

/// Why the active source is the one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaReason {
    /// Sound began to come from it.
    Audio,
    /// The other one fell silent.
    Failover,
    /// No sound comes from anywhere.
    Silent,
    /// The gateway's own participant joined the room.
    AgentJoined,
    /// LiveKit cannot be reached; the gateway keeps trying, the WebSocket takes sound meanwhile.
    LivekitUnreachable,
    /// Another participant took the gateway's identity in the room; it does not fight for it.
    DuplicateIdentity,
    /// The room should bring sound and brings none; it is expected on the control channel.
    LivekitSilent,
    /// There was no microphone in the room for long: the gateway's participant left, and comes back with
    /// the microphone.
    AgentIdle,
    /// This gateway has no LiveKit.
    LivekitOff,
}

/// What the sound is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MicrophoneData {
    /// The samples.
    Pcm,
    /// Words, made by the client.
    Transcription,
    /// Either.
    PcmOrTranscription,
}

/// How a part of the pipeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartState {
    /// At work.
    Ready,
    /// Not yet.
    Starting,
    /// At work, but worse than it should be.
    Degraded,
    /// Not at work.
    Failed,
}

/// `data` of a `data_stream`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum StreamData {
    /// What was said.
    Transcription {
        /// Stays the same from the first interim to the final.
        utterance_id: UtteranceId,
        /// The whole utterance so far; replaces the one before.
        text: String,
        /// Whether it is the last. Exactly one an utterance is.
        is_final: bool,
        /// When it began.
        start_time: u64,
        /// How far it goes.
        end_time: u64,
        /// The language, `en-US`.
        transcribe_language: String,
        /// Which engine.
        provider: String,
    },
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// It was complete.
    Stop,
    /// The user spoke, typed or pressed a button.
    Interrupted,
    /// It could not be made.
    Error,
}

/// Where the spoken answer is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// Binary frames on the control channel.
    #[default]
    Ws,
    /// A track in the LiveKit room.
    Room,
}

/// `turn_metrics`: offsets in milliseconds from the end of speech (of the typed line).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnMetrics {
    /// The turn.
    pub turn_id: TurnId,
    /// When speech ended, in milliseconds of the session: what the others count from.
    pub speech_end_ms: u64,
    /// The final transcript.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_ms: Option<u64>,
    /// The first piece of the answer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// The first audio frame sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_audio_ms: Option<u64>,
    /// The first sample played, by the client's `playhead`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_played_ms: Option<u64>,
}

/// `participants:update`
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ParticipantsUpdate {
    /// Whose participants.
    pub room: RoomName,
    /// Changes when the gateway forgot the room in between: then only a snapshot counts.
    pub epoch: u64,
    /// Grows by one with each change.
    pub version: u64,
    /// Everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<roster::Participant>>")]
    pub snapshot: Option<serde_json::Value>,
    /// What changed since `version - 1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<roster::Diff>")]
    pub diff: Option<serde_json::Value>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "SessionEndReason")]
pub enum EndReason {
    /// Its client did not come back in time.
    GraceExpired,
    /// A newer socket took it.
    Superseded,
    /// The user, or somebody on their behalf, ended it.
    Logout,
    /// An operator disconnected it.
    Disconnected,
    /// The gateway goes down.
    Shutdown,
}

impl EndReason {
    /// Whether somebody wanted the end: its tokens open nothing any more.
    pub const fn is_for_good(self) -> bool {
        match self {
            Self::Logout | Self::Disconnected => true,
            Self::GraceExpired | Self::Superseded | Self::Shutdown => false,
        }
    }
}

impl ToClient {
    /// An `error` message.
    pub fn error(code: Code, message: impl Into<String>, reply_to: Option<String>) -> Self {
        Self::Error { code, message: message.into(), retryable: code.retryable(), reply_to }
    }

    /// A `connection_error`.
    pub fn refusal(error: ApiError) -> Self {
        Self::ConnectionError {
            code: error.code,
            message: error.message,
            timestamp: clock::timestamp(clock::unix_ms()),
            retryable: error.code.retryable(),
            retry_after_ms: error.retry_after.map(|wait| wait.as_millis() as u64),
        }
    }

    /// Whether the message has a place in the session's sequence: it gets a `seq`, and a client that
    /// was away gets it on its return. Answers to the moment (`pong`), messages with a token in them,
    /// those that end a channel and those with a version of their own (`participants:update`) do not.
    pub const fn is_sequenced(&self) -> bool {
        match self {
            Self::ConnectionAck(_)
            | Self::ConnectionError { .. }
            | Self::AuthError { .. }
            | Self::ControlToken { .. }
            | Self::TokenExpiring { .. }
            | Self::TokenRenewed { .. }
            | Self::Pong { .. }
            | Self::LivekitInfo(_)
            | Self::ParticipantsUpdate(_)
            | Self::SessionEnd { .. }
            | Self::Error { .. } => false,
            Self::MicrophoneStateChange { .. }
            | Self::MediaState { .. }
            | Self::DataStream { .. }
            | Self::SttState { .. }
            | Self::SpeechStarted { .. }
            | Self::SpeechEnded { .. }
            | Self::TurnStarted { .. }
            | Self::AnswerDelta { .. }
            | Self::AnswerDone { .. }
            | Self::SpeechBegin { .. }
            | Self::SpeechFinish { .. }
            | Self::AudioStopRequest { .. }
            | Self::TurnMetrics(_)
            | Self::TurnSaved { .. } => true,
        }
    }

    /// Writes the message as a text frame, with its sequence number if it has one.
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
