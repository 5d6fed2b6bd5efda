//! LiveKit's server API, called only for what a token cannot do (docs/ARCHITECTURE.md).

use std::{sync::Weak, time::Duration};

use livekit_api::services::{
    ServerError, ServerErrorCode, ServiceError,
    room::{RemoveParticipantOptions, RoomClient},
};
use livekit_protocol as proto;

use crate::{
    clock,
    config::LivekitConfig,
    ids::{Identity, RoomName},
    outcomes::Outcome,
    room::roster::{LeaveReason, Participant, Track},
};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often LiveKit is asked whether it is there, if nothing else is asked.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);

/// A room that does not exist: the cheapest question.
const PROBED_ROOM: &str = "june-edge-probe";

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LivekitError {
    /// LiveKit does not answer, or fails. Logged where it happened.
    #[error("LiveKit cannot be reached; sessions and tokens still work")]
    Unreachable,
    /// LiveKit has no such participant, room or recording.
    #[error("{0}")]
    NotFound(&'static str),
    /// LiveKit refused a value; the text is its own.
    #[error("LiveKit: {0}")]
    InvalidArgument(String),
    /// Not possible in the current state: a recording that has ended cannot be stopped.
    #[error("LiveKit: {0}")]
    FailedPrecondition(String),
    /// LiveKit has no egress service; the text is its own.
    #[error("LiveKit has no egress service that could record ({0}); everything else still works")]
    NoEgress(String),
}

/// The server API of one LiveKit.
pub struct LivekitApi {
    rooms: RoomClient,
    outcome: Outcome,
}

impl LivekitApi {
    /// The API at this address; nothing is called yet.
    pub(crate) fn new(livekit: &LivekitConfig, outcome: Outcome) -> Self {
        let rooms =
            RoomClient::with_api_key(&livekit.internal_url, &livekit.api_key, livekit.api_secret.expose())
                .with_request_timeout(TIMEOUT);
        Self { rooms, outcome }
    }

    /// Calls LiveKit and records whether it answered.
    async fn call<T>(&self, call: impl Future<Output = Result<T, ServiceError>>) -> Result<T, ServiceError> {
        let result = call.await;
        match &result {
            Err(error) if !is_not_found(error) => self.outcome.failed(error.to_string()),
            Ok(_) | Err(_) => self.outcome.succeeded(),
        }
        result
    }

    /// Finds out whether LiveKit answers, every [`PROBE_INTERVAL`] in which nothing else was called.
    pub(crate) async fn probe(api: Weak<Self>) {
        while let Some(api) = api.upgrade() {
            if api.outcome.is_older_than(PROBE_INTERVAL) {
                // The outcome is recorded, and a failure logged, by the call.
                let _ = api.rooms(vec![PROBED_ROOM.to_owned()]).await;
            }
            drop(api);
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Everybody in a room; nobody where there is no such room. Hidden participants, our own agents
    /// among them, are left out.
    pub async fn participants(&self, room: &RoomName) -> Result<Vec<Participant>, LivekitError> {
        match self.call(self.rooms.list_participants(room.as_str())).await {
            Ok(listed) => Ok(listed.iter().filter_map(participant).collect()),
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Ends a room: everybody in it is disconnected. A room that is not there is no error.
    pub async fn delete_room(&self, room: &RoomName) -> Result<(), LivekitError> {
        match self.call(self.rooms.delete_room(room.as_str())).await {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// LiveKit's rooms: those of these names, or all.
    pub async fn rooms(&self, names: Vec<String>) -> Result<Vec<proto::Room>, LivekitError> {
        self.call(self.rooms.list_rooms(names)).await.map_err(|error| unreachable(&error))
    }

    /// Everybody in a room as LiveKit describes them, hidden ones among them.
    pub async fn everybody(&self, room: &RoomName) -> Result<Vec<proto::ParticipantInfo>, LivekitError> {
        match self.call(self.rooms.list_participants(room.as_str())).await {
            Ok(listed) => Ok(listed),
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Removes a participant from a room. A LiveKit that knows how (Cloud) takes their tokens back, too.
    pub async fn remove_participant(&self, room: &RoomName, identity: &Identity) -> Result<(), LivekitError> {
        let options = RemoveParticipantOptions { revoke_token_ts: clock::unix_ms() as i64 };
        let removed = self.rooms.remove_participant_with_options(room.as_str(), identity.as_str(), options);
        match self.call(removed).await {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => {
                Err(LivekitError::NotFound("nobody with this identity is in the room"))
            }
            Err(error) => Err(unreachable(&error)),
        }
    }
}

/// None for a hidden participant, or one whose identity is not valid.
pub fn participant(info: &proto::ParticipantInfo) -> Option<Participant> {
    if info.permission.as_ref().is_some_and(|permission| permission.hidden) {
        return None;
    }
    Some(Participant {
        sid: info.sid.clone(),
        identity: Identity::parse(&info.identity).ok()?,
        name: info.name.clone(),
        metadata: info.metadata.clone(),
        joined_at: if info.joined_at_ms > 0 { info.joined_at_ms } else { info.joined_at * 1000 },
        tracks: info.tracks.iter().map(track).collect(),
        version: info.version,
    })
}

/// Why a participant left.
pub fn leave_reason(info: &proto::ParticipantInfo) -> LeaveReason {
    use proto::DisconnectReason as Livekit;
    match info.disconnect_reason() {
        Livekit::UnknownReason
        | Livekit::ClientInitiated
        | Livekit::UserUnavailable
        | Livekit::UserRejected
        | Livekit::AgentError => LeaveReason::Left,
        Livekit::DuplicateIdentity => LeaveReason::DuplicateIdentity,
        Livekit::ParticipantRemoved => LeaveReason::Removed,
        Livekit::RoomDeleted | Livekit::RoomClosed => LeaveReason::RoomFinished,
        Livekit::JoinFailure => LeaveReason::Aborted,
        Livekit::StateMismatch
        | Livekit::SignalClose
        | Livekit::SipTrunkFailure
        | Livekit::ConnectionTimeout
        | Livekit::MediaFailure => LeaveReason::ConnectionLost,
        Livekit::ServerShutdown | Livekit::Migration => LeaveReason::ServerShutdown,
    }
}

pub fn track(info: &proto::TrackInfo) -> Track {
    Track {
        sid: info.sid.clone(),
        name: info.name.clone(),
        source: info.source().as_str_name().to_ascii_lowercase(),
        muted: info.muted,
    }
}

/// The error that LiveKit answered with; none where it did not answer.
#[expect(clippy::wildcard_enum_match_arm, reason = "the API's error is open-ended; one kind of it matters")]
pub fn answered(error: &ServiceError) -> Option<&ServerErrorCode> {
    match error {
        ServiceError::Twirp(ServerError::Twirp(code)) => Some(code),
        _ => None,
    }
}

fn is_not_found(error: &ServiceError) -> bool {
    answered(error).is_some_and(|answer| answer.code == ServerErrorCode::NOT_FOUND)
}

/// LiveKit does not answer, or not as expected.
pub fn unreachable(error: &ServiceError) -> LivekitError {
    tracing::warn!(%error, "a call of LiveKit's API failed");
    LivekitError::Unreachable
}
