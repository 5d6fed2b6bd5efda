//! `DATA_DIR` is for the gateway's user alone: folders 0700, files 0600.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Creates a folder, and those above it, for this user alone.
pub(super) fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Takes everybody else's access to a folder and to everything in it. What cannot be changed (it belongs to somebody
/// else) is logged.
pub(super) fn mend(folder: &Path) {
    let (mut mended, mut failed) = (0_usize, 0_usize);
    visit(folder, &mut |is_mended| if is_mended { mended += 1 } else { failed += 1 });
    if mended > 0 {
        tracing::warn!(folder = %folder.display(), files = mended, "others could read files of DATA_DIR: permissions mended");
    }
    if failed > 0 {
        tracing::warn!(folder = %folder.display(), files = failed, "permissions of files of DATA_DIR cannot be mended");
    }
}

fn visit(path: &Path, report: &mut dyn FnMut(bool)) {
    // A link's target is somebody else's.
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let mode = match (found.is_dir(), found.is_file()) {
        (true, _) => FOLDER_MODE,
        (_, true) => FILE_MODE,
        (false, false) => return,
    };
    if found.permissions().mode() & 0o077 != 0 {
        report(fs::set_permissions(path, Permissions::from_mode(mode)).is_ok());
    }
    if found.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            visit(&entry.path(), report);
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
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();

        mend(data.path());

        assert_eq!([mode(data.path()), mode(&folder)], [0o700; 2]);
        let modes = ["db", "conf", "read-only"].map(|name| mode(&folder.join(name)));
        assert_eq!(modes, [0o600, 0o600, 0o400]);
    }
}
