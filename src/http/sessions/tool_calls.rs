//! The image of a tool call, uploaded by the client that was asked: control messages are too small for photos.

use std::fmt;

use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::{
    error::Code,
    http::{
        AppState,
        error::ApiError,
        middleware::{auth::Caller, body},
        sessions::session,
    },
    ids::Identity,
    providers::llm::{Image, ImageError},
    session::messages::{AnswerToolCall, ClosedCall, FindToolCall},
    tools::ToolOutput,
};

const MEDIA_TYPES: [&str; 2] = ["image/jpeg", "image/png"];

/// Whether a path is this one, which takes larger bodies than others.
pub(in crate::http) fn is_at(path: &str) -> bool {
    path.starts_with("/api/sessions/") && path.contains("/tool-calls/") && path.ends_with("/image")
}

#[derive(Debug, Deserialize)]
pub(in crate::http) struct UploadQuery {
    /// What the LLM reads beside the image; all that one reads that does not see images.
    #[serde(default)]
    output: String,
}

impl From<ClosedCall> for ApiError {
    fn from(closed: ClosedCall) -> Self {
        match closed {
            ClosedCall::Unknown => {
                Self::new(Code::NotFound, "the client was not asked for a call of this id")
            }
            ClosedCall::Over => Self::new(Code::SessionError, "the call has its result, or was cancelled"),
        }
    }
}

/// `PUT /api/sessions/{id}/tool-calls/{call_id}/image`: completes the call.
///
/// What is refused leaves the call open: a smaller photo may follow.
pub(in crate::http) async fn upload(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    path: web::Path<(String, String)>,
    query: web::Query<UploadQuery>,
    mut payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let (id, call_id) = path.into_inner();
    let record = session(&app, &caller, &id).await?;
    let output = ToolOutput::new(query.into_inner().output, None);
    let output = output.map_err(|problem| ApiError::invalid("output", problem))?;
    // No actor, no call.
    let actor = app.registry.live(record.session_id).ok_or(ClosedCall::Unknown)?;
    let gone = |_| ApiError::from(ClosedCall::Unknown);
    actor.send(FindToolCall(call_id.clone())).await.map_err(gone)??;
    let media_type = request.content_type().to_ascii_lowercase();
    if !MEDIA_TYPES.contains(&media_type.as_str()) {
        return Err(unsupported(format!("must be one of {}", MEDIA_TYPES.join(", "))));
    }
    let _place = app.limits.take_images(Some(Identity::from(&record.user_id)))?;
    let data = body::bytes(&request, &mut payload, app.max_upload_bytes).await?;
    let image = Image::new(data).map_err(|error| match error {
        ImageError::TooLarge => ApiError::too_large(),
        ImageError::Format => unsupported(error),
    })?;
    if image.media_type() != media_type {
        return Err(unsupported(format!("is {}, and Content-Type says {media_type}", image.media_type())));
    }
    let output = ToolOutput { image: Some(image), ..output };
    actor.send(AnswerToolCall { call_id, output }).await.map_err(gone)??;
    Ok(HttpResponse::NoContent().finish())
}

fn unsupported(problem: impl fmt::Display) -> ApiError {
    ApiError::new(Code::UnsupportedMediaType, format!("body: {problem}"))
}
