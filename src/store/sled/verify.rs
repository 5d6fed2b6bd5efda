//! Reads every record of a database, for `june history verify`.
//!
//! Opening a database writes to it (sled cuts what it cannot read, and removes spare files), so a copy is opened.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    ids::UserId,
    store::{
        StoreError,
        history::Entry,
        sessions::SessionRecord,
        sled::{
            DiskError,
            acknowledged::Counts,
            database::{Database, Progress},
            deny_list,
            history::{LINES, OF_SESSION, line_key, seq_of},
            panics::caught,
            permissions, session_records,
        },
    },
};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub history: Records,
    pub sessions: Records,
    pub denied: Records,
    /// Lines of a session's list that are in no user's history.
    pub dangling: u64,
    /// Records that were moved aside because they could not be parsed.
    pub aside: u64,
    /// Acknowledged writes that are not in the database.
    pub missing: u64,
    /// Those that were missing at an earlier start.
    pub lost_before: u64,
    /// Parts of the database that could not be read to their end, and why.
    pub damage: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub readable: u64,
    pub unreadable: u64,
}

impl Records {
    fn count(&mut self, is_readable: bool) {
        *(if is_readable { &mut self.readable } else { &mut self.unreadable }) += 1;
    }
}

impl Findings {
    pub(crate) fn is_sound(&self) -> bool {
        let unreadable =
            [self.history, self.sessions, self.denied].iter().any(|records| records.unreadable > 0);
        !unreadable
            && self.damage.is_empty()
            && [self.dangling, self.aside, self.missing, self.lost_before] == [0; 4]
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, records) in [
            ("lines of history", self.history),
            ("session records", self.sessions),
            ("deny list", self.denied),
        ] {
            writeln!(f, "{name}: {} readable, {} unreadable", records.readable, records.unreadable)?;
        }
        writeln!(f, "lines of sessions without a line of history: {}", self.dangling)?;
        writeln!(f, "records that were set aside as unreadable: {}", self.aside)?;
        writeln!(f, "acknowledged writes that are missing: {}", self.missing)?;
        writeln!(f, "acknowledged writes that were missing at earlier starts: {}", self.lost_before)?;
        self.damage.iter().try_for_each(|damage| writeln!(f, "damaged: {damage}"))
    }
}

/// Reads the database of a folder of data, which no gateway may be using.
pub(crate) fn verify(folder: &Path) -> Result<Findings, DiskError> {
    if !folder.join("sled").is_dir() {
        let cause = "there is no database in this folder".to_owned();
        return Err(DiskError::Unwritable { path: folder.into(), cause });
    }
    let copy = Copy::of(folder)?;
    let mut findings = Findings::default();
    let counts = Counts::read(folder).unwrap_or_default();
    findings.lost_before = counts.lost;
    let database = match Database::open_files(&copy.0, Arc::<Progress>::default()) {
        Ok(database) => database,
        Err(DiskError::Damaged { cause, .. }) => {
            findings.missing = counts.acknowledged;
            findings.damage.push(format!("the database cannot be opened: {cause}"));
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    findings.walk("count of acknowledged writes", |findings| {
        findings.missing = counts.acknowledged.saturating_sub(database.acknowledged()?);
        Ok(())
    });
    findings.walk("history", |findings| {
        for item in &database.tree(LINES)? {
            let (_, line) = item?;
            findings.history.count(serde_json::from_slice::<Entry>(&line).is_ok());
        }
        Ok(())
    });
    findings.walk("lines of sessions", |findings| findings.walk_sessions_lines(&database));
    findings.walk("session records", |findings| {
        for item in &database.tree(session_records::RECORDS)? {
            let (key, value) = item?;
            match key.first() {
                Some(b'i') => {
                    findings.sessions.count(serde_json::from_slice::<SessionRecord>(&value).is_ok())
                }
                Some(b'f') => {
                    findings.sessions.count(serde_json::from_slice::<Vec<SessionRecord>>(&value).is_ok());
                }
                _ => {}
            }
        }
        Ok(())
    });
    findings.walk("deny list", |findings| {
        for item in &database.tree(deny_list::TREE)? {
            let (key, value) = item?;
            findings.denied.count(deny_list::parse(&key, &value).is_some());
        }
        Ok(())
    });
    findings.walk("records set aside", |findings| {
        for name in database.tree_names().iter().filter(|name| name.ends_with(".unreadable")) {
            for item in &database.tree(name)? {
                item?;
                findings.aside += 1;
            }
        }
        Ok(())
    });
    Ok(findings)
}

impl Findings {
    /// Reads one part. Damage ends it, and not the rest.
    fn walk(&mut self, part: &str, read: impl FnOnce(&mut Self) -> Result<(), StoreError>) {
        match caught(|| read(self)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.damage.push(format!("{part}: {error}")),
            Err(panic) => self.damage.push(format!("{part}: {panic}")),
        }
    }

    /// A session's list has the places of its lines in the history of its user, whom the record names.
    fn walk_sessions_lines(&mut self, database: &Database) -> Result<(), StoreError> {
        let (lines, records) = (database.tree(LINES)?, database.tree(session_records::RECORDS)?);
        let mut owner: Option<(Vec<u8>, Option<UserId>)> = None;
        for key in database.tree(OF_SESSION)?.iter().keys() {
            let key = key?;
            let Some(session) = key.get(..16).filter(|_| key.len() == 24) else {
                self.dangling += 1;
                continue;
            };
            if owner.as_ref().is_none_or(|(known, _)| known != session) {
                let record = records.get([b"i", session].concat())?;
                let record = record.and_then(|record| serde_json::from_slice::<SessionRecord>(&record).ok());
                owner = Some((session.to_vec(), record.map(|record| record.user_id)));
            }
            // A session whose record was removed cannot be looked up, and its lines are counted above.
            if let Some((_, Some(user))) = &owner
                && !lines.contains_key(line_key(user, seq_of(&key)))?
            {
                self.dangling += 1;
            }
        }
        Ok(())
    }
}

/// A copy of the database, removed when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(folder: &Path) -> Result<Self, DiskError> {
        let unwritable = |error: io::Error| DiskError::unwritable(folder, &error);
        let db = fs::File::open(folder.join("sled").join("db")).map_err(unwritable)?;
        // sled's own lock, so that no gateway writes meanwhile.
        match db.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(DiskError::Locked { path: folder.into() }),
            Err(fs::TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        let copy = Self(folder.join(format!("verify.{}", std::process::id())));
        permissions::create_folder(&copy.0).map_err(unwritable)?;
        copy_folder(&folder.join("sled"), &copy.0.join("sled")).map_err(unwritable)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the copy of the database is not removed");
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    permissions::create_folder(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        deny_list::DenyListStore,
        history::HistoryStore,
        sled::{Disk, SledDenyList, SledHistory, tests::reopen},
        suite,
    };

    /// A folder with three lines of history and an entry of the deny list.
    async fn data() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        let history = SledHistory::new(disk.clone());
        for text in ["One.", "Two.", "Three."] {
            history.append(suite::history::utterance("ann", 1, text)).await.unwrap();
        }
        SledDenyList::new(disk).put(suite::deny_list::entry("bob", 7)).await.unwrap();
        drop(history);
        drop(reopen(folder.path()));
        folder
    }

    fn verified(folder: &Path) -> Findings {
        loop {
            match verify(folder) {
                Err(DiskError::Locked { .. }) => std::thread::yield_now(),
                findings => return findings.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn a_sound_database_is_counted_and_not_changed() {
        let folder = data().await;
        let names = || -> Vec<_> {
            let mut names: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        verified(folder.path());
        let before = (names(), fs::read(folder.path().join("sled/db")).unwrap());

        let findings = verified(folder.path());

        assert!(findings.is_sound(), "{findings}");
        assert_eq!(findings.history, Records { readable: 3, unreadable: 0 });
        assert_eq!(findings.denied, Records { readable: 1, unreadable: 0 });
        assert_eq!((names(), fs::read(folder.path().join("sled/db")).unwrap()), before);
    }

    #[tokio::test]
    async fn unreadable_lines_and_missing_writes_are_found() {
        let folder = data().await;
        reopen(folder.path())
            .now(|database| Ok(database.tree(LINES)?.insert(b"ann\0\0\0\0\0\0\0\0\x01", b"{")?))
            .unwrap();
        verified(folder.path());
        let counts = Counts { acknowledged: 9, lost: 0 };
        super::super::acknowledged::AcknowledgedFile::open(folder.path()).unwrap().write(counts).unwrap();

        let findings = verified(folder.path());

        assert!(!findings.is_sound());
        assert_eq!(findings.history, Records { readable: 2, unreadable: 1 });
        assert_eq!(findings.missing, 5);
    }

    #[tokio::test]
    async fn a_database_that_a_gateway_uses_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let _disk = Disk::open(folder.path()).unwrap();
        assert!(matches!(verify(folder.path()), Err(DiskError::Locked { .. })));
    }
}
