//! What the STT services on the network need.

use crate::secret::Secret;

#[derive(Clone, Debug, Default)]
pub struct SttServices {
    /// Whether services that can tell speakers apart do so.
    pub diarize: bool,
    pub deepgram: SttServiceConfig,
    pub assemblyai: SttServiceConfig,
    pub openai: SttServiceConfig,
    pub june: SttServiceConfig,
}

/// One service. What is missing is the vendor's own or the provider's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SttServiceConfig {
    pub base_url: Option<String>,
    pub key: Option<Secret>,
    pub model: Option<String>,
}
