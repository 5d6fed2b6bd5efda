//! The webhook route: limits, statuses, and who is told of an event.
//!
//! LiveKit sends the events of a room one after the other, and sends one again only after a 5xx: that is the
//! answer where the gateway failed to apply it. Only requests that LiveKit did not sign are counted and limited,
//! so that a flood of them keeps no webhook out, though both may come from the address of one proxy.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use actix_web::{HttpRequest, HttpResponse, http::header::AUTHORIZATION, web};
use bytes::BytesMut;
use futures::StreamExt;
use parking_lot::Mutex;

use crate::{
    clock,
    config::LivekitConfig,
    error::Code,
    http::{AppState, error::ApiError},
    ids::{Identity, RoomName},
    livekit::webhook::{Room, Webhook, WebhookError, WebhookEvent, WebhookVerifier},
    protocol::edge_v1::to_client::EndReason,
    session::messages::MicrophonePublished,
    store::sessions::LivekitRoom,
    telemetry,
};

/// Ids of webhooks that are remembered to recognise repeated ones.
const MAX_REMEMBERED_IDS: usize = 4096;

/// A webhook that is older than this, in seconds, waited for an outage to end: others may be lost.
const MAX_DELAY_S: i64 = 5;

/// Requests of one address that may fail per window, before it gets 429.
const MAX_FAILURES: u32 = 20;
const FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// Addresses that are counted; beyond that, all others are counted as one.
const MAX_ADDRESSES: usize = 1024;

/// What the route remembers.
pub struct Webhooks {
    verifier: WebhookVerifier,
    recent: Mutex<RecentIds>,
    failures: Mutex<Failures>,
}

impl Webhooks {
    /// Webhooks of this LiveKit.
    pub fn new(livekit: &LivekitConfig) -> Self {
        Self { verifier: WebhookVerifier::new(livekit), recent: Mutex::default(), failures: Mutex::default() }
    }
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        let code = match error {
            WebhookError::Signature | WebhookError::NoBodyHash | WebhookError::BodyHash => Code::InvalidToken,
            WebhookError::Malformed(_) => Code::InvalidRequest,
        };
        Self::new(code, error.to_string())
    }
}

/// `POST /api/livekit/webhook`, `POST /api/livekit-webhooks`
pub async fn receive(
    app: web::Data<AppState>,
    request: HttpRequest,
    mut body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let Some(webhooks) = &app.webhooks else {
        return Err(ApiError::new(Code::NotFound, "this gateway has no LiveKit"));
    };
    let outcome = match read(webhooks, &request, &mut body).await {
        Ok(webhook) => apply(&app, webhooks, webhook).await,
        Err(error) => {
            let address = request.peer_addr().map(|peer| peer.ip());
            let limited = webhooks.failures.lock().count(address, clock::now());
            let message = "too many webhooks that are not signed by LiveKit";
            Err(if limited { ApiError::new(Code::RateLimited, message) } else { error })
        }
    };
    let label = match &outcome {
        Ok(outcome) => outcome,
        Err(error) => error.code.as_str(),
    };
    metrics::counter!(telemetry::WEBHOOKS, "outcome" => label).increment(1);
    outcome.map(|_| HttpResponse::Ok().finish())
}

/// Verifies the signature, and reads and parses the body, whose size the middleware limits. Without a valid signature
/// the body is not read.
async fn read(
    webhooks: &Webhooks,
    request: &HttpRequest,
    body: &mut web::Payload,
) -> Result<Webhook, ApiError> {
    let authorization = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|header| header.to_str().ok())
        .ok_or_else(|| ApiError::new(Code::MissingToken, "the webhook is not signed"))?;
    let signature = webhooks.verifier.verify(authorization)?;
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        whole.extend_from_slice(&chunk.map_err(|error| ApiError::from(&error))?);
    }
    Ok(signature.parse(&whole)?)
}

/// Passes an event on. Gives the label of the metric.
async fn apply(app: &AppState, webhooks: &Webhooks, webhook: Webhook) -> Result<&'static str, ApiError> {
    let Webhook { id, created_at_s, room, event } = webhook;
    if !id.is_empty() && !webhooks.recent.lock().insert(&id) {
        return Ok("duplicate");
    }
    let Some(room) = room else { return Ok("ignored") };
    match &event {
        WebhookEvent::RoomStarted => {
            session_of(app, &room).await;
        }
        WebhookEvent::ParticipantJoined { identity, .. } => {
            if matches!(session_of(app, &room).await, Some(EndReason::Logout | EndReason::Disconnected)) {
                delete_again(app, room.name.clone());
            }
            enforce(app, &room.name, identity);
        }
        WebhookEvent::TrackPublished { identity: Some(identity), is_microphone, .. } => {
            if *is_microphone {
                wake_agent(app, &room.name, identity).await;
            }
            // A participant may be older than their entry in the deny list.
            enforce(app, &room.name, identity);
        }
        WebhookEvent::RoomFinished
        | WebhookEvent::ParticipantLeft { .. }
        | WebhookEvent::TrackPublished { identity: None, .. }
        | WebhookEvent::TrackUnpublished { .. }
        | WebhookEvent::Other => {}
    }
    let Some(event) = event.into_roster_event(&room) else { return Ok("ignored") };
    let late = created_at_s > 0 && clock::unix_s() as i64 - created_at_s > MAX_DELAY_S;
    if let Err(error) = app.rooms.webhook(&room.name, event, late).await {
        // LiveKit sends it again; it must not count as a duplicate then.
        webhooks.recent.lock().remove(&id);
        return Err(error.into());
    }
    Ok("taken")
}

/// Records LiveKit's id of a session's room. Gives why the session ended, if it has.
async fn session_of(app: &AppState, room: &Room) -> Option<EndReason> {
    if room.sid.is_empty() {
        return None;
    }
    let livekit_room = LivekitRoom { sid: room.sid.clone(), created_ms: room.created_ms };
    match app.registry.room_created(&room.name, livekit_room).await {
        Ok(record) => record?.ended,
        Err(error) => {
            tracing::error!(room.name = %room.name, %error, "LiveKit's id of a room is not recorded");
            None
        }
    }
}

/// A participant joined by a token of a session that was ended on purpose, and LiveKit made the room again: it is
/// deleted again, in a spawned task.
fn delete_again(app: &AppState, room: RoomName) {
    let Some(livekit) = app.livekit.clone() else { return };
    actix_web::rt::spawn(async move {
        if let Err(error) = livekit.delete_room(&room).await {
            tracing::warn!(room.name = %room, %error, "the room of an ended session is not deleted");
        }
    });
}

/// Removes a participant who is denied the room.
fn enforce(app: &AppState, room: &RoomName, identity: &Identity) {
    if let Some(livekit) = &app.livekit {
        app.deny.enforce(livekit, room, identity);
    }
}

/// Where the user of a session, or another participant whom it listens to, publishes a microphone in its room, the
/// session's agent joins without waiting.
async fn wake_agent(app: &AppState, room: &RoomName, identity: &Identity) {
    let session = match app.registry.of_room(room).await {
        Ok(record) => record.filter(|record| {
            let others = record.options.participants.as_ref();
            Identity::from(&record.user_id) == *identity
                || others.is_some_and(|heard| heard.include(identity))
        }),
        Err(error) => {
            tracing::error!(room.name = %room, %error, "the session of a room is not known");
            None
        }
    };
    if let Some(actor) = session.and_then(|record| app.registry.live(record.session_id)) {
        // Lost if the mailbox is full: the agent retries by itself.
        let _ = actor.try_send(MicrophonePublished);
    }
}

/// The newest ids.
#[derive(Default)]
struct RecentIds {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

impl RecentIds {
    /// True for an id that is new.
    fn insert(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > MAX_REMEMBERED_IDS
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

/// The requests of the current window that failed.
#[derive(Default)]
struct Failures {
    since: Option<Instant>,
    by_address: HashMap<Option<IpAddr>, u32>,
}

impl Failures {
    /// Counts one. True if it is over the limit.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_address_and_forgotten_with_their_window() {
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
    fn a_repeated_id_is_recognised_until_many_others_came() {
        let mut recent = RecentIds::default();
        assert!(recent.insert("EV_1"));
        assert!(!recent.insert("EV_1"));
        for n in 0..MAX_REMEMBERED_IDS {
            recent.insert(&format!("x{n}"));
        }
        assert_eq!(recent.ids.len(), MAX_REMEMBERED_IDS);
        assert!(recent.insert("EV_1"), "forgotten after {MAX_REMEMBERED_IDS} others");
    }
}
