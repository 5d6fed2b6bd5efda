//! LiveKit tokens as credentials for a room: whoever may join a room may also know who is in it. A token of a
//! participant who was removed is not accepted.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use livekit_api::access_token::VideoGrants;
use serde::Deserialize;

use crate::{
    config::LivekitConfig,
    deny::DenyList,
    ids::{Identity, RoomName},
};

/// Verifies LiveKit tokens that were signed with the API secret, by the gateway or by another backend.
#[derive(Clone)]
pub struct RoomTokenVerifier {
    api_key: String,
    key: DecodingKey,
    deny: DenyList,
}

/// What a LiveKit token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomToken {
    /// The room that its holder may join.
    pub room: RoomName,
    /// Who the holder is in it.
    pub identity: Identity,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    video: VideoGrants,
}

impl RoomTokenVerifier {
    /// Verifies tokens of this LiveKit; those of denied participants are not accepted.
    pub fn new(livekit: &LivekitConfig, deny: DenyList) -> Self {
        Self {
            api_key: livekit.api_key.clone(),
            key: DecodingKey::from_secret(livekit.api_secret.expose().as_bytes()),
            deny,
        }
    }

    /// What a token proves. None where it is not signed with the API secret, has expired, is for no room, or its
    /// holder is denied the room.
    pub fn verify(&self, token: &str) -> Option<RoomToken> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[&self.api_key]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = 5;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &validation).ok()?.claims;
        let room = RoomName::parse(&claims.video.room).ok()?;
        let identity = Identity::parse(&claims.sub).ok()?;
        let may_join = claims.video.room_join && self.deny.until(&room, &identity).is_none();
        may_join.then_some(RoomToken { room, identity })
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::{clock, deny::tests::deny_list, secret::Secret};

    fn verifier(folder: &Path) -> RoomTokenVerifier {
        let livekit = LivekitConfig {
            url: "ws://livekit".into(),
            internal_url: "ws://livekit".into(),
            api_key: "devkey".into(),
            api_secret: Secret::new("secret"),
            rejoin_backoff: Duration::from_secs(2),
        };
        RoomTokenVerifier::new(&livekit, deny_list(folder))
    }

    fn sign(secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
    }

    fn verify(secret: &str, claims: &Value) -> Option<RoomToken> {
        let folder = tempfile::tempdir().unwrap();
        verifier(folder.path()).verify(&sign(secret, claims))
    }

    fn claims(video: &Value) -> Value {
        json!({"iss": "devkey", "sub": "ann", "exp": clock::unix_s() + 60, "video": video})
    }

    #[test]
    fn a_token_that_joins_a_room_is_accepted_for_that_room() {
        let token = verify("secret", &claims(&json!({"room": "room-a", "roomJoin": true}))).unwrap();
        assert_eq!((token.room.as_str(), token.identity.as_str()), ("room-a", "ann"));
    }

    #[actix_web::test]
    async fn a_token_of_a_participant_who_was_removed_is_not_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let verifier = verifier(folder.path());
        let jwt = sign("secret", &claims(&json!({"room": "room-a", "roomJoin": true})));
        let token = verifier.verify(&jwt).unwrap();

        verifier.deny.deny(&token.room, &token.identity, crate::deny::DeniedBy::Operator).await.unwrap();

        assert_eq!(verifier.verify(&jwt), None);
    }

    #[test]
    fn a_token_that_joins_no_room_or_has_expired_or_is_anothers_is_not_accepted() {
        let room_a = claims(&json!({"room": "room-a", "roomJoin": true}));
        let with = |field: &str, value: Value| {
            let mut claims = room_a.clone();
            claims[field] = value;
            claims
        };
        assert_eq!(verify("other", &room_a), None);
        for claims in [
            with("exp", json!(clock::unix_s() - 60)),
            with("nbf", json!(clock::unix_s() + 60)),
            with("iss", json!("otherkey")),
            with("video", json!({"room": "room-a"})),
            with("video", json!({"roomJoin": true})),
        ] {
            assert_eq!(verify("secret", &claims), None, "{claims}");
        }
    }
}
