//! OpenAI's `/v1/audio/transcriptions`, servers that are like it, and `june-stt`.

use std::io::Cursor;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    KEY, Shared, SttFault, SttScript, SttVendor,
    http::{self, Posted},
};

pub(super) async fn serve(
    mut connection: TcpStream,
    shared: &Shared,
    script: &SttScript,
    vendor: SttVendor,
) -> Option<()> {
    let Some(mut posted) = http::read(&mut connection).await else {
        let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        return None;
    };
    let checked = match &script.fault {
        Some(SttFault::Refuses(status, body)) => Err((*status, body.clone())),
        _ => check(&mut posted, vendor).map_err(|(status, body)| (status, body.to_string())),
    };
    let streams = posted.request.field("stream") == Some("true");
    let language = posted.request.field("language").map(str::to_owned);
    // gpt-transcribe says which of the expected languages it heard.
    let expected = posted.request.field("languages[]").map(str::to_owned);
    shared.note(posted.request);
    if let Err((status, body)) = checked {
        http::answer(&mut connection, status, "application/json", body.as_bytes()).await;
        return None;
    }
    tokio::time::sleep(script.latency).await;
    let whole = match vendor {
        SttVendor::June => json!({"transcript_id": "0193", "text": script.text, "language": language,
            "confidence": 0.9, "processing_time_ms": 12, "timestamp": "2025-10-16T12:00:00"}),
        SttVendor::JuneOpenAi => json!({"task": "transcribe", "language": language, "text": script.text,
            "segments": [], "method": "whisper"}),
        _ => json!({"text": script.text, "usage": {"type": "duration", "seconds": 1}}),
    };
    match script.fault.as_ref() {
        Some(SttFault::Silence) => {
            // Until the client closes.
            let mut rest = [0; 64];
            while connection.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        }
        Some(SttFault::Binary) => {
            http::answer(&mut connection, 200, "application/octet-stream", &[0xff; 64]).await;
        }
        Some(SttFault::Garbage) => {
            http::answer(&mut connection, 200, "application/json", br#"{"text":"#).await
        }
        Some(SttFault::Huge) => {
            let pad = json!({"text": "x".repeat(5_000_000)}).to_string();
            http::answer(&mut connection, 200, "application/json", pad.as_bytes()).await;
        }
        fault if streams && matches!(vendor, SttVendor::OpenAi | SttVendor::Vllm) => {
            stream(&mut connection, script, vendor, fault, expected.as_deref()).await?;
        }
        Some(SttFault::Reports(..)) => {
            http::answer(&mut connection, 500, "application/json", br#"{"detail":"no GPU"}"#).await;
        }
        Some(SttFault::Cut) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{\"text\":\"Wh";
            connection.write_all(head.as_bytes()).await.ok()?;
        }
        Some(SttFault::Closes(_) | SttFault::Refuses(..)) | None => {
            http::answer(&mut connection, 200, "application/json", whole.to_string().as_bytes()).await;
        }
    }
    None
}

/// What is wrong with a request; takes its sound.
fn check(posted: &mut Posted, vendor: SttVendor) -> Result<(), (u16, Value)> {
    let request = &mut posted.request;
    let (path, file_field) = match vendor {
        SttVendor::June => ("/v1/transcribe", "audio_file"),
        SttVendor::Nobody => ("/", ""),
        _ => ("/v1/audio/transcriptions", "file"),
    };
    let is_june = matches!(vendor, SttVendor::June | SttVendor::JuneOpenAi | SttVendor::Nobody);
    if request.path != path {
        return Err((404, json!({"detail": "Not Found"})));
    }
    if !is_june && request.authorization.as_deref() != Some(&format!("Bearer {KEY}")) {
        let message = format!("Incorrect API key provided: {:?}", request.authorization);
        return Err((401, json!({"error": {"message": message, "type": "invalid_request_error"}})));
    }
    if !is_june && request.field("model").is_none() {
        return Err((400, json!({"error": {"message": "you must provide a model parameter"}})));
    }
    if vendor == SttVendor::OpenAiStrict && request.field("stream").is_some() {
        return Err((400, json!({"error": {"message": "Unrecognized request argument supplied: stream"}})));
    }
    let wrong_file = |problem: &str| (400, json!({"error": {"message": problem}}));
    let (_, wav) = posted
        .file
        .as_ref()
        .filter(|(name, _)| name == file_field)
        .ok_or_else(|| wrong_file("the file is missing"))?;
    let reader = hound::WavReader::new(Cursor::new(wav)).map_err(|_| wrong_file("the file is no WAV"))?;
    let spec = reader.spec();
    if (spec.channels, spec.sample_rate, spec.bits_per_sample) != (1, 16_000, 16) {
        return Err(wrong_file("another format is expected"));
    }
    request.pcm = reader.into_samples::<i16>().filter_map(Result::ok).collect();
    Ok(())
}

/// An answer as server-sent events, cut where the script says so.
async fn stream(
    connection: &mut TcpStream,
    script: &SttScript,
    vendor: SttVendor,
    fault: Option<&SttFault>,
    language: Option<&str>,
) -> Option<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).await.ok()?;
    for (at, word) in script.words().into_iter().enumerate() {
        match fault {
            Some(SttFault::Cut) if at == 1 => return None,
            Some(SttFault::Reports(_, message)) if at == 1 => {
                let error = json!({"type": "error", "error": {"message": message}});
                return event(connection, &error.to_string()).await;
            }
            _ => {}
        }
        let piece = if at == 0 { word.to_owned() } else { format!(" {word}") };
        let delta = match vendor {
            SttVendor::Vllm => {
                json!({"id": "trsc-1", "object": "transcription.chunk", "created": 1, "model": "m",
                "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": null}]})
            }
            _ => json!({"type": "transcript.text.delta", "delta": piece}),
        };
        event(connection, &delta.to_string()).await?;
    }
    match vendor {
        SttVendor::Vllm => event(connection, "[DONE]").await,
        _ => {
            let usage = json!({"type": "tokens", "input_tokens": 1, "output_tokens": 1, "total_tokens": 2});
            let mut done = json!({"type": "transcript.text.done", "text": script.text, "usage": usage});
            if let Some(language) = language {
                done["languages"] = json!([{"code": language}]);
            }
            event(connection, &done.to_string()).await
        }
    }
}

async fn event(connection: &mut TcpStream, data: &str) -> Option<()> {
    connection.write_all(format!("data: {data}\n\n").as_bytes()).await.ok()
}
