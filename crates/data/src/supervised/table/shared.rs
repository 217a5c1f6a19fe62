//! The formats of well-known sets, which are not part of the project: skipped where they are not there.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

use std::path::{Path, PathBuf};

use super::super::records::{Choice, Labelled, Parallel, Question, Record, Tagged};
use super::{Column, Quotes, Table, TableFormat, TableSettings};
use crate::dataset::Faults;

/// The path of a file among the shared ones.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PHYLA_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn read<R: Record>(settings: TableSettings) -> Vec<R> {
    let table = Table::new(settings).unwrap();
    let start = std::time::Instant::now();
    let records = table.records().collect::<crate::Result<Vec<R>>>().unwrap();
    println!(
        "{:?}: {} records in {:?}; {:?}",
        table.settings().paths[0].file_name(),
        records.len(),
        start.elapsed(),
        table.faults()
    );
    records
}

fn count<R: Record>(name: &str, change: impl Fn(TableSettings) -> TableSettings, expected: usize) {
    if let Some(path) = shared(name) {
        assert_eq!(read::<R>(change(TableSettings::new(path))).len(), expected, "{name}");
    }
}

#[test]
fn texts_and_pairs() {
    let tsv = |settings| TableSettings { format: Some(TableFormat::Tsv), ..settings };
    count::<Labelled>("sst2/train.tsv", |settings| settings, 6920);
    count::<Labelled>("sst2/dev.tsv", |settings| settings, 872);
    count::<Labelled>("mrpc/msr-para-train.tsv", |settings| settings, 3576);
    count::<Labelled>("mrpc/msr-para-val.tsv", |settings| settings, 500);
    let stsb = |settings: TableSettings| {
        let settings = settings.with("text", Column::Number(5)).with("text_b", Column::Number(6));
        settings.with("label", Column::Number(4))
    };
    count::<Labelled>("stsb/sts-train.csv", stsb, 5749);
    count::<Labelled>("stsb/sts-dev.csv", stsb, 1500);
    let label =
        |name: &'static str| move |settings: TableSettings| tsv(settings).with("label", Column::Name(name.to_owned()));
    count::<Labelled>("sick/SICK_train.txt", label("entailment_judgment"), 4500);
    count::<Labelled>("sick/SICK_train.txt", label("relatedness_score"), 4500);
    count::<Labelled>("snli_part/snli_1.0_dev.jsonl", |settings| settings, 1289);
    count::<Labelled>("snli_part/snli_1.0_test.jsonl", |settings| settings, 1277);
    for (name, expected) in [
        ("AFQMC__train.txt", 34334),
        ("LCQMC__dev.txt", 8802),
        ("Chinese-STS-B__sts-b-train.txt", 5231),
        ("Chinese-SNLI__dev.txt", 9314),
        ("OCNLI__dev.txt", 2950),
        ("PAWS-X__dev_2k.tsv", 2000),
    ] {
        let skip = |settings| TableSettings { faults: Faults::Skip, ..tsv(settings) };
        if let Some(path) = shared(&format!("zh_pairs/{name}")) {
            let table = Table::new(skip(TableSettings::new(path))).unwrap();
            let records = table.records::<Labelled>().collect::<crate::Result<Vec<_>>>().unwrap();
            println!("{name}: {} records, {:?}", records.len(), table.faults());
            assert_eq!(records.len() as u64 + table.faults().count, expected, "{name}");
            assert!(table.faults().count * 50 < expected, "{name}");
        }
    }
}

#[test]
fn tags_questions_choices_and_translations() {
    count::<Tagged>("wnut17/wnut17train.conll", |settings| settings, 3394);
    count::<Tagged>("wnut17/emerging.dev.conll", |settings| settings, 1009);
    let conll = |settings| TableSettings { format: Some(TableFormat::Conll), ..settings };
    count::<Tagged>("wnut17/emerging.test.annotated", conll, 1287);
    for (name, expected) in [
        ("xquad/xquad.en.json", 1190),
        ("xquad/xquad.zh.json", 1190),
        ("cmrc2018/cmrc2018_dev.json", 3219),
        ("cmrc2018/cmrc2018_trial.json", 1002),
        ("adversarialqa_subset/train.json", 598),
    ] {
        if let Some(path) = shared(name) {
            // Two questions of the last but one are blank.
            let table = Table::new(TableSettings { faults: Faults::Skip, ..TableSettings::new(path) }).unwrap();
            let records = table.records::<Question>().collect::<crate::Result<Vec<_>>>().unwrap();
            let moved: usize = records.iter().map(|record| record.moved).sum();
            let all = records.iter().flat_map(|record| &record.answers);
            let lost = all.filter(|answer| answer.start.is_none()).count();
            println!("{name}: {} questions, {moved} answers not where they should be, {lost} nowhere", records.len());
            assert_eq!(records.len() as u64 + table.faults().count, expected, "{name}");
            for record in &records {
                for answer in record.answers.iter().filter(|answer| answer.start.is_some()) {
                    assert!(
                        record
                            .context
                            .chars()
                            .skip(answer.start.unwrap())
                            .collect::<String>()
                            .starts_with(&answer.text)
                    );
                }
            }
        }
    }
    count::<Choice>("cot_misc/CommonsenseQA__dev_rand_split.jsonl", |settings| settings, 1221);
    if let (Some(source), Some(target)) = (shared("multi30k/train.en.gz"), shared("multi30k/train.de.gz")) {
        let format = Some(TableFormat::Parallel);
        let pairs = read::<Parallel>(TableSettings { paths: vec![source, target], format, ..TableSettings::new("") });
        assert_eq!(pairs.len(), 29000);
    }
}

#[test]
fn quotes_told_wrong_are_an_error_not_a_loss() {
    let Some(path) = shared("mrpc/msr-para-train.tsv") else { return };
    let settings = TableSettings { quotes: Some(Quotes::Rfc), ..TableSettings::new(path) };
    let message = Table::new(settings).unwrap().records::<Labelled>().find_map(Result::err).unwrap().to_string();
    assert!(message.contains("set `quotes = \"raw\"`"), "{message}");
}
