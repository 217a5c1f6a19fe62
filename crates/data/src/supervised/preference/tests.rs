//! Rows, targets and labels of preferences, and what is left out.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::super::testing::{bert, row, whole};
use super::*;

fn pair(prompt: &str, chosen: &str, rejected: &str, margin: Option<f64>) -> Result<Preference> {
    Ok(Preference { margin, ..Preference::new(prompt, chosen, rejected) })
}

fn judged(prompt: &str, completion: &str, desirable: bool) -> Result<Judgement> {
    Ok(Judgement::new(prompt, completion, desirable))
}

fn settings(max_len: usize, truncation: Truncation) -> PreferenceSettings {
    PreferenceSettings { max_len, truncation, whole: false }
}

fn predicted(batch: &Batch, at: usize) -> String {
    let targets = &batch.targets[at * batch.time..][..batch.time];
    let ids: Vec<u32> = targets.iter().filter_map(|&target| u32::try_from(target).ok()).collect();
    bert().decode(&ids, false).unwrap()
}

#[test]
fn chosen_rows_stand_before_rejected_ones_and_only_completions_are_predicted() {
    let records = vec![pair("the fox", " a b", " bad", None), pair("good", " a", " b c d e", None)];
    let made = Preferences::compared(records.into_iter(), &bert(), settings(20, Truncation::KeepStart)).unwrap();
    assert_eq!((made.count(), made.rows(), made.length(0), made.length(1)), (2, 2, 6, 7));
    made.set_reference(vec![-1., -2., -3., -4.]).unwrap();
    assert!(made.set_reference(vec![0.; 4]).is_err());
    let batch = whole(made);
    let tokenizer = bert();
    let texts: Vec<String> = (0..4).map(|at| tokenizer.decode(row(&batch, at), false).unwrap()).collect();
    assert_eq!(
        texts,
        ["[CLS] the fox a b [SEP]", "[CLS] good a [SEP]", "[CLS] the fox bad [SEP]", "[CLS] good b c d e [SEP]"]
    );
    assert_eq!(
        (0..4).map(|at| predicted(&batch, at)).collect::<Vec<_>>(),
        ["a b [SEP]", "a [SEP]", "bad [SEP]", "b c d e [SEP]"]
    );
    let Labels::Pairs(pairs) = &batch.labels else { panic!("no pairs") };
    assert_eq!(pairs.reference.as_deref(), Some(&[-1., -3., -2., -4.][..]));
    assert_eq!(batch.tokens, 12);
}

#[test]
fn nothing_is_left_of_a_completion_means_that_the_pair_is_left_out_and_told() {
    let records = || {
        let long = "a b c d e f g h i j";
        vec![pair(long, " a", " b", None), pair("good", " a b c d e f g h", " b", None)].into_iter()
    };
    let made = Preferences::compared(records(), &bert(), settings(8, Truncation::KeepStart)).unwrap();
    assert_eq!(made.count(), 1);
    assert_eq!(
        made.notes(),
        ["1 of 2 were left out: their prompt alone has 8 tokens or more", "1 of 2 were cut at 8 tokens"]
    );
    let made = Preferences::compared(records(), &bert(), settings(8, Truncation::KeepEnd)).unwrap();
    assert_eq!(made.count(), 2);
    let batch = whole(made);
    assert!((0..4).all(|at| !predicted(&batch, at).is_empty()));
    assert_eq!(predicted(&batch, 0), "a [SEP]");
}

#[test]
fn margins_are_for_all_or_none() {
    let made = |margins: [Option<f64>; 2]| {
        let records = margins.map(|margin| pair("good", " a", " b", margin)).into_iter();
        Preferences::compared(records, &bert(), settings(8, Truncation::KeepStart))
    };
    let Labels::Pairs(pairs) = whole(made([Some(1.), Some(0.5)]).unwrap()).labels else { panic!("no pairs") };
    assert_eq!(pairs.margins, Some(vec![1., 0.5]));
    assert!(made([None, Some(0.5)]).unwrap_err().to_string().contains("some records have a margin and some not"));
}

#[test]
fn a_mismatched_completion_is_that_of_another_prompt() {
    let records = vec![judged("good", " a", true), judged("good", " b", false), judged("bad", " c", true)];
    let made = Preferences::judged(records.into_iter(), &bert(), settings(20, Truncation::KeepStart)).unwrap();
    assert_eq!(made.notes(), ["2 good completions and 1 bad ones"]);
    let batch = whole(made);
    let Labels::Judged(labels) = &batch.labels else { panic!("no judgements") };
    assert_eq!(labels.desirable, [true, false, true]);
    let other = labels.mismatched.as_ref().unwrap();
    let text = |batch: &Batch, at| bert().decode(row(batch, at), false).unwrap();
    let texts: Vec<String> = (0..3).map(|at| text(other, at)).collect();
    assert_eq!(texts, ["[CLS] good c [SEP]", "[CLS] good c [SEP]", "[CLS] bad b [SEP]"]);
    assert_eq!(text(&batch, 1), "[CLS] good b [SEP]");
    assert_eq!(predicted(other, 2), "b [SEP]");
}
