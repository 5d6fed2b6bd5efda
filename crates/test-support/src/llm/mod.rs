//! A server of a language model which speaks the protocol of a vendor: it checks requests as the vendor does, and
//! streams what it is told to.

mod anthropic;
mod gemini;
mod http;
mod openai;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// The key that the server takes. Ollama takes any.
pub const KEY: &str = "sk-very-secret-0123456789";
/// The tokens that each answer reports: of the prompt, and of the answer.
pub const USAGE: (u32, u32) = (31, 2);

/// Whose protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlmApi {
    /// Chat completions: <https://platform.openai.com/docs/api-reference/chat>.
    OpenAi,
    /// `streamGenerateContent`: <https://ai.google.dev/api/generate-content>.
    Gemini,
    /// Messages, version 2023-06-01: <https://platform.claude.com/docs/en/api/versioning?version=2023-06-01>.
    Anthropic,
    /// Ollama's chat completions, as in `middleware/openai.go` of its repository.
    Ollama,
}

/// What the server does with a request that it accepts.
#[derive(Clone, Debug)]
pub enum Answer {
    Stream(Vec<Step>),
    Refusal {
        status: u16,
        message: String,
        /// In seconds.
        retry_after: Option<u32>,
    },
    Redirect {
        to: String,
    },
    /// 200 with something else than a stream.
    Body {
        content_type: &'static str,
        body: String,
    },
}

/// A step of a stream.
#[derive(Clone, Debug)]
pub enum Step {
    Text(String),
    Reasoning(String),
    /// Calls of tools, by name and arguments, in one step of the model. Where the protocol has pieces, each call comes in
    /// several.
    ToolCalls(Vec<(String, Value)>),
    Error {
        status: u16,
        message: String,
    },
    /// As it is.
    Raw(String),
    Wait(Duration),
    /// The provider's own end, with the usage.
    Finish(Finish),
    /// Ends the response as HTTP wants it, without [`Step::Finish`].
    Close,
    /// Closes the connection within the response.
    Cut,
    /// Sends nothing more until the client closes the connection.
    Hang,
}

impl Step {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Stop,
    /// The greatest number of tokens is reached.
    Length,
    ToolCalls,
    /// A filter of contents.
    Filter,
}

/// A request that the server got.
#[derive(Clone, Debug)]
pub struct LlmRequest {
    pub method: String,
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl LlmRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// The server. It ends when this is dropped.
pub struct LlmServer {
    api: LlmApi,
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<LlmRequest>>,
    /// How many connections are open.
    open: watch::Sender<usize>,
}

impl LlmServer {
    /// # Panics
    /// If no port is free.
    pub async fn start(api: LlmApi) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::<Shared>::default();
        let served = shared.clone();
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    served.open.send_modify(|open| *open += 1);
                    // An error is a client that went away.
                    let _ = http::serve(connection, api, &served).await;
                    served.open.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { api, address, shared, serving }
    }

    /// The base URL as the vendor's own SDK takes it.
    pub fn url(&self) -> String {
        let path = match self.api {
            LlmApi::OpenAi => "/v1",
            LlmApi::Gemini => "/v1beta",
            LlmApi::Anthropic | LlmApi::Ollama => "",
        };
        format!("http://{}{path}", self.address)
    }

    /// Answers the next request that has no answer yet. Without any, the answer is "Yes.".
    pub fn answer(&self, answer: Answer) {
        self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer);
    }

    /// Returns when no connection is open.
    pub async fn closed(&self) {
        // An error is impossible: the sender is here.
        let _ = self.shared.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// The requests so far, also those that were refused.
    pub fn requests(&self) -> Vec<LlmRequest> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for LlmServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn take(&self, request: LlmRequest) -> Answer {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let next = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        next.unwrap_or_else(|| Answer::Stream(vec![Step::text("Yes."), Step::Finish(Finish::Stop)]))
    }
}

/// Why a request is refused: the status and the message.
type Refused = (u16, String);

/// One vendor's protocol, for one response.
trait Protocol: Send {
    /// Checks what the vendor checks.
    fn check(&self, request: &LlmRequest) -> Result<(), Refused>;

    /// The body of a refusal.
    fn refusal(&self, status: u16, message: &str) -> Value;

    /// What comes before the first step.
    fn begin(&mut self) -> String;

    fn text(&mut self, text: &str) -> String;

    fn reasoning(&mut self, text: &str) -> String;

    fn tool_calls(&mut self, calls: &[(String, Value)]) -> String;

    fn error(&mut self, status: u16, message: &str) -> String;

    fn finish(&mut self, finish: Finish) -> String;
}

fn protocol(api: LlmApi, request: &LlmRequest) -> Box<dyn Protocol> {
    match api {
        LlmApi::OpenAi | LlmApi::Ollama => Box::new(openai::ChatCompletions::new(api, request)),
        LlmApi::Gemini => Box::new(gemini::GenerateContent),
        LlmApi::Anthropic => Box::new(anthropic::Messages::new(request)),
    }
}

fn refuse<T>(status: u16, message: impl Into<String>) -> Result<T, Refused> {
    Err((status, message.into()))
}

/// The text in three pieces, of which none divides a character.
fn pieces(text: &str) -> [&str; 3] {
    let mut third = text.len() / 3;
    while !text.is_char_boundary(third) {
        third -= 1;
    }
    let mut two_thirds = (text.len() * 2 / 3).max(third);
    while !text.is_char_boundary(two_thirds) {
        two_thirds -= 1;
    }
    [&text[..third], &text[third..two_thirds], &text[two_thirds..]]
}

fn array<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], Refused> {
    match value.get(name).and_then(Value::as_array) {
        Some(items) if !items.is_empty() => Ok(items),
        _ => refuse(400, format!("{name}: a list that is not empty is required")),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, Refused> {
    match value.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => refuse(400, format!("{name}: a string that is not empty is required")),
    }
}

/// JPEG or PNG in base64, by its first characters.
fn check_image(media_type: &str, data: &str) -> Result<(), Refused> {
    let is_image = match media_type {
        "image/png" => data.starts_with("iVBORw0KGgo"),
        "image/jpeg" => data.starts_with("/9j/"),
        _ => false,
    };
    if is_image { Ok(()) } else { refuse(400, format!("the data is no {media_type}")) }
}

/// A schema of tool arguments.
fn check_schema(schema: Option<&Value>) -> Result<(), Refused> {
    match schema.and_then(|schema| schema.get("type")).and_then(Value::as_str) {
        Some("object") => Ok(()),
        _ => refuse(400, "the schema of a tool must have the type object"),
    }
}
