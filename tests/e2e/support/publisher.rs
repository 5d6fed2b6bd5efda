//! The official Python SDK as a pair of glasses: publishes clips into a LiveKit room when it is told to.

use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, Command, Stdio},
};

use tokio::sync::mpsc;

use super::{Clip, Process, repository, soon, tool, until};

pub struct Publisher {
    /// Ends with this, as a crash does.
    process: Process,
    commands: ChildStdin,
    answers: mpsc::UnboundedReceiver<String>,
}

impl Publisher {
    /// Joins the room and publishes a track; back when it is published.
    pub async fn join(url: &str, token: &str, track: &str) -> Self {
        Self::start("tests/e2e/publisher.py", &[url, token, track]).await
    }

    /// Joins the room and sends its microphone as data packets; back when it has joined.
    pub async fn with_packets(url: &str, token: &str) -> Self {
        Self::start("tests/e2e/packets.py", &[url, token]).await
    }

    async fn start(script: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(tool("JUNE_PYTHON"));
        command.arg(repository(script)).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let commands = process.child().stdin.take().unwrap();
        let lines = BufReader::new(process.child().stdout.take().unwrap()).lines();
        let (tell, answers) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut publisher = Self { process, commands, answers };
        publisher.expect("published").await;
        publisher
    }

    /// Leaves the room as one should; back when it has.
    pub async fn leave(self) {
        let Self { mut process, commands, answers } = self;
        drop(commands);
        until(async || process.child().try_wait().unwrap().map(|_| ())).await;
        drop(answers);
    }

    /// Speaks a clip in real time; back when its last sample has left.
    pub async fn speak(&mut self, clip: &Clip) {
        self.begin(clip);
        self.expect("spoken").await;
    }

    /// Begins to speak a clip.
    pub fn begin(&mut self, clip: &Clip) {
        writeln!(self.commands, "{}", clip.path.display()).unwrap();
    }

    async fn expect(&mut self, word: &str) {
        let line = soon(self.answers.recv()).await;
        assert_eq!(line.as_deref(), Some(word));
    }
}
