//! Secrets that the gateway makes for itself on its first start, and keeps: one file each, in `DATA_DIR/secrets`, for
//! its user alone.
//!
//! Earlier versions kept them in the database, whose files are copied into backups and read by tools. One that
//! is found there is moved.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::store::sled::{Disk, DiskError, permissions, session_records::RECORDS};

/// The secret of this name; `make` makes it if there is none yet. Blocks until it is durable: for use at
/// startup.
pub fn gateway_secret(disk: &Disk, name: &str, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, DiskError> {
    let folder = disk.folder().join("secrets");
    let path = folder.join(name);
    let key = [b"s", name.as_bytes()].concat();
    let in_database = disk.now(|database| Ok(database.tree(RECORDS)?.get(&key)?))?;
    let unwritable = |error: io::Error| DiskError::unwritable(&path, &error);
    let secret = match fs::read(&path) {
        Ok(secret) => secret,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = in_database.as_ref().map_or_else(make, |secret| secret.to_vec());
            write(&folder, name, &secret).map_err(unwritable)?;
            secret
        }
        Err(error) => return Err(unwritable(error)),
    };
    if in_database.is_some() {
        disk.now(|database| {
            database.tree(RECORDS)?.remove(&key)?;
            database.commit(0)
        })?;
        tracing::warn!(path = %path.display(), "a secret was moved out of the database");
    }
    Ok(secret)
}

/// Under another name first: a file that is there is complete.
fn write(folder: &Path, name: &str, secret: &[u8]) -> io::Result<()> {
    permissions::create_folder(folder)?;
    let partial = folder.join(format!("{name}.new"));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::rename(&partial, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_in_a_file_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();

        assert_eq!(gateway_secret(&disk, "control", || vec![1]), Ok(vec![1]));
        assert_eq!(gateway_secret(&disk, "control", || vec![2]), Ok(vec![1]));

        let file = folder.path().join("secrets/control");
        assert_eq!(fs::read(&file).unwrap(), [1]);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_secret_of_an_earlier_version_is_moved_out_of_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        disk.now(|database| Ok(database.tree(RECORDS)?.insert(b"scontrol", &[7])?)).unwrap();

        assert_eq!(gateway_secret(&disk, "control", || vec![1]), Ok(vec![7]));

        assert_eq!(disk.now(|database| Ok(database.tree(RECORDS)?.get(b"scontrol")?)), Ok(None));
        assert_eq!(fs::read(folder.path().join("secrets/control")).unwrap(), [7]);
    }
}
