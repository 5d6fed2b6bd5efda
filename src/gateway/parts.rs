//! The parts of the pipeline as `/health` and the log report them.

use crate::{
    config::Config,
    http::Part,
    providers::{
        Choice,
        registry::{Availability, Providers},
        vad::Detectors,
    },
};

/// The parts, with a message for each that is off or needs attention.
pub(super) fn parts(config: &Config, providers: &Providers) -> Vec<Part> {
    vec![
        livekit(config),
        vad(&providers.vad),
        provider("stt", "transcriber", &providers.stt, |stt| stt.name()),
        llm(config, providers),
        provider("tts", "speaker", &providers.tts, |tts| tts.name()),
    ]
}

fn livekit(config: &Config) -> Part {
    let (role, part) = ("livekit", "livekit");
    match &config.livekit {
        Some(livekit) => Part { role, part, provider: livekit.url.clone(), ready: true, message: None },
        None => Part {
            role,
            part,
            provider: "none".into(),
            ready: false,
            message: Some(
                "LiveKit is off: LIVEKIT_URL is not set. Clients send audio on the control channel".into(),
            ),
        },
    }
}

fn vad(detectors: &Detectors) -> Part {
    Part {
        role: "vad",
        part: "vad",
        provider: detectors.name().into(),
        ready: detectors.off().is_none(),
        message: detectors.off().map(str::to_owned),
    }
}

/// The echo model is no substitute for a language model where there are end users, which API keys show.
fn llm(config: &Config, providers: &Providers) -> Part {
    let part = provider("llm", "thinker", &providers.llm, |llm| llm.name());
    if config.auth.is_open() || part.provider != "echo" {
        return part;
    }
    match config.providers.registry.llm {
        Choice::Auto => Part {
            ready: false,
            message: Some(
                "no LLM is configured: the echo model repeats to end users what they said (docs/OPERATIONS.md#answers)"
                    .into(),
            ),
            ..part
        },
        Choice::Named(_) => Part {
            message: Some("LLM=echo: the echo model repeats to end users what they said".into()),
            ..part
        },
    }
}

fn provider<T: ?Sized>(
    role: &'static str,
    part: &'static str,
    provider: &Availability<T>,
    name: impl Fn(&T) -> &'static str,
) -> Part {
    match provider {
        Availability::Ready(provider) => {
            Part { role, part, provider: name(provider).into(), ready: true, message: None }
        }
        Availability::Off(reason) => {
            Part { role, part, provider: "none".into(), ready: false, message: Some(reason.clone()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The LLM's part of a gateway without models that has these settings.
    fn llm_with(settings: &[(&str, &str)]) -> Part {
        let config = Config::read(|name| match name {
            "JUNE_MODELS" => Some("/nowhere/models".into()),
            _ => settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
        })
        .unwrap();
        let providers = Providers::load(&config.providers.registry);
        parts(&config, &providers).into_iter().find(|part| part.role == "llm").unwrap()
    }

    #[test]
    fn an_echo_that_nobody_chose_is_not_ready_for_end_users() {
        let llm = llm_with(&[("API_KEYS", "key-of-the-tests-0123456789abcdef")]);

        assert_eq!((llm.provider.as_str(), llm.ready), ("echo", false));
        assert!(llm.message.unwrap().contains("no LLM is configured"));
    }

    #[test]
    fn an_echo_that_was_chosen_is_ready_and_warns_where_there_are_end_users() {
        let llm = llm_with(&[("API_KEYS", "key-of-the-tests-0123456789abcdef"), ("LLM", "echo")]);

        assert_eq!((llm.provider.as_str(), llm.ready), ("echo", true));
        assert!(llm.message.unwrap().contains("end users"));
    }

    #[test]
    fn without_api_keys_an_echo_is_ready() {
        for settings in [&[][..], &[("LLM", "echo")]] {
            let llm = llm_with(settings);

            assert_eq!((llm.provider.as_str(), llm.ready, llm.message), ("echo", true, None));
        }
    }

    #[test]
    fn a_real_llm_is_ready_without_a_message() {
        let llm = llm_with(&[("API_KEYS", "key-of-the-tests-0123456789abcdef"), ("OPENAI_API_KEY", "k")]);

        assert_eq!((llm.provider.as_str(), llm.ready, llm.message), ("openai", true, None));
    }
}
