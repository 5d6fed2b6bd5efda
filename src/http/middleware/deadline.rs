//! How long the gateway takes to answer a request at most.

use std::time::Duration;

use actix_web::{
    Error,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};
use tokio::time::timeout;

use crate::http::{ai, error::ApiError};

/// Longer than everything that has a limit of its own: the request's body and a call of LiveKit's egress service.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);

/// The same for an answer of the language model, whose time is limited by `LLM_MAX_SECONDS`, at most 10 min, and its
/// speech.
const CHAT_TIMEOUT: Duration = Duration::from_secs(660);

/// How long a path takes at most.
pub(crate) fn of(path: &str) -> Duration {
    if ai::is_at(path) { CHAT_TIMEOUT } else { ANSWER_TIMEOUT }
}

/// Answers with 503 where the handler takes too long: a store may wait for a disk that hangs. Calls that the handler has
/// made of stores and of LiveKit take effect all the same.
pub(crate) async fn answered<B: MessageBody>(
    time: Duration,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let http = request.request().clone();
    match timeout(time, next.call(request)).await {
        Ok(response) => Ok(response?.map_into_left_body()),
        Err(_) => {
            tracing::error!(path = http.match_pattern(), "a request was not answered in time");
            Ok(ServiceResponse::from_err(ApiError::late(), http).map_into_right_body())
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{App, HttpResponse, http::StatusCode, middleware::from_fn, test, web};

    use super::*;

    #[actix_web::test]
    async fn a_handler_that_hangs_is_answered_for() {
        let hanging = web::get()
            .to(std::future::pending::<HttpResponse>)
            .wrap(from_fn(|request, next| answered(ANSWER_TIMEOUT, request, next)));
        let app = test::init_service(App::new().route("/", hanging)).await;
        tokio::time::pause();

        let response = test::call_service(&app, test::TestRequest::get().uri("/").to_request()).await;

        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
    }
}
