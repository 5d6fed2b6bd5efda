//! Ollama, by its endpoint with OpenAI's chat completions.
//!
//! Of Ollama's own API, `genai` sends tool results without the name of their tool, and leaves errors in a stream out.
//!
//! Protocol: <https://docs.ollama.com/api/openai-compatibility>, as of November 2026.

use std::sync::Arc;

use genai::adapter::AdapterKind;

use super::{
    LanguageModel,
    http::{HttpModel, Target, Timeouts},
};
use crate::providers::{OllamaConfig, ProviderError, registry::LoadContext};

const URL: &str = "http://127.0.0.1:11434";

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    let Some(config) = &context.config.ollama else {
        return Err(ProviderError::Unavailable("neither OLLAMA_BASE_URL nor OLLAMA_MODEL is set".into()));
    };
    Ok(Arc::new(model(config, Timeouts::default())?))
}

pub(super) fn model(config: &OllamaConfig, timeouts: Timeouts) -> Result<HttpModel, ProviderError> {
    let base = config.base_url.as_deref().unwrap_or(URL).trim_end_matches('/');
    HttpModel::new(Target {
        name: "ollama",
        api: AdapterKind::OpenAI,
        url: &format!("{}/v1", base.strip_suffix("/v1").unwrap_or(base)),
        key: None,
        model: &config.model,
        sees_images: config.images.reach(&config.model),
        timeouts,
    })
}
