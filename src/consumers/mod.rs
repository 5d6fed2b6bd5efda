//! Backends that want to know what clients say, and have something to say to them: the way out for
//! everything that is not the gateway's own business (protocol.md §5, §7.3).
//!
//! ```text
//!   session ─ said, transcribed, came, went ─▶ Consumers ─▶ each consumer's bounded queue
//!   consumer's socket ─ Deliver ─▶ session ─▶ its client
//! ```
//!
//! A consumer has all sessions, or those of one user. What is known of a session (its battery, its
//! place, its glasses) is shown to a consumer that comes later. One that does not read loses messages,
//! and is told how many; nobody waits for it.

mod socket;

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

pub use socket::upgrade;

/// What may be queued for a consumer, in bytes.
const QUEUE_BYTES: usize = 1024 * 1024;

/// The largest message that is kept to be shown later, in bytes of JSON. A battery takes a hundred.
const LARGEST_KNOWN: usize = 2048;

/// The consumers, and what they are shown. Cheap to clone.
#[derive(Clone, Default)]
pub struct Consumers {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    attached: RwLock<Vec<Arc<Consumer>>>,
    /// How many there are, so that nothing is encoded for nobody.
    count: AtomicUsize,
    sessions: DashMap<SessionId, Presence>,
    next: AtomicU64,
}

/// One consumer.
struct Consumer {
    id: u64,
    /// Whose sessions it wants; none for everybody's.
    user: Option<UserId>,
    send_queue: SendQueue,
    /// Messages that it had no room for and was not told of yet.
    dropped: AtomicU64,
}

/// `session_state`: a session at work, as far as consumers are concerned.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    session_id: SessionId,
    user_id: UserId,
    profile: Profile,
    /// Whether a client is there.
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

    /// Where the last message of a type is kept, if it is.
    fn known(&mut self, kind: &str) -> Option<&mut Option<Value>> {
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
    /// A client came to a session, or left it.
    pub fn presence(&self, session: SessionId, user: &UserId, profile: Profile, connected: bool) {
        let state = {
            let mut known = self
                .shared
                .sessions
                .entry(session)
                .or_insert_with(|| Presence::new(session, user.clone(), profile));
            known.profile = profile;
            known.connected = connected;
            self.is_wanted().then(|| known.frame(false))
        };
        if let Some(state) = state {
            self.send(user, &state);
        }
    }

    /// A session is over.
    pub fn ended(&self, session: SessionId) {
        if let Some((_, mut known)) = self.shared.sessions.remove(&session) {
            known.connected = false;
            if self.is_wanted() {
                self.send(&known.user_id, &known.frame(true));
            }
        }
    }

    /// A client said something that is not the gateway's business. Who said it is what the gateway
    /// knows, whatever the message says.
    pub fn said(&self, session: SessionId, user: &UserId, mut message: Map<String, Value>) {
        let kind = message.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        message.insert("sessionId".into(), json!(session));
        message.insert("userId".into(), json!(user));
        if let Some(mut known) = self.shared.sessions.get_mut(&session)
            && let Some(place) = known.known(&kind)
        {
            let value = Value::Object(message.clone());
            if value.to_string().len() <= LARGEST_KNOWN {
                *place = Some(value);
            }
        }
        if self.is_wanted() {
            self.send(user, &frame::text(&Value::Object(message).to_string()));
        }
    }

    /// Something that the gateway tells: its own JSON, with the user added.
    pub fn tell(&self, user: &UserId, message: impl FnOnce() -> Value) {
        if self.is_wanted() {
            let mut message = message();
            message["userId"] = json!(user);
            self.send(user, &frame::text(&message.to_string()));
        }
    }

    /// The gateway goes down: its consumers are to come back.
    pub fn shut_down(&self) {
        for consumer in self.shared.attached.read().iter() {
            let _ = consumer.send_queue.send(frame::close(Close::Restart, "the gateway restarts"));
            consumer.send_queue.finish();
        }
    }

    /// The sessions of a user, or all of them.
    fn sessions(&self, user: Option<&UserId>) -> Vec<SessionId> {
        let wanted = |state: &Presence| user.is_none_or(|user| state.user_id == *user);
        self.shared.sessions.iter().filter(|entry| wanted(entry)).map(|entry| *entry.key()).collect()
    }

    /// A session as it is now.
    fn state(&self, session: SessionId) -> Option<Bytes> {
        self.shared.sessions.get(&session).map(|state| state.frame(false))
    }

    fn attach(&self, user: Option<UserId>, send_queue: SendQueue) -> u64 {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let consumer = Consumer { id, user, send_queue, dropped: AtomicU64::new(0) };
        self.shared.attached.write().push(Arc::new(consumer));
        self.shared.count.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!(telemetry::CONSUMERS).increment(1);
        id
    }

    fn detach(&self, id: u64) {
        self.shared.attached.write().retain(|consumer| consumer.id != id);
        self.shared.count.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!(telemetry::CONSUMERS).decrement(1);
    }

    fn is_wanted(&self) -> bool {
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
    fn who_said_something_is_what_the_gateway_knows() {
        let consumers = Consumers::default();
        let (send_queue, mut stream) = SendQueue::new(QUEUE_BYTES, None);
        consumers.attach(None, send_queue);

        consumers.said(SESSION, &ann(), object(&json!({"type": "button_press", "userId": "bob"})));

        let said = waiting(&mut stream);
        assert_eq!(said, [json!({"type": "button_press", "userId": "ann", "sessionId": SESSION})]);
    }

    #[test]
    fn a_consumer_of_one_user_hears_nothing_of_others() {
        let consumers = Consumers::default();
        let (send_queue, mut stream) = SendQueue::new(QUEUE_BYTES, None);
        let id = consumers.attach(Some(UserId::parse("bob").unwrap()), send_queue);

        consumers.presence(SESSION, &ann(), Profile::Mentra, true);
        consumers.said(SESSION, &ann(), object(&json!({"type": "button_press"})));

        assert_eq!(waiting(&mut stream), [] as [Value; 0]);
        assert_eq!(consumers.sessions(Some(&UserId::parse("bob").unwrap())), []);
        assert_eq!(consumers.sessions(None), [SESSION]);
        consumers.detach(id);
        assert!(!consumers.is_wanted());
    }

    #[test]
    fn the_last_word_on_battery_place_and_glasses_is_kept_if_it_is_small() {
        let consumers = Consumers::default();
        consumers.presence(SESSION, &ann(), Profile::Mentra, true);
        for message in [
            json!({"type": "glasses_battery_update", "level": 80}),
            json!({"type": "glasses_battery_update", "level": 79}),
            json!({"type": "location_update", "lat": 1, "padding": "x".repeat(LARGEST_KNOWN)}),
            json!({"type": "button_press"}),
        ] {
            consumers.said(SESSION, &ann(), object(&message));
        }

        let state = consumers.state(SESSION).unwrap();
        let state: Value = serde_json::from_slice(&state[4..]).unwrap();
        assert_eq!(state["glassesBattery"]["level"], 79);
        assert_eq!(state.get("location"), None);
        assert_eq!((&state["connected"], &state["profile"]), (&json!(true), &json!("mentra")));
        consumers.ended(SESSION);
        assert_eq!(consumers.state(SESSION), None);
    }

    #[test]
    fn a_consumer_that_does_not_read_loses_messages_and_is_told_how_many() {
        let consumers = Consumers::default();
        let (send_queue, mut stream) = SendQueue::new(200, None);
        consumers.attach(None, send_queue);

        for n in 0..10 {
            consumers.tell(&ann(), || json!({"type": "n", "n": n, "padding": "x".repeat(50)}));
        }
        let before = waiting(&mut stream);
        consumers.tell(&ann(), || json!({"type": "last"}));
        let after = waiting(&mut stream);

        assert_eq!(before.len(), 2);
        assert_eq!(after[0], json!({"type": "consumer_lagged", "dropped": 8}));
        assert_eq!(after[1]["type"], "last");
    }
}
