//! Rewrites English text as it is read aloud: numbers, times, amounts of money, units and abbreviations become
//! words, marks that are not pronounced are removed, and the rest is cut into clauses.
//!
//! ```text
//!   "It's 21.5 °C at 10:05, i.e. warm."  ─▶  it's twenty one point five degrees celsius at ten oh five, that is warm.
//! ```

/// Words up to the next punctuation mark, and that mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// Words separated by single spaces: letters and apostrophes, no digits.
    pub words: String,
    /// One of `, . ; : ! ?`.
    pub mark: char,
}

/// The clauses of a text, in order. Empty if the text has no words.
pub fn clauses(text: &str) -> Vec<Clause> {
    let mut clauses = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let plain = without_markup(text);
    let tokens: Vec<&str> = plain.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        let (reading, used, mark) = read_token(token, after);
        rest = &after[used..];
        words.extend(reading.split_whitespace().map(str::to_owned));
        if let Some(mark) = mark {
            end_clause(&mut words, mark, &mut clauses);
        }
    }
    end_clause(&mut words, '.', &mut clauses);
    clauses
}

fn end_clause(words: &mut Vec<String>, mark: char, clauses: &mut Vec<Clause>) {
    if !words.is_empty() {
        clauses.push(Clause { words: words.join(" "), mark });
        words.clear();
    }
}

/// Removes Markdown, brackets and quotation marks.
fn without_markup(text: &str) -> String {
    text.chars()
        .map(|mark| match mark {
            '’' | '‘' => '\'',
            '—' | '–' | '…' => ',',
            '*' | '_' | '`' | '#' | '"' | '“' | '”' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '|' => {
                ' '
            }
            other => other,
        })
        .collect::<String>()
        // A dash between spaces became " ,": attach the comma to the word before.
        .replace(" ,", ", ")
}

/// The words of a token, how many of the following tokens belong to it, and the mark that ends it.
fn read_token(token: &str, after: &[&str]) -> (String, usize, Option<char>) {
    if let Some(words) = abbreviation(token, after) {
        return (words.to_owned(), 0, None);
    }
    let body = token.trim_end_matches([',', '.', ';', ':', '!', '?']);
    let mark = token[body.len()..].chars().next();
    let body = body.trim_start_matches(['\'', ',']);

    if mark.is_none()
        && let Some((next, words)) = after.first().and_then(|next| Some((*next, number(body)?)))
    {
        let unit_body = next.trim_end_matches([',', '.', ';', ':', '!', '?']);
        let unit_mark = next[unit_body.len()..].chars().next();
        if let Some(unit) = unit(unit_body, body) {
            return (format!("{words} {unit}"), 1, unit_mark);
        }
        if let Some(half) = half_of_day(next) {
            return (format!("{words} {half}"), 1, ends_sentence(next, &after[1..]));
        }
    }
    if let Some((time, half)) = time(body, after) {
        return match half {
            Some(half) => (format!("{time} {half}"), 1, ends_sentence(after[0], &after[1..])),
            None => (time, 0, mark),
        };
    }
    (word(body), 0, mark)
}

/// The mark after `p.m.`: its full stop ends the sentence only if the next word begins one.
fn ends_sentence(token: &str, after: &[&str]) -> Option<char> {
    let mark = token.chars().last().filter(|mark| ",;:!?".contains(*mark));
    let next_begins = after.first().is_some_and(|next| next.starts_with(char::is_uppercase));
    mark.or((token.ends_with('.') && next_begins).then_some('.'))
}

/// Abbreviations whose full stop does not end a sentence.
fn abbreviation(token: &str, after: &[&str]) -> Option<&'static str> {
    let before_name = after.first().is_some_and(|next| next.starts_with(char::is_uppercase));
    Some(match token.trim_end_matches(',').to_lowercase().as_str() {
        "mr." | "mr" => "mister",
        "mrs." | "mrs" => "missus",
        "ms." => "miss",
        "dr." if before_name => "doctor",
        "prof." => "professor",
        "st." if before_name => "saint",
        "vs." | "vs" => "versus",
        "e.g." => "for example",
        "i.e." => "that is",
        "etc." if after.is_empty() => return None,
        "etc." => "et cetera",
        "approx." => "about",
        "no." if after.first().is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit())) => "number",
        _ => return None,
    })
}

/// The words of one token without its final mark.
fn word(body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    if let Some(words) = symbol(body).or_else(|| number(body)).or_else(|| measure(body)) {
        return words;
    }
    // `and/or`, `well-known`, `user@example.org`, `2x` are read piece by piece.
    let mut words = String::new();
    let mut piece = String::new();
    let flush = |piece: &mut String, words: &mut String| {
        if !piece.is_empty() {
            words.push(' ');
            words.push_str(&plain_word(piece));
            piece.clear();
        }
    };
    for mark in body.chars() {
        let changes_kind =
            piece.chars().last().is_some_and(|last| last.is_ascii_digit() != mark.is_ascii_digit());
        if changes_kind {
            flush(&mut piece, &mut words);
        }
        match mark {
            letter if letter.is_alphanumeric() || letter == '\'' => piece.push(letter),
            other => {
                flush(&mut piece, &mut words);
                if let Some(name) = symbol(other.encode_utf8(&mut [0; 4])) {
                    words.push(' ');
                    words.push_str(&name);
                } else if other == '.' {
                    words.push_str(" dot");
                }
            }
        }
    }
    flush(&mut piece, &mut words);
    words.trim().to_owned()
}

/// Letters, or a run of digits. Capitals stay as they are: the phonemizer decides whether they are spelled out.
fn plain_word(piece: &str) -> String {
    number(piece).unwrap_or_else(|| match piece {
        "etc" => "et cetera".to_owned(),
        other => other.to_owned(),
    })
}

fn symbol(text: &str) -> Option<String> {
    let name = match text {
        "&" => "and",
        "+" => "plus",
        "=" => "equals",
        "%" => "percent",
        "@" => "at",
        "×" => "times",
        "÷" => "divided by",
        "°" => "degrees",
        "°C" => "degrees celsius",
        "°F" => "degrees fahrenheit",
        _ => return None,
    };
    Some(name.to_owned())
}

// --- Numbers --------------------------------------------------------------------------------------

/// Reads a number in digits: `1,234`, `-3.5`, `21st`, `1995`, `5%`, `$4.20`, `#1`.
fn number(text: &str) -> Option<String> {
    if let Some(amount) = text.strip_prefix('$') {
        return money(amount, "dollar", "cent");
    }
    if let Some(amount) = text.strip_prefix('€') {
        return money(amount, "euro", "cent");
    }
    if let Some(amount) = text.strip_prefix('£') {
        return money(amount, "pound", "penny");
    }
    if let Some(share) = text.strip_suffix('%') {
        return Some(format!("{} percent", number(share)?));
    }
    if let Some(positive) = text.strip_prefix(['-', '−']) {
        return Some(format!("minus {}", number(positive)?));
    }
    if let Some(digits) = ["st", "nd", "rd", "th"].iter().find_map(|suffix| text.strip_suffix(suffix)) {
        return Some(ordinal(whole(digits)?));
    }
    if let Some((whole_part, fraction)) = text.split_once('.') {
        let all_digits = !fraction.is_empty() && fraction.bytes().all(|digit| digit.is_ascii_digit());
        let whole_part = if whole_part.is_empty() { 0 } else { whole(whole_part)? };
        return all_digits.then(|| format!("{} point {}", cardinal(whole_part), one_by_one(fraction)));
    }
    let is_code = text.len() > 15 || (text.len() > 1 && text.starts_with('0'));
    if is_code && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Some(one_by_one(text));
    }
    let value = whole(text)?;
    Some(match value {
        1100..2000 | 2010..2100 if text.len() == 4 => year(value),
        _ => cardinal(value),
    })
}

/// Parses digits, with or without commas between groups of three.
fn whole(text: &str) -> Option<u64> {
    let mut groups = text.split(',');
    let first = groups.next()?;
    let grouped = text.contains(',');
    let well_formed = (!grouped || first.len() <= 3) && groups.all(|group| group.len() == 3);
    let digits: String = text.split(',').collect();
    let usable =
        well_formed && (1..=15).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    if usable { digits.parse().ok() } else { None }
}

fn money(amount: &str, major: &str, minor: &str) -> Option<String> {
    let (whole_part, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let units = whole(whole_part)?;
    let named = |count: u64, name: &str| match (count, name) {
        (1, _) => format!("one {name}"),
        (_, "penny") => format!("{} pence", cardinal(count)),
        _ => format!("{} {name}s", cardinal(count)),
    };
    match fraction {
        "" | "00" => Some(named(units, major)),
        cents if cents.len() == 2 => Some(format!("{} {}", named(units, major), named(whole(cents)?, minor))),
        _ => Some(format!("{} {major}s", number(amount)?)),
    }
}

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] =
    ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const SCALES: [(u64, &str); 5] = [
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1_000, "thousand"),
    (100, "hundred"),
];

fn cardinal(value: u64) -> String {
    let joined = |head: String, rest: u64| match rest {
        0 => head,
        _ => format!("{head} {}", cardinal(rest)),
    };
    match value {
        0..20 => SMALL[value as usize].to_owned(),
        20..100 => joined(TENS[value as usize / 10].to_owned(), value % 10),
        _ => {
            let (scale, name) =
                SCALES.into_iter().find(|(scale, _)| value >= *scale).unwrap_or((100, "hundred"));
            joined(format!("{} {name}", cardinal(value / scale)), value % scale)
        }
    }
}

fn ordinal(value: u64) -> String {
    let words = cardinal(value);
    let (head, last) = words.rsplit_once(' ').map_or(("", words.as_str()), |(head, last)| (head, last));
    let last = match last {
        "one" => "first".to_owned(),
        "two" => "second".to_owned(),
        "three" => "third".to_owned(),
        "five" => "fifth".to_owned(),
        "eight" => "eighth".to_owned(),
        "nine" => "ninth".to_owned(),
        "twelve" => "twelfth".to_owned(),
        tens if tens.ends_with('y') => format!("{}ieth", &tens[..tens.len() - 1]),
        other => format!("{other}th"),
    };
    format!("{head} {last}").trim().to_owned()
}

fn year(value: u64) -> String {
    let century = cardinal(value / 100);
    match value % 100 {
        0 => format!("{century} hundred"),
        rest @ 1..10 => format!("{century} oh {}", cardinal(rest)),
        rest => format!("{century} {}", cardinal(rest)),
    }
}

fn one_by_one(digits: &str) -> String {
    let names: Vec<&str> = digits.bytes().map(|digit| SMALL[usize::from(digit - b'0')]).collect();
    names.join(" ")
}

// --- Times and units ------------------------------------------------------------------------------

/// Reads `10:05`, and `a.m.` or `p.m.` where that is the next token.
fn time(body: &str, after: &[&str]) -> Option<(String, Option<&'static str>)> {
    let (hour, minute) = body.split_once(':')?;
    let (hour, minutes) = (whole(hour)?, whole(minute)?);
    if hour > 24 || minutes > 59 || minute.len() != 2 {
        return None;
    }
    let half = after.first().and_then(|next| half_of_day(next));
    let words = match minutes {
        0 if half.is_some() => cardinal(hour),
        0 if hour <= 12 => format!("{} o'clock", cardinal(hour)),
        0 => format!("{} hundred", cardinal(hour)),
        1..10 => format!("{} oh {}", cardinal(hour), cardinal(minutes)),
        _ => format!("{} {}", cardinal(hour), cardinal(minutes)),
    };
    Some((words, half))
}

fn half_of_day(token: &str) -> Option<&'static str> {
    match token.trim_end_matches([',', ';', ':', '!', '?', '.']).to_lowercase().as_str() {
        "am" | "a.m" => Some("ay em"),
        "pm" | "p.m" => Some("pee em"),
        _ => None,
    }
}

/// Reads a number with its unit in one token: `5km`, `21°C`, `3pm`.
fn measure(text: &str) -> Option<String> {
    let digits = text.find(|mark: char| !(mark.is_ascii_digit() || mark == '.' || mark == ','))?;
    let (amount, rest) = text.split_at(digits);
    let words = number(amount)?;
    let unit = half_of_day(rest).or_else(|| unit(rest, amount))?;
    Some(format!("{words} {unit}"))
}

fn unit(text: &str, amount: &str) -> Option<&'static str> {
    let one = amount == "1";
    Some(match (text, one) {
        ("km", true) => "kilometer",
        ("km", false) => "kilometers",
        ("m", true) => "meter",
        ("m", false) => "meters",
        ("cm", true) => "centimeter",
        ("cm", false) => "centimeters",
        ("mm", true) => "millimeter",
        ("mm", false) => "millimeters",
        ("mi", true) => "mile",
        ("mi", false) => "miles",
        ("ft", true) => "foot",
        ("ft", false) => "feet",
        ("kg", true) => "kilogram",
        ("kg", false) => "kilograms",
        ("g", true) => "gram",
        ("g", false) => "grams",
        ("lb" | "lbs", true) => "pound",
        ("lb" | "lbs", false) => "pounds",
        ("l" | "L", true) => "liter",
        ("l" | "L", false) => "liters",
        ("ml", _) => "milliliters",
        ("s", true) => "second",
        ("s", false) => "seconds",
        ("ms", _) => "milliseconds",
        ("min", true) => "minute",
        ("min", false) => "minutes",
        ("h" | "hr", true) => "hour",
        ("h" | "hr" | "hrs", false) => "hours",
        ("km/h", _) => "kilometers per hour",
        ("mph", _) => "miles per hour",
        ("m/s", _) => "meters per second",
        ("kB" | "KB", _) => "kilobytes",
        ("MB", _) => "megabytes",
        ("GB", _) => "gigabytes",
        ("Hz", _) => "hertz",
        ("kHz", _) => "kilohertz",
        ("MHz", _) => "megahertz",
        ("GHz", _) => "gigahertz",
        ("W", _) => "watts",
        ("V", _) => "volts",
        ("°", _) => "degrees",
        ("°C", _) => "degrees celsius",
        ("°F", _) => "degrees fahrenheit",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The clauses joined.
    fn normalized(text: &str) -> String {
        let parts: Vec<String> =
            clauses(text).iter().map(|clause| format!("{}{}", clause.words, clause.mark)).collect();
        parts.join(" ")
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        let table = [
            ("0", "zero."),
            ("7 apples", "seven apples."),
            ("42", "forty two."),
            ("1,234", "one thousand two hundred thirty four."),
            ("1000000", "one million."),
            ("-3.5", "minus three point five."),
            ("the 21st and the 30th", "the twenty first and the thirtieth."),
            (
                "in 1995 and 2024, not 2005",
                "in nineteen ninety five and twenty twenty four, not two thousand five.",
            ),
            ("007", "zero zero seven."),
            ("5% of $4.20 is $1", "five percent of four dollars twenty cents is one dollar."),
            ("12 + 30 = 42", "twelve plus thirty equals forty two."),
            (
                "99999999999999999999",
                "nine nine nine nine nine nine nine nine nine nine nine nine nine nine nine nine nine nine nine nine.",
            ),
        ];
        for (written, expected) in table {
            assert_eq!(normalized(written), expected, "{written}");
        }
    }

    #[test]
    fn times_units_and_abbreviations_are_written_in_full() {
        let table = [
            ("At 10:05 or 3:00 p.m. today.", "At ten oh five or three pee em today."),
            ("It is 7 p.m. Go home.", "It is seven pee em. Go home."),
            ("at 9:00.", "at nine o'clock."),
            ("It's 21.5 °C, 5km away.", "It's twenty one point five degrees celsius, five kilometers away."),
            ("1 km or 2 mi.", "one kilometer or two miles."),
            ("Mr. Smith vs. Dr. Jones, e.g. today", "mister Smith versus doctor Jones for example today."),
            ("AT&T, and/or user@example.org", "AT and T, and or user at example dot org."),
        ];
        for (written, expected) in table {
            assert_eq!(normalized(written), expected.replace("Jones for", "Jones, for"), "{written}");
        }
    }

    #[test]
    fn markup_is_not_read_aloud() {
        assert_eq!(normalized("**Bold**, `code` — and “quotes” (here) 🎉!"), "Bold, code, and quotes here!");
        assert_eq!(normalized("Wait… what?"), "Wait, what?");
        assert_eq!(normalized("don’t"), "don't.");
    }

    #[test]
    fn clauses_end_at_marks_and_keep_them() {
        let clauses = clauses("Well, yes. Really?");

        let of = |words: &str, mark| Clause { words: words.to_owned(), mark };
        assert_eq!(clauses, [of("Well", ','), of("yes", '.'), of("Really", '?')]);
    }

    #[test]
    fn text_without_words_has_no_clauses() {
        assert_eq!(clauses(""), []);
        assert_eq!(clauses(" ... !? — 🎉 "), []);
    }

    proptest! {
        #[test]
        fn any_text_becomes_words_without_digits(text in "\\PC{0,80}") {
            for clause in clauses(&text) {
                prop_assert!(!clause.words.is_empty());
                prop_assert!(!clause.words.contains(|mark: char| mark.is_ascii_digit()), "{}", clause.words);
                prop_assert!(",.;:!?".contains(clause.mark));
            }
        }

        #[test]
        fn any_number_is_written_in_words(value in 0u64..1_000_000_000_000_000) {
            let words = cardinal(value);

            prop_assert!(words.chars().all(|mark| mark.is_ascii_lowercase() || mark == ' '));
        }
    }
}
