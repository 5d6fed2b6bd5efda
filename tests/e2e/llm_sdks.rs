//! The vendors' official SDKs against the servers of `test_support::llm`: what the tests of language models take for a
//! vendor's protocol is one.

use std::process::Stdio;

use serde_json::{Value, json};
use test_support::llm::{Answer, Finish, KEY, LlmApi, LlmServer, Step, USAGE};
use tokio::process::Command;

use crate::support::{soon, tool};

async fn asked_by_sdk(name: &str, api: LlmApi) -> Value {
    let server = LlmServer::start(api).await;
    let calls = vec![("moon".into(), json!({"city": "Tromsø"})), ("moon".into(), json!({"city": "Rome"}))];
    let refusal =
        |status, retry_after| Answer::Refusal { status, message: "no such thing".into(), retry_after };
    let broken = Step::Error { status: 500, message: "out of order".into() };
    for answer in [
        Answer::Stream(vec![
            Step::text("One "),
            Step::text("moment."),
            Step::ToolCalls(calls),
            Step::Finish(Finish::ToolCalls),
        ]),
        Answer::Stream(vec![Step::text("There."), Step::Finish(Finish::Stop)]),
        refusal(429, Some(7)),
        refusal(400, None),
        Answer::Stream(vec![Step::text("Up "), broken]),
    ] {
        server.answer(answer);
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/llm_sdks.py");
    let url = match api {
        LlmApi::Ollama => format!("{}/v1", server.url()),
        LlmApi::OpenAi | LlmApi::Gemini | LlmApi::Anthropic => server.url(),
    };
    let output = Command::new(tool("JUNE_SDK_PYTHON"))
        .args([script, name, &url, KEY])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = soon(output).await.unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn expected(finish: [&str; 2], errors: &Value) -> Value {
    json!({
        "text": "One moment.",
        "calls": [["moon", {"city": "Tromsø"}], ["moon", {"city": "Rome"}]],
        "finish": finish,
        "usage": [USAGE.0, USAGE.1],
        "second": "There.",
        "errors": errors,
    })
}

#[tokio::test]
async fn openais_sdk_is_answered_by_the_server_for_tests() {
    let errors = json!([
        ["RateLimitError", "7"],
        ["BadRequestError", true],
        ["APIError", true],
        ["AuthenticationError"]
    ]);

    assert_eq!(asked_by_sdk("openai", LlmApi::OpenAi).await, expected(["tool_calls", "stop"], &errors));
}

#[tokio::test]
async fn anthropics_sdk_is_answered_by_the_server_for_tests() {
    let errors = json!([
        ["RateLimitError", "7"],
        ["BadRequestError", true],
        ["APIError", true],
        ["AuthenticationError"]
    ]);

    assert_eq!(
        asked_by_sdk("anthropic", LlmApi::Anthropic).await,
        expected(["tool_use", "end_turn"], &errors)
    );
}
