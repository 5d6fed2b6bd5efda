//! Authenticates requests.
//!
//! A token is sent as `Authorization: Bearer …`, or as `?token=…` by clients that cannot set headers (a browser's
//! WebSocket and EventSource). Tokens are never logged.

use std::{
    future::ready,
    hash::{DefaultHasher, Hash, Hasher},
};

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header::AUTHORIZATION, web};
use futures::{FutureExt, future::LocalBoxFuture};

use crate::{
    auth::{AuthError, Authenticator, Principal},
    http::{AppState, error::ApiError},
    ids::UserId,
    store::sessions::SessionRecord,
};

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Anyone: the gateway has no API keys, and is bound to loopback.
    Anyone,
    /// A backend, with an API key. Acts for every user.
    Backend,
    /// A user, with a token.
    User(Principal),
}

impl Caller {
    pub(crate) fn may_act_for(&self, user: &UserId) -> Result<(), AuthError> {
        match self {
            Self::Anyone | Self::Backend => Ok(()),
            Self::User(principal) if principal.user == *user && principal.session.is_none() => Ok(()),
            Self::User(_) => Err(AuthError::Forbidden("the token is not for this user's sessions")),
        }
    }

    pub(crate) fn may_use(&self, session: &SessionRecord) -> Result<(), AuthError> {
        match self {
            Self::Anyone | Self::Backend => Ok(()),
            Self::User(principal)
                if principal.user == session.user_id
                    && principal.session.is_none_or(|bound| bound == session.session_id) =>
            {
                Ok(())
            }
            Self::User(_) => Err(AuthError::Forbidden("the session is another user's")),
        }
    }
}

/// A backend, or anyone if the gateway has no API keys. Users are refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operator;

impl FromRequest for Operator {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        identify(request)
            .map(|caller| match caller? {
                Caller::Anyone | Caller::Backend => Ok(Self),
                Caller::User(_) => Err(AuthError::Forbidden("this needs an API key").into()),
            })
            .boxed_local()
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        identify(request)
    }
}

impl FromRequest for Principal {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    /// API keys are rejected: they identify no user.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = authenticator(request).and_then(|authenticator| {
            let token = token(request).ok_or_else(ApiError::missing_token)?;
            Ok((authenticator, token))
        });
        async move {
            let (authenticator, token) = found?;
            Ok(authenticator.verify(&token).await?)
        }
        .boxed_local()
    }
}

fn identify(request: &HttpRequest) -> LocalBoxFuture<'static, Result<Caller, ApiError>> {
    let authenticator = match authenticator(request) {
        Ok(authenticator) => authenticator,
        Err(error) => return ready(Err(error)).boxed_local(),
    };
    if let Some(key) = request.headers().get("x-api-key") {
        let known = key.to_str().is_ok_and(|key| authenticator.is_api_key(key));
        return ready(if known { Ok(Caller::Backend) } else { Err(unknown_key()) }).boxed_local();
    }
    let token = token(request);
    async move {
        match token {
            Some(token) if authenticator.is_api_key(&token) => Ok(Caller::Backend),
            Some(token) => Ok(Caller::User(authenticator.verify(&token).await?)),
            None if authenticator.is_open() => Ok(Caller::Anyone),
            None => Err(ApiError::missing_token()),
        }
    }
    .boxed_local()
}

fn authenticator(request: &HttpRequest) -> Result<Authenticator, ApiError> {
    let app = request.app_data::<web::Data<AppState>>();
    app.map(|app| app.authenticator.clone()).ok_or_else(|| ApiError::internal("the application has no state"))
}

/// The token of a request; the header takes precedence over the query.
pub(crate) fn token(request: &HttpRequest) -> Option<String> {
    if let Some(header) = request.headers().get(AUTHORIZATION) {
        let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    #[derive(serde::Deserialize)]
    struct Query {
        token: Option<String>,
    }
    web::Query::<Query>::from_query(request.query_string()).ok()?.into_inner().token
}

/// Tells the API keys of requests apart, without keeping them.
pub(crate) fn key_hash(request: &HttpRequest) -> u64 {
    let header = request.headers().get("x-api-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let mut hasher = DefaultHasher::new();
    header.or_else(|| token(request)).hash(&mut hasher);
    hasher.finish()
}

fn unknown_key() -> ApiError {
    AuthError::InvalidToken("the API key is not known here").into()
}
