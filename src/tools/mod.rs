//! What the language model may call: tools of the client, of backends by webhook, and of MCP servers.
//!
//! | file | |
//! |---|---|
//! | [`declaration`] | the tools that a session declares, checked |
//! | [`tool_loop`] | the calls of one response: steps, time limits, results; pure |
//! | [`webhook`] | signed POSTs to backends |
//! | [`mcp`] | connections to MCP servers, and what they offer |
//!
//! A client answers on the control channel (docs/PROTOCOL.md#tools), or uploads an image over REST (docs/TOOLS.md).

pub(crate) mod declaration;
pub mod mcp;
pub(crate) mod tool_loop;
pub mod webhook;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use reqwest::Url;
use serde_json::Value;

use self::{
    mcp::{McpServer, McpTool},
    webhook::Webhooks,
};
use crate::{
    config::ToolsConfig,
    ids::{SessionId, TurnId, UserId},
    protocol::ToolKind,
    providers::llm::{Image, ToolSpec},
};

/// The longest result, in bytes of text.
pub(crate) const MAX_OUTPUT_BYTES: usize = 16 * 1024;

/// What is the same for the tools of all sessions.
#[derive(Clone, Debug)]
pub struct ToolLimits {
    /// How long a call may take.
    pub timeout: Duration,
    /// How many times in one answer the model may call tools, several at once counting as one time.
    pub max_steps: u32,
    /// What is said when tools take long; none for nothing.
    pub filler: Option<Filler>,
    /// The largest image that a client uploads, in bytes.
    pub max_upload_bytes: usize,
}

/// What is said when tools take long.
#[derive(Clone, Debug)]
pub struct Filler {
    pub text: String,
    /// How long after the call.
    pub after: Duration,
}

impl Default for ToolLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            max_steps: 5,
            filler: None,
            max_upload_bytes: 2 * 1024 * 1024,
        }
    }
}

/// A tool that is offered to the model, and who answers it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OfferedTool {
    pub(crate) spec: ToolSpec,
    pub(crate) target: Target,
}

/// Who answers a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Client,
    Webhook(Url),
    /// A tool of an MCP server, by the server's name of it.
    Mcp {
        server: String,
        tool: String,
    },
}

impl Target {
    pub(crate) fn kind(&self) -> ToolKind {
        match self {
            Self::Client => ToolKind::Client,
            Self::Webhook(_) => ToolKind::Webhook,
            Self::Mcp { .. } => ToolKind::Mcp,
        }
    }
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    pub(crate) session: SessionId,
    pub(crate) user: UserId,
    pub(crate) turn: TurnId,
    pub(crate) call_id: String,
    pub(crate) name: String,
    /// A JSON object.
    pub(crate) arguments: Value,
}

/// The tools that are not the client's. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tools {
    webhooks: Option<Arc<Webhooks>>,
    servers: Arc<[Arc<McpServer>]>,
}

impl Tools {
    /// Connects to the MCP servers, in the background.
    pub(crate) fn start(config: &ToolsConfig) -> Self {
        let webhooks = config.webhooks.clone().and_then(|webhooks| match Webhooks::new(webhooks) {
            Ok(webhooks) => Some(Arc::new(webhooks)),
            Err(problem) => {
                tracing::error!(problem, "no webhooks are called");
                None
            }
        });
        Self { webhooks, servers: config.mcp.iter().cloned().map(McpServer::start).collect() }
    }

    /// The URL of a webhook, if the operator allows it.
    fn webhook(&self, url: &str) -> Result<Url, String> {
        match &self.webhooks {
            Some(webhooks) => webhooks.check(url),
            None => Err("this gateway calls no webhooks (TOOL_WEBHOOK_URLS)".into()),
        }
    }

    fn server(&self, name: &str) -> Option<&Arc<McpServer>> {
        self.servers.iter().find(|server| server.name() == name)
    }

    /// The names of the MCP servers.
    fn server_names(&self) -> Vec<&str> {
        self.servers.iter().map(|server| server.name()).collect()
    }

    /// What an MCP server offers at the moment.
    fn tools_of(&self, server: &str) -> Vec<McpTool> {
        self.server(server).map(|server| server.tools()).unwrap_or_default()
    }

    /// Calls a tool that is not the client's. Dropping the future cancels the call.
    pub(crate) fn call(
        &self,
        target: Target,
        invocation: Invocation,
    ) -> BoxFuture<'static, Result<ToolOutput, String>> {
        let gone = || Err("the tool is not there any more".to_owned());
        match target {
            Target::Client => unreachable!("the session tells the client"),
            Target::Webhook(url) => {
                let webhooks = self.webhooks.clone();
                Box::pin(async move {
                    let Some(webhooks) = webhooks else { return gone() };
                    webhooks.call(url, &invocation).await
                })
            }
            Target::Mcp { server, tool } => {
                let server = self.server(&server).cloned();
                Box::pin(async move {
                    let Some(server) = server else { return gone() };
                    server.call(&tool, &invocation).await
                })
            }
        }
    }
}

/// The result of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolOutput {
    pub(crate) text: String,
    pub(crate) image: Option<Image>,
}

impl ToolOutput {
    /// A result whose text is not too long.
    pub(crate) fn new(text: String, image: Option<Image>) -> Result<Self, String> {
        if text.len() > MAX_OUTPUT_BYTES {
            return Err(format!("the result has more than {MAX_OUTPUT_BYTES} bytes"));
        }
        Ok(Self { text, image })
    }
}

/// The name of a kind in metrics.
pub(crate) fn kind_label(kind: ToolKind) -> &'static str {
    match kind {
        ToolKind::Client => "client",
        ToolKind::Webhook => "webhook",
        ToolKind::Mcp => "mcp",
    }
}
