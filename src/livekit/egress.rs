//! Recordings of rooms, made by LiveKit's egress service (docs.livekit.io, "Egress API").
//!
//! That service records in a process of its own, started by LiveKit. Where it stores files (a folder, S3) is part
//! of its own configuration, so the gateway needs no storage credentials. The gateway chooses the path.

use std::time::Duration;

use livekit_api::services::{
    ServerErrorCode, ServiceError,
    egress::{EgressClient, EgressListFilter, EgressListOptions, EgressOutput, RoomCompositeOptions},
};
use livekit_protocol as proto;
use serde::Serialize;

use crate::{
    clock,
    config::LivekitConfig,
    error::{ApiError, Code},
    ids::RoomName,
    livekit::api::{answered, unreachable},
};

/// How long a call may take. LiveKit waits up to 24 s for an egress service to accept a job.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The egress API of one LiveKit.
pub struct Egress {
    egress: EgressClient,
    /// The beginning of every path, `recordings/`.
    file_prefix: String,
}

/// A recording, under way or done.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Recording {
    /// LiveKit's id of it.
    pub egress_id: String,
    /// Of which room.
    pub room_name: String,
    /// `starting`, `active`, `ending`, `complete`, `failed`, `aborted`, `limit_reached`
    pub status: String,
    /// RFC 3339; null while it has not begun.
    pub started_at: Option<String>,
    /// RFC 3339; null while it has not ended.
    pub ended_at: Option<String>,
    /// What it wrote, or will write.
    pub files: Vec<RecordedFile>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A file of a recording.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RecordedFile {
    /// The path it was given.
    pub path: String,
    /// Where it is, by the egress service; empty until it is there.
    pub location: String,
    /// How much sound is in it.
    pub duration_ms: i64,
    /// In bytes.
    pub size: i64,
}

impl Egress {
    /// Recordings by this LiveKit; nothing is called yet.
    pub fn new(livekit: &LivekitConfig, file_prefix: String) -> Self {
        let egress =
            EgressClient::with_api_key(&livekit.internal_url, &livekit.api_key, livekit.api_secret.expose())
                .with_request_timeout(TIMEOUT);
        Self { egress, file_prefix }
    }

    /// Starts to record everybody in a room: audio as OGG, or audio and video as MP4.
    pub async fn start(&self, room: &RoomName, audio_only: bool) -> Result<Recording, ApiError> {
        let (file_type, end) = if audio_only {
            (proto::EncodedFileType::Ogg, "ogg")
        } else {
            (proto::EncodedFileType::Mp4, "mp4")
        };
        let path = format!("{}{}-{}.{end}", self.file_prefix, file_name(room), clock::unix_ms());
        let file = proto::EncodedFileOutput {
            file_type: file_type.into(),
            filepath: path,
            ..proto::EncodedFileOutput::default()
        };
        // A LiveKit without Redis cannot reach an egress service: a list fails at once, a start only after a wait.
        self.list(Some(room)).await?;
        let options = RoomCompositeOptions { audio_only, ..RoomCompositeOptions::default() };
        let started = self
            .egress
            .start_room_composite_egress(room.as_str(), vec![EgressOutput::File(file)], options)
            .await;
        started.map(|info| recording(&info)).map_err(|error| refused(&error))
    }

    /// Stops a recording.
    pub async fn stop(&self, egress_id: &str) -> Result<Recording, ApiError> {
        let stopped = self.egress.stop_egress(egress_id).await;
        stopped.map(|info| recording(&info)).map_err(|error| refused(&error))
    }

    /// Recordings of one room, or of all.
    pub async fn list(&self, room: Option<&RoomName>) -> Result<Vec<Recording>, ApiError> {
        let filter = room.map_or(EgressListFilter::All, |room| EgressListFilter::Room(room.to_string()));
        let listed = self.egress.list_egress(EgressListOptions { filter, ..Default::default() }).await;
        listed.map(|all| all.iter().map(recording).collect()).map_err(|error| refused(&error))
    }
}

/// A room's name as a part of a file name, without path separators.
fn file_name(room: &RoomName) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    room.as_str().chars().map(plain).collect()
}

/// LiveKit's times of recordings are nanoseconds since the Unix epoch, zero for none.
fn time(nanoseconds: i64) -> Option<String> {
    u64::try_from(nanoseconds / 1_000_000).ok().filter(|millis| *millis > 0).map(clock::timestamp)
}

fn recording(info: &proto::EgressInfo) -> Recording {
    let files = info.file_results.iter().map(|file| RecordedFile {
        path: file.filename.clone(),
        location: file.location.clone(),
        duration_ms: file.duration / 1_000_000,
        size: file.size,
    });
    Recording {
        egress_id: info.egress_id.clone(),
        room_name: info.room_name.clone(),
        status: info.status().as_str_name().trim_start_matches("EGRESS_").to_ascii_lowercase(),
        started_at: time(info.started_at),
        ended_at: time(info.ended_at),
        files: files.collect(),
        error: Some(info.error.clone()).filter(|error| !error.is_empty()),
    }
}

/// What LiveKit's error means to an operator.
fn refused(error: &ServiceError) -> ApiError {
    let Some(ServerErrorCode { code, msg, .. }) = answered(error) else {
        return unreachable(error);
    };
    tracing::warn!(%error, "LiveKit does not record");
    match code.as_str() {
        ServerErrorCode::NOT_FOUND => {
            ApiError::new(Code::NotFound, "LiveKit knows no such recording, or no such room")
        }
        ServerErrorCode::INVALID_ARGUMENT => ApiError::new(Code::InvalidRequest, format!("LiveKit: {msg}")),
        // A recording that has ended cannot be stopped.
        ServerErrorCode::FAILED_PRECONDITION => ApiError::new(Code::SessionError, format!("LiveKit: {msg}")),
        // `internal`: no Redis, and so no egress service. `unavailable`, `resource_exhausted`: none that runs, or
        // none with capacity.
        ServerErrorCode::INTERNAL
        | ServerErrorCode::UNAVAILABLE
        | ServerErrorCode::DEADLINE_EXCEEDED
        | ServerErrorCode::UNIMPLEMENTED
        | ServerErrorCode::RESOURCE_EXHAUSTED => ApiError::new(
            Code::RecordingUnavailable,
            format!("LiveKit has no egress service that could record ({msg}); everything else still works"),
        ),
        _ => unreachable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_has_no_path_separators() {
        let name = |room: &str| file_name(&RoomName::parse(room).unwrap());
        assert_eq!(name("room-john_doe-abc123"), "room-john_doe-abc123");
        assert_eq!(name("../../etc/passwd"), "______etc_passwd");
    }

    #[test]
    fn times_are_read_as_nanoseconds() {
        assert_eq!(time(0), None);
        assert_eq!(time(-1), None);
        assert_eq!(time(1_700_000_000_123_456_789).as_deref(), Some("2023-11-14T22:13:20.123Z"));
    }
}
