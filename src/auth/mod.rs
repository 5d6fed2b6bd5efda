//! Authentication: control tokens, users' own tokens, API keys, and who may have a LiveKit token.
//!
//! | file | |
//! |---|---|
//! | [`gateway_tokens`] | tokens that the gateway signs and verifies itself |
//! | [`users`], [`jwks`] | users' own JWTs, signed by their identity provider |
//! | [`admission`], [`rate`] | how often somebody may connect |

pub mod admission;
mod error;
mod gateway_tokens;
pub mod jwks;
pub(crate) mod rate;
pub(crate) mod room_token;
pub mod users;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use self::error::{AuthError, LivekitTokenError};
pub(crate) use self::gateway_tokens::{STREAM_TTL, StreamGrant};
use crate::{
    auth::{gateway_tokens::GatewayTokens, users::Users},
    config::AuthConfig,
    deny::DenyList,
    ids::{GuestName, Identity, RoomName, SessionId, UserId},
    livekit::token::{Token, TokenIssuer},
    protocol::edge_v1::to_client::LivekitInfo,
    secret::Secret,
};

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
}

impl Principal {
    /// When the token is no longer accepted, by the clock that `now` comes from.
    pub(crate) fn ends_at(&self, now: Instant, unix_s: u64) -> Option<Instant> {
        let left = (self.expires_at?.saturating_add(LEEWAY_S)).saturating_sub(unix_s);
        Some(now + Duration::from_secs(left).min(MAX_TIMER))
    }
}

/// Signs and verifies tokens, and knows the API keys.
#[derive(Clone)]
pub struct Authenticator {
    tokens: GatewayTokens,
    users: Option<Arc<Users>>,
    /// Hashes of the API keys: of equal length, so that comparing takes the same time for all.
    api_keys: Vec<[u8; 32]>,
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
            api_keys: auth.api_keys.iter().map(|key| Sha256::digest(key.expose()).into()).collect(),
            livekit,
        }
    }

    /// Lifetime of a control token.
    pub(crate) fn control_ttl(&self) -> Duration {
        self.tokens.control_ttl
    }

    /// Whether the REST API needs no authentication: no API keys are configured.
    pub(crate) fn is_open(&self) -> bool {
        self.api_keys.is_empty()
    }

    pub(crate) fn is_api_key(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        self.api_keys.iter().fold(false, |found, known| found | bool::from(known.ct_eq(&hash)))
    }

    /// Verifies a control token or a user's own token.
    pub(crate) async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        match (self.tokens.verify_control(token), &self.users) {
            (Err(AuthError::InvalidToken(_)), Some(users)) => users.verify(token).await,
            (verified, _) => verified,
        }
    }

    /// What a user's client needs to join the room, with a fresh token.
    pub(crate) fn livekit_info(
        &self,
        user: &UserId,
        room: &RoomName,
    ) -> Result<LivekitInfo, LivekitTokenError> {
        let RoomKeys { issuer, deny } = self.livekit.as_ref().ok_or(LivekitTokenError::NoLivekit)?;
        match deny.until(room, &Identity::from(user)) {
            Some(until) => Err(LivekitTokenError::denied(until)),
            None => Ok(issuer.client_info(user, room)),
        }
    }

    /// What a guest needs to join a room: their token, and LiveKit's address. `suffix` keeps guests of the same
    /// name apart.
    pub(crate) fn guest(
        &self,
        name: &GuestName,
        suffix: &str,
        room: &RoomName,
    ) -> Result<(Identity, Token, String), LivekitTokenError> {
        let RoomKeys { issuer, deny } = self.livekit.as_ref().ok_or(LivekitTokenError::NoLivekit)?;
        if let Some(until) = deny.guest_until(room, name) {
            return Err(LivekitTokenError::denied(until));
        }
        let identity = Identity::guest(name, suffix);
        let token = issuer.guest(&identity, name, room);
        Ok((identity, token, issuer.url().to_owned()))
    }

    /// A control token for one session, valid for [`control_ttl`](Self::control_ttl) from `now`, in seconds since the Unix epoch.
    pub(crate) fn control_token(
        &self,
        user: &UserId,
        session: SessionId,
        room: &RoomName,
        now: u64,
    ) -> Secret {
        self.tokens.control(user, session, room, now)
    }

    /// A stream token, valid for [`STREAM_TTL`] from `now`, in seconds since the Unix epoch.
    pub(crate) fn stream_token(&self, grant: &StreamGrant, now: u64) -> Result<Secret, AuthError> {
        self.check_holder(grant)?;
        Ok(self.tokens.stream(grant, now))
    }

    /// Verifies a stream token; refused if its holder was removed from the room since.
    pub(crate) fn verify_stream(&self, token: &str) -> Result<StreamGrant, AuthError> {
        let grant = self.tokens.verify_stream(token)?;
        self.check_holder(&grant)?;
        Ok(grant)
    }

    fn check_holder(&self, grant: &StreamGrant) -> Result<(), AuthError> {
        let (Some(livekit), Some(holder)) = (&self.livekit, &grant.holder) else { return Ok(()) };
        match livekit.deny.until(&grant.room, holder) {
            Some(_) => Err(AuthError::Forbidden("removed from the room")),
            None => Ok(()),
        }
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
        let auth = AuthConfig {
            api_keys: vec![Secret::new("key-a"), Secret::new("key-b")],
            ..AuthConfig::default()
        };
        Authenticator::new(&auth, None, b"control", None)
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
        let mut principal = Principal { user, session: None, room: None, expires_at: Some(1_000) };
        assert_eq!(principal.ends_at(now, 990), Some(now + Duration::from_secs(10 + LEEWAY_S)));
        assert_eq!(principal.ends_at(now, 2_000), Some(now));
        principal.expires_at = Some(u64::MAX);
        assert_eq!(principal.ends_at(now, 990), Some(now + MAX_TIMER));
        principal.expires_at = None;
        assert_eq!(principal.ends_at(now, 990), None);
    }

    #[test]
    fn an_api_key_is_known_or_not() {
        assert!(authenticator().is_api_key("key-b"));
        assert!(!authenticator().is_api_key("key-"));
        assert!(!authenticator().is_open());
    }
}
