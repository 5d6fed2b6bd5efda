//! The vendors' official SDKs against the services of crates/test-support: what the tests of providers take for a
//! vendor's protocol is one.

use std::process::Stdio;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use test_support::{
    STT_KEY, SttScript, SttServer, SttVendor,
    tts_servers::{self, Script, TtsServer, Vendor},
};
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

/// What an SDK gives for [`TEXT`], and how it says that a wrong key was refused.
async fn spoken_by_sdk(name: &str, vendor: Vendor) -> (Vec<i16>, Value) {
    let server = TtsServer::start(vendor, Script::default()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/tts_sdks.py");
    let output = Command::new(tool("JUNE_SDK_PYTHON"))
        .args([script, name, &server.url(), tts_servers::KEY, TEXT])
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = soon(output).await.unwrap();
    assert!(output.status.success(), "{name}: {output:?}");
    let mut said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let pcm = BASE64_STANDARD.decode(said["pcm"].as_str().unwrap()).unwrap();
    let (samples, odd) = pcm.as_chunks::<2>();
    assert!(odd.is_empty(), "{name}");
    (samples.iter().map(|sample| i16::from_le_bytes(*sample)).collect(), said["refusal"].take())
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

#[tokio::test]
async fn the_tts_sdks_of_vendors_speak_by_the_services_for_tests() {
    for (name, vendor) in
        [("openai", Vendor::OpenAi), ("deepgram", Vendor::Deepgram), ("elevenlabs", Vendor::ElevenLabs)]
    {
        let (samples, refusal) = spoken_by_sdk(name, vendor).await;

        assert!(samples == tts_servers::sound(TEXT), "{name}: other samples");
        assert!(refusal.as_str().unwrap().contains("401"), "{name}: {refusal}");
    }
}
