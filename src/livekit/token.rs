//! LiveKit tokens, signed here without a call to LiveKit (docs/REST.md).
//!
//! | for | identity | lifetime | may |
//! |---|---|---|---|
//! | a user's client | the user | 300 s | publish its microphone and data |
//! | a user's client, where responses are published in the room | the user | 300 s | also subscribe |
//! | our agent | `cloud-agent:<user>` | 600 s | subscribe; publish only where responses are published in the room |
//! | a guest | `guest:<name>-<random>` | 600 s | publish its microphone, subscribe |
//!
//! None has roomAdmin, roomRecord, roomList or roomCreate, and each is for one room. No two have the same
//! `jti` (RFC 7519 §4.1.7).

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use livekit_api::access_token::VideoGrants;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    clock,
    config::LivekitConfig,
    ids::{GuestName, Identity, RoomName, UserId},
    protocol::edge_v1::to_client::{LivekitInfo, LivekitRole},
};

/// Lifetime of a client's token.
pub const CLIENT_TTL: Duration = Duration::from_secs(300);

/// Lifetime of the agent's token.
pub const AGENT_TTL: Duration = Duration::from_secs(600);

/// Lifetime of a guest's token: long enough to be passed on and used.
pub const GUEST_TTL: Duration = Duration::from_secs(600);

/// The name the microphone's track has.
pub const MICROPHONE_TRACK: &str = "mic";

/// The claims of a LiveKit token that the gateway uses (livekit.io, "Access tokens").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The API key.
    pub iss: String,
    /// The participant's identity.
    pub sub: String,
    /// The display name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `agent` for ours; absent for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Not before, in seconds since the Unix epoch.
    pub nbf: u64,
    /// Not after, in seconds since the Unix epoch.
    pub exp: u64,
    /// Unique.
    pub jti: Uuid,
    /// What it allows.
    pub video: VideoGrants,
}

/// A token and when it ends.
#[derive(Clone)]
pub struct Token {
    /// The JWT.
    pub jwt: String,
    /// In seconds since the Unix epoch.
    pub expires_at: u64,
}

/// Signs tokens with the API secret.
#[derive(Clone)]
pub struct TokenIssuer {
    api_key: String,
    key: EncodingKey,
    url: String,
    /// Responses are published in the room: our agent publishes, the client subscribes.
    speech_in_room: bool,
}

impl TokenIssuer {
    /// An issuer for this LiveKit.
    pub fn new(livekit: &LivekitConfig, speech_in_room: bool) -> Self {
        Self {
            api_key: livekit.api_key.clone(),
            key: EncodingKey::from_secret(livekit.api_secret.expose().as_bytes()),
            url: livekit.url.clone(),
            speech_in_room,
        }
    }

    /// For a user's own client; it ends at `bound` at the latest, in seconds since the Unix epoch.
    pub fn client(&self, user: &UserId, room: &RoomName, bound: Option<u64>) -> Token {
        let grants = VideoGrants {
            can_publish: Some(true),
            can_publish_data: Some(true),
            can_publish_sources: vec!["microphone".into()],
            can_subscribe: Some(self.speech_in_room),
            ..join(room)
        };
        self.sign(Identity::from(user).as_str(), "", "", (CLIENT_TTL, bound), grants)
    }

    /// For our own participant.
    pub fn agent(&self, user: &UserId, room: &RoomName) -> Token {
        let grants = VideoGrants {
            can_publish: Some(self.speech_in_room),
            can_publish_data: Some(false),
            can_subscribe: Some(true),
            hidden: !self.speech_in_room,
            agent: true,
            ..join(room)
        };
        self.sign(Identity::agent_of(user).as_str(), "", "agent", (AGENT_TTL, None), grants)
    }

    /// For a guest in the room; it ends at `bound` at the latest.
    pub fn guest(&self, identity: &Identity, name: &GuestName, room: &RoomName, bound: Option<u64>) -> Token {
        let grants = VideoGrants {
            can_publish: Some(true),
            can_publish_data: Some(false),
            can_publish_sources: vec!["microphone".into()],
            can_subscribe: Some(true),
            ..join(room)
        };
        self.sign(identity.as_str(), name.as_str(), "", (GUEST_TTL, bound), grants)
    }

    /// What a client needs to join, as in `connection_ack` and `livekit_info`.
    pub fn client_info(&self, user: &UserId, room: &RoomName, bound: Option<u64>) -> LivekitInfo {
        let token = self.client(user, room, bound);
        LivekitInfo {
            url: self.url.clone(),
            room_name: room.clone(),
            token: token.jwt,
            identity: user.into(),
            expires_at: token.expires_at,
            track_name: MICROPHONE_TRACK.into(),
            role: if self.speech_in_room { LivekitRole::Subscribe } else { LivekitRole::Publish },
        }
    }

    /// The server's address, for clients.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn sign(
        &self,
        identity: &str,
        name: &str,
        kind: &str,
        (ttl, bound): (Duration, Option<u64>),
        video: VideoGrants,
    ) -> Token {
        let now = clock::unix_s();
        let expires_at = bound.unwrap_or(u64::MAX).min(now + ttl.as_secs());
        let claims = Claims {
            iss: self.api_key.clone(),
            sub: identity.into(),
            name: name.into(),
            kind: kind.into(),
            nbf: now,
            exp: expires_at,
            jti: Uuid::new_v4(),
            video,
        };
        let jwt = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .expect("claims of strings and numbers always sign with HMAC");
        Token { jwt, expires_at }
    }
}

/// The grant to join one room.
fn join(room: &RoomName) -> VideoGrants {
    VideoGrants { room_join: true, room: room.to_string(), ..VideoGrants::default() }
}

#[cfg(test)]
mod tests {
    use livekit_api::access_token::TokenVerifier;
    use proptest::prelude::*;

    use super::*;
    use crate::{config::MAX_TOKEN_TTL, secret::Secret};

    fn issuer(speech_in_room: bool) -> TokenIssuer {
        let livekit = LivekitConfig {
            url: "ws://livekit".into(),
            internal_url: "ws://livekit".into(),
            api_key: "devkey".into(),
            api_secret: Secret::new("secret"),
            rejoin_backoff: Duration::from_secs(2),
        };
        TokenIssuer::new(&livekit, speech_in_room)
    }

    fn room() -> RoomName {
        RoomName::parse("room-john-abc123").unwrap()
    }

    proptest! {
        /// LiveKit's own verifier accepts every token, and none is for more than one room.
        #[test]
        fn no_token_grants_more_than_its_room(user in "[a-z@. ]{1,20}[a-z]", kind in 0..3u8, speech_in_room: bool) {
            let issuer = issuer(speech_in_room);
            let user = UserId::parse(&user).unwrap();
            let (token, ttl) = match kind {
                0 => (issuer.client(&user, &room(), None), CLIENT_TTL),
                1 => (issuer.agent(&user, &room()), AGENT_TTL),
                _ => (issuer.guest(&Identity::from(&user), &GuestName::parse("A guest").unwrap(), &room(), None), GUEST_TTL),
            };

            let claims = TokenVerifier::with_api_key("devkey", "secret").verify(&token.jwt).unwrap();
            let video = claims.video;
            prop_assert!(video.room_join);
            prop_assert_eq!(video.room, "room-john-abc123");
            prop_assert!(!(video.room_admin || video.room_record || video.room_list || video.room_create));
            prop_assert!(!(video.ingress_admin || video.recorder || claims.sip.admin || claims.sip.call));
            prop_assert_eq!(video.can_update_own_metadata, None);
            prop_assert_eq!(claims.exp as u64 - claims.nbf as u64, ttl.as_secs());
            prop_assert_eq!(token.expires_at, claims.exp as u64);
            prop_assert!(ttl <= MAX_TOKEN_TTL);
        }
    }

    #[test]
    fn a_client_publishes_and_an_agent_subscribes() {
        let user = UserId::parse("john").unwrap();
        let verifier = TokenVerifier::with_api_key("devkey", "secret");
        let client = verifier.verify(&issuer(false).client(&user, &room(), None).jwt).unwrap();
        let agent = verifier.verify(&issuer(false).agent(&user, &room()).jwt).unwrap();

        assert_eq!((client.sub.as_str(), agent.sub.as_str()), ("john", "cloud-agent:john"));
        assert_eq!((client.video.can_publish, client.video.can_subscribe), (Some(true), Some(false)));
        assert_eq!(client.video.can_publish_sources, ["microphone"]);
        assert_eq!((agent.video.can_publish, agent.video.can_subscribe), (Some(false), Some(true)));
        assert!(agent.video.hidden && agent.video.agent);
        assert_eq!(agent.kind, "agent");
    }

    #[test]
    fn where_responses_are_published_in_the_room_the_agent_publishes_and_the_client_subscribes() {
        let user = UserId::parse("john").unwrap();
        let verifier = TokenVerifier::with_api_key("devkey", "secret");
        let client = verifier.verify(&issuer(true).client(&user, &room(), None).jwt).unwrap();
        let agent = verifier.verify(&issuer(true).agent(&user, &room()).jwt).unwrap();
        assert_eq!(client.video.can_subscribe, Some(true));
        assert_eq!(agent.video.can_publish, Some(true));
    }

    #[test]
    fn no_two_tokens_are_the_same() {
        let user = UserId::parse("john").unwrap();
        let issuer = issuer(false);
        assert_ne!(issuer.client(&user, &room(), None).jwt, issuer.client(&user, &room(), None).jwt);
    }
}
