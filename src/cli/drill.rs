//! `june drill`: plays faults against the configured providers, and prints who took over and when.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    cli::{EX_USAGE, print_line, wav::read_wav},
    config::{Config, ConfigError},
    providers::{
        ProviderError,
        drill::{self, Trial},
        registry::{Loaded, LoadedRole},
        scripted,
        tts::TextToSpeech,
    },
};

/// The exit code where a fault was not survived, or would not be.
const NOT_SURVIVED: u8 = 1;

/// The arguments of `june drill`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only these roles, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    role: Vec<RoleName>,
    /// A WAV file with speech for the STT; by default the TTS speaks a sentence
    #[arg(long, value_name = "FILE.wav")]
    speech: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    Stt,
    Llm,
    Tts,
}

/// What came of the whole drill.
#[derive(Serialize)]
struct Report {
    survived: bool,
    roles: Vec<RoleReport>,
}

#[derive(Serialize)]
struct RoleReport {
    role: &'static str,
    providers: Vec<&'static str>,
    /// What is not covered, or not tried.
    notes: Vec<String>,
    survived: bool,
    trials: Vec<Trial>,
}

/// Runs the command.
pub fn main(args: Args) -> ExitCode {
    let Args { json, role: roles, speech } = args;
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(ConfigError { problems, .. }) => {
            problems.iter().for_each(print_line);
            return ExitCode::from(EX_USAGE);
        }
    };
    let speech = match speech.as_deref().map(read_wav).transpose() {
        Ok(speech) => speech,
        Err(problem) => {
            print_line(problem);
            return ExitCode::from(EX_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_line(error);
            return ExitCode::from(NOT_SURVIVED);
        }
    };
    // Two crypto providers are linked; one must be selected.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let report = runtime.block_on(run(&roles, json, &config, speech));
    if json {
        print(&serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        print(if report.survived { "every fault was survived" } else { "not every fault was survived" });
    }
    if report.survived { ExitCode::SUCCESS } else { ExitCode::from(NOT_SURVIVED) }
}

async fn run(asked: &[RoleName], json: bool, config: &Config, speech: Option<Vec<i16>>) -> Report {
    let registry = &config.providers.registry;
    let Loaded { stt, llm, tts, .. } = Loaded::load(registry);
    let is_asked = |role| asked.is_empty() || asked.contains(&role);
    let mut output = Output { json, has_head: false };
    let mut roles = Vec::new();
    if is_asked(RoleName::Tts) {
        let trials = drill::tts(&tts.providers, registry.deadlines, &mut |trial| output.row(trial)).await;
        roles.push(output.role(RoleReport::new("tts", &tts, |tts| tts.name(), trials)));
    }
    if is_asked(RoleName::Llm) {
        let trials = drill::llm(&llm.providers, registry.deadlines, &mut |trial| output.row(trial)).await;
        roles.push(output.role(RoleReport::new("llm", &llm, |llm| llm.name(), trials)));
    }
    if is_asked(RoleName::Stt) {
        let speech = match speech {
            Some(speech) => Ok(speech),
            None => spoken(&tts.providers, config).await,
        };
        let (trials, problem) = match &speech {
            Ok(speech) => {
                let language = &config.session.language;
                let report = &mut |trial: &Trial| output.row(trial);
                (drill::stt(&stt.providers, registry.deadlines, speech, language, report).await, None)
            }
            Err(error) => {
                (Vec::new(), Some(format!("there is no speech to transcribe ({error}): use --speech")))
            }
        };
        let mut report = RoleReport::new("stt", &stt, |stt| stt.name(), trials);
        report.survived &= problem.is_none();
        report.notes.extend(problem);
        roles.push(output.role(report));
    }
    Report { survived: roles.iter().all(|role| role.survived), roles }
}

/// A sentence by the TTS, for the STT.
async fn spoken(providers: &[Arc<dyn TextToSpeech>], config: &Config) -> Result<Vec<i16>, ProviderError> {
    if providers.is_empty() {
        return Err(ProviderError::Unavailable("there is no TTS".into()));
    }
    drill::speech(providers.to_vec(), config.providers.registry.deadlines).await
}

impl RoleReport {
    fn new<T: ?Sized>(
        role: &'static str,
        loaded: &LoadedRole<T>,
        name: impl Fn(&T) -> &'static str,
        trials: Vec<Trial>,
    ) -> Self {
        let providers: Vec<_> = loaded.providers.iter().map(|provider| name(provider)).collect();
        let mut notes: Vec<String> =
            loaded.problems.iter().map(|problem| format!("not used: {problem}")).collect();
        match &providers[..] {
            [] => notes.push("off: no fault is covered".into()),
            [only] => {
                notes.push(format!("no fault of {only} is covered: there is no other provider in the list"))
            }
            [.., last] => notes.push(format!("where {last} fails too, nobody takes over")),
        }
        if providers.iter().any(|name| scripted::is_scripted(name)) {
            notes.push(scripted::NOTICE.into());
        }
        let survived = providers.len() > 1 && trials.iter().all(|trial| trial.survived);
        Self { role, providers, notes, survived, trials }
    }
}

/// The table.
struct Output {
    json: bool,
    has_head: bool,
}

impl Output {
    fn row(&mut self, trial: &Trial) {
        if self.json {
            return;
        }
        if !std::mem::replace(&mut self.has_head, true) {
            print(&line(["role", "fault", "of", "taken over by", "after", "result after", "", "result"]));
        }
        let (after, result_after) = (in_ms(trial.takeover_ms), in_ms(trial.first_result_ms));
        print(&line([
            trial.role,
            trial.fault.unwrap_or("none"),
            &trial.providers.join(", "),
            trial.taken_over_by.unwrap_or("-"),
            &after,
            &result_after,
            if trial.survived { "ok" } else { "FAILED" },
            &trial.result,
        ]));
    }

    fn role(&self, report: RoleReport) -> RoleReport {
        if !self.json {
            report.notes.iter().for_each(|note| print(&format!("{:<5}{note}", report.role)));
        }
        report
    }
}

fn in_ms(time: Option<u64>) -> String {
    time.map_or_else(|| "-".into(), |ms| format!("{ms} ms"))
}

fn line([role, fault, of, by, after, result_after, outcome, result]: [&str; 8]) -> String {
    format!("{role:<5}{fault:<9}{of:<24}{by:<16}{after:>9}  {result_after:>12}  {outcome:<7}{result}")
        .trim_end()
        .to_owned()
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn print(text: &str) {
    println!("{text}");
}
