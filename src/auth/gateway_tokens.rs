//! The tokens that the gateway signs for its own use.
//!
//! | token | for | lifetime |
//! |---|---|---|
//! | control token | the control channel of one session, and its REST routes | 1 h, and no longer than what it was issued on |
//! | stream token | the event stream of one room | 12 h, likewise |
//! | resume token | resuming one session | that of the session |
//!
//! Control and stream tokens are JWTs (RFC 7519) with a pinned algorithm. Each kind has a key of its own, derived
//! from one secret, so that none is accepted in place of another.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    auth::{AuthError, Principal, jwt_error, validation},
    ids::{Identity, RoomName, SessionId, UserId},
    secret::Secret,
};

/// Default lifetime of a control token. An open channel renews it.
pub(super) const CONTROL_TTL: Duration = Duration::from_secs(3600);

/// Lifetime of a stream token: an EventSource repeats it at every reconnect, and cannot renew it.
pub(super) const STREAM_TTL: Duration = Duration::from_secs(12 * 3600);

const CONTROL_SCOPE: &str = "control";
const STREAM_SCOPE: &str = "stream";

#[derive(Debug, Serialize, Deserialize)]
struct ControlClaims {
    sub: String,
    /// The session it is for.
    sid: SessionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    room: Option<RoomName>,
    scope: String,
    exp: u64,
    /// The end of what it was issued on, which no renewal outlives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    iat: u64,
    jti: Uuid,
}

#[derive(Debug, Serialize, Deserialize)]
struct StreamClaims {
    /// Absent for a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    room: RoomName,
    scope: String,
    exp: u64,
    iat: u64,
    jti: Uuid,
}

/// What a stream token permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamGrant {
    /// The room whose participants its holder may see.
    pub room: RoomName,
    /// Who the holder is in that room; none for a backend.
    pub holder: Option<Identity>,
}

/// Signs and verifies them.
#[derive(Clone)]
pub(super) struct GatewayTokens {
    control: KeyPair,
    stream: KeyPair,
    resume: EncodingKey,
    control_ttl: Duration,
}

impl GatewayTokens {
    pub(super) fn new(secret: &[u8], control_ttl: Duration) -> Self {
        Self {
            control: KeyPair::new(secret),
            stream: KeyPair::new(&[b"stream ", secret].concat()),
            resume: EncodingKey::from_secret(&[b"resume ", secret].concat()),
            control_ttl,
        }
    }

    /// Signs a control token at `now`; gives it and its `exp`, which is `bound` at the latest. All in seconds since
    /// the Unix epoch.
    pub(super) fn control(
        &self,
        user: &UserId,
        session: SessionId,
        room: &RoomName,
        now: u64,
        bound: Option<u64>,
    ) -> (Secret, u64) {
        let exp = earlier(now + self.control_ttl.as_secs(), bound);
        let token = self.control.sign(&ControlClaims {
            sub: user.to_string(),
            sid: session,
            room: Some(room.clone()),
            scope: CONTROL_SCOPE.into(),
            exp,
            until: bound,
            iat: now,
            jti: Uuid::new_v4(),
        });
        (Secret::new(token), exp)
    }

    pub(super) fn verify_control(&self, token: &str) -> Result<Principal, AuthError> {
        let claims: ControlClaims = self.control.verify(token, &["exp", "sub"])?;
        if claims.scope != CONTROL_SCOPE {
            return Err(AuthError::InvalidToken("the token is not for the control channel"));
        }
        let user =
            UserId::parse(&claims.sub).map_err(|_| AuthError::InvalidToken("the token names no user"))?;
        Ok(Principal {
            user,
            session: Some(claims.sid),
            room: claims.room,
            expires_at: Some(claims.exp),
            until: claims.until,
        })
    }

    /// Signs a stream token at `now`; gives it and its `exp`, which is `bound` at the latest.
    pub(super) fn stream(&self, grant: &StreamGrant, now: u64, bound: Option<u64>) -> (Secret, u64) {
        let exp = earlier(now + STREAM_TTL.as_secs(), bound);
        let token = self.stream.sign(&StreamClaims {
            sub: grant.holder.as_ref().map(ToString::to_string),
            room: grant.room.clone(),
            scope: STREAM_SCOPE.into(),
            exp,
            iat: now,
            jti: Uuid::new_v4(),
        });
        (Secret::new(token), exp)
    }

    pub(super) fn verify_stream(&self, token: &str) -> Result<StreamGrant, AuthError> {
        let claims: StreamClaims = self.stream.verify(token, &["exp"])?;
        if claims.scope != STREAM_SCOPE {
            return Err(AuthError::InvalidToken("the token is not for an event stream"));
        }
        let holder = claims.sub.as_deref().map(Identity::parse).transpose();
        let holder = holder.map_err(|_| AuthError::InvalidToken("the token names no participant"))?;
        Ok(StreamGrant { room: claims.room, holder })
    }

    pub(super) fn resume(&self, session: SessionId) -> String {
        jsonwebtoken::crypto::sign(session.as_bytes(), &self.resume, Algorithm::HS256)
            .expect("any bytes can be signed with HMAC")
    }

    pub(super) fn may_resume(&self, session: SessionId, token: &str) -> bool {
        self.resume(session).as_bytes().ct_eq(token.as_bytes()).into()
    }
}

fn earlier(exp: u64, bound: Option<u64>) -> u64 {
    bound.map_or(exp, |bound| exp.min(bound))
}

#[derive(Clone)]
struct KeyPair {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl KeyPair {
    fn new(secret: &[u8]) -> Self {
        Self { encoding: EncodingKey::from_secret(secret), decoding: DecodingKey::from_secret(secret) }
    }

    fn sign(&self, claims: &impl Serialize) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .expect("claims of strings and numbers can be signed with HMAC")
    }

    fn verify<C: DeserializeOwned>(&self, token: &str, required: &[&str]) -> Result<C, AuthError> {
        let mut validation = validation(Algorithm::HS256);
        validation.set_required_spec_claims(required);
        let decoded = jsonwebtoken::decode::<C>(token, &self.decoding, &validation);
        decoded.map(|token| token.claims).map_err(|error| jwt_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SESSION: SessionId = SessionId::from_u128(7);

    fn tokens() -> GatewayTokens {
        GatewayTokens::new(b"secret", CONTROL_TTL)
    }

    fn room() -> RoomName {
        RoomName::parse("room-a").unwrap()
    }

    fn control(now: u64) -> Secret {
        tokens().control(&UserId::parse("john").unwrap(), SESSION, &room(), now, None).0
    }

    fn stream(holder: Option<&str>, now: u64) -> (StreamGrant, Secret) {
        let holder = holder.map(|holder| Identity::parse(holder).unwrap());
        let grant = StreamGrant { room: room(), holder };
        let (token, _) = tokens().stream(&grant, now, None);
        (grant, token)
    }

    #[test]
    fn a_control_token_says_all_that_makes_a_session() {
        let now = clock::unix_s();
        let principal = tokens().verify_control(control(now).expose()).unwrap();
        assert_eq!(
            (principal.user.as_str(), principal.session, principal.room, principal.expires_at),
            ("john", Some(SESSION), Some(room()), Some(now + CONTROL_TTL.as_secs()))
        );
    }

    #[test]
    fn no_token_outlives_what_it_is_issued_on() {
        let (now, user) = (clock::unix_s(), UserId::parse("john").unwrap());

        let (token, exp) = tokens().control(&user, SESSION, &room(), now, Some(now + 2));
        let (_, stream_exp) = tokens().stream(&stream(None, now).0, now, Some(now + 2));

        assert_eq!((exp, stream_exp), (now + 2, now + 2));
        let principal = tokens().verify_control(token.expose()).unwrap();
        assert_eq!((principal.expires_at, principal.until), (Some(now + 2), Some(now + 2)));
    }

    #[test]
    fn a_stream_token_is_for_one_room_and_its_holder() {
        for holder in [Some("john"), None] {
            let (grant, token) = stream(holder, clock::unix_s());
            assert_eq!(tokens().verify_stream(token.expose()), Ok(grant));
        }
    }

    #[test]
    fn no_token_is_accepted_as_another_kind_or_after_its_end() {
        let (now, tokens) = (clock::unix_s(), tokens());
        let invalid = |error: AuthError| matches!(error, AuthError::InvalidToken(_));
        assert!(invalid(tokens.verify_control(stream(Some("john"), now).1.expose()).unwrap_err()));
        assert!(invalid(tokens.verify_stream(control(now).expose()).unwrap_err()));
        let (_, ended) = stream(Some("john"), now - STREAM_TTL.as_secs() - 60);
        assert_eq!(tokens.verify_stream(ended.expose()), Err(AuthError::ExpiredToken));
        let ended = control(now - CONTROL_TTL.as_secs() - 60);
        assert_eq!(tokens.verify_control(ended.expose()), Err(AuthError::ExpiredToken));
    }

    #[test]
    fn a_resume_token_is_for_one_session() {
        let tokens = tokens();
        let token = tokens.resume(SESSION);
        assert!(tokens.may_resume(SESSION, &token));
        assert!(!tokens.may_resume(SessionId::from_u128(8), &token));
        assert!(!tokens.may_resume(SESSION, ""));
    }
}
