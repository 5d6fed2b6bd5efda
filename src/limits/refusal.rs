//! The limits by name, and what a caller learns that is over one.

use std::{fmt, time::Duration};

use crate::{error::Code, telemetry};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    CreationsByUser,
    CreationsByAddress,
    CreationsByKey,
    UnusedSessions,
    UnusedSessionsByUser,
    Sessions,
    SessionsByUser,
    SocketsByUser,
    Streams,
    StreamsByUser,
    StreamsByAddress,
    RoomsByChannel,
    Consumers,
    Tokens,
    GuestTokens,
    StreamTokens,
    Lines,
    Transcripts,
    Interims,
    Images,
    ImagesByUser,
    SessionOptions,
    LlmRunning,
    LlmCallsPerMinute,
    LlmCallsPerDay,
    LlmTokensPerDay,
    LlmGatewayCallsPerMinute,
    LlmGatewayCallsPerDay,
    LlmGatewayTokensPerDay,
    AnswerTime,
    AnswerChars,
    Audio,
    Utterances,
    UtterancesByUser,
    UtterancesBeside,
    Subscriptions,
    Translations,
    Participants,
    Clips,
    DenyByRoom,
    DenyByUser,
    DenyList,
}

/// Every limit, for the metric's labels and the documentation.
pub(crate) const ALL: [Limit; 42] = [
    Limit::CreationsByUser,
    Limit::CreationsByAddress,
    Limit::CreationsByKey,
    Limit::UnusedSessions,
    Limit::UnusedSessionsByUser,
    Limit::Sessions,
    Limit::SessionsByUser,
    Limit::SocketsByUser,
    Limit::Streams,
    Limit::StreamsByUser,
    Limit::StreamsByAddress,
    Limit::RoomsByChannel,
    Limit::Consumers,
    Limit::Tokens,
    Limit::GuestTokens,
    Limit::StreamTokens,
    Limit::Lines,
    Limit::Transcripts,
    Limit::Interims,
    Limit::Images,
    Limit::ImagesByUser,
    Limit::SessionOptions,
    Limit::LlmRunning,
    Limit::LlmCallsPerMinute,
    Limit::LlmCallsPerDay,
    Limit::LlmTokensPerDay,
    Limit::LlmGatewayCallsPerMinute,
    Limit::LlmGatewayCallsPerDay,
    Limit::LlmGatewayTokensPerDay,
    Limit::AnswerTime,
    Limit::AnswerChars,
    Limit::Audio,
    Limit::Utterances,
    Limit::UtterancesByUser,
    Limit::UtterancesBeside,
    Limit::Subscriptions,
    Limit::Translations,
    Limit::Participants,
    Limit::Clips,
    Limit::DenyByRoom,
    Limit::DenyByUser,
    Limit::DenyList,
];

/// The names of the limits in metrics.
pub(crate) const LABELS: [&str; ALL.len()] = {
    let mut labels = [""; ALL.len()];
    let mut at = 0;
    while at < ALL.len() {
        labels[at] = ALL[at].label();
        at += 1;
    }
    labels
};

impl Limit {
    /// Its name in metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::CreationsByUser => "creations_by_user",
            Self::CreationsByAddress => "creations_by_address",
            Self::CreationsByKey => "creations_by_key",
            Self::UnusedSessions => "unused_sessions",
            Self::UnusedSessionsByUser => "unused_sessions_by_user",
            Self::Sessions => "sessions",
            Self::SessionsByUser => "sessions_by_user",
            Self::SocketsByUser => "sockets_by_user",
            Self::Streams => "streams",
            Self::StreamsByUser => "streams_by_user",
            Self::StreamsByAddress => "streams_by_address",
            Self::RoomsByChannel => "rooms_by_channel",
            Self::Consumers => "consumers",
            Self::Tokens => "tokens",
            Self::GuestTokens => "guest_tokens",
            Self::StreamTokens => "stream_tokens",
            Self::Lines => "lines",
            Self::Transcripts => "transcripts",
            Self::Interims => "interims",
            Self::Images => "images",
            Self::ImagesByUser => "images_by_user",
            Self::SessionOptions => "session_options",
            Self::LlmRunning => "llm_running",
            Self::LlmCallsPerMinute => "llm_calls_per_minute",
            Self::LlmCallsPerDay => "llm_calls_per_day",
            Self::LlmTokensPerDay => "llm_tokens_per_day",
            Self::LlmGatewayCallsPerMinute => "llm_gateway_calls_per_minute",
            Self::LlmGatewayCallsPerDay => "llm_gateway_calls_per_day",
            Self::LlmGatewayTokensPerDay => "llm_gateway_tokens_per_day",
            Self::AnswerTime => "answer_time",
            Self::AnswerChars => "answer_chars",
            Self::Audio => "audio",
            Self::Utterances => "utterances",
            Self::UtterancesByUser => "utterances_by_user",
            Self::UtterancesBeside => "utterances_beside",
            Self::Subscriptions => "subscriptions",
            Self::Translations => "translations",
            Self::Participants => "participants",
            Self::Clips => "clips",
            Self::DenyByRoom => "deny_by_room",
            Self::DenyByUser => "deny_by_user",
            Self::DenyList => "deny_list",
        }
    }

    /// For people.
    const fn message(self) -> &'static str {
        match self {
            Self::CreationsByUser => "too many sessions created by this user",
            Self::CreationsByAddress => "too many sessions created from this address",
            Self::CreationsByKey => "too many sessions created with this API key",
            Self::UnusedSessions => "too many sessions were created and not used",
            Self::UnusedSessionsByUser => "this user created too many sessions that were not used",
            Self::Sessions => "the gateway has as many sessions as it can hold",
            Self::SessionsByUser => "this user has too many sessions at the same time",
            Self::SocketsByUser => "this user has too many control channels",
            Self::Streams => "the gateway has too many event streams",
            Self::StreamsByUser => "this user has too many event streams",
            Self::StreamsByAddress => "too many event streams from this address",
            Self::RoomsByChannel => "too many rooms are watched on this channel",
            Self::Consumers => "the gateway has too many consumers",
            Self::Tokens => "too many tokens for this session",
            Self::GuestTokens => "too many guest tokens for this session",
            Self::StreamTokens => "too many stream tokens",
            Self::Lines => "too many typed lines",
            Self::Transcripts => "too many transcripts of the client's own",
            Self::Interims => "too many interims in this second",
            Self::Images => "too many requests with images at the same time",
            Self::ImagesByUser => "too many requests with images of this user at the same time",
            Self::SessionOptions => "too many changes of session options",
            Self::LlmRunning => "too many answers are being generated for this user",
            Self::LlmCallsPerMinute => "too many answers in this minute",
            Self::LlmCallsPerDay => "this user's answers of the day are used up",
            Self::LlmTokensPerDay => "this user's language model tokens of the day are used up",
            Self::LlmGatewayCallsPerMinute => "the gateway's answers of this minute are used up",
            Self::LlmGatewayCallsPerDay => "the gateway's answers of the day are used up",
            Self::LlmGatewayTokensPerDay => "the gateway's language model tokens of the day are used up",
            Self::AnswerTime => "the answer took too long",
            Self::AnswerChars => "the answer is too long",
            Self::Audio => "audio comes too fast",
            Self::Utterances => "too much speech waits for transcription",
            Self::UtterancesByUser => "too much speech of this user waits for transcription",
            Self::UtterancesBeside => {
                "too much speech of others, or in other languages, waits for transcription"
            }
            Self::Subscriptions => "too many streams of this kind",
            Self::Translations => "too much waits for translation",
            Self::Participants => "too many microphones in the room",
            Self::Clips => "too many clips",
            Self::DenyByRoom => "too many people are kept out of this room",
            Self::DenyByUser => "this user keeps too many people out",
            Self::DenyList => "too many people are kept out already",
        }
    }

    /// Whether the gateway is full, and not one user's share.
    const fn is_of_gateway(self) -> bool {
        matches!(
            self,
            Self::UnusedSessions
                | Self::Sessions
                | Self::Streams
                | Self::Consumers
                | Self::LlmGatewayCallsPerMinute
                | Self::LlmGatewayCallsPerDay
                | Self::LlmGatewayTokensPerDay
                | Self::Utterances
                | Self::Images
                | Self::DenyList
        )
    }

    /// Counts a refusal, and describes it.
    pub(crate) fn refuse(self, retry_after: Duration) -> Refusal {
        self.count();
        Refusal { limit: self, retry_after }
    }

    /// Counts what was cut or dropped because of this limit.
    pub(crate) fn count(self) {
        metrics::counter!(telemetry::LIMIT_REFUSALS, "limit" => self.label()).increment(1);
    }
}

/// Something was refused because a limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    pub(crate) limit: Limit,
    /// When the same may be accepted.
    pub(crate) retry_after: Duration,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; wait", self.limit.message())
    }
}

impl Refusal {
    pub(crate) const fn code(self) -> Code {
        if self.limit.is_of_gateway() { Code::Overloaded } else { Code::RateLimited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_name_of_its_own_and_is_in_the_table() {
        let page = include_str!("../../docs/LIMITS.md");
        for (at, label) in LABELS.iter().enumerate() {
            assert!(!LABELS[..at].contains(label), "{label}");
            assert!(page.contains(&format!("`{label}`")), "{label}");
        }
    }
}
