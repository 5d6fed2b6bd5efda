//! What the services on WebSockets have in common.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::CloseFrame,
    },
};

use super::{Shared, SttFault, SttRequest, SttScript, decoded, samples};

/// A client, after the upgrade.
pub(super) struct Client<'a> {
    socket: WebSocketStream<TcpStream>,
    shared: &'a Shared,
    script: &'a SttScript,
    /// The number of its request.
    number: usize,
}

/// What a client sent.
pub(super) enum Sent {
    /// So many samples.
    Sound(usize),
    Text(String),
}

/// Accepts a client whose request `check` has no objection to. An objection is a status and a body.
pub(super) async fn accept<'a>(
    connection: TcpStream,
    shared: &'a Shared,
    script: &'a SttScript,
    check: impl Fn(&SttRequest) -> Result<(), (u16, Value)> + Unpin,
) -> Option<Client<'a>> {
    let mut noted = None;
    #[expect(clippy::result_large_err, reason = "tungstenite's callback")]
    let upgrade = |request: &Request, response: Response| {
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let seen = SttRequest {
            path: request.uri().path().to_owned(),
            query: decoded(request.uri().query().unwrap_or_default()),
            authorization: header.map(str::to_owned),
            ..SttRequest::default()
        };
        let checked = match &script.fault {
            Some(SttFault::Refuses(status, body)) => Err((*status, body.clone())),
            _ => check(&seen).map_err(|(status, body)| (status, body.to_string())),
        };
        noted = Some(shared.note(seen));
        checked.map(|()| response).map_err(|(status, body)| {
            let mut refusal = ErrorResponse::new(Some(body));
            *refusal.status_mut() = StatusCode::from_u16(status).expect("a status of the script");
            if status == 429 {
                refusal.headers_mut().insert("retry-after", 7.into());
            }
            refusal
        })
    };
    let socket = accept_hdr_async(connection, upgrade).await.ok()?;
    Some(Client { socket, shared, script, number: noted? })
}

impl Client<'_> {
    /// What it asked for.
    pub(super) fn request(&self) -> SttRequest {
        super::locked(&self.shared.requests)[self.number].clone()
    }

    /// What the client sends next; nothing if it is gone.
    pub(super) async fn next(&mut self) -> Option<Sent> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Binary(sound) => {
                    self.shared.change(self.number, |request| request.pcm.extend(samples(&sound)));
                    return Some(Sent::Sound(sound.len() / 2));
                }
                Message::Text(text) => {
                    self.shared.change(self.number, |request| request.messages.push(text.to_string()));
                    return Some(Sent::Text(text.to_string()));
                }
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Sends an answer, in the time that the script says.
    pub(super) async fn send(&mut self, answer: &Value) -> Option<()> {
        if self.script.fault == Some(SttFault::Silence) {
            return Some(());
        }
        tokio::time::sleep(self.script.latency).await;
        self.socket.send(Message::text(answer.to_string())).await.ok()
    }

    pub(super) async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let _ = self.socket.close(Some(frame)).await;
        // Until the client answers.
        while self.socket.next().await.is_some_and(|message| message.is_ok()) {}
    }

    /// Does what the script says that goes wrong when something was heard. None if the connection ends with it.
    pub(super) async fn fail(&mut self) -> Option<()> {
        let Some(fault) = &self.script.fault else { return Some(()) };
        let message = match fault {
            SttFault::Closes(code) => {
                self.close(*code, "closed by the script").await;
                return None;
            }
            // Dropped without a close frame.
            SttFault::Cut => return None,
            SttFault::Binary => Message::binary(vec![0xff; 64]),
            SttFault::Garbage => Message::text(r#"{"type":"Results","channel":"#),
            SttFault::Huge => {
                Message::text(json!({"type": "Results", "pad": "x".repeat(5_000_000)}).to_string())
            }
            SttFault::Refuses(..) | SttFault::Reports(..) | SttFault::Silence => return Some(()),
        };
        let _ = self.socket.send(message).await;
        Some(())
    }
}
