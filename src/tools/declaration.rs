//! The tools that a session declares.

use serde_json::{Map, Value, json};

use crate::{
    protocol::{InvalidOption, ToolDeclaration, ToolKind},
    providers::llm::ToolSpec,
    tools::{OfferedTool, Target, Tools},
};

/// How many tools a session may declare, and how long all of them may be, in bytes.
const MAX_TOOLS: usize = 32;
const MAX_TOOLS_BYTES: usize = 16 * 1024;

/// The longest name. Anthropic, Gemini and OpenAI take 64 characters.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// The name of the option.
const OPTION: &str = "tools";

/// Checks whether the tools of a session can be called.
pub(crate) fn check_targets(declared: &[ToolDeclaration], tools: &Tools) -> Result<(), InvalidOption> {
    for tool in declared {
        let checked = match tool.kind {
            ToolKind::Client => Ok(()),
            ToolKind::Webhook => tools.webhook(tool.url.as_deref().unwrap_or_default()).map(drop),
            ToolKind::Mcp if tools.server(&tool.name).is_some() => Ok(()),
            ToolKind::Mcp => {
                let names = tools.server_names().join(", ");
                Err(format!("this gateway has no such MCP server; there are: {names}"))
            }
        };
        checked.map_err(|problem| InvalidOption::new(OPTION, format!("{}: {problem}", tool.name)))?;
    }
    Ok(())
}

/// Checks the tools of a session.
pub(crate) fn check(declared: &[ToolDeclaration]) -> Result<(), InvalidOption> {
    if declared.len() > MAX_TOOLS {
        return Err(InvalidOption::new(OPTION, format!("must be at most {MAX_TOOLS}")));
    }
    if declared.iter().map(ToolDeclaration::bytes).sum::<usize>() > MAX_TOOLS_BYTES {
        return Err(InvalidOption::new(
            OPTION,
            format!("must have at most {MAX_TOOLS_BYTES} bytes together"),
        ));
    }
    for (at, tool) in declared.iter().enumerate() {
        check_name(&tool.name)?;
        if declared[..at].iter().any(|other| other.name == tool.name && is_mcp(other) == is_mcp(tool)) {
            return Err(InvalidOption::new(OPTION, format!("\"{}\" is there twice", tool.name)));
        }
        check_tool(tool)
            .map_err(|problem| InvalidOption::new(OPTION, format!("{}: {problem}", tool.name)))?;
    }
    Ok(())
}

/// The tools of a session as they are offered to the model: those that can be called now, each name once.
pub(crate) fn offered(declared: &[ToolDeclaration], tools: &Tools) -> Vec<OfferedTool> {
    let mut offered: Vec<OfferedTool> = Vec::new();
    for tool in declared {
        let more = match tool.kind {
            ToolKind::Client => vec![OfferedTool { spec: spec(tool), target: Target::Client }],
            ToolKind::Webhook => {
                let url = tools.webhook(tool.url.as_deref().unwrap_or_default()).ok();
                let of_url = |url| OfferedTool { spec: spec(tool), target: Target::Webhook(url) };
                url.map(of_url).into_iter().collect()
            }
            ToolKind::Mcp => {
                let of_server = tools.tools_of(&tool.name).into_iter();
                let target = |name| Target::Mcp { server: tool.name.clone(), tool: name };
                of_server.map(|mcp| OfferedTool { spec: mcp.spec, target: target(mcp.tool) }).collect()
            }
        };
        for tool in more {
            if offered.iter().all(|other| other.spec.name != tool.spec.name) {
                offered.push(tool);
            }
        }
    }
    offered
}

fn spec(tool: &ToolDeclaration) -> ToolSpec {
    let no_arguments = || json!({ "type": "object", "properties": {} });
    ToolSpec {
        name: tool.name.clone(),
        description: tool.description.clone(),
        parameters: tool.parameters.clone().map_or_else(no_arguments, Value::Object),
    }
}

fn is_mcp(tool: &ToolDeclaration) -> bool {
    tool.kind == ToolKind::Mcp
}

/// Whether all vendors' APIs take it as the name of a tool.
pub(crate) fn is_name(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(is_of_name)
        // Gemini takes no digit and no hyphen at the beginning.
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

fn check_name(name: &str) -> Result<(), InvalidOption> {
    if is_name(name) {
        return Ok(());
    }
    let problem = format!(
        "a name must be of 1 to {MAX_NAME_BYTES} letters, digits, _ and -, and begin with a letter or _"
    );
    Err(InvalidOption::new(OPTION, problem))
}

fn check_tool(tool: &ToolDeclaration) -> Result<(), String> {
    if let Some(parameters) = &tool.parameters {
        check_schema(parameters)?;
    }
    match (tool.kind, &tool.url) {
        (ToolKind::Client | ToolKind::Mcp, Some(_)) => Err("url is of tools of type webhook".into()),
        (ToolKind::Webhook, None) => Err("a tool of type webhook needs a url".into()),
        (ToolKind::Mcp, None) if tool.parameters.is_some() || !tool.description.is_empty() => {
            Err("a tool of type mcp has no description and no parameters: those of its server are used"
                .into())
        }
        (ToolKind::Client | ToolKind::Mcp, None) | (ToolKind::Webhook, Some(_)) => Ok(()),
    }
}

/// A schema of an object, by the JSON Schema that it names, else by draft 2020-12.
fn check_schema(schema: &Map<String, Value>) -> Result<(), String> {
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err("parameters must be a JSON Schema of type object".into());
    }
    let schema = Value::Object(schema.clone());
    jsonschema::meta::options().validate(&schema).map_err(|error| problem(&error))
}

fn problem(error: &jsonschema::ValidationError<'_>) -> String {
    const MAX_PROBLEM: usize = 200;
    let place = error.instance_path().to_string();
    let text = format!("parameters{place}: not a JSON Schema: {error}");
    text[..text.floor_char_boundary(MAX_PROBLEM)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(tools: Value) -> Result<(), String> {
        let tools: Vec<ToolDeclaration> = serde_json::from_value(tools).unwrap();
        check(&tools).map_err(|invalid| invalid.to_string())
    }

    fn of_schema(schema: &Value) -> Result<(), String> {
        checked(json!([{"name": "a", "parameters": schema}]))
    }

    #[test]
    fn a_tool_needs_no_more_than_a_name() {
        checked(json!([{"name": "battery_level"}])).unwrap();

        let declared = ToolDeclaration { name: "battery_level".into(), ..ToolDeclaration::default() };
        let offered = offered(&[declared], &Tools::default());
        assert_eq!(offered[0].spec.parameters, json!({"type": "object", "properties": {}}));
    }

    #[test]
    fn names_that_vendors_refuse_and_names_that_are_there_twice_are_refused() {
        for name in ["", "take photo", "take.photo", "fotografía", "1st", "-a", &"a".repeat(65)] {
            let problem = checked(json!([{ "name": name }])).unwrap_err();
            assert!(problem.starts_with("tools: a name must be of 1 to 64 letters"), "{name}: {problem}");
        }
        let twice = checked(json!([{"name": "a"}, {"name": "b"}, {"name": "a"}]));
        assert_eq!(twice.unwrap_err(), "tools: \"a\" is there twice");
    }

    #[test]
    fn a_schema_that_is_none_is_refused_with_the_place() {
        let place =
            of_schema(&json!({"type": "object", "properties": {"a": {"type": "colour"}}})).unwrap_err();
        assert!(place.starts_with("tools: a: parameters/properties/a/type: not a JSON Schema"), "{place}");
        for schema in [
            json!({}),
            json!({"type": "string"}),
            json!({"type": ["object", "null"]}),
            json!({"type": "object", "properties": []}),
            json!({"type": "object", "required": "a"}),
            json!({"type": "object", "$schema": "https://schemas.example/none"}),
            json!({"type": "object", "properties": {"a": {"minLength": -1}}}),
        ] {
            assert!(of_schema(&schema).is_err(), "{schema}");
        }
        let schema = json!({
            "type": "object",
            "properties": {"place": {"type": "string", "enum": ["in", "out"]}, "n": {"$ref": "#/$defs/n"}},
            "required": ["place"],
            "additionalProperties": false,
            "$defs": {"n": {"type": "integer", "minimum": 0}},
        });
        of_schema(&schema).unwrap();
    }

    #[test]
    fn too_many_tools_and_too_much_text_are_refused() {
        let tools = |count: usize| -> Value {
            (0..count).map(|number| json!({"name": format!("tool_{number}")})).collect()
        };
        checked(tools(32)).unwrap();
        assert_eq!(checked(tools(33)).unwrap_err(), "tools: must be at most 32");
        let long = checked(json!([{"name": "a", "description": "x".repeat(17_000)}])).unwrap_err();
        assert_eq!(long, "tools: must have at most 16384 bytes together");
    }

    #[test]
    fn a_client_has_no_url() {
        let problem = checked(json!([{"name": "a", "url": "https://june.example"}])).unwrap_err();
        assert_eq!(problem, "tools: a: url is of tools of type webhook");
        let problem = checked(json!([{"type": "webhook", "name": "a"}])).unwrap_err();
        assert_eq!(problem, "tools: a: a tool of type webhook needs a url");
    }

    #[test]
    fn a_gateway_without_webhooks_and_servers_says_so_and_offers_none() {
        let tools = json!([
            {"type": "webhook", "name": "a", "url": "https://june.example/a"},
            {"type": "mcp", "name": "home"},
        ]);
        let declared: Vec<ToolDeclaration> = serde_json::from_value(tools).unwrap();

        check(&declared).unwrap();
        let problem = |declared| check_targets(declared, &Tools::default()).unwrap_err().to_string();
        assert_eq!(problem(&declared[..1]), "tools: a: this gateway calls no webhooks (TOOL_WEBHOOK_URLS)");
        assert_eq!(problem(&declared[1..]), "tools: home: this gateway has no such MCP server; there are: ");
        assert!(offered(&declared, &Tools::default()).is_empty());
    }
}
