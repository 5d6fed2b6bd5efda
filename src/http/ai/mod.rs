//! `/api/ai/chat` and `/api/ai/process`: a line, and its answer by the language model of the line's session.

mod answer;
mod request;

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::header::ACCEPT, web};
use serde_json::Map;
use tokio::sync::{mpsc, oneshot};

use self::{
    answer::Pending,
    request::{ChatRequest, MAX_BODY_WITH_IMAGES},
};
use crate::{
    clock,
    error::Code,
    http::{
        AppState,
        error::ApiError,
        middleware::{auth::Caller, body, drain::NotDraining},
        router::MAX_BODY,
        sessions,
    },
    ids::UserId,
    session::{
        messages::Ask,
        question::{Question, Reply},
        registry::RegistryError,
    },
    store::sessions::SessionRecord,
};

pub(in crate::http) use self::request::MAX_BODY_WITH_IMAGES as MAX_CHAT_BODY;

/// Pieces of an answer that wait for a client that reads slowly.
const QUEUE: usize = 1_024;

/// Attempts to reach a session that ends at the same moment, and the time between them.
const ATTEMPTS: usize = 5;
const RETRY: Duration = Duration::from_millis(20);

/// Whether a path is one of these, which take more time and larger bodies than others.
pub(in crate::http) fn is_at(path: &str) -> bool {
    path == "/api/ai/chat" || path == "/api/ai/process"
}

/// `POST /api/ai/chat`, `POST /api/ai/process`
pub(in crate::http) async fn chat(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    mut payload: web::Payload,
    _: NotDraining,
) -> Result<HttpResponse, ApiError> {
    let began = clock::now();
    let is_large = body::length(&request).is_none_or(|length| length > MAX_BODY);
    // Until the answer is complete: the images are in the prompt.
    let place = is_large.then(|| app.limits.take_images(caller.identity())).transpose()?;
    let limit = if is_large { MAX_BODY_WITH_IMAGES } else { MAX_BODY };
    let chat: ChatRequest = body::json(&request, &mut payload, limit).await?;
    let known = known_session(&app, &caller, &chat).await?;
    let question = chat.question()?;
    let record = match known {
        Some(record) => record,
        None => create_session(&app, &request, &caller, &chat).await?,
    };
    let (replies, withdraw) = ask(&app, &record, question).await?;
    let pending = Pending::new(record, began, replies, withdraw, place, request.conn_data().copied());
    if wants_events(&request) {
        pending.events(app, &request).await
    } else {
        pending.json(&app, &request).await
    }
}

/// The session that the request names, or the one that the caller's token is for, if the caller may use it.
async fn known_session(
    app: &AppState,
    caller: &Caller,
    chat: &ChatRequest,
) -> Result<Option<SessionRecord>, ApiError> {
    let of_token = match caller {
        Caller::User(principal) => principal.session,
        Caller::Anyone | Caller::Key(_) => None,
    };
    let id = match &chat.session_id {
        Some(id) => Some(sessions::parse_id(id)?),
        None => of_token,
    };
    let Some(id) = id else { return Ok(None) };
    let record = app.registry.get_any(id).await?;
    sessions::check(app, caller, &record)?;
    Ok(Some(record))
}

async fn create_session(
    app: &AppState,
    request: &HttpRequest,
    caller: &Caller,
    chat: &ChatRequest,
) -> Result<SessionRecord, ApiError> {
    let user = chat.user_id.clone().or_else(|| own_user(caller));
    let user = user.ok_or_else(|| ApiError::invalid("user_id", "must say whose the new session is"))?;
    let options = chat.options.clone().unwrap_or_default();
    sessions::create_for(app, request, caller, &user, options, Map::new()).await
}

/// The one user whom the caller acts for.
fn own_user(caller: &Caller) -> Option<UserId> {
    match caller {
        Caller::Anyone => None,
        Caller::Key(key) => key.user.clone(),
        Caller::User(principal) => Some(principal.user.clone()),
    }
}

/// Gives the question to the session's actor, which is started if there is none.
async fn ask(
    app: &AppState,
    record: &SessionRecord,
    question: Question,
) -> Result<(mpsc::Receiver<Reply>, oneshot::Sender<()>), ApiError> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(RETRY).await;
        }
        let record = app.registry.get_any(record.session_id).await?;
        let actor = match app.registry.reopen(&record).await {
            // For good, or at this moment.
            Err(RegistryError::NotFound) if record.ended.is_none_or(|reason| !reason.is_for_good()) => {
                continue;
            }
            actor => actor?,
        };
        let (replies, answer) = mpsc::channel(QUEUE);
        let (withdraw, withdrawn) = oneshot::channel();
        if actor.send(Ask { question: question.clone(), replies, withdrawn }).await.is_ok() {
            return Ok((answer, withdraw));
        }
    }
    Err(ApiError::new(Code::SessionError, "the session ended at this moment; try again"))
}

/// Whether the client asks for an event stream.
fn wants_events(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(ACCEPT).filter_map(|accept| accept.to_str().ok());
    accepted.flat_map(|accept| accept.split(',')).any(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}
