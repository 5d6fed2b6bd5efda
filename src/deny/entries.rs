//! The entries of the deny list in memory: who may not be in which room, and until when.
//!
//! Pure: names and times go in, answers come out. Times are in milliseconds since the Unix epoch, because
//! entries outlive the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Key;
use crate::ids::{GuestName, Identity, RoomName};

/// Entries of one room. A room has tens of participants.
const MAX_PER_ROOM: usize = 256;

/// Entries of all rooms: some 20 MB.
const MAX_ENTRIES: usize = 65_536;

/// There is no place for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// When each entry ends.
    rooms: HashMap<RoomName, BTreeMap<Identity, u64>>,
    /// The same entries, sorted by their end.
    ends: BTreeSet<(u64, RoomName, Identity)>,
}

impl Entries {
    /// Adds an entry, or prolongs the one that is there; gives its end. Entries that have ended take up places
    /// until they are [expired](Self::expire).
    pub(super) fn insert(
        &mut self,
        room: &RoomName,
        identity: &Identity,
        until_ms: u64,
    ) -> Result<u64, Full> {
        let of_room = self.rooms.get(room);
        let earlier = of_room.and_then(|entries| entries.get(identity)).copied();
        match earlier {
            Some(earlier) if earlier >= until_ms => return Ok(earlier),
            Some(earlier) => {
                self.ends.remove(&(earlier, room.clone(), identity.clone()));
            }
            None => {
                let room_is_full = of_room.is_some_and(|entries| entries.len() >= MAX_PER_ROOM);
                if room_is_full || self.ends.len() >= MAX_ENTRIES {
                    return Err(Full);
                }
            }
        }
        self.rooms.entry(room.clone()).or_default().insert(identity.clone(), until_ms);
        self.ends.insert((until_ms, room.clone(), identity.clone()));
        Ok(until_ms)
    }

    /// Until when somebody may not be in a room; none if they may.
    pub(super) fn until(&self, room: &RoomName, identity: &Identity, now_ms: u64) -> Option<u64> {
        self.rooms.get(room)?.get(identity).copied().filter(|until| *until > now_ms)
    }

    /// Until when a guest may not be in a room because whoever invited them may not.
    pub(super) fn inviter_until(&self, room: &RoomName, guest: &Identity, now_ms: u64) -> Option<u64> {
        let entries = self.rooms.get(room)?.iter();
        entries
            .filter(|(identity, until)| **until > now_ms && guest.is_guest_of(identity, room))
            .map(|(_, until)| *until)
            .max()
    }

    /// Until when no guest of this name may join. A guest gets a new identity with each token, so removed
    /// guests are recognised by their name.
    pub(super) fn guest_until(&self, room: &RoomName, name: &GuestName, now_ms: u64) -> Option<u64> {
        let entries = self.rooms.get(room)?.iter();
        entries
            .filter(|(identity, until)| **until > now_ms && identity.is_guest_called(name))
            .map(|(_, until)| *until)
            .max()
    }

    /// Removes the entries that have ended; gives their keys.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Key> {
        let mut ended = Vec::new();
        while let Some((until, room, identity)) = self.ends.pop_first() {
            if until > now_ms {
                self.ends.insert((until, room, identity));
                break;
            }
            if let Some(entries) = self.rooms.get_mut(&room) {
                entries.remove(&identity);
                if entries.is_empty() {
                    self.rooms.remove(&room);
                }
            }
            ended.push((room, identity));
        }
        ended
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

    fn room(n: usize) -> RoomName {
        RoomName::parse(&format!("room-{n}")).unwrap()
    }

    fn identity(n: usize) -> Identity {
        Identity::parse(&format!("guest-{n}")).unwrap()
    }

    #[test]
    fn an_entry_is_for_one_room_and_ends() {
        let mut entries = Entries::default();
        entries.insert(&room(1), &identity(1), 100).unwrap();

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
        entries.insert(&room(1), &identity(1), 100).unwrap();
        assert_eq!(entries.insert(&room(1), &identity(1), 50), Ok(100));
        assert_eq!(entries.until(&room(1), &identity(1), 0), Some(100));
        entries.insert(&room(1), &identity(1), 200).unwrap();
        assert_eq!(entries.expire(150), []);
        assert_eq!(entries.until(&room(1), &identity(1), 150), Some(200));
    }

    #[test]
    fn a_removed_guest_is_recognised_by_name_under_a_new_identity() {
        let mut entries = Entries::default();
        let bob = GuestName::parse("Bob B.").unwrap();
        entries.insert(&room(1), &Identity::guest(&bob, "abc123"), 100).unwrap();

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

        entries.insert(&room(1), &ann, 100).unwrap();

        assert_eq!(entries.inviter_until(&room(1), &anns, 99), Some(100));
        assert_eq!(entries.inviter_until(&room(1), &anns, 100), None);
        assert_eq!(entries.inviter_until(&room(2), &anns, 0), None);
        assert_eq!(entries.inviter_until(&room(1), &others, 0), None);
    }

    #[test]
    fn a_full_room_takes_no_more_entries_and_other_rooms_still_do() {
        let mut entries = Entries::default();
        for n in 0..MAX_PER_ROOM {
            entries.insert(&room(1), &identity(n), 100).unwrap();
        }
        assert_eq!(entries.insert(&room(1), &identity(MAX_PER_ROOM), 100), Err(Full));
        assert_eq!(
            entries.insert(&room(1), &identity(0), 200),
            Ok(200),
            "an entry that is there is prolonged"
        );
        assert_eq!(entries.insert(&room(2), &identity(0), 100), Ok(100));
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
                entries.insert(&room(r), &identity(w), now + lasts).unwrap();
                everything.push((r, w, now + lasts));
                for r in 0..3 {
                    for w in 0..5 {
                        let longest = everything.iter().filter(|e| (e.0, e.1) == (r, w)).map(|e| e.2).max();
                        prop_assert_eq!(entries.until(&room(r), &identity(w), now), longest.filter(|until| *until > now));
                    }
                }
                let kept: usize = entries.rooms.values().map(BTreeMap::len).sum();
                prop_assert_eq!(kept, entries.ends.len());
                prop_assert!(entries.rooms.values().all(|of_room| !of_room.is_empty()));
            }
        }
    }
}
