//! Pairs of sentences whose words are numbered, so that each token tells where it comes from.

use super::*;
use crate::batch::{Batches, Labels};
use crate::pretrain::sentences::SentenceSplit;
use crate::pretrain::testing::{FIRST, epoch, is_binomial, numbered, resumes, unmasked};
use crate::tokens::TokenFile;

/// Documents of sentences of 3 to 12 words; words are numbered through.
fn data(documents: usize) -> (Arc<Sentences>, u32) {
    let (mut rng, mut next) = (Rng::new(9), FIRST);
    let mut sentences: Vec<Vec<u32>> = Vec::new();
    for _ in 0..documents {
        for _ in 0..1 + rng.below(40) {
            let length = 3 + rng.below(10) as u32;
            sentences.push((next..next + length).collect());
            next += length;
        }
        sentences.push(Vec::new());
    }
    (Arc::new(Sentences::new(Arc::new(TokenFile::from_documents(sentences))).unwrap()), next - FIRST)
}

fn batches(documents: usize, settings: &NspSettings, share: Share) -> NspBatches {
    let (data, words) = data(documents);
    NspBatches::new(data, &numbered(words), settings, share).unwrap()
}

/// Which document a word belongs to.
fn document_of(data: &Sentences, id: u32) -> usize {
    let holds = |document: &usize| data.ids(data.document(*document)).contains(&id);
    (0..data.documents()).find(holds).unwrap()
}

#[test]
fn rows_are_what_their_labels_say() {
    let settings = NspSettings { max_len: 48, ..NspSettings::default() };
    let mut batches = batches(30, &settings, Share::new(8));
    let data = batches.rows.data.clone();
    let mut seen = [0; 2];
    for batch in epoch(&mut batches) {
        let Labels::Class(labels) = &batch.labels else { unreachable!() };
        let types = batch.token_types.as_ref().unwrap();
        assert_eq!((labels.len(), types.len()), (batch.batch, batch.ids.len()));
        assert_eq!(batch.tokens, batch.targets.iter().filter(|&&target| target >= 0).count());
        for (row, ids) in unmasked(&batch).into_iter().enumerate() {
            assert!(ids.len() <= 48 && ids[0] == 2 && *ids.last().unwrap() == 3);
            let border = ids.iter().position(|&id| id == 3).unwrap() + 1;
            let (first, second) = (&ids[1..border - 1], &ids[border..ids.len() - 1]);
            for (at, &kind) in types[row * batch.time..(row + 1) * batch.time].iter().enumerate() {
                assert_eq!(kind, u32::from(at >= border && at < ids.len()));
            }
            assert!(!first.is_empty() && !second.is_empty());
            // Each text is a run of one document.
            for text in [first, second] {
                assert!(text.windows(2).all(|pair| pair[1] == pair[0] + 1));
                assert_eq!(document_of(&data, text[0]), document_of(&data, *text.last().unwrap()));
            }
            let same = document_of(&data, first[0]) == document_of(&data, second[0]);
            assert_eq!(labels[row], i32::from(!same));
            if same {
                assert!(second[0] > *first.last().unwrap());
                // What lies between was cut off one of the two.
                assert!(second[0] == first.last().unwrap() + 1 || ids.len() == 48);
            }
            seen[labels[row] as usize] += 1;
        }
    }
    assert!(seen[0] > 20 && seen[1] > 20, "{seen:?}");
}

/// Pairs walk through each document from its first sentence to its last: what a random second text displaced comes
/// next.
#[test]
fn every_sentence_is_used_in_order() {
    let rows = batches(50, &NspSettings { max_len: 64, ..NspSettings::default() }, Share::new(4)).rows;
    let plan = rows.plan(3);
    let mut at = 0;
    for document in 0..rows.data.documents() {
        let all = rows.data.document(document);
        let mut next = all.start;
        while next < all.end {
            let pair = &plan.pairs[at];
            assert_eq!(pair.first.start, next);
            assert!(pair.first.end <= all.end);
            next = if pair.random { pair.first.end } else { pair.second.end };
            if pair.random {
                assert!(pair.second.end <= all.start || pair.second.start >= all.end);
            } else {
                assert_eq!(pair.first.end, pair.second.start);
            }
            at += 1;
        }
        assert_eq!(next, all.end);
    }
    assert_eq!(at, plan.pairs.len());
    assert_ne!(rows.plan(4).pairs, plan.pairs);
    assert_eq!(rows.plan(3).pairs, plan.pairs);
}

#[test]
fn half_of_the_pairs_are_random_where_there_is_a_choice() {
    let settings = NspSettings { max_len: 64, short_seq_prob: 0.0, ..NspSettings::default() };
    let rows = batches(200, &settings, Share::new(4)).rows;
    let (mut random, mut total) = (0, 0);
    for document in 0..200 {
        let mut pairs = Pairs::default();
        rows.document(document, &mut Rng::new(1).split(document as u64), &mut pairs);
        // A document's last sentence alone has nothing to follow it. Sentences are shorter than rows, so all others do.
        let choice = pairs.pairs.iter().filter(|pair| pair.first.end < rows.data.document(document).end);
        choice.for_each(|pair| {
            total += 1;
            random += usize::from(pair.random);
        });
    }
    is_binomial(random, total, 0.5);
}

#[test]
fn a_tenth_of_the_documents_has_short_pairs() {
    let rows = batches(3, &NspSettings::default(), Share::new(1)).rows;
    let mut rng = Rng::new(6);
    let targets: Vec<usize> = (0..20_000).map(|_| rows.target(&mut rng)).collect();
    assert!(targets.iter().all(|target| (2..=509).contains(target)));
    // A short one is as long as a full one once in 508 times.
    is_binomial(targets.iter().filter(|&&target| target < 509).count(), 20_000, 0.1 * 507.0 / 508.0);
    let (sum, short) =
        targets.iter().filter(|&&target| target < 509).fold((0, 0), |(s, n), target| (s + target, n + 1));
    // Uniform from 2 to 508: its deviation is 147, five standard errors of the mean are 16.
    assert!((sum as f64 / f64::from(short) - 255.0).abs() < 16.5);
}

#[test]
fn cutting_takes_from_the_longer_text_at_both_ends() {
    let mut rng = Rng::new(8);
    let (mut front, mut total) = (0, 0);
    for round in 0..500 {
        let (mut first, mut second): (Vec<u32>, Vec<u32>) = ((0..40 + round % 20).collect(), (100..130).collect());
        let before = first.len() + second.len();
        cut(&mut first, &mut second, 50, &mut rng);
        assert_eq!((first.len(), second.len()), (25, 25));
        assert!(first.windows(2).chain(second.windows(2)).all(|pair| pair[1] == pair[0] + 1));
        front += first[0] as usize + second[0] as usize - 100;
        total += before - 50;
    }
    is_binomial(front, total, 0.5);
    let (mut first, mut second) = (vec![1, 2], vec![3]);
    cut(&mut first, &mut second, 3, &mut rng);
    assert_eq!((first, second), (vec![1, 2], vec![3]));
}

#[test]
fn states_bring_back_the_same_pairs() {
    let settings = NspSettings { max_len: 32, ..NspSettings::default() };
    for shuffle in [false, true] {
        resumes(|| {
            let (data, words) = data(6);
            NspBatches::new(data, &numbered(words), &settings, Share { shuffle, seed: 4, ..Share::new(5) })
        });
    }
}

#[test]
fn what_is_cut_or_unlike_the_settings_is_told() {
    let notes = batches(30, &NspSettings { max_len: 16, ..NspSettings::default() }, Share::new(4)).notes().join("\n");
    assert!(notes.contains("are longer than 13 tokens") && notes.contains("cut off at their ends"), "{notes}");
    // Documents of one sentence have nothing that follows.
    let file = TokenFile::from_documents([vec![5, 6], vec![], vec![7, 8], vec![], vec![], vec![9]]);
    let data = Arc::new(Sentences::new(Arc::new(file)).unwrap());
    let batches = NspBatches::new(data, &numbered(9), &NspSettings::default(), Share::new(1)).unwrap();
    let notes = batches.notes().join("\n");
    assert!(notes.contains("100 % of the pairs are random, where 50 %"), "{notes}");
    assert!(notes.contains("1 documents have no sentence"), "{notes}");
}

#[test]
fn one_document_is_not_enough() {
    let file = TokenFile::from_documents([vec![5, 6], vec![7]]);
    let data = Arc::new(Sentences::new(Arc::new(file)).unwrap());
    assert_eq!((data.documents(), data.document(0)), (1, 0..2));
    let error = NspBatches::new(data, &numbered(10), &NspSettings::default(), Share::new(1)).unwrap_err().to_string();
    assert!(error.contains("the data has 1") && error.contains("separator"), "{error}");
    let short = NspSettings { max_len: 4, ..NspSettings::default() };
    let error = NspBatches::new(self::data(3).0, &numbered(10), &short, Share::new(1)).unwrap_err().to_string();
    assert!(error.contains("at least 5"), "{error}");
}

#[test]
fn a_process_without_rows_gets_a_row_of_nothing() {
    let settings = NspSettings { max_len: 128, ..NspSettings::default() };
    let mut last = batches(3, &settings, Share { rank: 40, world: 41, ..Share::new(4) });
    let batch = last.next_batch().unwrap();
    assert_eq!((batch.batch, batch.time, batch.tokens, batch.lengths), (1, 1, 0, vec![0]));
    assert_eq!((batch.labels, batch.token_types), (Labels::Class(vec![IGNORE]), Some(vec![0])));
}

#[test]
fn sentences_are_read_from_documents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "w0 w1. w3\nw4\n\nw6 ? w7 ! w9\n").unwrap();
    let settings =
        crate::dataset::TextSettings { separator: Some(String::new()), ..crate::dataset::TextSettings::new(&path) };
    let corpus = crate::dataset::Corpus::new(settings).unwrap();
    let read = |split| {
        let sentences = Sentences::read(&corpus, &numbered(10), split).unwrap();
        let ids = |document| sentences.document(document).map(|one| sentences.ids(one..one + 1)).collect::<Vec<_>>();
        (0..sentences.documents()).map(ids).collect::<Vec<_>>()
    };
    // A full stop is unknown to the ten words, and a small letter goes on.
    assert_eq!(read(SentenceSplit::Lines), [vec![vec![5, 6, 1, 8], vec![9]], vec![vec![11, 1, 12, 1, 14]]]);
    assert_eq!(read(SentenceSplit::Rules), [vec![vec![5, 6, 1, 8, 9]], vec![vec![11, 1, 12, 1, 14]]]);
}
