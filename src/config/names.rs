//! The names of all settings. docs/SETTINGS.md explains them; a test compares both.

/// Sorted.
const SETTINGS: &[&str] = &[
    "AGENT_IDLE_MS",
    "ALLOWED_HOSTS",
    "ALLOWED_ORIGINS",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_MODEL",
    "API_KEYS",
    "API_KEYS_FILE",
    "ASSEMBLYAI_API_KEY",
    "ASSEMBLYAI_BASE_URL",
    "ASSEMBLYAI_STT_MODEL",
    "AUGMENTOS_AUTH_JWT_SECRET",
    "AUTH_FAILURES_PER_MINUTE",
    "AUTH_JWKS_ALLOW_HTTP",
    "AUTH_JWKS_COOLDOWN_MS",
    "AUTH_JWKS_FILE",
    "AUTH_JWKS_URL",
    "AUTH_JWT_AUDIENCE",
    "AUTH_JWT_ISSUER",
    "AUTH_JWT_SECRET",
    "CLIENT_ADDRESS_HEADER",
    "CLIENT_VAD_PERCENT",
    "CONNECTS_PER_MINUTE_BY_ADDRESS",
    "CONNECTS_PER_MINUTE_BY_USER",
    "CONTROL_TOKEN_SECRET",
    "CORS_ALLOW_ORIGINS",
    "DATABASE_URL",
    "DATA_DIR",
    "DEEPGRAM_API_KEY",
    "DEEPGRAM_BASE_URL",
    "DEEPGRAM_STT_MODEL",
    "DEEPGRAM_VOICE",
    "DENY_TTL_MS",
    "DISK_FREE_WARN_MB",
    "EGRESS_FILE_PREFIX",
    "ELEVENLABS_API_KEY",
    "ELEVENLABS_BASE_URL",
    "ELEVENLABS_MODEL",
    "ELEVENLABS_VOICE",
    "EXCUSE",
    "EXCUSE_DE",
    "EXCUSE_EN",
    "EXCUSE_ES",
    "EXCUSE_FR",
    "GEMINI_API_KEY",
    "GEMINI_BASE_URL",
    "GEMINI_MODEL",
    "HEDGE",
    "HOST",
    "HTTP_BODY_TIMEOUT_MS",
    "HTTP_HEAD_TIMEOUT_MS",
    "HTTP_WRITE_TIMEOUT_MS",
    "JUNE_CACHE",
    "JUNE_CONFIG",
    "JUNE_MODELS",
    "LINES_PER_MINUTE_BY_USER",
    "LIVEKIT_API_KEY",
    "LIVEKIT_API_SECRET",
    "LIVEKIT_INTERNAL_URL",
    "LIVEKIT_REJOIN_BACKOFF_MS",
    "LIVEKIT_URL",
    "LIVEKIT_WEBHOOK_SECRET",
    "LIVEKIT_WS_URL",
    "LLM",
    "LLM_CALLS_PER_DAY",
    "LLM_CALLS_PER_DAY_BY_USER",
    "LLM_CALLS_PER_MINUTE",
    "LLM_CALLS_PER_MINUTE_BY_USER",
    "LLM_FIRST_SENTENCE_DEADLINE_MS",
    "LLM_IMAGES",
    "LLM_MAX_CHARS",
    "LLM_MAX_SECONDS",
    "LLM_MODEL",
    "LLM_TOKENS_PER_DAY",
    "LLM_TOKENS_PER_DAY_BY_USER",
    "LOG_FORMAT",
    "MAX_CONNECTIONS",
    "MAX_CONNECTIONS_BY_ADDRESS",
    "MAX_CONSUMERS",
    "MAX_PARTICIPANTS_BY_SESSION",
    "MAX_SESSIONS",
    "MAX_SESSIONS_BY_USER",
    "MAX_SOCKETS_BY_USER",
    "MAX_STREAMS",
    "MAX_STREAMS_BY_ADDRESS",
    "MAX_STREAMS_BY_USER",
    "MAX_UTTERANCES",
    "MENTRA_COMPAT_NO_EXP",
    "METRICS_PORT",
    "MODEL_CHECKSUMS",
    "OLLAMA_BASE_URL",
    "OLLAMA_MODEL",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_MODEL",
    "PORT",
    "PREEMPTIVE_RESPONSE",
    "PRE_ROLL_MS",
    "PROVIDER_STALL_MS",
    "PUBLIC_URL",
    "REDIS_URL",
    "ROSTER_RECONCILE_MS",
    "RUST_LOG",
    "SCRIPTED_ANSWER",
    "SCRIPTED_LATENCY_MS",
    "SCRIPTED_LLM_FAULTS",
    "SCRIPTED_STT_FAULTS",
    "SCRIPTED_TTS_FAULTS",
    "SESSIONS_PER_MINUTE_BY_ADDRESS",
    "SESSIONS_PER_MINUTE_BY_KEY",
    "SESSIONS_PER_MINUTE_BY_USER",
    "SESSION_DEAD_AFTER_MS",
    "SESSION_GRACE_MS",
    "SESSION_HEARTBEAT_MS",
    "SESSION_LANGUAGE",
    "SESSION_MAX_AGE_MS",
    "SESSION_MEMORY",
    "SESSION_RETENTION_DAYS",
    "SESSION_TTL_MS",
    "SPEECH_DELIVERY",
    "STT",
    "STT_DIARIZE",
    "STT_FINAL_DEADLINE_MS",
    "STT_FIRST_RESULT_DEADLINE_MS",
    "STT_OPENAI_API_KEY",
    "STT_OPENAI_BASE_URL",
    "STT_OPENAI_MODEL",
    "STT_SERVICE_TOKEN",
    "STT_SERVICE_URL",
    "STT_WORKERS",
    "SYSTEM_PROMPT",
    "THINKER",
    "TOOL_FILLER",
    "TOOL_FILLER_MS",
    "TOOL_MAX_STEPS",
    "TOOL_TIMEOUT_MS",
    "TOOL_UPLOAD_MAX_BYTES",
    "TOOL_WEBHOOK_SECRET",
    "TOOL_WEBHOOK_URLS",
    "TTS",
    "TTS_FIRST_SOUND_DEADLINE_MS",
    "TTS_OPENAI_API_KEY",
    "TTS_OPENAI_BASE_URL",
    "TTS_OPENAI_LANGUAGES",
    "TTS_OPENAI_MODEL",
    "TTS_OPENAI_VOICE",
    "TTS_SERVICE_TOKEN",
    "TTS_SERVICE_URL",
    "TTS_WORKERS",
    "TURN_MAX_SILENCE_MS",
    "TURN_MIN_SILENCE_MS",
    "TURN_MODEL",
    "TURN_SILENCE_MS",
    "TURN_WORKERS",
    "VAD",
    "WS_FRAME_TIMEOUT_MS",
];

/// Whether a file may set it. A file does not name another one.
pub(super) fn is_in_file(name: &str) -> bool {
    SETTINGS.binary_search(&name).is_ok() && name != "JUNE_CONFIG"
}

/// Whether its value may be a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let is_key = name.ends_with("_KEY") && !name.ends_with("_BY_KEY");
    let is_token = name.ends_with("_SERVICE_TOKEN");
    is_key
        || is_token
        || name.ends_with("_SECRET")
        || ["API_KEYS", "DATABASE_URL", "REDIS_URL"].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet};

    use super::*;
    use crate::config::Config;

    /// What the page has in backquotes that looks like a setting, before the variables of the tools.
    fn explained() -> BTreeSet<&'static str> {
        let page = include_str!("../../docs/SETTINGS.md").split("## Of the tools").next().unwrap();
        let is_setting = |word: &&str| {
            word.len() > 2
                && word.starts_with(|mark: char| mark.is_ascii_uppercase())
                && word.chars().all(|mark| mark.is_ascii_uppercase() || mark.is_ascii_digit() || mark == '_')
        };
        page.split('`').skip(1).step_by(2).filter(is_setting).collect()
    }

    #[test]
    fn the_table_is_sorted_and_has_every_setting_of_the_page_and_no_other() {
        let explained = explained();

        let missing: Vec<_> = explained.iter().filter(|name| !SETTINGS.contains(name)).collect();
        let surplus: Vec<_> = SETTINGS.iter().filter(|name| !explained.contains(*name)).collect();

        assert!(missing.is_empty(), "src/config/names.rs lacks {missing:?}");
        assert!(surplus.is_empty(), "docs/SETTINGS.md lacks {surplus:?}");
        assert!(SETTINGS.is_sorted());
    }

    #[test]
    fn every_setting_that_is_read_is_in_the_table() {
        let read = RefCell::new(BTreeSet::new());
        let _ = Config::read(|name| {
            read.borrow_mut().insert(name.to_owned());
            None
        });

        let mut read = read.into_inner();
        // Of the user, to find the cache folder.
        for name in ["HOME", "XDG_CACHE_HOME"] {
            read.remove(name);
        }
        let unknown: Vec<_> = read.iter().filter(|name| !SETTINGS.contains(&name.as_str())).collect();
        assert!(read.len() > 60 && unknown.is_empty(), "src/config/names.rs lacks {unknown:?}");
    }
}
