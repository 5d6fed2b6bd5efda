//! The WebSocket `/v1/text-to-speech/{voice}/stream-input`, by ElevenLabs' AsyncAPI document.

use std::sync::Mutex;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Error, Message,
        handshake::server::{ErrorResponse, Request as Upgrade, Response},
        http::HeaderValue,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    Fault, KEY, Refusal, Request, Shared, bytes,
    http::{self, from_target},
    sound,
};

type Socket = WebSocketStream<TcpStream>;

pub(super) async fn serve(mut connection: TcpStream, shared: &Shared) {
    let _ = connection.set_nodelay(true);
    if matches!(shared.script.fault, Some(Fault::Garbage)) {
        let _ = connection.write_all(&[0x16, 0x03, 0x01, 0xff, 0x00, 0x80].repeat(99)).await;
        return;
    }
    let success = match shared.script.fault {
        Some(Fault::Html) => Some(("text/html", "<!DOCTYPE html><title>nginx</title>".to_owned())),
        Some(Fault::Json) => {
            Some(("application/json", refusal("quota_exceeded", "quota reached").to_string()))
        }
        _ => None,
    };
    if let Some((content_type, body)) = success {
        // Tungstenite makes no answer to an upgrade that is a success.
        if let Some(request) = http::read(&mut connection).await {
            shared.record(request);
            let _ = http::whole(&mut connection, 200, content_type, &body).await;
        }
        return;
    }
    let request = Mutex::default();
    let Ok(mut socket) = accept_hdr_async(connection, Handshake { shared, request: &request }).await else {
        // A refusal, or no upgrade at all.
        let request: Request = request.into_inner().expect("no panic while it is locked");
        if !request.path.is_empty() {
            shared.record(request);
        }
        return;
    };
    let mut request: Request = request.into_inner().expect("no panic while it is locked");
    let answered = match receive(&mut socket, &mut request).await {
        Ok(text) => {
            shared.record(request);
            speak(&mut socket, shared, &text).await
        }
        Err(End::Refused(refusal)) => {
            shared.record(request);
            refuse(&mut socket, refusal).await
        }
        Err(End::Closed) => Err(Error::ConnectionClosed),
    };
    if answered.is_err() {
        shared.hung_up.send_modify(|count| *count += 1);
    }
}

struct Handshake<'a> {
    shared: &'a Shared,
    request: &'a Mutex<Request>,
}

impl tokio_tungstenite::tungstenite::handshake::server::Callback for Handshake<'_> {
    fn on_request(self, upgrade: &Upgrade, response: Response) -> Result<Response, ErrorResponse> {
        let headers = upgrade.headers().iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let target = upgrade.uri().path_and_query().map_or("/", |target| target.as_str());
        let request = from_target("GET", target, headers.collect());
        let checked = check(&request);
        *self.request.lock().expect("no panic while it is locked") = request;
        let (status, body) = match (checked, &self.shared.script.fault) {
            (Err(refusal), _) => refusal,
            (Ok(()), Some(Fault::Refuse(status))) => {
                (*status, refusal("scripted", &format!("scripted for the key {KEY}")))
            }
            (Ok(()), _) => return Ok(response),
        };
        let mut refused = ErrorResponse::new(Some(body.to_string()));
        *refused.status_mut() = status.try_into().expect("a status of HTTP");
        refused.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        refused.headers_mut().insert("retry-after", HeaderValue::from_static("7"));
        Err(refused)
    }
}

fn check(request: &Request) -> Result<(), Refusal> {
    let voice = request
        .path
        .strip_prefix("/v1/text-to-speech/")
        .and_then(|rest| rest.strip_suffix("/stream-input"))
        .unwrap_or_default();
    if voice.is_empty() {
        return Err((404, json!({ "detail": "Not Found" })));
    }
    if voice.contains('/') {
        return Err((400, refusal("invalid_uid", "An invalid ID has been received")));
    }
    if request.header("xi-api-key") != KEY {
        return Err((401, refusal("invalid_api_key", "Invalid API key")));
    }
    // The default is MP3; this server makes PCM of one rate alone.
    if request.parameter("output_format") != Some("pcm_24000") {
        return Err((400, refusal("invalid_output_format", "output_format is not pcm_24000")));
    }
    Ok(())
}

fn refusal(status: &str, message: &str) -> Value {
    json!({ "detail": { "status": status, "message": message } })
}

enum End {
    Closed,
    /// With a message of this kind.
    Refused(&'static str),
}

/// The text, when all of it has come.
async fn receive(socket: &mut Socket, request: &mut Request) -> Result<String, End> {
    let model = request.parameter("model_id").unwrap_or_default();
    if request.parameter("language_code").is_some() && !model.ends_with("_v2_5") {
        return Err(End::Refused("unsupported_language_code"));
    }
    let mut spoken = String::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(message) = message else { continue };
        let message: Value =
            serde_json::from_str(&message).map_err(|_| End::Refused("invalid_input_message"))?;
        let is_first = request.bodies.is_empty();
        let text = message["text"].as_str().ok_or(End::Refused("invalid_input_message"))?.to_owned();
        request.bodies.push(message);
        match text.as_str() {
            "" => return Ok(spoken.trim_end().to_owned()),
            " " if is_first => {}
            _ if is_first => return Err(End::Refused("first_message_is_not_a_space")),
            text if text.ends_with(' ') => spoken += text,
            _ => return Err(End::Refused("text_without_a_space_at_its_end")),
        }
    }
    Err(End::Closed)
}

async fn refuse(socket: &mut Socket, error: &str) -> Result<(), Error> {
    let message = json!({ "message": "See the protocol.", "error": error, "code": 1008 });
    socket.send(Message::text(message.to_string())).await?;
    socket.close(Some(CloseFrame { code: CloseCode::Policy, reason: error.to_owned().into() })).await
}

async fn speak(socket: &mut Socket, shared: &Shared, text: &str) -> Result<(), Error> {
    sleep(shared.script.latency).await;
    let samples = bytes(&sound(text));
    let piece = shared.script.piece;
    let half = samples.len() / 2;
    match &shared.script.fault {
        Some(Fault::Hang) => return until_closed(socket).await,
        Some(Fault::Silent) => {}
        Some(Fault::Cut) => return audio(socket, &samples[..half], piece).await,
        Some(Fault::Stall) => {
            audio(socket, &samples[..half], piece).await?;
            tokio::select! {
                () = shared.may_proceed() => {}
                closed = until_closed(socket) => return closed,
            }
            audio(socket, &samples[half..], piece).await?;
        }
        Some(Fault::Endless) => loop {
            audio(socket, &samples, piece).await?;
        },
        Some(Fault::Messages(messages)) => {
            for message in messages {
                socket.send(message.clone()).await?;
            }
            return until_closed(socket).await;
        }
        _ => audio(socket, &samples, piece).await?,
    }
    let last = json!({ "audio": null, "isFinal": true, "normalizedAlignment": null, "alignment": null });
    socket.send(Message::text(last.to_string())).await?;
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await
}

async fn audio(socket: &mut Socket, samples: &[u8], piece: usize) -> Result<(), Error> {
    for piece in samples.chunks(piece) {
        let message = json!({
            "audio": BASE64_STANDARD.encode(piece),
            "isFinal": null,
            "alignment": { "chars": ["H"], "charStartTimesMs": [0], "charDurationsMs": [3] },
        });
        socket.send(Message::text(message.to_string())).await?;
    }
    Ok(())
}

async fn until_closed(socket: &mut Socket) -> Result<(), Error> {
    while socket.next().await.transpose()?.is_some() {}
    Err(Error::ConnectionClosed)
}
