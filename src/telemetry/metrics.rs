//! Every metric: its name, kind, help and known labels in one table. Each counts things.
//!
//! All of them are registered at the start, so that the first scrape has them, at zero. docs/OPERATIONS.md says what to
//! do about each.

use std::sync::OnceLock;

use ::metrics::{Label, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::limits;

pub(crate) const SESSIONS: &str = "june_sessions";
pub(crate) const SOCKETS: &str = "june_sockets";
pub(crate) const SLOW_CLIENTS: &str = "june_slow_clients_total";
pub(crate) const MALFORMED_MESSAGES: &str = "june_malformed_messages_total";
pub(crate) const UNKNOWN_MESSAGES: &str = "june_unknown_messages_total";
pub(crate) const FLOODED_MESSAGES: &str = "june_flooded_messages_total";
pub(crate) const CONNECTS_REFUSED: &str = "june_connects_refused_total";
pub(crate) const CONNECTIONS: &str = "june_connections";
pub(crate) const CONNECTIONS_REFUSED: &str = "june_connections_refused_total";
pub(crate) const CONNECTIONS_TIMED_OUT: &str = "june_connections_timed_out_total";
pub(crate) const UPLINK_LOST: &str = "june_uplink_frames_lost_total";
pub(crate) const UPLINK_STALE: &str = "june_uplink_frames_stale_total";
pub(crate) const PACKETS_LOST: &str = "june_packets_lost_total";
pub(crate) const PACKETS_STALE: &str = "june_packets_stale_total";
pub(crate) const PACKETS_SPOOFED: &str = "june_packets_spoofed_total";
pub(crate) const PACKET_SAMPLES_DROPPED: &str = "june_packet_samples_dropped_total";
pub(crate) const AGENT_AUDIO_DROPPED: &str = "june_agent_audio_dropped_total";
pub(crate) const AGENT_LOST: &str = "june_agent_lost_total";
pub(crate) const STT_AUDIO_DROPPED: &str = "june_stt_audio_dropped_total";
pub(crate) const SPEECH_DROPPED: &str = "june_speech_dropped_total";
pub(crate) const CLIPS_FAILED: &str = "june_clips_failed_total";
pub(crate) const CONSUMERS: &str = "june_consumers";
pub(crate) const CONSUMER_DROPPED: &str = "june_consumer_messages_dropped_total";
pub(crate) const ROOMS: &str = "june_rooms";
pub(crate) const EVENT_STREAMS: &str = "june_event_streams";
pub(crate) const WATCHERS_BEHIND: &str = "june_room_watchers_behind_total";
pub(crate) const ROSTER_DRIFT: &str = "june_roster_drift_total";
pub(crate) const ROSTER_LISTS: &str = "june_roster_lists_total";
pub(crate) const TURNED_AWAY: &str = "june_turned_away_total";
pub(crate) const WEBHOOKS: &str = "june_webhooks_total";
pub(crate) const KEY_SETS: &str = "june_key_sets_total";
pub(crate) const STORE_ERRORS: &str = "june_store_errors_total";
pub(crate) const STORE_READY: &str = "june_store_ready";
pub(crate) const STORE_FREE_BYTES: &str = "june_store_free_bytes";
pub(crate) const STORE_LAST_FSYNC: &str = "june_store_last_fsync_timestamp_seconds";
pub(crate) const STORE_REOPENS: &str = "june_store_reopens_total";
pub(crate) const HISTORY_UNSAVED: &str = "june_history_unsaved_total";
pub(crate) const STORE_LOST_WRITES: &str = "june_store_lost_writes_total";
pub(crate) const PARTS_READY: &str = "june_part_ready";
pub(crate) const CALLS_SUCCEEDED: &str = "june_calls_succeeded_total";
pub(crate) const CALLS_FAILED: &str = "june_calls_failed_total";
pub(crate) const TAKEOVERS: &str = "june_provider_takeovers_total";
pub(crate) const HEDGES: &str = "june_provider_hedges_total";
pub(crate) const HEDGES_WON: &str = "june_provider_hedges_won_total";
pub(crate) const BREAKER_STATE: &str = "june_provider_breaker_state";
pub(crate) const MEMORY_RESIDENT: &str = "june_memory_resident_bytes";
pub(crate) const MEMORY_LIMIT: &str = "june_memory_limit_bytes";
pub(crate) const AUTH_FAILURES: &str = "june_auth_failures_total";
pub(crate) const FOREIGN_REQUESTS: &str = "june_foreign_requests_total";
pub(crate) const CHAT_ANSWERS: &str = "june_chat_answers_total";
pub(crate) const STT_WEBHOOKS: &str = "june_stt_webhooks_total";
pub(crate) const LIMIT_REFUSALS: &str = "june_limit_refusals_total";
pub(crate) const LIMIT_USED: &str = "june_limit_used";
pub(crate) const LIMIT_MAX: &str = "june_limit_max";
pub(crate) const LLM_CALLS: &str = "june_llm_calls_total";
pub(crate) const LLM_TOKENS: &str = "june_llm_tokens_total";
pub(crate) const PREEMPTIONS: &str = "june_preemptions_total";
pub(crate) const PREEMPTIONS_WASTED: &str = "june_preemptions_wasted_total";
pub(crate) const TOOL_CALLS: &str = "june_tool_calls_total";
pub(crate) const TOOL_MILLISECONDS: &str = "june_tool_call_milliseconds_total";

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    /// A label and its known values. Further values appear when they occur.
    label: Option<(&'static str, &'static [&'static str])>,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help, label: None }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help, label: None }
}

impl Metric {
    const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((label, values)), ..self }
    }
}

const METRICS: &[Metric] = &[
    gauge(SESSIONS, "Sessions on this machine, attached or within their grace."),
    gauge(SOCKETS, "Open control channels."),
    counter(SLOW_CLIENTS, "Clients that were disconnected because they did not read."),
    counter(MALFORMED_MESSAGES, "Messages and frames of clients that could not be decoded."),
    counter(UNKNOWN_MESSAGES, "Messages of types that are only passed on to consumers."),
    counter(FLOODED_MESSAGES, "Messages and frames that were dropped because a client sent too many."),
    counter(CONNECTS_REFUSED, "Connects that were refused by a rate limit.").by("by", &["user", "address"]),
    gauge(CONNECTIONS, "Open connections of clients, of HTTP and WebSockets."),
    counter(CONNECTIONS_REFUSED, "Connections that were refused because too many were open.")
        .by("by", &["all", "address"]),
    counter(
        CONNECTIONS_TIMED_OUT,
        "Connections that were ended because the client kept the gateway waiting.",
    )
    .by("for", &["head", "body", "write", "frame"]),
    counter(UPLINK_LOST, "Audio frames on control channels that never arrived."),
    counter(UPLINK_STALE, "Audio frames on control channels that arrived twice or too late."),
    counter(PACKETS_LOST, "Audio data packets in rooms that never arrived."),
    counter(PACKETS_STALE, "Audio data packets in rooms that arrived twice or too late."),
    counter(PACKETS_SPOOFED, "Audio data packets in rooms that were not sent by the session's user."),
    counter(
        PACKET_SAMPLES_DROPPED,
        "Samples of data packets that were dropped because their buffer was full.",
    ),
    counter(AGENT_AUDIO_DROPPED, "Chunks of room audio that were dropped because the session was too slow."),
    counter(AGENT_LOST, "Times that an agent lost its room, or could not join it."),
    counter(STT_AUDIO_DROPPED, "Chunks of audio that were dropped because STT was too slow."),
    counter(SPEECH_DROPPED, "Frames of speech that a room did not accept."),
    counter(CLIPS_FAILED, "Spoken answers that a phone could not play."),
    gauge(CONSUMERS, "Connected consumers."),
    counter(CONSUMER_DROPPED, "Messages that were dropped because a consumer did not read."),
    gauge(ROOMS, "Rooms in memory."),
    gauge(EVENT_STREAMS, "Open event streams."),
    counter(WATCHERS_BEHIND, "Updates of a room that a subscriber was too slow for; it gets a snapshot."),
    counter(ROSTER_DRIFT, "Corrections of a room's participants and tracks by LiveKit's list."),
    counter(ROSTER_LISTS, "Calls of LiveKit's API for the participants of a room.")
        .by("outcome", &["answered", "failed"]),
    counter(TURNED_AWAY, "Removals of participants who came back although they had been removed."),
    counter(WEBHOOKS, "Webhooks of LiveKit, by what became of them; a code is a refusal.")
        .by("outcome", &["taken", "ignored", "duplicate", "INVALID_TOKEN", "OVERLOADED"]),
    counter(STORE_ERRORS, "Writes, syncs and attempts to open the database that failed."),
    gauge(STORE_READY, "1 if the store takes writes, else 0."),
    gauge(STORE_FREE_BYTES, "Free space of DATA_DIR."),
    gauge(STORE_LAST_FSYNC, "When the last fsync of the store succeeded, in seconds since the Unix epoch."),
    counter(HISTORY_UNSAVED, "Lines of conversation that could not be saved."),
    counter(STORE_REOPENS, "Times that the database was opened again after the disk had failed."),
    counter(
        STORE_LOST_WRITES,
        "Acknowledged writes that were missing when the database was opened, at most.",
    ),
    gauge(PARTS_READY, "1 if a part is ready, else 0, as /health reports it.")
        .by("role", &["livekit", "vad", "turn", "stt", "llm", "tts", "store", "memory"]),
    counter(CALLS_SUCCEEDED, "Calls of LiveKit and of providers that succeeded.")
        .by("role", &["livekit", "turn", "stt", "llm", "tts"]),
    counter(CALLS_FAILED, "Calls of LiveKit and of providers that failed.")
        .by("role", &["livekit", "turn", "stt", "llm", "tts"]),
    counter(TAKEOVERS, "Calls that another provider took over because one failed, by role, from and to.")
        .by("role", &["stt", "llm", "tts"]),
    counter(HEDGES, "Calls in which another provider was asked beside one that was slower than usual.")
        .by("role", &["llm", "tts"]),
    counter(HEDGES_WON, "Those in which the other provider gave its first result first.")
        .by("role", &["llm", "tts"]),
    gauge(
        BREAKER_STATE,
        "Whether a provider is called, by role and provider: 0 yes, 1 being tried again, 2 left alone after failures.",
    )
    .by("role", &["stt", "llm", "tts"]),
    gauge(MEMORY_RESIDENT, "Memory of the process that is resident."),
    gauge(
        MEMORY_LIMIT,
        "Memory that the process may use: its control group's limit, or the machine's memory.",
    ),
    counter(KEY_SETS, "Fetches of the identity provider's key set.").by("outcome", &["answered", "failed"]),
    counter(AUTH_FAILURES, "Requests with a wrong key or token, refused with 401 or limited with 429.")
        .by("outcome", &["refused", "limited"]),
    counter(FOREIGN_REQUESTS, "Requests that were refused for the page or the name that they came by.")
        .by("by", &["host", "origin"]),
    counter(PREEMPTIONS, "Answers that were prepared at a likely end of a turn."),
    counter(PREEMPTIONS_WASTED, "Prepared answers that were thrown away: the user went on, or said other words."),
    counter(CHAT_ANSWERS, "Lines that were asked over REST.")
        .by("outcome", &["answered", "failed", "refused", "withdrawn"]),
    counter(STT_WEBHOOKS, "Messages of STT services on the webhooks, by outcome or error code."),
    counter(LIMIT_REFUSALS, "What was refused, cut or dropped because a limit was reached (docs/LIMITS.md).")
        .by("limit", &limits::LABELS),
    gauge(LIMIT_USED, "What is held of what is limited for the whole gateway.").by("limit", &limits::GAUGES),
    gauge(LIMIT_MAX, "The limit of that; 0 is no limit.").by("limit", &limits::GAUGES),
    counter(LLM_CALLS, "Calls of the language model."),
    counter(LLM_TOKENS, "Tokens of the language model, as its provider reports them, else estimated."),
    counter(TOOL_CALLS, "Calls of tools by the language model, by who answers them and what came of them.")
        .by("kind", &["client", "webhook", "mcp"]),
    counter(TOOL_MILLISECONDS, "Time that calls of tools took, in milliseconds.")
        .by("kind", &["client", "webhook", "mcp"]),
];

/// Starts collecting metrics; they are rendered through the handle.
pub(crate) fn start_metrics() -> PrometheusHandle {
    // Metrics are global to a process: several gateways in it, as in tests, share them.
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let start = || {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        ::metrics::set_global_recorder(recorder).expect("nothing else sets a recorder");
        METRICS.iter().for_each(register);
        handle
    };
    HANDLE.get_or_init(start).clone()
}

/// Describes a metric, and registers it with each known value of its label: a handle alone makes it appear, at zero.
fn register(metric: &Metric) {
    let Metric { name, kind, help, label } = metric;
    let help = SharedString::const_str(help);
    match kind {
        Kind::Counter => ::metrics::describe_counter!(*name, Unit::Count, help),
        Kind::Gauge => ::metrics::describe_gauge!(*name, Unit::Count, help),
    }
    let labels: Vec<Vec<Label>> = match label {
        Some((key, values)) => {
            values.iter().map(|value| vec![Label::from_static_parts(key, value)]).collect()
        }
        None => vec![Vec::new()],
    };
    for labels in labels {
        match kind {
            Kind::Counter => drop(::metrics::counter!(*name, labels)),
            Kind::Gauge => drop(::metrics::gauge!(*name, labels)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names of this file's constants.
    fn constants() -> BTreeSet<&'static str> {
        let source = include_str!("metrics.rs");
        let constants = source.lines().filter_map(|line| line.strip_prefix("pub(crate) const "));
        constants.filter_map(|line| line.split('"').nth(1)).collect()
    }

    #[test]
    fn the_first_scrape_has_every_metric_with_its_help_and_type() {
        let scrape = start_metrics().render();

        let described: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(described, constants());
        for metric in METRICS {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let name = metric.name;
            assert!(scrape.contains(&format!("# HELP {name} {}\n", metric.help)), "{name}: {scrape}");
            assert!(scrape.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {scrape}");
            let (label, values) = metric.label.unwrap_or(("", &[]));
            let series: Vec<String> = if values.is_empty() {
                vec![format!("\n{name} ")]
            } else {
                values.iter().map(|value| format!("\n{name}{{{label}=\"{value}\"}} ")).collect()
            };
            for series in series {
                assert!(scrape.contains(&series), "{series}: {scrape}");
            }
        }
    }

    #[test]
    fn the_page_for_operators_explains_every_metric() {
        let page = include_str!("../../docs/OPERATIONS.md");
        for name in constants() {
            assert!(page.contains(&format!("`{name}")), "{name}");
        }
    }
}
