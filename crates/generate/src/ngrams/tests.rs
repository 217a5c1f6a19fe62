//! Counts, what is forgotten, and files of them, whole and damaged.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

#[test]
fn the_longest_run_that_is_known_says_what_follows() {
    let mut table = Table::default();
    table.learn(&[1, 2, 3, 1, 2, 4, 9, 2, 4], 0);
    assert_eq!(table.likely(&[1, 2]), None, "3 and 4 as often");
    assert_eq!(table.likely(&[2]), Some(4), "twice of three times");
    assert_eq!(table.likely(&[3]), None, "once, behind a single id");
    assert_eq!(table.likely(&[3, 1, 2]), Some(4));
    assert_eq!(table.likely(&[7]), None);
    // In pieces as at once.
    let (mut whole, mut pieces) = (Table::default(), Table::default());
    let text = [5, 6, 5, 6, 7, 5, 6, 7];
    whole.learn(&text, 0);
    pieces.learn(&text[..3], 0);
    pieces.learn(&text, 3);
    assert_eq!(whole.0, pieces.0);
}

#[test]
fn what_is_rare_is_forgotten_first() {
    let mut table = Table::default();
    table.learn(&[1, 2, 1, 2, 1, 3], 0);
    table.forget();
    assert_eq!(table.0.get(&run(&[1])), Some(&vec![(2, 1)]));
    assert_eq!(table.0.get(&run(&[2, 1])), None);
}

#[test]
fn a_file_says_what_was_learnt_and_a_damaged_one_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.grams");
    let ngrams = Ngrams::new(50);
    ngrams.learn(&(0..40).map(|i| i * i % 50).collect::<Vec<u32>>());
    ngrams.save(&path).unwrap();
    let again = Ngrams::load(&path, 50).unwrap();
    assert_eq!(again.len(), ngrams.len());
    assert_eq!(again.table().likely(&[4, 9]), Some(16));
    let first = std::fs::read(&path).unwrap();
    again.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first, "the same counts are the same bytes");

    let damaged = |bytes: &[u8], vocab: usize| {
        std::fs::write(&path, bytes).unwrap();
        Ngrams::load(&path, vocab).unwrap_err().to_string()
    };
    assert!(damaged(b"GGUF", 50).contains("no file of n-grams"));
    assert!(damaged(&first[..first.len() - 2], 50).contains("cut off"));
    assert!(damaged(&first[..first.len() - 24], 50).contains("records, found"));
    assert!(damaged(&first[..12], 50).contains("cut off"));
    assert!(damaged(&first, 51).contains("vocabulary of 50, and the model's has 51"));
    for (at, number) in [(16, 77u32), (16 + 16, 50), (16 + 20, 0)] {
        let mut bytes = first.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        assert!(damaged(&bytes, 50).contains("record 0 is damaged"), "{at}");
    }
    assert!(Ngrams::load(&folder.path().join("none"), 50).is_err());
}
