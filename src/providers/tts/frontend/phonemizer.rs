//! Words to phonemes, in the IPA spelling of eSpeak's American English that Piper's voices were
//! trained on.
//!
//! eSpeak NG does this best, and is under the GPL: it is run as a program of its own where it is
//! installed, and never linked. Elsewhere the CMU pronouncing dictionary serves, with spelling
//! rules for the words it lacks.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::providers::{
    ProviderError,
    tts::frontend::{cmudict::Cmudict, text_normalizer::Clause},
};

/// A run takes about 10 ms; past this something is wrong with the program.
const ESPEAK_TIMEOUT: Duration = Duration::from_secs(2);
/// Programs at a time, over all sessions. Who comes later waits for one to end.
const ESPEAK_AT_A_TIME: usize = 4;

/// Where phonemes come from. Cheap to clone.
///
/// The dictionary answers at once, eSpeak after starting a program: it is asked only for what the
/// dictionary lacks.
#[derive(Clone)]
pub struct Phonemizer {
    dictionary: Option<Arc<Cmudict>>,
    espeak: Option<Arc<Espeak>>,
}

impl Phonemizer {
    /// The dictionary, and eSpeak NG where it is installed.
    pub fn new(dictionary: Cmudict, espeak: Option<Espeak>) -> Self {
        Self { dictionary: Some(Arc::new(dictionary)), espeak: espeak.map(Arc::new) }
    }

    /// eSpeak NG for every word.
    pub fn espeak_alone(espeak: Espeak) -> Self {
        Self { dictionary: None, espeak: Some(Arc::new(espeak)) }
    }

    /// The phonemes of some clauses, each with its mark.
    ///
    /// # Errors
    /// [`ProviderError::Inference`] where eSpeak NG fails or takes too long and there is no dictionary.
    pub async fn phonemes(&self, clauses: &[Clause]) -> Result<String, ProviderError> {
        let lacking = |dictionary: &Cmudict| !clauses.iter().all(|clause| dictionary.knows(clause));
        match (&self.dictionary, &self.espeak) {
            (Some(dictionary), Some(espeak)) if lacking(dictionary) => {
                espeak.phonemes(clauses).await.or_else(|error| {
                    tracing::warn!(%error, "unknown words are spelled out by rule");
                    Ok(dictionary.phonemes(clauses))
                })
            }
            (Some(dictionary), _) => Ok(dictionary.phonemes(clauses)),
            (None, Some(espeak)) => espeak.phonemes(clauses).await,
            (None, None) => Err(ProviderError::Unavailable("no source of phonemes".into())),
        }
    }
}

// --- eSpeak NG ------------------------------------------------------------------------------------

/// The program `espeak-ng`.
pub struct Espeak {
    program: PathBuf,
    turns: Semaphore,
}

impl Espeak {
    /// The program at this place.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), turns: Semaphore::new(ESPEAK_AT_A_TIME) }
    }

    /// The program on the PATH, where there is one.
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("espeak-ng"))
            .find(|program| program.is_file())
            .map(Self::at)
    }

    /// One run of the program: clauses in as paragraphs, a line of phonemes for each out.
    async fn phonemes(&self, clauses: &[Clause]) -> Result<String, ProviderError> {
        let _turn = self.turns.acquire().await;
        let failed = |what: String| ProviderError::Inference(format!("espeak-ng: {what}"));
        let mut child = Command::new(&self.program)
            // Plain `--ipa`: with `--ipa=1` a `_` stands between phonemes, which is Piper's padding.
            .args(["-q", "--ipa", "-v", "en-us", "--stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let mut input = child.stdin.take().ok_or_else(|| failed("no standard input".into()))?;
        let text: String =
            clauses.iter().map(|clause| format!("{}{}\n\n", clause.words, clause.mark)).collect();
        let run = async {
            input.write_all(text.as_bytes()).await?;
            drop(input);
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(ESPEAK_TIMEOUT, run)
            .await
            .map_err(|_| failed(format!("no answer within {ESPEAK_TIMEOUT:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(output.status.to_string()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.len() == clauses.len() {
            let marked = lines.iter().zip(clauses).map(|(line, clause)| format!("{line}{}", clause.mark));
            return Ok(marked.collect::<Vec<_>>().join(" "));
        }
        // It broke a clause of its own, or had nothing to say for one: only the breaks are lost.
        let mark = clauses.last().map_or('.', |clause| clause.mark);
        Ok(format!("{}{mark}", lines.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::tts::frontend::text_normalizer;

    fn table() -> Cmudict {
        let lines = "hello HH AH0 L OW1\nhello(2) HH EH0 L OW1\nworld W ER1 L D # a comment\ngate G EY1 T\ntest T EH1 S T\n";
        Cmudict::parse(lines.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_unless_there_is_a_dictionary() {
        let clauses = text_normalizer::clauses("Hello, zork.");
        let nowhere = || Espeak::at("/nowhere/espeak-ng");

        let alone = Phonemizer::espeak_alone(nowhere()).phonemes(&clauses).await;
        let beside = Phonemizer::new(table(), Some(nowhere())).phonemes(&clauses).await;

        assert!(matches!(alone, Err(ProviderError::Inference(why)) if why.contains("espeak-ng")));
        assert_eq!(beside.as_deref(), Ok("həlˈoʊ, zˈɔːɹk."));
    }

    #[tokio::test]
    async fn a_program_that_fails_is_an_error() {
        // It refuses options that it does not know.
        let cat = Phonemizer::espeak_alone(Espeak::at("/bin/cat"));

        let answer = cat.phonemes(&text_normalizer::clauses("Hello.")).await;

        assert!(matches!(answer, Err(ProviderError::Inference(_))), "{answer:?}");
    }
}
