//! Words to phonemes, in the IPA notation of eSpeak's American English, which Piper voices are trained on.
//!
//! eSpeak NG is the most accurate source. It is licensed under the GPL, so it is never linked: where it is
//! installed, it runs as a child process. CMUdict is in the process and has no such licence.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::{Clause, Cmudict, Error};

/// A run takes about 10 ms.
const ESPEAK_TIMEOUT: Duration = Duration::from_secs(2);
/// Child processes at a time, of all callers together. Further calls wait for one to end.
const MAX_ESPEAK_PROCESSES: usize = 4;

/// Converts clauses to phonemes. Cheap to clone.
#[derive(Clone)]
pub struct Phonemizer(Source);

#[derive(Clone)]
enum Source {
    /// CMUdict, and eSpeak NG for clauses with words that CMUdict lacks: a lookup takes microseconds, a child
    /// process milliseconds.
    Cmudict { cmudict: Arc<Cmudict>, espeak: Option<Arc<Espeak>> },
    /// eSpeak NG for every word.
    Espeak(Arc<Espeak>),
}

impl Phonemizer {
    /// CMUdict, and eSpeak NG for what it lacks.
    pub fn with_cmudict(cmudict: Cmudict, espeak: Option<Espeak>) -> Self {
        Self(Source::Cmudict { cmudict: Arc::new(cmudict), espeak: espeak.map(Arc::new) })
    }

    /// eSpeak NG for every word.
    pub fn with_espeak_only(espeak: Espeak) -> Self {
        Self(Source::Espeak(Arc::new(espeak)))
    }

    /// The phonemes of some clauses, each followed by its punctuation mark.
    ///
    /// # Errors
    /// [`Error::Espeak`] if eSpeak NG fails or takes longer than 2 s and there is no CMUdict.
    pub async fn phonemes(&self, clauses: &[Clause]) -> Result<String, Error> {
        match &self.0 {
            Source::Cmudict { cmudict, espeak: Some(espeak) }
                if !clauses.iter().all(|clause| cmudict.knows(clause)) =>
            {
                espeak.phonemes(clauses).await.or_else(|error| {
                    tracing::warn!(%error, "unknown words are pronounced by spelling rules");
                    Ok(cmudict.phonemes(clauses))
                })
            }
            Source::Cmudict { cmudict, .. } => Ok(cmudict.phonemes(clauses)),
            Source::Espeak(espeak) => espeak.phonemes(clauses).await,
        }
    }
}

// --- eSpeak NG ------------------------------------------------------------------------------------

/// The program `espeak-ng`.
pub struct Espeak {
    program: PathBuf,
    permits: Semaphore,
}

impl Espeak {
    /// The program at this path.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), permits: Semaphore::new(MAX_ESPEAK_PROCESSES) }
    }

    /// The program on the `PATH`, if it is installed.
    pub fn find() -> Option<Self> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("espeak-ng"))
            .find(|program| program.is_file())
            .map(Self::at)
    }

    /// Runs the program once: clauses in as paragraphs, a line of phonemes for each out.
    async fn phonemes(&self, clauses: &[Clause]) -> Result<String, Error> {
        let _permit = self.permits.acquire().await;
        let failed = Error::Espeak;
        let mut child = Command::new(&self.program)
            // `--ipa=1` would separate phonemes by `_`, which is Piper's padding symbol.
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
        // eSpeak split a clause, or had no phonemes for one: the marks inside are lost.
        let mark = clauses.last().map_or('.', |clause| clause.mark);
        Ok(format!("{}{mark}", lines.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_normalizer;

    fn cmudict() -> Cmudict {
        Cmudict::parse("hello HH AH0 L OW1\n".to_owned()).unwrap()
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_unless_there_is_a_dictionary() {
        let clauses = text_normalizer::clauses("Hello, zork.");
        let missing = || Espeak::at("/nowhere/espeak-ng");

        let alone = Phonemizer::with_espeak_only(missing()).phonemes(&clauses).await;
        let beside_cmudict = Phonemizer::with_cmudict(cmudict(), Some(missing())).phonemes(&clauses).await;

        assert!(matches!(alone, Err(Error::Espeak(_))), "{alone:?}");
        assert_eq!(beside_cmudict.unwrap(), "həlˈoʊ, zˈɔːɹk.");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_an_error() {
        // cat rejects the options.
        let cat = Phonemizer::with_espeak_only(Espeak::at("/bin/cat"));

        let result = cat.phonemes(&text_normalizer::clauses("Hello.")).await;

        assert!(matches!(result, Err(Error::Espeak(_))), "{result:?}");
    }

    #[test]
    fn a_dictionary_that_is_not_there_is_named() {
        let error = Cmudict::load(std::path::Path::new("/nowhere/cmudict.dict")).err().unwrap();

        assert!(error.to_string().starts_with("pronouncing dictionary /nowhere/cmudict.dict: "), "{error}");
    }
}
