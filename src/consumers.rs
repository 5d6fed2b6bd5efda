//! The hub that publishes what clients send to consumers: backends on the consumer port (docs/MENTRA.md).
//!
//! ```text
//!   session ─ client messages, transcripts, presence ─▶ Consumers ─▶ each consumer's bounded queue
//! ```
//!
//! A consumer receives the messages of all sessions, or of one user's. The last battery, location and glasses
//! messages of a session are retained for consumers that attach later. A consumer that does not read loses
//! messages, and is told how many; no session waits for it. What consumers send goes to sessions directly
//! (http/consumers), so the hub does not depend on sessions.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::RwLock;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    error::Close,
    ids::{SessionId, UserId},
    protocol::Profile,
    telemetry,
    ws::{frame, send_queue::SendQueue},
};

/// What may be queued for a consumer, in bytes.
pub(crate) const QUEUE_BYTES: usize = 1024 * 1024;

/// Larger messages are not retained, in bytes of JSON. A battery message has about 100.
const MAX_RETAINED_BYTES: usize = 2048;

/// Tells consumers apart.
pub(crate) type ConsumerId = u64;

/// The attached consumers, and the retained state of sessions. Cheap to clone.
#[derive(Clone, Default)]
pub struct Consumers {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    attached: RwLock<Vec<Arc<Consumer>>>,
    /// How many there are: without any, nothing is encoded.
    count: AtomicUsize,
    sessions: DashMap<SessionId, Presence>,
    next: AtomicU64,
}

struct Consumer {
    id: ConsumerId,
    /// Whose sessions it receives; none for all sessions.
    user: Option<UserId>,
    send_queue: SendQueue,
    /// Messages lost since it was last told.
    dropped: AtomicU64,
}

/// `session_state`: a live session as consumers see it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    session_id: SessionId,
    user_id: UserId,
    profile: Profile,
    /// Whether a client is attached.
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    glasses_battery: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone_battery: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    glasses: Option<Value>,
}

impl Presence {
    fn new(session_id: SessionId, user_id: UserId, profile: Profile) -> Self {
        Self {
            session_id,
            user_id,
            profile,
            connected: false,
            glasses_battery: None,
            phone_battery: None,
            location: None,
            glasses: None,
        }
    }

    /// Where the last message of this type is retained; none where it is not.
    fn retained(&mut self, kind: &str) -> Option<&mut Option<Value>> {
        match kind {
            "glasses_battery_update" => Some(&mut self.glasses_battery),
            "phone_battery_update" => Some(&mut self.phone_battery),
            "location_update" => Some(&mut self.location),
            "glasses_connection_state" => Some(&mut self.glasses),
            _ => None,
        }
    }

    fn frame(&self, ended: bool) -> Bytes {
        let mut state = json!(self);
        state["type"] = "session_state".into();
        state["ended"] = ended.into();
        frame::text(&state.to_string())
    }
}

impl Consumers {
    /// A client attached to a session, or left it.
    pub fn presence(&self, session: SessionId, user: &UserId, profile: Profile, connected: bool) {
        let state = {
            let mut known = self
                .shared
                .sessions
                .entry(session)
                .or_insert_with(|| Presence::new(session, user.clone(), profile));
            known.profile = profile;
            known.connected = connected;
            self.has_consumers().then(|| known.frame(false))
        };
        if let Some(state) = state {
            self.send(user, &state);
        }
    }

    pub fn session_ended(&self, session: SessionId) {
        if let Some((_, mut known)) = self.shared.sessions.remove(&session) {
            known.connected = false;
            if self.has_consumers() {
                self.send(&known.user_id, &known.frame(true));
            }
        }
    }

    /// Publishes a client's message that the gateway does not handle itself. `sessionId` and `userId` are the
    /// gateway's, whatever the message contains.
    pub fn client_message(&self, session: SessionId, user: &UserId, mut message: Map<String, Value>) {
        let kind = message.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        message.insert("sessionId".into(), json!(session));
        message.insert("userId".into(), json!(user));
        if let Some(mut known) = self.shared.sessions.get_mut(&session)
            && let Some(retained) = known.retained(&kind)
        {
            let value = Value::Object(message.clone());
            if value.to_string().len() <= MAX_RETAINED_BYTES {
                *retained = Some(value);
            }
        }
        if self.has_consumers() {
            self.send(user, &frame::text(&Value::Object(message).to_string()));
        }
    }

    /// Publishes a message of the gateway's own, with `userId` added.
    pub fn publish(&self, user: &UserId, message: impl FnOnce() -> Value) {
        if self.has_consumers() {
            let mut message = message();
            message["userId"] = json!(user);
            self.send(user, &frame::text(&message.to_string()));
        }
    }

    /// Closes all connections; consumers should reconnect.
    pub fn shut_down(&self) {
        for consumer in self.shared.attached.read().iter() {
            consumer.send_queue.finish_with(frame::close(Close::Restart, "the gateway restarts"));
        }
    }

    /// The sessions of a user, or all of them.
    pub(crate) fn sessions(&self, user: Option<&UserId>) -> Vec<SessionId> {
        let wanted = |state: &Presence| user.is_none_or(|user| state.user_id == *user);
        self.shared.sessions.iter().filter(|entry| wanted(entry)).map(|entry| *entry.key()).collect()
    }

    /// The `session_state` of a session as it is now, encoded.
    pub(crate) fn state(&self, session: SessionId) -> Option<Bytes> {
        self.shared.sessions.get(&session).map(|state| state.frame(false))
    }

    pub(crate) fn attach(&self, user: Option<UserId>, send_queue: SendQueue) -> ConsumerId {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let consumer = Consumer { id, user, send_queue, dropped: AtomicU64::new(0) };
        self.shared.attached.write().push(Arc::new(consumer));
        self.shared.count.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!(telemetry::CONSUMERS).increment(1);
        id
    }

    pub(crate) fn detach(&self, id: ConsumerId) {
        self.shared.attached.write().retain(|consumer| consumer.id != id);
        self.shared.count.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!(telemetry::CONSUMERS).decrement(1);
    }

    fn has_consumers(&self) -> bool {
        self.shared.count.load(Ordering::Relaxed) > 0
    }

    fn send(&self, user: &UserId, message: &Bytes) {
        for consumer in self.shared.attached.read().iter() {
            if consumer.user.as_ref().is_none_or(|wanted| wanted == user) {
                consumer.send(message.clone());
            }
        }
    }
}

impl Consumer {
    fn send(&self, message: Bytes) {
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let notice = json!({"type": "consumer_lagged", "dropped": lost}).to_string();
            if self.send_queue.send(frame::text(&notice)).is_err() {
                self.dropped.fetch_add(lost, Ordering::Relaxed);
                return self.lose();
            }
        }
        if self.send_queue.send(message).is_err() {
            self.lose();
        }
    }

    fn lose(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        metrics::counter!(telemetry::CONSUMER_DROPPED).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::ws::send_queue::SendQueueStream;

    const SESSION: SessionId = SessionId::from_u128(7);

    fn ann() -> UserId {
        UserId::parse("ann").unwrap()
    }

    fn object(json: &Value) -> Map<String, Value> {
        json.as_object().unwrap().clone()
    }

    /// The messages that wait; unmasked frames, whose length needs at most two more bytes.
    fn waiting(stream: &mut SendQueueStream) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(Some(frame)) = stream.next().now_or_never() {
            let header = if frame[1] == 126 { 4 } else { 2 };
            all.push(serde_json::from_slice(&frame[header..]).unwrap());
        }
        all
    }

    #[test]
    fn the_sender_of_a_message_is_the_one_the_gateway_knows() {
        let consumers = Consumers::default();
        let (send_queue, mut stream) = SendQueue::new(QUEUE_BYTES, None);
        consumers.attach(None, send_queue);

        consumers.client_message(SESSION, &ann(), object(&json!({"type": "button_press", "userId": "bob"})));

        let received = waiting(&mut stream);
        assert_eq!(received, [json!({"type": "button_press", "userId": "ann", "sessionId": SESSION})]);
    }

    #[test]
    fn a_consumer_of_one_user_receives_nothing_of_others() {
        let consumers = Consumers::default();
        let (send_queue, mut stream) = SendQueue::new(QUEUE_BYTES, None);
        let id = consumers.attach(Some(UserId::parse("bob").unwrap()), send_queue);

        consumers.presence(SESSION, &ann(), Profile::Mentra, true);
        consumers.client_message(SESSION, &ann(), object(&json!({"type": "button_press"})));

        assert_eq!(waiting(&mut stream), [] as [Value; 0]);
        assert_eq!(consumers.sessions(Some(&UserId::parse("bob").unwrap())), []);
        assert_eq!(consumers.sessions(None), [SESSION]);
        consumers.detach(id);
        assert!(!consumers.has_consumers());
    }

    #[test]
    fn the_last_battery_location_and_glasses_messages_are_retained_if_they_are_small() {
        let consumers = Consumers::default();
        consumers.presence(SESSION, &ann(), Profile::Mentra, true);
        for message in [
            json!({"type": "glasses_battery_update", "level": 80}),
            json!({"type": "glasses_battery_update", "level": 79}),
            json!({"type": "location_update", "lat": 1, "padding": "x".repeat(MAX_RETAINED_BYTES)}),
            json!({"type": "button_press"}),
        ] {
            consumers.client_message(SESSION, &ann(), object(&message));
        }

        let state = consumers.state(SESSION).unwrap();
        let state: Value = serde_json::from_slice(&state[4..]).unwrap();
        assert_eq!(state["glassesBattery"]["level"], 79);
        assert_eq!(state.get("location"), None);
        assert_eq!((&state["connected"], &state["profile"]), (&json!(true), &json!("mentra")));
        consumers.session_ended(SESSION);
        assert_eq!(consumers.state(SESSION), None);
    }

    #[test]
    fn a_consumer_that_does_not_read_loses_messages_and_is_told_how_many() {
        let consumers = Consumers::default();
        let (send_queue, mut stream) = SendQueue::new(200, None);
        consumers.attach(None, send_queue);

        for n in 0..10 {
            consumers.publish(&ann(), || json!({"type": "n", "n": n, "padding": "x".repeat(50)}));
        }
        let before = waiting(&mut stream);
        consumers.publish(&ann(), || json!({"type": "last"}));
        let after = waiting(&mut stream);

        assert_eq!(before.len(), 2);
        assert_eq!(after[0], json!({"type": "consumer_lagged", "dropped": 8}));
        assert_eq!(after[1]["type"], "last");
    }
}
