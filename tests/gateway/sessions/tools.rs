//! Tools, called by a model behind OpenAI's protocol.

use june_edge::protocol::{ToClient, edge_v1::to_client::ToolCancelReason};
use serde_json::{Value, json};
use test_support::llm::{Answer, Finish, KEY as LLM_KEY, LlmApi, LlmServer, Step};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Glasses, TestGateway, soon};

/// The model calls tools.
fn calls(names: &[&str]) -> Answer {
    let calls = names.iter().map(|name| ((*name).to_owned(), json!({"percent": 40})));
    Answer::Stream(vec![Step::ToolCalls(calls.collect()), Step::Finish(Finish::ToolCalls)])
}

fn says(text: &str) -> Answer {
    Answer::Stream(vec![Step::text(text), Step::Finish(Finish::Stop)])
}

async fn gateway(llm: &LlmServer, more: &[(&str, &str)]) -> TestGateway {
    let url = llm.url();
    let settings = [("LLM", "openai"), ("OPENAI_BASE_URL", url.as_str()), ("OPENAI_API_KEY", LLM_KEY)];
    TestGateway::with(&[&settings, more].concat()).await
}

async fn call(glasses: &mut Glasses) -> (String, String, Value) {
    glasses
        .wait_for(|message| match message {
            ToClient::ToolCall { call_id, name, arguments, .. } => {
                Some((call_id.clone(), name.clone(), Value::Object(arguments.clone())))
            }
            _ => None,
        })
        .await
}

async fn answer(glasses: &mut Glasses) -> String {
    glasses
        .wait_for(|message| match message {
            ToClient::AnswerDone { text, .. } => Some(text.clone()),
            _ => None,
        })
        .await
}

async fn saved(glasses: &mut Glasses) {
    glasses.wait_for(|message| matches!(message, ToClient::TurnSaved { .. }).then_some(())).await;
}

const TOOL: &str = r#"{"type":"configure_session","options":{"tools":[{"name":"set_volume","description":"Sets the volume.",
    "parameters":{"type":"object","properties":{"percent":{"type":"integer"}},"required":["percent"]}}]}}"#;

#[actix_web::test]
async fn a_model_calls_a_tool_of_the_client_and_answers_with_its_result() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    llm.answer(calls(&["set_volume"]));
    llm.answer(says("It is at 40 percent."));
    let gateway = gateway(&llm, &[]).await;
    let mut glasses = gateway.glasses("ann").await;
    glasses.say(TOOL).await;
    glasses.say(r#"{"type":"say","text":"Softer, please."}"#).await;

    let (call_id, name, arguments) = call(&mut glasses).await;
    assert_eq!((name.as_str(), arguments), ("set_volume", json!({"percent": 40})));
    glasses.say(&json!({"type": "tool_result", "callId": call_id, "output": "done"}).to_string()).await;

    assert_eq!(answer(&mut glasses).await, "It is at 40 percent.");
    let requests = llm.requests();
    assert_eq!(requests[0].body["tools"][0]["function"]["name"], "set_volume");
    let messages = requests[1].body["messages"].as_array().unwrap();
    let last = messages.last().unwrap();
    assert_eq!((&last["role"], &last["content"]), (&json!("tool"), &json!("done")));
    saved(&mut glasses).await;
    let path = format!("/api/sessions/{}/history", glasses.session.session_id);
    let (_, history) = gateway.get(&path).await;
    let kinds: Vec<_> = history["lines"].as_array().unwrap().iter().map(|line| &line["kind"]).collect();
    assert_eq!(kinds, ["utterance", "tool", "answer"], "{history}");
}

#[actix_web::test]
async fn a_client_that_does_not_answer_is_told_and_the_model_answers_without_it() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    llm.answer(calls(&["set_volume"]));
    llm.answer(says("I could not do that."));
    let gateway = gateway(&llm, &[("TOOL_TIMEOUT_MS", "50")]).await;
    let mut glasses = gateway.glasses("ann").await;
    glasses.say(TOOL).await;
    glasses.say(r#"{"type":"say","text":"Softer, please."}"#).await;

    let reason = glasses
        .wait_for(|message| match message {
            ToClient::ToolCallCancelled { reason, .. } => Some(*reason),
            _ => None,
        })
        .await;

    assert_eq!(reason, ToolCancelReason::TimedOut);
    assert_eq!(answer(&mut glasses).await, "I could not do that.");
}

#[actix_web::test]
async fn tools_that_are_none_are_refused_by_rest_and_on_the_channel() {
    let gateway = TestGateway::start().await;
    let schema =
        json!({"name": "a", "parameters": {"type": "object", "properties": {"b": {"type": "colour"}}}});

    let (status, problem) =
        gateway.post("/api/sessions", &json!({"user_id": "ann", "tools": [schema]})).await;
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("not a JSON Schema"), "{problem}");

    let mut glasses = gateway.glasses("bob").await;
    let configure = json!({"type": "configure_session", "options": {"tools": [schema]}});
    glasses.say(&configure.to_string()).await;
    assert_eq!(glasses.error().await, "INVALID_REQUEST");
    glasses.say(r#"{"type":"tool_result","callId":"call_1_1","output":"80 %"}"#).await;
    assert_eq!(glasses.error().await, "SESSION_ERROR");
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A backend that accepts connections and gives each to the test.
async fn backend() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (format!("http://{}/tools/", listener.local_addr().unwrap()), listener)
}

/// The head and the body of a request.
async fn read(connection: &mut TcpStream) -> (String, Value) {
    let mut request = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let length = connection.read(&mut piece).await.unwrap();
        assert!(length > 0, "the request ended early");
        request.extend_from_slice(&piece[..length]);
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            return (head.to_owned(), body);
        }
    }
}

async fn session_with_webhook(gateway: &TestGateway, url: &str) -> Glasses {
    let tool = json!({"type": "webhook", "name": "weather", "url": format!("{url}weather")});
    let mut glasses = gateway.glasses("ann").await;
    let configure = json!({"type": "configure_session", "options": {"tools": [tool]}});
    glasses.say(&configure.to_string()).await;
    glasses
}

#[actix_web::test]
async fn a_model_calls_a_webhook_and_answers_with_its_result() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    llm.answer(calls(&["weather"]));
    llm.answer(says("It is 20 degrees."));
    let (url, listener) = backend().await;
    let gateway = gateway(&llm, &[("TOOL_WEBHOOK_URLS", &url), ("TOOL_WEBHOOK_SECRET", SECRET)]).await;
    let mut glasses = session_with_webhook(&gateway, &url).await;
    glasses.say(r#"{"type":"say","text":"How warm is it?"}"#).await;

    let (mut connection, _) = soon(listener.accept()).await.unwrap();
    let (head, body) = read(&mut connection).await;
    let answer_of_backend =
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 10\r\n\r\n20 degrees";
    connection.write_all(answer_of_backend.as_bytes()).await.unwrap();

    assert!(head.starts_with("POST /tools/weather HTTP/1.1"), "{head}");
    assert!(head.contains("webhook-signature: v1,"), "{head}");
    assert_eq!((&body["name"], &body["user_id"]), (&json!("weather"), &json!("ann")));
    assert_eq!(answer(&mut glasses).await, "It is 20 degrees.");
    let requests = llm.requests();
    assert_eq!(requests[1].body["messages"].as_array().unwrap().last().unwrap()["content"], "20 degrees");
}

#[actix_web::test]
async fn an_interruption_ends_the_call_of_a_webhook() {
    let llm = LlmServer::start(LlmApi::OpenAi).await;
    llm.answer(calls(&["weather"]));
    let (url, listener) = backend().await;
    let gateway = gateway(&llm, &[("TOOL_WEBHOOK_URLS", &url), ("TOOL_WEBHOOK_SECRET", SECRET)]).await;
    let mut glasses = session_with_webhook(&gateway, &url).await;
    glasses.say(r#"{"type":"say","text":"How warm is it?"}"#).await;
    let (mut connection, _) = soon(listener.accept()).await.unwrap();
    read(&mut connection).await;

    glasses.say(r#"{"type":"interrupt"}"#).await;

    let mut buffer = [0; 16];
    let closed = connection.read(&mut buffer);
    assert_eq!(soon(closed).await.unwrap(), 0, "the connection is closed");
    assert_eq!(answer(&mut glasses).await, "");
}

#[actix_web::test]
async fn a_webhook_and_an_mcp_server_that_the_operator_does_not_allow_are_refused() {
    let settings = [("TOOL_WEBHOOK_URLS", "https://june.example/tools/"), ("TOOL_WEBHOOK_SECRET", SECRET)];
    let gateway = TestGateway::with(&settings).await;
    for tool in [
        json!({"type": "webhook", "name": "a", "url": "http://169.254.169.254/latest/meta-data"}),
        json!({"type": "webhook", "name": "a", "url": "https://june.example/admin"}),
        json!({"type": "mcp", "name": "home"}),
    ] {
        let (status, problem) =
            gateway.post("/api/sessions", &json!({"user_id": "ann", "tools": [tool]})).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("this gateway"), "{problem}");
    }
}
