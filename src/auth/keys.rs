//! API keys: those of the setting `API_KEYS`, and named ones in a file that `june keys` writes.
//!
//! A named key is 256 random bits. Its SHA-256 is stored: nobody can search that many values, so a slow password hash
//! would only cost time at every request.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{clock, config::AuthConfig, ids::UserId, secret::Secret};

/// How often the file is looked at, at most. It is looked at when a key is used.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Keys of one name: the one in use, and its successor.
const MAX_PER_NAME: usize = 2;

/// Keys of the file.
const MAX_KEYS: usize = 1_000;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Acts for users: their sessions, tokens, history and rooms.
    Backend,
    /// Reads: lists of sessions and rooms, rooms, metrics, and what clients send to consumers.
    Observer,
    /// Everything.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backend => "backend",
            Self::Observer => "observer",
            Self::Admin => "admin",
        })
    }
}

/// Whose a key is, and what it permits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// For people, and the same for a key and its successor.
    pub name: String,
    /// Tells keys of one name apart.
    pub id: String,
    pub roles: BTreeSet<Role>,
    /// The one user whom it acts for; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
}

impl ApiKey {
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::Admin)
    }
}

/// A key as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(flatten)]
    pub key: ApiKey,
    /// In hexadecimal digits.
    sha256: String,
    pub created_at: String,
}

impl Entry {
    fn known(&self) -> Option<Known> {
        let digits = self.sha256.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Known { hash, key: Arc::new(self.key.clone()) })
    }
}

/// Why the file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    #[error("{path} is not a file of `june keys`: {cause}")]
    Malformed { path: PathBuf, cause: String },
    #[error("{0}")]
    Refused(String),
}

/// The file of named keys.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
struct Content {
    keys: Vec<Entry>,
}

impl KeyFile {
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its keys; none if there is no file.
    pub fn read(&self) -> Result<Option<Vec<Entry>>, KeyFileError> {
        let text = match fs::read(&self.path) {
            Err(error) if is_absent(&error) => return Ok(None),
            text => text.map_err(|cause| self.io(cause))?,
        };
        let malformed = |cause: String| KeyFileError::Malformed { path: self.path.clone(), cause };
        let content: Content = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        match content.keys.iter().find(|entry| entry.known().is_none()) {
            Some(entry) => Err(malformed(format!("the sha256 of {} is not one", entry.key.id))),
            None => Ok(Some(content.keys)),
        }
    }

    /// Adds a key, and gives it: it is not stored.
    pub fn add(
        &self,
        name: &str,
        roles: BTreeSet<Role>,
        user: Option<UserId>,
    ) -> Result<(ApiKey, Secret), KeyFileError> {
        let refused = |why: &str| KeyFileError::Refused(why.into());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_plain) {
            return Err(refused("a name has 1 to 64 letters, digits, hyphens, dots and underscores"));
        }
        if roles.is_empty() {
            return Err(refused("a key needs a role"));
        }
        if user.is_some() && roles.contains(&Role::Admin) {
            return Err(refused("an admin acts for everybody: leave out the user"));
        }
        let random: [u8; 32] = rand::rng().random();
        let secret = format!("june_{}", URL_SAFE_NO_PAD.encode(random));
        let sha256: String = hash(&secret).iter().map(|byte| format!("{byte:02x}")).collect();
        let key = ApiKey { name: name.into(), id: sha256[..8].into(), roles, user };
        self.change(|keys| {
            if keys.iter().filter(|entry| entry.key.name == name).count() >= MAX_PER_NAME {
                return Err(refused("there are two keys of this name: revoke one of them first"));
            }
            if keys.len() >= MAX_KEYS {
                return Err(refused("there are too many keys: revoke some that are not used"));
            }
            let created_at = clock::timestamp(clock::unix_ms());
            keys.push(Entry { key: key.clone(), sha256, created_at });
            Ok(())
        })?;
        Ok((key, Secret::new(secret)))
    }

    /// Removes the keys of this name, or the one of this id; gives them.
    pub fn revoke(&self, name_or_id: &str) -> Result<Vec<ApiKey>, KeyFileError> {
        self.change(|keys| {
            let is_meant = |entry: &mut Entry| entry.key.name == name_or_id || entry.key.id == name_or_id;
            let revoked: Vec<_> = keys.extract_if(.., is_meant).map(|entry| entry.key).collect();
            if revoked.is_empty() {
                return Err(KeyFileError::Refused(format!("there is no key \"{name_or_id}\"")));
            }
            Ok(revoked)
        })
    }

    /// Replaces the file by one with other keys, in one step. A second process waits.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Entry>) -> Result<T, KeyFileError>,
    ) -> Result<T, KeyFileError> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|cause| self.io(cause))?;
        let lock = private().create(true).truncate(false).open(self.path.with_extension("lock"));
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock)).map_err(|cause| self.io(cause))?;
        let mut content = Content { keys: self.read()?.unwrap_or_default() };
        let changed = change(&mut content.keys)?;
        self.replace(folder, &content).map_err(|cause| self.io(cause))?;
        drop(lock);
        Ok(changed)
    }

    fn replace(&self, folder: &Path, content: &Content) -> io::Result<()> {
        let new = self.path.with_extension("new");
        // What a process left that was killed here may have another mode.
        let _ = fs::remove_file(&new);
        let mut file = private().create_new(true).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(content)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(folder)?.sync_all()
    }

    fn io(&self, cause: io::Error) -> KeyFileError {
        KeyFileError::Io { path: self.path.clone(), cause }
    }
}

/// Whether there is no such file, or no such folder.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// To write a file that only its owner can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The keys that a gateway knows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ApiKeys {
    shared: Arc<Shared>,
}

struct Shared {
    /// Of the setting `API_KEYS`: backend and operator in one, as they always were.
    of_settings: Vec<Known>,
    file: Option<KeyFile>,
    of_file: Mutex<OfFile>,
}

/// Hashes are of equal length, so that comparing takes the same time for all.
struct Known {
    hash: [u8; 32],
    key: Arc<ApiKey>,
}

struct OfFile {
    keys: Vec<Known>,
    /// Once there was a file, the gateway stays closed: a file that is gone must not open it.
    was_there: bool,
    stamp: Option<Stamp>,
    checked_at: Instant,
}

/// Tells one state of a file from another.
type Stamp = (u64, i64, i64, u64);

fn stamp(metadata: &Metadata) -> Stamp {
    // Not `mtime`: a file that could not be read may have got other permissions since.
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec(), metadata.len())
}

impl ApiKeys {
    pub(crate) fn new(auth: &AuthConfig) -> Self {
        let admin = |(at, key): (usize, &Secret)| Known {
            hash: hash(key.expose()),
            key: Arc::new(ApiKey {
                name: format!("API_KEYS-{}", at + 1),
                id: format!("API_KEYS-{}", at + 1),
                roles: BTreeSet::from([Role::Admin]),
                user: None,
            }),
        };
        let shared = Shared {
            of_settings: auth.api_keys.iter().enumerate().map(admin).collect(),
            file: auth.keys_file.clone().map(KeyFile::at),
            of_file: Mutex::new(OfFile {
                keys: Vec::new(),
                was_there: false,
                stamp: None,
                checked_at: clock::now(),
            }),
        };
        if let Some(file) = &shared.file {
            shared.of_file.lock().look_at(file);
        }
        Self { shared: Arc::new(shared) }
    }

    /// Whether no keys are configured: the gateway serves this machine only, and needs none.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.of_settings.is_empty() && !self.with_file(|file| file.was_there)
    }

    pub(crate) fn find(&self, key: &str) -> Option<Arc<ApiKey>> {
        let hash = hash(key);
        let matching = |found: Option<Arc<ApiKey>>, known: &Known| {
            if bool::from(known.hash.ct_eq(&hash)) { Some(known.key.clone()) } else { found }
        };
        let found = self.shared.of_settings.iter().fold(None, matching);
        self.with_file(|file| file.keys.iter().fold(found, matching))
    }

    /// Whether a key that was found before has not been revoked since.
    pub(crate) fn is_current(&self, key: &ApiKey) -> bool {
        let is_it = |known: &Known| known.key.id == key.id;
        self.shared.of_settings.iter().any(is_it) || self.with_file(|file| file.keys.iter().any(is_it))
    }

    /// The keys of the file as it is, or was within the last second.
    fn with_file<T>(&self, read: impl FnOnce(&OfFile) -> T) -> T {
        let mut of_file = self.shared.of_file.lock();
        if let Some(file) = &self.shared.file
            && clock::now() >= of_file.checked_at + CHECK_INTERVAL
        {
            of_file.look_at(file);
        }
        read(&of_file)
    }
}

impl OfFile {
    /// Reads the file again if it has changed. One that cannot be read changes nothing: keys keep working while
    /// an operator repairs it.
    fn look_at(&mut self, file: &KeyFile) {
        self.checked_at = clock::now();
        let now = match fs::metadata(file.path()) {
            Ok(metadata) => Some(stamp(&metadata)),
            Err(error) if is_absent(&error) => None,
            Err(_) => return,
        };
        if now == self.stamp {
            return;
        }
        self.was_there |= now.is_some();
        match file.read() {
            Ok(entries) => {
                self.stamp = now;
                self.keys = entries.iter().flatten().filter_map(Entry::known).collect();
                tracing::info!(keys = self.keys.len(), "API keys read");
            }
            // It is read again: a key may have been revoked in it.
            Err(error) => tracing::error!(%error, "the API keys of this file stay as they were"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(folder: &Path) -> KeyFile {
        KeyFile::at(folder.join("deep/keys.json"))
    }

    fn add(file: &KeyFile, name: &str, role: Role) -> (ApiKey, Secret) {
        file.add(name, BTreeSet::from([role]), None).unwrap()
    }

    fn gateway(file: &KeyFile, api_keys: &[&str]) -> ApiKeys {
        ApiKeys::new(&AuthConfig {
            api_keys: api_keys.iter().copied().map(Secret::new).collect(),
            keys_file: Some(file.path().to_owned()),
            ..AuthConfig::default()
        })
    }

    /// Time in which a gateway notices that the file has changed.
    async fn later() {
        tokio::time::advance(CHECK_INTERVAL).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_gateway_takes_up_new_keys_and_drops_revoked_ones() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let (first, secret) = add(&file, "app", Role::Backend);
        let keys = gateway(&file, &[]);
        assert_eq!(keys.find(secret.expose()).as_deref(), Some(&first));

        let (second, successor) = add(&file, "app", Role::Backend);
        later().await;
        assert_eq!(keys.find(secret.expose()).as_deref(), Some(&first), "both live during a rotation");
        assert_eq!(keys.find(successor.expose()).as_deref(), Some(&second));

        file.revoke(&first.id).unwrap();
        later().await;
        assert_eq!(keys.find(secret.expose()), None);
        assert!(!keys.is_current(&first) && keys.is_current(&second));
        assert_eq!(keys.find(successor.expose()).as_deref(), Some(&second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_is_open_only_while_there_never_was_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let keys = gateway(&file, &[]);
        assert!(keys.is_open());

        add(&file, "app", Role::Backend);
        later().await;
        assert!(!keys.is_open());
        file.revoke("app").unwrap();
        later().await;
        assert!(!keys.is_open(), "a file without keys");
        fs::remove_file(file.path()).unwrap();
        later().await;
        assert!(!keys.is_open(), "no file any more");

        assert!(!gateway(&file, &["key-of-the-settings"]).is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_parsed_leaves_the_keys_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let (_, secret) = add(&file, "app", Role::Backend);
        let keys = gateway(&file, &[]);

        fs::write(file.path(), "{").unwrap();
        later().await;

        assert!(file.read().is_err());
        assert!(keys.find(secret.expose()).is_some());
    }

    #[test]
    fn the_file_has_hashes_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());

        let (_, secret) = add(&file, "app", Role::Observer);

        let text = fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains(secret.expose()) && text.contains("observer"), "{text}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(file.path().parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn keys_that_make_no_sense_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let ann = UserId::parse("ann").unwrap();
        for (name, roles, user) in [
            ("", vec![Role::Backend], None),
            ("a b", vec![Role::Backend], None),
            ("app", vec![], None),
            ("app", vec![Role::Admin], Some(ann)),
        ] {
            assert!(file.add(name, roles.into_iter().collect(), user).is_err(), "{name}");
        }
        for _ in 0..MAX_PER_NAME {
            add(&file, "app", Role::Backend);
        }
        assert!(file.add("app", BTreeSet::from([Role::Backend]), None).is_err(), "two of a name");
        assert!(file.revoke("nobody").is_err());
        assert_eq!(file.revoke("app").unwrap().len(), 2);
    }

    #[test]
    fn a_key_of_the_settings_is_known_and_may_do_everything() {
        let keys = ApiKeys::new(&AuthConfig {
            api_keys: vec![Secret::new("key-a"), Secret::new("key-b")],
            ..AuthConfig::default()
        });
        let found = keys.find("key-b").unwrap();
        assert!([Role::Backend, Role::Observer, Role::Admin].iter().all(|role| found.has(*role)));
        assert_eq!(keys.find("key-"), None);
    }
}
