//! Parses the parts of a remote description that str0m does not expose: the track of each media section and the Opus
//! parameters that the peer requests.

use crate::rtp_transceiver::RtpTransceiverDirection as Direction;

/// Kind of a media section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SectionKind {
    Audio,
    Video,
    /// Data channels.
    Application,
    Other,
}

/// A media section (RFC 8866 §5.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub kind: SectionKind,
    pub mid: String,
    /// From the peer's point of view.
    pub direction: Direction,
    /// `a=msid`: ids of stream and track, in order.
    pub msids: Vec<(String, Option<String>)>,
    /// `a=ssrc`, without duplicates.
    pub ssrcs: Vec<u32>,
    /// `a=fmtp` of Opus.
    pub opus: OpusParameters,
    /// `a=candidate`, starting with `candidate:`.
    pub candidates: Vec<String>,
}

/// Opus parameters that a receiver requests of the sender (RFC 7587 §6.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpusParameters {
    /// `usedtx`
    pub dtx: bool,
    /// `useinbandfec`
    pub fec: bool,
    /// `stereo`
    pub stereo: bool,
    /// `maxaveragebitrate`, in bits per second.
    pub max_bitrate: Option<u32>,
    /// Whether the section has the codec RED (RFC 2198), so that packets are sent as RED. A peer that prefers RED to
    /// Opus accepts nothing else; one that prefers Opus accepts both.
    pub red: bool,
}

/// Parses the media sections of `sdp`, in order. Unknown lines are ignored.
pub(crate) fn sections(sdp: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    // A direction at session level is the default of the sections (RFC 8866 §6.7).
    let mut session_direction = Direction::SendRecv;
    let mut opus_type = None;
    for line in sdp.lines().map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            opus_type = None;
            sections.push(Section {
                kind: kind(media),
                mid: String::new(),
                direction: session_direction,
                msids: Vec::new(),
                ssrcs: Vec::new(),
                opus: OpusParameters::default(),
                candidates: Vec::new(),
            });
            continue;
        }
        let Some(attribute) = line.strip_prefix("a=") else {
            continue;
        };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match (sections.last_mut(), direction(name)) {
            (Some(section), Some(direction)) => section.direction = direction,
            (None, Some(direction)) => session_direction = direction,
            (Some(section), None) => read_attribute(section, &mut opus_type, name, value),
            (None, None) => {}
        }
    }
    sections
}

/// Removes `a=rtcp-fb:… nack` from the sections of a local description that send. str0m retransmits by RTX only, which
/// LiveKit supports for video only.
pub(crate) fn strip_nack_where_sending(sdp: &str) -> String {
    const END: &str = "\r\n";
    let is_nack = |line: &&str| line.starts_with("a=rtcp-fb:") && line.ends_with(" nack");
    let sections = sdp.split("\r\nm=").map(|section| {
        let sends = section.split(END).any(|line| matches!(line, "a=sendonly" | "a=sendrecv"));
        let lines = section.split(END).filter(|line| !(sends && is_nack(line)));
        lines.collect::<Vec<_>>().join(END)
    });
    sections.collect::<Vec<_>>().join("\r\nm=")
}

fn read_attribute<'a>(section: &mut Section, opus_type: &mut Option<&'a str>, name: &str, value: &'a str) {
    match name {
        "mid" => section.mid = value.to_owned(),
        "candidate" => section.candidates.push(format!("candidate:{value}")),
        "msid" => {
            let mut ids = value.split_whitespace();
            // `-` means no stream (RFC 8830 §3).
            if let Some(stream) = ids.next().filter(|stream| *stream != "-") {
                section.msids.push((stream.to_owned(), ids.next().map(str::to_owned)));
            }
        }
        "ssrc" => {
            let ssrc = value.split_whitespace().next().and_then(|ssrc| ssrc.parse().ok());
            if let Some(ssrc) = ssrc.filter(|ssrc| !section.ssrcs.contains(ssrc)) {
                section.ssrcs.push(ssrc);
            }
        }
        "rtpmap" => {
            let Some((payload_type, codec)) = value.split_once(' ') else {
                return;
            };
            match codec.split('/').next() {
                Some(name) if name.eq_ignore_ascii_case("opus") => *opus_type = Some(payload_type),
                Some(name) if name.eq_ignore_ascii_case("red") => section.opus.red = true,
                _ => {}
            }
        }
        "fmtp" => {
            if let Some((payload_type, parameters)) = value.split_once(' ')
                && Some(payload_type) == *opus_type
            {
                section.opus = OpusParameters { red: section.opus.red, ..opus(parameters) };
            }
        }
        _ => {}
    }
}

fn kind(media: &str) -> SectionKind {
    match media.split_whitespace().next() {
        Some("audio") => SectionKind::Audio,
        Some("video") => SectionKind::Video,
        Some("application") => SectionKind::Application,
        _ => SectionKind::Other,
    }
}

fn direction(attribute: &str) -> Option<Direction> {
    match attribute {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

fn opus(parameters: &str) -> OpusParameters {
    let mut opus = OpusParameters::default();
    for parameter in parameters.split(';') {
        let Some((name, value)) = parameter.trim().split_once('=') else {
            continue;
        };
        match name.trim() {
            "usedtx" => opus.dtx = value.trim() == "1",
            "useinbandfec" => opus.fec = value.trim() == "1",
            "stereo" => opus.stereo = value.trim() == "1",
            "maxaveragebitrate" => opus.max_bitrate = value.trim().parse().ok(),
            _ => {}
        }
    }
    opus
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1 2\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=mid:1\r\na=sendonly\r\n\
        a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1;usedtx=1;maxaveragebitrate=24000\r\n\
        a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n\
        a=ssrc:1234 cname:PA_1|TR_1\r\na=ssrc:1234 msid:PA_1|TR_1 TR_1\r\na=msid:PA_1|TR_1 TR_1\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:2\r\na=inactive\r\na=msid:- x\r\n";

    #[test]
    fn each_section_has_its_kind_mid_direction_and_track() {
        let sections = sections(ANSWER);

        let heads: Vec<_> = sections.iter().map(|s| (s.kind, s.mid.as_str(), s.direction)).collect();
        assert_eq!(
            heads,
            [
                (SectionKind::Application, "0", Direction::SendRecv),
                (SectionKind::Audio, "1", Direction::SendOnly),
                (SectionKind::Video, "2", Direction::Inactive),
            ]
        );
        assert_eq!(sections[1].msids, [("PA_1|TR_1".to_owned(), Some("TR_1".to_owned()))]);
        assert_eq!(sections[1].ssrcs, [1234]);
        assert_eq!(sections[2].msids, []);
    }

    #[test]
    fn opus_parameters_are_parsed_from_the_fmtp_of_opus_and_not_of_red() {
        let requested =
            OpusParameters { dtx: true, fec: true, stereo: false, max_bitrate: Some(24_000), red: true };

        assert_eq!(sections(ANSWER)[1].opus, requested);
    }

    #[test]
    fn nack_is_removed_only_from_sections_that_send() {
        let section = |direction: &str, feedback: &str| {
            format!("\r\nm=audio 9 x 111\r\na={direction}\r\na=rtcp-fb:111 transport-cc{feedback}\r\na=mid:1")
        };
        let nack = "\r\na=rtcp-fb:111 nack";
        let offer = ["sendrecv", "sendonly", "recvonly", "inactive"].map(|d| section(d, nack)).concat();
        let expected = [("sendrecv", ""), ("sendonly", ""), ("recvonly", nack), ("inactive", nack)];
        let expected = expected.map(|(direction, feedback)| section(direction, feedback)).concat();

        assert_eq!(strip_nack_where_sending(&format!("v=0{offer}\r\n")), format!("v=0{expected}\r\n"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "(m=audio .{0,10}\r\n|a=[a-z]{0,9}:?.{0,20}\r\n|.{0,20}\n){0,20}") {
            sections(&text);
            strip_nack_where_sending(&text);
        }
    }
}
