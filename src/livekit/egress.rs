//! Recordings of rooms, made by LiveKit's egress service (docs.livekit.io, "Egress API").
//!
//! The service is a process of its own. Where it stores files (a folder, S3 or similar) is part of its own
//! configuration, so that the gateway needs no storage credentials; the gateway sets the path only.

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
    ids::RoomName,
    livekit::api::{LivekitError, answered, unreachable},
};

/// How long a call may take. LiveKit itself waits up to 24 s for an egress service to take a job.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Asks LiveKit for recordings.
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

    /// Starts to record everybody in a room: as OGG, or with their pictures as MP4.
    pub async fn start(&self, room: &RoomName, audio_only: bool) -> Result<Recording, LivekitError> {
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
        // A LiveKit without Redis cannot reach an egress service. It answers a list with that at once, but a start
        // only after a timeout.
        self.list(Some(room)).await?;
        let options = RoomCompositeOptions { audio_only, ..RoomCompositeOptions::default() };
        let started = self
            .egress
            .start_room_composite_egress(room.as_str(), vec![EgressOutput::File(file)], options)
            .await;
        started.map(|info| recording(&info)).map_err(|error| refused(&error))
    }

    /// Stops a recording.
    pub async fn stop(&self, egress_id: &str) -> Result<Recording, LivekitError> {
        let stopped = self.egress.stop_egress(egress_id).await;
        stopped.map(|info| recording(&info)).map_err(|error| refused(&error))
    }

    /// Recordings of one room, or of all.
    pub async fn list(&self, room: Option<&RoomName>) -> Result<Vec<Recording>, LivekitError> {
        let filter = room.map_or(EgressListFilter::All, |room| EgressListFilter::Room(room.to_string()));
        let listed = self.egress.list_egress(EgressListOptions { filter, ..Default::default() }).await;
        listed.map(|all| all.iter().map(recording).collect()).map_err(|error| refused(&error))
    }
}

/// A room's name as a part of a file's: it must not climb out of its folder.
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

/// What LiveKit's refusal means to an operator.
fn refused(error: &ServiceError) -> LivekitError {
    let Some(ServerErrorCode { code, msg, .. }) = answered(error) else {
        return unreachable(error);
    };
    tracing::warn!(%error, "LiveKit refused a call about a recording");
    match code.as_str() {
        ServerErrorCode::NOT_FOUND => {
            LivekitError::NotFound("LiveKit knows no such recording, or no such room")
        }
        ServerErrorCode::INVALID_ARGUMENT => LivekitError::InvalidArgument(msg.clone()),
        ServerErrorCode::FAILED_PRECONDITION => LivekitError::FailedPrecondition(msg.clone()),
        // `internal`: no Redis, and so no egress service. `unavailable`, `resource_exhausted`: no egress service
        // is connected, or none has capacity.
        ServerErrorCode::INTERNAL
        | ServerErrorCode::UNAVAILABLE
        | ServerErrorCode::DEADLINE_EXCEEDED
        | ServerErrorCode::UNIMPLEMENTED
        | ServerErrorCode::RESOURCE_EXHAUSTED => LivekitError::NoEgress(msg.clone()),
        _ => unreachable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_name_does_not_climb_out_of_the_folder() {
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
