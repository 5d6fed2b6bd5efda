//! Where sound can be cut: where it is quietest, which is between two words if there is a gap.

use std::time::Duration;

/// The length that is compared, and the distance of two places.
const WINDOW: Duration = Duration::from_millis(20);
const STEP: Duration = Duration::from_millis(5);

/// The end of the quietest window, the latest of several; of short sound its end.
pub(super) fn quietest(samples: &[i16], rate_hz: u32) -> usize {
    let count = |time: Duration| ((time.as_millis() as usize * rate_hz as usize) / 1000).max(1);
    let (window, step) = (count(WINDOW), count(STEP));
    let energy = |end: usize| -> u64 {
        let loudness = |sample: &i16| u64::from(sample.unsigned_abs()).pow(2);
        samples[end - window..end].iter().map(loudness).sum()
    };
    let ends = (window..=samples.len()).rev().step_by(step);
    ends.min_by_key(|end| energy(*end)).unwrap_or(samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_is_cut_in_the_last_gap_between_words() {
        let [loud, quiet] = [vec![9000; 800], vec![3; 480]];
        let samples = [&loud[..], &quiet, &loud, &quiet, &loud].concat();

        let cut = quietest(&samples, 16_000);

        assert!((800 + 480 + 800 + 320..=samples.len() - 800).contains(&cut), "{cut}");
    }

    #[test]
    fn short_sound_is_not_cut() {
        assert_eq!(quietest(&[9; 100], 16_000), 100);
        assert_eq!(quietest(&[], 16_000), 0);
    }
}
