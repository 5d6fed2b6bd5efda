//! Anthropic's Claude.
//!
//! Protocol: <https://platform.claude.com/docs/en/build-with-claude/streaming>, version 2023-06-01, which is the one that
//! `genai` speaks, as of November 2026.

use std::sync::Arc;

use genai::adapter::AdapterKind;

use super::{
    LanguageModel,
    http::{HttpModel, Target, Timeouts},
};
use crate::providers::{AnthropicConfig, ProviderError, registry::LoadContext};

const URL: &str = "https://api.anthropic.com";

pub(in crate::providers) fn load(context: &LoadContext<'_>) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    let Some(config) = &context.config.anthropic else {
        return Err(ProviderError::Unavailable("ANTHROPIC_API_KEY is not set".into()));
    };
    Ok(Arc::new(model(config, Timeouts::default())?))
}

/// The base URL is without `/v1`, as Anthropic's SDKs take it.
pub(super) fn model(config: &AnthropicConfig, timeouts: Timeouts) -> Result<HttpModel, ProviderError> {
    let base = config.base_url.as_deref().unwrap_or(URL).trim_end_matches('/');
    HttpModel::new(Target {
        name: "anthropic",
        api: AdapterKind::Anthropic,
        url: &format!("{}/v1", base.strip_suffix("/v1").unwrap_or(base)),
        key: Some(&config.key),
        model: &config.model,
        sees_images: config.images.reach(&config.model),
        timeouts,
    })
}
