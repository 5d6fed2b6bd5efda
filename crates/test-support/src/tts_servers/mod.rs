//! Servers that speak the protocols of TTS vendors, check what they are asked, and fail as they are told to.
//!
//! ```text
//!   request ─▶ vendor: checks it ─▶ refusal, in the vendor's form
//!                                └▶ sound ─▶ script: latency, size of pieces, fault
//! ```

mod deepgram;
mod elevenlabs;
mod http;
mod june;
mod openai;

use std::{net::SocketAddr, sync::Arc, sync::Mutex, time::Duration};

use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub use tokio_tungstenite::tungstenite::{
    Bytes, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// The only key that the servers accept.
pub const KEY: &str = "key-of-the-tests-0123456789abcdef";

/// Of all servers.
pub const SAMPLE_RATE_HZ: u32 = 24_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    OpenAi,
    ElevenLabs,
    Deepgram,
    /// The version of 2025-10-14: `/synthesize-binary`, and `/synthesize` that answers with JSON.
    June,
    /// Versions from 2025-10-19 on: `/synthesize` that answers with a WAV file.
    LaterJune,
}

/// What a server does with a request that it accepts.
#[derive(Clone, Debug)]
pub struct Script {
    pub fault: Option<Fault>,
    /// Before the answer begins.
    pub latency: Duration,
    /// Bytes of sound that are sent at a time.
    pub piece: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self { fault: None, latency: Duration::ZERO, piece: 4_800 }
    }
}

impl Script {
    pub fn failing(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// Refuses with this HTTP status and a reason, which quotes the key.
    Refuse(u16),
    /// Sends half of the sound and closes the TCP connection.
    Cut,
    /// Sends half of the sound, and the rest after [`TtsServer::proceed`].
    Stall,
    /// Sends nothing until the client closes the connection.
    Hang,
    /// Sends bytes that are no HTTP.
    Garbage,
    /// Succeeds, with a web page.
    Html,
    /// Succeeds, with an error in JSON.
    Json,
    /// Succeeds, without a sample.
    Silent,
    /// Sends the sound again and again.
    Endless,
    /// Sends these in place of sound; of WebSockets alone.
    Messages(Vec<Message>),
}

/// What a server was asked.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Decoded.
    pub query: Vec<(String, String)>,
    /// The names in lower case.
    pub headers: Vec<(String, String)>,
    /// The bodies, or all messages of a WebSocket.
    pub bodies: Vec<Value>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        find(&self.headers, name).unwrap_or_default()
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }

    /// A text field of the first body.
    fn text(&self, name: &str) -> Option<&str> {
        self.bodies.first()?.get(name)?.as_str()
    }
}

fn find<'a>(pairs: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// A refusal: a status and a body.
type Refusal = (u16, Value);

/// A server. It ends when this is dropped.
pub struct TtsServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    vendor: Vendor,
    script: Script,
    requests: Mutex<Vec<Request>>,
    proceed: watch::Sender<bool>,
    /// Clients that closed their connection before the answer's end.
    hung_up: watch::Sender<usize>,
}

impl TtsServer {
    /// # Panics
    /// If no port is free.
    pub async fn start(vendor: Vendor, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            vendor,
            script,
            requests: Mutex::default(),
            proceed: watch::Sender::new(false),
            hung_up: watch::Sender::new(0),
        });
        let serving = tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(serve(connection, shared.clone()));
                }
            }
        });
        Self { address, shared, serving }
    }

    /// For the setting of the vendor's URL.
    pub fn url(&self) -> String {
        match self.shared.vendor {
            Vendor::OpenAi => format!("http://{}/v1", self.address),
            Vendor::ElevenLabs | Vendor::Deepgram | Vendor::June | Vendor::LaterJune => {
                format!("http://{}", self.address)
            }
        }
    }

    /// The requests so far.
    ///
    /// # Panics
    /// If a connection's task panicked.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no panic while it is locked").clone()
    }

    /// Ends [`Fault::Stall`].
    pub fn proceed(&self) {
        self.shared.proceed.send_replace(true);
    }

    /// Waits until a client has closed its connection before the answer's end.
    ///
    /// # Panics
    /// If the server has ended.
    pub async fn client_hung_up(&self) {
        self.shared.hung_up.subscribe().wait_for(|count| *count > 0).await.expect("the sender is alive");
    }
}

impl Drop for TtsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn record(&self, request: Request) {
        self.requests.lock().expect("no panic while it is locked").push(request);
    }

    async fn may_proceed(&self) {
        let _ = self.proceed.subscribe().wait_for(|proceed| *proceed).await;
    }
}

async fn serve(connection: TcpStream, shared: Arc<Shared>) {
    let check = match shared.vendor {
        Vendor::OpenAi => openai::check,
        Vendor::Deepgram => deepgram::check,
        Vendor::June => june::check,
        Vendor::LaterJune => june::check_later,
        Vendor::ElevenLabs => return elevenlabs::serve(connection, &shared).await,
    };
    let refuse = match shared.vendor {
        Vendor::OpenAi => openai::refusal,
        Vendor::Deepgram => deepgram::refusal,
        Vendor::June | Vendor::LaterJune | Vendor::ElevenLabs => june::refusal,
    };
    http::serve(connection, &shared, check, refuse).await;
}

/// What the servers say for a text: a tone whose length is that of the text.
pub fn sound(text: &str) -> Vec<i16> {
    let samples = text.chars().count() * SAMPLE_RATE_HZ as usize / 20 + 1;
    let step = 440.0 * std::f32::consts::TAU / SAMPLE_RATE_HZ as f32;
    (0..samples).map(|n| ((n as f32 * step).cos() * 16_384.0) as i16).collect()
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}
