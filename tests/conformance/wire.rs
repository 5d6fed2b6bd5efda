//! What a device does on the wire, without the reference client: JSON as it is, and the profile's frames.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use june_edge::protocol::edge_v1::audio::{Codec, UplinkFrame};
use serde_json::{Value, json};
use test_support::{fixtures, read_wav};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::target::Target;

/// How long to wait for what must come.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// How a device speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    EdgeV1,
    Mentra,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Self::EdgeV1 => "edge.v1",
            Self::Mentra => "mentra",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::EdgeV1 => "/v1/ws",
            Self::Mentra => "/glasses-ws",
        }
    }
}

/// How a device shows its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Header,
    Query,
    /// A good one in the header and a bad one in the query.
    HeaderOverQuery,
}

/// Why a device was not let in.
#[derive(Debug)]
pub struct Refused {
    pub status: u16,
    pub body: Value,
}

/// A connection.
pub struct Wire {
    pub profile: Profile,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The acknowledgement of the attachment.
    pub ack: Value,
    seq: u32,
    last_server_seq: u64,
    /// What came before what was waited for, and `error`s.
    pub errors: Vec<Value>,
}

/// Opens a WebSocket and says nothing.
async fn open(
    target: &Target,
    profile: Profile,
    token: &str,
    entry: Entry,
) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Refused> {
    let query = match entry {
        Entry::Header => String::new(),
        Entry::Query => format!("?token={token}"),
        Entry::HeaderOverQuery => "?token=nonsense".into(),
    };
    let mut request = target.url(&format!("{}{query}", profile.path())).into_client_request().unwrap();
    if entry != Entry::Query {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert("authorization", bearer);
    }
    let connected = timeout(MESSAGE_TIMEOUT, Box::pin(connect_async(request))).await;
    let nobody = |why: &str| Refused { status: 0, body: Value::from(why) };
    match connected.map_err(|_| nobody("no answer to the handshake"))? {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(Refused {
            status: response.status().as_u16(),
            body: serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap_or_default(),
        }),
        Err(error) => Err(nobody(&error.to_string())),
    }
}

/// Whether the gateway has this profile at all.
pub async fn is_offered(target: &Target, profile: Profile) -> Result<(), String> {
    match open(target, profile, &target.token(), Entry::Header).await {
        Err(Refused { status: 404, .. }) => Err(format!("{} is not there", profile.path())),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Wire {
    /// Attaches as the user of this token.
    pub async fn attach(target: &Target, profile: Profile, token: &str) -> Result<Self, String> {
        Self::enter(target, profile, token, Entry::Header, None)
            .await
            .map_err(|refused| format!("{refused:?}"))
    }

    /// Attaches again, as the device that `self` was.
    pub async fn come_back(&self, target: &Target, token: &str) -> Result<Self, String> {
        let resume = (self.profile == Profile::EdgeV1).then(|| {
            json!({
                "sessionId": self.ack["sessionId"], "resumeToken": self.ack["resumeToken"],
                "lastServerSeq": self.last_server_seq, "lastAudioSeq": self.seq,
            })
        });
        let mut wire = Self::enter(target, self.profile, token, Entry::Header, resume)
            .await
            .map_err(|refused| format!("{refused:?}"))?;
        wire.seq = self.seq;
        Ok(wire)
    }

    pub async fn enter(
        target: &Target,
        profile: Profile,
        token: &str,
        entry: Entry,
        resume: Option<Value>,
    ) -> Result<Self, Refused> {
        let socket = open(target, profile, token, entry).await?;
        let mut wire =
            Self { profile, socket, ack: Value::Null, seq: 0, last_server_seq: 0, errors: Vec::new() };
        if profile == Profile::EdgeV1 {
            let mut init = json!({
                "type": "connection_init", "protocol": "edge.v1",
                "capabilities": {"media": ["ws"], "codecs": ["pcm16"], "vad": false},
            });
            if let Some(resume) = resume {
                init["resume"] = resume;
            }
            wire.say(&init).await;
        }
        let first = wire.wait(|message| {
            matches!(message["type"].as_str(), Some("connection_ack" | "connection_error"))
                .then(|| message.clone())
        });
        match first.await {
            Ok(ack) if ack["type"] == "connection_ack" => {
                wire.ack = ack;
                if profile == Profile::Mentra {
                    wire.say(&json!({
                        "type": "phone_subscription_update", "subscriptions": ["transcription:en-US"],
                    }))
                    .await;
                }
                Ok(wire)
            }
            Ok(error) => Err(Refused { status: 101, body: error }),
            Err(why) => Err(Refused { status: 101, body: Value::from(why) }),
        }
    }

    /// Says something. Where the connection is over, what is waited for next tells.
    pub async fn say(&mut self, message: &Value) {
        let _ = self.socket.send(Message::text(message.to_string())).await;
    }

    /// Sends PCM as the profile packs it.
    pub async fn sound(&mut self, pcm: &[u8]) {
        self.seq += 1;
        let payload = Bytes::copy_from_slice(pcm);
        let frame = match self.profile {
            Profile::Mentra => payload,
            Profile::EdgeV1 => UplinkFrame {
                codec: Codec::Pcm16le,
                pre_roll: false,
                backfill: false,
                end: false,
                seq: self.seq,
                capture_ms: 0,
                payload,
            }
            .encode(),
        };
        let _ = self.socket.send(Message::Binary(frame)).await;
    }

    /// Speaks "Go forward ten meters." in pieces of so many bytes, in turns, with silence behind it, in real
    /// time; what comes meanwhile waits.
    pub async fn speak(&mut self, pieces: &[usize]) {
        let mut samples = read_wav(&fixtures().join("goforward.wav"));
        samples.extend([0; 24_000]);
        let pcm: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let (mut rest, began, mut sent) = (pcm.as_slice(), Instant::now(), 0);
        for size in pieces.iter().cycle() {
            let (piece, behind) = rest.split_at((*size).min(rest.len()));
            self.sound(piece).await;
            rest = behind;
            sent += piece.len();
            if rest.is_empty() {
                return;
            }
            tokio::time::sleep_until(began + Duration::from_micros(sent as u64 * 1_000_000 / 32_000)).await;
        }
    }

    /// The first message that `pick` takes; an error where the connection ends before, or nothing comes.
    pub async fn wait<T>(&mut self, mut pick: impl FnMut(&Value) -> Option<T>) -> Result<T, String> {
        let waited = timeout(MESSAGE_TIMEOUT, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value =
                            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
                        if let Some(seq) = message["seq"].as_u64() {
                            self.last_server_seq = seq;
                        }
                        if matches!(message["type"].as_str(), Some("error" | "connection_error")) {
                            self.errors.push(message.clone());
                        }
                        if let Some(picked) = pick(&message) {
                            return Ok(picked);
                        }
                    }
                    Some(Ok(Message::Close(close))) => {
                        let code = close.map_or(1005, |close| u16::from(close.code));
                        return Err(format!("closed with {code}"));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Err("the connection ended".into()),
                }
            }
        });
        waited.await.unwrap_or_else(|_| Err(format!("nothing within {} s", MESSAGE_TIMEOUT.as_secs())))
    }

    /// The next message of a type.
    pub async fn message(&mut self, kind: &str) -> Result<Value, String> {
        self.wait(|message| (message["type"] == kind).then(|| message.clone()))
            .await
            .map_err(|why| format!("no {kind}: {why}"))
    }

    /// Asks for a sign of life: everything said before was taken by then.
    pub async fn ping(&mut self) -> Result<(), String> {
        self.say(&json!({"type": "ping"})).await;
        self.message("pong").await.map(|_| ())
    }

    /// The next final that has words, in lower case and without marks.
    pub async fn words(&mut self) -> Result<Vec<String>, String> {
        let text = self.wait(|message| {
            let data = &message["data"];
            let is_final = message["type"] == "data_stream" && data["isFinal"] == true;
            data["text"].as_str().filter(|text| is_final && !text.is_empty()).map(str::to_lowercase)
        });
        let text = text.await.map_err(|why| format!("no final: {why}"))?;
        Ok(text
            .split(|mark: char| !mark.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Whether the gateway transcribes.
    pub fn transcribes(&self) -> bool {
        self.ack["userSession"]["isTranscribing"] == true
    }

    /// Closes as a device does that will come back, and waits until it is closed.
    pub async fn close(&mut self) {
        let _ = self.socket.send(Message::Close(None)).await;
        let _ = self.closed().await;
    }

    /// Waits for the end of the connection, and gives its code; 1006 where it broke.
    pub async fn closed(&mut self) -> Result<u16, String> {
        let closed = timeout(MESSAGE_TIMEOUT, async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(close))) => {
                        return close.map_or(1005, |close| u16::from(close.code));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return 1006,
                }
            }
        });
        closed.await.map_err(|_| format!("not closed within {} s", MESSAGE_TIMEOUT.as_secs()))
    }

    /// Ends the session, where the profile can.
    pub async fn leave(mut self) {
        if self.profile == Profile::EdgeV1 {
            self.say(&json!({"type": "goodbye"})).await;
        }
        self.close().await;
    }
}
