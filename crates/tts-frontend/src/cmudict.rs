//! The CMU Pronouncing Dictionary: words to phonemes in the process. Inflections that it lacks are derived from
//! their stem; other unknown words are pronounced by spelling rules.

use std::path::Path;

use crate::{Clause, Error};

/// The CMU Pronouncing Dictionary: 135,000 words. It keeps the text of the file (3.6 MB) and an index of its lines.
pub struct Cmudict {
    text: String,
    /// Offsets of the lines, sorted by word.
    lines: Vec<u32>,
}

impl Cmudict {
    /// Reads `cmudict.dict`.
    ///
    /// # Errors
    /// [`Error::Cmudict`] if the file cannot be read or is larger than 4 GiB.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let unusable = |problem: String| Error::Cmudict { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        Self::parse(text).ok_or_else(|| unusable("too large".into()))
    }

    /// Indexes the text of `cmudict.dict`: a line per word, `word PHONE PHONE … # comment`. None if it is larger
    /// than 4 GiB.
    pub fn parse(text: String) -> Option<Self> {
        u32::try_from(text.len()).ok()?;
        let starts = text.match_indices('\n').map(|(at, _)| at as u32 + 1);
        let mut lines: Vec<u32> = std::iter::once(0).chain(starts).collect();
        lines.retain(|&at| !word_at(&text, at).is_empty());
        lines.sort_unstable_by_key(|&at| word_at(&text, at));
        Some(Self { text, lines })
    }

    /// The ARPAbet phones of a lower-case word.
    fn phones(&self, word: &str) -> Option<&str> {
        let found = self.lines.binary_search_by_key(&word, |&at| word_at(&self.text, at)).ok()?;
        let line = self.text[self.lines[found] as usize..].lines().next()?;
        let (_, phones) = line.split_once(' ')?;
        Some(phones.split('#').next().unwrap_or(phones).trim())
    }

    /// Whether the dictionary has every word of the clause, or its stem.
    pub(crate) fn knows(&self, clause: &Clause) -> bool {
        clause.words.split(' ').all(|written| {
            let word = written.to_lowercase();
            let word = word.trim_matches('\'');
            self.phones(word).is_some() || weak_form(word).is_some() || self.inflected(word).is_some()
        })
    }

    pub(crate) fn phonemes(&self, clauses: &[Clause]) -> String {
        clauses.iter().map(|clause| self.clause(clause)).collect::<Vec<_>>().join(" ")
    }

    fn clause(&self, clause: &Clause) -> String {
        let words: Vec<String> = clause.words.split(' ').map(|word| self.word(word)).collect();
        format!("{}{}", words.join(" "), clause.mark)
    }

    fn word(&self, written: &str) -> String {
        let word = written.to_lowercase();
        let word = word.trim_matches('\'');
        if let Some(weak) = weak_form(word) {
            return weak.to_owned();
        }
        let spelled_out = written.len() > 1 && written.chars().all(char::is_uppercase);
        if let Some(phones) = self.phones(word) {
            return ipa(phones);
        }
        if spelled_out {
            let letters = written.to_lowercase();
            let names = letters.chars().filter_map(letter_name);
            return names.map(ipa).collect::<Vec<_>>().join(" ");
        }
        self.inflected(word).unwrap_or_else(|| ipa(&spelling(word)))
    }

    /// A known word with an ending: `wearable's`, `gateways`, `rebooted`.
    fn inflected(&self, word: &str) -> Option<String> {
        for (ending, sound) in [
            ("'s", "Z"),
            ("s", "Z"),
            ("ed", "D"),
            ("d", "D"),
            ("ing", "IH0 NG"),
            ("ly", "L IY0"),
            ("less", "L AH0 S"),
            ("ness", "N AH0 S"),
        ] {
            let Some(stem) = word.strip_suffix(ending) else {
                continue;
            };
            let Some(phones) = self.phones(stem) else { continue };
            let last = phones.rsplit(' ').next().unwrap_or("");
            let sound = match (sound, last) {
                ("Z", "P" | "T" | "K" | "F" | "TH") => "S",
                ("Z", "S" | "Z" | "SH" | "ZH" | "CH" | "JH") => "IH0 Z",
                ("D", "T" | "D") => "IH0 D",
                ("D", "P" | "K" | "F" | "TH" | "S" | "SH" | "CH") => "T",
                (sound, _) => sound,
            };
            return Some(ipa(&format!("{phones} {sound}")));
        }
        None
    }
}

fn word_at(text: &str, at: u32) -> &str {
    let line = &text[at as usize..];
    line.split([' ', '\n']).next().unwrap_or("")
}

/// Function words without stress, as eSpeak transcribes them.
fn weak_form(word: &str) -> Option<&'static str> {
    Some(match word {
        "a" => "ɐ",
        "an" => "ɐn",
        "the" => "ðə",
        "and" => "ænd",
        "or" => "ɔːɹ",
        "of" => "ʌv",
        "to" => "tə",
        "in" => "ɪn",
        "is" => "ɪz",
        "was" => "wʌz",
        "for" => "fɔːɹ",
        "at" => "æt",
        "as" => "æz",
        "are" => "ɑːɹ",
        "be" => "biː",
        "it" => "ɪt",
        "i" => "aɪ",
        "you" => "juː",
        "he" => "hiː",
        "she" => "ʃiː",
        "we" => "wiː",
        "they" => "ðeɪ",
        "my" => "maɪ",
        "your" => "jʊɹ",
        "his" => "hɪz",
        "her" => "hɜː",
        "from" => "fɹʌm",
        "with" => "wɪð",
        "that" => "ðæt",
        "if" => "ɪf",
        "can" => "kæn",
        "have" => "hæv",
        "has" => "hɐz",
        "had" => "hɐd",
        _ => return None,
    })
}

/// ARPAbet with stress digits to IPA with a stress mark before the vowel.
fn ipa(phones: &str) -> String {
    let phones: Vec<&str> = phones.split_whitespace().collect();
    let syllables = phones.iter().filter(|phone| phone.ends_with(|end: char| end.is_ascii_digit())).count();
    let mut phonemes = String::new();
    for (at, phone) in phones.iter().enumerate() {
        let (phone, stress) = match phone.strip_suffix(|end: char| end.is_ascii_digit()) {
            Some(vowel) if phone.ends_with('1') || (phone.ends_with('2') && syllables == 1) => {
                (vowel, Some('ˈ'))
            }
            Some(vowel) if phone.ends_with('2') => (vowel, Some('ˌ')),
            Some(vowel) => (vowel, None),
            None => (*phone, None),
        };
        phonemes.extend(stress);
        let before_r = phones.get(at + 1) == Some(&"R");
        phonemes.push_str(match (phone, stress) {
            ("AA", _) => "ɑː",
            ("AE", _) => "æ",
            ("AH", None) => "ə",
            ("AH", Some(_)) => "ʌ",
            ("AO", _) => "ɔː",
            ("AW", _) => "aʊ",
            ("AY", _) => "aɪ",
            ("B", _) => "b",
            ("CH", _) => "tʃ",
            ("D", _) => "d",
            ("DH", _) => "ð",
            ("EH", _) => "ɛ",
            ("ER", None) => "ɚ",
            ("ER", Some(_)) => "ɜː",
            ("EY", _) => "eɪ",
            ("F", _) => "f",
            ("G", _) => "ɡ",
            ("HH", _) => "h",
            ("IH", _) => "ɪ",
            ("IY", None) => "i",
            ("IY", Some(_)) if before_r => "ɪ",
            ("IY", Some(_)) => "iː",
            ("JH", _) => "dʒ",
            ("K", _) => "k",
            ("L", _) => "l",
            ("M", _) => "m",
            ("N", _) => "n",
            ("NG", _) => "ŋ",
            ("OW", _) => "oʊ",
            ("OY", _) => "ɔɪ",
            ("P", _) => "p",
            ("R", _) => "ɹ",
            ("S", _) => "s",
            ("SH", _) => "ʃ",
            ("T", _) => "t",
            ("TH", _) => "θ",
            ("UH", _) => "ʊ",
            ("UW", _) => "uː",
            ("V", _) => "v",
            ("W", _) => "w",
            ("Y", _) => "j",
            ("Z", _) => "z",
            ("ZH", _) => "ʒ",
            _ => "",
        });
    }
    phonemes
}

fn letter_name(letter: char) -> Option<&'static str> {
    Some(match letter {
        'a' => "EY1",
        'b' => "B IY1",
        'c' => "S IY1",
        'd' => "D IY1",
        'e' => "IY1",
        'f' => "EH1 F",
        'g' => "JH IY1",
        'h' => "EY1 CH",
        'i' => "AY1",
        'j' => "JH EY1",
        'k' => "K EY1",
        'l' => "EH1 L",
        'm' => "EH1 M",
        'n' => "EH1 N",
        'o' => "OW1",
        'p' => "P IY1",
        'q' => "K Y UW1",
        'r' => "AA1 R",
        's' => "EH1 S",
        't' => "T IY1",
        'u' => "Y UW1",
        'v' => "V IY1",
        'w' => "D AH1 B AH0 L Y UW0",
        'x' => "EH1 K S",
        'y' => "W AY1",
        'z' => "Z IY1",
        _ => return None,
    })
}

/// Spellings and their usual pronunciation in ARPAbet, the longest first. Stress is added afterwards.
const SPELLINGS: &[(&str, &str)] = &[
    ("tion", "SH AH N"),
    ("sion", "ZH AH N"),
    ("ture", "CH ER"),
    ("ough", "OW"),
    ("eigh", "EY"),
    ("igh", "AY"),
    ("tch", "CH"),
    ("dge", "JH"),
    ("sch", "SH"),
    ("que", "K"),
    ("eau", "OW"),
    ("air", "EH R"),
    ("ear", "IH R"),
    ("our", "AO R"),
    ("oor", "AO R"),
    ("ing", "IH NG"),
    ("all", "AO L"),
    ("ch", "CH"),
    ("sh", "SH"),
    ("th", "TH"),
    ("ph", "F"),
    ("wh", "W"),
    ("ck", "K"),
    ("ng", "NG"),
    ("qu", "K W"),
    ("kn", "N"),
    ("wr", "R"),
    ("gh", "G"),
    ("ee", "IY"),
    ("ea", "IY"),
    ("oo", "UW"),
    ("ou", "AW"),
    ("ow", "OW"),
    ("ai", "EY"),
    ("ay", "EY"),
    ("ey", "IY"),
    ("ei", "EY"),
    ("ie", "IY"),
    ("oa", "OW"),
    ("oi", "OY"),
    ("oy", "OY"),
    ("au", "AO"),
    ("aw", "AO"),
    ("ue", "UW"),
    ("ew", "UW"),
    ("ar", "AA R"),
    ("er", "ER"),
    ("ir", "ER"),
    ("ur", "ER"),
    ("or", "AO R"),
    ("ce", "S"),
    ("ci", "S IH"),
    ("cy", "S IY"),
    ("ge", "JH"),
    ("gi", "JH IH"),
    ("a", "AE"),
    ("b", "B"),
    ("c", "K"),
    ("d", "D"),
    ("e", "EH"),
    ("f", "F"),
    ("g", "G"),
    ("h", "HH"),
    ("i", "IH"),
    ("j", "JH"),
    ("k", "K"),
    ("l", "L"),
    ("m", "M"),
    ("n", "N"),
    ("o", "AA"),
    ("p", "P"),
    ("r", "R"),
    ("s", "S"),
    ("t", "T"),
    ("u", "AH"),
    ("v", "V"),
    ("w", "W"),
    ("x", "K S"),
    ("y", "IY"),
    ("z", "Z"),
];

/// The pronunciation of an unknown word by its letters, in ARPAbet, with the stress on the first vowel.
fn spelling(word: &str) -> String {
    let letters: String = word.chars().map(plain_letter).filter(char::is_ascii_lowercase).collect();
    let mut phones: Vec<String> = Vec::new();
    let mut rest = letters.as_str();
    while !rest.is_empty() {
        let bytes = rest.as_bytes();
        // A doubled consonant is pronounced once; a final e is silent and lengthens the vowel before it.
        let doubled = bytes.len() > 1 && bytes[0] == bytes[1] && !b"aeiou".contains(&bytes[0]);
        if doubled {
            rest = &rest[1..];
            continue;
        }
        if rest == "e" && phones.len() > 1 {
            break;
        }
        let magic_e = bytes.len() == 3 && bytes[2] == b'e' && !b"aeiouwxy".contains(&bytes[1]);
        let long = magic_e.then(|| match bytes[0] {
            b'a' => Some("EY"),
            b'e' => Some("IY"),
            b'i' | b'y' => Some("AY"),
            b'o' => Some("OW"),
            b'u' => Some("UW"),
            _ => None,
        });
        let (spelled, sound) = match long.flatten() {
            Some(long) => (&rest[..1], long),
            None => SPELLINGS
                .iter()
                .find(|(spelled, _)| rest.starts_with(spelled))
                .map_or((&rest[..1], ""), |(spelled, sound)| (*spelled, *sound)),
        };
        phones.extend(sound.split_whitespace().map(str::to_owned));
        rest = &rest[spelled.len()..];
    }
    let mut stress = '1';
    for phone in &mut phones {
        if phone.starts_with(['A', 'E', 'I', 'O', 'U']) {
            phone.push(stress);
            stress = '0';
        }
    }
    phones.join(" ")
}

/// A letter without its accent, for the accents of loan words.
fn plain_letter(letter: char) -> char {
    match letter {
        'à'..='å' => 'a',
        'ç' => 'c',
        'è'..='ë' => 'e',
        'ì'..='ï' => 'i',
        'ñ' => 'n',
        'ò'..='ö' | 'ø' => 'o',
        'ù'..='ü' => 'u',
        'ý' | 'ÿ' => 'y',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text_normalizer;

    fn cmudict() -> Cmudict {
        let lines = "hello HH AH0 L OW1\nhello(2) HH EH0 L OW1\nworld W ER1 L D # a comment\ngate G EY1 T\ntest T EH1 S T\n";
        Cmudict::parse(lines.to_owned()).unwrap()
    }

    fn phonemes(text: &str) -> String {
        cmudict().phonemes(&text_normalizer::clauses(text))
    }

    #[test]
    fn known_words_are_transcribed_as_espeak_transcribes_them() {
        assert_eq!(phonemes("Hello, world!"), "həlˈoʊ, wˈɜːld!");
    }

    #[test]
    fn endings_agree_with_the_sound_before_them() {
        assert_eq!(phonemes("gates tested worlds world's"), "ɡˈeɪts tˈɛstɪd wˈɜːldz wˈɜːldz.");
    }

    #[test]
    fn unknown_words_are_pronounced_by_their_letters_and_capitals_one_by_one() {
        assert_eq!(phonemes("zork"), "zˈɔːɹk.");
        assert_eq!(phonemes("plake"), "plˈeɪk.");
        assert_eq!(phonemes("TTS"), "tˈiː tˈiː ˈɛs.");
    }

    proptest! {
        #[test]
        fn any_letters_can_be_pronounced(word in "[a-zà-ÿ']{1,20}") {
            let phones = spelling(&word);

            prop_assert!(!ipa(&phones).contains(|mark: char| mark.is_ascii_digit() || mark.is_ascii_uppercase()));
        }
    }
}
