//! Rows of text with some of it hidden: nothing lost, nothing twice, and the same again after resuming.

use super::*;
use crate::batch::{Batch, Batches};
use crate::pretrain::masking::MaskUnit;
use crate::pretrain::testing::{FIRST, epoch, numbered, resumes, unmasked};

const WORDS: u32 = 2000;

/// Documents of numbered words, one of them empty, and all words in a row.
fn file() -> (Arc<TokenFile>, Vec<u32>) {
    let mut next = FIRST;
    let documents = [3, 40, 0, 11, 1, 200, 30, 29, 7, 90].map(|length| {
        next += length;
        (next - length..next).collect::<Vec<u32>>()
    });
    (Arc::new(TokenFile::from_documents(&documents)), documents.concat())
}

fn batches(packing: MlmPacking, max_len: usize, share: Share) -> MlmBatches {
    let settings = MlmSettings { max_len, packing, ..MlmSettings::default() };
    MlmBatches::new(file().0, &numbered(WORDS), &settings, share).unwrap()
}

/// The text of rows without the tokens around and between.
fn text(all: &[Batch]) -> Vec<u32> {
    all.iter().flat_map(unmasked).flatten().filter(|&id| id >= FIRST).collect()
}

#[test]
fn all_text_stands_in_rows_once() {
    for packing in [MlmPacking::Packed, MlmPacking::Document] {
        for (max_len, shuffle) in [(3, false), (12, true), (13, false), (32, true), (1000, false)] {
            let mut batches = batches(packing, max_len, Share { shuffle, ..Share::new(4) });
            let (first, second) = (epoch(&mut batches), epoch(&mut batches));
            for batch in first.iter().chain(&second) {
                for row in unmasked(batch) {
                    assert!(row.len() <= max_len && row[0] == 2 && *row.last().unwrap() == 3);
                    // No text before the first separator or after the last one would be nothing.
                    assert!(row[1] != 3 || row.len() == 2, "{row:?}");
                }
            }
            for all in [&first, &second] {
                let mut text = text(all);
                if shuffle {
                    text.sort_unstable();
                }
                assert_eq!(text, file().1, "{packing:?} {max_len}");
            }
            // Other tokens are hidden each time.
            assert_ne!(first, second);
        }
    }
}

#[test]
fn documents_keep_to_themselves_or_are_kept_apart() {
    let starts: Vec<u32> = (0..10).map(|index| FIRST + file().0.range(index).start as u32).collect();
    for packing in [MlmPacking::Packed, MlmPacking::Document] {
        let mut batches = batches(packing, 24, Share::new(3));
        for row in epoch(&mut batches).iter().flat_map(unmasked) {
            for pair in row.windows(2).filter(|pair| pair[0] >= FIRST && pair[1] >= FIRST) {
                assert!(pair[1] == pair[0] + 1 && !starts.contains(&pair[1]), "{row:?}");
            }
            let inner = row[1..row.len() - 1].contains(&3);
            assert!(!inner || packing == MlmPacking::Packed);
        }
    }
    // Parts of a long document are about equally long.
    let mut batches = batches(MlmPacking::Document, 24, Share { shuffle: false, ..Share::new(100) });
    let lengths = batches.next_batch().unwrap().lengths;
    assert_eq!(lengths[..4], [5, 22, 22, 13]);
    assert!(lengths.iter().filter(|&&length| length == 22).count() >= 10);
    assert!(batches.notes().join("\n").contains("divided into several rows"));
    assert!(batches.notes().join("\n").contains("1 documents are empty"));
}

#[test]
fn processes_share_the_rows_of_a_batch() {
    let settings = |share| batches(MlmPacking::Packed, 20, share);
    let mut whole = settings(Share::new(4));
    let mut ranks = [0, 1].map(|rank| settings(Share { rank, world: 2, ..Share::new(2) }));
    assert_eq!(whole.batches_per_epoch(), ranks[0].batches_per_epoch());
    for batch in epoch(&mut whole) {
        let shares: Vec<Vec<u32>> = ranks
            .iter_mut()
            .flat_map(|rank| unmasked(&rank.next_batch().unwrap()))
            .filter(|row| !row.is_empty())
            .collect();
        assert_eq!(shares, unmasked(&batch));
    }
}

#[test]
fn states_bring_back_the_same_rows() {
    for packing in [MlmPacking::Packed, MlmPacking::Document] {
        for shuffle in [false, true] {
            resumes(|| {
                let mask = MaskSettings { unit: MaskUnit::WholeWord, ..MaskSettings::default() };
                let settings = MlmSettings { max_len: 32, packing, mask };
                MlmBatches::new(file().0, &numbered(WORDS), &settings, Share { shuffle, ..Share::new(4) })
            });
        }
    }
}

#[test]
fn digests_tell_data_and_settings_apart() {
    let make = |max_len, seed, probability| {
        let mask = MaskSettings { probability, ..MaskSettings::default() };
        let settings = MlmSettings { max_len, mask, ..MlmSettings::default() };
        MlmBatches::new(file().0, &numbered(WORDS), &settings, Share { seed, ..Share::new(2) }).unwrap().digest()
    };
    let all = [make(20, 0, 0.15), make(21, 0, 0.15), make(20, 1, 0.15), make(20, 0, 0.16)];
    assert_eq!(all[0], make(20, 0, 0.15));
    for (at, one) in all.iter().enumerate() {
        assert!(!all[at + 1..].contains(one));
    }
    let other = Arc::new(TokenFile::from_documents([vec![FIRST; 30]]));
    let other = MlmBatches::new(other, &numbered(WORDS), &MlmSettings::default(), Share::new(2)).unwrap();
    assert_ne!(other.digest(), batches(MlmPacking::Packed, 512, Share::new(2)).digest());
    // Every process of a run has the same.
    let second = batches(MlmPacking::Packed, 512, Share { rank: 1, world: 2, ..Share::new(2) });
    assert_eq!(second.digest(), batches(MlmPacking::Packed, 512, Share { world: 2, ..Share::new(2) }).digest());
}

#[test]
fn rows_with_nothing_to_hide_are_counted() {
    let file = Arc::new(TokenFile::from_documents([vec![1, 1], vec![FIRST, FIRST]]));
    let settings = MlmSettings { packing: MlmPacking::Document, ..MlmSettings::default() };
    let mut batches = MlmBatches::new(file, &numbered(9), &settings, Share::new(2)).unwrap();
    assert!(batches.notes().is_empty());
    batches.next_batch().unwrap();
    assert!(batches.notes()[0].contains("1 rows so far"));
}

#[test]
fn what_is_missing_is_named() {
    let error = |file: TokenFile, tokenizer: &Tokenizer, max_len| {
        let settings = MlmSettings { max_len, ..MlmSettings::default() };
        MlmBatches::new(Arc::new(file), tokenizer, &settings, Share::new(1)).unwrap_err().to_string()
    };
    let some = || TokenFile::from_documents([vec![FIRST]]);
    assert!(error(some(), &numbered(9), 2).contains("at least 3"));
    assert!(error(some(), &Tokenizer::characters("ab").unwrap(), 9).contains("mask_token"));
    assert!(error(TokenFile::from_documents([[0u32; 0]]), &numbered(9), 9).contains("too small"));
    assert!(error(some(), &numbered(9), usize::MAX).contains("too large"));
    let nobody = Share { rank: 2, world: 2, ..Share::new(1) };
    let error = MlmBatches::new(Arc::new(some()), &numbered(9), &MlmSettings::default(), nobody).unwrap_err();
    assert!(error.to_string().contains("rank 2 of 2"));
}
