//! Who a request is from.
//!
//! A token comes as `Authorization: Bearer …`, else as `?token=…` for clients that cannot set headers
//! (browsers' WebSocket and EventSource). Tokens are never logged.

use std::future::ready;

use actix_web::{FromRequest, HttpRequest, dev::Payload, http::header::AUTHORIZATION, web};
use futures::{FutureExt, future::LocalBoxFuture};

use crate::{
    auth::Principal,
    error::{ApiError, Code},
    http::AppState,
    ids::UserId,
    store::sessions::SessionRecord,
};

/// Who a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody on this machine: the gateway has no API keys and is bound to loopback.
    Anyone,
    /// A backend, with an API key: acts for every user.
    Backend,
    /// A user, with a token.
    User(Principal),
}

impl Caller {
    /// Whether they may act for this user.
    pub fn may_act_for(&self, user: &UserId) -> Result<(), ApiError> {
        match self {
            Self::Anyone | Self::Backend => Ok(()),
            Self::User(grant) if grant.user == *user && grant.session.is_none() => Ok(()),
            Self::User(_) => Err(ApiError::new(Code::Forbidden, "the token is not for this user's sessions")),
        }
    }

    /// Whether they may use this session.
    pub fn may_use(&self, session: &SessionRecord) -> Result<(), ApiError> {
        match self {
            Self::Anyone | Self::Backend => Ok(()),
            Self::User(grant)
                if grant.user == session.user_id
                    && grant.session.is_none_or(|bound| bound == session.session_id) =>
            {
                Ok(())
            }
            Self::User(_) => Err(ApiError::new(Code::Forbidden, "the session is another user's")),
        }
    }
}

/// An operator: a backend, or anyone on this machine where the gateway is open. A user is none.
#[derive(Clone, Copy, Debug)]
pub struct Operator;

impl FromRequest for Operator {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        identify(request)
            .map(|caller| match caller? {
                Caller::Anyone | Caller::Backend => Ok(Self),
                Caller::User(_) => Err(ApiError::new(Code::Forbidden, "this needs an API key")),
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

    /// A user's own token; an API key is nobody's voice.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = app(request).map(|app| app.authenticator.clone()).and_then(|keys| {
            let token = token(request).ok_or_else(ApiError::missing_token)?;
            Ok((keys, token))
        });
        async move {
            let (keys, token) = found?;
            keys.verify(&token).await
        }
        .boxed_local()
    }
}

fn identify(request: &HttpRequest) -> LocalBoxFuture<'static, Result<Caller, ApiError>> {
    let keys = match app(request) {
        Ok(app) => app.authenticator.clone(),
        Err(error) => return ready(Err(error)).boxed_local(),
    };
    if let Some(key) = request.headers().get("x-api-key") {
        let known = key.to_str().is_ok_and(|key| keys.is_api_key(key));
        return ready(if known { Ok(Caller::Backend) } else { Err(unknown_key()) }).boxed_local();
    }
    let token = token(request);
    async move {
        match token {
            Some(token) if keys.is_api_key(&token) => Ok(Caller::Backend),
            Some(token) => keys.verify(&token).await.map(Caller::User),
            None if keys.is_open() => Ok(Caller::Anyone),
            None => Err(ApiError::missing_token()),
        }
    }
    .boxed_local()
}

fn app(request: &HttpRequest) -> Result<&web::Data<AppState>, ApiError> {
    request.app_data::<web::Data<AppState>>().ok_or_else(|| ApiError::internal("no app in the application"))
}

/// The token of a request: the header before the query.
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

fn unknown_key() -> ApiError {
    ApiError::new(Code::InvalidToken, "the API key is not known here")
}
