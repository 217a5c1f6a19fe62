//! How much is hidden, by what, and what never is.

use super::*;
use crate::pretrain::testing::{FIRST, is_binomial, numbered};

fn masker(unit: MaskUnit) -> Masker {
    Masker::new(&numbered(1000), &MaskSettings { unit, ..MaskSettings::default() }).unwrap()
}

/// Rows of random words between special tokens, as they were and masked.
fn rows(masker: &Masker, count: u64, length: usize) -> Vec<(Vec<u32>, Vec<u32>, Vec<i32>)> {
    let row = |index| {
        let mut rng = Rng::new(7).split("text").split(index);
        let mut ids: Vec<u32> = (0..length).map(|_| FIRST + rng.below(1000) as u32).collect();
        ids[0] = 2;
        ids[length / 2] = 3;
        ids[length / 3] = 1;
        ids[length - 1] = 3;
        let before = ids.clone();
        let targets = masker.mask(&mut ids, &mut Rng::new(1).split(index));
        (before, ids, targets)
    };
    (0..count).map(row).collect()
}

const UNITS: [MaskUnit; 4] = [
    MaskUnit::Token,
    MaskUnit::WholeWord,
    MaskUnit::Span { longest: 10, lengths: SpanLengths::Geometric { p: 0.2 } },
    MaskUnit::Span { longest: 4, lengths: SpanLengths::Falling },
];

#[test]
fn targets_are_what_was_there_and_special_tokens_stay() {
    for unit in UNITS {
        for (before, after, targets) in rows(&masker(unit), 300, 100) {
            for at in 0..before.len() {
                if targets[at] == IGNORE {
                    assert_eq!(before[at], after[at]);
                } else {
                    assert_eq!(before[at] as i32, targets[at]);
                    assert!(before[at] >= FIRST && (after[at] >= FIRST || after[at] == 4));
                }
            }
        }
    }
}

#[test]
fn fifteen_in_a_hundred_are_hidden_and_eight_in_ten_of_them_masked() {
    for unit in UNITS {
        let rows = rows(&masker(unit), 2000, 128);
        let maskable = rows.iter().flat_map(|row| &row.0).filter(|&&id| id >= FIRST).count();
        let changes = || rows.iter().flat_map(|(_, ids, targets)| ids.iter().zip(targets)).filter(|(_, t)| **t >= 0);
        let hidden = changes().count();
        let masked = changes().filter(|(id, _)| **id == 4).count();
        let kept = changes().filter(|(id, target)| **id as i32 == **target).count();
        match unit {
            // A random token is the one that was there once in a thousand times.
            MaskUnit::Token => {
                is_binomial(hidden, maskable, 0.15);
                is_binomial(masked, hidden, 0.8);
                is_binomial(kept, hidden, 0.1 + 0.1 / 1000.0);
            }
            // Tokens of a word go together: about 1.5 tokens a word, so fewer independent draws.
            MaskUnit::WholeWord => {
                is_binomial(hidden / 2, maskable / 2, 0.15);
                is_binomial(masked, hidden, 0.8);
                is_binomial(kept, hidden, 0.1 + 0.1 / 1000.0);
            }
            // The share of each row is reached exactly, or passed by less than a word (up to a few tokens); runs share
            // one draw, and have four words or so.
            MaskUnit::Span { .. } => {
                let share = hidden as f64 / maskable as f64;
                assert!((0.15..0.158).contains(&share), "{share}");
                is_binomial(masked / 8, hidden / 8, 0.8);
                is_binomial(kept / 8, hidden / 8, 0.1);
            }
        }
    }
}

#[test]
fn random_tokens_come_from_the_whole_vocabulary_evenly() {
    let settings = MaskSettings { mask_share: 0.0, random_share: 1.0, ..MaskSettings::default() };
    let masker = Masker::new(&numbered(50), &settings).unwrap();
    let mut counts = vec![0; 55];
    for index in 0..4000 {
        let mut ids = vec![FIRST; 100];
        let targets = masker.mask(&mut ids, &mut Rng::new(3).split(index));
        ids.iter().zip(targets).filter(|(_, target)| *target >= 0).for_each(|(&id, _)| counts[id as usize] += 1);
    }
    assert_eq!(counts[..5], [0; 5]);
    let total = counts.iter().sum();
    counts[5..].iter().for_each(|&count| is_binomial(count, total, 1.0 / 50.0));
}

#[test]
fn whole_words_are_hidden_whole() {
    for (before, _, targets) in UNITS[1..].iter().flat_map(|&unit| rows(&masker(unit), 200, 90)) {
        for at in 1..before.len() {
            // `##` after a token of text.
            if before[at] >= FIRST && (before[at] - FIRST) % 3 == 2 && before[at - 1] >= FIRST {
                assert_eq!(targets[at] == IGNORE, targets[at - 1] == IGNORE);
            }
        }
    }
}

#[test]
fn lengths_of_runs_are_drawn_as_asked() {
    let share = |lengths, longest, wanted: &[f64]| {
        let masker = masker(MaskUnit::Span { longest, lengths });
        let (mut rng, mut counts) = (Rng::new(5), vec![0; longest]);
        (0..50_000).for_each(|_| counts[masker.length(&mut rng) - 1] += 1);
        counts.iter().zip(wanted).for_each(|(&count, &share)| is_binomial(count, 50_000, share));
    };
    share(SpanLengths::Falling, 4, &[0.4, 0.3, 0.2, 0.1]);
    share(SpanLengths::Uniform, 5, &[0.2; 5]);
    // SpanBERT's: cut at 10, so what lies beyond is shared out; the mean is 3.8 as the paper says.
    let weights: Vec<f64> = (0..10).map(|n| 0.8f64.powi(n)).collect();
    let total: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let mean: f64 = shares.iter().zip(1..).map(|(share, length)| share * f64::from(length)).sum();
    assert!((mean - 3.8).abs() < 0.01);
    share(SpanLengths::Geometric { p: 0.2 }, 10, &shares);
}

#[test]
fn a_row_with_text_always_has_a_target() {
    for unit in UNITS {
        let masker = masker(unit);
        for index in 0..200 {
            let mut ids = vec![2, FIRST, FIRST + 2, 3];
            let targets = masker.mask(&mut ids, &mut Rng::new(2).split(index));
            assert!(targets.iter().any(|&target| target >= 0));
        }
        let mut special = vec![2, 1, 3, 0];
        assert_eq!(masker.mask(&mut special, &mut Rng::new(2)), [IGNORE; 4]);
        assert!(masker.mask(&mut [], &mut Rng::new(2)).is_empty());
    }
}

#[test]
fn everything_can_be_hidden() {
    for unit in UNITS {
        let settings = MaskSettings { probability: 1.0, unit, ..MaskSettings::default() };
        let masker = Masker::new(&numbered(100), &settings).unwrap();
        let mut ids: Vec<u32> = (0..60).map(|id| id + FIRST).collect();
        assert!(masker.mask(&mut ids, &mut Rng::new(4)).iter().all(|&target| target >= 0));
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let error = |settings: MaskSettings| Masker::new(&numbered(10), &settings).unwrap_err().to_string();
    let default = MaskSettings::default;
    assert!(error(MaskSettings { probability: 1.5, ..default() }).contains("`probability`"));
    assert!(error(MaskSettings { probability: f64::NAN, ..default() }).contains("`probability`"));
    assert!(error(MaskSettings { probability: 0.0, ..default() }).contains("hides nothing"));
    assert!(error(MaskSettings { random_share: 0.3, ..default() }).contains("`mask_share + random_share`"));
    let none = MaskUnit::Span { longest: 0, lengths: SpanLengths::Uniform };
    assert!(error(MaskSettings { unit: none, ..default() }).contains("`longest`"));
    let characters = Tokenizer::characters("abc").unwrap();
    assert!(Masker::new(&characters, &default()).unwrap_err().to_string().contains("`mask_token`"));
}

#[test]
fn settings_read_from_recipes() {
    let read = |text| serde_json::from_str::<MaskSettings>(text);
    let span = read(r#"{"probability": 0.2, "unit": {"kind": "span", "longest": 4, "lengths": {"kind": "falling"}}}"#);
    assert_eq!(span.unwrap().unit, MaskUnit::Span { longest: 4, lengths: SpanLengths::Falling });
    assert_eq!(read(r#"{"unit": {"kind": "whole_word"}}"#).unwrap().unit, MaskUnit::WholeWord);
    assert!(read(r#"{"unit": {"kind": "words"}}"#).is_err() && read(r#"{"share": 1}"#).is_err());
}
