//! What is on disk, and who may read it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::support::Launch;

/// Everything in a folder and the folder itself, with the access that others have to it.
fn open_to_others(path: &Path) -> Vec<String> {
    let mode = fs::metadata(path).unwrap().permissions().mode();
    let mut open = Vec::new();
    if mode & 0o077 != 0 {
        open.push(format!("{} {:o}", path.display(), mode & 0o777));
    }
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.for_each(|entry| open.extend(open_to_others(&entry)));
    }
    open
}

#[actix_web::test]
async fn nobody_else_can_read_the_data_and_data_that_others_could_read_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let launch = Launch::on(&data);
    let june = launch.start().await;
    june.glasses("ann").await.ask_and_save("One").await;
    assert_eq!(open_to_others(&data), Vec::<String>::new());
    assert!(!june.log().contains("permissions mended"), "{}", june.log());
    june.stop().await;

    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(data.join("sled/db"), Permissions::from_mode(0o644)).unwrap();
    let june = launch.start().await;

    assert_eq!(open_to_others(&data), Vec::<String>::new());
    let log = june.log();
    let mended: Vec<_> = log.lines().filter(|line| line.contains("permissions mended")).collect();
    assert!(matches!(&mended[..], [line] if line.contains("WARN")), "{mended:?}");
}

#[actix_web::test]
async fn the_control_secret_is_in_a_file_of_its_own_and_not_in_the_database() {
    let data = tempfile::tempdir().unwrap();
    let june = Launch::on(data.path()).start().await;
    june.session("ann").await;
    june.stop().await;

    let secret = fs::read(data.path().join("secrets/control")).unwrap();

    assert_eq!(secret.len(), 32);
    let db = fs::read(data.path().join("sled/db")).unwrap();
    assert!(!db.windows(secret.len()).any(|window| window == secret));
}

#[actix_web::test]
async fn the_process_writes_no_core_files() {
    let data = tempfile::tempdir().unwrap();
    let june = Launch::on(data.path()).start().await;

    let limits = fs::read_to_string(format!("/proc/{}/limits", june.id())).unwrap();

    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().rev().skip(1).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}
