//! A thinker elsewhere: any endpoint that speaks OpenAI's chat completions, or Google's Gemini, by
//! their own streamed wire protocols (crate `genai`).
//!
//! `genai` logs a provider's error as it came, which may quote the key or the conversation: the
//! telemetry keeps the target `genai` off, and the errors here are in our own words.

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use genai::adapter::AdapterKind;
use genai::chat::{ChatMessage, ChatOptions, ChatRequest, ChatStreamEvent};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use reqwest::StatusCode;

use crate::{
    providers::{
        ProviderError,
        llm::{LanguageModel, LlmEvent, Prompt, Role},
    },
    secret::Secret,
};

/// How much of a conversation is sent, in bytes of text: some 6,000 tokens.
const HISTORY_BYTES: usize = 24_000;
/// What a spoken answer may be long, in tokens: about two minutes.
const ANSWER_TOKENS: u32 = 512;
const GEMINI_URL: &str = "https://generativelanguage.googleapis.com/v1beta/";
const OPENAI_URL: &str = "https://api.openai.com/v1/";

/// How long a provider may keep us waiting before it counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To the beginning of its answer.
    pub first_event: Duration,
    /// From one piece of the answer to the next.
    pub next_event: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { first_event: Duration::from_secs(15), next_event: Duration::from_secs(15) }
    }
}

/// A language model behind an HTTP endpoint.
pub struct HttpModel {
    name: &'static str,
    client: Client,
    target: ServiceTarget,
    options: ChatOptions,
}

impl HttpModel {
    /// An endpoint that speaks OpenAI's chat completions. Without `base_url` (`http://…/v1`) it is
    /// OpenAI's own; without a key it is one that wants none, such as a model server next door.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] where the URL is not one of HTTP.
    pub fn openai(
        base_url: Option<&str>,
        key: Option<&Secret>,
        model: &str,
        timeouts: Timeouts,
    ) -> Result<Self, ProviderError> {
        Self::new("openai", AdapterKind::OpenAI, base_url.unwrap_or(OPENAI_URL), key, model, timeouts)
    }

    /// Google's Gemini; `base_url` only where a proxy stands before it.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`] where the URL is not one of HTTP.
    pub fn gemini(
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
            return Err(ProviderError::Unavailable(format!(
                "{name}: the base URL must begin with http:// or https://"
            )));
        }
        let client = Client::builder()
            .build()
            .map_err(|error| ProviderError::Unavailable(format!("{name}: no HTTP client: {error}")))?;
        let target = ServiceTarget {
            endpoint: Endpoint::from_owned(format!("{}/", url.trim_end_matches('/'))),
            auth: AuthData::from_single(key.map_or("none", Secret::expose)),
            model: ModelIden::new(kind, model),
        };
        let options = ChatOptions::default()
            .with_max_tokens(ANSWER_TOKENS)
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
            let answer = client.exec_chat_stream(target, request(&prompt), Some(&options)).await;
            answer.map(|answer| answer.stream)
        };
        stream::once(begin)
            .try_flatten()
            .try_filter_map(|event| async {
                Ok(match event {
                    ChatStreamEvent::Chunk(chunk) => {
                        Some(chunk.content).filter(|text| !text.is_empty()).map(LlmEvent::TextDelta)
                    }
                    ChatStreamEvent::Start
                    | ChatStreamEvent::ReasoningChunk(_)
                    | ChatStreamEvent::ThoughtSignatureChunk(_)
                    | ChatStreamEvent::ToolCallChunk(_)
                    | ChatStreamEvent::End(_)
                    | ChatStreamEvent::Heartbeat => None,
                })
            })
            .map_err(|error| what_went_wrong(&error))
            .boxed()
    }
}

fn request(prompt: &Prompt) -> ChatRequest {
    let messages = prompt.recent(HISTORY_BYTES).iter().map(|line| match line.role {
        Role::User => ChatMessage::user(&line.text),
        Role::Assistant => ChatMessage::assistant(&line.text),
    });
    let request = ChatRequest::from_messages(messages.collect());
    match prompt.system.is_empty() {
        true => request,
        false => request.with_system(&prompt.system),
    }
}

/// The provider's own words are left out: they may quote the key, or the conversation.
fn what_went_wrong(error: &genai::Error) -> ProviderError {
    let Some(status) = status_of(error) else {
        return ProviderError::Connection(kind_of(error).into());
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

#[expect(clippy::wildcard_enum_match_arm, reason = "genai's errors are many, and most cannot come of a chat")]
fn kind_of(error: &genai::Error) -> &'static str {
    use genai::Error as E;
    match error {
        E::WebStream { .. } | E::WebModelCall { .. } | E::WebAdapterCall { .. } | E::HttpError { .. } => {
            "the endpoint cannot be reached, broke off, or kept silent for too long"
        }
        E::StreamParse { .. }
        | E::InvalidJsonResponseElement { .. }
        | E::SerdeJson(_)
        | E::JsonValueExt(_) => "the endpoint answered in another format",
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
        let line = |role, text: &str| ChatMessage { role, text: text.to_owned() };
        Prompt {
            system: "Be brief.".to_owned(),
            messages: vec![
                line(Role::User, "Hello"),
                line(Role::Assistant, "Hi."),
                line(Role::User, "Where is the moon?"),
            ],
        }
    }

    /// A provider that takes one request, sends `answer` and then, where `hangs`, keeps silent until
    /// the client is gone. Gives the address and what was asked.
    async fn provider(answer: String, hangs: bool) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let request = read_request(&mut socket).await;
            socket.write_all(answer.as_bytes()).await.unwrap();
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
            assert_ne!(count, 0, "the request broke off");
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

    fn events(lines: &[&str]) -> String {
        let body: String = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
    }

    fn delta(text: &str) -> String {
        format!(
            r#"{{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
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

    #[tokio::test]
    async fn an_openai_compatible_endpoint_is_asked_and_its_answer_streams() {
        let end = r#"{"id":"1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let (url, asked) = provider(events(&[&delta("Up "), &delta("there."), end, "[DONE]"]), false).await;

        let pieces: Vec<_> = openai(&url).respond(prompt()).map(text_of).collect().await;

        assert_eq!(pieces, ["Up ", "there."]);
        let asked = asked.await.unwrap();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        assert!(head.to_lowercase().contains(&format!("authorization: bearer {KEY}")), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["stream"], true);
        assert_eq!(body["messages"][0]["role"], "system");
        assert_eq!(body["messages"][3]["content"], "Where is the moon?");
    }

    #[tokio::test]
    async fn gemini_is_asked_and_its_answer_streams() {
        let part = |text: &str| {
            format!(
                r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{text}"}}]}},"index":0}}]}}"#
            )
        };
        let (url, asked) = provider(events(&[&part("Up "), &part("there.")]), false).await;
        let gemini =
            HttpModel::gemini(Some(&url), &Secret::new(KEY), "gemini-2.5-flash", Timeouts::default())
                .unwrap();

        let pieces: Vec<_> = gemini.respond(prompt()).map(text_of).collect().await;

        assert_eq!(pieces.concat(), "Up there.");
        let asked = asked.await.unwrap();
        assert!(
            asked.starts_with("POST /v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse "),
            "{asked}"
        );
        assert!(asked.to_lowercase().contains(&format!("x-goog-api-key: {KEY}")), "{asked}");
    }

    #[tokio::test]
    async fn a_refusal_says_why_and_never_what_the_key_is() {
        let told = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}"}}}}"#);
        for (line, expected) in [
            ("401 Unauthorized", ProviderError::Refused("HTTP 401: the key is not accepted".into())),
            (
                "429 Too Many Requests",
                ProviderError::Refused("HTTP 429: too many requests, or the quota is used up".into()),
            ),
            ("503 Service Unavailable", ProviderError::Connection("HTTP 503".into())),
        ] {
            let (url, _) = provider(status(line, &told), false).await;

            let answer: Vec<_> = openai(&url).respond(prompt()).collect().await;

            assert_eq!(answer, [Err(expected)]);
        }
        assert!(!format!("{:?}", Secret::new(KEY)).contains("secret"));
    }

    #[tokio::test]
    async fn an_endpoint_that_is_not_there_is_a_failed_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        drop(listener);

        let answer: Vec<_> = openai(&url).respond(prompt()).collect().await;

        assert!(matches!(&answer[..], [Err(ProviderError::Connection(_))]), "{answer:?}");
    }

    #[tokio::test]
    async fn an_endpoint_that_falls_silent_in_the_middle_is_given_up() {
        let (url, _) = provider(events(&[&delta("Up ")]), true).await;
        let timeouts = Timeouts { next_event: Duration::from_millis(50), ..Timeouts::default() };
        let chat = HttpModel::openai(Some(&url), None, "m", timeouts).unwrap();

        let answer: Vec<_> = chat.respond(prompt()).collect().await;

        assert!(
            matches!(&answer[..], [Ok(LlmEvent::TextDelta(text)), Err(ProviderError::Connection(_))] if text == "Up "),
            "{answer:?}"
        );
    }

    #[tokio::test]
    async fn dropping_the_answer_hangs_up() {
        let (url, served) = provider(events(&[&delta("Up ")]), true).await;
        let mut answer = openai(&url).respond(prompt());
        assert_eq!(answer.next().await, Some(Ok(LlmEvent::TextDelta("Up ".to_owned()))));

        drop(answer);

        // The provider returns only once the client has closed.
        assert!(served.await.unwrap().starts_with("POST"));
    }

    #[test]
    fn a_base_url_without_http_is_refused() {
        assert!(HttpModel::openai(Some("localhost:8000"), None, "m", Timeouts::default()).is_err());
    }
}
