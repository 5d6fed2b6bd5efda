//! A LiveKit token for a room is proof enough that its holder may know who is in it: joining would tell
//! them the same. Somebody who was removed could not join, and so sees nothing.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use livekit_api::access_token::VideoGrants;
use serde::Deserialize;

use crate::{
    config::LivekitConfig,
    deny::DenyList,
    ids::{Identity, RoomName},
};

/// Reads LiveKit tokens that were signed with our API secret, by whomever.
#[derive(Clone)]
pub struct RoomTokenVerifier {
    api_key: String,
    key: DecodingKey,
    deny: DenyList,
}

/// What a LiveKit token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomToken {
    /// The room it lets its holder join.
    pub room: RoomName,
    /// Who they are there.
    pub identity: Identity,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    video: VideoGrants,
}

impl RoomTokenVerifier {
    /// Tokens of this LiveKit, but for those who are kept out.
    pub fn new(livekit: &LivekitConfig, deny: DenyList) -> Self {
        Self {
            api_key: livekit.api_key.clone(),
            key: DecodingKey::from_secret(livekit.api_secret.expose().as_bytes()),
            deny,
        }
    }

    /// What a token proves; nothing where it is not one of LiveKit's, has ended, is for no room, or for one
    /// that its holder was removed from.
    pub fn read(&self, token: &str) -> Option<RoomToken> {
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

    fn passes(folder: &Path) -> RoomTokenVerifier {
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

    fn read(secret: &str, claims: &Value) -> Option<RoomToken> {
        let folder = tempfile::tempdir().unwrap();
        passes(folder.path()).read(&sign(secret, claims))
    }

    fn claims(video: &Value) -> Value {
        json!({"iss": "devkey", "sub": "ann", "exp": clock::unix_s() + 60, "video": video})
    }

    #[test]
    fn a_token_that_joins_a_room_opens_that_room() {
        let pass = read("secret", &claims(&json!({"room": "room-a", "roomJoin": true}))).unwrap();
        assert_eq!((pass.room.as_str(), pass.identity.as_str()), ("room-a", "ann"));
    }

    #[actix_web::test]
    async fn a_token_of_somebody_who_was_removed_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let passes = passes(folder.path());
        let token = sign("secret", &claims(&json!({"room": "room-a", "roomJoin": true})));
        let pass = passes.read(&token).unwrap();

        passes.deny.deny(&pass.room, &pass.identity).await.unwrap();

        assert_eq!(passes.read(&token), None);
    }

    #[test]
    fn a_token_that_joins_none_or_has_ended_or_is_anothers_opens_nothing() {
        let room_a = claims(&json!({"room": "room-a", "roomJoin": true}));
        let with = |field: &str, value: Value| {
            let mut claims = room_a.clone();
            claims[field] = value;
            claims
        };
        assert_eq!(read("other", &room_a), None);
        for claims in [
            with("exp", json!(clock::unix_s() - 60)),
            with("nbf", json!(clock::unix_s() + 60)),
            with("iss", json!("otherkey")),
            with("video", json!({"room": "room-a"})),
            with("video", json!({"roomJoin": true})),
        ] {
            assert_eq!(read("secret", &claims), None, "{claims}");
        }
    }
}
