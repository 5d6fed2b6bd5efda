//! Sessions: their timers, their speech, and what they remember.

use std::time::Duration;

use crate::{
    config::Reader,
    language::Language,
    protocol::edge_v1::to_client::Delivery,
    providers::stt::SpokenLanguage,
    turn::{
        end_of_turn::EndOfTurnConfig,
        endpointer::{EndpointerConfig, MAX_PRE_ROLL, MIN_PRE_ROLL},
    },
};

/// The bounds of the silence that ends a turn. A shorter one is between the words of a sentence.
const MIN_SILENCE: Duration = Duration::from_millis(160);
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// Default of `SESSION_MEMORY`.
const DEFAULT_MEMORY: usize = 12;
/// The language model reads no more messages than this.
const MAX_MEMORY: usize = 24;

#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// `SESSION_GRACE_MS`
    pub grace: Duration,
    /// `SESSION_HEARTBEAT_MS`
    pub heartbeat: Duration,
    /// `SESSION_DEAD_AFTER_MS`
    pub client_timeout: Duration,
    /// How long a session is kept that no client ever attached to (`SESSION_TTL_MS`).
    pub ttl: Duration,
    /// `SESSION_LANGUAGE`
    pub language: SpokenLanguage,
    /// Lines of the user's earlier conversations that a new session gives to the LLM; 0 for none (`SESSION_MEMORY`).
    pub memory: usize,
    /// `SPEECH_DELIVERY`
    pub delivery: Delivery,
    /// Audio before the start of speech that an utterance includes (`PRE_ROLL_MS`).
    pub pre_roll: Duration,
    /// How long a pause has to be until a turn is over (`TURN_MIN_SILENCE_MS`, `TURN_SILENCE_MS`, `TURN_MAX_SILENCE_MS`).
    pub end_of_turn: EndOfTurnConfig,
    /// Whether responses are prepared at a likely end of a turn (`PREEMPTIVE_RESPONSE`).
    pub preempts: bool,
    /// Percentage of users whose client's own voice detection is used (`CLIENT_VAD_PERCENT`).
    pub client_vad_percent: u8,
    /// How long the agent stays in a room without a microphone (`AGENT_IDLE_MS`).
    pub agent_idle: Duration,
}

impl Reader<'_> {
    pub(super) fn session(&mut self) -> SessionConfig {
        SessionConfig {
            grace: self.millis("SESSION_GRACE_MS", 60_000),
            heartbeat: self.millis("SESSION_HEARTBEAT_MS", 10_000),
            client_timeout: self.millis("SESSION_DEAD_AFTER_MS", 30_000),
            ttl: self.millis("SESSION_TTL_MS", 3_600_000),
            language: self.language(),
            memory: self.memory(),
            delivery: self
                .choice("SPEECH_DELIVERY", &[("ws", Delivery::Ws), ("room", Delivery::Room)])
                .unwrap_or_default(),
            pre_roll: self.pre_roll(),
            end_of_turn: self.end_of_turn(),
            preempts: self.choice("PREEMPTIVE_RESPONSE", &[("on", true), ("off", false)]).unwrap_or(true),
            client_vad_percent: self.percent("CLIENT_VAD_PERCENT", 100),
            agent_idle: self.millis("AGENT_IDLE_MS", 300_000),
        }
    }

    fn language(&mut self) -> SpokenLanguage {
        let tag = self.text("SESSION_LANGUAGE").unwrap_or_else(|| "en-US".into());
        if tag == "auto" {
            return SpokenLanguage::default();
        }
        match Language::parse(&tag) {
            Ok(language) => SpokenLanguage::Known(language),
            Err(error) => {
                self.problem("SESSION_LANGUAGE", format!("\"{tag}\" {error}; or auto"));
                SpokenLanguage::default()
            }
        }
    }

    fn memory(&mut self) -> usize {
        let lines = match self.text("SESSION_MEMORY").as_deref() {
            None => DEFAULT_MEMORY,
            Some("off") => 0,
            Some(_) => self.parsed("SESSION_MEMORY").unwrap_or(DEFAULT_MEMORY),
        };
        if lines > MAX_MEMORY {
            self.problem("SESSION_MEMORY", format!("must be off, or at most {MAX_MEMORY}"));
        }
        lines
    }

    fn end_of_turn(&mut self) -> EndOfTurnConfig {
        let defaults = EndOfTurnConfig::default();
        let mut millis = |name: &str, default: Duration| self.millis(name, default.as_millis() as u64);
        let config = EndOfTurnConfig {
            min_silence: millis("TURN_MIN_SILENCE_MS", defaults.min_silence),
            usual_silence: millis("TURN_SILENCE_MS", defaults.usual_silence),
            max_silence: millis("TURN_MAX_SILENCE_MS", defaults.max_silence),
        };
        let EndOfTurnConfig { min_silence, usual_silence, max_silence } = config;
        if min_silence < MIN_SILENCE {
            self.problem("TURN_MIN_SILENCE_MS", format!("must be at least {}", MIN_SILENCE.as_millis()));
        }
        if max_silence > MAX_SILENCE {
            self.problem("TURN_MAX_SILENCE_MS", format!("must be at most {}", MAX_SILENCE.as_millis()));
        }
        if min_silence > usual_silence || usual_silence > max_silence {
            let problem = "must be from TURN_MIN_SILENCE_MS to TURN_MAX_SILENCE_MS";
            self.problem("TURN_SILENCE_MS", problem);
        }
        config
    }

    fn pre_roll(&mut self) -> Duration {
        let pre_roll = self.millis("PRE_ROLL_MS", EndpointerConfig::default().pre_roll.as_millis() as u64);
        if !(MIN_PRE_ROLL..=MAX_PRE_ROLL).contains(&pre_roll) {
            let (min, max) = (MIN_PRE_ROLL.as_millis(), MAX_PRE_ROLL.as_millis());
            self.problem("PRE_ROLL_MS", format!("must be {min} to {max}"));
        }
        pre_roll
    }
}

#[cfg(test)]
mod tests {
    use crate::config::read;

    #[test]
    fn the_silences_that_end_a_turn_are_in_order_and_within_their_bounds() {
        let problems = |min, usual, max| {
            let settings =
                [("TURN_MIN_SILENCE_MS", min), ("TURN_SILENCE_MS", usual), ("TURN_MAX_SILENCE_MS", max)];
            read(&settings).map_or_else(|problems| problems.problems, |_| Vec::new())
        };

        assert_eq!(problems("300", "300", "300"), Vec::<String>::new());
        assert_eq!(problems("100", "500", "2500"), ["TURN_MIN_SILENCE_MS: must be at least 160"]);
        assert_eq!(problems("200", "500", "20000"), ["TURN_MAX_SILENCE_MS: must be at most 10000"]);
        let order = ["TURN_SILENCE_MS: must be from TURN_MIN_SILENCE_MS to TURN_MAX_SILENCE_MS"];
        assert_eq!(problems("200", "3000", "2500"), order);
    }

    #[test]
    fn memory_is_a_number_of_lines_or_off() {
        let memory = |value| read(&[("SESSION_MEMORY", value)]).map(|config| config.session.memory);

        assert_eq!(memory(""), Ok(12));
        assert_eq!(memory("off"), Ok(0));
        assert_eq!(memory("24"), Ok(24));
        assert_eq!(memory("25").unwrap_err().to_string(), "SESSION_MEMORY: must be off, or at most 24");
        assert!(memory("some").is_err());
    }
}
