//! Logs each request and its status at `debug`, without what identifies people: tokens, users, names of rooms and
//! clips.

use std::{borrow::Cow, fmt::Write};

use actix_web::{
    Error,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::Uri,
    middleware::Next,
    web::Query,
};

use crate::clock;

/// Parameters of paths whose values are logged: ids that the gateway made.
const PATH_IDS: [&str; 2] = ["id", "egress_id"];

/// Parameters of queries whose values are logged.
const PLAIN_QUERIES: [&str; 7] =
    ["after", "before", "cursor", "last_event_id", "limit", "livekit", "audio_only"];

pub(crate) async fn requests(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return next.call(request).await;
    }
    let (began, method) = (clock::now(), request.method().clone());
    let target = redacted(request.match_pattern().as_deref(), request.uri());
    let response = next.call(request).await;
    let status = match &response {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    let ms = (clock::now() - began).as_millis() as u64;
    tracing::debug!(%method, %target, status = status.as_u16(), ms, "request");
    response
}

/// A request target without the values that identify somebody; `pattern` is that of its route.
fn redacted(pattern: Option<&str>, uri: &Uri) -> String {
    let mut target = match pattern {
        Some(pattern) => path(pattern, uri.path()),
        None => "/… (no route)".into(),
    };
    let Some(query) = uri.query() else { return target };
    let Ok(pairs) = Query::<Vec<(Cow<'_, str>, Cow<'_, str>)>>::from_query(query) else {
        // No route can read it either.
        return target + "?…";
    };
    for (at, (name, value)) in pairs.into_inner().iter().enumerate() {
        let value = if PLAIN_QUERIES.contains(&name.as_ref()) { value } else { "…" };
        let mark = if at == 0 { '?' } else { '&' };
        let _ = write!(target, "{mark}{name}={value}");
    }
    target
}

/// The path of a route; parameters that are no ids of the gateway's are left out.
fn path(pattern: &str, path: &str) -> String {
    let segments = pattern.split('/').zip(path.split('/')).map(|(part, segment)| {
        match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !PATH_IDS.contains(&name) => "…",
            Some(_) | None => segment,
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(pattern: &str, target: &str) -> String {
        redacted(Some(pattern), &target.parse().unwrap())
    }

    #[test]
    fn no_token_is_left_in_a_target() {
        for (target, expected) in [
            ("/v1/ws", "/v1/ws"),
            ("/v1/ws?token=hush", "/v1/ws?token=…"),
            ("/v1/ws?Token=hush&token=hush", "/v1/ws?Token=…&token=…"),
            ("/v1/ws?%74oken=hush", "/v1/ws?token=…"),
            ("/v1/ws?access_token=hush&x-api-key=hush", "/v1/ws?access_token=…&x-api-key=…"),
            ("/v1/ws?token=hush&limit=5", "/v1/ws?token=…&limit=5"),
            ("/v1/ws?token", "/v1/ws?token=…"),
        ] {
            assert_eq!(logged("/v1/ws", target), expected);
        }
    }

    #[test]
    fn nobody_and_no_clip_is_named_in_a_target() {
        for (pattern, target, expected) in [
            (
                "/api/sessions/{id}/participants/{identity}",
                "/api/sessions/018f/participants/ann@example.org",
                "/api/sessions/018f/participants/…",
            ),
            ("/clips/{clip}", "/clips/0123456789.wav", "/clips/…"),
            (
                "/api/admin/rooms/{room}/stats",
                "/api/admin/rooms/room-ann-x/stats",
                "/api/admin/rooms/…/stats",
            ),
            ("/api/consumer/ws", "/api/consumer/ws?user=ann@example.org", "/api/consumer/ws?user=…"),
            (
                "/api/livekit/participants",
                "/api/livekit/participants?room=room-ann-x",
                "/api/livekit/participants?room=…",
            ),
            (
                "/api/sessions/{id}/history",
                "/api/sessions/018f/history?limit=5",
                "/api/sessions/018f/history?limit=5",
            ),
        ] {
            assert_eq!(logged(pattern, target), expected);
        }
        assert_eq!(redacted(None, &"/clip/0123456789.wav?x=ann".parse().unwrap()), "/… (no route)?x=…");
    }
}
