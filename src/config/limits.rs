//! How much one user, one address and everybody together may use.

use std::time::Duration;

use crate::{
    config::Reader,
    limits::{Allowance, memory},
};

/// What the gateway takes before its first session, with the default workers; and what is reserved for each session.
/// A silent one takes a twentieth of that, one that is spoken to or is in a room up to four times as much.
const BASE_BYTES: u64 = 512 * 1024 * 1024;
const SESSION_BYTES: u64 = 256 * 1024;

/// The bounds of the default of `MAX_SESSIONS`.
const MIN_DEFAULT_SESSIONS: u64 = 100;
const MAX_DEFAULT_SESSIONS: u64 = 50_000;

/// The greatest `MAX_PARTICIPANTS_BY_SESSION`: the session's queue has room for the audio of as many.
const MAX_PARTICIPANTS: usize = 16;

/// The longest answer, in characters: a quarter of an hour of speech.
pub(crate) const MAX_ANSWER_CHARS: usize = 16 * 1024;

/// 0 is no limit, in each of them.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Sessions that one user may create per minute (`SESSIONS_PER_MINUTE_BY_USER`).
    pub creations_by_user: u32,
    /// The same from one address, by users (`SESSIONS_PER_MINUTE_BY_ADDRESS`).
    pub creations_by_address: u32,
    /// The same by one API key (`SESSIONS_PER_MINUTE_BY_KEY`).
    pub creations_by_key: u32,
    /// Live sessions (`MAX_SESSIONS`).
    pub sessions: usize,
    /// Live sessions of one user (`MAX_SESSIONS_BY_USER`).
    pub sessions_by_user: usize,
    /// Attached control channels of one user (`MAX_SOCKETS_BY_USER`).
    pub sockets_by_user: usize,
    /// Event streams (`MAX_STREAMS`).
    pub streams: usize,
    /// Event streams of one participant (`MAX_STREAMS_BY_USER`).
    pub streams_by_user: usize,
    /// Event streams of one address (`MAX_STREAMS_BY_ADDRESS`).
    pub streams_by_address: usize,
    /// Consumers (`MAX_CONSUMERS`).
    pub consumers: usize,
    /// Tokens of one kind that one session may ask for per minute, over REST. No setting.
    pub tokens_by_session: u32,
    /// Lines that one user may type per minute (`LINES_PER_MINUTE_BY_USER`).
    pub lines_by_user: u32,
    /// Final transcripts of the clients' own recognisers, of one user, per minute. No setting.
    pub transcripts_by_user: u32,
    /// Changes of sessions' options, of one user, per minute. No setting.
    pub options_by_user: u32,
    /// Utterances in transcription (`MAX_UTTERANCES`).
    pub utterances: usize,
    /// The same of one user, of at most 15 s each: more is a flood, or an STT that hangs. No setting.
    pub utterances_by_user: usize,
    /// Microphones of other participants that are transcribed at once in one session; 0 for none
    /// (`MAX_PARTICIPANTS_BY_SESSION`).
    pub participants: usize,
    /// The language model, for one user (`LLM_…_BY_USER`).
    pub llm_by_user: Allowance,
    /// Calls of one user at the same time: a phone's and a pair of glasses'. No setting.
    pub llm_running_by_user: u32,
    /// The language model, for everybody (`LLM_CALLS_PER_MINUTE`, `LLM_CALLS_PER_DAY`, `LLM_TOKENS_PER_DAY`).
    pub llm: Allowance,
    /// How long an answer may be generated (`LLM_MAX_SECONDS`).
    pub answer_time: Duration,
    /// The longest answer, in characters (`LLM_MAX_CHARS`).
    pub answer_chars: usize,
}

impl LimitsConfig {
    /// Limits of single answers only.
    pub fn unlimited() -> Self {
        Self {
            creations_by_user: 0,
            creations_by_address: 0,
            creations_by_key: 0,
            sessions: 0,
            sessions_by_user: 0,
            sockets_by_user: 0,
            streams: 0,
            streams_by_user: 0,
            streams_by_address: 0,
            consumers: 0,
            tokens_by_session: 0,
            lines_by_user: 0,
            transcripts_by_user: 0,
            options_by_user: 0,
            utterances: 0,
            utterances_by_user: 0,
            participants: 4,
            llm_by_user: Allowance::default(),
            llm_running_by_user: 0,
            llm: Allowance::default(),
            answer_time: Duration::from_secs(60),
            answer_chars: MAX_ANSWER_CHARS,
        }
    }
}

impl Reader<'_> {
    pub(super) fn limits(&mut self) -> LimitsConfig {
        LimitsConfig {
            creations_by_user: self.limit("SESSIONS_PER_MINUTE_BY_USER", 60),
            creations_by_address: self.limit("SESSIONS_PER_MINUTE_BY_ADDRESS", 6_000),
            creations_by_key: self.limit("SESSIONS_PER_MINUTE_BY_KEY", 0),
            sessions: self.parsed("MAX_SESSIONS").unwrap_or_else(|| default_sessions(memory::available())),
            sessions_by_user: self.parsed("MAX_SESSIONS_BY_USER").unwrap_or(16),
            sockets_by_user: self.parsed("MAX_SOCKETS_BY_USER").unwrap_or(32),
            streams: self.parsed("MAX_STREAMS").unwrap_or(20_000),
            streams_by_user: self.parsed("MAX_STREAMS_BY_USER").unwrap_or(16),
            streams_by_address: self.parsed("MAX_STREAMS_BY_ADDRESS").unwrap_or(256),
            consumers: self.parsed("MAX_CONSUMERS").unwrap_or(64),
            tokens_by_session: 60,
            lines_by_user: self.limit("LINES_PER_MINUTE_BY_USER", 20),
            transcripts_by_user: 60,
            options_by_user: 60,
            utterances: self.parsed("MAX_UTTERANCES").unwrap_or(256),
            utterances_by_user: 8,
            participants: self.participants(),
            llm_by_user: Allowance {
                calls_per_minute: self.limit("LLM_CALLS_PER_MINUTE_BY_USER", 30),
                calls_per_day: self.limit("LLM_CALLS_PER_DAY_BY_USER", 3_000),
                tokens_per_day: self.limit("LLM_TOKENS_PER_DAY_BY_USER", 2_000_000),
            },
            llm_running_by_user: 2,
            llm: Allowance {
                calls_per_minute: self.limit("LLM_CALLS_PER_MINUTE", 0),
                calls_per_day: self.limit("LLM_CALLS_PER_DAY", 0),
                tokens_per_day: self.limit("LLM_TOKENS_PER_DAY", 0),
            },
            answer_time: self.answer_time(),
            answer_chars: self.answer_chars(),
        }
    }

    fn limit(&mut self, name: &str, default: u32) -> u32 {
        self.parsed(name).unwrap_or(default)
    }

    fn participants(&mut self) -> usize {
        let participants = self.parsed("MAX_PARTICIPANTS_BY_SESSION").unwrap_or(4);
        if participants > MAX_PARTICIPANTS {
            self.problem("MAX_PARTICIPANTS_BY_SESSION", format!("must be at most {MAX_PARTICIPANTS}"));
        }
        participants
    }

    fn answer_time(&mut self) -> Duration {
        let seconds = self.parsed("LLM_MAX_SECONDS").unwrap_or(60);
        if !(1..=600).contains(&seconds) {
            self.problem("LLM_MAX_SECONDS", "must be 1 to 600");
        }
        Duration::from_secs(seconds)
    }

    fn answer_chars(&mut self) -> usize {
        let chars = self.parsed("LLM_MAX_CHARS").unwrap_or(MAX_ANSWER_CHARS);
        if !(1..=MAX_ANSWER_CHARS).contains(&chars) {
            self.problem("LLM_MAX_CHARS", format!("must be 1 to {MAX_ANSWER_CHARS}"));
        }
        chars
    }
}

/// As many sessions as fit into this memory.
fn default_sessions(memory: Option<u64>) -> usize {
    let fitting =
        memory.map_or(MAX_DEFAULT_SESSIONS, |memory| memory.saturating_sub(BASE_BYTES) / SESSION_BYTES);
    fitting.clamp(MIN_DEFAULT_SESSIONS, MAX_DEFAULT_SESSIONS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    #[test]
    fn as_many_sessions_are_admitted_as_the_memory_has_room_for() {
        const GIB: u64 = 1024 * 1024 * 1024;
        assert_eq!(default_sessions(Some(GIB)), 2_048);
        assert_eq!(default_sessions(Some(GIB / 4)), 100);
        assert_eq!(default_sessions(Some(64 * GIB)), 50_000);
        assert_eq!(default_sessions(None), 50_000);
        assert_eq!(read(&[("MAX_SESSIONS", "7")]).unwrap().limits.sessions, 7);
    }

    #[test]
    fn an_answer_ends_some_time() {
        let limits = read(&[("LLM_MAX_SECONDS", "5"), ("LLM_MAX_CHARS", "100")]).unwrap().limits;
        assert_eq!((limits.answer_time, limits.answer_chars), (Duration::from_secs(5), 100));

        let problems = read(&[("LLM_MAX_SECONDS", "0"), ("LLM_MAX_CHARS", "0")]).unwrap_err().problems;
        assert_eq!(problems, ["LLM_MAX_SECONDS: must be 1 to 600", "LLM_MAX_CHARS: must be 1 to 16384"]);
    }
}
