//! A TOML file as a second source of settings (`JUNE_CONFIG`). The environment wins.
//!
//! ```toml
//! stt = ["deepgram", "moonshine"]   # STT
//!
//! [deepgram]
//! api_key = "…"                     # DEEPGRAM_API_KEY
//! ```

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use toml::{Table, Value};

use crate::{
    config::{mcp, names},
    tools::mcp::McpConfig,
};

/// The values of a file, by the names of their settings.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    values: BTreeMap<String, FileValue>,
    /// The table `mcp`, which has no settings of the environment.
    pub(super) mcp: Vec<McpConfig>,
    /// Each with the key that it is about.
    pub(super) problems: Vec<String>,
    /// It has secrets, and not only its owner can read it.
    pub(super) is_exposed: bool,
}

struct FileValue {
    /// As the file writes it: `deepgram.api_key`.
    key: String,
    text: String,
}

impl std::fmt::Debug for FileValue {
    /// Omits the value, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.key)
    }
}

impl ConfigFile {
    /// Problems of the file are those of its values, too: the settings are checked with what could be read.
    pub(super) fn read(path: PathBuf) -> Self {
        let mut file =
            Self { path, values: BTreeMap::new(), mcp: Vec::new(), problems: Vec::new(), is_exposed: false };
        match fs::read_to_string(&file.path) {
            Ok(text) => file.take(&text),
            Err(error) => file.problem("cannot be read", &error.to_string()),
        }
        let others_read = fs::metadata(&file.path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
        file.is_exposed |= file.values.keys().any(|name| names::is_secret(name));
        file.is_exposed &= others_read;
        file
    }

    /// The value of a setting.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.text.as_str())
    }

    /// Where the file sets it: the path and the key.
    pub(super) fn place(&self, name: &str) -> Option<String> {
        let value = self.values.get(name)?;
        Some(format!("{}: {}", self.path.display(), value.key))
    }

    fn problem(&mut self, key: &str, problem: &str) {
        self.problems.push(format!("{}: {key}: {problem}", self.path.display()));
    }

    fn take(&mut self, text: &str) {
        match text.parse::<Table>() {
            Ok(mut table) => {
                if let Some(Value::Table(servers)) = table.get("mcp").cloned() {
                    table.remove("mcp");
                    self.mcp(&servers);
                }
                self.table("", "", &table);
            }
            // Its Display quotes the line, which may be a secret.
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                self.problem(&format!("line {line}"), error.message());
            }
        }
    }

    fn mcp(&mut self, table: &Table) {
        let (servers, problems, has_secrets) = mcp::servers(table);
        for (key, problem) in problems {
            self.problem(&key, &problem);
        }
        (self.mcp, self.is_exposed) = (servers, has_secrets);
    }

    fn table(&mut self, key_prefix: &str, name_prefix: &str, table: &Table) {
        for (key, value) in table {
            let name = format!("{name_prefix}{}", key.to_ascii_uppercase());
            let key = format!("{key_prefix}{key}");
            match value {
                Value::Table(table) => self.table(&format!("{key}."), &format!("{name}_"), table),
                _ if !names::is_in_file(&name) => {
                    self.problem(
                        &key,
                        &format!("there is no setting {name} (docs/SETTINGS.md has them all)"),
                    );
                }
                Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Boolean(_)
                | Value::Datetime(_)
                | Value::Array(_) => self.value(key, name, value),
            }
        }
    }

    fn value(&mut self, key: String, name: String, value: &Value) {
        let text = match setting(value) {
            Ok(text) => text,
            Err(problem) => return self.problem(&key, problem),
        };
        match self.values.entry(name) {
            Entry::Vacant(vacant) => {
                vacant.insert(FileValue { key, text });
            }
            Entry::Occupied(known) => {
                let problem = format!("sets the same as {}", known.get().key);
                self.problem(&key, &problem);
            }
        }
    }
}

/// A value as the environment would have it. Lists are separated by commas.
fn setting(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(scalar).collect::<Result<_, _>>()?;
            if items.iter().any(|item| item.contains(',')) {
                return Err("an entry of a list must not have a comma");
            }
            Ok(items.join(","))
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Table(_) => scalar(value),
    }
}

fn scalar(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
            Err("must be a string, a number, true, false, or a list of these")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{Config, ConfigError, KEY, read},
        providers::Choice,
    };

    struct File {
        folder: tempfile::TempDir,
    }

    impl File {
        fn new(text: &str) -> Self {
            let file = Self { folder: tempfile::tempdir().unwrap() };
            fs::write(file.path(), text).unwrap();
            file.allow(0o600);
            file
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("june.toml")
        }

        fn allow(&self, mode: u32) {
            fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn read(&self, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
            read(&[&[("JUNE_CONFIG", self.path().to_str().unwrap())], environment].concat())
        }

        /// The problems without the path that each begins with.
        fn problems(&self) -> Vec<String> {
            let path = format!("{}: ", self.path().display());
            let problems = self.read(&[]).unwrap_err().problems;
            problems.iter().map(|problem| problem.strip_prefix(&path).unwrap().to_owned()).collect()
        }
    }

    #[test]
    fn keys_and_tables_of_the_file_are_settings_and_the_environment_wins() {
        let file = File::new(&format!(
            "stt = \"moonshine\"\nport = 8181\nmentra_compat_no_exp = true\napi_keys = [\"{KEY}\", \"{KEY}-2\"]\n\
             [llm]\ncalls_per_day = 7\nmax_seconds = 9\n[gemini]\napi_key = \"secret-of-gemini\""
        ));

        let config = file.read(&[("LLM_MAX_SECONDS", "10"), ("PORT", "")]).unwrap();

        assert_eq!(config.server.bind.port(), 8181);
        assert_eq!(config.providers.registry.stt, Choice::Listed(vec!["moonshine"]));
        assert!(config.auth.may_lack_exp);
        assert_eq!(config.auth.api_keys.len(), 2);
        assert_eq!(config.limits.llm.calls_per_day, 7);
        assert_eq!(config.limits.answer_time.as_secs(), 10);
        assert_eq!(config.providers.registry.gemini.unwrap().key.expose(), "secret-of-gemini");
        assert_eq!(config.file.as_deref(), Some(Path::new(&file.path())));
    }

    #[test]
    fn every_problem_of_the_file_is_reported_with_its_key_and_those_of_the_environment_with_them() {
        let file = File::new(
            "colour = 1\nport = \"http\"\nsession_grace_ms = 1979-05-27\njune_config = \"other.toml\"\n\
             llm_model = \"a\"\nhost = [[1]]\nallowed_hosts = [\"a,b\"]\n[deepgrm]\nkey = 1\n[llm]\nmodel = \"b\"",
        );

        let mut problems = file.problems();
        problems.sort_unstable();

        let expected = [
            "allowed_hosts: an entry of a list must not have a comma",
            "colour: there is no setting COLOUR (docs/SETTINGS.md has them all)",
            "deepgrm.key: there is no setting DEEPGRM_KEY (docs/SETTINGS.md has them all)",
            "host: must be a string, a number, true, false, or a list of these",
            "june_config: there is no setting JUNE_CONFIG (docs/SETTINGS.md has them all)",
            "llm_model: sets the same as llm.model",
            "port: \"http\" is not valid (invalid digit found in string)",
            "session_grace_ms: must be a string, a number, true, false, or a list of these",
        ];
        assert_eq!(problems, expected);
        let both = file.read(&[("VAD", "hal")]).unwrap_err().problems;
        assert_eq!(both.len(), expected.len() + 1, "{both:?}");
        assert!(both.last().unwrap().starts_with("VAD: "), "{both:?}");
    }

    #[test]
    fn mcp_servers_are_a_table_and_their_problems_are_those_of_the_file() {
        let file = File::new("mcp_x = 1\n[mcp.home]\nurl = \"https://home.example/mcp\"\n[mcp.none]");

        let problems = file.problems();

        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems.iter().any(|problem| problem.starts_with("mcp.none: needs a url")), "{problems:?}");
        let file = File::new("[mcp.home]\nurl = \"https://home.example/mcp\"\ntoken = \"hush\"");
        file.allow(0o644);
        let config = file.read(&[]).unwrap();
        assert_eq!(config.tools.mcp[0].name, "home");
        assert!(config.notes.iter().any(|note| note.contains("chmod 600")), "{:?}", config.notes);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem() {
        let problems = read(&[("JUNE_CONFIG", "/nowhere/june.toml")]).unwrap_err().problems;

        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("/nowhere/june.toml: cannot be read: "), "{problems:?}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_a_problem_that_does_not_quote_it() {
        let file = File::new("port = 8080\ngemini_api_key = hush-hush\n");

        let problems = file.problems();

        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("line 2: ") && !problems[0].contains("hush"), "{problems:?}");
    }

    #[test]
    fn a_file_with_secrets_that_others_can_read_is_noted() {
        let noted = |file: &File| {
            let notes = file.read(&[]).unwrap().notes;
            notes.iter().any(|note| note.starts_with("JUNE_CONFIG: ") && note.contains("chmod 600"))
        };
        let secret = File::new("gemini_api_key = \"k\"");
        assert!(!noted(&secret));
        secret.allow(0o640);
        assert!(noted(&secret));

        let public = File::new("port = 1\nsessions_per_minute_by_key = 2");
        public.allow(0o644);
        assert!(!noted(&public));
    }
}
