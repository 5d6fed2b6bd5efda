//! Language models behind HTTP: endpoints with OpenAI's chat completions, and Google's Gemini, by their streaming APIs
//! (crate `genai`).
//!
//! A provider's error message can quote the key or the conversation. `genai` logs it, so the default log filter has
//! `genai=off`, and the errors of this module do not contain it.

use std::{sync::Arc, time::Duration};

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use genai::adapter::AdapterKind;
use genai::chat::{ChatMessage, ChatOptions, ChatRequest, ChatStreamEvent, StopReason, StreamEnd};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use reqwest::StatusCode;

use super::{LanguageModel, LlmEvent, Prompt, Role, ToolCall, Usage};
use crate::{
    providers::{ProviderError, registry::LoadContext},
    secret::Secret,
};

/// How much of a conversation is sent, in bytes of text: about 6,000 tokens.
const HISTORY_BYTES: usize = 24_000;
/// Longest response: about two minutes of speech.
const MAX_OUTPUT_TOKENS: u32 = 512;
/// The most events of a response: text, reasoning and pieces of tool calls, which `genai` keeps until their end.
const MAX_EVENTS: usize = 20_000;
const GEMINI_URL: &str = "https://generativelanguage.googleapis.com/v1beta/";
const OPENAI_URL: &str = "https://api.openai.com/v1/";

pub(in crate::providers) fn load_openai(
    context: &LoadContext<'_>,
) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    let Some(openai) = &context.config.openai else {
        return Err(ProviderError::Unavailable("neither OPENAI_API_KEY nor OPENAI_BASE_URL is set".into()));
    };
    let base_url = openai.base_url.as_deref();
    Ok(Arc::new(HttpModel::openai(base_url, openai.key.as_ref(), &openai.model, Timeouts::default())?))
}

pub(in crate::providers) fn load_gemini(
    context: &LoadContext<'_>,
) -> Result<Arc<dyn LanguageModel>, ProviderError> {
    let Some(gemini) = &context.config.gemini else {
        return Err(ProviderError::Unavailable("GEMINI_API_KEY is not set".into()));
    };
    let base_url = gemini.base_url.as_deref();
    Ok(Arc::new(HttpModel::gemini(base_url, &gemini.key, &gemini.model, Timeouts::default())?))
}

/// How long a provider may take before the connection counts as lost.
#[derive(Clone, Copy)]
struct Timeouts {
    /// Until the response begins.
    first_event: Duration,
    /// From one event to the next.
    next_event: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { first_event: Duration::from_secs(15), next_event: Duration::from_secs(15) }
    }
}

struct HttpModel {
    name: &'static str,
    client: Client,
    target: ServiceTarget,
    options: ChatOptions,
}

impl HttpModel {
    /// OpenAI's own endpoint without `base_url` (`http://…/v1`). A key is optional, since local model servers need
    /// none.
    fn openai(
        base_url: Option<&str>,
        key: Option<&Secret>,
        model: &str,
        timeouts: Timeouts,
    ) -> Result<Self, ProviderError> {
        Self::new("openai", AdapterKind::OpenAI, base_url.unwrap_or(OPENAI_URL), key, model, timeouts)
    }

    fn gemini(
        base_url: Option<&str>,
        key: &Secret,
        model: &str,
        timeouts: Timeouts,
    ) -> Result<Self, ProviderError> {
        Self::new("gemini", AdapterKind::Gemini, base_url.unwrap_or(GEMINI_URL), Some(key), model, timeouts)
    }

    fn new(
        name: &'static str,
        kind: AdapterKind,
        url: &str,
        key: Option<&Secret>,
        model: &str,
        timeouts: Timeouts,
    ) -> Result<Self, ProviderError> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(ProviderError::Unavailable(
                "the base URL must begin with http:// or https://".into(),
            ));
        }
        let client = Client::builder()
            .build()
            .map_err(|error| ProviderError::Unavailable(format!("no HTTP client: {error}")))?;
        let target = ServiceTarget {
            endpoint: Endpoint::from_owned(format!("{}/", url.trim_end_matches('/'))),
            auth: AuthData::from_single(key.map_or("none", Secret::expose)),
            model: ModelIden::new(kind, model),
        };
        let options = ChatOptions::default()
            .with_capture_tool_calls(true)
            .with_capture_usage(true)
            .with_max_tokens(MAX_OUTPUT_TOKENS)
            .with_stream_header_timeout(timeouts.first_event)
            .with_stream_read_timeout(timeouts.next_event);
        Ok(Self { name, client, target, options })
    }
}

impl LanguageModel for HttpModel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn respond(&self, prompt: Prompt) -> BoxStream<'static, Result<LlmEvent, ProviderError>> {
        let (client, target, options) = (self.client.clone(), self.target.clone(), self.options.clone());
        let begin = async move {
            let response = client.exec_chat_stream(target, request(&prompt), Some(&options)).await;
            response.map(|response| response.stream)
        };
        let too_many = || ProviderError::Connection("the response has too many events".into());
        stream::once(begin)
            .try_flatten()
            .map_err(|error| provider_error(&error))
            .enumerate()
            .map(move |(number, event)| if number < MAX_EVENTS { event } else { Err(too_many()) })
            .map_ok(|event| stream::iter(events(event).into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }
}

fn request(prompt: &Prompt) -> ChatRequest {
    let messages = prompt.recent(HISTORY_BYTES).iter().map(|message| match message.role {
        Role::User => ChatMessage::user(&message.text),
        Role::Assistant => ChatMessage::assistant(&message.text),
    });
    let request = ChatRequest::from_messages(messages.collect());
    match prompt.system.is_empty() {
        true => request,
        false => request.with_system(&prompt.system),
    }
}

fn events(event: ChatStreamEvent) -> Vec<LlmEvent> {
    match event {
        ChatStreamEvent::Chunk(chunk) if chunk.content.is_empty() => Vec::new(),
        ChatStreamEvent::Chunk(chunk) => vec![LlmEvent::TextDelta(chunk.content)],
        ChatStreamEvent::End(end) => last_events(end),
        // A tool call can come in pieces; the end has the whole one.
        ChatStreamEvent::ToolCallChunk(_)
        | ChatStreamEvent::Start
        | ChatStreamEvent::ReasoningChunk(_)
        | ChatStreamEvent::ThoughtSignatureChunk(_)
        | ChatStreamEvent::Heartbeat => Vec::new(),
    }
}

/// The tool calls of the response, its usage, and whether it was cut.
fn last_events(end: StreamEnd) -> Vec<LlmEvent> {
    let tokens = |count: Option<i32>| count.and_then(|count| u32::try_from(count).ok());
    let usage = end.captured_usage.as_ref().map(|usage| Usage {
        input_tokens: tokens(usage.prompt_tokens),
        output_tokens: tokens(usage.completion_tokens),
    });
    let is_cut = matches!(end.captured_stop_reason, Some(StopReason::MaxTokens(_)));
    let calls = end.captured_into_tool_calls().unwrap_or_default().into_iter().map(|call| {
        LlmEvent::ToolCall(ToolCall { id: call.call_id, name: call.fn_name, arguments: call.fn_arguments })
    });
    let usage = usage.filter(|usage| *usage != Usage::default()).map(LlmEvent::Usage);
    calls.chain(usage).chain(is_cut.then_some(LlmEvent::Truncated)).collect()
}

/// Leaves the provider's message out: it can quote the key or the conversation.
fn provider_error(error: &genai::Error) -> ProviderError {
    let Some(status) = status_of(error) else {
        return ProviderError::Connection(description(error).into());
    };
    let code = status.as_u16();
    match code {
        401 | 403 => ProviderError::Refused(format!("HTTP {code}: the key is not accepted")),
        404 => ProviderError::Refused(format!("HTTP {code}: no such model or endpoint")),
        429 => ProviderError::Refused(format!("HTTP {code}: too many requests, or the quota is used up")),
        400..500 => ProviderError::Refused(format!("HTTP {code}: the request was not accepted")),
        _ => ProviderError::Connection(format!("HTTP {code}")),
    }
}

/// The HTTP status, also of a stream that was refused before it began.
fn status_of(error: &genai::Error) -> Option<StatusCode> {
    if let genai::Error::WebStream { error: cause, .. } = error {
        return cause.downcast_ref::<genai::Error>()?.status();
    }
    error.status()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "most of genai's many errors cannot occur in a chat")]
fn description(error: &genai::Error) -> &'static str {
    use genai::Error as E;
    match error {
        E::WebStream { .. } | E::WebModelCall { .. } | E::WebAdapterCall { .. } | E::HttpError { .. } => {
            "the endpoint cannot be reached, closed the connection, or sent nothing for too long"
        }
        E::StreamParse { .. }
        | E::InvalidJsonResponseElement { .. }
        | E::SerdeJson(_)
        | E::JsonValueExt(_) => "the response has an unexpected format",
        E::ChatResponse { .. } | E::NoChatResponse { .. } => "the model reported an error",
        _ => "the request could not be made",
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::providers::llm::{ChatMessage, tests::text_of};

    const KEY: &str = "sk-very-secret";

    fn prompt() -> Prompt {
        let message = |role, text: &str| ChatMessage { role, text: text.to_owned() };
        Prompt {
            system: "Be brief.".to_owned(),
            messages: vec![
                message(Role::User, "Hello"),
                message(Role::Assistant, "Hi."),
                message(Role::User, "Where is the moon?"),
            ],
        }
    }

    /// A provider that reads one request, sends `response` and then, if `hangs`, nothing until the client closes the
    /// connection. Returns its URL and the request.
    async fn provider(response: String, hangs: bool) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let request = read_request(&mut socket).await;
            socket.write_all(response.as_bytes()).await.unwrap();
            if hangs {
                let mut rest = Vec::new();
                // Ends when the client closes.
                let _ = socket.read_to_end(&mut rest).await;
            }
            request
        });
        (url, serving)
    }

    async fn read_request(socket: &mut TcpStream) -> String {
        let mut request = Vec::new();
        loop {
            let mut piece = [0; 4096];
            let count = socket.read(&mut piece).await.unwrap();
            assert_ne!(count, 0, "the request is incomplete");
            request.extend_from_slice(&piece[..count]);
            let text = String::from_utf8_lossy(&request);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .map_or(0, |(_, length)| length.trim().parse().unwrap());
                if body.len() >= length {
                    return text.into_owned();
                }
            }
        }
    }

    fn sse(lines: &[&str]) -> String {
        let body: String = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
    }

    fn delta(text: &str) -> String {
        format!(
            r#"{{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
        )
    }

    fn end(reason: &str) -> String {
        format!(
            r#"{{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#
        )
    }

    fn status(line: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn openai(url: &str) -> HttpModel {
        HttpModel::openai(Some(url), Some(&Secret::new(KEY)), "m", Timeouts::default()).unwrap()
    }

    fn gemini(url: &str) -> HttpModel {
        HttpModel::gemini(Some(url), &Secret::new(KEY), "gemini-2.5-flash", Timeouts::default()).unwrap()
    }

    #[tokio::test]
    async fn the_response_of_an_openai_compatible_endpoint_streams() {
        let (url, request) =
            provider(sse(&[&delta("Up "), &delta("there."), &end("stop"), "[DONE]"]), false).await;

        let pieces: Vec<_> = openai(&url).respond(prompt()).map(text_of).collect().await;

        assert_eq!(pieces, ["Up ", "there."]);
        let request = request.await.unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        assert!(head.to_lowercase().contains(&format!("authorization: bearer {KEY}")), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["stream"], true);
        assert_eq!(body["messages"][0]["role"], "system");
        assert_eq!(body["messages"][3]["content"], "Where is the moon?");
    }

    #[tokio::test]
    async fn the_response_of_gemini_streams() {
        let part = |text: &str| {
            format!(
                r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{text}"}}]}},"index":0}}]}}"#
            )
        };
        let (url, request) = provider(sse(&[&part("Up "), &part("there.")]), false).await;

        let pieces: Vec<_> = gemini(&url).respond(prompt()).map(text_of).collect().await;

        assert_eq!(pieces.concat(), "Up there.");
        let request = request.await.unwrap();
        assert!(
            request.starts_with("POST /v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse "),
            "{request}"
        );
        assert!(request.to_lowercase().contains(&format!("x-goog-api-key: {KEY}")), "{request}");
    }

    #[tokio::test]
    async fn openai_reports_usage_at_the_end() {
        let usage = r#"{"id":"1","object":"chat.completion.chunk","model":"m","choices":[],"usage":{"prompt_tokens":31,"completion_tokens":2,"total_tokens":33}}"#;
        let (url, request) = provider(sse(&[&delta("Up."), &end("stop"), usage, "[DONE]"]), false).await;

        let events: Vec<_> = openai(&url).respond(prompt()).collect().await;

        let usage = Usage { input_tokens: Some(31), output_tokens: Some(2) };
        assert_eq!(events, [Ok(LlmEvent::TextDelta("Up.".into())), Ok(LlmEvent::Usage(usage))]);
        assert!(request.await.unwrap().contains(r#""include_usage":true"#));
    }

    #[tokio::test]
    async fn a_response_that_reached_the_providers_limit_says_that_it_was_cut() {
        let (url, _) = provider(sse(&[&delta("Up."), &end("length"), "[DONE]"]), false).await;

        let events: Vec<_> = openai(&url).respond(prompt()).collect().await;

        assert_eq!(events, [Ok(LlmEvent::TextDelta("Up.".into())), Ok(LlmEvent::Truncated)]);
    }

    #[tokio::test]
    async fn a_tool_call_of_openai_is_put_together_from_its_pieces() {
        let piece = |call: &str| {
            format!(
                r#"{{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{{"tool_calls":[{call}]}},"finish_reason":null}}]}}"#
            )
        };
        let stream = [
            &piece(
                r#"{"index":0,"id":"call_7","type":"function","function":{"name":"moon","arguments":""}}"#,
            ),
            &piece(r#"{"index":0,"function":{"arguments":"{\"city\":"}}"#),
            &piece(r#"{"index":0,"function":{"arguments":"\"Oslo\"}"}}"#),
            &end("tool_calls"),
            "[DONE]",
        ];
        let (url, _) = provider(sse(&stream), false).await;

        let events: Vec<_> = openai(&url).respond(prompt()).collect().await;

        let call = ToolCall {
            id: "call_7".into(),
            name: "moon".into(),
            arguments: serde_json::json!({"city": "Oslo"}),
        };
        assert_eq!(events, [Ok(LlmEvent::ToolCall(call))]);
    }

    #[tokio::test]
    async fn gemini_reports_tool_calls_and_usage() {
        let chunk = r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"moon","args":{"city":"Oslo"}}}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":31,"candidatesTokenCount":2,"totalTokenCount":33}}"#;
        let (url, _) = provider(sse(&[chunk]), false).await;

        let events: Vec<_> = gemini(&url).respond(prompt()).collect().await;

        let [Ok(LlmEvent::ToolCall(call)), Ok(LlmEvent::Usage(usage))] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!((call.name.as_str(), &call.arguments), ("moon", &serde_json::json!({"city": "Oslo"})));
        assert_eq!(*usage, Usage { input_tokens: Some(31), output_tokens: Some(2) });
    }

    #[tokio::test]
    async fn a_refusal_says_why_without_the_key() {
        let body = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}"}}}}"#);
        for (line, expected) in [
            ("401 Unauthorized", ProviderError::Refused("HTTP 401: the key is not accepted".into())),
            (
                "429 Too Many Requests",
                ProviderError::Refused("HTTP 429: too many requests, or the quota is used up".into()),
            ),
            ("503 Service Unavailable", ProviderError::Connection("HTTP 503".into())),
        ] {
            let (url, _) = provider(status(line, &body), false).await;

            let events: Vec<_> = openai(&url).respond(prompt()).collect().await;

            assert_eq!(events, [Err(expected)]);
        }
        assert!(!format!("{:?}", Secret::new(KEY)).contains("secret"));
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_a_failed_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        drop(listener);

        let events: Vec<_> = openai(&url).respond(prompt()).collect().await;

        assert!(matches!(&events[..], [Err(ProviderError::Connection(_))]), "{events:?}");
    }

    #[tokio::test]
    async fn an_endpoint_that_sends_nothing_more_is_a_failed_connection() {
        let (url, _) = provider(sse(&[&delta("Up ")]), true).await;
        let timeouts = Timeouts { next_event: Duration::from_millis(50), ..Timeouts::default() };
        let model = HttpModel::openai(Some(&url), None, "m", timeouts).unwrap();

        let events: Vec<_> = model.respond(prompt()).collect().await;

        assert!(
            matches!(&events[..], [Ok(LlmEvent::TextDelta(text)), Err(ProviderError::Connection(_))] if text == "Up "),
            "{events:?}"
        );
    }

    #[tokio::test]
    async fn reasoning_without_end_is_an_error() {
        let reasoning = delta("Hm.").replace("content", "reasoning_content");
        let (url, _) = provider(sse(&vec![reasoning.as_str(); MAX_EVENTS + 1]), true).await;

        let first = openai(&url).respond(prompt()).next().await;

        let problem = ProviderError::Connection("the response has too many events".into());
        assert_eq!(first, Some(Err(problem)));
    }

    #[tokio::test]
    async fn dropping_the_response_closes_the_connection() {
        let (url, served) = provider(sse(&[&delta("Up ")]), true).await;
        let mut response = openai(&url).respond(prompt());
        assert_eq!(response.next().await, Some(Ok(LlmEvent::TextDelta("Up ".to_owned()))));

        drop(response);

        // The provider returns only once the client has closed the connection.
        assert!(served.await.unwrap().starts_with("POST"));
    }

    #[test]
    fn a_base_url_without_http_is_refused() {
        assert!(HttpModel::openai(Some("localhost:8000"), None, "m", Timeouts::default()).is_err());
    }
}
