//! What the tests of this folder share: a tokenizer of numbered words, and checks that hold for all kinds of batches.

use std::collections::BTreeMap;

use crate::batch::{Batch, BatchState, Batches};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// Ids below this are `[PAD] [UNK] [CLS] [SEP] [MASK]`.
pub const FIRST: u32 = 5;

/// WordPiece over `w0`, `w1`, …; every third one continues a word (`##w2`, `##w5`).
pub fn numbered(words: u32) -> Tokenizer {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let word = |index: u32| format!("{}w{index}", if index % 3 == 2 { "##" } else { "" });
    let lines: Vec<String> = special.into_iter().chain((0..words).map(word)).collect();
    Tokenizer::from_memory(BTreeMap::from([("vocab.txt".to_owned(), lines.join("\n").into_bytes())])).unwrap()
}

/// The batches of one epoch.
pub fn epoch(batches: &mut dyn Batches) -> Vec<Batch> {
    (0..batches.batches_per_epoch()).map(|_| batches.next_batch().unwrap()).collect()
}

/// The rows of a batch with what was hidden put back, without filling.
pub fn unmasked(batch: &Batch) -> Vec<Vec<u32>> {
    let rows = batch.ids.chunks(batch.time).zip(batch.targets.chunks(batch.time)).zip(&batch.lengths);
    rows.map(|((ids, targets), &length)| {
        let put_back = |(&id, &target): (&u32, &i32)| if target >= 0 { target as u32 } else { id };
        ids.iter().zip(targets).map(put_back).take(length).collect()
    })
    .collect()
}

/// Restoring any state gives the batches that followed it; a state beyond the epoch is refused and changes nothing.
pub fn resumes<B: Batches>(make: impl Fn() -> Result<B>) {
    let mut whole = make().unwrap();
    let mut states = Vec::new();
    let mut batches = Vec::new();
    while whole.state().epoch < 3 {
        states.push(whole.state());
        batches.push(whole.next_batch().unwrap());
    }
    for (at, state) in states.iter().enumerate() {
        let mut resumed = make().unwrap();
        resumed.restore(*state).unwrap();
        for expected in batches.iter().skip(at).take(3) {
            assert_eq!(resumed.next_batch().unwrap(), *expected);
        }
        // Back to an epoch before, too.
        resumed.restore(states[0]).unwrap();
        assert_eq!(resumed.next_batch().unwrap(), batches[0]);
    }
    let mut refused = make().unwrap();
    let before = refused.state();
    let message = refused.restore(BatchState { epoch: 1, index: 100_000 }).unwrap_err().to_string();
    assert!(message.contains("batch 100000"), "{message}");
    assert_eq!((refused.state(), refused.next_batch().unwrap()), (before, batches[0].clone()));
}

/// `count` of `total` lies within five standard deviations of a binomial distribution around `share`: a false alarm is
/// less likely than one in a million, and draws under a fixed seed do not change.
pub fn is_binomial(count: usize, total: usize, share: f64) {
    let deviation = (share * (1.0 - share) / total as f64).sqrt();
    let found = count as f64 / total as f64;
    assert!((found - share).abs() < 5.0 * deviation, "{found} of {total}, where {share} ± {deviation} is expected");
}
