//! ICE candidates (RFC 8445) for trickle ICE (RFC 8838).

use std::fmt::{self, Debug, Display};

use crate::session_description::SdpParseError;

/// An ICE candidate: a transport address at which a peer may be reachable.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCandidate {
    sdp_mid: String,
    sdp_mline_index: i32,
    candidate: String,
}

impl IceCandidate {
    /// Creates a candidate from `sdp`, a `candidate` attribute with or without `a=`. It belongs to the media section
    /// `sdp_mid` or, if that is empty, to the one at `sdp_mline_index`.
    ///
    /// Candidates of unsupported kinds (TCP active, mDNS, a second component) are accepted, and ignored when they are
    /// added to a connection, as in browsers. The empty string is the end-of-candidates mark.
    ///
    /// # Errors
    /// If `sdp` is neither empty nor a `candidate` attribute (RFC 8839 §5.1).
    pub fn parse(sdp_mid: &str, sdp_mline_index: i32, sdp: &str) -> Result<IceCandidate, SdpParseError> {
        let candidate = sdp.trim().trim_start_matches("a=");
        if !candidate.is_empty() && !candidate.starts_with("candidate:") {
            return Err(SdpParseError {
                line: sdp.to_owned(),
                description: "expected candidate:".to_owned(),
            });
        }
        Ok(Self { sdp_mid: sdp_mid.to_owned(), sdp_mline_index, candidate: candidate.to_owned() })
    }

    /// Mid of its media section.
    pub fn sdp_mid(&self) -> String {
        self.sdp_mid.clone()
    }

    /// Index of its media section in the description, starting at 0.
    pub fn sdp_mline_index(&self) -> i32 {
        self.sdp_mline_index
    }

    /// The attribute, starting with `candidate:`.
    pub fn candidate(&self) -> String {
        self.candidate.clone()
    }

    pub(crate) fn new(sdp_mid: String, candidate: String) -> Self {
        // All sections are bundled on the transport of the first one.
        Self { sdp_mid, sdp_mline_index: 0, candidate }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.candidate
    }
}

impl Display for IceCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.candidate)
    }
}

impl Debug for IceCandidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCandidate").field("candidate", &self.candidate).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_keeps_its_section_and_its_text() {
        let line = "candidate:1 1 udp 2130706431 192.0.2.1 7882 typ host";

        let candidate = IceCandidate::parse("0", 2, &format!("a={line}")).unwrap();

        assert_eq!((candidate.sdp_mid().as_str(), candidate.sdp_mline_index()), ("0", 2));
        assert_eq!(candidate.candidate(), line);
    }

    #[test]
    fn the_end_of_candidates_mark_is_accepted_and_other_text_is_rejected() {
        assert!(IceCandidate::parse("0", 0, "").is_ok());
        assert!(IceCandidate::parse("0", 0, "nonsense").is_err());
    }
}
