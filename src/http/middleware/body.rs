//! The bodies of requests, on every route: how long they may take, and how large they may be.
//!
//! A body that is refused is not read: the response is sent, and the connection ends.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, UPGRADE},
    },
    middleware::Next,
    web,
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use serde::de::DeserializeOwned;

use crate::{
    config::Timeouts,
    error::Code,
    http::{ai, error::ApiError, sessions::tool_calls},
    providers::llm::MAX_IMAGE_BYTES,
    tcp::{
        Deadline,
        stream::{Activity, Answering},
    },
    telemetry,
};

/// The largest body of any request without images, in bytes: a webhook with a room's metadata.
const MAX_BODY: usize = 256 * 1024;

/// Answers a request, with a body that is limited in time and size.
pub(crate) async fn limited(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let answering = request.request().conn_data::<Activity>().map(Activity::answer);
    let most = match request.path() {
        path if ai::is_at(path) => ai::MAX_CHAT_BODY,
        path if tool_calls::is_at(path) => MAX_IMAGE_BYTES,
        _ => MAX_BODY,
    };
    let response = match check(request.headers(), most) {
        Err(error) => request.error_response(error),
        Ok(()) => {
            limit(&mut request, most);
            next.call(request).await?.map_into_boxed_body()
        }
    };
    let response = match response.response().error().and_then(Error::as_error::<PayloadError>) {
        Some(error) => {
            let error = ApiError::from(error);
            response.into_response(actix_web::HttpResponse::from_error(error))
        }
        None => response,
    };
    Ok(match answering {
        // An upgraded connection is no longer the HTTP server's.
        Some(answering) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
            response.map_body(|_, body| BoxBody::new(Body { body, _answering: answering }))
        }
        _ => response,
    })
}

/// Refuses what needs no look at the body.
fn check(headers: &HeaderMap, most: usize) -> Result<(), ApiError> {
    let length =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.trim().parse::<u64>().ok());
    if length.is_some_and(|length| length > most as u64) {
        return Err(ApiError::too_large());
    }
    let has_body = length.is_some_and(|length| length > 0) || headers.contains_key(TRANSFER_ENCODING);
    // Other upgrades are ignored: clients that would like h2c send ordinary requests.
    let is_upgrade =
        headers.get(UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if has_body && is_upgrade {
        return Err(ApiError::invalid("upgrade", "a request for an upgrade has no body"));
    }
    Ok(())
}

/// Puts the limits around the request's body, if it has one.
fn limit(request: &mut ServiceRequest, most: usize) {
    let Some(timeouts) = request.request().conn_data::<Timeouts>() else { return };
    let deadline = Deadline::after(timeouts.body);
    let body = request.take_payload();
    if matches!(body, Payload::None) {
        return;
    }
    let limited = LimitedBody { body, left: most, deadline };
    request.set_payload(Payload::Stream { payload: Box::pin(limited) });
}

/// The length of a body, where it is said.
pub(crate) fn length(request: &HttpRequest) -> Option<usize> {
    let length = request.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.trim().parse().ok()
}

/// Reads a body as JSON, for handlers that decide first whether it is read.
pub(crate) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: &mut web::Payload,
    most: usize,
) -> Result<T, ApiError> {
    let kind = request.content_type().to_ascii_lowercase();
    if kind != "application/json" && !kind.ends_with("+json") {
        return Err(ApiError::new(Code::UnsupportedMediaType, "body: must be JSON"));
    }
    let body = bytes(request, payload, most).await?;
    serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error))
}

/// Reads a body of at most so many bytes; the rest of a larger one is not read.
pub(crate) async fn bytes(
    request: &HttpRequest,
    payload: &mut web::Payload,
    most: usize,
) -> Result<Bytes, ApiError> {
    if length(request).is_some_and(|length| length > most) {
        return Err(ApiError::too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| ApiError::from(&error))?;
        if body.len() + chunk.len() > most {
            return Err(ApiError::too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A request's body until its deadline and within its limit.
struct LimitedBody {
    body: Payload,
    /// Bytes that may still come.
    left: usize,
    deadline: Deadline,
}

impl Stream for LimitedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.body.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(bytes))) => Poll::Ready(Some(match this.left.checked_sub(bytes.len()) {
                Some(left) => {
                    this.left = left;
                    Ok(bytes)
                }
                None => Err(PayloadError::Overflow),
            })),
            Poll::Pending => this.deadline.poll(cx).map(|()| {
                metrics::counter!(telemetry::CONNECTIONS_TIMED_OUT, "for" => "body").increment(1);
                Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into())))
            }),
            ended @ Poll::Ready(_) => ended,
        }
    }
}

/// A response's body, which says when the connection is idle again.
struct Body {
    body: BoxBody,
    _answering: Answering,
}

impl MessageBody for Body {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
