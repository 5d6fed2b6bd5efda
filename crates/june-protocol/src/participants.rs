//! The participants of a LiveKit room as `participants:update` carries them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{Identity, RoomName};

/// `participants:update`: a snapshot of the room, or what changed since the version before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParticipantsUpdate {
    /// The room.
    pub room: RoomName,
    /// Changes when the gateway lost its state of the room. Only a snapshot is valid after that.
    pub epoch: u64,
    /// Increases by one with each change.
    pub version: u64,
    /// All participants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Vec<Participant>>,
    /// The changes since `version - 1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
}

/// One connection of a participant to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Participant {
    /// LiveKit's id of the connection.
    pub sid: String,
    /// The participant's identity.
    pub identity: Identity,
    /// The display name.
    pub name: String,
    /// Free text of the application.
    pub metadata: String,
    /// The time of joining, in milliseconds since the Unix epoch.
    pub joined_at: i64,
    /// The published tracks.
    pub tracks: Vec<Track>,
}

/// A published track.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Track {
    /// LiveKit's id of the track.
    pub sid: String,
    /// The track's name, `mic`.
    pub name: String,
    /// `microphone`, `camera`, …
    pub source: String,
    /// Whether the track is muted.
    pub muted: bool,
}

/// Why a participant left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// The participant left, or LiveKit gives no reason.
    Left,
    /// The same identity joined from another connection.
    DuplicateIdentity,
    /// The participant was removed.
    Removed,
    /// The connection broke and was not resumed.
    ConnectionLost,
    /// The join was never completed.
    Aborted,
    /// The room ended or was deleted.
    RoomFinished,
    /// The LiveKit server shut down or migrated the participant.
    ServerShutdown,
    /// No event came, but LiveKit does not list the participant any more.
    Missed,
}

/// A participant who left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leave {
    /// The connection.
    pub sid: String,
    /// The participant's identity.
    pub identity: Identity,
    /// The reason.
    pub reason: LeaveReason,
}

/// The tracks that a participant publishes now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tracks {
    /// The connection.
    pub sid: String,
    /// The participant's identity.
    pub identity: Identity,
    /// All published tracks.
    pub tracks: Vec<Track>,
}

/// What changed from one version to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Participants who joined.
    pub joined: Vec<Participant>,
    /// Participants who left.
    pub left: Vec<Leave>,
    /// Participants whose name or metadata changed, as they are now.
    pub updated: Vec<Participant>,
    /// Participants whose tracks changed.
    pub tracks: Vec<Tracks>,
}
