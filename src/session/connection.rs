//! The client's connection: which socket is attached, its heartbeat, its token, and how a session ends.
//!
//! ```text
//!                 attach                        socket lost, or no sign of life for 30 s
//!   detached ───────────────▶ attached ────────────────────────────────────┐
//!      ▲  │                      │  ▲ attach (the older socket is closed)    │
//!      │  │ grace is over        │  └──┘                                     │
//!      │  ▼                      ▼ goodbye, logout, shutdown                 │
//!      │ ended ◀─────────────────┘                                           │
//!      └─────────────────────────────────────────────────────────────────────┘
//! ```

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    auth::{AuthError, Principal, room_token::RoomToken},
    error::{Close, Code},
    ids::{Identity, RoomName},
    limits::Limit,
    protocol::{
        DecodeError, Profile, ToClient,
        edge_v1::{
            from_client::{ParticipantsOf, RenewToken},
            to_client::EndReason,
        },
    },
    session::{
        SessionConfig, SocketId,
        messages::TokenEnd,
        out::{Effect, Out, Reason, Soonest, is_due, may_repeat},
        takeover_limiter::TakeoverLimiter,
    },
    telemetry,
};

/// Frames in a row that could not be read before the channel is closed.
pub(super) const MALFORMED_LIMIT: u32 = 10;

/// Rooms a client may watch at once.
const MAX_WATCHED_ROOMS: usize = 16;

/// How often a client may ask for a LiveKit token or renew its own.
pub(super) const TOKEN_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// How long before its end a token is renewed; half its remaining life where that is shorter.
pub(super) const RENEWAL_LEAD: Duration = Duration::from_secs(300);

/// Whether a client is attached.
#[derive(Debug)]
enum State {
    Attached(Attached),
    Detached { until: Instant },
    Ended,
}

/// The client that is attached.
#[derive(Debug)]
struct Attached {
    /// The last sign of life.
    alive_at: Instant,
    /// When to ping next.
    ping_at: Instant,
    /// Frames in a row that could not be read.
    malformed: u32,
    /// When the client last asked for a LiveKit token.
    livekit_token_at: Option<Instant>,
    /// When the client last renewed its token.
    renewed_at: Option<Instant>,
    /// Its token; none where it never ends.
    token: Option<Token>,
}

#[derive(Debug)]
struct Token {
    end: TokenEnd,
    /// When it is renewed, or the client is reminded to; none once that is done.
    renew_at: Option<Instant>,
}

impl Token {
    fn new(end: TokenEnd, now: Instant) -> Self {
        let left = end.at.saturating_duration_since(now);
        Self { renew_at: Some(end.at - RENEWAL_LEAD.min(left / 2)), end }
    }
}

/// The machine.
#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    takeovers: TakeoverLimiter,
    /// Counts attachments.
    epoch: u64,
    /// The rooms whose participants are pushed to the client, and who may see them.
    watched: BTreeMap<RoomName, Identity>,
}

impl Connection {
    /// Detached until then; attachments count from `epoch`.
    pub(super) fn new(epoch: u64, until: Instant) -> Self {
        Self {
            state: State::Detached { until },
            takeovers: TakeoverLimiter::default(),
            epoch,
            watched: BTreeMap::new(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    // --- Attaching ----------------------------------------------------------------------------

    /// Whether a socket may have the session; else it is refused. The socket that has the session now is
    /// closed. `resumes`: the client proved that it had the session before, so it is no takeover.
    pub(super) fn admit(
        &mut self,
        socket: SocketId,
        profile: Profile,
        resumes: bool,
        out: &mut Out<'_>,
    ) -> bool {
        let Some(older) = out.socket() else { return true };
        if older > socket {
            out.close(socket, profile, Close::Superseded, "a newer socket has the session");
            return false;
        }
        if !resumes && let Err(until) = self.takeovers.ask(out.now) {
            refuse_takeover(socket, profile, out);
            out.push(Effect::RefuseUntil(until));
            return false;
        }
        farewell(older, EndReason::Superseded, Close::Superseded, out);
        true
    }

    /// The socket was admitted.
    pub(super) fn attached(
        &mut self,
        socket: SocketId,
        profile: Profile,
        token: Option<TokenEnd>,
        out: &mut Out<'_>,
    ) {
        self.epoch += 1;
        out.set_token(token.as_ref());
        self.state = State::Attached(Attached {
            alive_at: out.now,
            ping_at: out.now + out.config().heartbeat,
            malformed: 0,
            livekit_token_at: None,
            renewed_at: None,
            token: token.map(|end| Token::new(end, out.now)),
        });
        out.attach(socket, profile);
    }

    /// The attached socket is gone; the session waits for its client. False where another socket is
    /// attached: the close of a socket that was replaced arrives late.
    pub(super) fn socket_lost(&mut self, socket: SocketId, out: &mut Out<'_>) -> bool {
        if out.socket() != Some(socket) {
            return false;
        }
        self.state = State::Detached { until: out.now + out.config().grace };
        out.detach();
        tracing::info!(session.id = %out.info().id, "client detached");
        true
    }

    /// The session is in use without a client: its grace begins anew.
    pub(super) fn keep_waiting(&mut self, out: &Out<'_>) {
        if let State::Detached { until } = &mut self.state {
            *until = (*until).max(out.now + out.config().grace);
        }
    }

    /// The attached socket showed a sign of life.
    pub(super) fn alive(&mut self, now: Instant) {
        if let State::Attached(attached) = &mut self.state {
            attached.alive_at = now;
        }
    }

    /// The attached socket sent a message that could be read.
    pub(super) fn readable(&mut self, now: Instant) {
        if let State::Attached(attached) = &mut self.state {
            attached.alive_at = now;
            attached.malformed = 0;
        }
    }

    /// The attached socket sent something that could not be read. True where it was one too many.
    pub(super) fn malformed(&mut self, socket: SocketId, error: &DecodeError, out: &mut Out<'_>) -> bool {
        let State::Attached(attached) = &mut self.state else { return false };
        attached.alive_at = out.now;
        metrics::counter!(telemetry::MALFORMED_MESSAGES).increment(1);
        if out.profile() == Profile::Mentra {
            return false;
        }
        let code = match error {
            DecodeError::Json(_) | DecodeError::NoType => {
                attached.malformed += 1;
                Code::MalformedMessage
            }
            DecodeError::Header(_) => Code::MalformedMessage,
            DecodeError::Codec(_) => Code::Unsupported,
        };
        let too_many = attached.malformed >= MALFORMED_LIMIT;
        out.error(code, error.to_string(), None);
        if too_many {
            out.close(socket, out.profile(), Close::Policy, "too many messages that could not be read");
        }
        too_many
    }

    /// Ends the session.
    pub(super) fn end(&mut self, reason: EndReason, out: &mut Out<'_>) {
        if let Some(socket) = out.socket() {
            let close = match reason {
                EndReason::Shutdown => Close::Restart,
                EndReason::GraceExpired
                | EndReason::Superseded
                | EndReason::Logout
                | EndReason::Disconnected => Close::Normal,
            };
            farewell(socket, reason, close, out);
        }
        self.state = State::Ended;
        out.detach();
        out.push(Effect::Ended(reason));
        tracing::info!(session.id = %out.info().id, ?reason, "session ended");
    }

    // --- Tokens -------------------------------------------------------------------------------

    /// Whether the client may have a LiveKit token now: once a second.
    pub(super) fn may_have_livekit_token(&mut self, now: Instant) -> bool {
        let State::Attached(attached) = &mut self.state else { return false };
        may_repeat(&mut attached.livekit_token_at, TOKEN_REQUEST_INTERVAL, now)
    }

    /// The client asks for a new control token, or brings a new token of its own.
    pub(super) fn renew(
        &mut self,
        socket: SocketId,
        request: RenewToken,
        id: Option<String>,
        out: &mut Out<'_>,
    ) {
        let State::Attached(attached) = &mut self.state else { return };
        if !may_repeat(&mut attached.renewed_at, TOKEN_REQUEST_INTERVAL, out.now) {
            return out.error(Code::RateLimited, "a token can be renewed once a second", id);
        }
        let own = attached.token.as_ref().is_some_and(|token| !token.end.renewable);
        match request.token {
            Some(token) => out.push(Effect::VerifyToken { socket, token, reply_to: id }),
            None if own => {
                let message = "this channel was opened with a token of yours: send the new one as `token`";
                out.error(Code::Forbidden, message, id);
            }
            None if self.issue_control_token(out) => {}
            None => {
                let message =
                    "no renewal outlives what this channel was opened with: send a new token as `token`";
                out.error(Code::Forbidden, message, id);
            }
        }
    }

    /// The token that the client brought was verified.
    pub(super) fn token_verified(
        &mut self,
        result: Result<Principal, AuthError>,
        id: Option<String>,
        out: &mut Out<'_>,
    ) {
        let State::Attached(attached) = &mut self.state else { return };
        let info = out.info();
        let principal = match result {
            Ok(principal)
                if principal.user == info.user
                    && principal.session.is_none_or(|session| session == info.id) =>
            {
                principal
            }
            Ok(_) => return out.error(Code::Forbidden, "the token is for another user or session", id),
            Err(error) => return out.error(error.code(), error.to_string(), id),
        };
        let end = TokenEnd::of(&principal, out.now, out.unix_ms() / 1000);
        let expires_at = end.as_ref().map(|end| end.unix_s);
        out.set_token(end.as_ref());
        attached.token = end.map(|end| Token::new(end, out.now));
        out.tell(ToClient::TokenRenewed { expires_at, reply_to: id });
    }

    /// Signs a control token for the client, by which the channel goes on. False where its token already ends with
    /// what it was issued on.
    fn issue_control_token(&mut self, out: &mut Out<'_>) -> bool {
        let State::Attached(attached) = &mut self.state else { return false };
        let bound = out.bound();
        let ends_at = attached.token.as_ref().map(|token| token.end.unix_s);
        if bound.zip(ends_at).is_some_and(|(bound, ends_at)| bound <= ends_at) {
            return false;
        }
        let info = out.info();
        let unix_s = out.unix_ms() / 1000;
        let authenticator = &out.config().authenticator;
        let (control_token, expires_at) =
            authenticator.control_token(&info.user, info.id, &info.room, unix_s, bound);
        let left = Duration::from_secs(expires_at.saturating_sub(unix_s));
        let end = TokenEnd { at: out.now + left, unix_s: expires_at, renewable: true, until: bound };
        attached.token = Some(Token::new(end, out.now));
        out.tell(ToClient::ControlToken { control_token, expires_at });
        true
    }

    // --- Rooms --------------------------------------------------------------------------------

    /// The client wants a room's participants: its session's own, or one that it brings a LiveKit token
    /// for.
    pub(super) fn subscribe_participants(
        &mut self,
        of: &ParticipantsOf,
        id: Option<String>,
        out: &mut Out<'_>,
    ) {
        let by_token = verified(of, out.config());
        let own = out.info().room.clone();
        let room = of.room.clone().or_else(|| Some(by_token.as_ref()?.room.clone())).unwrap_or(own);
        let holder = match by_token {
            _ if room == out.info().room => Identity::from(&out.info().user),
            Some(token) if token.room == room => token.identity,
            Some(_) | None => {
                let message = "another room than the session's own takes a LiveKit token for it";
                return out.error(Code::Forbidden, message, id);
            }
        };
        if self.watched.len() >= MAX_WATCHED_ROOMS && !self.watched.contains_key(&room) {
            Limit::RoomsByChannel.count();
            let message = format!("at most {MAX_WATCHED_ROOMS} rooms can be watched at once");
            return out.error(Code::RateLimited, message, id);
        }
        self.watched.insert(room.clone(), holder.clone());
        out.push(Effect::WatchRoom(room, holder));
    }

    pub(super) fn unsubscribe_participants(&mut self, of: ParticipantsOf, out: &mut Out<'_>) {
        let room = of.room.unwrap_or_else(|| out.info().room.clone());
        if self.watched.remove(&room).is_some() {
            out.push(Effect::UnwatchRoom(room));
        }
    }

    /// Watches for a client that comes back what it watched before.
    pub(super) fn watch_again(&self, out: &mut Out<'_>) {
        for (room, holder) in &self.watched {
            out.push(Effect::WatchRoom(room.clone(), holder.clone()));
        }
    }

    // --- Time ---------------------------------------------------------------------------------

    pub(super) fn deadline(&self, config: &SessionConfig) -> Soonest {
        match &self.state {
            State::Attached(attached) => {
                let token = attached.token.as_ref();
                Soonest::default()
                    .or(Some(attached.ping_at), Reason::Ping)
                    .or(Some(attached.alive_at + config.client_timeout), Reason::ClientTimeout)
                    .or(token.and_then(|token| token.renew_at), Reason::TokenRenewal)
                    .or(token.map(|token| token.end.at), Reason::TokenEnd)
            }
            State::Detached { until } => Soonest::default().or(Some(*until), Reason::Grace),
            State::Ended => Soonest::default(),
        }
    }

    /// What time brings.
    pub(super) fn tick(&mut self, out: &mut Out<'_>) -> Due {
        let now = out.now;
        match &mut self.state {
            State::Attached(attached) => {
                let Some(socket) = out.socket() else { return Due::Nothing };
                let token_ends = attached.token.as_ref().map(|token| token.end.at);
                if now >= attached.alive_at + out.config().client_timeout {
                    out.close(socket, out.profile(), Close::GoingAway, "no sign of life for too long");
                    return Due::SocketLost(socket);
                }
                if is_due(token_ends, now) {
                    // The session waits: a client that comes back with a new token within the grace
                    // resumes it.
                    out.tell(ToClient::AuthError { message: "the token has expired".into() });
                    out.close(socket, out.profile(), Close::Unauthorized, "the token has expired");
                    return Due::SocketLost(socket);
                }
                if now >= attached.ping_at {
                    attached.ping_at = now + out.config().heartbeat;
                    out.push(Effect::Ping(socket));
                }
                self.renew_in_time(out);
                Due::Nothing
            }
            State::Detached { until } if now >= *until => Due::GraceExpired,
            State::Detached { .. } | State::Ended => Due::Nothing,
        }
    }

    /// Renews a token that ends soon, or reminds the client to bring a new one.
    fn renew_in_time(&mut self, out: &mut Out<'_>) {
        let State::Attached(Attached { token: Some(token), .. }) = &mut self.state else { return };
        if !is_due(token.renew_at, out.now) {
            return;
        }
        token.renew_at = None;
        let (renewable, expires_at) = (token.end.renewable, token.end.unix_s);
        if out.profile() == Profile::Mentra {
            // These clients know neither message; they log in again when the channel closes.
        } else if !(renewable && self.issue_control_token(out)) {
            out.tell(ToClient::TokenExpiring { expires_at });
        }
    }
}

/// What the time calls for that concerns the whole session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// The socket was closed.
    SocketLost(SocketId),
    /// Nobody came back.
    GraceExpired,
}

/// What a subscription's LiveKit token proves.
fn verified(of: &ParticipantsOf, config: &SessionConfig) -> Option<RoomToken> {
    config.room_tokens.as_ref()?.verify(of.token.as_ref()?.expose())
}

/// Refuses a client whose user was removed from the room.
pub(super) fn refuse_removed(socket: SocketId, profile: Profile, out: &mut Out<'_>) {
    refuse(socket, profile, Code::Forbidden, Close::Policy, "removed from the room", out);
}

fn refuse(
    socket: SocketId,
    profile: Profile,
    code: Code,
    close: Close,
    words: &'static str,
    out: &mut Out<'_>,
) {
    let message = ToClient::ConnectionError {
        code,
        message: words.into(),
        timestamp: out.timestamp(),
        retryable: code.retryable(),
        retry_after_ms: None,
    };
    out.tell_socket(socket, profile, &message);
    out.close(socket, profile, close, words);
}

/// Refuses one of the devices that fight for the session.
fn refuse_takeover(socket: SocketId, profile: Profile, out: &mut Out<'_>) {
    let words = "too many devices want this session";
    refuse(socket, profile, Code::RateLimited, Close::Overloaded, words, out);
    tracing::warn!(session.id = %out.info().id, "devices fight for the session, one is refused");
}

/// Tells a socket why it is closed, and closes it.
fn farewell(socket: SocketId, reason: EndReason, close: Close, out: &mut Out<'_>) {
    let profile = out.profile();
    out.tell_socket(socket, profile, &ToClient::SessionEnd { reason });
    let words = match reason {
        EndReason::GraceExpired => "the session expired",
        EndReason::Superseded => "a newer socket has the session",
        EndReason::Logout => "the session has ended",
        EndReason::Disconnected => "an operator disconnected the session",
        EndReason::Shutdown => "the gateway restarts",
    };
    out.close(socket, profile, close, words);
}
