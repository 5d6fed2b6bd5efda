//! Logs each request and its status at `debug`, without tokens.

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

pub(crate) async fn requests(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return next.call(request).await;
    }
    let (began, method) = (clock::now(), request.method().clone());
    let target = redacted(request.uri());
    let response = next.call(request).await;
    let status = match &response {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    let ms = (clock::now() - began).as_millis() as u64;
    tracing::debug!(%method, %target, status = status.as_u16(), ms, "request");
    response
}

/// A request target without the values of tokens, however their names are encoded.
fn redacted(uri: &Uri) -> String {
    let mut target = uri.path().to_owned();
    let Some(query) = uri.query() else { return target };
    let Ok(pairs) = Query::<Vec<(Cow<'_, str>, Cow<'_, str>)>>::from_query(query) else {
        // No route can read it either.
        return target + "?…";
    };
    for (at, (name, value)) in pairs.into_inner().iter().enumerate() {
        let value = if is_secret(name) { "…" } else { value };
        let mark = if at == 0 { '?' } else { '&' };
        let _ = write!(target, "{mark}{name}={value}");
    }
    target
}

/// Includes names that clients mistake for ours.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "key", "secret", "password", "jwt"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_left_in_a_target() {
        for (target, logged) in [
            ("/v1/ws", "/v1/ws"),
            ("/v1/ws?token=hush", "/v1/ws?token=…"),
            ("/v1/ws?Token=hush&token=hush", "/v1/ws?Token=…&token=…"),
            ("/v1/ws?%74oken=hush", "/v1/ws?token=…"),
            ("/v1/ws?access_token=hush&x-api-key=hush", "/v1/ws?access_token=…&x-api-key=…"),
            ("/a?room=room-a&token=hush&limit=5", "/a?room=room-a&token=…&limit=5"),
            ("/a?token", "/a?token=…"),
        ] {
            assert_eq!(redacted(&target.parse().unwrap()), logged);
        }
    }
}
