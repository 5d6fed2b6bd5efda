//! Logs and metrics: how they are set up, and the metrics' names in one place.

use std::{io::IsTerminal, sync::OnceLock};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogConfig;

/// Sessions at work (gauge).
pub const SESSIONS: &str = "june_sessions";
/// Control channels that are open (gauge).
pub const SOCKETS: &str = "june_sockets";
/// Clients that were cut because they did not read.
pub const SLOW_CLIENTS: &str = "june_slow_clients_total";
/// Messages that could not be read.
pub const MALFORMED_MESSAGES: &str = "june_malformed_messages_total";
/// Clips that a client could not play.
pub const CLIPS_FAILED: &str = "june_clips_failed_total";
/// Consumers that are attached (gauge).
pub const CONSUMERS: &str = "june_consumers";
/// Messages that a consumer had no room for.
pub const CONSUMER_DROPPED: &str = "june_consumer_messages_dropped_total";
/// Messages of a type this gateway does not act on: they are passed on.
pub const UNKNOWN_MESSAGES: &str = "june_unknown_messages_total";
/// Messages that a session had no room for.
pub const FLOODED_MESSAGES: &str = "june_flooded_messages_total";
/// Binary frames that were missing.
pub const UPLINK_LOST: &str = "june_uplink_frames_lost_total";
/// Binary frames that had been seen.
pub const UPLINK_STALE: &str = "june_uplink_frames_stale_total";
/// Data packets of microphones that were missing.
pub const PACKETS_LOST: &str = "june_packets_lost_total";
/// Data packets of microphones that came twice or were overtaken.
pub const PACKETS_STALE: &str = "june_packets_stale_total";
/// Data packets that were not from the user's own client.
pub const PACKETS_SPOOFED: &str = "june_packets_spoofed_total";
/// Samples of data packets that there was no room for.
pub const PACKET_SAMPLES_DROPPED: &str = "june_packet_samples_dropped_total";
/// Runs of sound that a session was too slow for.
pub const AGENT_AUDIO_DROPPED: &str = "june_agent_audio_dropped_total";
/// Times that an agent was not in its room although it should be.
pub const AGENT_LOST: &str = "june_agent_lost_total";
/// Runs of sound that the transcriber had no room for.
pub const STT_AUDIO_DROPPED: &str = "june_stt_audio_dropped_total";
/// Frames of speech that a room had no room for.
pub const SPEECH_DROPPED: &str = "june_speech_dropped_total";
/// Updates that a watcher of a room had no room for.
pub const WATCHERS_BEHIND: &str = "june_room_watchers_behind_total";
/// Participants and tracks that a room had wrong until LiveKit's list put them right.
pub const ROSTER_DRIFT: &str = "june_roster_drift_total";
/// Times that LiveKit was asked who is in a room, by what came of it.
pub const ROSTER_LISTS: &str = "june_roster_lists_total";
/// Event streams that are open (gauge).
pub const EVENT_STREAMS: &str = "june_event_streams";
/// Rooms in memory (gauge).
pub const ROOMS: &str = "june_rooms";
/// People who were removed from a room, came back, and were removed again.
pub const TURNED_AWAY: &str = "june_turned_away_total";
/// Webhooks by what became of them.
pub const WEBHOOKS: &str = "june_webhooks_total";

/// Attempts to open a control channel that came too soon, by whose they were.
pub const CONNECTS_REFUSED: &str = "june_connects_refused_total";
/// Times that an identity provider was asked for its keys, by what came of it.
pub const KEY_SETS: &str = "june_key_sets_total";

/// Starts logging to standard error. Once a process; a second call changes nothing.
pub fn start_logs(log: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.filter).map_err(|error| format!("RUST_LOG: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    // A second gateway in one process, as in tests, logs where the first does.
    let _ = if log.json {
        registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        let colours = std::io::stderr().is_terminal();
        registry
            .with(fmt::layer().with_target(false).with_ansi(colours).with_writer(std::io::stderr))
            .try_init()
    };
    Ok(())
}

/// Starts collecting metrics; what was collected is read through the handle.
pub fn start_metrics() -> PrometheusHandle {
    // Metrics are global to a process: a second gateway in it, as in tests, reports the figures of both.
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let start = || {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).expect("nobody else sets a recorder");
        handle
    };
    HANDLE.get_or_init(start).clone()
}
