//! Who may not be in which room, and until when: the deny-list itself.
//!
//! Pure: names and times go in, answers come out; [`Deny`](super::Deny) keeps it on disk and acts on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ids::{GuestName, Identity, RoomName};

/// Entries of one room. A room has tens of people; whoever removes more than this is told to wait.
pub const MAX_PER_ROOM: usize = 256;

/// Entries of all rooms: some 20 MB.
pub const MAX_ENTRIES: usize = 65_536;

/// The list has no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What tells an entry apart.
pub type Key = (RoomName, Identity);

/// The list. Times are in milliseconds since the Unix epoch: they outlive the process.
#[derive(Debug, Default)]
pub struct List {
    /// When each entry ends.
    rooms: HashMap<RoomName, BTreeMap<Identity, u64>>,
    /// The same entries, the one that ends first in front.
    ends: BTreeSet<(u64, RoomName, Identity)>,
}

impl List {
    /// Adds an entry, or lets the one that is there last longer. What has ended must have been taken out
    /// before ([`expire`](Self::expire)), for it counts.
    pub fn deny(&mut self, room: &RoomName, identity: &Identity, until_ms: u64) -> Result<(), Full> {
        let of_room = self.rooms.get(room);
        let earlier = of_room.and_then(|entries| entries.get(identity)).copied();
        match earlier {
            Some(earlier) if earlier >= until_ms => return Ok(()),
            Some(earlier) => {
                self.ends.remove(&(earlier, room.clone(), identity.clone()));
            }
            None => {
                let full_room = of_room.is_some_and(|entries| entries.len() >= MAX_PER_ROOM);
                if full_room || self.ends.len() >= MAX_ENTRIES {
                    return Err(Full);
                }
            }
        }
        self.rooms.entry(room.clone()).or_default().insert(identity.clone(), until_ms);
        self.ends.insert((until_ms, room.clone(), identity.clone()));
        Ok(())
    }

    /// Until when somebody may not be in a room; none where they may.
    pub fn until(&self, room: &RoomName, identity: &Identity, now_ms: u64) -> Option<u64> {
        self.rooms.get(room)?.get(identity).copied().filter(|until| *until > now_ms)
    }

    /// Until when no guest of this name may come: a guest has a new identity each time, so that a name
    /// that was shown the door is what is remembered.
    pub fn guest_until(&self, room: &RoomName, name: &GuestName, now_ms: u64) -> Option<u64> {
        let entries = self.rooms.get(room)?.iter();
        entries
            .filter(|(identity, until)| **until > now_ms && identity.is_guest_called(name))
            .map(|(_, until)| *until)
            .max()
    }

    /// Takes out what has ended, and names it.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Key> {
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

    /// Every entry, the one that ends first in front.
    pub fn entries(&self) -> impl Iterator<Item = (&RoomName, &Identity)> {
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

    fn who(n: usize) -> Identity {
        Identity::parse(&format!("guest-{n}")).unwrap()
    }

    #[test]
    fn an_entry_is_for_one_room_and_ends() {
        let mut list = List::default();
        list.deny(&room(1), &who(1), 100).unwrap();

        assert_eq!(list.until(&room(1), &who(1), 99), Some(100));
        assert_eq!(list.until(&room(1), &who(1), 100), None);
        assert_eq!(list.until(&room(2), &who(1), 0), None);
        assert_eq!(list.until(&room(1), &who(2), 0), None);
        assert_eq!(list.expire(99), []);
        assert_eq!(list.expire(100), [(room(1), who(1))]);
        assert!(list.rooms.is_empty() && list.ends.is_empty());
    }

    #[test]
    fn an_entry_is_made_longer_and_never_shorter() {
        let mut list = List::default();
        list.deny(&room(1), &who(1), 100).unwrap();
        list.deny(&room(1), &who(1), 50).unwrap();
        assert_eq!(list.until(&room(1), &who(1), 0), Some(100));
        list.deny(&room(1), &who(1), 200).unwrap();
        assert_eq!(list.expire(150), []);
        assert_eq!(list.until(&room(1), &who(1), 150), Some(200));
    }

    #[test]
    fn a_guest_who_was_removed_does_not_come_back_under_a_new_identity() {
        let mut list = List::default();
        let bob = GuestName::parse("Bob B.").unwrap();
        list.deny(&room(1), &Identity::guest(&bob, "abc123"), 100).unwrap();

        assert_eq!(list.guest_until(&room(1), &bob, 0), Some(100));
        assert_eq!(list.guest_until(&room(1), &bob, 100), None);
        assert_eq!(list.guest_until(&room(2), &bob, 0), None);
        for other in ["Bob", "Bob B. C.", "Eve"] {
            assert_eq!(list.guest_until(&room(1), &GuestName::parse(other).unwrap(), 0), None, "{other}");
        }
    }

    #[test]
    fn a_full_room_takes_no_more_and_leaves_room_for_the_others() {
        let mut list = List::default();
        for n in 0..MAX_PER_ROOM {
            list.deny(&room(1), &who(n), 100).unwrap();
        }
        assert_eq!(list.deny(&room(1), &who(MAX_PER_ROOM), 100), Err(Full));
        assert_eq!(list.deny(&room(1), &who(0), 200), Ok(()), "an entry that is there is made longer");
        assert_eq!(list.deny(&room(2), &who(0), 100), Ok(()));
    }

    proptest! {
        /// Whatever is added and whenever is asked, the answers are those of a plain list of everything.
        #[test]
        fn the_list_answers_as_a_plain_list_of_everything_would(
            steps in prop::collection::vec((0..3usize, 0..5usize, 0..50u64, 0..20u64, any::<bool>()), 1..60),
        ) {
            let mut list = List::default();
            let mut everything: Vec<(usize, usize, u64)> = Vec::new();
            let mut now = 0;
            for (r, w, lasts, later, expire) in steps {
                now += later;
                if expire {
                    list.expire(now);
                }
                list.deny(&room(r), &who(w), now + lasts).unwrap();
                everything.push((r, w, now + lasts));
                for r in 0..3 {
                    for w in 0..5 {
                        let longest = everything.iter().filter(|e| (e.0, e.1) == (r, w)).map(|e| e.2).max();
                        prop_assert_eq!(list.until(&room(r), &who(w), now), longest.filter(|until| *until > now));
                    }
                }
                let kept: usize = list.rooms.values().map(BTreeMap::len).sum();
                prop_assert_eq!(kept, list.ends.len());
                prop_assert!(list.rooms.values().all(|entries| !entries.is_empty()));
            }
        }
    }
}
