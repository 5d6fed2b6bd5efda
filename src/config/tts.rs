//! TTS services in the network.

use crate::{
    config::Reader,
    language::Language,
    providers::tts::{DeepgramTtsConfig, ElevenLabsConfig, OpenAiTtsConfig, TtsServiceConfig, TtsServices},
    secret::Secret,
};

impl Reader<'_> {
    /// `llm_url` and `llm_key` are `OPENAI_BASE_URL` and `OPENAI_API_KEY`.
    pub(super) fn tts_services(&mut self, llm_url: Option<&str>, llm_key: Option<&Secret>) -> TtsServices {
        TtsServices {
            openai: self.openai_tts(llm_url, llm_key),
            elevenlabs: self.elevenlabs(),
            deepgram: self.deepgram_tts(),
            june: self.tts_service(),
        }
    }

    fn lists_tts(&self, name: &str) -> bool {
        self.text("TTS").is_some_and(|list| list.split(',').any(|listed| listed.trim() == name))
    }

    /// Used if one of its own settings is there or `TTS` lists it: an endpoint for the LLM need not have speech. The key
    /// of that endpoint is for that endpoint alone.
    fn openai_tts(&mut self, llm_url: Option<&str>, llm_key: Option<&Secret>) -> Option<OpenAiTtsConfig> {
        let url = self.url("TTS_OPENAI_BASE_URL", &["http", "https"]);
        let (key, model) = (self.secret("TTS_OPENAI_API_KEY"), self.text("TTS_OPENAI_MODEL"));
        let languages = self.languages("TTS_OPENAI_LANGUAGES");
        let is_used = url.is_some() || key.is_some() || model.is_some() || self.lists_tts("openai");
        let (base_url, key) = match url {
            Some(url) => (Some(url), key),
            None => (llm_url.map(str::to_owned), key.or_else(|| llm_key.cloned())),
        };
        (is_used && (base_url.is_some() || key.is_some())).then(|| OpenAiTtsConfig {
            base_url,
            key,
            model: model.unwrap_or_else(|| "gpt-4o-mini-tts".into()),
            voice: self.text("TTS_OPENAI_VOICE").unwrap_or_else(|| "alloy".into()),
            languages,
        })
    }

    fn elevenlabs(&mut self) -> Option<ElevenLabsConfig> {
        let base_url = self.url("ELEVENLABS_BASE_URL", &["https", "http", "wss", "ws"]);
        self.secret("ELEVENLABS_API_KEY").map(|key| ElevenLabsConfig {
            base_url,
            key,
            model: self.text("ELEVENLABS_MODEL").unwrap_or_else(|| "eleven_flash_v2_5".into()),
            voice: self.text("ELEVENLABS_VOICE").unwrap_or_else(|| "JBFqnCBsd6RMkjVDRZzb".into()),
        })
    }

    fn deepgram_tts(&mut self) -> Option<DeepgramTtsConfig> {
        // An invalid one is reported as STT's.
        let base_url = self.text("DEEPGRAM_BASE_URL");
        self.secret("DEEPGRAM_API_KEY").map(|key| DeepgramTtsConfig {
            base_url,
            key,
            voice: self.text("DEEPGRAM_VOICE").unwrap_or_else(|| "aura-2-thalia-en".into()),
        })
    }

    fn tts_service(&mut self) -> Option<TtsServiceConfig> {
        let token = self.secret("TTS_SERVICE_TOKEN");
        self.url("TTS_SERVICE_URL", &["http", "https"]).map(|url| TtsServiceConfig { url, token })
    }

    fn languages(&mut self, name: &str) -> Option<Vec<Language>> {
        let tags = self.text(name)?;
        match tags.split(',').map(|tag| Language::parse(tag.trim())).collect() {
            Ok(languages) => Some(languages),
            Err(error) => {
                self.problem(name, format!("\"{tags}\": each {error}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEY, read};

    fn services(variables: &[(&str, &str)]) -> TtsServices {
        read(&[&[("API_KEYS", KEY)], variables].concat()).unwrap().providers.registry.tts_services
    }

    #[test]
    fn without_settings_there_is_no_service() {
        let TtsServices { openai, elevenlabs, deepgram, june } = services(&[("ELEVENLABS_VOICE", "v")]);

        assert!(openai.is_none() && elevenlabs.is_none() && deepgram.is_none() && june.is_none());
    }

    #[test]
    fn the_endpoint_of_the_llm_is_used_for_speech_only_where_that_is_asked_for() {
        let llm = [("OPENAI_BASE_URL", "http://llm.example/v1"), ("OPENAI_API_KEY", "k")];
        let endpoint = |more: &[(&str, &str)]| {
            let openai = services(&[&llm[..], more].concat()).openai?;
            Some((openai.base_url?, openai.key?))
        };
        let of_llm = |key: &str| Some(("http://llm.example/v1".to_owned(), Secret::new(key)));

        assert_eq!(endpoint(&[]), None);
        assert_eq!(endpoint(&[("TTS", "openai")]), of_llm("k"));
        assert_eq!(endpoint(&[("TTS_OPENAI_MODEL", "kokoro")]), of_llm("k"));
        assert_eq!(endpoint(&[("TTS_OPENAI_API_KEY", "t")]), of_llm("t"));
    }

    #[test]
    fn the_key_of_the_llm_goes_to_no_other_endpoint() {
        let elsewhere = [("OPENAI_API_KEY", "k"), ("TTS_OPENAI_BASE_URL", "http://tts.example/v1/")];

        let openai = services(&elsewhere).openai.unwrap();

        assert_eq!((openai.base_url.as_deref(), openai.key), (Some("http://tts.example/v1"), None));
    }

    #[test]
    fn each_service_has_its_own_settings() {
        let TtsServices { openai, elevenlabs, deepgram, june } = services(&[
            ("TTS_OPENAI_API_KEY", "o"),
            ("TTS_OPENAI_MODEL", "kokoro"),
            ("TTS_OPENAI_VOICE", "af_heart"),
            ("TTS_OPENAI_LANGUAGES", "en, fr"),
            ("ELEVENLABS_API_KEY", "e"),
            ("ELEVENLABS_MODEL", "eleven_flash_v2"),
            ("ELEVENLABS_VOICE", "v"),
            ("DEEPGRAM_API_KEY", "d"),
            ("DEEPGRAM_BASE_URL", "wss://deepgram.example"),
            ("DEEPGRAM_VOICE", "aura-2-juno-en"),
            ("TTS_SERVICE_URL", "http://june-tts:8000/"),
            ("TTS_SERVICE_TOKEN", "t"),
        ]);

        let openai = openai.unwrap();
        assert_eq!((openai.model.as_str(), openai.voice.as_str()), ("kokoro", "af_heart"));
        assert_eq!(openai.languages.unwrap(), ["en", "fr"].map(|tag| Language::parse(tag).unwrap()));
        let elevenlabs = elevenlabs.unwrap();
        assert_eq!((elevenlabs.model.as_str(), elevenlabs.voice.as_str()), ("eleven_flash_v2", "v"));
        let deepgram = deepgram.unwrap();
        assert_eq!(deepgram.base_url.as_deref(), Some("wss://deepgram.example"));
        assert_eq!(deepgram.voice, "aura-2-juno-en");
        let june = june.unwrap();
        assert_eq!((june.url.as_str(), june.token), ("http://june-tts:8000", Some(Secret::new("t"))));
    }

    #[test]
    fn settings_of_services_are_checked_together() {
        let problems = read(&[
            ("TTS_OPENAI_BASE_URL", "tts.example"),
            ("TTS_OPENAI_LANGUAGES", "en,english!"),
            ("ELEVENLABS_BASE_URL", "ftp://x"),
            ("TTS_SERVICE_URL", "june-tts:8000"),
        ]);

        let problems = problems.unwrap_err().problems;
        let names: Vec<_> = problems.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            names,
            ["TTS_OPENAI_BASE_URL", "TTS_OPENAI_LANGUAGES", "ELEVENLABS_BASE_URL", "TTS_SERVICE_URL"]
        );
    }
}
