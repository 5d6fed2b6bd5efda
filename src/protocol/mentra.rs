//! The `mentra` profile: the wire of MentraOS phones and glasses.
//!
//! Messages are translated from and to those of `edge.v1`. Messages without a counterpart are not sent, and no
//! message has a `seq`. The gateway handles a few types of clients' messages, and forwards all others. Binary
//! frames are PCM samples without a header. docs/MENTRA.md shows each message by an example.

use serde::{Deserialize, Serialize};

use crate::{
    clock,
    error::{Close, Code},
    ids::{RoomName, SessionId},
    protocol::{
        ClientMessage, DecodeError, Profile, ToClient,
        edge_v1::to_client::{LivekitInfo, MicrophoneData, PartState, UserSession},
    },
};

/// `appId` and `packageName` of what the gateway shows or plays.
pub const APP: &str = "june";

/// The types that the gateway handles. Other types of this profile are forwarded, even if `edge.v1` has a type of
/// the same name.
const KNOWN: &[&str] = &[
    "connection_init",
    "ping",
    "pong",
    "VAD",
    "vad",
    "livekit_init",
    "phone_subscription_update",
    "local_transcription",
    "glasses_connection_state",
    "audio_play_response",
];

/// Messages to clients that differ from those of `edge.v1`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ToMentra {
    /// The session is attached.
    ConnectionAck {
        session_id: SessionId,
        timestamp: String,
        /// How to join the room; absent if the client did not request it.
        #[serde(skip_serializing_if = "Option::is_none")]
        livekit: Option<Join>,
        user_session: UserSession,
    },
    /// A request was rejected. Clients log it.
    ConnectionError { code: Code, message: String, timestamp: String },
    /// The desired state of the microphone.
    MicrophoneStateChange {
        /// Read by the first generation of clients.
        is_microphone_enabled: bool,
        /// Read by later generations; empty means off.
        required_data: Vec<MicrophoneData>,
        /// Send all audio, not only speech detected by the client's VAD.
        bypass_vad: bool,
        session_id: SessionId,
        timestamp: String,
        user_session: UserSession,
    },
    /// How to join the room.
    LivekitInfo(Join),
    /// Shows something on the glasses.
    DisplayEvent {
        package_name: String,
        /// Required: clients ignore events without it.
        view: String,
        layout: Layout,
        timestamp: String,
    },
    /// Fetches and plays a file.
    AudioPlayRequest {
        /// Echoed in `audio_play_response`.
        request_id: String,
        app_id: String,
        audio_url: String,
        /// Whether it stops what is being played.
        stop_other_audio: bool,
    },
}

/// How to join the LiveKit room.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    pub url: String,
    pub room_name: RoomName,
    pub token: String,
}

impl std::fmt::Debug for Join {
    /// Omits the token: it must not be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("room_name", &self.room_name).finish_non_exhaustive()
    }
}

/// The layout of what glasses show.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "layoutType", rename_all = "snake_case")]
pub enum Layout {
    TextWall { text: String },
}

impl ToMentra {
    /// Text on the main view.
    fn show(text: String, timestamp: String) -> Self {
        Self::DisplayEvent {
            package_name: APP.into(),
            view: "main".into(),
            layout: Layout::TextWall { text },
            timestamp,
        }
    }

    /// Plays the file at a URL.
    pub fn play(request_id: String, audio_url: String) -> Self {
        Self::AudioPlayRequest { request_id, app_id: APP.into(), audio_url, stop_other_audio: true }
    }

    /// Encodes the message as a text frame.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("messages have only JSON fields")
    }
}

/// What is added to a message.
pub struct Context<F> {
    /// Returns the session in the format of these clients.
    pub user_session: F,
    /// The time of sending (RFC 3339).
    pub timestamp: String,
}

/// Decodes a text frame of this profile.
pub fn decode(text: &str) -> Result<ClientMessage, DecodeError> {
    ClientMessage::decode_known(text, |kind| KNOWN.contains(&kind))
}

/// Encodes a message as a text frame of this profile; none if it has no counterpart.
pub fn encode(message: &ToClient, context: Context<impl FnOnce() -> UserSession>) -> Option<String> {
    let Context { user_session, timestamp } = context;
    let translated = match message {
        ToClient::ConnectionAck(ack) => ToMentra::ConnectionAck {
            session_id: ack.session_id,
            timestamp: ack.timestamp.clone(),
            livekit: ack.livekit.as_ref().map(Join::from),
            user_session: ack.user_session.clone(),
        },
        ToClient::ConnectionError { code, message, timestamp, .. } => {
            ToMentra::ConnectionError { code: *code, message: message.clone(), timestamp: timestamp.clone() }
        }
        ToClient::MicrophoneStateChange {
            is_microphone_enabled,
            required_data,
            bypass_vad,
            session_id,
            timestamp,
            ..
        } => ToMentra::MicrophoneStateChange {
            is_microphone_enabled: *is_microphone_enabled,
            required_data: required_data.clone(),
            bypass_vad: *bypass_vad,
            session_id: *session_id,
            timestamp: timestamp.clone(),
            user_session: user_session(),
        },
        ToClient::LivekitInfo(info) => ToMentra::LivekitInfo(info.into()),
        ToClient::AnswerDone { text, .. } if !text.trim().is_empty() => {
            ToMentra::show(text.clone(), timestamp)
        }
        ToClient::SttState {
            state: PartState::Failed | PartState::Degraded, taken_over_by: None, ..
        } => ToMentra::show("I cannot understand you at the moment.".into(), timestamp),
        ToClient::Error { code: Code::AiUnavailable, stream_type: None, .. } => {
            ToMentra::show("I have no answer at the moment.".into(), timestamp)
        }
        // The only message of this profile that reports an error.
        ToClient::Error { code, message, .. } => {
            ToMentra::ConnectionError { code: *code, message: message.clone(), timestamp }
        }
        // Identical in both profiles.
        ToClient::AuthError { .. }
        | ToClient::Pong { .. }
        | ToClient::DataStream { .. }
        | ToClient::AudioStopRequest { .. } => return Some(message.encode(None)),
        ToClient::ControlToken { .. }
        | ToClient::TokenExpiring { .. }
        | ToClient::TokenRenewed { .. }
        | ToClient::MediaState { .. }
        | ToClient::SttState { .. }
        | ToClient::LlmState { .. }
        | ToClient::TtsState { .. }
        | ToClient::SpeechStarted { .. }
        | ToClient::SpeechEnded { .. }
        | ToClient::TurnStarted { .. }
        | ToClient::ToolCall { .. }
        | ToClient::ToolCallCancelled { .. }
        | ToClient::AnswerDelta { .. }
        | ToClient::AnswerDone { .. }
        | ToClient::SpeechBegin { .. }
        | ToClient::SpeechFinish { .. }
        | ToClient::TurnMetrics(_)
        | ToClient::TurnSaved { .. }
        | ToClient::ParticipantsUpdate(_)
        | ToClient::SessionConfigured { .. }
        | ToClient::SessionEnd { .. } => return None,
    };
    Some(translated.encode())
}

impl From<&LivekitInfo> for Join {
    fn from(info: &LivekitInfo) -> Self {
        Self { url: info.url.clone(), room_name: info.room_name.clone(), token: info.token.clone() }
    }
}

impl Profile {
    /// Maps a close code to this profile: `mentra` has no codes above 4000.
    pub const fn close(self, close: Close) -> Close {
        match (self, close) {
            (Self::EdgeV1, _) => close,
            (Self::Mentra, Close::Superseded) => Close::Normal,
            (Self::Mentra, Close::Unauthorized | Close::RateLimited) => Close::Policy,
            (Self::Mentra, Close::SlowClient) => Close::Overloaded,
            (
                Self::Mentra,
                Close::Normal
                | Close::GoingAway
                | Close::Protocol
                | Close::InvalidText
                | Close::Policy
                | Close::TooBig
                | Close::Internal
                | Close::Restart
                | Close::Overloaded,
            ) => close,
        }
    }

    /// Encodes the error for a message of a client.
    pub fn refusal(self, code: Code, message: String) -> String {
        match self {
            Self::EdgeV1 => ToClient::error(code, message, None).encode(None),
            Self::Mentra => {
                let timestamp = clock::timestamp(clock::unix_ms());
                ToMentra::ConnectionError { code, message, timestamp }.encode()
            }
        }
    }

    /// Decodes a text frame.
    pub fn decode(self, text: &str) -> Result<ClientMessage, DecodeError> {
        match self {
            Self::EdgeV1 => ClientMessage::decode(text),
            Self::Mentra => decode(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::protocol::FromClient;

    const PAGE: &str = include_str!("../../docs/MENTRA.md");

    /// The examples between two headings of the page.
    fn examples(from: &str, to: &str) -> Vec<Value> {
        let section = PAGE.split(from).nth(1).and_then(|rest| rest.split(to).next()).expect("both headings");
        section
            .split("```json")
            .skip(1)
            .map(|block| block.split("```").next().expect("a closed block"))
            .map(|example| serde_json::from_str(example).unwrap_or_else(|error| panic!("{error}: {example}")))
            .collect()
    }

    #[test]
    fn every_type_that_the_gateway_handles_has_an_example_that_is_decoded() {
        let mut shown = BTreeSet::new();
        for example in examples("## Client to gateway", "## Gateway to client") {
            let decoded = decode(&example.to_string()).unwrap_or_else(|error| panic!("{error}: {example}"));
            assert!(!matches!(decoded.message, FromClient::Other { .. }), "{example}");
            shown.insert(example["type"].as_str().unwrap().to_owned());
        }
        let known: BTreeSet<String> =
            KNOWN.iter().filter(|kind| **kind != "vad").map(|kind| (*kind).to_owned()).collect();
        assert_eq!(shown, known);
    }

    #[test]
    fn every_example_of_the_gateway_is_what_the_gateway_encodes() {
        let mut shown = BTreeSet::new();
        for example in examples("## Gateway to client", "## ") {
            let kind = example["type"].as_str().unwrap().to_owned();
            let encoded = match kind.as_str() {
                "auth_error" | "pong" | "data_stream" | "audio_stop_request" => {
                    let message: ToClient = serde_json::from_value(example.clone()).unwrap();
                    let context = Context { user_session: || unreachable!(), timestamp: String::new() };
                    encode(&message, context).unwrap()
                }
                _ => serde_json::from_value::<ToMentra>(example.clone())
                    .unwrap_or_else(|error| panic!("{error}: {example}"))
                    .encode(),
            };
            assert_eq!(serde_json::from_str::<Value>(&encoded).unwrap(), example);
            shown.insert(kind);
        }
        assert_eq!(shown.len(), 10, "{shown:?}");
    }

    #[test]
    fn types_of_the_other_profile_are_forwarded_like_unknown_types() {
        for text in [r#"{"type":"say","text":"Hello"}"#, r#"{"type":"goodbye"}"#, r#"{"type":"playhead"}"#] {
            assert!(matches!(decode(text).unwrap().message, FromClient::Other { .. }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in "\\PC{0,200}") {
            let _ = decode(&text);
        }

        #[test]
        fn no_object_of_a_known_type_makes_it_panic(kind in 0..KNOWN.len(), rest in "\"[a-zA-Z]{1,10}\":(1|true|null|\"x\"|\\[\\])") {
            let _ = decode(&format!("{{\"type\":\"{}\",{rest}}}", KNOWN[kind]));
        }
    }
}
