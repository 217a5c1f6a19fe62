//! Every metric against its reference implementation, on the fixture that `tests/golden/metrics.py` writes.
//!
//! Two tolerances, both relative to the larger of the value and 1. `SAME` (1e-12) where both sides add the same few
//! hundred terms, at most in another order. `EXPANDED` (1e-9) where correlations take differences of numbers near 1e6
//! first, which cost six digits on either side. Texts, counts and ids are equal.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::LazyLock;

use phyla_metrics::classification::{Classes, ConfusionMatrix, accuracy, top_k_accuracy};
use phyla_metrics::entities::EntityCounts;
use phyla_metrics::multilabel::MultiLabel;
use phyla_metrics::rouge::{self, Rouge};
use phyla_metrics::squad::{self, Squad, Version};
use phyla_metrics::tags::{Scheme, entities};
use phyla_metrics::{Averages, Scores, bleu, chrf, cmrc, regression};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const SAME: f64 = 1e-12;
const EXPANDED: f64 = 1e-9;

static FIXTURE: LazyLock<Value> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
});

fn section(name: &str) -> &'static [Value] {
    let section = FIXTURE[name].as_array().unwrap();
    assert!(!section.is_empty(), "{name}");
    section
}

fn get<T: DeserializeOwned>(case: &Value, key: &str) -> T {
    T::deserialize(&case[key]).unwrap_or_else(|error| panic!("{key}: {error}"))
}

#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64, context: &impl std::fmt::Debug) {
    let error = (found - expected).abs() / expected.abs().max(1.0);
    assert!(error <= tolerance, "found {found}, expected {expected} ({error:.1e} apart) in {context:?}");
}

#[track_caller]
fn same_scores(found: Scores, expected: &[f64], context: &impl std::fmt::Debug) {
    close(found.precision, expected[0], SAME, context);
    close(found.recall, expected[1], SAME, context);
    close(found.f1, expected[2], SAME, context);
    if let Some(support) = expected.get(3) {
        assert_eq!(found.support as f64, *support, "{context:?}");
    }
}

#[track_caller]
fn same_averages(found: &Averages, case: &Value) {
    for (name, found) in [("micro", found.micro), ("macro", found.macro_), ("weighted", found.weighted)] {
        same_scores(found, &get::<Vec<f64>>(case, name), &(name, case));
    }
}

#[test]
fn classes_score_as_in_scikit_learn() {
    let mut binary = 0;
    for case in section("classification") {
        let (truth, predicted): (Vec<usize>, Vec<usize>) = (get(case, "truth"), get(case, "predicted"));
        let mut matrix = ConfusionMatrix::new(get(case, "classes"));
        let half = truth.len() / 2;
        let mut other = matrix.clone();
        matrix.extend(&truth[..half], &predicted[..half]).unwrap();
        other.extend(&truth[half..], &predicted[half..]).unwrap();
        matrix.merge(&other).unwrap();

        assert_eq!(matrix.rows(), get::<Vec<Vec<u64>>>(case, "matrix"), "{case}");
        close(accuracy(&truth, &predicted).unwrap(), get(case, "accuracy"), SAME, case);
        close(matrix.matthews().unwrap(), get(case, "matthews"), SAME, case);
        for (name, classes) in [("seen", Classes::Seen), ("all", Classes::All)] {
            let report = matrix.report(classes).unwrap();
            close(report.accuracy, get(case, "accuracy"), SAME, case);
            let expected: Vec<Vec<f64>> = get(&case[name], "classes");
            assert_eq!(report.classes.len(), expected.len(), "{case}");
            for ((class, scores), expected) in report.classes.iter().zip(expected) {
                assert_eq!(*class as f64, expected[0], "{case}");
                same_scores(*scores, &expected[1..], case);
            }
            same_averages(&report.averages, &case[name]);
        }
        if case.get("binary").is_some() {
            binary += 1;
            same_scores(matrix.binary(1).unwrap(), &get::<Vec<f64>>(case, "binary"), case);
        }
    }
    assert!(binary > 3, "{binary} binary cases");
}

#[test]
fn labels_score_as_in_scikit_learn() {
    for case in section("multilabel") {
        let (truth, predicted): (Vec<Vec<bool>>, Vec<Vec<bool>>) = (get(case, "truth"), get(case, "predicted"));
        let mut labels = MultiLabel::new(truth[0].len());
        for (truth, predicted) in truth.iter().zip(&predicted) {
            labels.add(truth, predicted).unwrap();
        }
        let report = labels.report().unwrap();
        close(report.subset_accuracy, get(case, "subset"), SAME, case);
        for (scores, expected) in report.labels.iter().zip(get::<Vec<Vec<f64>>>(case, "labels")) {
            same_scores(*scores, &expected, case);
        }
        same_averages(&report.averages, case);
        same_scores(report.samples, &get::<Vec<f64>>(case, "samples"), case);
    }
}

#[test]
fn top_k_breaks_ties_as_scikit_learn_does() {
    for case in section("top_k") {
        let scores: Vec<f32> = get::<Vec<Vec<f32>>>(case, "scores").concat();
        let (classes, truth): (usize, Vec<usize>) = (get(case, "classes"), get(case, "truth"));
        for (k, expected) in get::<Vec<f64>>(case, "expected").into_iter().enumerate() {
            close(top_k_accuracy(&scores, classes, &truth, k + 1).unwrap(), expected, SAME, &(k + 1, case));
        }
    }
}

#[test]
fn numbers_score_as_in_scipy() {
    for case in section("regression") {
        let (x, y): (Vec<f64>, Vec<f64>) = (get(case, "x"), get(case, "y"));
        close(regression::pearson(&x, &y).unwrap(), get(case, "pearson"), EXPANDED, case);
        close(regression::spearman(&x, &y).unwrap(), get(case, "spearman"), SAME, case);
        assert_eq!(regression::ranks(&x), get::<Vec<f64>>(case, "ranks"), "{case}");
        close(regression::mean_absolute_error(&x, &y).unwrap(), get(case, "mae"), SAME, case);
        close(regression::mean_squared_error(&x, &y).unwrap(), get(case, "mse"), SAME, case);
    }
}

#[test]
fn entities_are_those_of_seqeval() {
    for case in section("entities") {
        let scheme: Scheme = get(case, "scheme");
        let (truth, predicted): (Vec<Vec<String>>, Vec<Vec<String>>) = (get(case, "truth"), get(case, "predicted"));
        let expected: Vec<Vec<(String, usize, usize)>> = get(case, "entities");
        let mut counts = EntityCounts::new(scheme);
        for ((truth, predicted), expected) in truth.iter().zip(&predicted).zip(expected) {
            let found = entities(truth, scheme).unwrap();
            let found: Vec<_> =
                found.into_iter().map(|found| (found.kind.to_owned(), found.start, found.end)).collect();
            assert_eq!(found, expected, "{truth:?}");
            counts.add(truth, predicted).unwrap();
        }
        if case.get("accuracy").is_none() {
            assert!(counts.report().is_err());
            continue;
        }
        let report = counts.report().unwrap();
        close(report.accuracy, get(case, "accuracy"), SAME, case);
        if let Some(averages) = case.get("averages") {
            same_averages(&report.averages, averages);
            let kinds = case["kinds"].as_object().unwrap();
            assert_eq!(report.kinds.len(), kinds.len(), "{case}");
            for (kind, expected) in kinds {
                same_scores(report.kinds[kind], &Vec::<f64>::deserialize(expected).unwrap(), case);
            }
        }
    }
}

#[test]
fn answers_score_as_in_squad() {
    for pair in FIXTURE["squad"]["normalized"].as_array().unwrap() {
        assert_eq!(squad::normalize(pair[0].as_str().unwrap()), pair[1].as_str().unwrap(), "{pair}");
    }
    for case in FIXTURE["squad"]["cases"].as_array().unwrap() {
        let version = if case["version"] == 1 { Version::V1 } else { Version::V2 };
        let mut all = Squad::new(version);
        for question in case["questions"].as_array().unwrap() {
            let (answers, prediction): (Vec<String>, String) = (get(question, "answers"), get(question, "prediction"));
            let mut one = Squad::new(version);
            one.add(&answers, &prediction).unwrap();
            let report = one.report().unwrap().all;
            close(report.exact, 100.0 * get::<f64>(question, "exact"), SAME, question);
            close(report.f1, 100.0 * get::<f64>(question, "f1"), SAME, question);
            all.add_with(&answers, &prediction, get(question, "score")).unwrap();
        }
        for (name, report) in [("report", all.report().unwrap()), ("above", all.report_above(0.5).unwrap())] {
            let expected: Vec<Option<(f64, f64, u64)>> = get(case, name);
            // Version 1 has no parts.
            let parts = if version == Version::V1 { 1 } else { 3 };
            for (found, expected) in
                [Some(report.all), report.has_answer, report.no_answer].iter().zip(&expected[..parts])
            {
                assert_eq!(found.is_some(), expected.is_some(), "{name} {case}");
                let (Some(found), Some(expected)) = (found, expected) else { continue };
                close(found.exact, expected.0, SAME, case);
                close(found.f1, expected.1, SAME, case);
                assert_eq!(found.total, expected.2);
            }
        }
        let (best, expected) = (all.best().unwrap(), get::<Vec<(f64, f64)>>(case, "best"));
        close(best.exact, expected[0].0, SAME, case);
        close(best.f1, expected[1].0, SAME, case);
        assert_eq!((best.exact_threshold, best.f1_threshold), (expected[0].1, expected[1].1), "{case}");
    }
}

#[test]
fn chinese_answers_score_as_in_cmrc() {
    for pair in FIXTURE["cmrc"]["segments"].as_array().unwrap() {
        let found = cmrc::segments(pair[0].as_str().unwrap()).unwrap();
        assert_eq!(found, Vec::<String>::deserialize(&pair[1]).unwrap(), "{pair}");
    }
    let (mut all, mut exact, mut f1) = (cmrc::Cmrc::default(), 0.0, 0.0);
    for question in FIXTURE["cmrc"]["questions"].as_array().unwrap() {
        let (answers, prediction): (Vec<String>, String) = (get(question, "answers"), get(question, "prediction"));
        all.add(&answers, &prediction).unwrap();
        f1 += get::<f64>(question, "f1");
        exact += f64::from(u8::from(get::<bool>(question, "exact")));
        let (report, total) = (all.report().unwrap(), all.report().unwrap().total as f64);
        close(report.f1, 100.0 * f1 / total, SAME, question);
        close(report.exact, 100.0 * exact / total, SAME, question);
    }
    let before = all.report().unwrap();
    all.skip();
    close(all.report().unwrap().f1 * (before.total + 1) as f64, before.f1 * before.total as f64, SAME, &before);
}

#[test]
fn words_are_those_of_sacrebleu() {
    let names: Vec<String> = get(&FIXTURE["bleu"], "tokenizers");
    let tokenizers: Vec<bleu::Tokenizer> = names.iter().map(|name| name.parse().unwrap()).collect();
    assert_eq!(tokenizers.len(), 5);
    for row in FIXTURE["bleu"]["tokenized"].as_array().unwrap() {
        let row = Vec::<String>::deserialize(row).unwrap();
        // sacrebleu cuts the ends of lines before it tokenises; spaces Python-wise, with the four separators.
        let space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
        let line = row[0].trim_end_matches(space);
        for (tokenizer, expected) in tokenizers.iter().zip(&row[1..]) {
            let found = tokenizer.tokenize(line);
            let words: Vec<&str> = found.split(space).filter(|word| !word.is_empty()).collect();
            assert_eq!(words.join(" "), *expected, "{tokenizer} of {line:?}");
        }
    }
}

#[test]
fn translations_score_as_in_sacrebleu() {
    for case in FIXTURE["bleu"]["cases"].as_array().unwrap() {
        let (hypotheses, references): (Vec<String>, Vec<Vec<String>>) =
            (get(case, "hypotheses"), get(case, "references"));
        for expected in case["scores"].as_array().unwrap() {
            let options: bleu::Options = get(expected, "options");
            let (mut parts, half) = ([bleu::Bleu::new(options).unwrap(), bleu::Bleu::new(options).unwrap()], 3);
            for (index, (hypothesis, references)) in hypotheses.iter().zip(&references).enumerate() {
                parts[usize::from(index >= half)].add(hypothesis, references).unwrap();
            }
            let [mut all, rest] = parts;
            all.merge(&rest).unwrap();
            let (found, context) = (all.score().unwrap(), (&hypotheses, &references, expected));
            close(found.score, get(expected, "score"), SAME, &context);
            for (found, expected) in found.precisions.iter().zip(get::<Vec<f64>>(expected, "precisions")) {
                close(*found, expected, SAME, &context);
            }
            close(found.brevity_penalty, get(expected, "bp"), SAME, &context);
            assert_eq!(
                (found.sys_len, found.ref_len),
                (get(expected, "sys_len"), get(expected, "ref_len")),
                "{context:?}"
            );
            if expected.get("counts").is_some() {
                assert_eq!(found.counts, get::<Vec<u64>>(expected, "counts"), "{context:?}");
                assert_eq!(found.totals, get::<Vec<u64>>(expected, "totals"), "{context:?}");
            }
            assert_eq!(found.to_string(), get::<String>(expected, "text"), "{context:?}");
            let version = concat!("|version:phyla-", env!("CARGO_PKG_VERSION"));
            assert_eq!(all.signature(), get::<String>(expected, "signature") + version);
            assert_eq!(bleu::corpus(&hypotheses, &references, options).unwrap(), found);
            if let ([hypothesis], [references]) = (&hypotheses[..], &references[..]) {
                assert_eq!(bleu::sentence(hypothesis, references, options).unwrap(), found);
            }
        }
    }
}

#[test]
fn characters_score_as_in_sacrebleu() {
    for case in section("chrf") {
        let (hypotheses, references): (Vec<String>, Vec<Vec<String>>) =
            (get(case, "hypotheses"), get(case, "references"));
        for expected in case["scores"].as_array().unwrap() {
            let options: chrf::Options = get(expected, "options");
            let mut all = chrf::Chrf::new(options).unwrap();
            for (hypothesis, references) in hypotheses.iter().zip(&references) {
                let mut one = chrf::Chrf::new(options).unwrap();
                one.add(hypothesis, references).unwrap();
                all.merge(&one).unwrap();
            }
            let (found, context) = (all.score().unwrap(), (&hypotheses, &references, expected));
            close(found.score, get(expected, "score"), SAME, &context);
            assert_eq!(found.to_string(), get::<String>(expected, "text"), "{context:?}");
            let version = concat!("|version:phyla-", env!("CARGO_PKG_VERSION"));
            assert_eq!(all.signature(), get::<String>(expected, "signature") + version);
            assert_eq!(chrf::corpus(&hypotheses, &references, options).unwrap(), found);
            if let ([hypothesis], [references]) = (&hypotheses[..], &references[..]) {
                assert_eq!(chrf::sentence(hypothesis, references, options).unwrap(), found);
            }
        }
    }
}

#[test]
fn summaries_score_as_in_rouge_score() {
    for case in section("rouge") {
        let (references, summary): (Vec<String>, String) = (get(case, "references"), get(case, "summary"));
        let (first, best): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (get(case, "first"), get(case, "best"));
        for (index, kind) in [Rouge::N(1), Rouge::N(2), Rouge::N(3), Rouge::L].into_iter().enumerate() {
            let one = rouge::score(&references[0], &summary, kind).unwrap();
            let all = rouge::best(&references, &summary, kind).unwrap();
            for (found, expected) in [(one, &first[index]), (all, &best[index])] {
                close(found.precision, expected[0], SAME, &(kind, case));
                close(found.recall, expected[1], SAME, &(kind, case));
                close(found.f1, expected[2], SAME, &(kind, case));
            }
        }
    }
}
