//! A gateway in a process of its own, without LiveKit and without models.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What LiveKit would sign with.
pub const SECRET: &str = "bench-secret-bench-secret-bench-32";

pub struct Gateway {
    process: Child,
    pub port: u16,
    _data: tempfile::TempDir,
}

impl Gateway {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
        command.arg("serve").stdin(Stdio::null());
        command.env("PORT", port.to_string()).env("DATA_DIR", data.path());
        command.env("LIVEKIT_URL", "ws://127.0.0.1:9").env("LIVEKIT_API_KEY", "devkey");
        command.env("LIVEKIT_API_SECRET", SECRET).env("LLM", "echo").env("RUST_LOG", "off");
        // There is no LiveKit to ask, and nobody is to be told that it is not there.
        command.env("ROSTER_RECONCILE_MS", "3600000").env("JUNE_MODELS", "/nowhere");
        // The clients answer no pings.
        command.env("SESSION_HEARTBEAT_MS", "3600000").env("SESSION_DEAD_AFTER_MS", "3600000");
        let process = command.spawn().unwrap();
        let gateway = Self { process, port, _data: data };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the gateway does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        gateway
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
