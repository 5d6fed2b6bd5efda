//! LiveKit's webhooks: who came, who went (design §4).
//!
//! LiveKit signs each with the API secret: a JWT in `Authorization` whose claim `sha256` is the hash of
//! the body. It tries again only after a 5xx, so that is what it gets when *we* failed.

use std::collections::{HashSet, VecDeque};

use actix_web::{HttpRequest, HttpResponse, http::header::AUTHORIZATION, web};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use livekit_protocol as proto;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Site, door};
use crate::{
    config::LivekitConfig,
    error::{ApiError, Code},
    ids::RoomName,
    livekit,
    room::roster::{Event, LeaveReason},
    telemetry,
};

/// The largest webhook, in bytes. LiveKit's are a few KiB; a room's metadata may add 64 KiB.
pub const MAX_BODY: usize = 256 * 1024;

/// Events that are remembered, so that a repeated one is told apart.
const REMEMBERED: usize = 4096;

/// Checks and remembers webhooks.
pub struct Webhooks {
    api_key: String,
    key: DecodingKey,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// True for an id that is new.
    fn insert(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    fn remove(&mut self, id: &str) {
        self.ids.remove(id);
        self.order.retain(|known| known != id);
    }
}

/// What the signature says.
#[derive(Deserialize)]
struct Claims {
    /// The hash of the body, base64.
    sha256: String,
}

impl Webhooks {
    /// Webhooks of this LiveKit.
    pub fn new(livekit: &LivekitConfig) -> Self {
        Self {
            api_key: livekit.api_key.clone(),
            key: DecodingKey::from_secret(livekit.api_secret.expose().as_bytes()),
            seen: Mutex::default(),
        }
    }

    /// The event in a body, if LiveKit signed it.
    fn verify(&self, authorization: &str, body: &[u8]) -> Result<proto::WebhookEvent, ApiError> {
        let refused = |why: &str| ApiError::new(Code::InvalidToken, why);
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[&self.api_key]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        let token = authorization.strip_prefix("Bearer ").unwrap_or(authorization);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &validation)
            .map_err(|_| refused("the webhook is not signed by this LiveKit"))?
            .claims;
        let signed = STANDARD.decode(claims.sha256).map_err(|_| refused("the signature has no body hash"))?;
        if !bool::from(signed.ct_eq(Sha256::digest(body).as_slice())) {
            return Err(refused("the body is not the one that was signed"));
        }
        serde_json::from_slice(body).map_err(|error| ApiError::invalid("body", error))
    }
}

/// `POST /api/livekit/webhook`, `POST /api/livekit-webhooks`
pub async fn receive(
    site: web::Data<Site>,
    request: HttpRequest,
    body: Result<Bytes, actix_web::Error>,
) -> Result<HttpResponse, ApiError> {
    let body = body.map_err(|error| ApiError::new(Code::TooLarge, format!("body: {error}")))?;
    let outcome = take(&site, &request, &body).await;
    let label = match &outcome {
        Ok(outcome) => outcome,
        Err(error) => error.code.as_str(),
    };
    metrics::counter!(telemetry::WEBHOOKS, "outcome" => label.to_owned()).increment(1);
    outcome.map(|_| HttpResponse::Ok().finish())
}

async fn take(site: &Site, request: &HttpRequest, body: &[u8]) -> Result<&'static str, ApiError> {
    let Some(webhooks) = &site.webhooks else {
        return Err(ApiError::new(Code::NotFound, "this gateway has no LiveKit"));
    };
    let authorization = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|header| header.to_str().ok())
        .ok_or_else(|| ApiError::new(Code::MissingToken, "the webhook is not signed"))?;
    let event = webhooks.verify(authorization, body)?;
    if !event.id.is_empty() && !webhooks.seen.lock().insert(&event.id) {
        return Ok("duplicate");
    }
    door::seen(site, &event);
    let Some((room, happened)) = roster_event(&event) else { return Ok("ignored") };
    if let Err(error) = site.rooms.happened(&room, happened).await {
        // LiveKit sends it again; then it must not look like one that was taken.
        webhooks.seen.lock().remove(&event.id);
        return Err(error);
    }
    Ok("taken")
}

/// What an event says about who is in which room.
fn roster_event(event: &proto::WebhookEvent) -> Option<(RoomName, Event)> {
    let room = RoomName::parse(&event.room.as_ref()?.name).ok()?;
    let participant = event.participant.as_ref();
    let left = |reason| participant.map(|gone| Event::Left { sid: gone.sid.clone(), reason });
    let happened = match event.event.as_str() {
        "participant_joined" => Event::Joined(livekit::participant(participant?)?),
        "participant_left" => left(LeaveReason::Left)?,
        "participant_connection_aborted" => left(LeaveReason::Aborted)?,
        "track_published" => Event::TrackPublished {
            participant: livekit::participant(participant?)?,
            track: livekit::track(event.track.as_ref()?),
        },
        "track_unpublished" => Event::TrackUnpublished {
            sid: participant?.sid.clone(),
            track_sid: event.track.as_ref()?.sid.clone(),
        },
        "room_finished" => Event::Finished,
        _ => return None,
    };
    Some((room, happened))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    use super::*;
    use crate::{clock, secret::Secret};

    const BODY: &str = r#"{"event":"participant_joined","id":"EV_1","room":{"name":"room-a"},
        "participant":{"sid":"PA_1","identity":"john","joinedAt":"7"}}"#;

    fn webhooks() -> Webhooks {
        Webhooks::new(&LivekitConfig {
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

    #[test]
    fn a_signed_event_is_read() {
        let event =
            webhooks().verify(&signature("secret", BODY, clock::unix_s() + 60), BODY.as_bytes()).unwrap();
        let Some((room, Event::Joined(participant))) = roster_event(&event) else { panic!("{event:?}") };
        assert_eq!((room.as_str(), participant.sid.as_str()), ("room-a", "PA_1"));
        assert_eq!(participant.joined_at, 7000);
    }

    #[test]
    fn a_changed_body_an_old_signature_and_another_key_are_refused() {
        let later = clock::unix_s() + 60;
        for (signature, body) in [
            (signature("secret", BODY, later), BODY.replace("john", "eve")),
            (signature("secret", BODY, clock::unix_s() - 600), BODY.into()),
            (signature("other", BODY, later), BODY.into()),
            ("nonsense".into(), BODY.into()),
        ] {
            assert_eq!(webhooks().verify(&signature, body.as_bytes()).unwrap_err().code, Code::InvalidToken);
        }
    }

    #[test]
    fn a_repeated_event_is_told_apart_for_a_long_while() {
        let mut seen = Seen::default();
        assert!(seen.insert("EV_1"));
        assert!(!seen.insert("EV_1"));
        for n in 0..REMEMBERED {
            seen.insert(&format!("x{n}"));
        }
        assert_eq!(seen.ids.len(), REMEMBERED);
        assert!(seen.insert("EV_1"), "forgotten after {REMEMBERED} others");
    }
}
