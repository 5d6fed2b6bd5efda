//! A process that is killed while lines are saved: which of the acknowledged ones are there afterwards.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    client::{Channel, ask, create_session, request},
    sockets::connect,
    wait_for,
};

const ROUNDS: usize = 10;

/// Users who type at the same time, until the process is killed after so long.
const USERS: usize = 16;
const TYPING: Duration = Duration::from_millis(700);

pub struct Killed {
    pub rounds: usize,
    pub acknowledged: usize,
    pub lost: usize,
}

/// A session, and the numbers under which its lines were acknowledged.
struct Acknowledged {
    session: String,
    seqs: Vec<u64>,
}

pub async fn rounds() -> Killed {
    let data = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let (mut process, port) = start(data.path());
        let typing = (0..USERS).map(|n| async move {
            let session = create_session(port, &format!("user-{round}-{n}"), "").await;
            let mut acknowledged = Acknowledged {
                session: session["session_id"].as_str().unwrap().to_owned(),
                seqs: Vec::new(),
            };
            let mut channel =
                Channel::attach(port, session["control_token"].as_str().unwrap()).await.unwrap();
            // Ends when the process does.
            while channel.send(r#"{"type":"say","text":"Remember this."}"#).await.is_some() {
                let Some(seq) = saved_under(&mut channel).await else { break };
                acknowledged.seqs.push(seq);
            }
            acknowledged
        });
        let killing = async {
            tokio::time::sleep(TYPING).await;
            // SIGKILL
            process.kill().unwrap();
        };
        let (typed, ()) = tokio::join!(futures::future::join_all(typing), killing);
        process.wait().unwrap();
        acknowledged.extend(typed);
    }

    let (mut process, port) = start(data.path());
    let mut lost = 0;
    for Acknowledged { session, seqs } in &acknowledged {
        let saved = history(port, session).await;
        lost += seqs.iter().filter(|seq| !saved.contains(seq)).count();
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let acknowledged = acknowledged.iter().map(|of_session| of_session.seqs.len()).sum();
    Killed { rounds: ROUNDS, acknowledged, lost }
}

/// The number of the next `turn_saved`.
async fn saved_under(channel: &mut Channel) -> Option<u64> {
    channel.read_until("\"historySeq\":").await?;
    let number = channel.take_until("}").await?;
    number.split(',').next()?.trim().parse().ok()
}

fn start(data: &Path) -> (Child, u16) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_june"));
    command.arg("serve").stdin(Stdio::null()).env("PORT", port.to_string()).env("DATA_DIR", data);
    command
        .env("LIVEKIT_URL", "off")
        .env("LLM", "echo")
        .env("RUST_LOG", "off")
        .env("JUNE_MODELS", "/nowhere");
    command.env("LINES_PER_MINUTE_BY_USER", "0").env("LLM_CALLS_PER_MINUTE_BY_USER", "0");
    command.env("LLM_CALLS_PER_DAY_BY_USER", "0").env("LLM_TOKENS_PER_DAY_BY_USER", "0");
    let process = command.spawn().unwrap();
    wait_for(port);
    (process, port)
}

/// The numbers of a session's lines.
async fn history(port: u16, session: &str) -> Vec<u64> {
    let mut connection = connect(port).await;
    let (mut seqs, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/api/sessions/{session}/history?limit=500&after={after}");
        let Some((200, page)) = ask(&mut connection, &request("GET", &path, "", "")).await else {
            return seqs;
        };
        let lines = page["lines"].as_array().into_iter().flatten();
        seqs.extend(lines.filter_map(|line| line["seq"].as_u64()));
        match page["next_after"].as_u64() {
            Some(next) => after = next,
            None => return seqs,
        }
    }
}
