//! Finds the actor of a session, or starts it: knows which sessions are live on this machine.

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
    ids::{Identity, RoomName, SessionId, UserId, suffix},
    limits::{Limits, Refusal, Reservation},
    protocol::{
        SessionOptions,
        edge_v1::{from_client::Resume, to_client::EndReason},
    },
    session::{
        Offer, SessionInfo, SocketId,
        actor::{Services, SessionActor, SessionOwner},
        messages::End,
    },
    store::{
        StoreError,
        sessions::{LivekitRoom, SessionChange, SessionRecord, SessionStore},
    },
};

/// Why a session is not to be had.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// There is no such session, or it has ended.
    #[error("there is no such session, or it has ended")]
    NotFound,
    /// The user was removed from the session's room.
    #[error("removed from the room")]
    Removed,
    /// The session belongs to another user.
    #[error("the session is another user's")]
    OtherUser,
    /// The gateway, or the user, has as many live sessions as there may be.
    #[error(transparent)]
    Limited(#[from] Refusal),
    /// The store does not know now.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The sessions of this machine. Cheap to clone.
///
/// Reading a session changes nothing: what is read is its record with its state of this moment. An end is
/// recorded by [`end`](Self::end), by the actor when it stops, and by
/// [`close_abandoned`](Self::close_abandoned).
#[derive(Clone)]
pub struct SessionRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn SessionStore>,
    services: Arc<Services>,
    live: DashMap<SessionId, Live>,
    arbiters: Vec<ArbiterHandle>,
    next_arbiter: AtomicUsize,
    next_socket: AtomicU64,
    /// Users whose devices fight for a session, and until when further devices are refused.
    refused: DashMap<UserId, Instant>,
    /// When this process began: sessions of an earlier one have their grace from then.
    began: Instant,
}

/// A session that has an actor, or had one until a moment ago.
enum Live {
    Running {
        actor: Addr<SessionActor>,
        user: UserId,
        /// Its place among the live sessions.
        _place: Reservation,
    },
    /// Its actor has stopped, and the end is on its way into the store.
    Ending(EndReason),
}

impl Live {
    fn actor(&self) -> Option<&Addr<SessionActor>> {
        match self {
            Self::Running { actor, .. } => Some(actor).filter(|actor| actor.connected()),
            Self::Ending(_) => None,
        }
    }
}

impl SessionRegistry {
    /// A registry without live sessions; their actors will run on these arbiters.
    pub fn new(store: Arc<dyn SessionStore>, services: Arc<Services>, arbiters: Vec<ArbiterHandle>) -> Self {
        assert!(!arbiters.is_empty(), "actors need an arbiter to run on");
        let shared = Shared {
            store,
            services,
            live: DashMap::new(),
            arbiters,
            next_arbiter: AtomicUsize::new(0),
            next_socket: AtomicU64::new(1),
            refused: DashMap::new(),
            began: clock::now(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What users may use.
    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.services.config.limits
    }

    /// What sessions choose from.
    pub(crate) fn offer(&self) -> &Offer {
        &self.shared.services.config.offer
    }

    // --- Records ---

    /// Creates a session with these options, which are valid. LiveKit is not called: it creates the room when somebody
    /// joins it.
    pub async fn create(
        &self,
        user: &UserId,
        options: SessionOptions,
    ) -> Result<SessionRecord, RegistryError> {
        let room = RoomName::for_user(user, &suffix());
        let record = SessionRecord { options, ..new_record(SessionId::new(), user, room) };
        self.shared.store.create(record.clone()).await?;
        Ok(record)
    }

    /// A session that has not ended.
    pub async fn get(&self, id: SessionId) -> Result<SessionRecord, RegistryError> {
        let record = self.find(id).await?;
        record.filter(|record| record.ended.is_none()).ok_or(RegistryError::NotFound)
    }

    /// A session, ended or not.
    pub async fn get_any(&self, id: SessionId) -> Result<SessionRecord, RegistryError> {
        self.find(id).await?.ok_or(RegistryError::NotFound)
    }

    /// A token was issued for a session: it is not forgotten, though no client has attached yet.
    pub async fn keep(&self, id: SessionId) -> Result<(), RegistryError> {
        self.shared.store.change(id, SessionChange::Used).await?;
        Ok(())
    }

    /// The session of a room, ended or not.
    pub async fn of_room(&self, room: &RoomName) -> Result<Option<SessionRecord>, RegistryError> {
        Ok(self.shared.store.of_room(room).await?.map(|record| self.current(record)))
    }

    /// The session that a user's token is for: the one it names, or their newest; none if that has ended. Refused to a
    /// user who was removed from its room.
    pub async fn newest_of(&self, principal: &Principal) -> Result<Option<SessionRecord>, RegistryError> {
        let record = match principal.session {
            Some(id) => self.find(id).await?,
            None => self.of_user(&principal.user).await?,
        };
        let record = record.filter(|record| record.ended.is_none() && record.user_id == principal.user);
        if let Some(record) = &record {
            self.check_present(record)?;
        }
        Ok(record)
    }

    /// A user's newest session, ended or not.
    pub async fn newest_of_user(&self, user: &UserId) -> Result<Option<SessionRecord>, RegistryError> {
        self.of_user(user).await
    }

    fn check_present(&self, record: &SessionRecord) -> Result<(), RegistryError> {
        let authenticator = &self.shared.services.config.authenticator;
        if authenticator.is_removed(&record.room, &Identity::from(&record.user_id)) {
            return Err(RegistryError::Removed);
        }
        Ok(())
    }

    /// At most `limit` sessions, newest first, ended or not; only those older than `before`, if that is
    /// given.
    pub async fn newest(
        &self,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, RegistryError> {
        let newest = self.shared.store.newest(before, limit).await?;
        Ok(newest.into_iter().map(|record| self.current(record)).collect())
    }

    async fn find(&self, id: SessionId) -> Result<Option<SessionRecord>, RegistryError> {
        Ok(self.shared.store.get(id).await?.map(|record| self.current(record)))
    }

    async fn of_user(&self, user: &UserId) -> Result<Option<SessionRecord>, RegistryError> {
        Ok(self.shared.store.of_user(user).await?.map(|record| self.current(record)))
    }

    /// A record with its state of this moment. Nobody knows how long a client was away when this process
    /// began: each session of an earlier one has its grace again, and has ended if nobody came back by then.
    fn current(&self, mut record: SessionRecord) -> SessionRecord {
        if record.ended.is_none() {
            record.ended = match self.shared.live.get(&record.session_id).as_deref() {
                Some(Live::Running { .. }) => None,
                Some(Live::Ending(reason)) => Some(*reason),
                None => self.is_abandoned(&record).then_some(EndReason::GraceExpired),
            };
        }
        record
    }

    /// Whether nobody came back to this session, which has no actor.
    fn is_abandoned(&self, record: &SessionRecord) -> bool {
        record.generation_base > 0 && clock::now() >= self.shared.began + self.shared.services.config.grace
    }

    /// LiveKit has a room. Gives the session of the room, if it is one's.
    pub async fn room_created(
        &self,
        room: &RoomName,
        created: LivekitRoom,
    ) -> Result<Option<SessionRecord>, RegistryError> {
        let Some(record) = self.of_room(room).await? else { return Ok(None) };
        if record.livekit_room.as_ref() == Some(&created) {
            return Ok(Some(record));
        }
        let changed =
            self.shared.store.change(record.session_id, SessionChange::RoomCreated(created)).await?;
        Ok(changed.map(|record| self.current(record)))
    }

    // --- Attaching ---

    /// The session that a client is to be attached to: the one it wants to resume, else the one its token is
    /// for, else its user's newest. A new one with the same options if that ran out of grace; none if it was ended on
    /// purpose.
    pub async fn attachable(
        &self,
        principal: &Principal,
        resume: Option<&Resume>,
    ) -> Result<SessionRecord, RegistryError> {
        let resumed = resume.filter(|resume| {
            self.shared.services.config.authenticator.may_resume(resume.session_id, &resume.resume_token)
        });
        if let Some(resume) = resumed
            && let Some(record) = self.find(resume.session_id).await?
            && record.user_id == principal.user
            && record.ended.is_none()
        {
            self.check_present(&record)?;
            return Ok(record);
        }
        let record = match principal.session {
            Some(id) => match self.find(id).await? {
                None => Some(self.restore(principal, id).await?),
                known => known,
            },
            None => self.of_user(&principal.user).await?,
        };
        let Some(record) = record else {
            return self.create(&principal.user, SessionOptions::default()).await;
        };
        if record.user_id != principal.user {
            return Err(RegistryError::OtherUser);
        }
        // Also if it has ended: a new one would let them in again.
        self.check_present(&record)?;
        match record.ended {
            None => Ok(record),
            Some(reason) if principal.session.is_some() && reason.is_for_good() => {
                Err(RegistryError::NotFound)
            }
            Some(_) => self.create(&principal.user, record.options).await,
        }
    }

    /// A record is on disk within half a second. A session that was created just before a crash may be known
    /// by its control token alone, and is restored from it. One that ended is not: its record stays.
    async fn restore(&self, principal: &Principal, id: SessionId) -> Result<SessionRecord, RegistryError> {
        let room = principal.room.clone().ok_or(RegistryError::NotFound)?;
        let record = new_record(id, &principal.user, room);
        let restored = self.shared.store.restore(record).await?.ok_or(RegistryError::NotFound)?;
        tracing::info!(session.id = %id, "session restored from its token");
        Ok(restored)
    }

    /// The actor of a session; started if none is live.
    pub async fn actor(&self, record: &SessionRecord) -> Result<Addr<SessionActor>, RegistryError> {
        let id = record.session_id;
        if let Some(actor) = self.live(id) {
            return Ok(actor);
        }
        // Before anything is changed: a session that is refused was not started.
        let place = self.limits().reserve_session(id, &record.user_id)?;
        // Each actor has numbers of its own for turns and utterances, also if another one is started at the
        // same time and only one of them is kept.
        let started = self.shared.store.change(id, SessionChange::Started).await?;
        let started = started.filter(|record| record.ended.is_none()).ok_or(RegistryError::NotFound)?;
        match self.shared.live.entry(id) {
            Entry::Occupied(mut known) => {
                if let Some(actor) = known.get().actor() {
                    return Ok(actor.clone());
                }
                if matches!(known.get(), Live::Ending(_)) {
                    return Err(RegistryError::NotFound);
                }
                let actor = self.start(&started);
                known.insert(Live::Running { actor: actor.clone(), user: started.user_id, _place: place });
                Ok(actor)
            }
            Entry::Vacant(vacant) => {
                let actor = self.start(&started);
                vacant.insert(Live::Running { actor: actor.clone(), user: started.user_id, _place: place });
                Ok(actor)
            }
        }
    }

    /// The same for a session that needs no client: one whose grace is over goes on. Not found while it ends.
    pub async fn reopen(&self, record: &SessionRecord) -> Result<Addr<SessionActor>, RegistryError> {
        match record.ended {
            None => self.actor(record).await,
            Some(reason) if reason.is_for_good() || self.is_ending(record.session_id) => {
                Err(RegistryError::NotFound)
            }
            Some(_) => {
                let id = record.session_id;
                self.shared.store.change(id, SessionChange::Reopened).await?;
                self.actor(record).await
            }
        }
    }

    /// Whether the end of a session is on its way into the store.
    fn is_ending(&self, id: SessionId) -> bool {
        matches!(self.shared.live.get(&id).as_deref(), Some(Live::Ending(_)))
    }

    fn start(&self, started: &SessionRecord) -> Addr<SessionActor> {
        let info = SessionInfo {
            id: started.session_id,
            user: started.user_id.clone(),
            room: started.room.clone(),
            started_ms: started.created_ms,
            // How many actors it had before this one.
            generation_base: started.generation_base - 1,
            options: started.options.clone(),
        };
        let at = self.shared.next_arbiter.fetch_add(1, Ordering::Relaxed) % self.shared.arbiters.len();
        let (services, owner) = (self.shared.services.clone(), Arc::new(self.clone()));
        SessionActor::start_in_arbiter(&self.shared.arbiters[at], move |_| {
            SessionActor::new(info, services, owner)
        })
    }

    /// A number for a socket; a newer socket has a higher one.
    pub fn next_socket(&self) -> SocketId {
        self.shared.next_socket.fetch_add(1, Ordering::Relaxed)
    }

    /// How long a further device of this user is refused, if it is.
    pub fn takeover_wait(&self, user: &UserId) -> Option<Duration> {
        let until = *self.shared.refused.get(user)?;
        until.checked_duration_since(clock::now()).filter(|wait| !wait.is_zero())
    }

    // --- Live sessions ---

    /// The actor of a session, if it has one.
    pub fn live(&self, id: SessionId) -> Option<Addr<SessionActor>> {
        self.shared.live.get(&id)?.actor().cloned()
    }

    /// Whose session this is, if it has not ended. Asks the store only if it is not live.
    pub async fn user_of(&self, id: SessionId) -> Result<UserId, RegistryError> {
        let live = self.shared.live.get(&id).and_then(|live| match live.value() {
            Live::Running { user, .. } => Some(user.clone()),
            Live::Ending(_) => None,
        });
        match live {
            Some(user) => Ok(user),
            None => Ok(self.get(id).await?.user_id),
        }
    }

    /// How many sessions are live.
    pub fn count(&self) -> usize {
        self.shared.live.len()
    }

    // --- Ends ---

    /// Ends a session on purpose, live or not.
    pub async fn end(&self, id: SessionId, reason: EndReason) -> Result<SessionRecord, RegistryError> {
        let record = self.get(id).await;
        // Also where the store fails.
        if let Some(actor) = self.live(id) {
            // One that ends by itself at this moment needs no message.
            let _ = actor.send(End(reason)).await;
        }
        self.shared.services.clips.forget(id);
        let record = record?;
        self.shared.store.change(id, SessionChange::Ended(reason)).await?;
        Ok(record)
    }

    /// Records the end of the sessions of an earlier process that nobody came back to; in a spawned task,
    /// after the grace. To be called before the first client is served.
    pub fn close_abandoned(&self) {
        let grace = self.shared.services.config.grace;
        let unfinished = self.shared.store.unfinished();
        // A gateway that stops before must not be held in memory.
        let shared = Arc::downgrade(&self.shared);
        actix_web::rt::spawn(async move {
            let unfinished = unfinished.await;
            tokio::time::sleep(grace).await;
            let Some(shared) = shared.upgrade() else { return };
            if let Err(error) = close(&*shared.store, unfinished).await {
                tracing::error!(%error, "abandoned sessions are not closed");
            }
        });
    }

    /// Tells every session that the gateway shuts down, and waits until they have ended and everything is
    /// written.
    pub async fn shut_down(&self) {
        let actors: Vec<_> =
            self.shared.live.iter().filter_map(|entry| entry.value().actor().cloned()).collect();
        let endings = actors.iter().map(|actor| actor.send(End(EndReason::Shutdown)));
        futures::future::join_all(endings).await;
        if let Err(error) = self.shared.store.flush().await {
            tracing::error!(%error, "the last session records are not durable");
        }
    }
}

impl SessionOwner for SessionRegistry {
    fn refuse_takeovers(&self, user: &UserId, until: Instant) {
        let now = clock::now();
        self.shared.refused.retain(|_, until| now < *until);
        self.shared.refused.insert(user.clone(), until);
    }

    fn configured(&self, id: SessionId, options: SessionOptions) {
        let recorded = self.shared.store.change(id, SessionChange::Configured(Box::new(options)));
        actix_web::rt::spawn(async move {
            if let Err(error) = recorded.await {
                tracing::error!(session.id = %id, %error, "the options of a session are not recorded");
            }
        });
    }

    fn ended(&self, id: SessionId, reason: EndReason, actor: &Addr<SessionActor>) {
        let is_its = |live: &Live| matches!(live, Live::Running { actor: known, .. } if known == actor);
        if reason == EndReason::Shutdown {
            // After a restart the client goes on in the same session.
            self.shared.live.remove_if(&id, |_, live| is_its(live));
            return;
        }
        match self.shared.live.get_mut(&id) {
            Some(mut live) if is_its(&live) => *live = Live::Ending(reason),
            Some(_) | None => return,
        }
        let recorded = self.shared.store.change(id, SessionChange::Ended(reason));
        let registry = self.clone();
        actix_web::rt::spawn(async move {
            if let Err(error) = recorded.await {
                tracing::error!(session.id = %id, %error, "the end of a session is not recorded");
            }
            registry.shared.live.remove_if(&id, |_, live| matches!(live, Live::Ending(_)));
        });
    }
}

async fn close(
    store: &dyn SessionStore,
    abandoned: Result<Vec<(SessionId, u32)>, StoreError>,
) -> Result<(), StoreError> {
    for (id, generation_base) in abandoned? {
        // One that was started in the meantime has another generation.
        store.change(id, SessionChange::Abandoned { generation_base }).await?;
    }
    Ok(())
}

fn new_record(id: SessionId, user: &UserId, room: RoomName) -> SessionRecord {
    SessionRecord {
        session_id: id,
        user_id: user.clone(),
        room,
        created_ms: clock::unix_ms(),
        generation_base: 0,
        ended: None,
        ended_ms: None,
        livekit_room: None,
        options: SessionOptions::default(),
    }
}

#[cfg(test)]
mod tests;
