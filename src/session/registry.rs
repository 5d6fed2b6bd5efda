//! Finds a session, or starts it: the one place that knows which sessions are at work on this machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actix::{Actor, Addr, ArbiterHandle};
use dashmap::{DashMap, Entry};

use crate::{
    auth::Principal,
    clock,
    error::{ApiError, Code},
    ids::{RoomName, SessionId, UserId, suffix},
    protocol::edge_v1::{from_client::Resume, to_client::EndReason},
    session::{
        SessionInfo, SocketId,
        actor::{Services, SessionActor},
        messages::End,
    },
    store::{
        sessions::{LivekitRoom, SessionRecord, SessionStore},
        sled::DiskError,
    },
};

/// The sessions of this machine. Cheap to clone.
#[derive(Clone)]
pub struct SessionRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    records: SessionStore,
    services: Arc<Services>,
    live: DashMap<SessionId, Addr<SessionActor>>,
    arbiters: Vec<ArbiterHandle>,
    /// Where the next session runs.
    next_arbiter: AtomicUsize,
    next_socket: AtomicU64,
    /// Users whose devices fight for a session, and until when a newcomer is refused.
    crowded: DashMap<UserId, Instant>,
    /// When this gateway began: sessions of its earlier life have their grace from then.
    began: Instant,
}

impl From<DiskError> for ApiError {
    fn from(error: DiskError) -> Self {
        Self::internal(error)
    }
}

impl SessionRegistry {
    /// An empty directory, whose sessions run on these arbiters.
    pub fn new(records: SessionStore, services: Arc<Services>, arbiters: Vec<ArbiterHandle>) -> Self {
        assert!(!arbiters.is_empty(), "actors need somewhere to run");
        let shared = Shared {
            records,
            services,
            live: DashMap::new(),
            arbiters,
            next_arbiter: AtomicUsize::new(0),
            next_socket: AtomicU64::new(1),
            crowded: DashMap::new(),
            began: clock::now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Makes a session. LiveKit is not asked: it makes the room when somebody joins it.
    pub fn create(&self, user: &UserId) -> Result<SessionRecord, ApiError> {
        let record = SessionRecord {
            session_id: SessionId::new(),
            room: RoomName::for_user(user, &suffix()),
            user_id: user.clone(),
            created_ms: clock::unix_ms(),
            generation_base: 0,
            ended: None,
            livekit_room: None,
        };
        self.shared.records.create(record.clone())?;
        Ok(record)
    }

    /// A session that has not ended.
    pub fn get(&self, id: SessionId) -> Result<SessionRecord, ApiError> {
        let record = self.shared.records.get(id)?.map(|record| self.present(record));
        record.filter(|record| record.ended.is_none()).ok_or_else(ApiError::no_such_session)
    }

    /// A record as things are now. After a restart, by `kill -9` too, nobody knows since when a client is
    /// away: each session of the earlier life has its grace again, and is over where nobody came by then.
    fn present(&self, record: SessionRecord) -> SessionRecord {
        let in_time = clock::now() < self.shared.began + self.shared.services.config.grace;
        let unused = record.generation_base == 0;
        if record.ended.is_some() || unused || in_time || self.live(record.session_id).is_some() {
            return record;
        }
        self.close(record.session_id, EndReason::GraceExpired);
        SessionRecord { ended: Some(EndReason::GraceExpired), ..record }
    }

    /// The session of a room, also one that has ended.
    pub fn of_room(&self, room: &RoomName) -> Result<Option<SessionRecord>, DiskError> {
        self.shared.records.of_room(room)
    }

    /// A session, also one that has ended.
    pub fn get_any(&self, id: SessionId) -> Result<SessionRecord, ApiError> {
        self.shared.records.get(id)?.ok_or_else(ApiError::no_such_session)
    }

    /// The session a client is to be attached to: the one it wants to resume, else the one its token is
    /// for, else its user's newest. Where that one's grace is over, a new one; where it was ended on
    /// purpose, none.
    pub fn attachable(&self, grant: &Principal, resume: Option<&Resume>) -> Result<SessionRecord, ApiError> {
        let records = &self.shared.records;
        let resumed = resume.filter(|resume| {
            self.shared.services.config.authenticator.may_resume(resume.session_id, &resume.resume_token)
        });
        if let Some(resume) = resumed
            && let Some(record) = records.get(resume.session_id)?.map(|record| self.present(record))
            && record.user_id == grant.user
            && record.ended.is_none()
        {
            return Ok(record);
        }
        let record = match grant.session {
            Some(id) => match records.get(id)? {
                None => Some(self.restore(grant, id)?),
                known => known,
            },
            None => records.of_user(&grant.user)?,
        };
        match record.map(|record| self.present(record)) {
            Some(record) if record.user_id != grant.user => {
                Err(ApiError::new(Code::Forbidden, "the session is another user's"))
            }
            Some(record) => match record.ended {
                None => Ok(record),
                Some(reason) if grant.session.is_some() && reason.is_for_good() => {
                    Err(ApiError::no_such_session())
                }
                Some(_) => self.create(&grant.user),
            },
            None => self.create(&grant.user),
        }
    }

    /// A record is on disk within half a second. A session that was made just before a `kill -9` is known
    /// by its control token alone, and made again from it. One that has ended is not: its record stays.
    fn restore(&self, grant: &Principal, id: SessionId) -> Result<SessionRecord, ApiError> {
        let room = grant.room.clone().ok_or_else(ApiError::no_such_session)?;
        let record = SessionRecord {
            session_id: id,
            user_id: grant.user.clone(),
            room,
            created_ms: clock::unix_ms(),
            generation_base: 0,
            ended: None,
            livekit_room: None,
        };
        self.shared.records.put(&record)?;
        tracing::info!(session.id = %id, "session restored from its token");
        Ok(record)
    }

    /// The actor of a session; started where none is at work.
    pub fn actor(&self, record: &SessionRecord) -> Result<Addr<SessionActor>, ApiError> {
        match self.shared.live.entry(record.session_id) {
            Entry::Occupied(known) if known.get().connected() => Ok(known.get().clone()),
            Entry::Occupied(mut dead) => {
                let fresh = self.start(record)?;
                dead.insert(fresh.clone());
                Ok(fresh)
            }
            Entry::Vacant(vacant) => {
                let fresh = self.start(record)?;
                vacant.insert(fresh.clone());
                Ok(fresh)
            }
        }
    }

    fn start(&self, record: &SessionRecord) -> Result<Addr<SessionActor>, ApiError> {
        let facts = SessionInfo {
            id: record.session_id,
            user: record.user_id.clone(),
            room: record.room.clone(),
            started_ms: record.created_ms,
            generation_base: record.generation_base,
        };
        self.shared.records.change(record.session_id, |record| record.generation_base += 1)?;
        let at = self.shared.next_arbiter.fetch_add(1, Ordering::Relaxed) % self.shared.arbiters.len();
        let (services, directory) = (self.shared.services.clone(), self.clone());
        let start = move |_: &mut _| SessionActor::new(facts, services, directory);
        Ok(SessionActor::start_in_arbiter(&self.shared.arbiters[at], start))
    }

    /// The actor of a session, if one is at work.
    pub fn live(&self, id: SessionId) -> Option<Addr<SessionActor>> {
        self.shared.live.get(&id).map(|actor| actor.clone())
    }

    /// How many sessions are at work.
    pub fn count(&self) -> usize {
        self.shared.live.len()
    }

    /// At most `limit` sessions, newest first, ended ones among them; only those older than `before`,
    /// where there is one.
    pub fn newest(&self, before: Option<SessionId>, limit: usize) -> Result<Vec<SessionRecord>, DiskError> {
        let newest = self.shared.records.newest(before, limit)?;
        Ok(newest.into_iter().map(|record| self.present(record)).collect())
    }

    /// LiveKit has a session's room. What it said earlier of an older room of that name does not count,
    /// however late it arrives. Gives the session, if the room is one's.
    pub fn room_is_there(
        &self,
        room: &RoomName,
        seen: &LivekitRoom,
    ) -> Result<Option<SessionRecord>, DiskError> {
        let Some(record) = self.of_room(room)? else { return Ok(None) };
        let newer = |known: &Option<LivekitRoom>| {
            known.as_ref().is_none_or(|known| (known.created_ms, &known.sid) < (seen.created_ms, &seen.sid))
        };
        if !newer(&record.livekit_room) {
            return Ok(Some(record));
        }
        self.shared.records.change(record.session_id, |record| {
            if newer(&record.livekit_room) {
                record.livekit_room = Some(seen.clone());
            }
        })
    }

    /// Ends a session on purpose, whether or not it is at work.
    pub async fn end(&self, id: SessionId, reason: EndReason) -> Result<SessionRecord, ApiError> {
        let record = self.get(id)?;
        if let Some(actor) = self.live(id) {
            // One that ends by itself at this moment needs no telling.
            let _ = actor.send(End(reason)).await;
        }
        self.close(id, reason);
        Ok(record)
    }

    /// Tells every session that the gateway goes down, and waits until they have said good-bye.
    pub async fn shut_down(&self) {
        let actors: Vec<_> = self.shared.live.iter().map(|entry| entry.value().clone()).collect();
        let endings = actors.iter().map(|actor| actor.send(End(EndReason::Shutdown)));
        futures::future::join_all(endings).await;
        self.shared.records.written().await;
    }

    /// A session's actor has ended.
    pub(super) fn ended(&self, id: SessionId, reason: EndReason, actor: &Addr<SessionActor>) {
        if reason != EndReason::Shutdown {
            // After a restart the client goes on in the same session. The reason comes first: one that is
            // not at work and has none is taken for a session of an earlier life.
            self.close(id, reason);
        }
        self.shared.live.remove_if(&id, |_, known| known == actor);
    }

    fn close(&self, id: SessionId, reason: EndReason) {
        let closed = self.shared.records.change(id, |record| {
            record.ended.get_or_insert(reason);
        });
        if let Err(error) = closed {
            tracing::error!(session.id = %id, %error, "the end of a session is not recorded");
        }
    }

    /// Devices of this user fight for a session: a newcomer is refused until then.
    pub(super) fn refuse_until(&self, user: &UserId, until: Instant) {
        let now = clock::now();
        self.shared.crowded.retain(|_, until| now < *until);
        self.shared.crowded.insert(user.clone(), until);
    }

    /// How long a newcomer of this user is to stay away, if it is.
    pub fn is_crowded(&self, user: &UserId) -> Option<Duration> {
        let until = *self.shared.crowded.get(user)?;
        until.checked_duration_since(clock::now()).filter(|wait| !wait.is_zero())
    }

    /// Whom a user's own token speaks for: their newest session, if it has not ended.
    pub fn newest_of(&self, grant: &Principal) -> Result<Option<SessionRecord>, DiskError> {
        let record = match grant.session {
            Some(id) => self.shared.records.get(id)?,
            None => self.shared.records.of_user(&grant.user)?,
        };
        Ok(record.filter(|record| record.ended.is_none() && record.user_id == grant.user))
    }

    /// A number for a socket; a newer socket has a higher one.
    pub fn next_socket(&self) -> SocketId {
        self.shared.next_socket.fetch_add(1, Ordering::Relaxed)
    }
}
