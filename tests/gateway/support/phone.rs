//! A MentraOS phone, or a backend on the consumer port: JSON on a WebSocket, and nothing that knows ours.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::Response, protocol::CloseFrame},
};

use crate::support::{TestGateway, soon};

/// The secret of the tests' identity provider.
pub const SECRET: &str = "mentra-secret-of-the-tests-32-bytes";

/// Settings under which its tokens are taken, which have no `exp`.
pub const SETTINGS: &[(&str, &str)] =
    &[("AUGMENTOS_AUTH_JWT_SECRET", SECRET), ("MENTRA_COMPAT_NO_EXP", "true")];

/// A core token, as MentraOS makes them.
pub fn core_token(email: &str) -> String {
    let claims = json!({"sub": "1", "email": email, "organizations": [], "defaultOrg": "x"});
    jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A WebSocket of JSON.
pub struct Phone {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Phone {
    /// A phone of this user, with its token in the query.
    pub async fn attach(gateway: &TestGateway, email: &str) -> Self {
        Self::open(gateway, &format!("/glasses-ws?token={}", core_token(email)), &[]).await
    }

    /// A backend.
    pub async fn consumer(gateway: &TestGateway, query: &str) -> Self {
        Self::open(gateway, &format!("/api/consumer/ws{query}"), &[]).await
    }

    pub async fn open(gateway: &TestGateway, target: &str, headers: &[(&'static str, &str)]) -> Self {
        Self::try_open(gateway, target, headers).await.unwrap()
    }

    /// The answer to an upgrade that was refused.
    pub async fn refused(
        gateway: &TestGateway,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Response<Option<Vec<u8>>> {
        match Self::try_open(gateway, target, headers).await {
            Err(Error::Http(response)) => *response,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("was let in"),
        }
    }

    async fn try_open(
        gateway: &TestGateway,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let mut request =
            format!("{}{target}", gateway.url.replacen("http", "ws", 1)).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = Box::pin(connect_async(request)).await?;
        Ok(Self { socket })
    }

    /// A phone for which the system keeps little of what it has not read.
    pub async fn with_a_small_window(gateway: &TestGateway, target: &str) -> Self {
        let address: SocketAddr = gateway.url.trim_start_matches("http://").parse().unwrap();
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(4096).unwrap();
        let tcp = MaybeTlsStream::Plain(tcp.connect(address).await.unwrap());
        let (socket, _) = client_async(format!("ws://{address}{target}"), tcp).await.unwrap();
        Self { socket }
    }

    pub async fn say(&mut self, message: &Value) {
        self.raw(Message::text(message.to_string())).await;
    }

    pub async fn raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next message, of whatever type.
    pub async fn next(&mut self) -> Value {
        self.event().await.unwrap_or_else(|close| panic!("the channel closed: {close:?}"))
    }

    /// The next message of a type; those before it are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Everything up to the answer to a ping: what was said before it was taken by then.
    pub async fn until_pong(&mut self) -> Vec<Value> {
        self.say(&json!({"type": "ping"})).await;
        let mut before = Vec::new();
        loop {
            let message = self.next().await;
            if message["type"] == "pong" {
                return before;
            }
            before.push(message);
        }
    }

    /// Waits until the gateway closes; gives the code.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(close) = self.event().await {
                return close.map_or(1005, |close| close.code.into());
            }
        }
    }

    /// Closes as a phone does, and waits until that is done.
    pub async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while soon(self.socket.next()).await.is_some_and(|message| message.is_ok()) {}
    }

    async fn event(&mut self) -> Result<Value, Option<CloseFrame>> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => return Err(close),
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error}"),
                None => return Err(None),
            }
        }
    }
}
