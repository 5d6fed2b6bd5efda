//! OpenAI, and any endpoint with its chat completions.
//!
//! Protocol: <https://platform.openai.com/docs/api-reference/chat-streaming>, as of November 2026.

use std::sync::Arc;

use genai::adapter::AdapterKind;

use super::{
    LanguageModel,
    http::{HttpModel, Target, Timeouts},
};
use crate::providers::{OpenAiConfig, ProviderError, registry::LoadContext};

const URL: &str = "https://api.openai.com/v1";

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    let Some(config) = &context.config.openai else {
        return Err(ProviderError::Unavailable("neither OPENAI_API_KEY nor OPENAI_BASE_URL is set".into()));
    };
    Ok(Arc::new(model(config, Timeouts::default())?))
}

/// A key is optional, since local model servers need none.
pub(super) fn model(config: &OpenAiConfig, timeouts: Timeouts) -> Result<HttpModel, ProviderError> {
    HttpModel::new(Target {
        name: "openai",
        api: AdapterKind::OpenAI,
        url: config.base_url.as_deref().unwrap_or(URL),
        key: config.key.as_ref(),
        model: &config.model,
        sees_images: config.images.reach(&config.model),
        timeouts,
    })
}
