//! LiveKit's webhooks: verified, and parsed into typed events.
//!
//! LiveKit signs a webhook with the API secret: `Authorization` is a JWT whose claim `sha256` is the hash of
//! the body (livekit/protocol, `webhook/verifier.go`). The signature can be verified before the body is read, so
//! that a request that LiveKit did not send costs one HMAC of a short text.

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use livekit_protocol as proto;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    config::LivekitConfig,
    ids::{Identity, RoomName},
    livekit::api,
    room::roster::{Event, LeaveReason, Participant, Track},
};

/// Why a webhook is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error("the webhook is not signed by this LiveKit")]
    Signature,
    #[error("the signature has no body hash")]
    NoBodyHash,
    #[error("the body is not the one that was signed")]
    BodyHash,
    #[error("body: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// A webhook of LiveKit.
#[derive(Debug, PartialEq)]
pub(crate) struct Webhook {
    /// The same when LiveKit sends it again; empty where LiveKit gives none.
    pub(crate) id: String,
    /// When LiveKit made it, in seconds since the Unix epoch; 0 where it does not say.
    pub(crate) created_at_s: i64,
    /// None for events that are not about a room whose name is valid.
    pub(crate) room: Option<Room>,
    pub(crate) event: WebhookEvent,
}

/// The room that a webhook is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) name: RoomName,
    /// LiveKit's id of it: rooms of one name, one after the other, differ in it.
    pub(crate) sid: String,
    /// In milliseconds since the Unix epoch.
    pub(crate) created_ms: i64,
}

/// The events that the gateway uses.
#[derive(Debug, PartialEq)]
pub(crate) enum WebhookEvent {
    RoomStarted,
    RoomFinished,
    ParticipantJoined {
        identity: Identity,
        /// None for a hidden participant.
        visible: Option<Participant>,
    },
    ParticipantLeft {
        sid: String,
        reason: LeaveReason,
    },
    TrackPublished {
        sid: String,
        identity: Option<Identity>,
        track: Track,
        is_microphone: bool,
    },
    TrackUnpublished {
        sid: String,
        track_sid: String,
    },
    /// An event that the gateway does not use, or that lacks what it should have.
    Other,
}

impl WebhookEvent {
    /// What it says about who is in the room.
    pub(crate) fn into_roster_event(self, room: &Room) -> Option<Event> {
        Some(match self {
            Self::RoomStarted => Event::Began,
            Self::RoomFinished => Event::Finished { room_sid: room.sid.clone() },
            Self::ParticipantJoined { visible, .. } => {
                Event::Joined { participant: visible?, room_sid: room.sid.clone() }
            }
            Self::ParticipantLeft { sid, reason } => Event::Left { sid, reason },
            Self::TrackPublished { sid, track, .. } => Event::TrackPublished { sid, track },
            Self::TrackUnpublished { sid, track_sid } => Event::TrackUnpublished { sid, track_sid },
            Self::Other => return None,
        })
    }
}

/// Verifies webhooks of one LiveKit.
pub(crate) struct WebhookVerifier {
    api_key: String,
    key: DecodingKey,
}

/// A verified signature; it is for one body.
#[derive(Debug)]
pub(crate) struct Signature {
    body_sha256: Vec<u8>,
}

#[derive(Deserialize)]
struct Claims {
    /// The hash of the body, base64.
    sha256: String,
}

impl WebhookVerifier {
    pub(crate) fn new(livekit: &LivekitConfig) -> Self {
        Self {
            api_key: livekit.api_key.clone(),
            key: DecodingKey::from_secret(livekit.api_secret.expose().as_bytes()),
        }
    }

    /// Verifies the header `Authorization`.
    pub(crate) fn verify(&self, authorization: &str) -> Result<Signature, WebhookError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[&self.api_key]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation.validate_nbf = true;
        let token = authorization.strip_prefix("Bearer ").unwrap_or(authorization);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &validation)
            .map_err(|_| WebhookError::Signature)?
            .claims;
        let body_sha256 = STANDARD.decode(claims.sha256).map_err(|_| WebhookError::NoBodyHash)?;
        Ok(Signature { body_sha256 })
    }
}

impl Signature {
    /// Parses the body that was signed.
    pub(crate) fn parse(&self, body: &[u8]) -> Result<Webhook, WebhookError> {
        if !bool::from(self.body_sha256.ct_eq(Sha256::digest(body).as_slice())) {
            return Err(WebhookError::BodyHash);
        }
        let event: proto::WebhookEvent = serde_json::from_slice(body)?;
        Ok(Webhook::from(event))
    }
}

impl From<proto::WebhookEvent> for Webhook {
    fn from(event: proto::WebhookEvent) -> Self {
        let room = event.room.as_ref().and_then(room);
        Self {
            room,
            event: self::event(&event).unwrap_or(WebhookEvent::Other),
            id: event.id,
            created_at_s: event.created_at,
        }
    }
}

fn room(room: &proto::Room) -> Option<Room> {
    let created_ms =
        if room.creation_time_ms > 0 { room.creation_time_ms } else { room.creation_time * 1000 };
    Some(Room { name: RoomName::parse(&room.name).ok()?, sid: room.sid.clone(), created_ms })
}

fn event(event: &proto::WebhookEvent) -> Option<WebhookEvent> {
    let participant = event.participant.as_ref();
    let identity = || Identity::parse(&participant?.identity).ok();
    let sid = || participant.map(|participant| participant.sid.clone()).filter(|sid| !sid.is_empty());
    Some(match event.event.as_str() {
        "room_started" => WebhookEvent::RoomStarted,
        "room_finished" => WebhookEvent::RoomFinished,
        "participant_joined" => {
            WebhookEvent::ParticipantJoined { identity: identity()?, visible: api::participant(participant?) }
        }
        "participant_left" => {
            WebhookEvent::ParticipantLeft { sid: sid()?, reason: api::leave_reason(participant?) }
        }
        "participant_connection_aborted" => {
            WebhookEvent::ParticipantLeft { sid: sid()?, reason: LeaveReason::Aborted }
        }
        "track_published" => {
            let track = event.track.as_ref()?;
            WebhookEvent::TrackPublished {
                sid: sid()?,
                identity: identity(),
                track: api::track(track),
                is_microphone: track.r#type() == proto::TrackType::Audio
                    && track.source() != proto::TrackSource::ScreenShareAudio,
            }
        }
        "track_unpublished" => {
            WebhookEvent::TrackUnpublished { sid: sid()?, track_sid: event.track.as_ref()?.sid.clone() }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::{clock, secret::Secret};

    const BODY: &str = r#"{"event":"participant_joined","id":"EV_1","createdAt":"5","room":{"name":"room-a","sid":"RM_1"},
        "participant":{"sid":"PA_1","identity":"john","joinedAt":"7"}}"#;

    fn verifier() -> WebhookVerifier {
        WebhookVerifier::new(&LivekitConfig {
            url: "ws://livekit".into(),
            internal_url: "ws://livekit".into(),
            api_key: "devkey".into(),
            api_secret: Secret::new("secret"),
            rejoin_backoff: Duration::from_secs(2),
        })
    }

    fn signature(secret: &str, body: &str, exp: u64) -> String {
        let sha256 = STANDARD.encode(Sha256::digest(body));
        let claims = json!({"iss": "devkey", "exp": exp, "sha256": sha256});
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()))
            .unwrap()
    }

    fn parse(body: &str) -> Webhook {
        let event: proto::WebhookEvent = serde_json::from_str(body).unwrap();
        Webhook::from(event)
    }

    #[test]
    fn a_signed_webhook_is_parsed() {
        let signature = verifier().verify(&signature("secret", BODY, clock::unix_s() + 60)).unwrap();

        let webhook = signature.parse(BODY.as_bytes()).unwrap();

        let participant = Participant {
            sid: "PA_1".into(),
            identity: Identity::parse("john").unwrap(),
            name: String::new(),
            metadata: String::new(),
            joined_at: 7000,
            tracks: vec![],
            version: 0,
        };
        assert_eq!(
            webhook,
            Webhook {
                id: "EV_1".into(),
                created_at_s: 5,
                room: Some(Room {
                    name: RoomName::parse("room-a").unwrap(),
                    sid: "RM_1".into(),
                    created_ms: 0
                }),
                event: WebhookEvent::ParticipantJoined {
                    identity: participant.identity.clone(),
                    visible: Some(participant),
                },
            }
        );
    }

    #[test]
    fn a_changed_body_an_expired_signature_and_another_key_are_refused() {
        let later = clock::unix_s() + 60;
        let refused = |signature: String, body: &str| {
            verifier().verify(&signature).and_then(|signature| signature.parse(body.as_bytes())).unwrap_err()
        };

        let changed = refused(signature("secret", BODY, later), &BODY.replace("john", "eve"));
        assert!(matches!(changed, WebhookError::BodyHash), "{changed:?}");
        for signature in [
            signature("secret", BODY, clock::unix_s() - 600),
            signature("other", BODY, later),
            "nonsense".into(),
        ] {
            let error = refused(signature, BODY);
            assert!(matches!(error, WebhookError::Signature), "{error:?}");
        }
    }

    #[test]
    fn livekits_reasons_for_a_leave_are_mapped() {
        let left = BODY.replace("participant_joined", "participant_left");
        for (livekit, reason) in [
            ("CLIENT_INITIATED", LeaveReason::Left),
            ("PARTICIPANT_REMOVED", LeaveReason::Removed),
            ("SIGNAL_CLOSE", LeaveReason::ConnectionLost),
            ("DUPLICATE_IDENTITY", LeaveReason::DuplicateIdentity),
            ("ROOM_DELETED", LeaveReason::RoomFinished),
        ] {
            let body =
                left.replace(r#""sid":"PA_1""#, &format!(r#""sid":"PA_1","disconnectReason":"{livekit}""#));
            assert_eq!(parse(&body).event, WebhookEvent::ParticipantLeft { sid: "PA_1".into(), reason });
        }
    }

    #[test]
    fn a_microphone_is_told_from_other_tracks() {
        for (kind, source, expected) in [
            ("AUDIO", "MICROPHONE", true),
            ("AUDIO", "SCREEN_SHARE_AUDIO", false),
            ("VIDEO", "CAMERA", false),
        ] {
            let track = json!({"sid": "TR_1", "type": kind, "source": source});
            let participant = json!({"sid": "PA_1", "identity": "john"});
            let body = json!({
                "event": "track_published", "room": {"name": "room-a"}, "participant": participant, "track": track,
            });
            let WebhookEvent::TrackPublished { is_microphone, .. } = parse(&body.to_string()).event else {
                panic!("{body}")
            };
            assert_eq!(is_microphone, expected, "{source}");
        }
    }

    #[test]
    fn what_the_gateway_does_not_use_or_what_is_incomplete_is_no_event() {
        for body in [
            r#"{"event":"egress_started","id":"EV_1"}"#,
            r#"{"event":"participant_joined","room":{"name":"room-a"}}"#,
            r#"{"event":"track_published","room":{"name":"room-a"},"participant":{"sid":"PA_1"}}"#,
        ] {
            assert_eq!(parse(body).event, WebhookEvent::Other, "{body}");
        }
    }
}
