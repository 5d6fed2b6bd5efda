//! The options of one session, over REST (`POST /api/sessions`) and on the channel (`configure_session`).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::ids::Identity;

/// The options of a session. One that is absent is as the gateway's settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionOptions {
    /// The language that is spoken (BCP 47), or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// With `language` `auto`: the languages that are probably spoken.
    #[serde(alias = "language_hints", skip_serializing_if = "Option::is_none")]
    pub language_hints: Option<Vec<String>>,
    /// The system prompt of the LLM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The voice of the answers, by the TTS provider's name of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voice: Option<String>,
    /// What becomes of what is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Words and names to expect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Vec<String>>,
    /// The STT providers, in the order in which they are tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stt: Option<Vec<String>>,
    /// The LLM providers, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm: Option<Vec<String>>,
    /// The TTS providers, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tts: Option<Vec<String>>,
    /// Whose microphones in the room are transcribed beside the user's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participants: Option<Participants>,
    /// Who of these is answered beside the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<Participants>,
    /// What the LLM may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolDeclaration>>,
}

/// Participants of the room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be \"owner\", \"all\", or a list of identities")]
pub enum Participants {
    /// Nobody but the user, or everybody.
    Group(ParticipantGroup),
    /// The user and these.
    Listed(Vec<Identity>),
}

/// A group of participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParticipantGroup {
    /// The user whose session it is.
    Owner,
    /// Everybody in the room.
    All,
}

impl Participants {
    /// Nobody but the user.
    pub const OWNER: Self = Self::Group(ParticipantGroup::Owner);

    /// Everybody in the room.
    pub const ALL: Self = Self::Group(ParticipantGroup::All);

    /// Whether a participant other than the user is one of them.
    pub fn include(&self, participant: &Identity) -> bool {
        match self {
            Self::Group(group) => *group == ParticipantGroup::All,
            Self::Listed(identities) => identities.contains(participant),
        }
    }

    /// Whether they are the user alone.
    pub fn is_owner(&self) -> bool {
        match self {
            Self::Group(group) => *group == ParticipantGroup::Owner,
            Self::Listed(identities) => identities.is_empty(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Group(_) => 0,
            Self::Listed(identities) => identities.iter().map(|identity| identity.as_str().len()).sum(),
        }
    }
}

/// What becomes of what is said in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is answered.
    #[default]
    Conversation,
    /// It is transcribed, and not answered.
    Captions,
    /// What is said while `VAD` is true is a turn, and is answered. All else is ignored.
    PushToTalk,
}

/// A tool that the LLM may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolDeclaration {
    /// Who answers it.
    #[serde(rename = "type", default, skip_serializing_if = "ToolKind::is_client")]
    pub kind: ToolKind,
    /// Its name; of a tool of type `mcp`, the MCP server's.
    pub name: String,
    /// What it does and when to call it, for the LLM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The JSON Schema of its arguments, of type `object`. Absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    /// Where it is called, of a tool of type `webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl ToolKind {
    fn is_client(&self) -> bool {
        *self == Self::Client
    }
}

impl ToolDeclaration {
    /// The length of its text.
    pub fn bytes(&self) -> usize {
        let parameters = self.parameters.as_ref().map_or(0, |schema| {
            serde_json::to_string(schema).expect("an object that was JSON is JSON").len()
        });
        self.name.len() + self.description.len() + self.url.as_ref().map_or(0, String::len) + parameters
    }
}

/// Who answers a tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// The client, by `tool_result`.
    #[default]
    Client,
    /// A backend, by HTTP.
    Webhook,
    /// An MCP server, all of whose tools are offered.
    Mcp,
}

/// An option that is unknown, or whose value is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOption {
    /// The option's name, as the client wrote it.
    pub name: String,
    /// What is wrong, and what is valid.
    pub problem: String,
}

impl InvalidOption {
    /// An option of this name has this problem.
    pub fn new(name: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { name: name.into(), problem: problem.to_string() }
    }
}

impl fmt::Display for InvalidOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

impl std::error::Error for InvalidOption {}

impl SessionOptions {
    /// The names of all options.
    pub const NAMES: [&str; 12] = [
        "language",
        "languageHints",
        "instructions",
        "voice",
        "mode",
        "vocabulary",
        "stt",
        "llm",
        "tts",
        "participants",
        "answers",
        "tools",
    ];

    /// Whether this is the name of an option. REST writes `language_hints`.
    pub fn is_name(name: &str) -> bool {
        Self::NAMES.contains(&name) || name == "language_hints"
    }

    /// The length of their text.
    pub fn bytes(&self) -> usize {
        let texts = [&self.language, &self.instructions, &self.voice].into_iter().flatten();
        let lists = [&self.language_hints, &self.vocabulary, &self.stt, &self.llm, &self.tts];
        let participants = [&self.participants, &self.answers].into_iter().flatten();
        let tools: usize = self.tools.iter().flatten().map(ToolDeclaration::bytes).sum();
        texts.chain(lists.into_iter().flatten().flatten()).map(String::len).sum::<usize>()
            + participants.map(Participants::bytes).sum::<usize>()
            + tools
    }

    /// Sets the options of these names. Null removes one.
    ///
    /// # Errors
    /// [`InvalidOption`] for a name that is none, and for a value of another type.
    pub fn set(&mut self, options: Map<String, Value>) -> Result<(), InvalidOption> {
        for (name, value) in options {
            match name.as_str() {
                "language" => self.language = option(&name, value)?,
                "languageHints" | "language_hints" => self.language_hints = option(&name, value)?,
                "instructions" => self.instructions = option(&name, value)?,
                "voice" => self.voice = option(&name, value)?,
                "mode" => self.mode = option(&name, value)?,
                "vocabulary" => self.vocabulary = option(&name, value)?,
                "stt" => self.stt = option(&name, value)?,
                "llm" => self.llm = option(&name, value)?,
                "tts" => self.tts = option(&name, value)?,
                "participants" => self.participants = option(&name, value)?,
                "answers" => self.answers = option(&name, value)?,
                "tools" => self.tools = option(&name, value)?,
                _ => {
                    let names = Self::NAMES.join(", ");
                    return Err(InvalidOption::new(name, format!("no such option; there are {names}")));
                }
            }
        }
        Ok(())
    }
}

fn option<T: DeserializeOwned>(name: &str, value: Value) -> Result<Option<T>, InvalidOption> {
    serde_json::from_value(value).map_err(|error| InvalidOption::new(name, error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(options: &mut SessionOptions, json: Value) -> Result<(), String> {
        let Value::Object(fields) = json else { panic!("{json}") };
        options.set(fields).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn every_name_is_one_of_the_type() {
        let mut options = SessionOptions::default();
        for name in SessionOptions::NAMES {
            set(&mut options, json!({ name: null })).unwrap();
        }
        let all = SessionOptions {
            language: Some("auto".into()),
            language_hints: Some(vec!["de".into()]),
            instructions: Some("Be kind.".into()),
            voice: Some("joe".into()),
            mode: Some(Mode::PushToTalk),
            vocabulary: Some(vec!["June".into()]),
            stt: Some(vec!["moonshine".into()]),
            llm: Some(vec!["echo".into()]),
            tts: Some(vec!["piper".into()]),
            participants: Some(Participants::Listed(vec![Identity::parse("ann").unwrap()])),
            answers: Some(Participants::OWNER),
            tools: Some(vec![ToolDeclaration { name: "take_photo".into(), ..ToolDeclaration::default() }]),
        };

        let json = serde_json::to_value(&all).unwrap();
        set(&mut options, json.clone()).unwrap();

        let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = SessionOptions::NAMES;
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
        assert_eq!(options, all);
    }

    #[test]
    fn what_is_not_named_stays_and_null_removes() {
        let mut options = SessionOptions::default();
        set(&mut options, json!({"language": "de", "language_hints": ["de"], "mode": "captions"})).unwrap();
        set(&mut options, json!({"language": null, "voice": "joe"})).unwrap();

        let expected = SessionOptions {
            language_hints: Some(vec!["de".into()]),
            mode: Some(Mode::Captions),
            voice: Some("joe".into()),
            ..SessionOptions::default()
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn an_unknown_name_and_a_value_of_another_type_are_refused_by_name_with_what_there_is() {
        let mut options = SessionOptions::default();

        let unknown = set(&mut options, json!({"languge": "de"})).unwrap_err();
        assert!(unknown.starts_with("languge: no such option; there are language, "), "{unknown}");
        let mode = set(&mut options, json!({"mode": "karaoke"})).unwrap_err();
        assert!(mode.starts_with("mode: ") && mode.contains("push_to_talk"), "{mode}");
        let kind = set(&mut options, json!({"vocabulary": "June"})).unwrap_err();
        assert!(kind.starts_with("vocabulary: ") && kind.contains("a sequence"), "{kind}");
        for value in [json!("everybody"), json!(5), json!([""])] {
            let participants = set(&mut options, json!({ "participants": value })).unwrap_err();
            assert_eq!(participants, r#"participants: must be "owner", "all", or a list of identities"#);
        }
        let tool = set(&mut options, json!({"tools": [{"name": "a", "colour": 1}]})).unwrap_err();
        assert!(tool.starts_with("tools: ") && tool.contains("colour"), "{tool}");
    }
}
