//! Users' own tokens, signed by their identity provider (docs/PROTOCOL.md).
//!
//! A token's header names an algorithm and a key. That only selects among the configured keys: each of them is for
//! one algorithm, so that a token signed with a public key as if it were a shared secret matches no key.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Number;

use crate::{
    auth::{
        AuthError, Principal,
        jwks::{JwksError, KeySet},
        jwt_error, validation,
    },
    config::AuthConfig,
    ids::UserId,
};

/// Verifies users' tokens.
pub struct Users {
    /// The secret shared with the identity provider (HS256).
    secret: Option<DecodingKey>,
    /// The provider's public keys (RS256, ES256, EdDSA).
    keys: Option<Arc<KeySet>>,
    /// The required `iss`.
    issuer: Option<String>,
    /// The required `aud`, or one of it.
    audience: Option<String>,
    /// Tokens need no `exp`.
    may_lack_exp: bool,
}

/// The claims that we read.
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    email_verified: Option<bool>,
    #[serde(default)]
    sub: Option<String>,
    #[serde(default)]
    exp: Option<Number>,
}

impl Claims {
    /// The e-mail address, unless the issuer says that it is not verified; otherwise the subject.
    fn user(&self) -> Result<UserId, AuthError> {
        let email =
            self.email.as_deref().filter(|email| !email.is_empty() && self.email_verified != Some(false));
        UserId::parse(email.or(self.sub.as_deref()).unwrap_or_default())
            .map_err(|_| AuthError::InvalidToken("the token names no user: it needs email or sub"))
    }

    /// The library has checked that it is a number and not in the past.
    fn expires_at(&self) -> Option<u64> {
        let exp = self.exp.as_ref()?;
        exp.as_u64().or_else(|| exp.as_f64().map(|exp| exp as u64))
    }
}

impl Users {
    /// None if the configuration has neither a secret nor public keys.
    pub fn new(auth: &AuthConfig) -> Result<Option<Self>, JwksError> {
        let secret =
            auth.jwt_secret.as_ref().map(|secret| DecodingKey::from_secret(secret.expose().as_bytes()));
        let keys = auth.jwks.as_ref().map(KeySet::open).transpose()?.map(Arc::new);
        Ok((secret.is_some() || keys.is_some()).then(|| Self {
            secret,
            keys,
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            may_lack_exp: auth.may_lack_exp,
        }))
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| jwt_error(&error))?;
        let key = match header.alg {
            Algorithm::HS256 => self.secret.clone(),
            Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA => match &self.keys {
                Some(keys) => keys.find(header.kid.as_deref(), header.alg).await?,
                None => None,
            },
            Algorithm::HS384
            | Algorithm::HS512
            | Algorithm::ES384
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => None,
        };
        let Some(key) = key else {
            return Err(AuthError::InvalidToken("the token was not signed with a known key"));
        };
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.rules(header.alg))
            .map_err(|error| jwt_error(&error))?
            .claims;
        let expires_at = claims.expires_at();
        Ok(Principal { user: claims.user()?, session: None, room: None, expires_at, until: expires_at })
    }

    fn rules(&self, algorithm: Algorithm) -> Validation {
        let mut validation = validation(algorithm);
        // The library accepts a token without a claim, unless the claim is required.
        let mut required = Vec::new();
        if !self.may_lack_exp {
            required.push("exp");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.validate_aud = true;
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::{clock, error::Code, secret::Secret};

    fn settings() -> AuthConfig {
        AuthConfig { jwt_secret: Some(Secret::new("users")), ..AuthConfig::default() }
    }

    async fn verify(settings: &AuthConfig, token: &str) -> Result<Principal, Code> {
        let users = Users::new(settings).unwrap().unwrap();
        users.verify(token).await.map_err(|error| error.code())
    }

    fn jwt(secret: &str, claims: &Value, algorithm: Algorithm) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
            .unwrap()
    }

    fn later() -> u64 {
        clock::unix_s() + 60
    }

    #[tokio::test]
    async fn a_user_is_named_by_email_first_unless_the_address_may_be_anybodys() {
        let exp = later();
        for (claims, user) in [
            (json!({"sub": "1", "email": "john@example.org", "exp": exp}), "john@example.org"),
            (
                json!({"sub": "1", "email": "john@example.org", "email_verified": true, "exp": exp}),
                "john@example.org",
            ),
            (json!({"sub": "1", "email": "john@example.org", "email_verified": false, "exp": exp}), "1"),
            (json!({"sub": "1", "email": "", "exp": exp}), "1"),
            (json!({"sub": "1", "exp": exp}), "1"),
        ] {
            let principal = verify(&settings(), &jwt("users", &claims, Algorithm::HS256)).await.unwrap();
            assert_eq!((principal.user.as_str(), principal.expires_at), (user, Some(exp)), "{claims}");
        }
    }

    #[tokio::test]
    async fn bad_expired_and_foreign_tokens_are_told_apart_as_far_as_a_client_needs() {
        let past = clock::unix_s() - 60;
        let john = |exp| json!({"sub": "john", "exp": exp});
        for (token, code) in [
            ("nonsense".to_owned(), Code::InvalidToken),
            (jwt("users", &john(past), Algorithm::HS256), Code::ExpiredToken),
            (jwt("somebody else", &john(later()), Algorithm::HS256), Code::InvalidToken),
            (jwt("users", &john(later()), Algorithm::HS384), Code::InvalidToken),
            (jwt("users", &json!({"sub": "john"}), Algorithm::HS256), Code::InvalidToken),
            (jwt("users", &json!({"sub": "john", "exp": "never"}), Algorithm::HS256), Code::InvalidToken),
            (jwt("users", &json!({"exp": later()}), Algorithm::HS256), Code::InvalidToken),
            (jwt("control", &john(later()), Algorithm::HS256), Code::InvalidToken),
        ] {
            assert_eq!(verify(&settings(), &token).await.unwrap_err(), code, "{token}");
        }
    }

    #[tokio::test]
    async fn only_the_compatibility_switch_lets_a_token_live_for_ever() {
        let compatible = AuthConfig { may_lack_exp: true, ..settings() };
        let endless = jwt("users", &json!({"sub": "john"}), Algorithm::HS256);
        assert_eq!(verify(&compatible, &endless).await.unwrap().expires_at, None);
        let past = jwt("users", &json!({"sub": "john", "exp": clock::unix_s() - 60}), Algorithm::HS256);
        assert_eq!(verify(&compatible, &past).await.unwrap_err(), Code::ExpiredToken);
    }

    #[tokio::test]
    async fn issuer_and_audience_are_held_against_what_is_configured() {
        let strict = AuthConfig {
            issuer: Some("https://id.example".into()),
            audience: Some("june".into()),
            ..settings()
        };
        for (iss, aud, good) in [
            (json!("https://id.example"), json!("june"), true),
            (json!("https://id.example"), json!(["other", "june"]), true),
            (json!("https://id.example"), json!("other"), false),
            (json!("https://id.example"), Value::Null, false),
            (json!("https://evil.example"), json!("june"), false),
            (Value::Null, json!("june"), false),
        ] {
            let claims = json!({"sub": "john", "exp": later(), "iss": iss, "aud": aud});
            let verified = verify(&strict, &jwt("users", &claims, Algorithm::HS256)).await;
            assert_eq!(verified.is_ok(), good, "{claims}");
        }
    }
}
