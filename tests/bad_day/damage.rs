//! Files that were damaged while no gateway ran: the database, the models.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::Output,
};

use test_support::models;

use crate::support::Launch;

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect()
}

/// Data with so many acknowledged turns, of a gateway that was stopped.
async fn data(turns: usize) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let june = Launch::on(data.path()).start().await;
    let mut glasses = june.glasses("ann").await;
    for n in 0..turns {
        glasses.ask_and_save(&format!("Line {n}")).await;
    }
    june.stop().await;
    data
}

/// Flips a bit in every so many bytes.
fn flip(path: &Path, every: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes.iter_mut().skip(every / 2).step_by(every).for_each(|byte| *byte ^= 1);
    File::options().write(true).open(path).unwrap().write_all_at(&bytes, 0).unwrap();
}

#[actix_web::test]
async fn a_damaged_database_is_named_in_one_line_with_exit_code_73_and_verifying_does_not_touch_it() {
    let data = data(5).await;
    let launch = Launch::on(data.path());
    // The second start writes a snapshot, by which the third one finds its pages.
    launch.start().await.stop().await;
    let db = data.path().join("sled/db");
    flip(&db, 512);
    let before = fs::read(&db).unwrap();

    let verified = launch.run(&["history", "verify"]);
    assert_eq!(verified.status.code(), Some(65), "{verified:?}");
    assert!(String::from_utf8_lossy(&verified.stdout).contains("damaged: "), "{verified:?}");
    assert!(fs::read(&db).unwrap() == before, "verifying changes nothing");

    let output = launch.run(&["serve"]);

    assert_eq!(output.status.code(), Some(73), "{output:?}");
    let lines = lines(&output);
    let ours: Vec<_> = lines.iter().filter(|line| line.starts_with("june: ")).collect();
    assert_eq!(ours.len(), 1, "{lines:?}");
    let path = data.path().join("sled").display().to_string();
    assert!(ours[0].starts_with(&format!("june: {path}: the database is damaged")), "{}", ours[0]);
    assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:?}");
}

#[actix_web::test]
async fn a_database_that_was_cut_is_opened_and_what_is_missing_is_counted_and_reported() {
    let data = data(40).await;
    let launch = Launch::on(data.path());
    let sound = launch.run(&["history", "verify"]);
    assert_eq!(sound.status.code(), Some(0), "{sound:?}");
    assert!(String::from_utf8_lossy(&sound.stdout).contains("lines of history: 80 readable"), "{sound:?}");
    let db = File::options().write(true).open(data.path().join("sled/db")).unwrap();
    db.set_len(db.metadata().unwrap().len() / 2).unwrap();

    assert_eq!(launch.run(&["history", "verify"]).status.code(), Some(65));
    let june = launch.start().await;

    let line = june.logged("acknowledged writes are missing").await;
    assert!(line.contains("ERROR") && line.contains("sled"), "{line}");
    assert!(june.metric("june_store_lost_writes_total").await >= 1.0);
    let message = june.part("store").await["message"].to_string();
    assert!(message.contains("acknowledged writes were missing"), "{message}");
    // What is there is served, and what follows is saved.
    june.glasses("ann").await.ask_and_save("And now").await;
    june.stop().await;
    // It is reported once, and remembered.
    let june = launch.start().await;
    assert_eq!(june.metric("june_store_lost_writes_total").await, 0.0);
    june.stop().await;
    let verified = launch.run(&["history", "verify"]);
    assert_eq!(verified.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&verified.stdout).contains("that are missing: 0"), "{verified:?}");
}

#[actix_web::test]
async fn a_damaged_model_or_runtime_is_named_and_not_used() {
    let data = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(models()).unwrap() {
        let entry = entry.unwrap();
        let link = folder.path().join(entry.file_name());
        std::os::unix::fs::symlink(entry.path(), link).unwrap();
    }
    let launch = Launch::on(data.path()).with("JUNE_MODELS", &folder.path().display().to_string());
    let damage = |name: &str, damage: &dyn Fn(&Path)| {
        let path = folder.path().join(name);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        damage(&path);
    };
    damage("moonshine-tiny-en-encoder.ort", &|path| flip(path, 1 << 20));

    let june = launch.start().await;
    let stt = june.part("stt").await;
    assert_eq!(stt["ready"], false);
    assert!(stt["message"].as_str().unwrap().contains("moonshine-tiny-en-encoder.ort is damaged"), "{stt}");
    assert_eq!(june.part("tts").await["ready"], true);
    assert!(data.path().join("models.checked").is_file());
    june.stop().await;

    damage("libonnxruntime.so.1.23.2", &|path| {
        File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    });
    let june = launch.with("MODEL_CHECKSUMS", "off").start().await;
    for role in ["stt", "tts", "vad"] {
        let part = june.part(role).await;
        assert!(part["message"].as_str().unwrap().contains("libonnxruntime.so.1.23.2 is damaged"), "{part}");
    }
}
