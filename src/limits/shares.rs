//! Places that are held for a while: at most so many per key, and at most so many in all.
//!
//! A [`Place`] is given back when it is dropped. Only keys that hold one take up memory, so the number in all bounds
//! that.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// No limit.
pub(crate) const UNLIMITED: usize = usize::MAX;

/// Which of the two limits is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Key,
    All,
}

pub(crate) struct Shares<K> {
    per_key: usize,
    in_all: usize,
    held: Mutex<Held<K>>,
}

struct Held<K> {
    by_key: HashMap<K, usize>,
    all: usize,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    pub(crate) fn new(per_key: usize, in_all: usize) -> Arc<Self> {
        Arc::new(Self { per_key, in_all, held: Mutex::new(Held { by_key: HashMap::new(), all: 0 }) })
    }

    /// How many places there are; none where there is no limit.
    pub(crate) fn capacity(&self) -> Option<usize> {
        (self.in_all != UNLIMITED).then_some(self.in_all)
    }

    pub(crate) fn held(&self) -> usize {
        self.held.lock().all
    }

    /// A place for this key; without a key it counts in all only.
    pub(crate) fn take(self: &Arc<Self>, key: Option<K>) -> Result<Place<K>, Full> {
        let mut held = self.held.lock();
        if held.all >= self.in_all {
            return Err(Full::All);
        }
        if let Some(key) = &key {
            let of_key = held.by_key.entry(key.clone()).or_insert(0);
            if *of_key >= self.per_key {
                return Err(Full::Key);
            }
            *of_key += 1;
        }
        held.all += 1;
        drop(held);
        Ok(Place { shares: Arc::clone(self), key })
    }
}

/// A place that is held until it is dropped.
pub(crate) struct Place<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    key: Option<K>,
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        held.all -= 1;
        let Some(key) = &self.key else { return };
        if let Some(of_key) = held.by_key.get_mut(key) {
            *of_key -= 1;
            if *of_key == 0 {
                held.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_takes_no_more_than_its_share_and_others_still_get_theirs() {
        let shares = Shares::new(2, 3);
        let places: Vec<_> = (0..2).map(|_| shares.take(Some("ann")).ok().unwrap()).collect();

        assert_eq!(shares.take(Some("ann")).err(), Some(Full::Key));
        let bobs = shares.take(Some("bob")).ok().unwrap();
        assert_eq!(shares.take(Some("eve")).err(), Some(Full::All));
        drop(bobs);
        assert!(shares.take(Some("eve")).is_ok());
        drop(places);
        assert!(shares.take(Some("ann")).is_ok());
    }

    #[test]
    fn places_that_are_given_back_leave_nothing_behind() {
        let shares = Shares::new(1, UNLIMITED);
        let places = ["ann", "bob"].map(|key| shares.take(Some(key)).ok().unwrap());
        let anonymous = shares.take(None).ok().unwrap();
        assert_eq!(shares.held(), 3);

        drop((places, anonymous));

        assert_eq!(shares.held(), 0);
        assert!(shares.held.lock().by_key.is_empty());
    }
}
