//! Guesses from the text itself: what followed when its last ids stood there before (Saxena 2023, prompt look-up).

use crate::processor::History;

/// What followed the last ids where they, as many as possible, stood before: in the text or else in its source.
pub(super) fn look_up(history: &History, ngram: usize, most: usize) -> Vec<u32> {
    let ids = history.ids();
    let texts =
        if std::ptr::eq(history.source(), history.prompt()) { &[ids][..] } else { &[ids, history.source()][..] };
    for n in (1..=ngram.min(ids.len())).rev() {
        let last = &ids[ids.len() - n..];
        for text in texts {
            let found = text.windows(n).position(|run| run == last).map(|at| at + n).filter(|&at| at < text.len());
            if let Some(at) = found {
                return text[at..].iter().take(most).copied().collect();
            }
        }
    }
    vec![]
}
