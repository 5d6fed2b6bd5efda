//! LiveKit's webhooks: who came, who went (design §4).
//!
//! LiveKit signs each with the API secret: a JWT in `Authorization` whose claim `sha256` is the hash of
//! the body. It sends the events of a room one after the other, and tries one again only after a 5xx, so
//! that is what it gets when *we* failed.
//!
//! The signature is checked before the body is kept, hashed and parsed, so that a stranger costs an HMAC
//! of a short text. Only what failed is counted and limited: no flood of invalid webhooks takes the place of a valid one,
//! though both may come from the address of one proxy. Valid ones wait for their room, and LiveKit for
//! them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use actix_web::{HttpRequest, HttpResponse, http::header::AUTHORIZATION, web};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use futures::StreamExt;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use livekit_protocol as proto;
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    clock,
    config::LivekitConfig,
    error::{ApiError, Code},
    http::{AppState, rooms::livekit_events},
    ids::{Identity, RoomName},
    livekit::api,
    room::roster::{Event, LeaveReason},
    session::messages::MicrophonePublished,
    telemetry,
};

/// The largest webhook, in bytes. LiveKit's are a few KiB; a room's metadata may add 64 KiB.
pub const MAX_BODY: usize = 256 * 1024;

/// Events that are remembered, so that a repeated one is told apart.
const REMEMBERED: usize = 4096;

/// An event that waited for longer than this, in seconds, has seen an outage: others may be lost.
const LATE_S: i64 = 5;

/// Webhooks that may fail, an address, before it is told to slow down; and how long that is counted.
const MAX_FAILURES: u32 = 20;
const FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// Addresses that are counted; beyond that all others are counted as one.
const MAX_ADDRESSES: usize = 1024;

/// Checks and remembers webhooks.
pub struct Webhooks {
    api_key: String,
    key: DecodingKey,
    seen: Mutex<Seen>,
    failures: Mutex<Failures>,
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

/// Who sent what is not LiveKit's, lately.
#[derive(Default)]
struct Failures {
    since: Option<Instant>,
    by_address: HashMap<Option<IpAddr>, u32>,
}

impl Failures {
    /// Counts one, and says whether it is one too many.
    fn count(&mut self, address: Option<IpAddr>, now: Instant) -> bool {
        if self.since.is_none_or(|since| now >= since + FAILURE_WINDOW) {
            self.since = Some(now);
            self.by_address.clear();
        }
        let known = self.by_address.len() < MAX_ADDRESSES || self.by_address.contains_key(&address);
        let count = self.by_address.entry(address.filter(|_| known)).or_default();
        *count = count.saturating_add(1);
        *count > MAX_FAILURES
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
            failures: Mutex::default(),
        }
    }

    /// The hash that the body must have, if LiveKit signed it.
    fn signed_hash(&self, authorization: &str) -> Result<Vec<u8>, ApiError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[&self.api_key]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        validation.validate_nbf = true;
        let token = authorization.strip_prefix("Bearer ").unwrap_or(authorization);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &validation)
            .map_err(|_| refused("the webhook is not signed by this LiveKit"))?
            .claims;
        STANDARD.decode(claims.sha256).map_err(|_| refused("the signature has no body hash"))
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::new(Code::InvalidToken, why)
}

/// The event in a body that has the hash that was signed.
fn read(body: &[u8], signed: &[u8]) -> Result<proto::WebhookEvent, ApiError> {
    if !bool::from(signed.ct_eq(Sha256::digest(body).as_slice())) {
        return Err(refused("the body is not the one that was signed"));
    }
    serde_json::from_slice(body).map_err(|error| ApiError::invalid("body", error))
}

/// `POST /api/livekit/webhook`, `POST /api/livekit-webhooks`
pub async fn receive(
    app: web::Data<AppState>,
    request: HttpRequest,
    mut body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let outcome = match check(&app, &request, &mut body).await {
        Ok(event) => take(&app, event).await,
        Err(error) => {
            discard(&mut body).await;
            Err(slower(&app, &request, error))
        }
    };
    let label = match &outcome {
        Ok(outcome) => outcome,
        Err(error) => error.code.as_str(),
    };
    metrics::counter!(telemetry::WEBHOOKS, "outcome" => label).increment(1);
    outcome.map(|_| HttpResponse::Ok().finish())
}

/// The event of a request, if LiveKit sent it.
async fn check(
    app: &AppState,
    request: &HttpRequest,
    body: &mut web::Payload,
) -> Result<proto::WebhookEvent, ApiError> {
    let Some(webhooks) = &app.webhooks else {
        return Err(ApiError::new(Code::NotFound, "this gateway has no LiveKit"));
    };
    let authorization = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|header| header.to_str().ok())
        .ok_or_else(|| ApiError::new(Code::MissingToken, "the webhook is not signed"))?;
    let signed = webhooks.signed_hash(authorization)?;
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| ApiError::invalid("body", error))?;
        if whole.len() + chunk.len() > MAX_BODY {
            let message = format!("a webhook may have at most {MAX_BODY} bytes");
            return Err(ApiError::new(Code::TooLarge, message));
        }
        whole.extend_from_slice(&chunk);
    }
    read(&whole, &signed)
}

/// Lets the rest of a body pass, so that its connection can be used again; one that is too long ends it.
async fn discard(body: &mut web::Payload) {
    let mut passed = 0;
    while let Some(Ok(chunk)) = body.next().await {
        passed += chunk.len();
        if passed > MAX_BODY {
            return;
        }
    }
}

/// What a request that failed is told: one of too many, to slow down.
fn slower(app: &AppState, request: &HttpRequest, error: ApiError) -> ApiError {
    let address = request.peer_addr().map(|peer| peer.ip());
    let too_many =
        app.webhooks.as_ref().is_some_and(|webhooks| webhooks.failures.lock().count(address, clock::now()));
    if too_many {
        return ApiError::new(Code::RateLimited, "too many webhooks that are not LiveKit's");
    }
    error
}

async fn take(app: &AppState, event: proto::WebhookEvent) -> Result<&'static str, ApiError> {
    let Some(webhooks) = &app.webhooks else { return Ok("ignored") };
    if !event.id.is_empty() && !webhooks.seen.lock().insert(&event.id) {
        return Ok("duplicate");
    }
    if let Some((room, identity)) = microphone(&event) {
        wake_agent(app, &room, &identity).await;
    }
    livekit_events::apply(app, &event).await;
    let Some((room, happened)) = roster_event(&event) else { return Ok("ignored") };
    let late = event.created_at > 0 && clock::unix_s() as i64 - event.created_at > LATE_S;
    let mut taken = app.rooms.happened(&room, happened).await;
    if late && taken.is_ok() {
        taken = app.rooms.happened(&room, Event::Suspect).await;
    }
    if let Err(error) = taken {
        // LiveKit sends it again; then it must not look like one that was taken.
        webhooks.seen.lock().remove(&event.id);
        return Err(error);
    }
    Ok("taken")
}

/// Whose microphone was published where, if that is what an event says.
fn microphone(event: &proto::WebhookEvent) -> Option<(RoomName, Identity)> {
    let track = event.track.as_ref().filter(|_| event.event == "track_published")?;
    if track.r#type() != proto::TrackType::Audio || track.source() == proto::TrackSource::ScreenShareAudio {
        return None;
    }
    let room = RoomName::parse(&event.room.as_ref()?.name).ok()?;
    Some((room, Identity::parse(&event.participant.as_ref()?.identity).ok()?))
}

/// Where a session's user can be heard in its room, its agent is to be there.
async fn wake_agent(app: &AppState, room: &RoomName, identity: &Identity) {
    let session = match app.registry.of_room(room).await {
        Ok(record) => record.filter(|record| Identity::from(&record.user_id) == *identity),
        Err(error) => {
            tracing::error!(room.name = %room, %error, "the session of a room is not known");
            None
        }
    };
    if let Some(actor) = session.and_then(|record| app.registry.live(record.session_id)) {
        // A session that is too busy has an agent that tries by itself.
        let _ = actor.try_send(MicrophonePublished);
    }
}

/// What an event says about who is in which room.
fn roster_event(event: &proto::WebhookEvent) -> Option<(RoomName, Event)> {
    let livekit_room = event.room.as_ref()?;
    let room = RoomName::parse(&livekit_room.name).ok()?;
    let participant = event.participant.as_ref();
    let sid = || participant.map(|participant| participant.sid.clone()).filter(|sid| !sid.is_empty());
    let happened = match event.event.as_str() {
        "room_started" => Event::Began,
        "participant_joined" => {
            Event::Joined { participant: api::participant(participant?)?, room_sid: livekit_room.sid.clone() }
        }
        "participant_left" => Event::Left { sid: sid()?, reason: api::leave_reason(participant?) },
        "participant_connection_aborted" => Event::Left { sid: sid()?, reason: LeaveReason::Aborted },
        "track_published" => Event::TrackPublished { sid: sid()?, track: api::track(event.track.as_ref()?) },
        "track_unpublished" => {
            Event::TrackUnpublished { sid: sid()?, track_sid: event.track.as_ref()?.sid.clone() }
        }
        "room_finished" => Event::Finished { room_sid: livekit_room.sid.clone() },
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
        let signed = webhooks().signed_hash(&signature("secret", BODY, clock::unix_s() + 60)).unwrap();
        let event = read(BODY.as_bytes(), &signed).unwrap();
        let Some((room, Event::Joined { participant, .. })) = roster_event(&event) else {
            panic!("{event:?}")
        };
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
            let verified =
                webhooks().signed_hash(&signature).and_then(|signed| read(body.as_bytes(), &signed));
            assert_eq!(verified.unwrap_err().code, Code::InvalidToken);
        }
    }

    #[test]
    fn why_somebody_left_is_told_in_our_words() {
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
            let event = serde_json::from_str(&body).unwrap();
            let (_, happened) = roster_event(&event).unwrap();
            assert_eq!(happened, Event::Left { sid: "PA_1".into(), reason });
        }
    }

    #[test]
    fn only_what_failed_is_counted_by_address_and_forgotten_after_a_while() {
        let (mut failures, now) = (Failures::default(), clock::now());
        let address = |last| Some(IpAddr::from([10, 0, 0, last]));
        for _ in 0..MAX_FAILURES {
            assert!(!failures.count(address(1), now));
        }
        assert!(failures.count(address(1), now));
        assert!(!failures.count(address(2), now));
        assert!(!failures.count(address(1), now + FAILURE_WINDOW));
    }

    #[test]
    fn a_flood_from_many_addresses_is_counted_as_one() {
        let (mut failures, now) = (Failures::default(), clock::now());
        let outcomes: Vec<bool> = (0..MAX_ADDRESSES as u32 + MAX_FAILURES + 2)
            .map(|n| failures.count(Some(IpAddr::from(n.to_be_bytes())), now))
            .collect();
        assert!(outcomes.last().unwrap());
        assert!(failures.by_address.len() <= MAX_ADDRESSES + 1);
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
