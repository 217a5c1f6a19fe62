//! Corrupted texts put together again, and the lengths and divisions they come in.

use super::*;
use crate::batch::Batches;
use crate::pretrain::testing::{epoch, is_binomial, resumes};
use crate::tokenizer::{UnigramSettings, train_unigram};

/// Letters as pieces, and sentinels.
fn tokenizer(extra_ids: usize) -> Tokenizer {
    let settings = UnigramSettings { vocab_size: 300, extra_ids, ..UnigramSettings::default() };
    train_unigram([Ok("a b c d e f g h")], &settings, &mut |_| {}).unwrap()
}

fn corruption(noise_density: f64, mean_span_length: f64) -> Corruption {
    let settings = SpanSettings { noise_density, mean_span_length, ..SpanSettings::default() };
    Corruption {
        sentinels: (0..10_000).map(|index| 1_000_000 - index).collect(),
        ..Corruption::new(&tokenizer(5), &settings).unwrap()
    }
}

/// Takes source and targets apart at the sentinels and lays the runs together again: text, kept runs, noise runs.
fn joined(source: &[u32], targets: &[u32], corruption: &Corruption) -> (Vec<u32>, Vec<usize>, Vec<usize>) {
    let mut text = Vec::new();
    let (mut kept, mut noise) = (Vec::new(), Vec::new());
    let is_sentinel = |id: &u32| *id > 900_000;
    let kept_runs: Vec<&[u32]> = source.strip_suffix(&[corruption.eos]).unwrap().split(is_sentinel).collect();
    let noise_runs: Vec<&[u32]> = targets.strip_suffix(&[corruption.eos]).unwrap().split(is_sentinel).collect();
    let order = |ids: &[u32]| ids.iter().copied().filter(|id| is_sentinel(id)).collect::<Vec<_>>();
    assert_eq!(order(source), corruption.sentinels[..order(source).len()]);
    assert_eq!(order(source), order(targets));
    // Targets begin with a sentinel, sources end with one.
    assert!(noise_runs[0].is_empty() && kept_runs.last().unwrap().is_empty());
    for (keep, take) in kept_runs.iter().zip(&noise_runs[1..]) {
        text.extend_from_slice(keep);
        text.extend_from_slice(take);
        kept.push(keep.len());
        noise.push(take.len());
    }
    (text, kept, noise)
}

#[test]
fn sentinels_lead_from_targets_back_to_the_text() {
    for (density, mean) in [(0.15, 3.0), (0.5, 1.0), (0.9, 8.0), (0.01, 30.0), (0.3, 1.5)] {
        let corruption = corruption(density, mean);
        for length in (2..60).chain([100, 568, 2000]) {
            let text: Vec<u32> = (0..length).collect();
            let (source, targets) = corruption.corrupt(&text, &mut Rng::new(u64::from(length)));
            let (joined, kept, noise) = joined(&source, &targets, &corruption);
            assert_eq!(joined, text, "{density} {mean} {length}");
            assert!(kept.iter().chain(&noise).all(|&run| run > 0), "an empty run: {kept:?} {noise:?}");
            assert_eq!((source.len(), targets.len()), corruption.lengths(length as usize));
            let wanted = (f64::from(length) * density).round_ties_even().clamp(1.0, f64::from(length - 1));
            assert_eq!(noise.iter().sum::<usize>(), wanted as usize);
            let most = noise.iter().sum::<usize>().min(kept.iter().sum());
            assert_eq!(noise.len(), (wanted / mean).round_ties_even().clamp(1.0, most as f64) as usize);
        }
    }
}

#[test]
fn sources_are_exactly_as_long_as_asked() {
    // T5's own numbers for 512 tokens: 568 of text, 114 of targets.
    let t5 = corruption(0.15, 3.0);
    assert_eq!(t5.text_length(512), Some(568));
    assert_eq!(t5.lengths(568), (512, 114));
    assert_eq!((t5.text_length(64), t5.lengths(70)), (Some(70), (64, 14)));
    let long = corruption(0.25, 8.0);
    assert_eq!((long.text_length(256), long.lengths(327)), (Some(327), (256, 93)));
    for (density, mean) in [(0.15, 3.0), (0.5, 2.0), (0.25, 1.0), (0.15, 8.0)] {
        let corruption = corruption(density, mean);
        for length in 8..600 {
            let text = corruption.text_length(length).unwrap();
            assert_eq!(corruption.lengths(text).0, length, "{density} {mean}");
            assert!(corruption.lengths(text + 1).0 > length);
        }
    }
    assert_eq!(t5.text_length(2), None);
    assert_eq!(t5.text_length(3), Some(2));
}

#[test]
fn every_division_is_equally_likely() {
    let mut rng = Rng::new(2);
    let mut counts = std::collections::BTreeMap::new();
    (0..20_000).for_each(|_| *counts.entry(segments(6, 3, &mut rng)).or_insert(0) += 1);
    // Two ends among five places.
    assert_eq!(counts.len(), 10);
    counts.values().for_each(|&count| is_binomial(count, 20_000, 0.1));
    assert_eq!(segments(4, 1, &mut rng), [4]);
    assert_eq!(segments(4, 4, &mut rng), [1; 4]);
}

fn file(documents: u32) -> Arc<TokenFile> {
    Arc::new(TokenFile::from_documents((0..documents).map(|index| vec![3 + index % 8; 5 + (index * 7 % 90) as usize])))
}

#[test]
fn rows_fill_the_encoder_and_shift_the_decoder() {
    let tokenizer = tokenizer(40);
    let settings = SpanSettings { inputs_length: 64, ..SpanSettings::default() };
    let share = Share { shuffle: false, ..Share::new(3) };
    let mut batches = SpanBatches::new(file(50), &tokenizer, &settings, share).unwrap();
    let (source_length, target_length) = batches.lengths();
    assert_eq!(source_length, 64);
    let all = epoch(&mut batches);
    let mut text = Vec::new();
    for batch in &all {
        let source = batch.source.as_ref().unwrap();
        assert_eq!(source.ids.len(), source.time * batch.batch);
        for row in 0..batch.batch {
            let length = batch.lengths[row];
            let ids = &batch.ids[row * batch.time..][..length];
            let targets: Vec<u32> = batch.targets[row * batch.time..][..length].iter().map(|&id| id as u32).collect();
            assert_eq!(ids[0], 0);
            assert_eq!(ids[1..], targets[..length - 1]);
            assert_eq!(*targets.last().unwrap(), 1);
            let source_ids = &source.ids[row * source.time..][..source.lengths[row]];
            // Give sentinels their numbers above all text.
            let high = |ids: &[u32]| -> Vec<u32> {
                let sentinel = |id: u32| (0..40).find(|n| batches.rows.corruption.sentinels[*n] == id);
                ids.iter().map(|&id| sentinel(id).map_or(id, |n| 1_000_000 - n as u32)).collect()
            };
            let names = corruption(0.15, 3.0);
            text.extend(joined(&high(source_ids), &high(&targets), &names).0);
        }
        let full = batch.lengths.iter().zip(&source.lengths).filter(|(d, s)| (**s, **d) == (64, target_length)).count();
        assert!(full == batch.batch || batch == all.last().unwrap());
    }
    assert_eq!(text, file(50).all().to_vec());
    assert!(batches.notes().join("\n").contains("the last row of each epoch has"));
}

#[test]
fn states_bring_back_the_same_spans() {
    let settings = SpanSettings { inputs_length: 40, ..SpanSettings::default() };
    for shuffle in [false, true] {
        resumes(|| SpanBatches::new(file(30), &tokenizer(40), &settings, Share { shuffle, ..Share::new(4) }));
    }
}

#[test]
fn a_single_token_left_over_is_told() {
    let tokenizer = tokenizer(40);
    let settings = SpanSettings { inputs_length: 20, ..SpanSettings::default() };
    let text = corruption(0.15, 3.0).text_length(20).unwrap();
    let file = Arc::new(TokenFile::from_documents([vec![3; 2 * text + 1]]));
    let batches = SpanBatches::new(file, &tokenizer, &settings, Share::new(1)).unwrap();
    assert_eq!(batches.batches_per_epoch(), 2);
    assert!(batches.notes()[0].contains("last token"));
}

#[test]
fn settings_that_cannot_be_met_are_refused() {
    let error = |extra, settings: &SpanSettings| {
        SpanBatches::new(file(9), &tokenizer(extra), settings, Share::new(1)).unwrap_err().to_string()
    };
    let default = SpanSettings::default;
    assert!(error(5, &default()).contains("28 corrupted runs, and the vocabulary has only 5 sentinels"));
    assert!(error(0, &default()).contains("<extra_id_0>"));
    assert!(error(5, &SpanSettings { noise_density: 1.0, ..default() }).contains("`noise_density`"));
    assert!(error(5, &SpanSettings { mean_span_length: f64::NAN, ..default() }).contains("`mean_span_length`"));
    assert!(error(5, &SpanSettings { inputs_length: 2, ..default() }).contains("`inputs_length`"));
    assert!(error(5, &SpanSettings { inputs_length: usize::MAX, ..default() }).contains("`inputs_length`"));
}
