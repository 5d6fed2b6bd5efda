//! A control channel without a client's manners: it reads when it is told to, and ends as it likes.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::support::{TestGateway, soon};

pub struct Raw {
    socket: WebSocketStream<TcpStream>,
}

impl Raw {
    /// Attaches; gives the acknowledgement too.
    pub async fn attach(gateway: &TestGateway, token: &str, resume: Option<Value>) -> (Self, Value) {
        let tcp = TcpSocket::new_v4().unwrap();
        // What its system takes for it is little.
        tcp.set_recv_buffer_size(4096).unwrap();
        let stream = tcp.connect(gateway.address()).await.unwrap();
        let url = format!("{}?token={token}", gateway.ws_url());
        let (socket, _) = client_async(url, stream).await.unwrap();
        let mut raw = Self { socket };
        let mut init = json!({"type": "connection_init", "capabilities": {"media": ["ws"]}});
        if let Some(resume) = resume {
            init["resume"] = resume;
        }
        raw.send(Message::text(init.to_string())).await.unwrap();
        let ack = raw.wait_for("connection_ack").await;
        (raw, ack)
    }

    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await
    }

    /// Reads until there is a message of this type.
    pub async fn wait_for(&mut self, kind: &str) -> Value {
        soon(async {
            loop {
                if let Message::Text(text) = self.socket.next().await.unwrap().unwrap() {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] == kind {
                        return message;
                    }
                }
            }
        })
        .await
    }

    /// Reads until the close frame; gives its code, and the codes of the `error` messages before it.
    pub async fn closed(&mut self) -> (u16, Vec<String>) {
        soon(async {
            let mut errors = Vec::new();
            loop {
                match self.socket.next().await.unwrap().unwrap() {
                    Message::Close(close) => return (close.unwrap().code.into(), errors),
                    Message::Text(text) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        if message["type"] == "error" {
                            errors.push(message["code"].as_str().unwrap().to_owned());
                        }
                    }
                    _ => {}
                }
            }
        })
        .await
    }

    /// Closes with this code; or breaks off.
    pub async fn end(mut self, code: Option<u16>) {
        if let Some(code) = code {
            let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
            self.socket.close(Some(frame)).await.unwrap();
        }
    }
}
