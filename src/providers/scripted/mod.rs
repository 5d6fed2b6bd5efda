//! Scripted providers, for tests, demos and drills: what they hear, say and speak is made up, and so are their latency
//! and their [faults](fault). The same input gives the same output.
//!
//! `scripted` has the latency and the faults of the settings; `scripted-spare` has the latency alone, to take over. Both
//! are used only where a list names them.

pub(crate) mod fault;
pub(super) mod llm;
pub(super) mod stt;
pub(super) mod tts;

use std::time::Duration;

use fault::{At, FaultKind};

/// What an operator is told of a role that lists one.
pub(crate) const NOTICE: &str = "scripted providers are no real ones: they are for tests, demos and drills";

const NAME: &str = "scripted";
const SPARE: &str = "scripted-spare";

/// Whether this is the name of a scripted provider.
pub(crate) fn is_scripted(name: &str) -> bool {
    [NAME, SPARE].contains(&name)
}

/// What the scripted providers do.
#[derive(Clone, Debug)]
pub struct ScriptedConfig {
    /// From a request, or the end of an utterance, to the first result.
    pub latency: Duration,
    /// What the LLM answers.
    pub answer: String,
    /// What happens to the calls of each role, in turns.
    pub(crate) stt: Vec<PlannedFault>,
    pub(crate) llm: Vec<PlannedFault>,
    pub(crate) tts: Vec<PlannedFault>,
}

impl Default for ScriptedConfig {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(100),
            answer: "This answer is scripted. No language model was asked.".into(),
            stt: Vec::new(),
            llm: Vec::new(),
            tts: Vec::new(),
        }
    }
}

/// A fault as a setting has it: `none`, or a kind and after how much of the result it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedFault(Option<(FaultKind, usize)>);

impl PlannedFault {
    /// `late` is how late a result is that comes too late.
    fn at(self, late: Duration) -> Option<At> {
        self.0.map(|(kind, after)| kind.after(after, late))
    }
}

impl std::str::FromStr for PlannedFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let (kind, after) = text.split_once('@').unwrap_or((text, "0"));
        let kind = FaultKind::ALL.into_iter().find(|known| known.name() == kind).ok_or_else(|| {
            let names: Vec<_> = FaultKind::ALL.into_iter().map(FaultKind::name).collect();
            format!("\"{text}\" is none of none, {}", names.join(", "))
        })?;
        let after = after.parse().map_err(|_| format!("\"{text}\" has no number after the @"))?;
        Ok(Self(Some((kind, after))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_kind_and_a_place() {
        let planned = |text: &str| text.parse::<PlannedFault>();

        assert_eq!(planned("none"), Ok(PlannedFault(None)));
        assert_eq!(planned("429"), Ok(PlannedFault(Some((FaultKind::Http429, 0)))));
        assert_eq!(planned("cut@12"), Ok(PlannedFault(Some((FaultKind::Cut, 12)))));
        assert!(planned("explode").unwrap_err().contains("none of none, latency, 429"));
        assert!(planned("cut@soon").is_err());
    }
}
