//! The `mentra` profile: the wire of MentraOS' phones and glasses, over the same messages.
//!
//! Only names that those clients know are written (protocol.md §1.3), none of them with a `seq`; what
//! has no such name is not sent. Of what they say, a few types concern the gateway; every other is
//! passed on. Binary frames are bare samples. docs/MENTRA.md shows each message by an example.

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

/// Who asks a client to show or to play something, as its `appId` or `packageName`.
pub const APP: &str = "june";

/// The types that concern the gateway itself. A client of this profile has no other ones in common
/// with `edge.v1`, whatever they are called.
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

/// What is told to clients of this profile in their own way.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum ToMentra {
    /// The session is attached.
    ConnectionAck {
        /// The session.
        session_id: SessionId,
        /// When.
        timestamp: String,
        /// How to join the room, where the client asked for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        livekit: Option<Join>,
        /// The session as these clients know it.
        user_session: UserSession,
    },
    /// Something was refused; clients log it.
    ConnectionError {
        /// Why.
        code: Code,
        /// For people.
        message: String,
        /// When.
        timestamp: String,
    },
    /// What the gateway wants of the microphone.
    MicrophoneStateChange {
        /// The first generation reads this,
        is_microphone_enabled: bool,
        /// the later ones this: empty means off.
        required_data: Vec<MicrophoneData>,
        /// Send all sound, not only what the client's VAD lets through.
        bypass_vad: bool,
        /// Whose microphone.
        session_id: SessionId,
        /// When.
        timestamp: String,
        /// The session as these clients know it.
        user_session: UserSession,
    },
    /// How to join the room.
    LivekitInfo(Join),
    /// Show something on the glasses.
    DisplayEvent {
        /// Who shows it.
        package_name: String,
        /// Where: clients drop what does not say so.
        view: String,
        /// What.
        layout: Layout,
        /// When.
        timestamp: String,
    },
    /// Fetch a file and play it.
    AudioPlayRequest {
        /// Comes back in `audio_play_response`.
        request_id: String,
        /// Who plays it.
        app_id: String,
        /// Where it is.
        audio_url: String,
        /// Whether it replaces what is being played.
        stop_other_audio: bool,
    },
}

/// How to join the LiveKit room.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// The server.
    pub url: String,
    /// The room.
    pub room_name: RoomName,
    /// A fresh token.
    pub token: String,
}

impl std::fmt::Debug for Join {
    /// Leaves the token out: it must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("room_name", &self.room_name).finish_non_exhaustive()
    }
}

/// What glasses show.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "layoutType", rename_all = "snake_case")]
pub enum Layout {
    /// Text, from the top.
    TextWall {
        /// What it says.
        text: String,
    },
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

    /// Asks a client to play what is behind a URL.
    pub fn play(request_id: String, audio_url: String) -> Self {
        Self::AudioPlayRequest { request_id, app_id: APP.into(), audio_url, stop_other_audio: true }
    }

    /// Writes the message as a text frame.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("messages have only JSON fields")
    }
}

/// What a message needs besides itself.
pub struct Context<F> {
    /// Makes the session as these clients know it.
    pub user_session: F,
    /// Now, as it stands in messages.
    pub timestamp: String,
}

/// Reads a text frame of this profile.
pub fn decode(text: &str) -> Result<ClientMessage, DecodeError> {
    ClientMessage::decode_known(text, |kind| KNOWN.contains(&kind))
}

/// Writes a message as a text frame of this profile; none where these clients have no name for it.
pub fn encode(message: &ToClient, context: Context<impl FnOnce() -> UserSession>) -> Option<String> {
    let Context { user_session, timestamp } = context;
    let said = match message {
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
        ToClient::SttState { state: PartState::Failed | PartState::Degraded, .. } => {
            ToMentra::show("I cannot understand you at the moment.".into(), timestamp)
        }
        ToClient::Error { code: Code::AiUnavailable, .. } => {
            ToMentra::show("I have no answer at the moment.".into(), timestamp)
        }
        // The only message of theirs that says that something is wrong; they log it.
        ToClient::Error { code, message, .. } => {
            ToMentra::ConnectionError { code: *code, message: message.clone(), timestamp }
        }
        // The same in both profiles.
        ToClient::AuthError { .. }
        | ToClient::Pong { .. }
        | ToClient::DataStream { .. }
        | ToClient::AudioStopRequest { .. } => return Some(message.encode(None)),
        ToClient::ControlToken { .. }
        | ToClient::TokenExpiring { .. }
        | ToClient::TokenRenewed { .. }
        | ToClient::MediaState { .. }
        | ToClient::SttState { .. }
        | ToClient::SpeechStarted { .. }
        | ToClient::SpeechEnded { .. }
        | ToClient::TurnStarted { .. }
        | ToClient::AnswerDelta { .. }
        | ToClient::AnswerDone { .. }
        | ToClient::SpeechBegin { .. }
        | ToClient::SpeechFinish { .. }
        | ToClient::TurnMetrics(_)
        | ToClient::TurnSaved { .. }
        | ToClient::ParticipantsUpdate(_)
        | ToClient::SessionEnd { .. } => return None,
    };
    Some(said.encode())
}

impl From<&LivekitInfo> for Join {
    fn from(info: &LivekitInfo) -> Self {
        Self { url: info.url.clone(), room_name: info.room_name.clone(), token: info.token.clone() }
    }
}

impl Profile {
    /// The close that a client of this profile is given: those of `mentra` have none of the 4000s.
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
                | Close::Policy
                | Close::TooBig
                | Close::Internal
                | Close::Restart
                | Close::Overloaded,
            ) => close,
        }
    }

    /// Writes a refusal of something that a client said.
    pub fn refusal(self, code: Code, message: String) -> String {
        match self {
            Self::EdgeV1 => ToClient::error(code, message, None).encode(None),
            Self::Mentra => {
                let timestamp = clock::timestamp(clock::unix_ms());
                ToMentra::ConnectionError { code, message, timestamp }.encode()
            }
        }
    }

    /// Reads a text frame.
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
    fn every_type_that_concerns_the_gateway_has_an_example_that_is_read() {
        let mut shown = BTreeSet::new();
        for example in examples("## Client to gateway", "## Gateway to client") {
            let said = decode(&example.to_string()).unwrap_or_else(|error| panic!("{error}: {example}"));
            assert!(!matches!(said.message, FromClient::Other { .. }), "{example}");
            shown.insert(example["type"].as_str().unwrap().to_owned());
        }
        let known: BTreeSet<String> =
            KNOWN.iter().filter(|kind| **kind != "vad").map(|kind| (*kind).to_owned()).collect();
        assert_eq!(shown, known);
    }

    #[test]
    fn every_example_of_the_gateway_is_what_the_gateway_writes() {
        let mut shown = BTreeSet::new();
        for example in examples("## Gateway to client", "## ") {
            let kind = example["type"].as_str().unwrap().to_owned();
            let written = match kind.as_str() {
                "auth_error" | "pong" | "data_stream" | "audio_stop_request" => {
                    let message: ToClient = serde_json::from_value(example.clone()).unwrap();
                    let context = Context { user_session: || unreachable!(), timestamp: String::new() };
                    encode(&message, context).unwrap()
                }
                _ => serde_json::from_value::<ToMentra>(example.clone())
                    .unwrap_or_else(|error| panic!("{error}: {example}"))
                    .encode(),
            };
            assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), example);
            shown.insert(kind);
        }
        assert_eq!(shown.len(), 10, "{shown:?}");
    }

    #[test]
    fn types_of_the_other_profile_are_passed_on_like_any_unknown_one() {
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
