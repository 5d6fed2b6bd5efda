//! Why somebody is refused.

use std::time::Duration;

use crate::error::Code;

/// Why a token, a key or an attempt to connect is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has no token.
    #[error("send Authorization: Bearer …, or ?token=…")]
    MissingToken,
    /// The token or key is not accepted; the text says what is wrong with it.
    #[error("{0}")]
    InvalidToken(&'static str),
    /// The token has expired.
    #[error("the token has expired")]
    ExpiredToken,
    /// The token cannot be verified at the moment.
    #[error("the identity provider's keys cannot be fetched; try again")]
    Unavailable,
    /// The token is valid, but not for what was asked.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Too many connections by one user or from one address.
    #[error("too many connections of this {by}; wait")]
    TooManyConnects {
        /// `user` or `address`.
        by: &'static str,
        /// When the next one is accepted.
        retry_after: Duration,
    },
    /// Too many wrong keys and tokens from one address.
    #[error("too many wrong keys and tokens from this address; wait")]
    TooManyFailures {
        /// When the next one is looked at.
        retry_after: Duration,
    },
}

impl AuthError {
    /// A user's token is needed, and this is an API key.
    pub(crate) const NO_USER: Self = Self::Forbidden("an API key identifies no user: send a token");

    /// The code that clients see.
    pub const fn code(&self) -> Code {
        match self {
            Self::MissingToken => Code::MissingToken,
            Self::InvalidToken(_) => Code::InvalidToken,
            Self::ExpiredToken => Code::ExpiredToken,
            Self::Unavailable => Code::AuthUnavailable,
            Self::Forbidden(_) => Code::Forbidden,
            Self::TooManyConnects { .. } | Self::TooManyFailures { .. } => Code::RateLimited,
        }
    }

    /// When to retry, if that is known.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyConnects { retry_after, .. } | Self::TooManyFailures { retry_after } => {
                Some(*retry_after)
            }
            Self::MissingToken
            | Self::InvalidToken(_)
            | Self::ExpiredToken
            | Self::Unavailable
            | Self::Forbidden(_) => None,
        }
    }
}

/// Why somebody gets no token for a LiveKit room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LivekitTokenError {
    /// The gateway has no LiveKit.
    #[error("this gateway has no LiveKit; the control channel still works")]
    NoLivekit,
    /// They were removed from the room.
    #[error("removed from the room: there is no token for it for a while")]
    Denied {
        /// Until when, in seconds since the Unix epoch.
        until: u64,
    },
}

impl LivekitTokenError {
    /// The code that clients see.
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::NoLivekit => Code::MediaUnavailable,
            Self::Denied { .. } => Code::Forbidden,
        }
    }

    /// A denial, by the deny list's milliseconds.
    pub(super) fn denied(until_ms: u64) -> Self {
        Self::Denied { until: until_ms.div_ceil(1000) }
    }
}
