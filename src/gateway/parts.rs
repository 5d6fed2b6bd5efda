//! The parts of the pipeline as `/health` and the log report them.

use crate::{
    config::Config,
    http::Part,
    providers::{
        Choice, TurnModel,
        registry::{Availability, Providers},
        scripted,
        vad::Detectors,
    },
};

/// The parts, with a message for each that is off or needs attention.
pub(super) fn parts(config: &Config, providers: &Providers) -> Vec<Part> {
    vec![
        livekit(config),
        vad(&providers.vad),
        turn(config, providers),
        provider("stt", "transcriber", &providers.stt, providers),
        llm(config, providers),
        provider("tts", "speaker", &providers.tts, providers),
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

/// Without the model, silence alone ends a turn.
fn turn(config: &Config, providers: &Providers) -> Part {
    let (role, part) = ("turn", "turn");
    match &providers.turn {
        Availability::Ready(model) => {
            Part { role, part, provider: model.name().into(), ready: true, message: None }
        }
        Availability::Off(reason) => Part {
            role,
            part,
            provider: "silence".into(),
            ready: config.providers.registry.turn == TurnModel::Off,
            message: Some(reason.clone()),
        },
    }
}

/// The echo model is no substitute for a language model where there are end users, which API keys show.
fn llm(config: &Config, providers: &Providers) -> Part {
    let part = provider("llm", "thinker", &providers.llm, providers);
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
        Choice::Listed(_) => Part {
            message: Some("LLM=echo: the echo model repeats to end users what they said".into()),
            ..part
        },
    }
}

/// The providers of a role, with what is missing of those that are listed.
fn provider<T: ?Sized>(
    role: &'static str,
    part: &'static str,
    provider: &Availability<T>,
    providers: &Providers,
) -> Part {
    if let Some(reason) = provider.off() {
        return Part { role, part, provider: "none".into(), ready: false, message: Some(reason.into()) };
    }
    let chain = providers.chains.iter().find(|chain| chain.role().name() == role);
    let missing = providers.missing.iter().find(|(of, _)| *of == role);
    let missing = missing.map(|(_, missing)| format!("a listed provider is not used: {missing}"));
    let is_scripted = chain.is_some_and(|chain| chain.names().iter().any(|name| scripted::is_scripted(name)));
    let messages: Vec<String> =
        is_scripted.then(|| scripted::NOTICE.to_owned()).into_iter().chain(missing).collect();
    Part {
        role,
        part,
        provider: chain.map_or_else(|| "none".into(), |chain| chain.names().join(", ")),
        ready: true,
        message: (!messages.is_empty()).then(|| messages.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The LLM's part of a gateway without models that has these settings.
    fn llm_with(settings: &[(&str, &str)]) -> Part {
        part_with("llm", settings)
    }

    /// A part of a gateway without models that has these settings.
    fn part_with(role: &str, settings: &[(&str, &str)]) -> Part {
        let config = Config::read(|name| match name {
            "JUNE_MODELS" => Some("/nowhere/models".into()),
            _ => settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()),
        })
        .unwrap();
        let providers = Providers::load(&config.providers.registry);
        parts(&config, &providers).into_iter().find(|part| part.role == role).unwrap()
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
    fn a_listed_model_that_is_not_installed_is_named_and_the_others_are_used() {
        let settings = [("STT", "moonshine"), ("LLM", "openai,smollm2,echo"), ("OPENAI_API_KEY", "k")];
        let llm = llm_with(&settings);

        assert_eq!((llm.provider.as_str(), llm.ready), ("openai, echo", true));
        let message = llm.message.unwrap();
        assert!(message.starts_with("a listed provider is not used: smollm2: "), "{message}");
    }

    #[test]
    fn a_scripted_provider_is_ready_and_says_what_it_is() {
        let llm = llm_with(&[("LLM", "scripted,echo")]);

        assert_eq!((llm.provider.as_str(), llm.ready), ("scripted, echo", true));
        assert_eq!(llm.message.as_deref(), Some(scripted::NOTICE));
    }

    #[test]
    fn without_the_turn_model_silence_decides_which_is_well_only_where_it_was_chosen() {
        let missing = part_with("turn", &[]);
        let chosen = part_with("turn", &[("TURN_MODEL", "off")]);

        assert_eq!((missing.provider.as_str(), missing.ready), ("silence", false));
        let message = missing.message.unwrap();
        assert!(message.starts_with("TURN_MODEL is off: smart-turn: "), "{message}");
        assert_eq!((chosen.provider.as_str(), chosen.ready), ("silence", true));
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
