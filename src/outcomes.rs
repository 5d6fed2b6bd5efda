//! How the last real call of LiveKit and of each provider ended: what `/health` says about them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{clock, telemetry};

/// Of everything that the gateway calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outcomes {
    pub livekit: Outcome,
    pub stt: Outcome,
    pub llm: Outcome,
    pub tts: Outcome,
    pub turn: Outcome,
}

impl Default for Outcomes {
    fn default() -> Self {
        let [livekit, stt, llm, tts, turn] = ["livekit", "stt", "llm", "tts", "turn"].map(Outcome::new);
        Self { livekit, stt, llm, tts, turn }
    }
}

impl Outcomes {
    /// The outcome of this role, if it has one.
    pub(crate) fn of(&self, role: &str) -> Option<&Outcome> {
        [&self.livekit, &self.stt, &self.llm, &self.tts, &self.turn]
            .into_iter()
            .find(|outcome| outcome.0.role == role)
    }
}

/// Of one of them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outcome(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    role: &'static str,
    last: Mutex<Option<Last>>,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) struct Last {
    at: Instant,
    /// In milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Why it failed; none if it did not.
    pub failure: Option<String>,
}

impl Outcome {
    pub(crate) fn new(role: &'static str) -> Self {
        Self(Arc::new(Shared { role, last: Mutex::default() }))
    }

    pub(crate) fn succeeded(&self) {
        metrics::counter!(telemetry::CALLS_SUCCEEDED, "role" => self.0.role).increment(1);
        self.record(None);
    }

    pub(crate) fn failed(&self, cause: impl Into<String>) {
        metrics::counter!(telemetry::CALLS_FAILED, "role" => self.0.role).increment(1);
        self.record(Some(cause.into()));
    }

    fn record(&self, failure: Option<String>) {
        *self.0.last.lock() = Some(Last { at: clock::now(), at_ms: clock::unix_ms(), failure });
    }

    /// None if nothing was called yet.
    pub(crate) fn last(&self) -> Option<Last> {
        self.0.last.lock().clone()
    }

    /// Whether nothing was called for so long.
    pub(crate) fn is_older_than(&self, age: Duration) -> bool {
        self.0.last.lock().as_ref().is_none_or(|last| clock::now().duration_since(last.at) >= age)
    }
}
