//! The MCP servers of the file of settings, each a table `mcp.<name>`.
//!
//! ```toml
//! [mcp.home]
//! url = "https://home.example/mcp"
//! token = "…"
//!
//! [mcp.files]
//! command = "mcp-server-files"
//! args = ["/data"]
//! env = { LOG = "info" }
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;

use crate::{
    secret::Secret,
    tools::{
        declaration,
        mcp::{McpConfig, McpTransport},
    },
};

/// The names of its tools begin with the name.
const MAX_NAME_BYTES: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    url: Option<String>,
    token: Option<Secret>,
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, Secret>,
}

impl Server {
    fn has_secrets(&self) -> bool {
        self.token.is_some() || !self.env.is_empty()
    }

    fn transport(self) -> Result<McpTransport, &'static str> {
        match self {
            Self { url: Some(url), token, command: None, args, env } if args.is_empty() && env.is_empty() => {
                let is_http = reqwest::Url::parse(&url).is_ok_and(|url| {
                    ["http", "https"].contains(&url.scheme()) && url.username().is_empty() && url.has_host()
                });
                match is_http {
                    true => Ok(McpTransport::Http { url, token }),
                    false => Err("url must look like https://host/mcp"),
                }
            }
            Self { url: None, token: None, command: Some(command), args, env } if !command.is_empty() => {
                Ok(McpTransport::Stdio { command, args, env })
            }
            Self { .. } => {
                Err("needs a url, which may have a token, or a command, which may have args and env")
            }
        }
    }
}

/// What a table of servers has: the servers, the problems with their keys, and whether there are secrets.
pub(super) fn servers(table: &Table) -> (Vec<McpConfig>, Vec<(String, String)>, bool) {
    let (mut servers, mut problems, mut has_secrets) = (Vec::new(), Vec::new(), false);
    for (name, value) in table {
        let key = format!("mcp.{name}");
        if !declaration::is_name(name) || name.len() > MAX_NAME_BYTES || name.contains("__") {
            let problem = format!(
                "a name must be of 1 to {MAX_NAME_BYTES} letters, digits, - and single _, and begin with a letter or _"
            );
            problems.push((key, problem));
            continue;
        }
        // Its Display quotes the value, which may be a secret.
        match value.clone().try_into::<Server>().map_err(|error| error.message().to_owned()) {
            Ok(server) => {
                has_secrets |= server.has_secrets();
                match server.transport() {
                    Ok(transport) => servers.push(McpConfig { name: name.clone(), transport }),
                    Err(problem) => problems.push((key, problem.to_owned())),
                }
            }
            Err(problem) => problems.push((key, problem)),
        }
    }
    (servers, problems, has_secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<McpConfig>, Vec<(String, String)>, bool) {
        servers(&text.parse().unwrap())
    }

    #[test]
    fn a_server_is_a_url_or_a_command() {
        let (servers, problems, has_secrets) = read(
            "[home]\nurl = \"https://home.example/mcp\"\ntoken = \"hush\"\n\
             [files]\ncommand = \"mcp-files\"\nargs = [\"/data\"]\nenv = { KEY = \"hush\" }",
        );

        assert!(problems.is_empty(), "{problems:?}");
        assert!(has_secrets);
        assert_eq!(servers.len(), 2);
        assert!(!format!("{servers:?}").contains("hush"));
        let home = servers.iter().find(|server| server.name == "home").unwrap();
        assert!(matches!(&home.transport, McpTransport::Http { token: Some(_), .. }));
    }

    #[test]
    fn each_problem_has_its_key_and_no_secret() {
        let (servers, problems, _) = read(
            "[none]\n[both]\nurl = \"https://a.example\"\ncommand = \"b\"\n[gopher]\nurl = \"gopher://a\"\n\
             [typo]\nurl = \"https://a.example\"\ntokn = \"hush\"\n[kind]\nurl = \"https://a.example\"\ntoken = [\"hush\"]\n\
             [a__b]\ncommand = \"c\"",
        );

        assert!(servers.is_empty(), "{servers:?}");
        let keys: Vec<_> = problems.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(problems.len(), 6, "{keys:?}");
        assert!(keys.contains(&"mcp.typo") && keys.contains(&"mcp.a__b"), "{keys:?}");
        assert!(problems.iter().all(|(_, problem)| !problem.contains("hush")), "{problems:?}");
    }
}
