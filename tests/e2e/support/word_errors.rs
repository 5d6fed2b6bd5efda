//! How wrong a transcript is; the library's own tests count by it too.

/// The words of a text: lower case, no punctuation, numbers and titles as they are spoken.
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

/// How many words must be inserted, deleted or replaced to get from one text to the other.
pub fn word_errors(spoken: &str, understood: &str) -> usize {
    let (spoken, understood) = (words(spoken), words(understood));
    let mut row: Vec<usize> = (0..=understood.len()).collect();
    for (i, wanted) in spoken.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, got) in understood.iter().enumerate() {
            let replaced = diagonal + usize::from(wanted != got);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[understood.len()]
}
