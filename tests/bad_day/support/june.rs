//! The `june` command as a process.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
};

use june_client::{Gateway as Api, SessionInfo};
use june_edge::ids::UserId;
use serde_json::Value;
use test_support::free_port;

use super::{Glasses, SmallDisk, until};

/// How a gateway is started: its data, its environment, and the disk on which its data is.
pub struct Launch<'a> {
    data: PathBuf,
    disk: Option<&'a SmallDisk>,
    /// The most files that it may have open.
    descriptors: Option<u32>,
    settings: Vec<(String, String)>,
}

impl<'a> Launch<'a> {
    /// On a folder of this machine.
    pub fn on(data: &Path) -> Self {
        Self { data: data.into(), disk: None, descriptors: None, settings: Vec::new() }
    }

    /// On a disk of its own.
    pub fn on_disk(disk: &'a SmallDisk) -> Self {
        Self { data: disk.path().join("data"), disk: Some(disk), descriptors: None, settings: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// With at most so many open files.
    pub fn with_descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let june = env!("CARGO_BIN_EXE_june");
        let mut command = match (self.disk, self.descriptors) {
            (Some(disk), _) => disk.command(june),
            (None, Some(most)) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={most}:{most}")).arg(june);
                command
            }
            (None, None) => Command::new(june),
        };
        command
            .args(arguments)
            .env_clear()
            .envs([("JUNE_MODELS", "/nowhere/models"), ("LIVEKIT_URL", "off"), ("LLM", "echo")])
            .envs([("LOG_FORMAT", "json"), ("PORT", "0")])
            // Lines are typed as fast as they are saved.
            .envs([("LINES_PER_MINUTE_BY_USER", "0"), ("LLM_CALLS_PER_MINUTE_BY_USER", "0")])
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DATA_DIR", &self.data)
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Runs a subcommand, or a gateway that is expected not to start.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts a gateway and waits until it serves.
    pub async fn start(&self) -> June {
        let port = free_port();
        let mut command = self.command(&["serve"]);
        command.env("PORT", port.to_string());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let (lines, written) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let url = format!("http://127.0.0.1:{port}");
        let mut june = June { child, log, api: Api::new(&url, None), http: reqwest::Client::new(), url };
        until(async || {
            if let Some(status) = june.child.try_wait().unwrap() {
                panic!("it does not start, {status}: {}", june.log());
            }
            june.http.get(format!("{}/livez", june.url)).send().await.ok()
        })
        .await;
        june
    }
}

/// A gateway in a process of its own, killed when it is dropped.
pub struct June {
    child: Child,
    log: Arc<Mutex<String>>,
    pub api: Api,
    pub http: reqwest::Client,
    pub url: String,
}

impl Drop for June {
    fn drop(&mut self) {
        self.kill();
    }
}

impl June {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let sent = Command::new("kill").arg(self.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        until(async || self.child.try_wait().unwrap()).await
    }

    /// Sends SIGTERM, and waits until the process has ended.
    pub async fn stop(mut self) {
        self.terminate();
        self.ended().await;
    }

    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line of the log with these words in it.
    pub async fn logged(&self, words: &str) -> String {
        until(async || self.log().lines().find(|line| line.contains(words)).map(str::to_owned)).await
    }

    pub async fn session(&self, user: &str) -> SessionInfo {
        self.api.create_session(&UserId::parse(user).unwrap()).await.unwrap()
    }

    /// A client that is attached to a new session.
    pub async fn glasses(&self, user: &str) -> Glasses {
        Glasses::attach(self.session(user).await).await
    }

    /// The places of a session's lines in the history.
    pub async fn places(&self, session: &SessionInfo) -> Vec<u64> {
        let lines = self.api.history(session.session_id).await.unwrap();
        lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect()
    }

    /// The status and the text of an answer.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A part of `/health`.
    pub async fn part(&self, role: &str) -> Value {
        let (_, health) = self.get("/health").await;
        let health: Value = serde_json::from_str(&health).unwrap();
        let parts = health["parts"].as_array().unwrap();
        parts
            .iter()
            .find(|part| part["role"] == role)
            .unwrap_or_else(|| panic!("no {role}: {health}"))
            .clone()
    }

    /// Waits until `/readyz` answers with this status; gives its text.
    pub async fn readiness(&self, status: u16) -> String {
        until(async || {
            let (came, text) = self.get("/readyz").await;
            (came == status).then_some(text)
        })
        .await
    }

    /// What a metric stands at.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, page) = self.get("/metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}: {page}")).parse().unwrap()
    }
}
