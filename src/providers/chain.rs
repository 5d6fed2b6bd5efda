//! The providers of one role in the order of preference: which of them makes a call, who takes over when it fails, and
//! what is known of their state.
//!
//! The fallback adapters (`stt::fallback`, `llm::fallback`, `tts::fallback`) make the calls. A [`Call`] goes from one
//! provider to the next; each [`Attempt`] reports its outcome to the provider's circuit breaker. Every change of the
//! state is published.

use std::{
    fmt::Write,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    ProviderError,
    circuit_breaker::{CircuitBreaker, Failure, Permit, Position},
    http,
    latency::LatencyWindow,
};
use crate::{clock, telemetry};

/// How long the last provider may take that nobody can take over from. Shorter than the time limits of sessions, so that
/// it counts as a failure of the provider.
const LAST_RESORT_TIMEOUT: Duration = Duration::from_secs(25);

// --- State ----------------------------------------------------------------------------------------

/// What providers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderRole {
    Stt,
    Llm,
    Tts,
}

impl ProviderRole {
    /// As in metrics and `/health`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stt => "stt",
            Self::Llm => "llm",
            Self::Tts => "tts",
        }
    }
}

/// Whether a role works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Ready,
    /// The preferred provider fails, and another has taken over.
    Degraded,
    /// All providers fail.
    Failed,
}

/// The state of a role's providers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStatus {
    pub condition: Condition,
    /// The preferred provider.
    pub provider: &'static str,
    pub taken_over_by: Option<&'static str>,
    /// When the provider that is left alone is tried again; none if the next call does so.
    pub retry_at: Option<Instant>,
    /// Why it is not ready.
    pub message: Option<String>,
}

impl ChainStatus {
    fn ready(provider: &'static str) -> Self {
        Self { condition: Condition::Ready, provider, taken_over_by: None, retry_at: None, message: None }
    }

    /// Whether a client would be told the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (self.condition, self.taken_over_by, self.retry_at.is_some())
            == (other.condition, other.taken_over_by, other.retry_at.is_some())
    }
}

/// What is known of the providers of a role.
pub struct ChainState {
    role: ProviderRole,
    names: Vec<&'static str>,
    health: Mutex<Health>,
    status: watch::Sender<ChainStatus>,
}

#[derive(Default)]
struct Health {
    breakers: Vec<CircuitBreaker>,
    /// Of each, to the first result.
    latencies: Vec<LatencyWindow>,
    /// Why the last call of each failed; none if it did not.
    failures: Vec<Option<String>>,
    /// Which was called last.
    serving: usize,
    /// The last call failed with every provider.
    all_failed: bool,
}

impl ChainState {
    pub(crate) fn new(role: ProviderRole, names: Vec<&'static str>) -> Arc<Self> {
        let preferred = names.first().copied().unwrap_or("none");
        let health = Health {
            breakers: names.iter().map(|_| CircuitBreaker::default()).collect(),
            latencies: names.iter().map(|_| LatencyWindow::default()).collect(),
            failures: vec![None; names.len()],
            ..Health::default()
        };
        Arc::new(Self {
            role,
            names,
            health: Mutex::new(health),
            status: watch::Sender::new(ChainStatus::ready(preferred)),
        })
    }

    pub fn role(&self) -> ProviderRole {
        self.role
    }

    /// The names of the providers, in order of preference.
    pub(crate) fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// The state of a chain that works.
    pub(crate) fn ready(&self) -> ChainStatus {
        ChainStatus::ready(self.names.first().copied().unwrap_or("none"))
    }

    pub fn status(&self) -> ChainStatus {
        self.status.borrow().clone()
    }

    /// Sees every change of the condition, or the last of several.
    pub fn subscribe(&self) -> watch::Receiver<ChainStatus> {
        self.status.subscribe()
    }

    /// The providers that do not work, in words; none if all do.
    pub fn problems(&self) -> Option<String> {
        let (health, status, now) = (self.health.lock(), self.status(), clock::now());
        let mut text = String::new();
        for (at, failure) in health.failures.iter().enumerate() {
            let Some(failure) = failure else { continue };
            let separator = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{separator}{}: {failure}", self.names[at]);
            if let Some(retry_at) = health.breakers[at].retry_at() {
                let seconds = retry_at.saturating_duration_since(now).as_secs();
                let _ = write!(text, " (tried again in {seconds} s)");
            }
        }
        if let Some(other) = status.taken_over_by {
            let _ = write!(text, "; {other} has taken over");
        }
        (!text.is_empty()).then_some(text)
    }

    /// Brings the metrics and the published state up to date.
    fn publish(&self, health: &Health) {
        for (name, breaker) in self.names.iter().zip(&health.breakers) {
            let position = match breaker.position() {
                Position::Closed => 0.0,
                Position::HalfOpen => 1.0,
                Position::Open => 2.0,
            };
            metrics::gauge!(telemetry::BREAKER_STATE, "role" => self.role.name(), "provider" => *name)
                .set(position);
        }
        let Some(new) = self.status_of(health) else { return };
        self.status.send_if_modified(|status| {
            let changed = !status.is_like(&new);
            if changed {
                log(self.role.name(), &new);
                *status = new;
            }
            changed
        });
    }

    /// None while it is not known: the preferred provider is being tried again.
    fn status_of(&self, health: &Health) -> Option<ChainStatus> {
        let provider = *self.names.first()?;
        let retry_at = health.breakers.first()?.retry_at();
        if health.all_failed {
            let causes = self.names.iter().zip(&health.failures);
            let causes: Vec<String> = causes
                .filter_map(|(name, failure)| failure.as_ref().map(|failure| format!("{name}: {failure}")))
                .collect();
            let retry_at = health.breakers.iter().filter_map(CircuitBreaker::retry_at).min();
            return Some(ChainStatus {
                condition: Condition::Failed,
                provider,
                taken_over_by: None,
                retry_at,
                message: Some(causes.join("; ")),
            });
        }
        let Some(failure) = health.failures.first()?.clone() else {
            return Some(ChainStatus::ready(provider));
        };
        (health.serving != 0).then(|| ChainStatus {
            condition: Condition::Degraded,
            provider,
            taken_over_by: Some(self.names[health.serving]),
            retry_at,
            message: Some(failure),
        })
    }

    pub(super) fn count_takeover(&self, from: usize, to: usize) {
        let (from, to) = (self.names[from], self.names[to]);
        metrics::counter!(telemetry::TAKEOVERS, "role" => self.role.name(), "from" => from, "to" => to)
            .increment(1);
    }
}

fn log(role: &str, status: &ChainStatus) {
    let ChainStatus { condition, provider, taken_over_by, retry_at: _, message } = status;
    let (message, taken_over_by) = (message.as_deref().unwrap_or_default(), taken_over_by.unwrap_or("none"));
    match condition {
        Condition::Ready => tracing::info!(role, provider, "provider works"),
        Condition::Degraded => {
            tracing::warn!(role, provider, taken_over_by, cause = message, "provider fails")
        }
        Condition::Failed => tracing::error!(role, cause = message, "all providers fail"),
    }
}

// --- Calls ----------------------------------------------------------------------------------------

/// The providers of one role.
pub(super) struct Chain<T: ?Sized> {
    pub(super) state: Arc<ChainState>,
    /// Not empty.
    pub(super) providers: Arc<[Arc<T>]>,
    /// Which of them are called, in the order of preference. Not empty.
    order: Arc<[usize]>,
    /// Whether another provider is asked beside one that is slow.
    hedges: bool,
}

impl<T: ?Sized> Clone for Chain<T> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            providers: self.providers.clone(),
            order: self.order.clone(),
            hedges: self.hedges,
        }
    }
}

impl<T: ?Sized> Chain<T> {
    pub(super) fn new(role: ProviderRole, providers: Vec<Arc<T>>, name: impl Fn(&T) -> &'static str) -> Self {
        let names = providers.iter().map(|provider| name(provider)).collect();
        let order = (0..providers.len()).collect();
        Self { state: ChainState::new(role, names), providers: providers.into(), order, hedges: false }
    }

    pub(super) fn hedging(self, hedges: bool) -> Self {
        Self { hedges, ..self }
    }

    /// Only these providers, in this order; none if there is none of these names. What is known of each is shared.
    pub(super) fn select(&self, names: &[String]) -> Option<Self> {
        let order: Arc<[usize]> =
            names.iter().filter_map(|name| self.state.names.iter().position(|known| known == name)).collect();
        (!order.is_empty()).then(|| Self { order, ..self.clone() })
    }

    /// The providers that may be called, in the order of preference.
    pub(super) fn chosen(&self) -> impl Iterator<Item = &T> {
        self.order.iter().map(|at| &*self.providers[*at])
    }

    pub(super) fn preferred(&self) -> &T {
        &self.providers[self.order[0]]
    }

    /// The name of the preferred one.
    pub(super) fn name(&self) -> &'static str {
        self.state.names[self.order[0]]
    }

    /// Whether this is the preferred one.
    pub(super) fn is_preferred(&self, attempt: &Attempt) -> bool {
        attempt.provider == self.order[0]
    }

    /// A call for which only the providers that `can` come into question.
    pub(super) fn call(&self, can: impl Fn(&T) -> bool) -> Call {
        let suitable: Vec<_> = self.order.iter().copied().filter(|at| can(&self.providers[*at])).collect();
        Call {
            state: self.state.clone(),
            failed: None,
            // Where some were not asked, their failure is not that of all.
            is_providers_fault: suitable.len() == self.providers.len(),
            untried: suitable,
            error: None,
            may_hedge: self.hedges,
        }
    }
}

/// One call of a role: an utterance, a response or a sentence.
pub(super) struct Call {
    state: Arc<ChainState>,
    /// Providers that were not tried yet.
    untried: Vec<usize>,
    /// The provider that failed last.
    failed: Option<usize>,
    /// All providers are tried, and each failure so far says something about the provider, and not only about the
    /// request.
    is_providers_fault: bool,
    /// Why the last one failed.
    error: Option<ProviderError>,
    /// Another provider may be asked beside the first.
    may_hedge: bool,
}

impl Call {
    /// The next provider to try: the first that may be called, else the first that nothing forbids to call.
    pub(super) fn next(&mut self) -> Option<Attempt> {
        let now = clock::now();
        let mut health = self.state.health.lock();
        let found = self.untried.iter().find_map(|at| Some((*at, health.breakers[*at].permit(now)?)));
        let (at, permit) = found.or_else(|| {
            self.untried.iter().find_map(|at| Some((*at, health.breakers[*at].permit_last_resort(now)?)))
        })?;
        self.untried.retain(|other| *other != at);
        health.serving = at;
        if let Some(failed) = self.failed.take() {
            self.state.count_takeover(failed, at);
        }
        self.state.publish(&health);
        drop(health);
        Some(Attempt::new(&self.state, at, permit, now))
    }

    /// After how long the first provider of the call is slower than usual, if another is then asked beside it.
    pub(super) fn slow_after(&self, attempt: &Attempt) -> Option<Duration> {
        let is_first = self.may_hedge && self.error.is_none();
        is_first.then(|| self.state.health.lock().latencies[attempt.provider].p95())?
    }

    /// The next provider, to be asked beside the first: none but one that works, and only once.
    pub(super) fn hedge(&mut self) -> Option<Attempt> {
        if !std::mem::take(&mut self.may_hedge) {
            return None;
        }
        let now = clock::now();
        let mut health = self.state.health.lock();
        let (at, permit) =
            self.untried.iter().find_map(|at| Some((*at, health.breakers[*at].permit(now)?)))?;
        self.untried.retain(|other| *other != at);
        Some(Attempt::new(&self.state, at, permit, now))
    }

    /// The attempt is given up without an outcome. Its provider comes next, should the one at work fail.
    pub(super) fn put_back(&mut self, attempt: Attempt) {
        self.untried.insert(0, attempt.provider);
        drop(attempt);
    }

    /// A provider that was asked beside the first is the one at work.
    pub(super) fn is_taken_over_by(&mut self, attempt: &Attempt) {
        let mut health = self.state.health.lock();
        health.serving = attempt.provider;
        if let Some(failed) = self.failed.take() {
            self.state.count_takeover(failed, attempt.provider);
        }
        self.state.publish(&health);
    }

    /// Whether another provider could take over.
    pub(super) fn can_go_on(&self) -> bool {
        let (health, now) = (self.state.health.lock(), clock::now());
        self.untried.iter().any(|at| health.breakers[*at].can_be_last_resort(now))
    }

    /// `limit` where another provider could take over, else a longer time.
    pub(super) fn patience(&self, limit: Duration) -> Duration {
        if self.can_go_on() { limit } else { limit.max(LAST_RESORT_TIMEOUT) }
    }

    /// The attempt failed.
    pub(super) fn fail(&mut self, attempt: Attempt, error: ProviderError) {
        tracing::debug!(role = self.state.role.name(), provider = attempt.name(), %error, "attempt failed");
        self.failed = Some(attempt.provider);
        self.is_providers_fault &= failure_of(&error).is_some();
        attempt.failed(&error);
        self.error = Some(error);
    }

    /// The result of another attempt showed that an earlier one failed.
    pub(super) fn overrule(&mut self, failed: Attempt, by: &Attempt, error: &ProviderError) {
        self.state.count_takeover(failed.provider, by.provider);
        failed.failed(error);
    }

    /// There is no provider left: the reason of the last one, or why none was called.
    pub(super) fn exhausted(&mut self) -> ProviderError {
        let mut health = self.state.health.lock();
        if let Some(error) = self.error.take() {
            if self.is_providers_fault {
                health.all_failed = true;
                self.state.publish(&health);
            }
            return error;
        }
        let now = clock::now();
        let retry_at = self.untried.iter().filter_map(|at| health.breakers[*at].retry_at()).min();
        match retry_at {
            Some(retry_at) => ProviderError::RateLimited {
                reason: "every provider asked not to be called".into(),
                retry_after: Some(retry_at.saturating_duration_since(now)),
            },
            None => ProviderError::Unavailable("no provider for this language".into()),
        }
    }
}

/// A call of one provider. Dropped without an outcome, it does not count.
pub(super) struct Attempt {
    state: Arc<ChainState>,
    /// Its place in the chain.
    pub(super) provider: usize,
    pub(super) began: Instant,
    permit: Option<Permit>,
    works: bool,
}

impl Attempt {
    fn new(state: &Arc<ChainState>, provider: usize, permit: Permit, began: Instant) -> Self {
        Self { state: state.clone(), provider, began, permit: Some(permit), works: false }
    }

    pub(super) fn name(&self) -> &'static str {
        self.state.names[self.provider]
    }

    /// The provider gave a first result. It may still fail.
    pub(super) fn works(&mut self) {
        if std::mem::replace(&mut self.works, true) {
            return;
        }
        let Some(permit) = self.permit.replace(Permit::Call) else { return };
        let mut health = self.state.health.lock();
        health.breakers[self.provider].succeeded(permit, clock::now());
        health.failures[self.provider] = None;
        health.all_failed = false;
        health.serving = self.provider;
        self.state.publish(&health);
    }

    /// The time since its beginning counts as the provider's latency.
    pub(super) fn took_so_long(&self) {
        let latency = clock::now().saturating_duration_since(self.began);
        self.state.health.lock().latencies[self.provider].observe(latency);
    }

    /// Counts in a metric of the role.
    pub(super) fn count(&self, metric: &'static str) {
        metrics::counter!(metric, "role" => self.state.role.name()).increment(1);
    }

    fn failed(mut self, error: &ProviderError) {
        let (Some(failure), Some(permit)) = (failure_of(error), self.permit.take()) else { return };
        let mut health = self.state.health.lock();
        health.breakers[self.provider].failed(permit, failure, clock::now());
        health.failures[self.provider] = Some(error.to_string());
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.state.health.lock().breakers[self.provider].released(permit, clock::now());
        }
    }
}

/// What an error says about the provider; none if it is about the request or the moment.
fn failure_of(error: &ProviderError) -> Option<Failure> {
    match error {
        ProviderError::Busy | ProviderError::Limited(_) => None,
        ProviderError::Refused(reason) => http::is_key_refused(reason).then_some(Failure::KeyRefused),
        ProviderError::RateLimited { retry_after, .. } => Some(Failure::RateLimited(*retry_after)),
        ProviderError::Unavailable(_)
        | ProviderError::TimedOut
        | ProviderError::Connection(_)
        | ProviderError::Garbled(_)
        | ProviderError::Empty
        | ProviderError::Inference(_) => Some(Failure::Fault),
    }
}

/// The output, or an error at the deadline.
pub(super) async fn by<O>(
    deadline: Option<Instant>,
    work: impl Future<Output = O>,
) -> Result<O, ProviderError> {
    match deadline {
        None => Ok(work.await),
        Some(at) => tokio::time::timeout_at(at.into(), work).await.map_err(|_| ProviderError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of names.
    fn chain() -> Chain<str> {
        Chain::new(ProviderRole::Llm, vec!["one".into(), "two".into()], |name| {
            if name == "one" { "one" } else { "two" }
        })
    }

    fn lost() -> ProviderError {
        ProviderError::Connection("lost".into())
    }

    fn key() -> ProviderError {
        ProviderError::Refused("HTTP 401: no such key".into())
    }

    /// Lets a call fail at the providers that `error` names, until one works. Who that is.
    fn call(
        chain: &Chain<str>,
        error: impl Fn(&str) -> Option<ProviderError>,
    ) -> Result<&'static str, ProviderError> {
        let mut call = chain.call(|_| true);
        while let Some(mut attempt) = call.next() {
            match error(attempt.name()) {
                Some(error) => call.fail(attempt, error),
                None => {
                    attempt.works();
                    return Ok(attempt.name());
                }
            }
        }
        Err(call.exhausted())
    }

    fn first_fails(name: &str) -> Option<ProviderError> {
        (name == "one").then(lost)
    }

    #[tokio::test(start_paused = true)]
    async fn who_took_over_and_when_the_first_is_tried_again_is_published_and_so_is_recovery() {
        let chain = chain();
        let mut seen = chain.state.subscribe();
        assert_eq!(chain.state.status().condition, Condition::Ready);

        for retry_in_s in [None, None, Some(10)] {
            assert_eq!(call(&chain, first_fails), Ok("two"));
            let ChainStatus { condition, provider, taken_over_by, retry_at, message } = chain.state.status();
            assert_eq!((condition, provider, taken_over_by), (Condition::Degraded, "one", Some("two")));
            assert_eq!(message, Some(lost().to_string()));
            assert_eq!(retry_at.map(|at| (at - clock::now()).as_secs()), retry_in_s);
        }
        assert!(seen.has_changed().unwrap());
        let problems = chain.state.problems().unwrap();
        assert_eq!(problems, "one: connection failed: lost (tried again in 10 s); two has taken over");

        assert_eq!(call(&chain, |_| None), Ok("two"), "the first is left alone");
        tokio::time::advance(Duration::from_secs(10)).await;
        seen.borrow_and_update();
        assert_eq!(call(&chain, |_| None), Ok("one"));

        assert_eq!(seen.borrow_and_update().condition, Condition::Ready);
        assert_eq!(chain.state.problems(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_chain_that_fails_is_tried_again_by_each_call_and_recovers() {
        let chain = chain();
        for _ in 0..5 {
            assert_eq!(call(&chain, |_| Some(lost())), Err(lost()));
            assert_eq!(chain.state.status().condition, Condition::Failed);
        }

        assert_eq!(call(&chain, |_| None), Ok("one"), "an open breaker does not forbid the last resort");
        assert_eq!(chain.state.status().condition, Condition::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_key_is_not_tried_again_by_the_next_call() {
        let chain = chain();
        let key_refused = |name: &str| (name == "one").then(key);
        assert_eq!(call(&chain, key_refused), Ok("two"));

        let tried = Mutex::new(Vec::new());
        let who = call(&chain, |name| {
            tried.lock().push(name.to_owned());
            None
        });

        assert_eq!((who, tried.into_inner()), (Ok("two"), vec!["two".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_refused_says_nothing_about_the_provider() {
        let chain = chain();
        let refused = || ProviderError::Refused("HTTP 400: too long".into());
        for _ in 0..10 {
            assert_eq!(call(&chain, |_| Some(refused())), Err(refused()));
        }

        assert_eq!(chain.state.status().condition, Condition::Ready);
        assert_eq!(call(&chain, |_| None), Ok("one"));
    }

    #[tokio::test(start_paused = true)]
    async fn while_every_provider_asked_not_to_be_called_none_is() {
        let chain = chain();
        let limited = |seconds| ProviderError::RateLimited {
            reason: "quota".into(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        call(&chain, |name| Some(limited(if name == "one" { 30 } else { 20 }))).unwrap_err();

        let refused = call(&chain, |_| panic!("called"));

        let Err(ProviderError::RateLimited { retry_after, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(retry_after, Some(Duration::from_secs(20)));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(call(&chain, |_| None), Ok("two"));
    }

    #[tokio::test(start_paused = true)]
    async fn providers_that_do_not_suit_are_not_called() {
        let chain = chain();

        assert_eq!(chain.call(|name| name == "two").next().unwrap().name(), "two");
        let mut none = chain.call(|_| false);
        assert!(none.next().is_none());
        assert!(matches!(none.exhausted(), ProviderError::Unavailable(_)));
        assert_eq!(chain.state.status().condition, Condition::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn a_selection_calls_its_providers_in_its_own_order_and_knows_what_others_learned() {
        let chain = chain();
        let select =
            |names: &[&str]| chain.select(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let reversed = select(&["two", "one"]).unwrap();
        assert_eq!((reversed.name(), reversed.preferred()), ("two", "two"));
        assert_eq!(call(&reversed, |name| (name == "two").then(key)), Ok("one"));

        let tried = Mutex::new(Vec::new());
        call(&select(&["two", "one", "hal"]).unwrap(), |name| {
            tried.lock().push(name.to_owned());
            None
        })
        .unwrap();

        assert_eq!(tried.into_inner(), ["one"], "the key of two was refused");
        assert!(select(&["hal"]).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_selection_that_fails_is_not_the_failure_of_the_role() {
        let chain = chain();

        assert_eq!(call(&chain.select(&["two".into()]).unwrap(), |_| Some(lost())), Err(lost()));

        assert_eq!(chain.state.status().condition, Condition::Ready);
        assert_eq!(chain.state.problems().unwrap(), format!("two: {}", lost()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_does_not_block_the_next_one() {
        let chain = chain();
        for _ in 0..3 {
            call(&chain, first_fails).unwrap();
        }
        tokio::time::advance(Duration::from_secs(10)).await;

        for _ in 0..2 {
            assert_eq!(chain.call(|_| true).next().unwrap().name(), "one");
        }
    }
}
