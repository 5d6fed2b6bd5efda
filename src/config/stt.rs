//! The STT services on the network.

use crate::{
    config::Reader,
    providers::stt::{SttServiceConfig, SttServices},
};

impl Reader<'_> {
    pub(super) fn stt_services(&mut self) -> SttServices {
        SttServices {
            diarize: self.flag("STT_DIARIZE"),
            deepgram: self.streaming_service("DEEPGRAM_BASE_URL", "DEEPGRAM_API_KEY", "DEEPGRAM_STT_MODEL"),
            assemblyai: self.streaming_service(
                "ASSEMBLYAI_BASE_URL",
                "ASSEMBLYAI_API_KEY",
                "ASSEMBLYAI_STT_MODEL",
            ),
            openai: self.stt_openai(),
            june: SttServiceConfig {
                base_url: self.url("STT_SERVICE_URL", &["http", "https"]),
                key: self.secret("STT_SERVICE_TOKEN"),
                model: None,
            },
        }
    }

    fn streaming_service(&mut self, base_url: &str, key: &str, model: &str) -> SttServiceConfig {
        SttServiceConfig {
            base_url: self.url(base_url, &["http", "https", "ws", "wss"]),
            key: self.secret(key),
            model: self.text(model),
        }
    }

    /// Used if one of its own settings is there or `STT` lists it: an endpoint for the LLM need not have transcription.
    /// The key of that endpoint is for that endpoint alone.
    fn stt_openai(&mut self) -> SttServiceConfig {
        let base_url = self.url("STT_OPENAI_BASE_URL", &["http", "https"]);
        let (key, model) = (self.secret("STT_OPENAI_API_KEY"), self.text("STT_OPENAI_MODEL"));
        let is_used = base_url.is_some() || key.is_some() || model.is_some() || self.lists_stt("openai");
        if !is_used || base_url.is_some() {
            return SttServiceConfig { base_url, key, model };
        }
        // An invalid one is reported as the LLM's.
        let base_url = self.text("OPENAI_BASE_URL").map(|url| url.trim_end_matches('/').to_owned());
        SttServiceConfig { base_url, key: key.or_else(|| self.secret("OPENAI_API_KEY")), model }
    }

    fn lists_stt(&self, name: &str) -> bool {
        self.text("STT").is_some_and(|list| list.split(',').any(|listed| listed.trim() == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::read, secret::Secret};

    fn services(variables: &[(&str, &str)]) -> SttServices {
        read(variables).unwrap().providers.registry.stt_services
    }

    fn problems(variables: &[(&str, &str)]) -> Vec<String> {
        read(variables).unwrap_err().problems
    }

    #[test]
    fn urls_and_flags_are_checked() {
        assert_eq!(
            problems(&[
                ("DEEPGRAM_BASE_URL", "deepgram"),
                ("STT_SERVICE_URL", "ftp://stt"),
                ("STT_DIARIZE", "2")
            ]),
            [
                "STT_DIARIZE: \"2\" is none of true, false",
                "DEEPGRAM_BASE_URL: \"deepgram\" should look like http://host or https://host or ws://host or wss://host",
                "STT_SERVICE_URL: \"ftp://stt\" should look like http://host or https://host",
            ]
        );
    }

    #[test]
    fn the_endpoint_of_the_llm_is_used_for_stt_only_where_that_is_asked_for() {
        let llm = [("OPENAI_BASE_URL", "http://llm/v1/"), ("OPENAI_API_KEY", "llm-key")];
        let with = |more: &[(&str, &str)]| services(&[&llm, more].concat()).openai;
        let (llm_url, llm_key) = (Some("http://llm/v1".to_owned()), Some(Secret::new("llm-key")));

        assert_eq!(with(&[]), SttServiceConfig::default());
        let named = with(&[("STT", "openai")]);
        assert_eq!((named.base_url, named.key), (llm_url.clone(), llm_key));
        let with_key = with(&[("STT_OPENAI_API_KEY", "stt-key")]);
        assert_eq!((with_key.base_url, with_key.key), (llm_url, Some(Secret::new("stt-key"))));
    }

    #[test]
    fn the_key_of_the_llm_goes_to_no_other_endpoint() {
        let openai =
            services(&[("OPENAI_API_KEY", "llm-key"), ("STT_OPENAI_BASE_URL", "http://stt/v1")]).openai;

        assert_eq!((openai.base_url.as_deref(), openai.key), (Some("http://stt/v1"), None));
    }
}
