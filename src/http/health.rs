//! Probes, health and metrics, for operators.
//!
//! `/readyz` is for whatever routes clients to gateways: 503 while this one should get no new ones. `/health` and the
//! metrics are for people: every part, with a reason in words where it is not ready.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::{
    clock,
    http::AppState,
    outcomes::Outcomes,
    providers::chain::{ChainState, Condition},
    store::disk_health::DiskHealth,
    telemetry::{self, memory::Memory},
};

/// The share of its memory limit, in percent, beyond which a gateway takes no new clients: the system ends a
/// process that reaches it.
const MAX_MEMORY_PERCENT: u64 = 95;

/// A part of the pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The older names of the roles, kept for compatibility: `livekit`, `vad`, `transcriber`, `thinker`, `speaker`;
    /// later roles have one name only.
    pub part: &'static str,
    /// `livekit`, `vad`, `turn`, `stt`, `llm`, `tts`, `store`, `memory`
    pub role: &'static str,
    pub provider: String,
    pub ready: bool,
    /// Why it is not ready, or what an operator should know, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What is known of every part.
pub(crate) struct Health {
    /// LiveKit and the providers, as they were configured and loaded.
    configured: Vec<Part>,
    outcomes: Outcomes,
    /// Of the roles that have providers.
    chains: Vec<Arc<ChainState>>,
    disk: Arc<DiskHealth>,
    /// The free space under which an operator is warned, in bytes.
    free_warn_bytes: u64,
}

impl Health {
    pub(crate) fn new(
        configured: Vec<Part>,
        outcomes: Outcomes,
        chains: Vec<Arc<ChainState>>,
        disk: Arc<DiskHealth>,
        free_warn_bytes: u64,
    ) -> Self {
        Self { configured, outcomes, chains, disk, free_warn_bytes }
    }

    /// Every part as it is now. Their metrics are brought up to date.
    fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.configured.iter().map(|part| self.by_last_outcome(part)).collect();
        parts.push(self.store());
        parts.extend(Memory::now().map(memory));
        for part in &parts {
            metrics::gauge!(telemetry::PARTS_READY, "role" => part.role).set(f64::from(u8::from(part.ready)));
        }
        parts
    }

    /// Why the gateway should get no new clients now. LiveKit and providers are no reasons: sessions go on without
    /// them, other gateways use the same ones, and they are tried again by themselves.
    fn refusals(&self) -> Vec<String> {
        let parts = [Some(self.store()), Memory::now().map(memory)];
        let not_ready = parts.into_iter().flatten().filter(|part| !part.ready);
        not_ready.map(|part| format!("{}: {}", part.role, part.message.unwrap_or_default())).collect()
    }

    /// A part that is configured is ready if its last call succeeded.
    fn by_last_outcome(&self, part: &Part) -> Part {
        let Some(outcome) = self.outcomes.of(part.role).filter(|_| part.ready) else { return part.clone() };
        let problem = match outcome.last() {
            Some(last) => last
                .failure
                .map(|failure| format!("the last call failed ({}): {failure}", clock::timestamp(last.at_ms))),
            // It is called soon after the start, whether or not there are sessions.
            None if part.role == "livekit" => Some("not reached yet".into()),
            None => None,
        };
        let ready = problem.is_none();
        let providers = self.chain(part.role).and_then(|chain| chain.problems());
        let messages: Vec<String> =
            [problem, providers, part.message.clone()].into_iter().flatten().collect();
        Part { ready, message: (!messages.is_empty()).then(|| messages.join("; ")), ..part.clone() }
    }

    fn chain(&self, role: &str) -> Option<&Arc<ChainState>> {
        self.chains.iter().find(|chain| chain.role().name() == role)
    }

    /// Every part is ready, and each role works by its preferred provider.
    fn is_well(&self, parts: &[Part]) -> bool {
        parts.iter().all(|part| part.ready)
            && self.chains.iter().all(|chain| chain.status().condition == Condition::Ready)
    }

    fn store(&self) -> Part {
        let report = self.disk.report(self.free_warn_bytes);
        let ready = report.failure.is_none();
        Part {
            part: "store",
            role: "store",
            provider: "sled".into(),
            ready,
            message: report.failure.or(report.warning),
        }
    }
}

fn memory(memory: Memory) -> Part {
    metrics::gauge!(telemetry::MEMORY_RESIDENT).set(memory.resident as f64);
    metrics::gauge!(telemetry::MEMORY_LIMIT).set(memory.limit as f64);
    let percent = memory.percent();
    let message = format!("{percent} % of {} MB are in use", memory.limit >> 20);
    let ready = percent <= MAX_MEMORY_PERCENT;
    Part {
        part: "memory",
        role: "memory",
        provider: "process".into(),
        ready,
        message: (!ready).then_some(message),
    }
}

/// `GET /livez`
pub(super) async fn live() -> &'static str {
    "ok"
}

/// `GET /readyz`: 503 with the reasons, one a line, if the gateway should get no new clients.
pub(super) async fn ready(app: web::Data<AppState>) -> HttpResponse {
    let mut reasons = Vec::new();
    if app.is_draining() {
        reasons.push("draining".to_owned());
    }
    reasons.extend(app.health.refusals());
    match reasons.is_empty() {
        true => HttpResponse::Ok().body("ok"),
        false => HttpResponse::ServiceUnavailable().body(reasons.join("\n")),
    }
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    version: &'static str,
    sessions: usize,
    parts: Vec<Part>,
}

/// `GET /health`
pub(super) async fn report(app: web::Data<AppState>) -> HttpResponse {
    let parts = app.health.parts();
    let is_well = app.health.is_well(&parts);
    HttpResponse::Ok().json(Report {
        status: match (app.is_draining(), is_well) {
            (true, _) => "draining",
            (false, true) => "ok",
            (false, false) => "degraded",
        },
        version: env!("CARGO_PKG_VERSION"),
        sessions: app.registry.count(),
        parts,
    })
}

/// `GET /metrics` of the main port, by API key.
pub(super) async fn metrics(app: web::Data<AppState>) -> HttpResponse {
    metrics_for_operators(app).await
}

/// `GET /metrics` of the separate port, which only operators reach.
pub(super) async fn metrics_for_operators(app: web::Data<AppState>) -> HttpResponse {
    // Sets the gauges of the parts.
    app.health.parts();
    app.limits.report();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(app.metrics.render())
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::providers::{
        ProviderError,
        llm::{LanguageModel, Prompt, fallback::LlmChain},
        testing::{At, Fault, ScriptedLlm, deadlines},
    };

    fn part(role: &'static str, ready: bool) -> Part {
        Part { part: role, role, provider: "one".into(), ready, message: None }
    }

    fn health() -> Health {
        let configured = ["livekit", "llm", "tts"].map(|role| part(role, role != "tts"));
        Health::new(configured.into(), Outcomes::default(), Vec::new(), Arc::default(), 0)
    }

    fn of(health: &Health, role: &str) -> (bool, String) {
        let part = health.parts().into_iter().find(|part| part.role == role).unwrap();
        (part.ready, part.message.unwrap_or_default())
    }

    #[test]
    fn livekit_and_providers_are_ready_by_their_last_real_outcome_and_do_not_take_the_gateway_out() {
        let health = health();
        assert_eq!(of(&health, "livekit"), (false, "not reached yet".into()));
        assert_eq!(of(&health, "llm"), (true, String::new()));

        health.outcomes.livekit.succeeded();
        health.outcomes.llm.failed("refused: no quota");
        health.outcomes.tts.succeeded();

        assert_eq!(of(&health, "livekit"), (true, String::new()));
        let (ready, message) = of(&health, "llm");
        assert!(!ready && message.contains("refused: no quota"), "{message}");
        assert!(!of(&health, "tts").0, "what is off stays off");
        assert_eq!(health.refusals(), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_another_took_over_from_is_named_with_the_reason() {
        let lost = Fault::Fails(ProviderError::Connection("lost".into()));
        let first = ScriptedLlm::new("first", "One.", [Some(At(0, lost))]);
        let second = ScriptedLlm::new("second", "One.", []);
        let chain = LlmChain::new(vec![Arc::new(first), Arc::new(second)], deadlines());
        let health = Health { chains: vec![chain.state()], ..health() };
        let is_well = || health.is_well(&[part("llm", true)]);
        assert!(is_well());

        chain.respond(Prompt::default()).collect::<Vec<_>>().await;

        let message = "first: connection failed: lost; second has taken over";
        assert_eq!(of(&health, "llm"), (true, message.to_owned()));
        assert!(!is_well(), "the gateway works, but not as it was configured");

        chain.respond(Prompt::default()).collect::<Vec<_>>().await;

        assert_eq!(of(&health, "llm"), (true, String::new()));
        assert!(is_well());
    }

    #[test]
    fn a_failing_disk_takes_the_gateway_out_and_says_why() {
        let health = health();
        health.disk.failed("the disk is full");

        let refusals = health.refusals();

        assert!(
            matches!(&refusals[..], [only] if only.starts_with("store: the disk is full")),
            "{refusals:?}"
        );
        assert!(!of(&health, "store").0);

        health.disk.opened();
        assert_eq!(health.refusals(), Vec::<String>::new());
    }

    #[test]
    fn memory_near_its_limit_is_a_reason() {
        assert!(memory(Memory { resident: 95, limit: 100 }).ready);
        let full = memory(Memory { resident: 96 << 20, limit: 100 << 20 });
        assert_eq!((full.ready, full.message.as_deref()), (false, Some("96 % of 100 MB are in use")));
    }
}
