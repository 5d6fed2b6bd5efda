//! Word errors of transcripts.

/// The words of a text: lower case, no punctuation, numbers and titles spelled out.
pub fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .replace("mr.", "mister")
        .replace('-', " ")
        .replace("10", "ten")
        .replace("metres", "meters")
        .split_whitespace()
        .map(|word| word.chars().filter(|mark| mark.is_alphanumeric()).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect()
}

/// The word errors of a transcript: insertions, deletions and replacements (Levenshtein distance).
pub fn word_errors(spoken: &str, transcript: &str) -> usize {
    let (spoken, transcript) = (words(spoken), words(transcript));
    let mut row: Vec<usize> = (0..=transcript.len()).collect();
    for (i, wanted) in spoken.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, got) in transcript.iter().enumerate() {
            let replaced = diagonal + usize::from(wanted != got);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[transcript.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_errors_count_insertions_deletions_and_replacements() {
        assert_eq!(word_errors("go forward ten meters", "Go forward, 10 meters!"), 0);
        assert_eq!(word_errors("a b c", "a x c d"), 2);
        assert_eq!(word_errors("a b", ""), 2);
    }
}
