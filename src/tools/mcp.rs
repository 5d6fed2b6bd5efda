//! Tools of MCP servers (<https://modelcontextprotocol.io/specification>): streamable HTTP, or a program on its standard
//! input and output.
//!
//! The operator names the servers. Each has one connection for all sessions, which is opened again when it ends:
//!
//! ```text
//!   down ──connected, tools listed──▶ ready ──the server ends, or does not answer──▶ down
//!     └──────── after a while ────────▲  └─ the list changed ─▶ listed again
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    process::Stdio,
    sync::{Arc, Weak},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use parking_lot::RwLock;
use rmcp::{
    ClientHandler, Peer, RoleClient, ServiceExt,
    model::{CallToolRequestParams, CallToolResult, ContentBlock, Tool},
    service::{NotificationContext, RunningService, ServiceError},
    transport::{
        StreamableHttpClientTransport, TokioChildProcess,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::Value;
use tokio::{process::Command, sync::Notify, task::JoinHandle};

use crate::{
    providers::{
        http,
        llm::{Image, MAX_IMAGE_BYTES, ToolSpec},
    },
    secret::Secret,
    tools::{Invocation, MAX_OUTPUT_BYTES, ToolOutput, declaration},
};

/// How long a server may take to be connected, and to list its tools.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// The wait before a server is tried again: after the first failure, and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// How many tools of a server are offered, and how long all of them are, in bytes. Each prompt has them.
const MAX_TOOLS: usize = 64;
const MAX_TOOLS_BYTES: usize = 64 * 1024;

/// The largest message of a server: an image in base64, and more.
const MAX_MESSAGE_BYTES: usize = MAX_IMAGE_BYTES * 2;

/// How much of a server's reason the model reads, in bytes.
const MAX_REASON_BYTES: usize = 500;

/// Between the names of a server and of its tool.
const SEPARATOR: &str = "__";

/// A server that the operator allows.
#[derive(Clone, Debug)]
pub struct McpConfig {
    /// Its name in the options of sessions, and what the names of its tools begin with.
    pub name: String,
    pub transport: McpTransport,
}

#[derive(Clone, Debug)]
pub enum McpTransport {
    Http { url: String, token: Option<Secret> },
    Stdio { command: String, args: Vec<String>, env: BTreeMap<String, Secret> },
}

/// One server.
pub(super) struct McpServer {
    name: String,
    state: RwLock<State>,
    supervisor: RwLock<Option<JoinHandle<()>>>,
}

enum State {
    Down(String),
    Ready { peer: Peer<RoleClient>, tools: Vec<McpTool> },
}

/// A tool as the model knows it, and its name on the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct McpTool {
    pub(super) spec: ToolSpec,
    pub(super) tool: String,
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for McpServer {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.get_mut() {
            supervisor.abort();
        }
    }
}

impl McpServer {
    /// Connects to the server, and keeps it connected until this is dropped.
    pub(super) fn start(config: McpConfig) -> Arc<Self> {
        let server = Arc::new(Self {
            name: config.name.clone(),
            state: RwLock::new(State::Down("not connected yet".into())),
            supervisor: RwLock::new(None),
        });
        let supervisor = tokio::spawn(supervise(config, Arc::downgrade(&server)));
        *server.supervisor.write() = Some(supervisor);
        server
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it offers at the moment.
    pub(super) fn tools(&self) -> Vec<McpTool> {
        match &*self.state.read() {
            State::Ready { tools, .. } => tools.clone(),
            State::Down(_) => Vec::new(),
        }
    }

    /// Dropping the future cancels the call.
    pub(super) async fn call(&self, tool: &str, invocation: &Invocation) -> Result<ToolOutput, String> {
        let peer = match &*self.state.read() {
            State::Ready { peer, .. } => peer.clone(),
            State::Down(reason) => return Err(format!("the MCP server {} is down: {reason}", self.name)),
        };
        let mut params = CallToolRequestParams::new(tool.to_owned());
        if let Value::Object(arguments) = &invocation.arguments {
            params = params.with_arguments(arguments.clone());
        }
        let result = peer.call_tool(params).await;
        output(result.map_err(|error| reason(&error.to_string()))?)
    }

    fn down(&self, reason: String) {
        *self.state.write() = State::Down(reason);
    }
}

/// Keeps a server connected until nobody needs it.
async fn supervise(config: McpConfig, server: Weak<McpServer>) {
    let mut wait = FIRST_RETRY;
    loop {
        let changed = Arc::new(Notify::new());
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect(&config, &changed)).await;
        let ended = match connected.unwrap_or_else(|_| Err("it does not answer".into())) {
            Ok((running, tools)) => {
                wait = FIRST_RETRY;
                tracing::info!(mcp.server = %config.name, tools = tools.len(), "MCP server connected");
                serve(running, tools, &changed, &server).await
            }
            Err(problem) => problem,
        };
        let Some(server) = server.upgrade() else { return };
        tracing::warn!(mcp.server = %config.name, problem = %ended, ?wait, "MCP server is down");
        server.down(ended);
        drop(server);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MAX_RETRY);
    }
}

type Running = RunningService<RoleClient, Handler>;

async fn connect(config: &McpConfig, changed: &Arc<Notify>) -> Result<(Running, Vec<McpTool>), String> {
    let handler = Handler { changed: changed.clone() };
    let running = match &config.transport {
        McpTransport::Http { url, token } => {
            let mut transport = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                .max_json_response_size(MAX_MESSAGE_BYTES)
                .max_sse_event_size(MAX_MESSAGE_BYTES);
            if let Some(token) = token {
                transport = transport.auth_header(token.expose());
            }
            // It follows no redirects, which would take the token elsewhere.
            let client = http::client().map_err(|error| error.to_string())?;
            Box::pin(handler.serve(StreamableHttpClientTransport::with_client(client, transport))).await
        }
        McpTransport::Stdio { command, args, env } => {
            let program = program(command, args, env);
            let process = TokioChildProcess::builder(program).stderr(Stdio::inherit()).spawn();
            let (process, _) = process.map_err(|error| format!("{command}: {error}"))?;
            Box::pin(handler.serve(process)).await
        }
    };
    let running = running.map_err(|error| reason(&error.to_string()))?;
    let tools = list(&config.name, running.peer()).await.map_err(|error| reason(&error.to_string()))?;
    Ok((running, tools))
}

/// The program does not inherit the gateway's environment, which has its secrets.
fn program(command: &str, args: &[String], env: &BTreeMap<String, Secret>) -> Command {
    const INHERITED: [&str; 4] = ["HOME", "LANG", "PATH", "TMPDIR"];
    let mut program = Command::new(command);
    program.args(args).env_clear().kill_on_drop(true);
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            program.env(name, value);
        }
    }
    program.envs(env.iter().map(|(name, value)| (name, value.expose())));
    program
}

/// The server is ready until its connection ends. Gives the reason of the end.
async fn serve(running: Running, tools: Vec<McpTool>, changed: &Notify, server: &Weak<McpServer>) -> String {
    let peer = running.peer().clone();
    match server.upgrade() {
        Some(server) => *server.state.write() = State::Ready { peer: peer.clone(), tools },
        None => return "not needed any more".into(),
    }
    let mut ended = std::pin::pin!(running.waiting());
    loop {
        tokio::select! {
            ended = &mut ended => {
                return ended.map_or_else(|_| "its connection panicked".into(), |_| "its connection ended".into());
            }
            () = changed.notified() => {}
        }
        let Some(server) = server.upgrade() else { return "not needed any more".into() };
        let listed = tokio::time::timeout(CONNECT_TIMEOUT, list(server.name(), &peer)).await;
        match listed {
            Ok(Ok(tools)) => *server.state.write() = State::Ready { peer: peer.clone(), tools },
            Ok(Err(error)) => return reason(&error.to_string()),
            Err(_) => return "it does not list its tools".into(),
        }
    }
}

struct Handler {
    changed: Arc<Notify>,
}

impl ClientHandler for Handler {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

async fn list(server: &str, peer: &Peer<RoleClient>) -> Result<Vec<McpTool>, ServiceError> {
    Ok(offered(server, peer.list_all_tools().await?))
}

/// The tools that can be offered: those with names and schemas that vendors take, up to a length.
fn offered(server: &str, listed: Vec<Tool>) -> Vec<McpTool> {
    let (mut offered, mut bytes) = (Vec::new(), 0);
    for tool in listed {
        let name = format!("{server}{SEPARATOR}{}", tool.name);
        let schema = Value::Object((*tool.input_schema).clone());
        let description = tool.description.unwrap_or_default();
        bytes += name.len() + description.len() + schema.to_string().len();
        let problem = match () {
            () if !declaration::is_name(&name) => "its name is not one that LLMs take",
            () if schema["type"] != "object" => "its schema is not that of an object",
            () if offered.len() == MAX_TOOLS || bytes > MAX_TOOLS_BYTES => "the server has too many",
            () => {
                let spec = ToolSpec { name, description: description.into_owned(), parameters: schema };
                offered.push(McpTool { spec, tool: tool.name.into_owned() });
                continue;
            }
        };
        tracing::warn!(mcp.server = %server, tool.name = %tool.name, problem, "tool is not offered");
    }
    offered
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the SDK may add kinds of content")]
fn output(result: CallToolResult) -> Result<ToolOutput, String> {
    let (mut texts, mut image) = (Vec::new(), None);
    for content in result.content {
        match content {
            ContentBlock::Text(text) => texts.push(text.text),
            ContentBlock::Image(data) if image.is_none() => {
                let data = BASE64_STANDARD.decode(data.data).map_err(|_| "the image is not base64")?;
                image = Some(Image::new(data.into()).map_err(|error| error.to_string())?);
            }
            ContentBlock::Image(_) => texts.push("[A further image, which is left out.]".into()),
            _ => texts.push("[Content that cannot be read here.]".into()),
        }
    }
    if texts.is_empty()
        && let Some(structured) = result.structured_content
    {
        texts.push(structured.to_string());
    }
    let text = texts.join("\n");
    if result.is_error == Some(true) {
        return Err(reason(&text));
    }
    if text.len() > MAX_OUTPUT_BYTES {
        return Err(format!("the result has more than {MAX_OUTPUT_BYTES} bytes"));
    }
    Ok(ToolOutput { text, image })
}

fn reason(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_REASON_BYTES)].to_owned()
}

#[cfg(test)]
mod tests;
