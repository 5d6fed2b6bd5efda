//! Language models behind HTTP, by the crate `genai`: it writes the requests and reads the streams of each vendor's API.
//!
//! `genai` logs requests and responses, which have the conversation in them, so the default log filter has `genai=off`.

mod errors;
mod request;
mod response;
mod tool_calls;

use std::time::Duration;

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use genai::{
    Client, ModelIden, ServiceTarget,
    adapter::AdapterKind,
    chat::{ChatOptions, ReasoningEffort},
    resolver::{AuthData, Endpoint},
};

use super::{LanguageModel, LlmEvent, Prompt, answer_filter, through};
use crate::{
    providers::{ProviderError, http as http_client},
    secret::Secret,
};

use response::ResponseReader;

/// Longest response: about two minutes of speech.
const MAX_OUTPUT_TOKENS: u32 = 512;

/// How long a provider may take before the connection counts as lost.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    /// Until the response begins.
    pub(super) first_byte: Duration,
    /// From one piece of the response to the next.
    pub(super) next_byte: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { first_byte: Duration::from_secs(15), next_byte: Duration::from_secs(15) }
    }
}

/// Where a model is and what it can do.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) name: &'static str,
    pub(super) api: AdapterKind,
    /// Without the path of the call.
    pub(super) url: &'a str,
    pub(super) key: Option<&'a Secret>,
    pub(super) model: &'a str,
    pub(super) sees_images: bool,
    pub(super) timeouts: Timeouts,
}

pub(super) struct HttpModel {
    name: &'static str,
    sees_images: bool,
    client: Client,
    target: ServiceTarget,
    options: ChatOptions,
    key: Option<Secret>,
}

impl HttpModel {
    pub(super) fn new(target: Target<'_>) -> Result<Self, ProviderError> {
        let Target { name, api, url, key, model, sees_images, timeouts } = target;
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(ProviderError::Unavailable(
                "the base URL must begin with http:// or https://".into(),
            ));
        }
        let client = Client::builder()
            .with_reqwest(http_client::client()?)
            .build()
            .map_err(|error| ProviderError::Unavailable(format!("no HTTP client: {error}")))?;
        let target = ServiceTarget {
            endpoint: Endpoint::from_owned(format!("{}/", url.trim_end_matches('/'))),
            // Servers that need no key take any.
            auth: AuthData::from_single(key.map_or("none", Secret::expose)),
            model: ModelIden::new(api, model),
        };
        let options = ChatOptions::default()
            .with_capture_tool_calls(!tool_calls::come_in_pieces(api))
            .with_capture_usage(true)
            .with_max_tokens(MAX_OUTPUT_TOKENS)
            .with_stream_header_timeout(timeouts.first_byte)
            .with_stream_read_timeout(timeouts.next_byte);
        let options = if api == AdapterKind::OpenAI {
            // Otherwise genai takes endings like `-max` off the model's name. A budget is not sent to this API.
            options.with_reasoning_effort(ReasoningEffort::Budget(0))
        } else {
            options
        };
        Ok(Self { name, sees_images, client, target, options, key: key.cloned() })
    }
}

impl LanguageModel for HttpModel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sees_images(&self) -> bool {
        self.sees_images
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let (client, target, options) = (self.client.clone(), self.target.clone(), self.options.clone());
        let (sees_images, key) = (self.sees_images, self.key.clone());
        let reader = ResponseReader::new(tool_calls::come_in_pieces(self.target.model.adapter_kind));
        let begin = async move {
            let request = request::request(&prompt, sees_images);
            let response = client.exec_chat_stream(target, request, Some(&options)).await;
            response.map(|response| response.stream)
        };
        let events = stream::once(begin)
            .try_flatten()
            .map_err(move |error| errors::provider_error(&error, key.as_ref()))
            .boxed();
        answer_filter::answers(through(events, reader))
    }
}
