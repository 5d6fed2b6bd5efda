//! The vendors' official SDKs against the services of crates/test-support: what the tests of providers take for a
//! vendor's protocol is one.

use std::process::Stdio;

use serde_json::{Value, json};
use test_support::{STT_KEY, SttScript, SttServer, SttVendor};
use tokio::process::Command;

use crate::support::{soon, tool};

const TEXT: &str = "Where is the station? Over there.";

/// What an SDK gives, and the sound that the service got.
async fn transcribed_by_sdk(name: &str, vendor: SttVendor) -> (Value, SttServer) {
    let server = SttServer::start(vendor, SttScript::saying(TEXT)).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/stt_sdks.py");
    let output = Command::new(tool("JUNE_SDK_PYTHON"))
        .args([script, name, &server.url(), STT_KEY])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = soon(output).await.unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    (serde_json::from_slice(&output.stdout).unwrap(), server)
}

/// The sound of stt_sdks.py.
fn sound() -> Vec<i16> {
    (0..32_000).map(|n: i32| (n * 7919 % 16_001 - 8_000) as i16).collect()
}

#[tokio::test]
async fn deepgrams_sdk_transcribes_by_the_service_for_tests() {
    let (heard, server) = transcribed_by_sdk("deepgram", SttVendor::Deepgram).await;

    let interims = heard["interims"].as_u64().unwrap();
    assert!(interims > 1, "{heard}");
    let expected = json!({"text": TEXT, "interims": interims, "from_finalize": true, "speakers": [0],
        "languages": ["en"], "last": "Metadata", "duration": 2.0});
    assert_eq!(heard, expected);
    let request = &server.requests()[0];
    assert!(request.pcm == sound());
    assert_eq!(request.query("keyterm"), ["Dashwood", "Mentra Live"]);
}

#[tokio::test]
async fn assemblyais_sdk_transcribes_by_the_service_for_tests() {
    let (heard, server) = transcribed_by_sdk("assemblyai", SttVendor::AssemblyAi).await;

    let interims = heard["interims"].as_u64().unwrap();
    assert!(interims > 1, "{heard}");
    let expected = json!({"text": TEXT, "interims": interims, "whole": true, "speakers": ["A"],
        "languages": ["en"], "duration": 2, "errors": []});
    assert_eq!(heard, expected);
    let request = &server.requests()[0];
    assert!(request.pcm == sound());
    assert_eq!(request.query("language_codes"), [r#"["en"]"#]);
}

#[tokio::test]
async fn openais_sdk_transcribes_by_the_service_for_tests() {
    let (heard, server) = transcribed_by_sdk("openai", SttVendor::OpenAi).await;

    let expected = json!({"text": TEXT, "deltas": TEXT, "languages": ["en"], "whole": TEXT});
    assert_eq!(heard, expected);
    let request = &server.requests()[0];
    assert!(request.pcm == sound());
    assert_eq!(request.fields("keywords[]"), ["Dashwood", "Mentra Live"]);
}
