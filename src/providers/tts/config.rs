use crate::{language::Language, secret::Secret};

/// The TTS services in the network that are configured.
#[derive(Clone, Debug, Default)]
pub struct TtsServices {
    pub openai: Option<OpenAiTtsConfig>,
    pub elevenlabs: Option<ElevenLabsConfig>,
    pub deepgram: Option<DeepgramTtsConfig>,
    pub june: Option<TtsServiceConfig>,
}

/// An endpoint with OpenAI's `/audio/speech`.
#[derive(Clone, Debug)]
pub struct OpenAiTtsConfig {
    /// Up to and including `/v1`; none for OpenAI's own.
    pub base_url: Option<String>,
    /// None if the endpoint needs none.
    pub key: Option<Secret>,
    pub model: String,
    pub voice: String,
    /// What the model speaks; none for what OpenAI's own speak.
    pub languages: Option<Vec<Language>>,
}

#[derive(Clone, Debug)]
pub struct ElevenLabsConfig {
    /// Without `/v1`; none for ElevenLabs' own.
    pub base_url: Option<String>,
    pub key: Secret,
    pub model: String,
    pub voice: String,
}

#[derive(Clone, Debug)]
pub struct DeepgramTtsConfig {
    /// Without `/v1`; none for Deepgram's own.
    pub base_url: Option<String>,
    pub key: Secret,
    pub voice: String,
}

/// June's own TTS service.
#[derive(Clone, Debug)]
pub struct TtsServiceConfig {
    pub url: String,
    /// None if the service needs none.
    pub token: Option<Secret>,
}
