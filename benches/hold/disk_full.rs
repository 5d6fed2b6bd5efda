//! A disk that was full and has space again: how long until a line is saved.
//!
//! The gateway runs in a mount namespace of its own, with a small file system in memory as its data folder.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    client::{Channel, create_session},
    wait_for,
};

const SIZE: &str = "24m";

/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a line may take to be saved before the store counts as stuck.
const SAVED: Duration = Duration::from_secs(1);

/// In seconds, at most [`PATIENCE`]; none where nothing can be mounted.
pub async fn recovery_s() -> Option<f64> {
    let folder = tempfile::tempdir().unwrap();
    let (mut process, port) = start(folder.path())?;
    // The namespace's own view of the folder.
    let data = PathBuf::from(format!("/proc/{}/root{}", process.id(), folder.path().display()));
    let seconds = recovery(port, &data).await;
    process.kill().unwrap();
    process.wait().unwrap();
    Some(seconds)
}

async fn recovery(port: u16, data: &Path) -> f64 {
    assert!(is_saved(port).await, "a line is saved while there is space");
    let ballast = data.join("ballast");
    fill(&ballast);
    let until = Instant::now() + PATIENCE;
    while is_saved(port).await {
        fill(&ballast);
        assert!(Instant::now() < until, "the disk is full, and lines are saved");
    }

    fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    while freed.elapsed() < PATIENCE && !is_saved(port).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    freed.elapsed().as_secs_f64()
}

/// Whether a line of a new client is saved.
async fn is_saved(port: u16) -> bool {
    let saved = async {
        let session = create_session(port, "john", "").await;
        let mut channel = Channel::attach(port, session["control_token"].as_str()?).await?;
        channel.send(r#"{"type":"say","text":"Remember this."}"#).await?;
        channel.read_within("\"turn_saved\"", SAVED).await
    };
    tokio::time::timeout(2 * SAVED, saved).await.ok().flatten().is_some()
}

/// Writes until there is no space.
fn fill(ballast: &Path) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(ballast).unwrap();
    for size in [64 * 1024, 512] {
        let piece = vec![0; size];
        while file.write_all(&piece).is_ok() {}
    }
}

fn start(data: &Path) -> Option<(Child, u16)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mount = format!("mount -t tmpfs -o size={SIZE} tmpfs \"$DATA_DIR\"");
    let mut isolated = Command::new("unshare");
    isolated.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    let can_mount = isolated.arg(&mount).env("DATA_DIR", data).stderr(Stdio::null()).status();
    if !can_mount.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("{mount} && exec {} serve", env!("CARGO_BIN_EXE_june"))).stdin(Stdio::null());
    command.env("PORT", port.to_string()).env("DATA_DIR", data).env("LIVEKIT_URL", "off").env("LLM", "echo");
    command.env("RUST_LOG", "off").env("JUNE_MODELS", "/nowhere");
    for limit in ["LINES_PER_MINUTE_BY_USER", "CONNECTS_PER_MINUTE_BY_USER", "LLM_CALLS_PER_MINUTE_BY_USER"] {
        command.env(limit, "0");
    }
    command.env("MAX_SESSIONS_BY_USER", "0").env("MAX_SOCKETS_BY_USER", "0");
    let process = command.spawn().ok()?;
    wait_for(port);
    Some((process, port))
}
