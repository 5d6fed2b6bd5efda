//! The answer on its way to the client: as one JSON document, or as an event stream.
//!
//! ```text
//!   event: start
//!   data: {"session_id":"…"}
//!
//!   event: delta
//!   data: {"text":"It is "}
//!
//!   event: done                          event: error
//!   data: {"session_id":"…", …}    or    data: {"type":"about:blank","status":503, …}
//! ```

use std::time::{Duration, Instant};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    clock,
    error::Code,
    http::{AppState, error::ApiError},
    ids::{Identity, SessionId, TurnId},
    limits::Place,
    protocol::edge_v1::to_client::Finish,
    response::clip_store::ClipUse,
    session::question::{Answer, Audio, Failure, Reply},
    store::sessions::SessionRecord,
    telemetry,
    ws::send_queue::Connection,
};

/// How long a stream is silent: proxies close those that are for long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often it is checked whether the client is still there.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A line of an event stream that means nothing.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

#[derive(Debug, Serialize)]
struct ChatAnswer {
    session_id: SessionId,
    text: String,
    /// A WAV file; null without `include_audio`, and where `audio_error` says why.
    audio_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio_error: Option<&'static str>,
    /// The file ends before the answer does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    audio_cut: bool,
    processing_time_ms: u64,
    turn_id: TurnId,
    finish: Finish,
}

impl From<Failure> for ApiError {
    fn from(Failure { code, message, retry_after }: Failure) -> Self {
        Self { code, message, retry_after }
    }
}

/// A question whose answer is on its way. It is withdrawn when this is dropped.
pub(super) struct Pending {
    record: SessionRecord,
    began: Instant,
    replies: mpsc::Receiver<Reply>,
    _withdraw: oneshot::Sender<()>,
    _place: Option<Place<Identity>>,
    /// None in tests without sockets.
    connection: Option<Connection>,
    /// The client has closed the connection.
    is_gone: bool,
    outcome: &'static str,
}

impl Pending {
    pub(super) fn new(
        record: SessionRecord,
        began: Instant,
        replies: mpsc::Receiver<Reply>,
        withdraw: oneshot::Sender<()>,
        place: Option<Place<Identity>>,
        connection: Option<Connection>,
    ) -> Self {
        Self {
            record,
            began,
            replies,
            _withdraw: withdraw,
            _place: place,
            connection,
            is_gone: false,
            outcome: "withdrawn",
        }
    }

    /// Waits for the whole answer.
    pub(super) async fn json(
        mut self,
        app: &AppState,
        request: &HttpRequest,
    ) -> Result<HttpResponse, ApiError> {
        let base_url = app.base_url(request);
        loop {
            match self.next().await {
                Reply::Delta(_) => {}
                Reply::Answer(answer) => {
                    return Ok(HttpResponse::Ok().json(self.answered(answer, app, &base_url)));
                }
                Reply::Failed(failure) => return Err(self.failed(failure)),
            }
        }
    }

    /// Waits for the first piece: what fails before has a status of its own.
    pub(super) async fn events(
        mut self,
        app: web::Data<AppState>,
        request: &HttpRequest,
    ) -> Result<HttpResponse, ApiError> {
        let base_url = app.base_url(request);
        let start = event("start", &json!({"session_id": self.record.session_id}));
        let first = match self.next().await {
            Reply::Failed(failure) => return Err(self.failed(failure)),
            first @ (Reply::Delta(_) | Reply::Answer(_)) => first,
        };
        let state = Some((self, Some(first)));
        let body = stream::unfold((state, app, base_url), |(state, app, base_url)| async move {
            let (mut pending, first) = state?;
            let reply = match first {
                Some(first) => first,
                None => match timeout(KEEP_ALIVE, pending.next()).await {
                    Ok(reply) => reply,
                    Err(_) => return Some((Ok(COMMENT), (Some((pending, None)), app, base_url))),
                },
            };
            let (bytes, state) = match reply {
                Reply::Delta(text) => (event("delta", &json!({"text": text})), Some((pending, None))),
                Reply::Answer(answer) => (event("done", &pending.answered(answer, &app, &base_url)), None),
                Reply::Failed(failure) => (event("error", &pending.failed(failure).problem()), None),
            };
            Some((Ok::<_, ApiError>(bytes), (state, app, base_url)))
        });
        let body = futures::StreamExt::chain(stream::iter([Ok(start)]), body);
        Ok(HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header(("Cache-Control", "no-store"))
            // nginx buffers responses unless this header is set.
            .insert_header(("X-Accel-Buffering", "no"))
            .streaming(Box::pin(body)))
    }

    async fn next(&mut self) -> Reply {
        let ended = || Reply::Failed(Failure::new(Code::SessionError, "the session ended before the answer"));
        while !self.is_gone {
            if let Ok(reply) = timeout(CHECK_INTERVAL, self.replies.recv()).await {
                return reply.unwrap_or_else(ended);
            }
            // actix-web does not notice while it has nothing to write.
            self.is_gone = self.connection.is_some_and(Connection::is_closed_by_peer);
        }
        Reply::Failed(Failure::new(Code::SessionError, "the client has closed the connection"))
    }

    fn answered(&mut self, answer: Answer, app: &AppState, base_url: &str) -> ChatAnswer {
        self.outcome = "answered";
        let Answer { turn_id, text, finish, audio } = answer;
        let (id, user) = (self.record.session_id, &self.record.user_id);
        let (audio_url, audio_error, audio_cut) = match audio {
            Audio::NotAsked => (None, None, false),
            Audio::Failed(cause) => (None, Some(cause), false),
            Audio::Recorded { samples, rate_hz, is_cut } => {
                let name = app.clips.keep(ClipUse::Recording, id, user, &samples, rate_hz);
                (Some(format!("{base_url}/clips/{name}.wav")), None, is_cut)
            }
        };
        let processing_time_ms = clock::now().saturating_duration_since(self.began).as_millis() as u64;
        ChatAnswer {
            session_id: id,
            text,
            audio_url,
            audio_error,
            audio_cut,
            processing_time_ms,
            turn_id,
            finish,
        }
    }

    fn failed(&mut self, failure: Failure) -> ApiError {
        self.outcome = match (self.is_gone, failure.code == Code::AiUnavailable) {
            (true, _) => "withdrawn",
            (false, true) => "failed",
            (false, false) => "refused",
        };
        failure.into()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        metrics::counter!(telemetry::CHAT_ANSWERS, "outcome" => self.outcome).increment(1);
    }
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("an answer has only strings, numbers and flags");
    format!("event: {name}\ndata: {data}\n\n").into()
}
