//! A gateway in this process, and clients for it.

pub mod issuer;
pub mod livekit;
pub mod phone;
pub mod raw;

use std::{collections::HashMap, future::Future, net::SocketAddr, path::Path, time::Duration};

use june_client::{Channel, ClientError, Event, Gateway as Api, SessionInfo};
use june_edge::{
    config::Config,
    gateway::{Gateway, StartError},
    ids::UserId,
    protocol::{
        ToClient,
        edge_v1::{from_client::ConnectionInit, to_client::ConnectionAck},
    },
    secret::Secret,
    store::sled::DiskError,
};
use serde_json::Value;
use tempfile::TempDir;

/// A gateway on a free port, with a data folder of its own. LiveKit's address is a dead one.
pub struct TestGateway {
    gateway: Gateway,
    data: TempDir,
    pub url: String,
    pub api: Api,
    pub http: reqwest::Client,
}

/// An API key.
pub const BACKEND: &str = "backend-key-of-the-tests";

/// The secret of the tests' identity provider.
pub const USERS_SECRET: &str = "users-secret-of-the-tests-with-32-bytes";

/// The well-known secret of the tests' LiveKit.
pub const LIVEKIT_SECRET: &str = "devsecret-devsecret-devsecret-32";

impl TestGateway {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With settings by the names of their variables.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        Self::configured(settings, |_| ()).await
    }

    /// With settings, and a configuration that has what no setting has.
    pub async fn configured(settings: &[(&str, &str)], configure: impl Fn(&mut Config)) -> Self {
        Self::on(tempfile::tempdir().unwrap(), settings, configure).await
    }

    async fn on(data: TempDir, settings: &[(&str, &str)], configure: impl Fn(&mut Config)) -> Self {
        let gateway = soon(async {
            loop {
                let mut config = config(data.path(), settings);
                configure(&mut config);
                // Boxed: the state of a start is large.
                match Box::pin(Gateway::start(config)).await {
                    // The one before is still letting go of its data.
                    Err(StartError::Disk(DiskError::Locked { .. })) => tokio::task::yield_now().await,
                    started => return started.unwrap(),
                }
            }
        })
        .await;
        let url = format!("http://{}", gateway.address());
        Self { api: Api::new(&url, None), http: reqwest::Client::new(), gateway, data, url }
    }

    /// Stops it, and starts another one on the same data.
    pub async fn restart(self, settings: &[(&str, &str)]) -> Self {
        self.gateway.stop().await;
        Self::on(self.data, settings, |_| ()).await
    }

    pub async fn session(&self, user: &str) -> SessionInfo {
        self.api.create_session(&user_id(user)).await.unwrap()
    }

    /// A client that is attached to a new session.
    pub async fn glasses(&self, user: &str) -> Glasses {
        let session = self.session(user).await;
        Glasses::attach(session, ConnectionInit::default()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(format!("{}{path}", self.url))).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        answer(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        answer(self.http.delete(format!("{}{path}", self.url))).await
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    pub fn ws_url(&self) -> String {
        format!("{}/v1/ws", self.url.replacen("http", "ws", 1))
    }
}

pub fn config(data: &Path, settings: &[(&str, &str)]) -> Config {
    let data = data.display().to_string();
    let mut all: HashMap<&str, &str> = HashMap::from([
        ("PORT", "0"),
        ("DATA_DIR", data.as_str()),
        ("JUNE_MODELS", "/nowhere/models"),
        ("LIVEKIT_URL", "ws://127.0.0.1:9"),
        ("LIVEKIT_API_KEY", "devkey"),
        ("LIVEKIT_API_SECRET", LIVEKIT_SECRET),
    ]);
    all.extend(settings.iter().copied());
    Config::read(|name| all.get(name).map(|value| (*value).to_owned())).unwrap()
}

/// The status and the JSON of an answer; null where there is none.
pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

pub fn user_id(user: &str) -> UserId {
    UserId::parse(user).unwrap()
}

pub fn key(key: &str) -> Option<Secret> {
    Some(Secret::new(key))
}

/// A client on an attached control channel.
pub struct Glasses {
    pub channel: Channel,
    pub ack: ConnectionAck,
    pub session: SessionInfo,
}

impl Glasses {
    pub async fn attach(session: SessionInfo, init: ConnectionInit) -> Result<Self, ClientError> {
        let (channel, ack) = Channel::open(&session.control_url, &session.control_token, init).await?;
        Ok(Self { channel, ack, session })
    }

    /// Sends a text frame as it is.
    pub async fn say(&mut self, text: &str) {
        self.channel.writer().send_raw(Ok(text.to_owned())).await.unwrap();
    }

    /// The next message that `pick` takes; those before it are passed over.
    pub async fn wait_for<T>(&mut self, mut pick: impl FnMut(&ToClient) -> Option<T>) -> T {
        soon(async {
            loop {
                match self.channel.next().await {
                    Event::Message(_, message) => {
                        if let Some(picked) = pick(&message) {
                            return picked;
                        }
                    }
                    Event::Audio(_) => {}
                    Event::Closed { code, reason } => panic!("the channel closed: {code} {reason}"),
                }
            }
        })
        .await
    }

    /// Waits for an `error`, and gives its code.
    pub async fn error(&mut self) -> String {
        self.wait_for(|message| match message {
            ToClient::Error { code, .. } => Some(code.to_string()),
            _ => None,
        })
        .await
    }

    /// Asks for a `pong` and waits for it: everything said before has been taken by then.
    pub async fn ping(&mut self) {
        self.say(r#"{"type":"ping","t":42}"#).await;
        self.wait_for(|message| matches!(message, ToClient::Pong { t: Some(_) }).then_some(())).await;
    }

    /// Waits until the channel is closed.
    pub async fn closed(&mut self) -> (u16, String) {
        soon(async {
            loop {
                if let Event::Closed { code, reason } = self.channel.next().await {
                    return (code, reason);
                }
            }
        })
        .await
    }
}

/// What should come soon; a test that waits for ever says nothing.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("nothing came within 20 s")
}
