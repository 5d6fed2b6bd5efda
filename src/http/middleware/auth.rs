//! Authenticates requests.
//!
//! A token is sent as `Authorization: Bearer …`, or as `?token=…` by clients that cannot set headers (a browser's
//! WebSocket and EventSource). Tokens are never logged.

use std::{
    future::{Ready, ready},
    net::IpAddr,
    sync::Arc,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header::AUTHORIZATION, web};

use crate::{
    auth::{
        AuthError, Authenticator, Principal,
        keys::{ApiKey, Role},
    },
    http::{AppState, address, error::ApiError},
    ids::{Identity, UserId},
    store::sessions::SessionRecord,
};

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Anyone: the gateway has no API keys, and is bound to loopback.
    Anyone,
    /// A backend or an operator, with an API key.
    Key(Arc<ApiKey>),
    /// A user, with a token.
    User(Principal),
}

impl Caller {
    pub(crate) fn may_act_for(&self, user: &UserId) -> Result<(), AuthError> {
        match self {
            Self::Anyone => Ok(()),
            Self::Key(key) => check_scope(key, user),
            Self::User(principal) if principal.user == *user && principal.session.is_none() => Ok(()),
            Self::User(_) => Err(AuthError::Forbidden("the token is not for this user's sessions")),
        }
    }

    pub(crate) fn may_use(&self, session: &SessionRecord) -> Result<(), AuthError> {
        match self {
            Self::Anyone => Ok(()),
            Self::Key(key) => check_scope(key, &session.user_id),
            Self::User(principal)
                if principal.user == session.user_id
                    && principal.session.is_none_or(|bound| bound == session.session_id) =>
            {
                Ok(())
            }
            Self::User(_) => Err(AuthError::Forbidden("the session is another user's")),
        }
    }

    /// The participant of a session's room that the caller is; none for a backend.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match self {
            Self::Anyone | Self::Key(_) => None,
            Self::User(principal) => Some(Identity::from(&principal.user)),
        }
    }

    /// The end of everything that the caller is issued for a session, in seconds since the Unix epoch.
    pub(crate) fn bound(&self, authenticator: &Authenticator, session: &SessionRecord) -> Option<u64> {
        let session_end = authenticator.session_end(session.created_ms);
        match self {
            Self::Anyone | Self::Key(_) => Some(session_end),
            Self::User(principal) => principal.bound(session_end),
        }
    }

    /// Whether the credential is still good, for connections that outlive their request. Tokens have timers of their
    /// own.
    pub(crate) fn is_current(&self, authenticator: &Authenticator) -> bool {
        match self {
            Self::Anyone => authenticator.is_open(),
            Self::Key(key) => authenticator.is_current(key),
            Self::User(_) => true,
        }
    }

    /// Whether the caller may send messages to clients.
    pub(crate) fn may_send(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::Key(key) => key.has(Role::Backend),
            Self::User(_) => false,
        }
    }
}

fn check_scope(key: &ApiKey, user: &UserId) -> Result<(), AuthError> {
    match &key.user {
        Some(only) if only != user => Err(AuthError::Forbidden("the API key is for another user")),
        Some(_) | None => Ok(()),
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    /// Only for routes whose [`Right`](crate::http::access::Right) is checked before the handler.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        ready(caller.ok_or_else(|| ApiError::internal("the route authenticates nobody")))
    }
}

impl FromRequest for Principal {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    /// For routes with [`Right::Phone`](crate::http::access::Right::Phone).
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match request.extensions().get::<Caller>() {
            Some(Caller::User(principal)) => Ok(principal.clone()),
            Some(Caller::Anyone | Caller::Key(_)) | None => Err(ApiError::missing_token()),
        })
    }
}

/// Finds out who sent a request. Wrong keys and tokens are counted by address.
pub(crate) async fn authenticate(request: &HttpRequest) -> Result<Caller, ApiError> {
    let app = request.app_data::<web::Data<AppState>>();
    let app = app.ok_or_else(|| ApiError::internal("the application has no state"))?;
    let caller = identify(&app.authenticator, request).await;
    Ok(caller.map_err(|error| app.auth_failures.told(from_address(app, request), error))?)
}

async fn identify(authenticator: &Authenticator, request: &HttpRequest) -> Result<Caller, AuthError> {
    if let Some(key) = request.headers().get("x-api-key") {
        let known = key.to_str().ok().and_then(|key| authenticator.api_key(key));
        return known.map(Caller::Key).ok_or(AuthError::InvalidToken("the API key is not known here"));
    }
    match token(request) {
        Some(token) => match authenticator.api_key(&token) {
            Some(key) => Ok(Caller::Key(key)),
            None => Ok(Caller::User(authenticator.verify(&token).await?)),
        },
        None if authenticator.is_open() => Ok(Caller::Anyone),
        None => Err(AuthError::MissingToken),
    }
}

/// Where a request comes from. Loopback counts, too: only those who fail are limited by it.
pub(crate) fn from_address(app: &AppState, request: &HttpRequest) -> Option<IpAddr> {
    let peer = || request.peer_addr().map(|peer| peer.ip());
    address::of(request, app.address_header.as_ref()).or_else(peer)
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
