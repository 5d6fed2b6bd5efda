//! Who may attach to a session: control tokens, users' own tokens, and the secret that resumes.
//!
//! A control token is ours: short, bound to one session, handed out with it over REST. A user's token
//! is their identity provider's ([`users`], [`jwks`]). Both are JWTs (RFC 7519); the algorithm is pinned,
//! so that none can be talked into accepting another. How often somebody may try: [`admission`].

pub mod admission;
pub mod jwks;
pub mod rate;
pub mod users;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    auth::users::Users,
    config::AuthConfig,
    deny::DenyList,
    error::{ApiError, Code},
    ids::{GuestName, Identity, RoomName, SessionId, UserId},
    livekit::token::{Token, TokenIssuer},
    protocol::edge_v1::to_client::LivekitInfo,
    secret::Secret,
};

/// Lifetime of a control token: long enough for a tunnel or a charging break, and renewed with the
/// publish token.
pub const CONTROL_TTL: Duration = Duration::from_secs(3600);

/// How far an issuer's clock may be from ours, in seconds.
const LEEWAY_S: u64 = 5;

/// The longest that a timer is set for; a token may say that it lives for ever.
const MAX_TIMER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What control tokens are for.
const CONTROL_SCOPE: &str = "control";

/// What a control token says.
#[derive(Debug, Serialize, Deserialize)]
struct ControlClaims {
    sub: String,
    /// The session it is for.
    sid: SessionId,
    /// Its room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room: Option<RoomName>,
    scope: String,
    exp: u64,
    iat: u64,
    jti: Uuid,
}

/// Who somebody proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Which user.
    pub user: UserId,
    /// The one session they may use; none where they may use any of the user's.
    pub session: Option<SessionId>,
    /// The room of that session: with it the token says all that makes a session, should the gateway have
    /// lost its record.
    pub room: Option<RoomName>,
    /// When the token ends, in seconds since the Unix epoch; never, where users' tokens may be without
    /// an end.
    pub expires_at: Option<u64>,
}

impl Principal {
    /// When the token is no longer accepted, by the clock that `now` comes from.
    pub fn ends_at(&self, now: Instant, unix_s: u64) -> Option<Instant> {
        let left = (self.expires_at?.saturating_add(LEEWAY_S)).saturating_sub(unix_s);
        Some(now + Duration::from_secs(left).min(MAX_TIMER))
    }
}

/// Signs and verifies everything that opens a session.
#[derive(Clone)]
pub struct Authenticator {
    control: (EncodingKey, DecodingKey),
    /// For the secrets that resume, kept apart from tokens.
    resume: EncodingKey,
    users: Option<Arc<Users>>,
    /// Hashes of the API keys: equally long, so that comparing them tells nothing.
    api_keys: Vec<[u8; 32]>,
    livekit: Option<RoomKeys>,
    /// Lifetime of a control token.
    control_ttl: Duration,
}

/// What opens LiveKit rooms, and for whom it does not.
#[derive(Clone)]
pub struct RoomKeys {
    /// Signs.
    pub issuer: TokenIssuer,
    /// Who gets none.
    pub deny: DenyList,
}

/// Why somebody gets no LiveKit token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
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

impl NoToken {
    /// The code that clients see.
    pub const fn code(self) -> Code {
        match self {
            Self::NoLivekit => Code::MediaUnavailable,
            Self::Denied { .. } => Code::Forbidden,
        }
    }

    /// A denial from the deny-list's own milliseconds.
    fn denied(until_ms: u64) -> Self {
        Self::Denied { until: until_ms.div_ceil(1000) }
    }
}

impl From<NoToken> for ApiError {
    fn from(why: NoToken) -> Self {
        Self::new(why.code(), why.to_string())
    }
}

impl Authenticator {
    /// The keys of this configuration; `control_secret` where it names none. `users` reads users' own
    /// tokens, where there are any.
    pub fn new(
        auth: &AuthConfig,
        users: Option<Users>,
        control_secret: &[u8],
        livekit: Option<RoomKeys>,
    ) -> Self {
        let secret = auth.control_secret.as_ref().map_or(control_secret, |secret| secret.expose().as_bytes());
        Self {
            control: (EncodingKey::from_secret(secret), DecodingKey::from_secret(secret)),
            resume: EncodingKey::from_secret(&[b"resume ", secret].concat()),
            users: users.map(Arc::new),
            api_keys: auth.api_keys.iter().map(|key| Sha256::digest(key.expose()).into()).collect(),
            livekit,
            control_ttl: auth.control_ttl.unwrap_or(CONTROL_TTL),
        }
    }

    /// Lifetime of a control token.
    pub fn control_ttl(&self) -> Duration {
        self.control_ttl
    }

    /// Whether anybody may use the REST API: no API keys are configured.
    pub fn is_open(&self) -> bool {
        self.api_keys.is_empty()
    }

    /// Whether this is one of the API keys.
    pub fn is_api_key(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        self.api_keys.iter().fold(false, |found, known| found | bool::from(known.ct_eq(&hash)))
    }

    /// What a user's client needs to join their room, with a fresh token.
    pub fn livekit_info(&self, user: &UserId, room: &RoomName) -> Result<LivekitInfo, NoToken> {
        let RoomKeys { issuer, deny } = self.livekit.as_ref().ok_or(NoToken::NoLivekit)?;
        match deny.until(room, &Identity::from(user)) {
            Some(until) => Err(NoToken::denied(until)),
            None => Ok(issuer.client_info(user, room)),
        }
    }

    /// What a guest needs to join a room: their token, and LiveKit's address. `suffix` tells guests of one
    /// name apart.
    pub fn guest(
        &self,
        name: &GuestName,
        suffix: &str,
        room: &RoomName,
    ) -> Result<(Identity, Token, String), NoToken> {
        let RoomKeys { issuer, deny } = self.livekit.as_ref().ok_or(NoToken::NoLivekit)?;
        if let Some(until) = deny.guest_until(room, name) {
            return Err(NoToken::denied(until));
        }
        let identity = Identity::guest(name, suffix);
        let token = issuer.guest(&identity, name, room);
        Ok((identity, token, issuer.url().to_owned()))
    }

    /// A control token for one session, issued at `now` in seconds since the Unix epoch.
    pub fn control_token(&self, user: &UserId, session: SessionId, room: &RoomName, now: u64) -> Secret {
        let claims = ControlClaims {
            sub: user.to_string(),
            sid: session,
            room: Some(room.clone()),
            scope: CONTROL_SCOPE.into(),
            exp: now + self.control_ttl.as_secs(),
            iat: now,
            jti: Uuid::new_v4(),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.control.0)
            .expect("claims of strings and numbers always sign with HMAC");
        Secret::new(token)
    }

    /// Who holds this token: a control token, or a user's.
    pub async fn verify(&self, token: &str) -> Result<Principal, ApiError> {
        let control = match self.verify_control(token) {
            Err(error) if error.code == Code::InvalidToken => error,
            verified => return verified,
        };
        match &self.users {
            Some(users) => users.verify(token).await,
            None => Err(control),
        }
    }

    fn verify_control(&self, token: &str) -> Result<Principal, ApiError> {
        let mut validation = validation(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "sub"]);
        let claims = jsonwebtoken::decode::<ControlClaims>(token, &self.control.1, &validation)
            .map_err(|error| refusal(&error))?
            .claims;
        if claims.scope != CONTROL_SCOPE {
            return Err(ApiError::new(Code::InvalidToken, "the token is not for the control channel"));
        }
        let user = UserId::parse(&claims.sub).map_err(|error| ApiError::invalid("sub", error))?;
        Ok(Principal { user, session: Some(claims.sid), room: claims.room, expires_at: Some(claims.exp) })
    }

    /// The secret that resumes a session.
    pub fn resume_token(&self, session: SessionId) -> String {
        jsonwebtoken::crypto::sign(session.as_bytes(), &self.resume, Algorithm::HS256)
            .expect("any bytes sign with HMAC")
    }

    /// Whether `token` resumes `session`.
    pub fn may_resume(&self, session: SessionId, token: &str) -> bool {
        self.resume_token(session).as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// What every token is held against; who adds to it says what more.
fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_S;
    validation.validate_aud = false;
    validation.validate_nbf = true;
    validation
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "one kind is told apart; a client need not know which check failed"
)]
fn refusal(error: &jsonwebtoken::errors::Error) -> ApiError {
    match error.kind() {
        ErrorKind::ExpiredSignature => ApiError::new(Code::ExpiredToken, "the token has expired"),
        _ => ApiError::new(Code::InvalidToken, "the token is not valid here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn keys() -> Authenticator {
        let auth = AuthConfig {
            api_keys: vec![Secret::new("key-a"), Secret::new("key-b")],
            ..AuthConfig::default()
        };
        Authenticator::new(&auth, None, b"control", None)
    }

    fn john() -> UserId {
        UserId::parse("john").unwrap()
    }

    const SESSION: SessionId = SessionId::from_u128(7);

    #[tokio::test]
    async fn a_control_token_opens_its_session_for_its_time() {
        let (keys, now) = (keys(), clock::unix_s());
        let room = RoomName::for_user(&john(), "abc123");
        let grant = keys.verify(keys.control_token(&john(), SESSION, &room, now).expose()).await.unwrap();
        assert_eq!((&grant.user, grant.session, grant.room.as_ref()), (&john(), Some(SESSION), Some(&room)));
        assert!(grant.expires_at.unwrap() >= now + CONTROL_TTL.as_secs());
    }

    #[tokio::test]
    async fn where_users_have_no_tokens_theirs_are_refused() {
        assert_eq!(keys().verify("nonsense").await.unwrap_err().code, Code::InvalidToken);
    }

    #[test]
    fn a_token_that_lives_for_ever_sets_no_timer_for_ever() {
        let now = clock::now();
        let mut grant = Principal { user: john(), session: None, room: None, expires_at: Some(1_000) };
        assert_eq!(grant.ends_at(now, 990), Some(now + Duration::from_secs(10 + LEEWAY_S)));
        assert_eq!(grant.ends_at(now, 2_000), Some(now));
        grant.expires_at = Some(u64::MAX);
        assert_eq!(grant.ends_at(now, 990), Some(now + MAX_TIMER));
        grant.expires_at = None;
        assert_eq!(grant.ends_at(now, 990), None);
    }

    #[test]
    fn a_resume_secret_is_for_one_session() {
        let keys = keys();
        let token = keys.resume_token(SESSION);
        assert!(keys.may_resume(SESSION, &token));
        assert!(!keys.may_resume(SessionId::from_u128(8), &token));
        assert!(!keys.may_resume(SESSION, ""));
    }

    #[test]
    fn an_api_key_is_known_or_not() {
        assert!(keys().is_api_key("key-b"));
        assert!(!keys().is_api_key("key-"));
        assert!(!keys().is_open());
    }
}
