//! What is known of sessions beyond the life of their actors.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{RoomName, SessionId, UserId},
    protocol::{SessionOptions, edge_v1::to_client::EndReason},
    store::StoreError,
};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its id. Ids sort by creation.
    pub session_id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its LiveKit room.
    pub room: RoomName,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How often an actor was started for it; 0 if no client ever attached.
    #[serde(default)]
    pub generation_base: u32,
    /// Why it ended; none while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndReason>,
    /// When it ended, in milliseconds since the Unix epoch. None for one that ended before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// The room as LiveKit knows it, once somebody was in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub livekit_room: Option<LivekitRoom>,
    /// As they were asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: SessionOptions,
}

fn is_default(options: &SessionOptions) -> bool {
    *options == SessionOptions::default()
}

impl SessionRecord {
    /// Whether it has no further use since that time: it ended before, or was created before and never started.
    pub fn is_over(&self, before_ms: u64) -> bool {
        let over_ms = match self.ended {
            Some(_) => self.ended_ms.unwrap_or(self.created_ms),
            None if self.generation_base == 0 => self.created_ms,
            None => return false,
        };
        over_ms < before_ms
    }

    fn end(&mut self, reason: EndReason, now_ms: u64) {
        if self.ended.is_none() {
            (self.ended, self.ended_ms) = (Some(reason), Some(now_ms));
        }
    }
}

/// A room as LiveKit created it. LiveKit creates a new one under the same name when somebody joins after
/// the last participant left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivekitRoom {
    /// LiveKit's id of it.
    pub sid: String,
    /// When LiveKit created it, in milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// A token was issued for it. Changes nothing, but the session is used: it is kept even if no client ever
    /// attaches.
    Used,
    /// An actor starts for it. No effect if it has ended.
    Started,
    /// It ended. No effect if it had ended before: the first reason stays.
    Ended(EndReason),
    /// Nobody came back to it within its grace. No effect if it has ended, or if an actor was started
    /// since it had this generation base.
    Abandoned { generation_base: u32 },
    /// It goes on, though nobody came back within its grace. No effect if it ended for another reason.
    Reopened,
    /// LiveKit has its room. No effect if a newer room of that name is known: webhooks may arrive late.
    RoomCreated(LivekitRoom),
    /// It has these options from now on.
    Configured(Box<SessionOptions>),
}

impl SessionChange {
    /// `now_ms`: in milliseconds since the Unix epoch.
    pub fn apply(&self, record: &mut SessionRecord, now_ms: u64) {
        match self {
            Self::Used => {}
            Self::Started => {
                if record.ended.is_none() {
                    record.generation_base += 1;
                }
            }
            Self::Ended(reason) => record.end(*reason, now_ms),
            Self::Reopened => {
                if record.ended == Some(EndReason::GraceExpired) {
                    (record.ended, record.ended_ms) = (None, None);
                }
            }
            Self::Configured(options) => record.options.clone_from(options),
            Self::Abandoned { generation_base } => {
                if record.generation_base == *generation_base {
                    record.end(EndReason::GraceExpired, now_ms);
                }
            }
            Self::RoomCreated(room) => {
                let age = |room: &LivekitRoom| (room.created_ms, room.sid.clone());
                if record.livekit_room.as_ref().is_none_or(|known| age(known) < age(room)) {
                    record.livekit_room = Some(room.clone());
                }
            }
        }
    }
}

/// What [`SessionStore::remove_over`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    pub removed: usize,
    /// The last session that was looked at; none if there are no more.
    pub last: Option<SessionId>,
}

/// Keeps session records.
///
/// Reading changes nothing. `create`, `restore` and `change` take effect in the order of the calls, and
/// dropping a future does not undo its call, unless the store was full at the time of the call: then the
/// future waits for a place. A record that cannot be parsed is logged and treated as unknown; the first
/// write to it moves it aside, where an operator can look at it.
///
/// While the disk takes no writes, new sessions and changes are kept in memory, and written as soon as it does.
pub trait SessionStore: Send + Sync + 'static {
    /// Adds a new session. It is found at once, and survives a crash within half a second.
    fn create(&self, record: SessionRecord) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Adds a session that was known once. Gives the record that is there afterwards: one that was there
    /// already stays as it is. None if it cannot be restored, because its record cannot be parsed.
    fn restore(&self, record: SessionRecord)
    -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>>;

    /// Changes a session; gives it as it is afterwards, none if there is no such session.
    fn change(
        &self,
        id: SessionId,
        change: SessionChange,
    ) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>>;

    /// A session by its id.
    fn get(&self, id: SessionId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>>;

    /// The session of a room.
    fn of_room(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>>;

    /// The newest session of a user.
    fn of_user(&self, user: &UserId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>>;

    /// At most `limit` sessions, newest first; only those older than `before`, if that is given.
    fn newest(
        &self,
        before: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<SessionRecord>, StoreError>>;

    /// The sessions that were started and have not ended, with their generation base.
    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<(SessionId, u32)>, StoreError>>;

    /// Looks at the oldest `limit` sessions after `after` that were created before that time, and removes those that
    /// [are over](SessionRecord::is_over). Resolves once that is durable.
    fn remove_over(
        &self,
        before_ms: u64,
        after: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Removed, StoreError>>;

    /// Resolves once everything that was written before is durable.
    fn flush(&self) -> BoxFuture<'static, Result<(), StoreError>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::sessions::record;

    fn after(changes: &[SessionChange]) -> SessionRecord {
        let mut session = record(1, "ann");
        for change in changes {
            change.apply(&mut session, 7);
        }
        session
    }

    #[test]
    fn the_first_reason_of_an_end_stays() {
        let ended =
            after(&[SessionChange::Ended(EndReason::Logout), SessionChange::Ended(EndReason::Disconnected)]);
        assert_eq!(ended.ended, Some(EndReason::Logout));
    }

    #[test]
    fn a_session_that_was_started_again_is_not_abandoned() {
        use SessionChange::{Abandoned, Started};
        assert_eq!(after(&[Started, Started, Abandoned { generation_base: 1 }]).ended, None);
        let abandoned = after(&[Started, Abandoned { generation_base: 1 }, Started]);
        assert_eq!((abandoned.ended, abandoned.generation_base), (Some(EndReason::GraceExpired), 1));
    }

    #[test]
    fn only_a_session_whose_grace_was_over_is_reopened() {
        use SessionChange::{Ended, Reopened, Started};
        let reopened = after(&[Started, Ended(EndReason::GraceExpired), Reopened, Started]);
        assert_eq!((reopened.ended, reopened.ended_ms, reopened.generation_base), (None, None, 2));
        let logged_out = after(&[Started, Ended(EndReason::Logout), Reopened, Started]);
        assert_eq!((logged_out.ended, logged_out.generation_base), (Some(EndReason::Logout), 1));
    }

    #[test]
    fn an_older_room_of_the_same_name_does_not_replace_a_newer_one() {
        let room = |sid: &str, created_ms| LivekitRoom { sid: sid.into(), created_ms };
        let changes = [room("RM_1", 1000), room("RM_2", 2000), room("RM_1", 1000)];
        let known = after(&changes.map(SessionChange::RoomCreated)).livekit_room;
        assert_eq!(known, Some(room("RM_2", 2000)));
    }
}
