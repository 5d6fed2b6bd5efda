//! A gateway process without LiveKit and without models.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The LiveKit API secret.
pub const SECRET: &str = "bench-secret-bench-secret-bench-32";

pub struct Gateway {
    process: Child,
    pub port: u16,
    _data: tempfile::TempDir,
}

impl Gateway {
    #[allow(dead_code, reason = "a benchmark starts one like this, or with settings of its own")]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With settings of its own, by the names of their variables.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
        command.arg("serve").stdin(Stdio::null());
        command.env("PORT", port.to_string()).env("DATA_DIR", data.path());
        command.env("LIVEKIT_URL", "ws://127.0.0.1:9").env("LIVEKIT_API_KEY", "devkey");
        command.env("LIVEKIT_API_SECRET", SECRET).env("LLM", "echo").env("RUST_LOG", "off");
        // There is no LiveKit to ask, and nobody is to be told that it is not there.
        command.env("ROSTER_RECONCILE_MS", "3600000").env("JUNE_MODELS", "/nowhere");
        // The clients do not answer pings.
        command.env("SESSION_HEARTBEAT_MS", "3600000").env("SESSION_DEAD_AFTER_MS", "3600000");
        // Whatever the machine's memory; and all streams are one viewer's.
        command.env("MAX_SESSIONS", "20000").env("MAX_STREAMS_BY_USER", "0");
        command.envs(settings.iter().copied());
        let process = command.spawn().unwrap();
        let gateway = Self { process, port, _data: data };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the gateway does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        gateway
    }

    #[allow(dead_code, reason = "not every benchmark looks at the process")]
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
