//! How many sessions may be live at once: each has memory reserved for it before its actor starts.
//!
//! A reservation is for a session, however many clients attach to it at the same time, and is given back with the
//! last [`Reservation`] of it.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    ids::{SessionId, UserId},
    limits::shares::{Full, UNLIMITED},
};

pub(crate) struct LiveSessions {
    by_user: usize,
    in_all: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The number of reservations of each session.
    sessions: HashMap<SessionId, usize>,
    /// The number of sessions of each user.
    users: HashMap<UserId, usize>,
}

impl LiveSessions {
    pub(crate) fn new(by_user: usize, in_all: usize) -> Arc<Self> {
        Arc::new(Self { by_user, in_all, held: Mutex::default() })
    }

    /// How many there may be; none where there is no limit.
    pub(crate) fn capacity(&self) -> Option<usize> {
        (self.in_all != UNLIMITED).then_some(self.in_all)
    }

    pub(crate) fn held(&self) -> usize {
        self.held.lock().sessions.len()
    }

    pub(crate) fn reserve(self: &Arc<Self>, session: SessionId, user: &UserId) -> Result<Reservation, Full> {
        let mut held = self.held.lock();
        let Held { sessions, users } = &mut *held;
        if let Some(reservations) = sessions.get_mut(&session) {
            *reservations += 1;
        } else {
            if sessions.len() >= self.in_all {
                return Err(Full::All);
            }
            if users.get(user).is_some_and(|of_user| *of_user >= self.by_user) {
                return Err(Full::Key);
            }
            sessions.insert(session, 1);
            *users.entry(user.clone()).or_insert(0) += 1;
        }
        drop(held);
        Ok(Reservation { of: Arc::clone(self), session, user: user.clone() })
    }
}

/// The place of a live session, held until it is dropped.
pub(crate) struct Reservation {
    of: Arc<LiveSessions>,
    session: SessionId,
    user: UserId,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = self.of.held.lock();
        let Held { sessions, users } = &mut *held;
        let Some(reservations) = sessions.get_mut(&self.session) else { return };
        *reservations -= 1;
        if *reservations > 0 {
            return;
        }
        sessions.remove(&self.session);
        if let Some(of_user) = users.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                users.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve(live: &Arc<LiveSessions>, session: u128, user: &str) -> Result<Reservation, Full> {
        live.reserve(SessionId::from_u128(session), &UserId::parse(user).unwrap())
    }

    #[test]
    fn clients_that_attach_to_one_session_at_the_same_time_share_its_place() {
        let live = LiveSessions::new(1, 1);
        let first = reserve(&live, 1, "ann").ok().unwrap();
        let second = reserve(&live, 1, "ann").ok().unwrap();

        drop(first);
        assert_eq!(reserve(&live, 2, "ann").err(), Some(Full::All), "one of them still has it");
        drop(second);
        assert!(reserve(&live, 2, "ann").is_ok());
    }

    #[test]
    fn one_users_sessions_leave_places_for_others() {
        let live = LiveSessions::new(2, 3);
        let mut held: Vec<_> = (1..=2).map(|n| reserve(&live, n, "ann").ok().unwrap()).collect();

        assert_eq!(reserve(&live, 3, "ann").err(), Some(Full::Key));
        held.push(reserve(&live, 4, "bob").ok().unwrap());
        assert_eq!(live.held(), 3);
        drop(held);
        let left = live.held.lock();
        assert!(left.sessions.is_empty() && left.users.is_empty());
    }
}
