//! STT services that speak the protocols of their vendors, hear what a script says, and fail as it says.

mod assemblyai;
mod deepgram;
mod http;
#[expect(clippy::wildcard_enum_match_arm, reason = "most services are as OpenAI's")]
mod openai;
mod websocket;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// The key that the services accept.
pub const KEY: &str = "key-of-the-tests-of-stt";

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SttVendor {
    Deepgram,
    AssemblyAi,
    /// Streams its answers.
    OpenAi,
    /// Ignores `stream`.
    OpenAiPlain,
    /// Refuses `stream`.
    OpenAiStrict,
    /// Streams as vLLM does.
    Vllm,
    /// `june-stt` 3.0: `/v1/transcribe`.
    June,
    /// `june-stt` of 2025-10-31: `/v1/audio/transcriptions`.
    JuneOpenAi,
    /// A web server without any of this.
    Nobody,
}

/// What a service hears, and what goes wrong.
#[derive(Clone, Debug, Default)]
pub struct SttScript {
    /// Heard in any sound, one word every 300 ms.
    pub text: String,
    /// How long each answer takes.
    pub latency: Duration,
    pub fault: Option<SttFault>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SttFault {
    /// The request is refused with this HTTP status and this body.
    Refuses(u16, String),
    /// The service reports an error in the words of its protocol, when it has heard something.
    Reports(u16, String),
    /// The connection is cut in the middle of an answer.
    Cut,
    /// The WebSocket is closed with this code, when something was heard.
    Closes(u16),
    /// A binary message, or a body of random bytes.
    Binary,
    /// Something like the protocol, but not quite.
    Garbage,
    /// A message of 5 MB.
    Huge,
    /// Nothing is ever answered.
    Silence,
}

impl SttScript {
    pub fn saying(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    pub fn failing(fault: SttFault) -> Self {
        Self { fault: Some(fault), ..Self::saying("Where is the station?") }
    }

    fn words(&self) -> Vec<&str> {
        self.text.split_whitespace().collect()
    }
}

/// What a client asked for, and what it sent.
#[derive(Clone, Debug, Default)]
pub struct SttRequest {
    pub path: String,
    query: Vec<(String, String)>,
    authorization: Option<String>,
    /// The text fields of a form.
    fields: Vec<(String, String)>,
    pub pcm: Vec<i16>,
    /// The text messages, on a WebSocket.
    pub messages: Vec<String>,
}

impl SttRequest {
    /// The values of a query parameter.
    pub fn query(&self, name: &str) -> Vec<&str> {
        self.query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The values of a form's field.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The first of them.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).into_iter().next()
    }
}

/// A running service. It ends when this is dropped.
pub struct SttServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    vendor: Mutex<SttVendor>,
    script: Mutex<SttScript>,
    requests: Mutex<Vec<SttRequest>>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

impl SttServer {
    /// # Panics
    /// If no port is free.
    pub async fn start(vendor: SttVendor, script: SttScript) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            vendor: Mutex::new(vendor),
            script: Mutex::new(script),
            requests: Mutex::default(),
            open: watch::Sender::new(0),
        });
        let for_connections = shared.clone();
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let shared = for_connections.clone();
                shared.open.send_modify(|open| *open += 1);
                tokio::spawn(async move {
                    let (vendor, script) = (*locked(&shared.vendor), locked(&shared.script).clone());
                    match vendor {
                        SttVendor::Deepgram => deepgram::serve(connection, &shared, &script).await,
                        SttVendor::AssemblyAi => assemblyai::serve(connection, &shared, &script).await,
                        vendor @ (SttVendor::OpenAi
                        | SttVendor::OpenAiPlain
                        | SttVendor::OpenAiStrict
                        | SttVendor::Vllm
                        | SttVendor::June
                        | SttVendor::JuneOpenAi
                        | SttVendor::Nobody) => openai::serve(connection, &shared, &script, vendor).await,
                    };
                    shared.open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, shared, serving }
    }

    /// The base URL of the settings: with `http`, and with `/v1` where that belongs to it.
    pub fn url(&self) -> String {
        let path = match *locked(&self.shared.vendor) {
            SttVendor::OpenAi | SttVendor::OpenAiPlain | SttVendor::OpenAiStrict | SttVendor::Vllm => "/v1",
            SttVendor::Deepgram
            | SttVendor::AssemblyAi
            | SttVendor::June
            | SttVendor::JuneOpenAi
            | SttVendor::Nobody => "",
        };
        format!("http://{}{path}", self.address)
    }

    /// The requests that were accepted so far, with what was sent until now.
    pub fn requests(&self) -> Vec<SttRequest> {
        locked(&self.shared.requests).clone()
    }

    /// Is another service for the next connections.
    pub fn become_vendor(&self, vendor: SttVendor) {
        *locked(&self.shared.vendor) = vendor;
    }

    /// Plays another script for the next connections.
    pub fn play(&self, script: SttScript) {
        *locked(&self.shared.script) = script;
    }

    /// Waits until so many connections are open.
    pub async fn until_open(&self, count: usize) {
        let mut open = self.shared.open.subscribe();
        let _ = open.wait_for(|open| *open == count).await;
    }
}

impl Drop for SttServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    /// Notes a request; returns its number.
    fn note(&self, request: SttRequest) -> usize {
        let mut requests = locked(&self.requests);
        requests.push(request);
        requests.len() - 1
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut SttRequest)) {
        change(&mut locked(&self.requests)[number]);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no connection panicked")
}

/// 16-bit PCM, little-endian.
fn samples(bytes: &[u8]) -> impl Iterator<Item = i16> + '_ {
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
}

/// The parts of a query or a form.
fn decoded(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decoded(name), percent_decoded(value))
        })
        .collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
