//! The entries of the deny list in memory: who may not be in which room, and until when.
//!
//! Pure: names and times go in, answers come out. Times are in milliseconds since the Unix epoch, because
//! entries outlive the process.
//!
//! Places are shared: those whom a user removes take places of that user, few per room if nobody saw them there; the
//! rest of the list is kept for operators. A refused entry replaces no other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Key;
use crate::ids::{GuestName, Identity, RoomName, UserId};

/// Entries of one user in one room, for whoever may join it. A room has tens of participants.
const MAX_ABSENT_PER_ROOM: usize = 64;

/// The same with those who were in the room when they were removed.
const MAX_PER_ROOM: usize = 256;

/// Entries of one user in all rooms.
const MAX_PER_USER: usize = 512;

/// Entries of all users, and with those of operators: some 20 MB.
const MAX_OF_USERS: usize = 49_152;
const MAX_ENTRIES: usize = 65_536;

/// By whom somebody is removed from a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedBy<'a> {
    Operator,
    /// The owner of the room; whether the removed one was in the room.
    Owner {
        user: &'a UserId,
        was_present: bool,
    },
}

/// There is no place for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) share: Share,
    /// When an entry of the share ends, in milliseconds since the Unix epoch.
    pub(super) until_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    Room,
    User,
    All,
}

#[derive(Debug)]
struct Entry {
    until_ms: u64,
    /// Whose share it takes a place of; none for operators'.
    owner: Option<UserId>,
}

/// An entry's end and key, to sort entries by their end.
type End = (u64, RoomName, Identity);

#[derive(Debug, Default)]
pub(super) struct Entries {
    rooms: HashMap<RoomName, BTreeMap<Identity, Entry>>,
    /// The ends of all entries.
    ends: BTreeSet<End>,
    /// The ends of each user's entries.
    users: HashMap<UserId, BTreeSet<End>>,
    /// How many entries are users'.
    of_users: usize,
}

impl Entries {
    /// Adds an entry, or prolongs the one that is there; gives its end. Entries that have ended take up places
    /// until they are [expired](Self::expire).
    pub(super) fn insert(
        &mut self,
        room: &RoomName,
        identity: &Identity,
        until_ms: u64,
        by: DeniedBy<'_>,
    ) -> Result<u64, Full> {
        let earlier = self.rooms.get(room).and_then(|entries| entries.get(identity));
        let (until_ms, owner) = match earlier {
            Some(earlier) => {
                // An operator's entry stays an operator's.
                let owner = earlier.owner.clone().filter(|_| by != DeniedBy::Operator);
                (earlier.until_ms.max(until_ms), owner)
            }
            None => {
                self.check(room, by)?;
                let owner = match by {
                    DeniedBy::Operator => None,
                    DeniedBy::Owner { user, .. } => Some(user.clone()),
                };
                (until_ms, owner)
            }
        };
        self.remove(room, identity);
        let end = (until_ms, room.clone(), identity.clone());
        if let Some(owner) = &owner {
            self.users.entry(owner.clone()).or_default().insert(end.clone());
            self.of_users += 1;
        }
        self.rooms.entry(room.clone()).or_default().insert(identity.clone(), Entry { until_ms, owner });
        self.ends.insert(end);
        Ok(until_ms)
    }

    /// Whether there is a place for another entry.
    fn check(&self, room: &RoomName, by: DeniedBy<'_>) -> Result<(), Full> {
        let first = |ends: &BTreeSet<End>| ends.first().map_or(0, |(until, ..)| *until);
        if self.ends.len() >= MAX_ENTRIES {
            return Err(Full { share: Share::All, until_ms: first(&self.ends) });
        }
        let DeniedBy::Owner { user, was_present } = by else { return Ok(()) };
        let of_room = self.rooms.get(room).into_iter().flat_map(BTreeMap::values);
        let of_room = of_room.filter(|entry| entry.owner.as_ref() == Some(user));
        let max_of_room = if was_present { MAX_PER_ROOM } else { MAX_ABSENT_PER_ROOM };
        if of_room.clone().count() >= max_of_room {
            let until_ms = of_room.map(|entry| entry.until_ms).min().unwrap_or_default();
            return Err(Full { share: Share::Room, until_ms });
        }
        if let Some(ends) = self.users.get(user)
            && ends.len() >= MAX_PER_USER
        {
            return Err(Full { share: Share::User, until_ms: first(ends) });
        }
        if self.of_users >= MAX_OF_USERS {
            return Err(Full { share: Share::All, until_ms: first(&self.ends) });
        }
        Ok(())
    }

    /// Whose share an entry is in; none for an operator's.
    pub(super) fn owner(&self, room: &RoomName, identity: &Identity) -> Option<&UserId> {
        self.rooms.get(room)?.get(identity)?.owner.as_ref()
    }

    /// Until when somebody may not be in a room; none if they may.
    pub(super) fn until(&self, room: &RoomName, identity: &Identity, now_ms: u64) -> Option<u64> {
        let entry = self.rooms.get(room)?.get(identity)?;
        Some(entry.until_ms).filter(|until| *until > now_ms)
    }

    /// Until when a guest may not be in a room because whoever invited them may not.
    pub(super) fn inviter_until(&self, room: &RoomName, guest: &Identity, now_ms: u64) -> Option<u64> {
        let entries = self.rooms.get(room)?.iter();
        entries
            .filter(|(identity, entry)| entry.until_ms > now_ms && guest.is_guest_of(identity, room))
            .map(|(_, entry)| entry.until_ms)
            .max()
    }

    /// Until when no guest of this name may join. A guest gets a new identity with each token, so removed
    /// guests are recognised by their name.
    pub(super) fn guest_until(&self, room: &RoomName, name: &GuestName, now_ms: u64) -> Option<u64> {
        let entries = self.rooms.get(room)?.iter();
        entries
            .filter(|(identity, entry)| entry.until_ms > now_ms && identity.is_guest_called(name))
            .map(|(_, entry)| entry.until_ms)
            .max()
    }

    /// Removes the entries that have ended; gives their keys.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Key> {
        let mut ended = Vec::new();
        while let Some((until, room, identity)) = self.ends.first().cloned() {
            if until > now_ms {
                break;
            }
            self.remove(&room, &identity);
            ended.push((room, identity));
        }
        ended
    }

    fn remove(&mut self, room: &RoomName, identity: &Identity) {
        let Some(entries) = self.rooms.get_mut(room) else { return };
        let Some(Entry { until_ms, owner }) = entries.remove(identity) else { return };
        if entries.is_empty() {
            self.rooms.remove(room);
        }
        let end = (until_ms, room.clone(), identity.clone());
        self.ends.remove(&end);
        if let Some(owner) = owner
            && let Some(ends) = self.users.get_mut(&owner)
        {
            self.of_users -= 1;
            ends.remove(&end);
            if ends.is_empty() {
                self.users.remove(&owner);
            }
        }
    }

    /// Every entry's key, sorted by the entries' end.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&RoomName, &Identity)> {
        self.ends.iter().map(|(_, room, identity)| (room, identity))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPERATOR: DeniedBy<'static> = DeniedBy::Operator;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn owner(user: &UserId) -> DeniedBy<'_> {
        DeniedBy::Owner { user, was_present: false }
    }

    fn room(n: usize) -> RoomName {
        RoomName::parse(&format!("room-{n}")).unwrap()
    }

    fn identity(n: usize) -> Identity {
        Identity::parse(&format!("guest-{n}")).unwrap()
    }

    #[test]
    fn an_entry_is_for_one_room_and_ends() {
        let mut entries = Entries::default();
        entries.insert(&room(1), &identity(1), 100, OPERATOR).unwrap();

        assert_eq!(entries.until(&room(1), &identity(1), 99), Some(100));
        assert_eq!(entries.until(&room(1), &identity(1), 100), None);
        assert_eq!(entries.until(&room(2), &identity(1), 0), None);
        assert_eq!(entries.until(&room(1), &identity(2), 0), None);
        assert_eq!(entries.expire(99), []);
        assert_eq!(entries.expire(100), [(room(1), identity(1))]);
        assert!(entries.rooms.is_empty() && entries.ends.is_empty());
    }

    #[test]
    fn an_entry_is_prolonged_and_never_shortened() {
        let mut entries = Entries::default();
        entries.insert(&room(1), &identity(1), 100, OPERATOR).unwrap();
        assert_eq!(entries.insert(&room(1), &identity(1), 50, OPERATOR), Ok(100));
        assert_eq!(entries.until(&room(1), &identity(1), 0), Some(100));
        entries.insert(&room(1), &identity(1), 200, OPERATOR).unwrap();
        assert_eq!(entries.expire(150), []);
        assert_eq!(entries.until(&room(1), &identity(1), 150), Some(200));
    }

    #[test]
    fn a_removed_guest_is_recognised_by_name_under_a_new_identity() {
        let mut entries = Entries::default();
        let bob = GuestName::parse("Bob B.").unwrap();
        entries.insert(&room(1), &Identity::guest(&bob, "abc123"), 100, OPERATOR).unwrap();

        assert_eq!(entries.guest_until(&room(1), &bob, 0), Some(100));
        assert_eq!(entries.guest_until(&room(1), &bob, 100), None);
        assert_eq!(entries.guest_until(&room(2), &bob, 0), None);
        for other in ["Bob", "Bob B. C.", "Eve"] {
            assert_eq!(entries.guest_until(&room(1), &GuestName::parse(other).unwrap(), 0), None, "{other}");
        }
    }

    #[test]
    fn a_guest_is_kept_out_as_long_as_whoever_invited_them() {
        let mut entries = Entries::default();
        let (ann, name) = (identity(1), GuestName::parse("Bob").unwrap());
        let anns = Identity::guest_of(&ann, &room(1), &name, "abc123");
        let others = Identity::guest(&name, "abc123");

        entries.insert(&room(1), &ann, 100, OPERATOR).unwrap();

        assert_eq!(entries.inviter_until(&room(1), &anns, 99), Some(100));
        assert_eq!(entries.inviter_until(&room(1), &anns, 100), None);
        assert_eq!(entries.inviter_until(&room(2), &anns, 0), None);
        assert_eq!(entries.inviter_until(&room(1), &others, 0), None);
    }

    #[test]
    fn invented_names_fill_an_owners_share_of_a_room_and_nobody_elses() {
        let (mut entries, ann) = (Entries::default(), user("ann"));
        for n in 0..MAX_ABSENT_PER_ROOM {
            entries.insert(&room(1), &identity(n), 100 + n as u64, owner(&ann)).unwrap();
        }

        let refused = entries.insert(&room(1), &identity(999), 200, owner(&ann));
        assert_eq!(refused, Err(Full { share: Share::Room, until_ms: 100 }));
        assert_eq!(entries.until(&room(1), &identity(0), 0), Some(100), "the oldest is not replaced");
        assert_eq!(entries.insert(&room(1), &identity(0), 300, owner(&ann)), Ok(300), "one is prolonged");
        assert_eq!(entries.insert(&room(2), &identity(0), 100, owner(&ann)), Ok(100));
        let present = DeniedBy::Owner { user: &ann, was_present: true };
        assert_eq!(entries.insert(&room(1), &identity(999), 100, present), Ok(100));
        assert_eq!(entries.insert(&room(1), &identity(1000), 100, OPERATOR), Ok(100));
        assert_eq!(entries.expire(100).len(), 3);
    }

    #[test]
    fn one_users_rooms_together_leave_places_for_others() {
        let (mut entries, ann, bob) = (Entries::default(), user("ann"), user("bob"));
        for n in 0..MAX_PER_USER {
            entries.insert(&room(n / 8), &identity(n), 100, owner(&ann)).unwrap();
        }

        let refused = entries.insert(&room(1_000), &identity(0), 200, owner(&ann));
        assert_eq!(refused, Err(Full { share: Share::User, until_ms: 100 }));
        assert_eq!(entries.insert(&room(1_000), &identity(0), 200, owner(&bob)), Ok(200));
    }

    #[test]
    fn users_together_leave_places_for_operators() {
        let mut entries = Entries::default();
        for n in 0..MAX_OF_USERS {
            let ann = user(&format!("ann-{}", n / MAX_PER_USER));
            entries.insert(&room(n / 8), &identity(n), 100, owner(&ann)).unwrap();
        }

        let refused = entries.insert(&room(0), &identity(0), 200, owner(&user("bob"))).map(drop);
        assert_eq!(refused, Ok(()), "an entry that is there is prolonged");
        let refused = entries.insert(&room(99_999), &identity(0), 200, owner(&user("bob")));
        assert_eq!(refused, Err(Full { share: Share::All, until_ms: 100 }));
        assert_eq!(entries.insert(&room(99_999), &identity(0), 200, OPERATOR), Ok(200));
    }

    #[test]
    fn an_operator_who_denies_what_a_user_has_denied_gives_the_user_their_place_back() {
        let (mut entries, ann) = (Entries::default(), user("ann"));
        entries.insert(&room(1), &identity(1), 100, owner(&ann)).unwrap();

        entries.insert(&room(1), &identity(1), 50, OPERATOR).unwrap();

        assert_eq!((entries.of_users, entries.users.len(), entries.ends.len()), (0, 0, 1));
        entries.insert(&room(1), &identity(1), 150, owner(&ann)).unwrap();
        assert_eq!(entries.of_users, 0, "and it stays an operator's");
    }

    proptest! {
        /// The answers are those of a list of everything that was ever inserted.
        #[test]
        fn the_entries_answer_as_a_list_of_everything_would(
            steps in prop::collection::vec((0..3usize, 0..5usize, 0..50u64, 0..20u64, any::<bool>()), 1..60),
        ) {
            let mut entries = Entries::default();
            let mut everything: Vec<(usize, usize, u64)> = Vec::new();
            let mut now = 0;
            for (r, w, lasts, later, expire) in steps {
                now += later;
                if expire {
                    entries.expire(now);
                }
                let ann = user("ann");
                let by = if w % 2 == 0 { OPERATOR } else { owner(&ann) };
                entries.insert(&room(r), &identity(w), now + lasts, by).unwrap();
                everything.push((r, w, now + lasts));
                for r in 0..3 {
                    for w in 0..5 {
                        let longest = everything.iter().filter(|e| (e.0, e.1) == (r, w)).map(|e| e.2).max();
                        prop_assert_eq!(entries.until(&room(r), &identity(w), now), longest.filter(|until| *until > now));
                    }
                }
                let kept: usize = entries.rooms.values().map(BTreeMap::len).sum();
                prop_assert_eq!(kept, entries.ends.len());
                prop_assert_eq!(entries.users.values().map(BTreeSet::len).sum::<usize>(), entries.of_users);
                prop_assert!(entries.rooms.values().all(|of_room| !of_room.is_empty()));
            }
        }
    }
}
