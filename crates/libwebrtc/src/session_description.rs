//! Session descriptions (SDP, RFC 8866) for offer/answer negotiation (RFC 8829).
//!
//! A description is stored as text and parsed by `crate::peer` when it is applied. [`SessionDescription::parse`] checks
//! only its general syntax.

use std::fmt::{self, Debug, Display};
use std::str::FromStr;

use thiserror::Error;

/// Type of a description.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum SdpType {
    /// An offer.
    Offer,
    /// A provisional answer.
    PrAnswer,
    /// A final answer.
    Answer,
    /// Cancels a pending offer.
    Rollback,
}

impl FromStr for SdpType {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "offer" => Ok(Self::Offer),
            "pranswer" => Ok(Self::PrAnswer),
            "answer" => Ok(Self::Answer),
            "rollback" => Ok(Self::Rollback),
            _ => Err("invalid SdpType"),
        }
    }
}

impl Display for SdpType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offer => "offer",
            Self::PrAnswer => "pranswer",
            Self::Answer => "answer",
            Self::Rollback => "rollback",
        })
    }
}

/// Error of parsing a session description or an ICE candidate.
#[derive(Clone, Error, Debug)]
#[error("failed to parse sdp: {line}: {description}")]
pub struct SdpParseError {
    /// The invalid line.
    pub line: String,
    /// Description of the error.
    pub description: String,
}

/// A session description: an SDP text and its type.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionDescription {
    sdp_type: SdpType,
    sdp: String,
}

impl SessionDescription {
    /// Creates a description of the type `sdp_type` from `sdp`.
    ///
    /// # Errors
    /// If a line is not of the form `x=…`, or the text does not start with `v=0` (RFC 8866 §5). The text of a rollback
    /// is not checked.
    pub fn parse(sdp: &str, sdp_type: SdpType) -> Result<Self, SdpParseError> {
        let parsed = Self { sdp_type, sdp: sdp.to_owned() };
        if sdp_type == SdpType::Rollback {
            return Ok(parsed);
        }
        let refuse = |line: &str, description: &str| SdpParseError {
            line: line.to_owned(),
            description: description.to_owned(),
        };
        let mut lines = sdp.lines();
        match lines.next() {
            Some("v=0") => {}
            first => return Err(refuse(first.unwrap_or_default(), "expected v=0")),
        }
        for line in lines.filter(|line| !line.is_empty()) {
            let mut chars = line.chars();
            if !(chars.next().is_some_and(|kind| kind.is_ascii_lowercase()) && chars.next() == Some('=')) {
                return Err(refuse(line, "expected a letter and an equals sign"));
            }
        }
        Ok(parsed)
    }

    /// Type of the description.
    pub fn sdp_type(&self) -> SdpType {
        self.sdp_type
    }

    pub(crate) fn new(sdp_type: SdpType, sdp: String) -> Self {
        Self { sdp_type, sdp }
    }

    pub(crate) fn sdp(&self) -> &str {
        &self.sdp
    }
}

impl Display for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sdp)
    }
}

// Without the text, which contains addresses and certificate fingerprints and must not be logged.
impl Debug for SessionDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionDescription").field("sdp_type", &self.sdp_type).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_keeps_its_text_and_type() {
        let sdp = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

        let description = SessionDescription::parse(sdp, SdpType::Offer).unwrap();

        assert_eq!(description.sdp_type(), SdpType::Offer);
        assert_eq!(description.to_string(), sdp);
    }

    #[test]
    fn invalid_sdp_is_rejected_with_the_invalid_line() {
        for (sdp, line) in [("", ""), ("hello", "hello"), ("v=0\r\nnonsense\r\n", "nonsense")] {
            let error = SessionDescription::parse(sdp, SdpType::Answer).unwrap_err();

            assert_eq!(error.line, line);
        }
    }

    #[test]
    fn every_type_is_parsed_from_its_name() {
        for sdp_type in [SdpType::Offer, SdpType::PrAnswer, SdpType::Answer, SdpType::Rollback] {
            assert_eq!(sdp_type.to_string().parse(), Ok(sdp_type));
        }
        assert!("proposal".parse::<SdpType>().is_err());
    }
}
