//! Who may use which route. Each route of [`router`](crate::http::router) names its [`Right`]; docs/SECURITY.md has the
//! same table for operators, and a test walks every route with every kind of credential.
//!
//! A right says what kind of credential a route takes. Whose a session or a room is, the handler finds out
//! ([`Caller::may_use`], `rooms/access.rs`).

use actix_web::{
    Error, HttpMessage,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
};

use crate::{
    auth::{
        AuthError,
        keys::{ApiKey, Role},
    },
    http::{
        error::ApiError,
        middleware::auth::{self, Caller},
    },
};

/// What a route takes. A gateway that has no API keys needs no credentials, but for [`Phone`](Self::Phone).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Public: the page and its files.
    Page,
    /// Public: descriptions and clips, whose random names are their keys.
    Public,
    /// Public: for what watches the process.
    Probe,
    /// A webhook that LiveKit signed; the handler verifies it.
    Webhook,
    /// A control token or a user's JWT, in the request or in `connection_init`; the handler and the channel verify it.
    Channel,
    /// A control token or a user's JWT, for that user's newest session.
    Phone,
    /// A backend for the users it acts for, and a user for themselves.
    CreateSession,
    /// The session's user, by their JWT or its control token; a backend for the users it acts for.
    Session,
    /// The operator's STT service, by its token, or a backend for the users it acts for. The handler verifies it.
    Transcripts,
    /// Whoever may see the room: by a LiveKit token for it, as the session's user, as backend or observer. The handler
    /// verifies it, since the room is in the query or in the body.
    Room,
    /// As [`Room`](Self::Room), or by a stream token.
    RoomStream,
    /// An observer, who hears clients; who is a backend as well may send to them.
    Consume,
    /// An observer of the whole gateway.
    Observe,
    /// An admin.
    Administer,
}

impl Right {
    /// Whether web pages have no business here: such requests are neither held against `Host` nor `Origin`.
    pub(crate) fn is_for_machines(self) -> bool {
        matches!(self, Self::Probe | Self::Webhook)
    }

    /// Whether the handler looks at credentials itself, or none are needed.
    fn is_up_to_handler(self) -> bool {
        match self {
            Self::Page
            | Self::Public
            | Self::Probe
            | Self::Webhook
            | Self::Channel
            | Self::Transcripts
            | Self::Room
            | Self::RoomStream => true,
            Self::Phone
            | Self::CreateSession
            | Self::Session
            | Self::Consume
            | Self::Observe
            | Self::Administer => false,
        }
    }

    /// Whether a caller has this right, as far as their credential says.
    pub(crate) fn check(self, caller: &Caller) -> Result<(), AuthError> {
        match caller {
            Caller::Anyone if self == Self::Phone => Err(AuthError::MissingToken),
            Caller::Anyone => Ok(()),
            Caller::Key(key) => self.check_key(key),
            Caller::User(_) => match self {
                Self::Transcripts | Self::Consume | Self::Observe | Self::Administer => {
                    Err(AuthError::Forbidden("this needs an API key"))
                }
                Self::Page
                | Self::Public
                | Self::Probe
                | Self::Webhook
                | Self::Channel
                | Self::Phone
                | Self::CreateSession
                | Self::Session
                | Self::Room
                | Self::RoomStream => Ok(()),
            },
        }
    }

    fn check_key(self, key: &ApiKey) -> Result<(), AuthError> {
        let role = match self {
            Self::Page | Self::Public | Self::Probe | Self::Webhook => return Ok(()),
            Self::Channel | Self::Phone => {
                return Err(AuthError::NO_USER);
            }
            Self::CreateSession | Self::Session | Self::Transcripts => Role::Backend,
            Self::Room | Self::RoomStream if key.has(Role::Backend) => Role::Backend,
            Self::Room | Self::RoomStream | Self::Consume | Self::Observe => Role::Observer,
            Self::Administer => Role::Admin,
        };
        let is_for_all = matches!(self, Self::Observe | Self::Administer);
        match role {
            _ if is_for_all && key.user.is_some() => Err(AuthError::Forbidden("the API key is for one user")),
            role if key.has(role) => Ok(()),
            Role::Backend => Err(AuthError::Forbidden("this needs an API key with the role backend")),
            Role::Observer => Err(AuthError::Forbidden("this needs an API key with the role observer")),
            Role::Admin => Err(AuthError::Forbidden("this needs an API key with the role admin")),
        }
    }
}

/// Refuses requests without the right; the others go on with their [`Caller`].
pub(super) async fn enforce<B: MessageBody>(
    right: Right,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if !right.is_up_to_handler() {
        let caller = auth::authenticate(request.request()).await;
        let checked = caller.and_then(|caller| right.check(&caller).map(|()| caller).map_err(ApiError::from));
        match checked {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(refusal) => return Ok(request.error_response(refusal).map_into_right_body()),
        }
    }
    Ok(next.call(request).await?.map_into_left_body())
}
