//! Finds a vendor's code for a language.

use super::SpokenLanguage;
use crate::language::Language;

/// What Whisper transcribes, and with it most servers that speak OpenAI's protocol (openai/whisper,
/// `whisper/tokenizer.py`).
pub(super) const WHISPER: &[&str] = &[
    "af", "am", "ar", "as", "az", "ba", "be", "bg", "bn", "bo", "br", "bs", "ca", "cs", "cy", "da", "de",
    "el", "en", "es", "et", "eu", "fa", "fi", "fo", "fr", "gl", "gu", "ha", "haw", "he", "hi", "hr", "ht",
    "hu", "hy", "id", "is", "it", "ja", "jw", "ka", "kk", "km", "kn", "ko", "la", "lb", "ln", "lo", "lt",
    "lv", "mg", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "nl", "nn", "no", "oc", "pa", "pl",
    "ps", "pt", "ro", "ru", "sa", "sd", "si", "sk", "sl", "sn", "so", "sq", "sr", "su", "sv", "sw", "ta",
    "te", "tg", "th", "tk", "tl", "tr", "tt", "uk", "ur", "uz", "vi", "yi", "yo", "yue", "zh",
];

/// Other names of languages: what vendors call Norwegian Bokmål and Nynorsk, Filipino, and Javanese.
const ALIASES: [(&str, &str); 4] = [("nb", "no"), ("nn", "no"), ("fil", "tl"), ("jv", "jw")];

/// The code of the language among `codes`: its tag, or the longest beginning of it that is one (RFC 4647 §3.4).
pub(super) fn code(language: &Language, codes: &[&'static str]) -> Option<&'static str> {
    let among = |tag: &str| codes.iter().find(|code| code.eq_ignore_ascii_case(tag)).copied();
    let mut tag = language.as_str();
    loop {
        if let Some(code) = among(tag) {
            return Some(code);
        }
        let Some((shorter, _)) = tag.rsplit_once('-') else { break };
        tag = shorter;
    }
    ALIASES.iter().find(|(alias, _)| *alias == language.primary()).and_then(|(_, name)| among(name))
}

/// Whether a vendor with these codes transcribes the language. One of several hints suffices.
pub(super) fn include(codes: &[&'static str], language: &SpokenLanguage) -> bool {
    match language {
        SpokenLanguage::Auto { hints } => {
            hints.is_empty() || hints.iter().any(|hint| code(hint, codes).is_some())
        }
        SpokenLanguage::Known(language) => code(language, codes).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(tag: &str) -> Language {
        Language::parse(tag).unwrap()
    }

    #[test]
    fn the_most_specific_code_of_a_language_is_found() {
        let codes = ["de", "de-CH", "no", "tl", "zh", "zh-Hant"];
        for (tag, expected) in [
            ("de", Some("de")),
            ("de-CH", Some("de-CH")),
            ("de-AT", Some("de")),
            ("zh-Hant-TW", Some("zh-Hant")),
            ("zh-SG", Some("zh")),
            ("nb-NO", Some("no")),
            ("fil", Some("tl")),
            ("tlh", None),
        ] {
            assert_eq!(code(&language(tag), &codes), expected, "{tag}");
        }
    }

    #[test]
    fn one_of_several_hints_has_to_be_known() {
        let auto =
            |hints: &[&str]| SpokenLanguage::Auto { hints: hints.iter().map(|tag| language(tag)).collect() };

        assert!(include(&["de"], &auto(&[])));
        assert!(include(&["de"], &auto(&["tlh", "de-AT"])));
        assert!(!include(&["de"], &auto(&["tlh"])));
        assert!(!include(&["de"], &SpokenLanguage::Known(language("fr"))));
    }
}
