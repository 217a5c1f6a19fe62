//! Labels of every kind, pairs, and what is cut.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::json;

use super::super::loader::{Loader, LoaderSettings, Size};
use super::super::table::shared::shared;
use super::super::table::{Table, TableFormat, TableSettings};
use super::super::testing::{bert, row, whole};
use super::*;
use crate::batch::Batches;

fn labelled(rows: &[(&str, Value)]) -> Vec<Result<Labelled>> {
    rows.iter().map(|(text, label)| Ok(Labelled { label: label.clone(), ..Labelled::new(*text, "") })).collect()
}

fn made(rows: &[(&str, Value)], settings: &ClassifySettings) -> Result<Classify> {
    Classify::new(labelled(rows).into_iter(), &bert(), settings, None)
}

#[test]
fn one_class_of_several() {
    let rows = [("good foxs", json!("pos")), ("bad", json!("neg")), ("the good", json!("pos"))];
    let made = made(&rows, &ClassifySettings::default()).unwrap();
    assert_eq!(made.labels().names(), ["neg", "pos"]);
    assert_eq!((made.outputs(), made.problem_type()), (2, ProblemType::SingleLabelClassification));
    assert_eq!(made.notes(), ["labels: neg 1, pos 2"]);
    let batch = whole(made);
    assert_eq!(batch.labels, Labels::Class(vec![1, 0, 1]));
    assert_eq!((batch.batch, batch.time, batch.tokens, batch.targets.len()), (3, 5, 3, 0));
    assert_eq!(batch.ids, [2, 5, 7, 9, 3, 2, 6, 3, 0, 0, 2, 8, 5, 3, 0]);
    assert_eq!(batch.lengths, [5, 3, 4]);
    assert_eq!(batch.token_types, None);
    assert_eq!(batch.positions.len(), 15);
}

#[test]
fn pairs_have_types_and_the_longer_is_cut() {
    let pair = |a: &str, b: &str| Ok(Labelled { text_b: Some(b.to_owned()), ..Labelled::new(a, "x") });
    let records = vec![pair("good", "bad bad"), pair("good good good good", "bad"), pair("a b c d", "e f g h i")];
    let settings = ClassifySettings { max_len: 6, ..ClassifySettings::default() };
    let made = Classify::new(records.into_iter(), &bert(), &settings, None).unwrap();
    assert_eq!(made.notes()[0], "2 of 3 texts were cut at 6 tokens");
    let batch = whole(made);
    assert_eq!(row(&batch, 0), [2, 5, 3, 6, 6, 3]);
    assert_eq!(row(&batch, 1), [2, 5, 5, 3, 6, 3]);
    assert_eq!(row(&batch, 2).len(), 6);
    assert_eq!(batch.token_types.unwrap(), [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]);
    let settings = ClassifySettings { max_len: 3, ..settings };
    let error = Classify::new([pair("good", "bad bad")].into_iter(), &bert(), &settings, None).unwrap_err();
    assert!(error.to_string().contains("leaves no room beside the 3 tokens"), "{error}");
}

#[test]
fn several_classes_numbers_and_columns() {
    let rows = [("a", json!(["x", "y"])), ("b", json!([])), ("c", json!(["y"]))];
    assert_eq!(
        whole(made(&rows, &ClassifySettings::default()).unwrap()).labels,
        Labels::Many(vec![1., 1., 0., 0., 0., 1.])
    );
    let rows = [("a", json!("x| y")), ("b", json!(""))];
    let settings = ClassifySettings { label_separator: Some("|".into()), ..ClassifySettings::default() };
    assert_eq!(whole(made(&rows, &settings).unwrap()).labels, Labels::Many(vec![1., 1., 0., 0.]));
    let rows = [("a", json!({"toxic": "1", "rude": 0})), ("b", json!({"toxic": false, "rude": 1.0}))];
    let many = made(&rows, &ClassifySettings::default()).unwrap();
    assert_eq!(many.labels().names(), ["rude", "toxic"]);
    assert_eq!(whole(many).labels, Labels::Many(vec![0., 1., 1., 0.]));
    let rows = [("a", json!("3.8")), ("b", json!(5)), ("c", json!(0.25))];
    let numbers = made(&rows, &ClassifySettings::default()).unwrap();
    assert_eq!((numbers.problem_type(), numbers.outputs(), numbers.labels().len()), (ProblemType::Regression, 1, 0));
    assert_eq!(whole(numbers).labels, Labels::Value(vec![3.8, 5.0, 0.25]));
    let settings = ClassifySettings { problem_type: Some(ProblemType::Regression), ..ClassifySettings::default() };
    let rows = [("a", json!([1, 2])), ("b", json!([3, 4.5]))];
    let numbers = made(&rows, &settings).unwrap();
    assert_eq!((numbers.outputs(), whole(numbers).labels), (2, Labels::Value(vec![1., 2., 3., 4.5])));
    // Without labels, as for prediction.
    let batch = whole(made(&[("a", Value::Null), ("b", Value::Null)], &ClassifySettings::default()).unwrap());
    assert_eq!((batch.labels, batch.tokens, batch.batch), (Labels::None, 0, 2));
}

#[test]
fn listed_and_known_classes_keep_their_ids() {
    let listed = ClassifySettings {
        labels: Some(vec!["neg".into(), "pos".into(), "odd".into()]),
        ..ClassifySettings::default()
    };
    let first = made(&[("a", json!("pos")), ("b", json!(0)), ("c", json!("2"))], &listed).unwrap();
    let set = first.labels().clone();
    assert_eq!(whole(first).labels, Labels::Class(vec![1, 0, 2]));
    let rows = labelled(&[("a", json!("odd"))]);
    let second = Classify::new(rows.into_iter(), &bert(), &ClassifySettings::default(), Some(&set)).unwrap();
    assert_eq!(whole(second).labels, Labels::Class(vec![2]));
    let error = made(&[("a", json!("pos")), ("b", json!("new"))], &listed).unwrap_err().to_string();
    assert!(error.contains("the label `new` is none of the 3 labels (`neg`, `pos`, `odd`)"), "{error}");
}

#[test]
fn labels_that_are_none_are_refused_or_left_out() {
    let rows = [("a", json!("x")), ("b", json!("-")), ("c", json!("y"))];
    let mut records = labelled(&rows);
    records.iter_mut().for_each(|record| record.as_mut().unwrap().gold = true);
    let made_gold = Classify::new(records.into_iter(), &bert(), &ClassifySettings::default(), None).unwrap();
    assert_eq!(made_gold.notes(), ["1 of 3 rows were left out for their label", "labels: x 1, y 1"]);
    assert_eq!(made_gold.count(), 2);
    let error = |rows: &[(&str, Value)], settings| made(rows, &settings).unwrap_err().to_string();
    let default = ClassifySettings::default;
    assert!(error(&[("a", json!(-1))], default()).contains("skip_labels"));
    assert!(error(&[("a", json!("x")), ("b", Value::Null)], default()).contains("1 of 2 rows have no label"));
    let regression = ClassifySettings { problem_type: Some(ProblemType::Regression), ..default() };
    assert!(error(&[("a", json!(1)), ("b", json!("x"))], regression).contains("`x` should be a number"));
    let distinct: Vec<_> = (0..40).map(|index| ("a", json!(index))).collect();
    assert!(error(&distinct, default()).contains("40 classes in 40 rows"));
    let single = ClassifySettings { problem_type: Some(ProblemType::SingleLabelClassification), ..default() };
    assert!(error(&[("a", json!(["x", "y"]))], single).contains("expected one label, found 2"));
}

#[test]
fn the_digest_tells_data_apart() {
    let digest = |rows: &[(&str, Value)]| made(rows, &ClassifySettings::default()).unwrap().digest();
    let one = digest(&[("a", json!("x")), ("b", json!("y"))]);
    assert_eq!(one, digest(&[("a", json!("x")), ("b", json!("y"))]));
    assert_ne!(one, digest(&[("a", json!("y")), ("b", json!("x"))]));
    assert_ne!(one, digest(&[("b", json!("x")), ("a", json!("y"))]));
}

/// Well-known sets from file to batches, with the time it takes.
#[test]
fn real_sets_become_batches() {
    for (set, format, vocabulary, notes) in [
        ("sst2/train.tsv", None, "bert-base-uncased", "labels: 0 3310, 1 3610"),
        ("snli_part/snli_1.0_dev.jsonl", None, "bert-base-uncased", "rows were left out for their label"),
        ("zh_pairs/LCQMC__dev.txt", Some(TableFormat::Tsv), "bert-base-chinese", "labels: 0 4400, 1 4402"),
    ] {
        let (Some(path), Some(folder)) = (shared(set), shared(&format!("tokenizers/{vocabulary}"))) else { return };
        let tokenizer = Tokenizer::load(folder).unwrap();
        let table = Table::new(TableSettings { format, ..TableSettings::new(path) }).unwrap();
        let settings = ClassifySettings { max_len: 128, ..ClassifySettings::default() };
        let begun = std::time::Instant::now();
        let made = Classify::new(table.records(), &tokenizer, &settings, None).unwrap();
        println!("{set}: {} examples in {:?}: {:?}", made.count(), begun.elapsed(), made.notes());
        assert!(made.notes().iter().any(|note| note.contains(notes)), "{:?}", made.notes());
        let settings = LoaderSettings { group_by_length: true, ..LoaderSettings::new(Size::Examples(32)) };
        let mut loader = Loader::new(Arc::new(made), settings).unwrap();
        let (begun, batches, mut filled, mut real) = (std::time::Instant::now(), loader.batches_per_epoch(), 0, 0);
        for _ in 0..batches {
            let batch = loader.next_batch().unwrap();
            filled += batch.ids.len();
            real += batch.lengths.iter().sum::<usize>();
        }
        println!(
            "{batches} batches in {:?}, {:.1} % filling",
            begun.elapsed(),
            100.0 - 100.0 * real as f64 / filled as f64
        );
        assert!(real * 100 > filled * 90, "{real} of {filled}");
    }
}
