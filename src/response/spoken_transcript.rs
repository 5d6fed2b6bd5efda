//! The sentences of a spoken response, with the position of each among its samples: maps what was played to
//! words.

/// The sentences so far.
#[derive(Debug, Default)]
pub struct SpokenTranscript {
    /// Each with the position that it ends at; the last one may still grow.
    sentences: Vec<(String, u64)>,
}

impl SpokenTranscript {
    /// A sentence begins at this position.
    pub fn begin(&mut self, sentence: String, at: u64) {
        self.sentences.push((sentence, at));
    }

    /// The last sentence reaches this far.
    pub fn reaches(&mut self, position: u64) {
        if let Some((_, end)) = self.sentences.last_mut() {
            *end = position;
        }
    }

    /// The last sentence was not synthesized to its end: which of its words were is not known, so none count.
    pub fn abandon(&mut self) {
        self.sentences.pop();
    }

    /// The words before a position: whole sentences, and of the last one as many words as fit.
    pub fn before(&self, position: u64) -> String {
        let mut text = Vec::new();
        let mut begin = 0;
        for (sentence, end) in &self.sentences {
            if sentence.is_empty() {
                // Said, and no part of the response.
            } else if position >= *end {
                text.push(sentence.clone());
            } else {
                let share = position.saturating_sub(begin) as f64 / (end - begin).max(1) as f64;
                let words: Vec<&str> = sentence.split_whitespace().collect();
                let count = (words.len() as f64 * share) as usize;
                if count > 0 {
                    text.push(words[..count].join(" "));
                }
                break;
            }
            begin = *end;
        }
        text.join(" ")
    }
}
