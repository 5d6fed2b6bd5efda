//! A secret that the gateway makes for itself on its first start, and keeps.

use crate::store::sled::{Disk, DiskError};

/// The secret of this name; `make` makes it if there is none yet. Blocks until it is durable: for use at
/// startup.
pub fn gateway_secret(disk: &Disk, name: &str, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, DiskError> {
    let tree = disk.tree("sessions")?;
    let key = [b"s", name.as_bytes()].concat();
    if let Some(secret) = tree.get(&key)? {
        return Ok(secret.to_vec());
    }
    let secret = make();
    tree.insert(key, secret.as_slice())?;
    disk.db.flush()?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        assert_eq!(gateway_secret(&disk, "control", || vec![1]), Ok(vec![1]));
        assert_eq!(gateway_secret(&disk, "control", || vec![2]), Ok(vec![1]));
    }
}
