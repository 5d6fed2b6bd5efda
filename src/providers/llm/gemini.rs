//! Google's Gemini.
//!
//! Protocol: <https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent>, as of November 2026.

use std::sync::Arc;

use genai::adapter::AdapterKind;

use super::{
    LanguageModel,
    http::{HttpModel, Target, Timeouts},
};
use crate::providers::{GeminiConfig, ProviderError, registry::LoadContext};

const URL: &str = "https://generativelanguage.googleapis.com/v1beta";

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    let Some(config) = &context.config.gemini else {
        return Err(ProviderError::Unavailable("GEMINI_API_KEY is not set".into()));
    };
    Ok(Arc::new(model(config, Timeouts::default())?))
}

pub(super) fn model(config: &GeminiConfig, timeouts: Timeouts) -> Result<HttpModel, ProviderError> {
    HttpModel::new(Target {
        name: "gemini",
        api: AdapterKind::Gemini,
        url: config.base_url.as_deref().unwrap_or(URL),
        key: Some(&config.key),
        model: &config.model,
        sees_images: config.images.reach(&config.model),
        timeouts,
    })
}
