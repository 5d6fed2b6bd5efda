//! What every language model behind HTTP has to do, against a server that speaks its vendor's protocol.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, future};
use serde_json::{Value, json};
use test_support::llm::{Answer, Finish, KEY, LlmApi, LlmServer, Step, USAGE};
use tokio::net::TcpListener;

use super::{
    ChatMessage, Image, LanguageModel, LlmEvent, Prompt, ToolCall, ToolResult, ToolSpec, Usage, anthropic,
    gemini,
    http::{HttpModel, Timeouts},
    ollama, openai,
};
use crate::{
    providers::{AnthropicConfig, GeminiConfig, Images, OllamaConfig, OpenAiConfig, ProviderError},
    secret::Secret,
};

const APIS: [LlmApi; 4] = [LlmApi::OpenAi, LlmApi::Gemini, LlmApi::Anthropic, LlmApi::Ollama];

/// A model and its server.
struct Subject {
    api: LlmApi,
    server: LlmServer,
    model: HttpModel,
}

struct Options {
    key: &'static str,
    model: &'static str,
    images: Images,
    timeouts: Timeouts,
}

impl Default for Options {
    fn default() -> Self {
        Self { key: KEY, model: "m", images: Images::On, timeouts: Timeouts::default() }
    }
}

impl Subject {
    async fn start(api: LlmApi, options: &Options) -> Self {
        let server = LlmServer::start(api).await;
        let model = Self::model(api, &server.url(), options).unwrap();
        Self { api, server, model }
    }

    fn model(api: LlmApi, url: &str, options: &Options) -> Result<HttpModel, ProviderError> {
        let Options { images, timeouts, .. } = *options;
        let (base_url, key, model) =
            (Some(url.to_owned()), Secret::new(options.key), options.model.to_owned());
        match api {
            LlmApi::OpenAi => {
                openai::model(&OpenAiConfig { base_url, key: Some(key), model, images }, timeouts)
            }
            LlmApi::Gemini => gemini::model(&GeminiConfig { base_url, key, model, images }, timeouts),
            LlmApi::Anthropic => {
                anthropic::model(&AnthropicConfig { base_url, key, model, images }, timeouts)
            }
            LlmApi::Ollama => ollama::model(&OllamaConfig { base_url, model, images }, timeouts),
        }
    }

    /// What the model makes of this answer of the server.
    async fn respond(&self, prompt: Prompt, answer: Answer) -> Vec<Result<LlmEvent, ProviderError>> {
        self.server.answer(answer);
        self.model.respond(prompt).collect().await
    }

    async fn stream(&self, steps: impl IntoIterator<Item = Step>) -> Vec<Result<LlmEvent, ProviderError>> {
        self.respond(prompt(), Answer::Stream(steps.into_iter().collect())).await
    }

    /// The body of the last request.
    fn asked(&self) -> Value {
        self.server.requests().pop().unwrap().body
    }
}

/// Runs a test with each provider.
async fn each<F: Future<Output = ()>>(test: impl Fn(Subject) -> F) {
    each_with(&Options::default(), test).await;
}

async fn each_with<F: Future<Output = ()>>(options: &Options, test: impl Fn(Subject) -> F) {
    let test = &test;
    future::join_all(APIS.map(|api| async move { test(Subject::start(api, options).await).await })).await;
}

fn prompt() -> Prompt {
    let messages = vec![
        ChatMessage::user("Hello"),
        ChatMessage::assistant("Hi."),
        ChatMessage::user("Where is the moon?"),
    ];
    Prompt::new("Be brief.", messages)
}

fn moon() -> ToolSpec {
    ToolSpec {
        name: "moon".into(),
        description: "Where the moon is.".into(),
        parameters: json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
    }
}

fn image() -> Image {
    Image::new(Bytes::from_static(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")).unwrap()
}

fn delta(text: &str) -> Result<LlmEvent, ProviderError> {
    Ok(LlmEvent::TextDelta(text.to_owned()))
}

fn usage() -> Result<LlmEvent, ProviderError> {
    Ok(LlmEvent::Usage(Usage { input_tokens: Some(USAGE.0), output_tokens: Some(USAGE.1) }))
}

fn calls_of(events: &[Result<LlmEvent, ProviderError>]) -> Vec<ToolCall> {
    events
        .iter()
        .filter_map(|event| match event {
            Ok(LlmEvent::ToolCall(call)) => Some(call.clone()),
            Ok(LlmEvent::TextDelta(_) | LlmEvent::Usage(_) | LlmEvent::Truncated) | Err(_) => None,
        })
        .collect()
}

#[tokio::test]
async fn an_answer_streams_and_ends_with_its_usage() {
    each(async |subject| {
        let wait = Step::Wait(Duration::from_millis(20));

        let events =
            subject.stream([Step::text("Up "), wait, Step::text("thäre."), Step::Finish(Finish::Stop)]).await;

        assert_eq!(events, [delta("Up "), delta("thäre."), usage()], "{:?}", subject.api);
    })
    .await;
}

#[tokio::test]
async fn the_model_gets_the_system_prompt_and_the_conversation() {
    each(async |subject| {
        subject.stream([Step::text("Up."), Step::Finish(Finish::Stop)]).await;

        let asked = subject.asked();
        let (system, conversation) = match subject.api {
            LlmApi::OpenAi | LlmApi::Ollama => (&asked["messages"][0]["content"], &asked["messages"]),
            LlmApi::Gemini => (&asked["systemInstruction"]["parts"][0]["text"], &asked["contents"]),
            LlmApi::Anthropic => (&asked["system"], &asked["messages"]),
        };
        assert_eq!(system, "Be brief.");
        let conversation = conversation.to_string();
        let at = |text: &str| conversation.find(text).unwrap_or_else(|| panic!("{conversation}"));
        assert!(at("Hello") < at("Hi.") && at("Hi.") < at("Where is the moon?"));
        assert_eq!(asked.get("tools"), None);
    })
    .await;
}

#[tokio::test]
async fn reasoning_is_not_part_of_the_answer() {
    each(async |subject| {
        let events = subject
            .stream([
                Step::Reasoning("Where was it?".into()),
                Step::text("<thi"),
                Step::text("nk>Hm.</thi"),
                Step::text("nk>\n\nUp."),
                Step::Finish(Finish::Stop),
            ])
            .await;

        assert_eq!(events, [delta("Up."), usage()], "{:?}", subject.api);
    })
    .await;
}

#[tokio::test]
async fn an_answer_without_text_is_empty() {
    each(async |subject| {
        for steps in [
            vec![],
            vec![Step::text(" \n")],
            vec![Step::Reasoning("Hm.".into())],
            vec![Step::text("<think>Hm.</think>")],
        ] {
            let steps = steps.into_iter().chain([Step::Finish(Finish::Stop)]);

            assert_eq!(
                subject.stream(steps).await,
                [usage(), Err(ProviderError::Empty)],
                "{:?}",
                subject.api
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_web_page_is_no_answer() {
    each(async |subject| {
        let page = "<!DOCTYPE html>\n<html><body>502</body></html>\n";
        let as_text = subject.stream([Step::text(page), Step::Finish(Finish::Stop)]).await;
        let as_body = Answer::Body { content_type: "text/html", body: page.into() };
        let as_body = subject.respond(prompt(), as_body).await;
        let json = Answer::Body {
            content_type: "application/json",
            body: json!({"error": {"message": "out of order"}}).to_string(),
        };
        let json = subject.respond(prompt(), json).await;

        for events in [as_text, as_body, json] {
            assert!(matches!(events[..], [Err(ProviderError::Garbled(_))]), "{:?}: {events:?}", subject.api);
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_without_the_providers_own_end_is_cut() {
    each(async |subject| {
        for last in [Step::Cut, Step::Close] {
            let mut events = subject.stream([Step::text("Up "), last]).await;

            // Gemini reports it all the time.
            events.retain(|event| *event != usage());
            assert_eq!(events[0], delta("Up "));
            assert!(
                matches!(events[1..], [Err(ProviderError::Connection(_))]),
                "{:?}: {events:?}",
                subject.api
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_has_the_servers_reason_and_not_the_key() {
    each(async |subject| {
        let refuse = async |status, retry_after| {
            let message = format!("{KEY} is not good");
            let events = subject.respond(prompt(), Answer::Refusal { status, message, retry_after }).await;
            assert_eq!(events.len(), 1);
            events.into_iter().next().unwrap().unwrap_err()
        };
        let reason = |status: u16| match subject.api {
            // It has no key.
            LlmApi::Ollama => format!("HTTP {status}: {KEY} is not good"),
            LlmApi::OpenAi | LlmApi::Gemini | LlmApi::Anthropic => format!("HTTP {status}: … is not good"),
        };

        for status in [400, 401, 403, 404] {
            let error = refuse(status, None).await;
            assert_eq!(error, ProviderError::Refused(reason(status)));
            assert!(!error.is_retryable());
        }
        for status in [500, 503, 529] {
            assert_eq!(refuse(status, None).await, ProviderError::Connection(reason(status)));
        }
        for (header, retry_after) in [(Some(7), Some(Duration::from_secs(7))), (None, None)] {
            let expected = ProviderError::RateLimited { reason: reason(429), retry_after };
            assert_eq!(refuse(429, header).await, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_does_not_show() {
    let options = Options { key: "sk-wrong-0123456789", ..Options::default() };
    each_with(&options, async |subject| {
        let events = subject.stream([Step::text("Up."), Step::Finish(Finish::Stop)]).await;

        match subject.api {
            LlmApi::Ollama => assert_eq!(events[0], delta("Up.")),
            LlmApi::OpenAi | LlmApi::Gemini | LlmApi::Anthropic => {
                assert!(matches!(events[..], [Err(ProviderError::Refused(_))]), "{events:?}");
                assert!(!format!("{events:?}").contains(options.key), "{events:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_does_not_follow_a_redirection() {
    each(async |subject| {
        let elsewhere = LlmServer::start(subject.api).await;
        let path = match subject.api {
            LlmApi::OpenAi => "/chat/completions",
            LlmApi::Gemini => "/models/m:streamGenerateContent?alt=sse",
            LlmApi::Anthropic => "/v1/messages",
            LlmApi::Ollama => "/v1/chat/completions",
        };
        let redirect = Answer::Redirect { to: format!("{}{path}", elsewhere.url()) };

        let events = subject.respond(prompt(), redirect).await;

        assert_eq!(events, [Err(ProviderError::Refused("HTTP 307".into()))], "{:?}", subject.api);
        assert!(elsewhere.requests().is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_error_in_the_stream_ends_the_answer() {
    each(async |subject| {
        let error = |status| Step::Error { status, message: "out of order".into() };
        let lost = subject.stream([Step::text("Up "), error(500)]).await;
        let limited = subject.stream([error(429)]).await;

        assert_eq!(lost[0], delta("Up "));
        let [Err(lost)] = &lost[1..] else { panic!("{lost:?}") };
        let [Err(limited)] = &limited[..] else { panic!("{limited:?}") };
        assert!(lost.is_retryable());
        if subject.api == LlmApi::Ollama {
            // It does not send the reason.
            return;
        }
        let reason = "error in the response: out of order";
        assert_eq!(*lost, ProviderError::Connection(reason.into()));
        assert_eq!(*limited, ProviderError::RateLimited { reason: reason.into(), retry_after: None });
    })
    .await;
}

#[tokio::test]
async fn what_is_not_of_the_protocol_is_an_error() {
    each(async |subject| {
        for garbage in [
            "event: content_block_delta\ndata: {\"content\":\n\n",
            "event: content_block_delta\ndata: \u{1}\u{2}\n\n",
        ] {
            let garbage = [Step::text("Up "), Step::Raw(garbage.into()), Step::Finish(Finish::Stop)];

            let events = subject.stream(garbage).await;

            assert_eq!(events[0], delta("Up "));
            assert!(matches!(events[1..], [Err(ProviderError::Garbled(_))]), "{:?}: {events:?}", subject.api);
        }
    })
    .await;
}

#[tokio::test]
async fn tool_calls_come_whole_and_in_parallel() {
    each(async |subject| {
        let call = |name: &str, arguments: Value| (name.to_owned(), arguments);
        let calls = vec![
            call("moon", json!({"city": "Tromsø", "height": true})),
            call("moon", json!({"city": "Rome"})),
            call("battery", json!({})),
        ];
        let steps =
            vec![Step::text("One moment."), Step::ToolCalls(calls.clone()), Step::Finish(Finish::ToolCalls)];

        let events = subject.respond(Prompt { tools: vec![moon()], ..prompt() }, Answer::Stream(steps)).await;

        let got = calls_of(&events);
        assert_eq!(events.first(), Some(&delta("One moment.")), "{:?}", subject.api);
        assert_eq!(events.last(), Some(&usage()));
        assert_eq!(got.iter().map(|got| call(&got.name, got.arguments.clone())).collect::<Vec<_>>(), calls);
        assert!(got.iter().all(|call| !call.id.is_empty()));
        assert!(got[0].id != got[1].id && got[1].id != got[2].id && got[0].id != got[2].id, "{got:?}");
    })
    .await;
}

#[tokio::test]
async fn the_results_of_tools_go_back_to_the_model() {
    each(async |subject| {
        let steps = vec![
            Step::ToolCalls(vec![
                ("moon".into(), json!({"city": "Oslo"})),
                ("moon".into(), json!({"city": "Rome"})),
            ]),
            Step::Finish(Finish::ToolCalls),
        ];
        let mut prompt = Prompt { tools: vec![moon()], ..prompt() };
        let tool_calls = calls_of(&subject.respond(prompt.clone(), Answer::Stream(steps)).await);
        let result = |call: &ToolCall, text: &str, image| {
            ChatMessage::ToolResult(ToolResult { call_id: call.id.clone(), text: text.into(), image })
        };
        let results = [
            result(&tool_calls[1], "in the west", Some(image())),
            result(&tool_calls[0], "in the east", None),
        ];
        prompt.messages.push(ChatMessage::Assistant { text: "One moment.".into(), tool_calls });
        prompt.messages.extend(results);

        // The server refuses calls without results, results without calls, and what else its vendor refuses.
        let events = subject
            .respond(prompt, Answer::Stream(vec![Step::text("There."), Step::Finish(Finish::Stop)]))
            .await;

        assert_eq!(events, [delta("There."), usage()], "{:?}", subject.api);
        let asked = subject.asked().to_string();
        for text in ["in the west", "in the east", "iVBORw0KGgo", "Where the moon is."] {
            assert!(asked.contains(text), "{asked}");
        }
    })
    .await;
}

#[tokio::test]
async fn images_go_to_models_that_see() {
    let with_image = || {
        let message = ChatMessage::User { text: "What is that?".into(), images: vec![image()] };
        Prompt::new("", vec![message])
    };
    let answer = || Answer::Stream(vec![Step::text("A cat."), Step::Finish(Finish::Stop)]);
    for images in [Images::On, Images::Off] {
        each_with(&Options { images, ..Options::default() }, async |subject| {
            let events = subject.respond(with_image(), answer()).await;

            assert_eq!(events, [delta("A cat."), usage()], "{:?}", subject.api);
            assert_eq!(subject.model.sees_images(), images == Images::On);
            let asked = subject.asked().to_string();
            assert_eq!(asked.contains("iVBORw0KGgo"), images == Images::On);
            assert_eq!(asked.contains("cannot see"), images == Images::Off);
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_that_reached_the_providers_limit_says_that_it_was_cut() {
    each(async |subject| {
        let events = subject.stream([Step::text("Up"), Step::Finish(Finish::Length)]).await;

        assert_eq!(events, [delta("Up"), usage(), Ok(LlmEvent::Truncated)], "{:?}", subject.api);
    })
    .await;
}

#[tokio::test]
async fn a_tool_call_that_was_cut_is_not_called() {
    each(async |subject| {
        let calls = vec![("moon".to_owned(), json!({"city": "Oslo"}))];

        let events = subject.stream([Step::ToolCalls(calls), Step::Finish(Finish::Length)]).await;

        assert_eq!(events, [usage(), Err(ProviderError::Empty)], "{:?}", subject.api);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_a_filter_ended_is_refused() {
    each(async |subject| {
        let events = subject.stream([Step::text("Up"), Step::Finish(Finish::Filter)]).await;

        assert_eq!(events[..2], [delta("Up"), usage()]);
        assert!(matches!(events[2..], [Err(ProviderError::Refused(_))]), "{:?}: {events:?}", subject.api);
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_sends_nothing_more_took_too_long() {
    let timeouts = Timeouts { next_byte: Duration::from_millis(100), ..Timeouts::default() };
    each_with(&Options { timeouts, ..Options::default() }, async |subject| {
        let events = subject.stream([Step::text("Up "), Step::Hang]).await;

        assert_eq!(events, [delta("Up "), Err(ProviderError::TimedOut)], "{:?}", subject.api);
    })
    .await;
}

#[tokio::test]
async fn reasoning_without_end_is_cut() {
    each(async |subject| {
        let thought = Step::Reasoning("x".repeat(64 * 1024));
        let many = subject.stream(vec![thought; 17].into_iter().chain([Step::Hang])).await;
        let small =
            subject.stream(vec![Step::Reasoning("x".into()); 20_000].into_iter().chain([Step::Hang])).await;

        let no_end = [Err(ProviderError::Garbled("the response has no end".into()))];
        assert_eq!(many, no_end, "{:?}", subject.api);
        assert_eq!(small, no_end, "{:?}", subject.api);
    })
    .await;
}

#[tokio::test]
async fn a_tool_call_without_end_is_cut() {
    each(async |subject| {
        let calls = vec![("moon".to_owned(), json!({"city": "x".repeat(1024 * 1024)}))];

        let events = subject.stream([Step::ToolCalls(calls), Step::Hang]).await;

        assert_eq!(
            events,
            [Err(ProviderError::Garbled("the response has no end".into()))],
            "{:?}",
            subject.api
        );
    })
    .await;
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    each(async |subject| {
        subject.server.answer(Answer::Stream(vec![Step::text("Up "), Step::Hang]));
        let mut response = subject.model.respond(prompt());
        assert_eq!(response.next().await, Some(delta("Up ")));

        drop(response);

        subject.server.closed().await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_a_failed_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for api in APIS {
        let model = Subject::model(api, &url, &Options::default()).unwrap();

        let events: Vec<_> = model.respond(prompt()).collect().await;

        assert_eq!(events, [Err(ProviderError::Connection("cannot be reached".into()))], "{api:?}");
    }
}

#[test]
fn a_base_url_without_http_is_refused() {
    for api in APIS {
        assert!(Subject::model(api, "localhost:8000", &Options::default()).is_err(), "{api:?}");
    }
}

#[tokio::test]
async fn a_model_is_asked_for_by_its_own_name() {
    for (api, model) in
        [(LlmApi::OpenAi, "qwen-max"), (LlmApi::OpenAi, "org/model-high"), (LlmApi::Ollama, "qwen3:8b")]
    {
        let subject = Subject::start(api, &Options { model, ..Options::default() }).await;

        subject.stream([Step::text("Up."), Step::Finish(Finish::Stop)]).await;

        let asked = subject.asked();
        assert_eq!(asked["model"], model);
        assert_eq!(asked.get("reasoning_effort"), None);
    }
}

#[tokio::test]
async fn an_index_of_four_billion_takes_no_memory() {
    let subject = Subject::start(LlmApi::OpenAi, &Options::default()).await;
    let call =
        json!({"index": 4_000_000_000_u32, "id": "a", "function": {"name": "moon", "arguments": "{}"}});
    let chunk = json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}]});

    let events =
        subject.stream([Step::Raw(format!("data: {chunk}\n\n")), Step::Finish(Finish::ToolCalls)]).await;

    assert_eq!(calls_of(&events).len(), 1);
}
