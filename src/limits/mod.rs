//! How much one user, one address and everybody together may use. docs/LIMITS.md has the table.
//!
//! | file | |
//! |---|---|
//! | [`shares`], [`live_sessions`] | how many at the same time; given back when dropped |
//! | [`crate::auth::rate`] | how often |
//! | [`llm_budget`], [`model_call`] | calls and tokens of the language model |
//! | [`refusal`] | the limits by name, and what a caller learns that is over one |
//! | [`memory`] | how much memory there is |
//!
//! What a user has used belongs to the user, not to a session: it survives a reconnect and a new session. It is kept
//! in memory, and begins anew with the process.

mod live_sessions;
mod llm_budget;
pub(crate) mod memory;
mod model_call;
mod refusal;
mod shares;

use std::{
    hash::Hash,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use self::llm_budget::Allowance;
use self::{
    live_sessions::LiveSessions,
    llm_budget::LlmBudget,
    shares::{Full, Shares, UNLIMITED},
};
pub(crate) use self::{
    live_sessions::Reservation,
    model_call::ModelCall,
    refusal::{LABELS, Limit, Refusal},
    shares::Place,
};
use crate::{
    auth::rate::Rate,
    clock,
    config::LimitsConfig,
    ids::{Identity, SessionId, UserId},
    telemetry,
};

/// Typed lines that may come at once; the rest of the minute's come evenly.
const LINES_BURST: u32 = 5;

/// The same for final transcripts of a client's own recogniser.
const TRANSCRIPTS_BURST: u32 = 20;

/// The same for changes of a session's options.
const OPTIONS_BURST: u32 = 10;

/// Requests with images at the same time, and those of one user.
const IMAGES: usize = 8;
const IMAGES_BY_USER: usize = 2;

/// What is reported as used, with its limit.
pub(crate) const GAUGES: [&str; 4] = ["sessions", "streams", "consumers", "utterances"];

/// How long to wait for a place that somebody gives back: nobody knows when.
const PLACE_RETRY: Duration = Duration::from_secs(5);

/// The limits of this gateway. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    shared: Arc<Shared>,
}

struct Shared {
    sessions_by_user: OptionalRate<UserId>,
    sessions_by_address: OptionalRate<IpAddr>,
    sessions_by_key: OptionalRate<String>,
    tokens_by_session: OptionalRate<SessionId>,
    guests_by_session: OptionalRate<SessionId>,
    stream_tokens_by_viewer: OptionalRate<Identity>,
    lines_by_user: OptionalRate<UserId>,
    transcripts_by_user: OptionalRate<UserId>,
    options_by_user: OptionalRate<UserId>,
    live: Arc<LiveSessions>,
    sockets: Arc<Shares<UserId>>,
    streams: Arc<Shares<Identity>>,
    streams_by_address: Arc<Shares<IpAddr>>,
    consumers: Arc<Shares<()>>,
    utterances: Arc<Shares<UserId>>,
    utterances_beside: Arc<Shares<UserId>>,
    images: Arc<Shares<Identity>>,
    llm: Mutex<LlmBudget>,
}

/// The places of an open event stream.
pub(crate) struct StreamPlace {
    _of_viewer: Place<Identity>,
    _of_address: Place<IpAddr>,
}

impl Default for Limits {
    /// Without limits.
    fn default() -> Self {
        Self::new(&LimitsConfig::unlimited())
    }
}

impl Limits {
    pub fn new(config: &LimitsConfig) -> Self {
        let live = LiveSessions::new(or_unlimited(config.sessions_by_user), or_unlimited(config.sessions));
        let llm = LlmBudget::new(config.llm_by_user, config.llm, config.llm_running_by_user, clock::now());
        let shared = Shared {
            sessions_by_user: OptionalRate::per_minute(config.creations_by_user),
            sessions_by_address: OptionalRate::per_minute(config.creations_by_address),
            sessions_by_key: OptionalRate::per_minute(config.creations_by_key),
            tokens_by_session: OptionalRate::per_minute(config.tokens_by_session),
            guests_by_session: OptionalRate::per_minute(config.tokens_by_session),
            stream_tokens_by_viewer: OptionalRate::per_minute(config.tokens_by_session),
            lines_by_user: OptionalRate::with_burst(config.lines_by_user, LINES_BURST),
            transcripts_by_user: OptionalRate::with_burst(config.transcripts_by_user, TRANSCRIPTS_BURST),
            options_by_user: OptionalRate::with_burst(config.options_by_user, OPTIONS_BURST),
            live,
            sockets: Shares::new(or_unlimited(config.sockets_by_user), UNLIMITED),
            streams: Shares::new(or_unlimited(config.streams_by_user), or_unlimited(config.streams)),
            streams_by_address: Shares::new(or_unlimited(config.streams_by_address), UNLIMITED),
            consumers: Shares::new(UNLIMITED, or_unlimited(config.consumers)),
            utterances: Shares::new(or_unlimited(config.utterances_by_user), or_unlimited(config.utterances)),
            utterances_beside: Shares::new(or_unlimited(config.utterances_by_user), UNLIMITED),
            images: Shares::new(IMAGES_BY_USER, IMAGES),
            llm: Mutex::new(llm),
        };
        Self { shared: Arc::new(shared) }
    }

    // --- How often ---

    /// A user creates a session of their own.
    pub(crate) fn create_session(&self, user: &UserId, address: Option<IpAddr>) -> Result<(), Refusal> {
        let now = clock::now();
        if let Some(address) = address {
            self.shared.sessions_by_address.take(address, now, Limit::CreationsByAddress)?;
        }
        self.shared.sessions_by_user.take(user.clone(), now, Limit::CreationsByUser)
    }

    /// A backend creates a session; `key` tells API keys apart.
    pub(crate) fn create_session_by_key(&self, key: &str) -> Result<(), Refusal> {
        match &self.shared.sessions_by_key {
            OptionalRate(None) => Ok(()),
            limited => limited.take(key.to_owned(), clock::now(), Limit::CreationsByKey),
        }
    }

    /// A token is asked for a session's client.
    pub(crate) fn issue_token(&self, session: SessionId) -> Result<(), Refusal> {
        self.shared.tokens_by_session.take(session, clock::now(), Limit::Tokens)
    }

    /// A token is asked for a guest of a session's room.
    pub(crate) fn issue_guest_token(&self, session: SessionId) -> Result<(), Refusal> {
        self.shared.guests_by_session.take(session, clock::now(), Limit::GuestTokens)
    }

    /// A token for event streams is asked for by somebody who may see a room.
    pub(crate) fn issue_stream_token(&self, viewer: &Identity) -> Result<(), Refusal> {
        self.shared.stream_tokens_by_viewer.take(viewer.clone(), clock::now(), Limit::StreamTokens)
    }

    /// A user types a line.
    pub(crate) fn type_line(&self, user: &UserId, now: Instant) -> Result<(), Refusal> {
        self.shared.lines_by_user.take(user.clone(), now, Limit::Lines)
    }

    /// A client transcribed an utterance by itself.
    pub(crate) fn own_transcript(&self, user: &UserId, now: Instant) -> Result<(), Refusal> {
        self.shared.transcripts_by_user.take(user.clone(), now, Limit::Transcripts)
    }

    /// A client changes the options of its session.
    pub(crate) fn configure(&self, user: &UserId, now: Instant) -> Result<(), Refusal> {
        self.shared.options_by_user.take(user.clone(), now, Limit::SessionOptions)
    }

    // --- How many at the same time ---

    /// Reserves the memory of a live session.
    pub(crate) fn reserve_session(&self, session: SessionId, user: &UserId) -> Result<Reservation, Refusal> {
        let reserved = self.shared.live.reserve(session, user);
        reserved.map_err(full(Limit::SessionsByUser, Limit::Sessions))
    }

    /// An attached control channel.
    pub(crate) fn attach_socket(&self, user: &UserId) -> Result<Place<UserId>, Refusal> {
        self.shared.sockets.take(Some(user.clone())).map_err(full(Limit::SocketsByUser, Limit::SocketsByUser))
    }

    /// An event stream; the viewer is none for a backend, the address none for this machine.
    pub(crate) fn open_stream(
        &self,
        viewer: Option<Identity>,
        address: Option<IpAddr>,
    ) -> Result<StreamPlace, Refusal> {
        let of_viewer = self.shared.streams.take(viewer);
        let of_address = self.shared.streams_by_address.take(address);
        Ok(StreamPlace {
            _of_viewer: of_viewer.map_err(full(Limit::StreamsByUser, Limit::Streams))?,
            _of_address: of_address.map_err(full(Limit::StreamsByAddress, Limit::StreamsByAddress))?,
        })
    }

    /// A consumer's connection.
    pub(crate) fn attach_consumer(&self) -> Result<Place<()>, Refusal> {
        self.shared.consumers.take(None).map_err(full(Limit::Consumers, Limit::Consumers))
    }

    /// An utterance of a user that is transcribed.
    pub(crate) fn transcribe(&self, user: &UserId) -> Result<Place<UserId>, Refusal> {
        let place = self.shared.utterances.take(Some(user.clone()));
        place.map_err(full(Limit::UtterancesByUser, Limit::Utterances))
    }

    /// An utterance that is transcribed in a user's session beside theirs: of another participant, or in another
    /// language. It takes no place of the user's own.
    pub(crate) fn transcribe_beside(&self, user: &UserId) -> Result<[Place<UserId>; 2], Refusal> {
        let refusal = || full(Limit::UtterancesBeside, Limit::Utterances);
        let of_user = self.shared.utterances_beside.take(Some(user.clone())).map_err(refusal())?;
        let of_all = self.shared.utterances.take(None).map_err(refusal())?;
        Ok([of_user, of_all])
    }

    /// A request that may have images in it, of somebody who is a user; about 15 MB while it is answered.
    pub(crate) fn take_images(&self, of: Option<Identity>) -> Result<Place<Identity>, Refusal> {
        self.shared.images.take(of).map_err(full(Limit::ImagesByUser, Limit::Images))
    }

    // --- The language model ---

    /// A call of the language model with a prompt of so many bytes.
    pub(crate) fn call_model(&self, user: &UserId, prompt_bytes: usize) -> Result<ModelCall, Refusal> {
        ModelCall::begin(self, user, prompt_bytes)
    }

    /// The same for a translation. It takes no place of the answers that are generated at the same time.
    pub(crate) fn translate(&self, user: &UserId, prompt_bytes: usize) -> Result<ModelCall, Refusal> {
        ModelCall::beside(self, user, prompt_bytes)
    }

    /// Counts the call of another model beside one that is slow, with a prompt of so many bytes. False if the budget has no
    /// room for it.
    pub(crate) fn hedge(&self, user: &UserId, prompt_bytes: usize) -> bool {
        ModelCall::beside(self, user, prompt_bytes).is_ok()
    }

    /// Sets the gauges of what is used, before they are read.
    pub(crate) fn report(&self) {
        let Shared { live, streams, consumers, utterances, .. } = &*self.shared;
        let used = [
            (live.held(), live.capacity()),
            (streams.held(), streams.capacity()),
            (consumers.held(), consumers.capacity()),
            (utterances.held(), utterances.capacity()),
        ];
        for (name, (held, capacity)) in GAUGES.into_iter().zip(used) {
            metrics::gauge!(telemetry::LIMIT_USED, "limit" => name).set(held as f64);
            metrics::gauge!(telemetry::LIMIT_MAX, "limit" => name)
                .set(capacity.map_or(0.0, |max| max as f64));
        }
    }
}

/// 0 in the settings is no limit.
fn or_unlimited(limit: usize) -> usize {
    if limit == 0 { UNLIMITED } else { limit }
}

fn full(of_key: Limit, of_all: Limit) -> impl FnOnce(Full) -> Refusal {
    move |full| match full {
        Full::Key => of_key.refuse(PLACE_RETRY),
        Full::All => of_all.refuse(PLACE_RETRY),
    }
}

/// None where there is no limit.
struct OptionalRate<K>(Option<Mutex<Rate<K>>>);

impl<K: Eq + Hash> OptionalRate<K> {
    fn per_minute(limit: u32) -> Self {
        Self::with_burst(limit, limit)
    }

    fn with_burst(limit: u32, burst: u32) -> Self {
        Self((limit > 0).then(|| Mutex::new(Rate::with_burst(limit, burst))))
    }

    fn take(&self, key: K, now: Instant, limit: Limit) -> Result<(), Refusal> {
        let Some(rate) = &self.0 else { return Ok(()) };
        let taken = rate.lock().take(key, now);
        taken.map_err(|wait| limit.refuse(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_beside_a_users_own_takes_none_of_the_users_places_and_counts_in_all() {
        let config = LimitsConfig { utterances_by_user: 1, utterances: 3, ..LimitsConfig::unlimited() };
        let limits = Limits::new(&config);
        let [ann, bob] = ["ann", "bob"].map(|name| UserId::parse(name).unwrap());
        let beside = limits.transcribe_beside(&ann).unwrap();

        let refused = limits.transcribe_beside(&ann).err().map(|refusal| refusal.limit);
        let _of_ann = limits.transcribe(&ann).unwrap();
        let _of_bob = limits.transcribe(&bob).unwrap();
        let full = limits.transcribe_beside(&bob).err().map(|refusal| refusal.limit);
        drop(beside);

        assert_eq!((refused, full), (Some(Limit::UtterancesBeside), Some(Limit::Utterances)));
        assert!(limits.transcribe_beside(&ann).is_ok());
    }
}
