//! Authentication: control tokens, users' own tokens, API keys, and who may have a LiveKit token.
//!
//! | file | |
//! |---|---|
//! | [`gateway_tokens`] | tokens that the gateway signs and verifies itself |
//! | [`users`], [`jwks`] | users' own JWTs, signed by their identity provider |
//! | [`keys`] | API keys |
//! | [`admission`], [`failures`], [`rate`] | how often somebody may connect, or be wrong |

pub mod admission;
mod error;
pub(crate) mod failures;
mod gateway_tokens;
pub mod jwks;
pub mod keys;
pub(crate) mod rate;
pub(crate) mod room_token;
pub mod users;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};

pub use self::error::{AuthError, LivekitTokenError};
pub(crate) use self::gateway_tokens::StreamGrant;
use crate::{
    auth::{
        gateway_tokens::GatewayTokens,
        keys::{ApiKey, ApiKeys},
        users::Users,
    },
    config::AuthConfig,
    deny::DenyList,
    ids::{GuestName, Identity, RoomName, SessionId, UserId},
    livekit::token::{Token, TokenIssuer},
    protocol::edge_v1::to_client::LivekitInfo,
    secret::Secret,
};

/// Default of `SESSION_MAX_AGE_MS`.
const SESSION_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// How far an issuer's clock may be from ours, in seconds.
const LEEWAY_S: u64 = 5;

/// The longest time that a timer is set for; a token may be valid for centuries.
const MAX_TIMER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Who the holder of a verified token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub user: UserId,
    /// The one session they may use; none if they may use any of the user's.
    pub session: Option<SessionId>,
    /// The room of that session. With it a session can be restored from its token if its record was lost.
    pub room: Option<RoomName>,
    /// When the token expires, in seconds since the Unix epoch; none if users' tokens may lack `exp`.
    pub expires_at: Option<u64>,
    /// The end of what it was issued on, in seconds since the Unix epoch: nothing that is issued on this token
    /// outlives it.
    pub until: Option<u64>,
}

impl Principal {
    /// When the token is no longer accepted, by the clock that `now` comes from.
    pub(crate) fn ends_at(&self, now: Instant, unix_s: u64) -> Option<Instant> {
        let left = (self.expires_at?.saturating_add(LEEWAY_S)).saturating_sub(unix_s);
        Some(now + Duration::from_secs(left).min(MAX_TIMER))
    }

    /// The end of everything that is issued on this token for a session whose tokens may be renewed until
    /// `session_end`. A control token of an earlier version does not say what it was issued on.
    pub(crate) fn bound(&self, session_end: u64) -> Option<u64> {
        match self.session {
            Some(_) => Some(self.until.unwrap_or(session_end)),
            None => self.until,
        }
    }
}

/// Signs and verifies tokens, and knows the API keys.
#[derive(Clone)]
pub struct Authenticator {
    tokens: GatewayTokens,
    users: Option<Arc<Users>>,
    api_keys: ApiKeys,
    session_max_age: Duration,
    livekit: Option<RoomKeys>,
}

/// Signs LiveKit tokens, but not for those who were removed.
#[derive(Clone)]
pub struct RoomKeys {
    pub issuer: TokenIssuer,
    pub deny: DenyList,
}

impl Authenticator {
    /// `control_secret` is used if the configuration has none. `users` verifies users' own tokens, if there are
    /// any.
    pub fn new(
        auth: &AuthConfig,
        users: Option<Users>,
        control_secret: &[u8],
        livekit: Option<RoomKeys>,
    ) -> Self {
        let secret = auth.control_secret.as_ref().map_or(control_secret, |secret| secret.expose().as_bytes());
        Self {
            tokens: GatewayTokens::new(secret, auth.control_ttl.unwrap_or(gateway_tokens::CONTROL_TTL)),
            users: users.map(Arc::new),
            api_keys: ApiKeys::new(auth),
            session_max_age: auth.session_max_age.unwrap_or(SESSION_MAX_AGE),
            livekit,
        }
    }

    /// Whether the REST API needs no authentication: no API keys are configured.
    pub(crate) fn is_open(&self) -> bool {
        self.api_keys.is_open()
    }

    pub(crate) fn api_key(&self, key: &str) -> Option<Arc<ApiKey>> {
        self.api_keys.find(key)
    }

    /// Whether a key has not been revoked since it was found.
    pub(crate) fn is_current(&self, key: &ApiKey) -> bool {
        self.api_keys.is_current(key)
    }

    /// Until when the tokens of a session may be renewed without the user's own token, in seconds since the Unix
    /// epoch.
    pub(crate) fn session_end(&self, created_ms: u64) -> u64 {
        created_ms.saturating_add(self.session_max_age.as_millis() as u64) / 1000
    }

    /// Verifies a control token or a user's own token.
    pub(crate) async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        match (self.tokens.verify_control(token), &self.users) {
            (Err(AuthError::InvalidToken(_)), Some(users)) => users.verify(token).await,
            (verified, _) => verified,
        }
    }

    /// What a user's client needs to join the room, with a fresh token that ends at `bound` at the latest.
    pub(crate) fn livekit_info(
        &self,
        user: &UserId,
        room: &RoomName,
        bound: Option<u64>,
    ) -> Result<LivekitInfo, LivekitTokenError> {
        let RoomKeys { issuer, deny } = self.livekit.as_ref().ok_or(LivekitTokenError::NoLivekit)?;
        match deny.until(room, &Identity::from(user)) {
            Some(until) => Err(LivekitTokenError::denied(until)),
            None => Ok(issuer.client_info(user, room, bound)),
        }
    }

    /// What a guest needs to join a room: their token, which ends at `bound` at the latest, and LiveKit's address.
    /// `suffix` keeps guests of the same name apart. A guest is removed together with the participant who invites
    /// them.
    pub(crate) fn guest(
        &self,
        name: &GuestName,
        suffix: &str,
        room: &RoomName,
        inviter: Option<&Identity>,
        bound: Option<u64>,
    ) -> Result<(Identity, Token, String), LivekitTokenError> {
        let RoomKeys { issuer, deny } = self.livekit.as_ref().ok_or(LivekitTokenError::NoLivekit)?;
        if let Some(until) = deny.guest_until(room, name) {
            return Err(LivekitTokenError::denied(until));
        }
        let identity = match inviter {
            Some(inviter) => Identity::guest_of(inviter, room, name, suffix),
            None => Identity::guest(name, suffix),
        };
        let token = issuer.guest(&identity, name, room, bound);
        Ok((identity, token, issuer.url().to_owned()))
    }

    /// A control token for one session, and its `exp`: an hour from `now`, or `bound` if that is earlier. No renewal
    /// outlives `bound`. All in seconds since the Unix epoch.
    pub(crate) fn control_token(
        &self,
        user: &UserId,
        session: SessionId,
        room: &RoomName,
        now: u64,
        bound: Option<u64>,
    ) -> (Secret, u64) {
        self.tokens.control(user, session, room, now, bound)
    }

    /// A stream token, and its `exp`: [`gateway_tokens::STREAM_TTL`] from `now`, or `bound` if that is earlier.
    pub(crate) fn stream_token(
        &self,
        grant: &StreamGrant,
        now: u64,
        bound: Option<u64>,
    ) -> Result<(Secret, u64), AuthError> {
        self.check_holder(grant)?;
        Ok(self.tokens.stream(grant, now, bound))
    }

    /// Verifies a stream token; refused if its holder was removed from the room since.
    pub(crate) fn verify_stream(&self, token: &str) -> Result<StreamGrant, AuthError> {
        let grant = self.tokens.verify_stream(token)?;
        self.check_holder(&grant)?;
        Ok(grant)
    }

    fn check_holder(&self, grant: &StreamGrant) -> Result<(), AuthError> {
        grant.holder.as_ref().map_or(Ok(()), |holder| self.check_present(&grant.room, holder))
    }

    /// Refuses somebody who was removed from a room.
    pub(crate) fn check_present(&self, room: &RoomName, identity: &Identity) -> Result<(), AuthError> {
        if self.is_removed(room, identity) {
            return Err(AuthError::Forbidden("removed from the room"));
        }
        Ok(())
    }

    pub(crate) fn is_removed(&self, room: &RoomName, identity: &Identity) -> bool {
        self.livekit.as_ref().is_some_and(|livekit| livekit.deny.until(room, identity).is_some())
    }

    /// The token that resumes a session.
    pub(crate) fn resume_token(&self, session: SessionId) -> String {
        self.tokens.resume(session)
    }

    pub(crate) fn may_resume(&self, session: SessionId, token: &str) -> bool {
        self.tokens.may_resume(session, token)
    }
}

/// What is required of every token; callers add to it.
fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_S;
    validation.validate_aud = false;
    validation.validate_nbf = true;
    validation
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "a client learns that a token has expired, but not which other check failed"
)]
fn jwt_error(error: &jsonwebtoken::errors::Error) -> AuthError {
    match error.kind() {
        ErrorKind::ExpiredSignature => AuthError::ExpiredToken,
        _ => AuthError::InvalidToken("the token is not valid here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn authenticator() -> Authenticator {
        Authenticator::new(&AuthConfig::default(), None, b"control", None)
    }

    #[tokio::test]
    async fn where_users_have_no_tokens_theirs_are_refused() {
        let refused = authenticator().verify("nonsense").await.unwrap_err();
        assert!(matches!(refused, AuthError::InvalidToken(_)), "{refused}");
    }

    #[test]
    fn a_token_that_is_valid_for_ever_sets_no_timer_for_ever() {
        let now = clock::now();
        let user = UserId::parse("john").unwrap();
        let mut principal =
            Principal { user, session: None, room: None, expires_at: Some(1_000), until: None };
        assert_eq!(principal.ends_at(now, 990), Some(now + Duration::from_secs(10 + LEEWAY_S)));
        assert_eq!(principal.ends_at(now, 2_000), Some(now));
        principal.expires_at = Some(u64::MAX);
        assert_eq!(principal.ends_at(now, 990), Some(now + MAX_TIMER));
        principal.expires_at = None;
        assert_eq!(principal.ends_at(now, 990), None);
    }

    #[test]
    fn what_is_issued_on_a_token_ends_with_what_that_was_issued_on() {
        let user = UserId::parse("john").unwrap();
        let own = Principal { user, session: None, room: None, expires_at: Some(50), until: Some(50) };
        let control = |until| Principal { session: Some(SessionId::from_u128(7)), until, ..own.clone() };

        assert_eq!(own.bound(100), Some(50));
        assert_eq!(Principal { until: None, ..own.clone() }.bound(100), None, "users' tokens may be endless");
        assert_eq!(control(Some(70)).bound(100), Some(70));
        assert_eq!(control(None).bound(100), Some(100), "issued by an earlier version");
    }
}
