//! Processors against their definitions, and chains of them against transformers.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::*;
use crate::GenerationConfig;

fn applied(processor: &dyn Processor, row: &[f32], history: &History) -> Vec<f32> {
    let mut row = row.to_vec();
    processor.apply(&mut row, history);
    row
}

fn none() -> History {
    History::new(&[])
}

const OUT: f32 = f32::NEG_INFINITY;

#[test]
fn a_history_knows_each_id_once() {
    let mut history = History::new(&[5, 700, 5]);
    history.push(700);
    history.push(2);
    assert_eq!(history.distinct(), [5, 700, 2]);
    assert_eq!((history.prompt(), history.new_ids()), (&[5, 700, 5][..], &[700, 2][..]));
}

#[test]
fn repetition_moves_logits_away_from_repeating_whatever_their_sign() {
    let history = History::new(&[0, 1, 1, 9]);
    assert_eq!(applied(&RepetitionPenalty(2.), &[3., -3., 1., -1.], &history), [1.5, -6., 1., -1.]);
}

#[test]
fn the_end_waits_for_the_shortest_length() {
    let mut history = History::new(&[1, 1]);
    let least = MinLength { all: 0, new: 1, eos: vec![1, 50] };
    assert_eq!(applied(&least, &[0., 1.], &history), [0., OUT]);
    history.push(0);
    assert_eq!(applied(&least, &[0., 1.], &history), [0., 1.]);
    assert_eq!(applied(&MinLength { all: 4, ..least.clone() }, &[0., 1.], &history), [0., OUT]);
    assert_eq!(applied(&MinLength { all: 3, ..least }, &[0., 1.], &history), [0., 1.]);
    assert_eq!(applied(&Suppress(vec![0, 7]), &[0., 1.], &history), [OUT, 1.]);
}

#[test]
fn a_run_of_ids_does_not_come_twice() {
    let row = [1., 2., 3., 4.];
    let history = History::new(&[0, 1, 2, 0, 1, 3, 0, 1]);
    assert_eq!(applied(&NoRepeatNgram(3), &row, &history), [1., 2., OUT, OUT]);
    assert_eq!(applied(&NoRepeatNgram(2), &row, &history), [1., 2., OUT, OUT]);
    assert_eq!(applied(&NoRepeatNgram(1), &row, &History::new(&[3, 9])), [1., 2., 3., OUT]);
    assert_eq!(applied(&NoRepeatNgram(9), &row, &history), row);
    assert_eq!(applied(&NoRepeatNgram(10), &row, &history), row);
    assert_eq!(applied(&NoRepeatNgram(usize::MAX), &row, &history), row);
    // The run that is beginning does not forbid its own next id.
    assert_eq!(applied(&NoRepeatNgram(2), &row, &History::new(&[1, 1])), [1., OUT, 3., 4.]);
    assert_eq!(applied(&NoRepeatNgram(2), &row, &History::new(&[1])), row);
}

#[test]
fn bad_words_end_where_their_beginning_stands() {
    let bad = BadWords(vec![vec![0], vec![5, 1], vec![9, 5, 2], vec![7]]);
    assert_eq!(applied(&bad, &[1.; 4], &History::new(&[5])), [OUT, OUT, 1., 1.]);
    assert_eq!(applied(&bad, &[1.; 4], &History::new(&[9, 5])), [OUT, OUT, OUT, 1.]);
    assert_eq!(applied(&bad, &[1.; 4], &none()), [OUT, 1., 1., 1.]);
    // What ends a sequence is no bad word.
    let settings = |value: Value| {
        crate::Settings::try_from(&GenerationConfig::from_map(value.as_object().unwrap()).unwrap().0).unwrap()
    };
    let settings = settings(serde_json::json!({ "eos_token_id": [3, 1], "bad_words_ids": [[1], [2]] }));
    let mut row = [1.; 4];
    chain(&settings).iter().for_each(|processor| processor.apply(&mut row, &none()));
    assert_eq!(row, [1., 1., OUT, 1.]);
}

#[test]
fn forced_ids_stand_alone_at_their_place() {
    let row = [1., 2., 3.];
    let mut history = History::new(&[0]).limited(2);
    assert_eq!(applied(&ForcedBos(2), &row, &history), [OUT, OUT, 0.]);
    assert_eq!(applied(&ForcedEos(vec![0, 1]), &row, &history), row);
    let begin = |forced| BeginSuppress { ids: vec![1], forced, later: 0 };
    assert_eq!(applied(&begin(false), &row, &history), [1., OUT, 3.]);
    assert_eq!(applied(&begin(true), &row, &history), row);
    history.push(2);
    assert_eq!(applied(&ForcedBos(2), &row, &history), row);
    assert_eq!(applied(&ForcedEos(vec![0, 1]), &row, &history), [0., 0., OUT]);
    assert_eq!(applied(&begin(false), &row, &history), row);
    assert_eq!(applied(&begin(true), &row, &history), [1., OUT, 3.]);
}

#[test]
fn so_many_ids_remain() {
    let row = [0., 3., 1., 2.];
    for (ids, expected) in [(1, [OUT, 3., OUT, OUT]), (2, [OUT, 3., OUT, 2.]), (9, row)] {
        assert_eq!(applied(&AtLeast { ids, inner: MinP(1.) }, &row, &none()), expected);
        assert_eq!(applied(&AtLeast { ids, inner: TopP(0.) }, &row, &none()), expected);
    }
    let halves = applied(&Renormalize, &[7., OUT, 7.], &none());
    assert!((halves[0] + 2f32.ln()).abs() < 1e-6 && halves[1] == OUT, "{halves:?}");
    assert_eq!(applied(&Renormalize, &[OUT, OUT], &none()), [OUT, OUT]);
}

#[test]
fn top_k_keeps_the_k_largest_and_their_equals() {
    let row = [1., 4., 3., 4., 2.];
    assert_eq!(applied(&TopK(1), &row, &none()), [OUT, 4., OUT, 4., OUT]);
    assert_eq!(applied(&TopK(3), &row, &none()), [OUT, 4., 3., 4., OUT]);
    assert_eq!(applied(&TopK(9), &row, &none()), row);
    // Fewer possible ids than k: those that are ruled out stay so.
    assert_eq!(applied(&TopK(3), &[OUT, 1., OUT, 2., OUT], &none()), [OUT, 1., OUT, 2., OUT]);
    // Against a full sort, over many more values than k, ties among them.
    let mut rng = phyla_kernels::rng::Rng::new(1);
    let row: Vec<f32> = (0..5000).map(|_| (rng.next_f32() * 700.).floor()).collect();
    let mut sorted = row.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    for k in [1, 2, 50, 63, 64, 777, 4999] {
        let kept = applied(&TopK(k), &row, &none());
        let expected: Vec<f32> = row.iter().map(|&x| if x >= sorted[k - 1] { x } else { OUT }).collect();
        assert_eq!(kept, expected, "{k}");
    }
}

#[test]
fn top_p_keeps_the_fewest_that_hold_the_probability() {
    let row = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln);
    let kept = |p: f32| -> Vec<usize> {
        let row = applied(&TopP(p), &row, &none());
        (0..4).filter(|&id| row[id] > OUT).collect()
    };
    assert_eq!(kept(0.), [1]);
    assert_eq!(kept(0.39), [1]);
    assert_eq!(kept(0.41), [1, 3]);
    assert_eq!(kept(0.69), [1, 3]);
    assert_eq!(kept(0.71), [1, 2, 3]);
    assert_eq!(kept(0.91), [0, 1, 2, 3]);
    assert_eq!(kept(1.), [0, 1, 2, 3]);
    // What another processor has ruled out stays so.
    assert_eq!(applied(&TopP(0.9), &[OUT, 0., OUT], &none()), [OUT, 0., OUT]);
    assert_eq!(applied(&TopP(0.), &[1., 1., 0.], &none()), [1., OUT, OUT]);
    // Of equals the lower ids stay.
    assert_eq!(applied(&TopP(0.6), &[1., 1., 1., 1.], &none()), [1., 1., 1., OUT]);
    // Against a full sort, where the nucleus is most of many.
    let mut rng = phyla_kernels::rng::Rng::new(2);
    let row: Vec<f32> = (0..3000).map(|_| rng.normal()).collect();
    let weights: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let total: f64 = weights.iter().sum();
    for p in [0.02, 0.3, 0.9, 0.995] {
        let mut before = 0.;
        let expected = order
            .iter()
            .take_while(|&&id| {
                let keep = before < f64::from(p) * total;
                before += weights[id];
                keep
            })
            .count();
        let found = applied(&TopP(p), &row, &none()).iter().filter(|&&x| x > OUT).count();
        // Sums of f32 and of f64 exponentials may disagree about the one at the border.
        assert!(found.abs_diff(expected) <= 1, "{p}: {found} for {expected}");
    }
}

#[test]
fn min_p_is_relative_to_the_likeliest() {
    let row = [0.5f32, 0.25, 0.2, 0.05].map(f32::ln);
    assert_eq!(applied(&MinP(0.3), &row, &none()), [row[0], row[1], row[2], OUT]);
    assert_eq!(applied(&MinP(0.45), &row, &none()), [row[0], row[1], OUT, OUT]);
    assert_eq!(applied(&MinP(1.), &row, &none()), [row[0], OUT, OUT, OUT]);
}

#[derive(Deserialize)]
struct Case {
    name: String,
    settings: Map<String, Value>,
    prompt: Vec<u32>,
    new: Vec<u32>,
    source: Option<Vec<u32>>,
    logits: Vec<Value>,
    expected: Vec<Option<f32>>,
    #[serde(default)]
    then: Vec<Step>,
}

/// A further step, of what learns.
#[derive(Deserialize)]
struct Step {
    /// What was drawn in the one before.
    drawn: u32,
    logits: Vec<Value>,
    expected: Vec<Option<f32>>,
}

#[test]
fn occurrences_count_in_the_answer_alone() {
    let mut history = History::new(&[0, 1, 1]);
    [2, 3, 2, 9].iter().for_each(|&id| history.push(id));
    let penalty = OccurrencePenalty { frequency: 0.5, presence: 0.25 };
    assert_eq!(applied(&penalty, &[1.; 4], &history), [1., 1., -0.25, 0.25]);
}

#[test]
fn the_source_is_the_encoders_text_or_else_the_prompt() {
    let decoder = History::new(&[0, 5, 6]);
    assert_eq!(decoder.source(), [0, 5, 6]);
    let behind = decoder.answering(Some([1, 2].into()));
    assert_eq!(behind.source(), [1, 2]);
    let mut copy = History::new(&[]);
    copy.copy_from(&behind);
    assert_eq!(copy.source(), [1, 2]);
    copy.copy_from(&behind.clone().drawing(&Rng::new(9)).numbered(4));
    assert_eq!(copy.number(), 4);
    assert_eq!(copy.chance("a"), behind.clone().drawing(&Rng::new(9)).chance("a"));
    assert_ne!(copy.chance("a"), behind.chance("a"));
    // A run of the source whose beginning stands at the end.
    let mut history = History::new(&[0]).answering(Some([7, 1, 7, 2, 3, 7].into()));
    assert_eq!(applied(&NoSourceNgram(2), &[1.; 4], &history), [1.; 4]);
    history.push(7);
    assert_eq!(applied(&NoSourceNgram(2), &[1.; 4], &history), [1., OUT, OUT, 1.]);
}

#[test]
fn hostile_rows_do_not_break_what_shapes_the_distribution() {
    let ids = |processor: &dyn Processor, row: &[f32]| -> usize {
        applied(processor, row, &none()).iter().filter(|x| **x > OUT).count()
    };
    for row in [vec![OUT; 5], vec![0.; 300], vec![3.], vec![OUT, 2., OUT], vec![f32::NAN, 1., 2.]] {
        let possible = row.iter().filter(|x| **x > OUT).count();
        for processor in [&TopH(0.5) as &dyn Processor, &Typical { mass: 0.4, ids: 1 }, &Epsilon(0.9), &Eta(0.9)] {
            assert!(ids(processor, &row) <= row.len());
            if possible > 0 && !row[0].is_nan() {
                assert!(ids(processor, &row) >= 1, "{row:?}");
            }
        }
    }
    // The likeliest stays although it is less likely than the cut-off.
    assert_eq!(ids(&Epsilon(0.9), &[1., 2., 3.]), 1);
    assert_eq!(applied(&RemoveInvalid, &[f32::NAN, f32::INFINITY, OUT, 1.], &none()), [0., f32::MAX, f32::MIN, 1.]);
}

/// The cases of a file, and what our chains make of each.
fn compare(file: &str, least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file);
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= least);
    for case in cases {
        let (config, warnings) = GenerationConfig::from_map(&case.settings).unwrap();
        assert!(warnings.iter().all(|warning| warning.contains("greedy")), "{}: {warnings:?}", case.name);
        let settings = crate::Settings::try_from(&config).unwrap();
        let chain = chain(&settings);
        let mut history = History::new(&case.prompt).answering(case.source.map(Into::into));
        case.new.iter().for_each(|&id| history.push(id));
        let mut row = expect(&case.name, &chain, &history, &case.logits, &case.expected);
        for step in case.then {
            settings.sampling.unwrap().mirostat.unwrap().learn(&row, step.drawn, &mut history);
            history.push(step.drawn);
            row = expect(&case.name, &chain, &history, &step.logits, &step.expected);
        }
    }
}

fn expect(
    name: &str,
    chain: &[Box<dyn Processor>],
    history: &History,
    logits: &[Value],
    expected: &[Option<f32>],
) -> Vec<f32> {
    // What JSON has no numbers for is text.
    let logit = |x: &Value| x.as_f64().map_or_else(|| x.as_str().unwrap().parse().unwrap(), |x| x as f32);
    let mut row: Vec<f32> = logits.iter().map(logit).collect();
    chain.iter().for_each(|processor| processor.apply(&mut row, history));
    for (id, (&ours, theirs)) in row.iter().zip(expected).enumerate() {
        // A division and some products: a rounding each, either way.
        let same = match theirs {
            None => ours == OUT,
            Some(theirs) => (ours - theirs).abs() <= 6. * f32::EPSILON * theirs.abs(),
        };
        assert!(same, "{name}: id {id}: {ours} for {theirs:?}");
    }
    row
}

#[test]
fn chains_equal_the_reference() {
    compare("processors.json", 40);
}

#[test]
fn samplers_equal_llama_cpps() {
    compare("samplers.json", 30);
}

#[test]
fn chains_equal_an_older_reference() {
    compare("processors4.json", 30);
}

#[test]
fn xtc_acts_as_often_as_it_is_told() {
    let row = [3f32, 2.9, 1., 0.];
    let xtc = Xtc { probability: 0.3, threshold: 0.1 };
    let mut acted = 0;
    for sequence in 0..2000 {
        let mut history = History::new(&[1]).drawing(&Rng::new(7).split(sequence));
        let first = applied(&xtc, &row, &history);
        // The same step has the same draw, and a further one another.
        assert_eq!(applied(&xtc, &row, &history.clone()), first);
        history.push(0);
        for after in [first, applied(&xtc, &row, &history)] {
            assert!(after == row || after == [OUT, 2.9, 1., 0.], "{after:?}");
            acted += usize::from(after[0] == OUT);
        }
    }
    // Of 4,000 draws 1,200 are expected, with a standard deviation of 29.
    assert!((1113..=1287).contains(&acted), "{acted}");
}

#[test]
fn no_run_goes_beyond_a_breaker() {
    // abcXabc: `a` would follow nothing, `X` ends a run of three.
    let history = History::new(&[0, 1, 2, 9, 0, 1, 2]);
    let dry = |breakers: Vec<Vec<u32>>, allowed| Dry {
        multiplier: 1.,
        base: 2.,
        allowed,
        last: usize::MAX,
        texts: None,
        breakers,
    };
    let row = [0.; 10];
    let cost = |breakers: Vec<Vec<u32>>, allowed| -applied(&dry(breakers, allowed), &row, &history)[9];
    assert_eq!(cost(vec![], 1), 4.);
    assert_eq!(cost(vec![], 3), 1.);
    assert_eq!(cost(vec![], 4), 0.);
    // The last one breaks; of one of two ids, where it begins.
    assert_eq!(cost(vec![vec![1]], 1), 1.);
    assert_eq!(cost(vec![vec![0]], 1), 2.);
    assert_eq!(cost(vec![vec![0, 1]], 1), 1.);
    assert_eq!(cost(vec![vec![1, 2]], 1), 0.);
    assert_eq!(cost(vec![vec![2]], 1), 0.);
    assert_eq!(cost(vec![vec![1, 5], vec![5]], 1), 4.);
    // It may come again itself.
    assert_eq!(cost(vec![vec![9]], 1), 0.);
    assert_eq!(cost(vec![vec![9, 5]], 1), 4.);
    // Texts: a token that holds one, and one that it begins in, with the ids of the rest.
    let tokenizer = phyla_data::tokenizer::Tokenizer::from_characters("ab:*".chars()).unwrap();
    let id = |text: &str| tokenizer.encode(text, false).unwrap();
    let resolved = |texts: &[&str]| {
        let texts = Some(texts.iter().map(ToString::to_string).collect());
        Dry { texts, ..dry(vec![], 1) }.resolved(&tokenizer).unwrap().breakers
    };
    assert_eq!(resolved(&[":"]), [id(":")]);
    assert_eq!(resolved(&["b:a"]), [id("b:a")]);
    assert!(resolved(&[]).is_empty());
    let usual = dry(vec![], 1).resolved(&tokenizer).unwrap().breakers;
    assert!(usual.contains(&id(":")) && usual.contains(&id("*")) && !usual.contains(&id("a")));
}

fn softmax(row: &[Option<f32>]) -> Vec<f64> {
    let most = row.iter().flatten().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
    let weights: Vec<f64> = row.iter().map(|x| x.map_or(0., |x| f64::from(x - most).exp())).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// Draws 20,000 times through the chain of these settings, each in a sequence of its own, and compares with these probabilities.
fn draws_follow(name: &str, settings: &Map<String, Value>, case: &Case, expected: &[f64]) {
    let settings = crate::Settings::try_from(&GenerationConfig::from_map(settings).unwrap().0).unwrap();
    let chain = chain(&settings);
    let logits: Vec<f32> = case.logits.iter().map(|x| x.as_f64().unwrap() as f32).collect();
    let draws = 20_000;
    let mut counts = vec![0u32; logits.len()];
    let (mut row, stream) = (vec![], Rng::new(5).split(name));
    let mut start = History::new(&case.prompt).answering(case.source.clone().map(Into::into));
    case.new.iter().for_each(|&id| start.push(id));
    for sequence in 0..draws {
        let rng = stream.split(sequence);
        let history = start.clone().drawing(&rng);
        row.clone_from(&logits);
        chain.iter().for_each(|processor| processor.apply(&mut row, &history));
        counts[sampler::draw(&row, &rng, history.new_ids().len() as u64).unwrap() as usize] += 1;
    }
    // Rare ids count together; impossible ones never come.
    let (mut chi, mut bins, mut rare) = (0., 0, (0., 0.));
    for (id, (&count, &p)) in counts.iter().zip(expected).enumerate() {
        let (count, expected) = (f64::from(count), p * draws as f64);
        assert!(p > 0. || count == 0., "{name}: {id} has no probability");
        if expected < 5. {
            rare = (rare.0 + count, rare.1 + expected);
        } else {
            chi += (count - expected).powi(2) / expected;
            bins += 1;
        }
    }
    if rare.1 >= 5. {
        chi += (rare.0 - rare.1).powi(2) / rare.1;
        bins += 1;
    }
    // Below in 9,999 of 10,000 experiments (Wilson and Hilferty 1931); these are fixed by their seeds.
    let freedom = f64::from(bins - 1);
    let bound = match bins {
        // All in one place, but for the rare.
        1 => 1e-3,
        _ => freedom * (1. - 2. / (9. * freedom) + 3.72 * (2. / (9. * freedom)).sqrt()).powi(3),
    };
    assert!(chi <= bound, "{name}: chi-square {chi} of {freedom} degrees of freedom");
}

#[test]
fn draws_follow_the_references_probabilities() {
    let mut compared = 0;
    for file in ["processors.json", "samplers.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file);
        let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for case in cases.iter().filter(|case| case.settings.get("do_sample").is_some()) {
            draws_follow(&case.name, &case.settings, case, &softmax(&case.expected));
            compared += 1;
            if case.settings.contains_key("xtc_probability") {
                // It acts in two of five steps.
                let mut settings = case.settings.clone();
                settings.insert("xtc_probability".into(), 0.4.into());
                let logits: Vec<Option<f32>> = case.logits.iter().map(|x| x.as_f64().map(|x| x as f32)).collect();
                let mixed = softmax(&case.expected).into_iter().zip(softmax(&logits));
                let mixed: Vec<f64> = mixed.map(|(acts, rests)| 0.4 * acts + 0.6 * rests).collect();
                draws_follow(&format!("{} at times", case.name), &settings, case, &mixed);
                compared += 1;
            }
        }
    }
    assert!(compared >= 45, "{compared}");
}
