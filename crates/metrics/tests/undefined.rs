//! What has no value is an error that says why, never a NaN and never a panic.
#![expect(clippy::unwrap_used, reason = "tests")]

use phyla_metrics::bleu::{self, Bleu, Smoothing};
use phyla_metrics::classification::{self, Classes, ConfusionMatrix, is_in_top, top_k_accuracy};
use phyla_metrics::likelihood::{Likelihood, perplexity};
use phyla_metrics::multilabel::MultiLabel;
use phyla_metrics::rouge::{self, Rouge};
use phyla_metrics::squad::{Squad, Version};
use phyla_metrics::tags::{Scheme, entities};
use phyla_metrics::{Error, chrf, cmrc, regression};

#[track_caller]
fn fails<T: std::fmt::Debug>(result: Result<T, Error>, part: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(part), "`{message}` does not say `{part}`");
}

#[test]
fn classes_out_of_range_and_empty_data_are_errors() {
    let mut matrix = ConfusionMatrix::new(3);
    fails(matrix.add(3, 0), "reference: expected a class below 3, found 3");
    fails(matrix.add(0, 7), "prediction: expected a class below 3, found 7");
    fails(matrix.extend(&[0, 1], &[0]), "predictions: expected 2, as many as there are references, found 1");
    // A batch with a bad class leaves nothing behind.
    fails(matrix.extend(&[0, 1], &[0, 3]), "found 3");
    fails(matrix.report(Classes::All), "accuracy: nothing to score; at least one sample is needed");
    fails(matrix.matthews(), "nothing to score");
    fails(matrix.binary(3), "positive class");
    fails(matrix.merge(&ConfusionMatrix::new(2)), "expected 3 classes, found 2");
    fails(classification::accuracy::<u32, u32>(&[], &[]), "nothing to score");
    fails(classification::accuracy(&["a"], &["a", "b"]), "expected 1");
    fails(ConfusionMatrix::new(0).add(0, 0), "below 0");

    let mut labels = MultiLabel::new(2);
    fails(labels.add(&[true], &[true, false]), "labels of a reference: expected 2");
    fails(labels.add(&[true, true], &[true]), "labels of a prediction: expected 2");
    fails(labels.report(), "subset accuracy: nothing to score");
}

#[test]
fn top_k_refuses_what_cannot_be_ranked() {
    fails(is_in_top(&[0.0, f32::NAN], 0, 1), "the score of class 1 is not a number");
    fails(is_in_top(&[0.0, 1.0], 2, 1), "expected a class below 2, found 2");
    fails(is_in_top(&[0.0, 1.0], 0, 0), "at least 1, found 0");
    fails(top_k_accuracy(&[0.0; 5], 3, &[0, 1], 1), "expected 6");
    fails(top_k_accuracy(&[], 3, &[], 1), "nothing to score");
    fails(top_k_accuracy(&[], 0, &[0], 1), "at least one class, found 0");
    assert!(is_in_top(&[f32::NEG_INFINITY, f32::INFINITY], 1, 1).unwrap());
}

#[test]
fn correlation_with_a_constant_is_an_error() {
    let (x, y) = ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]);
    fails(regression::pearson(&x, &y), "Pearson correlation is undefined: the predictions are constant (0.1)");
    fails(regression::spearman(&y, &x), "Spearman correlation is undefined: the references are constant");
    fails(regression::pearson(&[1.0], &[1.0]), "at least two samples, found 1");
    fails(regression::spearman(&[], &[]), "at least two samples, found 0");
    fails(regression::pearson(&x, &[1.0, f64::NAN, 2.0]), "expected a finite number, found NaN as prediction 1");
    fails(regression::spearman(&[f64::INFINITY, 0.0], &[0.0, 1.0]), "found inf as reference 0");
    fails(regression::mean_squared_error(&[], &[]), "nothing to score");
    fails(regression::mean_squared_error(&[1e200], &[-1e200]), "too large");
    fails(regression::mean_absolute_error(&[1.0], &[]), "expected 1");
    fails(regression::pearson(&[f64::MAX, -f64::MAX, f64::MAX], &x), "too large or too close");
    // Squares of these vanish; the correlation does not.
    assert!((regression::pearson(&[1e-200, 2e-200, 3e-200], &x).unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(regression::spearman(&[0.0, -0.0, 1.0], &[5.0, 5.0, 6.0]), Ok(1.0));
}

#[test]
fn tags_outside_the_scheme_are_errors() {
    for (tags, scheme) in [
        (["B-PER", "X-PER"], Scheme::Lenient),
        (["B-PER", "BPER"], Scheme::Lenient),
        (["B-PER", ""], Scheme::Lenient),
        (["B-PER", "E-PER"], Scheme::Iob2),
        (["B-PER", "U-PER"], Scheme::Iobes),
        (["B-PER", "E-PER"], Scheme::Bilou),
        (["B-PER", "人-PER"], Scheme::Iob2),
    ] {
        fails(entities(&tags, scheme), "tag 1: expected one of O B I");
    }
    fails(entities(&["O-PER"], Scheme::Iob2), "expected `O` to stand alone");
    assert_eq!(entities::<&str>(&[], Scheme::Iob2), Ok(vec![]));
}

#[test]
fn texts_without_references_are_errors() {
    let none: [&str; 0] = [];
    let mut bleu = Bleu::new(bleu::Options::default()).unwrap();
    fails(bleu.score(), "BLEU: nothing to score; at least one segment");
    fails(bleu.add("a", &none), "BLEU: nothing to score; at least one reference for each segment");
    fails(bleu::corpus(&["a"], &[["a"], ["b"]], bleu::Options::default()), "hypotheses: expected 2");
    fails(chrf::sentence("a", &none, chrf::Options::default()), "chrF: nothing to score");
    fails(chrf::corpus(&none, &[["a"]], chrf::Options::plus_plus()), "hypotheses: expected 1");
    fails(Squad::new(Version::V1).add(&none, "a"), "at least one answer");
    fails(Squad::new(Version::V2).add_with(&none, "a", f64::NAN), "NaN");
    fails(Squad::new(Version::V2).report(), "SQuAD: nothing to score");
    fails(Squad::new(Version::V2).best(), "SQuAD: nothing to score");
    fails(cmrc::Cmrc::default().add(&none, "a"), "at least one answer");
    fails(cmrc::Cmrc::default().report(), "CMRC: nothing to score");
    fails(rouge::best(&none, "a", Rouge::L), "ROUGE: nothing to score");
}

#[test]
fn settings_out_of_range_are_errors() {
    let bleu = |options| Bleu::new(options).map(|_| ());
    for max_order in [0, 33, usize::MAX] {
        fails(bleu(bleu::Options { max_order, ..Default::default() }), "`max_order` from 1 to 32");
    }
    for value in [-0.1, f64::NAN, f64::INFINITY] {
        for smoothing in [Smoothing::Floor(value), Smoothing::AddK(value)] {
            fails(bleu(bleu::Options { smoothing, ..Default::default() }), "smoothing value of at least 0");
        }
    }
    for (char_order, word_order) in [(0, 0), (33, 0), (6, usize::MAX)] {
        fails(chrf::sentence("a", &["a"], chrf::Options { char_order, word_order, ..Default::default() }), "chrF");
    }
    fails("13b".parse::<bleu::Tokenizer>(), "expected a tokenizer out of 13a, zh, char, intl, none; found `13b`");
    fails(rouge::score("a", "a", Rouge::N(0)), "at least one word");
    let other = Bleu::new(bleu::Options { lowercase: true, ..Default::default() }).unwrap();
    fails(Bleu::new(bleu::Options::default()).unwrap().merge(&other), "case:mixed");
}

#[test]
fn perplexity_of_nothing_or_too_much_is_an_error() {
    assert_eq!(perplexity(0.0, 4), Ok(1.0));
    assert!((perplexity(8.0f64.ln() * 5.0, 5).unwrap() - 8.0).abs() < 1e-12);
    fails(perplexity(0.0, 0), "perplexity: nothing to score; at least one token");
    fails(perplexity(f64::NAN, 1), "expected finite nats, found NaN");
    fails(perplexity(1e4, 1), "perplexity is undefined: the exponential of 10000 nats per token overflows");
    let mut sum = Likelihood::default();
    sum.add(std::f64::consts::LN_2 * 6.0, 2, 3).unwrap();
    assert!((sum.bits_per_byte().unwrap() - 2.0).abs() < 1e-12);
    fails(sum.add(f64::INFINITY, 1, 1), "found inf");
    assert_eq!(sum.tokens, 2);
}
