//! `DATA_DIR` is for the gateway's user alone: folders 0700, files 0600.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const STICKY: u32 = 0o1000;

/// What the gateway has in its folder of data.
const OURS: [&str; 4] = ["sled", "secrets", "acknowledged", "models.checked"];

/// Creates a folder, and those above it, for this user alone.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Takes everybody else's access to the folder of data and to what the gateway has in it; other files are left alone.
/// What cannot be changed (it belongs to somebody else) is logged.
pub(super) fn mend(data: &Path) {
    let mut report = Report::default();
    // A folder that is shared on purpose, such as /tmp, has the sticky bit.
    if fs::metadata(data).is_ok_and(|found| found.permissions().mode() & STICKY == 0) {
        report.close(data, FOLDER_MODE);
    }
    OURS.iter().for_each(|name| report.visit(&data.join(name)));
    let folder = data.display();
    if report.mended > 0 {
        tracing::warn!(%folder, files = report.mended, "others could read files of DATA_DIR: permissions mended");
    }
    if report.failed > 0 {
        tracing::warn!(%folder, files = report.failed, "permissions of files of DATA_DIR cannot be mended");
    }
}

#[derive(Default)]
struct Report {
    mended: usize,
    failed: usize,
}

impl Report {
    fn close(&mut self, path: &Path, mode: u32) {
        let is_open = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
        match is_open.then(|| fs::set_permissions(path, Permissions::from_mode(mode))) {
            None => {}
            Some(Ok(())) => self.mended += 1,
            Some(Err(_)) => self.failed += 1,
        }
    }

    fn visit(&mut self, path: &Path) {
        // A link's target is somebody else's.
        let Ok(found) = fs::symlink_metadata(path) else { return };
        if found.is_file() {
            self.close(path, FILE_MODE);
        } else if found.is_dir() {
            self.close(path, FOLDER_MODE);
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|entry| self.visit(&entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_could_read_is_closed_and_the_rest_stays_as_it_is() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("sled");
        fs::create_dir(&folder).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for (name, mode) in [("db", 0o644), ("conf", 0o600), ("read-only", 0o400)] {
            fs::write(folder.join(name), "").unwrap();
            fs::set_permissions(folder.join(name), Permissions::from_mode(mode)).unwrap();
        }
        let other = data.path().join("other");
        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();

        mend(data.path());

        assert_eq!([mode(data.path()), mode(&folder)], [0o700; 2]);
        let modes = ["db", "conf", "read-only"].map(|name| mode(&folder.join(name)));
        assert_eq!(modes, [0o600, 0o600, 0o400]);
        assert_eq!(mode(&other), 0o644, "it is not the gateway's");
    }
}
