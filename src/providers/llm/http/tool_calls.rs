//! Tool calls out of a streamed response.

use genai::{adapter::AdapterKind, chat};
use serde_json::{Map, Value};

use crate::providers::{ProviderError, llm::ToolCall};

/// The most tool calls of a response.
const MAX_TOOL_CALLS: usize = 32;

/// Whether calls are put together here. `genai` can do it, but for this API it makes room for as many calls as the
/// server's `index` says, up to 4 billion.
pub(super) fn come_in_pieces(api: AdapterKind) -> bool {
    api == AdapterKind::OpenAI
}

/// Tool calls of OpenAI's chat completions, whose arguments come in pieces. `genai` gives the `index` of a piece only
/// where the piece has no id, as `call_<index>`.
#[derive(Default)]
pub(super) struct PartialCalls(Vec<PartialCall>);

struct PartialCall {
    id: String,
    name: String,
    arguments: String,
}

impl PartialCalls {
    pub(super) fn push(&mut self, piece: chat::ToolCall) -> Result<(), ProviderError> {
        let arguments = piece.fn_arguments.as_str().unwrap_or_default();
        match self.position(&piece.call_id, &piece.fn_name) {
            Some(call) => self.0[call].arguments.push_str(arguments),
            None if piece.fn_name.is_empty() => {
                return Err(ProviderError::Garbled("a piece of a tool call that did not begin".into()));
            }
            None if self.0.len() == MAX_TOOL_CALLS => return Err(too_many()),
            None => {
                let arguments = arguments.to_owned();
                self.0.push(PartialCall { id: piece.call_id, name: piece.fn_name, arguments });
            }
        }
        Ok(())
    }

    /// The call that a piece continues.
    fn position(&self, id: &str, name: &str) -> Option<usize> {
        let index = || id.strip_prefix("call_")?.parse().ok().filter(|index| *index < self.0.len());
        let same_id = || self.0.iter().position(|call| !id.is_empty() && call.id == id);
        match name.is_empty() {
            // The rest of a call has neither a name nor, with most servers, an id.
            true if id.is_empty() => self.0.len().checked_sub(1),
            true => index().or_else(same_id),
            false => same_id(),
        }
    }

    pub(super) fn take(&mut self) -> Vec<chat::ToolCall> {
        let whole = |call: PartialCall| chat::ToolCall {
            call_id: call.id,
            fn_name: call.name,
            fn_arguments: Value::String(call.arguments),
            thought_signatures: None,
        };
        std::mem::take(&mut self.0).into_iter().map(whole).collect()
    }
}

/// Checks whole calls, and gives each an id of its own.
pub(super) fn checked(calls: Vec<chat::ToolCall>) -> Result<Vec<ToolCall>, ProviderError> {
    if calls.len() > MAX_TOOL_CALLS {
        return Err(too_many());
    }
    let mut checked: Vec<ToolCall> = Vec::with_capacity(calls.len());
    for call in calls {
        if call.fn_name.is_empty() {
            return Err(ProviderError::Garbled("a tool call without a name".into()));
        }
        let is_taken = |id: &str| id.is_empty() || checked.iter().any(|other| other.id == id);
        // `genai` knows by this form that an id is not Gemini's own.
        let own = |number| format!("call#{}#{number}", call.fn_name);
        let id = match is_taken(&call.call_id) {
            false => call.call_id.clone(),
            true => (checked.len()..).map(own).find(|id| !is_taken(id)).unwrap_or_default(),
        };
        checked.push(ToolCall {
            id,
            arguments: arguments(call.fn_arguments)?,
            name: call.fn_name,
            signature: call.thought_signatures.and_then(|signatures| signatures.into_iter().next()),
        });
    }
    Ok(checked)
}

fn arguments(arguments: Value) -> Result<Value, ProviderError> {
    let parsed = match arguments.as_str().map(str::trim) {
        Some("") => Some(Value::Null),
        Some(text) => serde_json::from_str(text).ok(),
        None => Some(arguments),
    };
    match parsed {
        Some(Value::Null) => Ok(Value::Object(Map::new())),
        Some(arguments) if arguments.is_object() => Ok(arguments),
        Some(_) | None => {
            Err(ProviderError::Garbled("the arguments of a tool call are no JSON object".into()))
        }
    }
}

fn too_many() -> ProviderError {
    ProviderError::Garbled(format!("more than {MAX_TOOL_CALLS} tool calls"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn piece(id: &str, name: &str, arguments: &str) -> chat::ToolCall {
        chat::ToolCall {
            call_id: id.into(),
            fn_name: name.into(),
            fn_arguments: arguments.into(),
            thought_signatures: None,
        }
    }

    fn calls(pieces: &[(&str, &str, &str)]) -> Result<Vec<(String, String, Value)>, ProviderError> {
        let mut partial = PartialCalls::default();
        for (id, name, arguments) in pieces {
            partial.push(piece(id, name, arguments))?;
        }
        let calls = checked(partial.take())?;
        Ok(calls.into_iter().map(|call| (call.id, call.name, call.arguments)).collect())
    }

    fn two_cities(first: &str, second: &str) -> Vec<(String, String, Value)> {
        vec![
            (first.into(), "moon".into(), json!({"city": "Oslo"})),
            (second.into(), "moon".into(), json!({"city": "Rome"})),
        ]
    }

    #[test]
    fn pieces_of_two_calls_may_be_mixed() {
        // `call_0` and `call_1` stand for pieces without an id, of the index 0 and 1.
        let mixed = [
            ("a", "moon", ""),
            ("b", "moon", r#"{"city""#),
            ("call_0", "", r#"{"city":"#),
            ("call_1", "", r#":"Rome"}"#),
            ("call_0", "", r#""Oslo"}"#),
        ];

        assert_eq!(calls(&mixed).unwrap(), two_cities("a", "b"));
    }

    #[test]
    fn a_server_may_repeat_the_id_or_the_name_or_give_none() {
        let repeated = [
            ("a", "moon", r#"{"city":"#),
            ("a", "moon", r#""Oslo"}"#),
            ("b", "moon", ""),
            ("b", "", r#"{"city":"Rome"}"#),
        ];
        let without =
            [("", "moon", r#"{"city":"Oslo"}"#), ("", "moon", r#"{"city":"#), ("", "", r#""Rome"}"#)];

        assert_eq!(calls(&repeated).unwrap(), two_cities("a", "b"));
        assert_eq!(calls(&without).unwrap(), two_cities("call#moon#0", "call#moon#1"));
    }

    #[test]
    fn each_call_has_an_id_of_its_own() {
        let gemini = || chat::ToolCall { fn_arguments: Value::Null, ..piece("call#moon#0", "moon", "") };

        let ids: Vec<_> =
            checked(vec![gemini(), gemini(), gemini()]).unwrap().into_iter().map(|call| call.id).collect();

        assert_eq!(ids, ["call#moon#0", "call#moon#1", "call#moon#2"]);
    }

    #[test]
    fn a_call_without_arguments_has_an_empty_object() {
        let no_arguments = |arguments| vec![("a".to_owned(), "battery".to_owned(), arguments)];

        assert_eq!(calls(&[("a", "battery", "")]).unwrap(), no_arguments(json!({})));
        assert_eq!(calls(&[("a", "battery", "null")]).unwrap(), no_arguments(json!({})));
    }

    #[test]
    fn what_is_no_call_is_refused() {
        let garbled = |pieces: &[(&str, &str, &str)]| match calls(pieces) {
            Err(ProviderError::Garbled(reason)) => reason,
            other => panic!("{other:?}"),
        };

        assert!(garbled(&[("call_0", "", "{}")]).contains("did not begin"));
        assert!(garbled(&[("a", "moon", r#"{"city""#)]).contains("no JSON object"));
        assert!(garbled(&[("a", "moon", "[1]")]).contains("no JSON object"));
        let ids: Vec<_> = (0..=MAX_TOOL_CALLS).map(|number| format!("id {number}")).collect();
        let many: Vec<_> = ids.iter().map(|id| (id.as_str(), "moon", "{}")).collect();
        assert!(garbled(&many).contains("more than 32"));
    }
}
